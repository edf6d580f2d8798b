"""Transformer blocks: attention over a set of tokens, with or without costs or distances between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from rlkit.algorithms.nets import linear

PAIR_HIDDEN = 16  # units of the relu layer over a pair's two costs
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # cuDNN's plans every shape


@dataclass(frozen=True)
class BlockShape:
    """Sizes of a stack of blocks.  width: of a token, a multiple of heads; paper: ReZero in place of RMSNorm."""

    width: int
    layers: int
    heads: int
    feedforward: int
    paper: bool = False


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


def folded(places: Float[Tensor, "batch k 2"]) -> tuple[Float[Tensor, "batch 1 k 4"], Float[Tensor, "batch 1 k 4"]]:
    """Columns for queries and for keys whose product is -|x_i - x_j|^2: fused attention then knows distances.

    Places are taken to be around (1/2, 1/2), so that little cancels.
    """
    with torch.autocast(places.device.type, enabled=False):
        centred = places - 0.5
        square = centred.square().sum(dim=-1, keepdim=True)
        one = torch.ones_like(square)
        queries = torch.cat((2.0 * centred, -square, -one), dim=-1)
        keys = torch.cat((centred, one, square), dim=-1)
    return queries[:, None], keys[:, None]


def fused_attention(
    q: Tensor, key: Tensor, v: Tensor, bias: Float[Tensor, "batch heads k k"] | None, scale: float
) -> Float[Tensor, "batch heads k own"]:
    """softmax(scale q kᵀ + bias) v in one kernel; q and key [batch, heads, k, e], v [batch, heads, k, own]."""
    size, bias = q.shape[-1] + -q.shape[-1] % 8, None if bias is None else bias.to(q)
    q, key, wide = (functional.pad(x, (0, size - x.shape[-1])) for x in (q, key, v))  # heads of one size, 8 m
    with sdpa_kernel(KERNELS):
        return functional.scaled_dot_product_attention(q, key, wide, bias, scale=scale)[..., : v.shape[-1]]


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to its input: normalised before (RMSNorm) or, as in the paper,
    times a learned number that begins at 0 (ReZero).

    pairs: whether there are costs between tokens.  distances: whether the logits of head h fall by s_h^2 |x_i - x_j|^2,
    s learned: first from a head that sees everything to one that sees its neighbours.
    """

    def __init__(self, shape: BlockShape, pairs: bool, generator: torch.Generator, distances: bool = False):
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.qkv, self.out = linear(width, 3 * width, generator), linear(width, width, generator)
        self.up, self.down = linear(width, shape.feedforward, generator), linear(shape.feedforward, width, generator)
        self.bias = CostBias(shape.heads, generator) if pairs else None
        self.slope = nn.Parameter(torch.linspace(0.1, 5.0, shape.heads)) if distances else None
        self.alpha = nn.Parameter(torch.zeros(())) if shape.paper else None
        self.beta = nn.Parameter(torch.zeros(())) if shape.paper else None
        self.norms = nn.ModuleList(nn.Identity() if shape.paper else nn.RMSNorm(width, eps=1e-6) for _ in range(2))

    def attend(
        self,
        x: Float[Tensor, "batch k d"],
        bias: Float[Tensor, "batch heads k k"] | None,
        near: tuple[Float[Tensor, "batch 1 k 4"], Float[Tensor, "batch 1 k 4"]] | None = None,
    ) -> Float[Tensor, "batch k d"]:
        batch, k, width = x.shape
        own = width // self.heads
        q, key, v = (
            part.view(batch, k, self.heads, own).transpose(1, 2)  # [batch, heads, k, own]
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        scale = own**-0.5
        if near is not None and self.slope is not None:
            further = [(self.slope[:, None, None] * columns).to(q.dtype) for columns in near]  # [batch, heads, k, 4]
            q, key, scale = torch.cat((q * scale, further[0]), dim=-1), torch.cat((key, further[1]), dim=-1), 1.0
        if x.device.type == "cpu":
            # The fused product is up to ten times slower there, backwards: in bfloat16, and within fast_float32 too.
            with torch.autocast("cpu", enabled=False):
                logits = q.float() @ key.float().transpose(-1, -2) * scale  # [batch, heads, k, k]
                found = torch.softmax(logits if bias is None else logits + bias.float(), dim=-1) @ v.float()
        else:
            found = fused_attention(q, key, v, bias, scale)
        return self.out(found.transpose(1, 2).reshape(batch, k, width))  # heads side by side again

    def forward(
        self,
        x: Float[Tensor, "batch k d"],
        pairs: Float[Tensor, "batch k k 2"] | None = None,
        near: tuple[Float[Tensor, "batch 1 k 4"], Float[Tensor, "batch 1 k 4"]] | None = None,
    ) -> Float[Tensor, "batch k d"]:
        bias = self.bias(pairs) if self.bias is not None else None
        change = self.attend(self.norms[0](x), bias, near)
        x = x + (change if self.alpha is None else self.alpha * change)
        change = self.down(functional.relu(self.up(self.norms[1](x))))
        return x + (change if self.beta is None else self.beta * change)
