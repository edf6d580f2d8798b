"""BQ-NCO's network: a transformer over what is left of an instance, with one score for every possible action.

Tokens are those of the problem, the origin and the destination first (neither
for the knapsack); there is no positional encoding, so the scores follow the tokens through any renumbering.

    x₀ = W t + b, plus one learned vector at the origin and another at the destination          BQNetwork.forward
    x ← x + MHA(RMSNorm x),  x ← x + FF(RMSNorm x), several times                               Block
    scores = W' RMSNorm x of what remains                                                       BQNetwork.forward

With ``distances``, head h of a layer attends by q_i · k_j / √d - s_h² |x_i - x_j|², s learnt: four more columns of
queries and keys (``agents.common.blocks.folded``).

ATSP has no features but its costs.  A token shows its costs to and from the two ends and the means of its row and
column; every attention logit is raised by u_h · [c_ij, c_ji, relu(V [c_ij, c_ji])]             CostBias
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlkit.agents.common.blocks import Block, BlockShape, folded
from rlkit.algorithms.nets import linear
from rlkit.envs.combinatorial.device import DeviceRules


@dataclass(frozen=True)
class Shape(BlockShape):
    """Sizes of a network.  paper: ReZero, coordinates as they are and one score per action; rescale: every sub-problem
    to the unit square; two_ended: also score the node before the destination; distances: where nodes have places,
    attention falls with the squared distance."""

    rescale: bool = True
    two_ended: bool = True
    distances: bool = False


def cost_features(cost: Float[Tensor, "batch k k"]) -> Float[Tensor, "batch k 6"]:
    """ATSP's features of token j: c(o, j), c(j, o), c(d, j), c(j, d), and the means of its row and its column."""
    ends = [cost[:, 0], cost[:, :, 0], cost[:, 1], cost[:, :, 1]]
    return torch.stack([*ends, cost.mean(dim=2), cost.mean(dim=1)], dim=-1)


class BQNetwork(nn.Module):
    """Scores for the states of a problem with these ``rules``; weights come from ``generator``."""

    def __init__(self, rules: type[DeviceRules], shape: Shape, generator: torch.Generator):
        super().__init__()
        self.rules, self.rescale, self.kinds = rules, shape.rescale and not shape.paper, rules.kinds
        self.embed = linear(rules.features, shape.width, generator)
        self.marks: nn.Parameter | None = None
        if rules.ends:
            marks = torch.empty(2, shape.width).uniform_(-1.0, 1.0, generator=generator) * shape.width**-0.5
            self.marks = nn.Parameter(marks)  # of the origin, of the destination
        self.distances = rules.places and shape.distances and not shape.paper
        self.blocks = nn.ModuleList(Block(shape, rules.costs, generator, self.distances) for _ in range(shape.layers))
        self.norm = nn.Identity() if shape.paper else nn.RMSNorm(shape.width, eps=1e-6)
        backward = rules.reversible and shape.two_ended and not shape.paper
        self.head = linear(shape.width, self.kinds + backward, generator)

    def forward(
        self, tokens: Float[Tensor, "batch k f"], cost: Float[Tensor, "batch k k"] | None = None
    ) -> Float[Tensor, "batch r ends"]:
        """Scores float32 of what remains: ``kinds`` columns for the next action and, for symmetric problems trained
        from both ends, one more for the node before the destination."""
        if self.rescale:
            tokens, cost = self.rules.to_unit_box(tokens, cost)
        pairs, near = None, folded(tokens[..., :2]) if self.distances else None
        if cost is not None:
            tokens, pairs = cost_features(cost), torch.stack((cost, cost.transpose(1, 2)), dim=-1)  # [batch, k, k, 2]
        with torch.autocast(tokens.device.type, enabled=False):  # bfloat16 would move nodes by 1/256
            x = self.embed(tokens)  # [batch, k, d]
        if self.marks is not None:
            x = torch.cat((x[:, :2] + self.marks, x[:, 2:]), dim=1)
        for block in self.blocks:
            x = block(x, pairs, near)
        remaining = x if self.marks is None else x[:, 2:]  # [batch, r, d]
        with torch.autocast(x.device.type, enabled=False):  # scores of eight bits would tie
            return self.head(self.norm(remaining))
