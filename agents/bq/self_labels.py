"""Labels that need no solver: they begin quickly made and become better as the network does (self-improvement).

Every so many updates the averaged network, the one that is saved, is asked for better solutions of the next few
instances of the set, round and round, and what is better takes their place (Luo et al. 2024):

    tsp, atsp, cvrp     parts of the labels are solved anew, and improved        rlkit.agents.bq.reconstruct
    op                  the best of searches in eight symmetries, improved
    knapsack            the best of a beam

Labels never become worse.  What a round does depends on the seed, on how many there were, and on labels and weights;
the labels are in every checkpoint, so that resuming is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.agents.bq.data import Imitation
from rlkit.agents.bq.decode import Network, solve
from rlkit.agents.bq.reconstruct import LARGEST, reconstructed
from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.device import SYMMETRIES
from rlkit.envs.combinatorial.improvement import improved, improves
from rlkit.envs.combinatorial.solvers import QUICK, solvers_of
from rlkit.errors import UserError

SELF = "self"  # as agent.labels says it
BEAM = 8  # where an instance can be seen in one way alone
STREAM = 4  # sets the rounds' draws apart from others of the agent's seed


def first_solver(problem: Problem) -> str:
    """What makes the labels at first.  Raises UserError for a problem without anything that is as quick."""
    known = solvers_of(type(problem))
    found = next((name for name in QUICK if name in known), None)
    if found is None:
        raise UserError(
            f"agent.labels={SELF}: {problem.name} has no moves to improve a solution by, expected a file of labels, or "
            "none to have a solver make them"
        )
    return found


def proposed(
    network: Network,
    problem: Problem,
    instances: Instance,
    solutions: NDArray[np.int64],
    device: torch.device,
    seed: int,
) -> NDArray[np.int64]:
    """What the network makes of ``solutions`` [B, L] of a batch, or of the instances alone."""
    kind = problem.device()
    if kind.piece_sizes(problem.num_nodes) is not None:
        return reconstructed(network, problem, instances, solutions, device, 1, largest=LARGEST, seed=seed)
    copies = min(SYMMETRIES, kind.copies or SYMMETRIES)
    search: dict[str, Any] = {"augment": copies} if copies > 1 else {"beam": BEAM}
    found = solve(network, problem, instances, device, **search).solutions
    return improved(problem, instances, found) if improves(type(problem)) else found


class SelfLabels:
    """The labels of ``imitation``, ``count`` of which a round is about.

    mean: float64 scalar on the device, the mean objective of all labels now.
    """

    def __init__(self, imitation: Imitation, count: int, seed: int):
        imitation.labels = replace(
            imitation.labels,
            solutions=imitation.labels.solutions.copy(),
            objectives=imitation.labels.objectives.copy(),
        )
        self.imitation, self.count, self.seed = imitation, min(count, len(imitation.labels)), seed
        self.mean = torch.full((), float(imitation.labels.objectives.mean()), dtype=torch.float64).to(imitation.device)

    def improve(self, network: Network, number: int) -> None:
        """Round ``number``, from 1 on: ask ``network`` for the next labels, and take those that are better."""
        labels, size = self.imitation.labels, len(self.imitation.labels)
        rows = (np.arange(self.count) + (number - 1) * self.count) % size
        instances = {key: value[rows] for key, value in labels.instances.items()}
        seed = int(np.random.SeedSequence([self.seed, STREAM, number]).generate_state(1)[0])
        before = labels.solutions[rows]
        found = proposed(network, labels.problem, instances, before, self.imitation.device, seed)
        worth = labels.problem.objectives(instances, found)
        gain = (worth - labels.objectives[rows]) * (1.0 if labels.problem.maximise else -1.0)
        self._take(rows[gain > 0], found[gain > 0], worth[gain > 0])

    def _take(self, rows: NDArray[np.int64], solutions: NDArray[np.int64], objectives: NDArray[np.float64]) -> None:
        labels = self.imitation.labels
        labels.solutions[rows], labels.objectives[rows] = solutions, objectives
        if len(rows):
            self.imitation.follow(rows)
            self.mean.fill_(float(labels.objectives.mean()))

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: int32 [B, L], the solutions."""
        return {"labels.solutions": torch.from_numpy(self.imitation.labels.solutions.astype(np.int32))}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo :meth:`tensors`.  Raises UserError for solutions of other instances."""
        labels, held = self.imitation.labels, tensors["labels.solutions"]
        if held.dtype != torch.int32 or held.shape != labels.solutions.shape or bool((held < -1).any()):
            raise UserError(f"'labels.solutions' holds {held.dtype} {tuple(held.shape)}, no solutions of these labels")
        solutions: NDArray[Any] = held.numpy().astype(np.int64)
        objectives = labels.problem.objectives(labels.instances, solutions)
        self._take(np.arange(len(labels)), solutions, objectives)
