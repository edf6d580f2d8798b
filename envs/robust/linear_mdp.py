"""The simulated linear MDP of the distributionally robust LSVI papers, with everything about it exactly computable.

Five states x1..x5 (numbers 0..4), three steps, actions {-1, 1}^4 (numbers 0..15, bit i of the number is the sign of
component i).  With p(a) = δ + ξᵀa, ξ = (‖ξ‖₁/4)·1:

    φ(x_j, a) = (1 - p) e_j + p e_4 for j = 1, 2, 3,   φ(x4, a) = e_3,   φ(x5, a) = e_4
    r_h = φᵀθ_h with θ_1 = 0, θ_2 = θ_3 = e_4;  P_h(·|s, a) = Σ_i φ_i(s, a) μ_{h,i}(·)

x4 fails: it pays nothing and absorbs.  x5 pays 1 per step and absorbs.  The nominal factors move x1 to x2 and x2 to x3,
each with probability 0.999 and else to x4.  ``shift`` = q is the world of deployment: at the first step x1 never fails
by itself, but the mass q of factor 4 goes to x4 instead of x5, a total variation of exactly q.  What pays most in the
nominal world, a = (1, 1, 1, 1), is what the shift punishes most.

Exact values, robust and not, regularised and not, come from dynamic programming: :func:`optimal_value`,
:func:`policy_value`.
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

STATES, ACTIONS, DIM, HORIZON = 5, 16, 4, 3
START, FAIL = 0, 3
SLIP = 0.001  # nominal probability with which x1 and x2 fail although p did not strike
SIGNS = np.where((np.arange(ACTIONS)[:, None] >> np.arange(4)) & 1, 1.0, -1.0)  # [A, 4]; action 0 is all -1

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearMDP:
    """One world of the family.  Raises UserError where p(a) would leave [0, 1] or ``shift`` is no probability.

    features [S, A, d], factors [H, d, S], reward_weights [H, d], transitions [H, S, A, S], rewards [H, S, A]: float64.
    """

    xi_norm: float = 0.1  # ‖ξ‖₁; larger: actions differ more
    delta: float = 0.3  # δ, p(a) of an action whose components cancel
    shift: float | None = None  # q; None: the nominal world
    features: Array = field(init=False, repr=False, compare=False)
    factors: Array = field(init=False, repr=False, compare=False)
    reward_weights: Array = field(init=False, repr=False, compare=False)
    transitions: Array = field(init=False, repr=False, compare=False)
    rewards: Array = field(init=False, repr=False, compare=False)

    # what an agent may know of the problem (rlkit.agents.drrpo.core.Problem)
    horizon = HORIZON
    num_actions = ACTIONS
    dim = DIM
    caps = np.arange(HORIZON, -1.0, -1.0)  # [H + 1] largest value to go: one per step left

    def __post_init__(self) -> None:
        low, high = self.delta - abs(self.xi_norm), self.delta + abs(self.xi_norm)
        if low < 0 or high > 1:
            raise UserError(
                f"delta={self.delta} and xi_norm={self.xi_norm} give probabilities from {low:g} to {high:g}, "
                "expected all from 0 to 1"
            )
        if self.shift is not None and not 0 <= self.shift <= 1:
            raise UserError(f"shift={self.shift} is out of range, expected a number from 0 to 1 or None")
        p = self.delta + SIGNS @ np.full(4, self.xi_norm / 4)  # [A]
        features = np.zeros((STATES, ACTIONS, DIM))
        for j in range(3):
            features[j, :, j] = 1 - p
            features[j, :, 3] = p
        features[FAIL, :, 2] = 1
        features[4, :, 3] = 1
        factors = np.zeros((HORIZON, DIM, STATES))
        for i in (0, 1):
            factors[:, i, i + 1], factors[:, i, FAIL] = 1 - SLIP, SLIP
        factors[:, 2, FAIL], factors[:, 3, 4] = 1, 1
        if self.shift is not None:
            factors[0, 0] = np.eye(STATES)[1]
            factors[0, 3] = self.shift * np.eye(STATES)[FAIL] + (1 - self.shift) * np.eye(STATES)[4]
        weights = np.zeros((HORIZON, DIM))
        weights[1:, 3] = 1
        rewards = np.einsum("sai,hi->hsa", features, weights)
        rewards[:, FAIL] = 0
        transitions = np.einsum("sai,hin->hsan", features, factors)
        found = (features, factors, weights, transitions, rewards)
        for name, value in zip(("features", "factors", "reward_weights", "transitions", "rewards"), found, strict=True):
            object.__setattr__(self, name, value)

    @property
    def uncertain(self) -> NDArray[np.bool_]:
        """[H, d]: only factor 4 of the first step may move; were all to, no radius would change a decision."""
        mask = np.zeros((HORIZON, DIM), np.bool_)
        mask[0, 3] = True
        return mask

    def describe(self, observations: Array) -> tuple[Array, Array]:
        """Features [n, A, d] and known values [n, A] (none is known: NaN) of ``observations`` [n, 2], (state, step)."""
        states = observations[:, 0].astype(np.int64)
        return self.features[states], np.full((len(states), ACTIONS), np.nan)

    def observations(self, step: int) -> Array:
        """[S, 2]: every state at ``step`` (from 0), for tabulating a policy."""
        return np.stack([np.arange(STATES), np.full(STATES, step)], axis=1).astype(np.float64)


# ---- exact values ----------------------------------------------------------------------------------------------------


def worst_case_means(factors: Array, values: Array, radii: Array) -> Array:
    """[d]: smallest mean of ``values`` [S] under distributions within TV ``radii`` [d] of ``factors`` [d, S].

    The primal solution: take the mass ρ from the largest values and put it on the smallest.
    """
    order = np.argsort(-values, kind="stable")
    found = np.empty(len(factors))
    for i, factor in enumerate(factors):
        left, mean = min(radii[i], 1.0), radii[i] * values.min()
        for s in order:
            taken = min(left, factor[s])
            left -= taken
            mean += (factor[s] - taken) * values[s]
        found[i] = mean
    return found


def action_values(model: LinearMDP, step: int, following: Array, radii: Array) -> Array:
    """Q_h [S, A] = r + φᵀν where ``following`` [S] is the value of the next step's states."""
    means = worst_case_means(model.factors[step], following, radii[step])  # [d]
    found = model.rewards[step] + model.features @ means
    found[FAIL] = 0.0
    return found


def optimal_value(
    model: LinearMDP, radii: Array | None = None, eta: float = np.inf, reference: Array | None = None
) -> tuple[Array, Array]:
    """Robust optimal values [H + 1, S] and policy [H, S, A] for TV radii [H, d]; finite ``eta``: KL-regularised.

    ``reference`` [A] is the regulariser's policy, uniform where None.  Ties of the greedy policy share equally.
    """
    radii = np.zeros((HORIZON, DIM)) if radii is None else radii
    reference = np.full(ACTIONS, 1 / ACTIONS) if reference is None else reference
    values, policy = np.zeros((HORIZON + 1, STATES)), np.empty((HORIZON, STATES, ACTIONS))
    for h in reversed(range(HORIZON)):
        q = action_values(model, h, values[h + 1], radii)
        best = q.max(axis=1, keepdims=True)
        if np.isinf(eta):
            policy[h] = q >= best - 1e-12
            values[h] = best[:, 0]
        else:
            policy[h] = reference * np.exp(eta * (q - best))
            values[h] = best[:, 0] + np.log(policy[h].sum(axis=1)) / eta
        policy[h] /= policy[h].sum(axis=1, keepdims=True)
        values[h, FAIL] = 0.0
    return values, policy


def policy_value(
    model: LinearMDP,
    policy: Array,
    radii: Array | None = None,
    eta: float = np.inf,
    reference: Array | None = None,
) -> Array:
    """Robust values [H + 1, S] of ``policy`` [H, S, A]; finite ``eta`` subtracts KL(π‖reference)/η at each state.

    A regularised value may be negative, and then the worst case moves mass there and not to the fail state.
    """
    radii = np.zeros((HORIZON, DIM)) if radii is None else radii
    reference = np.full(ACTIONS, 1 / ACTIONS) if reference is None else reference
    values = np.zeros((HORIZON + 1, STATES))
    for h in reversed(range(HORIZON)):
        values[h] = (policy[h] * action_values(model, h, values[h + 1], radii)).sum(axis=1)
        if not np.isinf(eta):
            ratio = np.where(policy[h] > 0, policy[h] / reference, 1.0)
            values[h] -= (policy[h] * np.log(ratio)).sum(axis=1) / eta
        values[h, FAIL] = 0.0
    return values


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


def _cumulative(model: LinearMDP) -> Array:
    cumulative = np.cumsum(model.transitions, axis=-1)  # [H, S, A, S]
    cumulative[..., -1] = 1.0  # a uniform number is below 1, so the last state catches what rounding left over
    return cumulative


def next_state(cumulative: Array, uniform: float) -> int:
    """The state whose interval of ``cumulative`` [S] holds ``uniform``; the kernel's plain counterpart."""
    return int(np.searchsorted(cumulative, uniform, side="right"))


class LinearMDPEnv(gym.Env[NDArray[np.int64], np.int64]):
    """One environment.  Observation int64 (2,): state 0..4 and step 0..3; action 0..15; reward φᵀθ.

    Terminates in the fail state and after the third step.  ``info["phi_all"]`` float64 (16, 4) are the features of
    every action at the observation.  Arguments and errors are those of :class:`LinearMDP`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # Gymnasium's own form

    def __init__(self, xi_norm: float = 0.1, delta: float = 0.3, shift: float | None = None) -> None:
        self.problem = LinearMDP(xi_norm, delta, shift)
        self.observation_space = spaces.MultiDiscrete([STATES, HORIZON + 1])
        self.action_space = spaces.Discrete(ACTIONS)
        self._cumulative = _cumulative(self.problem)
        self._state, self._step = START, 0

    def _observe(self) -> tuple[NDArray[np.int64], dict[str, Any]]:
        return np.array([self._state, self._step]), {"phi_all": self.problem.features[self._state].copy()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        super().reset(seed=seed)
        self._state, self._step = START, 0
        return self._observe()

    def step(self, action: Any) -> tuple[NDArray[np.int64], float, bool, bool, dict[str, Any]]:
        action = int(action)
        reward = float(self.problem.rewards[self._step, self._state, action])
        cumulative = self._cumulative[self._step, self._state, action]
        self._state = next_state(cumulative, float(self.np_random.random()))
        self._step += 1
        observation, info = self._observe()
        return observation, reward, self._state == FAIL or self._step == HORIZON, False, info


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _advance(actions, job, cumulative, rewards_of, features, uniforms, cursor, state, step, rewards, ended, phi):
    """Reset or step each of n environments; arrays of n rows but the model's three tables."""
    for i in prange(len(job)):
        if job[i] == SKIP:
            continue
        if job[i] == STEP:
            s, h, a = state[i], step[i], actions[i]
            uniform = uniforms[i, cursor[i]]
            cursor[i] += 1
            following = 0
            while uniform >= cumulative[h, s, a, following]:
                following += 1
            rewards[i] = rewards_of[h, s, a]
            state[i], step[i] = following, h + 1
            ended[i] = following == 3 or h + 1 == rewards_of.shape[0]
        else:
            state[i], step[i], rewards[i], ended[i] = 0, 0, 0.0, False
        phi[i] = features[state[i]]


class LinearMDPVectorEnv(UniformVectorEnv):
    """``num_envs`` copies, equal to Gymnasium's ``SyncVectorEnv`` of :class:`LinearMDPEnv` with the same seeds."""

    def __init__(self, num_envs: int = 1, xi_norm: float = 0.1, delta: float = 0.3, shift: float | None = None) -> None:
        single = LinearMDPEnv(xi_norm, delta, shift)
        super().__init__(single.observation_space, single.action_space, num_envs)
        self.problem = single.problem
        self._cumulative = single._cumulative
        self._state, self._step = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self._phi = np.zeros((num_envs, ACTIONS, DIM))

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> tuple[NDArray[Any], dict[str, Any]]:
        tables = self._cumulative, self.problem.rewards, self.problem.features
        own = self._uniforms, self._cursor, self._state, self._step, self._rewards, self._terminations, self._phi
        _advance(actions, job, *tables, *own)
        return np.stack([self._state, self._step], axis=1), masked({"phi_all": self._phi.copy()})
