"""DR-RPO: robust regularised policy optimisation, for worlds other than that of training (Gu et al. 2025).

``agents/drrpo/core.py`` holds the algorithm and its peers, ``agents/drrpo/dual.py`` the exact dual.  This file makes
an agent of it: one update is one episode (plan from all data, play, learn), so ``total_timesteps`` counts episodes.

    agent.method=drrpo | drrpo-mirror | drrpo-annealed | dr-lsvi-ucb | we-drive-u | lsvi-ucb | oppo

The environment must say what is known beforehand: ``env.unwrapped.problem`` is a
:class:`~rlkit.agents.drrpo.core.Problem`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from rlkit.agents.drrpo.core import DRRPOConfig, Planner, Policy, Problem, State
from rlkit.algorithms.checkpoint import read_artefact, require_alike
from rlkit.algorithms.hyperparameters import AgentConfig, RunDefaults
from rlkit.algorithms.solver import Solver
from rlkit.errors import ArtefactError, UserError, refusing
from rlkit.registry import EnvRecord, environment, is_known, register

Self = TypeVar("Self", bound="DRRPO")


class PlannedPolicy(BasePolicy):
    """The deployed policy behind SB3's ``predict``: its most probable action, or a sample."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, seed: int):
        super().__init__(observation_space, action_space)
        self.random = np.random.default_rng(seed)
        self.planner: Planner | None = None
        self.plans: Policy | None = None

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        assert self.planner is not None and self.plans is not None
        rows = np.asarray(observation.cpu(), np.float64)  # [n, k]
        found = self.planner.probabilities(self.plans, rows, deterministic)  # [n, A]
        if deterministic:
            return torch.from_numpy(found.argmax(axis=1))
        draws = self.random.random((len(found), 1))
        return torch.from_numpy(np.minimum((found.cumsum(axis=1) < draws).sum(axis=1), found.shape[1] - 1))

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Actions int64 ``[n]`` for observations ``[n, k]``, one for one."""
        rows = np.asarray(observation)
        if rows.shape[-1:] != self.observation_space.shape:
            raise ValueError(f"observations of shape {rows.shape}, expected [..., {self.observation_space.shape[0]}]")  # type: ignore[index]
        actions = self._predict(torch.from_numpy(np.atleast_2d(rows)), deterministic).numpy()
        return (actions if rows.ndim > 1 else actions[0]), state


@register("drrpo")
class DRRPO(Solver):
    """DR-RPO over the features that the environment states.

    Args:
        policy: ``"MlpPolicy"``, the only one.
        env: a record's name (``linear-mdp``, ``american-put``), a Gymnasium id, or an environment.
        seed: decides every episode.

    Raises:
        UserError: an environment that does not say what is known of it.
    """

    Config: ClassVar[type[AgentConfig]] = DRRPOConfig
    defaults: ClassVar[RunDefaults] = RunDefaults(
        unit="episodes", total_timesteps=200, log_every=10, eval_every=20, checkpoint_every=50, judged="sampled"
    )
    objective: ClassVar[str] = "bonus"
    policy: PlannedPolicy
    planner: Planner | None = None
    state: State | None = None

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        if not isinstance(action_space, spaces.Discrete):
            raise UserError(f"{self.name} needs a Discrete action space, got {action_space}")

    def setup(self, generator: torch.Generator) -> None:
        self.policy = PlannedPolicy(self.observation_space, self.action_space, int(self.seed or 0))

    def attach(self, source: Any) -> None:
        super().attach(source)
        self.planner = self.make_planner()
        self.state = self.planner.initial(int(self.seed or 0))
        self.policy.planner, self.policy.plans = self.planner, self.planner.deployed(self.state)

    def make_planner(self) -> Any:
        """What plans in the environment; raises :class:`UserError` for one that it is not for."""
        assert self.world is not None
        problem = getattr(self.world.unwrapped, "problem", None)
        if not isinstance(problem, Problem):
            raise UserError(
                f"{self.name} needs an environment with .problem, which says what is known; got {self.world}"
            )
        return Planner(problem, self.config)

    # ---- learning --------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        return None

    def update(self, batch: None) -> dict[str, Tensor]:
        """One episode."""
        assert self.planner is not None and self.state is not None
        metrics = self.planner.run_episode(self.state, self.world)
        self.policy.plans = None
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """SB3's ``predict`` with the policy planned from all data so far."""
        self._deploy()
        return self.policy.predict(observation, state, episode_start, deterministic)

    def _deploy(self) -> Policy:
        if self.policy.plans is None:
            assert self.planner is not None and self.state is not None
            self.policy.plans = self.planner.deployed(self.state)
        return self.policy.plans

    # ---- state -----------------------------------------------------------------------------------------------------

    def model_tensors(self) -> dict[str, Tensor]:
        return {f"deployed.{name}": torch.from_numpy(array) for name, array in self._deploy()._asdict().items()}

    def load_model(self, tensors: Mapping[str, Tensor]) -> None:
        require_alike(tensors, self.model_tensors(), f"its tensors do not fit {self.name}", growing=True)
        self.policy.plans = Policy(*(tensors[f"deployed.{name}"].numpy() for name in Policy._fields))

    def state_tensors(self) -> dict[str, Tensor]:
        assert self.state is not None
        own = {f"state.{name}": torch.from_numpy(array) for name, array in self.state.arrays().items()}
        return {**super().state_tensors(), **own}

    def state_values(self) -> dict[str, Any]:
        return {**super().state_values(), "sampling": self.policy.random.bit_generator.state}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().load_state(tensors, values)
        self.state = self.read_state({k[6:]: v.numpy() for k, v in tensors.items() if k.startswith("state.")})
        self.policy.random.bit_generator.state = values["sampling"]

    def read_state(self, arrays: dict[str, np.ndarray]) -> Any:
        """The planner's state in a checkpoint; raises :class:`ArtefactError` for arrays that do not fit."""
        assert self.state is not None
        found = State.from_arrays(arrays)
        found.require_sound(self.state)
        return found

    def check_source(self, path: Path, manifest: Mapping[str, Any]) -> None:
        if manifest["env"] != self.source()["env"]:
            raise ArtefactError(f"{path}: was made in {manifest['env']}, expected {self.source()['env']}")

    @classmethod
    def load(  # type: ignore[override]  # SB3's custom_objects= has no meaning without a pickle
        cls: type[Self],
        path: Any,
        env: GymEnv | str | EnvRecord | None = None,
        *,
        device: torch.device | str = "cpu",
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> Self:
        """Rebuild an agent; features come from ``env``, else from an environment made as the artefact's was.

        Raises :class:`ArtefactError` for a damaged file, one of another agent, or one that names no environment.
        """
        if env is None:
            manifest = read_artefact(path)[0]
            cls._class_of(path, manifest)
            with refusing(path, "names no environment"):
                env = environment(manifest.get("env"), str(path))
            if env is None or not is_known(env):
                raise ArtefactError(
                    f"{path}: names no environment that is registered here, expected env= with the features it was "
                    "trained on"
                )
        source = cls.make_world(env)
        return cls.read(path, source, device=device, tensorboard_log=tensorboard_log, verbose=verbose)
