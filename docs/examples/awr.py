"""AWR: advantage-weighted regression on recorded data (after Peng, Kumar, Zhang & Levine 2019).

    y   = r + γ (1 - terminal) V̄(s')                                      td_target
    L_V = mean (V(s) - y)²,  A = y - V(s)                                  AWR.update
    L_π = mean w (π(s) - a)²,  w = min(exp(A / (sd(A) T)), 20)             awr_loss

Deviations from the paper: one-step targets from a slow copy V̄ instead of TD(λ) returns, and a deterministic actor.
"""

import copy
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlkit.algorithms.nets import Actor, Adam, DeterministicPolicy, Polyak, freeze, mlp
from rlkit.algorithms.offline import OfflineAlgorithm, OfflineConfig
from rlkit.algorithms.replay import Batch
from rlkit.registry import register


@dataclass(frozen=True)
class AWRConfig(OfflineConfig):
    temperature: float = 1.0  # larger: nearer to plain cloning
    discount: float = 0.99  # larger: longer horizon, noisier targets
    POSITIVE = (*OfflineConfig.POSITIVE, "temperature")
    UNIT = ("discount",)


def td_target(target_value: nn.Module, batch: Batch, discount: float) -> Tensor:  # -> [batch, 1]
    return batch.rewards + discount * batch.not_terminal * target_value(batch.next_observations)


def awr_loss(proposed: Tensor, actions: Tensor, advantage: Tensor, temperature: float) -> Tensor:  # -> []
    weight = (advantage / (advantage.std() + 1e-6) / temperature).exp().clamp(max=20.0)  # [batch, 1]
    return (weight * (proposed - actions).square()).mean()


@register("awr")
class AWR(OfflineAlgorithm):
    Config, objective = AWRConfig, "value_loss"

    def build(self, obs_dim: int, action_space: spaces.Box, generator: torch.Generator) -> None:
        actor = Actor(obs_dim, action_space, self.config.hidden_sizes, generator)
        self.policy = DeterministicPolicy(self.observation_space, action_space, actor).to(self.device)
        self.value = mlp([obs_dim, *self.config.hidden_sizes, 1], generator).to(self.device)
        self.target_value = freeze(copy.deepcopy(self.value))
        self.optimiser = Adam([*actor.parameters(), *self.value.parameters()], self.config.learning_rate)
        self.polyak = Polyak([(self.value, self.target_value)], 0.005)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        value = self.value(batch.observations)  # [batch, 1]
        target = td_target(self.target_value, batch, self.config.discount)  # no gradient: V̄ is frozen
        value_loss = (value - target).square().mean()
        proposed = self.policy.actor(batch.observations)  # [batch, da]
        actor_loss = awr_loss(proposed, batch.actions, (target - value).detach(), self.config.temperature)
        self.optimiser.minimise(value_loss + actor_loss)  # they share no weights: one step does both
        self.polyak.step()
        return {"value_loss": value_loss, "actor_loss": actor_loss}
