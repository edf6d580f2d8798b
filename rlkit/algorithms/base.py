"""What every agent is: built from a :class:`Specification`, attached to what it learns from, its state bytes and back.

    agent = cls.built(Specification(config, observation_space, action_space, seed=0))    networks, nothing to learn from
    agent.attach(source)                                                                   a dataset, an environment
    agent.learn(total_timesteps)                                                           ``learner``, ``online``
    agent.save(path); agent.save_checkpoint(path)                                          state to bytes
    cls.read(path, source)                                                                 built, filled, attached

A constructor makes the specification from what its caller says; a file holds one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from gymnasium import spaces
from minari.serialization import serialize_space
from stable_baselines3.common.save_util import recursive_getattr
from torch import Tensor, nn

from rlkit import registry
from rlkit.algorithms.checkpoint import (
    Allowance,
    load_optimiser,
    optimiser_tensors,
    read_artefact,
    require_alike,
    write_artefact,
)
from rlkit.algorithms.evaluate import Evaluator
from rlkit.algorithms.hyperparameters import (
    AgentConfig,
    RunDefaults,
    changed_config,
    check_seed_and_device,
    loaded_config,
    without_own,
)
from rlkit.algorithms.signatures import Signed, documentation
from rlkit.errors import ArtefactError, UserError, nearest, refusing, shown
from rlkit.registry import EnvRecord
from rlkit.spaces import read_space

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm as Beside
else:
    Beside = object  # a mixin: what it uses of SB3 comes from the class beside it

Self = TypeVar("Self", bound="Persistent")


@dataclass(frozen=True)
class Specification:
    """What an agent is built from: everything but what it learns from.

    Raises :class:`UserError` for a seed out of range, a device that is not there, a log folder that is no path.
    """

    config: Any  # of the agent's ``Config``
    observation_space: spaces.Space
    action_space: spaces.Space
    seed: int = 0
    device: torch.device | str = "cpu"
    tensorboard_log: str | None = None
    verbose: int = 0

    def __post_init__(self) -> None:
        check_seed_and_device(self.seed, self.device, self.tensorboard_log, self.verbose)
        object.__setattr__(self, "seed", int(self.seed))

    def for_sb3(self) -> dict[str, Any]:
        """Arguments of SB3's constructors."""
        return {name: getattr(self, name) for name in ("seed", "device", "tensorboard_log", "verbose")}


class Persistent(Beside):
    """State to bytes and back: artefacts, checkpoints, exact resume; free of any way of learning.

    A class that has it also has an algorithm of SB3, or SB3's ``BaseAlgorithm``, among its bases.
    """

    name: ClassVar[str] = "algorithm"
    policy_name: ClassVar[str] = "MlpPolicy"  # SB3's first argument; the only one accepted
    Config: ClassVar[type[AgentConfig]] = AgentConfig
    learns_from: ClassVar[str] = "environment"  # or "data"
    objective: ClassVar[str] = "actor_loss"  # the metric that falls when the agent learns
    defaults: ClassVar[RunDefaults]  # how it is run and judged, declared by every family of agents
    config: Any
    keeps_statistics = False  # of observations, whatever it is attached to
    origin: Mapping[str, Any] = MappingProxyType(
        {"dataset": None, "env": None}
    )  # of a loaded agent, until it has others

    __signature__ = Signed()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.__doc__ = documentation(cls, vars(cls).get("__doc__"))

    # ---- the steps of its life -------------------------------------------------------------------------------------

    @classmethod
    def resolve(cls, record: EnvRecord, choices: Any, progress: bool) -> Any:
        """What a run learns from: by default the environment of ``record``; ``choices`` is the run's ``env`` group."""
        return record

    @classmethod
    def over(cls: type[Self], source: Any, **options: Any) -> Self:
        """The agent over ``source``, whatever is the place of that argument in its constructor."""
        create: Any = cls
        return create(cls.policy_name, source, **options)

    @classmethod
    def built(cls: type[Self], specification: Specification) -> Self:
        """An agent without anything to learn from."""
        self = cls.__new__(cls)
        self.assemble(specification)
        return self

    @abstractmethod
    def assemble(self, specification: Specification) -> None:
        """Build everything but what is learnt from, in an instance whose ``__init__`` has not run."""

    def attach(self, source: Any) -> None:
        """Connect what the agent learns from."""

    def prepare(self, progress: bool) -> None:
        """What a run does before it begins, with a bar if ``progress``; by default nothing."""

    # ---- what is kept --------------------------------------------------------------------------------------------

    def _named(self, kind: type[Any]) -> dict[str, Any]:
        found = {name: value for name, value in vars(self).items() if isinstance(value, kind)}
        return {name: found[name] for name in sorted(found)}

    def _parts(self, kind: type[Any]) -> dict[str, Any]:
        """Modules or optimisers by the names under which SB3 would save them, such as ``actor.optimizer``."""
        parts = {name: recursive_getattr(self, name) for name in sorted(self._get_torch_save_params()[0])}
        return {name: part for name, part in parts.items() if isinstance(part, kind)}

    def model_tensors(self) -> dict[str, Tensor]:
        """Every network's parameters and buffers, as ``attribute.name``, and SB3's free variables."""
        found = {f"{a}.{k}": v for a, module in self._parts(nn.Module).items() for k, v in module.state_dict().items()}
        return found | {name: recursive_getattr(self, name).detach() for name in self._get_torch_save_params()[1]}

    def training_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint adds to the model: optimisers, generators and :meth:`state_tensors`."""
        found = {f"generator.{k}": v.get_state() for k, v in self._named(torch.Generator).items()}
        for name, optimiser in self._parts(torch.optim.Optimizer).items():
            found |= optimiser_tensors(f"optimiser.{name}", optimiser)
        return found | self.state_tensors()

    def state_tensors(self) -> dict[str, Tensor]:
        """Further tensors that the next update depends on, such as a sampler's position."""
        return {}

    def state_values(self) -> dict[str, Any]:
        """Further counters and the like, as JSON."""
        return {"n_updates": self._n_updates}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Undo :meth:`state_tensors` and :meth:`state_values`; ``tensors`` holds all of a checkpoint's."""
        self._n_updates = _count(values, "n_updates")

    def source(self) -> dict[str, Any]:
        """What the agent learns from, for the manifest: ``dataset`` and ``env``, each a description or None."""
        return dict(self.origin)

    def check_source(self, path: Path, manifest: Mapping[str, Any]) -> None:
        """Raise :class:`ArtefactError` when the checkpoint ``path`` was made from something else."""

    def evaluator(self, episodes: int, seed: int, record: EnvRecord | None = None) -> Evaluator | None:
        """What measures the agent in the environment of ``record``, else in its own; None when that is not known."""
        record = record or self.environment
        if record is None:
            return None
        reference = record.data.reference if record.data else None
        kwargs = record.env_kwargs
        found = Evaluator(record.env_id, episodes=episodes, seed=seed, env_kwargs=kwargs, reference=reference)
        found.judged = self.defaults.judged
        return found

    @property
    def environment(self) -> EnvRecord | None:
        """The environment it learns from or, as its file or data says, was made for; None where none is known.

        Raises :class:`UserError` for one that nobody registered here.
        """
        env = self.source()["env"]
        if env is None:
            return None
        if env is not self.origin["env"]:  # what the caller gave; only what a file says has to be among what is known
            if env["id"] is None:
                return None
            returns = env["reference"] and (float(env["reference"][0]), float(env["reference"][1]))
            spec = registry.DataSpec("", "", returns) if returns else None
            return EnvRecord(env["id"], env["id"], env["id"], "", "", spec, env["kwargs"])
        found = registry.environment(env, self.name)
        if found is not None and not registry.is_known(found):
            raise UserError(f"{self.name} was made in '{found.env_id}', which is not registered here; pass env=NAME")
        return found

    @property
    def has_learnt(self) -> bool:
        """Whether there is anything to evaluate yet but the policy it began with."""
        return self._n_updates > 0

    def shortfall(self, total_timesteps: int) -> str | None:
        """A sentence where ``total_timesteps`` are too few for the configuration; None where they are not."""
        starts = getattr(self.config, "learning_starts", 0)
        if total_timesteps > starts:
            return None
        few = f"total_timesteps={total_timesteps} ends before learning begins (agent.learning_starts={starts})"
        return f"{few}: what is evaluated is the untrained policy"

    def counts(self) -> dict[str, int]:
        """How much was done so far, by name; first what ``num_timesteps`` counts."""
        return {self.defaults.unit: self.num_timesteps}

    def result(self) -> dict[str, Any]:
        """What ``result.json`` says of the source."""
        return {}

    # ---- writing ---------------------------------------------------------------------------------------------------

    def _manifest(self) -> dict[str, Any]:
        return {
            "agent": self.name,
            "config": asdict(self.config),
            "seed": self.seed,
            "observation_space": serialize_space(self.observation_space),
            "action_space": serialize_space(self.action_space),
            **self.source(),
            "num_timesteps": self.num_timesteps,
        }

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:  # SB3's signature
        """Write the artefact to ``path``: networks, config, spaces and normaliser, in safetensors and JSON."""
        write_artefact(Path(path), self._manifest(), self.model_tensors())

    def save_checkpoint(self, path: str | Path, extra: dict[str, Any] | None = None) -> None:
        """An artefact that also holds everything needed to go on exactly; ``extra`` is JSON kept beside it."""
        training = {**self.state_values(), "extra": extra or {}}
        write_artefact(
            Path(path), {**self._manifest(), "training": training}, self.model_tensors(), self.training_tensors()
        )

    # ---- reading ---------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls: type[Self], path: Any, *args: Any, **kwargs: Any) -> Self:
        """The agent in ``path``, whichever it is; its own ``load`` says what else it takes.

        Raises :class:`ArtefactError` for a damaged file or one of an unknown agent.
        """
        return cls._class_of(path, read_artefact(path)[0]).load(path, *args, **kwargs)

    @classmethod
    def _class_of(cls: type[Self], path: str | Path, manifest: Mapping[str, Any]) -> type[Self]:
        name, known = str(manifest.get("agent")), registry.agent_names()
        if name not in known:
            raise ArtefactError(f"{path}: unknown agent {shown(name)}{nearest(name, known)}")
        found = registry.agent_class(name)
        if not issubclass(found, cls):
            raise ArtefactError(f"{path}: holds agent '{found.name}', expected '{cls.name}'")
        return found

    @classmethod
    def read(
        cls: type[Self],
        path: str | Path,
        source: Any = None,
        *,
        device: torch.device | str = "cpu",
        tensorboard_log: str | None = None,
        verbose: int = 0,
        **hyperparameters: Any,
    ) -> Self:
        """The agent in ``path``, attached to ``source`` unless it is None, with ``hyperparameters`` over the file's.

        Raises :class:`ArtefactError` for a damaged file or one of another agent.
        """
        manifest, model, _ = read_artefact(path)
        found = cls._class_of(path, manifest)
        check_seed_and_device(0, device)
        with refusing(path, f"its manifest and tensors do not fit {found.name}"):
            config = loaded_config(found, manifest["config"])
        if hyperparameters:
            config = changed_config(found, config, hyperparameters)
        with refusing(path, f"its manifest and tensors do not fit {found.name}"):
            observations, actions = (
                read_space(manifest[key], f"its {key}") for key in ("observation_space", "action_space")
            )
            registry.environment(manifest.get("env"), str(path))  # refuse what no agent could be evaluated in
            steps = _count(manifest, "num_timesteps")
            settings = (manifest["seed"], device, tensorboard_log, verbose)
            with Allowance.of(model):
                self = found.built(Specification(config, observations, actions, *settings))
                if source is None or found.learns_from == "data":  # whose statistics the data is seen with
                    self.load_model(model)
                    self.keeps_statistics = True
            self.origin = {key: manifest.get(key) for key in ("dataset", "env")}
            if manifest.get("normalised"):  # its environment did it: nothing here can
                self.origin = {**self.origin, "normalised": True}
            self.num_timesteps = steps
        if source is not None:
            self.attach(source)  # what is wrong with the caller's data is not the file's fault
            with refusing(path, f"its tensors do not fit {found.name}"):
                self.load_model(model)
        return self

    def load_model(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo :meth:`model_tensors`; raises :class:`ArtefactError` for tensors of other names, shapes or dtypes."""
        require_alike(tensors, self.model_tensors(), f"its tensors do not fit {self.name}")
        for attribute, module in self._parts(nn.Module).items():
            prefix = f"{attribute}."
            module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        for name in self._get_torch_save_params()[1]:
            recursive_getattr(self, name).data.copy_(tensors[name])

    def restore(self, path: str | Path) -> dict[str, Any]:
        """Continue from a checkpoint, in an agent built with the same config and data; returns its ``extra``.

        Raises :class:`ArtefactError` when the file is damaged or was made from other data or another configuration.
        """
        manifest, model, training = read_artefact(path)
        if training is None or not isinstance(manifest.get("training"), dict):
            raise ArtefactError(f"{path}: an artefact without training state, expected a checkpoint")
        with refusing(path, f"its training state does not fit {self.name}"):
            made_by = manifest["agent"] == self.name and loaded_config(type(self), manifest["config"])
            if not made_by or (made_by, manifest["seed"]) != (without_own(self.config), self.seed):
                raise ArtefactError(
                    f"{path}: was made by another agent or configuration, or from another seed; resuming would not be "
                    "exact"
                )
            self.check_source(Path(path), manifest)
            steps, extra = _count(manifest, "num_timesteps"), manifest["training"]["extra"]
            if not isinstance(extra, dict):
                raise ArtefactError(f"{path}: extra={shown(extra)}, expected values by name")
            self.load_model(model)
            for name, generator in self._named(torch.Generator).items():
                generator.set_state(training[f"generator.{name}"])
            for name, optimiser in self._parts(torch.optim.Optimizer).items():
                load_optimiser(f"optimiser.{name}", optimiser, training)
            self.num_timesteps = steps
            self.load_state(training, manifest["training"])
        return extra


def _count(values: Mapping[str, Any], name: str) -> int:
    """The count called ``name``; raises :class:`ArtefactError` where it is none."""
    value = values[name]
    if type(value) is not int or not 0 <= value < 2**63:
        raise ArtefactError(f"{name}={shown(value)}, expected a count")
    return value
