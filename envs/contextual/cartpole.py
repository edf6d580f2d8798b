"""CartPole with a context: the pole's half-length, the masses of cart and pole.

With F = ±10, M = m_c + m_p, L the half-length, g = 9.8 and τ = 0.02:

    t = (F + m_p L θ̇² sin θ) / M
    θ̈ = (g sin θ - t cos θ) / (L (4/3 - m_p cos² θ / M)),   ẍ = t - m_p L θ̈ cos θ / M

by explicit Euler steps; episodes begin uniformly within ±0.05 and end with |x| > 2.4 or |θ| > 12°; a step pays 1.  In
the default context this is Gymnasium's ``CartPole-v1``.

``physics="legacy"``: CARL sets the masses and the length of Gymnasium's object but not M and m_p L, which that object
computed when it was made.  So M and m_p L stay those of the default: the cart's mass changes nothing at all, the pole's
mass and the length only some of their terms.
"""

from __future__ import annotations

import math
from typing import Any, no_type_check

import numpy as np
from gymnasium import spaces
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.contextual.base import (
    PARALLEL_FROM,
    Array,
    Context,
    ContextualEnv,
    ContextualVectorEnv,
    Feature,
    System,
)
from rlkit.envs.contextual.drawing import cart
from rlkit.envs.rows import RESET, SKIP

GRAVITY, FORCE, TAU = 9.8, 10.0, 0.02
FARTHEST, STEEPEST = 2.4, 12 * 2 * math.pi / 360
START = 0.05


@no_type_check
def _advance(actions, job, constants, uniforms, cursor, state, elapsed, rewards, ended, seen):
    """Reset or step each of n carts; ``constants`` [n, 4]: m_p, L, M, m_p L."""
    for i in prange(len(job)):
        if job[i] == SKIP:
            continue
        if job[i] == RESET:
            for k in range(4):
                state[i, k] = -START + 2 * START * uniforms[i, cursor[i] + k]
            cursor[i] += 4
            elapsed[i], rewards[i], ended[i] = 0, 0.0, False
        else:
            pole, length, total, moment = constants[i, 0], constants[i, 1], constants[i, 2], constants[i, 3]
            x, velocity, theta, omega = state[i, 0], state[i, 1], state[i, 2], state[i, 3]
            force = FORCE if actions[i] == 1 else -FORCE
            cosine, sine = math.cos(theta), math.sin(theta)
            push = (force + moment * (omega * omega) * sine) / total
            turn = (GRAVITY * sine - cosine * push) / (length * (4.0 / 3.0 - pole * (cosine * cosine) / total))
            pull = push - moment * turn * cosine / total
            x += TAU * velocity
            theta += TAU * omega
            state[i, 0], state[i, 1], state[i, 2], state[i, 3] = x, velocity + TAU * pull, theta, omega + TAU * turn
            elapsed[i] += 1
            rewards[i] = 1.0
            ended[i] = x < -FARTHEST or x > FARTHEST or theta < -STEEPEST or theta > STEEPEST
        for k in range(4):
            seen[i, k] = state[i, k]


_few = njit(cache=True, nogil=True)(_advance)
_many = njit(cache=True, nogil=True, parallel=True)(_advance)


class Carts(System):
    """n carts with a pole each."""

    title = "cartpole"
    features = {  # noqa: RUF012  # never written to
        "length": Feature(0.5, 0.5, "half the pole's length, m"),
        "masscart": Feature(1.0, 1.0, "mass of the cart, kg"),
        "masspole": Feature(0.1, 0.1, "mass of the pole, kg"),
    }
    single_action_space = spaces.Discrete(2)
    high = (2 * FARTHEST, math.inf, 2 * STEEPEST, math.inf)
    states, draws = 4, 4

    def __init__(self, n: int, context: Context | None, physics: str, context_obs: str) -> None:
        super().__init__(n, context, physics, context_obs)
        length, cart, pole = self.context.T
        total, moment = pole + cart, pole * length
        if physics == "legacy":
            total, moment = np.full(n, 0.1 + 1.0), np.full(n, 0.1 * 0.5)
        self.constants = np.stack([pole, length, total, moment], axis=1)  # [n, 4]

    def advance(self, actions: NDArray[Any], job: NDArray[np.int8], uniforms: Array, cursor: NDArray[np.int64]) -> None:
        kernel = _many if len(job) >= PARALLEL_FROM else _few
        own = self.state, self.elapsed, self.rewards, self.ended, self.seen
        kernel(actions, job, self.constants, uniforms, cursor, *own)

    @property
    def dt(self) -> float:
        return TAU

    def picture(self) -> NDArray[np.uint8]:
        x, _, theta, _ = self.state[0].tolist()
        return cart(x, theta, float(self.context[0, 0]), FARTHEST)


class ContextualCartPoleEnv(ContextualEnv):
    """One cart.  Observation float32 (4,): x, ẋ, θ, θ̇, or (7,) with length, masscart and masspole; action 0 or 1."""

    system = Carts


class ContextualCartPoleVectorEnv(ContextualVectorEnv):
    """A batch of :class:`ContextualCartPoleEnv`."""

    system = Carts
