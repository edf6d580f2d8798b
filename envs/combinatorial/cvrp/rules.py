"""The capacitated vehicle routing problem: every customer served once, no route above capacity, shortest total length.

Node 0 is the depot, nodes 1..n are customers.  BQ formulation: action 2 j + b serves customer j, directly (b = 0, if
the load left covers its demand) or by the depot (b = 1, where the load is refilled before serving); exactly n actions.
At the depot both are the same and the mask has the direct one; 2 j + 1 is taken as 2 j there.  Direct formulation (Kool
et al. 2019): action j, and the depot is an action as well.  A solution is ``0 .. 0 .. 0`` with the depot between
routes, int64 ``[2 n + 1]`` padded with -1; the objective is its length.

Generator: depot and customers uniform on the unit square, demands uniform in 1..9, capacities by size.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, no_type_check

import numpy as np
from gymnasium import spaces
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import (
    FORMULATIONS,
    LARGEST_WHOLE,
    Problem,
    euclidean,
    lengths,
    require_whole,
)
from rlkit.envs.combinatorial.bisimulation import Instance, Reduced, State
from rlkit.envs.combinatorial.environment import CombinatorialEnv
from rlkit.envs.combinatorial.vector import RESET, SKIP, CombinatorialVectorEnv, distance
from rlkit.errors import UserError, require_choice

CAPACITIES = {  # by number of customers
    "bq": {20: 30, 50: 40, 100: 50, 200: 80, 500: 100, 1000: 250},
    "rl4co": {20: 30, 50: 40, 100: 50, 200: 70, 500: 100, 1000: 150},
}
MOST_DEMAND = 9


class CVRP(Problem):
    """``coords`` float64 ``[n + 1, 2]``, ``demand`` int64 ``[n + 1]`` (0 at the depot), ``capacity`` int64.

    Args:
        num_nodes: n, customers, at least 3 and at most 1,000,000.
        formulation: "bq" or "direct".
        capacity: of a vehicle, in random instances; by default the literature's, which is known for 20, 50, 100, 200,
            500 and 1000 customers; a whole number of at least 9, the largest demand drawn.
        capacities: whose table, "bq" or "rl4co"; they differ above 100 customers.
    """

    name, maximise, closing = "cvrp", False, (0,)
    shows = ("remaining", "origin", "destination", "budget")

    def __init__(
        self, num_nodes: int = 20, formulation: str = "bq", capacity: int | None = None, capacities: str = "bq"
    ) -> None:
        super().__init__(num_nodes)
        require_choice(f"{self.name}: formulation", formulation, FORMULATIONS)
        require_choice(f"{self.name}: capacities", capacities, tuple(CAPACITIES))
        if capacity is not None:  # the least is the largest demand drawn
            capacity = require_whole(self.name, "capacity", capacity, MOST_DEMAND, LARGEST_WHOLE)
        self.formulation, self.capacities, self.capacity = formulation, capacities, capacity

    @property
    def num_points(self) -> int:
        return self.num_nodes + 1

    @property
    def num_actions(self) -> int:
        return 2 * self.num_points if self.formulation == "bq" else self.num_points

    @property
    def solution_length(self) -> int:
        return 2 * self.num_nodes + 1

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        n = self.num_points
        return {"coords": ((n, 2), np.float64), "demand": ((n,), np.int64), "capacity": ((), np.int64)}

    def draw(self, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Raises UserError where no capacity is given and the literature has none for this size."""
        table = CAPACITIES[self.capacities]
        capacity = self.capacity if self.capacity is not None else table.get(self.num_nodes)
        if capacity is None:
            sizes = ", ".join(map(str, table))
            raise UserError(
                f"cvrp: no usual capacity for num_nodes={self.num_nodes} (known: {sizes}), expected capacity="
            )
        coords = generator.random((self.num_points, 2))
        demand = generator.integers(1, MOST_DEMAND + 1, self.num_points)
        demand[0] = 0
        return {"coords": coords, "demand": demand, "capacity": np.array(capacity, np.int64)}

    def check_sound(self, instance: dict[str, NDArray[Any]], where: str) -> None:
        super().check_sound(instance, where)
        demand, capacity = instance["demand"], int(instance["capacity"])
        if demand[0] != 0:
            raise UserError(f"{where}: 'demand' of the depot is {demand[0]}, expected 0")
        wrong = np.flatnonzero((demand[1:] < 1) | (demand[1:] > capacity)) + 1
        if len(wrong):
            raise UserError(
                f"{where}: 'demand' of customer {wrong[0]} is {demand[wrong[0]]}, expected 1 to the capacity {capacity}"
            )

    def static(self, instances: Instance) -> dict[str, NDArray[np.float32]]:
        share = instances["demand"] / instances["capacity"][..., None]
        return {"coords": instances["coords"].astype(np.float32), "demand": share.astype(np.float32)}

    def cost(self, instance: Instance, i: int, j: int) -> float:
        """Of going from ``i`` to ``j``."""
        return euclidean(instance["coords"], i, j)

    def opening(self) -> tuple[int, ...]:
        return (0,)

    def initial(self, instance: Instance) -> State:
        return State(tuple(range(1, self.num_points)), 0, 0, int(instance["capacity"]))

    def feasible(self, instance: Instance, state: State) -> NDArray[np.int8]:
        direct = np.zeros(self.num_points, np.int8)
        direct[[j for j in state.remaining if instance["demand"][j] <= state.budget]] = 1
        if self.formulation == "direct":
            direct[0] = state.origin != 0
            return direct
        via = np.zeros(self.num_points, np.int8)
        via[list(state.remaining)] = state.origin != 0
        return np.stack((direct, via), axis=1).reshape(-1)  # [N, 2] -> [2 N]

    def canonical(self, state: State, action: int) -> int:
        return action - action % 2 if self.formulation == "bq" and state.origin == 0 else action

    def step(self, instance: Instance, state: State, action: int) -> tuple[State, float, tuple[int, ...]]:
        j, via = divmod(action, 2) if self.formulation == "bq" else (action, 0)
        if j == 0:
            return (
                state._replace(origin=0, budget=int(instance["capacity"])),
                -self.cost(instance, state.origin, 0),
                (0,),
            )
        remaining = tuple(k for k in state.remaining if k != j)
        load = int(instance["capacity"]) if via else state.budget
        if via:
            cost = self.cost(instance, state.origin, 0) + self.cost(instance, 0, j)
        else:
            cost = self.cost(instance, state.origin, j)
        if not remaining and self.formulation == "bq":
            cost += self.cost(instance, j, 0)
        visited = (0, j) if via else (j,)
        return State(remaining, j, 0, load - int(instance["demand"][j])), -cost, visited

    def dynamic_spaces(self) -> dict[str, spaces.Space[Any]]:
        return super().dynamic_spaces() | {"budget": spaces.Box(0.0, 1.0, (1,), np.float32)}

    def seen_budget(self, instances: Instance, budget: Any) -> Any:
        """In parts of the capacity."""
        return budget / instances["capacity"]

    def objectives(self, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.float64]:
        count = len(solutions)
        visits = np.zeros((count, self.num_points), np.int64)
        rows, columns = np.nonzero(solutions >= 0)
        inside = solutions[rows, columns]
        if inside.max(initial=0) > self.num_nodes:
            raise UserError(f"solution of cvrp names node {inside.max()}, expected 0 to {self.num_nodes}")
        np.add.at(visits, (rows, inside), 1)
        wrong = np.flatnonzero((visits[:, 1:] != 1).any(axis=1))
        if len(wrong):
            raise UserError(f"solution {wrong[0]} of cvrp is infeasible: expected every customer exactly once")
        ends = solutions[np.arange(count), (solutions >= 0).sum(axis=1) - 1]
        wrong = np.flatnonzero((solutions[:, 0] != 0) | (ends != 0))
        if len(wrong):
            raise UserError(f"solution {wrong[0]} of cvrp is infeasible: expected it to begin and end at the depot, 0")
        load = np.zeros(count, np.int64)
        for column in solutions.T:
            load = np.where(column > 0, load + instances["demand"][np.arange(count), column], load * (column != 0))
            wrong = np.flatnonzero(load > instances["capacity"])
            if len(wrong):
                k = wrong[0]
                raise UserError(
                    f"solution {k} of cvrp is infeasible: a route carries {load[k]}, expected at most "
                    f"{instances['capacity'][k]}"
                )
        return lengths(instances["coords"], solutions)

    def actions(self, solution: NDArray[np.int64]) -> list[int]:
        visited = [int(j) for j in solution if j >= 0]
        if self.formulation == "direct":
            return visited[1:]
        return [2 * j + int(i == 0 and k > 0) for k, (i, j) in enumerate(pairwise(visited)) if j != 0]

    def reduced(self, instance: Instance, state: State) -> Reduced:
        """Tokens (x, y, q/C, Q/C); what the two ends demanded is past, 0."""
        nodes, capacity = state.nodes(), float(instance["capacity"])
        demand = instance["demand"][nodes] / capacity
        demand[:2] = 0.0
        load = np.full(len(nodes), state.budget / capacity)
        return Reduced(np.column_stack((instance["coords"][nodes], demand, load)), nodes)  # [K, 4]


def split_routes(solution: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The customers of each route of ``solution``, such as ``0 3 1 0 2 0 -1 -1``."""
    solution = solution[solution >= 0]
    depots = np.flatnonzero(solution == 0)
    return [solution[a + 1 : b] for a, b in pairwise(depots) if b > a + 1]


# ---- kernel ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _advance(
    actions,
    job,
    coords,
    demand,
    capacity,
    direct,
    remaining,
    mask,
    origin,
    budget,
    sequence,
    length,
    total,
    rewards,
    ended,
):
    n = remaining.shape[1]
    for b in prange(len(job)):
        if job[b] == SKIP:
            continue
        if job[b] == RESET:
            remaining[b, :] = 1
            sequence[b, :] = -1
            remaining[b, 0], sequence[b, 0], length[b], origin[b] = 0, 0, 1, 0
            budget[b], total[b], rewards[b] = capacity[b], 0.0, 0.0
        else:
            j, via = actions[b], False
            if not direct:
                j, via = actions[b] // 2, actions[b] % 2 == 1
            remaining[b, j] = 0
            left = False
            for k in range(n):
                if remaining[b, k]:
                    left = True
                    break
            if via:
                cost = distance(coords, b, origin[b], 0) + distance(coords, b, 0, j)
                sequence[b, length[b]] = 0
                length[b] += 1
                budget[b] = capacity[b]
            else:
                cost = distance(coords, b, origin[b], j)
            sequence[b, length[b]] = j
            length[b] += 1
            budget[b] = capacity[b] if j == 0 else budget[b] - demand[b, j]
            if not left and not direct:
                cost += distance(coords, b, j, 0)
                sequence[b, length[b]] = 0
                length[b] += 1
            origin[b], rewards[b] = j, -cost
            total[b] -= cost
        some = False
        for j in range(1, n):
            here = remaining[b, j] == 1 and demand[b, j] <= budget[b]
            if direct:
                mask[b, j] = here
            else:
                mask[b, 2 * j] = here
                mask[b, 2 * j + 1] = remaining[b, j] if origin[b] != 0 else 0
            some = some or remaining[b, j] == 1
        if direct:
            mask[b, 0] = origin[b] != 0
            some = some or origin[b] != 0
        ended[b] = not some


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


class CVRPEnv(CombinatorialEnv):
    """One instance at a time.  Observation: ``coords`` float32 ``[n + 1, 2]``, ``demand`` float32 ``[n + 1]`` in parts
    of the capacity, ``remaining``, ``origin``, ``destination`` (the depot), ``budget`` float32 ``[1]`` (the load left,
    in the same unit), ``action_mask``; action 2 j + b; reward: minus the way."""

    kind = CVRP


class CVRPVectorEnv(CombinatorialVectorEnv):
    """A batch of :class:`CVRPEnv`; in the BQ formulation all rows are in lock-step unless reset apart."""

    single = CVRPEnv

    @property
    def _direct(self) -> bool:
        problem: Any = self.problem
        return bool(problem.formulation == "direct")

    def _canonical(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        return actions if self._direct else actions - (actions % 2) * (self.origin == 0)

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> None:
        instances = self.instances
        where = instances["coords"], instances["demand"], instances["capacity"], self._direct
        state = self.remaining, self.mask, self.origin, self.budget, self.sequence, self.length
        _advance(actions, job, *where, *state, self.total, self._rewards, self._ended)
