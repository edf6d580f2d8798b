"""American put on a binomial price: continue or exercise, ten times, with a price that may drift after training.

The price starts at ``s0`` and moves by the factor 1.02 with probability ``p_up``, else 0.98.  Exercising pays
max(0, 100 - price) and ends the episode; continuing pays nothing, also at the last step.  Training uses p_up = 0.5, the
worlds of deployment others.  At 0.5 the price is a martingale, so that in the money continuing and exercising are worth
exactly the same: policies that differ only in such ties earn very different amounts at another ``p_up``.

Features of "continue" are ``dim`` hats over the price, a partition of unity:

    φ_i(s) = max(0, 1 - |s - a_i|/Δ),  Δ = 100/dim,  a_i = 80 + iΔ

Prices outside [a_0, a_dim-1] count as the nearest of them; without that, hats below 80 would sum to less than one.
What exercising pays is known and has no features.  The price lattice has h nodes at step h, so every policy of price
and step is evaluated exactly: :func:`optimal_value`, :func:`policy_value`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, no_type_check

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.rows import SKIP, STEP, UniformVectorEnv, masked
from rlkit.errors import UserError

CONTINUE, EXERCISE = 0, 1
UP, DOWN, STRIKE = 1.02, 0.98, 100.0
LOWEST_START, HIGHEST_START, LOWEST_HAT = 95.0, 105.0, 80.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AmericanPut:
    """One world of the family.  Raises UserError for arguments out of range.

    factors [H + 1, H + 1] float64: price over ``s0`` after u rises and v falls.
    """

    p_up: float = 0.5  # probability of a rise; smaller: puts are worth more
    horizon: int = 10  # steps at which one may exercise
    s0: float = 100.0  # first price, unless resampled
    resample_s0: bool = False  # True: every episode begins at a price drawn from U[95, 105]
    dim: int = 20  # hats; more: finer prices, fewer samples of each
    cap: float = 25.0  # bound on what continuing may be worth; at least the largest payoff
    factors: Array = field(init=False, repr=False, compare=False)

    # what an agent may know of the problem (rlkit.agents.drrpo.core.Problem)
    num_actions = 2

    def __post_init__(self) -> None:
        if not 0 <= self.p_up <= 1:
            raise UserError(f"p_up={self.p_up} is out of range, expected a number from 0 to 1")
        for name, least in (("horizon", 1), ("dim", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} is out of range, expected a whole number >= {least}")
        if not self.s0 > 0:
            raise UserError(f"s0={self.s0} is out of range, expected a price above 0")
        count = np.arange(self.horizon + 1)
        object.__setattr__(self, "factors", UP ** count[:, None] * DOWN ** count[None, :])
        first = min(self.s0, LOWEST_START) if self.resample_s0 else self.s0
        largest = max(0.0, STRIKE - first * DOWN ** (self.horizon - 1))
        if self.cap < largest:
            raise UserError(f"cap={self.cap} is below the largest payoff, expected at least {largest:.2f}")

    @property
    def caps(self) -> Array:
        """[H + 1]: largest value to go at each step, 0 after the last."""
        return np.append(np.full(self.horizon, self.cap), 0.0)

    @property
    def reward_weights(self) -> Array:
        """[H, d]: continuing pays nothing."""
        return np.zeros((self.horizon, self.dim))

    @property
    def uncertain(self) -> NDArray[np.bool_]:
        """[H, d]: every factor may move."""
        return np.ones((self.horizon, self.dim), np.bool_)

    def describe(self, observations: Array) -> tuple[Array, Array]:
        """Features [n, 2, d] and known values [n, 2] of ``observations`` [n, 2], (price, step).

        Exercising has a known value and no features; continuing is the other way round (NaN: not known).
        """
        prices = observations[:, 0]
        width = 100.0 / self.dim
        anchors = LOWEST_HAT + width * np.arange(self.dim)
        inside = np.clip(prices, anchors[0], anchors[-1])
        features = np.zeros((len(prices), 2, self.dim))
        features[:, CONTINUE] = np.maximum(0.0, 1 - np.abs(inside[:, None] - anchors) / width)
        known = np.full((len(prices), 2), np.nan)
        known[:, EXERCISE] = np.maximum(0.0, STRIKE - prices)
        return features, known

    def observations(self, step: int) -> Array:
        """[step + 1, 2]: the lattice at ``step`` (from 0); row u has seen u rises."""
        rises = np.arange(step + 1)
        return np.stack([self.s0 * self.factors[rises, step - rises], np.full(step + 1, float(step))], axis=1)


# ---- exact values ----------------------------------------------------------------------------------------------------


def continuation(model: AmericanPut, following: Array) -> Array:
    """[h]: value of continuing at the h nodes of a step, ``following`` [h + 1] being the next step's values."""
    return model.p_up * following[1:] + (1 - model.p_up) * following[:-1]


def optimal_value(model: AmericanPut, hold_ties: bool = True) -> tuple[float, list[Array]]:
    """Largest expected payoff from ``s0`` and a policy, per step [h, 2], that earns it.

    ``hold_ties``: continue where both are worth the same (to 1e-9), else exercise.
    """
    values, policy = np.zeros(model.horizon + 1), []
    for h in reversed(range(model.horizon)):
        payoff = np.maximum(0.0, STRIKE - model.observations(h)[:, 0])  # [h + 1]
        held = continuation(model, values)
        margin = 1e-9 if hold_ties else -1e-9
        exercised = payoff > held + margin
        policy.append(np.stack([~exercised, exercised], axis=1).astype(np.float64))
        values = np.maximum(payoff, held)
    return float(values[0]), policy[::-1]


def policy_value(model: AmericanPut, policy: list[Array]) -> float:
    """Expected payoff from ``s0`` of ``policy``, per step [h, 2] probabilities of continuing and exercising."""
    values = np.zeros(model.horizon + 1)
    for h in reversed(range(model.horizon)):
        payoff = np.maximum(0.0, STRIKE - model.observations(h)[:, 0])
        values = policy[h][:, CONTINUE] * continuation(model, values) + policy[h][:, EXERCISE] * payoff
    return float(values[0])


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


class AmericanPutEnv(gym.Env[Array, np.int64]):
    """One environment.  Observation float64 (2,): price and step from 0; action 0 continue, 1 exercise.

    Terminates on exercise and after the last step.  ``info["phi_all"]`` float64 (2, dim): features of both actions,
    none for exercising.  Arguments and errors are those of :class:`AmericanPut`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # Gymnasium's own form

    def __init__(
        self,
        p_up: float = 0.5,
        horizon: int = 10,
        s0: float = 100.0,
        resample_s0: bool = False,
        dim: int = 20,
        cap: float = 25.0,
    ) -> None:
        self.problem = AmericanPut(p_up, horizon, s0, resample_s0, dim, cap)
        highest = max(s0, HIGHEST_START if resample_s0 else s0) * UP**horizon
        self.observation_space = spaces.Box(np.zeros(2), np.array([highest, horizon], np.float64), dtype=np.float64)
        self.action_space = spaces.Discrete(2)
        self._start, self._rises, self._step = float(s0), 0, 0

    def _observe(self) -> tuple[Array, dict[str, Any]]:
        price = self._start * self.problem.factors[self._rises, self._step - self._rises]
        observation = np.array([price, self._step])
        return observation, {"phi_all": self.problem.describe(observation[None])[0][0]}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._rises, self._step = 0, 0
        if self.problem.resample_s0:
            self._start = LOWEST_START + (HIGHEST_START - LOWEST_START) * float(self.np_random.random())
        return self._observe()

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        price = self._start * self.problem.factors[self._rises, self._step - self._rises]
        exercised = int(action) == EXERCISE
        reward = max(0.0, STRIKE - float(price)) if exercised else 0.0
        self._rises += int(float(self.np_random.random()) < self.problem.p_up)
        self._step += 1
        observation, info = self._observe()
        return observation, reward, exercised or self._step == self.problem.horizon, False, info


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _advance(
    actions, job, p_up, horizon, resample, factors, uniforms, cursor, start, rises, step, rewards, ended, seen, phi
):
    """Reset or step each of n environments; arrays of n rows but ``factors``."""
    hats = phi.shape[2]
    width = 100.0 / hats
    for i in prange(len(job)):
        if job[i] == SKIP:
            continue
        if job[i] == STEP:
            price = start[i] * factors[rises[i], step[i] - rises[i]]
            rewards[i] = max(0.0, STRIKE - price) if actions[i] == EXERCISE else 0.0
            if uniforms[i, cursor[i]] < p_up:
                rises[i] += 1
            cursor[i] += 1
            step[i] += 1
            ended[i] = actions[i] == EXERCISE or step[i] == horizon
        else:
            rises[i], step[i], rewards[i], ended[i] = 0, 0, 0.0, False
            if resample:
                start[i] = LOWEST_START + (HIGHEST_START - LOWEST_START) * uniforms[i, cursor[i]]
                cursor[i] += 1
        price = start[i] * factors[rises[i], step[i] - rises[i]]
        seen[i, 0], seen[i, 1] = price, step[i]
        inside = min(max(price, LOWEST_HAT), LOWEST_HAT + width * (hats - 1))
        for k in range(hats):
            phi[i, CONTINUE, k] = max(0.0, 1 - abs(inside - (LOWEST_HAT + width * k)) / width)


class AmericanPutVectorEnv(UniformVectorEnv):
    """``num_envs`` copies, equal to Gymnasium's ``SyncVectorEnv`` of :class:`AmericanPutEnv` with the same seeds."""

    def __init__(
        self,
        num_envs: int = 1,
        p_up: float = 0.5,
        horizon: int = 10,
        s0: float = 100.0,
        resample_s0: bool = False,
        dim: int = 20,
        cap: float = 25.0,
    ) -> None:
        single = AmericanPutEnv(p_up, horizon, s0, resample_s0, dim, cap)
        super().__init__(single.observation_space, single.action_space, num_envs)
        self.problem = single.problem
        self._start = np.full(num_envs, float(s0))
        self._rises, self._step = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self._seen, self._phi = np.zeros((num_envs, 2)), np.zeros((num_envs, 2, dim))

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> tuple[NDArray[Any], dict[str, Any]]:
        model = self.problem
        world = float(model.p_up), model.horizon, model.resample_s0, model.factors
        own = self._uniforms, self._cursor, self._start, self._rises, self._step, self._rewards, self._terminations
        _advance(actions, job, *world, *own, self._seen, self._phi)
        return self._seen.copy(), masked({"phi_all": self._phi.copy()})
