"""Minari's goal-aware datasets, whose observations are a Dict, as ones whose observations are one vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.errors import DataError


@dataclass(frozen=True)
class FlatMinari:
    """What ``rlkit.data.from_minari`` asks of a ``MinariDataset``; made by :func:`flat_observations`."""

    source: Any
    keys: tuple[str, ...]
    observation_space: gym.spaces.Box
    storage: Any

    @property
    def id(self) -> str:
        return self.source.id

    @property
    def action_space(self) -> gym.Space[Any]:
        return self.source.action_space

    @property
    def env_spec(self) -> Any:
        return self.source.env_spec

    @property
    def episode_indices(self) -> Any:
        return self.source.episode_indices

    def iterate_episodes(self) -> Iterator[Any]:
        """Episodes with observations float32 ``[T + 1, ds]``; the rest is theirs."""
        for episode in self.source.iterate_episodes():
            parts = [np.asarray(episode.observations[key], np.float32) for key in self.keys]  # [T + 1, dk] each
            yield SimpleNamespace(
                observations=np.concatenate(parts, axis=1),  # [T + 1, ds]
                actions=episode.actions,
                rewards=episode.rewards,
                terminations=episode.terminations,
                truncations=episode.truncations,
            )


def flat_observations(source: Any, keys: Sequence[str]) -> Any:
    """The ``MinariDataset`` with the parts ``keys`` of its Dict observations joined, or as it is where they are a Box.

    Raises :class:`DataError` where a part is missing or no vector.
    """
    space = source.observation_space
    if not isinstance(space, gym.spaces.Dict):
        return source
    boxes = []
    for key in keys:
        box = space.spaces.get(key)
        if not isinstance(box, gym.spaces.Box) or len(box.shape) != 1:
            found = ", ".join(space.spaces)
            raise DataError(f"Minari dataset '{source.id}': '{key}' is no vector of its observations ({found})")
        boxes.append(box)
    low, high = (np.concatenate([getattr(box, side) for box in boxes]).astype(np.float32) for side in ("low", "high"))
    # Any other format than "hdf5" is read through iterate_episodes.
    storage = SimpleNamespace(
        metadata={**source.storage.metadata, "data_format": "flat"}, data_path=source.storage.data_path
    )
    return FlatMinari(source, tuple(keys), gym.spaces.Box(low, high, dtype=np.float32), storage)
