"""Gymnasium's BipedalWalker and HalfCheetah with a context: the same bodies in an edited world.

The walker needs Box2D.  Its constants are those of Gymnasium's module; they are put in place around every call, so that
walkers with different contexts live in one process (but not in several threads of it).  HalfCheetah is MuJoCo's with
an edited model; published results are from Brax and not comparable.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from rlkit.envs.contextual.base import CONTEXT_OBS, PHYSICS, Array, Context, Feature, resolve_context
from rlkit.errors import UserError, install_extra, require_choice

WALKER = {  # defaults are Gymnasium's, bases those of the published grids
    "friction": Feature(1.0, 2.5, "friction of the ground"),
    "gravity": Feature(2.0, 10.0, "gravity, m/s²"),
    "scale": Feature(10.0, 30.0, "units of drawing in a metre; larger: a smaller walker"),
}
CHEETAH = {
    "friction": Feature(0.4, 0.4, "sliding friction"),
    "gravity": Feature(9.81, 9.81, "gravity, m/s²"),
    "stiffness": Feature(1.0, 1.0, "stiffness of the joints, times the model's"),
}


def _appended(space: Any, features: dict[str, Feature]) -> spaces.Box:
    """``space`` with a context behind it, in its own dtype."""
    ends = np.array([(f.low, f.high) for f in features.values()], space.dtype)  # [d, 2]
    low, high = (np.concatenate([side, ends[:, k]]) for k, side in enumerate((space.low, space.high)))
    return spaces.Box(low, high, dtype=space.dtype.type)


class ContextualHalfCheetahEnv(HalfCheetahEnv):
    """HalfCheetah-v5 with ``context`` friction, gravity (m/s²) and stiffness (times the model's).

    Observation float64 (17,), or (20,) with the context; the rest, and ``settings``, are Gymnasium's.  With
    ``physics="legacy"`` stiffness changes nothing: the released code leaves it out.

    Raises :class:`UserError` for an unknown or out-of-range context.
    """

    features = CHEETAH

    def __init__(
        self,
        context: Context | None = None,
        physics: str = "correct",
        context_obs: str = "hidden",
        **settings: Any,
    ) -> None:
        require_choice("half-cheetah: physics", physics, PHYSICS)
        require_choice("half-cheetah: context_obs", context_obs, CONTEXT_OBS)
        self._context: Array = resolve_context("half-cheetah", CHEETAH, context, 1)[0]
        self._append = False  # Gymnasium's constructor sizes the space by the bare observation
        super().__init__(**settings)
        friction, gravity, stiffness = self._context
        self.model.geom_friction[:, 0] *= friction / CHEETAH["friction"].base
        self.model.opt.gravity[2] = -gravity
        if physics == "correct":
            self.model.jnt_stiffness[:] *= stiffness
        self._append = context_obs == "append"
        if self._append:
            assert isinstance(self.observation_space, spaces.Box)
            self.observation_space = _appended(self.observation_space, CHEETAH)

    @property
    def context(self) -> dict[str, float]:
        """This environment's values by feature."""
        return dict(zip(CHEETAH, self._context.tolist(), strict=True))

    def _get_obs(self) -> Array:
        bare = super()._get_obs()
        return np.concatenate([bare, self._context]) if self._append else bare


def walker(context: Context | None = None, context_obs: str = "hidden", **settings: Any) -> gym.Env[Any, Any]:
    """BipedalWalker-v3 with ``context`` friction, gravity and scale; observation (24,), or (27,) with the context.

    Raises :class:`UserError` where Box2D is missing, or for an unknown or out-of-range context.
    """
    require_choice("walker: context_obs", context_obs, CONTEXT_OBS)
    values = resolve_context("walker", WALKER, context, 1)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the bindings' generator, on import
        try:
            import_module("Box2D")
            import_module("gymnasium.envs.box2d.bipedal_walker")
        except (ImportError, DependencyNotInstalled):  # of Box2D, or of pygame, which draws
            raise UserError(
                f"the contextual walker needs Box2D, which is not installed: {install_extra('box2d')}"
            ) from None
        return _walker_class()(values, context_obs == "append", settings)


def _constants(values: Array) -> dict[str, Any]:
    """Gymnasium's module constants that depend on a context ``[3]``."""
    from gymnasium.envs.box2d import bipedal_walker as home

    b2 = import_module("Box2D.b2")
    friction, scale = float(values[0]), float(values[2])
    width, height = 8 / scale, 34 / scale
    limb = {"density": 1.0, "restitution": 0.0, "categoryBits": 0x0020, "maskBits": 0x001}
    hull = b2.polygonShape(vertices=[(x / scale, y / scale) for x, y in home.HULL_POLY])
    return {
        "SCALE": scale,
        "FRICTION": friction,
        "LIDAR_RANGE": 160 / scale,
        "LEG_DOWN": -8 / scale,
        "LEG_W": width,
        "LEG_H": height,
        "TERRAIN_STEP": 14 / scale,
        "TERRAIN_HEIGHT": home.VIEWPORT_H / scale / 4,
        "HULL_FD": b2.fixtureDef(
            shape=hull, density=5.0, friction=0.1, categoryBits=0x0020, maskBits=0x001, restitution=0.0
        ),
        "LEG_FD": b2.fixtureDef(shape=b2.polygonShape(box=(width / 2, height / 2)), **limb),
        "LOWER_FD": b2.fixtureDef(shape=b2.polygonShape(box=(0.8 * width / 2, height / 2)), **limb),
    }


@cache
def _walker_class() -> Any:
    from gymnasium.envs.box2d import bipedal_walker as home

    class ContextualWalkerEnv(home.BipedalWalker):
        features = WALKER

        def __init__(self, values: Array, append: bool, settings: dict[str, Any]) -> None:
            self._context, self._append, self._own = values, append, _constants(values)
            with self._in_place():
                super().__init__(**settings)
            self.world.gravity = (0.0, -float(values[1]))
            if append:
                self.observation_space = _appended(self.observation_space, WALKER)

        @property
        def context(self) -> dict[str, float]:
            return dict(zip(WALKER, self._context.tolist(), strict=True))

        @contextmanager
        def _in_place(self) -> Iterator[None]:
            before = {name: getattr(home, name) for name in self._own}
            try:
                for name, value in self._own.items():
                    setattr(home, name, value)
                yield
            finally:
                for name, value in before.items():
                    setattr(home, name, value)

        def _observed(self, bare: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.concatenate([bare, self._context]).astype(np.float32) if self._append else bare

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[NDArray[np.float32], dict[str, Any]]:
            with self._in_place():  # Gymnasium's reset ends with a call of step, which appends
                return super().reset(seed=seed, options=options)

        def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
            with self._in_place():
                bare, reward, ended, cut, info = super().step(action)
            return self._observed(bare), float(reward), ended, cut, info

        def render(self) -> Any:
            with self._in_place():
                return super().render()

    return ContextualWalkerEnv
