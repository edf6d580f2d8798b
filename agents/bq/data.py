"""What BQ-NCO learns from and is measured on: sub-problems of labelled solutions, and gaps on held-out instances.

The sub-problems of a batch have one size, drawn anew for each batch, so that none is padded.  Several processes draw
the same joint batch and take their own rows of it.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, distributed

from rlkit.agents.bq.decode import SYMMETRIES, States, World
from rlkit.agents.bq.network import KINDS
from rlkit.algorithms.evaluate import Evaluation, Evaluator
from rlkit.envs.combinatorial.base import Problem, generate, row
from rlkit.envs.combinatorial.bisimulation import Instance, sub_knapsacks, sub_orienteering, sub_routes, sub_tours
from rlkit.envs.combinatorial.label_solvers import solver_name, solver_version
from rlkit.envs.combinatorial.labels import Labels, make_labels, read_labels
from rlkit.envs.combinatorial.metrics import gap
from rlkit.envs.combinatorial.solvers import costs_of, density_greedy, nearest_neighbour, random_insertion
from rlkit.errors import UserError

HELD_OUT_SEED = 2**31  # of the instances that evaluations are on
OWN_UP_TO = {"tsp": 20, "atsp": 12, "cvrp": 10, "op": 12}  # nodes that rlkit's own solvers do as well as any

# ---- what is imitated ------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
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
        self.labels, self.generator, self.device = labels, generator, device
        self.batch_size, self.min_size, self.symmetries = batch_size, min_size, symmetries
        self.name, self.nodes = labels.problem.name, labels.problem.num_nodes
        if self.name in ("tsp", "atsp", "cvrp") and min_size > self.nodes + 1:
            raise UserError(
                f"agent.min_size={min_size} is out of range, expected at most {self.nodes + 1} for labels with "
                f"{self.nodes} nodes"
            )
        steps = (labels.solutions > 0).sum(axis=1) if self.name == "op" else (labels.solutions >= 0).sum(axis=1)
        self.steps, self.states_up_to = steps, np.cumsum(steps)  # [B] each

    def _rows_and_steps(self) -> tuple[NDArray[np.int64], int]:
        """op, knapsack: a number of steps, as likely as states after so many, and solutions that have such a state."""
        state = self.generator.integers(self.states_up_to[-1])
        owner = int(np.searchsorted(self.states_up_to, state, side="right"))
        done = int(self.states_up_to[owner] - state) - 1
        longer = np.flatnonzero(self.steps > done)
        return longer[self.generator.integers(len(longer), size=self.batch_size)], done

    def draw(self, part: slice = slice(None)) -> Batch:
        """One size for all, uniform from the least to the whole instance; the rows ``part`` of the joint batch."""
        generator, labels = self.generator, self.labels
        if self.name in ("op", "knapsack"):
            rows, done = self._rows_and_steps()
        else:
            rows = generator.integers(len(labels), size=self.batch_size)
        chosen = {key: value[rows] for key, value in labels.instances.items()}
        solutions = labels.solutions[rows]
        if self.name == "op":
            _, sub = sub_orienteering(chosen, solutions, done, generator)
        elif self.name == "knapsack":
            _, sub = sub_knapsacks(chosen, solutions, done, generator)
        elif self.name == "cvrp":
            size = int(generator.integers(self.min_size - 2, self.nodes + 1))
            sub = sub_routes(chosen, solutions, size, generator)
        else:
            size = int(generator.integers(self.min_size, self.nodes + 2))
            sub = sub_tours(solutions, size, generator, symmetric=self.name == "tsp")
        turned = generator.integers(SYMMETRIES, size=self.batch_size) * self.symmetries
        nodes, budget, target = (
            torch.as_tensor(x[part], device=self.device) for x in (sub.nodes, sub.budget, sub.target)
        )
        inner = slice(None) if self.name == "knapsack" else slice(1, -1)
        rest, target = nodes[:, inner], target[:, inner].float()
        origin, destination = (nodes[:, 0], nodes[:, -1]) if self.name != "knapsack" else (nodes[:, 0],) * 2
        world = World(self.name, {key: value[part] for key, value in chosen.items()}, self.device)
        owner = torch.arange(len(nodes), device=self.device)
        seen = torch.as_tensor(turned[part], device=self.device)
        nothing = owner.new_zeros((len(nodes), 0))
        states = States(owner, seen, rest, origin, destination, budget, budget, budget, nothing, owner)
        tokens, cost = world.tokens(states)
        before = None if sub.backward is None else torch.as_tensor(sub.backward[part] - 1, device=self.device)
        return Batch(tokens, cost, world.feasible(states) | (target > 0), target, before)


# ---- evaluation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GapEvaluation(Evaluation):
    """An evaluation with an objective and, where references are known, its gap in percent; heuristics beside both."""

    measures: dict[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, float]:
        return super().summary() | self.measures


class GapEvaluator(Evaluator):
    """Solutions, greedy unless ``search`` says otherwise, of ``episodes`` instances that no training sees.

    They are always the same ones.  Their references are made by the solver of the labels, once, and kept where labels
    are; without a solver only objectives are compared, with those of heuristics.
    """

    def __init__(self, env_id: str, problem: Problem, episodes: int, solver: str, effort: float):
        super().__init__(env_id, episodes=episodes, seed=HELD_OUT_SEED)
        self.search: dict[str, int] = {}  # options of solve()
        self.problem, self.solver, self.effort = problem, solver, effort
        self.count = 0

    def measure(self, agent: Any, index: int) -> GapEvaluation:
        """The same whatever ``index``.  ``agent`` has ``solve``, which searches and does not sample."""
        if self.judged != "greedy":
            raise UserError(f"judged={self.judged}: {agent.name} searches for solutions, expected greedy")
        self._prepare()
        count, maximise = self.episodes, self.problem.maximise
        found = agent.solve({key: value[:count] for key, value in self.instances.items()}, **self.search)
        objectives: NDArray[np.float64] = found.objectives
        measures = {"objective": float(objectives.mean())}
        if self.references is not None:
            measures["gap"] = float(gap(objectives, self.references[:count], maximise=maximise).mean())
        for name, values in self.heuristics.items():
            measures[f"{name}_objective"] = float(values[:count].mean())
            if self.references is not None:
                measures[f"{name}_gap"] = float(gap(values[:count], self.references[:count], maximise=maximise).mean())
        lengths = np.array([len(self.problem.actions(solution)) for solution in found.solutions], np.int64)
        return GapEvaluation(objectives if maximise else -objectives, lengths, None, measures)

    def _prepare(self) -> None:
        if self.count >= self.episodes:
            return
        problem, self.count = self.problem, self.episodes
        try:
            solver = choose_solver(problem, self.solver)
        except UserError:  # not installed
            self.references, self.instances = None, generate(problem, self.count, HELD_OUT_SEED)
        else:
            settings: dict[str, Any] = problem.settings()
            path = make_labels(
                problem.name, size=self.count, seed=HELD_OUT_SEED, solver=solver, effort=self.effort, **settings
            )
            labels = read_labels(path, problem)
            self.references, self.instances = labels.objectives, labels.instances
        self.heuristics = {
            name: problem.objectives(self.instances, solutions)
            for name, solutions in heuristic_solutions(problem, self.instances, self.count).items()
        }


def heuristic_solutions(problem: Problem, instances: Instance, count: int) -> dict[str, NDArray[np.int64]]:
    """What a trained policy has to beat, int64 [count, L] each."""
    every = [row(instances, k) for k in range(count)]
    if problem.name == "knapsack":
        return {"density_greedy": np.stack([problem.padded(density_greedy(one)) for one in every])}
    found = {"nearest_neighbour": np.stack([nearest_neighbour(problem, one) for one in every])}
    if problem.name in ("tsp", "atsp"):
        generator = np.random.Generator(np.random.PCG64(HELD_OUT_SEED))
        found["random_insertion"] = np.stack([random_insertion(costs_of(one), generator) for one in every])
    return found


# ---- problems, solvers, processes ------------------------------------------------------------------------------------


def problem_of(env: gym.Env) -> Problem:
    """The problem of a combinatorial environment.  Raises UserError where it has no BQ-MDP."""
    problem = getattr(env.unwrapped, "problem", None)
    if not isinstance(problem, Problem) or problem.name not in KINDS:
        raise UserError(f"bq solves {', '.join(KINDS)}; got {getattr(problem, 'name', env)}")
    if getattr(problem, "formulation", "bq") != "bq":
        raise UserError(f"bq needs formulation='bq' of {problem.name}, got '{problem.formulation}'")  # type: ignore[attr-defined]
    return problem


def problem_name(space: spaces.Space) -> str:
    """The problem whose observations ``space`` has.  Raises UserError for others."""
    found = set(space.spaces) if isinstance(space, spaces.Dict) else set()
    if {"remaining", "action_mask"} <= found:
        for key, name in (
            ("cost", "atsp"),
            ("weight", "knapsack"),
            ("demand", "cvrp"),
            ("prize", "op"),
            ("coords", "tsp"),
        ):
            if key in found:
                return name
    raise UserError(f"bq needs the observations of {', '.join(KINDS)}, got {space}")


def choose_solver(problem: Problem, name: str) -> str:
    """``name``, or for "auto" the problem's best solver: if it is not installed, rlkit's own where that does as well.

    Raises UserError for an unknown solver or one that is needed and not installed.
    """
    best = solver_name(problem.name, None if name == "auto" else name)
    try:
        solver_version(best)
    except UserError:
        if name != "auto" or problem.num_nodes > OWN_UP_TO[problem.name]:
            raise
        best = "own"
    return best


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


def describe(labels: Labels, path: Path) -> dict[str, Any]:
    """Where ``labels`` come from, for a manifest.  Raises UserError where evaluations are on the same instances."""
    made = {key: labels.metadata[key] for key in ("settings", "size", "seed", "solver", "effort", "versions")}
    if made["seed"] == HELD_OUT_SEED:
        raise UserError(f"{path}: its seed {HELD_OUT_SEED} is that of evaluations, expected another to learn from")
    digest = hashlib.sha256(json.dumps(labels.metadata["sha256"], sort_keys=True).encode()).hexdigest()
    name = f"{labels.problem.name}-{labels.problem.num_nodes}"
    return {"name": name, "source": "labels", "locator": path.name, "sha256": digest, "details": made}


def sentence(labels: Labels) -> str:
    """Where ``labels`` come from, to be read."""
    made, problem = labels.metadata, labels.problem
    what = f"{len(labels)} instances of {problem.name} with {problem.num_nodes} nodes, seed {made['seed']}"
    return f"{what}, solved by {made['solver']} with effort {made['effort']:g}"
