"""``Learner``: learning as a row of updates, with callbacks, a log and a checkpoint of everything in between."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger
from torch import Tensor, nn

from rlkit.algorithms.base import Persistent
from rlkit.algorithms.callbacks import Progress, closing_bars
from rlkit.algorithms.floats import fast_float32
from rlkit.algorithms.hyperparameters import check_learning, check_seed_and_device
from rlkit.algorithms.tally import Tally
from rlkit.errors import UserError

L = TypeVar("L", bound="Learner")


class Learner(Persistent):
    """Learning as a row of updates: a subclass builds its networks and turns a batch into metrics.

    Whatever modules, optimisers and generators it sets as attributes become part of every checkpoint.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {}

    def _construct(
        self,
        config: Any,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        seed: int,
        device: torch.device | str,
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> None:
        check_seed_and_device(seed, device, tensorboard_log, verbose)
        self.check_spaces(observation_space, action_space)
        super().__init__(
            BasePolicy,
            env=None,
            learning_rate=getattr(config, "learning_rate", 0.0),
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=int(seed),
        )
        self.config, self.n_envs = config, 1
        self.observation_space, self.action_space = observation_space, action_space
        self.noise = torch.Generator(self.device).manual_seed(int(seed) + 1)
        self.tally = Tally(self.device)
        self._setup_model()

    def _setup_model(self) -> None:
        self.setup(torch.Generator().manual_seed(int(self.seed or 0)))
        for module in self._named(nn.Module).values():
            module.to(self.device)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return [*self._named(nn.Module), *self._named(torch.optim.Optimizer)], []

    # ---- what a subclass provides ----------------------------------------------------------------------------------

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        """Raise :class:`UserError` for spaces the agent cannot handle; by default all but one-dimensional boxes."""
        for role, space in (("observation", observation_space), ("action", action_space)):
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise UserError(f"{self.name} needs a one-dimensional Box {role} space, got {space}")

    @abstractmethod
    def setup(self, generator: torch.Generator) -> None:
        """Set ``self.policy``, the other networks and the optimisers; initial weights come from ``generator``."""

    @abstractmethod
    def draw(self) -> Any:
        """What the next update learns from."""

    @abstractmethod
    def update(self, batch: Any) -> dict[str, Tensor]:
        """One gradient step; returns scalar tensors, left on the device."""

    def ready(self) -> None:
        """Raise :class:`UserError` when there is nothing to learn from."""

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(
        self: L,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> L:
        """``total_timesteps`` updates; callbacks run after each, the log is written every ``log_interval``.

        Raises :class:`UserError` when there is nothing to learn from, a count is not positive, or a metric stops being
        finite.
        """
        total_timesteps = check_learning(total_timesteps, callback, log_interval)
        self.ready()
        if reset_num_timesteps:
            self.num_timesteps = 0
        else:
            total_timesteps += self.num_timesteps
        self.start_time = time.time_ns()
        self._total_timesteps, self._num_timesteps_at_start = total_timesteps, self.num_timesteps
        if not self._custom_logger:
            tag = tb_log_name or self.name
            self._logger = configure_logger(self.verbose, self.tensorboard_log, tag, reset_num_timesteps)
        hooks = self._callbacks(callback, progress_bar)
        with closing_bars(lambda: hooks), fast_float32():
            hooks.on_training_start(locals(), globals())
            while self.num_timesteps < total_timesteps:
                metrics = self.update(self.draw())
                self.num_timesteps += 1
                self._n_updates += 1
                self.tally.add(metrics)
                if log_interval and self.num_timesteps % log_interval == 0:
                    self.write_log()
                if not hooks.on_step():
                    break
            hooks.on_training_end()
        return self

    def _callbacks(self, callback: MaybeCallback, progress_bar: bool) -> BaseCallback:
        if isinstance(callback, list):
            callback = CallbackList(callback)
        if not isinstance(callback, BaseCallback):
            callback = ConvertCallback(callback) if callback is not None else CallbackList([])
        if progress_bar:
            callback = CallbackList([callback, Progress()])
        callback.init_callback(self)
        return callback

    def write_log(self) -> None:
        """Log the means since the last time, if there is anything to log."""
        means = self.tally.take(self.num_timesteps)
        if not means:
            return
        for key, value in means.items():
            self.logger.record(f"train/{key}", value)
        seconds = (time.time_ns() - self.start_time) / 1e9
        self.logger.record("time/updates_per_second", (self.num_timesteps - self._num_timesteps_at_start) / seconds)
        self.logger.dump(self.num_timesteps)

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        return self.tally.tensors()

    def state_values(self) -> dict[str, Any]:
        return {**super().state_values(), "counts": self.tally.counts}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().load_state(tensors, values)
        self.tally.load(tensors, values["counts"])
