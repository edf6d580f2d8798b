"""The units in which agents act and learn: [-1, 1] in every column, whatever an environment's own are.

A discrete action is a column for each of those there are to choose from, 1 in the one that was chosen, else 0.
"""

from __future__ import annotations

import math

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


def action_width(action_space: spaces.Space) -> int:
    """How many columns an action of a Box or Discrete space has in units of the agent's."""
    return int(action_space.n) if isinstance(action_space, spaces.Discrete) else math.prod(action_space.shape or ())


def in_units(actions: Tensor, action_space: spaces.Space) -> Float[Tensor, "n da"]:
    """``actions`` of the space, ``[n, da]`` or discrete ones ``[n]``, in units of the agent's.

    Raises :class:`UserError` as :func:`action_units`.
    """
    if isinstance(action_space, spaces.Discrete):
        chosen = actions.long() - int(action_space.start)  # [n]
        return torch.nn.functional.one_hot(chosen, int(action_space.n)).float()
    assert isinstance(action_space, spaces.Box)
    reach, centre = (part.to(actions.device) for part in action_units(action_space))
    return actions.float().sub(centre).div_(reach)
