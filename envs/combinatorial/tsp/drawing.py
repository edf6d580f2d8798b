"""Pictures of tours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.drawing import scatter, ways

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(axes: Axes, instance: Instance, visited: NDArray[np.int64]) -> None:
    """Points and the way through ``visited [k]``, closed where it is whole."""
    coords = instance["coords"]
    scatter(axes, coords)
    ways(axes, coords, [np.append(visited, visited[0]) if len(visited) == len(coords) else visited])
