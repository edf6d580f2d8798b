"""The travelling salesman with a matrix of costs, asymmetric; formulations as in ``rlkit.envs.combinatorial.tours``.

Generator, as in MatNet (Kwon et al. 2021): whole numbers below 10^6 off a zero diagonal, closed under the triangle
inequality, over 10^6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import MOST_SQUARE, require_permutations
from rlkit.envs.combinatorial.bisimulation import Instance, Reduced, State
from rlkit.envs.combinatorial.environment import CombinatorialEnv
from rlkit.envs.combinatorial.tours import Tours, ToursVectorEnv
from rlkit.errors import UserError

SCALE = 1_000_000  # of the whole numbers


class ATSP(Tours):
    """Costs ``cost`` float64 ``[n, n]`` from row to column, zero on the diagonal.

    Args:
        num_nodes: n, at least 3 and at most 5,000.
        formulation: "bq" or "direct".
    """

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

    def reduced(self, instance: Instance, state: State) -> Reduced:
        """Tokens without features of their own, and the costs between them."""
        nodes = state.nodes()
        return Reduced(np.zeros((len(nodes), 0)), nodes, instance["cost"][np.ix_(nodes, nodes)])


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


class ATSPEnv(CombinatorialEnv):
    """One tour at a time.  Observation: ``cost`` float32 ``[n, n]``, ``remaining``, ``origin``, ``destination``,
    ``action_mask``; action: the next node; reward: minus the cost of going there."""

    kind = ATSP


class ATSPVectorEnv(ToursVectorEnv):
    """A batch of :class:`ATSPEnv`; all rows are in lock-step unless reset apart."""

    single, array, matrix = ATSPEnv, "cost", True
