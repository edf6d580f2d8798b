"""MBTL: train in a few contexts, serve all of them by zero-shot transfer (Cho et al. 2024).

    k = 0: the context in the middle.  Then, until the budget is spent:
    1. ask for the context with the largest expected rise of F          select.TaskSelector.ask
    2. train any SB3 or rlkit agent there                               train.train_source
    3. measure the policy as it is in every context: a row of V         train.measure
    4. tell the row; each context is served by the best policy measured    MBTL.assigned

This is a trainer: a step is a source task (or ``batch`` of them), and ``num_timesteps`` counts the environment steps
asked for in training, ``task_timesteps`` a task.  A checkpoint holds what was measured and every policy; a run that is
killed redoes the task it was at, and to the same bytes, as a task depends on its own seeds alone.

Deviations, options all but the last: 25 contexts instead of 100, 300,000 steps a task instead of millions, 30 episodes
a target instead of 100, the best policy by evaluations every 10,000 steps instead of 500, own returns instead of
best-so-far in the Gaussian process (``compat="official"`` restores it), parallel tasks by a constant liar.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import yaml
from gymnasium import spaces
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor

from rlkit.agents.mbtl.select import TaskSelector
from rlkit.agents.mbtl.train import (
    SourceTask,
    ask_many,
    learner_class,
    learner_name,
    policy_of,
    train_sources,
    untrained_sources,
)
from rlkit.agents.mbtl.worlds import Array, Spread, grid, nearest_points, probe
from rlkit.algorithms.base import Specification
from rlkit.algorithms.callbacks import Progress, StopOnSignal, leaves
from rlkit.algorithms.evaluate import Evaluator
from rlkit.algorithms.hyperparameters import AgentConfig, RunDefaults, check_learning, chosen_config
from rlkit.algorithms.learner import Trainer
from rlkit.errors import ArtefactError, UserError
from rlkit.registry import EnvRecord, described, register

Self = TypeVar("Self", bound="MBTL")
PAPER_CONTEXTS = 100  # of the grid that theta refers to


@dataclass(frozen=True)
class MBTLConfig(AgentConfig):
    """Hyperparameters of MBTL."""

    learner: str = "ppo"  # what trains a source: a2c, ddpg, dqn, ppo, sac, td3, or an online agent of rlkit
    learner_kwargs: Any = None  # its own options, such as {gamma: 0.9}; what is not named is the learner's default
    strategy: str = "mbtl"  # how sources are chosen: mbtl, random, equidistant, greedy
    features: Any = None  # names of the context's features that vary; None: the environment's first
    n_contexts: int = 25  # grid points per feature; more: finer service, longer measuring
    low_scale: float = 0.1  # the grid's first point, times the feature's base
    high_scale: float = 10.0  # its last
    budget: int = 10  # sources trained at most
    task_timesteps: int = 300_000  # environment steps of training a source
    episodes: int = 30  # by which each entry of V is measured; more: less noise in whom a context is served by
    return_low: float | None = None  # a return that counts as 0
    return_high: float | None = None  # a return that counts as 1
    gap: str | None = None  # fixed, estimated or directional; None: fixed, or directional where several features vary
    theta: float = 0.005  # normalised return lost per step of a grid of 100; larger: sources are spread evenly
    compat: str | None = None  # official: the released code's Gaussian process
    enough: float = 0.0  # stop when no source promises to raise the mean normalised return by more
    batch: int = 1  # sources chosen at once, by a constant liar; more: to be trained side by side, chosen less well
    trials: int = 1  # policies trained per source with other seeds; the one with the best row is kept
    jobs: int = 1  # processes that train; the results do not depend on it
    train_envs: int = 8  # environments that SB3's ppo and a2c are trained in at once; others have one
    select_every: int = 10_000  # steps between evaluations whose best policy is kept; 0: the last policy
    select_episodes: int = 5  # of such an evaluation

    POSITIVE: ClassVar[tuple[str, ...]] = (
        *("low_scale", "budget", "task_timesteps", "episodes", "batch", "trials", "jobs", "train_envs"),
        "select_episodes",
    )
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ("theta", "enough", "select_every")
    OWN: ClassVar[tuple[str, ...]] = ("jobs",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("n_contexts", self.n_contexts >= 2, "at least 2 contexts")
        self._require("high_scale", self.high_scale > self.low_scale, f"a number above low_scale={self.low_scale}")
        for name in ("return_low", "return_high"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            self._require(name, value is None or number, "a number")
        given = self.learner_kwargs
        found = yaml.safe_load(given) if isinstance(given, str) else given
        self._require("learner_kwargs", found is None or isinstance(found, Mapping), "options by name")
        object.__setattr__(self, "learner_kwargs", dict(found or {}))
        object.__setattr__(self, "learner", learner_name(self.learner))
        if self.features is not None:
            names = [self.features] if isinstance(self.features, str) else self.features
            object.__setattr__(self, "features", tuple(str(name) for name in names))


@register("mbtl")
class MBTL(Trainer):
    """Chooses source contexts, trains an agent in each, serves every context.

    Args:
        env: the name of an environment with a context, such as ``"contextual-cartpole"``, or a record.
        learner: what trains a source, a class or its name; ``"ppo"`` is SB3's.
        seed: seeds choices, every source task and every evaluation.
        hyperparameters: fields of :class:`MBTLConfig`.

    Raises:
        UserError: an environment without a context or options that do not fit it.
    """

    Config: ClassVar[type[AgentConfig]] = MBTLConfig
    defaults: ClassVar[RunDefaults] = RunDefaults("steps", 3_000_000, log_every=1, eval_every=1, checkpoint_every=1)
    config: MBTLConfig
    record: EnvRecord | None = None
    contexts: Array  # [N, d]
    own: Array  # [d], the context of the environment as it is named
    selector: TaskSelector

    def __init__(
        self,
        env: Any,
        learner: Any = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        **hyperparameters: Any,
    ):
        if learner is not None:
            hyperparameters["learner"] = learner_name(learner)
        record, features, spaces_ = probe(env)
        keys = record.name, record.task, record.family
        config = chosen_config(type(self), policy_kwargs, hyperparameters, *keys)
        if config.return_low is None or config.return_high is None:
            needed = "the returns in it that count as 0 and 1"
            raise UserError(f"agent.return_low and agent.return_high are needed in {record.name}: {needed}")
        if config.features is None:
            config = replace(config, features=(next(iter(features)),))
        self.assemble(Specification(config, *spaces_, seed, device, tensorboard_log, verbose))
        self.attach((record, features))

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        if not isinstance(observation_space, spaces.Box):
            raise UserError(f"{self.name} needs a Box observation space, got {observation_space}")

    def setup(self, generator: torch.Generator) -> None:
        learner_class(self.config.learner, self.config.learner_kwargs)  # refuse what is unknown before hours are spent

    @classmethod
    def over(cls: type[Self], source: Any, **options: Any) -> Self:
        return cls(source, **options)

    def attach(self, source: tuple[EnvRecord, Mapping[str, Any]]) -> None:
        """Connect a record, and the features of its contexts by name."""
        self.record, features = source
        fixed = dict(self.record.env_kwargs).get("context") or {}
        cfg = self.config
        contexts = grid(features, cfg.features, cfg.n_contexts, cfg.low_scale, cfg.high_scale)
        self._chart(contexts, np.array([float(fixed.get(name, features[name].default)) for name in cfg.features]))

    def _chart(self, contexts: Array, own: Array) -> None:
        """Nothing measured yet, in ``contexts`` ``[N, d]``; ``own`` ``[d]`` is the environment's."""
        cfg = self.config
        assert cfg.return_low is not None and cfg.return_high is not None
        self.contexts, self.own = contexts, own
        self.measured: list[Array] = []  # [N] mean returns of each source
        self.deviations: list[Array] = []  # [N] of episodes
        self.tensors: list[dict[str, Tensor]] = []
        self.policies: list[Any] = []
        self.selector = TaskSelector(
            contexts[:, 0] if contexts.shape[1] == 1 else contexts,
            strategy=cfg.strategy,
            budget=cfg.budget,
            bounds=(cfg.return_low, cfg.return_high),  # __init__ asks for both
            gap=cfg.gap,
            theta=cfg.theta * (PAPER_CONTEXTS - 1) / (len(contexts) - 1),  # the same fall from end to end
            compat=cfg.compat,
            enough=cfg.enough,
            seed=int(self.seed or 0),
        )

    # ---- what was found --------------------------------------------------------------------------------------------

    @property
    def sources(self) -> list[int]:
        """Contexts trained in so far, by number, in order."""
        return list(self.selector.sources)

    @property
    def returns(self) -> Array:
        """V ``[k, N]``: mean returns, as measured, of each source's policy in every context."""
        return np.stack(self.measured) if self.measured else np.zeros((0, len(self.contexts)))

    @property
    def assigned(self) -> np.ndarray:
        """int64 ``[N]``: which of the k sources serves each context, the best measured; ties to the first."""
        if not self.measured:
            raise UserError(f"{self.name} has trained no source yet, expected learn() before")
        return self.returns.argmax(axis=0)

    # ---- learning --------------------------------------------------------------------------------------------------

    def ready(self) -> None:
        if self.record is None:
            raise UserError(f"this {self.name} was loaded without an environment; pass env= to load() to train on")

    def learn(
        self: Self,
        total_timesteps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train sources until ``total_timesteps`` environment steps of training (whole tasks) or the budget are spent.

        The log is written after every update, whatever ``log_interval`` is.  Raises :class:`UserError` when the
        environment is not known or a training fails.
        """
        self.ready()
        if total_timesteps is not None:
            total_timesteps = check_learning(total_timesteps, callback, log_interval)
        unit = self.config.task_timesteps * self.config.trials
        left = (self.config.budget - len(self.sources)) * unit
        total = left if total_timesteps is None else min(left, -(-total_timesteps // unit) * unit)
        if total == 0:
            return self
        return super().learn(total, callback, 1, tb_log_name, reset_num_timesteps, progress_bar)

    def _alive(self, steps: int) -> bool:
        """Move the bar while a task trains; False once a signal asked to stop."""
        before, self.num_timesteps = self.num_timesteps, self.num_timesteps + steps
        hooks = leaves(self._hooks)
        for bar in (hook for hook in hooks if isinstance(hook, Progress)):
            bar.on_step()
        self.num_timesteps = before
        return not any(hook.signal for hook in hooks if isinstance(hook, StopOnSignal))

    def step(self) -> int:
        """Train the sources asked for next and measure their rows; 0 where none is left, or a signal asked to stop."""
        batch = ask_many(self.selector, self.config.batch)
        if not batch:
            return 0
        trials = self.config.trials
        tasks = [self.task(source, trial) for source in batch for trial in range(trials)]
        found = train_sources(tasks, self.config.jobs, self._alive)
        if found is None:
            return 0
        for k, source in enumerate(batch):
            best = max(found[k * trials : (k + 1) * trials], key=lambda one: one.returns.mean())
            tensors = {key: torch.from_numpy(value) for key, value in best.tensors.items()}
            self._hold(source, best.returns.mean(axis=1), best.returns.std(axis=1), tensors)
        own = self.selector.rows[range(-len(batch), 0), batch].mean()
        values = {"served": self.selector.best.mean(), "own": own, "sources": len(self.sources)}
        self.tally.add({name: torch.tensor(float(value), dtype=torch.float64) for name, value in values.items()})
        return len(tasks) * self.config.task_timesteps

    def task(self, source: int, trial: int = 0) -> SourceTask:
        """What training in context number ``source`` consists of."""
        assert self.record is not None
        env = self.record.env_id, dict(self.record.env_kwargs)
        return SourceTask(*env, self.contexts, source, trial, int(self.seed or 0), self.config)

    def _hold(self, source: int, row: Array, deviation: Array, tensors: dict[str, Tensor]) -> None:
        cfg, ends = self.config, (self.observation_space, self.action_space)
        self.policies.append(policy_of(cfg.learner, cfg.learner_kwargs, *ends, tensors))
        self.selector.tell(source, row)
        self.measured.append(row)
        self.deviations.append(deviation)
        self.tensors.append(tensors)

    def shortfall(self, total_timesteps: int) -> str | None:
        return untrained_sources(self.config, total_timesteps)

    # ---- serving ---------------------------------------------------------------------------------------------------

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        *,
        context: Any = None,
    ) -> tuple[Any, Any]:
        """SB3's ``predict`` by the policies that serve ``context``.

        ``context`` gives the varying features: values by name or an array ``[d]``, or ``[n, d]`` with a row for each
        of ``n`` observations; None means the environment's own.  The nearest grid point decides (each feature scaled
        to its range), and the best source measured there acts.
        """
        rows = np.asarray(observation)
        single = rows.shape == self.observation_space.shape
        rows = rows[None] if single else rows
        serving = self.assigned[self.nearest_context(context, len(rows))]  # [n] sources
        actions = np.empty((len(rows), *(self.action_space.shape or ())), self.action_space.dtype)
        for k in np.unique(serving):
            some = serving == k
            actions[some] = self.policies[k].predict(rows[some], deterministic=deterministic)[0]
        return (actions[0] if single else actions), state

    def nearest_context(self, context: Any, n: int = 1) -> np.ndarray:
        """Numbers ``[n]`` of the grid's contexts nearest to ``context``, as in :meth:`predict`.

        Raises :class:`UserError` for a context that lacks a feature, has another, or has another shape.
        """
        return nearest_points(self.own if context is None else context, self.config.features, self.contexts, n)

    def evaluator(self, episodes: int, seed: int, record: EnvRecord | None = None) -> Evaluator | None:
        """Episodes spread over the grid, each served by its policy; a score is 100 times the normalised return."""
        record = record or self.record
        if record is None:
            return None
        where = record.env_id, record.env_kwargs, self.config.features, self.contexts
        return Spread(*where, self.selector.bounds, episodes, seed)

    # ---- state -----------------------------------------------------------------------------------------------------

    def model_tensors(self) -> dict[str, Tensor]:
        """What was measured, and each source's policy as ``source.<k>.<name>``."""
        none = np.zeros((0, len(self.contexts)))
        found = {
            "transfer.contexts": self.contexts,
            "transfer.own": self.own,
            "transfer.sources": np.array(self.sources, np.int64),
            "transfer.returns": self.returns,
            "transfer.deviations": np.stack(self.deviations) if self.deviations else none,
        }
        own = {f"source.{k}.{key}": value for k, part in enumerate(self.tensors) for key, value in part.items()}
        return {key: torch.from_numpy(value) for key, value in found.items()} | own

    def load_model(self, tensors: Mapping[str, Tensor]) -> None:
        found = {key[9:]: value.numpy() for key, value in tensors.items() if key.startswith("transfer.")}
        d = len(self.config.features or ())
        shapes = {"contexts": (len(found["contexts"]), d), "own": (d,), "sources": (len(found["sources"]),)}
        shapes["returns"] = shapes["deviations"] = (len(found["sources"]), len(found["contexts"]))
        if not d or any(found[name].shape != shape for name, shape in shapes.items()):
            raise ArtefactError("its contexts, sources and returns do not fit each other")
        if self.record is not None and not np.array_equal(self.contexts, found["contexts"]):
            raise ArtefactError(f"{self.name}: the artefact's contexts are not those of {self.record.name}")
        self._chart(found["contexts"], found["own"])
        for k, source in enumerate(found["sources"].tolist()):
            prefix = f"source.{k}."
            part = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
            self._hold(source, found["returns"][k], found["deviations"][k], part)

    def source(self) -> dict[str, Any]:
        if self.record is None:
            return super().source()
        env = described(self.record.env_id, self.record.env_kwargs, self.selector.bounds)
        return {"dataset": None, "env": env}

    def check_source(self, path: Path, manifest: Mapping[str, Any]) -> None:
        if manifest["env"] != self.source()["env"]:
            raise ArtefactError(f"{path}: was made in {manifest['env']}, expected {self.source()['env']}")

    def result(self) -> dict[str, Any]:
        """Sources in order, their rows of V, and the mean served after each."""
        k, n, cfg = len(self.sources), len(self.contexts), self.config
        served = [np.maximum(self.selector.rows[: i + 1].max(axis=0), 0.0).mean() for i in range(k)]
        found = {
            "features": list(cfg.features),
            "contexts": self.contexts.tolist(),
            "bounds": list(self.selector.bounds),
            "sources": self.sources,
            "returns": self.returns.tolist(),
            "deviations": [one.tolist() for one in self.deviations],
            "served": [float(value) for value in served],
            "evaluation_episodes": k * n * cfg.episodes * cfg.trials,
        }
        return {"sources": k, "transfer": found}

    @classmethod
    def load(  # type: ignore[override]  # SB3's custom_objects= has no meaning without a pickle
        cls: type[Self],
        path: str | Path,
        env: Any = None,
        *,
        device: torch.device | str = "cpu",
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> Self:
        """Rebuild a trainer that serves; with ``env`` it can also train on.

        Raises :class:`ArtefactError` for a damaged file, one of another agent, or one of other contexts.
        """
        source = None if env is None else probe(env)[:2]
        return cls.read(path, source, device=device, tensorboard_log=tensorboard_log, verbose=verbose)
