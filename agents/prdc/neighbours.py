"""Exact nearest neighbours for PRDC (Ran et al., "Policy Regularization with Dataset Constraint", ICML 2023).

PRDC pulls the policy's action ``x`` for dataset row ``j`` towards the action of the row nearest to ``(beta s_j, x)``:

    i* = argmin_i  D_i^2,      D_i^2 = beta^2 ||s_i - s_j||^2 + ||a_i - x||^2

**Row certificates.**  The query's state is a dataset row, and the policy visits that row again and again.  Row ``j``
keeps a radius ``rho_j`` and the list of all rows ``i`` with ``beta^2 ||s_i - s_j||^2 <= rho_j^2``, ascending, each with
that square rounded *down* to fp32.  A visit starts from ``U = ||x - a_j||``, scans the list until an entry exceeds
``U^2``, lowering ``U`` on the way, and is answered when it stopped early or ``U <= rho_j``.  Only otherwise a tree is
searched: around the state, to renew the list, or in the joint space.

**Exactness.**  ``D_i^2 >= beta^2 ||s_i - s_j||^2``.  A listed row that was not scanned has this ``>=`` its entry ``>
U^2``; a row not listed has it ``> rho_j^2 >= U^2``.  Neither can beat ``U``, nor tie with it.  This holds for the
floating-point values and not only for the real ones: all are computed by one routine
(:func:`~rlkit.agents.prdc.kdtree._weighted_square`), and fp64 rounding is monotone, so ``fl(b + a) >= b`` for ``a >=
0``.

**Purity.**  The answer is the smallest ``(D^2, i)`` in lexicographic order, ``D^2`` being that routine's fp64 value.
It depends on the data and the query alone: not on what has been visited, list limits, the memory budget, or threads.
A run resumed with empty lists therefore continues exactly.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numba import njit

from rlkit.agents.prdc.kdtree import DENSE, LEAF, Drafts, Lists, Query, Tree, prepare, resolve, scan, sift, sort_all
from rlkit.errors import DataError, UserError

WIDE = 60  # states with more columns: a tree no longer prunes, matrix products are faster
_CHUNK = 8192  # rows per matrix product
_PENDING = 256  # queries that search trees at once; bounds the scratch space
_TOP, _LIVE, _FULL = range(3)  # the arena's book: entries up to its top, entries in use, whether a list had no room


@njit(cache=True, nogil=True)
def _select(keys, order, begin, end, rank):
    """Partition ``keys[begin:end]`` (and ``order`` with it) so that position ``rank`` holds its sorted value."""
    low, high = begin, end - 1
    dice = np.uint64(88172645463325252)
    while low < high:
        span = np.uint64(high - low + 1)
        dice ^= dice << np.uint64(13)  # xorshift: no fixed arrangement of the data makes this quadratic
        dice ^= dice >> np.uint64(7)
        dice ^= dice << np.uint64(17)
        a = keys[low + np.int64(dice % span)]
        b = keys[low + np.int64((dice >> np.uint64(20)) % span)]
        c = keys[low + np.int64((dice >> np.uint64(40)) % span)]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            return


@njit(cache=True, nogil=True)
def _build(points, weights, size, lanes):
    n, width = points.shape
    leaves = (n + size - 1) // size
    nodes = 2 * leaves - 1
    padded = (width + lanes - 1) // lanes * lanes
    order = np.full(leaves * size, -1, np.int32)
    for i in range(n):
        order[i] = i
    keys = np.empty(n, np.float32)
    blocks = np.full((leaves, width, size), np.float32(np.inf))
    boxes = np.zeros((nodes, 2, padded), np.float32)
    right = np.zeros(nodes, np.int32)
    leaf = np.full(nodes, -1, np.int32)
    least = np.empty(nodes, np.int32)
    stack = np.empty((128, 3), np.int64)  # 2 entries a level, 31 levels at most
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, 0, leaves
    top = 1
    while top > 0:
        top -= 1
        node, first, last = stack[top, 0], stack[top, 1], stack[top, 2]
        begin, end = first * size, min(last * size, n)
        low, high = boxes[node, 0], boxes[node, 1]
        for k in range(width):
            low[k] = np.float32(np.inf)
            high[k] = np.float32(-np.inf)
        smallest = order[begin]
        for p in range(begin, end):
            row = order[p]
            smallest = min(smallest, row)
            for k in range(width):
                v = points[row, k]
                low[k] = min(low[k], v)
                high[k] = max(high[k], v)
        least[node] = smallest
        if last - first == 1:
            leaf[node] = first
            for p in range(begin, end):
                for k in range(width):
                    blocks[first, k, p - begin] = points[order[p], k]
            continue
        widest, side = 0, -1.0
        for k in range(width):
            t = np.float64(high[k]) - np.float64(low[k])
            if weights[k] * t * t > side:
                widest, side = k, weights[k] * t * t
        for p in range(begin, end):
            keys[p] = points[order[p], widest]
        middle = first + (last - first + 1) // 2  # whole leaves on the left
        _select(keys, order, begin, end, middle * size)
        right[node] = node + 2 * (middle - first)
        stack[top, 0], stack[top, 1], stack[top, 2] = right[node], middle, last
        stack[top + 1, 0], stack[top + 1, 1], stack[top + 1, 2] = node + 1, first, middle
        top += 2
    return blocks, order, boxes, right, leaf, least


def _build_tree(points: np.ndarray, weights: np.ndarray) -> Tree:
    """A tree over float32 ``points [N, D]`` whose squared differences are weighted by float64 ``weights [D]``."""
    # 8: box columns are padded to whole vectors.  Passed, as numba's cache would miss edits of another file's constants
    built = _build(np.ascontiguousarray(points, np.float32), weights, LEAF, 8)
    return Tree(*built, weights)  # type: ignore[call-arg]  # numba hides how many arrays come back


@njit(cache=True, nogil=True)
def _compact(lists, book):
    """Slide the lists in use to the arena's front; each block is a header and its list, in arena order."""
    source, target = 0, 0
    while source < book[_TOP]:
        row, size = lists.index[source], int(lists.square[source]) + 1
        if lists.start[row] == source + 1:
            for e in range(size):
                lists.index[target + e] = lists.index[source + e]
                lists.square[target + e] = lists.square[source + e]
            lists.start[row] = target + 1
            target += size
        source += size
    book[_TOP] = target


@njit(cache=True, nogil=True)
def _commit(lists, book, rows, pending, drafts):
    """Store new lists and marks; without room for a list, no more are made."""
    found, distances, counts, radii, marks, _ = drafts
    capacity = lists.index.shape[0]
    for p in range(pending.shape[0]):
        j = rows[pending[p]]
        lists.state[j] = max(lists.state[j], marks[p])
        count = counts[p]
        if count < 0 or radii[p] <= lists.reach[j]:  # the same row may come twice in a batch
            continue
        if count > lists.length[j]:  # a wider ball contains the narrower: the same number is the same list
            if book[_TOP] + count + 1 > capacity and book[_LIVE] < capacity - capacity // 8:
                _compact(lists, book)
            top = book[_TOP]
            if top + count + 1 > capacity:
                book[_FULL] = 1
                continue
            if lists.length[j] > 0:
                book[_LIVE] -= lists.length[j] + 1
            book[_LIVE] += count + 1
            book[_TOP] = top + count + 1
            lists.index[top] = j
            lists.square[top] = count
            lists.start[j] = top + 1
            lists.length[j] = count
            for h in range(count):
                lists.index[top + 1 + h] = found[p, h]
                v = np.float32(distances[p, h])
                if np.float64(v) > distances[p, h]:
                    v = np.nextafter(v, np.float32(0.0))
                lists.square[top + 1 + h] = v
        lists.reach[j] = radii[p]


def _matrix(name: str, values: np.ndarray, columns: int | None = None, rows: int | None = None) -> np.ndarray:
    """``values`` as a contiguous, finite float32 matrix; a :class:`DataError` says what is wrong otherwise."""
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.shape[1] == 0 or columns not in (None, matrix.shape[1]):
        raise DataError(f"{name} must be [rows, {columns or 'columns'}], got shape {list(matrix.shape)}")
    if rows not in (None, matrix.shape[0]):
        raise DataError(f"{name} must have {rows} rows, got {matrix.shape[0]}")
    if matrix.dtype.kind not in "fiu":
        raise DataError(f"{name} must be numbers, got {matrix.dtype}")
    with np.errstate(over="ignore"):  # what overflows fp32 is reported below
        matrix = np.ascontiguousarray(matrix, np.float32)
    if not np.isfinite(matrix).all():
        raise DataError(f"{name} must be finite, row {int(np.argmin(np.isfinite(matrix).all(axis=1)))} is not")
    return matrix


class RowCertificateSearch:
    """Exact nearest rows to ``(beta s_j, x)`` among ``N`` rows ``(beta s_i, a_i)``, fast on rows seen before.

    states: float32 ``[N, ds]``, normalised; actions: float32 ``[N, da]``.  Both are kept, not copied, where contiguous.
    beta: weight of the state distance, 0 or within [1e-12, 1e12].  Larger values tie the answer to the row's own state.
    max_list: rows listed per certificate.  Larger values certify more visits in dense data, for more memory.
    arena_bytes: memory for all lists.  When it is used up no list is added, and rows without one search a tree.
    threads: workers for searches that no list answers; -1 takes all cores.  Never changes an answer.

    Memory beside the lists: about ``4.5 N (2 ds + da) + 30 N`` bytes, most of it trees; above 60 state columns there
    are none, and searches are matrix products.
    Raises :class:`DataError` for arrays of wrong shape or with values that are not finite, :class:`UserError` for
    settings out of range.  One instance serves one caller at a time.
    """

    def __init__(
        self,
        states: np.ndarray,
        actions: np.ndarray,
        *,
        beta: float,
        max_list: int = 1024,
        arena_bytes: int = 2 << 30,
        threads: int = 1,
    ) -> None:
        self.states = _matrix("states", states)
        n = len(self.states)
        self.actions = _matrix("actions", actions, rows=n)
        if not 0 < n < 2**31 - 1:
            raise DataError(f"the search needs between 1 and 2^31 - 2 rows, got {n}")
        if not (beta == 0 or 1e-12 <= beta <= 1e12):  # squares stay normal numbers, in fp32 too
            raise UserError(f"beta must be 0 or within [1e-12, 1e12], got {beta}")
        if not 1 <= max_list <= 1 << 24:  # a list's length is kept in an fp32
            raise UserError(f"max_list must be within [1, {1 << 24}], got {max_list}")
        if arena_bytes < 0:
            raise UserError(f"arena_bytes must not be negative, got {arena_bytes}")
        if threads < 1 and threads != -1:
            raise UserError(f"threads must be positive, or -1 for all cores, got {threads}")
        self.beta2 = float(beta) ** 2
        self.max_list = min(int(max_list), n)
        self.threads = (os.cpu_count() or 1) if threads == -1 else int(threads)
        self._pool: ThreadPoolExecutor | None = None
        self._cap2 = 4.0 * self.actions.shape[1] * float(np.abs(self.actions).max()) ** 2  # farthest two actions can be
        self._wide = beta > 0 and self.states.shape[1] > WIDE
        capacity = max(1, min(int(arena_bytes) // 8, n * (self.max_list + 1)))
        self._lists = Lists(
            start=np.zeros(n, np.int64),
            length=np.zeros(n, np.int32),
            reach=np.full(n, -1.0),
            state=np.zeros(n, np.uint8),
            index=np.empty(capacity, np.int32),  # pages are committed by the first write, not here
            square=np.empty(capacity, np.float32),
        )
        self._book = np.zeros(3, np.int64)
        self._counters = {"visits": 0, "certified": 0, "ball_searches": 0, "joint_searches": 0}
        if self._wide:
            norms = np.einsum("nd,nd->n", self.states, self.states, dtype=np.float64)
            share = (self.states.shape[1] + 4) * 2.0**-23
            # Where fp32 products may overflow nothing is ruled out.
            self._halves = 0.5 * (1.0 - share) * norms if norms.max() < 1e37 else np.full(n, -np.inf)
        else:
            self._near, self._joint = self._trees(beta > 0)

    def _trees(self, lists: bool) -> tuple[Tree, Tree]:
        """The tree over scaled states and the one over scaled states and actions (beta = 0: both over actions)."""
        ones = np.ones(self.actions.shape[1])
        if not lists:
            joint = _build_tree(self.actions, ones)
            return joint, joint
        weights = np.full(self.states.shape[1], self.beta2)
        joint = _build_tree(np.concatenate([self.states, self.actions], axis=1), np.concatenate([weights, ones]))
        return _build_tree(self.states, weights), joint

    @property
    def _listing(self) -> bool:
        """Whether new lists are wanted: with beta 0 each would hold every row, and a full arena takes no more."""
        return self.beta2 > 0 and not self._book[_FULL]

    @property
    def stats(self) -> dict[str, int]:
        """Counters: queries, those the lists answered, tree searches of each kind, rows too dense to list, list bytes.

        A sweep over wide states counts as a joint search.
        """
        dense = int(np.count_nonzero(self._lists.state == DENSE))
        return self._counters | {"dense_rows": dense, "arena_bytes": 8 * int(self._book[_TOP])}

    def query(
        self, rows: np.ndarray, actions: np.ndarray, states: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest row to each ``(beta s_rows, actions)``.

        rows: integers ``[B]``; actions: float32 ``[B, da]``; states: float32 ``[B, ds]``, query states that differ from
        ``states[rows]`` (say, perturbed ones), best close to them.  Returns row numbers, int64 ``[B]``, and distances
        ``sqrt(beta^2 ||s_i - s||^2 + ||a_i - x||^2)``, float64 ``[B]``.  Among equal distances the smallest row number
        is returned; the row's own transition is a legal answer.
        """
        index, distance = self._search(rows, actions, states, 1)
        return index[:, 0], distance[:, 0]

    def query_k(self, rows: np.ndarray, actions: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`query`, for the ``k`` nearest rows in ascending order: int64 ``[B, k]``, float64 ``[B, k]``."""
        if not 1 <= k <= len(self.states):
            raise UserError(f"k must be within [1, {len(self.states)}], got {k}")
        return self._search(rows, actions, None, int(k))

    def _search(
        self, rows: np.ndarray, actions: np.ndarray, states: np.ndarray | None, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        n = len(self.states)
        rows = np.asarray(rows)
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise DataError(f"rows must be integers [B], got {rows.dtype} of shape {list(rows.shape)}")
        if len(rows) and not (rows.min() >= 0 and rows.max() < n):
            raise DataError(f"rows must be within [0, {n}), got {rows.min()} to {rows.max()}")
        rows = np.ascontiguousarray(rows, np.int64)
        proposals = _matrix("actions", actions, self.actions.shape[1], len(rows))
        moved = states is not None
        queries = self.states if states is None else _matrix("states", states, self.states.shape[1], len(rows))
        squares, indices = np.full((len(rows), k), np.inf), np.full((len(rows), k), n, np.int64)
        pending = np.empty(len(rows), np.int64)
        query = Query(self.states, self.actions, rows, queries, moved, proposals, self.beta2, squares, indices)
        count = scan(self._lists, query, pending)
        self._counters["visits"] += len(rows)
        self._counters["certified"] += len(rows) - count
        for start in range(0, count, _PENDING):
            some = pending[start : min(start + _PENDING, count)]
            drafts = Drafts(
                np.empty((len(some), self.max_list), np.int32),
                np.empty((len(some), self.max_list)),
                np.empty(len(some), np.int64),
                np.empty(len(some)),
                np.empty(len(some), np.uint8),
                np.zeros((len(some), 2), np.int64),
            )
            if self._wide:
                self._sweep(query, some, drafts)
            else:
                trees = (self._lists, self._listing, self._near, self._joint)
                self._spread(len(some), partial(resolve, *trees, query, self._cap2, some, drafts))
            _commit(self._lists, self._book, rows, some, drafts)
            self._counters["ball_searches"] += int(drafts.tallies[:, 0].sum())
            self._counters["joint_searches"] += int(drafts.tallies[:, 1].sum())
        return indices, np.sqrt(squares)

    def _spread(self, count: int, work: Callable[[int, int], None]) -> None:
        """Call ``work(first, step)`` for interleaved slices of ``count`` items, on threads where that was asked for."""
        step = min(self.threads, count)
        if step <= 1:
            return work(0, 1)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="neighbours")
        list(self._pool.map(lambda first: work(first, step), range(step)))  # list: raises what a worker raised
        return None

    def _sweep(self, query: Query, pending: np.ndarray, drafts: Drafts) -> None:
        """Answer ``pending`` and renew its lists in one pass over all rows, by fp32 products and fp64 rescoring."""
        states, rows = query.states, query.rows
        prepare(self._lists, self._listing, query, self._cap2, pending, drafts)
        centres = states[rows[pending]]
        buffer = np.empty((len(pending), _CHUNK), np.float32)
        for begin in range(0, len(states), _CHUNK):
            chunk = states[begin : begin + _CHUNK]
            products = buffer if len(chunk) == _CHUNK else np.empty((len(pending), len(chunk)), np.float32)
            with np.errstate(over="ignore", invalid="ignore"):  # such rows are measured in fp64
                np.matmul(centres, chunk.T, out=products)
            self._spread(len(pending), partial(sift, query, pending, drafts, products, self._halves, begin))
        sort_all(drafts.found, drafts.distances, drafts.counts)
