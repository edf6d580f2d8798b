"""Statistics for tables, by SciPy: interquartile mean, stratified bootstrap intervals, probability of improvement.

Which of them to report is after Agarwal et al. (2021).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from rlkit.errors import UserError

Interval = tuple[float, float]


def iqm(values: np.ndarray, axis: int | None = None) -> Any:
    """Mean of the middle half of ``values``, whole samples only: of all, or along ``axis``."""
    from scipy.stats import trim_mean

    return trim_mean(_finite("an interquartile mean", values), 0.25, axis)


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[..., Any] = np.mean,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
    strata: Sequence[Hashable] | None = None,
) -> Interval:
    """Percentile bootstrap interval of ``statistic`` over a vector of independent ``values`` ``[n]``.

    ``statistic`` is given values and ``axis``.  ``strata`` ``[n]`` names the group of each value, such as its task:
    with it every group is resampled by itself.

    One value says nothing of how values spread: its interval is ``(nan, nan)``, there is none, and so with strata of
    one value each.  Raises :class:`UserError` for no values, ones that are not finite, and strata of another length.
    """
    values = _finite("an interval", values).ravel()
    groups: dict[Hashable, list[float]] = defaultdict(list)
    if strata is not None and len(strata) != len(values):
        raise UserError(f"an interval of {len(values)} values needs as many strata, got {len(strata)}")
    for name, value in zip(strata if strata is not None else [None] * len(values), values, strict=True):
        groups[name].append(value)
    return _bootstrap(
        [np.array(group) for group in groups.values()],
        lambda *drawn, axis: statistic(np.concatenate(drawn, axis=axis), axis=axis),
        level,
        samples,
        seed,
    )


def improvement(pairs: Sequence[tuple[np.ndarray, np.ndarray]], samples: int = 2000) -> tuple[float, Interval]:
    """Probability that a run of one method is better than one of another, the mean over tasks, and its 95 % interval.

    ``pairs``: for each task the values ``[n]`` of the one method and ``[m]`` of the other; equal ones count half.
    Where a method has a single value of a task there is no interval, ``(nan, nan)``.
    """
    from scipy.stats import mannwhitneyu

    def statistic(*drawn: np.ndarray, axis: int = -1) -> Any:
        found = [
            mannwhitneyu(one, other, axis=axis, method="asymptotic").statistic / (one.shape[axis] * other.shape[axis])
            for one, other in zip(drawn[::2], drawn[1::2], strict=True)
        ]
        return np.mean(found, axis=0)

    flat = [_finite("a probability of improvement", values).ravel() for pair in pairs for values in pair]
    single = any(len(values) == 1 for values in flat)
    return float(statistic(*flat)), (np.nan, np.nan) if single else _bootstrap(flat, statistic, 0.95, samples, 0)


def _bootstrap(
    groups: Sequence[np.ndarray], statistic: Callable[..., Any], level: float, samples: int, seed: int
) -> Interval:
    """Every group of ``groups`` is resampled by itself; one of a single value stays as it is."""
    from scipy.stats import bootstrap

    several = [group for group in groups if len(group) > 1]
    if not several:
        return float("nan"), float("nan")

    def drawn_and_single(*drawn: np.ndarray, axis: int) -> Any:
        left = iter(drawn)
        shape = drawn[0].shape[:-1]
        every = [next(left) if len(group) > 1 else np.broadcast_to(group, (*shape, 1)) for group in groups]
        return statistic(*every, axis=axis)

    found = bootstrap(
        several,
        drawn_and_single,
        n_resamples=samples,
        vectorized=True,
        axis=-1,
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _finite(what: str, values: np.ndarray) -> np.ndarray:
    found = np.asarray(values, np.float64)
    if not found.size or not np.isfinite(found).all():
        wrong = np.count_nonzero(~np.isfinite(found))
        said = f"{wrong} of {found.size} not finite" if found.size else "none"
        raise UserError(f"{what} needs finite values, got {said}")
    return found


def decimals(value: float) -> int:
    """Digits to print after the point: returns of hundreds need one, a tour's length of a few units three."""
    return 1 if abs(value) >= 100 else 3
