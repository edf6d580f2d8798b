"""Shorter tours where every way costs the same in both directions: 2-opt, Or-opt, iterated local search.

The neighbourhood of a tour, with K nearest nodes listed for every city (Bentley 1992, Johnson & McGeoch 1997):

2-opt   an edge (a, b) and an edge (c, d) become (a, c) and (b, d), c being listed for a and nearer to it than b
Or-opt  a segment of up to three cities moves between two others, either way round; one end of it is listed for the city
        that it comes to lie beside, or that city for it, and that way is shorter than the one which it replaces

A queue holds the cities whose surroundings have changed (don't-look bits, in order); a city leaves it when no move at
it helps.  A tour is two arrays, the city at every place and the place of every city; every move is two or three flips
of stretches, the shorter side each time, and what was flipped can be flipped back.  That makes :func:`iterate` cheap: a
double bridge within a hundred places, the search around it, and back again unless the tour became no longer (Lourenço,
Martin & Stützle 2003).
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.costs import Array, Costs, cost

LEAST_GAIN = 1e-9  # of a move, in units of the longest listed way; less is rounding
SEGMENT = 3  # cities that move together
REACH = 50  # places of a double bridge's parts
MOST_FLIPS = 4096  # of one search that may have to be undone; it ends there


class Tour(NamedTuple):
    """A tour and what a search of it works with; kernels take it as it is.

    order, place: int32 ``[n]``, the city at every place and the place of every city; near: int32 ``[n, K]``, nearest
    cities, and away: float64, what it costs to go there; queue: int32 ``[n]``, a ring; waiting: bool ``[n]``, what is in
    it; touched: int32 ``[6]``, ends of the edges of the last move; flips: int32 ``[F, 2]``, first and last place of
    what was flipped; random: uint64 ``[1]``, the generator's state.
    """

    order: NDArray[np.int32]
    place: NDArray[np.int32]
    near: NDArray[np.int32]
    away: Array
    queue: NDArray[np.int32]
    waiting: NDArray[np.bool_]
    touched: NDArray[np.int32]
    flips: NDArray[np.int32]
    random: NDArray[np.uint64]


# ---- kernels ---------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
@no_type_check
def draw(random, most):
    """A whole number from 0 to ``most`` - 1 (xorshift, Marsaglia 2003)."""
    x = random[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    random[0] = x
    return np.int64(x >> np.uint64(33)) % most


@njit(cache=True, nogil=True)
@no_type_check
def flip(tour, first, last):
    """Turn the stretch from place ``first`` on to ``last`` round."""
    order, place = tour.order, tour.place
    n = len(order)
    for _ in range(((last - first) % n + 1) // 2):
        a, b = order[first], order[last]
        order[first], order[last] = b, a
        place[b], place[a] = first, last
        first = first + 1 if first + 1 < n else 0
        last = last - 1 if last > 0 else n - 1


@njit(cache=True, nogil=True)
@no_type_check
def flip_noted(tour, first, last, noted):
    """:func:`flip`, noted among the flips as number ``noted``; returns the next number."""
    n = len(tour.order)
    first, last = first % n, last % n
    flip(tour, first, last)
    tour.flips[noted, 0], tour.flips[noted, 1] = first, last
    return noted + 1


@njit(cache=True, nogil=True)
@no_type_check
def swap_stretches(tour, first, middle, last, turned, noted):
    """Stretches ``first`` .. ``middle`` - 1 and ``middle`` .. ``last`` change places; turned: 1 leaves the former one
    turned round, 2 the latter, 0 none."""
    n = len(tour.order)
    latter = (last - middle) % n + 1
    noted = flip_noted(tour, first, last, noted)
    if turned != 2:
        noted = flip_noted(tour, first, first + latter - 1, noted)
    if turned != 1:
        noted = flip_noted(tour, first + latter, last, noted)
    return noted


@njit(cache=True, nogil=True)
@no_type_check
def touch(tour, a, b, c, d, e, f):
    """These are the ends of the edges of a move."""
    touched = tour.touched
    touched[0], touched[1], touched[2], touched[3], touched[4], touched[5] = a, b, c, d, e, f


@njit(cache=True, nogil=True)
@no_type_check
def two_opt(costs, tour, a, least, noted):
    """The first move of 2-opt at city ``a`` that gains ``least``: (gain, flips noted), gain 0 where there is none."""
    order, place, near, away = tour.order, tour.place, tour.near, tour.away
    n = len(order)
    for step in (1, -1):
        b = order[(place[a] + step) % n]
        old = cost(costs, a, b)
        for k in range(near.shape[1]):
            c = near[a, k]
            if old - away[a, k] <= least:
                break
            d = order[(place[c] + step) % n]
            if d == a:
                continue
            gain = old - away[a, k] + cost(costs, c, d) - cost(costs, b, d)
            if gain > least:
                if step == 1:  # a b .. c d becomes a c .. b d
                    first, last = place[b], place[c]
                else:  # b a .. d c becomes b d .. a c
                    first, last = place[a], place[d]
                if 2 * ((last - first) % n + 1) > n:
                    first, last = last + 1, first - 1
                touch(tour, a, b, c, d, a, b)
                return gain, flip_noted(tour, first, last, noted)
    return 0.0, noted


@njit(cache=True, nogil=True)
@no_type_check
def move_segment(tour, end, step, size, beside, other, noted):
    """The segment that goes on from city ``end`` in direction ``step`` for ``size`` cities moves between the neighbours
    ``beside`` and ``other``, ``end`` next to ``beside``."""
    order, place = tour.order, tour.place
    n = len(order)
    first = place[end] if step == 1 else (place[end] - (size - 1)) % n
    last = (first + size - 1) % n
    forward = order[(place[beside] + 1) % n] == other
    before, behind = (beside, other) if forward else (other, beside)
    turned = (step == 1) != forward
    if (place[before] - last) % n <= (first - place[behind]) % n:  # the shorter way round
        return swap_stretches(tour, first, (last + 1) % n, place[before], 1 if turned else 0, noted)
    return swap_stretches(tour, place[behind], first, last, 2 if turned else 0, noted)


@njit(cache=True, nogil=True)
@no_type_check
def or_opt(costs, tour, a, least, noted):
    """The first move of Or-opt at city ``a`` that gains ``least``: (gain, flips noted), gain 0 where there is none."""
    order, place, near, away = tour.order, tour.place, tour.near, tour.away
    n = len(order)
    most = min(SEGMENT, n - 3)
    for step in (1, -1):
        here = place[a]
        # a is the end of a segment, which leaves p and comes beside c
        p = order[(here - step) % n]
        old = cost(costs, p, a)
        for k in range(near.shape[1]):
            c = near[a, k]
            won = old - away[a, k]
            if won <= least:
                break
            behind = ((place[c] - here) * step) % n  # how far c is, in the segment's direction
            for size in range(1, most + 1):
                if behind < size:
                    break
                e, q = order[(here + step * (size - 1)) % n], order[(here + step * size) % n]
                saved = won + cost(costs, e, q) - cost(costs, p, q)
                for side in (1, -1):
                    d = order[(place[c] + side) % n]
                    if d == a or d == e:
                        continue
                    gain = saved + cost(costs, c, d) - cost(costs, e, d)
                    if gain > least:
                        touch(tour, p, q, a, e, c, d)
                        return gain, move_segment(tour, a, step, size, c, d, noted)
        # between a and c comes a segment whose end e is near a
        c = p
        for k in range(near.shape[1]):
            e = near[a, k]
            won = old - away[a, k]
            if won <= least:
                break
            there = place[e]
            for way in (1, -1):
                p = order[(there - way) % n]
                saved = won + cost(costs, p, e)
                for size in range(1, most + 1):
                    f, q = order[(there + way * (size - 1)) % n], order[(there + way * size) % n]
                    if f == a or f == c:
                        break
                    if p == a and q == c or p == c and q == a:
                        continue  # n is size + 2: nothing moves
                    gain = saved + cost(costs, f, q) - cost(costs, p, q) - cost(costs, f, c)
                    if gain > least:
                        touch(tour, p, q, e, f, a, c)
                        return gain, move_segment(tour, e, way, size, a, c, noted)
    return 0.0, noted


@njit(cache=True, nogil=True)
@no_type_check
def enqueue(tour, head, size, city):
    """Put ``city`` at the end of the queue unless it waits; returns the queue's size."""
    if tour.waiting[city]:
        return size
    n = len(tour.queue)
    tour.queue[(head + size) % n] = city
    tour.waiting[city] = True
    return size + 1


@njit(cache=True, nogil=True)
@no_type_check
def settle(costs, tour, size, least, noted, undoable):
    """Moves until the queue of ``size`` is empty: (gain, flips noted).  ``undoable`` ends where notes run out."""
    gained, head, n = 0.0, 0, len(tour.queue)
    while size:
        if noted + 3 > len(tour.flips):
            if undoable:
                while size:
                    tour.waiting[tour.queue[head]] = False
                    head, size = (head + 1) % n, size - 1
                break
            noted = 0
        a = tour.queue[head]
        gain, noted = two_opt(costs, tour, a, least, noted)
        if gain == 0.0:
            gain, noted = or_opt(costs, tour, a, least, noted)
        if gain == 0.0:
            tour.waiting[a] = False
            head, size = (head + 1) % n, size - 1
            continue
        gained += gain
        for k in range(len(tour.touched)):
            size = enqueue(tour, head, size, tour.touched[k])
    return gained, noted


@njit(cache=True, nogil=True)
@no_type_check
def improve_tour(costs, tour, least):
    """Moves until none helps; returns what was gained."""
    for k in range(len(tour.order)):
        tour.queue[k] = tour.order[k]
        tour.waiting[k] = True
    return settle(costs, tour, len(tour.order), least, 0, False)[0]


@njit(cache=True, nogil=True)
@no_type_check
def iterate(costs, tour, least, count):
    """``count`` double bridges, each with the search around it, undone where the tour became longer; n >= 8.

    Returns what was gained.
    """
    order, n = tour.order, len(tour.order)
    reach = min(REACH, (n - 2) // 2)
    gained = 0.0
    for _ in range(count):
        first = draw(tour.random, n)
        former, latter = 1 + draw(tour.random, reach), 1 + draw(tour.random, reach)
        middle, last = (first + former) % n, (first + former + latter - 1) % n
        x, y = order[(first - 1) % n], order[(last + 1) % n]
        a, b, c, d = order[first], order[(middle - 1) % n], order[middle], order[last]
        gain = cost(costs, x, a) + cost(costs, b, c) + cost(costs, d, y)
        gain -= cost(costs, x, c) + cost(costs, d, a) + cost(costs, b, y)
        noted = swap_stretches(tour, first, middle, last, 0, 0)
        size = 0
        for city in (x, a, b, c, d, y):
            size = enqueue(tour, 0, size, city)
        more, noted = settle(costs, tour, size, least, noted, True)
        if gain + more < 0.0:
            for k in range(noted - 1, -1, -1):
                flip(tour, tour.flips[k, 0], tour.flips[k, 1])
        else:
            gained += gain + more
    return gained


def make_tour(costs: Costs, order: NDArray[np.int64], near: NDArray[np.int32], seed: int = 0) -> Tour:
    """The tour ``order`` int64 ``[n]``, ready to be searched."""
    n = len(order)
    place = np.empty(n, np.int32)
    place[order] = np.arange(n)
    rows = np.repeat(np.arange(n), near.shape[1])
    pairs = np.stack((rows, near.reshape(-1)), axis=1).astype(np.int64)
    away = pair_costs(costs, pairs).reshape(near.shape)
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64) | np.uint64(1)
    return Tour(
        order.astype(np.int32),
        place,
        near,
        away,
        np.empty(n, np.int32),
        np.zeros(n, np.bool_),
        np.empty(6, np.int32),
        np.empty((MOST_FLIPS, 2), np.int32),
        state,
    )


@njit(cache=True, nogil=True)
@no_type_check
def pair_costs(costs, pairs):
    """What it costs from the first to the second of each of ``pairs [k, 2]``."""
    found = np.empty(len(pairs))
    for k in range(len(pairs)):
        found[k] = cost(costs, pairs[k, 0], pairs[k, 1])
    return found
