"""``Solver``: an agent that is given one environment, and acts in it or takes its problems from it by itself."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.vec_env import VecEnv

from rlkit.algorithms.base import Specification
from rlkit.algorithms.hyperparameters import check_policy, chosen_config
from rlkit.algorithms.learner import Learner
from rlkit.errors import UserError
from rlkit.registry import EnvRecord, described
from rlkit.vector import make_env


class Solver(Learner):
    """Base of the agents that are given one environment and use it themselves.

    Args:
        policy: SB3's first argument, always ``policy_name``.
        env: a record's name, a Gymnasium id, or an environment.
        seed: of everything random.
        hyperparameters: fields of ``Config``; those not given come from the presets of the record, then the defaults.

    Raises:
        UserError: another policy, no environment, or hyperparameters out of range.
    """

    world: gym.Env | None = None
    record: EnvRecord | None = None

    def __init__(
        self,
        policy: str | None = None,
        env: Any = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        **hyperparameters: Any,
    ):
        check_policy(type(self), self.policy_name if policy is None else policy)
        if env is None:
            raise UserError(f"{type(self).__name__} learns from an environment: expected one or its name, got none")
        world, record = self.make_world(env)
        keys = () if record is None else (record.name, record.task, record.family)
        config = chosen_config(type(self), policy_kwargs, hyperparameters, *keys)
        spaces_ = world.observation_space, world.action_space
        self.assemble(Specification(config, *spaces_, seed, device, tensorboard_log, verbose))
        self.attach((world, record))

    @classmethod
    def make_world(cls, env: Any) -> tuple[gym.Env, EnvRecord | None]:
        """The environment that ``env`` is or names, and its record if it was named.

        Raises :class:`UserError` for an unknown name, or an environment that the agent is not for.
        """
        return make_env(env)

    def attach(self, source: tuple[gym.Env, EnvRecord | None]) -> None:
        """Connect an environment, and its record where it has one."""
        self.world, self.record = source

    def get_env(self) -> VecEnv | None:
        """The environment, wrapped as SB3 wraps it; None where none is known."""
        if self.env is None and self.world is not None:
            self.env = self._wrap_env(self.world, self.verbose)
        return self.env

    def ready(self) -> None:
        if self.world is None:
            raise UserError(f"this {self.name} was loaded without an environment; pass env= to load() to train on")

    def source(self) -> dict[str, Any]:
        if self.record is None:
            return super().source()
        return {"dataset": None, "env": described(self.record.env_id, self.record.env_kwargs)}
