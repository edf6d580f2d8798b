"""The 0-1 knapsack: items of most value whose weights fit the capacity.

Action j packs item j if its weight is within what is left (1e-9 to spare for rounding); an episode ends where nothing
fits.  A solution is the packed items, int64 ``[n]`` padded with -1, their order of no matter; the objective is their
value.

Generators: "bq", weights and values whole numbers 1..998 over 1000 (Drakulic et al. 2023); "uniform", both uniform on
[0, 1) (Bello et al. 2017).
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import Problem, require_number
from rlkit.envs.combinatorial.bisimulation import Instance, Reduced, State
from rlkit.envs.combinatorial.environment import CombinatorialEnv
from rlkit.envs.combinatorial.vector import RESET, SKIP, CombinatorialVectorEnv
from rlkit.errors import UserError, require_choice

ITEMS = ("bq", "uniform")
UNIT = 1000  # of "bq" weights and values
TOLERANCE = 1e-9  # of the capacity, for the rounding of sums


class Knapsack(Problem):
    """``weight`` and ``value`` float64 ``[n]``, ``capacity`` float64.

    Args:
        num_nodes: n, items, at most 1,000,000.
        items: "bq" or "uniform".
        capacity: of random instances, at least 1, the largest weight drawn; by default 12.5 for 50 items and 25 from
            100 on, as in the literature.
    """

    name, maximise, least, shows = "knapsack", True, 1, ("remaining", "budget")

    def __init__(self, num_nodes: int = 50, items: str = "bq", capacity: float | None = None) -> None:
        super().__init__(num_nodes)
        require_choice(f"{self.name}: items", items, ITEMS)
        if capacity is not None:  # the least is the largest weight drawn
            capacity = require_number(self.name, "capacity", capacity, 1.0)
        self.items, self.capacity = items, capacity

    @property
    def solution_length(self) -> int:
        return self.num_nodes

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        n = self.num_nodes
        return {"weight": ((n,), np.float64), "value": ((n,), np.float64), "capacity": ((), np.float64)}

    def draw(self, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Raises UserError where no capacity is given and the literature has none for this size."""
        capacity = self.capacity
        if capacity is None:
            if self.num_nodes != 50 and self.num_nodes < 100:
                raise UserError(
                    f"knapsack: no usual capacity for num_nodes={self.num_nodes} (known: 50, and 100 and above), "
                    "expected capacity="
                )
            capacity = 12.5 if self.num_nodes == 50 else 25.0
        if self.items == "uniform":
            weight, value = generator.random((2, self.num_nodes))
        else:
            weight, value = generator.integers(1, UNIT - 1, (2, self.num_nodes)) / UNIT
        return {"weight": weight, "value": value, "capacity": np.array(capacity)}

    def check_sound(self, instance: dict[str, NDArray[Any]], where: str) -> None:
        if (instance["weight"] < 0).any() or (instance["value"] < 0).any():
            raise UserError(f"{where}: 'weight' and 'value' must nowhere be negative")
        lightest = instance["weight"].min()
        if lightest > instance["capacity"] + TOLERANCE:
            raise UserError(
                f"{where}: 'capacity' {float(instance['capacity']):g} holds no item, expected at least {lightest:g}, "
                "the lightest one's weight"
            )

    def initial(self, instance: Instance) -> State:
        return State(tuple(range(self.num_nodes)), budget=float(instance["capacity"]))

    def feasible(self, instance: Instance, state: State) -> NDArray[np.int8]:
        mask = np.zeros(self.num_nodes, np.int8)
        mask[[j for j in state.remaining if instance["weight"][j] <= state.budget + TOLERANCE]] = 1
        return mask

    def step(self, instance: Instance, state: State, action: int) -> tuple[State, float, tuple[int, ...]]:
        remaining = tuple(j for j in state.remaining if j != action)
        left = state.budget - float(instance["weight"][action])
        return State(remaining, budget=left), float(instance["value"][action]), (action,)

    def objectives(self, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.float64]:
        if solutions.max(initial=0) >= self.num_nodes:
            raise UserError(f"solution of knapsack names item {solutions.max()}, expected 0 to {self.num_nodes - 1}")
        packed = np.zeros((len(solutions), self.num_nodes), np.int64)
        rows, columns = np.nonzero(solutions >= 0)
        np.add.at(packed, (rows, solutions[rows, columns]), 1)
        wrong = np.flatnonzero((packed > 1).any(axis=1))
        if len(wrong):
            raise UserError(f"solution {wrong[0]} of knapsack is infeasible: expected no item twice")
        weight = (packed * instances["weight"]).sum(axis=1)
        wrong = np.flatnonzero(weight > instances["capacity"] + 2 * TOLERANCE)  # another order of the same sum
        if len(wrong):
            k = wrong[0]
            raise UserError(
                f"solution {k} of knapsack is infeasible: weight {weight[k]:.6g}, expected at most "
                f"{instances['capacity'][k]:.6g}"
            )
        values: NDArray[np.float64] = (packed * instances["value"]).sum(axis=1)
        return values

    def reduced(self, instance: Instance, state: State) -> Reduced:
        """Tokens (w, v, W), of the items alone."""
        nodes = np.array(state.remaining, np.int64)
        budget = np.full(len(nodes), state.budget)
        return Reduced(np.stack([instance["weight"][nodes], instance["value"][nodes], budget], axis=1), nodes)


# ---- kernel ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _advance(actions, job, weight, value, capacity, remaining, mask, budget, sequence, length, total, rewards, ended):
    n = remaining.shape[1]
    for b in prange(len(job)):
        if job[b] == SKIP:
            continue
        if job[b] == RESET:
            remaining[b, :] = 1
            sequence[b, :] = -1
            length[b], budget[b], total[b], rewards[b] = 0, capacity[b], 0.0, 0.0
        else:
            j = actions[b]
            remaining[b, j], sequence[b, length[b]], rewards[b] = 0, j, value[b, j]
            length[b] += 1
            budget[b] -= weight[b, j]
            total[b] += value[b, j]
        some = False
        for j in range(n):
            mask[b, j] = remaining[b, j] == 1 and weight[b, j] <= budget[b] + TOLERANCE
            some = some or mask[b, j] == 1
        ended[b] = not some


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


class KnapsackEnv(CombinatorialEnv):
    """One instance at a time.  Observation: ``weight`` and ``value`` float32 ``[n]``, ``remaining``, ``budget`` float32
    ``[1]`` (capacity left), ``action_mask``; action: the next item; reward: its value."""

    kind = Knapsack


class KnapsackVectorEnv(CombinatorialVectorEnv):
    """A batch of :class:`KnapsackEnv`; rows end at different times."""

    single = KnapsackEnv

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> None:
        where = self.instances["weight"], self.instances["value"], self.instances["capacity"]
        state = self.remaining, self.mask, self.budget, self.sequence, self.length
        _advance(actions, job, *where, *state, self.total, self._rewards, self._ended)
