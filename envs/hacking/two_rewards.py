"""What environments with a true reward and a proxy have in common: worlds in rows of arrays, and an env of one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlkit.errors import UserError, require_choice

Array = NDArray[np.float64]
REWARDS = ("proxy", "true")


class Worlds:
    """n worlds in arrays of n rows, which a kernel steps.

    A subclass names in :attr:`OWN` the arrays that the next step depends on, and fills ``seen``, what is observed.
    """

    OWN: ClassVar[tuple[str, ...]]
    seen: NDArray[np.float32]

    def __init__(self, reward: str, n: int) -> None:
        self.reward = reward
        self.true, self.proxy, self.ended = np.zeros(n), np.zeros(n), np.zeros(n, np.bool_)

    def limits(self) -> dict[str, tuple[int, int]]:
        """Least and largest value of the whole numbers among :attr:`OWN`: kernels index by them without looking."""
        return {}

    @property
    def own(self) -> list[NDArray[Any]]:
        """The arrays of :attr:`OWN`."""
        return [getattr(self, name) for name in self.OWN]

    @property
    def rewards(self) -> Array:
        """The last step's, true or by proxy as ``reward`` says, ``[n]``."""
        return self.true if self.reward == "true" else self.proxy

    def infos(self) -> dict[str, Array]:
        return {"true_reward": self.true.copy(), "proxy_reward": self.proxy.copy()}


W = TypeVar("W", bound=Worlds)


class OneWorld(gym.Env[Any, Any], Generic[W]):
    """A Gymnasium environment of the only row of ``_one``."""

    _one: W

    def known_mode(self, render_mode: str | None) -> str | None:
        """``render_mode``; raises :class:`UserError` for one that the environment has not."""
        if render_mode is not None:
            require_choice(f"{type(self).__name__}: render_mode", render_mode, tuple(self.metadata["render_modes"]))
        return render_mode

    def _info(self) -> dict[str, float]:
        return {name: float(value[0]) for name, value in self._one.infos().items()}

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Arrays of everything but the generator that the next step depends on."""
        return {name: value.copy() for name, value in zip(self._one.OWN, self._one.own, strict=True)}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Undo :meth:`get_state`.  Raises :class:`UserError` for a state that no episode has."""
        limits = self._one.limits()
        for name, value in zip(self._one.OWN, self._one.own, strict=True):
            given = np.asarray(state[name])
            low, high = limits.get(name, (0, 2**40))
            sound = given.shape == value.shape and given.dtype == value.dtype
            whole = given.dtype.kind in "iu"
            if not sound or not (np.isfinite(given) & (not whole or ((given >= low) & (given <= high)))).all():
                raise UserError(f"state '{name}' is none of {type(self).__name__}'s")
        for name, value in zip(self._one.OWN, self._one.own, strict=True):
            value[...] = state[name]
