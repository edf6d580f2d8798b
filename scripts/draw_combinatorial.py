"""Draw docs/assets/combinatorial.png: each combinatorial problem with a heuristic and an optimal solution.

python scripts/draw_combinatorial.py            # needs no extra and takes seconds
python scripts/draw_combinatorial.py --models   # combinatorial_models.png: the weights that ship beside the solvers;
                                                # needs the extra `labels`
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlkit.agents import BQ, PtrNet
from rlkit.envs.combinatorial.base import Problem, generate, make_problem, row
from rlkit.envs.combinatorial.drawing import draw
from rlkit.envs.combinatorial.solvers import solve
from rlkit.registry import shipped_weights

HEURISTICS = [
    make_problem("tsp", num_nodes=12),
    make_problem("atsp", num_nodes=12),
    make_problem("cvrp", num_nodes=10, capacity=20),
    make_problem("op", num_nodes=12, budget=2.0),
    make_problem("knapsack", num_nodes=50),
    make_problem("convex-hull", num_nodes=20),
    make_problem("delaunay", num_nodes=10),
]
MODELS = [make_problem(name, num_nodes=50) for name in ("tsp", "atsp", "cvrp", "op", "knapsack")]
MODELS += [make_problem("convex-hull", num_nodes=10), make_problem("delaunay", num_nodes=5)]
ASSETS = Path(__file__).parent.parent / "docs" / "assets"

Solver = Callable[[Problem, dict[str, Any]], NDArray[np.int64]]


def heuristic(problem: Problem, instance: dict[str, Any]) -> NDArray[np.int64]:
    """The problem's first, or nothing but the points where it has none."""
    for find in problem.baselines().values():
        return find(problem, instance, np.random.Generator(np.random.PCG64(0)))
    return np.array([], np.int64)


def model(problem: Problem, instance: dict[str, Any]) -> NDArray[np.int64]:
    """The greedy solution of the weights that ship."""
    kind = BQ if problem.reduces else PtrNet
    return kind.load(shipped_weights(kind.name, problem.name)).solve(instance).solutions[0]


def optimal(problem: Problem, instance: dict[str, Any]) -> NDArray[np.int64]:
    return solve(problem, instance, "own")


def reference(problem: Problem, instance: dict[str, Any]) -> NDArray[np.int64]:
    return solve(problem, instance, effort=5.0)


def picture(shown: list[Problem], above: Solver, below: Solver, name: str) -> None:
    figure = Figure(figsize=(14.0, 4.4), dpi=100, layout="constrained")
    axes = figure.subplots(2, len(shown))
    for column, problem in enumerate(shown):
        instance = row(generate(problem, 1, 5), 0)
        for axis, solver in zip(axes[:, column], (above, below), strict=True):
            solution = solver(problem, instance)
            value = problem.objective(instance, solution) if len(solution) else None
            draw(axis, problem, instance, solution, value)
    FigureCanvasAgg(figure).print_png(ASSETS / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", action="store_true", help="the weights that ship, beside the labels' solvers")
    if parser.parse_args().models:
        picture(MODELS, model, reference, "combinatorial_models.png")
    else:
        picture(HEURISTICS, heuristic, optimal, "combinatorial.png")


if __name__ == "__main__":
    main()
