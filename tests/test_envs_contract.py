"""What every registered environment promises; a new one is tested by being registered under ``rlkit/``."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from stable_baselines3.common.vec_env import DummyVecEnv

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit import registry
from rlkit.errors import UserError
from rlkit.vector import make_vector_env

IDS = sorted(name for name in gym.registry if name.startswith("rlkit/"))
SHOWN = ("pendulum-swingup", "finger-turn_easy", "walker-run")  # of DeepMind Control's many, all through one adapter
IDS = [name for name in IDS if "/dmc-" not in name or any(name.endswith(f"-{shown}-v0") for shown in SHOWN)]
if find_spec("dm_control") is None:
    IDS = [name for name in IDS if "/dmc-" not in name]
PACKAGES = {"robotics": "gymnasium_robotics", "dmc": "dm_control", "box2d": "Box2D", "traffic": "libsumo"}
BATCHED = [name for name in IDS if gym.registry[name].vector_entry_point is not None]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a MUJOCO_LOG.TXT behind


def test_there_are_environments() -> None:
    assert len(IDS) >= 4


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_and_sb3s_checks_pass(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Box observation space (minimum|maximum)|float64).*")
        warnings.filterwarnings("ignore", message=".*action space.*")
        env = gym.make(env_id)
        check_env(env.unwrapped, skip_render_check=True)
        check_env_for_sb3(env.unwrapped, warn=False, skip_render_check=True)
        env.close()


def parts(observation: Any) -> dict[str, np.ndarray]:
    return observation if isinstance(observation, dict) else {"": observation}


def actions_for(observation: Any, env: Any, generator: np.random.Generator) -> np.ndarray:
    """A batch of actions, allowed ones where the observation has a mask; 0 for rows in which an episode is over."""
    if isinstance(observation, dict) and "action_mask" in observation:
        allowed = [np.flatnonzero(mask) for mask in observation["action_mask"]]
        return np.array([generator.choice(some) if len(some) else 0 for some in allowed])
    return env.action_space.sample()


@pytest.mark.parametrize("env_id", BATCHED)
def test_the_batch_steps_as_the_single_environment_does(env_id: str) -> None:
    n, steps = 3, 60
    batch = gym.make_vec(env_id, num_envs=n, vectorization_mode="vector_entry_point")
    singles = [gym.make(env_id) for _ in range(n)]
    seen, _ = batch.reset(seed=11)

    def check(observation: Any, i: int) -> None:
        for key, value in parts(observation).items():
            np.testing.assert_array_equal(value, parts(seen)[key][i], err_msg=key)

    for i, env in enumerate(singles):
        check(env.reset(seed=11 + i)[0], i)
    batch.action_space.seed(0)
    generator = np.random.default_rng(0)
    ended = np.zeros(n, bool)
    for _ in range(steps):
        actions = actions_for(seen, batch, generator)
        seen, rewards, terminations, truncations, _ = batch.step(actions)
        for i, env in enumerate(singles):
            if ended[i]:  # the batch resets on the step after an episode's end
                check(env.reset()[0], i)
                ended[i] = False
                continue
            observation, reward, terminated, truncated, _ = env.step(actions[i])
            check(observation, i)
            assert (reward, terminated, truncated) == (rewards[i], terminations[i], truncations[i])
            ended[i] = terminated or truncated
    batch.close()
    for env in singles:
        env.close()


@pytest.mark.parametrize("env_id", IDS)
def test_seeds_decide_everything(env_id: str) -> None:
    def run(seed: int) -> bytes:
        env = make_vector_env(env_id, 2)
        env.action_space.seed(seed)
        generator = np.random.default_rng(seed)
        observation = env.reset(seed=seed)[0]
        found = [value.tobytes() for value in parts(observation).values()]
        for _ in range(30):
            observation = env.step(actions_for(observation, env, generator))[0]
            found += [value.tobytes() for value in parts(observation).values()]
        env.close()
        return b"".join(found)

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("env_id", IDS)
def test_sb3s_vecenv_takes_it(env_id: str) -> None:
    env = DummyVecEnv([lambda: gym.make(env_id)] * 2)
    env.seed(0)
    env.reset()
    obs, rewards, dones, infos = env.step(np.array([single.action_space.sample() for single in env.envs]))
    assert {len(value) for value in parts(obs).values()} == {2}
    assert len(rewards) == len(dones) == len(infos) == 2
    env.close()


def test_every_record_names_an_environment_that_can_be_made_in_batches() -> None:
    made = set()
    for record in registry.records().values():
        key = (record.env_id, str(sorted(record.env_kwargs.items())))
        if key in made or (record.family == "dmc" and not record.name.endswith(SHOWN)):
            continue
        made.add(key)
        if record.extra is not None and find_spec(PACKAGES[record.extra]) is None:
            with pytest.raises(UserError, match="pip install"):
                make_vector_env(record.env_id, 2, **record.env_kwargs)
            continue
        env = make_vector_env(record.env_id, 2, **record.env_kwargs)
        assert env.reset(seed=0)[0] is not None
        env.close()
