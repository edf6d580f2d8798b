"""Pictures of packings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(axes: Axes, instance: Instance, visited: NDArray[np.int64]) -> None:
    """A bar as long as the capacity; each item as wide as it weighs, the darker the more value per weight."""
    weight, value, left = instance["weight"], instance["value"], 0.0
    density = value / np.maximum(weight, 1e-12)
    shade = np.argsort(np.argsort(density)) / max(len(weight) - 1, 1)
    for j in visited:
        colour = (0.75 * (1.0 - shade[j]), 0.85 - 0.45 * shade[j], 0.95)
        axes.barh(0.0, weight[j], left=left, color=colour, edgecolor="white", linewidth=0.4)
        left += float(weight[j])
    axes.axvline(float(instance["capacity"]), color="black", linewidth=1.5)
    axes.set_xlim(0.0, 1.04 * float(instance["capacity"]))
    axes.set_xlabel("weight")
