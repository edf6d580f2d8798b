"""Draw docs/assets/combinatorial.png: each combinatorial problem with a heuristic and an optimal solution.

Run ``python scripts/draw_combinatorial.py``; it needs no extra and takes seconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rlkit.envs import solvers
from rlkit.envs.combinatorial import generate, make_problem, row
from rlkit.envs.drawing import draw
from rlkit.envs.label_solvers import solve

SHOWN = {
    "tsp": {"num_nodes": 12},
    "atsp": {"num_nodes": 12},
    "cvrp": {"num_nodes": 10, "capacity": 20},
    "op": {"num_nodes": 12, "budget": 2.0},
    "knapsack": {"num_nodes": 50},
    "convex-hull": {"num_nodes": 20},
    "delaunay": {"num_nodes": 10},
}
TARGET = Path(__file__).parent.parent / "docs" / "assets" / "combinatorial.png"


def main() -> None:
    figure = Figure(figsize=(14.0, 4.4), dpi=100, layout="constrained")
    axes = figure.subplots(2, len(SHOWN))
    for column, (name, settings) in enumerate(SHOWN.items()):
        problem = make_problem(name, **settings)
        instance = row(generate(problem, 1, 5), 0)
        optimal = solve(problem, instance, "own")
        if name == "knapsack":
            other = solvers.density_greedy(instance)
        elif name in ("convex-hull", "delaunay"):
            other = np.array([], np.int64)  # nothing but the points
        else:
            other = solvers.nearest_neighbour(problem, instance)
        for axis, solution in zip(axes[:, column], (other, optimal), strict=True):
            value = problem.objective(instance, solution) if len(solution) else None
            draw(axis, problem, instance, solution, value)
    FigureCanvasAgg(figure).print_png(TARGET)


if __name__ == "__main__":
    main()
