"""Generated data: deterministic, of the exact size, unbiased by episode length, and honest about itself."""

import json

import gymnasium as gym
import numpy as np
import pytest

from rlkit.data import actors, behaviour_rollouts, rollouts
from rlkit.errors import DataError
from rlkit.registry import record
from rlkit.vector import make_vector_env


def test_same_seed_same_bytes(behaviours):
    a, b, c = (behaviour_rollouts(record("pendulum-medium"), size=450, seed=seed) for seed in (3, 3, 4))
    assert a.content_hash == b.content_hash != c.content_hash
    assert len(a) == 450 and a.episode_ends.tolist() == [200, 400, 450]
    assert a.truncations[-1] and not a.terminations.any()
    assert a.provenance.source == "generated" and "GENERATED" in a.provenance.sentence
    assert a.provenance.details["policies"]["medium"]["step"] == 1
    assert (a.reference, a.env_id, a.task) == ((-1500.0, -150.0), "Pendulum-v1", "pendulum")


def test_rows_are_real_transitions(behaviours):
    """Replaying the actions of an episode from its first state gives its states and rewards."""
    data = behaviour_rollouts(record("pendulum-expert"), size=430, seed=1)
    env = gym.make("Pendulum-v1")
    start = 200
    env.reset()
    cos, sin, speed = data.observations[start].astype(np.float64)
    env.unwrapped.state = np.array([np.arctan2(sin, cos), speed])
    for row in range(start, start + 100):
        np.testing.assert_allclose(data.observations[row], env.unwrapped._get_obs(), atol=2e-3)
        following, reward, *_ = env.step(data.actions[row])
        np.testing.assert_allclose(data.next_observations[row], following, atol=2e-3)
        assert data.rewards[row] == pytest.approx(reward, abs=2e-2)


def test_shares_are_equal_and_in_order(behaviours):
    data = behaviour_rollouts(record("pendulum-medium-replay"), size=301)
    assert len(data) == 301 and data.episode_ends.tolist() == [100, 200, 301]
    assert list(data.provenance.details["policies"]) == ["replay_00", "replay_01", "replay_02"]
    assert len(behaviour_rollouts(record("pendulum-medium-expert"), size=1)) == 1


def test_random_level_needs_no_behaviours():
    data = behaviour_rollouts(record("hopper-random"), size=400, seed=0)
    assert len(data) == 400 and data.actions.min() < -0.9 and data.actions.max() > 0.9
    assert data.terminations.sum() >= 5  # a hopper without a policy falls
    inside = ~(data.terminations | data.truncations)[:-1]
    np.testing.assert_array_equal(data.next_observations[:-1][inside], data.observations[1:][inside])
    assert data.content_hash == behaviour_rollouts(record("hopper-random"), size=400, seed=0).content_hash


class Lengths(gym.vector.VectorEnv):
    """Episodes of random lengths: the observation is (environment, episode, step), all known in advance."""

    def __init__(self, num_envs: int, mean: float):
        self.num_envs = num_envs
        self.mean = mean

    def _lengths(self):
        return 1 + self.rng.geometric(1 / self.mean, self.num_envs)

    def _observe(self):
        return np.stack([np.arange(self.num_envs), self.episode, self.step_], axis=1).astype(np.float64)

    def reset(self, *, seed=None, options=None):
        self.rng = np.random.default_rng(seed)
        self.episode, self.step_ = np.zeros(self.num_envs, int), np.zeros(self.num_envs, int)
        self.length, self.over = self._lengths(), np.zeros(self.num_envs, bool)
        return self._observe(), {}

    def step(self, actions):
        fresh = self.over.copy()
        self.step_ = np.where(fresh, 0, self.step_ + 1)
        self.episode += fresh
        self.length = np.where(fresh, self._lengths(), self.length)
        self.over = self.step_ >= self.length
        none = np.zeros(self.num_envs, bool)
        return self._observe(), self.step_ * 1.0, self.over.copy(), none, {}


def run(num_envs, size, mean, seed=0):
    def policy(observations, rng):
        return observations[:, :1]

    return rollouts.collect(Lengths(num_envs, mean), policy, size, np.random.default_rng(0), seed)


@pytest.mark.parametrize(("num_envs", "size", "mean"), [(1, 50, 5), (7, 200, 5), (16, 100, 40), (5, 4000, 2)])
def test_episodes_are_whole_and_in_order_of_their_start(num_envs, size, mean):
    rows = run(num_envs, size, mean)
    assert {len(array) for array in rows.values()} == {size}
    ends = np.flatnonzero(rows["terminations"] | rows["truncations"])
    assert ends[-1] == size - 1 and rows["truncations"].sum() <= 1
    start = 0
    for end in ends:
        episode = rows["observations"][start : end + 1]
        assert len({tuple(row[:2]) for row in episode}) == 1  # one environment, one of its episodes
        assert episode[:, 2].tolist() == list(range(end + 1 - start))  # from its first step on
        np.testing.assert_array_equal(rows["next_observations"][start : end + 1, 2], episode[:, 2] + 1)
        start = end + 1
    seen = [tuple(row[:2]) for row in rows["observations"][np.r_[0, ends[:-1] + 1]]]
    assert len(set(seen)) == len(seen)
    for env in range(num_envs):  # no episode of an environment is left out
        mine = [int(episode) for index, episode in seen if index == env]
        assert mine == list(range(len(mine)))


def test_short_episodes_are_not_favoured():
    """Mean length over many small collections, each far shorter than the environments' total work."""
    lengths = []
    for seed in range(60):
        rows = run(20, 400, 30, seed)
        ends = np.flatnonzero(rows["terminations"])
        lengths += np.diff(ends, prepend=-1).tolist()
    # One environment run for 400 steps loses its last, cut episode: that is the bias to compare with.
    single = []
    for seed in range(60):
        rows = run(1, 400, 30, 1000 + seed)
        single += np.diff(np.flatnonzero(rows["terminations"]), prepend=-1).tolist()
    assert np.mean(lengths) == pytest.approx(np.mean(single), rel=0.12)


def test_behaviour_matches_the_formula(behaviours):
    space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
    policy = actors.load_behaviour(behaviours / "pendulum_medium.safetensors", 3, space)
    x = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    from safetensors.numpy import load_file

    t = {k: v.astype(np.float64) for k, v in load_file(behaviours / "pendulum_medium.safetensors").items()}
    hidden = x
    for name in ("latent_pi.0", "latent_pi.2"):
        hidden = np.maximum(hidden @ t[f"{name}.weight"].T + t[f"{name}.bias"], 0)
    mean, log_std = (hidden @ t[f"{name}.weight"].T + t[f"{name}.bias"] for name in ("mu", "log_std"))
    np.testing.assert_allclose(policy(x), 2 * np.tanh(mean), atol=1e-5)
    noise = np.random.default_rng(7).standard_normal((5, 1), dtype=np.float32)
    wanted = 2 * np.tanh(mean + np.exp(np.clip(log_std, -20, 2)) * noise)
    np.testing.assert_allclose(policy(x, np.random.default_rng(7)), wanted, atol=1e-5)


def test_missing_and_altered_behaviours(behaviours):
    with pytest.raises(DataError, match=r"'halfcheetah-medium' cannot be generated.*train_behaviours.py halfcheetah"):
        behaviour_rollouts(record("halfcheetah-medium"), size=10)
    with pytest.raises(DataError, match="'pendulum' is for learning online"):
        behaviour_rollouts(record("pendulum"), size=10)
    with pytest.raises(DataError, match="size 0 and seed 0"):
        behaviour_rollouts(record("pendulum-medium"), size=0)
    file = behaviours / "pendulum_medium.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"x")
    with pytest.raises(DataError, match="is not the file its manifest describes"):
        behaviour_rollouts(record("pendulum-medium"), size=10)
    file.unlink()
    with pytest.raises(DataError, match="policy 'medium' of 'pendulum' is missing"):
        behaviour_rollouts(record("pendulum-medium"), size=10)
    file.write_bytes(b"no tensors")
    space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    with pytest.raises(DataError, match="is no safetensors file"):
        actors.load_behaviour(file, 3, space)
    file.write_bytes(content)
    with pytest.raises(DataError, match="the actor maps 3 numbers to 1, expected 4 to 1"):
        actors.load_behaviour(file, 4, space)
    (behaviours / "manifest.json").write_text(json.dumps({"format": 9}))
    with pytest.raises(DataError, match="expected a manifest of format 1"):
        behaviour_rollouts(record("pendulum-medium"), size=10)


def test_vector_env_prefers_the_native_batch(monkeypatch):
    env = make_vector_env("Pendulum-v1", 2)
    assert env.num_envs == 2 and isinstance(env, gym.vector.SyncVectorEnv)
    made = []
    monkeypatch.setattr(gym, "make_vec", lambda name, **kwargs: made.append((name, kwargs)) or env)
    native = gym.envs.registration.EnvSpec("rlkit/Pendulum-v1", vector_entry_point="nowhere:Batch")
    monkeypatch.setitem(gym.registry, "rlkit/Pendulum-v1", native)
    make_vector_env("Pendulum-v1", 3, g=9.0)
    assert made == [("rlkit/Pendulum-v1", {"num_envs": 3, "vectorization_mode": "vector_entry_point", "g": 9.0})]
    env.close()
