"""Pictures of instances and solutions, with matplotlib and without its global state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import PICTURES, Problem, Solved
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CROWD = 200  # points from which on they are drawn smaller
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


def require_picture(path: Path) -> None:
    """Raise UserError for a ``path`` whose suffix is none of :data:`PICTURES`."""
    if path.suffix not in PICTURES or path.is_dir():
        raise UserError(f"{path} is no picture, expected a file ending in {' or '.join(PICTURES)}")


def pictures(problem: type[Problem], solved: Sequence[Solved], suffix: str) -> bytes:
    """One picture, in rows, of instances with their solutions; ``suffix``, one of :data:`PICTURES`, is its format.

    The same ones give the same bytes.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    across = math.isqrt(len(solved) - 1) + 1
    down = -(-len(solved) // across)
    side = 6.0 if len(solved) == 1 else 4.0  # inches
    figure = Figure(figsize=(side * across, side * down), dpi=150, layout="constrained")
    for i, (instance, solution, objective) in enumerate(solved):
        draw(figure.add_subplot(down, across, i + 1), problem, instance, solution, objective)
    held = BytesIO()
    with rc_context({"svg.hashsalt": problem.name}):
        undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
        figure.savefig(held, format=suffix[1:], metadata=undated)
    return held.getvalue()


def draw(
    axes: Axes,
    problem: Problem | type[Problem],
    instance: Instance,
    solution: Sequence[int],
    objective: float | None = None,
) -> None:
    """Draw on matplotlib's ``axes``: tours, routes, polygons and triangles in the plane, costs and packings as bars."""
    visited = np.array([int(j) for j in solution if j >= 0], np.int64)
    problem.part("drawing", "draw")(axes, instance, visited)
    axes.set_yticks([])
    axes.set_title(problem.name if objective is None else f"{problem.name}: {objective:.4g}", fontsize=9)


def scatter(axes: Axes, coords: NDArray[np.float64], sizes: Any = 14.0) -> None:
    """Points ``[n, 2]``, of one size or of ``sizes [n]``; the smaller the more of them there are."""
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.scatter(coords[:, 0], coords[:, 1], s=sizes * min(1.0, CROWD / len(coords)), color="#444444", zorder=3)


def depot(axes: Axes, place: NDArray[np.float64]) -> None:
    """A square at ``place [2]``."""
    axes.scatter(place[0], place[1], s=60.0, marker="s", color="black", zorder=4)


def ways(axes: Axes, coords: NDArray[np.float64], parts: Sequence[NDArray[np.int64]]) -> None:
    """A line in a colour of its own through the points of each of ``parts``."""
    for k, part in enumerate(parts):
        axes.plot(*coords[part].T, color=COLOURS[k % len(COLOURS)], linewidth=1.3)
