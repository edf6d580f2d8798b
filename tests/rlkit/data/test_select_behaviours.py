"""The script that picks the shipped policies, run on snapshots made up here."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rlkit.data import actors, behaviour_rollouts, generate
from rlkit.errors import DataError
from rlkit.registry import record

SCRIPT = Path(__file__).parents[3] / "scripts" / "select_behaviours.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("select_behaviours", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_folder(tmp_path):
    """Six snapshots of a hopper whose training return rises, then falls."""
    folder = tmp_path / "runs" / "hopper"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for index, value in enumerate((10, 500, 1400, 1700, 3300, 3000)):
        step = 100 * (index + 1)
        shapes = {"latent_pi.0": (8, 11), "latent_pi.2": (8, 8), "mu": (3, 8), "log_std": (3, 8)}
        tensors = {f"{n}.weight": rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
        tensors |= {f"{n}.bias": np.zeros(s[0], np.float32) for n, s in shapes.items()}
        save_file(tensors, folder / f"actor_{step:08d}.safetensors")
        lines.append(json.dumps({"step": step + 3, "return": value}))
    (folder / "progress.jsonl").write_text("\n".join(lines) + "\n")
    return folder.parent


def test_selection(script, run_folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    other = {"format": 1, "versions": {}, "tasks": {"ant": {"kept": True}}}
    (out / "manifest.json").write_text(json.dumps(other))
    (out / "hopper_replay_09.safetensors").write_bytes(b"stale")
    # What 100 episodes would say, from the training's figures: the snapshots here know nothing.
    returns = iter([3200.0, 3300.0, 1500.0, 1390.0, 10.0, 500.0])
    monkeypatch.setattr(script, "measure", lambda *args: np.full(4, next(returns)))
    options = ["--episodes", "4", "--replay", "3", "--expert-tries", "2", "--medium-tries", "2"]
    monkeypatch.setattr(sys, "argv", ["x", "hopper", "--runs", str(run_folder), "--out", str(out), *options])
    script.main()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["tasks"]["ant"] == {"kept": True} and "mujoco" in manifest["versions"]
    entry = manifest["tasks"]["hopper"]
    steps = {name: policy["step"] for name, policy in entry["policies"].items()}
    assert steps["expert"] == 600  # measured best, not best in training
    assert steps["medium"] in (300, 400) and steps["replay_00"] == 100 and steps["replay_02"] == steps["medium"]
    assert entry["levels"]["medium-expert"] == ["medium", "expert"]
    assert entry["policies"]["medium"]["seeds"] == [20000, 20003]
    assert sorted(p.name for p in out.glob("*.safetensors")) == sorted(p["file"] for p in entry["policies"].values())

    monkeypatch.setattr(generate, "BEHAVIOURS", out)
    assert len(behaviour_rollouts(record("hopper-medium-replay"), size=90)) == 90


def test_measure_counts_first_episodes(script):
    space = __import__("gymnasium").make("Hopper-v5").action_space
    shapes = {"latent_pi.0": (4, 11), "latent_pi.2": (4, 4), "mu": (3, 4), "log_std": (3, 4)}
    tensors = {f"{n}.weight": np.zeros(s, np.float16) for n, s in shapes.items()}
    tensors |= {f"{n}.bias": np.zeros(s[0], np.float16) for n, s in shapes.items()}
    policy = actors.Behaviour(tensors, 11, space, "zeros")
    first, second = (script.measure("Hopper-v5", policy, 4, 5) for _ in range(2))
    assert first.shape == (4,) and np.array_equal(first, second) and (first > 0).all()


def test_too_few_snapshots(script, run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "hopper", "--runs", str(run_folder), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="'hopper' has 6 snapshots, expected at least 10"):
        script.main()
    with pytest.raises(DataError, match=r"run scripts/train_behaviours.py first"):
        script.snapshots(tmp_path)
