"""Distracting coordinates: their recursion, their independence of all else, one dynamics for training and test."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlkit.algorithms.vecenv import environment_state, set_environment_state
from rlkit.envs.mujoco.distractors import LIMIT, Distractors, advance
from rlkit.envs.records.locomotion import DISTRACTED_TASKS
from rlkit.errors import UserError


def oracle(x: np.ndarray, matrix: np.ndarray, phases: np.ndarray, home: np.ndarray) -> np.ndarray:
    moved = matrix @ x
    moved = moved + 0.1 * np.sin(phases @ moved)
    return np.where(np.abs(moved) <= LIMIT, moved, home)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, 5, elements=st.floats(-20, 20)), st.integers(0, 2**31))
def test_a_step_is_its_formula(x: np.ndarray, seed: int) -> None:
    generator = np.random.default_rng(seed)
    matrix, phases, home = generator.normal(size=(5, 5)), generator.normal(size=(5, 5)) ** 2, generator.normal(size=5)
    expected = oracle(x, matrix, phases, home)
    found = x.copy()
    advance(found, matrix, phases, home)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_what_leaves_the_range_comes_home() -> None:
    x, home = np.array([15.0, np.inf, 1.0]), np.array([0.1, 0.2, 0.3])
    advance(x, 2 * np.eye(3), np.zeros((3, 3)), home)
    assert x[0] == 0.1 and x[1] == 0.2


@pytest.mark.parametrize("task, width", [("Hopper", 11), ("InvertedPendulum", 4), ("Pendulum", 3)])
@pytest.mark.parametrize("count", [0, 5, 10, 15])
def test_nothing_else_changes_and_actions_do_not_matter(task: str, width: int, count: int) -> None:
    plain = gym.make(DISTRACTED_TASKS[task])
    first, other = (gym.make(f"rlkit/{task}Distractors-v0", distractors=count) for _ in range(2))
    left, right, alone = first.reset(seed=4)[0], other.reset(seed=4)[0], plain.reset(seed=4)[0]
    assert first.observation_space.shape == (width + count,)
    np.testing.assert_array_equal(left[:width], alone)
    generator = np.random.default_rng(0)
    for _ in range(6):
        action = generator.uniform(-1, 1, plain.action_space.shape).astype(np.float32)
        left, reward, *_ = first.step(action)
        alone, expected, *_ = plain.step(action)
        right = other.step(-action)[0]
        assert reward == expected and left[:width].tobytes() == alone.tobytes()
        assert left[width:].tobytes() == right[width:].tobytes()
        assert not count or np.abs(left[width:]).max() <= LIMIT


def test_the_dynamics_are_those_of_their_own_seed() -> None:
    envs = [gym.make("rlkit/HopperDistractors-v0", dynamics_seed=seed) for seed in (0, 0, 1)]
    for i, env in enumerate(envs):
        env.reset(seed=i)  # an evaluation's seeds are not training's
    first, same, other = (env.get_wrapper_attr("matrix") for env in envs)
    assert np.array_equal(first, same) and not np.array_equal(first, other)


def test_state_steps_on_exactly() -> None:
    env, other = (gym.make("rlkit/HopperDistractors-v0") for _ in range(2))
    env.reset(seed=1)
    action = np.zeros(3, np.float32)
    for _ in range(4):
        env.step(action)
    state = environment_state(env)
    assert state is not None
    set_environment_state(other, state)
    for _ in range(20):
        assert env.step(action)[0].tobytes() == other.step(action)[0].tobytes()
    assert env.reset()[0].tobytes() == other.reset()[0].tobytes()


def test_bad_arguments_get_a_sentence() -> None:
    with pytest.raises(UserError, match="distractors=-1 is out of range"):
        Distractors(gym.make("Hopper-v5"), -1)
    with pytest.raises(UserError, match="need a one-dimensional Box observation space"):
        Distractors(gym.make("FrozenLake-v1"), 3)
