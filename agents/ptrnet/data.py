"""What a pointer network learns from and is measured by: known answers, and an evaluator beside heuristics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.agents.ptrnet.decode import Solved, solve
from rlkit.agents.ptrnet.network import reading_order, rearranged
from rlkit.algorithms.evaluate import Evaluation, Evaluator
from rlkit.envs.combinatorial.base import Problem, generate, make_problem, row
from rlkit.envs.combinatorial.labels import read_labels
from rlkit.envs.combinatorial.metrics import gap, hull_scores, tour_length, triangulation_scores
from rlkit.envs.combinatorial.solvers import (
    MOST_EXACT,
    distances,
    held_karp,
    local_search,
    nearest_neighbour,
    optimal_targets,
    random_insertion,
)
from rlkit.errors import UserError

SYMMETRIC = 8  # turns and reflections of the square
POOL = 1  # stream of the seed, beside that of the batches
RESTARTS = 20  # of the local search that tours are measured against where they cannot be solved exactly


def problem_of(world: gym.Env) -> Problem:
    """What ``world`` poses.  Raises UserError unless its answers are sequences of points."""
    problem = getattr(world.unwrapped, "problem", None)
    known = ("tsp", "convex-hull", "delaunay")
    if not isinstance(problem, Problem) or problem.name not in known:
        name = problem.name if isinstance(problem, Problem) else str(world)
        raise UserError(f"ptrnet points at points: expected an environment of {', '.join(known)}, got {name}")
    return problem


def resized(problem: Problem, n: int) -> Problem:
    """``problem`` with ``n`` nodes."""
    return make_problem(problem.name, **{**problem.settings(), "num_nodes": n})


def checked(problem: Problem, instances: Any) -> tuple[Problem, NDArray[np.float64]]:
    """``problem`` of the size of ``instances``, and their coordinates ``[B, n, 2]``; UserError for unsound ones."""
    try:
        coords = np.asarray(instances["coords"] if isinstance(instances, Mapping) else instances, np.float64)
    except (KeyError, TypeError, ValueError):
        raise UserError("instances: expected coordinates of shape [B, n, 2], or a mapping with 'coords'") from None
    if coords.ndim != 3 or coords.shape[2] != 2 or not len(coords):
        raise UserError(f"instances: expected coordinates of shape [B, n, 2], got {coords.shape}")
    problem = resized(problem, coords.shape[1])
    for k in range(len(coords)):
        problem.check(row({"coords": coords}, k), f"instance {k}")
    return problem, coords


# ---- answers to learn from -------------------------------------------------------------------------------------------


def as_tokens(solutions: NDArray[np.int64], ends: int) -> Tensor:
    """Solutions ``[b, l]`` padded with -1 as int64 tokens ``[b, t]``: with ⇐ behind each answer where there is one."""
    if ends:
        solutions = np.pad(solutions, ((0, 0), (0, 1)), constant_values=-1)
    answers = (solutions >= 0).sum(axis=1) + ends
    tokens = np.where(np.arange(solutions.shape[1]) < answers[:, None], solutions + ends, -1)  # the first -1 becomes ⇐
    return torch.from_numpy(np.ascontiguousarray(tokens[:, : answers.max()]))


def counter_clockwise(coords: NDArray[np.float64], tours: NDArray[np.int64]) -> NDArray[np.int64]:
    """``tours [b, n]`` from city 0, turned round where they enclose their area clockwise."""
    b, n = tours.shape
    begin = (tours == 0).argmax(axis=1)[:, None]
    tours = tours[np.arange(b)[:, None], (begin + np.arange(n)) % n]
    x, y = np.moveaxis(np.take_along_axis(coords, tours[..., None], axis=1), 2, 0)  # [b, n] each
    area = (x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)
    back = np.concatenate((tours[:, :1], tours[:, :0:-1]), axis=1)
    return np.where(area[:, None] < 0, back, tours)


def disguise(
    coords: NDArray[np.float64], tours: NDArray[np.int64], random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The same instances turned or reflected in the unit square and with the cities in another order."""
    b = len(tours)
    order = random.random(tours.shape).argsort(axis=1)  # [b, n]
    coords = np.take_along_axis(coords, order[..., None], axis=1)
    tours = np.take_along_axis(order.argsort(axis=1), tours, axis=1)
    flips = random.integers(0, SYMMETRIC, b)[:, None]  # one bit each for x, y, and their exchange
    x, y = (np.where(flips & bit, 1.0 - part, part) for bit, part in ((1, coords[..., 0]), (2, coords[..., 1])))
    return np.stack((np.where(flips & 4, y, x), np.where(flips & 4, x, y)), axis=-1), tours


class Answers:
    """Instances with their answers.  Raises UserError for a size of tsp without labels that is too large to solve."""

    def __init__(
        self,
        problem: Problem,
        sizes: tuple[int, ...],
        seed: int,
        labels: str,
        train_size: int,
        augment: bool,
        order: str,
    ):
        self.seed, self.train_size, self.augment, self.order = seed, train_size, augment, order
        self.problems = {n: make_problem(problem.name, num_nodes=n) for n in range(sizes[0], sizes[1] + 1)}
        self.solved: dict[int, tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
        self.digests: dict[str, str] = {}
        files = [name.strip() for name in labels.split(",") if name.strip()]
        if files and problem.name != "tsp":
            raise UserError(f"agent.labels={labels} is for tsp, the answers of {problem.name} are computed")
        for name in files:
            found = read_labels(name)
            n = found.problem.num_nodes
            if found.problem.name != problem.name or n not in self.problems or n in self.solved:
                raise UserError(
                    f"agent.labels: {name} holds {found.problem.name} with {n} nodes, expected tsp, one file for each "
                    f"size from {sizes[0]} to {sizes[1]}"
                )
            self.solved[n] = found.instances["coords"], found.solutions
            self.digests[str(n)] = found.metadata["sha256"]["solution"]
        most = MOST_EXACT["tsp"]
        if problem.name == "tsp" and (lacking := [n for n in self.problems if n > most and n not in self.solved]):
            raise UserError(
                f"agent.labels has no tours of {lacking[0]} cities, expected a file of "
                f"rlkit.envs.combinatorial.labels.make_labels for each size above {most}, or agent.training=reinforce"
            )

    def draw(self, n: int, count: int, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Instances ``[count, n, 2]`` and solutions ``[count, l]``.  Hulls and triangulations begin at a point of low
        index, which is one the network can tell if points come in the ``order`` it reads them."""
        if self.problems[n].name != "tsp":
            coords = random.random((count, n, 2))  # as the problem draws them, one after another
            points = torch.from_numpy(coords)
            coords = rearranged(points, reading_order(points, self.order)).numpy()
            return coords, np.stack([optimal_targets(self.problems[n], {"coords": points}) for points in coords])
        if n not in self.solved:
            self.solved[n] = self._solve(n)
        known, tours = self.solved[n]
        picked = random.integers(0, len(known), count)
        coords, tours = known[picked], tours[picked]
        if self.augment:
            coords, tours = disguise(coords, tours, random)
        return coords, counter_clockwise(coords, tours)

    def _solve(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        random = np.random.Generator(np.random.PCG64([self.seed, POOL, n]))
        coords = random.random((self.train_size, n, 2))
        return coords, np.stack([held_karp(distances(points)) for points in coords])


# ---- evaluation ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PtrNetEvaluation(Evaluation):
    """returns as the environment counts them; metrics: further means, by name."""

    metrics: dict[str, float]

    def summary(self) -> dict[str, float]:
        return {**super().summary(), **self.metrics}


class PtrNetEvaluator(Evaluator):
    """Solves ``episodes`` random instances, those of call k being a function of (seed, k).

    Returns come from solutions under the environment's rules.  Metrics beside them: of tours, ``tour_length`` and
    ``gap`` to ``reference_length`` (the shortest up to 12 cities, beyond that the best of 20 local searches), the gaps
    of two heuristics, and ``invalid``, the share of unconstrained greedy answers that are no tours.  Hulls and
    triangulations are also decoded without constraints: ``accuracy``, and ``area_coverage`` (left out where more than
    1% of the polygons, ``crossed``, are not simple) or ``triangle_coverage`` and ``invalid``.
    """

    def __init__(self, problem: Problem, beam: int, *, episodes: int, seed: int):
        super().__init__(problem.name, episodes=episodes, seed=seed)
        self.problem, self.beam = problem, beam

    def measure(self, agent: Any, index: int) -> PtrNetEvaluation:
        sequence = np.random.SeedSequence([self.seed, index])
        problem, network = self.problem, agent.policy.network
        coords = generate(problem, self.episodes, int(sequence.generate_state(1)[0]))["coords"]
        if self.judged == "greedy":
            found = solve(network, problem, coords, beam=self.beam)
            free = solve(network, problem, coords, beam=1 if problem.name == "tsp" else self.beam, valid=False)
        else:
            found, free = (solve(network, problem, coords, valid=v, samples=1, seed=index) for v in (True, False))
        lengths = (found.solutions >= 0).sum(axis=1) - len(problem.opening())
        returns = found.objectives if problem.maximise else -found.objectives
        return PtrNetEvaluation(returns, lengths, None, self._metrics(coords, found, free))

    def _metrics(self, coords: NDArray[np.float64], found: Solved, free: Solved) -> dict[str, float]:
        problem = self.problem
        if problem.name == "tsp":
            return {"invalid": free.invalid, **self._gaps(coords, found.objectives)}
        truths = [optimal_targets(problem, {"coords": points}) for points in coords]
        if problem.name == "delaunay":
            scores = triangulation_scores(list(free.solutions), truths)
            return {"accuracy": scores.accuracy, "triangle_coverage": scores.coverage, "invalid": free.invalid}
        hulls = hull_scores(list(coords), list(free.solutions), truths)
        area = {} if np.isnan(hulls.area) else {"area_coverage": hulls.area}
        return {"accuracy": hulls.accuracy, "crossed": hulls.crossed, **area}

    def _gaps(self, coords: NDArray[np.float64], found: NDArray[np.float64]) -> dict[str, float]:
        problem, random = self.problem, np.random.Generator(np.random.PCG64(self.seed))
        exact = problem.num_nodes <= MOST_EXACT["tsp"]
        costs = [distances(points) for points in coords]
        best = [held_karp(cost) if exact else local_search(cost, RESTARTS, random) for cost in costs]
        reference = tour_length(coords, np.stack(best))
        near = np.stack([nearest_neighbour(problem, row({"coords": coords}, k)) for k in range(len(coords))])
        inserted = np.stack([random_insertion(cost, random) for cost in costs])
        return {
            "tour_length": float(found.mean()),
            "reference_length": float(reference.mean()),
            "gap": float(gap(found, reference).mean()),
            "nearest_neighbour_gap": float(gap(tour_length(coords, near), reference).mean()),
            "random_insertion_gap": float(gap(tour_length(coords, inserted), reference).mean()),
        }
