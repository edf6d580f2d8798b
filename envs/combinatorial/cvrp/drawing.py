"""Pictures of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.cvrp.rules import split_routes
from rlkit.envs.combinatorial.drawing import depot, scatter, ways

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(axes: Axes, instance: Instance, visited: NDArray[np.int64]) -> None:
    """Customers as large as their demand, a colour for each route."""
    coords, parts = instance["coords"], [visited]
    scatter(axes, coords, 6.0 + 40.0 * instance["demand"] / instance["capacity"])
    depot(axes, coords[0])
    if len(visited):
        done = np.append(visited, 0) if visited[-1] != 0 else visited
        parts = [np.concatenate(([0], route, [0])) for route in split_routes(done)]
        if visited[-1] != 0:
            parts[-1] = parts[-1][:-1]  # this route is still on its way
    ways(axes, coords, parts)
