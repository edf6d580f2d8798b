"""Pictures of tours for prizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.drawing import depot, scatter, ways

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(axes: Axes, instance: Instance, visited: NDArray[np.int64]) -> None:
    """Nodes as large as their prize, and the way."""
    coords = instance["coords"]
    scatter(axes, coords, 6.0 + 40.0 * instance["prize"] / max(float(instance["prize"].max()), 1e-12))
    depot(axes, coords[0])
    ways(axes, coords, [visited])
