"""The merge: observations, rewards and the driver model by hand; with the extra, SUMO's side of it, and ORPO's."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit import registry
from rlkit.agents.orpo.core import ORPOConfig
from rlkit.agents.orpo.orpo import ORPO, base_policy
from rlkit.algorithms.online import training_env
from rlkit.algorithms.vecenv import environment_state, set_environment_state
from rlkit.envs.hacking import traffic
from rlkit.envs.hacking.traffic import HORIZON, VEHICLES, TrafficEnv, idm, observation, rewards
from rlkit.errors import UserError
from rlkit.vector import make_vector_env

ID = "rlkit-sumo/Traffic-v0"
sumo = pytest.mark.skipif(find_spec("libsumo") is None, reason="needs the extra traffic")
ALONE = ["merge.0", 12.0, -1.0, 0.0, -1.0, 0.0]
AHEAD = ["merge.3", 6.0, 3.0, 9.0, 20.0, 15.0]


def test_observations_by_hand() -> None:
    seen = observation([ALONE, AHEAD]).reshape(VEHICLES, 5)
    assert seen[0] == pytest.approx([0.4, 0.6, 1, 0.4, 1])
    assert seen[1] == pytest.approx([0.2, 0.1, 0.03, -0.3, 0.2])
    assert (seen[2:] == 0).all()
    assert (observation([AHEAD] * 12).reshape(VEHICLES, 5) == seen[1]).all()  # the first ten


def test_rewards_by_hand() -> None:
    action = np.array([1.0, -0.5] + [0.0] * 8)
    true, proxy = rewards([10.0, 20.0], [], action)
    assert (true, proxy) == pytest.approx((-(1 / 10.001 + 1 / 20.001) / 2 - 0.15, 15 - 0.15))
    near = rewards([10.0, 20.0], [ALONE, AHEAD], action)  # half a second behind its leader
    assert near == pytest.approx((true - 0.05, proxy - 0.05))
    waiting = rewards([0.0, 20.0], [], 0 * action)
    assert waiting == pytest.approx((-500, 10), rel=1e-3)
    assert rewards([], [], action) == pytest.approx((-0.15, -0.15))


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 30), st.floats(0, 30), st.floats(0, 100), st.integers(0, 9))
def test_the_driver_model_is_the_formula(speed: float, leader: float, gap: float, slot: int) -> None:
    told = [["merge.0", speed, gap, leader, -1.0, 0.0]] * (slot + 1)
    wanted = 2 + max(0, speed + speed * (speed - leader) / (2 * 1.5**0.5))
    plain = 1 - (speed / 30) ** 4 - (wanted / max(gap, 0.1)) ** 2
    found = idm(observation(told))[0]
    assert found[slot] == pytest.approx(np.clip(plain, -1.5, 1.5), abs=1e-3 * (1 + wanted / max(gap, 0.1)) ** 2)
    assert (found[slot + 1 :] == 0).all()


def test_without_sumo_the_merge_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"traffic needs libsumo and sumo; install it with: pip install 'rlkit-papers\[traffic\]'"
    ):
        gym.make(ID)
    assert registry.record("traffic").extra == "traffic"
    with pytest.raises(UserError, match="reward=cost is unknown, expected one of proxy, true"):
        TrafficEnv(reward="cost")


# ---- with SUMO -------------------------------------------------------------------------------------------------------


def episode(env: gym.Env, seed: int, policy: Any) -> tuple[float, float, np.ndarray]:
    """Sums of true and proxy reward, and the observations [300, 50]."""
    now, _ = env.reset(seed=seed)
    seen, sums = [], np.zeros(2)
    for step in range(HORIZON):
        seen.append(now)
        now, _, ended, cut, info = env.step(policy(now).astype(np.float32))
        sums += [info["true_reward"], info["proxy_reward"]]
        assert not ended and cut == (step == HORIZON - 1)
    return float(sums[0]), float(sums[1]), np.array(seen)


@sumo
def test_gymnasiums_check_passes_and_seeds_decide() -> None:
    env = gym.make(ID, reward="true")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")
        check_env(env.unwrapped, skip_render_check=True)
    first, again, other = (episode(env, seed, lambda now: idm(now)[0]) for seed in (1, 1, 2))
    assert first[2].tobytes() == again[2].tobytes() and first[:2] == again[:2] and first[:2] != other[:2]
    env.close()


@sumo
def test_who_waits_on_the_ramp_is_paid_by_proxy() -> None:
    env = gym.make(ID)
    base, hack = (
        np.mean([episode(env, seed, policy)[:2] for seed in range(4)], axis=0)
        for policy in (lambda now: idm(now)[0], lambda now: np.full(VEHICLES, -1.5))
    )
    assert hack[1] > base[1] + 50 and hack[0] < base[0] - 3000 and base[0] > -200
    env.close()


@sumo
def test_traffic_is_as_declared() -> None:
    env = TrafficEnv()
    most, entered = 0, set()
    for seed in range(6):
        env.reset(seed=seed)
        for _ in range(HORIZON):
            there = [row[0] for row in env._told["controlled"]]
            env.step(idm(observation(env._told["controlled"]))[0].astype(np.float32))
            most, entered = max(most, len(there)), entered | {(seed, name) for name in there}
            assert all(0 <= v <= 30.001 for v in env._told["speeds"])
    assert 0 < most <= VEHICLES and len(entered) / 6 == pytest.approx(450 / 3600 * 300 * 0.25, rel=0.4)
    env.close()


@sumo
def test_a_restored_merge_goes_on() -> None:
    env, other = (gym.make(ID) for _ in range(2))
    env.reset(seed=3)
    env.action_space.seed(0)
    for _ in range(120):
        env.step(env.action_space.sample())
    state = environment_state(env)
    assert state is not None
    set_environment_state(other, state)
    for _ in range(180):
        action = env.action_space.sample()
        left, right = (e.step(action) for e in (env, other))
        assert left[0].tobytes() == right[0].tobytes() and left[1:] == right[1:]
    assert left[3] and env.reset()[0].tobytes() == other.reset()[0].tobytes()
    env.close()
    other.close()


@sumo
def test_merges_live_side_by_side_and_clean_up() -> None:
    envs = make_vector_env(ID, 2)
    seen, _ = envs.reset(seed=[5, 6])
    singles = []
    for seed in (5, 6):
        env = gym.make(ID)
        singles.append((env, env.reset(seed=seed)[0]))
    for _ in range(40):
        seen, reward, *_ = envs.step(np.zeros((2, VEHICLES), np.float32))
        for i, (env, _) in enumerate(singles):
            one, value, *_ = env.step(np.zeros(VEHICLES, np.float32))
            assert (one == seen[i]).all() and value == reward[i]
    workers = [env.unwrapped._simulation.process for env, _ in singles]
    for env, _ in singles:
        env.close()
    assert [worker.returncode for worker in workers] == [0, 0]
    envs.close()


@sumo
def test_a_worker_that_died_and_a_bad_action_get_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a killed worker leaves its folder
    env = TrafficEnv()
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"expected a finite action of shape \(10,\)"):
        env.step(np.full(VEHICLES, np.nan))
    assert env._simulation is not None
    env._simulation.process.kill()
    env._simulation.process.wait()
    with pytest.raises(UserError, match="SUMO ended with code -9"):
        env.step(np.zeros(VEHICLES, np.float32))
    env.close()


@sumo
def test_orpo_begins_from_the_driver_model_and_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "EPISODES", 6)
    env, record = training_env("traffic", 1)
    base = base_policy("scripted", env, record, ORPOConfig())
    env.close()
    seen = episode(TrafficEnv(), 50, lambda now: idm(now)[0])[2]
    found = base.distribution(torch.from_numpy(seen))
    assert (found.mean.numpy() - idm(seen))[:, 0].std() < 0.5 and found.stddev.max() < 0.5
    small: dict[str, Any] = {"n_envs": 2, "n_steps": 150, "batch_size": 100, "calibration_steps": 300, "n_epochs": 1}

    def learner() -> ORPO:
        return ORPO("MlpPolicy", "traffic", base, seed=1, device="cpu", **small)

    whole, part, fresh = learner(), learner(), learner()
    torch.testing.assert_close(whole._distribution(torch.from_numpy(seen)).mean, found.mean)
    whole.learn(600, log_interval=None)
    part.learn(300, log_interval=None).save_checkpoint(tmp_path / "c.rlk")
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(300, log_interval=None, reset_num_timesteps=False)
    left, right = ({**a.model_tensors(), **a.training_tensors()} for a in (whole, fresh))
    assert left.keys() == right.keys() and any("sumo_seed" in key for key in left)
    assert [k for k in left if left[k].numpy().tobytes() != right[k].numpy().tobytes()] == []
    for agent in (whole, part, fresh):
        agent.env.close()
        agent.ref_env.close()


@sumo
def test_nothing_is_left_when_a_program_just_ends(tmp_path: Path) -> None:
    text = f"import gymnasium, rlkit.envs; e = gymnasium.make({ID!r}); e.reset(seed=0); print(len(e.step([0.0] * 10)))"
    environment = {"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == "5\n", done.stderr
    assert list(tmp_path.glob("rlkit-sumo-*")) == []
