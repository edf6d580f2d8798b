"""What a report says of finished runs: a value each, their means with intervals, which method is probably better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlkit.errors import UserError, shown
from rlkit.run.reading import Run
from rlkit.stats import Interval, bootstrap_interval, improvement, iqm

MEASURES = ("score", "true_return", "return", "verdict")  # the first that all finished runs have is reported
NAMES = {
    "score": "normalised score of the final evaluation",
    "true_return": "true return of the final evaluation",
    "return": "return of the final evaluation",
    "verdict": "discounted return, estimated from the data alone",
}
POINTS = 41  # thresholds of a performance profile


def value(run: Run, measure: str) -> float | None:
    """What ``run`` came to by ``measure``."""
    return run.number("verdict", "value") if measure == "verdict" else run.number("final", measure)


def common_measure(runs: Sequence[Run]) -> str | None:
    """What all finished runs that were measured have; None without any.

    Raises :class:`UserError` where they have nothing in common: such numbers do not belong on one page.
    """
    own = {run.folder: [m for m in MEASURES if value(run, m) is not None] for run in runs if run.finished}
    own = {folder: found for folder, found in own.items() if found}
    if not own:
        return None
    for measure in MEASURES:
        if all(measure in found for found in own.values()):
            return measure
    first, *rest = own.items()
    other = next((entry for entry in rest if not set(entry[1]) & set(first[1])), rest[0])
    raise UserError(
        f"{first[0]} is measured by its {first[1][0]}, {other[0]} by its {other[1][0]}, "
        "expected runs that one measure is known of"
    )


def unlike(runs: Sequence[Run]) -> tuple[str, Run, Run] | None:
    """What verdicts that are compared must agree in and do not, and two runs that differ in it."""
    judged = [run for run in runs if value(run, "verdict") is not None]
    for name in ("discount", "updates"):
        for run in judged[1:]:
            if run.found("verdict", name) != judged[0].found("verdict", name):
                return name, judged[0], run
    return None


def require_alike(runs: Sequence[Run]) -> None:
    """Raise :class:`UserError` where verdicts on one environment were made in ways that cannot be compared."""
    if (found := unlike(runs)) is not None:
        name, one, other = found
        here, there = (shown(run.found("verdict", name)) for run in (one, other))
        raise UserError(
            f"{one.folder} was judged with {name}={here}, {other.folder} with {name}={there}, "
            "expected verdicts of one kind"
        )


@dataclass(frozen=True)
class Row:
    """A method: its runs' values by task, their mean and interquartile mean, and 95 % intervals, nan where none is."""

    label: str
    by_task: Mapping[str, np.ndarray]
    mean: float
    mean_interval: Interval
    iqm: float
    iqm_interval: Interval

    @property
    def values(self) -> np.ndarray:
        return np.concatenate(list(self.by_task.values()))


def row(label: str, by_task: Mapping[str, Sequence[float]]) -> Row:
    """``by_task``: values of the method's runs, one at least; tasks are resampled by themselves."""
    arrays = {task: np.array(values, np.float64) for task, values in by_task.items()}
    flat = np.concatenate(list(arrays.values()))
    strata = [task for task, values in arrays.items() for _ in values]
    return Row(
        label,
        arrays,
        float(np.mean(flat)),
        bootstrap_interval(flat, strata=strata),
        float(iqm(flat)),
        bootstrap_interval(flat, iqm, strata=strata),
    )


def better(one: Row, other: Row) -> tuple[float, Interval]:
    """Probability that a run of ``one`` is better than a run of ``other``, over the tasks that both have."""
    return improvement([(one.by_task[task], other.by_task[task]) for task in one.by_task if task in other.by_task])


def profile(found: Row, thresholds: np.ndarray) -> tuple[np.ndarray, list[Interval]]:
    """Share of runs above each of ``thresholds`` ``[t]``, and 95 % intervals, none for a run alone."""
    strata = [task for task, values in found.by_task.items() for _ in values]
    above = [(found.values > threshold).astype(float) for threshold in thresholds]
    intervals = [bootstrap_interval(values, strata=strata) for values in above]
    return np.array([values.mean() for values in above]), [] if np.isnan(intervals[0]).any() else intervals


def thresholds(rows: Sequence[Row]) -> np.ndarray:
    """Evenly from just below the least value to the greatest ``[t]``."""
    every = np.concatenate([found.values for found in rows])
    low, high = float(every.min()), float(every.max())
    return np.linspace(low - max(0.02 * (high - low), 1e-9), high, POINTS)
