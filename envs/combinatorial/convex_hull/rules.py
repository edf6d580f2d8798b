"""Convex hull: each action points at the next corner of a convex polygon, counter-clockwise.

Pointing at the first corner again closes it.  Feasible is what keeps the polygon convex and able to close.  A reward is
the area a corner adds, over the true hull's: they add up to the share of the hull that is covered, 1 exactly for the
hull itself.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.environment import CombinatorialEnv
from rlkit.envs.combinatorial.geometry import PointSet, convex_hull, polygon_area, turn, turns
from rlkit.envs.combinatorial.vector import RESET, SKIP, CombinatorialVectorEnv
from rlkit.errors import UserError


def hull_target(coords: NDArray[np.float64]) -> NDArray[np.int64]:
    """The hull from its corner of lowest index, counter-clockwise, that corner again at the end."""
    corners = convex_hull(coords)
    return np.append(corners, corners[0])


class ConvexHull(PointSet):
    """Args: num_nodes: n points, at least 3 and at most 5,000."""

    name = "convex-hull"

    def __init__(self, num_nodes: int = 10) -> None:
        super().__init__(num_nodes)

    @property
    def solution_length(self) -> int:
        return self.num_nodes + 1

    def derive(self, instance: Instance) -> dict[str, NDArray[Any]]:
        coords = instance["coords"]
        return {"area": np.array(2.0 * polygon_area(coords, convex_hull(coords)))}  # doubled, as turn() is

    def feasible(self, instance: Instance, state: tuple[int, ...]) -> NDArray[np.int8]:
        coords, n = instance["coords"], self.num_nodes
        if not state:
            return np.ones(n, np.int8)
        if len(state) > 1 and state[0] == state[-1]:
            return np.zeros(n, np.int8)
        first = coords[state[0]]
        if len(state) == 1:  # something must lie to the left of the first edge
            free = np.array([(turns(first, coords[j], coords) > 0).any() for j in range(n)])
        else:
            last, before, second = (coords[state[k]] for k in (-1, -2, 1))
            free = (turns(before, last, coords) > 0) & (turns(last, coords, first) > 0)
            if len(state) > 2:
                free &= turns(coords, first, second) > 0
        mask = free.astype(np.int8)
        mask[list(state)] = 0
        mask[state[0]] = len(state) > 2
        return mask

    def step(
        self, instance: Instance, state: tuple[int, ...], action: int
    ) -> tuple[tuple[int, ...], float, tuple[int, ...]]:
        reward = 0.0
        if len(state) > 1 and action != state[0]:
            reward = turn(instance["coords"], state[0], state[-1], action) / float(instance["area"])
        return (*state, action), reward, (action,)

    def objectives(self, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Covered share of the hull's area ``[B]``; the polygons must be convex, counter-clockwise and closed."""
        found = np.zeros(len(solutions))
        for b, (coords, solution) in enumerate(zip(instances["coords"], solutions, strict=True)):
            corners = solution[solution >= 0]
            state: tuple[int, ...] = ()
            for j in corners.tolist():
                if j >= self.num_nodes or not self.feasible({"coords": coords}, state)[j]:
                    raise UserError(f"solution {b} of convex-hull is infeasible: point {j} makes it no convex polygon")
                state = (*state, j)
            if len(corners) < 4 or corners[0] != corners[-1]:
                raise UserError(
                    f"solution {b} of convex-hull is infeasible: expected a polygon closed at its first corner"
                )
            found[b] = polygon_area(coords, corners[:-1]) / polygon_area(coords, convex_hull(coords))
        return found

    def target(self, instance: Instance) -> NDArray[np.int64]:
        return self.padded(hull_target(instance["coords"]))


# ---- kernel ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _turn(coords, b, i, j, k):
    x, y = coords[b, i, 0], coords[b, i, 1]
    return (coords[b, j, 0] - x) * (coords[b, k, 1] - y) - (coords[b, j, 1] - y) * (coords[b, k, 0] - x)


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _advance(actions, job, coords, area, remaining, mask, sequence, length, total, rewards, ended):
    n = remaining.shape[1]
    for b in prange(len(job)):
        if job[b] == SKIP:
            continue
        if job[b] == RESET:
            remaining[b, :] = 1
            mask[b, :] = 1
            sequence[b, :] = -1
            length[b], total[b], rewards[b], ended[b] = 0, 0.0, 0.0, False
            continue
        j, t = actions[b], length[b]
        first = sequence[b, 0] if t > 0 else j
        last = sequence[b, t - 1] if t > 0 else j
        rewards[b] = 0.0
        if t > 1 and j != first:
            rewards[b] = _turn(coords, b, first, last, j) / area[b]
            total[b] += rewards[b]
        sequence[b, t] = j
        remaining[b, j] = 0
        length[b] = t + 1
        ended[b] = t > 1 and j == first
        mask[b, :] = 0
        if ended[b]:
            continue
        for k in range(n):
            if remaining[b, k] == 0:
                mask[b, k] = k == first and t > 1
            elif t == 0:
                for m in range(n):
                    if m != k and m != j and _turn(coords, b, j, k, m) > 0:
                        mask[b, k] = 1
                        break
            else:
                left = _turn(coords, b, last, j, k) > 0 and _turn(coords, b, j, k, first) > 0
                mask[b, k] = left and (t == 1 or _turn(coords, b, k, first, sequence[b, 1]) > 0)


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


class ConvexHullEnv(CombinatorialEnv):
    """One instance at a time.  Observation: ``coords`` float32 ``[n, 2]``, ``sequence`` int64 ``[n + 1]``, the pointers
    so far, ``action_mask``; action: the next corner, or the first one again; reward: area added over the hull's."""

    kind = ConvexHull


class ConvexHullVectorEnv(CombinatorialVectorEnv):
    """A batch of :class:`ConvexHullEnv`; rows end at different times."""

    single = ConvexHullEnv

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> None:
        where = self.instances["coords"], self.derived["area"]
        state = self.remaining, self.mask, self.sequence, self.length
        _advance(actions, job, *where, *state, self.total, self._rewards, self._ended)
