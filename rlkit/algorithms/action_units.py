"""The units in which agents act and learn: [-1, 1] in every column, whatever an environment's own are."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

from rlkit.errors import UserError


def action_units(action_space: spaces.Box) -> tuple[Float[Tensor, " da"], Float[Tensor, " da"]]:
    """Half the width and the centre of each column of the box: action u in [-1, 1] is ``centre + reach * u`` outside.

    Raises :class:`UserError` where float32 knows no such units: a column without bounds or without width.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (torch.as_tensor(side) for side in (action_space.low, action_space.high))
        reach, centre = (high - low).float() / 2, (high + low).float() / 2
        fits = reach.isfinite() & centre.isfinite() & reach.reciprocal().isfinite()
    if not fits.all():
        column = tuple(fits.logical_not().nonzero()[0].tolist())
        raise UserError(
            f"the agent acts within bounds: column {column[-1]} of the action space goes from {float(low[column]):g} "
            f"to {float(high[column]):g}, expected finite bounds with room between them"
        )
    return reach, centre
