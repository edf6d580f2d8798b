"""The knapsack on tensors; its states have no ends, tokens are the items alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.bisimulation import Instance, SubProblems
from rlkit.envs.combinatorial.device import LARGE, DeviceRules, States
from rlkit.envs.combinatorial.knapsack.rules import TOLERANCE
from rlkit.errors import UserError


class Device(DeviceRules):
    """Tokens (w, v, W)."""

    features, ends, copies = 3, False, 1

    @classmethod
    def columns(cls, arrays: Instance) -> list[NDArray[Any]]:
        return [arrays["weight"], arrays["value"]]

    @classmethod
    def build_tokens(
        cls, static: Tensor, matrix: Tensor | None, states: States, scalar: Tensor
    ) -> tuple[Float[Tensor, "batch r 3"], None]:
        tokens = static[states.owner[:, None], states.remaining]  # [batch, r, 2]
        return torch.cat((tokens, scalar[:, None, None].expand(-1, tokens.shape[1], 1)), dim=-1), None

    @classmethod
    def to_unit_box(
        cls, tokens: Float[Tensor, "batch r 3"], cost: Tensor | None
    ) -> tuple[Float[Tensor, "batch r 3"], Tensor | None]:
        """Weights and capacity over the heaviest item, values over the best."""
        most = tokens[..., :2].amax(dim=1, keepdim=True).clamp_min(1e-12)  # [batch, 1, 2]
        return tokens / torch.cat((most, most[..., :1]), dim=-1), cost

    def feasible(self, states: States) -> Bool[Tensor, "p r 1"]:
        weight = self.exact["weight"][states.owner[:, None], states.remaining]
        return (weight <= states.budget[:, None] + TOLERANCE)[..., None]

    def outcome(self, states: States, rows: Tensor, node: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        owner = states.owner[rows]
        left = states.budget[rows] - self.exact["weight"][owner, node]
        return states.total[rows] + self.exact["value"][owner, node], left

    def nearness(self, states: States) -> Float[Tensor, "p r"]:
        """Of the most value per weight."""
        owner, items = states.owner[:, None], states.remaining
        density = -self.exact["value"][owner, items] / self.exact["weight"][owner, items].clamp_min(1e-12)
        return density.clamp_min(-LARGE / 2)

    def key(self, names: Tensor, node: Tensor, budget: Tensor) -> int:
        return 0  # what remains is all that a state knows

    @classmethod
    def solutions(cls, starts: NDArray[np.int64], actions: NDArray[np.int64]) -> NDArray[np.int64]:
        return actions

    @classmethod
    def steps(cls, solutions: NDArray[np.int64]) -> NDArray[np.int64]:
        return (solutions >= 0).sum(axis=1)

    @classmethod
    def sub_problems(
        cls, instances: Instance, solutions: NDArray[np.int64], size: int, generator: np.random.Generator
    ) -> SubProblems:
        """States after ``size`` random items of ``solutions [B, L]`` (items, padded with -1).

        The order of an optimal set is of no matter: the target is uniform over its remaining items.
        """
        least = int(cls.steps(solutions).min())
        if not 0 <= size < least:
            raise UserError(
                f"size={size} packed items are out of range, expected 0 to {least - 1}, fewer than every solution has"
            )
        weight, n = instances["weight"], instances["weight"].shape[1]
        nodes, budget = np.zeros((len(solutions), n - size), np.int64), np.zeros(len(solutions))
        target = np.zeros((len(solutions), n - size, 1))
        for i, solution in enumerate(solutions):
            items = generator.permutation(solution[solution >= 0])
            nodes[i] = np.setdiff1d(np.arange(n), items[:size])
            budget[i] = instances["capacity"][i] - weight[i, items[:size]].sum()
            target[i, :, 0] = np.isin(nodes[i], items[size:]) / (len(items) - size)
        return SubProblems(nodes, budget, target)
