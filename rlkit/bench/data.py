"""Datasets to measure on: rollouts of smooth controllers, with the shapes and the crowding of recorded ones.

Neighbour search is fast on uniform noise and slow on real trajectories, where rows lie along curves.  So the rows come
from the simulator: linear feedback plus an oscillation, the better ones of many random draws, and exploration noise.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from rlkit import registry
from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.data.rollouts import collect
from rlkit.errors import UserError
from rlkit.system.files import write_atomically
from rlkit.vector import make_vector_env

ALGORITHM = 1  # raised whenever the same task and size would give other rows
CANDIDATES, KEPT, TRIAL_STEPS = 96, 12, 250
NOISE = 0.15  # standard deviation of exploration, in units of the action range's half


class Controllers:
    """``n`` policies ``tanh(K s + amplitude sin(w t + phase))``, one per environment."""

    def __init__(self, n: int, observations: int, actions: int, generator: np.random.Generator):
        scale = 1.0 / np.sqrt(observations)
        self.gain = scale * generator.standard_normal((n, actions, observations))  # [n, da, ds]
        self.amplitude = generator.uniform(0.0, 1.0, (n, actions))
        self.phase = generator.uniform(0.0, 2 * np.pi, (n, actions))
        self.frequency = generator.uniform(0.05, 0.4, (n, 1))  # radians per step
        self.step = 0

    def keep(self, which: np.ndarray) -> None:
        for name in ("gain", "amplitude", "phase", "frequency"):
            setattr(self, name, getattr(self, name)[which])

    def __call__(self, observations: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        self.step += 1
        feedback = np.einsum("nij,nj->ni", self.gain, observations)  # [n, da]
        swing = self.amplitude * np.sin(self.frequency * self.step + self.phase)
        noise = NOISE * generator.standard_normal(feedback.shape)
        return np.clip(np.tanh(feedback + swing) + noise, -1.0, 1.0).astype(np.float32)


def _select(env_id: str, controllers: Controllers, generator: np.random.Generator) -> None:
    """Keep those of highest return over the first steps: for a hopper, the ones that stay up."""
    env = make_vector_env(env_id, CANDIDATES)
    observations, _ = env.reset(seed=0)
    returns, running = np.zeros(CANDIDATES), np.ones(CANDIDATES, bool)
    for _ in range(TRIAL_STEPS):
        observations, rewards, terminations, truncations, _ = env.step(controllers(observations, generator))
        returns += rewards * running
        running &= ~(terminations | truncations)
    env.close()
    controllers.keep(np.argsort(-returns, kind="stable")[:KEPT])


def _roll_out(env_id: str, size: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    env = make_vector_env(env_id, KEPT)
    spaces: tuple[Any, Any] = (env.single_observation_space, env.single_action_space)
    controllers = Controllers(CANDIDATES, spaces[0].shape[0], spaces[1].shape[0], generator)
    _select(env_id, controllers, generator)
    half = (spaces[1].high - spaces[1].low) / 2

    def policy(observations: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return controllers(observations, generator) * half + (spaces[1].low + half)

    arrays = collect(env, policy, size, generator, env_seed=1)
    env.close()
    return arrays


def cache_folder() -> Path:
    """``rlkit/bench`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlkit" / "bench"


def bench_data(task: str, size: int) -> OfflineDataset:
    """``size`` transitions of the registry's ``task``; made once, then read from the user's cache folder.

    The same task and size give the same rows.  A cache that is damaged or cannot be written costs time only.
    """
    import gymnasium as gym
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    record = registry.record(task)
    path = cache_folder() / f"{task}-{size}-v{ALGORITHM}.safetensors"
    arrays: dict[str, Any] = {}
    try:
        arrays.update(load_file(path))
    except (OSError, SafetensorError):
        rolled = _roll_out(record.env_id, size)
        _store(rolled, path)
        arrays.update(rolled)
    env = gym.make(record.env_id)
    observation_space, action_space = env.observation_space, env.action_space
    env.close()
    assert isinstance(observation_space, gym.spaces.Box) and isinstance(action_space, gym.spaces.Box)
    return OfflineDataset(
        **arrays,
        observation_space=observation_space,
        action_space=action_space,
        provenance=Provenance("generated", f"{size:,} transitions of smooth controllers", f"bench-{task}"),
        env_id=record.env_id,
        family=record.family,
        task=record.task,
    )


def _store(arrays: dict[str, np.ndarray], path: Path) -> None:
    from safetensors.numpy import save

    with contextlib.suppress(UserError):  # a cache is for speed alone
        write_atomically(path, save(arrays, {"rlkit": json.dumps({"algorithm": ALGORITHM})}))
