"""Tasks with a context: what a world is like, such as the length of a pole, as an argument of its environment.

    gym.make("rlkit/ContextualCartPole-v0", context={"length": 1.0}, physics="correct", context_obs="hidden")

A context gives physical values; those not named keep their default.  The grids of the transfer literature are scales
0.1 to 10 times a base (:class:`Feature`), and what lies outside is refused.  ``physics="legacy"`` is what the released
MBTL code and its vendored CARL simulate, defects included; ``context_obs="append"`` shows the raw context as further
observations, as CARL does.

This file has what CartPole and Pendulum share: one row of arrays per environment, a kernel that steps the rows, and
single and batched environments around it.  In a batch a feature may have a value per environment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from rlkit.envs.rows import BLOCK, RESET, STEP, UniformVectorEnv
from rlkit.errors import UserError, nearest, require_choice

LOWEST, HIGHEST = 0.1, 10.0  # scales of a context, times its base
PHYSICS = ("correct", "legacy")
CONTEXT_OBS = ("hidden", "append")
PARALLEL_FROM = 512  # environments below which starting threads costs more than it saves

Array = NDArray[np.float64]
Context = Any  # values by name, numbers or, in a batch, one per environment; `resolve_context` checks what it is given


@dataclass(frozen=True)
class Feature:
    """One number of a context: ``base`` is what a scale of 1 is, ``default`` its value where none is given."""

    base: float
    default: float
    meaning: str

    @property
    def low(self) -> float:
        return LOWEST * self.base

    @property
    def high(self) -> float:
        return HIGHEST * self.base


def resolve_context(title: str, features: Mapping[str, Feature], context: Context | None, n: int) -> Array:
    """``context`` as float64 ``[n, d]``, columns in the order of ``features``.

    Raises :class:`UserError` for an unknown feature, or a value that is no number or out of range.
    """
    given = {} if context is None else context
    if not isinstance(given, Mapping):
        raise UserError(f"{title}: context={context!r}, expected values by name, such as {{{next(iter(features))}: 1}}")
    for name in given:
        if name not in features:
            raise UserError(f"{title}: unknown context feature '{name}'{nearest(str(name), features)}")
    columns = []
    for name, feature in features.items():
        try:
            column = np.asarray(given.get(name, feature.default), np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"{title}: context {name}={given[name]!r} is not a number") from error
        if column.shape not in ((), (n,)):
            raise UserError(f"{title}: context {name} has shape {column.shape}, expected one number or {n}")
        slack = 1e-9 * feature.base  # scales times a base are rounded
        inside = (column >= feature.low - slack) & (column <= feature.high + slack)
        if not inside.all():
            bad = np.atleast_1d(column)[~np.atleast_1d(inside)][0]
            wanted = f"expected {feature.low:g} to {feature.high:g}"
            raise UserError(f"{title}: context {name}={bad:g} is out of range, {wanted} ({feature.meaning})")
        columns.append(np.broadcast_to(column, (n,)))
    return np.stack(columns, axis=1)


# ---- what CartPole and Pendulum share --------------------------------------------------------------------------------


class System(ABC):
    """n worlds as arrays of n rows.

    ``state`` float64 ``[n, s]``; ``seen`` float32 ``[n, k]``, or ``[n, k + d]`` with the context appended; ``rewards``
    float64, ``ended`` bool and ``elapsed`` int64 ``[n]``; ``context`` float64 ``[n, d]``.

    Raises :class:`UserError` for a context, physics or context_obs that is not known.
    """

    title: ClassVar[str]
    features: ClassVar[Mapping[str, Feature]]
    single_action_space: ClassVar[spaces.Space[Any]]
    high: ClassVar[tuple[float, ...]]  # of the k observations; the low bounds are their negatives
    states: ClassVar[int]  # s
    draws: ClassVar[int]  # uniforms that a reset takes, a divisor of BLOCK

    def __init__(self, n: int, context: Context | None, physics: str, context_obs: str) -> None:
        assert BLOCK % self.draws == 0
        require_choice(f"{self.title}: physics", physics, PHYSICS)
        self.single_observation_space = self.observation_space(context_obs)
        self.context = resolve_context(self.title, self.features, context, n)
        self.physics = physics
        self.state = np.zeros((n, self.states))
        self.elapsed, self.rewards = np.zeros(n, np.int64), np.zeros(n)
        self.ended = np.zeros(n, np.bool_)
        self.seen = np.zeros((n, *(self.single_observation_space.shape or ())), np.float32)
        if context_obs == "append":
            self.seen[:, len(self.high) :] = self.context
        space = self.single_action_space
        self.idle: NDArray[Any] = np.zeros((n, *(space.shape or ())), space.dtype)  # actions for rows that only reset

    @classmethod
    def observation_space(cls, context_obs: str) -> spaces.Box:
        """Of one environment, float32."""
        require_choice(f"{cls.title}: context_obs", context_obs, CONTEXT_OBS)
        high = np.array(cls.high, np.float32)
        if context_obs == "hidden":
            return spaces.Box(-high, high, dtype=np.float32)
        ends = np.array([(f.low, f.high) for f in cls.features.values()], np.float32)  # [d, 2]
        return spaces.Box(np.concatenate([-high, ends[:, 0]]), np.concatenate([high, ends[:, 1]]), dtype=np.float32)

    @abstractmethod
    def advance(self, actions: NDArray[Any], job: NDArray[np.int8], uniforms: Array, cursor: NDArray[np.int64]) -> None:
        """Do each row's ``job``; one that resets takes ``draws`` of ``uniforms`` ``[n, >= draws]`` from its cursor."""

    @property
    @abstractmethod
    def dt(self) -> float:
        """Seconds of a step of the first row."""

    @abstractmethod
    def picture(self) -> NDArray[np.uint8]:
        """The first row as it is now, ``[height, width, 3]``."""

    def check(self, actions: NDArray[Any]) -> None:
        """Raise :class:`UserError` for actions that a discrete space does not have."""
        if isinstance(self.single_action_space, spaces.Discrete):
            least, most = int(actions.min()), int(actions.max())
            if least < 0 or most >= self.single_action_space.n:
                expected = f"expected numbers from 0 to {self.single_action_space.n - 1}"
                raise UserError(f"{self.title}: actions from {least} to {most}, {expected}")


class ContextualEnv(gym.Env[NDArray[np.float32], Any]):
    """One environment; a subclass names its :class:`System`, whose errors it raises.

    ``features`` says what a context consists of, ``context`` which one this is.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012  # Gymnasium's own form
    system: ClassVar[type[System]]

    def __init__(
        self,
        context: Context | None = None,
        physics: str = "correct",
        context_obs: str = "hidden",
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            require_choice(f"{self.system.title}: render_mode", render_mode, ("rgb_array",))
        self._one = self.system(1, context, physics, context_obs)
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(1 / self._one.dt)}
        self.features = self.system.features
        self.observation_space: spaces.Space[Any] = self._one.single_observation_space
        self.action_space = self.system.single_action_space
        self._step, self._reset = np.array([STEP], np.int8), np.array([RESET], np.int8)
        self._action, self._uniforms, self._cursor = self._one.idle.copy(), np.zeros((1, BLOCK)), np.zeros(1, np.int64)

    @property
    def context(self) -> dict[str, float]:
        """This environment's values by feature."""
        return dict(zip(self.features, self._one.context[0].tolist(), strict=True))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._uniforms[0, : self.system.draws] = self.np_random.random(self.system.draws)
        self._cursor[0] = 0
        self._one.advance(self._action, self._reset, self._uniforms, self._cursor)
        return self._one.seen[0].copy(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        one = self._one
        self._action[0] = action
        one.advance(self._action, self._step, self._uniforms, self._cursor)
        return one.seen[0].copy(), float(one.rewards[0]), bool(one.ended[0]), False, {}

    def render(self) -> NDArray[np.uint8] | None:
        """uint8 ``[height, width, 3]``; None without a mode."""
        return None if self.render_mode is None else self._one.picture()

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Arrays of everything but the generator that the next step depends on."""
        return {"state": self._one.state.copy(), "seen": self._one.seen.copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Undo :meth:`get_state`."""
        self._one.state[...], self._one.seen[...] = state["state"], state["seen"]


class ContextualVectorEnv(UniformVectorEnv):
    """``num_envs`` of them, equal to Gymnasium's ``SyncVectorEnv`` of single ones with the same seeds and contexts.

    A context's value is one number for all environments or a sequence of one for each.  Episodes that have ended, or
    been cut off after ``max_episode_steps`` (-1: never), are reset in the next step.

    Raises :class:`UserError` for ``num_envs`` below 1, or what its :class:`System` refuses.
    """

    system: ClassVar[type[System]]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int = -1,
        context: Context | None = None,
        physics: str = "correct",
        context_obs: str = "hidden",
    ) -> None:
        super().__init__(self.system.observation_space(context_obs), self.system.single_action_space, num_envs)
        self._system = self.system(num_envs, context, physics, context_obs)
        self.features, self.max_episode_steps = self.system.features, max_episode_steps

    @property
    def context(self) -> dict[str, Array]:
        """Values ``[num_envs]`` by feature."""
        return {name: self._system.context[:, k].copy() for k, name in enumerate(self.features)}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """As :meth:`UniformVectorEnv.step`, with episodes cut off."""
        system = self._system
        found = np.asarray(actions, system.idle.dtype)
        if found.shape != system.idle.shape:
            raise UserError(f"{system.title}: expected actions of shape {system.idle.shape}, got {found.shape}")
        if not self._was_reset:
            raise ResetNeeded("call reset() first")
        system.check(found)
        self._refill()
        observations, infos = self._advance(found, np.where(self._autoreset, RESET, STEP).astype(np.int8))
        truncations = np.zeros(self.num_envs, np.bool_)
        if self.max_episode_steps > 0:
            truncations = system.elapsed >= self.max_episode_steps
        self._autoreset = self._terminations | truncations
        return observations, self._rewards.copy(), self._terminations.copy(), truncations, infos

    def _advance(self, actions: NDArray[Any], job: NDArray[np.int8]) -> tuple[NDArray[Any], dict[str, Any]]:
        system = self._system
        if actions.dtype != system.idle.dtype or actions.shape != system.idle.shape:
            actions = system.idle  # the base class's, in a reset
        system.advance(actions, job, self._uniforms, self._cursor)
        self._rewards[:], self._terminations[:] = system.rewards, system.ended
        return system.seen.copy(), {}
