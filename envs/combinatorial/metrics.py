"""What solutions are judged by: gaps, hull accuracy and area, triangulation accuracy and triangle coverage.

Sequences of pointers are int64, perhaps padded with -1; a polygon may repeat its first corner at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import lengths
from rlkit.envs.combinatorial.geometry import polygon_area
from rlkit.errors import UserError

MOST_CROSSED = 0.01  # share of polygons that cross themselves above which an area would mean nothing (Vinyals 2015)


def tour_length(coords: NDArray[np.float64], tours: NDArray[np.int64]) -> NDArray[np.float64]:
    """Length ``[B]`` of the closed ``tours [B, n]`` over ``coords [B, n, 2]``."""
    return lengths(coords, np.concatenate((tours, tours[:, :1]), axis=1))


def gap(
    objectives: NDArray[np.float64], references: NDArray[np.float64], *, maximise: bool = False
) -> NDArray[np.float64]:
    """How much worse than the reference, in percent of it, ``[B]``; negative where better.

    Raises UserError for references that are not above 0.
    """
    if not (references > 0).all():
        raise UserError("a gap is relative: expected reference objectives above 0")
    worse = references - objectives if maximise else objectives - references
    return 100.0 * worse / references


class HullScores(NamedTuple):
    """accuracy: share of exact hulls; area: mean share of the hull's area among simple polygons, NaN ("FAIL") where
    more than 1% of the polygons cross themselves or have fewer than three corners; crossed: that share."""

    accuracy: float
    area: float
    crossed: float


class TriangulationScores(NamedTuple):
    """accuracy: share of exact triangulations; coverage: mean share of the true triangles that were found."""

    accuracy: float
    coverage: float


def corners_of(pointers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The polygon of a sequence: without padding and without the repeated first corner."""
    corners = pointers[pointers >= 0]
    return corners[:-1] if len(corners) > 1 and corners[0] == corners[-1] else corners


def same_polygon(first: NDArray[np.int64], second: NDArray[np.int64]) -> bool:
    """Whether two sequences name the same corners in the same order, wherever they begin."""
    first, second = corners_of(first), corners_of(second)
    if len(first) != len(second) or len(np.unique(first)) != len(first) or second[0] not in first:
        return False
    return bool(np.array_equal(np.roll(first, -int(np.flatnonzero(first == second[0])[0])), second))


def is_simple(coords: NDArray[np.float64], pointers: NDArray[np.int64]) -> bool:
    """Whether the polygon has at least three corners, none twice, and no two edges that cross or touch."""
    corners = corners_of(pointers)
    m = len(corners)
    if m < 3 or len(np.unique(corners)) != m:
        return False
    start, end = coords[corners], coords[np.roll(corners, -1)]  # [m, 2] each
    i, j = np.triu_indices(m, 2)
    apart = ~((i == 0) & (j == m - 1))  # those two share a corner
    i, j = i[apart], j[apart]

    def side(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sign((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]))

    a, b, c, d = start[i], end[i], start[j], end[j]
    crossing = (side(a, b, c) * side(a, b, d) <= 0) & (side(c, d, a) * side(c, d, b) <= 0)
    return not crossing.any()


def hull_scores(
    coords: Sequence[NDArray[np.float64]],
    predictions: Sequence[NDArray[np.int64]],
    truths: Sequence[NDArray[np.int64]],
) -> HullScores:
    """Scores of predicted polygons against the true hulls, one of each per instance."""
    exact, areas = [], []
    for points, prediction, truth in zip(coords, predictions, truths, strict=True):
        exact.append(same_polygon(prediction, truth))
        if is_simple(points, prediction):
            share = polygon_area(points, corners_of(prediction)) / polygon_area(points, corners_of(truth))
            areas.append(abs(share))
    crossed = (len(exact) - len(areas)) / len(exact)
    area = float(np.mean(areas)) if crossed <= MOST_CROSSED else float("nan")
    return HullScores(float(np.mean(exact)), area, crossed)


def triangles_of(pointers: NDArray[np.int64]) -> set[tuple[int, ...]]:
    """The triangles a sequence names, whatever their order; pointers left over at the end name none."""
    pointers = pointers[pointers >= 0]
    return {tuple(sorted(t)) for t in pointers[: len(pointers) // 3 * 3].reshape(-1, 3).tolist()}


def triangulation_scores(
    predictions: Sequence[NDArray[np.int64]], truths: Sequence[NDArray[np.int64]]
) -> TriangulationScores:
    """Scores of predicted triangulations, flat or ``[T, 3]``, against the true ones, one of each per instance."""
    exact, covered = [], []
    for prediction, truth in zip(predictions, truths, strict=True):
        found, true = triangles_of(prediction.reshape(-1)), triangles_of(truth.reshape(-1))
        exact.append(found == true)
        covered.append(len(found & true) / len(true))
    return TriangulationScores(float(np.mean(exact)), float(np.mean(covered)))
