"""``OfflineAlgorithm``: SB3's ``BaseAlgorithm`` for learning from a fixed dataset.

A subclass names its ``Config``, builds its networks in :meth:`build` and turns a batch into metrics in :meth:`update`.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from rlkit.algorithms.base import Specification
from rlkit.algorithms.hyperparameters import AgentConfig, RunDefaults, check_policy, chosen_config
from rlkit.algorithms.learner import Learner
from rlkit.algorithms.nets import DeterministicPolicy
from rlkit.algorithms.replay import Batch, Replay
from rlkit.data.dataset import OfflineDataset
from rlkit.data.resolve import chosen, learning_rewards, load_dataset
from rlkit.data.scores import episode_scores
from rlkit.data.validate import uneven
from rlkit.errors import ArtefactError, Caution, DataError, UserError
from rlkit.registry import EnvRecord, described

Self = TypeVar("Self", bound="OfflineAlgorithm")
DatasetLike = Any  # whatever rlkit.data.load_dataset takes


@dataclass(frozen=True)
class OfflineConfig(AgentConfig):
    """What every offline agent has.  Raises :class:`UserError` for values out of range."""

    batch_size: int = 256  # larger: smoother gradients, slower updates
    learning_rate: float = 3e-4  # larger: faster and less stable
    hidden_sizes: Sequence[int] = (256, 256)  # widths of every network's hidden layers
    normalise_observations: bool = True  # (s - mean) / (std + 1e-3) over the dataset, also at evaluation
    reward_scale: float | None = None  # what the learner sees is scale * reward + shift; None: the data's convention
    reward_shift: float | None = None  # likewise; scores are always of the rewards as they are
    compile: bool = False  # on a processor: updates as one compiled program, seconds at the start, faster after

    POSITIVE: ClassVar[tuple[str, ...]] = ("batch_size", "learning_rate")
    OWN: ClassVar[tuple[str, ...]] = ("compile",)
    VARYING: ClassVar[tuple[str, ...]] = ("learning_rate", "normalise_observations", "reward_scale", "reward_shift")

    def __post_init__(self) -> None:
        self._widths("hidden_sizes")
        super().__post_init__()


class OfflineAlgorithm(Learner):
    """Base of the offline agents.

    Args:
        policy: ``"MlpPolicy"``.
        dataset: whatever :func:`~rlkit.data.resolve.load_dataset` takes: a record's name, a Minari id, the path of a
            file, a table of rows, a list of episodes, an ``OfflineDataset``.
        env: environment for SB3's callbacks; by default the dataset's own is made when first asked for.
        seed: seeds every generator the agent owns.
        policy_kwargs: SB3's ``{"net_arch": [...]}`` and its other forms, the same as ``hidden_sizes``.
        hyperparameters: fields of ``Config``; those not given come from the presets of the data, then the defaults.

    Raises:
        UserError: unknown or out-of-range hyperparameters, spaces the agent cannot handle, or a device
            that is not there.
    """

    name: ClassVar[str] = "offline"
    Config: ClassVar[type[OfflineConfig]] = OfflineConfig
    defaults: ClassVar[RunDefaults] = RunDefaults(unit="updates")
    policy: DeterministicPolicy
    observation_space: spaces.Box
    action_space: spaces.Box
    learns_from: ClassVar[str] = "data"
    uses_rewards: ClassVar[bool] = True
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
        check_policy(type(self), policy)
        if dataset is None:
            raise UserError(f"{type(self).__name__} learns from data: expected a dataset, got none")
        data = load_dataset(dataset)
        keys = data.provenance.name, data.task, data.family
        config = chosen_config(type(self), policy_kwargs, hyperparameters, *keys)
        spaces_ = data.observation_space, data.action_space
        self.assemble(Specification(config, *spaces_, seed, device, tensorboard_log, verbose))
        self.attach(data)
        if env is not None:
            self.set_env(self._wrap_env(_make(env), verbose))

    def attach(self, source: OfflineDataset) -> None:
        data = source
        if self.uses_rewards and data.reward_free:
            raise DataError(
                f"{self.name} learns from rewards, which {data.provenance.locator} has none of; expected data with "
                "rewards, or an agent that imitates: bc or, with labelled episodes of an expert, recoil or smodice"
            )
        self.dataset = data
        seen = learning_rewards(data, scale=self.config.reward_scale, shift=self.config.reward_shift)
        self.replay = Replay.from_dataset(data.with_(rewards=seen), self.device, seed=int(self.seed or 0) + 2)
        if self.config.normalise_observations:
            mean = data.observations.mean(axis=0, dtype=np.float64).astype(np.float32)  # [ds]
            std = data.observations.std(axis=0, dtype=np.float64).astype(np.float32) + 1e-3  # [ds]
            self.policy.obs_mean.copy_(torch.from_numpy(mean))
            self.policy.obs_std.copy_(torch.from_numpy(std))
            self.replay.normalise_observations(self.policy.obs_mean, self.policy.obs_std)
        elif (text := uneven(data)) is not None:
            text += f", and {self.name} does not standardise them; expected agent.normalise_observations=true"
            warnings.warn(text, Caution, stacklevel=2)
        self.on_data()

    # ---- what a subclass provides ----------------------------------------------------------------------------------

    @abstractmethod
    def build(self, obs_dim: int, action_space: spaces.Box, generator: torch.Generator) -> None:
        """Set ``self.policy``, the other networks and the optimisers; initial weights come from ``generator``."""

    def share(self, other: Any) -> None:
        """Hold what is the same as ``other`` holds, from the same data, but once."""
        if self.replay is not None and other.replay is not None and torch.equal(self.replay.rows, other.replay.rows):
            self.replay.rows = other.replay.rows

    def on_data(self) -> None:
        """Called once the replay holds the (normalised) dataset; for indices built over it."""

    def q_values(
        self, observations: Float[Tensor, "batch ds"], actions: Float[Tensor, "batch da"]
    ) -> Float[Tensor, "batch 1"] | None:
        """Its own Q function, the mean of its critics, as the replay has observations, actions and rewards; None where
        it has none, or one that is not of the data's rewards."""
        critic = getattr(self, "critic", None)
        return torch.stack(critic(observations, actions)).mean(0) if self.uses_rewards and critic is not None else None

    # ---- what the loop asks for ------------------------------------------------------------------------------------

    def setup(self, generator: torch.Generator) -> None:
        self.build(self.observation_space.shape[0], self.action_space, generator)

    def ready(self) -> None:
        if self.replay is None:
            raise UserError(f"this {self.name} was loaded without its dataset; pass dataset= to load() to train on")

    def draw(self) -> Batch:
        assert self.replay is not None
        return self.replay.batch(self.config.batch_size)

    # ---- the environment, for SB3's objects ------------------------------------------------------------------------

    def get_env(self) -> VecEnv | None:
        """The environment given, else the dataset's own, made on first use; None when the dataset names none."""
        if self.env is None and self.dataset is not None and self.dataset.env_id is not None:
            self.env = self._wrap_env(_make(self.dataset.env_id, self.dataset.env_kwargs), self.verbose)
        return self.env

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        assert self.replay is not None
        # the rows are the dataset's, known by its hash
        return {**super().state_tensors(), "generator.replay": self.replay.generator.get_state()}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        assert self.replay is not None
        super().load_state(tensors, values)
        self.replay.generator.set_state(tensors["generator.replay"])
        if values.get("actions") != "unit" and ((self.policy.reach != 1) | (self.policy.centre != 0)).any():
            raise ArtefactError("was learnt from actions in other units than [-1, 1]; resuming would not be exact")

    def state_values(self) -> dict[str, Any]:
        return {**super().state_values(), "actions": "unit"}

    def source(self) -> dict[str, Any]:
        data = self.dataset
        if data is None:
            return super().source()
        told = data.describe()
        for how in ("tried", "kept"):  # how the data was come by this time says nothing about the agent
            told["details"].pop(how, None)
        return {"dataset": told, "env": described(data.env_id, data.env_kwargs, data.reference)}

    def result(self) -> dict[str, Any]:
        data = self.dataset
        assert data is not None
        told = data.describe()
        scores = episode_scores(data)
        if scores is not None and not data.reward_free:
            told["score_mean"] = float(scores.mean())
        return {"dataset": told, "source_sentence": data.provenance.sentence}

    def check_source(self, path: Path, manifest: Mapping[str, Any]) -> None:
        assert self.dataset is not None
        if (manifest["dataset"] or {}).get("sha256") != self.dataset.content_hash:
            where = self.dataset.provenance.locator
            raise ArtefactError(f"{path}: was made from other data than {where}; resuming would not be exact")

    @classmethod
    def resolve(cls, record: EnvRecord, choices: Any, progress: bool) -> OfflineDataset:
        """The dataset of ``record``, announced; where it comes from is settled in ``choices``."""
        return chosen(record, choices, progress, cls.name)

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
        data = load_dataset(dataset) if dataset is not None else None
        self = cls.read(path, data, device=device, tensorboard_log=tensorboard_log, verbose=verbose)
        if env is not None:
            self.set_env(self._wrap_env(_make(env), verbose))
        return self


def _make(env: GymEnv | str, kwargs: Mapping[str, Any] | None = None) -> GymEnv:
    import gymnasium as gym

    return gym.make(env, **(kwargs or {})) if isinstance(env, str) else env
