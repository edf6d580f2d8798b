"""Every test here has a store of its own and no network."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from safetensors.numpy import save

import rlkit.registry
from rlkit.data import OfflineDataset, Provenance, generate
from rlkit.registry import DataSpec, EnvRecord


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RLKIT_OFFLINE", "1")
    monkeypatch.setattr(rlkit.registry, "_records", dict(rlkit.registry._records))


def build(lengths: list[int], terminated: list[bool], seed: int = 0, ds: int = 3, da: int = 2) -> OfflineDataset:
    """Random episodes of the given lengths; each ends in a termination or a truncation."""
    rng = np.random.default_rng(seed)
    states = [rng.standard_normal((n + 1, ds), dtype=np.float32) for n in lengths]
    total = sum(lengths)
    ends = np.cumsum(lengths) - 1
    terminations, truncations = np.zeros(total, bool), np.zeros(total, bool)
    terminations[ends], truncations[ends] = terminated, ~np.array(terminated)
    return OfflineDataset(
        observations=np.concatenate([s[:-1] for s in states]),
        actions=rng.uniform(-1, 1, (total, da)).astype(np.float32),
        rewards=rng.standard_normal(total, dtype=np.float32),
        next_observations=np.concatenate([s[1:] for s in states]),
        terminations=terminations,
        truncations=truncations,
        observation_space=gym.spaces.Box(-np.inf, np.inf, (ds,), np.float32),
        action_space=gym.spaces.Box(-1, 1, (da,), np.float32),
        provenance=Provenance("memory", "toy", "toy", {"seed": seed}),
        reference=(-1.0, 2.0),
        family="toys",
        task="toy",
    )


@pytest.fixture(scope="session")
def toy() -> Callable[..., OfflineDataset]:
    return build


def actor(rng: np.random.Generator, ds: int, da: int, hidden: int = 16) -> dict[str, np.ndarray]:
    shapes = {"latent_pi.0": (hidden, ds), "latent_pi.2": (hidden, hidden), "mu": (da, hidden), "log_std": (da, hidden)}
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = (0.3 * rng.standard_normal(shape)).astype(np.float16)
        tensors[f"{name}.bias"] = np.zeros(shape[0], np.float16)
    return tensors


def write_behaviours(folder: Path, task: str, ds: int, da: int, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    policies = {}
    for name in ("medium", "expert", "replay_00", "replay_01", "replay_02"):
        data = save(actor(rng, ds, da))
        (folder / f"{task}_{name}.safetensors").write_bytes(data)
        policies[name] = {"file": f"{task}_{name}.safetensors", "sha256": hashlib.sha256(data).hexdigest(), "step": 1}
    levels = {
        "random": [],
        "medium": ["medium"],
        "expert": ["expert"],
        "medium-replay": ["replay_00", "replay_01", "replay_02"],
        "medium-expert": ["medium", "expert"],
    }
    tasks = {task: {"env_id": "Pendulum-v1", "policies": policies, "levels": levels}}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "versions": {}, "tasks": tasks}))


@pytest.fixture
def behaviours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny policies for records ``pendulum-<level>``; returns their folder."""
    folder = tmp_path / "behaviours"
    write_behaviours(folder, "pendulum", 3, 1)
    monkeypatch.setattr(generate, "BEHAVIOURS", folder)
    return folder


@pytest.fixture(autouse=True)
def pendulum(isolated: None) -> None:
    """Records of Gymnasium's Pendulum-v1: 3 observations, 1 action in [-2, 2], episodes of 200 steps."""
    for level in ("random", "medium", "expert", "medium-replay", "medium-expert"):
        spec = DataSpec(
            level=level,
            generator="rlkit.data.generate:behaviour_rollouts",
            reference=(-1500.0, -150.0),
            minari_id=f"classic/pendulum/{level}-v0" if level == "medium" else None,
            d4rl_id=f"pendulum-{level}-v2",
            size=700,
        )
        name = f"pendulum-{level}"
        rlkit.registry.add_records([EnvRecord(name, "toy", "Pendulum-v1", "classic", "pendulum", spec)])
    rlkit.registry.add_records([EnvRecord("pendulum", "toy, online", "Pendulum-v1", "classic", "pendulum")])
