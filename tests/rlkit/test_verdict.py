"""Verdicts without acting: values against the truth, what is outside the data, units, and what is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import toy
from scipy.stats import spearmanr

from rlkit.agents import BC, TD3BC
from rlkit.algorithms.verdict import Verdict, judge
from rlkit.cli import main
from rlkit.data.dataset import OfflineDataset
from rlkit.errors import UserError

DATA = toy.generate(size=2000)
FEW = {"updates": 1500, "hidden_sizes": (64, 64), "batch_size": 128}


def pusher(gain: float, bias: float = 0.0, unit: float = 1.0) -> Any:
    """A policy that pushes towards the corner, more or less."""

    def predict(observation: np.ndarray, deterministic: bool = False) -> tuple[np.ndarray, None]:
        return unit * np.clip(gain * (1.0 - observation[:, :2]) + bias, -1, 1).astype(np.float32), None

    spaces = {"observation_space": DATA.observation_space, "action_space": DATA.action_space}
    return SimpleNamespace(predict=predict, **spaces)


def truth(policy: Any, discount: float, episodes: int = 60) -> float:
    """Mean discounted return of as many episodes; a time limit ends them, which hardly counts at this discount."""
    env, total = gym.make(toy.ENV_ID, max_episode_steps=60), []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        found, weight, over = 0.0, 1.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(policy.predict(observation[None])[0][0])
            found, weight, over = found + weight * float(reward), weight * discount, terminated or truncated
        total.append(found)
    return float(np.mean(total))


def test_values_are_those_of_acting() -> None:
    policies = [pusher(1.0), pusher(0.6), pusher(1.0, bias=0.3), pusher(0.3), pusher(1.0, bias=-0.4)]
    values = [judge(policy, DATA, discount=0.9, **FEW).value for policy in policies]
    wanted = [truth(policy, 0.9) for policy in policies]
    assert spearmanr(values, wanted).statistic >= 0.9
    assert values[0] == pytest.approx(wanted[0], rel=0.15)


def test_actions_outside_the_data_are_counted() -> None:
    near, far = judge(pusher(1.0), DATA, discount=0.9, **FEW), judge(pusher(-3.0), DATA, discount=0.9, **FEW)
    assert near.outside < 0.2 < 0.7 < far.outside
    assert near.action_distance < 0.4 < 0.8 < far.action_distance
    assert near.td_error < near.q_spread


def test_a_verdict_does_not_depend_on_units() -> None:
    plain = judge(pusher(1.0), DATA, discount=0.9, **FEW)
    box = gym.spaces.Box(-50.0, 50.0, (2,), np.float32)
    other = DATA.with_(actions=50 * DATA.actions, action_space=box, rewards=1000 * DATA.rewards)
    policy = pusher(1.0, unit=50.0)
    policy.action_space = box
    scaled = judge(policy, other, discount=0.9, **FEW)
    assert scaled.value == pytest.approx(1000 * plain.value, rel=1e-3)
    assert scaled.outside == plain.outside and scaled.data_value == pytest.approx(1000 * plain.data_value, rel=1e-5)


def test_the_same_seed_gives_the_same_verdict_and_an_agent_brings_its_data() -> None:
    agent = BC("MlpPolicy", DATA, batch_size=64, hidden_sizes=(32,), seed=0, device="cpu").learn(300)
    first, second = (judge(agent, updates=50, hidden_sizes=(8,)) for _ in range(2))
    assert first == second and first.discount == 0.99 and first.episodes == len(DATA.episode_ends)
    assert first != judge(agent, updates=50, hidden_sizes=(8,), seed=1)
    assert Verdict(**{**first.as_json(), "value_interval95": None}).sentence.startswith("estimated discounted return")
    assert 0 < first.held_out < first.episodes and "outside the data" in first.sentence


def test_statistics_are_of_the_agents_own_critic_where_it_has_one() -> None:
    few: dict[str, Any] = {"updates": 20, "hidden_sizes": (8,)}
    agent = TD3BC("MlpPolicy", DATA, batch_size=64, hidden_sizes=(32,), reward_scale=2.0, seed=0, device="cpu").learn(
        50
    )
    own = judge(agent, **few)
    assert own.critic == "agent" and agent.replay is not None
    held = np.flatnonzero(np.isin(np.searchsorted(DATA.episode_ends, np.arange(len(DATA)), "right"), held_episodes()))
    batch = agent.replay.take(torch.from_numpy(held))

    def q(observations: torch.Tensor, actions: torch.Tensor) -> np.ndarray:
        return torch.stack(agent.critic(observations, actions)).mean(0)[:, 0].detach().numpy()

    value = q(batch.observations, agent.policy.actor(batch.observations))
    recorded = q(batch.observations, batch.actions)
    later = q(batch.next_observations, agent.policy.actor(batch.next_observations))
    rewards = 2 * DATA.rewards[held]
    errors = rewards + 0.99 * ~DATA.terminations[held] * later - recorded
    wanted = {
        "td_error": np.sqrt(np.square(errors).mean()),
        "value_mean": value.mean(),
        "value_std": value.std(),
        "advantage_mean": (recorded - value).mean(),
        "advantage_std": (recorded - value).std(),
        "advantage_positive": (recorded > value).mean(),
    }
    assert {key: getattr(own, f"critic_{key}") for key in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    elsewhere = judge(agent, DATA.with_(rewards=DATA.rewards + 1), **few)
    cloned = judge(BC("MlpPolicy", DATA, hidden_sizes=(8,), seed=0, device="cpu").learn(5), **few)
    for other in (elsewhere, cloned, judge(pusher(1.0), DATA, **few)):
        assert other.critic == "fitted" and other.critic_value_std is not None and other.critic_value_std > 0


def held_episodes() -> np.ndarray:
    count = len(DATA.episode_ends)
    return np.random.default_rng([0, 1]).permutation(count)[: count // 10]


def test_distances_beside_those_of_the_data_and_verdicts_of_before() -> None:
    near, far = (judge(pusher(gain), DATA, updates=2, hidden_sizes=(8,)) for gain in (1.0, -3.0))
    assert near.distance_ratio is not None and far.distance_ratio is not None
    assert near.distance_ratio < 1.5 < 3 < far.distance_ratio
    added = {key for key in near.as_json() if key.startswith("critic") or key == "distance_ratio"}
    former = Verdict(**{key: value for key, value in near.as_json().items() if key not in added})
    assert former.sentence == near.sentence and len(added) == 8


def one_episode() -> OfflineDataset:
    ends = np.zeros(len(DATA), bool)
    return DATA.with_(terminations=ends, truncations=np.append(ends[:-1], True), parts=())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset": None}, "a verdict needs the data it is judged by"),
        ({"dataset": DATA.with_(rewards=0 * DATA.rewards)}, "has no rewards to judge by"),
        ({"dataset": one_episode()}, "has one episode, expected at least two"),
        ({"discount": 1.5}, "discount=1.5 is out of range"),
        ({"updates": 0}, "expected whole numbers above 0"),
    ],
)
def test_what_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        judge(pusher(1.0), **{"dataset": DATA, "updates": 2, **options})


def test_other_spaces_are_refused() -> None:
    policy = pusher(1.0)
    policy.action_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    with pytest.raises(UserError, match=r"the agent has actions of shape \[3\], the data of \[2\]"):
        judge(policy, DATA)


RUN = ["train", "agent=td3bc", "env=point-noisy", "agent.batch_size=16", "agent.hidden_sizes=[8]", "log_every=10"]
RUN += ["total_timesteps=20", "progress_bar=false", "eval_every=0", "final_episodes=2", "env.size=600"]


def test_a_run_prints_and_keeps_its_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rlkit.run.session.judge", partial(judge, updates=20, hidden_sizes=(8,)))
    assert main([*RUN, "verdict=true", "out=asked"]) == 0
    result = json.loads(Path("asked/result.json").read_text())
    assert f"by its data alone: estimated discounted return {result['verdict']['value']:.4g}" in capsys.readouterr().out
    logged = json.loads(Path("asked/metrics.jsonl").read_text().splitlines()[-1])
    for name in ("value", "td_error", "action_distance", "outside", "critic_td_error", "critic_advantage_mean"):
        assert logged[f"verdict/{name}"] == pytest.approx(result["verdict"][name])
    assert main([*RUN, "out=usual"]) == 0  # there is an environment
    assert "verdict" not in json.loads(Path("usual/result.json").read_text())


def test_where_nothing_can_be_evaluated_the_data_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rlkit.run.session.judge", partial(judge, updates=20, hidden_sizes=(8,)))
    monkeypatch.setattr(TD3BC, "evaluator", lambda *_: None)
    assert main([*RUN, "out=alone"]) == 0
    result = json.loads(Path("alone/result.json").read_text())
    assert "not_evaluated" in result and result["verdict"]["updates"] == 20
