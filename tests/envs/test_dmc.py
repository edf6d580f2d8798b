"""DeepMind Control's tasks: names, spaces, ends of episodes, seeds, and state that steps on exactly."""

from __future__ import annotations

import importlib
import sys

import gymnasium as gym
import numpy as np
import pytest

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit import registry
from rlkit.algorithms.vecenv import environment_state, set_environment_state
from rlkit.envs.dmc import DMControl
from rlkit.envs.records.dmc import TASKS
from rlkit.errors import UserError

suite = pytest.importorskip("dm_control.suite", reason="the dmc extra has no wheels for this Python")


def test_every_task_of_the_suite_is_named() -> None:
    assert {(domain, task) for domain, tasks in TASKS.items() for task in tasks} == set(suite.ALL_TASKS)
    assert registry.record("dmc-walker-run").env_id == "rlkit/dmc-walker-run-v0"


def test_observations_are_dm_controls_in_its_order() -> None:
    env = gym.make("rlkit/dmc-finger-turn_easy-v0")
    observation, _ = env.reset(seed=3)
    theirs = suite.load("finger", "turn_easy", task_kwargs={"random": 3})
    step = theirs.reset()
    for _ in range(30):
        expected = np.concatenate([np.ravel(part) for part in step.observation.values()]).astype(np.float32)
        assert observation.dtype == np.float32 and observation.tobytes() == expected.tobytes()
        action = np.array([0.3, -0.8], np.float32)
        observation, reward, *_ = env.step(action)
        step = theirs.step(action.astype(np.float64))  # finger's own bounds are [-1, 1]
        assert reward == step.reward


def test_actions_are_stretched_to_the_tasks_bounds() -> None:
    env = DMControl("quadruped", "walk")
    assert env.action_space.high.max() == 1 and env.high.max() > 1
    env.reset(seed=0)
    env.step(np.ones(12, np.float32))
    np.testing.assert_allclose(env.env.physics.data.ctrl, env.high, rtol=1e-6)
    env.step(-np.ones(12, np.float32))
    np.testing.assert_allclose(env.env.physics.data.ctrl, env.low, rtol=1e-6)


def test_episodes_are_truncated_after_a_thousand_steps() -> None:
    env = DMControl("pendulum", "swingup")
    env.reset(seed=0)
    for step in range(1, 1001):
        _, reward, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        assert 0 <= reward <= 1 and not terminated and truncated == (step == 1000)


@pytest.mark.parametrize("name", ["pendulum-swingup", "finger-turn_hard", "fish-swim", "reacher-hard", "walker-run"])
def test_state_steps_on_exactly_and_through_a_reset(name: str) -> None:
    env, other = (gym.make(f"rlkit/dmc-{name}-v0") for _ in range(2))
    env.reset(seed=1)
    other.reset(seed=9)
    generator = np.random.default_rng(0)
    for _ in range(5):
        env.step(generator.uniform(-1, 1, env.action_space.shape).astype(np.float32))
    state = environment_state(env)
    assert state is not None
    set_environment_state(other, state)
    for _ in range(25):
        action = generator.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        left, right = env.step(action), other.step(action)
        assert left[0].tobytes() == right[0].tobytes() and left[1:4] == right[1:4]
    assert env.reset()[0].tobytes() == other.reset()[0].tobytes()


def test_seeds_decide_the_start() -> None:
    env = DMControl("cartpole", "swingup")
    first, again, other = (env.reset(seed=seed)[0] for seed in (4, 4, 5))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_unknown_tasks_and_a_missing_package_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean 'walker-run'"):
        DMControl("walker", "runn")
    with pytest.raises(UserError, match="did you mean 'dmc-walker-run'"):
        registry.record("dmc-walker-runn")
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(UserError, match=r"needs dm_control .*install it with: pip install 'rlkit-papers\[dmc\]'"):
        importlib.import_module("rlkit.envs.dmc").DMControl("walker", "run")


@pytest.mark.parametrize("name", ["lqr-lqr_2_1", "lqr-lqr_6_2"])
def test_a_task_without_bounds_or_time_limit_has_both_here(name: str) -> None:
    env = gym.make(f"rlkit/dmc-{name}-v0")
    inner = env.unwrapped
    assert isinstance(inner, DMControl)
    assert (inner.low == -10).all() and (inner.high == 10).all() and inner.limit == 1000
    env.reset(seed=0)
    env.action_space.seed(0)
    for step in range(1000):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert np.isfinite(observation).all() and np.abs(observation).max() < 100 and -50 < reward <= 1
        assert (terminated, truncated) == (False, step == 999)


def test_every_task_keeps_its_own_bounds_and_a_thousand_steps() -> None:
    for name in ("cheetah-run", "quadruped-walk", "point_mass-easy"):
        inner = gym.make(f"rlkit/dmc-{name}-v0").unwrapped
        assert isinstance(inner, DMControl)
        spec = inner.env.action_spec()
        assert np.array_equal(inner.low, spec.minimum) and np.array_equal(inner.high, spec.maximum)
        assert inner.limit == 1000


def test_a_terrain_that_cannot_be_drawn_up_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    env = gym.make("rlkit/dmc-pendulum-swingup-v0").unwrapped
    assert isinstance(env, DMControl)
    import mujoco

    def fail() -> None:
        raise mujoco.FatalError("an OpenGL platform library\nhas not been loaded")

    monkeypatch.setattr(env.env, "reset", fail)
    with pytest.raises(UserError, match="needs OpenGL for its terrain") as caught:
        env.reset(seed=0)
    assert "\n" not in str(caught.value)
