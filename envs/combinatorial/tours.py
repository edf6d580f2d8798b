"""What the symmetric and the asymmetric travelling salesman share.

BQ formulation: a tour begins and ends at node 0; n - 1 actions, each the next node; the last also pays the way back.
Direct formulation (Kool et al. 2019): n actions, the first chooses where the tour begins.  A solution is the tour as
int64 ``[n]``; the objective its closed length.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import FORMULATIONS, Problem, remaining_mask
from rlkit.envs.combinatorial.bisimulation import Instance, State
from rlkit.envs.combinatorial.vector import RESET, SKIP, CombinatorialVectorEnv, distance
from rlkit.errors import require_choice


class Tours(Problem):
    """Every node once and back to the first.

    Args:
        num_nodes: n, at least 3 and at most 1,000,000 (atsp: 5,000).
        formulation: "bq" or "direct".
    """

    maximise, permutes = False, True

    def __init__(self, num_nodes: int = 20, formulation: str = "bq") -> None:
        super().__init__(num_nodes)
        require_choice(f"{self.name}: formulation", formulation, FORMULATIONS)
        self.formulation = formulation

    @property
    def solution_length(self) -> int:
        return self.num_nodes

    @abstractmethod
    def cost(self, instance: Instance, i: int, j: int) -> float:
        """Of going from ``i`` to ``j``."""

    def opening(self) -> tuple[int, ...]:
        return (0,) if self.formulation == "bq" else ()

    def initial(self, instance: Instance) -> State:
        return State(tuple(range(len(self.opening()), self.num_nodes)))

    def feasible(self, instance: Instance, state: State) -> NDArray[np.int8]:
        return remaining_mask(state.remaining, self.num_nodes)

    def step(self, instance: Instance, state: State, action: int) -> tuple[State, float, tuple[int, ...]]:
        remaining = tuple(j for j in state.remaining if j != action)
        if len(state.remaining) == self.num_nodes:  # the free first choice of the direct formulation
            return State(remaining, action, action), 0.0, (action,)
        cost = self.cost(instance, state.origin, action)
        if not remaining:
            cost += self.cost(instance, action, state.destination)
        return State(remaining, action, state.destination), -cost, (action,)


# ---- kernel ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _cost(array, matrix, b, i, j):
    return array[b, i, j] if matrix else distance(array, b, i, j)


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _advance(
    actions, job, array, matrix, direct, remaining, origin, destination, sequence, length, total, rewards, ended
):
    n = remaining.shape[1]
    for b in prange(len(job)):
        if job[b] == SKIP:
            continue
        if job[b] == RESET:
            remaining[b, :] = 1
            sequence[b, :] = -1
            origin[b], destination[b], length[b] = 0, 0, 0
            total[b], rewards[b], ended[b] = 0.0, 0.0, False
            if not direct:
                remaining[b, 0], sequence[b, 0], length[b] = 0, 0, 1
            continue
        j = actions[b]
        first = length[b] == 0
        remaining[b, j], sequence[b, length[b]] = 0, j
        length[b] += 1
        ended[b] = length[b] == n
        if first:
            origin[b], destination[b], rewards[b] = j, j, 0.0
            continue
        cost = _cost(array, matrix, b, origin[b], j)
        if ended[b]:
            cost += _cost(array, matrix, b, j, destination[b])
        origin[b], rewards[b] = j, -cost
        total[b] -= cost


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


class ToursVectorEnv(CombinatorialVectorEnv):
    """All rows are in lock-step unless reset apart.  array: of an instance, with the points or the costs."""

    array: ClassVar[str]
    matrix: ClassVar[bool] = False  # whether that holds costs

    def __init__(self, num_envs: int = 1, **settings: Any) -> None:
        super().__init__(num_envs, **settings)
        self.mask = self.remaining  # what is left is what is feasible

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> None:
        problem: Any = self.problem
        where = self.instances[self.array], self.matrix, problem.formulation == "direct"
        state = self.remaining, self.origin, self.destination, self.sequence, self.length
        _advance(actions, job, *where, *state, self.total, self._rewards, self._ended)
