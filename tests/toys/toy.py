"""A problem small enough for every contract: a point in a square, pushed towards a corner."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.registry import DataSpec, EnvRecord, add_records

ENV_ID = "rlkit-test/Point-v0"
LIMIT = 20


class Point(gym.Env):
    """Observation (x, y, 1); action = push in [-1, 1]²; reward = -distance to (1, 1); ends early beyond the square."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # Gymnasium declares it so
    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 2)
        return self._see(), {}

    def _see(self) -> np.ndarray:
        return np.array([*self.at, 1.0], np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.at = self.at + 0.2 * np.clip(action, -1, 1)
        reward = -float(np.linalg.norm(self.at - 1.0))
        return self._see(), reward, bool(np.abs(self.at).max() > 1.1), False, {}


if ENV_ID not in gym.registry:
    gym.register(ENV_ID, "toy:Point", max_episode_steps=LIMIT)


def generate(
    record: EnvRecord | None = None, *, size: int = 600, seed: int = 0, progress: bool = False
) -> OfflineDataset:
    """Rows of a noisy controller that heads for the corner.

    All of one quality, yet labelled as imitation data is, for those who need it; the others do not look.
    """
    generator = np.random.default_rng(seed)
    env = gym.make(ENV_ID)
    rows: list[tuple] = []
    observation, _ = env.reset(seed=seed)
    while len(rows) < size:
        action = np.clip((1.0 - observation[:2]) + 0.3 * generator.standard_normal(2), -1, 1).astype(np.float32)
        successor, reward, terminated, truncated, _ = env.step(action)
        last = len(rows) == size - 1
        rows.append((observation, action, reward, successor, terminated, (truncated or last) and not terminated))
        observation = successor
        if terminated or truncated:
            observation, _ = env.reset()
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    ends = np.flatnonzero(np.logical_or(*columns[4:])) + 1
    labelled, hidden = (int(ends[share * (len(ends) - 1) // 8]) for share in (1, 2))
    sizes = {"expert": labelled, "hidden": hidden - labelled, "suboptimal": size - hidden}
    return OfflineDataset(
        *(c.astype(np.float32) for c in columns[:4]),
        *(c.astype(bool) for c in columns[4:]),
        Point.observation_space,
        Point.action_space,
        Provenance("generated", "a noisy controller", record.name if record else "point-noisy"),
        env_id=ENV_ID,
        reference=(-30.0, -5.0),
        family="toy",
        task="point",
        parts=tuple((part, rows) for part, rows in sizes.items() if rows),
    )


RECORD = EnvRecord(
    "point-noisy",
    "a point pushed to a corner",
    ENV_ID,
    "toy",
    "point",
    DataSpec("noisy", "toy:generate", (-30.0, -5.0), size=600),
)
POLE = EnvRecord("small-pole", "a pole on a cart", "InvertedPendulum-v5", "toy", "pole")
add_records([RECORD, POLE])
