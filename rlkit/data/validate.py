"""What arrays must be to be learnt from: finite, within bounds, flags that are flags, rows that join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gymnasium as gym
import numpy as np

from rlkit.data.dataset import OfflineDataset
from rlkit.errors import DataError

# Float32 rounding and old simulators put actions a hair outside their bounds.  An excess up to this share of the
# bounds' half width is clipped when data is read; anything larger is an error.
ACTION_TOLERANCE = 1e-3
UNEVEN = 1000.0  # how many times larger than another column, or than 1, is too many for a network without standardising
LARGEST = 1e18  # of a value: the square of a larger one, which every loss takes, may leave float32
LOOKED = 100_000  # rows that tell


def validate(
    arrays: dict[str, np.ndarray],
    action_space: gym.spaces.Box,
    where: str,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """Raise :class:`DataError` for values not finite or too large, actions out of bounds; clip rounding excess.

    ``arrays`` holds observations ``[N, ds]``, actions ``[N, da]``, rewards ``[N]`` and perhaps next_observations
    ``[N, ds]``, all float32; ``columns`` are the names of their columns, where these have some.  Returns the number of
    actions clipped, whose excess is at most ``ACTION_TOLERANCE``.
    """
    for name in ("observations", "actions", "rewards", "next_observations"):
        if name not in arrays:
            continue
        flat = arrays[name].reshape(len(arrays[name]), -1)
        if max(flat.max(initial=0), -flat.min(initial=0)) <= LARGEST:  # NaN is neither; no memory taken if all is well
            continue
        bad = np.argwhere(~(np.abs(flat) <= LARGEST))
        if len(bad):
            row, column = bad[0]
            named = (columns or {}).get(name)
            at = f"row {row}" + (f", column {column}" if arrays[name].ndim > 1 and not named else "")
            what = named[column] if named else name
            raise DataError(
                f"{where}: '{what}' holds {flat[row, column]:g} at {at}, expected finite numbers up to {LARGEST:g}"
            )
    actions = arrays["actions"]
    low, high = action_space.low.astype(np.float32), action_space.high.astype(np.float32)
    outside = (actions < low) | (actions > high)
    if not outside.any():
        return 0
    slack = ACTION_TOLERANCE * np.where(np.isfinite(high - low), (high - low) / 2, 1.0)
    bad = np.argwhere((actions < low - slack) | (actions > high + slack))
    if len(bad):
        row, *column = (int(i) for i in bad[0])
        cell = (row, *column)
        named = (columns or {}).get("actions")
        place = f"'{named[column[0]]}'" if named else f"column {column[0] if column else 0}"
        raise DataError(
            f"{where}: action {actions[cell]:g} at row {row}, {place} is out of bounds, "
            f"expected [{low[tuple(column)]:g}, {high[tuple(column)]:g}]"
        )
    np.clip(actions, low, high, out=actions)
    return int(outside.sum())


def require_flags(values: np.ndarray, where: str) -> None:
    """Raise :class:`DataError` unless all ``values`` are 0 or 1, the way to say no and yes in any dtype."""
    bad = np.flatnonzero((values != 0) & (values != 1))  # NaN is neither
    if len(bad):
        raise DataError(f"{where} holds {values.ravel()[bad[0]]} at row {bad[0]}, expected flags, each 0 or 1")


def first_broken_join(dataset: OfflineDataset) -> tuple[int, int]:
    """Number of rows inside an episode whose ``next_observations`` is not the following row's observation, and the
    first of them (-1 if none).  Two NaNs count as equal: they are another check's business."""
    inside = np.flatnonzero(~(dataset.terminations | dataset.truncations)[:-1])
    here, following = dataset.next_observations[inside], dataset.observations[inside + 1]
    differs = (here != following) & ~(np.isnan(here) & np.isnan(following))
    rows = inside[differs.any(axis=tuple(range(1, differs.ndim)))]
    return len(rows), int(rows[0]) if len(rows) else -1


def uneven(data: OfflineDataset) -> str | None:
    """What is said of observations whose columns differ by orders of magnitude; None where they do not."""
    rows = data.observations[:: max(1, len(data) // LOOKED)].reshape(-1, data.observations[0].size).astype(np.float64)
    sizes = np.sqrt((rows**2).mean(axis=0))  # [ds]
    varies = np.flatnonzero(rows.std(axis=0) > 0)
    if not len(varies):
        return None
    small, large = (varies[pick(sizes[varies])] for pick in (np.argmin, np.argmax))
    if sizes[large] <= UNEVEN * min(max(sizes[small], 1e-2), 1.0):
        return None
    told = data.provenance.details.get("columns")
    names = told.get("observations", ()) if isinstance(told, dict) else ()
    called = [f"'{names[i]}'" if i < len(names) else f"column {i}" for i in (small, large)]
    if sizes[large] <= UNEVEN * sizes[small]:  # alike, and all of them far from 1
        return f"observations are far larger than 1 ({called[0]} is about {sizes[small]:.1g}, and it is the smallest)"
    about = f"{called[0]} is about {sizes[small]:.1g} and {called[1]} about {sizes[large]:.1g}"
    return f"observations differ by orders of magnitude ({about})"
