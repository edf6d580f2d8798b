"""The categorical actor of agents that choose among discrete actions, given as a column each, 1 in the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor, nn

from rlkit.agents.common.gaussian import dropped, network
from rlkit.algorithms.nets import DeterministicPolicy
from rlkit.algorithms.noise import Generator


class CategoricalActor(nn.Module):
    """``softmax(net(s))`` over the ``n`` actions."""

    def __init__(
        self,
        obs_dim: int,
        action_space: spaces.Discrete,
        hidden: Sequence[int],
        generator: torch.Generator,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.net = network([obs_dim, *hidden, int(action_space.n)], generator)
        self.dropout = dropout

    def forward(
        self, observations: Float[Tensor, "batch ds"], noise: Generator | None = None
    ) -> Float[Tensor, "batch n"]:
        """Logits; with ``noise``, hidden units are dropped by it."""
        return dropped(self.net, observations, self.dropout, noise)

    def log_prob(
        self,
        observations: Float[Tensor, "batch ds"],
        actions: Float[Tensor, "batch n"],
        noise: Generator | None = None,
    ) -> Float[Tensor, "batch 1"]:
        """log π(a|s)."""
        logits = self(observations, noise)  # [batch, n]
        chosen = (logits * actions).sum(dim=1, keepdim=True)  # [batch, 1]
        return chosen - logits.logsumexp(dim=1, keepdim=True)


class CategoricalPolicy(DeterministicPolicy):
    """The most probable action, or one drawn with ``generator`` where there is one, int64 ``[batch]``."""

    actor: CategoricalActor  # type: ignore[assignment]  # no actor of a box

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        actor: CategoricalActor,
        generator: torch.Generator | None = None,
    ):
        super().__init__(observation_space, action_space, actor)
        self.generator, self.start = generator, int(action_space.start)

    def forward(self, observations: Tensor) -> Tensor:
        return self._predict(observations, deterministic=True)

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        logits = self.actor(self.normalise(observation))  # [batch, n]
        if deterministic or self.generator is None:
            return logits.argmax(dim=1) + self.start
        return torch.multinomial(logits.softmax(dim=1), 1, generator=self.generator)[:, 0] + self.start
