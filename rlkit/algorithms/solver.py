"""``EnvLearner``: an agent that is given one environment, and acts in it or takes its problems from it by itself."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import torch
from stable_baselines3.common.vec_env import VecEnv

from rlkit.algorithms.hyperparameters import make_config, presets
from rlkit.algorithms.learner import Learner
from rlkit.algorithms.policy_kwargs import with_policy_kwargs
from rlkit.errors import UserError, shown
from rlkit.registry import EnvRecord
from rlkit.vector import make_env

Self = TypeVar("Self", bound="EnvLearner")


class EnvLearner(Learner):
    """:param policy: the one there is, ``policy_name``; SB3's first argument
    :param env: a record's name, a Gymnasium id, or an environment
    :param seed: of everything random
    :param hyperparameters: fields of ``Config``; those not given come from the presets of the record, then the defaults

    Raises :class:`UserError` for another policy, no environment, or hyperparameters out of range.
    """

    policy_name: ClassVar[str] = "MlpPolicy"
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
        if policy is not None and policy != self.policy_name:
            raise UserError(f"policy {shown(policy)} is unknown to {self.name}, expected '{self.policy_name}'")
        if env is None:
            raise UserError(f"{type(self).__name__} learns from an environment: expected one or its name, got none")
        hyperparameters = with_policy_kwargs(type(self), policy_kwargs, hyperparameters)
        world, record = self.make_world(env)
        if record is not None:
            hyperparameters = {**presets(type(self), record.name, record.task, record.family), **hyperparameters}
        config = make_config(type(self), hyperparameters)
        self._construct(config, world.observation_space, world.action_space, seed, device, tensorboard_log, verbose)
        self._take((world, record))

    @classmethod
    def make_world(cls, env: Any) -> tuple[gym.Env, EnvRecord | None]:
        """The environment that ``env`` is or names, and its record if it was named.

        Raises :class:`UserError` for an unknown name, or an environment that the agent is not for.
        """
        return make_env(env)

    def _take(self, data: Any) -> None:
        """Connect ``data``, an environment and its record or None."""
        self.world, self.record = data

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
        env = {"id": self.record.env_id, "kwargs": dict(self.record.env_kwargs), "reference": None}
        return {"dataset": None, "env": env}

    @classmethod
    def from_run(
        cls: type[Self],
        record: EnvRecord,
        choices: Any,
        *,
        seed: int,
        device: str,
        progress: bool,
        hyperparameters: dict[str, Any],
    ) -> Self:
        """The agent of a run's configuration, prepared."""
        self = cls(cls.policy_name, record, seed=seed, device=device, **hyperparameters)
        self.prepare(progress)
        return self

    def prepare(self, progress: bool) -> None:
        """What a run does before it begins, with a bar if ``progress``; by default nothing."""
