"""What may be expected of learning from a dataset: how returns spread, what is covered, what cloning may come to."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from rlkit.data.dataset import OfflineDataset

REGRESSION_ROWS = 20_000  # enough for a stable fit of some hundred features
RANDOM_UNITS = 128
COLUMNS = 32  # of actions that are looked at
CELLS, SELDOM = 10, 1e-3  # equal parts of an action's bounds; the share of rows from which on a part is covered
ASKED = 1000  # states whose neighbours are looked for
SURE = 0.1  # spread of returns, and share of actions unexplained, below which there is little to choose by


def standardised(x: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1; constant ones are left out."""
    spread = x.std(axis=0)
    return (x - x.mean(axis=0))[:, spread > 1e-8] / spread[spread > 1e-8]


def features(x: np.ndarray) -> np.ndarray:
    """``[n, k]``: the columns of ``x`` ``[n, d]``, their squares, and random tanh units for other curves."""
    plain = standardised(x)
    units = np.random.default_rng(0).standard_normal((plain.shape[1], min(RANDOM_UNITS, len(x) // 10)))
    curved = np.tanh(plain @ units / np.sqrt(max(plain.shape[1], 1)) + np.linspace(-1, 1, units.shape[1]))
    return standardised(np.concatenate((plain, plain**2, curved), axis=1))


def unexplained(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``[k]``: the share of each column's variance of ``y`` ``[n, k]`` that a ridge fit on ``x`` leaves, at most 1.

    A quarter of the rows, drawn as behaviours may have a rhythm, is held out, so that many features cannot fake a fit.
    """
    y = y - y.mean(axis=0)
    train = np.random.default_rng(1).random(len(y)) >= 0.25
    moments = x[train].T @ x[train] + 1e-8 * train.sum() * np.eye(x.shape[1])
    rest = y[~train] - x[~train] @ np.linalg.solve(moments, x[train].T @ y[train])
    return np.minimum((rest**2).mean(axis=0) / np.maximum((y[~train] ** 2).mean(axis=0), 1e-12), 1.0)


def every(data: OfflineDataset, rows: int) -> np.ndarray:
    """``rows`` of the data's rows or all, at equal distances."""
    return np.arange(0, len(data), max(1, len(data) // rows))


def behaviour(data: OfflineDataset) -> float | None:
    """Share of the actions' variance that a fit on states leaves; None where there are too few rows to tell."""
    rows = every(data, REGRESSION_ROWS)
    states = data.observations.reshape(len(data), -1)[rows].astype(np.float64)
    actions = standardised(data.action_columns(rows).astype(np.float64))[:, :COLUMNS]
    if len(rows) < 20 * states.shape[1] or not (states.std(axis=0) > 1e-8).any() or not actions.shape[1]:
        return None
    return float(unexplained(features(states), actions).mean())


def actions_covered(data: OfflineDataset) -> float | None:
    """Share of the actions there are that one row in a thousand or more takes; None without bounds.

    Of a box: of :data:`CELLS` equal parts of each column's bounds, the mean over columns.
    """
    space = data.action_space
    if isinstance(space, gym.spaces.Discrete):
        counts = np.bincount(data.actions - space.start, minlength=int(space.n))  # [n]
        return float((counts >= SELDOM * len(data)).mean())
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    if not np.isfinite(high - low).all() or (high <= low).any():
        return None
    places = (data.action_columns() - low) / (high - low) * CELLS  # [n, da]
    cells = places.astype(np.int64).clip(0, CELLS - 1)
    counts = np.stack([np.bincount(column, minlength=CELLS) for column in cells.T])  # [da, CELLS]
    return float((counts >= SELDOM * len(data)).mean())


def apart(data: OfflineDataset) -> float | None:
    """How far the nearest state of another episode is, in units of how far one at random is: medians over states.

    Columns are standardised.  None with one episode, or where states do not differ.
    """
    rows = every(data, REGRESSION_ROWS)
    states = standardised(data.observations.reshape(len(data), -1)[rows].astype(np.float64)).astype(np.float32)
    episodes = np.searchsorted(data.episode_ends, rows, side="right")  # [n]
    if episodes[0] == episodes[-1] or not states.shape[1]:
        return None
    nearest, usual, sizes = [], [], (states**2).sum(axis=1)
    for one in np.arange(len(rows))[:: max(1, len(rows) // ASKED)]:
        others = episodes != episodes[one]
        squares = (sizes[others] + sizes[one] - 2 * (states[others] @ states[one])).clip(0)  # [others]
        nearest.append(squares.min())
        usual.append(np.median(squares))
    return float(np.sqrt(np.median(nearest) / max(np.median(usual), 1e-12)))


def expectations(data: OfflineDataset) -> list[str]:
    """What may be expected of learning from ``data``, a sentence each with the statistics it rests on.

    How far returns (sums of rewards of whole episodes, undiscounted) spread; what of the actions and states is covered;
    how much of the actions' variance states leave unexplained; and, where there are ten episodes or more, whether
    cloning is expected to win.
    """
    told, spread = [], None
    starts = np.concatenate(([0], data.episode_ends[:-1]))
    returns = np.add.reduceat(data.rewards.astype(np.float64), starts)  # [episodes]
    if not data.reward_free:
        spread = float(returns.std() / max(abs(returns.mean()), 1e-12))
        told.append(
            f"returns of {len(returns)} episodes: mean {returns.mean():.4g}, standard deviation {returns.std():.3g} "
            f"({100 * spread:.1f} % of the mean), from {returns.min():.4g} to {returns.max():.4g}"
        )
    share, distance, low = actions_covered(data), apart(data), behaviour(data)
    covered = [f"{100 * share:.0f} % of the actions there are"] if share is not None else []
    if distance is not None:
        text = f"the nearest state of another episode is {100 * distance:.0f} % as far as one at random"
        covered.append(text)
    if covered:
        told.append(f"coverage: {'; '.join(covered)}")
    if low is not None:
        told.append(f"behaviour: a fit on states leaves {100 * low:.1f} % of the actions' variance unexplained")
    if low is not None and spread is not None and len(returns) >= 10:
        basis = f"(returns spread by {100 * spread:.1f} % of their mean, actions are {100 * low:.1f} % unexplained)"
        if low < SURE and spread < SURE:
            told.append(f"cloning is expected to win here: one behaviour, and episodes that hardly differ {basis}")
        elif low > 0.5 or spread > 0.5:
            told.append(f"cloning is not expected to win here: rewards hold something to choose by {basis}")
        else:
            told.append(f"nothing is expected of cloning against learning from rewards: compare both {basis}")
    return told
