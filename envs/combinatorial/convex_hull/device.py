"""Pointing at hulls, on tensors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.device import PointerRules
from rlkit.envs.combinatorial.geometry import convex_hull, polygon_area
from rlkit.envs.combinatorial.instances import Solutions
from rlkit.envs.combinatorial.metrics import corners_of, hull_scores, is_simple


def turn(i: Tensor, j: Tensor, k: Tensor) -> Tensor:
    """Twice the signed area of triangles ``[..., 2]``, rounded as :func:`rlkit.envs.combinatorial.geometry.turn`
    rounds.
    """
    x, y = i.unbind(-1)
    (u, v), (s, t) = j.unbind(-1), k.unbind(-1)
    return (u - x) * (t - y) - (v - y) * (s - x)


class Pointers(PointerRules):
    """The corners that keep a polygon convex and able to close; the first corner again closes it."""

    def free(self, rows: Int[Tensor, " r"], points: Int[Tensor, "r t"], free: Bool[Tensor, "r n"]) -> Tensor:
        free.scatter_(1, points, False)
        coords, t = self.coords[rows], points.shape[1]
        corner = coords.gather(1, points[..., None].expand(-1, -1, 2))[:, :, None]  # [r, t, 1, 2]
        first, last = corner[:, 0], corner[:, -1]  # [r, 1, 2]
        if t == 1:  # something must lie to the left of the first edge
            return free & (turn(first[:, :, None], coords[:, :, None], coords[:, None]) > 0).any(dim=2)
        free &= (turn(corner[:, -2], last, coords) > 0) & (turn(last, coords, first) > 0)
        if t > 2:
            free &= turn(coords, first, corner[:, 1]) > 0
            free.scatter_(1, points[:, :1], True)  # closing
        return free

    def closed(self, tokens: Int[Tensor, "r t"]) -> Bool[Tensor, " r"] | None:
        return tokens[:, -1] == tokens[:, 0] if tokens.shape[1] > 1 else None

    @classmethod
    def judge(
        cls, problem: Problem, coords: NDArray[np.float64], solutions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Area over the true hull's, of polygons that do not cross themselves."""
        objectives, sound = np.full(len(solutions), np.nan), np.zeros(len(solutions), np.bool_)
        for b, (points, solution) in enumerate(zip(coords, solutions, strict=True)):
            pointers = solution[solution >= 0]
            sound[b] = is_simple(points, pointers)
            if sound[b]:
                area = polygon_area(points, corners_of(pointers))
                objectives[b] = abs(area) / polygon_area(points, convex_hull(points))
        return objectives, sound

    @classmethod
    def scores(
        cls, problem: Problem, coords: NDArray[np.float64], found: Solutions, free: Solutions, seed: int
    ) -> dict[str, float]:
        """``accuracy``, ``crossed``, and ``area_coverage`` unless more than 1% of the polygons cross themselves."""
        hulls = hull_scores(
            list(coords), list(free.solutions), [problem.target({"coords": points}) for points in coords]
        )
        area = {} if np.isnan(hulls.area) else {"area_coverage": hulls.area}
        return {"accuracy": hulls.accuracy, "crossed": hulls.crossed, **area}
