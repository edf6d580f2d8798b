"""``OnlineAlgorithm``: an algorithm of SB3 that also has a frozen config, safe artefacts and exact resume.

Put it before SB3's class, ``class BEER(OnlineAlgorithm, TD3)``, and override ``train``.  SB3 draws from the global
generators; here they are the algorithm's own while it builds or learns, and the caller's again afterwards.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor

from rlkit.algorithms.action_units import action_units
from rlkit.algorithms.base import Persistent, Specification
from rlkit.algorithms.callbacks import closing_bars, make_logger
from rlkit.algorithms.evaluate import Evaluator
from rlkit.algorithms.floats import fast_float32
from rlkit.algorithms.hyperparameters import RunDefaults, check_learning, check_policy, chosen_config
from rlkit.algorithms.normaliser import load_statistics, normalised, settings, statistics, underneath
from rlkit.algorithms.replay import Batch, Replay
from rlkit.algorithms.tally import Tally
from rlkit.algorithms.vecenv import StatefulVecEnv, name_of
from rlkit.errors import ArtefactError, UserError, shown
from rlkit.registry import EnvRecord, described, records
from rlkit.vector import hush_mujoco, named

Self = TypeVar("Self", bound="OnlineAlgorithm")


class Stepped(NamedTuple):
    """An environment as SB3 steps it, and its record where it has one."""

    env: VecEnv
    record: EnvRecord | None


def training_env(env: Any, n_envs: int = 1) -> Stepped:
    """``env`` as SB3 steps it: a record (or its name), a Gymnasium id, one environment, or a ``VecEnv`` as it is."""
    if isinstance(env, Stepped):
        return env
    if isinstance(env, VecEnv):
        return Stepped(env, None)
    env = named(env)
    hush_mujoco()
    if isinstance(env, EnvRecord):
        return Stepped(StatefulVecEnv([partial(gym.make, env.env_id, **env.env_kwargs)] * n_envs), env)
    if n_envs != 1:
        raise UserError(f"agent.n_envs={n_envs} needs an environment's name to make them from, got one {name_of(env)}")
    return Stepped(StatefulVecEnv([lambda: env]), None)


class OnlineAlgorithm(Persistent):
    """Mixin over an algorithm of SB3.

    Args:
        policy: ``"MlpPolicy"``, of SB3's the one for observations that are a vector.
        env: a record's name, a Gymnasium id, an environment, or a ``VecEnv``.
        seed: seeds every generator the agent owns, and the environment.
        hyperparameters: fields of ``Config``; those not given come from the presets of the task, then the defaults.

    Raises:
        UserError: unknown or out-of-range hyperparameters, spaces the agent cannot handle, or a device
            that is not there.
    """

    defaults: ClassVar[RunDefaults] = RunDefaults(unit="steps")
    ACTIONS: ClassVar[type[spaces.Space]] = spaces.Box  # the kind of action space it handles
    UNDER_NORMALISER: ClassVar[Mapping[str, Any] | None] = {}  # settings it needs there; None: refuses VecNormalize
    record: EnvRecord | None = None
    replay_buffer: Any  # off-policy algorithms have one

    def __init__(
        self,
        policy: str = "MlpPolicy",
        env: Any = None,
        *,
        seed: int = 0,
        device: torch.device | str = "auto",
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        **hyperparameters: Any,
    ):
        if env is None:
            raise UserError(f"{type(self).__name__} learns from an environment: expected one or its name, got none")
        check_policy(type(self), policy)
        env = named(env)
        keys = (env.name, env.task, env.family) if isinstance(env, EnvRecord) else ()
        config = chosen_config(type(self), policy_kwargs, hyperparameters, *keys)
        source = training_env(env, getattr(config, "n_envs", 1))
        spaces_ = source.env.observation_space, source.env.action_space
        self._accept(config, source.env)
        self.assemble(Specification(config, *spaces_, seed, device, tensorboard_log, verbose))
        self.attach(source)

    def assemble(self, specification: Specification) -> None:
        spec = specification
        self.check_spaces(spec.observation_space, spec.action_space)
        self.config, self.n_envs = spec.config, 1
        self.observation_space, self.action_space = spec.observation_space, spec.action_space
        self._random: dict[str, Any] | None = None
        self._pending_log: dict[str, float] = {}
        sb3: Any = super()  # its algorithm, next in line
        with self._own_random():
            arguments = {**spec.for_sb3(), **self.arguments(spec.config)}
            sb3.__init__(self.policy_name, None, _init_setup_model=False, **arguments)
            if getattr(self, "target_entropy", None) == "auto":  # SB3's SAC would ask its environment
                vars(self).update(target_entropy=-float(spaces.flatdim(self.action_space)))
            self._setup_model()
        self.tally = Tally(self.device)

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        """Raise :class:`UserError` for spaces the agent cannot handle."""
        if not isinstance(observation_space, spaces.Box):
            raise UserError(f"{self.name} needs one-dimensional Box observations, got {observation_space}")
        if not isinstance(action_space, self.ACTIONS):
            raise UserError(f"{self.name} needs a {self.ACTIONS.__name__} action space, got {action_space}")
        if isinstance(action_space, spaces.Box) and self.ACTIONS is spaces.Box:
            action_units(action_space)  # SB3 scales by bounds, whatever they are

    def attach(self, source: Any) -> None:
        vector, self.record = training_env(source, getattr(self.config, "n_envs", 1))
        self._accept(self.config, vector)
        self.n_envs = vector.num_envs
        self.set_env(vector)
        if hasattr(self, "replay_buffer"):
            self.replay_buffer = None
        with self._own_random():
            self._setup_model()  # from the seed again, with buffers as wide as there are environments

    def arguments(self, config: Any) -> dict[str, Any]:
        """Keyword arguments of SB3's constructor for ``config``."""
        return {}

    def _accept(self, config: Any, env: VecEnv | None) -> None:
        """Refuse an environment whose ``VecNormalize`` moves the scale of what should keep it."""
        needed = self.UNDER_NORMALISER
        met = needed is not None and all(getattr(config, name) == value for name, value in needed.items())
        if met or env is None or unwrap_vec_normalize(env) is None:
            return
        other = "".join(f", or agent.{name}={value}" for name, value in (needed or {}).items())
        raise UserError(
            f"{self.name} needs observations of one scale, which VecNormalize moves as it goes; expected an "
            f"environment without it{other}"
        )

    def seen(self, batch: Batch) -> Batch:
        """Rows of the replay as the policy sees them: through SB3's ``VecNormalize`` where the environment has one."""
        return normalised(batch, self.get_vec_normalize_env())

    # ---- random numbers --------------------------------------------------------------------------------------------

    @contextmanager
    def _own_random(self) -> Iterator[None]:
        """The global generators are this agent's inside, and as they were outside."""
        outside, python = _random_state(), random.getstate()
        if self._random is not None:
            _set_random_state(self._random)
        try:
            yield
        finally:
            self._random = _random_state()
            _set_random_state(outside)
            random.setstate(python)

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """SB3's ``learn``: ``total_timesteps`` environment steps, the log written every ``log_interval`` episodes (or,
        on-policy, iterations).

        Raises :class:`UserError` for a count that is not positive or an environment that returns what is not finite.
        """
        total_timesteps = check_learning(total_timesteps, callback, log_interval)
        if self.env is None:
            raise UserError(f"this {self.name} was loaded without an environment; pass env= to load() to train on")
        self._inside = True
        try:
            with closing_bars(lambda: self._hooks), self._own_random(), fast_float32(self.device):
                sb3: Any = super()
                name = tb_log_name or self.name
                sb3.learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)
        except ValueError as error:  # what torch's distributions say of a policy that gives NaN, in many lines
            wrong = (
                None if all(t.isfinite().all() for t in self.model_tensors().values()) else f"networks of {self.name}"
            )
            if wrong is None and isinstance(self._last_obs, np.ndarray) and not np.isfinite(self._last_obs).all():
                wrong = "environment's observations"
            if isinstance(error, UserError) or wrong is None:
                raise
            raise UserError(
                f"the {wrong} are no longer finite by step {self.num_timesteps}; training stopped, checkpoints kept"
            ) from error
        finally:
            self._inside = False
        return self

    _inside = False
    _hooks: BaseCallback | None = None  # of the latest learn()

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        self._hooks = super()._init_callback(callback, progress_bar)
        return self._hooks

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        ours = not self._custom_logger and self.tensorboard_log is None
        if ours:  # SB3's own would leave a folder among the temporary ones
            self._logger, self._custom_logger = make_logger(self.verbose, None, self.name, True), True
        found = super()._setup_learn(*args, **kwargs)
        if ours:
            self._custom_logger = False
        for key, value in self._pending_log.items():
            self.logger.record(key, value)
        self._pending_log = {}
        return found

    def write_log(self) -> None:
        """Log what was recorded since the last time, if there is anything."""
        if self.logger.name_to_value or self.tally.counts:
            self.dump_logs()

    def dump_logs(self, *args: Any) -> None:
        """SB3's, with the means of what :attr:`tally` was given."""
        for key, value in self.tally.take(self.num_timesteps).items():
            self.logger.record(key, value)
        sb3: Any = super()
        sb3.dump_logs(*args)

    def counts(self) -> dict[str, int]:
        found = super().counts()
        if hasattr(self, "replay_buffer"):
            return {**found, "updates": self._n_updates, "episodes": self._episode_num}
        sb3: Any = self  # an on-policy one, which counts an epoch of minibatches as one update
        minibatches = -(-sb3.n_steps * self.n_envs // getattr(sb3, "batch_size", sb3.n_steps * self.n_envs))
        return {**found, "updates": self._n_updates * minibatches}

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        """Replay, environment, last observation and generators.  True to the run only between two rollouts."""
        current = _random_state() if self._inside else self._random
        assert current is not None
        found = {"random.torch": current["torch"], "random.numpy": torch.from_numpy(current["numpy"][1].copy())}
        found |= self.tally.tensors()
        if "cuda" in current:
            found["random.cuda"] = current["cuda"]
        if isinstance(buffer := getattr(self, "replay_buffer", None), Replay):
            found |= {f"replay.{k}": v for k, v in buffer.state().items()}
        found |= statistics(self.get_vec_normalize_env(), self._last_original_obs)
        if isinstance(world := underneath(self.env), StatefulVecEnv) and self._last_obs is not None:
            state = world.state()
            if state is not None:
                found |= {f"env.{k}": torch.from_numpy(np.array(v)) for k, v in state.items()}
        observations = self._last_obs if isinstance(self._last_obs, dict) else {"": self._last_obs}
        found |= {f"last_obs.{k}": torch.from_numpy(v.copy()) for k, v in observations.items() if v is not None}
        if self._last_episode_starts is not None:
            found["episode_starts"] = torch.from_numpy(np.array(self._last_episode_starts, bool))
        return found

    def state_values(self) -> dict[str, Any]:
        current = _random_state() if self._inside else self._random
        assert current is not None
        _, _, position, has_gauss, gauss = current["numpy"]
        logged = getattr(self, "_logger", None)
        return {
            **super().state_values(),
            "counts": self.tally.counts,
            "numpy_random": [int(position), int(has_gauss), float(gauss)],
            "action_space_random": self.action_space.np_random.bit_generator.state,
            "episode_num": self._episode_num,
            "episodes": [[float(e["r"]), int(e["l"])] for e in self.ep_info_buffer or []],
            "successes": [bool(s) for s in self.ep_success_buffer or []],
            "progress": self._current_progress_remaining,
            "normaliser": settings(self.get_vec_normalize_env()),
            "log": {k: float(v) for k, v in logged.name_to_value.items()} if logged is not None else {},
        }

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().load_state(tensors, values)
        self.tally.load(tensors, values["counts"])
        # NumPy's legacy generator, which SB3 draws from, has one kind of state; it does not check its position
        legacy = ("MT19937", tensors["random.numpy"].numpy(), *values["numpy_random"])
        torch.Generator().set_state(tensors["random.torch"])
        np.random.RandomState().set_state(legacy)  # all of it but the position is checked
        if not 0 <= int(legacy[2]) <= len(legacy[1]):
            raise ArtefactError(f"numpy_random={shown(values['numpy_random'])} is no state of a generator")
        self._random = {"torch": tensors["random.torch"], "numpy": legacy}
        if "random.cuda" in tensors:
            self._random["cuda"] = tensors["random.cuda"]
        if isinstance(buffer := getattr(self, "replay_buffer", None), Replay):
            buffer.load_state(_below(tensors, "replay."))
        last = {k: v.numpy() for k, v in _below(tensors, "last_obs.").items()}
        parts = (
            self.observation_space.spaces
            if isinstance(self.observation_space, spaces.Dict)
            else {"": self.observation_space}
        )
        for name, array in last.items():
            if array.shape != (self.n_envs, *(parts[name].shape or ())):
                raise ArtefactError(f"its last observation is {list(array.shape)}, expected one of each environment")
        self._last_obs = last.get("", last or None)
        original = load_statistics(self.get_vec_normalize_env(), tensors, values)
        self._last_original_obs = self._last_obs if original is None else original
        if "episode_starts" in tensors:
            self._last_episode_starts = tensors["episode_starts"].numpy()
            if self._last_episode_starts.shape != (self.n_envs,):
                raise ArtefactError(f"its episode_starts are {list(self._last_episode_starts.shape)}")
        state = {k: v.numpy() for k, v in _below(tensors, "env.").items()}
        world = underneath(self.env)
        if state:
            assert isinstance(world, StatefulVecEnv)
            world.load_state(state)
        elif self._last_obs is not None and self.env is not None:
            self._last_obs = None  # learn() begins a new episode
            name = name_of(world.envs[0]) if isinstance(world, StatefulVecEnv) else type(world).__name__
            print(f"{name} cannot restore its state: the resumed run starts a new episode and is not exact", flush=True)
        self.action_space.np_random.bit_generator.state = values["action_space_random"]
        self._episode_num, self._current_progress_remaining = values["episode_num"], values["progress"]
        size = self._stats_window_size
        self.ep_info_buffer = deque(({"r": r, "l": n, "t": 0.0} for r, n in values["episodes"]), maxlen=size)
        self.ep_success_buffer = deque(values["successes"], maxlen=size)
        self._pending_log = dict(values["log"])

    def source(self) -> dict[str, Any]:
        record = self.record
        if record is None:
            normalised_by = {"normalised": True} if self.get_vec_normalize_env() is not None else {}
            return super().source() | normalised_by
        reference = record.data.reference if record.data else None
        return {"dataset": None, "env": described(record.env_id, record.env_kwargs, reference)}

    def evaluator(self, episodes: int, seed: int, record: EnvRecord | None = None) -> Evaluator | None:
        if self.source().get("normalised"):
            raise UserError(
                f"{self.name} acts on what a VecNormalize has normalised; expected SB3's evaluate_policy in that "
                "environment"
            )
        return super().evaluator(episodes, seed, record)

    def check_source(self, path: Path, manifest: Mapping[str, Any]) -> None:
        env, own = manifest["env"], self.source()["env"]
        # a keyword that its record declared only later had the record's value
        declared = next((r.env_kwargs for r in records().values() if own is not None and r.env_id == own["id"]), {})
        both = [(e["id"], {**declared, **e["kwargs"]}) for e in (env, own) if e is not None]
        if len(both) == 2 and both[0] != both[1]:
            there, here = (f"{e['id']} {e['kwargs'] or ''}".strip() for e in (env, own))
            raise ArtefactError(f"{path}: was made in {there}, expected {here}")

    @classmethod
    def load(  # type: ignore[override]  # SB3's custom_objects= has no meaning without a pickle
        cls: type[Self],
        path: str | Path,
        env: GymEnv | str | None = None,
        *,
        device: torch.device | str = "auto",
        tensorboard_log: str | None = None,
        verbose: int = 0,
        **hyperparameters: Any,
    ) -> Self:
        """Rebuild an agent from an artefact or checkpoint; with ``env`` it can also learn on.

        ``hyperparameters`` are others than the file's, such as ``learning_rate``.  Raises :class:`ArtefactError` for a
        damaged file, one of another agent, or networks that do not fit.
        """
        return cls.read(path, env, device=device, tensorboard_log=tensorboard_log, verbose=verbose, **hyperparameters)


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "numpy": np.random.get_state()}  # noqa: NPY002
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
