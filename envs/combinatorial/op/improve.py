"""More prizes within the length: shorter tours, nodes inserted and replaced, and a search that ruins and recreates.

:func:`settle` repeats, on one tour ``0 .. 0``, until nothing helps:

2-opt, Or-opt  the tour through the same nodes becomes shorter (a stretch turned round, a node moved elsewhere)
insert         the node of most prize per added length that fits
replace        a node by one of a higher prize, put where it costs least, that still fits; or of the same prize, shorter

:class:`Search` takes a string of nodes out, or puts some in elsewhere for which others leave; then it inserts by a
score with noise, settles, and anneals.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.costs import Array, Costs, cost
from rlkit.envs.combinatorial.op.rules import TOLERANCE
from rlkit.envs.combinatorial.op.solvers import MOST_EXACT as MOST_EXACT
from rlkit.envs.combinatorial.op.solvers import exact_op
from rlkit.envs.combinatorial.tour_moves import LEAST_GAIN, RANDOM, draw, turn

AS_GOOD_UP_TO = MOST_EXACT  # nodes up to which the search does as well as any solver
BETTER_FROM = MOST_EXACT + 1  # nodes from which it does better than the solver of choice
MOST_TAKEN = 0.3  # of a tour, in one round of the search
PLACES = 3  # of a node that are known, the best; two of them may go with a node that leaves
MOST_ADDED = 5  # nodes that come in together
AROUND = 20  # nearest nodes, from which they are taken
NOISE = 0.5  # of the scores of insertion
HEAT = 0.1  # of the annealing at first, in prizes of the first tour


@njit(cache=True, nogil=True)
@no_type_check
def shorten(costs, tour, size, fresh, least):
    """2-opt and moves of one node on the first ``size`` places, ends fixed, until none helps; returns the gain.

    Only moves at nodes that are ``fresh``, those beside ways that are new, are tried: others were.
    """
    gained, better = 0.0, True
    while better:
        better = False
        for i in range(size - 2):
            for j in range(i + 2, size - 1):
                a, b, c, d = tour[i], tour[i + 1], tour[j], tour[j + 1]
                if not (fresh[a] or fresh[b] or fresh[c] or fresh[d]):
                    continue
                ab, cd = cost(costs, a, b), cost(costs, c, d)
                gain = ab + cd - cost(costs, a, c) - cost(costs, b, d)
                if gain > least:
                    turn(tour, i + 1, j)
                else:
                    e = tour[i + 2]  # b moves between c and d
                    gain = ab + cost(costs, b, e) + cd - cost(costs, a, e) - cost(costs, c, b) - cost(costs, b, d)
                    if gain > least:
                        for k in range(i + 1, j):
                            tour[k] = tour[k + 1]
                        tour[j] = b
                    else:
                        e = tour[j - 1]  # c moves between a and b
                        gain = ab + cost(costs, e, c) + cd - cost(costs, a, c) - cost(costs, c, b) - cost(costs, e, d)
                        if gain <= least:
                            continue
                        for k in range(j, i + 1, -1):
                            tour[k] = tour[k - 1]
                        tour[i + 1] = c
                    fresh[e] = True
                gained, better = gained + gain, True
                fresh[a], fresh[b], fresh[c], fresh[d] = True, True, True, True
    fresh[:] = False
    return gained


@njit(cache=True, nogil=True)
@no_type_check
def look(costs, tour, size, j, best, more):
    """The :data:`PLACES` places behind which node ``j`` costs least: ``best [PLACES]``, -1 for none, and ``more``, what
    it costs there, the least first."""
    best[:], more[:] = -1, np.inf
    for i in range(size - 1):
        a, b = tour[i], tour[i + 1]
        added, m = cost(costs, a, j) + cost(costs, j, b) - cost(costs, a, b), PLACES - 1
        if added >= more[m]:
            continue
        while m > 0 and more[m - 1] > added:
            best[m], more[m] = best[m - 1], more[m - 1]
            m -= 1
        best[m], more[m] = i, added


@njit(cache=True, nogil=True)
@no_type_check
def put_in(tour, size, inside, fresh, at, node):
    """``node`` comes behind place ``at``; returns the size."""
    for k in range(size, at + 1, -1):
        tour[k] = tour[k - 1]
    tour[at + 1], inside[node] = node, True
    fresh[tour[at]], fresh[node], fresh[tour[at + 2]] = True, True, True
    return size + 1


@njit(cache=True, nogil=True)
@no_type_check
def take_out(tour, size, inside, fresh, first, count):
    """``count`` nodes from place ``first`` on leave; returns the size."""
    for k in range(first, first + count):
        inside[tour[k]] = False
    for k in range(first, size - count):
        tour[k] = tour[k + count]
    fresh[tour[first - 1]], fresh[tour[first]] = True, True
    return size - count


@njit(cache=True, nogil=True)
@no_type_check
def insert_nodes(costs, tour, size, inside, fresh, prize, left, noise, random):
    """Insert, most prize per added length first, what fits into ``left``: ``(size, left)``; scores have ``noise``."""
    n = len(prize)
    behind, more = np.full(n, -1, np.int64), np.empty(n)  # whom each comes behind at least cost, -1: to be looked for
    some, ways = np.empty(PLACES, np.int64), np.empty(PLACES)
    while True:
        best, node = 0.0, -1
        for j in range(1, n):
            if inside[j] or prize[j] <= 0.0:
                continue
            if behind[j] < 0:
                look(costs, tour, size, j, some, ways)
                behind[j], more[j] = tour[some[0]], ways[0]
            if more[j] > left:
                continue
            score = prize[j] / max(more[j], 1e-9)
            if noise > 0.0:
                score *= 1.0 - noise * draw(random, RANDOM) / RANDOM
            if score > best:
                best, node = score, j
        if node < 0:
            return size, left
        a, at = behind[node], 0
        while tour[at] != a:
            at += 1
        b = tour[at + 1]
        size, left = put_in(tour, size, inside, fresh, at, node), left - more[node]
        first, last = cost(costs, a, node), cost(costs, node, b)
        for j in range(1, n):  # what was best for others stays so, but for the way that is no more and two new ones
            if inside[j] or behind[j] < 0:
                continue
            if behind[j] == a:
                behind[j] = -1
                continue
            half = cost(costs, node, j)
            if cost(costs, a, j) + half - first < more[j]:
                behind[j], more[j] = a, cost(costs, a, j) + half - first
            if half + cost(costs, j, b) - last < more[j]:
                behind[j], more[j] = node, half + cost(costs, j, b) - last


@njit(cache=True, nogil=True)
@no_type_check
def replace(costs, tour, size, inside, fresh, prize, left, least):
    """The replacement that adds most prize, and of these the shortest: (whether there was one, ``left``)."""
    n, room, count = len(prize), 0.0, 0
    for k in range(1, size - 1):  # no node that leaves makes more room than this for one that comes
        before, behind = cost(costs, tour[k - 1], tour[k]), cost(costs, tour[k], tour[k + 1])
        saved = before + behind - cost(costs, tour[k - 1], tour[k + 1])
        room = max(room, saved, 2.0 * min(before, behind))
    outside, places, ways = np.empty(n, np.int64), np.empty((n, PLACES), np.int64), np.empty((n, PLACES))
    for j in range(1, n):
        if not inside[j] and prize[j] > 0.0:
            look(costs, tour, size, j, places[count], ways[count])
            if ways[count, 0] - room <= left:
                outside[count] = j
                count += 1
    best, length, out, node, at = 0.0, np.inf, -1, -1, -1
    for k in range(1, size - 1):
        a, b, c = tour[k - 1], tour[k], tour[k + 1]
        short = cost(costs, a, c)
        saved = cost(costs, a, b) + cost(costs, b, c) - short
        for o in range(count):
            j = outside[o]
            more = prize[j] - prize[b]
            if more < 0.0 or more < best:
                continue
            i, added = k - 1, cost(costs, a, j) + cost(costs, j, c) - short  # in b's own place
            for m in range(PLACES):
                if places[o, m] not in (k - 1, k):
                    if places[o, m] >= 0 and ways[o, m] < added:
                        i, added = places[o, m], ways[o, m]
                    break
            if added - saved > left or (more == 0.0 and added - saved > -least):
                continue
            if more > best or added - saved < length:
                best, length, out, node, at = more, added - saved, k, j, i
    if node < 0:
        return False, left
    size = take_out(tour, size, inside, fresh, out, 1)
    put_in(tour, size, inside, fresh, at if at < out else at - 1, node)
    return True, left - length


@njit(cache=True, nogil=True)
@no_type_check
def settle(costs, tour, size, inside, fresh, prize, left, least, random):
    """Moves until none helps: ``(size, left)``."""
    while True:
        left += shorten(costs, tour, size, fresh, least)
        before = size
        size, left = insert_nodes(costs, tour, size, inside, fresh, prize, left, 0.0, random)
        if size > before:
            continue
        found, left = replace(costs, tour, size, inside, fresh, prize, left, least)
        if not found:
            return size, left


@njit(cache=True, nogil=True)
@no_type_check
def length_of(costs, tour, size):
    """Of the first ``size`` places."""
    total = 0.0
    for k in range(size - 1):
        total += cost(costs, tour[k], tour[k + 1])
    return total


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def improve_tours(array, norm, rounding, prize, budget, least, solutions):
    """Every one of ``solutions [B, L]`` to a local optimum, in place."""
    for b in prange(len(solutions)):
        costs = Costs(array[b], norm, rounding)
        n, size = prize.shape[1], 0
        tour, inside, fresh = np.zeros(n + 2, np.int64), np.zeros(n, np.bool_), np.ones(n, np.bool_)
        while size < solutions.shape[1] and solutions[b, size] >= 0:
            tour[size] = solutions[b, size]
            inside[tour[size]] = True
            size += 1
        left = budget[b] - length_of(costs, tour, size)
        size, left = settle(costs, tour, size, inside, fresh, prize[b], left, least[b], np.ones(1, np.uint64))
        solutions[b, :] = -1
        solutions[b, :size] = tour[:size]


@njit(cache=True, nogil=True)
@no_type_check
def lose_string(tour, size, inside, fresh, gone, random):
    """A string of nodes leaves the tour, into ``gone``: (size, how many)."""
    count = 1 + draw(random, max(1, int(MOST_TAKEN * (size - 2))))
    first = 1 + draw(random, size - 1 - count)
    gone[:count] = tour[first : first + count]
    return take_out(tour, size, inside, fresh, first, count), count


@njit(cache=True, nogil=True)
@no_type_check
def go_there(costs, tour, size, inside, fresh, prize, near, left, random):
    """A random node and some near it come in, and others leave for them, the least prize per length saved first, scores
    having noise, until the tour is short enough: ``(size, left)``."""
    n, some, ways = len(prize), np.empty(PLACES, np.int64), np.empty(PLACES)
    seed, more, new = 1 + draw(random, n - 1), 1 + draw(random, MOST_ADDED), np.zeros(n, np.bool_)
    for m in range(-1, near.shape[1]):
        j = seed if m < 0 else near[seed, m]
        if more == 0:
            break
        if j == 0 or inside[j] or prize[j] <= 0.0:
            continue
        look(costs, tour, size, j, some, ways)
        size, left = put_in(tour, size, inside, fresh, some[0], j), left - ways[0]
        new[j], more = True, more - 1
    while left < 0.0 and size > 2:
        least, out, saved, young = np.inf, -1, 0.0, True
        for k in range(1, size - 1):
            a, b, c = tour[k - 1], tour[k], tour[k + 1]
            way = cost(costs, a, b) + cost(costs, b, c) - cost(costs, a, c)
            score = prize[b] / max(way, 1e-9) * (1.0 - NOISE * draw(random, RANDOM) / RANDOM)
            if (score < least and new[b] == young) or new[b] < young:  # the new ones leave last
                least, out, saved, young = score, k, way, new[b]
        size, left = take_out(tour, size, inside, fresh, out, 1), left + saved
    return size, left


@njit(cache=True, nogil=True)
@no_type_check
def anneal(costs, tour, size, prize, near, budget, least, heat, count, best, worth, random):
    """``count`` rounds at temperature ``heat`` from ``tour``'s first ``size`` places; returns the size.

    ``worth [4]``: prize and length left of the tour, prize and size of ``best``; kept up.
    """
    n = len(prize)
    other, gone = np.zeros(n + 2, np.int64), np.empty(n, np.int64)
    inside, fresh = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    for _ in range(count):
        other[:size] = tour[:size]
        inside[:] = False
        for k in range(size):
            inside[other[k]] = True
        kept, shut, way = size, 0, draw(random, 4) if size > 2 else 3
        if way < 2:
            kept, shut = lose_string(other, kept, inside, fresh, gone, random)
        left = budget - length_of(costs, other, kept)
        if way > 1:
            kept, left = go_there(costs, other, kept, inside, fresh, prize, near, left, random)
        for k in range(shut if way == 0 else 0):  # those that left wait until others have had their turn
            inside[gone[k]] = True
        kept, left = insert_nodes(costs, other, kept, inside, fresh, prize, left, NOISE, random)
        for k in range(shut if way == 0 else 0):
            inside[gone[k]] = False
        kept, left = settle(costs, other, kept, inside, fresh, prize, left, least, random)
        found = 0.0
        for k in range(1, kept - 1):
            found += prize[other[k]]
        if found - worth[0] < heat * np.log((draw(random, RANDOM) + 1) / RANDOM):
            continue
        tour[:kept] = other[:kept]
        size, worth[0], worth[1] = kept, found, left
        if found > worth[2] + LEAST_GAIN * found:
            best[:kept] = other[:kept]
            worth[2], worth[3] = found, kept
    return size


# ---- what others call ------------------------------------------------------------------------------------------------


def room(instance: Instance) -> Array:
    """The budget with half of what the rules allow for rounding; of one instance or of a batch."""
    return np.asarray(instance["budget"] + TOLERANCE / 2, np.float64)


def improve(instances: Instance, costs: Costs, solutions: NDArray[np.int64]) -> NDArray[np.int64]:
    """``solutions [B, L]`` of a batch to local optima; ``costs`` has one row for each."""
    prize = instances["prize"]
    found = np.full((len(solutions), prize.shape[1] + 1), -1, np.int64)
    found[:, : solutions.shape[1]] = solutions[:, : found.shape[1]]
    budget = room(instances)
    improve_tours(costs.array, costs.norm, costs.rounding, prize, budget, LEAST_GAIN * budget, found)
    return found


def insert(instance: Instance, costs: Costs, seed: int) -> NDArray[np.int64]:
    """Insertion by prize per added length, with noise."""
    prize, budget = instance["prize"], float(room(instance))
    tour, (inside, fresh) = np.zeros(len(prize) + 2, np.int64), np.zeros((2, len(prize)), np.bool_)
    random = np.random.SeedSequence(seed).generate_state(1, np.uint64) | np.uint64(1)
    size, _ = insert_nodes(costs, tour, 2, inside, fresh, prize, budget, NOISE, random)
    return tour[:size]


def objective(instance: Instance, costs: Costs, solution: NDArray[np.int64]) -> float:
    """The prizes of the tour ``0 .. 0``."""
    return float(instance["prize"][solution].sum())


def _inserted(instance: Instance, costs: Costs, seed: int) -> NDArray[np.int64]:
    """The tour of :func:`insert` at its local optimum."""
    many = {key: value[None] for key, value in instance.items()}
    found = improve(many, costs._replace(array=costs.array[None]), insert(instance, costs, seed)[None])[0]
    return found[found >= 0]


class Search:
    """Ruin and recreate from an insertion, annealed over the time there is; up to 12 nodes exact."""

    def __init__(self, instance: Instance, costs: Costs, seed: int) -> None:
        self.costs, self.prize, self.budget = costs, instance["prize"], float(room(instance))
        n = len(self.prize)
        self.finished = n - 1 <= MOST_EXACT
        first = exact_op(instance) if self.finished else _inserted(instance, costs, seed)
        self.tour, self.size = np.zeros(n + 2, np.int64), len(first)
        self.tour[: self.size] = first
        prizes = objective(instance, costs, first)
        self.best, self.worth = self.tour.copy(), np.array([prizes, 0.0, prizes, self.size])
        self.heat, self.least = HEAT * prizes, LEAST_GAIN * self.budget
        self.near = costs.neighbours(AROUND)
        self.random = np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64) | np.uint64(1)

    @property
    def solution(self) -> NDArray[np.int64]:
        """The tour ``0 .. 0``, int64."""
        return self.best[: int(self.worth[3])].copy()

    @property
    def objective(self) -> float:
        """The prizes of :attr:`solution`."""
        return float(self.worth[2])

    def advance(self, share: float, count: int) -> None:
        """``count`` rounds, cooler as time goes by."""
        if self.finished:
            return
        given = self.near, self.budget, self.least, self.heat * (1.0 - share), count, self.best, self.worth, self.random
        self.size = anneal(self.costs, self.tour, self.size, self.prize, *given)
