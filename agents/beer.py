"""BEER: a critic whose successive features are no more alike than Bellman's equation allows (He et al. 2024).

Deterministic policy gradient with one critic Q(s, a) = φ(s, a)ᵀw + b, φ its last hidden layer.  Bellman's equation
r = wᵀ(φ - γφ') and Cauchy-Schwarz bound the cosine of φ and φ'.  Per update on transitions (s, a, r, s'):

    y = r + γ (1 - terminal) Q̄(s', π̄(s'))                                        SB3's DDPG
    U = (‖φ‖² + γ²‖φ̂'‖² - r²/‖w‖²) / (2γ ‖φ‖ ‖φ̄'‖)                             cosine_bound
    L_Q = mean (Q - y)² + β mean (1 - terminal) max(0, cos(φ, φ̄') - U)           beer_penalty
    L_π = -mean Q(s, π(s))
    then π̄, Q̄ move towards π, Q by τ

φ̄' comes from the target networks; everything in U is constant, so the penalty's gradient reaches φ(s, a) alone.

Where paper and authors' code differ, the code is followed: φ̂' in the numerator is the online network's at the online
action (``bound="mixed"``).  ``bound="target"`` uses φ̄' in both places, with which the penalty is exactly zero wherever
Bellman's equation holds without a bias; ``bound="bias_correct"`` also takes r - (1 - γ) b for r.  Deviations: terminal
transitions are masked, γ inside U is the agent's, the denominator is at least 1e-8.

The penalty is often inert: early in training it hardly ever fires, and what fires in the mixed form is largely the
distance between online and target norms.  Look at ``beer/active_frac`` and ``beer/gradient_share``, the length of its
gradient beside that of the squared Bellman error's, before crediting a result to it.

Other regularisers of the same critic, for comparison: none (``beta=0`` is SB3's DDPG bit for bit), InFeR (Lyle et al.
2022) and DR3 (Kumar et al. 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise
from torch import Tensor, nn
from torch.nn import functional

from rlkit.algorithms.hyperparameters import AgentConfig, RunDefaults
from rlkit.algorithms.nets import Adam, freeze
from rlkit.algorithms.online import OnlineAlgorithm
from rlkit.algorithms.replay import Replay
from rlkit.registry import register

EPS = (0.01, 0.1, 1.0)  # thresholds of the numerical rank
RANK_PAIRS = 2048
SHARE_EVERY = 400  # updates between two measurements of the regulariser's gradient


@dataclass(frozen=True)
class BEERConfig(AgentConfig):
    """Hyperparameters of BEER and of the regularisers it is compared with."""

    regulariser: str = "beer"  # beer, infer, dr3 or none
    beta: float = 1e-3  # weight of BEER's penalty; larger: features of successive pairs less alike
    bound: str = "mixed"  # mixed (the authors' code), target or bias_correct
    infer_weight: float = 0.1  # InFeR's α; larger: features stay nearer to what they could express at first
    infer_scale: float = 100.0  # InFeR's β, by which the initial heads' outputs are multiplied
    infer_heads: int = 10  # linear heads kept in place
    dr3_weight: float = 1e-3  # DR3's c₀; larger: smaller dot products of successive features
    dr3_stop_gradient: bool = False  # whether φ' is constant in DR3's term
    backbone: str = "ddpg"  # ddpg: one critic; td3: two, smoothed targets, delayed actor
    learning_rate: float = 3e-4  # larger: faster and less stable
    batch_size: int = 256  # larger: smoother gradients, slower updates
    hidden_sizes: Sequence[int] = (256, 256)  # widths of actor and critic; the last is the number of features
    discount: float = 0.99  # larger: longer horizon, noisier targets
    polyak: float = 0.005  # how far the targets move at each update
    buffer_size: int = 1_000_000  # transitions remembered
    learning_starts: int = 25_000  # steps of uniformly random actions before the first update
    exploration_noise: float = 0.1  # standard deviation of the noise on actions in [-1, 1]
    rank_interval: int = 5_000  # updates between two measurements of the features' rank; 0: never

    POSITIVE: ClassVar[tuple[str, ...]] = ("learning_rate", "batch_size", "buffer_size", "infer_heads")
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = (
        *("beta", "infer_weight", "infer_scale", "dr3_weight", "learning_starts", "exploration_noise", "rank_interval"),
    )
    UNIT: ClassVar[tuple[str, ...]] = ("discount", "polyak")
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {
        "regulariser": ("beer", "infer", "dr3", "none"),
        "bound": ("mixed", "target", "bias_correct"),
        "backbone": ("ddpg", "td3"),
    }

    def __post_init__(self) -> None:
        self._widths("hidden_sizes")
        super().__post_init__()
        self._require("discount", self.discount > 0, "a number above 0")  # the bound divides by it


def cosine_bound(
    phi: Float[Tensor, "batch m"],
    phi_numerator: Float[Tensor, "batch m"],
    phi_denominator: Float[Tensor, "batch m"],
    rewards: Float[Tensor, "batch 1"],
    weight: Float[Tensor, " m"],
    discount: float,
) -> Float[Tensor, "batch 1"]:
    """U, the largest cosine of φ and φ' that Bellman's equation allows."""
    square = phi.square().sum(1, keepdim=True)  # [batch, 1]
    later = phi_numerator.square().sum(1, keepdim=True)  # [batch, 1]
    norms = square.sqrt() * phi_denominator.norm(dim=1, keepdim=True)  # [batch, 1]
    slack = rewards.square() / weight.square().sum().clamp_min(1e-8)  # [batch, 1]
    return (square + discount**2 * later - slack) / (2 * discount * norms).clamp_min(1e-8)


def beer_penalty(
    phi: Float[Tensor, "batch m"],
    phi_next: Float[Tensor, "batch m"],
    bound: Float[Tensor, "batch 1"],
    not_terminal: Float[Tensor, "batch 1"],
) -> tuple[Float[Tensor, "batch 1"], Float[Tensor, "batch 1"]]:
    """Penalty and cosine of each transition; ``bound`` and ``phi_next`` are constants."""
    cosine = functional.cosine_similarity(phi, phi_next.detach(), dim=1, eps=1e-6).unsqueeze(1)  # [batch, 1]
    return not_terminal * functional.relu(cosine - bound.detach()), cosine


def infer_loss(
    heads: Float[Tensor, "batch k"], first_heads: Float[Tensor, "batch k"], scale: float
) -> Float[Tensor, ""]:
    """InFeR: each head keeps to ``scale`` times what it gave at initialisation, summed over heads."""
    return (heads - scale * first_heads).square().mean(0).sum()


def dr3_loss(phi: Float[Tensor, "batch m"], phi_next: Float[Tensor, "batch m"]) -> Float[Tensor, ""]:
    """DR3: the dot product of features of successive pairs."""
    return (phi * phi_next).sum(1).mean()


def gradient_share(part: Tensor, whole: Tensor, parameters: Sequence[Tensor]) -> Float[Tensor, ""]:
    """‖∇ part‖ / ‖∇ whole‖ over ``parameters``; both losses can still be differentiated afterwards."""
    norms = []
    for loss in (part, whole):
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        norms.append(sum((g.square().sum() for g in found if g is not None), torch.zeros_like(loss)).sqrt())
    return norms[0] / norms[1].clamp_min(1e-30)


def numerical_rank(singular: Float[Tensor, " m"], eps: float) -> int:
    """Singular values of Φ/√N above ``eps`` (the feature rank of Lyle et al. 2022)."""
    return int((singular > eps).sum())


def effective_rank(singular: Float[Tensor, " m"], delta: float = 0.01) -> int:
    """srank: how many singular values, largest first, sum to a share of at least 1 - ``delta``."""
    share = singular.double().cumsum(0) / singular.double().sum().clamp_min(1e-12)
    return min(int((share < 1 - delta).sum()) + 1, len(singular))


@register("beer")
class BEER(OnlineAlgorithm, TD3):
    """DDPG or TD3 whose critic's features keep within the bound of Bellman's equation."""

    Config: ClassVar[type[AgentConfig]] = BEERConfig
    defaults: ClassVar[RunDefaults] = RunDefaults(unit="steps", eval_every=10_000)
    objective: ClassVar[str] = "critic_loss"

    def arguments(self, config: Any) -> dict[str, Any]:
        td3 = config.backbone == "td3"
        return {
            "learning_rate": config.learning_rate,
            "buffer_size": config.buffer_size,
            "learning_starts": config.learning_starts,
            "batch_size": config.batch_size,
            "tau": config.polyak,
            "gamma": config.discount,
            "policy_delay": 2 if td3 else 1,
            "target_policy_noise": 0.2,
            "target_noise_clip": 0.5 if td3 else 0.0,
            "replay_buffer_class": Replay,
            "policy_kwargs": {
                "net_arch": list(config.hidden_sizes),
                "n_critics": 2 if td3 else 1,
                "optimizer_class": Adam,
            },
        }

    def _setup_model(self) -> None:
        super()._setup_model()
        cfg = self.config
        self.replay_buffer.generator.manual_seed(int(self.seed or 0) + 2)
        shape = self.action_space.shape
        assert shape is not None
        self.action_noise = NormalActionNoise(np.zeros(shape), np.full(shape, cfg.exploration_noise))
        self.rank_pairs = torch.Generator(self.device).manual_seed(int(self.seed or 0) + 3)
        self.nets: Any = self.critic.q_networks  # each a Sequential: [:-1] gives φ, [-1] is the head (w, b)
        self.target_nets: Any = self.critic_target.q_networks
        targets = [*self.critic_target.parameters(), *self.actor_target.parameters()]
        online = [*self.critic.parameters(), *self.actor.parameters()]
        self.targets, self.online = [p.detach() for p in targets], [p.detach() for p in online]
        if cfg.regulariser == "infer":
            self._add_heads(cfg)

    def _add_heads(self, cfg: Any) -> None:
        """Linear heads on the features, trained with the critic, and both as they are now, frozen."""
        self.heads = nn.ModuleList(nn.Linear(cfg.hidden_sizes[-1], cfg.infer_heads) for _ in self.nets)
        self.heads.to(self.device)
        self.first_heads, self.first_critic = freeze(copy.deepcopy(self.heads)), freeze(copy.deepcopy(self.critic))
        self.first_nets: Any = self.first_critic.q_networks
        self.critic.optimizer = Adam([*self.critic.parameters(), *self.heads.parameters()], cfg.learning_rate)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        parts, variables = super()._get_torch_save_params()
        return [*parts, *(["heads", "first_heads", "first_critic"] if hasattr(self, "heads") else [])], variables

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        cfg = self.config
        for _ in range(gradient_steps):
            self._n_updates += 1
            batch = self.seen(self.replay_buffer.batch(batch_size))
            with torch.no_grad():
                noise = torch.empty_like(batch.actions).normal_(0, self.target_policy_noise)  # [batch, da]
                noise = noise.clamp(-self.target_noise_clip, self.target_noise_clip)
                next_actions = (self.actor_target(batch.next_observations) + noise).clamp(-1, 1)
                pairs = torch.cat([batch.next_observations, next_actions], dim=1)  # [batch, ds + da]
                phis = [net[:-1](pairs) for net in self.target_nets]  # φ̄', one [batch, m] per critic
                values = [net[-1](phi) for net, phi in zip(self.target_nets, phis, strict=True)]
                target = batch.rewards + cfg.discount * batch.not_terminal * torch.stack(values).amin(0)  # [batch, 1]

            pairs = torch.cat([batch.observations, batch.actions], dim=1)  # [batch, ds + da]
            features = [net[:-1](pairs) for net in self.nets]  # φ, one [batch, m] per critic
            qs = [net[-1](phi) for net, phi in zip(self.nets, features, strict=True)]
            td: Any = sum(functional.mse_loss(q, target) for q in qs)
            extra, metrics = self._regulariser(batch, pairs, features, phis)
            if extra is not None and self._n_updates % SHARE_EVERY == 0:
                share = gradient_share(extra, td, list(self.critic.parameters()))
                metrics[f"{cfg.regulariser}/gradient_share"] = share
            self.critic.optimizer.minimise(td if extra is None else td + extra)  # type: ignore[attr-defined]
            metrics["train/critic_loss"] = td

            if self._n_updates % self.policy_delay == 0:
                loss = -self.critic.q1_forward(batch.observations, self.actor(batch.observations)).mean()
                self.actor.optimizer.minimise(loss)  # type: ignore[attr-defined]
                metrics["train/actor_loss"] = loss
                torch._foreach_mul_(self.targets, 1 - self.tau)  # in SB3's order of rounding
                torch._foreach_add_(self.targets, self.online, alpha=self.tau)
            self.tally.add(metrics)
            if cfg.rank_interval and self._n_updates % cfg.rank_interval == 0:
                self.tally.add(self._ranks())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _regulariser(
        self, batch: Any, pairs: Tensor, features: list[Tensor], phis: list[Tensor]
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What is added to the critics' loss, summed over critics, and metrics."""
        cfg = self.config
        parts: list[Tensor] = []
        if cfg.regulariser == "infer":
            for k, phi in enumerate(features):
                first = self.first_heads[k](self.first_nets[k][:-1](pairs))  # [batch, heads]
                parts.append(infer_loss(self.heads[k](phi), first, cfg.infer_scale))
            return cfg.infer_weight * sum(parts), {"infer/loss": parts[0]}
        if cfg.regulariser == "dr3":
            with torch.no_grad():
                actions = self.actor(batch.next_observations)  # [batch, da]
            later = torch.cat([batch.next_observations, actions], dim=1)  # [batch, ds + da]
            for net, phi in zip(self.nets, features, strict=True):
                following = net[:-1](later)  # [batch, m]
                parts.append(dr3_loss(phi, following.detach() if cfg.dr3_stop_gradient else following))
            return cfg.dr3_weight * sum(parts), {"dr3/loss": parts[0]}
        if cfg.regulariser == "none" or cfg.beta == 0:
            return None, {}
        metrics: dict[str, Tensor] = {}
        for k, phi in enumerate(features):
            net, numerator, rewards = self.nets[k], phis[k], batch.rewards
            with torch.no_grad():
                if cfg.bound == "mixed":
                    actions = self.actor(batch.next_observations)  # [batch, da]
                    numerator = net[:-1](torch.cat([batch.next_observations, actions], dim=1))  # φ̂' [batch, m]
                elif cfg.bound == "bias_correct":
                    rewards = rewards - (1 - cfg.discount) * net[-1].bias
                bound = cosine_bound(phi, numerator, phis[k], rewards, net[-1].weight[0], cfg.discount)
            penalty, cosine = beer_penalty(phi, phis[k], bound, batch.not_terminal)
            parts.append(penalty.mean())
            if k == 0:
                metrics["beer/active_frac"] = (penalty.detach() > 0).float().mean()
                metrics |= {"beer/loss": parts[0], "beer/bound": bound.mean(), "beer/cosine": cosine.mean()}
        return cfg.beta * sum(parts), metrics

    @torch.no_grad()
    def _ranks(self) -> dict[str, Tensor]:
        rows = torch.randint(self.replay_buffer.size(), (RANK_PAIRS,), generator=self.rank_pairs, device=self.device)
        pairs = self.seen(self.replay_buffer.take(rows))
        phi = self.nets[0][:-1](torch.cat([pairs.observations, pairs.actions], dim=1))  # [2048, m]
        singular = torch.linalg.svdvals(phi / RANK_PAIRS**0.5)  # [m]
        found = {f"rank/nrr_{eps}": torch.tensor(float(numerical_rank(singular, eps))) for eps in EPS}
        return found | {"rank/srank_0.01": torch.tensor(float(effective_rank(singular)))}
