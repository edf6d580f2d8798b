"""Orienteering on tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.device import LARGE, DeviceRules, States, SubProblems, closed_walks, picked
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
        coords, owner = self.exact["coords"], states.owner
        x, y = picked(coords, owner, states.remaining).unbind(-1)  # [P, R]
        ways = torch.zeros_like(x)
        for end in (states.origin, torch.zeros_like(owner)):
            ends = coords[owner, end]
            ways += ((x - ends[:, :1]).square_() + (y - ends[:, 1:]).square_()).sqrt_()
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

    def follow(self, solutions: NDArray[np.int64]) -> None:
        """Nodes in the order of the tour, behind them those not visited; lengths up to each, and of the whole tour."""
        coords = self.exact["coords"].cpu().numpy()
        count, n = len(solutions), coords.shape[1] - 1
        visited = self.steps(solutions)
        order, way = np.zeros((count, n), np.int64), np.zeros((count, n + 2))
        for i, solution in enumerate(solutions):
            tour = solution[solution > 0]
            order[i] = np.concatenate((tour, np.setdiff1d(np.arange(1, n + 1), tour)))
            stops = coords[i][np.concatenate(([0], tour, [0]))]
            way[i, 1 : len(stops)] = np.sqrt(((stops[1:] - stops[:-1]) ** 2).sum(axis=1)).cumsum()
        self.order, self.way_to, self.visited = (
            torch.as_tensor(part).to(self.device) for part in (order, way, visited)
        )
        self.most = int(visited.max()) - 1

    def lots(self, rows: NDArray[np.int64], size: int, generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """In which direction tours are walked."""
        most = self.most
        if not 0 <= size <= most:
            raise UserError(f"size={size} visited nodes are out of range, expected 0 to {most}, fewer than a tour has")
        return (generator.integers(2, size=len(rows), dtype=np.bool_),)

    def cut(self, rows: Int[Tensor, " p"], size: int, *lots: Tensor) -> SubProblems:
        """States after ``size`` nodes of tours that have more.

        Everything not visited remains, as a distractor or as part of the optimal tail; the budget is what the way so
        far has left.  The first column is the target.
        """
        (back,) = lots
        begun, length = int(size > 0), self.visited[rows]  # begun: there is a node visited last
        places = torch.arange(size - begun, self.order.shape[1], device=self.device)
        swap = back[:, None] & (places < length[:, None])
        nodes = picked(self.order, rows, torch.where(swap, length[:, None] - 1 - places, places))
        origin, remaining = (nodes[:, 0], nodes[:, 1:]) if begun else (torch.zeros_like(rows), nodes)
        left = self.way_to[rows, length + 1] - self.way_to[rows, length + 1 - size]
        assert self.limit is not None
        budget = self.limit[rows] - torch.where(back, left, self.way_to[rows, size])
        target = torch.zeros((1, remaining.shape[1], 1), device=self.device)
        target[:, 0] = 1.0
        return SubProblems(self.states(rows, origin, remaining, budget), target)
