"""``rlkit compare RUN RUN...``: runs on the same data, ranked by their verdicts and by what was measured in acting.

Runs that differ in their seed alone are one row.  Each order with its 95 % intervals, which of them overlap, what is
not finished, and the settings that differ.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlkit.cli.parser import Parser
from rlkit.errors import UserError, shown
from rlkit.run.reading import Run, by, fill_in_data, read_run, same_settings
from rlkit.run.tables import unlike
from rlkit.stats import Interval

NORMAL = 3.92  # standard deviations from end to end of a normal distribution's 95 % interval


@dataclass(frozen=True)
class Ranked:
    """A row of an order: runs of one configuration, the value of each, and the interval of their mean."""

    runs: tuple[Run, ...]
    values: tuple[float, ...]
    interval: Interval | None

    @property
    def value(self) -> float:
        return float(np.mean(self.values))

    def __str__(self) -> str:
        spread = "no interval" if self.interval is None else f"{self.interval[0]:.4g} to {self.interval[1]:.4g}"
        if len(self.runs) > 1:
            each = zip(self.runs, self.values, strict=True)
            spread += "".join(f", seed {run.seed} {value:.4g}" for run, value in each)
        return f"{_name(self.runs)}: {self.value:.4g} ({spread})"

    def overlaps(self, other: Ranked) -> bool:
        """Whether the intervals do not tell the two apart: they have values in common, or one is missing."""
        one, two = self.interval, other.interval
        return one is None or two is None or max(one[0], two[0]) <= min(one[1], two[1])


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
    """Refuse runs on different data, or judged by acting in different environments."""
    known = [run for run in runs if run.settings["data"] != "unknown"]
    for run in known[1:]:
        if run.settings["data"] != known[0].settings["data"]:
            raise UserError(
                f"{known[0].folder} is on {_data(known[0])}, {run.folder} on {_data(run)}, expected runs on the same "
                "data"
            )
    placed = [(run, run.environment) for run in runs if run.environment is not None]
    for run, environment in placed[1:]:
        if environment != placed[0][1]:
            raise UserError(
                f"{placed[0][0].folder} acts in {placed[0][1]}, {run.folder} in {environment}, expected runs in the "
                "same environment"
            )


def _data(run: Run) -> str:
    return f"data {run.settings['data']}" if run.settings["data"] else f"{run.settings['env.name']} without data"


def report(runs: Sequence[Run]) -> list[str]:
    """The lines to print; one that begins with spaces goes on indented."""
    known = next((run for run in runs if run.settings["data"] != "unknown"), runs[0])
    data = known.settings["data"]
    lines = [
        f"{len(runs)} runs on {known.settings['env.name']}{f', data {data}' if data not in ('', 'unknown') else ''}"
    ]
    rows = configurations(runs)
    seeds = " and seeds" if len(rows) < len(runs) else ""
    judged, orders = _ranked(rows, "verdict", "value"), []
    if judged and (found := unlike(runs)) is not None:
        name, one, other = found
        here, there = (shown(run.found("verdict", name)) for run in (one, other))
        lines.append(f"not ranked by verdict: {one.folder} was judged with {name}={here}, {other.folder} with {there}")
    elif judged:
        lines.append(
            f"by verdict, the estimated discounted return (95 % over first states{seeds}, not over the estimator):"
        )
        lines += _order(judged, _trust)
        orders.append(judged)
    acted, title = _acted(rows)
    if acted:
        lines.append(f"by acting, the {title} of the final evaluation (95 % over episodes{seeds}):")
        lines += _order(acted, _episodes)
        orders.append(acted)
    if len(orders) == 2 and _ranking(judged, acted) != _ranking(acted, judged):
        lines.append("The two orders differ: what was measured in acting counts, the verdict is an estimate.")
    with_verdict, with_score = ({id(run) for row in order for run in row.runs} for order in (judged, acted))
    for run in runs:
        if not run.finished:
            lines.append(f"not ranked: {run.folder}, {run.progress}")
        elif id(run) not in with_verdict | with_score:
            lines.append(f"not ranked: {run.folder}, neither judged nor evaluated; verdict=true asks for a verdict")
        elif judged and id(run) not in with_verdict:
            lines.append(f"{run.folder} has no verdict; verdict=true asks for one")
    return [*lines, *_differences(rows)]


def configurations(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of the same settings and different seeds, under a name for each; a seed that is there twice is a row of its
    own."""
    places: dict[tuple[str, int], list[Run]] = {}
    for alike in same_settings(list(runs)):
        for copies in by(alike, lambda run: json.dumps(run.seed, default=str)).values():
            for place, run in enumerate(copies):
                places.setdefault((str(alike[0].folder), place), []).append(run)
    return {_name(found): found for found in places.values()}


def _name(runs: Sequence[Run]) -> str:
    return str(runs[0].folder) + (f" and {len(runs) - 1} other seed{'s' * (len(runs) > 2)}" if len(runs) > 1 else "")


def _ranked(rows: dict[str, list[Run]], *keys: str, smaller: bool = False) -> list[Ranked]:
    """The rows that have numbers under ``keys``, the best first."""
    found = []
    for runs in rows.values():
        having = [run for run in runs if run.number(*keys) is not None]
        if having:
            values = tuple(run.number(*keys) or 0.0 for run in having)
            intervals = [run.interval(*keys[:-1], f"{keys[-1]}_interval95") for run in having]
            found.append(Ranked(tuple(having), values, over_seeds(values, intervals)))
    return sorted(found, key=lambda row: row.value if smaller else -row.value)


def over_seeds(values: Sequence[float], intervals: Sequence[Interval | None]) -> Interval | None:
    """The 95 % interval of the mean of ``values``, one for each seed, each with its own interval over episodes.

    Of one seed it is that seed's.  Of several it is a bootstrap of two stages: seeds are drawn, then for each a value
    from the normal distribution that its own interval is of; a seed without one stands as it is.
    """
    if len(values) == 1:
        return intervals[0]
    random, count = np.random.default_rng(0), len(values)
    spread = np.array([0.0 if ends is None else (ends[1] - ends[0]) / NORMAL for ends in intervals])  # [n]
    drawn = random.integers(count, size=(4_000, count))
    means = (np.array(values)[drawn] + spread[drawn] * random.standard_normal(drawn.shape)).mean(axis=1)  # [4000]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _acted(rows: dict[str, list[Run]]) -> tuple[list[Ranked], str]:
    """The order by acting, and what it is by: gaps, of which less is better, where all have them."""
    finals = [final for found in rows.values() for run in found if isinstance(final := run.found("final"), dict)]
    everywhere = {name: 0 for name in (finals or [{}])[0] if all(name in final for final in finals)}
    if "gap" in everywhere:
        return _ranked(rows, "final", "gap", smaller=True), "gap in percent, less being better,"
    from rlkit.algorithms.evaluate import measures  # here: help loads nothing slow

    measure = measures(everywhere)[0]
    title = "normalised score" if measure == "score" else measure.replace("_", " ")
    return _ranked(rows, "final", measure), title


def _trust(row: Ranked) -> str:
    """How far a row's estimate can be believed, by the run of which it can be least."""
    from rlkit.algorithms.verdict import doubts

    shares = [share for run in row.runs if (share := run.number("verdict", "outside")) is not None]
    said = [f"{100 * max(shares):.0f} % of its actions outside the data"] if shares else []
    away = [apart for run in row.runs if (apart := run.number("verdict", "action_distance")) is not None]
    said += [f"action distance {max(away):.2f}"] if away else []
    for run in row.runs:
        value, limits = run.number("verdict", "value"), run.interval("verdict", "recorded_range")
        reasons = doubts(value or 0.0, run.number("verdict", "outside") or 0.0, limits)
        if reasons:
            return ", ".join([*said, f"so this is a guess: {reasons[-1]}"])
    return ", ".join(said)


def _episodes(row: Ranked) -> str:
    return f"{sum(run.number('final', 'episodes') or 0 for run in row.runs):.0f} episodes"


def _order(rows: Sequence[Ranked], beside: Callable[[Ranked], str]) -> list[str]:
    """``rows`` as lines, and which of them the intervals do not tell apart."""
    lines = [f"  {place}. {', '.join(filter(None, (str(row), beside(row))))}" for place, row in enumerate(rows, 1)]
    close = []
    for place, row in enumerate(rows, 1):
        others = [further for further, other in enumerate(rows[place:], place + 1) if row.overlaps(other)]
        if others:
            whole = len(others) > 2 and others[-1] - others[0] == len(others) - 1
            close.append(f"{place} and {f'{others[0]} to {others[-1]}' if whole else ', '.join(map(str, others))}")
    if close:
        lines.append(f"  Intervals overlap, or are missing, of {'; '.join(close)}: which is better is not shown.")
    return lines


def _ranking(rows: Sequence[Ranked], others: Sequence[Ranked]) -> list[Path]:
    both = {row.runs[0].folder for row in others}
    return [row.runs[0].folder for row in rows if row.runs[0].folder in both]


def _differences(rows: dict[str, list[Run]]) -> list[str]:
    """The settings of each row in which not all are alike, those of agents among the rows of that agent."""
    firsts = [runs[0] for runs in rows.values()]
    names = list(dict.fromkeys(name for run in firsts for name in run.settings))
    lines = []
    for row, runs in rows.items():
        run = runs[0]
        agent = run.settings["agent.name"]
        alike = [other for other in firsts if other.settings["agent.name"] == agent]
        words = [agent] if len(alike) < len(firsts) else []
        for name in names:
            others = alike if name.startswith("agent.") else firsts
            differs = any(other.settings.get(name) != run.settings.get(name) for other in others)
            if name not in ("agent.name", "data") and name in run.settings and differs:
                words.append(f"{name}={run.settings[name]}")
        if len(runs) == 1 and any(other.seed != run.seed for other in firsts):
            words.append(f"seed={run.seed}")
        if words:
            lines.append(f"  {row}: {' '.join(words)}")
    if lines:
        return ["what differs:", *lines]
    return ["The runs differ in no setting, the seed included." if len(rows) > 1 else "The runs differ in seed alone."]


def _print(paragraph: str) -> None:
    """``paragraph`` within the terminal's width, what goes on indented; names are not broken."""
    width = max(40, shutil.get_terminal_size((100, 24)).columns)
    indent = "     " if paragraph.startswith("  ") else "  "
    for line in textwrap.wrap(
        paragraph, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ):
        print(line)
