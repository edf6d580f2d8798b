"""The Gaussian actor of the implicit-value learners and SMODICE, and its weighted cloning loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor, nn

from rlkit.algorithms.nets import Actor, DeterministicPolicy
from rlkit.algorithms.noise import Generator, bernoulli


def network(sizes: Sequence[int], generator: torch.Generator, layer_norm: bool = False) -> nn.Sequential:
    """ReLU network through ``sizes``, orthogonal weights of gain √2 from ``generator``, zero biases."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        nn.init.orthogonal_(layer.weight, math.sqrt(2), generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, *([nn.LayerNorm(outputs, eps=1e-6)] if layer_norm else []), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[: -2 if layer_norm else -1])


def dropped(
    net: nn.Sequential, x: Float[Tensor, "batch ds"], share: float, noise: Generator | None
) -> Float[Tensor, "batch out"]:
    """``net(x)``; with ``noise``, a share of hidden units dropped by it (``nn.Dropout`` asks the global RNG)."""
    for layer in net:
        x = layer(x)  # [batch, width]
        if noise is not None and share > 0 and isinstance(layer, nn.ReLU):
            x = x * bernoulli(noise, x.shape, 1 - share) / (1 - share)
    return x


class GaussianActor(Actor):
    """Diagonal Normal around ``tanh(net(s))``, its log-deviations parameters; actions are in [-1, 1]."""

    def __init__(
        self,
        obs_dim: int,
        action_space: spaces.Box,
        hidden: Sequence[int],
        generator: torch.Generator,
        dropout: float = 0.0,
    ):
        super().__init__(obs_dim, action_space, hidden, generator)
        self.net = network([obs_dim, *hidden, action_space.shape[0]], generator)
        self.log_std = nn.Parameter(torch.zeros(action_space.shape[0]))
        self.dropout = dropout

    def forward(
        self, observations: Float[Tensor, "batch ds"], noise: Generator | None = None
    ) -> Float[Tensor, "batch da"]:
        """The mean; with ``noise``, hidden units are dropped by it."""
        return torch.tanh(dropped(self.net, observations, self.dropout, noise))

    def std(self) -> Float[Tensor, " da"]:
        return self.log_std.clamp(-5.0, 2.0).exp()

    def log_prob(
        self,
        observations: Float[Tensor, "batch ds"],
        actions: Float[Tensor, "batch da"],
        noise: Generator | None = None,
    ) -> Float[Tensor, "batch 1"]:
        """log π(a|s)."""
        std = self.std()  # [da]
        z = (actions - self(observations, noise)) / std  # [batch, da]
        return -(0.5 * z.square() + std.log() + 0.5 * math.log(2 * math.pi)).sum(dim=1, keepdim=True)


class GaussianPolicy(DeterministicPolicy):
    """The actor's mean, or a sample drawn with ``generator``, within the action space."""

    actor: GaussianActor

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        actor: GaussianActor,
        generator: torch.Generator,
    ):
        super().__init__(observation_space, action_space, actor)
        self.generator = generator

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        actions = self.actor(self.normalise(observation))  # [batch, da]
        if not deterministic:
            noise = torch.empty_like(actions).normal_(generator=self.generator)  # [batch, da]
            actions = actions + self.actor.std() * noise
        return self.outside(actions.clamp(-1, 1))


def actor_loss(log_prob: Float[Tensor, "batch 1"], weight: Float[Tensor, "batch 1"]) -> Float[Tensor, ""]:
    """L_π: likelihood of the data's actions, weighted."""
    return -(weight * log_prob).mean()
