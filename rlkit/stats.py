"""Statistics for tables: interquartile mean and bootstrap intervals, stratified or not (Agarwal et al. 2021)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from rlkit.errors import UserError


def iqm(values: np.ndarray) -> float:
    """Mean of the middle half of all ``values``, whole samples only, as scipy's ``trim_mean(x, 0.25)``."""
    flat = np.sort(_finite("an interquartile mean", values))
    cut = int(0.25 * len(flat))
    return float(flat[cut : len(flat) - cut].mean())


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] | None = None,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
    strata: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``statistic`` (the mean) over a vector of independent ``values`` ``[n]``.

    ``strata`` ``[n]`` names the group of each value, such as its task: with it every group is resampled by itself.

    One value says nothing of how values spread: its interval is ``(nan, nan)``, there is none, and so with strata of
    one value each.  Raises :class:`UserError` for no values, ones that are not finite, and strata of another length.
    """
    values = _finite("an interval", values)
    groups: dict[Hashable, list[int]] = defaultdict(list)
    if strata is not None and len(strata) != len(values):
        raise UserError(f"an interval of {len(values)} values needs as many strata, got {len(strata)}")
    for i, name in enumerate(strata if strata is not None else [None] * len(values)):
        groups[name].append(i)
    if all(len(rows) == 1 for rows in groups.values()):
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    drawn = np.concatenate(
        [values[np.array(rows)[generator.integers(len(rows), size=(samples, len(rows)))]] for rows in groups.values()],
        axis=1,
    )  # [samples, n]
    found = drawn.mean(axis=1) if statistic is None else np.array([statistic(row) for row in drawn])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _finite(what: str, values: np.ndarray) -> np.ndarray:
    flat = np.asarray(values, np.float64).ravel()
    if not len(flat) or not np.isfinite(flat).all():
        found = f"{np.count_nonzero(~np.isfinite(flat))} of {len(flat)} not finite" if len(flat) else "none"
        raise UserError(f"{what} needs finite values, got {found}")
    return flat


def decimals(value: float) -> int:
    """Digits to print after the point: returns of hundreds need one, a tour's length of a few units three."""
    return 1 if abs(value) >= 100 else 3
