"""Pointing problems of computational geometry (Vinyals et al. 2015): convex hull and Delaunay triangulation.

Convex hull: each action points at the next corner of a convex polygon, counter-clockwise; pointing at the first corner
again closes it.  Feasible is what keeps the polygon convex and able to close.  A reward is the area a corner adds, over
the true hull's: they add up to the share of the hull that is covered, 1 exactly for the hull itself.

Delaunay: three actions name a triangle, in any order; after as many triangles as the triangulation has, the episode
ends.  The reward of a triangle's last corner is 1/T if it is one of the T true triangles and was not named before: they
add up to the triangle coverage.

A solution is the sequence of pointers, int64, padded with -1.  The targets that a pointer network learns from are
:func:`hull_target` and :func:`delaunay_target`.  Points are in general position: instances with points on one line, or
four neighbours on one circle, are refused, since their answer is not unique.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from gymnasium import spaces
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import CombinatorialEnv, Problem
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.vector import RESET, SKIP, CombinatorialVectorEnv
from rlkit.errors import UserError

MOST_POINTS = 5_000  # of an instance, whose rules look at pairs of points
DEGENERATE = 1e-12  # relative to the unit square's area, and to its square for circles

# ---- geometry --------------------------------------------------------------------------------------------------------


def turn(coords: NDArray[np.float64], i: int, j: int, k: int) -> float:
    """Twice the signed area of the triangle: above 0 where i, j, k turn left."""
    (x, y), (u, v), (s, t) = (coords[m].tolist() for m in (i, j, k))
    return (u - x) * (t - y) - (v - y) * (s - x)


def turns(first: NDArray[np.float64], second: NDArray[np.float64], third: NDArray[np.float64]) -> NDArray[np.float64]:
    """:func:`turn` of triangles of points ``[n, 2]``, or ``[2]`` for the same one in all; rounded as it rounds."""
    (x, y), (u, v), (s, t) = first.T, second.T, third.T
    found: NDArray[np.float64] = (u - x) * (t - y) - (v - y) * (s - x)
    return found


def convex_hull(coords: NDArray[np.float64]) -> NDArray[np.int64]:
    """Corners of the hull of ``coords [n, 2]``, counter-clockwise from the lowest index (Andrew's monotone chain).

    Points in the middle of an edge are no corners.
    """
    order = np.lexsort((coords[:, 1], coords[:, 0])).tolist()
    corners: list[int] = []
    for half in (order, order[::-1]):
        chain: list[int] = []
        for k in half:
            while len(chain) > 1 and turn(coords, chain[-2], chain[-1], k) <= 0.0:
                chain.pop()
            chain.append(k)
        corners += chain[:-1]
    first = int(np.argmin(corners))
    return np.array(corners[first:] + corners[:first], np.int64)


def polygon_area(coords: NDArray[np.float64], corners: NDArray[np.int64]) -> float:
    """Signed area of the polygon through ``coords[corners]``, above 0 counter-clockwise; the shoelace formula."""
    x, y = coords[corners].T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def triangulation(coords: NDArray[np.float64]) -> NDArray[np.int64]:
    """Delaunay triangles ``[T, 3]``: increasing indices each, in lexicographic order (Qhull, through SciPy).

    Raises UserError where rounding leaves Qhull no triangulation.
    """
    from scipy.spatial import Delaunay as Qhull
    from scipy.spatial import QhullError

    try:
        found = Qhull(coords).simplices
    except QhullError:
        raise UserError("'coords' are too close to one line to be triangulated, expected a general position") from None
    triangles: NDArray[np.int64] = np.sort(found.astype(np.int64), axis=1)
    return triangles[np.lexsort(triangles.T[::-1])]


def incentres(coords: NDArray[np.float64], triangles: NDArray[np.int64]) -> NDArray[np.float64]:
    """Centres ``[T, 2]`` of the inscribed circles: corners weighted by the length of the opposite side."""
    corners = coords[triangles]  # [T, 3, 2]
    sides = np.linalg.norm(corners[:, [1, 2, 0]] - corners[:, [2, 0, 1]], axis=-1)  # [T, 3]
    centres: NDArray[np.float64] = (sides[..., None] * corners).sum(axis=1) / sides.sum(axis=1, keepdims=True)
    return centres


def hull_target(coords: NDArray[np.float64]) -> NDArray[np.int64]:
    """The hull from its corner of lowest index, counter-clockwise, that corner again at the end."""
    corners = convex_hull(coords)
    return np.append(corners, corners[0])


def delaunay_target(coords: NDArray[np.float64]) -> NDArray[np.int64]:
    """Triangles ``[T, 3]``, increasing indices each, ordered lexicographically by their incentres."""
    triangles = triangulation(coords)
    x, y = incentres(coords, triangles).T
    return triangles[np.lexsort((y, x))]


def _require_general_position(coords: NDArray[np.float64], where: str) -> None:
    order = np.lexsort(coords.T[::-1])
    same = np.flatnonzero((coords[order[1:]] == coords[order[:-1]]).all(axis=1))
    if len(same):  # which of the two to point at would be open
        first, second = sorted(int(i) for i in order[same[0] : same[0] + 2])
        place = ", ".join(f"{x:g}" for x in coords[first])
        raise UserError(f"{where}: 'coords' {first} and {second} are both ({place}), expected distinct points")
    size = max(float(np.ptp(coords, axis=0).max()), np.finfo(np.float64).tiny)
    unit = (coords - coords.min(axis=0)) / size
    corners = convex_hull(unit)
    if len(corners) < 3 or polygon_area(unit, corners) < DEGENERATE:
        raise UserError(f"{where}: 'coords' lie on one line, expected points in general position")
    for a, b in zip(corners.tolist(), np.roll(corners, -1).tolist(), strict=True):
        beside = np.abs(turns(unit[a], unit[b], unit)) < DEGENERATE
        beside[[a, b]] = False
        if beside.any():
            raise UserError(
                f"{where}: 'coords' {a}, {b} and {int(np.argmax(beside))} lie on one line of the hull, expected a "
                "general position"
            )


def _require_unique_triangles(coords: NDArray[np.float64], where: str) -> None:
    """Two triangles with a common edge must not lie on one circle."""
    unit = (coords - coords.min(axis=0)) / np.ptp(coords, axis=0).max()
    opposite: dict[tuple[int, int], tuple[int, tuple[int, int, int]]] = {}
    for a, b, c in triangulation(unit).tolist():
        for edge, apex in (((a, b), c), ((a, c), b), ((b, c), a)):
            if edge in opposite:
                _, (i, j, k) = opposite[edge]
                rows = unit[[i, j, k]] - unit[apex]
                if abs(np.linalg.det(np.column_stack((rows, (rows**2).sum(axis=1))))) < DEGENERATE:
                    raise UserError(
                        f"{where}: 'coords' {i}, {j}, {k} and {apex} lie on one circle, which leaves the triangulation "
                        "open; expected a general position"
                    )
            opposite[edge] = (apex, (a, b, c))


# ---- problems --------------------------------------------------------------------------------------------------------


class _PointSet(Problem):
    """``coords`` float64 ``[n, 2]``, uniform on the unit square; a state is the tuple of pointers so far."""

    shows_sequence, optimum, most = True, 1.0, MOST_POINTS

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        return {"coords": ((self.num_nodes, 2), np.float64)}

    def draw(self, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {"coords": generator.random((self.num_nodes, 2))}

    def check_sound(self, instance: dict[str, NDArray[Any]], where: str) -> None:
        super().check_sound(instance, where)
        _require_general_position(instance["coords"], where)

    def initial(self, instance: Instance) -> tuple[int, ...]:
        return ()

    def dynamic_spaces(self) -> dict[str, spaces.Space[Any]]:
        return {}

    def dynamic(self, instance: Instance, state: tuple[int, ...]) -> dict[str, Any]:
        return {}


class ConvexHull(_PointSet):
    """Args: num_nodes: n points, at least 3 and at most 5,000."""

    name, maximise = "convex-hull", True

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


class Delaunay(_PointSet):
    """Args: num_nodes: n points, at least 3 and at most 5,000."""

    name, maximise = "delaunay", True

    def __init__(self, num_nodes: int = 10) -> None:
        super().__init__(num_nodes)

    @property
    def solution_length(self) -> int:
        return 3 * max(2 * self.num_nodes - 5, 1)

    def check_sound(self, instance: dict[str, NDArray[Any]], where: str) -> None:
        super().check_sound(instance, where)
        _require_unique_triangles(instance["coords"], where)

    def derive(self, instance: Instance) -> dict[str, NDArray[Any]]:
        triangles = triangulation(instance["coords"])
        padded = np.full((self.solution_length // 3, 3), -1, np.int64)
        padded[: len(triangles)] = triangles
        return {"triangles": padded, "count": np.array(len(triangles), np.int64)}

    def feasible(self, instance: Instance, state: tuple[int, ...]) -> NDArray[np.int8]:
        mask = np.ones(self.num_nodes, np.int8)
        if len(state) == 3 * int(instance["count"]):
            mask[:] = 0
        mask[list(state[len(state) - len(state) % 3 :])] = 0
        return mask

    def step(
        self, instance: Instance, state: tuple[int, ...], action: int
    ) -> tuple[tuple[int, ...], float, tuple[int, ...]]:
        following, reward = (*state, action), 0.0
        if len(following) % 3 == 0:
            named = [tuple(sorted(following[k : k + 3])) for k in range(0, len(following), 3)]
            true = {tuple(triangle) for triangle in instance["triangles"].tolist()}
            if named[-1] in true and named[-1] not in named[:-1]:
                reward = 1.0 / int(instance["count"])
        return following, reward, (action,)

    def objectives(self, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Triangle coverage ``[B]``."""
        found = np.zeros(len(solutions))
        for b, (coords, solution) in enumerate(zip(instances["coords"], solutions, strict=True)):
            pointers = solution[solution >= 0]
            true = {tuple(triangle) for triangle in triangulation(coords).tolist()}
            if len(pointers) != 3 * len(true) or pointers.max(initial=0) >= self.num_nodes:
                raise UserError(
                    f"solution {b} of delaunay is infeasible: expected 3 pointers for each of {len(true)} triangles"
                )
            named = np.sort(pointers.reshape(-1, 3), axis=1)
            if (np.diff(named, axis=1) == 0).any():
                raise UserError(f"solution {b} of delaunay is infeasible: a triangle names a point twice")
            found[b] = len(true & {tuple(triangle) for triangle in named.tolist()}) / len(true)
        return found


# ---- kernels ---------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _turn(coords, b, i, j, k):
    x, y = coords[b, i, 0], coords[b, i, 1]
    return (coords[b, j, 0] - x) * (coords[b, k, 1] - y) - (coords[b, j, 1] - y) * (coords[b, k, 0] - x)


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _advance_hull(actions, job, coords, area, remaining, mask, sequence, length, total, rewards, ended):
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


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _advance_delaunay(actions, job, triangles, count, named, mask, sequence, length, total, rewards, ended):
    for b in prange(len(job)):
        if job[b] == SKIP:
            continue
        if job[b] == RESET:
            mask[b, :] = 1
            named[b, :] = 0
            sequence[b, :] = -1
            length[b], total[b], rewards[b], ended[b] = 0, 0.0, 0.0, False
            continue
        j, t = actions[b], length[b]
        sequence[b, t], mask[b, j], rewards[b] = j, 0, 0.0
        length[b] = t + 1
        if t % 3 != 2:
            continue
        mask[b, :] = 1
        low, middle, high = sequence[b, t - 2], sequence[b, t - 1], j
        if low > middle:
            low, middle = middle, low
        if middle > high:
            middle, high = high, middle
        if low > middle:
            low, middle = middle, low
        for k in range(count[b]):
            if triangles[b, k, 0] == low and triangles[b, k, 1] == middle and triangles[b, k, 2] == high:
                if named[b, k] == 0:
                    named[b, k] = 1
                    rewards[b] = 1.0 / count[b]
                    total[b] += rewards[b]
                break
        ended[b] = length[b] == 3 * count[b]
        if ended[b]:
            mask[b, :] = 0


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


class ConvexHullEnv(CombinatorialEnv):
    """One instance at a time.  Observation: ``coords`` float32 ``[n, 2]``, ``sequence`` int64 ``[n + 1]``, the pointers
    so far, ``action_mask``; action: the next corner, or the first one again; reward: area added over the hull's."""

    kind = ConvexHull


class DelaunayEnv(CombinatorialEnv):
    """One instance at a time.  Observation: ``coords`` float32 ``[n, 2]``, ``sequence`` int64 ``[3 (2 n - 5)]`` of
    pointers so far, ``action_mask``; action: the next corner; reward: 1/T for each true triangle."""

    kind = Delaunay


class ConvexHullVectorEnv(CombinatorialVectorEnv):
    """A batch of :class:`ConvexHullEnv`; rows end at different times."""

    single = ConvexHullEnv

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> None:
        where = self.instances["coords"], self.derived["area"]
        state = self.remaining, self.mask, self.sequence, self.length
        _advance_hull(actions, job, *where, *state, self.total, self._rewards, self._ended)

    def _dynamic(self) -> dict[str, NDArray[Any]]:
        return {}


class DelaunayVectorEnv(CombinatorialVectorEnv):
    """A batch of :class:`DelaunayEnv`; rows end at different times."""

    single = DelaunayEnv

    def __init__(self, num_envs: int = 1, **settings: Any) -> None:
        super().__init__(num_envs, **settings)
        self._named = np.zeros((num_envs, self.problem.solution_length // 3), np.int8)

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> None:
        where = self.derived["triangles"], self.derived["count"], self._named
        state = self.mask, self.sequence, self.length
        _advance_delaunay(actions, job, *where, *state, self.total, self._rewards, self._ended)

    def _dynamic(self) -> dict[str, NDArray[Any]]:
        return {}
