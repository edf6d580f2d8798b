"""Solvers of the knapsack: dynamic programming over whole weights, branch and bound, OR-tools, density."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import MOST_NODES, Problem
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.knapsack.rules import TOLERANCE, UNIT
from rlkit.envs.combinatorial.solvers import Array, Solution, Solver, load

OWN_UP_TO = MOST_NODES  # it is exact


@njit(cache=True, nogil=True)
@no_type_check
def knapsack_table(weights, values, capacity):
    """Packed items, bool ``[n]``, of most value for whole-number ``weights [n]`` and ``capacity``."""
    n = len(weights)
    best, taken = np.zeros(capacity + 1), np.zeros((n, capacity + 1), np.bool_)
    for i in range(n):
        for c in range(capacity, weights[i] - 1, -1):
            value = best[c - weights[i]] + values[i]
            if value > best[c]:
                best[c], taken[i, c] = value, True
    packed, left = np.zeros(n, np.bool_), capacity
    for i in range(n - 1, -1, -1):
        if taken[i, left]:
            packed[i] = True
            left -= weights[i]
    return packed


@njit(cache=True, nogil=True)
@no_type_check
def _branch(weight, value, capacity):
    """Packed items, bool ``[n]``, of most value; items sorted by falling density."""
    n = len(weight)
    now, best = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    most, got, left, i = -1.0, 0.0, capacity, 0
    while True:
        while i < n:
            bound, room = got, left  # what the rest could add if the last item could be cut
            for j in range(i, n):
                if weight[j] > room:
                    bound += value[j] * room / weight[j]
                    break
                room -= weight[j]
                bound += value[j]
            if bound <= most + 1e-12:
                break
            if weight[i] <= left:
                now[i] = True
                left -= weight[i]
                got += value[i]
            i += 1
        if i == n and got > most:
            most = got
            best[:] = now
        i = min(i, n) - 1
        while i >= 0 and not now[i]:
            i -= 1
        if i < 0:
            return best
        now[i] = False
        left += weight[i]
        got -= value[i]
        i += 1


def knapsack_search(instance: Instance) -> NDArray[np.int64]:
    """Items of most value, in increasing order, for any weights."""
    weight, value = instance["weight"], instance["value"]
    order = _by_density(weight, value)
    # a hair of room for sums that fit but for their rounding, less than the environment allows
    packed = _branch(weight[order], value[order], float(instance["capacity"]) + 5e-10)
    return np.sort(order[packed])


def _by_density(weight: Array, value: Array) -> NDArray[np.int64]:
    return np.argsort(-value / np.maximum(weight, 1e-300), kind="stable")


def density_greedy(instance: Instance) -> NDArray[np.int64]:
    """Items by falling value per weight, each packed if it fits; in that order."""
    left, packed = float(instance["capacity"]), []
    for j in _by_density(instance["weight"], instance["value"]):
        if instance["weight"][j] <= left + TOLERANCE:
            packed.append(j)
            left -= float(instance["weight"][j])
    return np.array(packed, np.int64)


def padded_density_greedy(problem: Problem, instance: Instance, generator: np.random.Generator) -> Solution:
    """:func:`density_greedy`, padded."""
    return problem.padded(density_greedy(instance))


def own(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """The best items: by the table where all weights are multiples of the unit, else by branch and bound."""
    weight = instance["weight"] * UNIT
    whole = np.round(weight).astype(np.int64)
    if np.abs(weight - whole).max() > 1e-9 * UNIT:
        return knapsack_search(instance)
    capacity = int(np.floor(float(instance["capacity"]) * UNIT + 1e-9))
    return np.flatnonzero(knapsack_table(whole, instance["value"], min(capacity, int(whole.sum()))))


def density(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """:func:`density_greedy`."""
    return density_greedy(instance)


def ortools(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """The best items, by OR-tools."""
    knapsack: Any = load("ortools.algorithms.python.knapsack_solver", "ortools")
    scale = 10**7
    solver = knapsack.KnapsackSolver(knapsack.SolverType.KNAPSACK_MULTIDIMENSION_BRANCH_AND_BOUND_SOLVER, "labels")
    # weights up and the capacity down where they have more digits than these
    weight = np.ceil(instance["weight"] * scale - 1e-3).astype(np.int64)
    capacity = int(np.floor(float(instance["capacity"]) * scale + 1e-3))
    value = np.round(instance["value"] * scale).astype(np.int64)
    solver.init(value.tolist(), [weight.tolist()], [capacity])
    solver.solve()
    return np.flatnonzero([solver.best_solution_contains(j) for j in range(problem.num_nodes)])


SOLVERS: dict[str, Solver] = {"own": own, "ortools": ortools, "density": density}
BASELINES = {"density_greedy": padded_density_greedy}
