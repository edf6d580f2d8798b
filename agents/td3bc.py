"""TD3+BC: TD3 with a behaviour-cloning term in the actor (Fujimoto & Gu 2021).

Per update t = 1, 2, ... on a batch of transitions (s, a, r, s'):

    ε  = clip(N(0, σ), ±c),  ã = clip(π̄(s') + ε, ±1)                             target_action
    y  = r + γ (1 - terminal) min(Q̄₁, Q̄₂)(s', ã)                                td_target
    L_Q = mean (Q₁ - y)² + mean (Q₂ - y)²                                        critic_loss
    every second t:  p = π(s),  λ = α / mean |Q₁(s, p)|
    L_π = -λ mean Q₁(s, p) + mean (p - â)²                                       actor_loss
    then π̄, Q̄ move towards π, Q by τ                                             Polyak

â is the data's own action; :meth:`TD3BC.anchor` is where a descendant puts another.  Observations are normalised over
the dataset; rewards are raw; a time limit bootstraps.  Actions are in [-1, 1], whatever units the environment has.

Deviations from the authors' code: the statistics cover observations only (next observations are another sample of the
same states), and the actor's step leaves the critic's unused weight gradients uncomputed.  Neither changes a formula.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

from rlkit.algorithms.nets import Actor, Adam, Critics, DeterministicPolicy, Polyak, freeze
from rlkit.algorithms.noise import Scalar, normal, within
from rlkit.algorithms.offline import OfflineAlgorithm, OfflineConfig
from rlkit.algorithms.replay import Batch
from rlkit.registry import register


@dataclass(frozen=True)
class TD3BCConfig(OfflineConfig):
    """Hyperparameters of TD3+BC."""

    critic_hidden_sizes: Sequence[int] | None = None  # None: hidden_sizes; A2PR's control needs deeper critics
    alpha: float = 2.5  # weight of the value against imitation; larger: further from the data
    discount: float = 0.99  # larger: longer horizon, noisier targets
    polyak: float = 0.005  # how far the targets move at each actor step
    target_noise: float = 0.2  # smoothing of the target policy, for actions in [-1, 1]
    target_clip: float = 0.5  # bound on that smoothing, same units
    actor_delay: int = 2  # critic steps per actor step

    POSITIVE: ClassVar[tuple[str, ...]] = (*OfflineConfig.POSITIVE, "alpha", "actor_delay")
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ("target_noise", "target_clip")
    UNIT: ClassVar[tuple[str, ...]] = ("discount", "polyak")
    VARYING: ClassVar[tuple[str, ...]] = (*OfflineConfig.VARYING, "alpha", *UNIT, *NON_NEGATIVE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.critic_hidden_sizes, Sequence):  # a list from JSON and a tuple are the same widths
            object.__setattr__(self, "critic_hidden_sizes", tuple(self.critic_hidden_sizes))


def target_action(
    target_actor: Actor, next_observations: Float[Tensor, "batch ds"], noise: Float[Tensor, "batch da"], clip: Scalar
) -> Float[Tensor, "batch da"]:
    """ã: the target policy's action, smoothed by ``noise`` clipped at ``clip``."""
    return (target_actor(next_observations) + within(noise, clip)).clamp(-1, 1)


def td_target(
    target_critic: Critics, batch: Batch, next_actions: Float[Tensor, "batch da"], discount: Scalar
) -> Float[Tensor, "batch 1"]:
    """y: reward plus the discounted smaller target value, which a termination (not a time limit) cuts off."""
    q1, q2 = target_critic(batch.next_observations, next_actions)  # 2 x [batch, 1]
    return batch.rewards + discount * batch.not_terminal * torch.minimum(q1, q2)


def critic_loss(critic: Critics, batch: Batch, target: Float[Tensor, "batch 1"]) -> Float[Tensor, ""]:
    """L_Q: both critics regress on the same target."""
    q1, q2 = critic(batch.observations, batch.actions)  # 2 x [batch, 1]
    return (q1 - target).square().mean() + (q2 - target).square().mean()


def actor_loss(
    q: Float[Tensor, "batch 1"], proposed: Float[Tensor, "batch da"], anchor: Float[Tensor, "batch da"], alpha: Scalar
) -> Float[Tensor, ""]:
    """L_π: scaling Q by a positive constant leaves its gradient as it was, for λ carries 1 / mean |Q|."""
    weight = alpha / q.abs().mean().detach()  # λ
    return -weight * q.mean() + (proposed - anchor).square().mean()


@register("td3bc")
class TD3BC(OfflineAlgorithm):
    """Offline TD3 with a term that clones the data's actions."""

    Config: ClassVar[type[OfflineConfig]] = TD3BCConfig
    objective: ClassVar[str] = "critic_loss"
    fine_tunes: ClassVar[bool] = True

    def build(self, obs_dim: int, action_space: spaces.Box, generator: torch.Generator) -> None:
        cfg = self.config
        actor = Actor(obs_dim, action_space, cfg.hidden_sizes, generator)
        self.policy = DeterministicPolicy(self.observation_space, action_space, actor).to(self.device)
        sizes = cfg.critic_hidden_sizes or cfg.hidden_sizes
        self.critic = Critics(obs_dim, action_space.shape[0], sizes, generator).to(self.device)
        self.target_actor, self.target_critic = freeze(copy.deepcopy(actor)), freeze(copy.deepcopy(self.critic))
        self.actor_optimiser = Adam(actor.parameters(), cfg.learning_rate)
        self.critic_optimiser = Adam(self.critic.parameters(), cfg.learning_rate)
        self.polyak = Polyak([(actor, self.target_actor), (self.critic, self.target_critic)], cfg.polyak)

    @property
    def period(self) -> int:
        return int(self.config.actor_delay)

    def anchor(self, batch: Batch, proposed: Float[Tensor, "batch da"]) -> tuple[Tensor, dict[str, Tensor]]:
        """â ``[batch, da]``, the action the actor is pulled to, and metrics about it."""
        return batch.actions, {}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        cfg = self.config
        with torch.no_grad():
            noise = normal(self.noise, batch.actions.shape, cfg.target_noise)  # [batch, da]
            next_actions = target_action(self.target_actor, batch.next_observations, noise, cfg.target_clip)
            target = td_target(self.target_critic, batch, next_actions, cfg.discount)
        loss = critic_loss(self.critic, batch, target)
        self.critic_optimiser.minimise(loss)
        metrics = {"critic_loss": loss, "target_q": target.mean()}

        if (self._n_updates + 1) % cfg.actor_delay == 0:
            proposed = self.policy.actor(batch.observations)  # [batch, da]
            q = self.critic.first(batch.observations, proposed)  # [batch, 1]
            anchor, more = self.anchor(batch, proposed.detach())
            loss = actor_loss(q, proposed, anchor, cfg.alpha)
            self.actor_optimiser.minimise(loss)
            self.polyak.step()
            metrics |= {"actor_loss": loss, "q": q.mean(), "bc": (proposed - batch.actions).square().mean(), **more}
        return {key: value.detach() for key, value in metrics.items()}
