"""MBTL's trainer: rows as measured, exact resume in and between processes, serving by context, learners by name."""

from __future__ import annotations

import json
import multiprocessing
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
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

import rlkit.envs.records.contextual  # registers the ids
from rlkit.agents.mbtl import mbtl
from rlkit.agents.mbtl import train as mbtl_train
from rlkit.agents.mbtl.mbtl import MBTL
from rlkit.agents.mbtl.select import TaskSelector
from rlkit.agents.mbtl.train import ask_many, measure, policy_of, train_source, train_sources
from rlkit.agents.mbtl.worlds import BatchVecEnv, context_rows, grid, nearest_points
from rlkit.algorithms.base import Persistent
from rlkit.algorithms.callbacks import StopOnSignal
from rlkit.cli import main
from rlkit.envs.contextual.cartpole import ContextualCartPoleEnv, ContextualCartPoleVectorEnv
from rlkit.errors import ArtefactError, UserError
from rlkit.vector import play_episodes

TINY: dict[str, Any] = {
    "n_contexts": 4,
    "budget": 3,
    "task_timesteps": 512,
    "episodes": 2,
    "select_every": 256,
    "select_episodes": 2,
    "learner_kwargs": {"n_steps": 16, "batch_size": 64, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}},
}


def make(**settings: Any) -> MBTL:
    return MBTL("contextual-cartpole", **{"seed": 1, **TINY, **settings})


def tensors(agent: MBTL) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in {**agent.model_tensors(), **agent.training_tensors()}.items()}


@pytest.fixture(scope="module")
def trained() -> MBTL:
    return make().learn()


# ---- training --------------------------------------------------------------------------------------------------------


def test_the_whole_way_on_a_tiny_problem(trained: MBTL) -> None:
    assert len(set(trained.sources)) == 3 and trained.num_timesteps == 3 * 512
    assert trained.returns.shape == (3, 4) and (trained.returns >= 1).all() and (trained.returns <= 500).all()
    np.testing.assert_allclose(trained.contexts[:, 0], np.linspace(0.05, 5.0, 4))
    for k, source in enumerate(trained.sources):  # a row is what measuring the policy that was kept gives
        found = measure(trained.policies[k], trained.task(source))
        np.testing.assert_array_equal(found.mean(axis=1), trained.returns[k])
        np.testing.assert_array_equal(found.std(axis=1), trained.deviations[k])
    replayed = TaskSelector(trained.contexts[:, 0], budget=3, bounds=(0.0, 500.0), theta=0.005 * 99 / 3, seed=1)
    for source, row in zip(trained.sources, trained.returns, strict=True):
        assert replayed.ask() == source
        replayed.tell(source, row)
    found = trained.result()["transfer"]
    assert found["served"][-1] == pytest.approx(trained.returns.max(axis=0).mean() / 500)
    assert np.diff(found["served"]).min() >= 0
    assert trained.learn() is trained and len(trained.sources) == 3  # the budget is spent


def test_same_seed_same_bytes_and_global_generators_stay(trained: MBTL) -> None:
    torch.manual_seed(5)
    np.random.seed(6)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    threads = torch.get_num_threads()
    assert tensors(make().learn()) == tensors(trained)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    assert torch.get_num_threads() == threads
    other = make(seed=2, budget=1).learn()
    assert not np.array_equal(other.returns[0], trained.returns[0])


def test_a_restored_checkpoint_goes_on_byte_for_byte(trained: MBTL, tmp_path: Path) -> None:
    part = make().learn(513)  # whole tasks: two
    assert part.num_timesteps == 1024 and len(part.sources) == 2
    part.save_checkpoint(tmp_path / "c.rlk", {"note": 3})
    fresh = make()
    assert fresh.restore(tmp_path / "c.rlk") == {"note": 3}
    np.testing.assert_array_equal(fresh.returns, part.returns)
    fresh.learn(reset_num_timesteps=False)
    assert fresh.num_timesteps == 3 * 512 and tensors(fresh) == tensors(trained)
    with pytest.raises(ArtefactError, match="another agent or configuration"):
        make(budget=2).restore(tmp_path / "c.rlk")
    elsewhere = MBTL(rlkit.envs.records.contextual.RECORDS["contextual-pendulum"], seed=1)
    with pytest.raises(ArtefactError, match="another agent or configuration"):
        elsewhere.restore(tmp_path / "c.rlk")


def test_a_process_gives_the_same_bytes() -> None:
    task = make().task(3)
    here, there = train_source(task), train_sources([task], processes=2)
    assert here is not None and there is not None and len(there) == 1
    np.testing.assert_array_equal(here.returns, there[0].returns)
    assert {k: v.tobytes() for k, v in here.tensors.items()} == {k: v.tobytes() for k, v in there[0].tensors.items()}


def _refuses(task: Any, pipe: Any) -> None:
    pipe.send(UserError(f"source {task.source} cannot be trained"))


def _dies(task: Any, pipe: Any) -> None:
    os._exit(3)


def _answers(task: Any, pipe: Any) -> None:
    pipe.send(mbtl_train.Trained({}, np.full((4, 2), float(task.source)), 1))


def _sleeps(task: Any, pipe: Any) -> None:
    time.sleep(60)


def test_processes_are_awaited_stopped_and_their_failures_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mbtl_train, "spawning", lambda: multiprocessing.get_context("fork"))  # starts quickly
    tasks = [make().task(source) for source in (2, 0, 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; these children do nothing
        monkeypatch.setattr(mbtl_train, "_worker", _answers)
        found = train_sources(tasks, processes=2)
        assert found is not None and [one.returns[0, 0] for one in found] == [2.0, 0.0, 3.0]
        monkeypatch.setattr(mbtl_train, "_worker", _refuses)
        with pytest.raises(UserError, match="source 2 cannot be trained"):
            train_sources(tasks[:1], processes=2)
        monkeypatch.setattr(mbtl_train, "_worker", _dies)
        with pytest.raises(UserError, match="the process that trained source 2 ended with exit code 3"):
            train_sources(tasks[:1], processes=2)
        monkeypatch.setattr(mbtl_train, "_worker", _sleeps)
        begun = time.monotonic()
        assert train_sources(tasks, processes=2, alive=lambda steps: False) is None
        assert time.monotonic() - begun < 50


def test_several_sources_at_once_are_those_of_the_liar() -> None:
    agent = make(batch=2, budget=2)
    asked = ask_many(agent.selector, agent.config.batch)
    agent.learn()
    assert agent.sources == asked and agent.num_timesteps == 1024
    apart = train_source(agent.task(asked[1]))
    assert apart is not None
    np.testing.assert_array_equal(agent.returns[1], apart.returns.mean(axis=1))


def test_a_signal_stops_in_the_middle_of_a_task_and_nothing_of_it_is_kept(trained: MBTL) -> None:
    class Interrupt(BaseCallback):
        def _on_step(self) -> bool:
            if len(agent.sources) == 2:
                stopper.stop(signal.SIGINT)
                stopper.waiting = True  # only the task itself looks at the signal
            return True

    agent, stopper = make(), StopOnSignal()
    agent.learn(callback=[Interrupt(), stopper])
    assert len(agent.sources) == 2 and agent.num_timesteps == 1024 and agent._n_updates == 2
    agent.learn(reset_num_timesteps=False)
    assert tensors(agent) == tensors(trained)


def test_of_several_trials_the_one_with_the_best_row_is_kept() -> None:
    agent = make(trials=2, budget=1).learn()
    source = agent.sources[0]
    rows = [found.returns.mean(axis=1) for trial in (0, 1) if (found := train_source(agent.task(source, trial)))]
    assert not np.array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(agent.returns[0], max(rows, key=np.mean))
    assert agent.num_timesteps == 1024


def test_the_policy_that_did_best_on_the_way_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, dict[str, torch.Tensor]]] = []
    consider = mbtl_train.Watch.consider

    def spy(watch: Any) -> None:
        consider(watch)
        now = {key: value.clone() for key, value in watch.model.model_tensors().items()}
        mean = play_episodes(lambda o: watch.model.predict(o, deterministic=True)[0], watch.envs, watch.seeds)[0].mean()
        seen.append((float(mean), now))

    monkeypatch.setattr(mbtl_train.Watch, "consider", spy)
    found = train_source(make(task_timesteps=1024).task(2))
    assert found is not None and found.steps == 1024
    best = max(mean for mean, _ in seen)
    kept = [now for mean, now in seen if mean == best][-1]
    assert len(seen) >= 4
    for key, value in kept.items():
        np.testing.assert_array_equal(value.numpy(), found.tensors[key])
    seen.clear()
    last = train_source(make(select_every=0).task(2))
    assert last is not None and not seen


# ---- choosing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["mbtl", "random", "equidistant", "greedy"])
def test_several_are_asked_at_once_without_telling(strategy: str) -> None:
    selector = TaskSelector(np.arange(20.0), strategy=strategy, budget=5, bounds=(-3.0, 7.0), theta=0.02)
    asked = ask_many(selector, 3)
    assert len(set(asked)) == 3 and asked[0] == selector.ask() and not selector.sources
    for source in asked:
        selector.tell(source, 7 - np.abs(np.arange(20) - source) / 2)
    assert len(ask_many(selector, 9)) == 2  # no more than the budget has
    assert selector.sources == asked


def test_strategies_by_name_choose_as_the_selector_does() -> None:
    for strategy in ("random", "equidistant", "greedy"):
        agent = make(strategy=strategy, n_contexts=9)
        selector = TaskSelector(np.linspace(0.05, 5, 9), strategy=strategy, budget=3, seed=1)
        assert ask_many(agent.selector, agent.config.batch) == [selector.ask()]


def test_several_features_make_a_grid() -> None:
    agent = MBTL("contextual-cartpole", **{**TINY, "n_contexts": 2, "budget": 1, "features": ["length", "masspole"]})
    np.testing.assert_allclose(agent.contexts, [[0.05, 0.01], [0.05, 1.0], [5.0, 0.01], [5.0, 1.0]])
    agent.learn()
    assert agent.returns.shape == (1, 4)
    action, _ = agent.predict(np.zeros(4, np.float32), context={"length": 5.0, "masspole": 0.2})
    assert action in (0, 1)


# ---- serving ---------------------------------------------------------------------------------------------------------


def test_predict_acts_by_the_best_measured_source_of_the_nearest_context(trained: MBTL) -> None:
    generator = np.random.default_rng(0)
    observations = generator.normal(0, 0.5, (40, 4)).astype(np.float32)
    lengths = generator.uniform(0.05, 5.0, 40)
    actions, state = trained.predict(observations, deterministic=True, context=lengths)
    assert actions.shape == (40,) and state is None
    serving = trained.returns.argmax(axis=0)
    for i in range(40):
        target = int(np.abs(trained.contexts[:, 0] - lengths[i]).argmin())
        expected, _ = trained.policies[serving[target]].predict(observations[i], deterministic=True)
        assert actions[i] == expected
        one, _ = trained.predict(observations[i], deterministic=True, context={"length": lengths[i]})
        assert one == expected
    by_name, _ = trained.predict(observations, deterministic=True, context={"length": lengths})
    np.testing.assert_array_equal(by_name, actions)
    same, _ = trained.predict(observations, deterministic=True, context={"length": 0.5})
    own, _ = trained.predict(observations, deterministic=True)  # the environment's own length is 0.5
    np.testing.assert_array_equal(same, own)


def test_predict_follows_the_rows(trained: MBTL, tmp_path: Path) -> None:
    trained.save(tmp_path / "a.rlk")
    agent = MBTL.load(tmp_path / "a.rlk")
    for winner in range(3):
        agent.measured = [np.full(4, 5.0 + (k == winner)) for k in range(3)]
        observations = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
        expected, _ = agent.policies[winner].predict(observations, deterministic=True)
        np.testing.assert_array_equal(agent.predict(observations, deterministic=True)[0], expected)
    agent.measured = [np.full(4, 5.0)] * 3
    assert (agent.assigned == 0).all()  # ties to the first


def test_a_saved_trainer_serves_identically_and_holds_no_pickle(
    trained: MBTL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.rlk"
    trained.save(path)
    loaded = Persistent.load(path)
    assert isinstance(loaded, MBTL)
    observations = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
    lengths = np.linspace(0.05, 5, 50)
    for one, other in ((trained, loaded), (trained, MBTL.load(path, "contextual-cartpole"))):
        left = one.predict(observations, deterministic=True, context=lengths)[0]
        np.testing.assert_array_equal(left, other.predict(observations, deterministic=True, context=lengths)[0])
    loaded.save(tmp_path / "b.rlk")
    assert (tmp_path / "b.rlk").stat().st_size > 0
    with pytest.raises(UserError, match="was loaded without an environment"):
        loaded.learn()
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with pytest.raises(ValueError):
                list(pickletools.genops(archive.read(member)))
    with pytest.raises(UserError, match="unknown context feature 'length'"):
        MBTL.load(path, "contextual-pendulum")
    monkeypatch.setattr(mbtl, "grid", lambda *arguments: trained.contexts + 1)
    with pytest.raises(ArtefactError, match="contexts are not those of contextual-cartpole"):
        MBTL.load(path, "contextual-cartpole")


def test_a_trainer_that_was_loaded_with_its_environment_trains_on(trained: MBTL, tmp_path: Path) -> None:
    make().learn(1024).save(tmp_path / "a.rlk")
    agent = MBTL.load(tmp_path / "a.rlk", "contextual-cartpole").learn()
    np.testing.assert_array_equal(agent.returns, trained.returns)


def test_evaluation_spreads_over_the_contexts(trained: MBTL) -> None:
    class Stub:
        asked: Any = None

        def predict(self, observation: Any, deterministic: bool, context: Any) -> Any:
            self.asked = context
            return np.zeros(len(observation), np.int64), None

    evaluator = trained.evaluator(8, 3)
    assert evaluator is not None
    stub: Any = Stub()
    found = evaluator(stub, index=2)
    np.testing.assert_array_equal(stub.asked, trained.contexts[[0, 0, 1, 1, 2, 2, 3, 3]])
    assert found.scores is not None
    np.testing.assert_allclose(found.scores, found.returns / 5)
    np.testing.assert_array_equal(found.returns, found.lengths)
    np.testing.assert_array_equal(evaluator(stub, index=2).returns, found.returns)
    evaluator.episodes = 2
    evaluator(stub)
    np.testing.assert_array_equal(stub.asked, trained.contexts[[0, 2]])


def test_nearest_points_by_hand() -> None:
    contexts = np.array([[0.0, 0.0], [0.0, 10.0], [1.0, 0.0], [1.0, 10.0]])
    assert nearest_points([0.6, 4.0], ("a", "b"), contexts, 1).tolist() == [2]  # each feature by its range
    assert nearest_points({"a": [0.1, 0.9], "b": 9.0}, ("a", "b"), contexts, 2).tolist() == [1, 3]
    assert nearest_points([[0, 0], [1, 9]], ("a", "b"), contexts, 2).tolist() == [0, 3]
    assert nearest_points([0.2, 0.8, 9.0], ("a",), contexts[[0, 2], :1], 3).tolist() == [0, 1, 1]


# ---- learners --------------------------------------------------------------------------------------------------------

SMALL = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 20, "buffer_size": 300, "batch_size": 8}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a2c": ("contextual-cartpole", {"policy_kwargs": {"net_arch": [8]}}),
    "dqn": ("contextual-cartpole", SMALL),
    "sac": ("contextual-pendulum", {**SMALL, "train_freq": 8}),
    "td3": ("contextual-pendulum", {**SMALL, "train_freq": 8}),
    "beer": (
        "contextual-pendulum",
        {"hidden_sizes": [8, 8], "learning_starts": 20, "buffer_size": 300, "batch_size": 8},
    ),
}


@pytest.mark.parametrize("learner", CASES)
def test_learners_by_name(learner: str, tmp_path: Path) -> None:
    env, options = CASES[learner]
    settings = {**TINY, "budget": 1, "task_timesteps": 60, "select_every": 40, "n_contexts": 2, "episodes": 1}
    agent = MBTL(env, learner, **{**settings, "learner_kwargs": options}).learn()
    agent.save(tmp_path / "a.rlk")
    loaded = MBTL.load(tmp_path / "a.rlk")
    observations = np.random.default_rng(0).normal(size=(20, *agent.observation_space.shape)).astype(np.float32)
    left, right = (one.predict(observations, deterministic=True)[0] for one in (agent, loaded))
    np.testing.assert_array_equal(left, right)
    assert agent.action_space.contains(left[0])


def test_an_edited_model_without_a_batch_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = gym.spec("rlkit/ContextualHalfCheetah-v0")
    monkeypatch.setattr(short, "max_episode_steps", 20)
    agent = MBTL(
        "contextual-halfcheetah", **{**TINY, "budget": 1, "n_contexts": 3, "task_timesteps": 128, "features": "gravity"}
    ).learn()
    np.testing.assert_allclose(agent.contexts[:, 0], [0.981, 49.5405, 98.1])
    assert len(set(agent.returns[0])) == 3  # gravity matters


def test_a_learner_may_be_a_class() -> None:
    assert make(learner=PPO).config == make(learner="PPO").config == make().config


def test_sb3_steps_the_batch_as_it_steps_single_environments() -> None:
    values = [0.05, 0.5, 5.0]
    ours = BatchVecEnv(ContextualCartPoleVectorEnv(3, max_episode_steps=30, context={"length": values}))
    theirs = DummyVecEnv([lambda v=v: gym.wrappers.TimeLimit(ContextualCartPoleEnv({"length": v}), 30) for v in values])
    ours.seed(4)
    theirs.seed(4)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    generator, ended, cut = np.random.default_rng(0), 0, 0
    for _ in range(120):
        actions = generator.integers(0, 2, 3)
        left, right = ours.step(actions), theirs.step(actions)
        for a, b in zip(left[:3], right[:3], strict=True):
            np.testing.assert_array_equal(a, b)
        for i in np.flatnonzero(left[2]):
            one, other = left[3][i], right[3][i]
            np.testing.assert_array_equal(one["terminal_observation"], other["terminal_observation"])
            assert one["TimeLimit.truncated"] == other["TimeLimit.truncated"]
            assert one["episode"]["r"] == one["episode"]["l"]
            ended, cut = ended + 1, cut + one["TimeLimit.truncated"]
    assert ended > cut > 0
    assert ours.get_attr("num_envs", [0, 2]) == [3, 3] and ours.env_is_wrapped(gym.Wrapper) == [False] * 3
    ours.close()


def test_rows_keep_the_context_that_is_fixed() -> None:
    kwargs = {"context": {"masscart": 2.0}, "physics": "correct", "context_obs": "append"}
    envs = context_rows("rlkit/ContextualCartPole-v0", kwargs, ("length",), np.array([[0.1], [4.0]]))
    seen, _ = envs.reset(seed=0)
    np.testing.assert_allclose(seen[:, 4:], [[0.1, 2.0, 0.1], [4.0, 2.0, 0.1]], rtol=1e-6)


# ---- the command line ------------------------------------------------------------------------------------------------

COMMAND = ["agent=mbtl", "env=contextual-cartpole", "agent.n_contexts=4", "agent.budget=3", "agent.episodes=2"]
COMMAND += ["agent.task_timesteps=512", "agent.select_every=256", "agent.learner_kwargs={n_steps: 16, batch_size: 64}"]
COMMAND += ["checkpoint_every=512", "eval_every=512", "eval_episodes=4", "final_episodes=8", "progress_bar=false"]


def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *COMMAND, "out=whole"]) == 0
    script = "import sys; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", script, "train", *COMMAND, "out=killed"], env=environment)
    deadline = time.monotonic() + 120
    while not list(Path("killed/checkpoints").glob("step_*.rlk")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not Path("killed/result.json").exists(), "the run ended before it could be killed"
    assert main(["resume", "killed"]) == 0
    assert "resuming at step" in capsys.readouterr().out
    for file in ("metrics.jsonl", "model.rlk"):
        assert (Path("whole") / file).read_bytes() == (Path("killed") / file).read_bytes(), file
    results = [json.loads((Path(run) / "result.json").read_text()) for run in ("whole", "killed")]
    for key in ("final", "evaluations", "transfer", "steps", "sources"):
        assert results[0][key] == results[1][key], key
    assert results[0]["steps"] == 3 * 512 and len(results[0]["transfer"]["sources"]) == 3
    assert main(["eval", "killed", "episodes=3"]) == 0
    assert "normalised score" in capsys.readouterr().out


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"learner": "pppo"}, "agent.learner=pppo is unknown; did you mean 'ppo'"),
        ({"learner": "td3bc"}, "agent.learner=td3bc does not learn online"),
        ({"learner": dict}, "expected a class of SB3"),
        ({"strategy": "mbtI"}, "strategy=mbtI is unknown, expected one of .*; did you mean 'mbtl'"),
        ({"features": "lenght"}, "unknown context feature 'lenght'; did you mean 'length'"),
        ({"n_contexts": 1}, "agent.n_contexts=1 is out of range, expected at least 2 contexts"),
        ({"budget": 5}, "budget=5 is out of range, expected from 1 to the 4 contexts"),
        ({"jobs": 0}, "agent.jobs=0 is out of range"),
        ({"high_scale": 0.05}, "agent.high_scale=0.05 is out of range, expected a number above low_scale=0.1"),
        ({"return_high": -1.0}, "expected the lower one below the upper one"),
        ({"return_low": "none"}, "agent.return_low=.none. is not a number"),
        ({"learner_kwargs": "[1, 2]"}, "agent.learner_kwargs=.* is out of range, expected options by name"),
        ({"task_timestep": 3}, "did you mean 'task_timesteps'"),
        ({"seed": -1}, "seed=-1 is out of range"),
    ],
)
def test_bad_arguments_get_a_sentence(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        make(**arguments)


def test_bad_environments_and_contexts_get_a_sentence(trained: MBTL) -> None:
    with pytest.raises(UserError, match="needs an environment with a context, such as contextual-cartpole, got tomato"):
        MBTL("tomato")
    with pytest.raises(UserError, match="expected an environment's name"):
        MBTL(ContextualCartPoleEnv())
    with pytest.raises(UserError, match=r"agent.return_low and agent.return_high are needed in rlkit/Contextual"):
        MBTL("rlkit/ContextualCartPole-v0")
    observation = np.zeros(4, np.float32)
    with pytest.raises(UserError, match="expected a value for each of length, and no other"):
        trained.predict(observation, context={"masscart": 1.0})
    with pytest.raises(UserError, match=r"context of shape \(3,\): expected finite \(1,\) or \(1, 1\)"):
        trained.predict(observation, context=[1.0, 2.0, 3.0])
    with pytest.raises(UserError, match="expected numbers, or 2 of each"):
        trained.predict(np.zeros((2, 4), np.float32), context={"length": [1.0, 2.0, 3.0]})
    with pytest.raises(UserError, match="has trained no source yet"):
        make().predict(observation)
    with pytest.raises(UserError, match=r"agent.learner_kwargs=.*no_such_option"):
        make(learner_kwargs={"no_such_option": 3}, budget=1).learn()
    with pytest.raises(UserError, match="unknown context feature"):
        grid({}, ("length",), 3, 0.1, 1.0)


def test_options_of_the_learner_may_be_text_and_none() -> None:
    assert make(learner_kwargs="{gamma: 0.9}").config.learner_kwargs == {"gamma": 0.9}
    assert make(learner_kwargs=None).config.learner_kwargs == {}
    agent = MBTL("contextual-pendulum", budget=1)
    assert agent.config.learner_kwargs["gamma"] == 0.9 and agent.config.features == ("dt",)
    assert (agent.config.return_low, agent.config.return_high) == (-2200.0, -500.0)
    policy = policy_of("ppo", {}, agent.observation_space, agent.action_space, _initial(agent))
    assert policy.action_space == agent.action_space


def _initial(agent: MBTL) -> dict[str, torch.Tensor]:
    return PPO("MlpPolicy", "Pendulum-v1", device="cpu").policy.state_dict(prefix="policy.")
