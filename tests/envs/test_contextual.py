"""Contextual environments: Gymnasium's own in the default context, plain oracles elsewhere, the legacy defects."""

from __future__ import annotations

import math
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.algorithms.vecenv import environment_state, set_environment_state
from rlkit.envs.contextual.base import Feature, resolve_context
from rlkit.envs.contextual.cartpole import ContextualCartPoleEnv, ContextualCartPoleVectorEnv
from rlkit.envs.contextual.models import CHEETAH, ContextualHalfCheetahEnv, walker
from rlkit.envs.contextual.pendulum import ContextualPendulumEnv, ContextualPendulumVectorEnv
from rlkit.envs.records.contextual import RECORDS, TASKS
from rlkit.errors import UserError
from rlkit.vector import hush_mujoco

CARTPOLE, PENDULUM = "rlkit/ContextualCartPole-v0", "rlkit/ContextualPendulum-v0"
HALFCHEETAH, WALKER = "rlkit/ContextualHalfCheetah-v0", "rlkit-box2d/ContextualWalker-v0"
box2d = pytest.mark.skipif(find_spec("Box2D") is None, reason="needs gymnasium[box2d]")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a MUJOCO_LOG.TXT behind
    hush_mujoco()


# ---- the default context is Gymnasium's ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        (CARTPOLE, "CartPole-v1", 0.0),
        (PENDULUM, "Pendulum-v1", 1e-9),  # of the reward: NumPy's float32 power may round otherwise than a product
        (HALFCHEETAH, "HalfCheetah-v5", 0.0),
        pytest.param(WALKER, "BipedalWalker-v3", 0.0, marks=box2d),
    ],
)
def test_the_default_context_is_gymnasiums_environment(ours: str, theirs: str, tolerance: float) -> None:
    left, right = gym.make(ours), gym.make(theirs)
    assert left.action_space == right.action_space and left.observation_space == right.observation_space
    right.action_space.seed(3)
    for seed in range(3):
        np.testing.assert_array_equal(left.reset(seed=seed)[0], right.reset(seed=seed)[0])
        for _ in range(210):
            action = right.action_space.sample()
            seen, reward, ended, cut, _ = left.step(action)
            expected, pay, over, late, _ = right.step(action)
            np.testing.assert_array_equal(seen, expected)
            assert reward == pytest.approx(pay, abs=tolerance, rel=0)
            assert (ended, cut) == (over, late)
            if over or late:
                break
    left.close()
    right.close()


def test_time_limits() -> None:
    assert [gym.spec(name).max_episode_steps for name in (CARTPOLE, PENDULUM, HALFCHEETAH, WALKER)] == [
        500,
        200,
        1000,
        1000,
    ]
    assert {record.env_id for record in RECORDS.values()} == set(TASKS)


# ---- kernels and their oracles ---------------------------------------------------------------------------------------


def plain_cartpole(state: list[float], action: int, context: dict[str, float], legacy: bool) -> tuple[Any, float, bool]:
    x, v, theta, omega = state
    cart, pole, half = context["masscart"], context["masspole"], context["length"]
    total = 1.1 if legacy else cart + pole
    moment = 0.05 if legacy else pole * half
    force = 10.0 if action else -10.0
    t = (force + moment * omega**2 * math.sin(theta)) / total
    turning = (9.8 * math.sin(theta) - t * math.cos(theta)) / (half * (4 / 3 - pole * math.cos(theta) ** 2 / total))
    pulling = t - moment * turning * math.cos(theta) / total
    after = [x + 0.02 * v, v + 0.02 * pulling, theta + 0.02 * omega, omega + 0.02 * turning]
    return after, 1.0, abs(after[0]) > 2.4 or abs(after[2]) > math.radians(12)


def plain_pendulum(state: list[float], action: float, context: dict[str, float]) -> tuple[list[float], float]:
    theta, omega = state
    m, length, dt = context["m"], context["l"], context["dt"]
    u = min(2.0, max(-2.0, action))
    wrapped = math.atan2(math.sin(theta), math.cos(theta))
    reward = -(wrapped**2 + 0.1 * omega**2 + 0.001 * u**2)
    omega = omega + (3 * 10 * math.sin(theta) / (2 * length) + 3 * u / (m * length**2)) * dt
    omega = min(8.0, max(-8.0, omega))
    return [theta + omega * dt, omega], reward


scales = st.floats(0.1, 10.0)


@settings(max_examples=60, deadline=None)
@given(st.tuples(scales, scales, scales), st.booleans(), st.integers(0, 9), st.lists(st.integers(0, 1), max_size=40))
def test_the_cartpole_kernel_is_the_plain_cartpole(
    scale: tuple[float, float, float], legacy: bool, seed: int, actions: list[int]
) -> None:
    context = {"length": 0.5 * scale[0], "masscart": scale[1], "masspole": 0.1 * scale[2]}
    env = ContextualCartPoleEnv(context, physics="legacy" if legacy else "correct")
    env.reset(seed=seed)
    state = env.get_state()["state"][0].tolist()
    for action in actions:
        seen, reward, ended, cut, _ = env.step(action)
        state, pay, over = plain_cartpole(state, action, context, legacy)
        np.testing.assert_allclose(seen, np.array(state, np.float32), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(env.get_state()["state"][0], state, rtol=1e-9, atol=1e-12)
        assert (reward, ended, cut) == (pay, over, False)
        if over:
            return


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(scales, scales, scales),
    st.sampled_from(["correct", "legacy"]),
    st.integers(0, 9),
    st.lists(st.floats(-3, 3, width=32), max_size=40),
)
def test_the_pendulum_kernel_is_the_plain_pendulum(
    scale: tuple[float, float, float], physics: str, seed: int, actions: list[float]
) -> None:
    context = {"dt": 0.05 * scale[0], "m": scale[1], "l": scale[2]}
    env = ContextualPendulumEnv(context, physics=physics)
    env.reset(seed=seed)
    for action in actions:
        before = env.get_state()["state"][0].tolist()
        seen, reward, ended, cut, _ = env.step(np.array([action], np.float32))
        # compared step by step from the kernel's own state: the torque is rounded to float32
        state, pay = plain_pendulum(before, action, context)
        np.testing.assert_allclose(env.get_state()["state"][0], state, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(seen, [math.cos(state[0]), math.sin(state[0]), state[1]], rtol=1e-4, atol=1e-5)
        assert reward == pytest.approx(pay, rel=1e-6, abs=1e-6)
        assert not ended and not cut


@pytest.mark.parametrize("n", [4, 600])  # the serial and the parallel kernel
@pytest.mark.parametrize("append", ["hidden", "append"])
@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_a_batch_has_a_context_per_row_and_is_single_environments(name: str, append: str, n: int) -> None:
    one, many, feature, top = {
        "cartpole": (ContextualCartPoleEnv, ContextualCartPoleVectorEnv, "length", 5.0),
        "pendulum": (ContextualPendulumEnv, ContextualPendulumVectorEnv, "l", 10.0),
    }[name]
    values = np.linspace(0.1 * top, top, n)
    batch = many(n, max_episode_steps=25, context={feature: values}, context_obs=append)
    shown = [0, 1, n // 2, n - 1]
    singles = [one({feature: values[i]}, context_obs=append) for i in shown]
    np.testing.assert_array_equal(batch.context[feature], values)
    seen, _ = batch.reset(seed=7)
    assert batch.observation_space.contains(seen)
    for i, env in zip(shown, singles, strict=True):
        np.testing.assert_array_equal(seen[i], env.reset(seed=7 + i)[0])
        assert env.context[feature] == values[i]
    batch.action_space.seed(0)
    elapsed, over = np.zeros(4, int), np.zeros(4, bool)
    for _ in range(60):
        actions = batch.action_space.sample()
        seen, rewards, ends, cuts, _ = batch.step(actions)
        for k, (i, env) in enumerate(zip(shown, singles, strict=True)):
            if over[k]:  # an ended episode is reset in the next step
                np.testing.assert_array_equal(seen[i], env.reset()[0])
                assert (rewards[i], ends[i], cuts[i]) == (0.0, False, False)
                elapsed[k], over[k] = 0, False
                continue
            elapsed[k] += 1
            expected, pay, ended, _, _ = env.step(actions[i])
            np.testing.assert_array_equal(seen[i], expected)
            assert (rewards[i], ends[i], cuts[i]) == (pay, ended, elapsed[k] >= 25)
            over[k] = ended or elapsed[k] >= 25
    mask = np.arange(n) == 1
    before = batch.step(batch.action_space.sample())[0]
    after, _ = batch.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert not np.array_equal(after[1], before[1])


def test_an_appended_context_is_seen() -> None:
    env = ContextualCartPoleEnv({"masscart": 3.0}, context_obs="append")
    seen, _ = env.reset(seed=0)
    np.testing.assert_allclose(seen[4:], [0.5, 3.0, 0.1], rtol=1e-6)
    assert env.observation_space.contains(seen)
    cheetah = ContextualHalfCheetahEnv({"gravity": 5.0}, context_obs="append")
    seen, _ = cheetah.reset(seed=0)
    np.testing.assert_allclose(seen[17:], [0.4, 5.0, 1.0])
    assert cheetah.observation_space.contains(seen)
    cheetah.close()


@pytest.mark.parametrize("context_obs", ["hidden", "append"])
@pytest.mark.parametrize(
    ("name", "context"),
    [(CARTPOLE, {"length": 5.0}), (PENDULUM, {"dt": 0.005, "m": 10.0}), (HALFCHEETAH, {"stiffness": 3.0})],
)
def test_gymnasiums_check_passes_in_other_contexts(name: str, context: dict[str, float], context_obs: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Box observation space|action space|float64).*")
        env = gym.make(name, context=context, context_obs=context_obs).unwrapped
        check_env(env, skip_render_check=True)
        env.close()


def test_state_can_be_put_down_and_taken_up() -> None:
    for name in (CARTPOLE, PENDULUM):
        env, other = gym.make(name), gym.make(name)
        env.reset(seed=1)
        env.action_space.seed(1)
        for _ in range(3):
            env.step(env.action_space.sample())
        state = environment_state(env)
        assert state is not None
        set_environment_state(other, state)
        for _ in range(4):
            action = env.action_space.sample()
            np.testing.assert_array_equal(env.step(action)[0], other.step(action)[0])
        np.testing.assert_array_equal(env.reset()[0], other.reset()[0])


# ---- legacy physics --------------------------------------------------------------------------------------------------


def trajectory(env: Any, steps: int = 30) -> np.ndarray:
    env.reset(seed=5)
    env.action_space.seed(5)
    return np.array([env.step(env.action_space.sample())[0] for _ in range(steps)])


def test_legacy_cartpole_ignores_the_cart_and_half_ignores_the_pole() -> None:
    heavy, pole = {"masscart": 10.0}, {"masspole": 1.0}
    base = trajectory(ContextualCartPoleEnv())
    np.testing.assert_array_equal(trajectory(ContextualCartPoleEnv(heavy, physics="legacy")), base)
    assert np.abs(trajectory(ContextualCartPoleEnv(heavy)) - base).max() > 0.1
    legacy = trajectory(ContextualCartPoleEnv(pole, physics="legacy"))
    assert np.abs(legacy - base).max() > 1e-3  # it moves something
    assert np.abs(legacy - trajectory(ContextualCartPoleEnv(pole))).max() > 1e-2  # but not rightly
    np.testing.assert_array_equal(trajectory(ContextualCartPoleEnv(physics="legacy")), base)


def test_legacy_cartpole_is_carls_edit_of_gymnasiums_object() -> None:
    context = {"length": 1.5, "masscart": 4.0, "masspole": 0.7}
    theirs: Any = gym.make("CartPole-v1").unwrapped
    for name, value in context.items():
        setattr(theirs, name, value)  # total_mass and polemass_length stay as they were
    ours = ContextualCartPoleEnv(context, physics="legacy")
    np.testing.assert_array_equal(ours.reset(seed=2)[0], theirs.reset(seed=2)[0])
    for k in range(20):
        np.testing.assert_array_equal(ours.step(k % 2)[0], theirs.step(k % 2)[0])


# ---- edited models ---------------------------------------------------------------------------------------------------


def test_the_half_cheetahs_model_is_edited() -> None:
    plain = ContextualHalfCheetahEnv()
    edited = ContextualHalfCheetahEnv({"friction": 0.8, "gravity": 3.0, "stiffness": 2.0})
    legacy = ContextualHalfCheetahEnv({"stiffness": 2.0}, physics="legacy")
    np.testing.assert_allclose(edited.model.geom_friction[:, 0], 2 * plain.model.geom_friction[:, 0])
    np.testing.assert_array_equal(edited.model.geom_friction[:, 1:], plain.model.geom_friction[:, 1:])
    assert edited.model.opt.gravity[2] == -3.0 and plain.model.opt.gravity[2] == -CHEETAH["gravity"].default
    np.testing.assert_allclose(edited.model.jnt_stiffness, 2 * plain.model.jnt_stiffness)
    base = trajectory(plain)
    for context in ({"friction": 4.0}, {"gravity": 3.0}, {"stiffness": 2.0}):
        assert np.abs(trajectory(ContextualHalfCheetahEnv(context)) - base).max() > 1e-3, context
    np.testing.assert_array_equal(trajectory(legacy), base)


def test_without_box2d_the_walker_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(UserError, match=r"needs Box2D, which is not installed: pip install 'rlkit-papers\[box2d\]'"):
        walker()


@box2d
def test_walkers_of_different_contexts_live_side_by_side() -> None:
    from gymnasium.envs.box2d import bipedal_walker

    contexts = ({}, {"friction": 0.1}, {"gravity": 2.0}, {"scale": 15.0}, {"scale": 100.0}, {"scale": 1.0})
    alone = [trajectory(walker(context)) for context in contexts]
    together = [walker(context) for context in contexts]
    for env in together:
        env.reset(seed=5)
        env.action_space.seed(5)
    for k in range(30):
        for i, env in enumerate(together):
            np.testing.assert_array_equal(env.step(env.action_space.sample())[0], alone[i][k])
    assert all(np.abs(one - alone[0]).max() > 1e-3 for one in alone[1:])
    assert bipedal_walker.SCALE == 30.0 and bipedal_walker.FRICTION == 2.5
    shown, _ = walker({"scale": 20.0}, context_obs="append").reset(seed=0)
    np.testing.assert_allclose(shown[24:], [2.5, 10.0, 20.0])


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"context": {"length": 5.1}}, "context length=5.1 is out of range, expected 0.05 to 5"),
        ({"context": {"length": 0.0}}, "context length=0 is out of range"),
        ({"context": {"length": math.nan}}, "context length=nan is out of range"),
        ({"context": {"lenght": 1.0}}, "unknown context feature 'lenght'; did you mean 'length'"),
        ({"context": {"length": "long"}}, "context length='long' is not a number"),
        ({"context": {"length": [0.5, 0.6]}}, r"context length has shape \(2,\), expected one number or 1"),
        ({"context": 3.0}, "expected values by name, such as {length: 1}"),
        ({"physics": "legasy"}, "physics=legasy is unknown, expected one of correct, legacy; did you mean 'legacy'"),
        ({"context_obs": "shown"}, "context_obs=shown is unknown, expected one of hidden, append"),
    ],
)
def test_bad_arguments_get_a_sentence(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        ContextualCartPoleEnv(**arguments)


def test_bad_batches_and_actions_get_a_sentence() -> None:
    with pytest.raises(UserError, match="num_envs=0 is out of range"):
        ContextualCartPoleVectorEnv(0)
    batch = ContextualCartPoleVectorEnv(3)
    batch.reset(seed=0)
    with pytest.raises(UserError, match=r"expected actions of shape \(3,\), got \(2,\)"):
        batch.step(np.zeros(2, np.int64))
    with pytest.raises(UserError, match="actions from 0 to 2, expected numbers from 0 to 1"):
        batch.step(np.array([0, 1, 2]))
    with pytest.raises(UserError, match=r"context friction=9 is out of range, expected 0\.04 to 4"):
        ContextualHalfCheetahEnv({"friction": 9.0})
    with pytest.raises(UserError, match=r"context scale=101 is out of range, expected 1 to 100"):
        walker({"scale": 101.0})


def test_scales_times_a_base_are_inside_though_rounded() -> None:
    features = {"x": Feature(0.3, 0.3, "a number")}
    for scale in np.linspace(0.1, 10.0, 100):
        found = resolve_context("world", features, {"x": scale * 0.3}, 1)
        assert found[0, 0] == scale * 0.3
