"""SB3's own algorithms under ``OnlineAlgorithm``: exact resume, safe artefacts, untouched global generators."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
import toy
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise

from rlkit import registry
from rlkit.agents.beer import BEER
from rlkit.agents.orpo.orpo import ORPO
from rlkit.agents.vagram.vagram import VaGraM
from rlkit.algorithms.callbacks import Checkpoint, Evaluate, JsonlWriter, Log, StopOnSignal, checkpoints
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.algorithms.evaluate import Evaluator
from rlkit.algorithms.hyperparameters import AgentConfig
from rlkit.algorithms.online import OnlineAlgorithm
from rlkit.algorithms.replay import Replay
from rlkit.algorithms.vecenv import StatefulVecEnv, environment_state, set_environment_state
from rlkit.errors import ArtefactError, UserError
from rlkit.registry import EnvRecord, add_records


@dataclass(frozen=True)
class PlainConfig(AgentConfig):
    n_envs: int = 1
    learning_rate: float = 3e-4
    POSITIVE: ClassVar[tuple[str, ...]] = ("n_envs", "learning_rate")


OFF_POLICY: dict[str, Any] = {
    "buffer_size": 500,
    "learning_starts": 40,
    "batch_size": 16,
    "replay_buffer_class": Replay,
}


def small() -> dict[str, Any]:
    return {"policy_kwargs": {"net_arch": [16, 16]}}  # SB3 writes into it


class PlainSAC(OnlineAlgorithm, SAC):
    name = "plain-sac"
    Config = PlainConfig

    def arguments(self, config: Any) -> dict[str, Any]:
        return {**small(), **OFF_POLICY, "learning_rate": config.learning_rate, "replay_buffer_kwargs": {"seed": 3}}


class PlainTD3(OnlineAlgorithm, TD3):
    name = "plain-td3"
    Config = PlainConfig

    def arguments(self, config: Any) -> dict[str, Any]:
        return {**small(), **OFF_POLICY, "action_noise": NormalActionNoise(np.zeros(1), 0.2 * np.ones(1))}


class PlainPPO(OnlineAlgorithm, PPO):
    name = "plain-ppo"
    Config = PlainConfig

    def arguments(self, config: Any) -> dict[str, Any]:
        return {**small(), "n_steps": 32, "batch_size": 32, "n_epochs": 2}


PENDULUM = EnvRecord("pole", "a pole on a cart", "InvertedPendulum-v5", "toy", "pole")
add_records([PENDULUM])
QUICK = {"batch_size": 16, "hidden_sizes": (16, 16), "buffer_size": 500, "learning_starts": 40}
MODEL = {
    "model_hidden_sizes": (16,),
    "termination": "never",
    "refit_every": 40,
    "rollout_batch": 50,
    "patience": 1,
    "updates_per_step": 1,
}
BASED = {"n_envs": 2, "n_steps": 32, "batch_size": 32, "n_epochs": 2, "hidden_sizes": (16, 16)}
BASED |= {"disc_hidden_sizes": (16,), "trim": 0.02, "calibration_steps": 200}
CASES: dict[str, Any] = {
    "plain-sac": (PlainSAC, {}),
    "plain-td3": (PlainTD3, {}),
    "plain-ppo": (PlainPPO, {"n_envs": 2}),
    "beer": (BEER, {**QUICK, "rank_interval": 50}),
    "vagram": (VaGraM, {**QUICK, **MODEL}),
    "orpo": (ORPO, BASED),
}
SHIPPED = [
    name
    for name in registry.agent_names()
    if issubclass(cls := registry.agent_class(name), OnlineAlgorithm) and cls.__module__.startswith("rlkit.")
]


def test_every_shipped_agent_that_learns_online_is_run_through_this() -> None:
    assert set(SHIPPED) <= set(CASES)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (cls, _) in CASES.items():
        monkeypatch.setitem(registry._agents, name, cls)


def tensors(agent: Any) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in {**agent.model_tensors(), **agent.training_tensors()}.items()}


def run(agent: Any, folder: Path, steps: int, position: int | None = None, history: Any = None) -> Any:
    folder.mkdir(exist_ok=True)
    writer = JsonlWriter(folder / "metrics.jsonl", position)
    agent.set_logger(Logger(str(folder), output_formats=[writer]))
    evaluate = Evaluate(Evaluator("InvertedPendulum-v5", episodes=2), 90)
    evaluate.history = list(history or [])
    saver = Checkpoint(
        folder / "checkpoints", 70, lambda: {"bytes": writer.position, "evaluations": list(evaluate.history)}, keep=9
    )
    hooks = CallbackList([Log(50), evaluate, saver, StopOnSignal()])
    agent.learn(steps, hooks, log_interval=None, reset_num_timesteps=False)
    agent.logger.close()
    return evaluate.history


@pytest.mark.parametrize("name", CASES)
def test_restored_run_goes_on_byte_for_byte(name: str, tmp_path: Path) -> None:
    cls, settings = CASES[name]
    whole = cls("MlpPolicy", "pole", seed=1, device="cpu", **settings)
    history = run(whole, tmp_path / "whole", 300)
    saved = checkpoints(tmp_path / "whole" / "checkpoints")
    assert len(saved) >= 3 and history
    lines = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    for path in saved[:2]:
        part = cls("MlpPolicy", "pole", seed=1, device="cpu", **settings)
        extra = part.restore(path)
        folder = tmp_path / path.stem
        folder.mkdir()
        (folder / "metrics.jsonl").write_bytes(lines)
        left = run(part, folder, 300 - part.num_timesteps, extra["bytes"], extra["evaluations"])
        assert left == history
        assert (folder / "metrics.jsonl").read_bytes() == lines
        first, second = tensors(whole), tensors(part)
        assert first.keys() == second.keys()
        assert [k for k in first if first[k] != second[k]] == []
        assert whole.state_values() == part.state_values()


@pytest.mark.parametrize("name", CASES)
def test_same_seed_same_bytes_and_the_global_generators_rest(name: str) -> None:
    cls, settings = CASES[name]
    torch.manual_seed(1)
    first = cls("MlpPolicy", "pole", seed=3, device="cpu", **settings).learn(120)
    torch.manual_seed(2)
    np.random.seed(5)  # noqa: NPY002
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    second = cls("MlpPolicy", "pole", seed=3, device="cpu", **settings).learn(120)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(legacy, np.random.get_state()[1])  # noqa: NPY002
    assert tensors(first) == tensors(second)
    other = cls("MlpPolicy", "pole", seed=4, device="cpu", **settings).learn(120)
    assert tensors(first) != tensors(other)


@pytest.mark.parametrize("name", CASES)
def test_artefact_predicts_identically_and_sb3s_objects_run(name: str, tmp_path: Path) -> None:
    cls, settings = CASES[name]
    agent = cls("MlpPolicy", "pole", device="cpu", tensorboard_log=str(tmp_path / "tb"), **settings).learn(64)
    agent.save(tmp_path / "a.rlk")
    observations = np.random.default_rng(0).normal(size=(5, 4))
    loaded = cls.load(tmp_path / "a.rlk", device="cpu")
    expected = agent.predict(observations, deterministic=True)[0]
    assert np.array_equal(expected, loaded.predict(observations, deterministic=True)[0])
    with pytest.raises(UserError, match="without an environment"):
        loaded.learn(1)
    onward = cls.load(tmp_path / "a.rlk", "pole", device="cpu")
    onward.learn(10)
    mean, _ = evaluate_policy(loaded, make_vec_env("InvertedPendulum-v5", 1), n_eval_episodes=2)
    assert np.isfinite(mean)
    assert list((tmp_path / "tb").rglob("events.*"))


@pytest.mark.parametrize("name", [name for name in SHIPPED if name in CASES])
def test_killed_run_resumes_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    settings = ["env=hopper", "log_every=50", "eval_every=200", "checkpoint_every=100", "final_episodes=2"]
    settings += ["progress_bar=false", "eval_episodes=2", "total_timesteps=900"]
    settings += [f"agent.{k}={list(v) if isinstance(v, tuple) else v}" for k, v in CASES[name][1].items()]
    code, output = command(["train", f"agent={name}", *settings, "out=whole"], tmp_path)
    assert code == 0, output
    process = command(["train", f"agent={name}", *settings, "out=killed"], tmp_path, wait=False)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "checkpoints").glob("step_*.rlk")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "result.json").exists(), "the run ended before it could be killed"
    code, output = command(["resume", "killed"], tmp_path)
    assert code == 0, output
    assert "resuming at step" in output and "not exact" not in output
    last = [sorted((tmp_path / run / "checkpoints").iterdir())[-1] for run in ("whole", "killed")]
    for file in ("metrics.jsonl", "model.rlk"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes(), file
    (_, _, training), (_, _, training2) = map(read_artefact, last)
    assert training is not None and training2 is not None and training.keys() == training2.keys()
    assert [k for k in training if not torch.equal(training[k], training2[k])] == []
    results = [json.loads((tmp_path / run / "result.json").read_text()) for run in ("whole", "killed")]
    assert results[0]["final"] == results[1]["final"]
    assert results[0]["evaluations"] == results[1]["evaluations"]


def command(args: list[str], cwd: Path, wait: bool = True) -> Any:
    code = "import sys; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen([sys.executable, "-c", code, *args], cwd=cwd, env=environment, **streams)
    if not wait:
        return process
    output = process.communicate()[0].decode()
    return process.returncode, output


def test_a_signal_waits_for_a_checkpoint_that_is_exact(tmp_path: Path) -> None:
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 75:
                stopper.stop(2)
            return True

    stopper = StopOnSignal()
    saver = Checkpoint(tmp_path, 0, dict, stopper)
    agent = PlainSAC("MlpPolicy", "pole", device="cpu")
    agent.learn(200, CallbackList([saver, Stop(), stopper]))
    path = saver.latest()
    assert path is not None and path.name == "step_0000000075.rlk"
    onward = PlainSAC("MlpPolicy", "pole", device="cpu")
    onward.restore(path)
    onward.learn(25, reset_num_timesteps=False)
    assert tensors(onward) == tensors(PlainSAC("MlpPolicy", "pole", device="cpu").learn(100))


def test_an_environment_without_state_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = PlainSAC("MlpPolicy", toy.ENV_ID, device="cpu").learn(30)
    agent.save_checkpoint(tmp_path / "c.rlk")
    fresh = PlainSAC("MlpPolicy", toy.ENV_ID, device="cpu")
    fresh.restore(tmp_path / "c.rlk")
    assert "Point-v0 cannot restore its state: the resumed run starts a new episode and is not exact" in (
        capsys.readouterr().out
    )
    fresh.learn(5, reset_num_timesteps=False)
    assert fresh.num_timesteps == 35


def test_another_environment_is_refused(tmp_path: Path) -> None:
    agent = PlainSAC("MlpPolicy", "pole", device="cpu").learn(10)
    agent.save_checkpoint(tmp_path / "c.rlk")
    with pytest.raises(ArtefactError, match=r"was made in InvertedPendulum-v5, expected Hopper-v5"):
        PlainSAC("MlpPolicy", "hopper", device="cpu").restore(tmp_path / "c.rlk")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"env": None}, "expected one or its name, got none"),
        ({"env": "poll"}, "did you mean 'pole'"),
        ({"env": "CartPole-v1"}, "needs a Box action space"),
        ({"env": "pole", "n_envs": 0}, "n_envs=0 is out of range"),
        ({"env": "pole", "seed": -1}, "seed=-1 is out of range"),
        ({"env": "pole", "learning_rat": 1.0}, "did you mean 'learning_rate'"),
    ],
)
def test_bad_arguments_get_a_sentence(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        PlainSAC("MlpPolicy", **arguments)


def test_a_number_that_is_not_finite_stops_the_run() -> None:
    class Broken(toy.Point):
        def step(self, action: np.ndarray) -> Any:
            observation, reward, *rest = super().step(action)
            self.count = getattr(self, "count", 0) + 1
            return observation, np.nan if self.count == 12 else reward, *rest

    with pytest.raises(UserError, match="'reward' from environment 0, step 12 is not finite"):
        PlainSAC("MlpPolicy", Broken(), device="cpu").learn(50)


def test_mujoco_steps_on_from_its_state() -> None:
    env, other = (gym.make("Hopper-v5") for _ in range(2))
    env.reset(seed=1)
    generator = np.random.default_rng(0)
    for _ in range(8):
        env.step(generator.uniform(-1, 1, 3).astype(np.float32))
    state = environment_state(env)
    assert state is not None
    set_environment_state(other, state)
    for _ in range(60):
        action = generator.uniform(-1, 1, 3).astype(np.float32)
        left, right = env.step(action), other.step(action)
        assert left[0].tobytes() == right[0].tobytes() and left[1:4] == right[1:4]
        if left[2]:
            assert env.reset()[0].tobytes() == other.reset()[0].tobytes()


def test_truncation_is_told_apart_and_episodes_are_counted() -> None:
    env = StatefulVecEnv([lambda: gym.make(toy.ENV_ID)])
    env.seed(0)
    env.reset()
    total = 0.0
    for _ in range(toy.LIMIT):
        _, rewards, dones, infos = env.step(np.zeros((1, 2), np.float32))
        total += float(rewards[0])
    assert dones[0] and infos[0]["TimeLimit.truncated"] and infos[0]["episode"]["l"] == toy.LIMIT
    assert infos[0]["episode"]["r"] == pytest.approx(total)
