"""``OfflineAlgorithm``: SB3's ``BaseAlgorithm`` for learning from a fixed dataset.

A subclass names its ``Config``, builds its networks in :meth:`build` and turns a batch into metrics in :meth:`update`.
Whatever modules, optimisers and generators it sets as attributes are found there and become part of every checkpoint.
"""

from __future__ import annotations

import inspect
import math
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import yaml
from gymnasium import spaces
from minari.serialization import deserialize_space, serialize_space
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import configure_logger
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from rlkit import registry
from rlkit.checkpoint import load_optimiser, optimiser_tensors, read_artefact, write_artefact
from rlkit.data.dataset import OfflineDataset
from rlkit.data.resolve import load_dataset
from rlkit.errors import ArtefactError, UserError, nearest
from rlkit.nets import DeterministicPolicy, fast_float32
from rlkit.replay import Batch, Replay

Self = TypeVar("Self", bound="OfflineAlgorithm")
DatasetLike = Any  # whatever rlkit.data.load_dataset takes


@dataclass(frozen=True)
class OfflineConfig:
    """What every offline agent has.  Raises :class:`UserError` for values out of range."""

    batch_size: int = 256  # larger: smoother gradients, slower updates
    learning_rate: float = 3e-4  # larger: faster and less stable
    hidden_sizes: Sequence[int] = (256, 256)  # widths of every network's hidden layers
    normalise_observations: bool = True  # (s - mean) / (std + 1e-3) over the dataset, also at evaluation
    compile: bool = False  # torch.compile the losses: slow first step, faster after on some machines

    POSITIVE: ClassVar[tuple[str, ...]] = ("batch_size", "learning_rate")
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ()
    UNIT: ClassVar[tuple[str, ...]] = ()  # in [0, 1]

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_sizes", tuple(int(n) for n in self.hidden_sizes))
        for name in self.POSITIVE:
            self._require(name, getattr(self, name) > 0, "a number above 0")
        for name in self.NON_NEGATIVE:
            self._require(name, getattr(self, name) >= 0, "a number of at least 0")
        for name in self.UNIT:
            self._require(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        self._require("hidden_sizes", all(n > 0 for n in self.hidden_sizes), "widths above 0")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UserError(f"agent.{name}={getattr(self, name)} is out of range, expected {expected}")


def presets(cls: type[OfflineAlgorithm], record_name: str, task: str, family: str) -> dict[str, Any]:
    """Hyperparameters that differ from the defaults for this data, from ``presets/<agent>.yaml`` beside the agent.

    The file's keys are families, tasks and record names; the more specific one wins.
    """
    path = Path(inspect.getfile(cls)).parent / "presets" / f"{cls.name}.yaml"
    table = yaml.safe_load(path.read_text()) if path.exists() else {}
    found: dict[str, Any] = {}
    for key in (family, task, record_name):
        found |= table.get(key, {})
    return found


def make_config(cls: type[OfflineAlgorithm], values: Mapping[str, Any]) -> Any:
    """``cls.Config(**values)`` with a sentence for unknown names and wrong types."""
    known = {f.name: f for f in fields(cls.Config)}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"unknown hyperparameter '{name}' of {cls.name}{nearest(name, known)}")
        default = known[name].default
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        if default is not MISSING and number and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise UserError(f"agent.{name}={value!r} is not a number, expected one like {default}")
    return cls.Config(**values)


def check_seed_and_device(seed: int, device: torch.device | str) -> None:
    """Raises :class:`UserError` for a seed out of range or a device that is unknown or not there."""
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} is out of range, expected a whole number from 0 to {2**32 - 1}")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={device} asks for a CUDA device and there is none; expected 'cpu' or 'auto'")
    if not str(device).startswith(("auto", "cpu", "cuda", "mps")):
        raise UserError(f"device={device} is unknown, expected 'auto', 'cpu', 'cuda' or 'cuda:N'")


class OfflineAlgorithm(BaseAlgorithm):
    """Base of the offline agents.

    :param policy: ``"MlpPolicy"``
    :param dataset: a record's name, a Minari id or ``MinariDataset``, a path to a D4RL HDF5, or an ``OfflineDataset``
    :param env: environment for SB3's callbacks; by default the dataset's own is made when first asked for
    :param seed: seeds every generator the agent owns
    :param policy_kwargs: SB3's ``{"net_arch": [...]}``, the same as ``hidden_sizes``
    :param hyperparameters: fields of ``Config``; those not given come from the presets of the data, then the defaults

    Raises :class:`UserError` for unknown or out-of-range hyperparameters, spaces the agent cannot handle, or a device
    that is not there.
    """

    name: ClassVar[str] = "offline"
    objective: ClassVar[str] = "actor_loss"  # the metric that falls when the agent learns
    Config: ClassVar[type[OfflineConfig]] = OfflineConfig
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": DeterministicPolicy}
    config: Any
    policy: DeterministicPolicy
    observation_space: spaces.Box
    action_space: spaces.Box
    dataset: OfflineDataset | None = None
    replay: Replay | None = None

    def __init__(
        self,
        policy: str = "MlpPolicy",
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        seed: int = 0,
        device: torch.device | str = "auto",
        tensorboard_log: str | None = None,
        verbose: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        **hyperparameters: Any,
    ):
        if policy not in self.policy_aliases:
            raise UserError(f"policy '{policy}' is unknown to {self.name}{nearest(str(policy), self.policy_aliases)}")
        if dataset is None:
            raise UserError(f"{type(self).__name__} learns from data: expected a dataset, got none")
        data = load_dataset(dataset)
        if policy_kwargs:
            hyperparameters.setdefault("hidden_sizes", policy_kwargs.get("net_arch", (256, 256)))
        chosen = {**presets(type(self), data.provenance.name, data.task, data.family), **hyperparameters}
        config = make_config(type(self), chosen)
        self._construct(config, data.observation_space, data.action_space, seed, device, tensorboard_log, verbose)
        self._take(data)
        if env is not None:
            self.set_env(self._wrap_env(_make(env), verbose))

    def _construct(
        self,
        config: OfflineConfig,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        seed: int,
        device: torch.device | str,
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> None:
        check_seed_and_device(seed, device)
        for role, space in (("observation", observation_space), ("action", action_space)):
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise UserError(f"{self.name} needs a one-dimensional Box {role} space, got {space}")
        super().__init__(
            DeterministicPolicy,
            env=None,
            learning_rate=config.learning_rate,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=int(seed),
        )
        assert isinstance(observation_space, spaces.Box) and isinstance(action_space, spaces.Box)
        self.config, self.n_envs = config, 1
        self.observation_space, self.action_space = observation_space, action_space
        self.noise = torch.Generator(self.device).manual_seed(int(seed) + 1)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._setup_model()

    def _setup_model(self) -> None:
        generator = torch.Generator().manual_seed(int(self.seed or 0))
        self.build(self.observation_space.shape[0], self.action_space, generator)
        for module in self._named(nn.Module).values():
            module.to(self.device)

    def _take(self, data: OfflineDataset) -> None:
        self.dataset = data
        self.replay = Replay.from_dataset(data, self.device, seed=int(self.seed or 0) + 2)
        if self.config.normalise_observations:
            mean = data.observations.mean(axis=0, dtype=np.float64).astype(np.float32)  # [ds]
            std = data.observations.std(axis=0, dtype=np.float64).astype(np.float32) + 1e-3  # [ds]
            self.policy.obs_mean.copy_(torch.from_numpy(mean))
            self.policy.obs_std.copy_(torch.from_numpy(std))
            self.replay.normalise_observations(self.policy.obs_mean, self.policy.obs_std)
        self.on_data()

    # ---- what a subclass provides ----------------------------------------------------------------------------------

    @abstractmethod
    def build(self, obs_dim: int, action_space: spaces.Box, generator: torch.Generator) -> None:
        """Set ``self.policy``, the other networks and the optimisers; initial weights come from ``generator``."""

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step; returns scalar tensors, left on the device."""

    def on_data(self) -> None:
        """Called once the replay holds the (normalised) dataset; for indices built over it."""

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """``total_timesteps`` gradient updates; callbacks run after each, the log is written every ``log_interval``.

        Raises :class:`UserError` when there is no dataset, a count is not positive, or a metric stops being finite.
        """
        if self.replay is None:
            raise UserError(f"this {self.name} was loaded without its dataset; pass dataset= to load() to train on")
        for what, value in (("total_timesteps", total_timesteps), ("log_interval", log_interval)):
            if value <= 0:
                raise UserError(f"{what}={value} is out of range, expected a number above 0")
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
        hooks.on_training_start(locals(), globals())
        batch_size = self.config.batch_size
        with fast_float32():
            while self.num_timesteps < total_timesteps:
                metrics = self.update(self.replay.batch(batch_size))
                self.num_timesteps += 1
                self._n_updates += 1
                self._accumulate(metrics)
                if self.num_timesteps % log_interval == 0:
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
            from rlkit.callbacks import Progress

            callback = CallbackList([callback, Progress()])
        callback.init_callback(self)
        return callback

    def _accumulate(self, metrics: dict[str, Tensor]) -> None:
        # Sums stay on the device: reading a value here would make every step wait for it.
        for key, value in metrics.items():
            if key not in self._sums:
                self._sums[key] = torch.zeros((), dtype=torch.float64, device=self.device)
                self._counts[key] = 0
            self._sums[key] += value.detach()
            self._counts[key] += 1

    def write_log(self) -> None:
        """Log the means since the last time, if there is anything to log."""
        if not self._sums:
            return
        means = {key: float(self._sums[key]) / self._counts[key] for key in sorted(self._sums)}
        self._sums, self._counts = {}, {}
        for key, value in means.items():
            if not math.isfinite(value):
                step = self.num_timesteps
                raise UserError(f"'{key}' became {value} by step {step}; training stopped, checkpoints kept")
            self.logger.record(f"train/{key}", value)
        seconds = (time.time_ns() - self.start_time) / 1e9
        self.logger.record("time/updates_per_second", (self.num_timesteps - self._num_timesteps_at_start) / seconds)
        self.logger.dump(self.num_timesteps)

    # ---- the environment, for SB3's objects ------------------------------------------------------------------------

    def get_env(self) -> VecEnv | None:
        """The environment given, else the dataset's own, made on first use; None when the dataset names none."""
        if self.env is None and self.dataset is not None and self.dataset.env_id is not None:
            self.env = self._wrap_env(_make(self.dataset.env_id, self.dataset.env_kwargs), self.verbose)
        return self.env

    # ---- state -----------------------------------------------------------------------------------------------------

    def _named(self, kind: type[Any]) -> dict[str, Any]:
        found = {name: value for name, value in vars(self).items() if isinstance(value, kind)}
        return {name: found[name] for name in sorted(found)}

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return [*self._named(nn.Module), *self._named(torch.optim.Optimizer)], []

    def model_tensors(self) -> dict[str, Tensor]:
        """Every network's parameters and buffers, as ``attribute.name``."""
        return {f"{a}.{k}": v for a, module in self._named(nn.Module).items() for k, v in module.state_dict().items()}

    def training_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint adds to the model: optimisers, generators, the sampler's and the metrics' position."""
        assert self.replay is not None
        found = {f"generator.{k}": v.get_state() for k, v in self._named(torch.Generator).items()}
        found["generator.replay"] = self.replay.generator.get_state()  # the rows are the dataset's, known by its hash
        for name, optimiser in self._named(torch.optim.Optimizer).items():
            found |= optimiser_tensors(f"optimiser.{name}", optimiser)
        return found | {f"metric.{k}": v for k, v in self._sums.items()}

    def _manifest(self) -> dict[str, Any]:
        described = self.dataset.describe() if self.dataset is not None else None
        for how in ("tried", "kept"):  # how the data was come by this time says nothing about the agent
            if described is not None:
                described["details"].pop(how, None)
        return {
            "agent": self.name,
            "config": asdict(self.config),
            "seed": self.seed,
            "observation_space": serialize_space(self.observation_space),
            "action_space": serialize_space(self.action_space),
            "dataset": described,
            "env": {"id": self.dataset.env_id, "kwargs": self.dataset.env_kwargs, "reference": self.dataset.reference}
            if self.dataset is not None
            else None,
            "num_timesteps": self.num_timesteps,
        }

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:  # SB3's signature
        """Write the artefact to ``path``: networks, config, spaces and normaliser, in safetensors and JSON."""
        write_artefact(Path(path), self._manifest(), self.model_tensors())

    def save_checkpoint(self, path: str | Path, extra: dict[str, Any] | None = None) -> None:
        """An artefact that also holds everything needed to go on exactly; ``extra`` is JSON kept beside it."""
        counters = {"n_updates": self._n_updates, "counts": self._counts, "extra": extra or {}}
        write_artefact(
            Path(path), {**self._manifest(), "training": counters}, self.model_tensors(), self.training_tensors()
        )

    @classmethod
    def load(  # type: ignore[override]  # SB3's env= and custom_objects= have no meaning without a pickle
        cls: type[Self],
        path: str | Path,
        dataset: DatasetLike | None = None,
        *,
        env: GymEnv | str | None = None,
        device: torch.device | str = "auto",
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> Self:
        """Rebuild an agent from an artefact or checkpoint; with ``dataset`` it can also learn on.

        Raises :class:`ArtefactError` for a damaged file or one of another agent.
        """
        manifest, model, _ = read_artefact(path)
        name, known = str(manifest.get("agent")), registry.agent_names()
        if name not in known:
            raise ArtefactError(f"{path}: unknown agent '{name}'{nearest(name, known)}")
        found = registry.agent_class(name)
        if not issubclass(found, cls):
            raise ArtefactError(f"{path}: holds agent '{found.name}', expected '{cls.name}'")
        self = found.__new__(found)
        try:
            config = make_config(found, manifest["config"])
            box, actions = (deserialize_space(manifest[key]) for key in ("observation_space", "action_space"))
            self._construct(config, box, actions, manifest["seed"], device, tensorboard_log, verbose)
            if dataset is not None:
                self._take(load_dataset(dataset))
            self._load_model(model)
            self.num_timesteps = int(manifest["num_timesteps"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ArtefactError(f"{path}: its manifest and tensors do not fit {found.name} ({error})") from error
        if env is not None:
            self.set_env(self._wrap_env(_make(env), verbose))
        return self

    def _load_model(self, tensors: Mapping[str, Tensor]) -> None:
        for attribute, module in self._named(nn.Module).items():
            prefix = f"{attribute}."
            module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})

    def restore(self, path: str | Path) -> dict[str, Any]:
        """Continue from a checkpoint, in an agent built with the same config and dataset; returns its ``extra``.

        Raises :class:`ArtefactError` when the file is damaged or was made from other data or another configuration.
        """
        manifest, model, training = read_artefact(path)
        if training is None or "training" not in manifest:
            raise ArtefactError(f"{path}: an artefact without training state, expected a checkpoint")
        assert self.dataset is not None and self.replay is not None
        if manifest["dataset"]["sha256"] != self.dataset.content_hash:
            where = self.dataset.provenance.locator
            raise ArtefactError(f"{path}: was made from other data than {where}; resuming would not be exact")
        if manifest["agent"] != self.name or make_config(type(self), manifest["config"]) != self.config:
            raise ArtefactError(f"{path}: was made by another agent or configuration; resuming would not be exact")
        self._load_model(model)
        for name, generator in self._named(torch.Generator).items():
            generator.set_state(training[f"generator.{name}"])
        self.replay.generator.set_state(training["generator.replay"])
        for name, optimiser in self._named(torch.optim.Optimizer).items():
            load_optimiser(f"optimiser.{name}", optimiser, training)
        self._sums = {k[7:]: v.to(self.device) for k, v in training.items() if k.startswith("metric.")}
        self._counts = dict(manifest["training"]["counts"])
        self.num_timesteps, self._n_updates = manifest["num_timesteps"], manifest["training"]["n_updates"]
        return manifest["training"]["extra"]


def _make(env: GymEnv | str, kwargs: Mapping[str, Any] | None = None) -> GymEnv:
    import gymnasium as gym

    return gym.make(env, **(kwargs or {})) if isinstance(env, str) else env
