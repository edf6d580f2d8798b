"""The epidemic: a plain simulator beside the kernel, rates, rewards by hand, the batch, its state, its base policy."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit import registry
from rlkit.agents.orpo.core import BasePolicy, ORPOConfig
from rlkit.agents.orpo.orpo import ORPO, base_policy
from rlkit.algorithms.hyperparameters import presets
from rlkit.algorithms.online import training_env
from rlkit.algorithms.vecenv import environment_state, set_environment_state
from rlkit.envs.hacking import pandemic
from rlkit.envs.hacking.cloning import clone
from rlkit.envs.hacking.pandemic import PEOPLE, SCHEDULES, PandemicEnv, PandemicVectorEnv, Towns, demonstrate
from rlkit.envs.rows import RESET, STEP
from rlkit.errors import UserError

STATES = ("S", "E", "P", "P'", "A", "Y", "H", "R", "D")
KINDS = ("critical", "dead", "infected", "none", "recovered")
WAYS = {  # state: what it can become, with a day's probability, in the order in which a uniform number picks
    "E": [("P'", 0.57 / 2.9), ("P", 0.43 / 2.9)],
    "P": [("A", 1 / 2.3)],
    "P'": [("Y", 1 / 2.3)],
    "A": [("R", 1 / 4)],
    "Y": [("H", 0.2 / 4), ("R", 0.8 / 4)],
    "H": [("R", 0.9 / 10.7), ("D", 0.1 / 8.1)],
    "R": [],
    "D": [],
}
LEFT = (1, 0.8, 0.8 * 0.65, 0.8 * 0.65 * 0.75 * 0.7, 0.8 * 0.65 * 0.75 * 0.5)


def counts_as(state: str) -> str:
    return {"S": "none", "H": "critical", "R": "recovered", "D": "dead"}.get(state, "infected")


class PlainTown:
    """The same, person by person in words."""

    def __init__(self, people: list[str], known: list[str], stage: int, horizon: int) -> None:
        self.people, self.known, self.stage, self.day, self.horizon = list(people), list(known), stage, 0, horizon
        self.frames = [self.frame()] * 24

    def share(self, *kinds: str) -> float:
        return sum(counts_as(state) in kinds for state in self.people) / PEOPLE

    def frame(self) -> list[float]:
        tested = [self.known.count(kind) / PEOPLE for kind in KINDS]
        shown = tested[0] + tested[1] + tested[2] >= 0.005
        return [*map(self.share, KINDS), *tested, self.stage / 4, float(shown), self.day / self.horizon]

    def step(self, action: int, draws: np.ndarray) -> tuple[float, float]:
        ill = self.share("infected", "critical", "dead")
        stage = min(max(self.stage + (-1, 0, 1)[action], 0), 4)
        change, self.stage, self.day = stage - self.stage, stage, self.day + 1
        weights = {"P'": 1.0, "Y": 1.0, "P": 2 / 3, "A": 2 / 3}
        force = (
            0.55 * LEFT[stage] * sum(weights.get(s, 0.0) for s in self.people) / max(PEOPLE - self.people.count("D"), 1)
        )
        ways = {**WAYS, "S": [("E", 1 - np.exp(-force - 0.05 / PEOPLE))]}
        for k, (state, u) in enumerate(zip(list(self.people), draws[:PEOPLE], strict=True)):
            reached = 0.0
            for following, probability in ways[state]:
                if reached <= u < reached + probability:
                    self.people[k] = following
                reached += probability
        for k, (state, u) in enumerate(zip(self.people, draws[PEOPLE:], strict=True)):
            if state in "HD":
                self.known[k] = counts_as(state)
            elif u < 0.3:
                positive = self.known[k] != "none"
                self.known[k] = {"S": "none", "E": "none", "R": "recovered" if positive else "none"}.get(
                    state, "infected"
                )
        self.frames = [*self.frames[1:], self.frame()]
        proxy = -10 * self.share("critical") - 0.1 * stage**1.5 / 8 - 0.01 * abs(change)
        return proxy - (10 * (min(ill - 0.005, 0) / 0.005) ** 2 if change > 0 else 0), proxy


def town(people: list[int], known: list[int] | None = None, stage: int = 0) -> Towns:
    """One town with people in these states."""
    found = Towns("proxy", 192, 1)
    found.advance(np.ones(1, np.int64), np.array([RESET], np.int8))
    found.people[0], found.stage[0] = people, stage
    if known is not None:
        found.known[0] = known
    for k in range(24):
        pandemic._tell(found.people[0], found.known[0], stage, 0, 192, found.history[0, k])
    return found


mixtures = st.lists(st.integers(0, 8), min_size=1, max_size=9).map(lambda some: (some * PEOPLE)[:PEOPLE])


@settings(max_examples=25, deadline=None)
@given(mixtures, st.integers(0, 4), st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_the_kernel_is_the_plain_town(people: list[int], stage: int, actions: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    known = [4 if s in (7, 8) and generator.random() < 0.5 else 3 for s in people]
    fast, plain = (
        town(people, known, stage),
        PlainTown([STATES[s] for s in people], [KINDS[k] for k in known], stage, 192),
    )
    for action in actions:
        draws = generator.random(2 * PEOPLE)
        fast.draws[0] = draws
        fast.advance(np.array([action]), np.array([STEP], np.int8))
        true, proxy = plain.step(action, draws)
        assert [STATES[s] for s in fast.people[0]] == plain.people and [KINDS[k] for k in fast.known[0]] == plain.known
        np.testing.assert_allclose(fast.history[0], plain.frames, atol=1e-12)
        assert (fast.true[0], fast.proxy[0]) == pytest.approx((true, proxy), abs=1e-12)
        np.testing.assert_allclose(fast.history[0, :, :10].reshape(24, 2, 5).sum(2), 1.0, atol=1e-12)  # nobody is lost


@settings(max_examples=25, deadline=None)
@given(mixtures, st.integers(0, 2**32 - 1))
def test_a_higher_stage_infects_nobody_more(people: list[int], seed: int) -> None:
    draws = np.random.default_rng(seed).random(2 * PEOPLE)
    exposed = []
    for stage in range(5):
        after, known = np.array(people, np.int8), np.full(PEOPLE, pandemic.NONE, np.int8)
        pandemic._day(after, known, stage, draws)
        exposed.append((after == pandemic.E) & (np.array(people) == pandemic.S))
    assert all((stricter <= laxer).all() for laxer, stricter in pairwise(exposed))


def rolled(stage: int, episodes: int = 100) -> Towns:
    """Whole episodes in which the stage is raised to ``stage`` at once."""
    found, generator = Towns("true", 192, episodes), np.random.default_rng(0)
    found.advance(np.ones(episodes, np.int64), np.full(episodes, RESET, np.int8))
    for _ in range(192):
        generator.random(out=found.draws)
        found.advance(1 + np.sign(stage - found.stage), np.full(episodes, STEP, np.int8))
    return found


def test_without_rules_most_are_infected_and_with_all_few() -> None:
    ever = {stage: 1 - rolled(stage).history[:, -1, pandemic.NONE] for stage in (0, 2, 4)}
    assert ever[0].mean() > 0.85 > 0.7 > ever[2].mean() > 0.3 > 0.1 > ever[4].mean()
    assert ever[0].max() < 1  # an epidemic ends before it has everybody


def test_rates_are_as_declared() -> None:
    def after(state: int, days: int = 1) -> np.ndarray:
        found = np.zeros(9)
        generator = np.random.default_rng(state)
        for _ in range(100):
            people, known = np.full(PEOPLE, state, np.int8), np.full(PEOPLE, pandemic.NONE, np.int8)
            for _ in range(days):
                pandemic._day(people, known, 4, generator.random(2 * PEOPLE))
            found += np.bincount(people, minlength=9)
        return found / (100 * PEOPLE)

    assert 1 - after(pandemic.E)[pandemic.E] == pytest.approx(1 / 2.9, abs=0.01)
    assert after(pandemic.E)[pandemic.P_ILL] == pytest.approx(0.57 / 2.9, abs=0.01)
    assert after(pandemic.P)[pandemic.A] == pytest.approx(1 / 2.3, abs=0.01)
    assert after(pandemic.Y)[pandemic.H] == pytest.approx(0.2 / 4, abs=0.005)
    sick = after(pandemic.H)
    assert sick[[pandemic.R, pandemic.D]] == pytest.approx([0.9 / 10.7, 0.1 / 8.1], abs=0.005)
    assert after(pandemic.R, 3)[pandemic.R] == 1 == after(pandemic.D, 3)[pandemic.D]


def test_rewards_by_hand() -> None:
    def step(ill: int, stage: int, action: int) -> tuple[float, float]:
        found = town([pandemic.R] * (PEOPLE - ill) + [pandemic.H] * ill, stage=stage)
        found.draws[:] = 0.999  # nobody moves
        found.advance(np.array([action]), np.array([STEP], np.int8))
        return found.true[0], found.proxy[0]

    assert step(0, 0, 0) == (0, 0) and step(0, 0, 1) == (0, 0)
    assert step(0, 0, 2) == pytest.approx((-10 - 0.0125 - 0.01, -0.0125 - 0.01))
    assert step(1, 1, 2) == pytest.approx((-0.02 - 3.6 - 0.1 * 2**1.5 / 8 - 0.01, -0.02 - 0.1 * 2**1.5 / 8 - 0.01))
    assert step(3, 0, 2) == pytest.approx((-0.06 - 0.0225, -0.06 - 0.0225))  # above the threshold nobody minds
    assert step(0, 4, 2) == pytest.approx((-0.1, -0.1))  # nothing above 4 to raise to
    assert step(0, 4, 0) == pytest.approx((-0.1 * 3**1.5 / 8 - 0.01,) * 2)


def test_an_episode_has_192_days_and_pays_either_reward() -> None:
    totals = {}
    for reward in ("proxy", "true"):
        env = gym.make("rlkit/Pandemic-v0", reward=reward)
        seen, _ = env.reset(seed=5)
        assert seen.shape == (24, 13) and (seen == seen[0]).all() and seen[0, 2] == np.float32(1 / 500)
        assert "not comparable" in env.metadata["surrogate"]
        generator, paid, told = np.random.default_rng(0), 0.0, 0.0
        for day in range(1, 193):
            seen, value, ended, cut, info = env.step(int(generator.integers(3)))
            assert ended == (day == 192) and not cut and seen[-1, 12] == np.float32(day / 192)
            assert value == info[f"{reward}_reward"] and info["true_reward"] <= info["proxy_reward"]
            paid, told = paid + value, told + info["proxy_reward"]
        totals[reward] = paid, told
    assert totals["true"][0] < totals["proxy"][0] - 5 and totals["true"][1] == totals["proxy"][1]


@pytest.mark.parametrize("n", [2, 65])
def test_the_batch_is_single_towns(n: int) -> None:
    batch, singles = PandemicVectorEnv(n, horizon=30), [PandemicEnv(horizon=30) for _ in range(2)]
    seen, _ = batch.reset(seed=7)
    for i, env in enumerate(singles):
        assert (env.reset(seed=7 + i)[0] == seen[i]).all()
    batch.action_space.seed(0)
    for t in range(70):
        actions = batch.action_space.sample()
        seen, rewards, ends, cuts, infos = batch.step(actions)
        for i, env in enumerate(singles):
            if t in (30, 61):
                assert (env.reset()[0] == seen[i]).all()
                continue
            one, reward, ended, _, info = env.step(actions[i])
            assert (one == seen[i]).all() and (reward, ended, False) == (rewards[i], ends[i], cuts[i])
            assert info == {key: infos[key][i] for key in info}
            assert ended == (t in (29, 60))


def test_a_restored_town_goes_on() -> None:
    env, other = (gym.make("rlkit/Pandemic-v0") for _ in range(2))
    env.reset(seed=3)
    for _ in range(50):
        env.step(1)
    state = environment_state(env)
    assert state is not None
    set_environment_state(other, state)
    for action in [2, 0, 1] * 47 + [1]:
        left, right = (e.step(action) for e in (env, other))
        assert left[0].tobytes() == right[0].tobytes() and left[1:] == right[1:]
    assert left[2] and left[0][-1, 2:5].sum() > 0.5
    assert env.reset()[0].tobytes() == other.reset()[0].tobytes()


# ---- the base policy and ORPO ----------------------------------------------------------------------------------------


def test_schedules_are_followed_nine_times_in_ten() -> None:
    assert len(SCHEDULES) == 10
    seen, done = demonstrate(40, 192, seed=1)
    stages = np.rint(4 * seen[:, :, -1, 10]).astype(int)  # [T, n]
    shown = seen[:, :, -1, 11] > 0
    never = np.arange(40) % 10 == 0  # S0
    aimed = done[:, never] == np.where(stages[:, never] > 0, 0, 1)
    assert aimed.mean() == pytest.approx(0.9 + 0.1 / 3, abs=0.01)
    raised = done == 2
    assert raised[~shown].mean() == pytest.approx(0.1 / 3, abs=0.01)  # random ones alone
    assert raised[shown & (stages < 2) & (np.arange(40) % 10 == 4)].mean() > 0.85  # S4
    assert stages.max() == 4 and stages[0].max() == 0


def test_a_clone_learns_probabilities_and_gaussians() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((20_000, 2)).astype(np.float32)
    chance = 1 / (1 + np.exp(-2 * x[:, 0]))
    *layers, deviation = map(
        torch.from_numpy, clone(x, (generator.random(20_000) < chance).astype(np.int64), (16,), 2, 8)
    )
    found = torch.tanh(torch.from_numpy(x).double() @ layers[0].T + layers[1]) @ layers[2].T + layers[3]
    ones = found.softmax(1)[:, 1].numpy()
    assert deviation.shape == (0,)
    assert np.abs(ones - chance).mean() < 0.03
    y = (x[:, :1] + 0.2 * generator.standard_normal((20_000, 1))).astype(np.float32)
    *layers, deviation = map(torch.from_numpy, clone(x, y, (), 1, 8, learning_rate=1e-2))
    assert layers[0].tolist() == [pytest.approx([1, 0], abs=0.02)] and deviation.item() == pytest.approx(0.2, abs=0.02)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pandemic, "EPISODES", 40)


def test_the_scripted_policy_does_as_schedules_do(few: None) -> None:
    env, record = training_env("pandemic", 2)
    base = base_policy("scripted", env, record, ORPOConfig())
    seen, done = demonstrate(20, 192, seed=9)
    flat = torch.from_numpy(seen.reshape(-1, 24, 13))
    probabilities = base.distribution(flat).probs.numpy()
    assert probabilities.min() > 1e-4  # the divergence from it is finite
    picked = np.take_along_axis(probabilities, done.reshape(-1, 1), 1)
    assert -np.log(picked).mean() < 0.75  # nats; 1.1 for uniform actions
    quiet = (seen[:, :, -1, 10:12] == 0).all(2).ravel()  # no rules and nothing shown
    assert probabilities[quiet].mean(0)[2] < 0.15


SMALL: dict[str, Any] = {"n_envs": 2, "n_steps": 96, "n_epochs": 1, "calibration_steps": 384, "device": "cpu"}


def test_orpo_begins_from_the_schedules_and_learns(few: None, tmp_path: Path) -> None:
    agent = ORPO("MlpPolicy", "pandemic", seed=0, **SMALL)
    assert agent.config.disc_features == tuple(range(299, 312)) and agent.config.clip == 100
    seen = torch.from_numpy(demonstrate(1, 192, seed=0)[0][:, 0])
    own, base = agent._distribution(seen).probs, agent.base.distribution(seen).probs
    torch.testing.assert_close(own, base)
    agent.learn(384)
    assert not torch.allclose(agent._distribution(seen).probs, base)
    agent.save(tmp_path / "a.rlk")
    again = ORPO.load(tmp_path / "a.rlk", device="cpu")
    torch.testing.assert_close(again.base.distribution(seen).probs, base)


def test_a_run_goes_on_exactly(few: None, tmp_path: Path) -> None:
    def learner() -> ORPO:
        return ORPO("MlpPolicy", "pandemic", seed=4, entropy_end=1.0, **SMALL)  # else lengths matter

    whole, part = learner().learn(384, log_interval=None), learner().learn(192, log_interval=None)
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh = learner()
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(192, log_interval=None, reset_num_timesteps=False)
    left, right = ({**a.model_tensors(), **a.training_tensors()} for a in (whole, fresh))
    assert left.keys() == right.keys() and any("people" in key for key in left)
    assert [k for k in left if left[k].numpy().tobytes() != right[k].numpy().tobytes()] == []


def test_a_policy_of_other_widths_begins_as_an_imitator(few: None) -> None:
    agents = [ORPO("MlpPolicy", "pandemic", hidden_sizes=(32, 32), **{**SMALL, "start": s}) for s in ("base", "random")]
    seen = torch.from_numpy(agents[0]._roll_base(40).observations.reshape(-1, 24, 13))
    base = agents[0].base.distribution(seen).probs  # [n, 3]
    near, far = ((BasePolicy.of(a.policy).distribution(seen).probs - base).abs().mean() for a in agents)
    assert near < far / 2
    with pytest.raises(UserError, match="start"):
        ORPOConfig(start="middle")
    ORPO("MlpPolicy", "pandemic", ref_policy="uniform", hidden_sizes=(32, 32), **SMALL)  # has none to begin from


def test_the_entropy_weight_falls_in_the_course_of_training(few: None) -> None:
    found = []
    for coef, end in ((0.5, 1.0), (0.5, 0.0), (0.0, 1.0)):
        agent = ORPO("MlpPolicy", "pandemic", divergence="none", entropy_coef=coef, entropy_end=end, **SMALL)
        agent.learn(192)  # one update, the last
        found.append(agent.policy.action_net.weight.detach())
    assert torch.equal(found[1], found[2]) and not torch.equal(found[0], found[1])


def test_bad_input_gets_a_sentence() -> None:
    for make in (PandemicEnv, PandemicVectorEnv):
        with pytest.raises(UserError, match="reward=cost is unknown, expected one of proxy, true"):
            make(reward="cost")
        with pytest.raises(UserError, match="horizon=0 is out of range"):
            make(horizon=0)
    env = PandemicVectorEnv(2)
    env.reset(seed=0)
    with pytest.raises(UserError, match="expected numbers from 0 to 2"):
        env.step(np.array([0, 3]))


def test_the_preset_is_the_authors() -> None:
    record = registry.record("pandemic")
    found = presets(ORPO, record.name, record.task, record.family)
    assert (found["n_envs"] * found["n_steps"], found["batch_size"], found["n_epochs"]) == (3840, 64, 5)
    assert (found["learning_rate"], found["clip_range"], found["clip"]) == (3e-4, 0.3, 100)
