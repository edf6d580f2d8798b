"""Improvement and iterated local search of tours, by the kernels of ``rlkit.envs.combinatorial.tour_moves``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.costs import MATRIX, NEIGHBOURS, Array, Costs, cost_between
from rlkit.envs.combinatorial.solvers import MOST_EXACT, held_karp
from rlkit.envs.combinatorial.tour_moves import (
    LEAST_GAIN,
    LEAST_NODES,
    improve_tour,
    improve_tours,
    insert_cities,
    iterate,
    start,
)

MOST_INSERTED = 2_000  # cities; insertion takes their square
HEAT = 0.7  # of the annealing at first, in mean ways to the nearest city; more: wider, and later good
ROUNDS = 40  # for each city, of a cycle
PATIENCE = 4  # cycles without a better tour,
PATIENCE_ONE_WAY = 40  # and where ways differ by direction: the one move there is leaves more local optima


def improve(instances: Instance, costs: Costs, solutions: NDArray[np.int64]) -> NDArray[np.int64]:
    """``solutions [B, n]`` of a batch to local optima; ``costs`` has one row for each."""
    found = np.ascontiguousarray(solutions, np.int64).copy()
    if found.shape[1] >= LEAST_NODES:
        improve_tours(costs.array, costs.norm, costs.rounding, costs.symmetric, found)
    return found


def insert(instance: Instance, costs: Costs, seed: int) -> NDArray[np.int64]:
    """Random insertion, from city 0."""
    return np.asarray(insert_cities(costs, np.random.Generator(np.random.PCG64(seed)).permutation(costs.nodes)))


def objective(instance: Instance, costs: Costs, solution: NDArray[np.int64]) -> float:
    """Length of the closed tour ``solution [n]``."""
    return costs.along(np.append(solution, solution[0]))


class Search:
    """Iterated local search, annealed in cycles: the first from a random insertion (above :data:`MOST_INSERTED` cities
    from a space-filling curve), then by turns from the best tour and from a new one.  Up to 12 cities it is exact.

    After :data:`PATIENCE` or :data:`PATIENCE_ONE_WAY` cycles without a better tour it is finished: small instances end
    long before their time.
    """

    def __init__(self, instance: Instance, costs: Costs, seed: int) -> None:
        self.costs, self.seed, n = costs, seed, costs.nodes
        self.finished = n <= MOST_EXACT
        if self.finished:
            matrix = np.array([[cost_between(*costs, i, j) for j in range(n)] for i in range(n)])
            np.fill_diagonal(matrix, 0.0)
            order = held_karp(matrix) if n > 2 else np.arange(n)
        else:
            inserted = n <= MOST_INSERTED or costs.norm == MATRIX
            order = insert({}, costs, seed) if inserted else curve(costs.array)
        self.near = costs.neighbours(NEIGHBOURS if n > MOST_EXACT else 0)
        self.away = costs.to(self.near)
        self.least = LEAST_GAIN * float(self.away.max(initial=0.0))
        self.heat = HEAT * float(self.away[:, :1].mean()) if self.away.size else 0.0
        self.symmetric, self.cycles, self.idle = costs.symmetric, 0, 0
        self.best, self.lengths = order.astype(np.int32), np.full(2, objective({}, costs, order))
        self._begin(order)

    @property
    def solution(self) -> NDArray[np.int64]:
        """int64 ``[n]`` from city 0."""
        return np.roll(self.best, -int(np.argmin(self.best))).astype(np.int64)

    @property
    def objective(self) -> float:
        """The length of :attr:`solution`."""
        return float(self.lengths[1])

    def _begin(self, order: NDArray[Any]) -> None:
        own = np.random.SeedSequence([self.seed, self.cycles]).generate_state(1, np.uint64)[0]
        self.tour = start(order, self.near, self.away, own, self.symmetric)
        self.rounds, self.before, self.settled = 0, self.objective, False

    def advance(self, share: float, count: int) -> None:
        """The local search first, then ``count`` double bridges, cooler with every round and as time goes by."""
        costs, tour, lengths = self.costs, self.tour, self.lengths
        if not self.settled:
            lengths[0] -= improve_tour(costs, tour, self.least)
            self.settled = True
            if lengths[0] < lengths[1]:
                lengths[1], self.best[:] = lengths[0], tour.order
            return
        cycle = ROUNDS * costs.nodes
        heat = self.heat * (1.0 - max(share, self.rounds / cycle))
        iterate(costs, tour, self.least, min(count, cycle - self.rounds), heat, self.best, lengths)
        self.rounds += min(count, cycle - self.rounds)
        if self.rounds == cycle:
            self.cycles += 1
            self.idle = 0 if self.objective < self.before - self.least else self.idle + 1
            self.finished = self.idle >= (PATIENCE if self.symmetric else PATIENCE_ONE_WAY)
            fresh = self.cycles % 2 == 1 and costs.nodes <= MOST_INSERTED
            order = insert({}, costs, self.seed + self.cycles) if fresh else self.best
            lengths[0] = objective({}, costs, order.astype(np.int64)) if fresh else lengths[1]
            self._begin(order)


def curve(points: Array) -> NDArray[np.int64]:
    """The order of ``points [n, d]`` along Hilbert's curve through the first two axes (Hilbert 1891)."""
    low, extent = points[:, :2].min(axis=0), np.ptp(points[:, :2], axis=0).max() or 1.0
    x, y = (np.clip((points[:, :2] - low) / extent, 0.0, 1.0) * (2**16 - 1)).astype(np.int64).T
    along = np.zeros(len(points), np.int64)
    side = 2**15
    while side:
        right, up = (x & side) > 0, (y & side) > 0
        along += side * side * ((3 * right) ^ up)
        turned = ~up
        mirrored = turned & right
        x, y = np.where(mirrored, 2**16 - 1 - x, x), np.where(mirrored, 2**16 - 1 - y, y)
        x, y = np.where(turned, y, x), np.where(turned, x, y)
        side //= 2
    return np.argsort(along, kind="stable")
