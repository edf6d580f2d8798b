"""The bench's table and its JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlkit import __version__
from rlkit.bench.measure import Line, Settings, Times
from rlkit.system.files import write_atomically
from rlkit.system.machine import processor

PACKAGES = (
    *("torch", "numpy", "scipy", "numba", "stable-baselines3", "gymnasium", "mujoco"),
    *("d3rlpy", "jax", "envpool", "rl4co", "simglucose"),
)
METHOD = (
    "sides take turns in one process; seconds are medians over blocks, a ratio is the median of the per-round ratios, "
    "its spread their quartiles"
)
PRECISION = {"speed-up": "{:.3g}x", "fraction": "{:.2f}x", "share": "{:.0%}"}


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    return {"system": platform.platform(), "processor": processor(), "cores": cores, "load_average": load}


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "rlkit": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _times(times: Times | None) -> dict[str, Any] | None:
    if times is None:
        return None
    return {"median_seconds": times.median, "units_per_block": times.block, "seconds": times.seconds}


def line_json(line: Line) -> dict[str, Any]:
    return {
        "row": line.row,
        "what": line.what,
        "unit": line.unit,
        "kind": line.kind,
        "ours": _times(line.ours),
        "peer": _times(line.peer),
        "ratio": line.ratio,
        "spread": line.spread,
        "goal": line.goal,
        "met": line.met,
        "note": line.note,
        "skipped": line.skipped or None,
        "details": line.details,
    }


def report(lines: Sequence[Line], settings: Settings) -> dict[str, Any]:
    return {
        "format": 1,
        "method": METHOD,
        "machine": machine(),
        "versions": versions(),
        "settings": asdict(settings),
        "lines": [line_json(line) for line in lines],
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that a reader never sees half of it; :class:`UserError` where the folder does not take it."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _seconds(times: Times | None) -> str:
    if times is None:
        return "-"
    value = times.median
    scale, unit = next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms")) if value >= s), (1e-6, "us"))
    return f"{value / scale:.3g} {unit}"


def print_table(lines: Sequence[Line], settings: Settings) -> None:
    """One line per comparison: time per unit on both sides, ratio with quartiles, goal."""
    from rich.console import Console
    from rich.table import Table

    title = "rlkit bench" + (" (quick: to see that it runs, not to quote)" if settings.quick else "")
    table = Table(title=title, caption=METHOD, caption_justify="left")
    for heading in ("row", "ours", "peer", "ratio", "goal", "met?"):
        table.add_column(heading, justify="left" if heading == "row" else "right", overflow="fold")
    for line in lines:
        name = f"[bold]{line.row}[/]\n{_escape(line.what)}, per {line.unit}"
        remark = line.skipped or line.note
        name += f"\n[dim]{_escape(remark)}[/]" if remark else ""
        if line.ratio is None or line.spread is None:
            table.add_row(name, "-", "-", "-", _goal(line), "-")
            continue
        form = PRECISION[line.kind]
        ratio = f"{form.format(line.ratio)}\n[dim]{form.format(line.spread[0])} to {form.format(line.spread[1])}[/]"
        met = {None: "-", True: "[green]yes[/]", False: "[red]no[/]"}[line.met]
        table.add_row(name, _seconds(line.ours), _seconds(line.peer), ratio, _goal(line), met)
    Console().print(table)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _goal(line: Line) -> str:
    if line.goal is None:
        return "-"
    return (">= " if line.kind == "speed-up" else "<= ") + PRECISION[line.kind].format(line.goal)
