"""AWR: advantage-weighted regression on recorded data (after Peng, Kumar, Zhang & Levine 2019).

    y   = r + γ (1 - terminal) V̄(s')                                      update
    L_V = mean (V(s) - y)²,  A = y - V(s)                                  update
    w   = min(exp(A / (sd(A) T)), 20)                                      weights
    L_π = mean w (π(s) - a)²                                               awr_loss

Deviations from the paper: one-step targets from a slow copy V̄ instead of TD(λ) returns, and a deterministic actor.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from rlkit.nets import Actor, DeterministicPolicy, Polyak, freeze, minimise, mlp
from rlkit.offline import OfflineAlgorithm, OfflineConfig
from rlkit.registry import register
from rlkit.replay import Batch


@dataclass(frozen=True)
class AWRConfig(OfflineConfig):
    temperature: float = 1.0  # larger: nearer to plain cloning
    discount: float = 0.99  # larger: longer horizon, noisier targets

    POSITIVE: ClassVar[tuple[str, ...]] = (*OfflineConfig.POSITIVE, "temperature")
    UNIT: ClassVar[tuple[str, ...]] = ("discount",)


def weights(advantage: Tensor, temperature: float) -> Tensor:  # [batch, 1] -> [batch, 1]
    return (advantage / (advantage.std() + 1e-6) / temperature).exp().clamp(max=20.0)


def awr_loss(proposed: Tensor, actions: Tensor, weight: Tensor) -> Tensor:  # 2 x [batch, da], [batch, 1] -> []
    return (weight * (proposed - actions).square()).mean()


@register("awr")
class AWR(OfflineAlgorithm):
    Config, objective = AWRConfig, "value_loss"

    def build(self, obs_dim: int, action_space: spaces.Box, generator: torch.Generator) -> None:
        actor = Actor(obs_dim, action_space, self.config.hidden_sizes, generator)
        self.policy = DeterministicPolicy(self.observation_space, action_space, actor).to(self.device)
        self.value = mlp([obs_dim, *self.config.hidden_sizes, 1], generator).to(self.device)
        self.target_value = freeze(copy.deepcopy(self.value))
        self.actor_optimiser = torch.optim.Adam(actor.parameters(), self.config.learning_rate)
        self.value_optimiser = torch.optim.Adam(self.value.parameters(), self.config.learning_rate)
        self.polyak = Polyak([(self.value, self.target_value)], 0.005)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            future = self.target_value(batch.next_observations)  # [batch, 1]
            target = batch.rewards + self.config.discount * batch.not_terminal * future  # [batch, 1]
        value = self.value(batch.observations)  # [batch, 1]
        value_loss = (value - target).square().mean()
        weight = weights((target - value).detach(), self.config.temperature)
        actor_loss = awr_loss(self.policy.actor(batch.observations), batch.actions, weight)
        minimise(value_loss, self.value_optimiser)
        minimise(actor_loss, self.actor_optimiser)
        self.polyak.step()
        return {"value_loss": value_loss, "actor_loss": actor_loss, "weight": weight.mean()}
