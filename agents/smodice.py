"""SMODICE: state-matching offline imitation by a discriminator and the dual of V (Ma, Shen, Jayaraman & Bastani 2022).

The pool stands in for what an agent may do, the labelled expert for the states it should visit.  Per update, on a batch
S of the pool, one E of the expert and one of first states s₀:

    c: L_c = -mean_E ln c(s) - mean_S ln(1 - c(s)) + 10 mean (|∇ logit c| - 1)²             discriminator_loss
    R(s) = ln c/(1 - c), the logit itself, an estimate of ln d_E/d_S
    δ = R(s) + γ V(s') - V(s)
    L_V = (1 - γ) mean V(s₀) + ln mean_S e^δ          `kl`                                   dual_loss
    L_V = (1 - γ) mean V(s₀) + mean_S (½ δ² + δ)      `chi2`, of f = ½ (x - 1)²
    w = e^δ / mean_S e^δ  or  max(1 + δ, 0),  L_π = -mean_S w log π(a|s)                     policy_weight

The gradient of L_V passes through V(s') too.  ln d_E/d_S needs the pool to visit the expert's states: where it hardly
does, w picks almost nothing, which is what ReCOIL avoids.

Behind every terminal row of a batch comes one of an absorbing state, an extra input of the discriminator and of V: an
expert that never falls makes falling unlike it.  As in the authors' code both rows are terminal, δ = R(s) - V(s), so
that V of the absorbing state reaches no other.  With `agent.bootstrap_absorbing=true` the state leads to itself instead
and terminal states to it.  The flow equation, hence the weights' being an occupancy's, needs that.  Else an episode is
worth 0 from its end on, which rewards ending where R is negative.

Deviations: e^δ is divided by its mean, since without terminal rows L_V leaves V's, hence δ's, constant free; the
discriminator learns along with V and not before it; both are ReLU networks like all others here.  The policy is that of
the implicit learners: the authors' is a Normal before the tanh, with deviations that depend on the state, kept from
narrowing by a learnt entropy coefficient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from rlkit.agents.common.gaussian import GaussianActor, GaussianPolicy, actor_loss, network
from rlkit.algorithms.nets import Adam
from rlkit.algorithms.noise import Generator, Scalar, choice, uniform
from rlkit.algorithms.offline import OfflineAlgorithm, OfflineConfig
from rlkit.algorithms.replay import Batch
from rlkit.data.imitation import LABELLED, monitor_rows, pool_rows
from rlkit.registry import register

DUALS = ("kl", "chi2")
MONITOR_EVERY = 10


@dataclass(frozen=True)
class SMODICEConfig(OfflineConfig):
    """Hyperparameters of SMODICE."""

    batch_size: int = 512  # of the pool, and as many of the expert and of first states
    divergence: str = "kl"  # kl: sharp weights; chi2: weights of 0 for what is unlike the expert, steadier
    discount: float = 0.99  # larger: longer horizon
    gradient_penalty: float = 10.0  # larger: smoother rewards, which tell the parts apart less
    bootstrap_absorbing: bool = False  # true: V of the absorbing state counts behind terminal states and behind itself
    value_decay: float = 1e-4  # L2 on V; larger: V nearer 0
    weight_clip: float = 100.0  # largest weight of one sample
    decay_steps: int = 0  # updates in which the actor's learning rate falls to 0 as a cosine; 0: constant

    POSITIVE: ClassVar[tuple[str, ...]] = (*OfflineConfig.POSITIVE, "weight_clip")
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ("gradient_penalty", "value_decay", "decay_steps")
    VARYING: ClassVar[tuple[str, ...]] = (*OfflineConfig.VARYING, "discount", "weight_clip", *NON_NEGATIVE)
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {"divergence": DUALS}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("discount", 0 <= self.discount < 1, "a number from 0 to below 1")


def marked(observations: Float[Tensor, "n ds"]) -> Float[Tensor, "n ds1"]:
    """Observations of ordinary states; the absorbing state is 0 but for a 1 in the last place."""
    return pad(observations, (0, 1))


def with_absorbing(
    states: Float[Tensor, "batch ds1"], not_terminal: Float[Tensor, "batch 1"]
) -> tuple[Float[Tensor, "batch+1 ds1"], Float[Tensor, "batch+1 1"]]:
    """The absorbing state behind the batch, and how often each row counts: it as often as the batch has terminals."""
    absorbing = torch.zeros_like(states[:1])  # [1, ds + 1]
    absorbing[:, -1] = 1.0
    counts = torch.cat([torch.ones_like(not_terminal), (1 - not_terminal).sum(dim=0, keepdim=True)])  # [batch + 1, 1]
    return torch.cat([states, absorbing]), counts


def discriminator_loss(
    expert: Float[Tensor, "n 1"],
    expert_counts: Float[Tensor, "n 1"],
    pool: Float[Tensor, "m 1"],
    pool_counts: Float[Tensor, "m 1"],
) -> Float[Tensor, ""]:
    """L_c without its penalty, from logits and how often each row counts."""
    on_expert = (expert_counts * softplus(-expert)).sum() / expert_counts.sum()  # -ln c
    on_pool = (pool_counts * softplus(pool)).sum() / pool_counts.sum()  # -ln(1 - c)
    return on_expert + on_pool


def gradient_penalty(
    net: nn.Module, expert: Float[Tensor, "batch ds"], pool: Float[Tensor, "batch ds"], noise: Generator
) -> Float[Tensor, ""]:
    """mean (|∇ net| - 1)² at random points between an expert's and a pool's state."""
    share = uniform(noise, (len(expert), 1))  # [batch, 1]
    between = share * expert + (1 - share) * pool  # [batch, ds]
    slope = torch.func.grad(lambda states: net(states).sum())(between)  # [batch, ds]
    return (slope.norm(dim=1) - 1).square().mean()


def dual_loss(
    first: Float[Tensor, "starts 1"],
    delta: Float[Tensor, "n 1"],
    counts: Float[Tensor, "n 1"],
    discount: Scalar,
    divergence: str,
) -> Float[Tensor, ""]:
    """L_V from V(s₀), δ and how often each row counts."""
    start = (1 - discount) * first.mean()
    if divergence == "kl":
        return start + torch.logsumexp(delta + counts.log(), dim=0).squeeze() - counts.sum().log()
    return start + (counts * (delta.square() / 2 + delta)).sum() / counts.sum()


def policy_weight(delta: Float[Tensor, "batch 1"], divergence: str, clip: Scalar) -> Float[Tensor, "batch 1"]:
    """w, at most ``clip``."""
    weight = len(delta) * delta.softmax(dim=0) if divergence == "kl" else (1 + delta).relu()
    return weight.clamp(max=clip)


@register("smodice")
class SMODICE(OfflineAlgorithm):
    """Imitation of a few demonstrations among much other data, by a discriminator's rewards."""

    Config: ClassVar[type[OfflineConfig]] = SMODICEConfig
    uses_rewards: ClassVar[bool] = False
    policy: GaussianPolicy

    def build(self, obs_dim: int, action_space: spaces.Box, generator: torch.Generator) -> None:
        cfg = self.config
        self.sampling = torch.Generator(self.device).manual_seed(int(self.seed or 0) + 3)
        actor = GaussianActor(obs_dim, action_space, cfg.hidden_sizes, generator)
        self.policy = GaussianPolicy(self.observation_space, action_space, actor, self.sampling).to(self.device)
        sizes = [obs_dim + 1, *cfg.hidden_sizes, 1]  # one input more marks the absorbing state
        self.discriminator = network(sizes, generator).to(self.device)
        self.value = network(sizes, generator).to(self.device)
        self.actor_optimiser = Adam(actor.parameters(), cfg.learning_rate, cfg.decay_steps)
        self.discriminator_optimiser = Adam(self.discriminator.parameters(), cfg.learning_rate)
        self.value_optimiser = Adam(self.value.parameters(), cfg.learning_rate)
        self.value_optimiser.param_groups[0]["weight_decay"] = cfg.value_decay

    def on_data(self) -> None:
        """Raises :class:`~rlkit.errors.DataError` for data without a labelled part, or without others behind it."""
        assert self.dataset is not None
        assert self.replay is not None
        self.replay.parts = {LABELLED: self.dataset.rows_of(LABELLED), "pool": pool_rows(self.dataset)}
        starts = np.concatenate(([0], self.dataset.episode_ends[:-1]))
        self.starts = torch.from_numpy(starts).to(self.device)  # [E]
        rows = monitor_rows(self.dataset)
        self.watched = {part: torch.from_numpy(index).to(self.device) for part, index in rows.items()}

    def draw(self) -> Batch:
        """Transitions of the pool."""
        assert self.replay is not None
        return self.replay.batch(self.config.batch_size, "pool")

    @property
    def period(self) -> int:
        return MONITOR_EVERY

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Any, Any]:
        """SB3's ``predict``; the mean unless asked for a sample."""
        return super().predict(observation, state, episode_start, deterministic)

    def observed(self, rows: Tensor) -> Float[Tensor, "n ds1"]:
        """Observations of the replay's ``rows``, marked as ordinary states."""
        assert self.replay is not None
        return marked(self.replay.take(rows).observations)

    def watch(self) -> dict[str, Tensor]:
        """Mean R(s) of each part's states, every ``MONITOR_EVERY`` updates."""
        if self._n_updates % MONITOR_EVERY:
            return {}
        with torch.no_grad():
            rewards = self.discriminator(self.observed(torch.cat(list(self.watched.values()))))  # [3 x 256, 1]
        parts = rewards.split([len(index) for index in self.watched.values()])
        return {f"reward_{part}": found.mean() for part, found in zip(self.watched, parts, strict=True)}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        assert self.replay is not None
        cfg = self.config
        expert = self.replay.batch(cfg.batch_size, LABELLED)
        states, expert_states = marked(batch.observations), marked(expert.observations)  # 2 x [batch, ds + 1]
        inputs, counts = with_absorbing(states, batch.not_terminal)  # [batch + 1, ds + 1], [batch + 1, 1]
        expert_inputs, expert_counts = with_absorbing(expert_states, expert.not_terminal)  # as above

        logits = self.discriminator(torch.cat([expert_inputs, inputs]))  # [2 (batch + 1), 1]
        loss = discriminator_loss(logits[: len(expert_inputs)], expert_counts, logits[len(expert_inputs) :], counts)
        penalty = gradient_penalty(self.discriminator, expert_states, states, self.noise)
        self.discriminator_optimiser.minimise(loss + cfg.gradient_penalty * penalty)
        metrics = {"discriminator_loss": loss, "gradient_penalty": penalty}

        with torch.no_grad():
            rewards = self.discriminator(inputs)  # [batch + 1, 1]
        following = torch.where(batch.not_terminal > 0, marked(batch.next_observations), inputs[-1])  # [batch, ds + 1]
        first = self.observed(choice(self.noise, self.starts, cfg.batch_size))  # [starts, ds + 1]
        values = self.value(torch.cat([inputs, following, inputs[-1:], first]))  # [2 (batch + 1) + starts, 1]
        here, ahead, start = values.split([len(inputs), len(inputs), len(first)])
        keep = torch.ones_like(counts) if cfg.bootstrap_absorbing else pad(batch.not_terminal, (0, 0, 0, 1))  # the same
        delta = rewards + cfg.discount * keep * ahead - here  # [batch + 1, 1]
        loss = dual_loss(start, delta, counts, cfg.discount, cfg.divergence)
        self.value_optimiser.minimise(loss)
        metrics |= {"value_loss": loss, "advantage_mean": delta[:-1].mean(), "v": here[:-1].mean()}

        weight = policy_weight(delta[:-1].detach(), cfg.divergence, cfg.weight_clip)  # [batch, 1]
        log_prob = self.policy.actor.log_prob(batch.observations, batch.actions)  # [batch, 1]
        loss = actor_loss(log_prob, weight)
        self.actor_optimiser.minimise(loss)
        metrics |= {"actor_loss": loss, "log_prob": log_prob.mean(), "weight": weight.mean()}
        metrics["weight_clipped"] = (weight >= cfg.weight_clip).float().mean()
        return {key: value.detach() for key, value in {**metrics, **self.watch()}.items()}
