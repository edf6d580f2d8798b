"""What exact neighbour search does per query, compiled with numba: lists, median-split trees, sweeps.

The search itself is told in :mod:`rlkit.agents.prdc.neighbours`.  Everything that measures a distance is in this one
file, because numba's cache follows edits of a kernel's own file only, not of files whose functions were inlined.

Distance.  Every squared distance that decides anything comes from :func:`_weighted_square`: fp64, columns added in
ascending order, no reassociation.  It is a fixed function of two rows, so all paths of the search agree to the bit.

Pruning.  Boxes and leaves are first measured in fp32 (eight lanes at a time, any order of addition).  All terms are
non-negative, so such an estimate is within a relative ``(D + 5) 2^-24`` of the true value; it is compared with
``threshold * (1 + slack)``, slack ``(D + 8) 2^-23``, hence nothing at or below the threshold in fp64 is ever dropped.
What survives is measured again in fp64.  A box that may *tie* with the best answer is bounded in fp64 too, with the
operations of :func:`_weighted_square` in their order: rounding is monotone, so that bound needs no slack, and boxes of
exact duplicates can be left as soon as a smaller row number holds the same distance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

LEAF = 64  # points per leaf; at 32 LLVM unrolls the vector loops into scalar code, at 128 leaves prune less
_BLOCK = 64  # products looked at together in a sweep
FREE, CROWDED, DENSE = 0, 1, 2  # no list failed / the wide ball held too many rows / the narrow one did, too
_LOOSE = {"reassoc", "contract", "nsz"}  # for fp32 estimates only; NaN and infinity keep their meaning


class Tree(NamedTuple):
    """A tree over ``N`` points of ``D`` columns with ``M`` nodes and ``L`` leaves; nodes are in preorder.

    A node's left child is the next node.  All leaves but the last are full, so leaf ``l`` holds
    ``order[64 l : 64 l + 64]``.  Where beta is 0 the joint tree has no state columns.
    """

    blocks: np.ndarray  # float32 [L, D, 64]: column-major leaves, so a loop over points is a vector loop
    order: np.ndarray  # int32 [L * 64]: row number of each point, -1 for padding
    boxes: np.ndarray  # float32 [M, 2, Dpad]: smallest and largest value of each column, tight
    right: np.ndarray  # int32 [M]: right child, 0 in leaves
    leaf: np.ndarray  # int32 [M]: leaf number, -1 in inner nodes
    least: np.ndarray  # int32 [M]: smallest row number below the node
    weights: np.ndarray  # float64 [D]: weight of each column's squared difference


class Lists(NamedTuple):
    """The certificates of ``N`` rows and the arena that holds their lists."""

    start: np.ndarray  # int64 [N]: first entry in the arena; entry start - 1 holds the row's own number
    length: np.ndarray  # int32 [N]
    reach: np.ndarray  # float64 [N]: rho^2, -1 before the first ball search
    state: np.ndarray  # uint8 [N]: FREE, CROWDED or DENSE
    index: np.ndarray  # type: ignore[assignment]  # int32 [capacity]; hides tuple.index, which nothing here calls
    square: np.ndarray  # float32 [capacity]: beta^2 ||s_i - s_j||^2 rounded down; a header holds the list's length


class Query(NamedTuple):
    """B queries about the N rows, and the k best answers so far of each."""

    states: np.ndarray  # float32 [N, ds]
    actions: np.ndarray  # float32 [N, da]
    rows: np.ndarray  # int64 [B]: the row whose neighbourhood is searched
    queries: np.ndarray  # float32 [B, ds], or the states where no query has a state of its own
    moved: bool  # whether queries have states of their own
    proposals: np.ndarray  # float32 [B, da]
    beta2: float
    squares: np.ndarray  # float64 [B, k], ascending
    indices: np.ndarray  # int64 [B, k]


class Drafts(NamedTuple):
    """Lists in the making for P pending queries, of at most L entries, and what was done for each."""

    found: np.ndarray  # int32 [P, L]
    distances: np.ndarray  # float64 [P, L]
    counts: np.ndarray  # int64 [P], -1: none
    radii: np.ndarray  # float64 [P], squares
    marks: np.ndarray  # uint8 [P]: FREE, CROWDED or DENSE
    tallies: np.ndarray  # int64 [P, 2]: searches of the near and of the joint tree


@njit(cache=True, nogil=True, inline="always")
def _weighted_square(first, second, weight):
    """``weight * sum_k (first_k - second_k)^2`` in fp64, columns in ascending order: the canonical square."""
    total = 0.0
    for k in range(first.shape[0]):
        t = np.float64(first[k]) - np.float64(second[k])
        total += t * t
    return weight * total


@njit(cache=True, nogil=True, inline="always")
def _loosened(square, columns):
    """fp32 threshold that no estimate of a value ``<= square`` exceeds (see the module's docstring)."""
    if not square < 1e37:  # estimates may overflow there: keep everything
        return np.float32(np.inf)
    # 1e-36: estimates of subnormal size carry an absolute, not a relative, error
    return np.float32(square * (1.0 + (columns + 8) * 2.0**-23) + 1e-36)


@njit(cache=True, nogil=True, fastmath=_LOOSE)
def _box_estimate(box, query, weights):
    total = np.float32(0.0)
    for k in range(query.shape[0]):
        t = box[0, k] - query[k]
        u = query[k] - box[1, k]
        t = t if t > u else u
        t = t if t > np.float32(0.0) else np.float32(0.0)
        total += weights[k] * t * t
    return total


@njit(cache=True, nogil=True, fastmath=_LOOSE)
def _leaf_estimates(block, query, weights, out):
    for p in range(LEAF):
        out[p] = np.float32(0.0)
    for k in range(block.shape[0]):
        q, w = query[k], weights[k]
        for p in range(LEAF):
            t = block[k, p] - q
            out[p] += w * t * t


@njit(cache=True, nogil=True)
def _box_square(box, state, action, beta2, skipped):
    """Smallest canonical square of any point in a joint box; ``skipped`` state columns are absent from the box."""
    total = 0.0
    for k in range(skipped, state.shape[0]):
        q = np.float64(state[k])
        t = max(max(np.float64(box[0, k]) - q, q - np.float64(box[1, k])), 0.0)
        total += t * t
    own = 0.0
    shift = state.shape[0] - skipped
    for k in range(action.shape[0]):
        q = np.float64(action[k])
        t = max(max(np.float64(box[0, shift + k]) - q, q - np.float64(box[1, shift + k])), 0.0)
        own += t * t
    return beta2 * total + own


@njit(cache=True, nogil=True, inline="always")
def _offer(squares, indices, square, index):
    """Insert a candidate into the ascending best list ``squares, indices [k]``, ordered by (square, index)."""
    last = squares.shape[0] - 1
    if square > squares[last] or (square == squares[last] and index >= indices[last]):
        return
    while last > 0 and (square < squares[last - 1] or (square == squares[last - 1] and index < indices[last - 1])):
        squares[last] = squares[last - 1]
        indices[last] = indices[last - 1]
        last -= 1
    squares[last] = square
    indices[last] = index


@njit(cache=True, nogil=True)
def _sort(keys, values, count):
    """Heapsort of ``keys[:count]``, ascending, ties by value."""
    size = count
    middle = count // 2
    while size > 1:
        if middle > 0:
            middle -= 1
            key, value, hole = keys[middle], values[middle], middle
        else:
            size -= 1
            key, value, hole = keys[size], values[size], 0
            keys[size], values[size] = keys[0], values[0]
        while True:
            child = 2 * hole + 1
            if child >= size:
                break
            right = child + 1
            if right < size and (
                keys[right] > keys[child] or (keys[right] == keys[child] and values[right] > values[child])
            ):
                child = right
            if keys[child] < key or (keys[child] == key and values[child] <= value):
                break
            keys[hole], values[hole] = keys[child], values[child]
            hole = child
        keys[hole], values[hole] = key, value


@njit(cache=True, nogil=True)
def _workspace(tree):
    padded = tree.boxes.shape[2]
    query, weights = np.zeros(padded, np.float32), np.zeros(padded, np.float32)
    for k in range(tree.weights.shape[0]):
        weights[k] = np.float32(tree.weights[k])
    return query, weights, np.empty(LEAF, np.float32), np.empty(128, np.int32), np.empty(128, np.float32)


@njit(cache=True, nogil=True)
def _ball(tree, work, states, row, beta2, radius2, found, squares):
    """All rows ``i != row`` with canonical ``beta2 ||s_i - s_row||^2 <= radius2``, in no particular order.

    Fills int32 ``found`` and float64 ``squares``; returns their number, or -1 where they do not fit.
    """
    query, weights, estimates, stack, _ = work
    columns = states.shape[1]
    query[:columns] = states[row]
    threshold = _loosened(radius2, columns)
    count, top = 0, 1
    stack[0] = 0
    while top > 0:
        top -= 1
        node = stack[top]
        if _box_estimate(tree.boxes[node], query, weights) > threshold:
            continue
        leaf = tree.leaf[node]
        if leaf < 0:
            stack[top] = tree.right[node]
            stack[top + 1] = node + 1
            top += 2
            continue
        _leaf_estimates(tree.blocks[leaf], query, weights, estimates)
        for p in range(LEAF):
            if estimates[p] > threshold:
                continue
            i = tree.order[leaf * LEAF + p]
            if i < 0 or i == row:
                continue
            square = _weighted_square(states[i], states[row], beta2)
            if square <= radius2:
                if count == found.shape[0]:
                    return -1
                found[count] = i
                squares[count] = square
                count += 1
    return count


@njit(cache=True, nogil=True)
def _nearest(tree, work, states, actions, state, action, beta2, squares, indices):
    """The k nearest rows to ``(state, action)``, offered to the best list ``squares, indices [k]``.

    The list's last square is the first threshold: fill it with a bound that k rows are known to reach (or infinity)
    and with row numbers above all others.
    """
    query, weights, estimates, stack, bounds = work
    columns, last = tree.weights.shape[0], squares.shape[0] - 1
    skipped = states.shape[1] + actions.shape[1] - columns  # beta = 0: the tree has no state columns
    shift = columns - actions.shape[1]
    query[:shift] = state[:shift]
    query[shift:columns] = action
    threshold = _loosened(squares[last], columns)
    stack[0] = 0
    bounds[0] = _box_estimate(tree.boxes[0], query, weights)
    top = 1
    while top > 0:
        top -= 1
        node, bound = stack[top], bounds[top]
        if bound > threshold:
            continue
        # Near a tie the fp32 bound cannot tell; the fp64 one can, and row numbers settle equality.
        if (
            tree.least[node] > indices[last]
            and _loosened(np.float64(bound), columns) >= squares[last]
            and _box_square(tree.boxes[node], state, action, beta2, skipped) >= squares[last]
        ):
            continue
        leaf = tree.leaf[node]
        if leaf < 0:
            near, far = np.int64(node + 1), np.int64(tree.right[node])
            here = _box_estimate(tree.boxes[near], query, weights)
            there = _box_estimate(tree.boxes[far], query, weights)
            if there < here or (there == here and tree.least[far] < tree.least[near]):
                near, far, here, there = far, near, there, here
            stack[top], bounds[top] = far, there
            stack[top + 1], bounds[top + 1] = near, here
            top += 2
            continue
        _leaf_estimates(tree.blocks[leaf], query, weights, estimates)
        for p in range(LEAF):
            if estimates[p] > threshold:
                continue
            i = tree.order[leaf * LEAF + p]
            if i < 0:
                continue
            square = _weighted_square(states[i], state, beta2) + _weighted_square(actions[i], action, 1.0)
            if square <= squares[last]:
                _offer(squares, indices, square, np.int64(i))
                threshold = _loosened(squares[last], columns)
    return


@njit(cache=True, nogil=True, inline="always")
def _needed(square, offset):
    """State square that a list around ``s_j`` must cover to certify ``D^2 <= square`` for a query ``offset`` away."""
    if offset == 0.0:
        return square
    return (np.sqrt(square) + offset) ** 2 * (1.0 + 1e-9)  # triangle inequality; the factor outweighs all rounding


@njit(cache=True, nogil=True)
def scan(lists, query, pending):
    """Answer from the lists what they certify; list the other queries in ``pending`` and return their number."""
    states, actions, rows, queries, moved, proposals, beta2, squares, indices = query
    count, last = 0, squares.shape[1] - 1
    for b in range(rows.shape[0]):
        j, x = rows[b], proposals[b]
        best, who = squares[b], indices[b]
        offset, own = 0.0, 0.0
        if moved:
            own = _weighted_square(states[j], queries[b], beta2)
            offset = np.sqrt(own)
        _offer(best, who, own + _weighted_square(actions[j], x, 1.0), j)
        need = _needed(best[last], offset)
        stopped = False
        for e in range(lists.start[j], lists.start[j] + lists.length[j]):
            entry = np.float64(lists.square[e])
            if entry > need:
                stopped = True
                break
            i = np.int64(lists.index[e])
            near = _weighted_square(actions[i], x, 1.0)
            if (near if moved else entry + near) > best[last]:
                continue
            if moved:
                square = _weighted_square(states[i], queries[b], beta2) + near
            else:
                square = _weighted_square(states[i], states[j], beta2) + near
            _offer(best, who, square, i)
            need = _needed(best[last], offset)
        if not (stopped or need <= lists.reach[j]):
            if best[last] == np.inf:  # fewer than k rows scanned: any k rows give a bound, say those that follow j
                best[:], who[:] = np.inf, states.shape[0]
                for k in range(j, j + last + 1):
                    row = k % states.shape[0]
                    own = _weighted_square(states[row], queries[b] if moved else states[j], beta2)
                    _offer(best, who, own + _weighted_square(actions[row], x, 1.0), row)
            pending[count] = b
            count += 1
    return count


@njit(cache=True, nogil=True, inline="always")
def _restart(best, who, sentinel):
    """Empty a best list but keep its last square, which k rows reach, as a bound."""
    best[:] = best[-1]
    who[:] = sentinel


@njit(cache=True, nogil=True, inline="always")
def _radius2(need, cap2):
    """Square of the radius searched: a tenth beyond the need, for the visits to come, but not beyond any need."""
    return max(need, min(1.21 * need, cap2))


@njit(cache=True, nogil=True)
def resolve(lists, listing, near_tree, joint_tree, query, cap2, pending, drafts, first, step):
    """Answer ``pending[first::step]`` with the trees; hand over ``drafts``.

    ``listing``: whether lists are wanted.  Writes nothing that another slice reads, so slices may run in parallel.
    """
    states, actions, rows, queries, moved, proposals, beta2, squares, indices = query
    found, distances, counts, radii, marks, tallies = drafts
    near_work, joint_work = _workspace(near_tree), _workspace(joint_tree)
    sentinel, last = states.shape[0], squares.shape[1] - 1
    for p in range(first, pending.shape[0], step):
        b = pending[p]
        j, x, best, who = rows[b], proposals[b], squares[b], indices[b]
        offset = np.sqrt(_weighted_square(states[j], queries[b], beta2)) if moved else 0.0
        mark = lists.state[j]
        counts[p], tallies[p, 0], tallies[p, 1] = -1, 0, 0
        need = _needed(best[last], offset)
        if listing and mark == FREE:
            tallies[p, 0] += 1
            radii[p] = _radius2(need, cap2)
            counts[p] = _ball(near_tree, near_work, states, j, beta2, radii[p], found[p], distances[p])
            if counts[p] < 0:
                mark = CROWDED
        if counts[p] >= 0:
            own = 0.0
            if moved:
                own = _weighted_square(states[j], queries[b], beta2)
            _restart(best, who, sentinel)
            _offer(best, who, own + _weighted_square(actions[j], x, 1.0), j)
            for h in range(counts[p]):
                i = np.int64(found[p, h])
                square = distances[p, h]
                if moved:
                    square = _weighted_square(states[i], queries[b], beta2)
                _offer(best, who, square + _weighted_square(actions[i], x, 1.0), i)
        else:
            _restart(best, who, sentinel)
            state = queries[b] if moved else states[j]
            _nearest(joint_tree, joint_work, states, actions, state, x, beta2, best, who)
            tallies[p, 1] += 1
            if listing and mark != DENSE:
                tallies[p, 0] += 1
                # The answer is known; a list that reaches just beyond it certifies visits with similar proposals.
                radii[p] = _radius2(_needed(best[last], offset), cap2)
                counts[p] = _ball(near_tree, near_work, states, j, beta2, radii[p], found[p], distances[p])
                if counts[p] < 0:
                    mark = DENSE
        marks[p] = mark
        if counts[p] > 0:
            _sort(distances[p], found[p], counts[p])


@njit(cache=True, nogil=True)
def prepare(lists, listing, query, cap2, pending, drafts):
    """Before a sweep: its radii, with ``counts`` 0 where a list is to be made and -1 elsewhere."""
    states, _, rows, queries, moved, _, beta2, squares, indices = query
    _, _, counts, radii, marks, tallies = drafts
    for p in range(pending.shape[0]):
        b = pending[p]
        j, best = rows[b], squares[b]
        offset = np.sqrt(_weighted_square(states[j], queries[b], beta2)) if moved else 0.0
        marks[p] = lists.state[j]
        counts[p] = 0 if listing and marks[p] != DENSE else -1
        radii[p] = _radius2(_needed(best[-1], offset), cap2)
        tallies[p, 1] = 1
        _restart(best, indices[b], states.shape[0])


@njit(cache=True, nogil=True)
def sift(query, pending, drafts, products, halves, begin, first, step):
    """One block of a sweep: measure in fp64 what fp32 ``products [P, C]`` of states cannot rule out.

    A row within ``beta^2 ||s_i - s_j||^2 <= r^2`` has ``s_i . s_j >= (||s_i||^2 + ||s_j||^2 - r^2 / beta^2) / 2``.
    The fp32 product errs by at most ``gamma ||s_i|| ||s_j|| <= gamma (||s_i||^2 + ||s_j||^2) / 2`` in any order of
    addition; ``halves`` are the half squares lowered by twice that share.
    """
    states, actions, rows, queries, moved, proposals, beta2, squares, indices = query
    found, distances, counts, radii, marks, _ = drafts
    width, last = products.shape[1], squares.shape[1] - 1
    for p in range(first, pending.shape[0], step):
        b = pending[p]
        j, x, best, who = rows[b], proposals[b], squares[b], indices[b]
        offset = np.sqrt(_weighted_square(states[j], queries[b], beta2)) if moved else 0.0
        for block in range(0, width, _BLOCK):
            limit = max(_needed(best[last], offset), radii[p] if counts[p] >= 0 else 0.0)
            floor = halves[j] - 0.5 * limit * (1.0 + 1e-9) / beta2 - 1e-30
            stop = min(block + _BLOCK, width)
            kept = 0
            for c in range(block, stop):
                kept += not np.float64(products[p, c]) < halves[begin + c] + floor  # true for NaN
            if kept == 0:
                continue
            for c in range(block, stop):
                if np.float64(products[p, c]) < halves[begin + c] + floor:
                    continue
                i = np.int64(begin + c)
                square = _weighted_square(states[i], states[j], beta2)
                if counts[p] >= 0 and i != j and square <= radii[p]:
                    if counts[p] == found.shape[1]:
                        counts[p], marks[p] = -1, DENSE
                    else:
                        found[p, counts[p]] = i
                        distances[p, counts[p]] = square
                        counts[p] += 1
                if moved:
                    square = _weighted_square(states[i], queries[b], beta2)
                _offer(best, who, square + _weighted_square(actions[i], x, 1.0), i)


@njit(cache=True, nogil=True)
def sort_all(found, distances, counts):
    for p in range(counts.shape[0]):
        if counts[p] > 0:
            _sort(distances[p], found[p], counts[p])
