"""What every agent promises, by what it can do.  A new one is tested by being registered.

The last part asks all of them; the first those that learn from data.
"""

from __future__ import annotations

import io
import json
import os
import pickletools
import signal
import subprocess
import sys
import warnings
import zipfile
from dataclasses import fields, replace
from functools import cache
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
from rlkit.algorithms.base import Persistent
from rlkit.algorithms.callbacks import JsonlWriter
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.cli import main
from rlkit.config import compose_config
from rlkit.data import load_dataset
from rlkit.data.hdf5 import write_d4rl
from rlkit.data.minari_store import to_minari
from rlkit.errors import ArtefactError, UserError
from rlkit.run.session import build

EVERY = registry.agent_names()
AGENTS = [name for name in EVERY if issubclass(registry.agent_class(name), OfflineAlgorithm)]
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
    several = dataset.with_()
    object.__setattr__(several, "action_space", gym.spaces.MultiDiscrete([2, 2]))
    with pytest.raises(UserError, match="one-dimensional Box action space"):
        make(name, several)


def test_every_agent_file_is_registered_under_its_module() -> None:
    for name in EVERY:
        cls = registry.agent_class(name)
        assert cls.name == name and cls.__module__.startswith("rlkit.agents."), name
        assert registry.agent_summary(name)


def test_a_name_loads_the_generated_dataset_once() -> None:
    first, second = load_dataset("point-noisy"), load_dataset("point-noisy")
    assert first.content_hash == second.content_hash
    assert "GENERATED" in first.provenance.sentence


# ---- all of them -----------------------------------------------------------------------------------------------------

# Of each kind one small problem; an agent's is the first that it takes.
PROBLEMS = {
    "small-pole": [],
    "tsp": ["env.kwargs.num_nodes=6"],
    "linear-mdp": [],
    "contextual-cartpole": [],
    "point-noisy": [],
}
# Hyperparameters that make any agent small, by the names that all agents use for the same thing.
TINY: dict[str, Any] = {
    "batch_size": 16,
    "hidden_sizes": [16, 16],
    "hidden_size": 16,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "feedforward": 32,
    "train_size": 16,
    "learning_starts": 60,
    "buffer_size": 500,
    "model_hidden_sizes": [16],
    "termination": "never",
    "refit_every": 40,
    "rollout_batch": 50,
    "patience": 1,
    "updates_per_step": 1,
    "n_envs": 2,
    "n_steps": 32,
    "n_epochs": 2,
    "disc_hidden_sizes": [16],
    "trim": 0.02,
    "calibration_steps": 200,
    "n_contexts": 4,
    "budget": 2,
    "task_timesteps": 256,
    "episodes": 2,
    "select_every": 128,
    "select_episodes": 2,
    "learner_kwargs": "{n_steps: 16, batch_size: 64}",
    "centres": 20,
    "warmup": 3,
    "backups": 5,
    "capacity": 400,
}
SHORT = {"updates": 30, "steps": 300, "episodes": 8}  # total_timesteps
EVERY_SO_MANY = {"updates": 10, "steps": 20, "episodes": 1}  # eval_every


def overrides(name: str) -> list[str]:
    known = {field.name for field in fields(registry.agent_class(name).Config)}
    return [f"agent.{key}={value}" for key, value in TINY.items() if key in known]


@cache
def problem(name: str) -> str:
    """The first of :data:`PROBLEMS` that the agent takes."""
    refusals = []
    for env, kwargs in PROBLEMS.items():
        try:
            build(compose_config([f"agent={name}", f"env={env}", *kwargs, *overrides(name), "progress_bar=false"]))
        except UserError as error:
            refusals.append(str(error))
        else:
            return env
    raise AssertionError(f"{name} takes none of the small problems: {refusals}")


def settings_of(name: str) -> list[str]:
    unit, env = registry.agent_class(name).defaults.unit, problem(name)
    settings = [f"agent={name}", f"env={env}", *PROBLEMS[env], *overrides(name), f"total_timesteps={SHORT[unit]}"]
    settings += [f"eval_every={EVERY_SO_MANY[unit]}", "eval_episodes=3", "final_episodes=5", "log_every=10"]
    return [*settings, "progress_bar=false", "tensorboard=false"]


@pytest.fixture(autouse=True)
def _own_labels(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("RLKIT_LABELS_PATH", str(tmp_path_factory.getbasetemp() / "labels"))


def strict(text: str) -> Any:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", EVERY)
def test_says_how_it_is_run_and_judged(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    defaults = registry.agent_class(name).defaults
    assert defaults.unit in SHORT and defaults.judged in ("greedy", "sampled")
    settings = defaults.settings()
    assert 0 < settings["eval_every"] <= settings["total_timesteps"] / 5 and settings["final_episodes"] >= 50
    assert 0 < settings["log_every"] <= settings["total_timesteps"] / 10
    assert 0 < settings["checkpoint_every"] <= settings["total_timesteps"] / 4
    assert main(["train", f"agent={name}", f"env={problem(name)}", "--cfg"]) == 0
    printed = capsys.readouterr().out
    assert f"counts {defaults.unit}\n" in printed
    assert all(f"\n{key}: {value}\n" in printed for key, value in settings.items())
    assert main(["train", "--help", f"agent={name}"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"agent={name} ") and f"counts {defaults.unit}, is judged {defaults.judged};" in printed
    assert all(f"{key}={value}" in printed for key, value in settings.items())


@pytest.mark.parametrize("name", EVERY)
def test_a_short_run_counts_by_name_and_ends_twice_alike(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cls = registry.agent_class(name)
    assert main(["train", *settings_of(name), "out=r"]) == 0
    printed = capsys.readouterr().out
    result, metrics = strict(Path("r/result.json").read_text()), Path("r/metrics.jsonl").read_text()
    lines = [strict(line) for line in metrics.splitlines()]
    unit, config = cls.defaults.unit, result["config"]["agent"]
    assert result["unit"] == unit and result[unit] >= SHORT[unit] and result[f"{unit}_per_second"] > 0
    assert (unit == "updates") or result.get("updates") != result[unit]
    assert result["final"]["judged"] == cls.defaults.judged and f", {cls.defaults.judged}; one seed" in printed
    assert len(result["final"]["returns"]) == 5 and lines[-1]["final/return"] == np.mean(result["final"]["returns"])
    before = config.get("learning_starts", config.get("warmup", 1))
    assert result["evaluations"] and min(entry["step"] for entry in result["evaluations"]) >= before
    measured = [entry[result["measure"]] for entry in (*result["evaluations"], result["final"])]
    assert result["best"] == max(measured)
    model = Path("r/model.rlk").read_bytes()
    Path("r/result.json").unlink()  # as if killed in its final evaluation
    assert main(["resume", "r", "progress_bar=false"]) == 0
    again = strict(Path("r/result.json").read_text())
    for key in (unit, "final", "evaluations", "best", "last10"):
        assert again[key] == result[key], key
    assert Path("r/metrics.jsonl").read_text() == metrics and Path("r/model.rlk").read_bytes() == model


# A run that kills itself as it writes a line of its log that no checkpoint counts on.
KILLED = """
import os, pathlib, signal, sys, toy
from rlkit.algorithms import callbacks
from rlkit.cli import main
write, saved = callbacks.JsonlWriter.write, pathlib.Path("killed/checkpoints")
def last(self, key_values, key_excluded, step=0):
    write(self, key_values, key_excluded, step)
    found = callbacks.checkpoints(saved)
    if found and found[-1].name < f"step_{step:010d}.rlk":
        os.kill(os.getpid(), signal.SIGKILL)
callbacks.JsonlWriter.write = last
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", EVERY)
def test_killed_run_resumes_to_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [*settings_of(name), f"checkpoint_every={2 * EVERY_SO_MANY[registry.agent_class(name).defaults.unit]}"]
    assert main(["train", *settings, "out=whole"]) == 0
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, "-c", KILLED, "train", *settings, "out=killed"], env=environment)
    assert process.returncode == -signal.SIGKILL and not Path("killed/result.json").exists()
    capsys.readouterr()
    assert main(["resume", "killed", "progress_bar=false"]) == 0
    assert "resuming at step" in capsys.readouterr().out
    for file in ("metrics.jsonl", "model.rlk"):
        assert Path("whole", file).read_bytes() == Path("killed", file).read_bytes(), file
    last = [sorted(Path(run, "checkpoints").iterdir())[-1] for run in ("whole", "killed")]
    (_, model, training), (_, model2, training2) = map(read_artefact, last)
    assert training is not None and training2 is not None
    assert_same(model, model2)
    assert_same(training, training2)
    results = [strict(Path(run, "result.json").read_text()) for run in ("whole", "killed")]
    for key in ("final", "evaluations", "best", registry.agent_class(name).defaults.unit):
        assert results[0][key] == results[1][key], key


@pytest.mark.parametrize("name", EVERY)
def test_an_evaluation_depends_on_policy_and_index_alone(name: str) -> None:
    agent = build(compose_config(settings_of(name)))
    agent.learn(SHORT[agent.defaults.unit])
    evaluator = agent.evaluator(4, 0)
    assert evaluator is not None and evaluator.judged == agent.defaults.judged
    for judged in ("greedy", "sampled"):
        evaluator.judged = judged
        if judged == "sampled" and hasattr(evaluator, "search"):
            with pytest.raises(UserError, match="judged=sampled"):
                evaluator(agent)
            continue
        before, outside = all_tensors(agent), torch.get_rng_state()
        values = agent.state_values()
        first = evaluator(agent, index=3)
        torch.manual_seed(1)
        evaluator(agent, index=4)
        assert np.array_equal(first.returns, evaluator(agent, index=3).returns)
        torch.set_rng_state(outside)
        assert_same(before, all_tensors(agent))
        assert agent.state_values() == values
    evaluator.close()


@pytest.mark.parametrize("name", EVERY)
def test_a_loaded_agent_is_judged_as_the_saved_one(name: str, tmp_path: Path) -> None:
    agent = build(compose_config(settings_of(name)))
    agent.learn(SHORT[agent.defaults.unit])
    agent.save(tmp_path / "a.rlk")
    loaded = Persistent.load(tmp_path / "a.rlk", device="cpu")
    record = registry.record(problem(name))
    kwargs = {"num_nodes": 6} if record.task == "tsp" else dict(record.env_kwargs)
    first, second = (one.evaluator(3, 1, replace(record, env_kwargs=kwargs)) for one in (agent, loaded))
    assert first is not None and second is not None
    assert np.array_equal(first(agent).returns, second(loaded).returns)
