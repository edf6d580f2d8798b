"""The travelling salesman, symmetric (points in the plane) and asymmetric (a cost matrix).

BQ formulation: a tour begins and ends at node 0; n - 1 actions, each the next node; the last also pays the way back.
Direct formulation (Kool et al. 2019): n actions, the first chooses where the tour begins.  A solution is the tour as
int64 ``[n]``; the objective its closed length.

Generators: TSP uniform on the unit square.  ATSP as in MatNet (Kwon et al. 2021): whole numbers below 10^6 off a zero
diagonal, closed under the triangle inequality, over 10^6.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, ClassVar, no_type_check

import numpy as np
from gymnasium import spaces
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import (
    FORMULATIONS,
    MOST_SQUARE,
    CombinatorialEnv,
    Problem,
    lengths,
    require_choice,
    require_permutations,
)
from rlkit.envs.combinatorial.bisimulation import Instance, State
from rlkit.envs.combinatorial.vector import RESET, SKIP, CombinatorialVectorEnv
from rlkit.errors import UserError

SCALE = 1_000_000  # of ATSP's whole numbers


class TSP(Problem):
    """Points ``coords`` float64 ``[n, 2]``.

    Args:
        num_nodes: n, at least 3 and at most 1,000,000 (atsp: 5,000).
        formulation: "bq" or "direct".
    """

    name, maximise = "tsp", False

    def __init__(self, num_nodes: int = 20, formulation: str = "bq") -> None:
        super().__init__(num_nodes)
        require_choice(self.name, "formulation", formulation, FORMULATIONS)
        self.formulation = formulation

    @property
    def solution_length(self) -> int:
        return self.num_nodes

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        return {"coords": ((self.num_nodes, 2), np.float64)}

    def draw(self, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {"coords": generator.random((self.num_nodes, 2))}

    def cost(self, instance: Instance, i: int, j: int) -> float:
        """Of going from ``i`` to ``j``."""
        (x, y), (u, v) = instance["coords"][i].tolist(), instance["coords"][j].tolist()
        return sqrt((x - u) * (x - u) + (y - v) * (y - v))

    def opening(self) -> tuple[int, ...]:
        return (0,) if self.formulation == "bq" else ()

    def initial(self, instance: Instance) -> State:
        return State(tuple(range(len(self.opening()), self.num_nodes)))

    def feasible(self, instance: Instance, state: State) -> NDArray[np.int8]:
        mask = np.zeros(self.num_nodes, np.int8)
        mask[list(state.remaining)] = 1
        return mask

    def step(self, instance: Instance, state: State, action: int) -> tuple[State, float, tuple[int, ...]]:
        remaining = tuple(j for j in state.remaining if j != action)
        if len(state.remaining) == self.num_nodes:  # the free first choice of the direct formulation
            return State(remaining, action, action), 0.0, (action,)
        cost = self.cost(instance, state.origin, action)
        if not remaining:
            cost += self.cost(instance, action, state.destination)
        return State(remaining, action, state.destination), -cost, (action,)

    def dynamic_spaces(self) -> dict[str, spaces.Space[Any]]:
        n = self.num_nodes
        return {"remaining": spaces.MultiBinary(n), "origin": spaces.Discrete(n), "destination": spaces.Discrete(n)}

    def dynamic(self, instance: Instance, state: State) -> dict[str, Any]:
        remaining = self.feasible(instance, state)
        return {"remaining": remaining, "origin": np.int64(state.origin), "destination": np.int64(state.destination)}

    def objectives(self, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.float64]:
        require_permutations(self.name, solutions, np.arange(self.num_nodes))
        return lengths(instances["coords"], np.concatenate((solutions, solutions[:, :1]), axis=1))


class ATSP(TSP):
    """Costs ``cost`` float64 ``[n, n]`` from row to column, zero on the diagonal.  Arguments as :class:`TSP`."""

    name, most = "atsp", MOST_SQUARE

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        return {"cost": ((self.num_nodes, self.num_nodes), np.float64)}

    def draw(self, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {key: value[0] for key, value in self.draw_batch([generator]).items()}

    def draw_batch(self, generators: Sequence[np.random.Generator]) -> dict[str, NDArray[Any]]:
        n = self.num_nodes
        numbers = np.stack([generator.integers(0, SCALE, (n, n)) for generator in generators])  # [B, n, n]
        numbers[:, np.arange(n), np.arange(n)] = 0
        close(numbers)
        return {"cost": numbers / SCALE}

    def check_sound(self, instance: dict[str, NDArray[Any]], where: str) -> None:
        if np.diagonal(instance["cost"]).any() or (instance["cost"] < 0).any():
            raise UserError(f"{where}: 'cost' must be zero on the diagonal and nowhere negative")

    def cost(self, instance: Instance, i: int, j: int) -> float:
        return float(instance["cost"][i, j])

    def objectives(self, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.float64]:
        require_permutations(self.name, solutions, np.arange(self.num_nodes))
        following = np.roll(solutions, -1, axis=1)
        found: NDArray[np.float64] = instances["cost"][np.arange(len(solutions))[:, None], solutions, following].sum(1)
        return found


# ---- kernels ---------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def close(costs):
    """Shorten whole-number ``costs [B, n, n]`` in place to the lengths of shortest paths (Floyd-Warshall)."""
    n = costs.shape[1]
    for b in prange(len(costs)):
        for k in range(n):
            for i in range(n):
                by = costs[b, i, k]
                for j in range(n):
                    if by + costs[b, k, j] < costs[b, i, j]:
                        costs[b, i, j] = by + costs[b, k, j]


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _cost(array, matrix, b, i, j):
    if matrix:
        return array[b, i, j]
    dx, dy = array[b, i, 0] - array[b, j, 0], array[b, i, 1] - array[b, j, 1]
    return sqrt(dx * dx + dy * dy)


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


class TSPEnv(CombinatorialEnv):
    """One tour at a time.  Observation: ``coords`` float32 ``[n, 2]``, ``remaining``, ``origin``, ``destination``,
    ``action_mask``; action: the next node; reward: minus the way to it."""

    kind = TSP


class ATSPEnv(CombinatorialEnv):
    """:class:`TSPEnv` with ``cost`` float32 ``[n, n]`` in place of ``coords``."""

    kind = ATSP


class TSPVectorEnv(CombinatorialVectorEnv):
    """A batch of :class:`TSPEnv`; all rows are in lock-step unless reset apart."""

    single: ClassVar[type[CombinatorialEnv]] = TSPEnv
    array = "coords"

    def __init__(self, num_envs: int = 1, **settings: Any) -> None:
        super().__init__(num_envs, **settings)
        self.mask = self.remaining  # what is left is what is feasible

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> None:
        problem: Any = self.problem
        where = self.instances[self.array], self.array == "cost", problem.formulation == "direct"
        state = self.remaining, self.origin, self.destination, self.sequence, self.length
        _advance(actions, job, *where, *state, self.total, self._rewards, self._ended)

    def _dynamic(self) -> dict[str, NDArray[Any]]:
        return {
            "remaining": self.remaining.copy(),
            "origin": self.origin.copy(),
            "destination": self.destination.copy(),
        }


class ATSPVectorEnv(TSPVectorEnv):
    """A batch of :class:`ATSPEnv`."""

    single = ATSPEnv
    array = "cost"
