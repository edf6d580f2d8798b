"""Pictures of tours through a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.drawing import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(axes: Axes, instance: Instance, visited: NDArray[np.int64]) -> None:
    """Costs as shades, the steps of the tour as dots, from row to column."""
    cost = instance["cost"]
    axes.imshow(cost, cmap="Greys")
    axes.set_xticks([])
    steps = np.append(visited, visited[0]) if len(visited) == len(cost) else visited
    axes.scatter(steps[1:], steps[:-1], s=16.0, color=COLOURS[1])
    axes.set_xlabel("to")
    axes.set_ylabel("from")
