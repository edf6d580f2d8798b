"""Solvers of the travelling salesman: fast-tsp, exact tours, local search."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlkit.envs.combinatorial import solvers
from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.solvers import Solution, Solver

OWN_UP_TO = 20  # nodes that the local search does as well as fast-tsp


def fast_tsp(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """Effort 1 is 0.1 ms a node and a quarter more for every hundred: 0.01% or better up to 200 nodes."""
    package: Any = solvers.load("fast_tsp", "fast-tsp")
    cost = solvers.costs_of(instance)
    n = len(cost)
    if n <= OWN_UP_TO:
        return solvers.own_tour(problem, instance, effort, seed)
    whole = np.round(cost * (solvers.FAST_TSP_LARGEST / solvers.largest_cost(cost))).astype(np.int64)
    if seconds is None:
        seconds = effort * n * 1e-4 * (1.0 + n / 100)
    tour = np.array(package.find_tour(whole.tolist(), seconds), np.int64)
    return np.roll(tour, -int(np.argmin(tour)))


SOLVERS: dict[str, Solver] = {"fast-tsp": fast_tsp, "own": solvers.own_tour}
BASELINES = solvers.TOUR_BASELINES
