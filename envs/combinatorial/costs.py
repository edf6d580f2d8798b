"""What it costs to go from node to node, as local searches ask for it: from points without a matrix, or from one.

:class:`Costs` measures exactly as :meth:`rlkit.envs.combinatorial.tsplib.Benchmark.length` does, so that a search
shortens what is published and not something near it.  ``[n, K]`` lists of the nearest nodes are made by a k-d tree of
the points; ten thousand of them take a few megabytes where a matrix would take 800.
"""

from __future__ import annotations

from typing import Any, NamedTuple, no_type_check

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.tsplib import EARTH_RADIUS, GEO_PI, GEO_RADIUS, on_sphere

Array = NDArray[np.float64]

MATRIX, EUCLID, MANHATTAN, MAXIMUM, ATT, GEO, SPHERE = range(7)  # norms
EXACT, NEAREST, UP = range(3)  # roundings
FORMS = {  # of a file's EDGE_WEIGHT_TYPE, without its dimension: the norm, and the rounding that is its own
    "EUC": (EUCLID, EXACT),
    "MAN": (MANHATTAN, EXACT),
    "MAX": (MAXIMUM, EXACT),
    "CEIL": (EUCLID, UP),
    "ATT": (ATT, UP),
    "GEO": (GEO, EXACT),
    "GREAT": (SPHERE, EXACT),
}
NEIGHBOURS = 10  # of a node that local searches look at


class Costs(NamedTuple):
    """Costs between n nodes; kernels take it as it is.  Of a batch the array has one axis more.

    array: float64 ``[n, n]`` where ``norm`` is MATRIX, else points ``[n, 2]`` or ``[n, 3]``, of GEO in radians, of
    SPHERE on the unit sphere; norm and rounding: see above.
    """

    array: Array
    norm: int = EUCLID
    rounding: int = EXACT

    @property
    def nodes(self) -> int:
        return len(self.array)

    @property
    def symmetric(self) -> bool:
        """Whether every way costs the same in both directions."""
        return self.norm != MATRIX or bool(np.array_equal(self.array, np.swapaxes(self.array, -1, -2)))

    def along(self, walk: NDArray[np.int64]) -> float:
        """What the open walk through ``walk`` int64 ``[k]`` costs."""
        return float(along(self, walk))

    def between(self, i: NDArray[Any], j: NDArray[Any]) -> Array:
        """Costs ``[k]`` from the nodes ``i [k]`` to ``j [k]``."""
        found: Array = pair_costs(self, i.astype(np.int64), j.astype(np.int64))
        return found

    def to(self, near: NDArray[np.int32]) -> Array:
        """Costs ``[n, K]`` from every node to each of ``near [n, K]``."""
        return self.between(np.repeat(np.arange(self.nodes), near.shape[1]), near.reshape(-1)).reshape(near.shape)

    def neighbours(self, most: int = NEIGHBOURS) -> NDArray[np.int32]:
        """The nearest ``[n, K]`` of each node by the cost of going there, nearest first; K is n - 1 or ``most``."""
        n = self.nodes
        k = min(most, n - 1)
        if self.norm != MATRIX:
            return _nearest_points(self._places(), k)
        found = np.empty((n, k), np.int32)
        for i in range(n if k else 0):
            row = self.array[i].copy()
            row[i] = np.inf
            near = np.argpartition(row, k - 1)[:k]
            found[i] = near[np.lexsort((near, row[near]))]
        return found

    def _places(self) -> Array:
        """Points whose straight distances have the order of the costs, or nearly."""
        if self.norm != GEO:
            return self.array
        return on_sphere(self.array[:, ::-1])  # which has the latitude first


def _nearest_points(points: Array, k: int) -> NDArray[np.int32]:
    from scipy.spatial import cKDTree

    n = len(points)
    if not k:
        return np.empty((n, 0), np.int32)
    tree = cKDTree(points)
    near = tree.query(points, k + 1)[1].astype(np.int32).reshape(n, k + 1)  # itself, or one at the same place, first
    own = near == np.arange(n, dtype=np.int32)[:, None]
    own[~own.any(axis=1), -1] = True
    return near[~own].reshape(n, k)


def costs_within(instance: Instance) -> Costs:
    """Of an instance's own arrays: its matrix ``cost``, or its points ``coords``."""
    if "cost" in instance:
        return Costs(np.ascontiguousarray(instance["cost"], np.float64), MATRIX)
    return Costs(np.ascontiguousarray(instance["coords"], np.float64))


def costs_of_file(found: Any) -> Costs:
    """Of a :class:`~rlkit.envs.combinatorial.tsplib.Benchmark`, rounded as its lengths are."""
    if found.matrix is not None:
        return Costs(np.ascontiguousarray(found.matrix, np.float64), MATRIX)
    norm, rounding = FORMS[found.kind.partition("_")[0]]
    points = np.ascontiguousarray(found.coords, np.float64)
    if norm == GEO:
        degrees = np.trunc(points)
        points = GEO_PI * (degrees + 5.0 * (points - degrees) / 3.0) / 180.0
    if norm == SPHERE:
        points = on_sphere(np.deg2rad(points))
    return Costs(points, norm, NEAREST if found.rounded and rounding == EXACT and norm != GEO else rounding)


# ---- kernels ---------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def cost(costs, i, j):
    """From node ``i`` to ``j``; usual forms where it is called, as handing an array on takes ten times as long."""
    array, norm, rounding = costs.array, costs.norm, costs.rounding
    if norm == MATRIX:
        return array[i, j]
    if norm == EUCLID and rounding != UP and array.shape[1] == 2:
        x, y = array[i, 0] - array[j, 0], array[i, 1] - array[j, 1]
        found = np.sqrt(x * x + y * y)
        return found if rounding == EXACT else np.floor(found + 0.5)
    return cost_between(array, norm, rounding, i, j)


@njit(cache=True, nogil=True)
@no_type_check
def cost_between(array, norm, rounding, i, j):
    """:func:`cost` of its parts."""
    if norm == MATRIX:
        return array[i, j]
    if norm in (EUCLID, ATT, SPHERE):
        x, y = array[i, 0] - array[j, 0], array[i, 1] - array[j, 1]
        square = x * x + y * y
        if array.shape[1] == 3:
            z = array[i, 2] - array[j, 2]
            square += z * z
        found = np.sqrt(square)
        if norm == ATT:
            found = found / np.sqrt(10.0)
        if norm == SPHERE:  # from the chord to the arc
            found = 2.0 * EARTH_RADIUS * np.arcsin(min(0.5 * found, 1.0))
    elif norm == GEO:
        q1, q2 = np.cos(array[i, 1] - array[j, 1]), np.cos(array[i, 0] - array[j, 0])
        q3 = np.cos(array[i, 0] + array[j, 0])
        inner = min(1.0, max(-1.0, 0.5 * ((1.0 + q1) * q2 - (1.0 - q1) * q3)))
        found = 0.0 if i == j else np.trunc(GEO_RADIUS * np.arccos(inner) + 1.0)
    else:
        found = 0.0
        for axis in range(array.shape[1]):
            step = abs(array[i, axis] - array[j, axis])
            found = found + step if norm == MANHATTAN else max(found, step)
    if rounding == NEAREST:
        return np.floor(found + 0.5)
    if rounding == UP:
        return np.ceil(found)
    return found


@njit(cache=True, nogil=True)
@no_type_check
def along(costs, walk):
    """What the open walk ``walk [k]`` costs."""
    total = 0.0
    for k in range(len(walk) - 1):
        total += cost(costs, walk[k], walk[k + 1])
    return total


@njit(cache=True, nogil=True)
@no_type_check
def pair_costs(costs, i, j):
    """What it costs from each of ``i [k]`` to each of ``j [k]``."""
    found = np.empty(len(i))
    for k in range(len(i)):
        found[k] = cost(costs, i[k], j[k])
    return found
