"""``rlkit compare RUN RUN...``: runs on the same data, ranked by their verdicts and by what was measured in acting.

Each order with its 95 % intervals, which of them overlap, what is not finished, and the settings that differ.
"""

from __future__ import annotations

import itertools
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlkit.cli.parser import Parser
from rlkit.errors import UserError
from rlkit.run.reading import Run, fill_in_data, read_run

FAR = 0.2  # share of actions outside the data above which an estimate is called a guess; the data's own is 0.05
ALIKE = ("discount", "updates")  # what verdicts that are compared must agree in


@dataclass(frozen=True)
class Ranked:
    """A run's value, larger being better, and its interval."""

    run: Run
    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        spread = "no interval" if self.interval is None else f"{self.interval[0]:.4g} to {self.interval[1]:.4g}"
        return f"{self.run.folder}: {self.value:.4g} ({spread})"


def parser() -> Parser:
    found = Parser(prog="rlkit compare", description="Rank runs on the same data.")
    found.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, finished or not")
    return found


def main(argv: list[str]) -> int:
    folders = list(dict.fromkeys(parser().parse_args(argv).runs))
    if len(folders) < 2:
        raise UserError(f"one run, {folders[0]}, has nothing to be compared with, expected two or more")
    runs = [read_run(folder) for folder in folders]
    fill_in_data(runs)
    _require_alike(runs)
    for paragraph in report(runs):
        _print(paragraph)
    return 0


def _require_alike(runs: Sequence[Run]) -> None:
    """Refuse runs on different data or, where they learn by acting, in different environments."""
    first: dict[bool, Run] = {}
    for run in runs:
        if run.settings["data"] == "unknown":
            continue
        other = first.setdefault(True, run)
        if _place(run) != _place(other):
            raise UserError(
                f"{other.folder} is on {_place(other)}, {run.folder} on {_place(run)}, expected runs on the same data"
            )


def _place(run: Run) -> str:
    """What a run is on: two with the same are compared."""
    return f"data {run.settings['data']}" if run.settings["data"] else str(run.settings["env.name"])


def report(runs: Sequence[Run]) -> list[str]:
    """The lines to print; one that begins with spaces goes on indented."""
    known = next((run for run in runs if run.settings["data"] != "unknown"), runs[0])
    data = known.settings["data"]
    lines = [
        f"{len(runs)} runs on {known.settings['env.name']}{f', data {data}' if data not in ('', 'unknown') else ''}"
    ]
    judged = [
        Ranked(run, value, run.interval("verdict", "value_interval95"))
        for run in runs
        if (value := run.number("verdict", "value")) is not None
    ]
    measure = next((str(run.found("measure")) for run in runs if run.found("measure") is not None), "return")
    acted = [
        Ranked(run, value, run.interval("final", f"{measure}_interval95"))
        for run in runs
        if (value := run.number("final", measure)) is not None
    ]
    orders = []
    if judged and (unlike := _unlike(judged)):
        lines.append(f"not ranked by verdict: {unlike}")
    elif judged:
        lines.append("by verdict, the estimated discounted return (95 % over first states, not over the estimator):")
        lines += _order(judged, _outside)
        orders.append(judged)
    if acted:
        name = "normalised score" if measure == "score" else measure.replace("_", " ")
        lines.append(f"by acting, the {name} of the final evaluation (95 % over episodes):")
        lines += _order(acted, lambda run: f"{run.number('final', 'episodes') or 0:.0f} episodes")
        orders.append(acted)
    if len(orders) == 2 and _ranking(judged, acted) != _ranking(acted, judged):
        lines.append("The two orders differ: what was measured in acting counts, the verdict is an estimate.")
    for run in runs:
        if not run.finished:
            lines.append(f"not ranked: {run.folder}, {run.progress}")
        elif all(run is not entry.run for entry in (*judged, *acted)):
            lines.append(f"not ranked: {run.folder}, neither judged nor evaluated; verdict=true asks for a verdict")
        elif judged and acted and all(run is not entry.run for entry in judged):
            lines.append(f"{run.folder} has no verdict; verdict=true asks for one")
    return [*lines, *_differences(runs)]


def _unlike(judged: Sequence[Ranked]) -> str:
    """How verdicts differ that cannot be compared; "" where they can."""
    first = judged[0].run
    for name in ALIKE:
        for entry in judged:
            here, there = first.number("verdict", name), entry.run.number("verdict", name)
            if here != there:
                return f"{first.folder} was judged with {name}={here:g}, {entry.run.folder} with {there:g}"
    return ""


def _outside(run: Run) -> str:
    share = run.number("verdict", "outside")
    if share is None:
        return ""
    far = ", so this is a guess" if share > FAR else ""
    return f"{100 * share:.0f} % of its actions outside the data{far}"


def _order(entries: list[Ranked], beside: Callable[[Run], str]) -> list[str]:
    """``entries``, which are sorted here, the best first, and which neighbours' order is not shown by the intervals."""
    entries.sort(key=lambda entry: -entry.value)
    lines = [f"  {place}. {entry}, {beside(entry.run)}" for place, entry in enumerate(entries, 1)]
    pairs = itertools.pairwise(entries)
    close = [
        f"{place} and {place + 1}"
        for place, (one, other) in enumerate(pairs, 1)
        if one.interval is None or other.interval is None or one.interval[0] <= other.interval[1]
    ]
    if close:
        lines.append(f"  Intervals overlap, or are missing, of {', '.join(close)}: which is better is not shown.")
    return lines


def _ranking(entries: Sequence[Ranked], others: Sequence[Ranked]) -> list[Path]:
    both = {entry.run.folder for entry in others}
    return [entry.run.folder for entry in entries if entry.run.folder in both]


def _differences(runs: Sequence[Run]) -> list[str]:
    """The settings of each run in which not all are alike, those of agents among the runs of that agent."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    lines = []
    for run in runs:
        agent = run.settings["agent.name"]
        alike = [other for other in runs if other.settings["agent.name"] == agent]
        words = [agent] if len(alike) < len(runs) else []
        for name in names:
            others = alike if name.startswith("agent.") else runs
            differs = any(other.settings.get(name) != run.settings.get(name) for other in others)
            if name not in ("agent.name", "data") and name in run.settings and differs:
                words.append(f"{name}={run.settings[name]}")
        if any(other.seed != run.seed for other in runs):
            words.append(f"seed={run.seed}")
        if words:
            lines.append(f"  {run.folder}: {' '.join(words)}")
    return ["what differs:", *lines] if lines else ["The runs differ in no setting, the seed included."]


def _print(paragraph: str) -> None:
    """``paragraph`` within the terminal's width, what goes on indented; names are not broken."""
    width = max(40, shutil.get_terminal_size((100, 24)).columns)
    indent = "     " if paragraph.startswith("  ") else "  "
    for line in textwrap.wrap(
        paragraph, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ):
        print(line)
