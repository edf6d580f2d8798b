"""``Trainer`` and ``Learner``: learning in steps of an agent's own, with callbacks, a log and a checkpoint in between.

A step of a :class:`Trainer` is whatever it says; that of a :class:`Learner` is an update, its own function of a batch.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor, nn

from rlkit.algorithms.base import Persistent, Specification
from rlkit.algorithms.callbacks import Progress, closing_bars, make_logger, turns_of
from rlkit.algorithms.engine import Engine, engine_of
from rlkit.algorithms.engine.program import Doubtful
from rlkit.algorithms.floats import fast_float32
from rlkit.algorithms.hyperparameters import check_learning
from rlkit.algorithms.tally import Tally
from rlkit.errors import UserError

Self = TypeVar("Self", bound="Trainer")


class Trainer(Persistent, BaseAlgorithm):
    """Learning in steps: a subclass builds what it needs and does one step.

    Whatever modules, optimisers and generators it sets as attributes become part of every checkpoint.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {}
    tf32 = False  # on a GPU: matrix products of 10 bits of mantissa, which are faster
    steps_at_once = 1  # what was counted between the latest two turns of the callbacks

    def assemble(self, specification: Specification) -> None:
        spec = specification
        self.check_spaces(spec.observation_space, spec.action_space)
        rate = getattr(spec.config, "learning_rate", 0.0)
        BaseAlgorithm.__init__(self, BasePolicy, env=None, learning_rate=rate, **spec.for_sb3())
        self.config, self.n_envs = spec.config, 1
        self.observation_space, self.action_space = spec.observation_space, spec.action_space
        self.noise = torch.Generator(self.device).manual_seed(spec.seed + 1)
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

    def ready(self) -> None:
        """Raise :class:`UserError` when there is nothing to learn from."""

    @abstractmethod
    def step(self) -> int:
        """Learn a little; returns how many ``num_timesteps`` that is, 0 where nothing is left to learn."""

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Steps until ``total_timesteps``; callbacks run after each, the log is written every ``log_interval`` of them.

        Raises :class:`UserError` when there is nothing to learn from, a count is not positive, or a metric stops being
        finite.
        """
        for most in self.lessons(
            total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
        ):
            self.advance(most)
        return self

    def advance(self, most: int) -> None:
        """Between one and ``most`` steps, counted; none where nothing is left to learn."""
        steps = self.step()
        self.num_timesteps += steps
        self._n_updates += steps > 0

    def lessons(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Iterator[int]:
        """:meth:`learn` but for the steps, which the caller does: yields how many may be done before its next turn."""
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
            self._logger = make_logger(self.verbose, self.tensorboard_log, tag, reset_num_timesteps)
        hooks = self._hooks = self._callbacks(callback, progress_bar)
        with closing_bars(lambda: hooks), fast_float32(self.device, self.tf32):
            hooks.on_training_start(locals(), globals())
            turns = turns_of(hooks, log_interval)
            while self.num_timesteps < total_timesteps:
                before = self.num_timesteps
                yield min([total_timesteps - before, *(every - before % every for every in turns)])
                self.steps_at_once = self.num_timesteps - before
                if not self.steps_at_once:
                    break
                if log_interval and self.num_timesteps % log_interval == 0:
                    self.write_log()
                if not hooks.on_step():
                    break
            hooks.on_training_end()

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


class Learner(Trainer):
    """A step is an update: a subclass says what it draws, and turns that into metrics.

    An update is a program over fixed tensors, which an engine (:mod:`rlkit.algorithms.engine`) may run in other ways
    than line by line: its state lies in modules, optimisers and generators that are attributes; it reads no value
    back; what it does depends on the count of updates alone, and repeats after :attr:`period` of them.
    """

    engine: str = "auto"  # eager, graph, or auto: a graph on CUDA where the update can be one
    _running: Engine | None = None

    @property
    def period(self) -> int:
        """After how many updates what an update does repeats; it may depend on their count and on nothing else."""
        return 1

    def share(self, other: Any) -> None:
        """Hold but once what is the same in ``other``, beside which it will learn; by default nothing."""

    def doubtful(self) -> Sequence[Doubtful]:
        """What may answer at once and find out later that it was wrong; by default nothing."""
        return ()

    @abstractmethod
    def draw(self) -> Any:
        """What the next update learns from."""

    @abstractmethod
    def update(self, batch: Any) -> dict[str, Tensor]:
        """One gradient step; returns scalar tensors, left on the device."""

    def step(self) -> int:
        self.tally.add(self.update(self.draw()))
        return 1

    def advance(self, most: int) -> None:
        if self._running is None:
            self._running = engine_of(self)
        self._running.advance(most)

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().load_state(tensors, values)
        self._running = None  # what it ran over may have been replaced
