"""Pointing at triangulations, on tensors."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.device import PointerRules
from rlkit.envs.combinatorial.geometry import triangulation
from rlkit.envs.combinatorial.instances import Solutions
from rlkit.envs.combinatorial.metrics import triangles_of, triangulation_scores


class Pointers(PointerRules):
    """Three different points to a triangle, as many triangles as the true triangulation has."""

    def most_pointers(self, problem: Problem) -> Int[Tensor, " b"]:
        if not self.valid:
            return super().most_pointers(problem)
        return torch.tensor([3 * len(triangulation(points)) for points in self.coords.cpu().numpy()])

    def free(self, rows: Int[Tensor, " r"], points: Int[Tensor, "r t"], free: Bool[Tensor, "r n"]) -> Tensor:
        t = points.shape[1]
        return free.scatter_(1, points[:, t - t % 3 :], False)

    @classmethod
    def judge(
        cls, problem: Problem, coords: NDArray[np.float64], solutions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The share of the true triangles that are named; sound are whole triangles of three points each."""
        objectives, sound = np.full(len(solutions), np.nan), np.zeros(len(solutions), np.bool_)
        for b, (points, solution) in enumerate(zip(coords, solutions, strict=True)):
            pointers = solution[solution >= 0]
            true = {tuple(triangle) for triangle in triangulation(points).tolist()}
            objectives[b] = len(triangles_of(pointers) & true) / len(true)
            whole = len(pointers) % 3 == 0 and len(pointers) > 0
            sound[b] = whole and all(len(set(triangle)) == 3 for triangle in triangles_of(pointers))
        return objectives, sound

    @classmethod
    def preference(cls, objectives: NDArray[np.float64], log_probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """The most probable: the objective would give the answer away."""
        return log_probabilities

    @classmethod
    def scores(
        cls, problem: Problem, coords: NDArray[np.float64], found: Solutions, free: Solutions, seed: int
    ) -> dict[str, float]:
        """``accuracy``, ``triangle_coverage`` and ``invalid``."""
        scores = triangulation_scores(list(free.solutions), [problem.target({"coords": points}) for points in coords])
        return {"accuracy": scores.accuracy, "triangle_coverage": scores.coverage, "invalid": free.invalid}
