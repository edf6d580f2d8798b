"""IQ-Learn, offline: a Q function whose own Bellman residual is the reward (Garg, Chakraborty, Cundy et al. 2021).

On batches of the labelled expert alone, with y = γ (1 - terminal) V(s') and a `regulariser`:

    L_V = ½ mean [Q̄(s, π) - α log π(a_π|s) - V(s)]²,  Q̄ = min(Q̄₁, Q̄₂)           V is the soft value  IQLearn.value_step
    L_Q = -mean [Q(s, a) - y] + mean [Q(s, π) - α log π(a_π|s) - y] + mean [Q(s, a) - y]² / (4a)         iq_loss
    w = min(exp(κ δ), 100),  L_π = -mean w log π(a|s)                       :mod:`rlkit.agents.common.implicit`

The first term is the recovered reward, which L_Q raises on what the expert did and lowers on what the policy does.

Deviations: V is a network, so that no gradient passes through y (as ReCOIL's table of duals has it); the actor is the
implicit learner's weighted cloning and not SAC's, which is the worse of the two on offline data.  The pool is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rlkit.agents.common.divergence import value_loss
from rlkit.agents.common.implicit import advantage
from rlkit.agents.recoil import DemonstrationConfig, Demonstrations, sampled_actions
from rlkit.algorithms.noise import Scalar
from rlkit.algorithms.offline import OfflineConfig
from rlkit.algorithms.replay import Batch
from rlkit.registry import register


@dataclass(frozen=True)
class IQLearnConfig(DemonstrationConfig):
    """Hyperparameters of offline IQ-Learn."""

    divergence: str = "expectile"
    temperature: float = 0.01  # α of the policy's entropy; larger: V counts a policy's spread for more
    value_clip: float = 0.0
    rescale: bool = False
    regulariser: float = 0.5  # a of χ²; larger: recovered rewards larger, Q steeper

    POSITIVE: ClassVar[tuple[str, ...]] = (*DemonstrationConfig.POSITIVE, "regulariser")
    VARYING: ClassVar[tuple[str, ...]] = (*DemonstrationConfig.VARYING, "regulariser")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("divergence", self.divergence == "expectile", "expectile: V is a mean of soft values (lam ½)")
        for name, fixed in (("value_clip", 0), ("value_updates", 1), ("uniform_actions", False)):
            self._require(name, getattr(self, name) == fixed, f"{fixed}: V has one regression, on the policy's actions")


def iq_loss(
    q: Float[Tensor, "batch 1"],
    soft_value: Float[Tensor, "batch 1"],
    target: Float[Tensor, "batch 1"],
    regulariser: Scalar,
) -> Float[Tensor, ""]:
    """L_Q of one critic at the expert's pairs."""
    reward = q - target  # [batch, 1]
    return -reward.mean() + (soft_value - target).mean() + reward.square().mean() / (4 * regulariser)


@register("iqlearn")
class IQLearn(Demonstrations):
    """Imitation by soft values that make the expert's the best."""

    Config: ClassVar[type[OfflineConfig]] = IQLearnConfig

    def draw(self) -> Batch:
        """Transitions of the labelled expert."""
        return self.expert_batch()

    def policy_entropy(self, batch: Batch) -> tuple[Float[Tensor, "batch da"], Float[Tensor, "batch 1"]]:
        """The policy's actions at the batch's states and -α log π of them; no gradient."""
        with torch.no_grad():
            actions = sampled_actions(self.policy.actor, batch.observations, self.noise)  # [batch, da]
            log_prob = self.policy.actor.log_prob(batch.observations, actions)  # [batch, 1]
        return actions, -self.config.temperature * log_prob

    def value_step(self, batch: Batch) -> tuple[Float[Tensor, "batch 1"], Tensor]:
        actions, entropy = self.policy_entropy(batch)  # [batch, da], [batch, 1]
        with torch.no_grad():
            soft = torch.minimum(*self.target_critic(batch.observations, actions)) + entropy  # [batch, 1]
            q = torch.minimum(*self.target_critic(batch.observations, batch.actions))  # [batch, 1]
        delta = advantage(soft, self.value(batch.observations))  # [batch, 1]
        loss = value_loss(delta, self.divergence, self.config.lam, 1.0)
        self.value_optimiser.minimise(loss)
        return q, loss

    def critic_target(self, batch: Batch, next_values: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch 1"]:
        return self.config.discount * batch.not_terminal * next_values

    def critic_objective(
        self, batch: Batch, target: Float[Tensor, "batch 1"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        actions, entropy = self.policy_entropy(batch)  # [batch, da], [batch, 1]
        pairs = zip(
            self.critic(batch.observations, batch.actions), self.critic(batch.observations, actions), strict=True
        )
        losses = [iq_loss(q, q_policy + entropy, target, self.config.regulariser) for q, q_policy in pairs]
        return torch.stack(losses).sum(), self.watch()
