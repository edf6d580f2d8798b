"""Two policies on the toy garden whose divergences are published."""

from __future__ import annotations

import numpy as np
import occupancy as o
from numpy.typing import NDArray
from tomato_table import tabulate

UP = 3


def toy() -> tuple[NDArray[np.float64], ...]:
    """Occupancies of half up, half uniform, and of uniform, on the toy board; and the two policies."""
    table = tabulate("toy")
    n_states = len(table.following)
    start, base = np.eye(n_states)[0], np.full((n_states, 5), 0.2)
    policy = 0.5 * base
    policy[:, UP] += 0.5
    mu, nu = (o.occupancy(table.transitions(), start, p, 0.99) for p in (policy, base))
    return mu, nu, policy, base
