"""The batched MuJoCo stepper against Gymnasium's own environments: every comparison is of bits."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from rlkit.envs.mujoco.vector import MujocoVectorEnv
from rlkit.envs.records import register_all
from rlkit.envs.records.locomotion import MUJOCO_TASKS
from rlkit.errors import UserError

HOPPER = {
    "healthy_reward": 2,
    "forward_reward_weight": 3,
    "ctrl_cost_weight": 0.5,
    "healthy_state_range": (-3.0, 3.0),
    "healthy_z_range": (0.9, 1.4),
    "healthy_angle_range": (-0.1, 0.1),
    "reset_noise_scale": 0.02,
    "exclude_current_positions_from_observation": False,
    "frame_skip": 2,
}
ANT = {
    "healthy_z_range": (0.4, float("inf")),
    "contact_cost_weight": 0.1,
    "contact_force_range": (-0.2, 0.5),
    "healthy_reward": 0.3,
    "main_body": 2,
    "reset_noise_scale": 0.3,
}
WALKER = {"terminate_when_unhealthy": False, "healthy_angle_range": (-0.3, 0.3), "healthy_z_range": (1.0, 1.3)}
CHEETAH = {"frame_skip": 3, "ctrl_cost_weight": 1, "reset_noise_scale": 0.5}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes its warnings to a log file in the current folder."""
    monkeypatch.chdir(tmp_path)


def pair(env_id: str, num_envs: int, mode: str = "NextStep", threads: int = 2, **kwargs: Any) -> tuple[Any, Any]:
    """Gymnasium's batch and ours."""
    theirs = gym.make_vec(env_id, num_envs, "sync", vector_kwargs={"autoreset_mode": mode}, **kwargs)
    return theirs, MujocoVectorEnv(env_id, num_envs, num_threads=threads, autoreset_mode=mode, **kwargs)


def actions_of(env: Any, steps: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """(steps, num_envs, m): wild in the first environment, calmer in each next, so that episodes differ in length."""
    scale = 0.25 ** np.arange(env.num_envs)[:, None]
    random = np.random.default_rng(seed).uniform(-1.0, 1.0, (steps, *env.action_space.shape))
    return (random * scale * env.action_space.high).astype(dtype)


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal bits, types and keys, in arrays, tuples and nested infos."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, tuple) or getattr(theirs, "dtype", None) == np.object_:
        assert len(ours) == len(theirs)
        for mine, yours in zip(ours, theirs, strict=True):
            assert_same(mine, yours)
    elif theirs is None:
        assert ours is None
    else:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def compare(theirs: Any, ours: Any, actions: np.ndarray, seed: int = 3) -> np.ndarray:
    """Step both; how many episodes each environment ended, (num_envs, 2): by termination and by truncation."""
    assert_same(ours.reset(seed=seed), theirs.reset(seed=seed))
    ends = np.zeros((ours.num_envs, 2), np.int64)
    for action in actions:
        outcome = ours.step(action)
        assert_same(outcome, theirs.step(action))
        ends += np.stack(outcome[2:4], axis=1)
    theirs.close()
    ours.close()
    return ends


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_whole_episodes(env_id: str) -> None:
    theirs, ours = pair(env_id, 3)
    ends = compare(theirs, ours, actions_of(ours, 1010))
    assert ends.sum() > 0
    assert ends[0, 0] > 5 or env_id in ("HalfCheetah-v5", "Ant-v5")
    assert ends[:, 1].all() or env_id != "HalfCheetah-v5"


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_truncation_and_autoreset(env_id: str, mode: str) -> None:
    theirs, ours = pair(env_id, 5, mode, max_episode_steps=15)
    ends = compare(theirs, ours, actions_of(ours, 50, dtype=np.float64))
    assert (ends[1:, 1] >= 3).all()


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])
def test_resting_environments_change_nothing_for_others(env_id: str, mode: str) -> None:
    ours, whole = (MujocoVectorEnv(env_id, 6, num_threads=2, autoreset_mode=mode) for _ in range(2))
    ours.reset(seed=3)
    whole.reset(seed=3)
    resting = np.zeros(6, np.bool_)
    kept = np.empty((0, *ours.single_observation_space.shape))
    actions = actions_of(ours, 60)
    for number, action in enumerate(actions):
        found, wanted = ours.step(action), whole.step(action)
        for mine, other in zip(found[:4], wanted[:4], strict=True):
            np.testing.assert_array_equal(mine[~resting], other[~resting])
        np.testing.assert_array_equal(found[0][resting], kept)
        if number in (5, 30):  # in the middle of an episode, and where one ended
            resting |= found[2] | (np.arange(6) == number // 6)
            ours.rest(resting)
            kept = found[0][resting]
    assert resting.sum() >= 2
    assert_same(ours.reset(seed=9), whole.reset(seed=9))
    assert_same(ours.step(actions[0]), whole.step(actions[0]))
    ours.close()
    whole.close()


def test_what_is_over_may_rest_where_nothing_is_reset_by_itself() -> None:
    env = MujocoVectorEnv("Hopper-v5", 2, autoreset_mode="Disabled")
    env.reset(seed=0)
    for action in actions_of(env, 200):
        terminations = env.step(action)[2]
        env.rest(terminations)
        if terminations.any():
            break
    assert terminations.any() and not terminations.all()
    env.step(action)
    env.rest(np.zeros(2, np.bool_))
    env.close()


def test_threads_end_with_the_batch() -> None:
    gc.collect()
    before = threading.active_count()
    batches = [MujocoVectorEnv("Hopper-v5", 8, num_threads=4) for _ in range(3)]
    assert threading.active_count() == before + 9
    batches[0].close()
    batches[0].close()
    batches.clear()  # and without having been closed
    gc.collect()
    assert threading.active_count() == before


def test_all_end_at_once() -> None:
    for mode in ("NextStep", "SameStep"):
        theirs, ours = pair("HalfCheetah-v5", 2, mode, max_episode_steps=3)
        assert compare(theirs, ours, actions_of(ours, 12)).all(axis=0)[1]


def test_autoreset_disabled() -> None:
    theirs, ours = pair("Hopper-v5", 4, "Disabled", max_episode_steps=12)
    assert ours.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert_same(ours.reset(seed=[5, 1, 9, 9]), theirs.reset(seed=[5, 1, 9, 9]))
    for action in actions_of(ours, 40):
        outcome = ours.step(action)
        assert_same(outcome, theirs.step(action))
        ended = outcome[2] | outcome[3]
        if ended.any():
            with pytest.raises(ResetNeeded):
                ours.step(action)
            assert_same(
                ours.reset(options={"reset_mask": ended.copy()}), theirs.reset(options={"reset_mask": ended.copy()})
            )
    with pytest.raises(UserError, match="reset_mask"):
        ours.reset(options={"reset_mask": np.zeros(4, np.bool_)})


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("Hopper-v5", HOPPER),
        ("HalfCheetah-v5", CHEETAH),
        ("Walker2d-v5", WALKER),
        ("Ant-v5", ANT),
        ("Ant-v5", {"include_cfrc_ext_in_observation": False, "exclude_current_positions_from_observation": False}),
        ("Hopper-v5", {"xml_file": "walker2d_v5.xml"}),
    ],
)
def test_arguments_of_the_single_environment(env_id: str, kwargs: dict[str, Any]) -> None:
    theirs, ours = pair(env_id, 3, **kwargs)
    assert ours.metadata["render_fps"] == theirs.metadata["render_fps"]
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    compare(theirs, ours, actions_of(ours, 120))


def test_diverging_simulation() -> None:
    """MuJoCo resets a simulation that has become infinite; both must then go on alike."""
    theirs, ours = pair("Walker2d-v5", 2, terminate_when_unhealthy=False)
    theirs.reset(seed=0), ours.reset(seed=0)
    theirs.envs[0].unwrapped.data.qvel[:] = np.inf
    saved = ours.get_state()
    saved["simulation"][0, 1 + ours.model.nq : 1 + ours.model.nq + ours.model.nv] = np.inf
    ours.set_state(saved)
    for action in actions_of(ours, 8):
        outcome = ours.step(action)
        assert_same(outcome, theirs.step(action))
    assert np.isfinite(outcome[0]).all()
    theirs.close()


def test_seeding() -> None:
    env = MujocoVectorEnv("Ant-v5", 3)
    first, second, third = (env.reset(seed=seed)[0] for seed in (7, None, 7))
    np.testing.assert_array_equal(first, third)
    assert (first != second).any(axis=1).all()
    assert (first[1:] != first[:-1]).any(axis=1).all()
    assert env.np_random_seed == (7, 8, 9)
    np.testing.assert_array_equal(env.reset(seed=[9, None, 7])[0][[0, 2]], first[[2, 0]])
    theirs = gym.make_vec("Ant-v5", 3, "sync")
    for seed in (7, None, None):
        assert_same(env.reset(seed=seed), theirs.reset(seed=seed))
    theirs.close()


def test_threads_do_not_change_the_bits() -> None:
    alone, together = (MujocoVectorEnv("Ant-v5", 11, num_threads=n) for n in (1, 3))
    alone.reset(seed=0), together.reset(seed=0)
    for action in actions_of(alone, 40):
        assert_same(together.step(action), alone.step(action))
    together.close()


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_saved_state_goes_on_bit_for_bit(env_id: str, mode: str) -> None:
    env, other = (MujocoVectorEnv(env_id, 4, num_threads=n, autoreset_mode=mode, max_episode_steps=25) for n in (2, 1))
    actions = actions_of(env, 90)
    env.reset(seed=11)
    for t in range(25):  # in NextStep the resets of the truncated episodes are still to come
        env.step(actions[t])
    saved = env.get_state()
    assert all(array.dtype != object for array in saved.values())
    expected = [env.step(action) for action in actions[25:]]
    other.set_state(saved)
    for action, outcome in zip(actions[25:], expected, strict=True):
        assert_same(other.step(action), outcome)
    assert_same(other.get_state(), env.get_state())
    env.close()


def test_state_of_another_environment_is_refused() -> None:
    env = MujocoVectorEnv("Hopper-v5", 2)
    with pytest.raises(ResetNeeded):
        env.get_state()
    env.reset(seed=0)
    with pytest.raises(UserError, match="state 'simulation' of Walker2d-v5: expected"):
        MujocoVectorEnv("Walker2d-v5", 2).set_state(env.get_state())
    with pytest.raises(UserError, match="got no array"):
        env.set_state({})


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match="did you mean 'Hopper-v5'"):
        MujocoVectorEnv("Hopper-v4", 2)
    with pytest.raises(UserError, match="no_such_argument"):
        MujocoVectorEnv("Hopper-v5", 2, no_such_argument=1)
    for bad in ({"num_envs": 0}, {"num_threads": 0}, {"max_episode_steps": 0}, {"autoreset_mode": "never"}):
        with pytest.raises(UserError):
            MujocoVectorEnv("Hopper-v5", **({"num_envs": 2} | bad))
    with pytest.raises(UserError, match="render"):
        MujocoVectorEnv("Hopper-v5", 2, render_mode="rgb_array")
    env = MujocoVectorEnv("Hopper-v5", 2)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros((2, 3), np.float32))
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"shape \(2, 3\), got \(3,\)"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(UserError, match="2 seeds"):
        env.reset(seed=[1])


def test_the_clock_of_mujoco_is_put_back() -> None:
    env = gym.make("Hopper-v5").unwrapped
    env.reset(seed=0)
    ours = MujocoVectorEnv("Hopper-v5", 2)
    ours.reset(seed=0)
    ours.step(np.zeros((2, 3)))
    timer = mujoco.mjtTimer.mjTIMER_STEP
    before = env.data.timer[timer].duration
    mujoco.mj_step(env.model, env.data)
    assert env.data.timer[timer].duration > before


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_registered(env_id: str) -> None:
    register_all()
    register_all()
    env = gym.make_vec(f"rlkit/{env_id}", 3, "vector_entry_point", reset_noise_scale=0.0)
    assert isinstance(env, MujocoVectorEnv)
    assert (env.num_envs, env.max_episode_steps, env.spec.id) == (3, 1000, f"rlkit/{env_id}")
    assert gym.make_vec(f"rlkit/{env_id}", 2, "vector_entry_point", max_episode_steps=7).max_episode_steps == 7
    env.close()


@pytest.mark.filterwarnings("ignore:.*Box observation space.*:UserWarning")  # Gymnasium's own spaces are unbounded
def test_single_environment_passes_gymnasiums_check() -> None:
    register_all()
    for env_id in MUJOCO_TASKS:
        env = gym.make(f"rlkit/{env_id}")
        check_env(env.unwrapped, skip_render_check=True)
        env.close()
