"""Statistics for tables: interquartile mean and stratified bootstrap intervals (Agarwal et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def iqm(values: np.ndarray) -> float:
    """Mean of the middle half of all ``values``, whole samples only, as scipy's ``trim_mean(x, 0.25)``."""
    flat = np.sort(np.asarray(values, np.float64).ravel())
    cut = int(0.25 * len(flat))
    return float(flat[cut : len(flat) - cut].mean())


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] = lambda x: float(np.mean(x)),
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``statistic`` over a vector of independent ``values`` ``[n]``."""
    values = np.asarray(values, np.float64).ravel()
    generator = np.random.default_rng(seed)
    drawn = values[generator.integers(len(values), size=(samples, len(values)))]
    found = np.array([statistic(row) for row in drawn])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def decimals(value: float) -> int:
    """Digits to print after the point: returns of hundreds need one, a tour's length of a few units three."""
    return 1 if abs(value) >= 100 else 3
