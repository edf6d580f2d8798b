"""What every agent that learns from data promises.  A new one is tested by being registered."""

from __future__ import annotations

import io
import json
import os
import pickletools
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import toy
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure

from rlkit import registry
from rlkit.callbacks import JsonlWriter
from rlkit.checkpoint import read_artefact
from rlkit.data import load_dataset
from rlkit.data.hdf5 import write_d4rl
from rlkit.data.minari_store import to_minari
from rlkit.errors import ArtefactError, UserError
from rlkit.offline import OfflineAlgorithm

AGENTS = [name for name in registry.agent_names() if issubclass(registry.agent_class(name), OfflineAlgorithm)]
SMALL: dict[str, Any] = {"batch_size": 32, "hidden_sizes": (32, 32)}


@pytest.fixture(scope="session")
def dataset() -> Any:
    return toy.generate(size=600)


def make(name: str, data: Any, **kwargs: Any) -> Any:
    return registry.agent_class(name)("MlpPolicy", data, **{**SMALL, "device": "cpu", **kwargs})


def all_tensors(agent: Any) -> dict[str, torch.Tensor]:
    return {**agent.model_tensors(), **agent.training_tensors()}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].cpu().numpy().tobytes() == right[key].cpu().numpy().tobytes(), key


@pytest.mark.parametrize("name", AGENTS)
def test_constructs_from_everything_that_names_a_dataset(name: str, dataset: Any, tmp_path: Path) -> None:
    hdf5 = tmp_path / "point.hdf5"
    write_d4rl(dataset, hdf5)
    minari = to_minari(dataset, f"test/point/{name}-v0")
    for source in (dataset, "point-noisy", toy.RECORD, minari, f"test/point/{name}-v0", hdf5, str(hdf5)):
        agent = make(name, source)
        assert len(agent.replay.rows) == 600
        assert agent.predict(dataset.observations[:5])[0].shape == (5, 2)


@pytest.mark.parametrize("name", AGENTS)
def test_learning_lowers_its_own_objective(name: str, dataset: Any, tmp_path: Path) -> None:
    agent = make(name, dataset, learning_rate=1e-3)
    agent.set_logger(configure(str(tmp_path), ["json"]))
    agent.learn(600, log_interval=100)
    agent.logger.close()
    lines = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
    values = [line[f"train/{agent.objective}"] for line in lines]
    assert values[-1] < 0.7 * values[0], values


@pytest.mark.parametrize("name", AGENTS)
def test_same_seed_same_bytes_other_seed_other_bytes(name: str, dataset: Any) -> None:
    torch.manual_seed(1)
    first = make(name, dataset, seed=3).learn(60)
    torch.manual_seed(2)  # the global generators have no part in it
    np.random.seed(5)  # noqa: NPY002
    state = torch.get_rng_state()
    second = make(name, dataset, seed=3).learn(60)
    assert torch.equal(state, torch.get_rng_state())
    assert_same(all_tensors(first), all_tensors(second))
    other = make(name, dataset, seed=4).learn(60)
    observations = dataset.observations[:8]
    assert not np.array_equal(first.predict(observations)[0], other.predict(observations)[0])


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("at", [1, 37, 50])
def test_restored_checkpoint_goes_on_byte_for_byte(name: str, at: int, dataset: Any, tmp_path: Path) -> None:
    whole = make(name, dataset)
    whole.set_logger(_jsonl(tmp_path / "whole"))
    whole.learn(100, log_interval=25)
    whole.logger.close()
    part = make(name, dataset)
    part.set_logger(_jsonl(tmp_path / "part"))
    part.learn(at, log_interval=25)
    part.logger.close()
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh = make(name, dataset)
    fresh.restore(tmp_path / "c.rlk")
    fresh.set_logger(_jsonl(tmp_path / "part"))
    fresh.learn(100 - at, log_interval=25, reset_num_timesteps=False)
    fresh.logger.close()
    assert_same(all_tensors(whole), all_tensors(fresh))
    assert torch.equal(whole.replay.rows, fresh.replay.rows)
    assert (tmp_path / "whole" / "m.jsonl").read_bytes() == (tmp_path / "part" / "m.jsonl").read_bytes()


def _jsonl(folder: Path) -> Any:
    from stable_baselines3.common.logger import Logger

    folder.mkdir(exist_ok=True)
    return Logger(str(folder), output_formats=[JsonlWriter(folder / "m.jsonl")])


COMMAND = "import sys, toy; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"


def command(args: list[str], cwd: Path, wait: bool = True) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "toys"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *args],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if not wait:
        return process
    output = process.communicate()[0].decode()
    return process.returncode, output


@pytest.mark.parametrize("name", AGENTS)
def test_killed_run_resumes_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    settings = ["env=point-noisy", "log_every=50", "eval_every=100", "checkpoint_every=100", "final_episodes=5"]
    settings += ["agent.batch_size=32", "agent.hidden_sizes=[32,32]", "progress_bar=false", "eval_episodes=3"]
    code, output = command(["train", f"agent={name}", *settings, "total_timesteps=2000", "out=whole"], tmp_path)
    assert code == 0, output
    process = command(["train", f"agent={name}", *settings, "total_timesteps=2000", "out=killed"], tmp_path, wait=False)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "checkpoints").glob("step_*.rlk")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "result.json").exists(), "the run ended before it could be killed"
    code, output = command(["resume", "killed"], tmp_path)
    assert code == 0, output
    assert "resuming at step" in output
    for file in ("metrics.jsonl", "model.rlk"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes(), file
    last = [sorted((tmp_path / run / "checkpoints").iterdir())[-1] for run in ("whole", "killed")]
    (_, model, training), (_, model2, training2) = map(read_artefact, last)
    assert training is not None and training2 is not None
    assert_same(model, model2)
    assert_same(training, training2)
    results = [json.loads((tmp_path / run / "result.json").read_text()) for run in ("whole", "killed")]
    assert results[0]["final"] == results[1]["final"]
    assert results[0]["evaluations"] == results[1]["evaluations"]


@pytest.mark.parametrize("name", AGENTS)
def test_saved_agent_predicts_identically_and_holds_no_pickle(name: str, dataset: Any, tmp_path: Path) -> None:
    agent = make(name, dataset).learn(20)
    agent.save(tmp_path / "a.rlk")
    loaded = registry.agent_class(name).load(tmp_path / "a.rlk", device="cpu")
    assert np.array_equal(agent.predict(dataset.observations)[0], loaded.predict(dataset.observations)[0])
    with pytest.raises(UserError, match="without its dataset"):
        loaded.learn(1)
    onward = registry.agent_class(name).load(tmp_path / "a.rlk", dataset, device="cpu")
    assert np.array_equal(agent.predict(dataset.observations)[0], onward.predict(dataset.observations)[0])
    onward.learn(3)
    with zipfile.ZipFile(tmp_path / "a.rlk") as archive:
        for member in archive.namelist():
            assert not _unpickles(archive.read(member)), member


def _unpickles(data: bytes) -> bool:
    try:
        for _ in pickletools.genops(io.BytesIO(data)):
            pass
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", AGENTS)
def test_loading_as_another_agent_is_refused(name: str, dataset: Any, tmp_path: Path) -> None:
    make(name, dataset).save(tmp_path / "a.rlk")
    for other in AGENTS:
        cls = registry.agent_class(other)
        if not issubclass(registry.agent_class(name), cls):
            with pytest.raises(ArtefactError, match=f"holds agent '{name}', expected '{other}'"):
                cls.load(tmp_path / "a.rlk")


@pytest.mark.parametrize("name", AGENTS)
def test_sb3s_own_objects_run_on_it(name: str, dataset: Any, tmp_path: Path) -> None:
    class Counter(BaseCallback):
        calls = 0

        def _on_step(self) -> bool:
            self.calls += 1
            return True

    agent = make(name, dataset, tensorboard_log=str(tmp_path / "tb"))
    counter = Counter()
    checkpoint = CheckpointCallback(save_freq=20, save_path=str(tmp_path / "saves"))
    evaluation = EvalCallback(make_vec_env(toy.ENV_ID, 1), n_eval_episodes=2, eval_freq=20, verbose=0)
    agent.learn(40, callback=CallbackList([counter, checkpoint, evaluation]), log_interval=10)
    assert counter.calls == 40
    assert evaluation.last_mean_reward < 0
    assert len(list((tmp_path / "saves").iterdir())) == 2
    assert list((tmp_path / "tb").rglob("events.*"))
    agent.set_logger(configure(str(tmp_path / "log"), ["csv", "json"]))
    agent.learn(10, callback=[Counter()], log_interval=10)
    agent.logger.close()
    assert (tmp_path / "log" / "progress.csv").read_text()
    mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=3)
    assert np.isfinite(mean)
    agent.learn(5, callback=lambda _locals, _globals: False)
    assert agent.num_timesteps == 1


@pytest.mark.parametrize("name", AGENTS)
def test_predict_takes_one_observation_or_many(name: str, dataset: Any) -> None:
    agent = make(name, dataset)
    batch = dataset.observations[:7]
    actions, state = agent.predict(batch, deterministic=True)
    assert actions.shape == (7, 2) and state is None and actions.dtype == np.float32
    one, _ = agent.predict(batch[0], deterministic=True)
    assert one.shape == (2,)
    np.testing.assert_allclose(one, actions[0], atol=1e-6)
    assert all(toy.Point.action_space.contains(a) for a in actions)
    with warnings.catch_warnings(), pytest.raises(ValueError):
        warnings.simplefilter("ignore")
        agent.predict(np.zeros((3, 5), np.float32))


@pytest.mark.parametrize("name", AGENTS)
def test_bad_arguments_get_a_sentence(name: str, dataset: Any) -> None:
    for arguments, expected in (
        ({"batch_size": 0}, "batch_size=0 is out of range"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 is out of range"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"seed": 2**32}, "out of range"),
        ({"learning_rat": 1e-3}, "did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, "is not a number"),
    ):
        with pytest.raises(UserError, match=expected):
            make(name, dataset, **arguments)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device=cuda asks for a CUDA device and there is none"):
            make(name, dataset, device="cuda")
    with pytest.raises(UserError, match="expected a dataset"):
        registry.agent_class(name)("MlpPolicy", None)
    with pytest.raises(UserError, match="total_timesteps=0"):
        make(name, dataset).learn(0)
    discrete = dataset.with_()
    object.__setattr__(discrete, "action_space", gym.spaces.Discrete(2))
    with pytest.raises(UserError, match="one-dimensional Box action space"):
        make(name, discrete)


def test_every_agent_file_is_registered_under_its_module() -> None:
    for name in registry.agent_names():
        cls = registry.agent_class(name)
        assert cls.name == name and cls.__module__.startswith("rlkit.agents."), name
        assert registry.agent_summary(name)


def test_a_name_loads_the_generated_dataset_once() -> None:
    first, second = load_dataset("point-noisy"), load_dataset("point-noisy")
    assert first.content_hash == second.content_hash
    assert "GENERATED" in first.provenance.sentence
