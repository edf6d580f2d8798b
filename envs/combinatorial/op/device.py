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

    def layout(
        self, rows: NDArray[np.int64], solutions: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Nodes in the order of the tour, behind them those not visited; lengths up to each, and of the whole tour."""
        coords = self.exact["coords"][torch.as_tensor(rows).to(self.device)].cpu().numpy()
        count, n = len(rows), coords.shape[1] - 1
        visited, when = self.steps(solutions), np.full((count, n + 1), n + 2)
        on, place = np.nonzero(solutions > 0)
        when[on, solutions[on, place]] = place
        order = when[:, 1:].argsort(axis=1, kind="stable") + 1
        stops = np.zeros((count, n + 2), np.int64)  # back at 0, and staying there
        stops[on, place] = solutions[on, place]
        places = np.take_along_axis(coords, stops[..., None], axis=1)
        way = np.zeros((count, n + 2))
        way[:, 1:] = np.sqrt(((places[:, 1:] - places[:, :-1]) ** 2).sum(axis=2)).cumsum(axis=1)
        return visited, {"order": order, "way": way, "visited": visited}

    def lots(self, rows: NDArray[np.int64], size: int, generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """In which direction tours are walked."""
        most = int(self.counts.max()) - 1
        if not 0 <= size <= most:
            raise UserError(f"size={size} visited nodes are out of range, expected 0 to {most}, fewer than a tour has")
        return (generator.integers(2, size=len(rows), dtype=np.bool_),)

    def cut(self, rows: Int[Tensor, " p"], size: int, *lots: Tensor) -> SubProblems:
        """States after ``size`` nodes of tours that have more.

        Everything not visited remains, as a distractor or as part of the optimal tail; the budget is what the way so
        far has left.  The first column is the target.
        """
        (back,) = lots
        order, way = self.laid["order"], self.laid["way"]
        begun, length = int(size > 0), self.laid["visited"][rows]  # begun: there is a node visited last
        places = torch.arange(size - begun, order.shape[1], device=self.device)
        swap = back[:, None] & (places < length[:, None])
        nodes = picked(order, rows, torch.where(swap, length[:, None] - 1 - places, places))
        origin, remaining = (nodes[:, 0], nodes[:, 1:]) if begun else (torch.zeros_like(rows), nodes)
        left = way[rows, length + 1] - way[rows, length + 1 - size]
        assert self.limit is not None
        budget = self.limit[rows] - torch.where(back, left, way[rows, size])
        target = torch.zeros((1, remaining.shape[1], 1), device=self.device)
        target[:, 0] = 1.0
        return SubProblems(self.states(rows, origin, remaining, budget), target)
