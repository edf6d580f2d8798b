"""DR-RPO over bumps: features, the robust regression against exact dynamic programming, CartPole, exact resume."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.agents.drrpo_features import (
    FeatureConfig,
    FeatureDRRPO,
    FeaturePlanner,
    FeatureState,
    choose_centres,
    radial_features,
)
from rlkit.envs.robust.linear_mdp import worst_case_means
from rlkit.errors import UserError

SMALL = {"centres": 20, "warmup": 3, "refit_every": 2, "backups": 5, "capacity": 400}


def one_hot(observations: np.ndarray) -> np.ndarray:
    return np.eye(5)[observations[:, 0].astype(int)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 4))
def test_bumps_are_a_partition_of_unity_and_their_plain_counterpart(seed: int, m: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    points, centres = rng.normal(size=(9, k)), rng.normal(size=(m, k))
    scale, widths = rng.uniform(0.5, 2, k), rng.uniform(0.2, 2, m)
    points[0] = 1e3  # far from all
    psi = radial_features(points, centres, scale, widths)
    assert (psi >= 0).all()
    np.testing.assert_allclose(psi.sum(axis=1), 1, atol=1e-12)
    for s in range(1, 9):
        raw = [
            np.exp(-0.5 * (((points[s] - c) / scale) ** 2).sum() / w**2) for c, w in zip(centres, widths, strict=True)
        ]
        if sum(raw) > 1e-200:
            np.testing.assert_allclose(psi[s], np.array(raw) / sum(raw), rtol=1e-6, atol=1e-9)


def test_centres_spread_over_what_was_seen() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(500, 2)), [[50.0, 0.0]]])
    centres = choose_centres(points, 10, rng)
    assert centres.shape == (10, 2) and (centres == [50.0, 0.0]).all(axis=1).any()
    assert len(choose_centres(np.zeros((30, 2)), 10, rng)) == 1  # no two alike


@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_with_one_hot_features_it_is_robust_dynamic_programming(rho: float) -> None:
    """Five states and a termination, two actions, every transition stored as often as it is likely."""
    rng = np.random.default_rng(1)
    kernel, rewards = rng.multinomial(40, np.ones(6) / 6, (5, 2)) / 40, rng.uniform(0, 1, (5, 2))
    config = FeatureConfig(rho=rho, eta=1e4, beta=0.0, discount=0.8, ridge=1e-9, reference="uniform", backups=200)
    planner = FeaturePlanner(1, 2, config, feature_map=one_hot)
    state = planner.initial(0)
    for s, a, following in np.argwhere(kernel > 0):
        for _ in range(round(40 * kernel[s, a, following])):
            end = following == 5
            row = np.array([0.0 if end else float(following)])
            planner.record(state, np.array([float(s)]), int(a), rewards[s, a], row, bool(end))
    planner.refit(state, rng)
    q = np.zeros((5, 2))
    for _ in range(300):
        values = np.append(q.max(axis=1), 0.0)
        q = rewards + 0.8 * worst_case_means(kernel.reshape(10, 6), values, np.full(10, rho)).reshape(5, 2)
    np.testing.assert_allclose(state.weights.T, q, atol=2e-3)


def test_the_robust_estimate_is_never_above_the_regression() -> None:
    """With bumps coefficients have both signs; more caution then lowers Q from ρ = 0 on."""
    found = []
    for rho in (0.0, 0.005, 0.05, 0.3):
        rng = np.random.default_rng(0)
        planner = FeaturePlanner(2, 2, FeatureConfig(rho=rho, beta=0.0, backups=1, centres=15, discount=0.9))
        state = planner.initial(0)
        for _ in range(300):
            point = rng.normal(size=2)
            planner.record(
                state, point, int(rng.integers(2)), 1.0, point + 0.1 * rng.normal(size=2), bool(point[0] > 1)
            )
        planner.refit(state, np.random.default_rng(0))
        planner.refit(state, np.random.default_rng(0))
        found.append(state.weights)
    assert all((after <= before + 1e-9).all() for before, after in itertools.pairwise(found))
    assert (found[-1] < found[0] - 0.01).any()


def test_it_learns_cartpole() -> None:
    agent = FeatureDRRPO("MlpPolicy", "CartPole-v1", seed=0, discount=0.99, warmup=10)
    first = np.mean([float(agent.update(None)["return"]) for _ in range(10)])
    later = [float(agent.update(None)["return"]) for _ in range(40)]
    assert np.mean(later[-10:]) > 4 * first, later


@pytest.mark.parametrize("reference", ["uniform", "average"])
def test_a_restored_agent_goes_on_byte_for_byte(reference: str, tmp_path: Path) -> None:
    def make(seed: int = 3) -> FeatureDRRPO:
        return FeatureDRRPO("MlpPolicy", "CartPole-v1", seed=seed, reference=reference, **SMALL)

    whole = make().learn(16, log_interval=5)
    part = make().learn(7, log_interval=5)
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh = make()
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(9, log_interval=5, reset_num_timesteps=False)
    assert isinstance(fresh.state, FeatureState) and isinstance(whole.state, FeatureState)
    for name, value in whole.state.arrays().items():
        assert value.tobytes() == fresh.state.arrays()[name].tobytes(), name
    assert int(whole.state.counters[2]) > 60
    assert make(4).learn(16).state.weights.tobytes() != whole.state.weights.tobytes()
    whole.save(tmp_path / "a.rlk")
    loaded = FeatureDRRPO.load(tmp_path / "a.rlk", gym.make("CartPole-v1"))
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    assert np.array_equal(whole.predict(rows, deterministic=True)[0], loaded.predict(rows, deterministic=True)[0])


def test_functions_of_ones_own(tmp_path: Path) -> None:
    def halves(observations: np.ndarray) -> np.ndarray:
        right = 1 / (1 + np.exp(-4 * observations[:, 2:3]))
        return np.hstack([right, 1 - right])

    def push_right(observations: np.ndarray) -> np.ndarray:
        return np.tile([0.1, 0.9], (len(observations), 1))

    agent = FeatureDRRPO(
        "MlpPolicy", "CartPole-v1", feature_map=halves, ref_policy=push_right, eta=1e-6, rho=0.1, beta=0.5, **SMALL
    ).learn(8)
    assert isinstance(agent.state, FeatureState) and agent.state.weights.shape == (2, 2)
    found = agent.planner.probabilities(agent.planner.deployed(agent.state), np.zeros((2, 4)))
    np.testing.assert_allclose(found, [[0.1, 0.9]] * 2, atol=1e-3)
    agent.save(tmp_path / "a.rlk")
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    same: dict[str, Any] = {"feature_map": halves, "ref_policy": push_right}
    loaded = FeatureDRRPO.load(tmp_path / "a.rlk", "CartPole-v1", **same)
    assert np.array_equal(agent.predict(rows, deterministic=True)[0], loaded.predict(rows, deterministic=True)[0])
    with pytest.raises(UserError, match="was trained with a feature map of its own, expected feature_map="):
        FeatureDRRPO.load(tmp_path / "a.rlk", "CartPole-v1").predict(rows)


def test_bad_input_gets_a_sentence() -> None:
    for options, sentence in (
        ({"rho": 1.5}, r"agent\.rho=1\.5 is out of range"),
        ({"eta": 0.0}, r"agent\.eta=0\.0 is out of range"),
        ({"discount": 1.0}, r"agent\.discount=1\.0 is out of range, expected a number from 0 to below 1"),
        ({"reference": "last"}, r"agent\.reference=last is unknown, expected one of uniform, average"),
        ({"centres": 0}, r"agent\.centres=0 is out of range"),
    ):
        with pytest.raises(UserError, match=sentence):
            FeatureConfig(**options)
    with pytest.raises(UserError, match="needs a Discrete action space"):
        FeatureDRRPO("MlpPolicy", "Pendulum-v1")
    with pytest.raises(UserError, match="needs a one-dimensional Box observation space"):
        FeatureDRRPO("MlpPolicy", "rlkit/LinearMDP-v0")

    def cosines(observations: np.ndarray) -> np.ndarray:
        return np.cos(observations @ np.ones((4, 3)) + np.arange(3.0))

    with pytest.raises(UserError, match=r"features: the smallest is -.*, expected none below 0"):
        FeatureDRRPO("MlpPolicy", "CartPole-v1", feature_map=cosines).learn(1)
    with pytest.raises(UserError, match=r"reference policy=.* lacks full support"):
        FeatureDRRPO("MlpPolicy", "CartPole-v1", ref_policy=lambda x: np.tile([0.0, 1.0], (len(x), 1))).learn(1)

    class Costly(gym.Env):
        observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return np.zeros(1, np.float32), {}

        def step(self, action: Any) -> Any:
            return np.zeros(1, np.float32), -1.0, True, False, {}

    with pytest.raises(UserError, match="reward -1 is below 0"):
        FeatureDRRPO("MlpPolicy", Costly()).learn(1)
