"""Solvers of our own: exact ones for small instances, heuristics to start from and to compare with.

========================  ============================================================================================
:func:`held_karp`         shortest tour through every subset, by dynamic programming (Held & Karp 1962); exact TSP and
                          ATSP, and the table behind the exact solvers of CVRP and OP
:func:`local_search`      2-opt and Or-opt from random tours; the best of several, for TSP
:func:`knapsack_table`    dynamic programming over whole-number capacities, exact
:func:`knapsack_search`   branch and bound with the fractional bound (Horowitz & Sahni 1974), exact for any weights
heuristics                nearest neighbour, random insertion, density: the lines a trained policy has to beat
========================  ============================================================================================

Costs are float64 ``[n, n]``, tours int64 ``[n]`` from node 0.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.errors import UserError

MOST_EXACT = {"tsp": 12, "atsp": 12, "cvrp": 10, "op": 12}  # nodes beyond the depot that the exact solvers take

Array = NDArray[np.float64]


def distances(coords: Array) -> Array:
    """Euclidean distances ``[n, n]`` of ``coords [n, 2]``."""
    steps = coords[:, None] - coords[None]
    return np.sqrt((steps**2).sum(axis=-1))


def costs_of(instance: Instance) -> Array:
    """The cost matrix ``[N, N]`` of a routing instance."""
    return instance["cost"] if "cost" in instance else distances(instance["coords"])


# ---- exact: routing --------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
@no_type_check
def held_karp_table(cost):
    """``(best, last)`` over subsets S of the nodes 1..n - 1, as bits of S.

    best float64 ``[2^(n-1), n - 1]``: the shortest way from 0 through all of S that ends in S's node of that column;
    last int64: the node before it.
    """
    m = cost.shape[0] - 1
    best, last = np.full((1 << m, m), np.inf), np.full((1 << m, m), -1, np.int64)
    for j in range(m):
        best[1 << j, j] = cost[0, j + 1]
    for s in range(1, 1 << m):
        for j in range(m):
            if s >> j & 1:
                here = best[s, j]
                for k in range(m):
                    if not s >> k & 1:
                        way = here + cost[j + 1, k + 1]
                        if way < best[s | 1 << k, k]:
                            best[s | 1 << k, k], last[s | 1 << k, k] = way, j
    return best, last


def _closed(best: Array, cost: Array) -> tuple[Array, NDArray[np.int64]]:
    """Length ``[2^m]`` of the shortest tour through each subset and 0, and the node it ends with."""
    closed = best + cost[1:, 0]
    ends = np.argmin(closed, axis=1)
    found = closed[np.arange(len(closed)), ends]
    found[0] = 0.0
    return found, ends


def _trace(subset: int, end: int, last: NDArray[np.int64]) -> list[int]:
    """The nodes of ``subset`` in the order of the shortest way that ends in ``end``."""
    nodes: list[int] = []
    while subset:
        nodes.append(end + 1)
        subset, end = subset & ~(1 << end), int(last[subset, end])
    return nodes[::-1]


def _small(kind: str, nodes: int) -> None:
    if nodes > MOST_EXACT[kind]:
        raise UserError(f"the exact solver of {kind} takes at most {MOST_EXACT[kind]} nodes, got {nodes}")


def held_karp(cost: Array) -> NDArray[np.int64]:
    """The shortest tour.  Raises UserError above 12 nodes, where :func:`held_karp_table` grows too large."""
    _small("tsp", len(cost))
    best, last = held_karp_table(np.ascontiguousarray(cost))
    _, ends = _closed(best, cost)
    everything = len(best) - 1
    return np.array([0, *_trace(everything, int(ends[everything]), last)], np.int64)


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
    cost, demand = distances(instance["coords"]), instance["demand"]
    m = len(demand) - 1
    _small("cvrp", m)
    best, last = held_karp_table(cost)
    closed, ends = _closed(best, cost)
    load = ((np.arange(1 << m)[:, None] >> np.arange(m)) & 1) @ demand[1:]
    _, first = _partition(closed, load, int(instance["capacity"]))
    solution, left = [0], len(closed) - 1
    while left:
        part = int(first[left])
        solution += [*_trace(part, int(ends[part]), last), 0]
        left ^= part
    return np.array(solution, np.int64)


def exact_op(instance: Instance) -> NDArray[np.int64]:
    """An optimal tour ``0 .. 0``, the shortest of them.  Raises UserError above 12 nodes."""
    from rlkit.envs.combinatorial.orienteering import TOLERANCE

    cost, prize = distances(instance["coords"]), instance["prize"]
    m = len(prize) - 1
    _small("op", m)
    best, last = held_karp_table(cost)
    closed, ends = _closed(best, cost)
    prizes = ((np.arange(1 << m)[:, None] >> np.arange(m)) & 1) @ prize[1:]
    prizes[closed > instance["budget"] + TOLERANCE / 2] = -1.0
    subset = int(np.lexsort((closed, -np.round(prizes, 9)))[0])
    return np.array([0, *_trace(subset, int(ends[subset]), last), 0], np.int64)


# ---- exact: knapsack -------------------------------------------------------------------------------------------------


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


# ---- local search ----------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
@no_type_check
def improve(cost, tour, symmetric):
    """Shorten ``tour [n]`` in place by 2-opt (only if ``symmetric``) and Or-opt moves until none helps."""
    n = len(tour)
    moved = np.empty_like(tour)
    better = True
    while better:
        better = False
        if symmetric:
            for i in range(n - 1):
                for j in range(i + 2, n if i else n - 1):
                    a, b, c, d = tour[i], tour[i + 1], tour[j], tour[(j + 1) % n]
                    if cost[a, c] + cost[b, d] < cost[a, b] + cost[c, d] - 1e-12:
                        low, high = i + 1, j
                        while low < high:
                            tour[low], tour[high] = tour[high], tour[low]
                            low += 1
                            high -= 1
                        better = True
        for size in range(1, min(4, n - 2)):  # move a segment of up to three nodes elsewhere, perhaps turned round
            for i in range(n):
                a, first, last, d = tour[i - 1], tour[i], tour[(i + size - 1) % n], tour[(i + size) % n]
                gain = cost[a, first] + cost[last, d] - cost[a, d]
                best, place, turned = -1e-12, -1, False
                for k in range(size, n - 1):  # between the k-th and the next node behind i
                    u, v = tour[(i + k) % n], tour[(i + k + 1) % n]
                    change = cost[u, first] + cost[last, v] - cost[u, v] - gain
                    if change < best:
                        best, place, turned = change, k, False
                    change = cost[u, last] + cost[first, v] - cost[u, v] - gain
                    if symmetric and change < best:
                        best, place, turned = change, k, True
                if place < 0:
                    continue
                for k in range(n):
                    moved[k] = tour[(i + k) % n]
                for k in range(size, place + 1):
                    tour[k - size] = moved[k]
                for k in range(size):
                    tour[place - size + 1 + k] = moved[size - 1 - k] if turned else moved[k]
                for k in range(place + 1, n):
                    tour[k] = moved[k]
                better = True


def local_search(cost: Array, restarts: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The best of ``restarts`` random tours after :func:`improve`, from node 0."""
    symmetric = bool(np.array_equal(cost, cost.T))
    best, shortest = np.arange(len(cost)), np.inf
    for _ in range(restarts):
        tour = generator.permutation(len(cost))
        improve(cost, tour, symmetric)
        length = float(cost[tour, np.roll(tour, -1)].sum())
        if length < shortest - 1e-12:
            best, shortest = tour, length
    return np.roll(best, -int(np.argmin(best)))


# ---- heuristics ------------------------------------------------------------------------------------------------------


def nearest_neighbour(problem: Problem, instance: Instance) -> NDArray[np.int64]:
    """Always the nearest feasible node (OP: most prize per way; CVRP: direct if any customer fits, else by the depot).

    A solution of ``tsp``, ``atsp``, ``cvrp`` or ``op``, padded.
    """
    cost, found = costs_of(instance), list(problem.opening())
    state = problem.initial(instance)
    while (mask := problem.feasible(instance, state)).any():
        actions = np.flatnonzero(mask)
        direct = actions[actions % 2 == 0] if problem.name == "cvrp" else actions
        actions = direct if len(direct) else actions
        nodes = actions // 2 if problem.name == "cvrp" else actions
        score = cost[0 if not len(direct) else state.origin, nodes]
        if problem.name == "op":
            score = -instance["prize"][nodes] / np.maximum(score, 1e-12)
        state, _, grown = problem.step(instance, state, int(actions[np.argmin(score)]))
        found += grown
    if found[-1] != 0 and problem.closing:
        found.append(0)
    return problem.padded(found)


def random_insertion(cost: Array, generator: np.random.Generator) -> NDArray[np.int64]:
    """Cities in random order, each where it lengthens the tour least; from node 0."""
    order = generator.permutation(len(cost))
    tour = order[:2]
    for j in order[2:]:
        following = np.roll(tour, -1)
        place = int(np.argmin(cost[tour, j] + cost[j, following] - cost[tour, following]))
        tour = np.insert(tour, place + 1, j)
    return np.roll(tour, -int(np.argmin(tour)))


def density_greedy(instance: Instance) -> NDArray[np.int64]:
    """Items by falling value per weight, each packed if it fits; in that order."""
    from rlkit.envs.combinatorial.knapsack import TOLERANCE

    left, packed = float(instance["capacity"]), []
    for j in _by_density(instance["weight"], instance["value"]):
        if instance["weight"][j] <= left + TOLERANCE:
            packed.append(j)
            left -= float(instance["weight"][j])
    return np.array(packed, np.int64)


def complete_op(instance: Instance, solution: NDArray[np.int64]) -> NDArray[np.int64]:
    """``solution`` with nodes inserted, most prize per added way first, until none fits: no prize left on the way."""
    from rlkit.envs.combinatorial.orienteering import TOLERANCE

    cost, prize = distances(instance["coords"]), instance["prize"]
    tour = solution[solution >= 0]
    while True:
        rest = np.setdiff1d(np.flatnonzero(prize > 0), tour)
        left = float(instance["budget"]) + TOLERANCE / 2 - cost[tour[:-1], tour[1:]].sum()
        added = cost[tour[:-1, None], rest] + cost[rest, tour[1:, None]] - cost[tour[:-1], tour[1:]][:, None]  # [L, R]
        score = np.where(added <= left, prize[rest] / np.maximum(added, 1e-9), -np.inf)
        if not score.size or score.max() == -np.inf:
            return tour
        place, which = np.unravel_index(int(np.argmax(score)), score.shape)
        tour = np.insert(tour, place + 1, rest[which])


def optimal_targets(problem: Problem, instance: Instance) -> Any:
    """The one right answer of convex-hull and delaunay as a padded solution."""
    from rlkit.envs.combinatorial.geometry import delaunay_target, hull_target

    coords = instance["coords"]
    return problem.padded(hull_target(coords) if problem.name == "convex-hull" else delaunay_target(coords))
