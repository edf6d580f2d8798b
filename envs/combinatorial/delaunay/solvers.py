"""The one solver of this problem: its answer is unique, and no heuristic stands beside it."""

from __future__ import annotations

from rlkit.envs.combinatorial.base import MOST_NODES, Baseline, Problem
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.solvers import Solution, Solver

OWN_UP_TO = MOST_NODES  # it is exact


def own(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """The triangulation."""
    return problem.target(instance)


SOLVERS: dict[str, Solver] = {"own": own}
BASELINES: dict[str, Baseline] = {}
