"""The knapsack on tensors; its states have no ends, tokens are the items alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.device import LARGE, DeviceRules, States, SubProblems, picked
from rlkit.envs.combinatorial.knapsack.rules import TOLERANCE
from rlkit.errors import UserError


class Device(DeviceRules):
    """Tokens (w, v, W)."""

    features, ends, places, copies = 3, False, False, 1

    @classmethod
    def columns(cls, arrays: Instance) -> list[NDArray[Any]]:
        return [arrays["weight"], arrays["value"]]

    @classmethod
    def build_tokens(
        cls, static: Tensor, matrix: Tensor | None, states: States, scalar: Tensor
    ) -> tuple[Float[Tensor, "batch r 3"], None]:
        tokens = picked(static, states.owner, states.remaining)  # [batch, r, 2]
        return torch.cat((tokens, scalar[:, None, None].expand(-1, tokens.shape[1], 1)), dim=-1), None

    @classmethod
    def to_unit_box(
        cls, tokens: Float[Tensor, "batch r 3"], cost: Tensor | None
    ) -> tuple[Float[Tensor, "batch r 3"], Tensor | None]:
        """Weights and capacity over the heaviest item, values over the best."""
        most = tokens[..., :2].amax(dim=1, keepdim=True).clamp_min(1e-12)  # [batch, 1, 2]
        return tokens / torch.cat((most, most[..., :1]), dim=-1), cost

    def feasible(self, states: States) -> Bool[Tensor, "p r 1"]:
        weight = picked(self.exact["weight"], states.owner, states.remaining)
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

    def layout(
        self, rows: NDArray[np.int64], solutions: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Items that are packed, behind them those that are not."""
        packed = np.zeros((len(solutions), self.nodes), np.bool_)
        on, columns = np.nonzero(solutions >= 0)
        packed[on, solutions[on, columns]] = True
        count = packed.sum(axis=1)
        return count, {"order": np.argsort(~packed, axis=1, kind="stable"), "packed": count}

    def lots(self, rows: NDArray[np.int64], size: int, generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """An order of the packed items, the others behind them."""
        most = int(self.counts.max()) - 1
        if not 0 <= size <= most:
            raise UserError(
                f"size={size} packed items are out of range, expected 0 to {most}, fewer than a solution has"
            )
        keys = generator.random((len(rows), self.nodes))
        keys[np.arange(self.nodes) >= self.counts[rows, None]] = 2.0
        return (keys.argsort(axis=1),)

    def cut(self, rows: Int[Tensor, " p"], size: int, *lots: Tensor) -> SubProblems:
        """States after ``size`` random items of solutions that have more.

        The order of an optimal set is of no matter: the target is uniform over its remaining items.
        """
        (places,) = lots  # [P, N]
        packed = self.laid["packed"][rows, None]  # [P, 1]
        items = picked(self.laid["order"], rows, places)
        assert self.limit is not None
        budget = self.limit[rows] - picked(self.exact["weight"], rows, items[:, :size]).sum(dim=1)
        right = (torch.arange(size, self.nodes, device=self.device) < packed) / (packed - size).float()
        nowhere = torch.zeros_like(rows)
        return SubProblems(self.states(rows, nowhere, items[:, size:], budget), right[..., None])
