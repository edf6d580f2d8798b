"""Thousands of instances behind one step: seeds, autoreset and infos around one kernel call.

A kernel does each row's job in place and allocates nothing.  The plain meaning of every kernel is the problem's own
``initial``, ``feasible`` and ``step``, which the single environment runs; tests hold the two together bit for bit.
"""

from __future__ import annotations

from abc import abstractmethod
from math import sqrt
from typing import Any, ClassVar, no_type_check

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numba import njit
from numpy.typing import NDArray

from rlkit.envs import rows
from rlkit.envs.combinatorial.base import Problem, build, row, stack
from rlkit.envs.combinatorial.environment import CombinatorialEnv, FeasibleDiscrete
from rlkit.errors import UserError

SKIP, STEP, RESET = 0, 1, 2  # what a kernel does with a row


class FeasibleMultiDiscrete(spaces.MultiDiscrete):
    """A batch of ``Discrete(count)`` that samples what is feasible now; int8 ``allowed [B, count]``, None: everything.

    Where nothing is feasible the sample is 0.
    """

    allowed: NDArray[np.int8] | None = None

    def __init__(self, num_envs: int, count: int) -> None:
        super().__init__([count] * num_envs)

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.int64]:
        if mask is not None or probability is not None or self.allowed is None:
            return super().sample(mask, probability)
        counts = self.allowed.sum(axis=1, dtype=np.int64)
        ranks = (self.np_random.random(len(counts)) * counts).astype(np.int64)  # [B], index among the feasible ones
        return np.argmax(np.cumsum(self.allowed, axis=1, dtype=np.int64) > ranks[:, None], axis=1).astype(np.int64)


@njit(cache=True, nogil=True)
@no_type_check
def _first_infeasible(actions, job, mask):
    for i in range(len(actions)):
        if job[i] == STEP and (actions[i] < 0 or actions[i] >= mask.shape[1] or mask[i, actions[i]] == 0):
            return i
    return -1


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def distance(coords, b, i, j):
    """Distance of nodes ``i`` and ``j`` of row ``b``, for kernels."""
    dx, dy = coords[b, i, 0] - coords[b, j, 0], coords[b, i, 1] - coords[b, j, 1]
    return sqrt(dx * dx + dy * dy)


class CombinatorialVectorEnv(VectorEnv[dict[str, Any], NDArray[Any], NDArray[Any]]):
    """``num_envs`` instances at once, equal in every bit to Gymnasium's ``SyncVectorEnv`` of single environments.

    Observations and infos are those of :class:`CombinatorialEnv` with ``num_envs`` in front.  ``coords`` and the like
    are the same arrays from step to step until an episode begins, then new ones: to be read, not written to.

    ``autoreset_mode``: ``NEXT_STEP`` (default) resets a finished row in place of its next step; ``SAME_STEP`` at once,
    its last observation in ``infos["final_obs"]``; ``DISABLED`` leaves a finished row as it is, terminated and with
    reward 0, until ``reset(options={"reset_mask": ...})``, so that a ragged batch can be rolled out to its end.
    Actions of rows that are not stepped are ignored.  The mask of a finished row is 0 everywhere.

    Args:
        num_envs: number of environments.
        autoreset_mode: see above.
        observe_sequence: whether the solutions so far are observed.
        settings: arguments of the problem.

    Raises:
        UserError: arguments, instances or actions that do not fit.
    """

    single: ClassVar[type[CombinatorialEnv]]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        observe_sequence: bool = False,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs={num_envs} is out of range, expected a whole number above 0")
        if render_mode is not None:
            raise UserError("a batch does not render; use gymnasium.make for pictures")
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            modes = ", ".join(mode.value for mode in AutoresetMode)
            raise UserError(f"autoreset_mode={autoreset_mode!r} is unknown, expected one of {modes}") from None
        self.problem = problem = build(self.single.kind, settings)
        self.num_envs, self.observe_sequence = num_envs, observe_sequence or problem.shows_sequence
        self.metadata = {**self.single.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = problem.observation_space(self.observe_sequence)
        self.single_action_space = FeasibleDiscrete(problem.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = FeasibleMultiDiscrete(num_envs, problem.num_actions)
        self._allocate(problem)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._ended_before = np.zeros(num_envs, np.bool_)  # where an episode ended in the last step
        self._was_reset = False

    def _allocate(self, problem: Problem) -> None:
        n = self.num_envs
        self.instances: dict[str, NDArray[Any]] = {
            key: np.zeros((n, *shape), kind) for key, (shape, kind) in problem.shapes().items()
        }
        self.derived: dict[str, NDArray[Any]] = {}
        self.optimal = np.full(n, problem.optimum)
        self._static: dict[str, NDArray[np.float32]] = {}
        self.remaining = np.zeros((n, problem.num_points), np.int8)
        self.mask = np.zeros((n, problem.num_actions), np.int8)
        self.origin, self.destination = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.budget, self.total = np.zeros(n), np.zeros(n)
        self.sequence, self.length = np.full((n, problem.solution_length), -1, np.int64), np.zeros(n, np.int64)
        self._rewards, self._ended = np.zeros(n), np.zeros(n, np.bool_)

    # ---- what a subclass provides ----------------------------------------------------------------------------------

    @abstractmethod
    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> None:
        """Do each row's ``job`` on the arrays above; reward 0 and not ended after RESET."""

    def _dynamic(self) -> dict[str, NDArray[Any]]:
        """Copies of what is observed of the states, beside mask and sequence."""
        found = {key: getattr(self, key).copy() for key in self.problem.shows}
        if "budget" in found:
            seen = self.problem.seen_budget(self.instances, found["budget"])
            found["budget"] = seen.astype(np.float32)[:, None]
        return found

    def _canonical(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The actions that stand for ``actions`` where two are the same."""
        return actions

    # ---- Gymnasium's interface -------------------------------------------------------------------------------------

    def reset(
        self, *, seed: rows.Seeds = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin new episodes everywhere, or where the bool array ``options["reset_mask"]`` says.

        ``options["instance"]`` is a batch of instances, one for each row, those of rows not reset being ignored.  A
        seed makes the generators of rows 0, 1, ... anew from ``seed``, ``seed + 1``, ..., or from one seed each;
        without, they go on.  Raises UserError for seeds, a mask or instances that do not fit.
        """
        n, options = self.num_envs, options or {}
        mask, seeds = rows.which(n, seed, options, began=self._was_reset)
        given = self._given(options["instance"], mask) if options.get("instance") is not None else None
        rows.reseed(self._generators, mask, seeds)
        self._was_reset = True
        self._begin(mask, given)
        self._advance(np.zeros(n, np.int64), np.where(mask, RESET, SKIP).astype(np.int8))
        self._ended_before[mask] = False
        observations = self._observe()
        return observations, self._with_masks(observations, np.ones(n, np.bool_))

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[dict[str, Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step every row, or reset it where ``autoreset_mode`` says so; see the class.

        Raises UserError for actions of another shape or not feasible, ``ResetNeeded`` before the first reset.
        """
        actions = np.asarray(actions)
        n = self.num_envs
        if actions.shape != (n,) or actions.dtype.kind not in "iu":
            raise UserError(f"expected whole-number actions of shape ({n},), got {actions.dtype} {actions.shape}")
        if not self._was_reset:
            raise ResetNeeded("call reset() first")
        actions, resets = self._canonical(actions.astype(np.int64)), self._ended_before
        disabled = self.autoreset_mode is AutoresetMode.DISABLED
        job = np.where(resets, np.int8(SKIP if disabled else RESET), np.int8(STEP))
        wrong = _first_infeasible(actions, job, self.mask)
        if wrong >= 0:
            raise UserError(
                f"{self.problem.name}: action {actions[wrong]} of environment {wrong} is not feasible there, expected "
                "one of action_mask"
            )
        if not disabled and resets.any():
            self._begin(resets, None)
        self._advance(actions, job)
        if disabled and resets.any():
            self._rewards[resets] = 0.0
        rewards, terminations = self._rewards.copy(), self._ended.copy()
        infos = self._outcome(terminations & (job == STEP)) if terminations.any() else {}
        self._ended_before = terminations.copy()
        if self.autoreset_mode is AutoresetMode.SAME_STEP and terminations.any():
            infos = self._reset_now(infos, terminations)
        observations = self._observe()
        infos |= self._with_masks(observations, np.ones(n, np.bool_))
        return observations, rewards, terminations, np.zeros(n, np.bool_), infos

    # ---- one batch -------------------------------------------------------------------------------------------------

    def _given(self, instances: Any, mask: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        keys = self.problem.shapes()
        for key in keys:
            if (
                not hasattr(instances, "keys")
                or np.ndim(instances.get(key)) < 1
                or len(instances[key]) != self.num_envs
            ):
                raise UserError(f"instance: expected '{key}' with {self.num_envs} rows, one for each environment")
        found = stack([self.problem.check(row(instances, int(i)), f"instance {i}") for i in np.flatnonzero(mask)])
        optimal = np.broadcast_to(
            np.asarray(instances.get("optimal", self.problem.optimum), np.float64), (self.num_envs,)
        )
        return found | {"optimal": optimal[mask]}

    def _begin(self, mask: NDArray[np.bool_], given: dict[str, NDArray[Any]] | None) -> None:
        """New instances where ``mask``: ``given`` ones, or of each row's generator."""
        rows = np.flatnonzero(mask)
        if given is None:
            generators = [generator for i in rows if (generator := self._generators[i]) is not None]
            given = self.problem.draw_batch(generators) | {"optimal": np.full(len(rows), self.problem.optimum)}
        for key, array in self.instances.items():
            array[rows] = given[key]
        self.optimal[rows] = given["optimal"]
        derived = [self.problem.derive(row(given, k)) for k in range(len(rows))] if self.problem_derives else []
        for key in derived[0] if derived else ():
            values = np.stack([part[key] for part in derived])
            if key not in self.derived:
                self.derived[key] = np.zeros((self.num_envs, *values.shape[1:]), values.dtype)
            self.derived[key][rows] = values
        # new arrays, not new contents: what was observed earlier stays as it was
        fresh = self.problem.static({key: given[key] for key in self.instances})
        for key, values in fresh.items():
            self._static[key] = values if mask.all() else self._static[key].copy()
            self._static[key][rows] = values

    @property
    def problem_derives(self) -> bool:
        return type(self.problem).derive is not Problem.derive

    def _observe(self) -> dict[str, Any]:
        mask = self.mask.copy()
        self.action_space.allowed = mask  # type: ignore[attr-defined]  # FeasibleMultiDiscrete
        found: dict[str, Any] = {**self._static, **self._dynamic(), "action_mask": mask}
        if self.observe_sequence:
            found["sequence"] = self.sequence.copy()
        return found

    def _with_masks(self, observations: dict[str, Any], everywhere: NDArray[np.bool_]) -> dict[str, Any]:
        return {"action_mask": observations["action_mask"], "_action_mask": everywhere}

    def _outcome(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        """Infos of the rows whose episode has just ended; others have zeros and a False mask, as in Gymnasium."""
        if not ended.any():
            return {}
        objective = self.total if self.problem.maximise else -self.total
        infos: dict[str, Any] = {
            "solution": np.where(ended[:, None], self.sequence, 0),
            "_solution": ended.copy(),
            "objective": np.where(ended, objective, 0.0),
            "_objective": ended.copy(),
        }
        known = ended & ~np.isnan(self.optimal)
        if known.any():
            infos |= {"optimal": np.where(known, self.optimal, 0.0), "_optimal": known}
        return infos

    def _reset_now(self, infos: dict[str, Any], ended: NDArray[np.bool_]) -> dict[str, Any]:
        """Reset where ``ended``; returns infos with Gymnasium's entries for what the episodes ended in."""
        last = self._observe()
        observations = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended):
            observations[i] = {key: value[i].copy() for key, value in last.items()}
        infos = infos | {"action_mask": np.where(ended[:, None], last["action_mask"], 0), "_action_mask": ended.copy()}
        self._begin(ended, None)
        self._advance(np.zeros(self.num_envs, np.int64), np.where(ended, RESET, SKIP).astype(np.int8))
        self._ended_before = np.zeros(self.num_envs, np.bool_)
        return {
            "final_obs": observations,
            "_final_obs": ended.copy(),
            "final_info": infos,
            "_final_info": ended.copy(),
        }
