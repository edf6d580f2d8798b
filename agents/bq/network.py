"""BQ-NCO's network: a transformer over what is left of an instance, with one score for every possible action.

Tokens are those of :func:`rlkit.envs.combinatorial.bisimulation.reduce`, the origin and the destination first (neither
for the knapsack); there is no positional encoding, so the scores follow the tokens through any renumbering.

    x₀ = W t + b, plus one learned vector at the origin and another at the destination          BQNetwork.forward
    x ← x + MHA(RMSNorm x),  x ← x + FF(RMSNorm x), several times                               Block
    scores = W' RMSNorm x of what remains                                                       BQNetwork.forward

ATSP has no features but its costs.  A token shows its costs to and from the two ends and the means of its row and
column; every attention logit is raised by u_h · [c_ij, c_ji, relu(V [c_ij, c_ji])]             CostBias
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rlkit.algorithms.nets import linear

FEATURES = {"tsp": 2, "atsp": 6, "cvrp": 4, "op": 4, "knapsack": 3}
KINDS = {"tsp": 1, "atsp": 1, "cvrp": 2, "op": 1, "knapsack": 1}  # of action per token; cvrp: direct, by the depot
SYMMETRIC = ("tsp",)  # whose paths are optimal in both directions
PAIR_HIDDEN = 16  # units of the relu layer over a pair's two costs


@dataclass(frozen=True)
class Shape:
    """Sizes of a network.  width: of a token, a multiple of heads; paper: ReZero, coordinates as they are and one score
    per action; rescale: every sub-problem to the unit square; two_ended: also score the node before the destination."""

    width: int
    layers: int
    heads: int
    feedforward: int
    paper: bool = False
    rescale: bool = True
    two_ended: bool = True


# ---- one size for all ----------------------------------------------------------------------------------------------


def to_unit_box(
    name: str, tokens: Float[Tensor, "batch k f"], cost: Float[Tensor, "batch k k"] | None
) -> tuple[Float[Tensor, "batch k f"], Float[Tensor, "batch k k"] | None]:
    """The same sub-problem in a unit square: moved and scaled alike in x and y, the length left of op with them.

    atsp: costs over the largest; knapsack: weights and capacity over the heaviest item, values over the best.
    """
    if name == "atsp":
        assert cost is not None
        return tokens, cost / cost.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    if name == "knapsack":
        most = tokens[..., :2].amax(dim=1, keepdim=True).clamp_min(1e-12)  # [batch, 1, 2]
        return tokens / torch.cat((most, most[..., :1]), dim=-1), cost
    places = tokens[..., :2]  # [batch, k, 2]
    low = places.amin(dim=1, keepdim=True)
    extent = (places.amax(dim=1, keepdim=True) - low).amax(dim=-1, keepdim=True).clamp_min(1e-12)  # [batch, 1, 1]
    parts = [(places - low) / extent, tokens[..., 2:]]
    if name == "op":
        parts[1:] = [tokens[..., 2:3], tokens[..., 3:] / extent]
    return torch.cat(parts, dim=-1), cost


def cost_features(cost: Float[Tensor, "batch k k"]) -> Float[Tensor, "batch k 6"]:
    """ATSP's features of token j: c(o, j), c(j, o), c(d, j), c(j, d), and the means of its row and its column."""
    ends = [cost[:, 0], cost[:, :, 0], cost[:, 1], cost[:, :, 1]]
    return torch.stack([*ends, cost.mean(dim=2), cost.mean(dim=1)], dim=-1)


# ---- layers --------------------------------------------------------------------------------------------------------


class CostBias(nn.Module):
    """What two nodes' costs add to the attention between them: u_h · [c_ij, c_ji, relu(V [c_ij, c_ji])]."""

    def __init__(self, heads: int, generator: torch.Generator):
        super().__init__()
        self.hidden = linear(2, PAIR_HIDDEN, generator)
        self.out = nn.Linear(2 + PAIR_HIDDEN, heads, bias=False)
        with torch.no_grad():
            bound = (2 + PAIR_HIDDEN) ** -0.5
            self.out.weight.uniform_(-bound, bound, generator=generator)

    def forward(self, pairs: Float[Tensor, "batch k k 2"]) -> Float[Tensor, "batch heads k k"]:
        with torch.autocast(pairs.device.type, enabled=False):  # costs keep their digits
            found = self.out(torch.cat((pairs, functional.relu(self.hidden(pairs))), dim=-1))  # [batch, k, k, heads]
        return found.permute(0, 3, 1, 2)


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to its input: normalised before (RMSNorm) or, as in the paper,
    times a learned number that begins at 0 (ReZero)."""

    def __init__(self, shape: Shape, pairs: bool, generator: torch.Generator):
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.qkv, self.out = linear(width, 3 * width, generator), linear(width, width, generator)
        self.up, self.down = linear(width, shape.feedforward, generator), linear(shape.feedforward, width, generator)
        self.bias = CostBias(shape.heads, generator) if pairs else None
        self.alpha = nn.Parameter(torch.zeros(())) if shape.paper else None
        self.beta = nn.Parameter(torch.zeros(())) if shape.paper else None
        self.norms = nn.ModuleList(nn.Identity() if shape.paper else nn.RMSNorm(width, eps=1e-6) for _ in range(2))

    def attend(
        self, x: Float[Tensor, "batch k d"], bias: Float[Tensor, "batch heads k k"] | None
    ) -> Float[Tensor, "batch k d"]:
        batch, k, width = x.shape
        q, key, v = (
            part.view(batch, k, self.heads, width // self.heads).transpose(1, 2)  # [batch, heads, k, d / heads]
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        if x.device.type == "cpu":
            # The fused product is up to ten times slower there, backwards: in bfloat16, and within fast_float32 too.
            with torch.autocast("cpu", enabled=False):
                logits = q.float() @ key.float().transpose(-1, -2) * (q.shape[-1] ** -0.5)  # [batch, heads, k, k]
                found = torch.softmax(logits if bias is None else logits + bias.float(), dim=-1) @ v.float()
        else:
            bias = None if bias is None else bias.to(q.dtype)
            found = functional.scaled_dot_product_attention(q, key, v, bias)
        return self.out(found.transpose(1, 2).reshape(batch, k, width))  # heads side by side again

    def forward(
        self, x: Float[Tensor, "batch k d"], pairs: Float[Tensor, "batch k k 2"] | None = None
    ) -> Float[Tensor, "batch k d"]:
        bias = self.bias(pairs) if self.bias is not None else None
        change = self.attend(self.norms[0](x), bias)
        x = x + (change if self.alpha is None else self.alpha * change)
        change = self.down(functional.relu(self.up(self.norms[1](x))))
        return x + (change if self.beta is None else self.beta * change)


class BQNetwork(nn.Module):
    """Scores for the states of the problem called ``name``; weights come from ``generator``."""

    def __init__(self, name: str, shape: Shape, generator: torch.Generator):
        super().__init__()
        self.problem, self.rescale, self.kinds = name, shape.rescale and not shape.paper, KINDS[name]
        self.embed = linear(FEATURES[name], shape.width, generator)
        self.marks: nn.Parameter | None = None
        if name != "knapsack":
            marks = torch.empty(2, shape.width).uniform_(-1.0, 1.0, generator=generator) * shape.width**-0.5
            self.marks = nn.Parameter(marks)  # of the origin, of the destination
        self.blocks = nn.ModuleList(Block(shape, name == "atsp", generator) for _ in range(shape.layers))
        self.norm = nn.Identity() if shape.paper else nn.RMSNorm(shape.width, eps=1e-6)
        backward = name in SYMMETRIC and shape.two_ended and not shape.paper
        self.head = linear(shape.width, self.kinds + backward, generator)

    def forward(
        self, tokens: Float[Tensor, "batch k f"], cost: Float[Tensor, "batch k k"] | None = None
    ) -> Float[Tensor, "batch r ends"]:
        """Scores float32 of what remains: ``kinds`` columns for the next action and, for symmetric problems trained
        from both ends, one more for the node before the destination."""
        if self.rescale:
            tokens, cost = to_unit_box(self.problem, tokens, cost)
        pairs = None
        if cost is not None:
            tokens, pairs = cost_features(cost), torch.stack((cost, cost.transpose(1, 2)), dim=-1)  # [batch, k, k, 2]
        with torch.autocast(tokens.device.type, enabled=False):  # bfloat16 would move nodes by 1/256
            x = self.embed(tokens)  # [batch, k, d]
        if self.marks is not None:
            x = torch.cat((x[:, :2] + self.marks, x[:, 2:]), dim=1)
        for block in self.blocks:
            x = block(x, pairs)
        rest = x if self.marks is None else x[:, 2:]  # [batch, r, d]
        with torch.autocast(x.device.type, enabled=False):  # scores of eight bits would tie
            return self.head(self.norm(rest))
