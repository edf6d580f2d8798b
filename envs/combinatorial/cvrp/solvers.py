"""Solvers of vehicle routing: HGS-CVRP, exact routes of small instances, nearest neighbour."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.bisimulation import Instance, State
from rlkit.envs.combinatorial.solvers import (
    Solution,
    Solver,
    closed_tours,
    costs_of,
    distances,
    held_karp_table,
    load,
    require_small,
    trace,
    walked,
)

MOST_EXACT = OWN_UP_TO = 10  # customers that are solved exactly
HYGESE_SCALE = 10_000  # it stops at improvements below 10^-5


@njit(cache=True, nogil=True)
@no_type_check
def _partition(closed, load, capacity):
    """Least total length of tours that together cover each subset, and the tour that covers its lowest node."""
    count = len(closed)
    best, first = np.full(count, np.inf), np.zeros(count, np.int64)
    best[0] = 0.0
    for s in range(1, count):
        lowest, part = s & -s, s
        while part:
            if part & lowest and load[part] <= capacity and closed[part] + best[s ^ part] < best[s]:
                best[s], first[s] = closed[part] + best[s ^ part], part
            part = (part - 1) & s
    return best, first


def exact_cvrp(instance: Instance) -> NDArray[np.int64]:
    """Optimal routes ``0 .. 0 .. 0``.  Raises UserError above 10 customers."""
    cost, demand = np.asarray(costs_of(instance), np.float64), instance["demand"]
    m = len(demand) - 1
    require_small("cvrp", m, MOST_EXACT)
    best, last = held_karp_table(cost)
    closed, ends = closed_tours(best, cost)
    load = ((np.arange(1 << m)[:, None] >> np.arange(m)) & 1) @ demand[1:]
    _, first = _partition(closed, load, int(instance["capacity"]))
    solution, left = [0], len(closed) - 1
    while left:
        part = int(first[left])
        solution += [*trace(part, int(ends[part]), last), 0]
        left ^= part
    return np.array(solution, np.int64)


def own(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """Optimal routes."""
    return exact_cvrp(instance)


def hygese(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """Effort 1 is 1,000 iterations without improvement."""
    if problem.num_nodes <= MOST_EXACT:
        return exact_cvrp(instance)
    package: Any = load("hygese", "hygese")
    rounds = max(1, round(1000 * effort)) if seconds is None else 2**30
    settings = package.AlgorithmParameters(nbIter=rounds, timeLimit=seconds or 0.0, seed=seed % 2**31)
    data = {
        "distance_matrix": costs_of(instance) * (1.0 if "cost" in instance else HYGESE_SCALE),  # a file's own are large
        "demands": instance["demand"],
        "vehicle_capacity": int(instance["capacity"]),
    }
    found = package.Solver(settings, verbose=False).solve_cvrp(data)
    return np.array([0, *(j for route in found.routes for j in (*route, 0))], np.int64)


def nearest_neighbour(problem: Problem, instance: Instance, generator: np.random.Generator) -> Solution:
    """Always the nearest customer that fits, reached directly; where none fits, by the depot the nearest to it."""
    cost = distances(instance["coords"])

    def choose(state: State, actions: NDArray[np.int64]) -> int:
        direct = actions[actions % 2 == 0]
        actions = direct if len(direct) else actions
        return int(actions[np.argmin(cost[state.origin if len(direct) else 0, actions // 2])])

    return walked(problem, instance, choose)


SOLVERS: dict[str, Solver] = {"hygese": hygese, "own": own}
BASELINES = {"nearest_neighbour": nearest_neighbour}
