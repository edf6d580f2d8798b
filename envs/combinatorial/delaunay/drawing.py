"""Pictures of triangulations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.drawing import COLOURS, scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(axes: Axes, instance: Instance, visited: NDArray[np.int64]) -> None:
    """Points and the triangles so far."""
    coords = instance["coords"]
    scatter(axes, coords)
    for corners in visited[: len(visited) // 3 * 3].reshape(-1, 3):
        axes.fill(*coords[corners].T, facecolor="#1f77b433", edgecolor=COLOURS[0], linewidth=0.8)
