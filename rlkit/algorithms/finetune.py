"""From data to acting: a learner of data goes on in an environment, its batches mixed of what both gave it.

Per step t = 1, 2, ... of the environment, with B rows a batch:

    u = clip(π(s) + N(0, σ), ±1), or a sample where the policy has some                         explore
    ρ = ρ₀ + (ρ₁ - ρ₀) min(t / T, 1)                                                            offline_ratio
    an update on round(ρ B) rows of the data and B - round(ρ B) of what was acted               draw

Half of a batch from the data is the symmetric sampling of Ball et al. 2023 ("Efficient online reinforcement learning
with offline data"); that its share falls lets the data's own policy be forgotten.  Networks and the statistics of
observations are those the agent begins with; its optimisers are new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

from rlkit.algorithms.base import Specification
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.algorithms.hyperparameters import RunDefaults, changed_config, loaded_config
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.algorithms.online import training_env
from rlkit.algorithms.replay import Batch, Replay
from rlkit.algorithms.vecenv import StatefulVecEnv, name_of
from rlkit.data.dataset import OfflineDataset
from rlkit.data.resolve import load_dataset, reward_convention
from rlkit.errors import ArtefactError, UserError, refusing, shown
from rlkit.registry import EnvRecord, described
from rlkit.spaces import read_space

if TYPE_CHECKING:
    Beside = OfflineAlgorithm
else:
    Beside = object  # a mixin, put before the class of an agent


@dataclass
class FineTuneSettings:
    """How acting and data are mixed.  :meth:`check` raises :class:`UserError` for values out of range."""

    offline_ratio: float = 0.5  # share of a batch that is data at first; more: steadier, slower to leave the data
    offline_ratio_end: float = 0.0  # its share after decay_steps
    decay_steps: int = 50_000  # steps of the environment in which the share goes from the one to the other
    exploration_noise: float = 0.1  # standard deviation, for actions in [-1, 1]; policies with samples draw those
    learning_starts: int = 1_000  # steps acted before the first update
    updates_per_step: int = 1  # updates after each step of the environment
    buffer_size: int = 1_000_000  # transitions acted that are remembered

    def check(self) -> None:
        for name in ("offline_ratio", "offline_ratio_end"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        for name in ("decay_steps", "updates_per_step", "buffer_size", "learning_starts"):
            self._require(name, 1 <= getattr(self, name) < 2**40, "a whole number above 0")
        self._require("exploration_noise", 0 <= self.exploration_noise < 1e3, "a number of at least 0")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UserError(f"finetune.{name}={shown(getattr(self, name))} is out of range, expected {expected}")


class Acting(NamedTuple):
    """What is learnt from: data, an environment, and how the two are mixed."""

    dataset: OfflineDataset
    record: EnvRecord
    settings: FineTuneSettings


@cache
def fine_tuning(cls: type[Any]) -> type[Any]:
    """``cls``, which learns from data, as a class that learns from an :class:`Acting`; its artefacts are those of
    ``cls``.

    Raises :class:`UserError` for agents whose update is of the data's own rows alone.
    """
    if not (issubclass(cls, OfflineAlgorithm) and cls.fine_tunes and cls.uses_rewards):
        raise UserError(
            f"agent={cls.name} does not learn on by acting, expected td3bc or iql, or data for env= to begin again on"
        )
    body = {"__module__": cls.__module__, "__doc__": cls.__doc__, "defaults": replace(cls.defaults, unit="steps")}
    return type(cls.__name__, (FineTuned, cls), body)


def begin(cls: type[Any], path: str | Path, source: Any, *, seed: int = 0, **options: Any) -> Any:
    """A new agent of ``cls`` over ``source``, its networks and statistics of observations those in ``path``.

    Args:
        cls: a class of agents that learn from data, or of :func:`fine_tuning`.
        path: an artefact or checkpoint of the same agent.
        source: data as the agent's constructor takes it; for a class of :func:`fine_tuning` an :class:`Acting`.
        seed: of every generator the agent owns.
        options: ``device``, ``tensorboard_log``, ``verbose``, and hyperparameters; those not given are the file's.

    Raises:
        UserError: a file of another agent, of other spaces, or whose networks have other shapes.
    """
    manifest, model, _ = read_artefact(path)
    if manifest["agent"] != cls.name:
        raise UserError(f"init={path} is of agent {shown(manifest['agent'])}, expected {cls.name}")
    data = source.dataset if isinstance(source, Acting) else load_dataset(source)
    with refusing(path, f"its configuration does not fit {cls.name}", UserError):
        config = loaded_config(cls, manifest["config"])
        held = [read_space(manifest[f"{what}_space"], f"its {what} space") for what in ("observation", "action")]
    how = {name: options.pop(name) for name in ("device", "tensorboard_log", "verbose") if name in options}
    config = changed_config(cls, config, options)
    both = data.observation_space, data.action_space
    for what, theirs, ours in zip(("observations", "actions"), held, both, strict=True):
        if theirs.shape != ours.shape:
            lengths = f"{list(theirs.shape or ())}, {data.provenance.locator} has {list(ours.shape or ())}"
            raise UserError(f"init={path} was learnt from {what} of shape {lengths}: expected the same")
    agent = cls.built(Specification(config, *both, seed, **{"device": "auto", **how}))
    try:
        agent.load_model(model)
    except ArtefactError as error:
        raise UserError(f"init={path}: {error}; expected networks of the shapes asked for") from error
    agent.keeps_statistics = True
    agent.attach(source if isinstance(source, Acting) else data)
    return agent


class FineTuned(Beside):
    """Mixin: a step is one of the environment, with updates after it."""

    learns_from: ClassVar[str] = "environment"
    defaults: ClassVar[RunDefaults]

    def attach(self, source: Any) -> None:
        assert isinstance(source, Acting)
        self.fine, self.record = source.settings, source.record
        self.fine.check()
        if isinstance(self.action_space, spaces.Discrete):
            raise UserError(f"agent={self.name} learns on by acting in boxes of actions, not in {self.action_space}")
        world = training_env(source.record).env
        for what in ("observation", "action"):
            own, other = getattr(self, f"{what}_space"), getattr(world, f"{what}_space")
            if not isinstance(other, type(own)) or own.shape != other.shape:
                raise UserError(
                    f"the agent has {what}s {shown(own)}, env={source.record.name} has {shown(other)}: expected the "
                    "same kind and shape"
                )
        assert isinstance(world, StatefulVecEnv)
        super().attach(source.dataset)
        seed = int(self.seed or 0)
        self.env = self.world = world
        self.scale, self.shift = reward_convention(
            source.dataset, scale=self.config.reward_scale, shift=self.config.reward_shift
        )
        self.exploring = torch.Generator(self.device).manual_seed(seed + 6)
        both = self.observation_space, self.action_space
        self.acted = Replay(self.fine.buffer_size, *both, self.device, seed=seed + 7)
        self.seen: np.ndarray | None = None  # [1, ds], the latest observation; None: an episode begins
        self.episodes = 0

    def ready(self) -> None:
        super().ready()
        if self.seen is None:
            self.world.seed(int(self.seed or 0))
            self.seen = np.asarray(self.world.reset())

    # ---- a step ----------------------------------------------------------------------------------------------------

    @property
    def offline_ratio(self) -> float:
        """ρ, the share of the data in the next batch."""
        fine = self.fine
        done = min(self.num_timesteps / fine.decay_steps, 1.0)
        return fine.offline_ratio + (fine.offline_ratio_end - fine.offline_ratio) * done

    @torch.no_grad()
    def explore(self, observations: np.ndarray) -> Float[Tensor, "1 da"]:
        """u, an action in [-1, 1]."""
        policy = self.policy
        acted = policy._predict(torch.as_tensor(observations, device=self.device), deterministic=False)
        unit = (acted - policy.centre) / policy.reach
        if not hasattr(policy, "generator"):
            noise = torch.randn(unit.shape, generator=self.exploring, device=self.device)
            unit = unit + self.fine.exploration_noise * noise
        return unit.clamp(-1, 1)

    def advance(self, most: int) -> None:
        assert self.seen is not None
        unit = self.explore(self.seen)
        seen, rewards, dones, infos = self.world.step(self.policy.outside(unit).cpu().numpy())
        after = np.array(seen)
        following = infos[0]["terminal_observation"][None] if dones[0] else after
        self._remember(self.seen, following, unit, rewards, dones, infos)
        self.seen = after
        self.num_timesteps += 1
        if dones[0]:
            self.episodes += 1
            self.tally.add({"episode_return": torch.tensor(infos[0]["episode"]["r"], device=self.device)})
        if self.num_timesteps >= self.fine.learning_starts:
            for _ in range(self.fine.updates_per_step):
                self.tally.add(self.update(self.draw()))
                self._n_updates += 1

    def _remember(
        self, seen: np.ndarray, following: np.ndarray, unit: Tensor, rewards: np.ndarray, dones: np.ndarray, infos: Any
    ) -> None:
        before, after = (self.policy.normalise(torch.as_tensor(part, device=self.device)) for part in (seen, following))
        learnt = torch.as_tensor(self.scale * rewards + self.shift, dtype=torch.float32)[:, None].to(self.device)
        actions, learnt = self.as_learnt(unit, learnt)
        parts = [part.cpu().numpy() for part in (before, after, actions, learnt)]
        self.acted.add(parts[0], parts[1], parts[2], parts[3], dones, infos)

    def draw(self) -> Batch:
        assert self.replay is not None
        size = self.config.batch_size
        offline = int(self.offline_ratio * size + 0.5)
        if offline == size:
            return self.replay.batch(size)
        acted = self.acted.batch(size - offline)
        if not offline:
            return acted
        return Batch(*(torch.cat(parts) for parts in zip(self.replay.batch(offline), acted, strict=True)))

    # ---- what it says of itself ------------------------------------------------------------------------------------

    @property
    def has_learnt(self) -> bool:
        return True  # from the data

    def shortfall(self, total_timesteps: int) -> str | None:
        starts = self.fine.learning_starts
        if total_timesteps >= starts:
            return None
        return f"total_timesteps={total_timesteps} ends before learning begins (finetune.learning_starts={starts})"

    def counts(self) -> dict[str, int]:
        return {**super().counts(), "updates": self._n_updates, "episodes": self.episodes}

    def result(self) -> dict[str, Any]:
        return {**super().result(), "finetune": asdict(self.fine)}

    def source(self) -> dict[str, Any]:
        found, record = super().source(), getattr(self, "record", None)
        if record is None or self.dataset is None:
            return found
        same = self.dataset.env_id == record.env_id
        reference = record.data.reference if record.data else self.dataset.reference if same else None
        return {**found, "env": described(record.env_id, record.env_kwargs, reference)}

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        found = {**super().state_tensors(), **{f"acted.{key}": value for key, value in self.acted.state().items()}}
        if self.seen is not None and (state := self.world.state()) is not None:
            found |= {f"env.{key}": torch.from_numpy(np.array(value)) for key, value in state.items()}
            found["seen"] = torch.from_numpy(self.seen.copy())
        return found

    def state_values(self) -> dict[str, Any]:
        return {**super().state_values(), "episodes": self.episodes, "finetune": asdict(self.fine)}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().load_state(tensors, values)
        if values["finetune"] != asdict(self.fine):
            raise ArtefactError("was made with other finetune settings; resuming would not be exact")
        parts: dict[str, dict[str, Tensor]] = {"acted.": {}, "env.": {}}
        for prefix, part in parts.items():
            part |= {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        self.acted.load_state(parts["acted."])
        self.episodes = int(values["episodes"])
        if "seen" not in tensors:
            self.seen = None
            print(f"{name_of(self.world.envs[0])} cannot restore its state: the resumed run begins a new episode")
            return
        seen = tensors["seen"].numpy()
        if seen.shape != (1, *self.observation_space.shape):
            raise ArtefactError(f"its last observation is {list(seen.shape)}, expected that of one environment")
        self.world.load_state({key: value.numpy() for key, value in parts["env."].items()})
        self.seen = seen
