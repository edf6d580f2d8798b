"""The packed replay against SB3's ReplayBuffer."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from rlkit.algorithms.replay import Replay
from rlkit.errors import UserError

OBS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACT = gym.spaces.Box(-1, 1, (2,), np.float32)


def step(generator: np.random.Generator, n: int) -> tuple[Any, ...]:
    done = generator.random(n) < 0.3
    infos = [{"TimeLimit.truncated": bool(d and generator.random() < 0.5)} for d in done]
    draw = generator.standard_normal
    floats = (draw((n, 3)), draw((n, 3)), draw((n, 2)), draw(n))
    return (*(x.astype(np.float32) for x in floats), done, infos)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 40), st.integers(0, 2**16))
def test_holds_what_sb3s_buffer_holds(n: int, slots: int, steps: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    ours = Replay(slots * n, OBS, ACT, n_envs=n)
    theirs = ReplayBuffer(slots * n, OBS, ACT, "cpu", n_envs=n)
    for _ in range(steps):
        transition = step(generator, n)
        ours.add(*transition)
        theirs.add(*transition)
    assert ours.size() == theirs.size() * n
    if ours.size():
        rows = ours.rows[: ours.size()].reshape(-1, n, ours.rows.shape[1])
        obs, act, reward, not_terminal, nxt = rows.split(ours.widths, dim=2)
        size = theirs.size()
        for mine, other in ((obs, theirs.observations), (act, theirs.actions), (nxt, theirs.next_observations)):
            np.testing.assert_array_equal(mine.numpy(), other[:size])
        np.testing.assert_array_equal(reward[..., 0].numpy(), theirs.rewards[:size])
        dones = theirs.dones[:size] * (1 - theirs.timeouts[:size])
        np.testing.assert_array_equal(1 - not_terminal[..., 0].numpy(), dones)


def test_sample_has_sb3s_shapes_and_normalises_with_vecnormalize() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = Replay(64, OBS, ACT), ReplayBuffer(64, OBS, ACT, "cpu")
    for _ in range(64):
        transition = step(generator, 1)
        ours.add(*transition)
        theirs.add(*transition)
    mine, other = ours.sample(8), theirs.sample(8)
    for name in ("observations", "actions", "next_observations", "dones", "rewards"):
        assert getattr(mine, name).shape == getattr(other, name).shape, name
    env = VecNormalize(make_vec_env(toy.ENV_ID, 1))
    env.obs_rms.mean[:], env.obs_rms.var[:] = 1.0, 4.0
    ours.generator.manual_seed(1)
    raw = ours.sample(8)
    ours.generator.manual_seed(1)
    normalised = ours.sample(8, env)
    expected = env.normalize_obs(raw.observations.numpy())
    np.testing.assert_allclose(normalised.observations.numpy(), expected, rtol=1e-6)


def test_own_generator_and_exact_restore() -> None:
    replay = Replay.from_dataset(toy.generate(), seed=5)
    state = torch.get_rng_state()
    first = replay.batch(16)
    assert torch.equal(torch.get_rng_state(), state)
    saved = {k: v.clone() for k, v in replay.state().items()}
    expected = [replay.batch(16).indices for _ in range(3)]
    other = Replay.from_dataset(toy.generate(), seed=9)
    other.load_state(saved)
    assert all(torch.equal(other.batch(16).indices, e) for e in expected)
    assert torch.equal(Replay.from_dataset(toy.generate(), seed=5).batch(16).indices, first.indices)


def test_sampling_is_uniform() -> None:
    replay = Replay.from_dataset(toy.generate(size=50))
    counts = torch.bincount(replay.batch(50_000).indices, minlength=50).double()
    chi2 = ((counts - 1000) ** 2 / 1000).sum().item()
    assert chi2 < 95  # 49 degrees of freedom: above this with probability 1e-4


def test_refuses_other_spaces() -> None:
    with pytest.raises(UserError, match="one-dimensional Box"):
        Replay(4, gym.spaces.Discrete(3), ACT)
