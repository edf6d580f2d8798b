"""More prizes within the length: shorter tours, nodes inserted and replaced, and a search that ruins and recreates.

:func:`settle` repeats, on one tour ``0 .. 0``, until nothing helps:

2-opt, Or-opt  the tour through the same nodes becomes shorter (a stretch turned round, a node moved elsewhere)
insert         the node of most prize per added length that fits
replace        a node by one of a higher prize, put where it costs least, that still fits; or of the same prize, shorter

:class:`Search` takes strings of nodes out, inserts others by a score with noise, settles, and anneals.
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
BETTER_FROM = None  # nodes from which it does better than the solver of choice
MOST_TAKEN = 0.3  # of a tour, in one round of the search
NOISE = 0.5  # of the scores of insertion
HEAT = 0.02  # of the annealing at first, in prizes of the first tour


@njit(cache=True, nogil=True)
@no_type_check
def shorten(costs, tour, size, least):
    """2-opt and moves of one node on the first ``size`` places, ends fixed, until none helps; returns the gain."""
    gained, better = 0.0, True
    while better:
        better = False
        for i in range(size - 2):
            for j in range(i + 2, size - 1):
                a, b, c, d = tour[i], tour[i + 1], tour[j], tour[j + 1]
                ab, cd = cost(costs, a, b), cost(costs, c, d)
                gain = ab + cd - cost(costs, a, c) - cost(costs, b, d)
                if gain > least:
                    turn(tour, i + 1, j)
                    gained, better = gained + gain, True
                    continue
                e = tour[i + 2]  # b moves between c and d
                gain = ab + cost(costs, b, e) + cd - cost(costs, a, e) - cost(costs, c, b) - cost(costs, b, d)
                if gain > least:
                    for k in range(i + 1, j):
                        tour[k] = tour[k + 1]
                    tour[j] = b
                    gained, better = gained + gain, True
                    continue
                e = tour[j - 1]  # c moves between a and b
                gain = ab + cost(costs, e, c) + cd - cost(costs, a, c) - cost(costs, c, b) - cost(costs, e, d)
                if gain > least:
                    for k in range(j, i + 1, -1):
                        tour[k] = tour[k - 1]
                    tour[i + 1] = c
                    gained, better = gained + gain, True
    return gained


@njit(cache=True, nogil=True)
@no_type_check
def place_for(costs, tour, size, j, without):
    """Where node ``j`` costs least, and what: ``(place, cost)``; it comes behind it.  ``without`` is passed by."""
    at, least = -1, np.inf
    for i in range(size - 1):
        a, b = tour[i], tour[i + 1]
        if i == without:
            continue  # the way from it is that of its predecessor
        if i + 1 == without:
            b = tour[i + 2]
        more = cost(costs, a, j) + cost(costs, j, b) - cost(costs, a, b)
        if more < least:
            at, least = i, more
    return at, least


@njit(cache=True, nogil=True)
@no_type_check
def insert_nodes(costs, tour, size, inside, prize, left, noise, random):
    """Insert, most prize per added length first, what fits into ``left``: ``(size, left)``; scores have ``noise``."""
    n = len(prize)
    while True:
        best, at, node, added = 0.0, -1, -1, 0.0
        for j in range(1, n):
            if inside[j] or prize[j] <= 0.0:
                continue
            i, more = place_for(costs, tour, size, j, -1)
            if more > left:
                continue
            score = prize[j] / max(more, 1e-9)
            if noise > 0.0:
                score *= 1.0 - noise * draw(random, RANDOM) / RANDOM
            if score > best:
                best, at, node, added = score, i, j, more
        if node < 0:
            return size, left
        for k in range(size, at + 1, -1):
            tour[k] = tour[k - 1]
        tour[at + 1], inside[node] = node, True
        size, left = size + 1, left - added


@njit(cache=True, nogil=True)
@no_type_check
def replace(costs, tour, size, inside, prize, left, least):
    """The replacement that adds most prize, and of these the shortest: (whether there was one, ``left``)."""
    best, length, out, node, at = 0.0, np.inf, -1, -1, -1
    for k in range(1, size - 1):
        a, b, c = tour[k - 1], tour[k], tour[k + 1]
        saved = cost(costs, a, b) + cost(costs, b, c) - cost(costs, a, c)
        for j in range(1, len(prize)):
            more = prize[j] - prize[b]
            if inside[j] or more < 0.0 or more < best:
                continue
            i, added = place_for(costs, tour, size, j, k)
            if added - saved > left or (more == 0.0 and added - saved > -least):
                continue
            if more > best or added - saved < length:
                best, length, out, node, at = more, added - saved, k, j, i
    if node < 0:
        return False, left
    inside[tour[out]], inside[node] = False, True
    if at < out:
        for k in range(out, at + 1, -1):
            tour[k] = tour[k - 1]
        tour[at + 1] = node
    else:
        for k in range(out, at):
            tour[k] = tour[k + 1]
        tour[at] = node
    return True, left - length


@njit(cache=True, nogil=True)
@no_type_check
def settle(costs, tour, size, inside, prize, left, least, random):
    """Moves until none helps: ``(size, left)``."""
    while True:
        left += shorten(costs, tour, size, least)
        before = size
        size, left = insert_nodes(costs, tour, size, inside, prize, left, 0.0, random)
        if size > before:
            continue
        found, left = replace(costs, tour, size, inside, prize, left, least)
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
        tour, inside = np.zeros(n + 2, np.int64), np.zeros(n, np.bool_)
        while size < solutions.shape[1] and solutions[b, size] >= 0:
            tour[size] = solutions[b, size]
            inside[tour[size]] = True
            size += 1
        left = budget[b] - length_of(costs, tour, size)
        size, left = settle(costs, tour, size, inside, prize[b], left, least[b], np.ones(1, np.uint64))
        solutions[b, :] = -1
        solutions[b, :size] = tour[:size]


@njit(cache=True, nogil=True)
@no_type_check
def anneal(costs, tour, size, prize, budget, least, heat, count, best, worth, random):
    """``count`` rounds at temperature ``heat`` from ``tour``'s first ``size`` places; returns the size.

    ``worth [4]``: prize and length left of the tour, prize and size of ``best``; kept up.
    """
    n = len(prize)
    other, inside = np.zeros(n + 2, np.int64), np.zeros(n, np.bool_)
    for _ in range(count):
        inside[:] = False
        kept = size
        other[:size] = tour[:size]
        if size > 2:
            out = 1 + draw(random, max(1, int(MOST_TAKEN * (size - 2))))
            first = 1 + draw(random, size - 1 - out)
            for k in range(first, size - out):
                other[k] = other[k + out]
            kept = size - out
        for k in range(kept):
            inside[other[k]] = True
        left = budget - length_of(costs, other, kept)
        kept, left = insert_nodes(costs, other, kept, inside, prize, left, NOISE, random)
        kept, left = settle(costs, other, kept, inside, prize, left, least, random)
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
    tour, inside = np.zeros(len(prize) + 2, np.int64), np.zeros(len(prize), np.bool_)
    random = np.random.SeedSequence(seed).generate_state(1, np.uint64) | np.uint64(1)
    size, _ = insert_nodes(costs, tour, 2, inside, prize, budget, NOISE, random)
    return tour[:size]


def objective(instance: Instance, costs: Costs, solution: NDArray[np.int64]) -> float:
    """The prizes of the tour ``0 .. 0``."""
    return float(instance["prize"][solution].sum())


class Search:
    """Ruin and recreate from an insertion, annealed over the time there is; up to 12 nodes exact."""

    def __init__(self, instance: Instance, costs: Costs, seed: int) -> None:
        self.costs, self.prize, self.budget = costs, instance["prize"], float(room(instance))
        n = len(self.prize)
        self.finished = n - 1 <= MOST_EXACT
        first = exact_op(instance) if self.finished else insert(instance, costs, seed)
        self.tour, self.size = np.zeros(n + 2, np.int64), len(first)
        self.tour[: self.size] = first
        prizes = objective(instance, costs, first)
        self.best, self.worth = self.tour.copy(), np.array([prizes, 0.0, prizes, self.size])
        self.heat, self.least = HEAT * prizes, LEAST_GAIN * self.budget
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
        heat, given = self.heat * (1.0 - share), (self.best, self.worth, self.random)
        self.size = anneal(self.costs, self.tour, self.size, self.prize, self.budget, self.least, heat, count, *given)
