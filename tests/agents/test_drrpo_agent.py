"""DR-RPO as an agent: names, exact resume, artefacts, SB3's objects, the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.evaluation import evaluate_policy

from rlkit.agents.drrpo.core import METHODS
from rlkit.agents.drrpo.drrpo import DRRPO
from rlkit.errors import ArtefactError, UserError


def tensors(agent: Any) -> dict[str, torch.Tensor]:
    return {**agent.model_tensors(), **agent.training_tensors()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[k].numpy().tobytes() == right[k].numpy().tobytes() for k in left
    )  # NaN too


@pytest.mark.parametrize("method", METHODS)
def test_every_method_resumes_exactly(method: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": method, "seed": 3, "eta": 5.0}
    whole = DRRPO("MlpPolicy", "linear-mdp", **settings).learn(60, log_interval=20)
    part = DRRPO("MlpPolicy", "linear-mdp", **settings).learn(37, log_interval=20)
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh = DRRPO("MlpPolicy", "linear-mdp", **settings)
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(23, log_interval=20, reset_num_timesteps=False)
    assert same(tensors(whole), tensors(fresh))
    other = DRRPO("MlpPolicy", "linear-mdp", **{**settings, "seed": 4}).learn(60)
    assert not same(tensors(whole), tensors(other))
    whole.save(tmp_path / "a.rlk")
    loaded = DRRPO.load(tmp_path / "a.rlk")
    rows = np.array([[0, 0], [1, 1], [2, 2]])
    assert np.array_equal(whole.predict(rows, deterministic=True)[0], loaded.predict(rows, deterministic=True)[0])


def test_the_bonus_falls_and_sb3s_objects_run(tmp_path: Path) -> None:
    agent = DRRPO("MlpPolicy", "linear-mdp", tensorboard_log=str(tmp_path / "tb"))
    first = float(agent.update(None)["bonus"])
    agent.learn(200, CheckpointCallback(save_freq=100, save_path=str(tmp_path / "saves")))
    assert float(agent.update(None)["bonus"]) < 0.7 * first
    assert len(list((tmp_path / "saves").iterdir())) == 2
    mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=5)
    assert mean > 0
    one, _ = agent.predict(np.array([0, 0]), deterministic=True)
    many, _ = agent.predict(np.array([[0, 0]] * 4), deterministic=True)
    assert one.shape == () and (many == one).all()
    samples = agent.predict(np.array([[0, 0]] * 64))[0]
    assert set(samples.tolist()) <= set(range(16))
    with pytest.raises(ValueError, match="expected"):
        agent.predict(np.zeros((3, 5)))


@pytest.mark.parametrize("env", ["linear-mdp", "american-put"])
def test_killed_run_resumes_to_the_same_bytes(env: str, tmp_path: Path) -> None:
    settings = [f"env={env}", "log_every=50", "eval_every=100", "checkpoint_every=50", "final_episodes=5"]
    settings += ["progress_bar=false", "eval_episodes=3", "total_timesteps=300"]
    code = "import sys; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "cwd": tmp_path}

    def start(*arguments: str) -> Any:
        return subprocess.Popen([sys.executable, "-c", code, *arguments], env={**os.environ}, **streams)

    whole = start("train", "agent=drrpo", *settings, "out=whole")
    output = whole.communicate()[0].decode()
    assert whole.returncode == 0, output
    process = start("train", "agent=drrpo", *settings, "out=killed")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "checkpoints").glob("step_*.rlk")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "result.json").exists(), "the run ended before it could be killed"
    resumed = start("resume", "killed")
    output = resumed.communicate()[0].decode()
    assert resumed.returncode == 0 and "resuming at step" in output, output
    for file in ("metrics.jsonl", "model.rlk"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes(), file
    finals = [json.loads((tmp_path / run / "result.json").read_text())["final"] for run in ("whole", "killed")]
    assert finals[0] == finals[1]


def test_bad_input_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one or its name, got none"):
        DRRPO("MlpPolicy", None)
    with pytest.raises(UserError, match="needs a Discrete action space"):
        DRRPO("MlpPolicy", gym.make("Pendulum-v1"))
    with pytest.raises(UserError, match=r"with \.problem, which says what is known"):
        DRRPO("MlpPolicy", gym.make("CartPole-v1"))
    with pytest.raises(UserError, match=r"rho=1.5 is out of range"):
        DRRPO("MlpPolicy", "linear-mdp", rho=1.5)
    with pytest.raises(UserError, match=r"eta=0.0 is out of range"):
        DRRPO("MlpPolicy", "linear-mdp", eta=0.0)
    with pytest.raises(UserError, match="did you mean 'linear-mdp'"):
        DRRPO("MlpPolicy", "linear-mpd")
    agent = DRRPO("MlpPolicy", gym.make("rlkit/LinearMDP-v0")).learn(5)
    agent.save(tmp_path / "a.rlk")
    with pytest.raises(ArtefactError, match="names no environment"):
        DRRPO.load(tmp_path / "a.rlk")
    DRRPO.load(tmp_path / "a.rlk", gym.make("rlkit/LinearMDP-v0")).learn(1)
    agent = DRRPO("MlpPolicy", "linear-mdp").learn(5)
    agent.save_checkpoint(tmp_path / "c.rlk")
    with pytest.raises(ArtefactError, match="was made in"):
        DRRPO("MlpPolicy", "american-put").restore(tmp_path / "c.rlk")
