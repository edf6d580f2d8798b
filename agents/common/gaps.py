"""What combinatorial agents are measured by: solutions under the rules, their gaps, heuristics beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlkit.algorithms.evaluate import Evaluation, Evaluator
from rlkit.envs.combinatorial.base import Problem, generate
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.instances import Solutions
from rlkit.envs.combinatorial.labels import make_labels, read_labels
from rlkit.envs.combinatorial.metrics import gap
from rlkit.envs.combinatorial.solvers import choose_solver, heuristic_solutions
from rlkit.errors import UserError

HELD_OUT_SEED = 2**31  # of the instances that evaluations are on


def problem_of(world: gym.Env) -> Problem | None:
    """The problem of a combinatorial environment; None of others."""
    problem = getattr(world.unwrapped, "problem", None)
    return problem if isinstance(problem, Problem) else None


@dataclass(frozen=True)
class SolutionEvaluation(Evaluation):
    """An evaluation with further means by name, such as the gap in percent."""

    measures: Mapping[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, float]:
        return {**super().summary(), **self.measures}


class SolutionEvaluator(Evaluator):
    """Judges solutions of whole instances of ``problem``; a subclass says which, and by what further measures."""

    def __init__(self, env_id: str, problem: Problem, *, episodes: int, seed: int):
        super().__init__(env_id, episodes=episodes, seed=seed)
        self.problem = problem

    def told(self, found: Solutions, measures: Mapping[str, float]) -> SolutionEvaluation:
        """The evaluation that solutions ``found`` of the problem amount to."""
        lengths = np.array([len(self.problem.actions(solution)) for solution in found.solutions], np.int64)
        returns = found.objectives if self.problem.maximise else -found.objectives
        return SolutionEvaluation(returns, lengths, None, measures)


class GapEvaluator(SolutionEvaluator):
    """Solutions, greedy unless ``search`` says otherwise, of ``episodes`` instances that no training sees.

    They are always the same ones.  Their references are made by the solver of the labels, once, and kept where labels
    are; without a solver only objectives are compared, with those of heuristics.
    """

    def __init__(self, env_id: str, problem: Problem, episodes: int, solver: str, effort: float):
        super().__init__(env_id, problem, episodes=episodes, seed=HELD_OUT_SEED)
        self.search: dict[str, int] = {}  # options of solve()
        self.solver, self.effort, self.count = solver, effort, 0

    def measure(self, agent: Any, index: int) -> SolutionEvaluation:
        """The same whatever ``index``.  ``agent`` has ``solve``, which searches and does not sample."""
        if self.judged != "greedy":
            raise UserError(f"judged={self.judged}: {agent.name} searches for solutions, expected greedy")
        self._prepare()
        found = agent.solve({key: value[: self.episodes] for key, value in self.instances.items()}, **self.search)
        return self.told(found, self._gaps(found.objectives))

    def _gaps(self, objectives: NDArray[np.float64]) -> dict[str, float]:
        measures = {}
        for name, values in {"": objectives, **self.heuristics}.items():
            values, prefix = values[: self.episodes], f"{name}_" if name else ""
            measures[f"{prefix}objective"] = float(values.mean())
            if self.references is not None:
                found = gap(values, self.references[: self.episodes], maximise=self.problem.maximise)
                measures[f"{prefix}gap"] = float(found.mean())
        return measures

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
            for name, solutions in held_out_heuristics(problem, self.instances).items()
        }


def held_out_heuristics(problem: Problem, instances: Instance) -> dict[str, NDArray[np.int64]]:
    """Solutions of the problem's heuristics on held-out ``instances``, int64 ``[B, L]`` by name."""
    return heuristic_solutions(problem, instances, np.random.Generator(np.random.PCG64(HELD_OUT_SEED)))
