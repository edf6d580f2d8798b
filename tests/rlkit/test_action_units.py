"""Actions inside an agent are in [-1, 1]: learning is the same in every unit; boxes without units are refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlkit import registry
from rlkit.algorithms.action_units import action_units
from rlkit.algorithms.base import Persistent
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.algorithms.replay import Replay
from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.errors import ArtefactError, UserError

OFFLINE = [n for n in registry.agent_names() if issubclass(registry.agent_class(n), OfflineAlgorithm)]
ONLINE = ["beer", "vagram"]
INF, MOST = np.inf, np.finfo(np.float32).max


def box(low: Any, high: Any) -> gym.spaces.Box:
    return gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)


def data(space: gym.spaces.Box, n: int = 240) -> OfflineDataset:
    """The same rows in the units of ``space``: bounds that are whole powers of two lose no bit."""
    random = np.random.default_rng(0)
    observations = random.normal(size=(n + 1, 3)).astype(np.float32)
    unit = (random.integers(-1024, 1025, size=(n, *space.shape)) / 1024).astype(np.float32)
    with np.errstate(all="ignore"):
        actions = (space.low + space.high) / 2 + (space.high - space.low) / 2 * unit
        actions = np.nan_to_num(actions).astype(np.float32)
    ended = np.zeros(n, np.bool_)
    ended[19::20] = True
    rewards = -np.square(unit[:, 0] - 0.5)
    return OfflineDataset(
        observations[:-1],
        actions,
        rewards.astype(np.float32),
        observations[1:],
        np.zeros(n, np.bool_),
        ended,
        gym.spaces.Box(-INF, INF, (3,), np.float32),
        space,
        Provenance("memory", "rows"),
        parts=(("expert", 80), ("suboptimal", n - 80)),
    )


def make(name: str, source: Any, **more: Any) -> Any:
    cls = registry.agent_class(name)
    known = {f.name for f in fields(cls.Config)}
    small = {"hidden_sizes": (16,), "batch_size": 16, "buffer_size": 200, "learning_starts": 20, "rank_interval": 0}
    small |= {"lam": 0.6} if name == "fdvl" else {}
    small |= {"model_loss": "none", "updates_per_step": 1} if name == "vagram" else {}
    chosen = {key: value for key, value in small.items() if key in known}
    return cls("MlpPolicy", source, device="cpu", seed=0, **chosen, **more)


class Push(gym.Env):
    """Reward is the distance of the action, in units of the box, from ½."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, space: gym.spaces.Box):
        self.action_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        unit = (action - (self.action_space.low + self.action_space.high) / 2) / (
            (self.action_space.high - self.action_space.low) / 2
        )
        seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return seen, -float(np.square(unit - 0.5).mean()), False, self.t >= 10, {}


OTHERS = [box([-4, -0.25], [4, 0.25]), box([0, -128], [0.5, 0]), box([-1 / 64, 0], [1 / 64, 2])]


@pytest.mark.parametrize("name", OFFLINE)
def test_what_is_learnt_is_the_same_in_every_unit(name: str, tmp_path: Path) -> None:
    plain = make(name, data(box([-1, -1], [1, 1]))).learn(20)
    seen = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)
    expected = plain.predict(seen)[0]
    for space in OTHERS:
        agent = make(name, data(space)).learn(20)
        ours, theirs = agent.model_tensors(), plain.model_tensors()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)
        found = agent.predict(seen)[0]
        reach, centre = (space.high - space.low) / 2, (space.high + space.low) / 2
        np.testing.assert_allclose((found - centre) / reach, expected, atol=1e-5)
        assert (found >= space.low).all() and (found <= space.high).all()
        sampled = agent.predict(seen, deterministic=False)[0]
        assert (sampled >= space.low).all() and (sampled <= space.high).all()
        agent.save(tmp_path / f"{name}.rlk")
        loaded = Persistent.load(tmp_path / f"{name}.rlk", device="cpu")
        np.testing.assert_array_equal(loaded.predict(seen)[0], found)


@pytest.mark.parametrize("name", ONLINE)
def test_online_too(name: str) -> None:
    def learnt(space: gym.spaces.Box) -> Any:
        return make(name, gym.wrappers.TimeLimit(Push(space), 10)).learn(40)

    expected = learnt(box([-1, -1], [1, 1])).model_tensors()
    for space in OTHERS:
        found = learnt(space).model_tensors()
        for key in expected:  # rewards are rounded in another unit
            torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-4)


WITHOUT_UNITS = {
    "unbounded": (box([-INF, -INF], [INF, INF]), "column 0 of the action space goes from -inf to inf"),
    "half": (box([-1, 0], [1, INF]), "column 1 of the action space goes from 0 to inf"),
    "other half": (box([-INF, 0], [0, 1]), "column 0 of the action space goes from -inf to 0"),
    "width beyond float32": (box([-MOST, -1], [MOST, 1]), "column 0 of the action space goes from -3.40282e+38"),
    "no width": (box([-1, 0.5], [1, 0.5]), "column 1 of the action space goes from 0.5 to 0.5"),
    "width below float32": (box([0, 0], [1, 1e-45]), "column 1 of the action space goes from 0 to"),
    "float64": (gym.spaces.Box(-1e300, 1e300, (2,), np.float64), "column 0 of the action space goes from -1e"),
}


@pytest.mark.parametrize("kind", WITHOUT_UNITS)
@pytest.mark.parametrize("name", [*OFFLINE, *ONLINE])
def test_a_box_without_units_is_one_sentence_before_training(name: str, kind: str) -> None:
    space, sentence = WITHOUT_UNITS[kind]
    with pytest.raises(UserError) as caught:
        make(name, data(space) if name in OFFLINE else Push(space))
    text = str(caught.value)
    assert text.startswith("the agent acts within bounds: ") and sentence in text and "\n" not in text


def test_units_fill_the_box_to_its_corners() -> None:
    for space in [*OTHERS, box([-3, 7], [1e6, 7.5])]:
        reach, centre = action_units(space)
        torch.testing.assert_close(centre + reach, torch.as_tensor(space.high))
        torch.testing.assert_close(centre - reach, torch.as_tensor(space.low))
        rows = Replay.from_dataset(data(space)).batch(200).actions
        assert rows.abs().max() <= 1 + 1e-6 and rows.min() < -0.9 and rows.max() > 0.9


def test_a_checkpoint_from_before_is_resumed_only_where_nothing_changed(tmp_path: Path) -> None:
    for space, fits in ((box([-1, -1], [1, 1]), True), (OTHERS[0], False)):
        agent = make("td3bc", data(space)).learn(4)
        values = agent.state_values()
        del values["actions"]  # as it was written then
        agent.state_values = lambda values=values: values
        agent.save_checkpoint(tmp_path / "old.rlk")
        if fits:
            make("td3bc", data(space)).restore(tmp_path / "old.rlk")
        else:
            with pytest.raises(ArtefactError, match="other units"):
                make("td3bc", data(space)).restore(tmp_path / "old.rlk")
