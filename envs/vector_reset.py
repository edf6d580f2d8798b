"""What every batch of environments here makes of the arguments of ``reset``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from numpy.typing import NDArray

from rlkit.errors import UserError

Seeds = int | Sequence[int | None] | None


def which(
    num_envs: int, seed: Seeds, options: dict[str, Any] | None, *, began: bool
) -> tuple[NDArray[np.bool_], list[int | None]]:
    """Which rows begin anew, bool ``[num_envs]``, and the seed of each, None: its generator goes on.

    The mask is ``options["reset_mask"]``, by default all rows; seeds are ``seed``, ``seed + 1``, ..., or one each.
    Raises UserError for seeds or a mask that do not fit, ``ResetNeeded`` where some rows never ``began``.
    """
    if seed is None or isinstance(seed, (int, np.integer)):
        seeds: list[int | None] = [None if seed is None else int(seed) + i for i in range(num_envs)]
    else:
        seeds = list(seed)
    if len(seeds) != num_envs:
        raise UserError(f"expected {num_envs} seeds, one for each environment, got {len(seeds)}")
    mask = (options or {}).get("reset_mask", np.ones(num_envs, np.bool_))
    if getattr(mask, "shape", None) != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise UserError(f"reset_mask: expected a bool array of shape ({num_envs},), not all False, got {mask!r}")
    if not (began or mask.all()):
        raise ResetNeeded("the first reset must be of all environments")
    return mask, seeds


def reseed(
    generators: list[np.random.Generator | None], mask: NDArray[np.bool_], seeds: Sequence[int | None]
) -> dict[int, int]:
    """Make the ``generators`` anew that have a seed or were never made, as Gymnasium does; returns ``{row: seed}``."""
    made = {}
    for i in np.flatnonzero(mask).tolist():
        if seeds[i] is not None or generators[i] is None:
            generators[i], made[i] = seeding.np_random(seeds[i])
    return made
