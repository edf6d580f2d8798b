"""Ruin and recreate of vehicle routes: slack induction by string removals (Christiaens & Vanden Berghe 2020).

A round takes strings of customers near each other out of their routes and inserts each again where it costs least,
beside one of the customers near it; what one place costs is known from the ways already measured, so that a round takes
a few microseconds however many customers there are.  A round that does not pay is undone by what was noted of it.

Routes are rings.  Node n + 1 + r stands for the depot in route r.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlkit.envs.combinatorial.costs import MATRIX, cost
from rlkit.envs.combinatorial.tour_moves import LEAST_GAIN, RANDOM, draw

REMOVED, STRING = 10, 10  # customers that leave in a round, on average, and at most one route
AROUND, LOOKED = 100, 40  # nearest customers that a round may reach, and beside which insertion looks
BLINK = 0.01  # of the customers that insertion overlooks, so that it does not always do the same


class Routes(NamedTuple):
    """Routes as rings; kernels take it as it is.

    following and preceding: int32 ``[2 n + 2]``; ahead: float64 ``[2 n + 2]``, what the way to the following one costs;
    route: int32 ``[n + 1]``, of each customer, -1 while it is in none; load and served: int64 ``[n + 1]``, of each
    route, what it carries and how many customers it has; used: int64 ``[1]``, routes that have any.
    """

    following: NDArray[np.int32]
    preceding: NDArray[np.int32]
    ahead: NDArray[np.float64]
    route: NDArray[np.int32]
    load: NDArray[np.int64]
    served: NDArray[np.int64]
    used: NDArray[np.int64]


@njit(cache=True, nogil=True)
@no_type_check
def empty_routes(n):
    """Of n customers, none of whom is served."""
    nodes = np.arange(2 * n + 2).astype(np.int32)
    route, load = np.full(n + 1, -1, np.int32), np.zeros(n + 1, np.int64)
    return Routes(nodes, nodes.copy(), np.zeros(2 * n + 2), route, load, load.copy(), np.zeros(1, np.int64))


@njit(cache=True, nogil=True)
@no_type_check
def copy_routes(source, target):
    """Make ``target`` equal to ``source``."""
    target.following[:] = source.following
    target.preceding[:] = source.preceding
    target.ahead[:] = source.ahead
    target.route[:] = source.route
    target.load[:] = source.load
    target.served[:] = source.served
    target.used[:] = source.used


@njit(cache=True, nogil=True)
@no_type_check
def put_in(costs, routes, demand, c, at, r):
    """Customer ``c`` comes behind node ``at`` of route ``r``."""
    n, there = len(demand) - 1, routes.following[at]
    routes.following[at], routes.following[c], routes.preceding[c], routes.preceding[there] = c, there, at, c
    routes.ahead[at] = cost(costs, at if at <= n else 0, c)
    routes.ahead[c] = cost(costs, c, there if there <= n else 0)
    routes.route[c] = r
    routes.load[r] += demand[c]
    routes.used[0] += routes.served[r] == 0
    routes.served[r] += 1


@njit(cache=True, nogil=True)
@no_type_check
def take_out(costs, routes, demand, c):
    """Customer ``c`` leaves its route; returns what that saves."""
    n, r = len(demand) - 1, routes.route[c]
    before, behind = routes.preceding[c], routes.following[c]
    saved = routes.ahead[before] + routes.ahead[c]
    way = cost(costs, before if before <= n else 0, behind if behind <= n else 0)
    routes.following[before], routes.preceding[behind], routes.ahead[before] = behind, before, way
    routes.route[c] = -1
    routes.load[r] -= demand[c]
    routes.served[r] -= 1
    routes.used[0] -= routes.served[r] == 0
    return saved - way


@njit(cache=True, nogil=True)
@no_type_check
def unused(routes):
    """The first route without customers."""
    r = 0
    while routes.served[r] > 0:
        r += 1
    return r


@njit(cache=True, nogil=True)
@no_type_check
def anywhere(costs, routes, demand, capacity, c):
    """Where customer ``c`` costs least of all places: ``(more, behind which node, of which route)``, -1 for nowhere."""
    n, least, at, to, left = len(demand) - 1, np.inf, -1, -1, routes.used[0]
    for r in range(n):
        if left == 0:
            break
        if routes.served[r] == 0:
            continue
        left -= 1
        if routes.load[r] + demand[c] > capacity:
            continue
        ring = n + 1 + r
        here, a = ring, 0
        while True:
            there = routes.following[here]
            b = there if there <= n else 0
            more = cost(costs, a, c) + cost(costs, c, b) - routes.ahead[here]
            if more < least:
                least, at, to = more, here, r
            if there == ring:
                break
            here, a = there, b
    return least, at, to


@njit(cache=True, nogil=True)
@no_type_check
def recreate(costs, routes, demand, capacity, near, away, order, size, random):
    """Insert the first ``size`` of ``order``, each where it costs least; returns what that costs together.

    Looked at are places beside the customers in ``near``, what ``away`` has being the way there, each overlooked with
    probability :data:`BLINK`; all places where none of them has room; and a route more, if it costs less.
    """
    following, preceding, ahead, n, total = routes.following, routes.preceding, routes.ahead, len(demand) - 1, 0.0
    symmetric = costs.norm != MATRIX
    for k in range(size):
        c = order[k]
        least, at, to, room = np.inf, -1, -1, capacity - demand[c]
        for m in range(near.shape[1]):
            v = near[c, m]
            r = routes.route[v]
            if r < 0 or routes.load[r] > room or draw(random, RANDOM) < BLINK * RANDOM:
                continue
            ways, p, q = away[c, m], preceding[v], following[v]
            # a place between v and a customer nearer to c has been looked at beside that one
            if not symmetric or p > n or 2.0 * ways - ahead[p] < least:
                more = cost(costs, p if p <= n else 0, c) + ways - ahead[p]
                if more < least:
                    least, at, to = more, p, r
            if not symmetric or q > n or 2.0 * ways - ahead[v] < least:
                back = ways if symmetric else cost(costs, v, c)
                more = back + cost(costs, c, q if q <= n else 0) - ahead[v]
                if more < least:
                    least, at, to = more, v, r
        if at < 0:
            least, at, to = anywhere(costs, routes, demand, capacity, c)
        alone = cost(costs, 0, c) + cost(costs, c, 0)
        if alone < least:
            least, to = alone, unused(routes)
            at = n + 1 + to
        put_in(costs, routes, demand, c, at, to)
        total += least
    return total


@njit(cache=True, nogil=True)
@no_type_check
def ruin(costs, routes, demand, near, out, places, random):
    """Strings of customers near a random one leave their routes, into ``out``: (how many, what that saves).

    ``places [n, 2]``: behind which node of which route each of them was, when it left.
    """
    n, saved, size = len(demand) - 1, 0.0, 0
    string = min(STRING, max(1, n // max(1, routes.used[0])))
    strings = 1 + draw(random, max(1, 4 * REMOVED // (1 + string) - 1))
    seed = 1 + draw(random, n)
    ruined = np.full(strings, -1, np.int64)
    done = 0
    for k in range(-1, near.shape[1]):
        c = seed if k < 0 else near[seed, k]
        if done == strings:
            break
        if c == 0 or routes.route[c] < 0:
            continue
        r = routes.route[c]
        known = False
        for m in range(done):
            known = known or ruined[m] == r
        if known:
            continue
        length = 1 + draw(random, min(string, routes.served[r]))
        kept = length > 1 and length < routes.served[r] and draw(random, 2) == 0
        whole = length + kept
        first, back = c, 0  # as far back as the string may begin
        while back < whole - 1 and routes.preceding[first] <= n:
            first, back = routes.preceding[first], back + 1
        ahead, last = 0, c
        while ahead < whole - 1 and routes.following[last] <= n:
            last, ahead = routes.following[last], ahead + 1
        for _ in range(draw(random, back - max(0, whole - 1 - ahead) + 1)):
            first = routes.following[first]
        stays = 1 + draw(random, length - 1) if kept else -1
        for m in range(whole):
            following = routes.following[first]
            if m != stays:
                places[size, 0], places[size, 1], out[size] = routes.preceding[first], r, first
                saved += take_out(costs, routes, demand, first)
                size += 1
            first = following
        ruined[done] = r
        done += 1
    return size, saved


@njit(cache=True, nogil=True)
@no_type_check
def arrange(costs, demand, out, size, random):
    """Order the first ``size`` of ``out``: at random, or the largest, the farthest or the nearest first."""
    for k in range(size - 1, 0, -1):
        m = draw(random, k + 1)
        out[k], out[m] = out[m], out[k]
    way = draw(random, 11)
    if way < 4:
        return
    for k in range(1, size):
        c, m = out[k], k
        own = demand[c] if way < 8 else cost(costs, 0, c) if way < 10 else -cost(costs, 0, c)
        while m > 0:
            d = out[m - 1]
            other = demand[d] if way < 8 else cost(costs, 0, d) if way < 10 else -cost(costs, 0, d)
            if other >= own:
                break
            out[m] = d
            m -= 1
        out[m] = c


@njit(cache=True, nogil=True)
@no_type_check
def anneal(costs, routes, best, demand, capacity, near, away, heat, count, lengths, random):
    """``count`` rounds of ruin and recreate at temperature ``heat``, each undone where routes became too long.

    ``lengths [2]`` of ``routes`` and ``best`` are kept up.
    """
    n = len(demand) - 1
    out, order, places = np.empty(n, np.int64), np.empty(n, np.int64), np.empty((n, 2), np.int64)
    listed = near[:, : away.shape[1]]
    for _ in range(count):
        size, saved = ruin(costs, routes, demand, near, out, places, random)
        order[:size] = out[:size]
        arrange(costs, demand, order, size, random)
        more = recreate(costs, routes, demand, capacity, listed, away, order, size, random) - saved
        if more < -heat * np.log((draw(random, RANDOM) + 1) / RANDOM):
            lengths[0] += more
            if lengths[0] < lengths[1] - LEAST_GAIN * abs(lengths[1]):
                lengths[1] = lengths[0]
                copy_routes(routes, best)
            continue
        for k in range(size):
            take_out(costs, routes, demand, order[k])
        for k in range(size - 1, -1, -1):
            put_in(costs, routes, demand, out[k], places[k, 0], places[k, 1])


@njit(cache=True, nogil=True)
@no_type_check
def walk_of(routes, n):
    """Routes as one walk ``0 .. 0 .. 0``, int64."""
    found, size = np.zeros(2 * n + 1, np.int64), 1
    for r in range(n):
        if routes.served[r] > 0:
            node = routes.following[n + 1 + r]
            while node <= n:
                found[size] = node
                size, node = size + 1, routes.following[node]
            size += 1  # the depot
    return found[:size]
