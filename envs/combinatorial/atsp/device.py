"""The asymmetric travelling salesman on tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.device import States, TourRules, picked


class Device(TourRules):
    """Tokens have costs between each other, from which a network makes their features: to and from the two ends, and
    the means of row and column."""

    features, costs, places = 6, True, False

    @classmethod
    def columns(cls, arrays: Instance) -> list[NDArray[Any]]:
        return []

    @classmethod
    def observed(cls, arrays: Instance, device: torch.device | str) -> tuple[Tensor, Tensor]:
        cost = torch.as_tensor(arrays["cost"].astype(np.float32), device=device)
        return cost.new_zeros((*cost.shape[:2], 0)), cost

    @classmethod
    def build_tokens(
        cls, static: Tensor, matrix: Tensor | None, states: States, scalar: Tensor
    ) -> tuple[Float[Tensor, "batch k 0"], Float[Tensor, "batch k k"]]:
        assert matrix is not None
        owner, nodes = states.owner, cls.token_nodes(states)  # [batch, k]
        ways = picked(matrix, owner, nodes).gather(2, nodes[:, None].expand(-1, nodes.shape[1], -1))
        return ways.new_zeros((*nodes.shape, 0)), ways

    @classmethod
    def to_unit_box(
        cls, tokens: Float[Tensor, "batch k 0"], cost: Float[Tensor, "batch k k"] | None
    ) -> tuple[Float[Tensor, "batch k 0"], Float[Tensor, "batch k k"] | None]:
        """Costs over the largest."""
        assert cost is not None
        return tokens, cost / cost.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)

    def way(self, owner: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return self.exact["cost"][owner, i, j]
