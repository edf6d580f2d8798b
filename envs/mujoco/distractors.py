"""Coordinates that move on their own and mean nothing, appended to any task's observations (Voelcker et al. 2022).

    x₀ ~ N(0, 0.1²),   x ← M x,   x ← x + 0.1 sin(P x)   (the sine of the new M x)

M has standard normal entries, P the squares of normal ones of standard deviation 10.  An entry beyond ±20 is set back
to that of a vector drawn once.  Nothing here depends on state, action or reward, nor they on it.  All of it is drawn
from ``dynamics_seed``, which training and evaluation must share.
"""

from __future__ import annotations

from typing import Any, no_type_check

import gymnasium as gym
import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlkit.errors import UserError

LIMIT = 20.0


@njit(cache=True)
@no_type_check
def advance(x, matrix, phases, home):
    """One step of ``x`` ``[d]`` in place; ``matrix``, ``phases`` ``[d, d]``, ``home`` ``[d]``, float64."""
    d = len(x)
    moved = np.empty(d)
    for i in range(d):
        total = 0.0
        for j in range(d):
            total += matrix[i, j] * x[j]
        moved[i] = total
    for i in range(d):
        total = 0.0
        for j in range(d):
            total += phases[i, j] * moved[j]
        x[i] = moved[i] + 0.1 * np.sin(total)
    for i in range(d):
        if not abs(x[i]) <= LIMIT:
            x[i] = home[i]


class Distractors(gym.Wrapper[NDArray[Any], Any, NDArray[Any], Any]):
    """Appends ``count`` distracting coordinates to a one-dimensional Box observation, in its own dtype.

    Raises :class:`UserError` for other observations or a negative ``count``.
    """

    def __init__(self, env: gym.Env, count: int, dynamics_seed: int = 0):
        super().__init__(env)
        space = env.observation_space
        if count < 0:
            raise UserError(f"distractors={count} is out of range, expected a number of at least 0")
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise UserError(f"distractors need a one-dimensional Box observation space, got {space}")
        generator = np.random.default_rng([dynamics_seed, count])
        self.matrix = generator.standard_normal((count, count))
        self.phases = (10.0 * generator.standard_normal((count, count))) ** 2
        self.home = generator.standard_normal(count)
        self.x = np.zeros(count)
        low = np.append(space.low, np.full(count, -np.inf)).astype(space.dtype)
        high = np.append(space.high, np.full(count, np.inf)).astype(space.dtype)
        self.observation_space = gym.spaces.Box(low, high, dtype=space.dtype.type)

    def _joined(self, observation: NDArray[Any]) -> NDArray[Any]:
        return np.append(observation, self.x).astype(self.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray[Any], Any]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.x = 0.1 * self.np_random.standard_normal(len(self.x))
        return self._joined(observation), info

    def step(self, action: NDArray[Any]) -> tuple[NDArray[Any], Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        advance(self.x, self.matrix, self.phases, self.home)
        return self._joined(observation), reward, terminated, truncated, info

    def get_state(self) -> dict[str, np.ndarray]:
        return {"x": self.x.copy()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        self.x = np.array(state["x"])


def distracted(base: str, distractors: int = 15, dynamics_seed: int = 0, **kwargs: Any) -> gym.Env:
    """The environment ``base`` with ``distractors`` coordinates appended to its observation."""
    return Distractors(gym.make(base, disable_env_checker=True, **kwargs), distractors, dynamics_seed)
