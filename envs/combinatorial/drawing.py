"""Pictures of instances and solutions, with matplotlib and without its global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance, split_routes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rlkit.envs.combinatorial.base import Problem

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#17becf")


def picture(
    problem: Problem, instance: Instance, solution: Sequence[int], objective: float | None = None, pixels: int = 400
) -> NDArray[np.uint8]:
    """``instance`` with ``solution`` (perhaps a part of one, padded or not) as uint8 ``[pixels, pixels, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0, 4.0), dpi=pixels / 4.0, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    draw(figure.add_subplot(), problem, instance, solution, objective)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw(
    axes: Axes, problem: Problem, instance: Instance, solution: Sequence[int], objective: float | None = None
) -> None:
    """Draw on matplotlib's ``axes``: tours, routes, polygons and triangles in the plane, costs and packings as bars."""
    visited = np.array([int(j) for j in solution if j >= 0], np.int64)
    if problem.name == "knapsack":
        _packing(axes, instance, visited)
    elif problem.name == "atsp":
        _matrix(axes, instance["cost"], visited)
    else:
        _plane(axes, problem, instance, visited)
    axes.set_yticks([])
    if problem.name != "knapsack":
        axes.set_xticks([])
    axes.set_title(problem.name if objective is None else f"{problem.name}: {objective:.4g}", fontsize=9)


def _plane(axes: Axes, problem: Problem, instance: Instance, visited: NDArray[np.int64]) -> None:
    coords = instance["coords"]
    axes.set_aspect("equal")
    sizes: Any = 14.0
    if problem.name == "op":
        sizes = 6.0 + 40.0 * instance["prize"] / max(float(instance["prize"].max()), 1e-12)
    elif problem.name == "cvrp":
        sizes = 6.0 + 40.0 * instance["demand"] / instance["capacity"]
    axes.scatter(coords[:, 0], coords[:, 1], s=sizes, color="#444444", zorder=3)
    if problem.name == "delaunay":
        for corners in visited[: len(visited) // 3 * 3].reshape(-1, 3):
            axes.fill(*coords[corners].T, facecolor="#1f77b433", edgecolor=COLOURS[0], linewidth=0.8)
        return
    if problem.name == "tsp" and len(visited) == len(coords):
        visited = np.append(visited, visited[0])
    if problem.name in ("cvrp", "op"):
        axes.scatter(coords[0, 0], coords[0, 1], s=60.0, marker="s", color="black", zorder=4)
    parts = [visited]
    if problem.name == "cvrp" and len(visited):
        done = np.append(visited, 0) if visited[-1] != 0 else visited
        parts = [np.concatenate(([0], route, [0])) for route in split_routes(done)]
        if visited[-1] != 0:
            parts[-1] = parts[-1][:-1]  # this route is still on its way
    for k, part in enumerate(parts):
        axes.plot(*coords[part].T, color=COLOURS[k % len(COLOURS)], linewidth=1.3)


def _matrix(axes: Axes, cost: NDArray[np.float64], visited: NDArray[np.int64]) -> None:
    axes.imshow(cost, cmap="Greys")
    steps = np.append(visited, visited[0]) if len(visited) == len(cost) else visited
    axes.scatter(steps[1:], steps[:-1], s=16.0, color=COLOURS[1])
    axes.set_xlabel("to")
    axes.set_ylabel("from")


def _packing(axes: Axes, instance: Instance, packed: NDArray[np.int64]) -> None:
    """A bar as long as the capacity; each item as wide as it weighs, the darker the more value per weight."""
    weight, value, left = instance["weight"], instance["value"], 0.0
    density = value / np.maximum(weight, 1e-12)
    shade = np.argsort(np.argsort(density)) / max(len(weight) - 1, 1)
    for j in packed:
        colour = (0.75 * (1.0 - shade[j]), 0.85 - 0.45 * shade[j], 0.95)
        axes.barh(0.0, weight[j], left=left, color=colour, edgecolor="white", linewidth=0.4)
        left += float(weight[j])
    axes.axvline(float(instance["capacity"]), color="black", linewidth=1.5)
    axes.set_xlim(0.0, 1.04 * float(instance["capacity"]))
    axes.set_xlabel("weight")
