"""Batches of environments, a row each: what ``reset`` makes of its arguments, and the batch whose only randomness is
one uniform number at a time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlkit.errors import UserError

BLOCK = 64  # uniforms drawn ahead per environment: a call of a NumPy generator costs more than a step
SKIP, STEP, RESET = 0, 1, 2  # what a kernel does with an environment

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


class UniformVectorEnv(VectorEnv[NDArray[Any], NDArray[np.int64], NDArray[Any]]):
    """Seeds, buffers of uniforms and Gymnasium's ``NEXT_STEP`` autoreset around one kernel call per step.

    Environment ``i`` draws from a generator of its own, in the order in which the single environment calls
    ``np_random.random()``: one number per step and at most one per reset.  A subclass keeps its state in arrays and
    provides :meth:`_advance`.

    Args:
        single_observation_space, single_action_space: of one environment.
        num_envs: number of environments.

    Raises:
        UserError: ``num_envs`` below 1.
    """

    def __init__(self, single_observation_space: Space[Any], single_action_space: Space[Any], num_envs: int) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs={num_envs} is out of range, expected a whole number above 0")
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = single_observation_space, single_action_space
        self.observation_space = batch_space(single_observation_space, num_envs)
        self.action_space = batch_space(single_action_space, num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._uniforms = np.empty((num_envs, BLOCK))
        self._cursor = np.full(num_envs, BLOCK, np.int64)  # next unused uniform of each environment
        self._autoreset = np.zeros(num_envs, np.bool_)  # where an episode ended in the last step
        self._rewards = np.zeros(num_envs)
        self._terminations = np.zeros(num_envs, np.bool_)
        self._was_reset = False

    @abstractmethod
    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Do each environment's ``job``; fill ``_rewards`` and ``_terminations`` (0 and False in a reset).

        Returns copies of the observations and the infos, each info an array with ``num_envs`` rows.
        """

    def reset(
        self, *, seed: Seeds = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin new episodes everywhere, or where the bool array ``options["reset_mask"]`` says.

        A seed makes the generators of environments 0, 1, ... anew from ``seed``, ``seed + 1``, ..., or from one seed
        each; without, they go on.  Raises UserError for seeds or a mask that do not fit ``num_envs``.
        """
        mask, seeds = which(self.num_envs, seed, options, began=self._was_reset)
        for i in reseed(self._generators, mask, seeds):
            self._cursor[i] = BLOCK
        self._was_reset = True
        self._autoreset[mask] = False
        self._refill()
        return self._advance(np.zeros(self.num_envs, np.int64), np.where(mask, RESET, SKIP).astype(np.int8))

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step every environment; one whose episode has ended is reset instead and its action ignored.

        Raises UserError for actions of another shape or out of range, ``ResetNeeded`` before the first reset.
        """
        actions = np.asarray(actions, np.int64)
        if actions.shape != (self.num_envs,):
            raise UserError(f"expected actions of shape ({self.num_envs},), got {actions.shape}")
        if not self._was_reset:
            raise ResetNeeded("call reset() first")
        bound = int(self.single_action_space.n)  # type: ignore[attr-defined]  # Discrete in every subclass
        if actions.min() < 0 or actions.max() >= bound:
            raise UserError(f"actions from {actions.min()} to {actions.max()}, expected numbers from 0 to {bound - 1}")
        self._refill()
        observations, infos = self._advance(actions, np.where(self._autoreset, RESET, STEP).astype(np.int8))
        self._autoreset = self._terminations.copy()
        truncations = np.zeros(self.num_envs, np.bool_)
        return observations, self._rewards.copy(), self._terminations.copy(), truncations, infos

    def _refill(self) -> None:
        for i in np.flatnonzero(self._cursor >= BLOCK):
            generator = self._generators[i]
            assert generator is not None
            generator.random(out=self._uniforms[i])
            self._cursor[i] = 0


def masked(infos: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Gymnasium's form of batched infos: beside each array, the mask of environments that reported it."""
    batch: dict[str, Any] = {}
    for key, value in infos.items():
        batch[key], batch[f"_{key}"] = value, np.ones(len(value), np.bool_)
    return batch
