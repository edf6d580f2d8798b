"""BC: behavioural cloning, regression of the data's actions on its observations.

The floor every other offline agent has to beat (Pomerleau 1988).  The loss is the mean squared error over the batch
and the action's dimensions, the same term that TD3+BC adds to its actor.  For discrete actions it is the cross-entropy
of a categorical policy, which takes its most probable action.  On imitation data, `agent.part=expert` clones the
labelled expert alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

from rlkit.agents.common.categorical import CategoricalActor, CategoricalPolicy
from rlkit.algorithms.nets import Actor, Adam, DeterministicPolicy
from rlkit.algorithms.offline import OfflineAlgorithm, OfflineConfig
from rlkit.algorithms.replay import Batch
from rlkit.errors import UserError, nearest
from rlkit.registry import register

PARTS = ("all", "expert")


@dataclass(frozen=True)
class BCConfig(OfflineConfig):
    """Hyperparameters of behavioural cloning."""

    part: str = "all"  # all: every row; expert: the labelled rows of imitation data

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part not in PARTS:
            raise UserError(f"agent.part={self.part} is unknown{nearest(str(self.part), PARTS)}")


def bc_loss(proposed: Float[Tensor, "batch da"], actions: Float[Tensor, "batch da"]) -> Float[Tensor, ""]:
    """mean over batch and dimensions of (π(s) - a)²"""
    return (proposed - actions).square().mean()


@register("bc")
class BC(OfflineAlgorithm):
    """A deterministic policy fitted to the data's actions."""

    Config: ClassVar[type[OfflineConfig]] = BCConfig
    uses_rewards: ClassVar[bool] = False
    takes_discrete: ClassVar[bool] = True

    def build(self, obs_dim: int, action_space: spaces.Box | spaces.Discrete, generator: torch.Generator) -> None:
        actor: Actor | CategoricalActor
        if isinstance(action_space, spaces.Discrete):
            actor = CategoricalActor(obs_dim, action_space, self.config.hidden_sizes, generator)
            self.policy = CategoricalPolicy(self.observation_space, action_space, actor).to(self.device)
        else:
            actor = Actor(obs_dim, action_space, self.config.hidden_sizes, generator)
            self.policy = DeterministicPolicy(self.observation_space, action_space, actor).to(self.device)
        self.actor_optimiser = Adam(actor.parameters(), self.config.learning_rate)

    def on_data(self) -> None:
        """Raises :class:`~rlkit.errors.DataError` for `part=expert` on data without a labelled part."""
        assert self.dataset is not None and self.replay is not None
        if self.config.part != "all":
            self.replay.parts = {self.config.part: self.dataset.rows_of(self.config.part)}

    def draw(self) -> Batch:
        assert self.replay is not None
        part = self.config.part
        return self.replay.batch(self.config.batch_size, None if part == "all" else part)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        actor = self.policy.actor
        if isinstance(actor, CategoricalActor):
            loss = -actor.log_prob(batch.observations, batch.actions).mean()  # cross-entropy
        else:
            loss = bc_loss(actor(batch.observations), batch.actions)
        self.actor_optimiser.minimise(loss)
        return {"actor_loss": loss}
