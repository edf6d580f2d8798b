"""A2PR: adaptive advantage-guided policy regularisation (Liu, Li, Lan, Gao, Pan & Xu, ICML 2024).

TD3+BC pulls the actor towards the data's action in every row.  A2PR also has a proposal ρ from an auto-encoder fitted
to the better half of the data, pulls towards whichever of the two the critic prefers, and lets go where neither is
better than the state is worth.  Per update t = 1, 2, ... on a batch of transitions (s, a, r, s'):

    critic step as in TD3+BC, which gives ã and y                               td3bc.target_action, td_target
    y⁺ = r + γ (1 - terminal) min(Q₁, Q₂)(s', ã), with the updated critics      td3bc.td_target
    L_V = mean (v - min(y, y⁺))²,  v = V(s)                                     value_loss
    g = 1[Q₁(s, a) > v],  (â, μ, σ) = VAE(s, a)
    L_VAE = w mean g (â - a)² + ½ KL,  KL = -½ mean (1 + ln σ² - μ² - σ²)       vae_loss
    every second t:  p = π(s),  ρ = VAE(s, p),  λ = α / mean |Q₁(s, p)|
    ā = ρ if Q₁(s, ρ) ≥ Q₁(s, a) else a,  m = ε 1[Q₁(s, ρ) ≥ v or Q₁(s, a) > v] anchor_and_weight
    L_π = -λ mean Q₁(s, p) + mean m (p - ā)²                                    actor_loss
    then π̄, Q̄ move towards π, Q by τ                                            Polyak

v is V(s) from before V's own step of the same update, in g and in m alike.  ρ encodes the actor's action, and by
default the gradient of L_π also flows through it: with J = ∂ρ/∂p the pull is (I - J)ᵀ(p - ρ), nearly nothing where the
VAE reconstructs well.  Both are the authors' code, which the published scores came from; the paper's forms are
``proposal="prior"`` and ``detach_target=True``.

Deviations from the authors' code: Q₁(s, a) is computed once an update for both gates, V(s') (never used) not at all.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from gymnasium import spaces
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rlkit.agents.td3bc import TD3BCConfig, critic_loss, target_action, td_target
from rlkit.algorithms.nets import Actor, Adam, Critics, DeterministicPolicy, Polyak, freeze, mlp
from rlkit.algorithms.noise import Scalar, normal
from rlkit.algorithms.offline import OfflineAlgorithm, OfflineConfig
from rlkit.algorithms.replay import Batch
from rlkit.registry import register


@dataclass(frozen=True)
class A2PRConfig(TD3BCConfig):
    """Hyperparameters of A2PR, beside TD3+BC's."""

    hidden_sizes: Sequence[int] = (256, 256, 256)  # widths of the actor's hidden layers; the other nets follow them
    critic_hidden_sizes: Sequence[int] | None = None  # of the critics and V; None: the actor's and one more
    vae_hidden_sizes: Sequence[int] | None = None  # of en- and decoder; None: two of 750 for an actor of 256
    mask: float = 1.0  # ε, weight of the pull where a gate is open; larger: nearer to ā.  alpha / mask is what counts
    vae_weight: float = 1.0  # w, reconstruction against KL; larger: ρ nearer to what it encodes
    vae_learning_rate: float = 1e-3  # larger: ρ follows the gate faster and less stably
    detach_target: bool = False  # True: ρ is a fixed target (the paper's text), so the pull has its full strength
    proposal: str = "policy"  # ρ encodes (s, π(s)); "prior": ρ decodes z = clip(N(0, I), ±½) (the paper's text)
    q_scale: str = "policy"  # λ divides by mean |Q₁(s, π(s))|; "data": by mean |Q₁(s, a)|

    POSITIVE: ClassVar[tuple[str, ...]] = (*TD3BCConfig.POSITIVE, "vae_learning_rate")
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = (*TD3BCConfig.NON_NEGATIVE, "mask", "vae_weight")
    VARYING: ClassVar[tuple[str, ...]] = (*TD3BCConfig.VARYING, "mask", "vae_weight", "vae_learning_rate")
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {"proposal": ("policy", "prior"), "q_scale": ("policy", "data")}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("hidden_sizes", len(self.hidden_sizes) > 0, "at least one width")
        width, last = self.hidden_sizes[0], self.hidden_sizes[-1]
        follow = {"critic_hidden_sizes": (*self.hidden_sizes, last), "vae_hidden_sizes": (width * 750 // 256 or 1,) * 2}
        for name, default in follow.items():
            chosen = default if getattr(self, name) is None else getattr(self, name)
            widths = isinstance(chosen, Sequence) and all(isinstance(n, int) and n > 0 for n in chosen)
            self._require(name, widths, "widths above 0, like [256, 256], or none for the default")
            object.__setattr__(self, name, tuple(chosen))


class VAE(nn.Module):
    """Conditional auto-encoder of actions; the latent has twice the action's dimensions, z = 2 da."""

    def __init__(self, obs_dim: int, action_space: spaces.Box, hidden: Sequence[int], generator: torch.Generator):
        super().__init__()
        da = action_space.shape[0]
        self.encoder = mlp([obs_dim + da, *hidden, 2 * (2 * da)], generator)  # mean and log σ side by side
        self.decoder = Actor(obs_dim + 2 * da, action_space, hidden, generator)

    def forward(
        self,
        observations: Float[Tensor, "batch ds"],
        actions: Float[Tensor, "batch da"],
        noise: Float[Tensor, "batch z"],
    ) -> tuple[Float[Tensor, "batch da"], Float[Tensor, "batch z"], Float[Tensor, "batch z"]]:
        """Reconstruction, μ and log σ; ``noise`` is standard normal."""
        mean, log_std = self.encoder(torch.cat([observations, actions], dim=1)).chunk(2, dim=1)  # 2 x [batch, z]
        log_std = log_std.clamp(-4, 15)  # σ neither vanishes nor overflows
        return self.decode(observations, mean + log_std.exp() * noise), mean, log_std

    def decode(
        self, observations: Float[Tensor, "batch ds"], latent: Float[Tensor, "batch z"]
    ) -> Float[Tensor, "batch da"]:
        return self.decoder(torch.cat([observations, latent], dim=1))


def value_loss(
    v: Float[Tensor, "batch 1"], target: Float[Tensor, "batch 1"], online_target: Float[Tensor, "batch 1"]
) -> Float[Tensor, ""]:
    """L_V: plain regression, neither an expectile nor a target network; of the two targets the smaller counts."""
    return (v - torch.minimum(target, online_target)).square().mean()


def vae_loss(
    vae: VAE, batch: Batch, gate: Bool[Tensor, "batch 1"], noise: Float[Tensor, "batch z"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Gated reconstruction error and KL: L_VAE is w times the first plus half the second.

    The mean keeps the rows that the gate zeroes, so fewer open gates also mean less weight against the ungated KL.
    """
    reconstruction, mean, log_std = vae(batch.observations, batch.actions, noise)
    error = (gate * (reconstruction - batch.actions).square()).mean()  # over [batch, da]
    kl = -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).mean()  # over [batch, z]
    return error, kl


def anchor_and_weight(
    proposal: Float[Tensor, "batch da"],
    actions: Float[Tensor, "batch da"],
    q_proposal: Float[Tensor, "batch 1"],
    q_data: Float[Tensor, "batch 1"],
    v: Float[Tensor, "batch 1"],
    mask: Scalar,
) -> tuple[Float[Tensor, "batch da"], Float[Tensor, "batch 1"]]:
    """ā and m: the better of two actions, and ε where that one is better than the state's value.

    The authors' code adds two booleans, which is a logical OR: two open gates weigh ε, not 2 ε.
    """
    anchor = torch.where(q_proposal >= q_data, proposal, actions)  # [batch, da]
    return anchor, mask * ((q_proposal >= v) | (q_data > v)).float()


def actor_loss(
    q: Float[Tensor, "batch 1"],
    q_scale: Float[Tensor, "batch 1"],
    proposed: Float[Tensor, "batch da"],
    anchor: Float[Tensor, "batch da"],
    weight: Float[Tensor, "batch 1"],
    alpha: Scalar,
) -> Float[Tensor, ""]:
    """L_π: td3bc's with a weight per row; λ = α / mean |q_scale| is a constant in the gradient."""
    pull = (weight * (proposed - anchor).square()).mean()  # over [batch, da]
    return -(alpha / q_scale.abs().mean().detach()) * q.mean() + pull


@register("a2pr")
class A2PR(OfflineAlgorithm):
    """Offline TD3 held to the better one of the data's action and a VAE's."""

    Config: ClassVar[type[OfflineConfig]] = A2PRConfig
    objective: ClassVar[str] = "critic_loss"

    def build(self, obs_dim: int, action_space: spaces.Box, generator: torch.Generator) -> None:
        cfg, da = self.config, action_space.shape[0]
        actor = Actor(obs_dim, action_space, cfg.hidden_sizes, generator)
        self.policy = DeterministicPolicy(self.observation_space, action_space, actor).to(self.device)
        self.critic = Critics(obs_dim, da, cfg.critic_hidden_sizes, generator).to(self.device)
        self.value = mlp([obs_dim, *cfg.critic_hidden_sizes, 1], generator).to(self.device)
        self.vae = VAE(obs_dim, action_space, cfg.vae_hidden_sizes, generator).to(self.device)
        self.target_actor, self.target_critic = freeze(copy.deepcopy(actor)), freeze(copy.deepcopy(self.critic))
        self.actor_optimiser = Adam(actor.parameters(), cfg.learning_rate)
        self.critic_optimiser = Adam(self.critic.parameters(), cfg.learning_rate)
        self.value_optimiser = Adam(self.value.parameters(), cfg.learning_rate)
        self.vae_optimiser = Adam(self.vae.parameters(), cfg.vae_learning_rate)
        self.polyak = Polyak([(actor, self.target_actor), (self.critic, self.target_critic)], cfg.polyak)
        # Its own generator: with the same seed, TD3+BC and A2PR smooth their targets with the same noise.
        self.vae_noise = torch.Generator(self.device).manual_seed(int(self.seed or 0) + 3)

    @property
    def period(self) -> int:
        return int(self.config.actor_delay)

    def latent_noise(self, batch: Batch) -> Float[Tensor, "batch z"]:
        rows, da = batch.actions.shape
        return normal(self.vae_noise, (rows, 2 * da))

    def propose(self, batch: Batch, proposed: Float[Tensor, "batch da"]) -> Float[Tensor, "batch da"]:
        """ρ; carries a gradient with respect to ``proposed`` unless ``detach_target``."""
        noise = self.latent_noise(batch)  # [batch, z], never the noise of the VAE's own step
        with torch.set_grad_enabled(not self.config.detach_target):
            if self.config.proposal == "prior":
                return self.vae.decode(batch.observations, noise.clamp(-0.5, 0.5))
            return self.vae(batch.observations, proposed, noise)[0]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        cfg = self.config
        with torch.no_grad():
            noise = normal(self.noise, batch.actions.shape, cfg.target_noise)  # [batch, da]
            next_actions = target_action(self.target_actor, batch.next_observations, noise, cfg.target_clip)
            target = td_target(self.target_critic, batch, next_actions, cfg.discount)
        loss = critic_loss(self.critic, batch, target)
        self.critic_optimiser.minimise(loss)
        metrics = {"critic_loss": loss, "target_q": target.mean()}

        with torch.no_grad():  # the updated critic, from here on
            online_target = td_target(self.critic, batch, next_actions, cfg.discount)
            q_data = self.critic.first(batch.observations, batch.actions)  # [batch, 1]
        v = self.value(batch.observations)  # [batch, 1]
        loss = value_loss(v, target, online_target)
        self.value_optimiser.minimise(loss)
        v = v.detach()  # from before the step, for every gate below
        metrics |= {"value_loss": loss, "v": v.mean()}

        gate = q_data > v  # g
        error, kl = vae_loss(self.vae, batch, gate, self.latent_noise(batch))
        loss = cfg.vae_weight * error + 0.5 * kl
        self.vae_optimiser.minimise(loss)
        metrics |= {"vae_loss": loss, "vae_error": error, "vae_kl": kl, "vae_gate": gate.float().mean()}

        if (self._n_updates + 1) % cfg.actor_delay == 0:
            proposed = self.policy.actor(batch.observations)  # [batch, da]
            q = self.critic.first(batch.observations, proposed)  # [batch, 1]
            proposal = self.propose(batch, proposed)  # [batch, da]
            with torch.no_grad():
                q_proposal = self.critic.first(batch.observations, proposal)  # [batch, 1]
            anchor, weight = anchor_and_weight(proposal, batch.actions, q_proposal, q_data, v, cfg.mask)
            loss = actor_loss(q, q if cfg.q_scale == "policy" else q_data, proposed, anchor, weight, cfg.alpha)
            self.actor_optimiser.minimise(loss)
            self.polyak.step()
            metrics |= {"actor_loss": loss, "q": q.mean(), "bc": (proposed - batch.actions).square().mean()}
            metrics["proposal_gap"] = (proposed - proposal).square().mean()
            metrics["proposal_chosen"] = (q_proposal >= q_data).float().mean()
            metrics["actor_gate"] = ((q_proposal >= v) | (q_data > v)).float().mean()
        return {key: value.detach() for key, value in metrics.items()}
