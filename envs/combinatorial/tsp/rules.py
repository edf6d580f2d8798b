"""The travelling salesman among points in the plane; formulations as in ``rlkit.envs.combinatorial.tours``.

Generator: uniform on the unit square.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import euclidean, lengths, require_permutations
from rlkit.envs.combinatorial.bisimulation import Instance, Reduced, State
from rlkit.envs.combinatorial.environment import CombinatorialEnv
from rlkit.envs.combinatorial.tours import Tours, ToursVectorEnv


class TSP(Tours):
    """Points ``coords`` float64 ``[n, 2]``.

    Args:
        num_nodes: n, at least 3 and at most 1,000,000.
        formulation: "bq" or "direct".
    """

    name, points = "tsp", True

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        return {"coords": ((self.num_nodes, 2), np.float64)}

    def draw(self, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {"coords": generator.random((self.num_nodes, 2))}

    def cost(self, instance: Instance, i: int, j: int) -> float:
        return euclidean(instance["coords"], i, j)

    def objectives(self, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.float64]:
        require_permutations(self.name, solutions, np.arange(self.num_nodes))
        return lengths(instances["coords"], np.concatenate((solutions, solutions[:, :1]), axis=1))

    def reduced(self, instance: Instance, state: State) -> Reduced:
        """Tokens (x, y)."""
        nodes = state.nodes()
        return Reduced(instance["coords"][nodes], nodes)


class TSPEnv(CombinatorialEnv):
    """One tour at a time.  Observation: ``coords`` float32 ``[n, 2]``, ``remaining``, ``origin``, ``destination``,
    ``action_mask``; action: the next node; reward: minus the way to it."""

    kind = TSP


class TSPVectorEnv(ToursVectorEnv):
    """A batch of :class:`TSPEnv`; all rows are in lock-step unless reset apart."""

    single, array = TSPEnv, "coords"
