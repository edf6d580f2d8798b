"""One instance at a time behind Gymnasium's interface; the rules are the problem's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import PICTURES, Problem, Solved, build
from rlkit.envs.combinatorial.bisimulation import Reduced
from rlkit.errors import UserError


class FeasibleDiscrete(spaces.Discrete):
    """``Discrete(n)`` that samples what is feasible now unless told a mask; int8 ``allowed [n]``, None: everything."""

    allowed: NDArray[np.int8] | None = None

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:
        if mask is None and probability is None:
            mask = self.allowed
        return super().sample(mask, probability)


class CombinatorialEnv(gym.Env[dict[str, Any], np.int64]):
    """One instance at a time; rewards add up to the objective (to minus the objective where it is minimised).

    ``reset(options={"instance": ...})`` begins with a given instance, whose ``optimal``, if it has one, is reported at
    the end; otherwise one is drawn from the environment's generator.  ``info["action_mask"]`` int8 ``[num_actions]`` is
    also part of the observation.  When an episode ends, ``info`` holds ``solution`` int64 ``[L]`` padded with -1, the
    ``objective`` and, if known, the ``optimal`` one.

    Args:
        num_nodes: see the problem.
        render_mode: "rgb_array" or None.
        observe_sequence: whether the solution so far is observed, as ``sequence``, int64 ``[L]`` padded with -1.
        settings: further arguments of the problem.

    Raises:
        UserError: arguments, instances or actions that do not fit.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  # Gymnasium's own form
    PICTURES: ClassVar[tuple[str, ...]] = PICTURES
    kind: ClassVar[type[Problem]]

    def __init__(self, *, render_mode: str | None = None, observe_sequence: bool = False, **settings: Any) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode={render_mode!r} is unknown, expected 'rgb_array' or None")
        if not isinstance(observe_sequence, bool):
            raise UserError(f"observe_sequence={observe_sequence!r} is unknown, expected True or False")
        self.problem = build(self.kind, settings)
        self.render_mode, self.observe_sequence = render_mode, observe_sequence or self.problem.shows_sequence
        self.observation_space = self.problem.observation_space(self.observe_sequence)
        self.action_space = self._actions = FeasibleDiscrete(self.problem.num_actions)
        self.instance: dict[str, NDArray[Any]] | None = None
        self.optimal = self.problem.optimum
        self.state: Any = None
        self.sequence: list[int] = []
        self.total = 0.0  # of the rewards so far
        self._taken: list[int] = []
        self._mask = np.zeros(self.problem.num_actions, np.int8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Raises UserError for an instance that is unsound or of another size."""
        super().reset(seed=seed)
        given = (options or {}).get("instance")
        if given is None:
            self._begin(self.problem.draw(self.np_random), self.problem.optimum)
        else:
            self._begin(self.problem.check(given), float(given.get("optimal", self.problem.optimum)))
        return self._observe(), {"action_mask": self._mask.copy()}

    def _begin(self, instance: dict[str, NDArray[Any]], optimal: float) -> None:
        self.instance, self.optimal = instance | self.problem.derive(instance), optimal
        self.state, self.sequence = self.problem.initial(self.instance), list(self.problem.opening())
        self.total, self._taken = 0.0, []
        self._look()

    def _look(self) -> None:
        assert self.instance is not None
        self._mask = self.problem.feasible(self.instance, self.state)
        self._actions.allowed = self._mask

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Raises UserError for an action that is not feasible, ``ResetNeeded`` outside an episode."""
        if self.instance is None or not self._mask.any():
            raise ResetNeeded("call reset() first: no episode has begun, or it has ended")
        action = require_action(action, self.problem.num_actions)
        chosen = self.problem.canonical(self.state, action)
        if not self._mask[chosen]:
            raise UserError(f"{self.problem.name}: action {action} is not feasible here, expected one of action_mask")
        reward = self._apply(chosen)
        terminated = not self._mask.any()
        info: dict[str, Any] = {"action_mask": self._mask.copy()}
        if terminated:
            info |= {"solution": self.problem.padded(self.sequence), "objective": self.objective}
            if not np.isnan(self.optimal):
                info["optimal"] = self.optimal
        return self._observe(), reward, terminated, False, info

    def _apply(self, action: int) -> float:
        assert self.instance is not None
        self.state, reward, grown = self.problem.step(self.instance, self.state, action)
        self._taken.append(action)
        self.sequence.extend(grown)
        self.total += reward
        self._look()
        if not self._mask.any() and tuple(self.sequence[-len(self.problem.closing) :]) != self.problem.closing:
            self.sequence.extend(self.problem.closing)
        return reward

    @property
    def objective(self) -> float:
        """Of the solution so far."""
        return self.total if self.problem.maximise else -self.total

    def action_masks(self) -> NDArray[np.bool_]:
        """Bool ``[num_actions]``; the name sb3-contrib's MaskablePPO asks for."""
        return self._mask.astype(np.bool_)

    def reduced(self) -> Reduced:
        """The BQ-MDP's tokens of the present state.  Raises ``ResetNeeded`` before the first reset."""
        if self.instance is None:
            raise ResetNeeded("call reset() first")
        return self.problem.reduced(self.instance, self.state)

    def _observe(self) -> dict[str, Any]:
        assert self.instance is not None
        found: dict[str, Any] = {
            **self.problem.static(self.instance),
            **self.problem.dynamic(self.instance, self.state),
        }
        found["action_mask"] = self._mask.copy()
        if self.observe_sequence:
            found["sequence"] = self.problem.padded(self.sequence)
        return found

    def render(self) -> NDArray[np.uint8] | None:
        """The instance and the solution so far, uint8 ``[400, 400, 3]``; None without a render mode."""
        if self.render_mode is None or self.instance is None:
            return None
        from rlkit.envs.combinatorial import drawing

        return drawing.picture(self.problem, self.instance, self.sequence, self.objective)

    def solved(self) -> Solved:
        """The instance, the solution so far, and its objective.  Raises ``ResetNeeded`` before the first reset."""
        if self.instance is None:
            raise ResetNeeded("call reset() first")
        return self.instance, tuple(self.sequence), self.objective

    @classmethod
    def pictures(cls, solved: Sequence[Solved], suffix: str) -> bytes:
        """One picture of several that are :meth:`solved`, in the format ``suffix``, one of :data:`PICTURES`."""
        from rlkit.envs.combinatorial import drawing

        return drawing.pictures(cls.kind, solved, suffix)

    # ---- saving ----------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The instance and the actions taken in it: everything the next step depends on but the generator."""
        instance = {} if self.instance is None else {key: self.instance[key].copy() for key in self.problem.shapes()}
        taken, optimal = np.array(self._taken, np.int64), np.array(self.optimal)
        return {**{f"instance.{key}": array for key, array in instance.items()}, "taken": taken, "optimal": optimal}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what :meth:`get_state` returned; UserError where it does not fit."""
        found = {key.removeprefix("instance."): array for key, array in state.items() if key.startswith("instance.")}
        if not found:
            self.instance = None
            return
        self._begin(self.problem.check(found, "state"), float(state["optimal"]))
        for action in state["taken"]:
            self._apply(int(action))


def require_action(action: Any, count: int) -> int:
    """``action`` as an int; raises UserError unless it is a whole number from 0 to ``count - 1``."""
    number = np.asarray(action)
    if number.shape not in ((), (1,)) or number.dtype.kind not in "iu" or not 0 <= int(number.reshape(())) < count:
        raise UserError(f"action {action!r} is out of range, expected a whole number from 0 to {count - 1}")
    return int(number.reshape(()))
