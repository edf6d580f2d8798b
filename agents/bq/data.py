"""What BQ-NCO learns from: sub-problems of labelled solutions.

The sub-problems of a batch have one size, drawn anew for each batch, so that none is padded.  Several processes draw
the same joint batch and take their own rows of it.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, distributed

from rlkit.agents.common import gaps
from rlkit.agents.common.gaps import HELD_OUT_SEED
from rlkit.envs.combinatorial.base import Problem, problem_kinds, problem_of_space
from rlkit.envs.combinatorial.device import SYMMETRIES
from rlkit.envs.combinatorial.labels import Labels, make_labels, read_labels
from rlkit.envs.combinatorial.solvers import choose_solver
from rlkit.errors import UserError

# ---- what is imitated ------------------------------------------------------------------------------------------------


class SubProblemBatch(NamedTuple):
    """tokens float32 [batch, k, f]; cost float32 [batch, k, k] for atsp; mask bool, target float32 [batch, r, kinds];
    before int64 [batch], the column visited before the destination, where that is known."""

    tokens: Tensor
    cost: Tensor | None
    mask: Tensor
    target: Tensor
    before: Tensor | None


class Imitation:
    """Draws sub-problems of ``labels``; its ``generator`` decides everything."""

    def __init__(
        self,
        labels: Labels,
        generator: np.random.Generator,
        device: torch.device,
        *,
        batch_size: int,
        min_size: int,
        symmetries: bool,
    ):
        self.labels, self.generator, self.device, self.sets = labels, generator, device, [labels]
        self.batch_size, self.min_size, self.symmetries = batch_size, min_size, symmetries
        self.rules, self.nodes = labels.problem.device()(labels.instances, device), labels.problem.num_nodes
        self.follow()
        if self.steps is None and min_size > self.nodes + 1:
            raise UserError(
                f"agent.min_size={min_size} is out of range, expected at most {self.nodes + 1} for labels with "
                f"{self.nodes} nodes"
            )

    def follow(self, rows: NDArray[np.int64] | None = None) -> None:
        """Take the labels' solutions up, with ``rows`` those of these instances alone."""
        solutions = self.labels.solutions
        self.rules.follow(solutions if rows is None else solutions[rows], rows)
        self.steps = self.rules.steps(solutions)  # [B]
        if self.steps is not None:
            self.states_up_to = np.cumsum(self.steps)  # [B]

    def _rows_and_size(self) -> tuple[NDArray[np.int64], int]:
        """Solutions, and the size of the sub-problems to cut from them.

        Where solutions differ in length: a number of steps, as likely as states after so many, and solutions that have
        such a state.  Else any solutions, and any size, uniformly.
        """
        if self.steps is None:
            rows = self.generator.integers(len(self.labels), size=self.batch_size)
            least, most = self.rules.sizes(self.nodes, self.min_size)
            return rows, int(self.generator.integers(least, most + 1))
        state = self.generator.integers(self.states_up_to[-1])
        owner = int(np.searchsorted(self.states_up_to, state, side="right"))
        done = int(self.states_up_to[owner] - state) - 1
        longer = np.flatnonzero(self.steps > done)
        return longer[self.generator.integers(len(longer), size=self.batch_size)], done

    def draw(self, part: slice = slice(None)) -> SubProblemBatch:
        """One size for all, uniform from the least to the whole instance; the rows ``part`` of the joint batch."""
        rows, size = self._rows_and_size()
        lots = self.rules.lots(rows, size, self.generator)
        turned = self.generator.integers(SYMMETRIES, size=self.batch_size) * self.symmetries
        owner, seen, *given = (torch.as_tensor(x[part]).to(self.device) for x in (rows, turned, *lots))
        found = self.rules.cut(owner, size, *given)
        tokens, cost = self.rules.tokens(replace(found.states, copy=seen))
        mask = self.rules.feasible(found.states) | (found.target > 0)
        return SubProblemBatch(tokens, cost, mask, found.target.expand_as(mask), found.before)


class Mixture:
    """Draws of several sets of one problem, smallest first: every batch is of one of them, the more likely the more
    instances that has.  ``generator`` is that of all parts."""

    def __init__(self, parts: list[Imitation], generator: np.random.Generator):
        self.parts, self.generator = parts, generator
        self.up_to = np.cumsum([len(part.labels) for part in parts])
        self.labels, self.sets = parts[-1].labels, [part.labels for part in parts]

    def draw(self, part: slice = slice(None)) -> SubProblemBatch:
        """The rows ``part`` of a joint batch, see :meth:`Imitation.draw`."""
        owner = int(np.searchsorted(self.up_to, self.generator.integers(self.up_to[-1]), side="right"))
        return self.parts[owner].draw(part)


def draws_of(
    sets: list[Labels], generator: np.random.Generator, device: torch.device, **options: Any
) -> Imitation | Mixture:
    """What draws sub-problems of ``sets``, smallest first; options are those of :class:`Imitation`."""
    parts = [Imitation(labels, generator, device, **options) for labels in sets]
    return parts[0] if len(parts) == 1 else Mixture(parts, generator)


# ---- problems, solvers, processes ------------------------------------------------------------------------------------


def problem_of(env: gym.Env) -> Problem:
    """The problem of a combinatorial environment.  Raises UserError where it has no BQ-MDP."""
    problem = gaps.problem_of(env)
    if problem is None or not problem.reduces:
        raise UserError(f"bq solves {_solved()}; got {getattr(problem, 'name', env)}")
    if getattr(problem, "formulation", "bq") != "bq":
        raise UserError(f"bq needs formulation='bq' of {problem.name}, got '{problem.formulation}'")  # type: ignore[attr-defined]
    return problem


def problem_shown(space: spaces.Space) -> Problem:
    """The problem whose observations ``space`` has.  Raises UserError for others."""
    problem = problem_of_space(space)
    if problem is None:
        raise UserError(f"bq needs the observations of {_solved()}, got {space}")
    return problem


def _solved() -> str:
    return ", ".join(kind.name for kind in problem_kinds() if kind.reduces)


def processes() -> tuple[int, int]:
    """This process's rank and how many learn together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def join_processes(device: torch.device | str) -> torch.device | str:
    """Join the other processes of a ``torchrun``, if there are any; returns this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not distributed.is_available():
        return device
    on_gpu = str(device) == "cuda" or (str(device) == "auto" and torch.cuda.is_available())
    if on_gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if on_gpu else "gloo")
        atexit.register(leave_processes)
    return device


def leave_processes() -> None:
    """Wait for the others, at most two minutes, and part: a process that ends alone takes gloo's others with it."""
    if not distributed.is_initialized():
        return
    if distributed.get_backend() == "gloo":
        with suppress(RuntimeError):  # another one failed, and says so itself
            distributed.monitored_barrier(timeout=timedelta(minutes=2))
    distributed.destroy_process_group()


# ---- labelled sets ---------------------------------------------------------------------------------------------------


def labelled_set(problem: Problem, *, solver: str, seed: int, progress: bool, **options: Any) -> Path:
    """The file of :func:`rlkit.envs.combinatorial.labels.make_labels` for ``problem``; of several processes the first
    makes it.
    """
    if seed == HELD_OUT_SEED:
        raise UserError(f"agent.label_seed={seed} is that of evaluations, expected another to learn from")
    rank, count = processes()
    if rank:
        distributed.barrier()
    chosen, settings = choose_solver(problem, solver), problem.settings()
    path = make_labels(problem.name, seed=seed, solver=chosen, progress=progress, **options, **settings)
    if count > 1 and not rank:
        distributed.barrier()
    return path


def read_sets(path: str | Path, problem: str) -> list[Labels]:
    """The set in the file ``path``, or those in all ``.safetensors`` files of a folder, smallest instances first.

    Raises DataError for a file that is none, UserError for a folder without any and for another problem's.
    """
    folder = Path(path)
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else [folder]
    if not files:
        raise UserError(f"{folder}: holds no .safetensors files, expected labelled sets")
    found = [read_labels(file) for file in files]
    for file, labels in zip(files, found, strict=True):
        if labels.problem.name != problem:
            raise UserError(f"{file}: holds labels of {labels.problem.name}, expected {problem}")
    return sorted(found, key=lambda labels: labels.problem.num_nodes)


def describe(sets: list[Labels], path: Path) -> dict[str, Any]:
    """Where the labels of ``sets`` come from, for a manifest; details are the largest instances', and of several all.

    Raises UserError where evaluations are on the same instances.
    """
    keys = ("settings", "size", "seed", "solver", "effort", "versions")
    made = [{key: labels.metadata[key] for key in keys} for labels in sets]
    if any(one["seed"] == HELD_OUT_SEED for one in made):
        raise UserError(f"{path}: its seed {HELD_OUT_SEED} is that of evaluations, expected another to learn from")
    hashes = [labels.metadata["sha256"] for labels in sets]
    one = hashes[0] if len(hashes) == 1 else hashes
    digest = hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest()
    name = "-".join((sets[0].problem.name, *(str(labels.problem.num_nodes) for labels in sets)))
    details = made[-1] if len(made) == 1 else {**made[-1], "sets": made}
    return {"name": name, "source": "labels", "locator": path.name, "sha256": digest, "details": details}


def sentence(sets: list[Labels]) -> str:
    """Where the labels of ``sets`` come from, to be read."""
    told = []
    for labels in sets:
        made, problem = labels.metadata, labels.problem
        what = f"{len(labels)} instances of {problem.name} with {problem.num_nodes} nodes, seed {made['seed']}"
        told.append(f"{what}, solved by {made['solver']} with effort {made['effort']:g}")
    return "; ".join(told)
