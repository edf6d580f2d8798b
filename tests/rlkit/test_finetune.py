"""From data to acting and from data to other data: what is mixed, what is remembered, exact resume, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import toy

import rlkit
from rlkit.agents import BC, IQL, TD3BC
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.algorithms.evaluate import Evaluator
from rlkit.algorithms.finetune import Acting, FineTuneSettings, begin, fine_tuning
from rlkit.cli import main
from rlkit.errors import ArtefactError, UserError
from rlkit.registry import EnvRecord

DATA = toy.generate(size=400)
RECORD = EnvRecord(toy.ENV_ID, toy.ENV_ID, toy.ENV_ID, "toy", "point")
SMALL: dict[str, Any] = {"batch_size": 16, "hidden_sizes": (8,), "seed": 0, "device": "cpu"}
SHORT = ["progress_bar=false", "tensorboard=false", "log_every=10", "eval_every=20", "eval_episodes=2"]
SHORT += ["final_episodes=2", "checkpoint_every=20"]
NETS = ["agent.batch_size=16", "agent.hidden_sizes=[8]"]
FINE = ["env=hopper", "total_timesteps=60", "finetune.learning_starts=8", "finetune.decay_steps=50", *SHORT]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def learnt(kind: Any = TD3BC, data: Any = DATA, **options: Any) -> Path:
    """The artefact of a short training."""
    path = Path(f"{kind.name}.rlk")
    kind("MlpPolicy", data, **{**SMALL, **options}).learn(20).save(path)
    return path


def acting(path: Path, kind: Any = TD3BC, settings: dict[str, Any] | None = None, **options: Any) -> Any:
    source = Acting(DATA, RECORD, FineTuneSettings(**(settings or {"learning_starts": 5})))
    return begin(fine_tuning(kind), path, source, seed=0, device="cpu", **options)


def the_same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# ---- in Python -------------------------------------------------------------------------------------------------------


def test_transitions_are_remembered_as_the_update_takes_them() -> None:
    agent = acting(learnt(reward_scale=2.0, reward_shift=0.5), settings={"learning_starts": 100})
    agent.learn(45, log_interval=None)
    rows = agent.acted.take(torch.arange(45))
    mean, std = agent.policy.obs_mean, agent.policy.obs_std
    seen, following = rows.observations * std + mean, rows.next_observations * std + mean
    moved = seen[:, :2] + 0.2 * rows.actions
    torch.testing.assert_close(moved, following[:, :2], atol=1e-4, rtol=0)  # its own successor, not the next episode's
    far = (following[:, :2] - 1).norm(dim=1)
    torch.testing.assert_close(rows.rewards[:, 0], 2 * -far + 0.5, atol=1e-4, rtol=0)
    over = following[:, :2].abs().max(1).values > 1.1
    assert torch.equal(rows.not_terminal[:, 0] == 0, over)  # a time limit bootstraps
    ends = torch.nonzero((seen[1:, :2] - following[:-1, :2]).abs().max(1).values > 1e-3)
    assert len(ends) == agent.episodes > 0 and agent._n_updates == 0


def test_batches_are_of_both_and_the_share_of_data_falls() -> None:
    settings = {"learning_starts": 5, "offline_ratio": 0.75, "offline_ratio_end": 0.25, "decay_steps": 40}
    agent = acting(learnt(), settings=settings)
    assert agent.offline_ratio == 0.75
    agent.learn(20, log_interval=None)
    assert agent.offline_ratio == 0.5 and agent._n_updates == 16
    agent.acted.rows[:, -4] = 7.0  # of not_terminal, which data has as 0 or 1
    assert (agent.draw().not_terminal == 7).sum() == 8
    agent.learn(40, log_interval=None, reset_num_timesteps=False)
    agent.acted.rows[:, -4] = 7.0
    assert agent.offline_ratio == 0.25 and (agent.draw().not_terminal == 7).sum() == 12
    agent.fine.offline_ratio_end = 0.0
    assert (agent.draw().not_terminal == 7).all()
    agent.fine.offline_ratio_end = 1.0
    assert (agent.draw().not_terminal != 7).all()


@pytest.mark.parametrize("kind", [TD3BC, IQL])
def test_updates_after_each_step_change_policy_and_critics(kind: Any) -> None:
    path = learnt(kind)
    agent = acting(path, kind, {"learning_starts": 5, "updates_per_step": 2})
    first = {key: value.clone() for key, value in agent.model_tensors().items()}
    assert the_same(first, read_artefact(path)[1])
    agent.learn(10, log_interval=None)
    moved = {key for key, value in agent.model_tensors().items() if not torch.equal(value, first[key])}
    assert agent._n_updates == 12 and {"critic", "policy"} <= {key.split(".")[0] for key in moved}
    assert "policy.obs_mean" not in moved
    agent.save("after.rlk")
    again = rlkit.load("after.rlk")
    assert type(again) is kind and again.environment is not None and again.environment.env_id == toy.ENV_ID


@pytest.mark.parametrize("kind", [TD3BC, IQL])
def test_acting_makes_it_better(kind: Any) -> None:
    path = learnt(kind, batch_size=64, hidden_sizes=(32,))
    settings = {"learning_starts": 100, "decay_steps": 1000, "exploration_noise": 0.3}
    agent = acting(path, kind, settings, learning_rate=1e-3)
    world = Evaluator(toy.ENV_ID, episodes=50, seed=0)
    before = world(agent, 0).returns.mean()
    agent.learn(1500, log_interval=None)
    assert world(agent, 0).returns.mean() > 0.75 * before  # of losses


def test_exploration_is_the_policys_own_samples_or_noise() -> None:
    states = DATA.observations[:1]
    still = acting(learnt(), settings={"exploration_noise": 0.0})
    torch.testing.assert_close(still.explore(states), torch.from_numpy(still.predict(states)[0]))
    noisy = acting(learnt(), settings={"exploration_noise": 0.5})
    assert float(torch.cat([noisy.explore(states) for _ in range(50)]).std(0).mean()) > 0.2
    sampled = acting(learnt(IQL), IQL, {"exploration_noise": 0.0})
    assert float(torch.cat([sampled.explore(states) for _ in range(50)]).std(0).mean()) > 0.2


def test_a_warm_start_keeps_networks_and_their_statistics_on_other_data() -> None:
    path = learnt()
    other = DATA.with_(observations=DATA.observations * 3, next_observations=DATA.next_observations * 3)
    for agent in (begin(TD3BC, path, other, seed=1, device="cpu", alpha=5.0), rlkit.load(path, other, alpha=5.0)):
        assert isinstance(agent, TD3BC) and agent.config.alpha == 5.0 and agent.config.hidden_sizes == (8,)
        assert the_same(agent.model_tensors(), read_artefact(path)[1]) and agent.replay is not None
        states = agent.replay.take(torch.arange(5)).observations
        torch.testing.assert_close(states, agent.policy.normalise(torch.from_numpy(other.observations[:5])))
        agent.learn(3)


def test_loading_with_other_hyperparameters() -> None:
    path = learnt()
    agent = rlkit.load(path, DATA, learning_rate=1e-2, batch_size=8)
    assert isinstance(agent, TD3BC) and agent.config.learning_rate == 1e-2 and agent.config.batch_size == 8
    assert agent.actor_optimiser.learning_rate == 1e-2 and agent.config.hidden_sizes == (8,)
    assert rlkit.load(path, lr=1e-2).config.learning_rate == 1e-2
    with pytest.raises(ArtefactError, match="do not fit td3bc"):
        rlkit.load(path, hidden_sizes=(4,))
    with pytest.raises(UserError, match="unknown hyperparameter 'alhpa'"):
        rlkit.load(path, alhpa=1.0)
    with pytest.raises(UserError, match=r"agent.learning_rate=-1.0 is out of range"):
        rlkit.load(path, learning_rate=-1.0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"offline_ratio": 1.5}, r"finetune.offline_ratio=1.5 is out of range"),
        ({"decay_steps": 0}, r"finetune.decay_steps=0 is out of range"),
        ({"exploration_noise": -0.1}, r"finetune.exploration_noise=-0.1 is out of range"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        acting(learnt(), settings=settings)


def test_other_agents_and_other_spaces_are_refused() -> None:
    with pytest.raises(UserError, match="agent=bc does not learn on by acting"):
        fine_tuning(BC)
    with pytest.raises(UserError, match=r"init=iql.rlk is of agent 'iql', expected td3bc"):
        acting(learnt(IQL))
    with pytest.raises(UserError, match="expected networks of the shapes asked for"):
        acting(learnt(), hidden_sizes=(4,))
    wide = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    more = {key: np.pad(getattr(DATA, key), ((0, 0), (0, 1))) for key in ("observations", "next_observations")}
    with pytest.raises(UserError, match=r"observations of shape \[3\], .* has \[4\]"):
        begin(TD3BC, learnt(), DATA.with_(**more, observation_space=wide), device="cpu")
    pendulum = EnvRecord("Pendulum-v1", "", "Pendulum-v1", "", "")
    with pytest.raises(UserError, match="env=Pendulum-v1 has Box"):
        begin(fine_tuning(TD3BC), learnt(), Acting(DATA, pendulum, FineTuneSettings()), device="cpu")


# ---- from the command line -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs of td3bc and iql on a few rows of hopper."""
    folder = tmp_path_factory.mktemp("offline")
    for agent in ("td3bc", "iql"):
        data = ["env=hopper-medium", "env.size=3000", "env.source=generated", "total_timesteps=20"]
        assert main(["train", f"agent={agent}", *data, *SHORT, *NETS, f"out={folder / agent}"]) == 0
    return folder


@pytest.mark.parametrize("agent", ["td3bc", "iql"])
def test_a_run_goes_on_by_acting_and_resumes_to_the_byte(agent: str, offline: Path, capsys: Any) -> None:
    run = Path("first")
    shutil.copytree(offline / agent, run)
    assert main(["train", f"agent={agent}", f"init={run}", *FINE, "out=whole"]) == 0
    whole = Path("whole")
    result = json.loads((whole / "result.json").read_text())
    assert (result["unit"], result["steps"], result["updates"]) == ("steps", 60, 53)
    assert result["config"]["agent"]["hidden_sizes"] == [8] and "score" in result["final"]
    assert result["dataset"]["sha256"] == json.loads((run / "result.json").read_text())["dataset"]["sha256"]
    assert the_same(read_artefact(whole / "init.rlk")[1], read_artefact(run / "model.rlk")[1])
    shutil.rmtree(run)  # what it began with is in its own folder
    shutil.copytree(whole, "cut")
    for name in ("model.rlk", "result.json", "checkpoints/step_0000000060.rlk"):
        Path("cut", name).unlink()
    with Path("cut/metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "tr')
    assert main(["resume", "cut", "progress_bar=false"]) == 0
    for name in ("metrics.jsonl", "model.rlk"):
        assert Path("cut", name).read_bytes() == (whole / name).read_bytes(), name
    assert main(["compare", "cut", "whole"]) == 0 and "2 runs on hopper" in capsys.readouterr().out
    assert main(["eval", "whole", "episodes=2"]) == 0


def test_a_fine_tuned_run_is_the_first_of_another(offline: Path) -> None:
    assert main(["train", "agent=td3bc", f"init={offline / 'td3bc'}", *FINE, "out=one"]) == 0
    Path("one/model.rlk").unlink()  # its newest checkpoint, then
    assert main(["train", "agent=td3bc", "init=one", *FINE, "out=two", "agent.learning_rate=0.01"]) == 0
    config = json.loads(Path("two/result.json").read_text())["config"]
    assert config["agent"]["learning_rate"] == 0.01 and config["finetune"]["data"]["size"] == 3000


def test_a_warm_start_on_other_data_resumes_to_the_byte(offline: Path) -> None:
    data = ["env=hopper-medium", "env.size=2000", "env.data_seed=1", "total_timesteps=40"]
    assert main(["train", "agent=td3bc", f"init={offline / 'td3bc'}", *data, *SHORT, "out=warm"]) == 0
    shutil.copytree("warm", "cut")
    for name in ("model.rlk", "result.json", "checkpoints/step_0000000040.rlk"):
        Path("cut", name).unlink()
    assert main(["resume", "cut", "progress_bar=false"]) == 0
    for name in ("metrics.jsonl", "model.rlk"):
        assert Path("cut", name).read_bytes() == Path("warm", name).read_bytes(), name
    mean = "policy.obs_mean"
    assert torch.equal(read_artefact("warm/model.rlk")[1][mean], read_artefact(offline / "td3bc/model.rlk")[1][mean])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["init=nowhere"], "nowhere"),
        (["env=halfcheetah"], "env=halfcheetah has"),
        (["env=halfcheetah-medium", "env.size=1000"], "was learnt from observations of shape [11]"),
        (["agent=iql"], "is of agent 'td3bc', expected iql"),
        (["agent=prdc"], "agent=prdc does not learn on by acting, expected td3bc or iql"),
        (["agent.hidden_sizes=[4]"], "expected networks of the shapes asked for"),
        (["agent=beer"], "agent=beer cannot begin with networks of a file"),
        (["finetune.offline_ratio=2"], "finetune.offline_ratio=2.0 is out of range"),
        (["finetune.offline_rato=1"], "did you mean 'finetune.offline_ratio'"),
        (["finetune.data=nothing-medium"], "nothing-medium"),
        (["engine=stacked"], "engine=stacked begins with networks drawn by the seed"),
    ],
)
def test_what_is_refused(changes: list[str], expected: str, offline: Path, capsys: Any) -> None:
    settings = {"agent": "agent=td3bc", "init": f"init={offline / 'td3bc'}", "env": "env=hopper"}
    settings |= {change.split("=")[0]: change for change in changes}
    assert main(["train", *settings.values(), *SHORT, "out=never"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("rlkit: ") and text.count("\n") == 1 and expected in text, text
    assert not Path("never").exists()


def test_first_weights_have_one_name_on_the_command_line(offline: Path, capsys: Any) -> None:
    assert main(["train", "agent=bq", "env=tsp", "agent.init=w.rlk"]) == 2
    assert "type init=w.rlk" in capsys.readouterr().err
    shutil.copy(offline / "td3bc/model.rlk", "alone.rlk")
    assert main(["train", "agent=td3bc", "init=alone.rlk", *FINE]) == 2
    assert "expected finetune.data=NAME too" in capsys.readouterr().err
