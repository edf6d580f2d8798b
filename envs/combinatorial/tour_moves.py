"""Better tours: 2-opt, Or-opt, exchanged stretches, and iterated local search; what tsp and atsp share.

The neighbourhood of a tour, with K nearest nodes listed for every city (Bentley 1992, Johnson & McGeoch 1997).  Where
every way costs the same in both directions:

2-opt   an edge (a, b) and an edge (c, d) become (a, c) and (b, d), c being listed for a and nearer to it than b
Or-opt  a segment of up to three cities moves between two others, either way round; one end of it is listed for the city
        that it comes to lie beside, or that city for it, and that way is shorter than the one which it replaces

Where directions differ nothing is turned round:

3-opt   two stretches that follow each other, of any length, change places: a b .. d c .. f e becomes a c .. f b .. d e;
        c is listed for a and e for d, and what the first of the ways gains, and the first two together, is above 0

A queue holds the cities whose surroundings have changed (don't-look bits, in order); a city leaves it when no move at
it helps.  A tour is two arrays, the city at every place and the place of every city; every move is one to three flips
of stretches, the shorter way round, and what was flipped can be flipped back.  That makes :func:`iterate` cheap: a
double bridge within a hundred places, the search around it, and back again unless the tour became no longer (Lourenço,
Martin & Stützle 2003).
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.costs import NEIGHBOURS, Array, Costs, cost

LEAST_GAIN = 1e-9  # of a move, in units of the longest listed way; less is rounding
SEGMENT = 3  # cities that move together
REACH = 50  # places of a double bridge's parts
MOST_FLIPS = 4096  # of one search that may have to be undone; it ends there
LEAST_NODES = 5  # of a tour that moves can change
RANDOM = 1 << 30


class Tour(NamedTuple):
    """A tour and what a search of it works with; kernels take it as it is.

    order, place: int32 ``[n]``, the city at every place and the place of every city; near: int32 ``[n, K]``, nearest
    cities, and away: float64, what it costs to go there; queue: int32 ``[n]``, a ring; waiting: bool ``[n]``, what is
    in it; touched: int32 ``[6]``, ends of the edges of the last move; saved: float64 ``[4]``, what leaving saves by a
    segment's size; flips: int32 ``[F, 2]``, first and last place of what was flipped; random: uint64
    ``[1]``, the generator's state; symmetric: whether ways cost the same both ways.
    """

    order: NDArray[np.int32]
    place: NDArray[np.int32]
    near: NDArray[np.int32]
    away: Array
    queue: NDArray[np.int32]
    waiting: NDArray[np.bool_]
    touched: NDArray[np.int32]
    saved: Array
    flips: NDArray[np.int32]
    random: NDArray[np.uint64]
    symmetric: bool


# ---- kernels ---------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
@no_type_check
def turn(nodes, first, last):
    """Turn places ``first`` .. ``last`` of an array round."""
    while first < last:
        nodes[first], nodes[last] = nodes[last], nodes[first]
        first += 1
        last -= 1


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
def wrapped(place, n):
    """``place`` within the ring of ``n``, which it is less than one round away from; cheaper than a division."""
    return place - n if place >= n else place + n if place < 0 else place


@njit(cache=True, nogil=True)
@no_type_check
def flip(order, place, first, last):
    """Turn the stretch from place ``first`` on to ``last`` round."""
    n = len(order)
    for _ in range((wrapped(last - first, n) + 1) // 2):
        a, b = order[first], order[last]
        order[first], order[last] = b, a
        place[b], place[a] = first, last
        first = first + 1 if first + 1 < n else 0
        last = last - 1 if last > 0 else n - 1


@njit(cache=True, nogil=True)
@no_type_check
def flip_noted(order, place, flips, first, last, noted):
    """:func:`flip`, noted among the flips as number ``noted``; returns the next number."""
    n = len(order)
    first, last = wrapped(first, n), wrapped(last, n)
    flip(order, place, first, last)
    flips[noted, 0], flips[noted, 1] = first, last
    return noted + 1


@njit(cache=True, nogil=True)
@no_type_check
def swap_stretches(order, place, flips, first, middle, last, turned, noted):
    """Stretches ``first`` .. ``middle`` - 1 and ``middle`` .. ``last`` change places; turned: 1 leaves the former one
    turned round, 2 the latter, 0 none."""
    latter = wrapped(last - middle, len(order)) + 1
    noted = flip_noted(order, place, flips, first, last, noted)
    if turned != 2:
        noted = flip_noted(order, place, flips, first, first + latter - 1, noted)
    if turned != 1:
        noted = flip_noted(order, place, flips, first + latter, last, noted)
    return noted


@njit(cache=True, nogil=True)
@no_type_check
def move_segment(order, place, flips, end, step, size, beside, other, noted):
    """The segment that goes on from city ``end`` in direction ``step`` for ``size`` cities moves between the neighbours
    ``beside`` and ``other``, ``end`` next to ``beside``."""
    n = len(order)
    first = place[end] if step == 1 else wrapped(place[end] - (size - 1), n)
    last = wrapped(first + size - 1, n)
    forward = order[wrapped(place[beside] + 1, n)] == other
    before, behind = (beside, other) if forward else (other, beside)
    turned = (step == 1) != forward
    if wrapped(place[before] - last, n) <= wrapped(first - place[behind], n):  # the shorter way round
        middle = wrapped(last + 1, n)
        return swap_stretches(order, place, flips, first, middle, place[before], 1 if turned else 0, noted)
    return swap_stretches(order, place, flips, place[behind], first, last, 2 if turned else 0, noted)


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def touch(touched, a, b, c, d, e, f):
    """These are the ends of the edges of a move."""
    touched[0], touched[1], touched[2], touched[3], touched[4], touched[5] = a, b, c, d, e, f


@njit(cache=True, nogil=True)
@no_type_check
def two_opt(costs, tour, a, least, noted):
    """The first move of 2-opt at city ``a`` that gains ``least``: (gain, flips noted), gain 0 where there is none."""
    order, place, near, away = tour.order, tour.place, tour.near, tour.away
    n = len(order)
    for step in (1, -1):
        b = order[wrapped(place[a] + step, n)]
        old = cost(costs, a, b)
        for k in range(near.shape[1]):
            c = near[a, k]
            if old - away[a, k] <= least:
                break
            d = order[wrapped(place[c] + step, n)]
            if d == a:
                continue
            gain = old - away[a, k] + cost(costs, c, d) - cost(costs, b, d)
            if gain > least:
                if step == 1:  # a b .. c d becomes a c .. b d
                    first, last = place[b], place[c]
                else:  # b a .. d c becomes b d .. a c
                    first, last = place[a], place[d]
                if 2 * (wrapped(last - first, n) + 1) > n:
                    first, last = last + 1, first - 1
                touch(tour.touched, a, b, c, d, a, b)
                return gain, flip_noted(order, place, tour.flips, first, last, noted)
    return 0.0, noted


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
        p = order[wrapped(here - step, n)]
        old = cost(costs, p, a)
        q, saved = a, tour.saved
        for size in range(1, most + 1):  # without p .. q being joined through the segment
            e, q = q, order[wrapped(here + step * size, n)]
            saved[size] = old + cost(costs, e, q) - cost(costs, p, q)
        for k in range(near.shape[1]):
            c = near[a, k]
            if old - away[a, k] <= least:
                break
            behind = wrapped((place[c] - here) * step, n)  # how far c is, in the segment's direction
            for side in (1, -1):
                d = order[wrapped(place[c] + side, n)]
                if d == a:
                    continue
                won = cost(costs, c, d) - away[a, k]
                for size in range(1, min(most, behind) + 1):
                    if saved[size] + won <= least:
                        continue
                    e = order[wrapped(here + step * (size - 1), n)]
                    if d == e:
                        continue
                    gain = saved[size] + won - cost(costs, e, d)
                    if gain > least:
                        touch(tour.touched, p, order[wrapped(here + step * size, n)], a, e, c, d)
                        return gain, move_segment(order, place, tour.flips, a, step, size, c, d, noted)
        # between a and c comes a segment whose end e is near a
        c = p
        for k in range(near.shape[1]):
            e = near[a, k]
            won = old - away[a, k]
            if won <= least:
                break
            there = place[e]
            for way in (1, -1):
                p = order[wrapped(there - way, n)]
                more = won + cost(costs, p, e)
                for size in range(1, most + 1):
                    f, q = order[wrapped(there + way * (size - 1), n)], order[wrapped(there + way * size, n)]
                    if f in (a, c):
                        break
                    if (p == a and q == c) or (p == c and q == a):
                        continue  # n is size + 2: nothing moves
                    gain = more + cost(costs, f, q) - cost(costs, f, c)
                    if gain <= least:
                        continue
                    gain -= cost(costs, p, q)
                    if gain > least:
                        touch(tour.touched, p, q, e, f, a, c)
                        return gain, move_segment(order, place, tour.flips, e, way, size, a, c, noted)
    return 0.0, noted


@njit(cache=True, nogil=True)
@no_type_check
def exchange(costs, tour, a, least, noted):
    """The first exchange of stretches behind city ``a`` that gains ``least``: (gain, flips noted), gain 0 if none."""
    order, place, near, away = tour.order, tour.place, tour.near, tour.away
    n = len(order)
    begin = wrapped(place[a] + 1, n)
    b = order[begin]
    old = cost(costs, a, b)
    for k in range(near.shape[1]):
        c = near[a, k]
        won = old - away[a, k]
        if won <= least:
            break
        former = wrapped(place[c] - begin, n)  # cities from b to d
        d = order[wrapped(place[c] - 1, n)]
        won += cost(costs, d, c)
        for m in range(near.shape[1]):
            e = near[d, m]
            if won - away[d, m] <= least:
                break
            both = wrapped(place[e] - begin, n)  # cities from b to f
            if both <= former:
                continue
            f = order[wrapped(place[e] - 1, n)]
            gain = won - away[d, m] + cost(costs, f, e) - cost(costs, f, b)
            if gain > least:
                touch(tour.touched, a, b, c, d, e, f)
                latter, others = both - former, n - both
                first, middle, last = begin, place[c], place[f]  # two of the three stretches, all but the longest
                if former >= latter and former >= others:
                    first, middle, last = place[c], place[e], place[a]
                elif latter >= others:
                    first, middle, last = place[e], begin, place[d]
                return gain, swap_stretches(order, place, tour.flips, first, middle, last, 0, noted)
    return 0.0, noted


@njit(cache=True, nogil=True)
@no_type_check
def enqueue(queue, waiting, head, size, city):
    """Put ``city`` at the end of the queue unless it waits; returns the queue's size."""
    if waiting[city]:
        return size
    queue[wrapped(head + size, len(queue))] = city
    waiting[city] = True
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
                    head, size = wrapped(head + 1, n), size - 1
                break
            noted = 0
        a = tour.queue[head]
        if tour.symmetric:
            gain, noted = two_opt(costs, tour, a, least, noted)
            if gain == 0.0:
                gain, noted = or_opt(costs, tour, a, least, noted)
        else:
            gain, noted = exchange(costs, tour, a, least, noted)
        if gain == 0.0:
            tour.waiting[a] = False
            head, size = wrapped(head + 1, n), size - 1
            continue
        gained += gain
        for k in range(len(tour.touched)):
            size = enqueue(tour.queue, tour.waiting, head, size, tour.touched[k])
    return gained, noted


@njit(cache=True, nogil=True)
@no_type_check
def improve_tour(costs, tour, least):
    """Moves until none helps anywhere; returns what was gained.

    The queue alone is not enough: a move that changes what lies between others may make one of theirs possible.
    """
    gained, gain, n = 0.0, 1.0, len(tour.order)
    while gain > 0.0:
        tour.queue[:] = tour.order
        tour.waiting[:] = True
        gain = settle(costs, tour, n, least, 0, False)[0]
        gained += gain
    return gained


@njit(cache=True, nogil=True)
@no_type_check
def iterate(costs, tour, least, count, heat, best, lengths):
    """``count`` double bridges, each with the search around it, undone where the tour became too long; n >= 8.

    Longer by up to -``heat`` log u is not too long, u uniform (simulated annealing).  ``lengths [2]`` are the tour's
    and the best one's, which ``best`` int32 ``[n]`` is; both are kept up.
    """
    order, n = tour.order, len(tour.order)
    reach = min(REACH, (n - 2) // 2)
    for _ in range(count):
        first = draw(tour.random, n)
        former, latter = 1 + draw(tour.random, reach), 1 + draw(tour.random, reach)
        middle, last = wrapped(first + former, n), wrapped(first + former + latter - 1, n)
        x, y = order[wrapped(first - 1, n)], order[wrapped(last + 1, n)]
        a, b, c, d = order[first], order[wrapped(middle - 1, n)], order[middle], order[last]
        gain = cost(costs, x, a) + cost(costs, b, c) + cost(costs, d, y)
        gain -= cost(costs, x, c) + cost(costs, d, a) + cost(costs, b, y)
        noted = swap_stretches(order, tour.place, tour.flips, first, middle, last, 0, 0)
        size = 0
        for city in (x, a, b, c, d, y):
            size = enqueue(tour.queue, tour.waiting, 0, size, city)
        more, noted = settle(costs, tour, size, least, noted, True)
        gain += more
        if gain < heat * np.log((draw(tour.random, RANDOM) + 1) / RANDOM):
            for k in range(noted - 1, -1, -1):
                flip(order, tour.place, tour.flips[k, 0], tour.flips[k, 1])
            continue
        lengths[0] -= gain
        if lengths[0] < lengths[1] - least:
            lengths[1] = lengths[0]
            best[:] = order


@njit(cache=True, nogil=True)
@no_type_check
def nearest(costs, most):
    """The ``most`` nearest of every city, int32 ``[n, most]``, and what it costs to go there, by looking at all."""
    n = len(costs.array)
    near, away = np.empty((n, most), np.int32), np.full((n, most), np.inf)
    for i in range(n):
        for j in range(n):
            if j == i:
                continue
            way, k = cost(costs, i, j), most - 1
            if most == 0 or way >= away[i, k]:
                continue
            while k > 0 and away[i, k - 1] > way:
                near[i, k], away[i, k] = near[i, k - 1], away[i, k - 1]
                k -= 1
            near[i, k], away[i, k] = j, way
    return near, away


@njit(cache=True, nogil=True)
@no_type_check
def start(order, near, away, seed, symmetric):
    """A :class:`Tour` of ``order`` int ``[n]``."""
    n = len(order)
    cities, place = np.empty(n, np.int32), np.empty(n, np.int32)
    for k in range(n):
        cities[k], place[order[k]] = order[k], k
    queue, waiting = np.empty(n, np.int32), np.zeros(n, np.bool_)
    touched, flips, random = np.empty(6, np.int32), np.empty((MOST_FLIPS, 2), np.int32), np.empty(1, np.uint64)
    random[0] = np.uint64(seed) | np.uint64(1)
    return Tour(cities, place, near, away, queue, waiting, touched, np.empty(SEGMENT + 1), flips, random, symmetric)


@njit(cache=True, nogil=True)
@no_type_check
def longest(away):
    """Of the listed ways, ``[n, K]``: what gains are compared with."""
    return away.max() if away.size else 0.0


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def improve_tours(array, norm, rounding, symmetric, tours):
    """Every one of ``tours [B, n]`` to a local optimum, in place; each begins where it began.  n >= 5."""
    count, n = tours.shape
    for b in prange(count):
        costs = Costs(array[b], norm, rounding)
        near, away = nearest(costs, min(NEIGHBOURS, n - 1))
        tour = start(tours[b], near, away, 0, symmetric)
        improve_tour(costs, tour, LEAST_GAIN * longest(away))
        here = tour.place[tours[b, 0]]
        for k in range(n):
            tours[b, k] = tour.order[(here + k) % n]


@njit(cache=True, nogil=True)
@no_type_check
def insert_cities(costs, order):
    """The tour, int64 ``[n]`` from city 0, of inserting cities in ``order [n]`` where they cost least; ties to the one
    met first on the way from the city that came in first."""
    n = len(order)
    following = np.empty(n, np.int64)
    first = order[0]
    following[first] = first
    for k in range(1, n):
        j, at, least, here = order[k], first, np.inf, first
        for _ in range(k):
            there = following[here]
            more = cost(costs, here, j) + cost(costs, j, there) - cost(costs, here, there)
            if more < least:
                least, at = more, here
            here = there
        following[j] = following[at]
        following[at] = j
    tour = np.zeros(n, np.int64)
    for k in range(1, n):
        tour[k] = following[tour[k - 1]]
    return tour
