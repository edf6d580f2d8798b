"""Networks that point: Vinyals et al. 2015, with Bello et al.'s additions (2016), and Kool et al.'s (2019).

An encoder LSTM reads n points into e_1 .. e_n; a decoder LSTM, begun with the encoder's last state, has the state d_i
after i pointers and reads, at each step, the point last pointed at (a learnt vector ⇒ before the first):

    u_ij = vᵀ tanh(W₁ e_j + W₂ d_i),   p(C_i = j | C_1 .. C_{i-1}) = softmax_j(u_ij)        :class:`Attention`

Where answers differ in length a learnt vector ⇐ stands before e_1, as e_0; to point at it ends the answer.  Bello et
al. embed the points, look before they point (a glimpse, g = Σ_j p_j e_j with weights of its own, takes d_i's place),
clip to C tanh(u), and take the softmax over what is allowed only.                       :class:`PointerNetwork`

An LSTM reads in an order, and a set has none: points come as they are given, or sorted, which makes of hulls an easier
problem (Vinyals, Bengio & Kudlur 2016); tokens name them as given in any case.                    :func:`reading_order`

Kool et al. have attention for both LSTMs: the points' values come from transformer blocks, without an order, and what
looks is the mean of all, the first city and the last.                                   :class:`AttentionModel`

A token is an index into the memory: 0 is ⇐ where there is one and points come after it; -1 pads.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int, Shaped
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlkit.agents.common.blocks import Block, BlockShape
from rlkit.algorithms.nets import linear
from rlkit.errors import UserError

INIT = 0.08  # what both papers draw weights from: uniform on ± this
MOST = 1 << 25  # floats of one block of tanh(W₁ e + W₂ d), which is what takes memory
HUDDLE = 0.1  # of the unit square's side: instances of training are hardly ever smaller

M = TypeVar("M", bound=nn.Module)
State = tuple[Tensor, Tensor]  # h, c of an LSTM, [1, rows, hidden] each


class Memory(NamedTuple):
    """What the decoder looks at.  m = n + 1 where there is ⇐, else n.

    points: ``[b, n, e]``, inputs of the LSTMs; values: ``[b, m, h]``; keys: W₁ e of the pointer, then of each glimpse,
    ``[b, m, h]``; h, c: ``[1, b, h]``, the encoder's last state.
    """

    points: Tensor
    values: Tensor
    keys: tuple[Tensor, ...]
    h: Tensor
    c: Tensor

    def rows(self, index: Tensor) -> Memory:
        """The rows ``index [r]``, as for several walks through one instance."""
        keys = tuple(k[index] for k in self.keys)
        return Memory(self.points[index], self.values[index], keys, self.h[:, index], self.c[:, index])


def build(make: Callable[[], M], generator: torch.Generator, reach: float = INIT) -> M:
    """``make()`` with weights from ``generator`` alone, uniform on ± ``reach``."""
    with torch.device("meta"):  # PyTorch's own initialisation would draw from the global generator
        module = make()
    module.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-reach, reach, generator=generator)
    return module


def unit_square(coords: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n 2"]:
    """``coords`` as in training: instances in the unit square as they are, others moved and scaled, alike in x and y,
    until their box fills it; those that huddle in a tenth of it too.  So no answer depends on the unit or the origin.
    """
    exact = coords.double()
    low, high = exact.amin(dim=1, keepdim=True), exact.amax(dim=1, keepdim=True)  # [b, 1, 2]
    extent = (high - low).amax(dim=2, keepdim=True)  # [b, 1, 1]
    inside = ((low >= 0) & (high <= 1)).all(dim=2, keepdim=True) & (extent >= HUDDLE)
    return torch.where(inside, exact, (exact - low) / extent.clamp_min(1e-300)).to(coords.dtype)


def reading_order(coords: Float[Tensor, "b n 2"], order: str) -> Int[Tensor, "b n"]:
    """Indices of the points as they are read: as ``given``, by ``angle`` around their mean, or ``lexicographic``."""
    if order == "angle":
        x, y = (coords - coords.mean(dim=1, keepdim=True)).unbind(dim=2)
        return torch.atan2(y, x).argsort(dim=1, stable=True)
    if order == "lexicographic":  # by x, those of one x by y
        by_y = coords[..., 1].argsort(dim=1, stable=True)
        return by_y.gather(1, coords[..., 0].gather(1, by_y).argsort(dim=1, stable=True))
    return torch.arange(coords.shape[1], device=coords.device).expand(coords.shape[:2])


def rearranged(rows: Shaped[Tensor, "b n e"], order: Int[Tensor, "b n"]) -> Shaped[Tensor, "b n e"]:
    """``rows`` in that order."""
    return rows.gather(1, order[..., None].expand(-1, -1, rows.shape[2]))


class Attention(nn.Module):
    """u_ij = vᵀ tanh(W₁ e_j + W₂ d_i)."""

    def __init__(self, hidden: int):
        super().__init__()
        self.key = nn.Linear(hidden, hidden, bias=False)  # W₁
        self.query = nn.Linear(hidden, hidden, bias=False)  # W₂
        self.v = nn.Parameter(torch.empty(hidden))

    def forward(self, keys: Float[Tensor, "b m h"], queries: Float[Tensor, "b t h"]) -> Float[Tensor, "b t m"]:
        """Scores of ``keys`` W₁ e for ``queries`` d; blocks of steps bound the memory, at the price of doing a block
        twice where there are several and a gradient is wanted."""
        b, m, h = keys.shape
        parts = self.query(queries).split(max(1, MOST // (b * m * h)), dim=1)
        if len(parts) == 1 or not torch.is_grad_enabled():
            found = [self.scores(keys, part, self.v) for part in parts]
        else:
            recompute: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
            found = [checkpoint(self.scores, keys, part, self.v, **recompute) for part in parts]
        return torch.cat(found, dim=1)

    @staticmethod
    def scores(keys: Tensor, queries: Tensor, v: Tensor) -> Tensor:
        # tanh z = 2 σ(2z) - 1, and PyTorch's σ takes a fraction of the time of its tanh, half an update of REINFORCE's
        halves = torch.sigmoid(torch.add(2 * queries[:, :, None], keys[:, None], alpha=2))  # [b, t, m, h]
        return 2 * (halves @ v) - v.sum()  # [b, t, m]


class Pointer(nn.Module):
    """What all have in common: pointers one after another, each from a state and the point last pointed at.

    ends: 1 where there is ⇐, else 0; width: floats of a value; clip: C of C tanh(u), 0: no clipping; masks: whether the
    softmax is over what is allowed only, else what is not allowed is struck out after it; start: ⇒.
    """

    start: Tensor

    def __init__(self, width: int, *, ends: bool, clip: float, masks: bool):
        super().__init__()
        self.width, self.ends, self.clip, self.masks = width, int(ends), clip, masks

    @abstractmethod
    def encode(self, coords: Float[Tensor, "b n 2"]) -> Memory:
        """What to look at and to begin from."""

    @abstractmethod
    def read(self, inputs: Float[Tensor, "b t e"], state: State) -> tuple[Float[Tensor, "b t h"], State]:
        """The queries d after each of ``inputs``, and the state to go on from."""

    @abstractmethod
    def scores(
        self, memory: Memory, queries: Float[Tensor, "b t h"], inside: Bool[Tensor, "b t m"] | None
    ) -> Float[Tensor, "b t m"]:
        """u, a glimpse being confined to what is ``inside``."""

    def inputs(self, memory: Memory, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t e"]:
        """The points that ``tokens`` name, as they are read; anything for those that name none."""
        index = (tokens - self.ends).clamp_min(0)[..., None].expand(-1, -1, memory.points.shape[2])
        return memory.points.gather(1, index)

    def begin(self, memory: Memory) -> Float[Tensor, "b 1 e"]:
        """⇒ for every row."""
        return self.start.expand(len(memory.points), 1, -1)

    def log_probabilities(
        self, memory: Memory, queries: Float[Tensor, "b t h"], allowed: Bool[Tensor, "b t m"] | None = None
    ) -> Float[Tensor, "b t m"]:
        """log p(C_i = j) of every token for ``queries``; -inf where not ``allowed``, None being everything.

        Every row and step must allow something.
        """
        inside = allowed if self.masks else None
        logits = self.scores(memory, queries, inside)
        if self.clip:
            logits = self.clip * torch.tanh(logits)
        found = _masked(logits, inside).log_softmax(dim=-1)
        return found if self.masks else _masked(found, allowed)

    def follow(
        self, memory: Memory, tokens: Int[Tensor, "b t"], allowed: Bool[Tensor, "b t m"] | None = None
    ) -> Float[Tensor, "b t m"]:
        """log p(C_i = j | C_1 .. C_{i-1} = ``tokens``), the whole decoder in one call (teacher forcing)."""
        inputs = torch.cat((self.begin(memory), self.inputs(memory, tokens[:, :-1])), dim=1)  # [b, t, e]
        queries, _ = self.read(inputs, (memory.h, memory.c))
        return self.log_probabilities(memory, queries, allowed)


class PointerNetwork(Pointer):
    """The LSTM encoder and decoder with attention as a pointer.

    Args:
        hidden: units of both LSTMs.
        ends: whether there is ⇐.
        embedding: width to which points are embedded; 0: the LSTMs read coordinates.
        glimpses: looks before each pointer.
        clip: C of C tanh(u); 0: no clipping.
        masks: whether the softmax is over what is allowed only; else what is not allowed is struck out after it.
        order: in which the encoder reads, see :func:`reading_order`.
    """

    def __init__(
        self,
        hidden: int,
        *,
        ends: bool,
        embedding: int,
        glimpses: int,
        clip: float,
        masks: bool,
        order: str = "given",
    ):
        super().__init__(hidden, ends=ends, clip=clip, masks=masks)
        self.order = order
        inputs = embedding or 2
        self.embed = nn.Linear(2, embedding) if embedding else nn.Identity()
        self.encoder = nn.LSTM(inputs, hidden, batch_first=True)
        self.decoder = nn.LSTM(inputs, hidden, batch_first=True)
        self.start = nn.Parameter(torch.empty(inputs))  # ⇒
        self.end = nn.Parameter(torch.empty(1, hidden)) if ends else None  # ⇐
        self.pointer = Attention(hidden)
        self.glimpses = nn.ModuleList(Attention(hidden) for _ in range(glimpses))

    def encode(self, coords: Float[Tensor, "b n 2"]) -> Memory:
        points = self.embed(coords)  # [b, n, e]
        if self.order == "given":
            values, (h, c) = self.encoder(points)  # [b, n, h]
        else:
            order = reading_order(coords, self.order)  # [b, n]
            values, (h, c) = self.encoder(rearranged(points, order))
            values = rearranged(values, order.argsort(dim=1))
        if self.end is not None:
            values = torch.cat((self.end.expand(len(coords), 1, -1), values), dim=1)  # [b, m, h]
        keys = tuple(attention.key(values) for attention in (self.pointer, *self.glimpses))
        return Memory(points, values, keys, h, c)

    def read(self, inputs: Float[Tensor, "b t e"], state: State) -> tuple[Float[Tensor, "b t h"], State]:
        return self.decoder(inputs, state)

    def scores(
        self, memory: Memory, queries: Float[Tensor, "b t h"], inside: Bool[Tensor, "b t m"] | None
    ) -> Float[Tensor, "b t m"]:
        for attention, keys in zip(self.glimpses, memory.keys[1:], strict=True):
            weights = _masked(attention(keys, queries), inside).softmax(dim=-1)  # [b, t, m]
            queries = weights @ memory.values  # [b, t, h]
        return self.pointer(memory.keys[0], queries)


class AttentionModel(Pointer):
    """Tours by attention alone (Kool, van Hoof & Welling 2019); no ⇐, and nothing depends on the cities' order.

    d = W [mean of all, first, last];  g = MHA(d; keys, values);  u_j = g · k_j / √h               (their equations 5-7)

    Args:
        shape: width, layers, heads and feed-forward units of the encoder.
    """

    def __init__(self, shape: BlockShape, generator: torch.Generator, *, clip: float, masks: bool):
        super().__init__(shape.width, ends=False, clip=clip, masks=masks)
        width, self.heads = shape.width, shape.heads
        self.embed = linear(2, width, generator)
        self.blocks = nn.ModuleList(Block(shape, False, generator) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.start = nn.Parameter(torch.empty(width).uniform_(-INIT, INIT, generator=generator))  # ⇒
        self.context = linear(3 * width, width, generator)
        self.glimpse = linear(width, 3 * width, generator)  # value, key, and the pointer's key
        self.out = linear(width, width, generator)

    def encode(self, coords: Float[Tensor, "b n 2"]) -> Memory:
        points = self.embed(coords)  # [b, n, h]
        for block in self.blocks:
            points = block(points)
        points = self.norm(points)
        values, looked_at, pointed_at = self.glimpse(points).chunk(3, dim=-1)
        first = self.start.expand(1, len(coords), -1).contiguous()  # no city yet
        return Memory(points, values, (pointed_at, looked_at), points.mean(dim=1)[None], first)

    def read(self, inputs: Float[Tensor, "b t h"], state: State) -> tuple[Float[Tensor, "b t h"], State]:
        mean, first = state
        t = inputs.shape[1]
        # ⇒ stands for the first city until there is one, which is then the next that is read
        first = torch.where(self._none(first[0]), inputs[:, 0], first[0])  # [b, h]
        later = torch.where(self._none(first), inputs[:, min(1, t - 1)], first)
        firsts = torch.cat((first[:, None], later[:, None].expand(-1, t - 1, -1)), dim=1)  # [b, t, h]
        queries = self.context(torch.cat((mean.transpose(0, 1).expand(-1, t, -1), firsts, inputs), dim=-1))
        return queries, (mean, firsts[:, -1][None])

    def _none(self, first: Float[Tensor, "b h"]) -> Bool[Tensor, "b 1"]:
        return (first == self.start).all(dim=1, keepdim=True)

    def scores(
        self, memory: Memory, queries: Float[Tensor, "b t h"], inside: Bool[Tensor, "b t m"] | None
    ) -> Float[Tensor, "b t m"]:
        q, key, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (queries, memory.keys[1], memory.values)
        )  # [b, heads, t or m, h / heads]
        looks = q @ key.transpose(-1, -2) * q.shape[-1] ** -0.5  # [b, heads, t, m]
        glimpse = _masked(looks, None if inside is None else inside[:, None]).softmax(dim=-1) @ v
        found = self.out(glimpse.transpose(1, 2).flatten(2))  # [b, t, h]
        return found @ memory.keys[0].transpose(-1, -2) * self.width**-0.5


def _masked(scores: Tensor, allowed: Tensor | None) -> Tensor:
    return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)


def chosen(log_probabilities: Float[Tensor, "b t m"], tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """log p of each of ``tokens``; 0 where they pad."""
    found = log_probabilities.gather(2, tokens.clamp_min(0)[..., None])[..., 0]  # [b, t]
    return found.masked_fill(tokens < 0, 0.0)


class Critic(nn.Module):
    """Expected length of the tours through points: an encoder as the actor's, glimpses from its last state, an MLP."""

    def __init__(self, hidden: int, *, embedding: int, steps: int = 3):
        super().__init__()
        self.steps = steps
        self.embed = nn.Linear(2, embedding)
        self.encoder = nn.LSTM(embedding, hidden, batch_first=True)
        self.glimpse = Attention(hidden)
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, coords: Float[Tensor, "b n 2"]) -> Float[Tensor, " b"]:
        values, (h, _) = self.encoder(self.embed(coords))  # [b, n, h], [1, b, h]
        keys, query = self.glimpse.key(values), h.transpose(0, 1)  # [b, n, h], [b, 1, h]
        for _ in range(self.steps):
            query = self.glimpse(keys, query).softmax(dim=-1) @ values  # [b, 1, h]
        return self.head(query)[:, 0, 0]


# ---- losses ----------------------------------------------------------------------------------------------------------


def negative_log_likelihood(
    network: Pointer,
    coords: Float[Tensor, "b n 2"],
    tokens: Int[Tensor, "b t"],
    allowed: Bool[Tensor, "b t m"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """-log p(C_i | C_1 .. C_{i-1}, P), a mean over pointers, and the share of them that are the most probable."""
    log_p = network.follow(network.encode(coords), tokens, allowed)  # [b, t, m]
    real = tokens >= 0
    hits = (log_p.argmax(dim=2) == tokens) & real
    return -chosen(log_p, tokens).sum() / real.sum(), hits.sum() / real.sum()


def reinforce_loss(
    network: Pointer,
    memory: Memory,
    tours: Int[Tensor, "b n"],
    advantages: Float[Tensor, " b"],
    opening: int,
) -> Float[Tensor, ""]:
    """(L(π) - b) log p(π), a mean: its gradient is the policy's (Bello et al. 2016, equation 4)."""
    log_p = network.follow(memory, tours, tour_masks(tours, opening))  # [b, n, n]
    return (advantages * chosen(log_p, tours).sum(dim=1)).mean()


def others_mean(lengths: Float[Tensor, " r"], samples: int) -> Float[Tensor, " r"]:
    """The mean length of the other tours of the same instance, ``samples`` in a row: a baseline that is independent of
    the tour it is taken from (Kool, van Hoof & Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!")."""
    of_each = lengths.view(-1, samples)
    return ((of_each.sum(dim=1, keepdim=True) - of_each) / (samples - 1)).view(-1)


def tour_masks(tokens: Int[Tensor, "b n"], opening: int) -> Bool[Tensor, "b n n"]:
    """What was allowed at each step of whole tours whose first ``opening`` cities were given."""
    cities = torch.arange(tokens.shape[1], device=tokens.device)
    visits = (tokens[..., None] == cities).long()  # [b, n, n]; one_hot reads back how large they are
    free = visits.cumsum(dim=1) - visits == 0
    free[:, :opening] = visits[:, :opening].bool()
    return free


# ---- SB3's policy ----------------------------------------------------------------------------------------------------


class PointerPolicy(BasePolicy):
    """The next pointer for what the environment shows: the most probable that its mask allows, or a sample."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        network: Pointer,
        noise: torch.Generator,
    ):
        super().__init__(observation_space, action_space)
        self.network, self.noise = network, noise

    @torch.no_grad()
    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """Int64 ``[b]`` for a batch of observations; 0 for a row that has ended, where nothing is allowed."""
        network, sequence = self.network, observation["sequence"]  # [b, l], padded
        memory = network.encode(unit_square(observation["coords"]).float())
        known = (sequence >= 0).sum(dim=1)  # [b]
        tokens = sequence[:, : int(known.max())] + network.ends
        inputs = torch.cat((network.begin(memory), network.inputs(memory, tokens)), dim=1)  # [b, t + 1, e]
        queries, _ = network.read(inputs, (memory.h, memory.c))
        query = queries.gather(1, known[:, None, None].expand(-1, 1, queries.shape[2]))  # [b, 1, h]
        free = observation["action_mask"].bool()
        over = ~free.any(dim=1)
        free = free | over[:, None]
        allowed = torch.cat((torch.zeros_like(free[:, : network.ends]), free), dim=1)
        log_p = network.log_probabilities(memory, query, allowed[:, None])[:, 0]  # [b, m]
        if deterministic:
            chosen_tokens = log_p.argmax(dim=1)
        else:
            chosen_tokens = torch.multinomial(log_p.softmax(dim=1), 1, generator=self.noise)[:, 0]
        return (chosen_tokens - network.ends).masked_fill(over, 0)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Actions for one observation or a batch, of any number of points.

        Raises UserError for observations without coords, sequence and action_mask.
        """
        missing = [key for key in ("coords", "sequence", "action_mask") if key not in observation]
        if missing:
            raise UserError(
                f"observation: '{missing[0]}' is missing; tsp shows its sequence with observe_sequence=True"
            )
        single = np.ndim(observation["coords"]) == 2
        parts = {key: np.asarray(observation[key]) for key in ("coords", "sequence", "action_mask")}
        batch = {
            key: torch.as_tensor(part[None] if single else part, device=self.network.start.device)
            for key, part in parts.items()
        }
        actions = self._predict(batch, deterministic).cpu().numpy()
        return (actions[0] if single else actions), state
