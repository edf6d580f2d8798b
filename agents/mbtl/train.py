"""One source task of MBTL: train a policy in one context and measure it in all, here or in a process of its own.

What comes out depends on the :class:`SourceTask` alone, neither on tasks before it nor on the process: each has its own
seeds, SB3's global generators are put back (:class:`~rlkit.algorithms.online.OnlineAlgorithm`), and torch has one
thread.
"""

from __future__ import annotations

import copy
import inspect
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, NamedTuple

import numba
import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from rlkit import registry
from rlkit.agents.mbtl.select import TaskSelector
from rlkit.agents.mbtl.worlds import Array, context_rows, is_native, training_env
from rlkit.algorithms.base import Specification
from rlkit.algorithms.callbacks import passed
from rlkit.algorithms.hyperparameters import AgentConfig, make_config
from rlkit.algorithms.online import OnlineAlgorithm
from rlkit.errors import UserError, nearest, shown
from rlkit.system.python import spawning
from rlkit.vector import play_episodes

Alive = Callable[[int], bool]  # told the steps made so far; False stops the training
SB3 = ("a2c", "ddpg", "dqn", "ppo", "sac", "td3")
# of SB3's arguments, those that are not a learner's settings: where it trains and writes, and classes
OURS = {
    *("self", "policy", "env", "tensorboard_log", "verbose", "seed", "device", "_init_setup_model", "action_noise"),
    *("replay_buffer_class", "replay_buffer_kwargs", "rollout_buffer_class", "rollout_buffer_kwargs"),
    *("stats_window_size", "optimize_memory_usage"),
}
ROLLOUT = 2048  # SB3's roll-out of PPO in one environment, shared by several here


@dataclass(frozen=True)
class SourceTask:
    """Train in ``contexts[source]`` of ``[N, d]``, then measure in all N; ``config`` is an ``MBTLConfig``."""

    env_id: str
    env_kwargs: dict[str, Any]
    contexts: Array
    source: int
    trial: int  # another one has other seeds
    seed: int
    config: Any

    def batch(self, contexts: Array) -> VectorEnv:
        """Environments with a row of ``contexts`` each."""
        return context_rows(self.env_id, self.env_kwargs, self.config.features, contexts)


class Trained(NamedTuple):
    """``tensors`` of the policy kept; ``returns`` float64 ``[N, E]``; ``steps`` it was trained for."""

    tensors: dict[str, NDArray[Any]]
    returns: Array
    steps: int


def measure(policy: Any, task: SourceTask) -> Array:
    """Returns ``[N, E]`` in every context; all sources meet the same first states."""
    n, episodes = len(task.contexts), task.config.episodes
    seeds = np.random.SeedSequence([task.seed, n]).generate_state(n * episodes).tolist()
    rows = np.repeat(task.contexts, episodes, axis=0)  # [N E, d]
    at_once = len(rows) if is_native(task.env_id) else episodes
    found = []
    for begin in range(0, len(rows), at_once):
        part = slice(begin, begin + at_once)
        envs = task.batch(rows[part])
        found.append(play_episodes(lambda seen: policy.predict(seen, deterministic=True)[0], envs, seeds[part])[0])
        envs.close()
    return np.concatenate(found).reshape(n, episodes)


# ---- choosing and learners -------------------------------------------------------------------------------------------


def ask_many(selector: TaskSelector, count: int) -> list[int]:
    """Up to ``count`` sources to train side by side: after each, tell a copy what it would be on the average.

    The constant liar: the source's own return is the mean of those known (0.5 before any), less the gaps elsewhere.
    """
    believer = copy.deepcopy(selector)
    asked: list[int] = []
    low, high = selector.bounds
    while len(asked) < count and (source := believer.ask()) is not None:
        asked.append(source)
        known = len(believer.sources)
        level = float(believer.rows[range(known), believer.sources].mean()) if known else 0.5
        lost = believer.gaps()[source] if known else np.zeros(len(believer.contexts))
        believer.tell(source, low + (high - low) * (level - lost))
    return asked


def learner_class(name: str, settings: Mapping[str, Any]) -> Any:
    """The learner: SB3's under rlkit's seeds and artefacts, or an agent of rlkit that learns online.

    Raises :class:`UserError` for any other.
    """
    if name in SB3:
        base = getattr(stable_baselines3, name.upper())
        known = set(inspect.signature(base.__init__).parameters) - OURS
        for key in settings:
            if key not in known:
                hint = nearest(str(key), known)
                raise UserError(f"agent.learner_kwargs={shown(dict(settings))}: {name} takes no {shown(key)}{hint}")
        # SB3 writes into what it is given
        own = {"arguments": lambda self, config: copy.deepcopy(dict(settings)), "ACTIONS": spaces.Space}
        return type(base.__name__, (OnlineAlgorithm, base), {"name": name, "Config": AgentConfig, **own})
    if name not in registry.agent_names():
        raise UserError(f"agent.learner={name} is unknown{nearest(name, [*SB3, *registry.agent_names()])}")
    cls = registry.agent_class(name)
    if not issubclass(cls, OnlineAlgorithm):
        raise UserError(f"agent.learner={name} does not learn online, expected one of SB3's ({', '.join(SB3)}) or such")
    return cls


def learner_name(learner: Any) -> str:
    """The name of a learner given by name or class."""
    if isinstance(learner, str):
        return learner.lower()
    if isinstance(learner, type) and issubclass(learner, OnlineAlgorithm):
        return learner.name
    if isinstance(learner, type) and learner.__module__.startswith("stable_baselines3."):
        return learner.__name__.lower()
    raise UserError(f"agent.learner={learner!r}: expected a class of SB3, an online agent of rlkit, or its name")


def policy_of(
    learner: str,
    settings: Mapping[str, Any],
    observation_space: spaces.Space,
    action_space: spaces.Space,
    tensors: Mapping[str, Tensor],
) -> Any:
    """The policy that was trained by ``learner`` with ``settings``, from its tensors."""
    cls = learner_class(learner, settings)
    config = make_config(cls, {} if learner in SB3 else settings)
    agent = cls.built(Specification(config, observation_space, action_space))
    agent.load_model(tensors)
    return agent.policy


class Watch(BaseCallback):
    """Keeps the policy that did best in its own context so far, the later of equals; stops when told to."""

    def __init__(self, task: SourceTask, seed: int, alive: Alive):
        super().__init__()
        self.every, self.alive = task.config.select_every, alive
        self.best, self.last, self.stopped = -np.inf, -1, False
        self.kept: dict[str, Tensor] = {}
        rows = task.contexts[[task.source] * task.config.select_episodes]
        self.envs = task.batch(rows) if self.every else None
        self.seeds = np.random.SeedSequence(seed).generate_state(len(rows)).tolist()

    def _on_step(self) -> bool:
        if passed(self.model, self.every):
            self.consider()
        self.stopped = not self.alive(self.num_timesteps)
        return not self.stopped

    def consider(self) -> None:
        """Measure the policy as it is."""
        assert self.envs is not None
        self.last = self.num_timesteps
        returns, _ = play_episodes(lambda seen: self.model.predict(seen, deterministic=True)[0], self.envs, self.seeds)
        mean = returns.mean()
        if mean >= self.best:
            self.best = float(mean)
            self.kept = {key: value.clone() for key, value in self.model.model_tensors().items()}  # type: ignore[attr-defined]


def train_source(task: SourceTask, alive: Alive = lambda steps: True) -> Trained | None:
    """Train, keep the best policy by the way, measure it in every context.  None when ``alive`` said to stop."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums, and with them policies, depend on the number
    try:
        return _train_source(task, alive)
    finally:
        torch.set_num_threads(threads)


def _train_source(task: SourceTask, alive: Alive) -> Trained | None:
    name, settings = task.config.learner, dict(task.config.learner_kwargs)
    cls, count = learner_class(name, settings), int(settings.get("n_envs", 1))
    if name in SB3:
        count = task.config.train_envs if issubclass(cls, OnPolicyAlgorithm) else 1
        if name == "ppo":
            cls = learner_class(name, {"n_steps": max(2, ROLLOUT // count), **settings})
        settings = {}  # the class has them
    seeds = np.random.SeedSequence([task.seed, task.source, task.trial]).generate_state(2).tolist()
    env = training_env(task.env_id, task.env_kwargs, task.config.features, task.contexts[task.source], count)
    try:
        agent = cls("MlpPolicy", env, seed=seeds[0], device="cpu", **settings)
    except TypeError as error:
        raise UserError(f"agent.learner_kwargs={task.config.learner_kwargs}: {error}") from error
    watch = Watch(task, seeds[1], alive)
    agent.learn(task.config.task_timesteps, watch, log_interval=None)
    env.close()
    if watch.stopped:
        return None
    if watch.envs is not None:
        if watch.last != agent.num_timesteps:
            watch.consider()
        agent.load_model(watch.kept)
        watch.envs.close()
    tensors = {key: value.detach().numpy().copy() for key, value in agent.model_tensors().items()}
    return Trained(tensors, measure(agent, task), agent.num_timesteps)


def untrained_sources(config: Any, total_timesteps: int) -> str | None:
    """A sentence where ``total_timesteps`` do not train the sources of the budget; None where they do."""
    needed = config.budget * config.task_timesteps * config.trials
    if total_timesteps >= needed:
        return None
    few = f"total_timesteps={total_timesteps} ends before agent.budget={config.budget} sources"
    return f"{few}, which need {needed} steps"


# ---- processes -------------------------------------------------------------------------------------------------------


def _worker(task: SourceTask, pipe: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    numba.set_num_threads(1)
    parent = os.getppid()
    try:
        found: Any = train_source(task, lambda steps: os.getppid() == parent)  # a killed parent ends the work
    except UserError as error:
        found = error
    pipe.send(found)


def train_sources(
    tasks: Sequence[SourceTask], processes: int = 1, alive: Alive = lambda steps: True
) -> list[Trained] | None:
    """Train ``tasks``, as many at once as ``processes``, each in a fresh process; with 1, in this one.

    None when ``alive`` said to stop.  Raises :class:`UserError` when a process dies.
    """
    if processes == 1:
        found: list[Trained] = []
        for k, task in enumerate(tasks):
            one = train_source(task, lambda steps, before=k * task.config.task_timesteps: alive(before + steps))  # type: ignore[misc]
            if one is None:
                return None
            found.append(one)
        return found
    fresh = spawning()  # forking would copy threads half-way through something
    waiting = list(enumerate(tasks))
    running: dict[Any, tuple[int, Any]] = {}
    ready: dict[int, Trained] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                number, task = waiting.pop(0)
                here, there = fresh.Pipe(duplex=False)
                process = fresh.Process(target=_worker, args=(task, there), daemon=True)
                process.start()
                there.close()
                running[here] = number, process
            ended: list[Any] = connection.wait(list(running), timeout=0.2)
            for pipe in ended:
                number, process = running[pipe]
                try:
                    result = pipe.recv()
                except EOFError:
                    process.join()
                    where = f"the process that trained source {tasks[number].source}"
                    raise UserError(f"{where} ended with exit code {process.exitcode}; its output says why") from None
                if isinstance(result, UserError):
                    raise result
                del running[pipe]
                process.join()
                ready[number] = result
            if not alive(0):
                return None
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()
    return [ready[number] for number in range(len(tasks))]
