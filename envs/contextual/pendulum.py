"""Pendulum with a context: the time step, the mass and the length.

    θ̈ = 3 g sin θ / (2 l) + 3 u / (m l²),   g = 10, |u| <= 2, |θ̇| <= 8
    reward = -(wrap(θ)² + 0.1 θ̇² + 0.001 u²), of the state before the step

by semi-implicit Euler steps of ``dt``; an episode begins with θ in ±π and θ̇ in ±1 and never ends by itself.  In the
default context this is Gymnasium's ``Pendulum-v1``, whose torque enters in the action's own precision, float32; so it
does here.  The released code has no defect here, so that both kinds of ``physics`` are the same.
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
from rlkit.envs.contextual.drawing import pendulum
from rlkit.envs.rows import RESET, SKIP

GRAVITY, FASTEST, STRONGEST = 10.0, 8.0, 2.0
LONGEST = 2.0  # m, that fits into a picture
COST = np.float32(0.001)  # of the squared torque


@no_type_check
def _advance(actions, job, constants, uniforms, cursor, state, elapsed, rewards, seen):
    """Reset or step each of n pendulums; ``constants`` [n, 3]: dt, 3g / 2l, 3 / ml²."""
    for i in prange(len(job)):
        if job[i] == SKIP:
            continue
        if job[i] == RESET:
            state[i, 0] = -math.pi + 2 * math.pi * uniforms[i, cursor[i]]
            state[i, 1] = -1.0 + 2.0 * uniforms[i, cursor[i] + 1]
            cursor[i] += 2
            elapsed[i], rewards[i] = 0, 0.0
        else:
            dt, weight, lever = constants[i, 0], constants[i, 1], constants[i, 2]
            theta, omega = state[i, 0], state[i, 1]
            torque = np.float32(max(-STRONGEST, min(STRONGEST, actions[i, 0])))
            angle = (theta + math.pi) % (2 * math.pi) - math.pi
            rewards[i] = -(angle * angle + 0.1 * (omega * omega) + np.float64(COST * (torque * torque)))
            omega += (weight * math.sin(theta) + np.float64(np.float32(lever) * torque)) * dt
            omega = max(-FASTEST, min(FASTEST, omega))
            state[i, 0], state[i, 1] = theta + omega * dt, omega
            elapsed[i] += 1
        seen[i, 0], seen[i, 1], seen[i, 2] = math.cos(state[i, 0]), math.sin(state[i, 0]), state[i, 1]


_few = njit(cache=True, nogil=True)(_advance)
_many = njit(cache=True, nogil=True, parallel=True)(_advance)


class Pendulums(System):
    """n pendulums."""

    title = "pendulum"
    features = {  # noqa: RUF012  # never written to
        "dt": Feature(0.05, 0.05, "length of a step, s"),
        "m": Feature(1.0, 1.0, "mass, kg"),
        "l": Feature(1.0, 1.0, "length, m"),
    }
    single_action_space = spaces.Box(-STRONGEST, STRONGEST, (1,), np.float32)
    high = (1.0, 1.0, FASTEST)
    states, draws = 2, 2

    def __init__(self, n: int, context: Context | None, physics: str, context_obs: str) -> None:
        super().__init__(n, context, physics, context_obs)
        dt, mass, length = self.context.T
        self.constants = np.stack([dt, 3 * GRAVITY / (2 * length), 3.0 / (mass * length**2)], axis=1)  # [n, 3]

    def advance(self, actions: NDArray[Any], job: NDArray[np.int8], uniforms: Array, cursor: NDArray[np.int64]) -> None:
        kernel = _many if len(job) >= PARALLEL_FROM else _few
        kernel(actions, job, self.constants, uniforms, cursor, self.state, self.elapsed, self.rewards, self.seen)

    @property
    def dt(self) -> float:
        return float(self.context[0, 0])

    def picture(self) -> NDArray[np.uint8]:
        return pendulum(float(self.state[0, 0]), float(self.context[0, 2]), LONGEST)


class ContextualPendulumEnv(ContextualEnv):
    """One pendulum.  Observation float32 (3,): cos θ, sin θ, θ̇, or (6,) with dt, m and l; action (1,) in ±2."""

    system = Pendulums


class ContextualPendulumVectorEnv(ContextualVectorEnv):
    """A batch of :class:`ContextualPendulumEnv`."""

    system = Pendulums
