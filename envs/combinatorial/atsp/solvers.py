"""Solvers of the asymmetric travelling salesman: fast-tsp on a symmetric problem, exact tours, local search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial import solvers
from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.solvers import FAST_TSP_LARGEST, Solution, Solver, largest_cost
from rlkit.errors import UserError

OWN_UP_TO = 12  # nodes, which are solved exactly


def fast_tsp(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """Effort 1 is 3 ms a node."""
    package: Any = solvers.load("fast_tsp", "fast-tsp")
    cost = instance["cost"]
    n = len(cost)
    if n <= OWN_UP_TO:
        return solvers.own_tour(problem, instance, effort, seed)
    whole = symmetric(cost).tolist()
    first = 3e-3 * effort * n if seconds is None else seconds
    for more in (1, 3, 9):  # a search cut short may leave a node's halves apart
        found = from_symmetric(np.array(package.find_tour(whole, more * first)), n)
        if found is not None:
            return found
    raise UserError("fast-tsp found no tour of the asymmetric problem, expected more effort or solver=own")


def symmetric(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Symmetric costs ``[2 n, 2 n]``: entry i and exit n + i of each node joined by 0, exit i to entry j by c_ij.

    Everything else is so dear that no short tour uses it, and c_ij is shifted so that joining a node is always cheaper.
    """
    n = len(cost)
    largest = FAST_TSP_LARGEST // 8
    shift = 4 * largest
    whole = np.round(cost * (largest / largest_cost(cost))).astype(np.int64) + shift
    found = np.full((2 * n, 2 * n), FAST_TSP_LARGEST, np.int64)
    found[n:, :n], found[:n, n:] = whole, whole.T
    found[n + np.arange(n), np.arange(n)] = found[np.arange(n), n + np.arange(n)] = 0
    np.fill_diagonal(found, 0)
    return found


def from_symmetric(tour: Solution, n: int) -> Solution | None:
    """The tour of n nodes in one of 2 n, or None where not every entry is beside its exit."""
    place = np.empty(2 * n, np.int64)
    place[tour] = np.arange(2 * n)
    behind = (place[n:] - place[:n]) % (2 * n)  # 1 where the exit follows the entry, 2 n - 1 where it precedes it
    if not (np.all(behind == 1) or np.all(behind == 2 * n - 1)):
        return None
    nodes = tour[tour < n].astype(np.int64)
    if behind[0] != 1:
        nodes = nodes[::-1]
    return np.roll(nodes, -int(np.argmin(nodes)))


SOLVERS: dict[str, Solver] = {"fast-tsp": fast_tsp, "own": solvers.own_tour}
BASELINES = solvers.TOUR_BASELINES
