"""What a run says of itself: numbers under their names, true and proxy, sampled or greedy, valid JSON, to the end."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import toy
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EveryNTimesteps, ProgressBarCallback

from rlkit.agents import BC, BEER, ORPO
from rlkit.algorithms.callbacks import Evaluate, JsonlWriter, Progress
from rlkit.algorithms.evaluate import Evaluator
from rlkit.algorithms.verdict import judge
from rlkit.cli import main
from rlkit.data.dataset import OfflineDataset
from rlkit.errors import ArtefactError, UserError
from rlkit.registry import record
from rlkit.run.report import as_json

QUIET = ["progress_bar=false", "tensorboard=false"]
POINT = ["agent=bc", "env=point-noisy", "agent.batch_size=8", "agent.hidden_sizes=[8]", "log_every=10", *QUIET]
BASED = ["agent.n_envs=2", "agent.n_steps=100", "agent.batch_size=50", "agent.ref_policy=uniform", "agent.trim=0.02"]
BASED += ["agent.hidden_sizes=[16]", "agent.disc_hidden_sizes=[16]", "agent.calibration_steps=200", "agent.n_epochs=2"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines(run: str) -> list[dict[str, Any]]:
    return [strict(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def strict(text: str) -> Any:
    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


# ---- true and proxy, sampled and greedy ------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", ["proxy", "true"])
def test_both_rewards_are_evaluated_named_and_written(reward: str, capsys: Any) -> None:
    settings = ["agent=orpo", "env=tomato", *BASED, "total_timesteps=600", "eval_every=200", "log_every=200"]
    chosen = [] if reward == "proxy" else ["env.kwargs.reward=true"]  # which YAML reads as a boolean
    quiet = ["progress_bar=false", "eval_episodes=4", "final_episodes=20", "out=r"]
    assert main(["train", *settings, *chosen, *quiet]) == 0
    printed = capsys.readouterr().out
    assert f"trains on the {reward} reward" in printed and "\nreturn" not in printed
    result = strict(Path("r/result.json").read_text())
    assert result["config"]["env"]["kwargs"]["reward"] == reward
    final, paid = result["final"], f"{reward}_returns"
    for name in ("true", "proxy"):
        assert re.search(rf"^{name} return {final[f'{name}_return']:.3f} \(95 % interval", printed, re.M), printed
        assert re.search(rf"^{name} return: mean of the last", printed, re.M)
        low, high = final[f"{name}_return_interval95"]
        assert low < final[f"{name}_return"] == np.mean(final[f"{name}_returns"]) < high
        assert all(math.isfinite(line[f"eval/{name}_return"]) for line in lines("r") if "eval/return" in line)
        assert lines("r")[-1][f"final/{name}_return"] == final[f"{name}_return"]
    np.testing.assert_allclose(final["returns"], final[paid])
    assert reward == "true" or final["true_returns"] != final["proxy_returns"]
    assert [entry["step"] for entry in result["evaluations"]] == [400, 600]  # at 200 nothing had been learnt
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("r/tensorboard")
    events.Reload()
    assert {"eval/true_return", "eval/proxy_return", "final/true_return"} <= set(events.Tags()["scalars"])
    for judged, words in ((None, "sampled"), ("greedy", "greedy"), ("sampled", "sampled")):
        assert main(["eval", "r", "episodes=5", *([f"judged={judged}"] if judged else [])]) == 0
        printed = capsys.readouterr().out
        assert f"5 episodes, {words}, seed 0" in printed and re.search(r"^true return .*\nproxy return", printed, re.M)
    assert main(["eval", "r", "episodes=5", "env=tomato", "reward=true"]) == 0
    assert main(["eval", "r", "judged=mean"]) == 2
    assert "judged=mean is unknown, expected one of greedy, sampled" in capsys.readouterr().err


def test_a_checkpoint_from_before_the_reward_was_declared_is_taken(tmp_path: Path) -> None:
    small = {"n_envs": 2, "n_steps": 50, "trim": 0.02, "divergence": "none", "device": "cpu", "batch_size": 50}
    small["ref_policy"] = "uniform"
    former = replace(record("tomato"), env_kwargs={})
    ORPO("MlpPolicy", former, **small).save_checkpoint(tmp_path / "c.rlk")
    assert ORPO("MlpPolicy", "tomato", **small).restore(tmp_path / "c.rlk") == {}
    truth = replace(former, env_kwargs={"reward": "true"})
    with pytest.raises(ArtefactError, match="was made in"):
        ORPO("MlpPolicy", truth, **small).restore(tmp_path / "c.rlk")


def test_another_reward_is_refused(capsys: Any) -> None:
    assert main(["train", "agent=orpo", "env=tomato", *BASED, "env.kwargs.reward=false", "out=r", *QUIET]) == 2
    assert (
        "env.kwargs.reward=False is not allowed, expected proxy or true" in capsys.readouterr().err
        and not Path("r").exists()
    )


class Still:
    """Always the same action, of any shape."""

    def __init__(self, action: Any) -> None:
        self.action = np.asarray(action)

    def predict(self, observation: Any, deterministic: bool = True) -> tuple[Any, Any]:
        return np.repeat(self.action[None], len(observation), axis=0), None


@pytest.mark.parametrize(
    ("env_id", "kwargs", "action"),
    [
        ("rlkit/Tomato-v0", {"horizon": 7}, 1),
        ("rlkit/Pandemic-v0", {"horizon": 20}, 2),
        ("rlkit/Glucose-v0", {"horizon": 30}, np.array([0.02], np.float32)),
    ],
)
@pytest.mark.parametrize("reward", ["proxy", "true"])
def test_returns_by_reward_are_those_of_single_environments(
    env_id: str, kwargs: dict[str, Any], action: Any, reward: str
) -> None:
    evaluator = Evaluator(env_id, episodes=3, seed=2, env_kwargs={**kwargs, "reward": reward})
    found = evaluator(Still(action), index=5)
    for i, seed in enumerate(np.random.SeedSequence([2, 5]).generate_state(3)):
        env, sums, done = gym.make(env_id, **kwargs), {"true": 0.0, "proxy": 0.0}, False
        env.reset(seed=int(seed))
        while not done:
            _, _, terminated, truncated, info = env.step(action)
            sums, done = {name: sums[name] + info[f"{name}_reward"] for name in sums}, terminated or truncated
        for name, total in sums.items():
            np.testing.assert_allclose(found.by_reward[name][i], total, rtol=1e-9)
        np.testing.assert_allclose(found.returns[i], sums[reward], rtol=1e-9)
    evaluator.close()


def test_a_foreign_sb3_model_is_sampled_from_a_seed_too() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu")
    evaluator = Evaluator("CartPole-v1", episodes=5)
    greedy, evaluator.judged = evaluator(model).returns, "sampled"
    first = evaluator(model, index=2).returns
    model.predict(np.zeros((3, 4), np.float32))  # moves the global generator
    assert np.array_equal(first, evaluator(model, index=2).returns)
    assert not np.array_equal(greedy, evaluator(model, index=0).returns)
    evaluator.close()


# ---- before learning begins, and without an environment ------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["agent=beer", "env=point-noisy", "total_timesteps=30"], "before learning begins (agent.learning_starts=30)"),
        (
            ["agent=drrpo-features", "env=contextual-cartpole", "agent.warmup=9", "total_timesteps=8"],
            "before learning begins (agent.warmup=9)",
        ),
        (
            [
                *("agent=mbtl", "env=contextual-cartpole", "agent.n_contexts=3", "agent.task_timesteps=64"),
                *("agent.select_every=0", "agent.episodes=1", "agent.budget=2", "agent.train_envs=2"),
                *("agent.learner_kwargs={n_steps: 16, batch_size: 32}", "total_timesteps=64"),
            ],
            "before agent.budget=2 sources, which need 128 steps",
        ),
    ],
)
def test_too_few_steps_are_said_and_nothing_untrained_is_repeated(
    settings: list[str], sentence: str, capsys: Any
) -> None:
    own = ["agent.learning_starts=30", "agent.batch_size=8"] if "agent=beer" in settings else []
    assert main(["train", *settings, *own, "eval_every=1", "eval_episodes=2", "final_episodes=2", "out=r", *QUIET]) == 0
    printed = capsys.readouterr().out
    assert "warning: total_timesteps=" in printed and sentence in printed
    result = strict(Path("r/result.json").read_text())
    assert len(result["evaluations"]) == (1 if "agent=mbtl" in settings else 0)
    assert len(result["final"]["returns"]) == 2


def test_enough_steps_are_not_warned_of(capsys: Any) -> None:
    own = ["agent=beer", "env=point-noisy", "agent.learning_starts=30", "agent.batch_size=8", "agent.rank_interval=0"]
    settings = [*own, "total_timesteps=36", "eval_every=1", "eval_episodes=2", "final_episodes=2", "out=r", *QUIET]
    assert main(["train", *settings]) == 0 and "warning" not in capsys.readouterr().out
    result = strict(Path("r/result.json").read_text())
    assert [entry["step"] for entry in result["evaluations"]] == [32, 33, 34, 35, 36]
    assert (result["unit"], result["steps"], result["updates"]) == ("steps", 36, 6)


def learn_from(data: OfflineDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the command line names is ``data``."""
    monkeypatch.setattr("rlkit.algorithms.offline.load_dataset", lambda what, **options: data)


def test_data_without_an_environment_says_that_nothing_is_evaluated(capsys: Any, monkeypatch: Any) -> None:
    learn_from(replace(toy.generate(), env_id=None), monkeypatch)
    monkeypatch.setattr("rlkit.run.session.judge", partial(judge, updates=200, hidden_sizes=(16,)))
    assert main(["train", *POINT, "total_timesteps=20", "out=r"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("not evaluated: a noisy controller names no environment to evaluate in") == 1
    assert "by its data alone" in printed
    result = strict(Path("r/result.json").read_text())
    assert "final" not in result and "best" not in result and "no environment" in result["not_evaluated"]


# ---- what is not finite ----------------------------------------------------------------------------------------------


class Sick(toy.Point):
    """A point whose environment falls ill on its 10th step."""

    def __init__(self, what: str = "reward", value: float = math.nan):
        super().__init__()
        self.what, self.value = what, value

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.count = 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        seen, reward, _, _, info = super().step(0 * action)
        self.count += 1
        if self.count == 10 and self.what == "reward":
            reward = self.value
        if self.count == 10 and self.what == "observation":
            seen[:] = self.value
        return seen, reward, False, False, info


if "rlkit-test/Sick-v0" not in gym.registry:
    gym.register("rlkit-test/Sick-v0", Sick, max_episode_steps=15)


@pytest.mark.parametrize(("what", "value"), [("reward", math.nan), ("reward", -math.inf), ("observation", math.nan)])
@pytest.mark.parametrize("eval_every", [10, 0])
def test_an_evaluation_that_is_not_finite_stops_with_a_sentence(
    what: str, value: float, eval_every: int, capsys: Any, monkeypatch: Any
) -> None:
    kwargs = {"what": what, "value": value}
    learn_from(replace(toy.generate(), env_id="rlkit-test/Sick-v0", env_kwargs=kwargs), monkeypatch)
    settings = [*POINT, "total_timesteps=20", f"eval_every={eval_every}", "out=r"]
    assert main(["train", *settings, "eval_episodes=3", "final_episodes=3"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"'{what}' of rlkit-test/Sick-v0 is not finite in episode 0" in error
    assert "step 10" in error and not Path("r/result.json").exists()
    assert len(lines("r")) >= 1


def test_what_is_not_finite_is_null_in_every_file(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "m.jsonl")
    writer.write({"train/explained_variance": math.nan, "b": np.float32("inf"), "c": 1.5}, {}, 3)
    writer.close()
    found = strict((tmp_path / "m.jsonl").read_text())
    assert found == {"step": 3, "train/explained_variance": None, "b": None, "c": 1.5}
    found = strict(as_json({"a": [1.0, (math.nan, {"b": -math.inf})], "c": np.float64("nan"), "d": "NaN"}).decode())
    assert found == {"a": [1.0, [None, {"b": None}]], "c": None, "d": "NaN"}


# ---- the final evaluation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_final_evaluation_is_interrupted_at_once_and_resumed(number: int, tmp_path: Path) -> None:
    settings = [*POINT, "total_timesteps=20", "eval_every=10", "eval_episodes=2", "final_episodes=1500"]
    assert main(["train", *settings, "out=whole"]) == 0
    code = "import sys, toy; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "train", *settings, "out=part"], env=environment, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not Path("part/model.rlk").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + number, output
    assert "interrupted in the final evaluation" in output and "continue with: rlkit resume part" in output
    assert not Path("part/result.json").exists()
    assert main(["resume", "part", "progress_bar=false"]) == 0
    results = [strict((Path(run) / "result.json").read_text()) for run in ("whole", "part")]
    for key in ("final", "evaluations", "best", "updates"):
        assert results[0][key] == results[1][key], key
    assert Path("whole/metrics.jsonl").read_bytes() == Path("part/metrics.jsonl").read_bytes()


def test_one_episode_has_no_interval(capsys: Any) -> None:
    assert main(["train", *POINT, "total_timesteps=20", "eval_every=0", "final_episodes=1", "out=r"]) == 0
    assert "(one value, no interval over 1 episode, greedy; one seed)" in capsys.readouterr().out
    assert strict(Path("r/result.json").read_text())["final"]["score_interval95"] is None


# ---- the bar ---------------------------------------------------------------------------------------------------------


class Boom(BaseCallback):
    def _on_step(self) -> bool:
        if self.n_calls == 5:
            raise RuntimeError("it broke")
        return True


def gone(thread: str) -> bool:
    """Whether there is, at the latest in two seconds, no thread of that class."""
    deadline = time.monotonic() + 2
    while (there := [t for t in threading.enumerate() if type(t).__name__ == thread]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not there


def learners() -> dict[str, Any]:
    small = {"hidden_sizes": (8,), "batch_size": 8, "device": "cpu"}
    data = toy.generate(size=100)
    online = {**small, "learning_starts": 10, "buffer_size": 100, "rank_interval": 0}
    return {
        "offline": lambda: BC("MlpPolicy", data, **small),
        "online": lambda: BEER("MlpPolicy", "InvertedPendulum-v5", **online),
    }


@pytest.mark.parametrize("kind", ["offline", "online"])
@pytest.mark.parametrize("bar", ["own", "ours", "sb3's", "nested"])
@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_a_bar_is_closed_when_learning_breaks_off(kind: str, bar: str, capsys: Any) -> None:
    class Starts(BaseCallback):  # raises while bars are being opened
        def _on_training_start(self) -> None:
            raise RuntimeError("it broke")

        def _on_step(self) -> bool:
            return True

    make = learners()[kind]
    for culprit in (Boom(), Starts()):
        bars: dict[str, ClassVar[Any] | Any] = {
            "own": [],
            "ours": [Progress()],
            "sb3's": [ProgressBarCallback()],
            "nested": [CallbackList([CallbackList([Progress()]), EveryNTimesteps(2, Boom())])],
        }
        agent = make()
        with pytest.raises(RuntimeError, match="it broke"):
            agent.learn(50, [*bars[bar], culprit], progress_bar=bar == "own")
        shown = capsys.readouterr()
        assert gone("_RefreshThread"), shown
        agent.learn(20, progress_bar=True)
        make().learn(20, [ProgressBarCallback()])
        capsys.readouterr()


# ---- SB3 models that are not rlkit's ---------------------------------------------------------------------------------


def test_evaluate_runs_on_sb3s_own_models() -> None:
    evaluate = Evaluate(Evaluator("CartPole-v1", episodes=2), 32)
    PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu").learn(64, evaluate)
    assert [entry["step"] for entry in evaluate.history] == [32, 64]


def test_evaluators_refuse_what_their_agent_cannot_do() -> None:
    with pytest.raises(UserError, match="'reward' of rlkit-test/Sick-v0 is not finite in episode 0"):
        Evaluator("rlkit-test/Sick-v0", episodes=2)(Still(np.zeros(2, np.float32)))


def test_learning_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    BC("MlpPolicy", toy.generate(size=100), batch_size=8, hidden_sizes=(4,)).learn(2, log_interval=1)
    beer = BEER("MlpPolicy", "InvertedPendulum-v5", hidden_sizes=(4,), learning_starts=4, verbose=1)
    beer.learn(30, log_interval=1)
    assert not list(tmp_path.glob("SB3*"))
    assert "time/" in capsys.readouterr().out  # what verbose=1 prints
