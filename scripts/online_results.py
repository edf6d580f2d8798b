"""Make docs/online-results.md and its figures from finished runs of agents that act, and from nothing else.

    python scripts/online_results.py online --planned 36

A run's folder is LABEL_ENV_sSEED; see ``make_results.py``, whose rules for what may share a row hold here too.  *Last*
is the mean of a run's last three evaluations, *peak* its best one: the two differ, and papers often print the second.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from make_results import interval, load

from rlkit.cli.plot import draw

Groups = dict[tuple[str, str], list[dict[str, Any]]]
LAST = 3
# figures beside the returns, where a run has logged the key: its name in the file, and what the axis says
EXTRA = {"rank/nrr_0.1": ("rank", "features' rank at ε = 0.1")}
# what the last tenth of a run's metrics say, in a column each where some run of the task has logged it
COLUMNS = {
    "rank/nrr_0.1": ("rank, ε = 0.1", "{:.0f}"),
    "rank/nrr_0.01": ("rank, ε = 0.01", "{:.0f}"),
    "beer/active_frac": ("penalty active", "{:.1%}"),
    "model/epochs": ("epochs a fit", "{:.0f}"),
}


def progress(result: dict[str, Any]) -> int:
    """Environment steps of a run; older results have them under "updates"."""
    return result.get("steps", result["updates"])


def logged(result: dict[str, Any], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of ``key`` in a run's metrics."""
    entries = [json.loads(line) for line in result["metrics"].splitlines()]
    found = [(e["step"], e[key]) for e in entries if key in e]
    return [step for step, _ in found], [value for _, value in found]


def late(results: list[dict[str, Any]], key: str) -> float | None:
    """Mean of ``key`` over the last tenth of every run."""
    values = []
    for result in results:
        steps, found = logged(result, key)
        values += [v for s, v in zip(steps, found, strict=True) if s > 0.9 * progress(result)]
    return float(np.mean(values)) if values else None


def row(label: str, results: list[dict[str, Any]], keys: list[str]) -> list[str]:
    last = [float(np.mean([e["return"] for e in r["evaluations"][-LAST:]])) for r in results]
    finals = [r["final"]["return"] for r in results]
    speed = [1000 * (r["seconds"] - r["seconds_evaluating"]) / progress(r) for r in results]
    cells = [label, ", ".join(str(r["seed"]) for r in results), interval(last)]
    cells += [interval([r["best"] for r in results]), interval(finals), f"{np.median(speed):.0f}"]
    for key in keys:
        value = late(results, key)
        cells.append("" if value is None else COLUMNS[key][1].format(value))
    return cells


def table(env: str, groups: Groups) -> list[str]:
    own = {label: results for (name, label), results in sorted(groups.items()) if name == env}
    keys = [key for key in COLUMNS if any(late(results, key) is not None for results in own.values())]
    some = next(iter(own.values()))[0]
    steps = sorted({progress(r) for results in own.values() for r in results})
    games = some["final"]["episodes"]
    header = ["run", "seeds", f"last {LAST} evaluations [95 %]", "peak [95 %]", f"final, {games} episodes [95 %]"]
    header += ["s per 1k steps", *(COLUMNS[key][0] for key in keys)]
    every = some["evaluations"][1]["step"] - some["evaluations"][0]["step"]
    each = len(some["evaluations"][0]["returns"])
    return [
        f"## {env}",
        "",
        f"{' / '.join(f'{s:,}' for s in steps)} environment steps; {each} episodes every {every:,} steps.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row(label, results, keys)) + " |" for label, results in own.items()),
        "",
    ]


def figures(env: str, groups: Groups, out: Path) -> list[str]:
    curves: dict[str, dict[str, list[tuple[list[int], list[float]]]]] = defaultdict(lambda: defaultdict(list))
    for (name, label), results in sorted(groups.items()):
        for result in results if name == env else []:
            evaluations = result["evaluations"]
            curves["return"][label].append(([e["step"] for e in evaluations], [e["return"] for e in evaluations]))
            for key, (short, _) in EXTRA.items():
                steps, values = logged(result, key)
                if values:
                    curves[short][label].append((steps, values))
    lines = []
    for short, by_label in curves.items():
        path = out.parent / "assets" / f"online_{env}_{short}.png"
        axis = next((text for name, text in EXTRA.values() if name == short), "return")
        draw(dict(by_label), f"{axis}, {env}", path, steps="environment steps")
        lines += [f"![{env}: {axis} against environment steps](assets/{path.name})", ""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", help="a family of evidence.py, or a folder of runs")
    parser.add_argument("--out", type=Path, default=Path("docs/online-results.md"))
    parser.add_argument("--planned", type=int, default=0, help="runs there should be; fewer is called unfinished")
    arguments = parser.parse_args()
    groups: Groups = load(arguments.source)
    runs = [r for group in groups.values() for r in group]
    machine = runs[0]["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in runs[0]["versions"].items())
    lines = [
        "# Results of agents that act",
        "",
        "Made by `scripts/online_results.py` from the runs' `result.json` and `metrics.jsonl`; no figure is typed in. "
        "What was run, and what it does and does not show, is said in the methods' pages.",
        "",
    ]
    if len(runs) < arguments.planned:
        lines += [f"**Unfinished**: {len(runs)} of {arguments.planned} runs are through.", ""]
    lines += [
        f"Machine: {machine['processor']}, {machine['system']}, {machine['threads']} thread a run, two or three "
        f"runs at a time: the seconds are those of a busy machine. Versions: {versions}. Intervals are percentile "
        "bootstraps over seeds: with three seeds they are rough. Bands in the figures are the range over seeds.",
        "",
    ]
    for env in sorted({name for name, _ in groups}):
        lines += [*table(env, groups), *figures(env, groups, arguments.out)]
    arguments.out.write_text("\n".join(lines).rstrip() + "\n")
    print(f"wrote {arguments.out} from {len(runs)} runs")


if __name__ == "__main__":
    main()
