"""Geometry, and what the pointing problems of computational geometry share (Vinyals et al. 2015).

A solution is the sequence of pointers, int64, padded with -1.  Points are in general position: instances with points on
one line, or four neighbours on one circle, are refused, since their answer is not unique.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.bisimulation import Instance
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


def require_general_position(coords: NDArray[np.float64], where: str) -> None:
    """Raise UserError for points that coincide or lie on one line, all of them or on one of the hull."""
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


def require_unique_triangles(coords: NDArray[np.float64], where: str) -> None:
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


# ---- the problems ----------------------------------------------------------------------------------------------------


class PointSet(Problem):
    """``coords`` float64 ``[n, 2]``, uniform on the unit square; a state is the tuple of pointers so far."""

    maximise, shows_sequence, optimum, most = True, True, 1.0, MOST_POINTS
    reduces, points, shows = False, True, ()

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        return {"coords": ((self.num_nodes, 2), np.float64)}

    def draw(self, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {"coords": generator.random((self.num_nodes, 2))}

    def check_sound(self, instance: dict[str, NDArray[Any]], where: str) -> None:
        super().check_sound(instance, where)
        require_general_position(instance["coords"], where)

    def initial(self, instance: Instance) -> tuple[int, ...]:
        return ()
