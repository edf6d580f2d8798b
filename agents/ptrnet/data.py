"""What a pointer network learns from and is measured by: known answers, and an evaluator beside heuristics."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.agents.common import gaps
from rlkit.agents.common.gaps import SolutionEvaluation, SolutionEvaluator
from rlkit.agents.ptrnet.decode import solve
from rlkit.agents.ptrnet.network import reading_order, rearranged
from rlkit.envs.combinatorial.base import Problem, generate, make_problem, problem_kinds
from rlkit.envs.combinatorial.device import SYMMETRIES, turned
from rlkit.envs.combinatorial.labels import read_labels
from rlkit.envs.combinatorial.solvers import MOST_EXACT, distances, held_karp
from rlkit.errors import UserError

POOL = 1  # stream of the seed, beside that of the batches


def problem_of(world: gym.Env) -> Problem:
    """What ``world`` poses.  Raises UserError unless its answers are sequences of points."""
    problem = gaps.problem_of(world)
    if problem is None or not problem.points:
        known = ", ".join(kind.name for kind in problem_kinds() if kind.points)
        name = str(world) if problem is None else problem.name
        raise UserError(f"ptrnet points at points: expected an environment of {known}, got {name}")
    return problem


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
    seen = torch.from_numpy(random.integers(0, SYMMETRIES, b))
    return turned(torch.from_numpy(coords), seen).numpy(), tours


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
        if files and not problem.permutes:
            raise UserError(f"agent.labels={labels} is for tours, the answers of {problem.name} are computed")
        for name in files:
            found = read_labels(name)
            n = found.problem.num_nodes
            if found.problem.name != problem.name or n not in self.problems or n in self.solved:
                raise UserError(
                    f"agent.labels: {name} holds {found.problem.name} with {n} nodes, expected {problem.name}, one "
                    f"file for each size from {sizes[0]} to {sizes[1]}"
                )
            self.solved[n] = found.instances["coords"], found.solutions
            self.digests[str(n)] = found.metadata["sha256"]["solution"]
        lacking = [n for n in self.problems if n > MOST_EXACT and n not in self.solved]
        if problem.permutes and lacking:
            raise UserError(
                f"agent.labels has no tours of {lacking[0]} cities, expected a file of rlkit.envs.combinatorial.labels."
                f"make_labels for each size above {MOST_EXACT}, or agent.training=reinforce"
            )

    def draw(self, n: int, count: int, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Instances ``[count, n, 2]`` and solutions ``[count, l]``.  Hulls and triangulations begin at a point of low
        index, which is one the network can tell if points come in the ``order`` it reads them."""
        problem = self.problems[n]
        if not problem.permutes:
            coords = random.random((count, n, 2))  # as the problem draws them, one after another
            points = torch.from_numpy(coords)
            coords = rearranged(points, reading_order(points, self.order)).numpy()
            return coords, np.stack([problem.target({"coords": points}) for points in coords])
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


class PtrNetEvaluator(SolutionEvaluator):
    """Solves ``episodes`` random instances, those of call k being a function of (seed, k).

    Returns come from solutions under the environment's rules.  Beside them stand the problem's own metrics
    (:meth:`rlkit.envs.combinatorial.device.PointerRules.scores`): of tours, lengths, gaps and the share of
    unconstrained greedy answers that are none; hulls and triangulations are also decoded without constraints, as in
    the paper.
    """

    def __init__(self, problem: Problem, beam: int, *, episodes: int, seed: int):
        super().__init__(problem.name, problem, episodes=episodes, seed=seed)
        self.beam = beam

    def measure(self, agent: Any, index: int) -> SolutionEvaluation:
        sequence = np.random.SeedSequence([self.seed, index])
        problem, network = self.problem, agent.policy.network
        coords = generate(problem, self.episodes, int(sequence.generate_state(1)[0]))["coords"]
        if self.judged == "greedy":
            found = solve(network, problem, coords, beam=self.beam)
            free = solve(network, problem, coords, beam=1 if problem.permutes else self.beam, valid=False)
        else:
            found, free = (solve(network, problem, coords, valid=v, samples=1, seed=index) for v in (True, False))
        kind = problem.pointers()
        return self.told(found, kind.scores(problem, coords, found, free, self.seed))
