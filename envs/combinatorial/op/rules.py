"""The orienteering problem: a tour from the depot and back, no longer than a budget, that collects the most prizes.

Node 0 is the depot.  BQ formulation: action j visits node j if the way there and home from there is within the budget,
with 1e-6 to spare for rounding; an episode ends where nothing is.  Direct formulation (Kool et al. 2019): action 0
returns and ends the episode.  A solution is ``0 .. 0``, int64 ``[n + 2]`` padded with -1; the objective is the sum of
prizes.

Generator: nodes uniform on the unit square; prizes all 1 ("const"), whole numbers 1..100 over 100 ("uniform"), or
(1 + floor(99 d / max d)) / 100 with d the distance from the depot ("distance", the hardest and usual).
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import (
    FORMULATIONS,
    Problem,
    euclidean,
    lengths,
    require_number,
)
from rlkit.envs.combinatorial.bisimulation import Instance, Reduced, State
from rlkit.envs.combinatorial.environment import CombinatorialEnv
from rlkit.envs.combinatorial.vector import RESET, SKIP, CombinatorialVectorEnv, distance
from rlkit.errors import UserError, require_choice

BUDGETS = {20: 2.0, 50: 3.0, 100: 4.0}  # lengths, by number of nodes
PRIZES = ("distance", "uniform", "const")
TOLERANCE = 1e-6  # of the budget, for the rounding of sums
LEAST_BUDGET = 1e-9
MOST_DRAWS = 1000  # of an instance whose budget reaches some node


class Orienteering(Problem):
    """``coords`` float64 ``[n + 1, 2]``, ``prize`` float64 ``[n + 1]`` (0 at the depot), ``budget`` float64.

    Args:
        num_nodes: n, nodes to visit, at least 3 and at most 1,000,000.
        formulation: "bq" or "direct".
        budget: length of a tour, in random instances, at least 1e-9; by default the literature's, which is known for
            20, 50 and 100.
        prizes: "distance", "uniform" or "const".
    """

    name, maximise, closing = "op", True, (0,)
    shows = ("remaining", "origin", "destination", "budget")

    def __init__(
        self, num_nodes: int = 20, formulation: str = "bq", budget: float | None = None, prizes: str = "distance"
    ) -> None:
        super().__init__(num_nodes)
        require_choice(f"{self.name}: formulation", formulation, FORMULATIONS)
        require_choice(f"{self.name}: prizes", prizes, PRIZES)
        self.formulation, self.prizes = formulation, prizes
        self.budget = None if budget is None else require_number(self.name, "budget", budget, LEAST_BUDGET)

    @property
    def num_points(self) -> int:
        return self.num_nodes + 1

    @property
    def solution_length(self) -> int:
        return self.num_nodes + 2

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        n = self.num_points
        return {"coords": ((n, 2), np.float64), "prize": ((n,), np.float64), "budget": ((), np.float64)}

    def draw(self, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Draws again where the budget reaches no node.  Raises UserError where it never does, or where no budget is
        given and the literature has none for this size."""
        budget = self.budget if self.budget is not None else BUDGETS.get(self.num_nodes)
        if budget is None:
            raise UserError(
                f"op: no usual budget for num_nodes={self.num_nodes} (known: {', '.join(map(str, BUDGETS))}), expected "
                "budget="
            )
        for _ in range(MOST_DRAWS):
            coords = generator.random((self.num_points, 2))
            away = np.sqrt(((coords[1:] - coords[0]) ** 2).sum(axis=1))  # [n]
            prize = np.ones(self.num_nodes)
            if self.prizes == "uniform":
                prize = generator.integers(1, 101, self.num_nodes) / 100
            elif self.prizes == "distance":
                prize = (1 + np.floor(99 * (away / away.max()))) / 100  # in this order: the farthest one's is 1
            if 2 * away.min() <= budget:
                return {"coords": coords, "prize": np.concatenate(([0.0], prize)), "budget": np.array(budget)}
        raise UserError(f"op: budget={budget} reaches no node of {MOST_DRAWS} random instances, expected a larger one")

    def check_sound(self, instance: dict[str, NDArray[Any]], where: str) -> None:
        super().check_sound(instance, where)
        prize, budget = instance["prize"], float(instance["budget"])
        if prize[0] != 0.0 or (prize < 0).any():
            raise UserError(f"{where}: 'prize' must be 0 at the depot and nowhere negative")
        nearest = 2 * min(self.cost(instance, 0, j) for j in range(1, self.num_points))
        if nearest > budget + TOLERANCE:
            raise UserError(
                f"{where}: 'budget' {budget:g} reaches no node, expected at least {nearest:g}, to the nearest and back"
            )

    def cost(self, instance: Instance, i: int, j: int) -> float:
        """Of going from ``i`` to ``j``."""
        return euclidean(instance["coords"], i, j)

    def opening(self) -> tuple[int, ...]:
        return (0,)

    def initial(self, instance: Instance) -> State:
        return State(tuple(range(1, self.num_points)), 0, 0, float(instance["budget"]))

    def feasible(self, instance: Instance, state: State) -> NDArray[np.int8]:
        mask = np.zeros(self.num_points, np.int8)
        for j in state.remaining:
            way = self.cost(instance, state.origin, j) + self.cost(instance, j, 0)
            mask[j] = way <= state.budget + TOLERANCE
        if self.formulation == "direct":
            mask[0] = len(state.remaining) > 0
        return mask

    def step(self, instance: Instance, state: State, action: int) -> tuple[State, float, tuple[int, ...]]:
        budget = state.budget - self.cost(instance, state.origin, action)
        if action == 0:  # the direct formulation's return
            return State((), 0, 0, budget), 0.0, (0,)
        remaining = tuple(j for j in state.remaining if j != action)
        return State(remaining, action, 0, budget), float(instance["prize"][action]), (action,)

    def objectives(self, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.float64]:
        count = len(solutions)
        if solutions.max(initial=0) > self.num_nodes:
            raise UserError(f"solution of op names node {solutions.max()}, expected 0 to {self.num_nodes}")
        visits = np.zeros((count, self.num_points), np.int64)
        rows, columns = np.nonzero(solutions >= 0)
        np.add.at(visits, (rows, solutions[rows, columns]), 1)
        ends = solutions[np.arange(count), np.maximum((solutions >= 0).sum(axis=1) - 1, 0)]
        wrong = np.flatnonzero((visits[:, 1:] > 1).any(axis=1) | (visits[:, 0] != 2) | (solutions[:, 0] + ends != 0))
        if len(wrong):
            raise UserError(f"solution {wrong[0]} of op is infeasible: expected 0 .. 0 with no node visited twice")
        found = lengths(instances["coords"], solutions)
        wrong = np.flatnonzero(found > instances["budget"] + TOLERANCE + 1e-9)  # another order of the same sum
        if len(wrong):
            k = wrong[0]
            raise UserError(
                f"solution {k} of op is infeasible: length {found[k]:.6g}, expected up to {instances['budget'][k]:.6g}"
            )
        prizes: NDArray[np.float64] = (visits * instances["prize"]).sum(axis=1)
        return prizes

    def actions(self, solution: NDArray[np.int64]) -> list[int]:
        visited = [int(j) for j in solution if j >= 0]
        return visited[1:] if self.formulation == "direct" else visited[1:-1]

    def reduced(self, instance: Instance, state: State) -> Reduced:
        """Tokens (x, y, p, B); the prizes of the two ends are past, 0."""
        nodes = state.nodes()
        prize = instance["prize"][nodes]
        prize[:2] = 0.0
        budget = np.full(len(nodes), state.budget)
        return Reduced(np.column_stack((instance["coords"][nodes], prize, budget)), nodes)  # [K, 4]


# ---- kernel ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _advance(
    actions,
    job,
    coords,
    prize,
    allowance,
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
            budget[b], total[b], rewards[b] = allowance[b], 0.0, 0.0
        else:
            j = actions[b]
            budget[b] -= distance(coords, b, origin[b], j)
            origin[b], rewards[b] = j, prize[b, j]
            sequence[b, length[b]] = j
            length[b] += 1
            total[b] += prize[b, j]
            if j == 0:
                remaining[b, :] = 0
            remaining[b, j] = 0
        some, left = False, False
        for j in range(1, n):
            mask[b, j] = 0
            if remaining[b, j]:
                left = True
                way = distance(coords, b, origin[b], j) + distance(coords, b, j, 0)
                if way <= budget[b] + TOLERANCE:
                    mask[b, j] = 1
                    some = True
        if direct:
            mask[b, 0] = left
            some = left
        ended[b] = not some
        if not some and origin[b] != 0:
            sequence[b, length[b]] = 0
            length[b] += 1


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


class OPEnv(CombinatorialEnv):
    """One instance at a time.  Observation: ``coords`` float32 ``[n + 1, 2]``, ``prize`` float32 ``[n + 1]``,
    ``remaining``, ``origin``, ``destination`` (the depot), ``budget`` float32 ``[1]`` (length left), ``action_mask``;
    action: the next node; reward: its prize."""

    kind = Orienteering


class OPVectorEnv(CombinatorialVectorEnv):
    """A batch of :class:`OPEnv`; rows end at different times."""

    single = OPEnv

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> None:
        problem: Any = self.problem
        instances = self.instances
        where = instances["coords"], instances["prize"], instances["budget"], problem.formulation == "direct"
        state = self.remaining, self.mask, self.origin, self.budget, self.sequence, self.length
        _advance(actions, job, *where, *state, self.total, self._rewards, self._ended)
