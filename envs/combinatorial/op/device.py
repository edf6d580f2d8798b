"""Orienteering on tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.bisimulation import Instance, SubProblems, one_hot
from rlkit.envs.combinatorial.device import LARGE, DeviceRules, States, closed_walks
from rlkit.envs.combinatorial.op.rules import TOLERANCE
from rlkit.errors import UserError


class Device(DeviceRules):
    """Tokens (x, y, p, B)."""

    features = 4

    @classmethod
    def columns(cls, arrays: Instance) -> list[NDArray[Any]]:
        return [arrays["coords"], arrays["prize"]]

    @classmethod
    def scaled(cls, own: Tensor, extent: Tensor) -> tuple[Tensor, ...]:
        """The length left is one of the square's."""
        return own[..., :1], own[..., 1:] / extent

    def feasible(self, states: States) -> Bool[Tensor, "p r 1"]:
        owner, nodes = states.owner[:, None], states.remaining
        ways = self.way(owner, states.origin[:, None], nodes) + self.way(owner, nodes, torch.zeros_like(nodes))
        return (ways <= states.budget[:, None] + TOLERANCE)[..., None]

    def outcome(self, states: States, rows: Tensor, node: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        owner = states.owner[rows]
        left = states.budget[rows] - self.way(owner, states.origin[rows], node)
        return states.total[rows] + self.exact["prize"][owner, node], left

    def near(self, states: States, allowed: Bool[Tensor, "p r 1"], k: int) -> Int[Tensor, "p k"]:
        """Half of them nearest, half of the highest prizes."""
        last = (~allowed.any(dim=-1)) * LARGE  # [P, R]
        close = (self.nearness(states) + last).topk(k - k // 2, dim=1, largest=False).indices
        rich = (last - self.exact["prize"][states.owner[:, None], states.remaining]).scatter(1, close, 2 * LARGE)
        return torch.cat((close, rich.topk(k // 2, dim=1, largest=False).indices), dim=1).sort(dim=1).values

    def worth(self, total: Tensor, budget: Tensor) -> Tensor:
        """Equal states have collected the same prizes; the one with the most length left is the better."""
        return budget

    @classmethod
    def solutions(cls, starts: NDArray[np.int64], actions: NDArray[np.int64]) -> NDArray[np.int64]:
        return closed_walks(actions)

    @classmethod
    def steps(cls, solutions: NDArray[np.int64]) -> NDArray[np.int64]:
        return (solutions > 0).sum(axis=1)

    @classmethod
    def sub_problems(
        cls, instances: Instance, solutions: NDArray[np.int64], size: int, generator: np.random.Generator
    ) -> SubProblems:
        """States after ``size`` nodes of ``solutions [B, L]`` (0 .. 0, padded with -1), in either direction.

        Everything not visited remains, as a distractor or as part of the optimal tail; the budget is what the way so
        far has left.
        """
        least = int(cls.steps(solutions).min())
        if not 0 <= size < least:
            raise UserError(
                f"size={size} visited nodes are out of range, expected 0 to {least - 1}, fewer than every tour has"
            )
        coords, total = instances["coords"], instances["coords"].shape[1] - 1
        nodes, budget = np.zeros((len(solutions), total - size + 2), np.int64), np.zeros(len(solutions))
        for i, solution in enumerate(solutions):
            tour = solution[solution > 0]
            if generator.random() < 0.5:
                tour = tour[::-1]
            way = np.concatenate(([0], tour[:size]))
            others = np.setdiff1d(np.arange(1, total + 1), tour[: size + 1])
            nodes[i] = np.concatenate(([way[-1], tour[size]], others, [0]))
            steps = coords[i][way[1:]] - coords[i][way[:-1]]
            budget[i] = instances["budget"][i] - np.sqrt((steps**2).sum(axis=1)).sum()
        return SubProblems(nodes, budget, one_hot(np.ones(len(nodes), np.int64), nodes.shape[1]))
