"""The travelling salesman on tensors, for BQ and for pointer networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.device import PointerRules, States, TourRules, picked, turned
from rlkit.envs.combinatorial.instances import Solutions
from rlkit.envs.combinatorial.metrics import gap, tour_length

SEARCHES = 20  # local searches whose best tour others are measured against where they cannot be solved exactly


class Device(TourRules):
    """Tokens (x, y)."""

    features, reversible, shown = 2, True, 50

    @classmethod
    def columns(cls, arrays: Instance) -> list[NDArray[Any]]:
        return [arrays["coords"]]

    @classmethod
    def build_tokens(
        cls, static: Tensor, matrix: Tensor | None, states: States, scalar: Tensor
    ) -> tuple[Float[Tensor, "batch k 2"], None]:
        return turned(picked(static, states.owner, cls.token_nodes(states)), states.copy), None


class Pointers(PointerRules):
    """Cities in turn; all tours have one length, so nothing ends them."""

    ends = 0

    def free(self, rows: Int[Tensor, " r"], points: Int[Tensor, "r t"], free: Bool[Tensor, "r n"]) -> Tensor:
        return free.scatter_(1, points, False)

    def measured(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, " b"]:
        places = self.coords.gather(1, tokens[..., None].expand(-1, -1, 2))  # [b, n, 2]
        return (places - places.roll(-1, dims=1)).norm(dim=-1).sum(dim=-1)

    @classmethod
    def judge(
        cls, problem: Problem, coords: NDArray[np.float64], solutions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        sound = (np.sort(solutions, axis=1) == np.arange(problem.num_nodes)).all(axis=1)
        return np.where(sound, tour_length(coords, np.maximum(solutions, 0)), np.nan), sound

    @classmethod
    def scores(
        cls, problem: Problem, coords: NDArray[np.float64], found: Solutions, free: Solutions, seed: int
    ) -> dict[str, float]:
        """Lengths and gaps to the shortest tours (up to 12 cities, beyond that the best of 20 local searches), also of
        two heuristics, and ``invalid``."""
        from rlkit.envs.combinatorial.solvers import MOST_EXACT, distances, held_karp, heuristic_solutions, local_search

        random = np.random.Generator(np.random.PCG64(seed))
        costs = [distances(points) for points in coords]
        exact = problem.num_nodes <= MOST_EXACT
        best = [held_karp(cost) if exact else local_search(cost, SEARCHES, random) for cost in costs]
        reference = tour_length(coords, np.stack(best))
        gaps = {
            f"{name}_gap": float(gap(tour_length(coords, tours), reference).mean())
            for name, tours in heuristic_solutions(problem, {"coords": coords}, random).items()
        }
        lengths = {"tour_length": float(found.objectives.mean()), "reference_length": float(reference.mean())}
        return {"invalid": free.invalid, **lengths, "gap": float(gap(found.objectives, reference).mean()), **gaps}
