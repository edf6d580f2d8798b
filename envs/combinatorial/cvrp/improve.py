"""Shorter routes: moves within and between routes, and a search that ruins and recreates.

:func:`settle` works on one walk ``0 .. 0 .. 0`` with an empty route at its end, the K nearest customers listed for
each.  Its moves join customer u to a listed one v, and are made where loads stay within the capacity:

2-opt      a stretch is turned round: u and v, and what followed them, become neighbours; across routes too
2-opt*     the ends of two routes change places: v follows u
relocate   a segment of up to three customers, u its end, moves beside v, either way round, or to a route of its own
swap       u and a neighbour of v change places

Where ways cost more in one direction than in the other, nothing is turned round.

:class:`Search` ruins and recreates, see :mod:`rlkit.envs.combinatorial.route_search`, annealed over the time there is.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.costs import Costs, cost
from rlkit.envs.combinatorial.cvrp.solvers import MOST_EXACT as MOST_EXACT
from rlkit.envs.combinatorial.cvrp.solvers import exact_cvrp
from rlkit.envs.combinatorial.route_search import (
    AROUND,
    LOOKED,
    Routes,
    anneal,
    copy_routes,
    empty_routes,
    put_in,
    recreate,
    walk_of,
)
from rlkit.envs.combinatorial.tour_moves import LEAST_GAIN, nearest, turn

AS_GOOD_UP_TO = MOST_EXACT  # customers up to which the search does as well as any solver
BETTER_FROM = 300  # customers from which it finds shorter routes than hygese in equal time
LISTED = 15  # customers that moves look at
SEGMENT = 3  # customers that move together
HEAT, COLD = 1.0, 0.01  # of the annealing at first and at last, in mean ways of the first routes


class Walk(NamedTuple):
    """Routes one after the other, and what is known of every place; kernels take it as it is.

    nodes: int32 ``[M]``, ``0 .. 0 .. 0``, of which the first ``size [0]`` count; place: int32 ``[n + 1]``, of each
    customer; route: int32 ``[M]``, which route a place is in, a depot in the one that it begins; sum: int64 ``[M]``,
    the load up to a place; load: int64 ``[M]``, of each route; spare: int32 ``[M]``.
    """

    nodes: NDArray[np.int32]
    size: NDArray[np.int64]
    place: NDArray[np.int32]
    route: NDArray[np.int32]
    sum: NDArray[np.int64]
    load: NDArray[np.int64]
    spare: NDArray[np.int32]


# ---- local search ----------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
@no_type_check
def open_walk(solution, count):
    """The :class:`Walk` of ``solution [L]``, perhaps padded, through ``count`` customers."""
    most = 2 * count + 3
    walk = Walk(
        np.zeros(most, np.int32),
        np.zeros(1, np.int64),
        np.zeros(count + 1, np.int32),
        np.zeros(most, np.int32),
        np.zeros(most, np.int64),
        np.zeros(most, np.int64),
        np.zeros(most, np.int32),
    )
    size = 1
    for node in solution[1:]:
        if node > 0 or (node == 0 and walk.nodes[size - 1] != 0):
            walk.nodes[size] = node
            size += 1
    walk.size[0] = size
    return walk


@njit(cache=True, nogil=True)
@no_type_check
def survey(walk, demand):
    """Drop routes that became empty but for one at the end, and look at every place anew."""
    nodes, size = walk.nodes, 1
    for i in range(1, walk.size[0]):
        if nodes[i] != 0 or nodes[size - 1] != 0:
            nodes[size] = nodes[i]
            size += 1
    if nodes[size - 1] != 0:
        nodes[size] = 0
        size += 1
    nodes[size] = 0
    walk.size[0] = size + 1
    r, total = -1, 0
    for i in range(size + 1):
        if nodes[i] == 0:
            r, total = r + 1, 0
            walk.load[r] = 0
        else:
            walk.place[nodes[i]] = i
            total += demand[nodes[i]]
            walk.load[r] = total
        walk.route[i], walk.sum[i] = r, total


@njit(cache=True, nogil=True)
@no_type_check
def exchange(nodes, first, middle, last):
    """Places ``first`` .. ``middle`` - 1 and ``middle`` .. ``last`` change places."""
    turn(nodes, first, last)
    turn(nodes, first, first + last - middle)
    turn(nodes, first + last - middle + 1, last)


@njit(cache=True, nogil=True)
@no_type_check
def insert_stretch(nodes, spare, first, last, at, turned):
    """Places ``first`` .. ``last`` come to lie behind place ``at``, which is none of them, perhaps turned round."""
    if turned:
        turn(nodes, first, last)
    if at > last:
        exchange(nodes, first, last + 1, at)
    elif at < first - 1:
        exchange(nodes, at + 1, first, last)


@njit(cache=True, nogil=True)
@no_type_check
def try_turn(costs, walk, capacity, i, j, least):
    """2-opt of the ways behind places ``i`` < ``j``: the gain, made if it is at least ``least``, else 0."""
    nodes = walk.nodes
    a, b, c, d = nodes[i], nodes[i + 1], nodes[j], nodes[j + 1]
    gain = cost(costs, a, b) + cost(costs, c, d) - cost(costs, a, c) - cost(costs, b, d)
    if gain <= least:
        return 0.0
    r, s = walk.route[i], walk.route[j]
    if r != s:
        head = walk.sum[i] + walk.sum[j]
        if head > capacity or walk.load[r] + walk.load[s] - head > capacity:
            return 0.0
    turn(nodes, i + 1, j)
    return gain


@njit(cache=True, nogil=True)
@no_type_check
def try_tails(costs, walk, capacity, i, j, least):
    """2-opt* of the ways behind places ``i`` and ``j`` of two routes: the gain, made if at least ``least``, else 0."""
    nodes, size = walk.nodes, walk.size[0]
    r, s = walk.route[i], walk.route[j]
    if r == s:
        return 0.0
    a, b, c, d = nodes[i], nodes[i + 1], nodes[j], nodes[j + 1]
    gain = cost(costs, a, b) + cost(costs, c, d) - cost(costs, a, d) - cost(costs, c, b)
    head, other = walk.sum[i] + walk.load[s] - walk.sum[j], walk.sum[j] + walk.load[r] - walk.sum[i]
    if gain <= least or head > capacity or other > capacity:
        return 0.0
    if i > j:
        i, j = j, i
    end, last = i + 1, j + 1  # the depots behind the two
    while nodes[end] != 0:
        end += 1
    while last < size - 1 and nodes[last] != 0:
        last += 1
    # i+1 .. end-1, end .. j, j+1 .. last-1 become j+1 .. last-1, end .. j, i+1 .. end-1
    turn(nodes, i + 1, last - 1)
    turn(nodes, i + 1, i + last - 1 - j)
    turn(nodes, i + last - j, i + last - end)
    turn(nodes, i + last - end + 1, last - 1)
    return gain


@njit(cache=True, nogil=True)
@no_type_check
def try_segment(costs, walk, demand, capacity, end, step, beside, side, symmetric, least):
    """The segment from place ``end`` on against ``step`` moves to ``side`` of place ``beside``, ``end`` next to it, of
    one to three customers: the gain, made if at least ``least``, else 0."""
    nodes, u, v = walk.nodes, walk.nodes[end], walk.nodes[beside]
    w = nodes[beside + side]
    before = nodes[end + step]  # what end leaves
    load, r, s = 0, walk.route[end], walk.route[min(beside, beside + side)]
    turned = step == side  # the segment runs from end away from v, in direction side, and ran against step
    if turned and not symmetric:
        return 0.0
    for length in range(1, SEGMENT + 1):
        far = end - step * (length - 1)
        f = nodes[far]
        if f == 0 or far == beside or far == beside + side:
            return 0.0
        load += demand[f]
        if r != s and walk.load[s] + load > capacity:
            return 0.0
        behind = nodes[far - step]
        if step == 1:
            gain = cost(costs, behind, f) + cost(costs, u, before) - cost(costs, behind, before)
        else:
            gain = cost(costs, before, u) + cost(costs, f, behind) - cost(costs, before, behind)
        if side == 1:
            gain += cost(costs, v, w) - cost(costs, v, u) - cost(costs, f, w)
        else:
            gain += cost(costs, w, v) - cost(costs, w, f) - cost(costs, u, v)
        if gain > least:
            first, last = min(end, far), max(end, far)
            insert_stretch(nodes, walk.spare, first, last, beside if side == 1 else beside - 1, turned)
            return gain
    return 0.0


@njit(cache=True, nogil=True)
@no_type_check
def try_swap(costs, walk, demand, capacity, i, j, least):
    """Customers at places ``i`` and ``j`` change places: the gain, made if it is at least ``least``, else 0."""
    nodes = walk.nodes
    if i > j:
        i, j = j, i
    u, v = nodes[i], nodes[j]
    if u == 0 or v == 0 or j - i < 2:
        return 0.0
    a, b, c, d = nodes[i - 1], nodes[i + 1], nodes[j - 1], nodes[j + 1]
    gain = cost(costs, a, u) + cost(costs, u, b) + cost(costs, c, v) + cost(costs, v, d)
    gain -= cost(costs, a, v) + cost(costs, v, b) + cost(costs, c, u) + cost(costs, u, d)
    if gain <= least:
        return 0.0
    r, s, more = walk.route[i], walk.route[j], demand[v] - demand[u]
    if r != s and (walk.load[r] + more > capacity or walk.load[s] - more > capacity):
        return 0.0
    nodes[i], nodes[j] = v, u
    return gain


@njit(cache=True, nogil=True)
@no_type_check
def move_at(costs, walk, demand, capacity, near, away, u, symmetric, least):
    """The first move at customer ``u`` that gains ``least``, made: its gain, 0 where there is none."""
    nodes, place, i = walk.nodes, walk.place, walk.place[u]
    # what a move takes away at u; beside a depot as much as can be, as two depots that join cost nothing
    back = np.inf if nodes[i - 1] == 0 else cost(costs, nodes[i - 1], u)
    ahead = np.inf if nodes[i + 1] == 0 else cost(costs, u, nodes[i + 1])
    for k in range(near.shape[1]):
        v, way, gain = near[u, k], away[u, k], 0.0
        if symmetric and way >= max(back, ahead):
            break  # at one of its ends every move that gains puts a shorter way in a longer one's place
        if v == 0:
            continue
        j = place[v]
        from_ahead, from_back = not symmetric or ahead > way, not symmetric or back > way
        if symmetric and from_ahead:
            gain = try_turn(costs, walk, capacity, min(i, j), max(i, j), least)
        if symmetric and from_back and gain == 0.0:
            gain = try_turn(costs, walk, capacity, min(i, j) - 1, max(i, j) - 1, least)
        if from_ahead and gain == 0.0:
            gain = try_tails(costs, walk, capacity, i, j - 1, least)
        if from_back and gain == 0.0:
            gain = try_tails(costs, walk, capacity, j, i - 1, least)
        for step in (1, -1):
            for side in (1, -1):
                if gain == 0.0 and (from_ahead if step == 1 else from_back):
                    gain = try_segment(costs, walk, demand, capacity, i, step, j, side, symmetric, least)
                if gain == 0.0 and (from_ahead if side == 1 else from_back):
                    gain = try_segment(costs, walk, demand, capacity, j, step, i, side, symmetric, least)
        for beside in (j + 1, j - 1):
            if gain == 0.0:
                gain = try_swap(costs, walk, demand, capacity, i, beside, least)
        if gain != 0.0:
            return gain
    for step in (1, -1):  # a route of its own, in the empty one at the end
        gain = try_segment(costs, walk, demand, capacity, i, step, walk.size[0] - 2, 1, symmetric, least)
        if gain != 0.0:
            return gain
    return 0.0


@njit(cache=True, nogil=True)
@no_type_check
def settle(costs, walk, demand, capacity, near, away, symmetric, least):
    """Moves until none helps."""
    survey(walk, demand)
    count, u, still = len(demand) - 1, 1, 0
    while still < count:
        if move_at(costs, walk, demand, capacity, near, away, u, symmetric, least) != 0.0:
            survey(walk, demand)
            still = 0
            continue
        still += 1
        u = u + 1 if u < count else 1


@njit(cache=True, nogil=True)
@no_type_check
def close_walk(walk, solution):
    """Write the walk into ``solution [L]``, padded, without empty routes."""
    solution[:] = -1
    size = 0
    for i in range(walk.size[0]):
        if walk.nodes[i] != 0 or size == 0 or solution[size - 1] != 0:
            solution[size] = walk.nodes[i]
            size += 1


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def improve_routes(array, norm, rounding, symmetric, demand, capacity, solutions):
    """Every one of ``solutions [B, L]`` to a local optimum, in place."""
    n = demand.shape[1]
    for b in prange(len(solutions)):
        costs = Costs(array[b], norm, rounding)
        near, away = nearest(costs, min(LISTED, n - 1))
        walk = open_walk(solutions[b], n - 1)
        settle(costs, walk, demand[b], capacity[b], near, away, symmetric, LEAST_GAIN * away.max())
        close_walk(walk, solutions[b])


# ---- what others call ------------------------------------------------------------------------------------------------


def improve(instances: Instance, costs: Costs, solutions: NDArray[np.int64]) -> NDArray[np.int64]:
    """``solutions [B, L]`` of a batch to local optima; ``costs`` has one row for each."""
    demand, capacity = instances["demand"], instances["capacity"]
    found = np.full((len(solutions), 2 * demand.shape[1] - 1), -1, np.int64)
    found[:, : solutions.shape[1]] = solutions[:, : found.shape[1]]
    improve_routes(costs.array, costs.norm, costs.rounding, costs.symmetric, demand, capacity, found)
    return found


def inserted_routes(costs: Costs, demand: NDArray[np.int64], capacity: int, seed: int) -> Routes:
    """Customers in random order, each where it costs least; the first ones, as many as there must be routes, in routes
    of their own, as one route would otherwise go everywhere before there is a second."""
    n = len(demand) - 1
    routes, order = empty_routes(n), 1 + np.random.Generator(np.random.PCG64(seed)).permutation(n)
    alone = -int(-demand.sum() // capacity)
    for r, c in enumerate(order[:alone]):
        put_in(costs, routes, demand, c, n + 1 + r, r)
    nothing = np.empty((n + 1, 0), np.int32), np.empty((n + 1, 0))
    recreate(costs, routes, demand, capacity, *nothing, order[alone:], n - alone, np.ones(1, np.uint64))
    return routes


def insert(instance: Instance, costs: Costs, seed: int) -> NDArray[np.int64]:
    """The routes of :func:`inserted_routes` as one walk."""
    demand = instance["demand"]
    return np.asarray(walk_of(inserted_routes(costs, demand, int(instance["capacity"]), seed), len(demand) - 1))


def objective(instance: Instance, costs: Costs, solution: NDArray[np.int64]) -> float:
    """Length of the routes ``0 .. 0 .. 0``."""
    return costs.along(solution)


class Search:
    """Ruin and recreate from an insertion, annealed over the time there is; up to 10 customers exact."""

    def __init__(self, instance: Instance, costs: Costs, seed: int) -> None:
        self.costs, self.demand, self.capacity = costs, instance["demand"], int(instance["capacity"])
        n = len(self.demand) - 1
        self.finished = n <= MOST_EXACT
        if self.finished:
            i, j = np.divmod(np.arange((n + 1) ** 2), n + 1)
            matrix = costs.between(i, j).reshape(n + 1, n + 1)
            self._best = exact_cvrp({**instance, "cost": matrix})
            self.lengths = np.full(2, costs.along(self._best))
            return
        self.routes, self.best = inserted_routes(costs, self.demand, self.capacity, seed), empty_routes(n)
        self.random = np.random.SeedSequence(seed).generate_state(1, np.uint64) | np.uint64(1)
        copy_routes(self.routes, self.best)
        self.near = costs.neighbours(AROUND)
        self.away = costs.to(self.near[:, :LOOKED])
        self.lengths = np.full(2, costs.along(np.asarray(walk_of(self.routes, n))))
        self.heat = self.lengths[0] / (n + 1)

    @property
    def solution(self) -> NDArray[np.int64]:
        """Routes ``0 .. 0 .. 0``, int64."""
        return self._best if self.finished else np.asarray(walk_of(self.best, len(self.demand) - 1))

    @property
    def objective(self) -> float:
        """The length of :attr:`solution`."""
        return float(self.lengths[1])

    def advance(self, share: float, count: int) -> None:
        """``count`` rounds, cooler as time goes by."""
        if self.finished:
            return
        heat = self.heat * HEAT * (COLD / HEAT) ** share
        given = self.demand, self.capacity, self.near, self.away, heat, count, self.lengths, self.random
        anneal(self.costs, self.routes, self.best, *given)
