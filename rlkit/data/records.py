"""What a record or an environment says of a dataset: names, ids, spaces, fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym

from rlkit.errors import DataError, refusing, shown
from rlkit.registry import ENV_ID, EnvRecord, environment, is_known, records, reference_returns
from rlkit.vector import hush_mujoco


@lru_cache(maxsize=64)
def _env_facts(env_id: str, kwargs: str) -> tuple[gym.Space, gym.Space, int | None]:
    with refusing(f"environment '{env_id}'", "cannot be made", DataError):
        hush_mujoco()
        env = gym.make(env_id, **json.loads(kwargs))
    limit = env.spec.max_episode_steps if env.spec is not None else None
    env.close()
    return env.observation_space, env.action_space, limit


def env_facts(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> tuple[gym.Space, gym.Space, int | None]:
    """Observation space, action space and step limit of a Gymnasium id; :class:`DataError` if it cannot be made.

    An id with a module to import, which Gymnasium would import, is refused.
    """
    if not ENV_ID.fullmatch(env_id):
        raise DataError(f"environment {shown(env_id)} is no plain id, expected one like 'Hopper-v5'")
    return _env_facts(env_id, json.dumps(dict(env_kwargs or {}), sort_keys=True))


def require_boxes(observation_space: Any, action_space: Any, where: str) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """The two spaces, or a :class:`DataError` where one is not a Box."""
    for what, space in (("observation", observation_space), ("action", action_space)):
        if not isinstance(space, gym.spaces.Box):
            raise DataError(f"{where}: the {what} space is {type(space).__name__}, expected a Box")
    return observation_space, action_space


def require_learnable(
    observation_space: Any, action_space: Any, where: str
) -> tuple[gym.spaces.Box, gym.spaces.Box | gym.spaces.Discrete]:
    """The two spaces, or a :class:`DataError` where the first is no Box, or the second neither Box nor Discrete."""
    if isinstance(action_space, gym.spaces.Discrete):
        return require_boxes(observation_space, observation_space, where)[0], action_space
    return require_boxes(observation_space, action_space, where)


def find_record(key: str) -> EnvRecord | None:
    """The record whose name, Minari id, generated id or D4RL id is ``key`` (or a file's stem like it)."""
    stem = Path(key).stem.replace("_", "-") if key.endswith((".hdf5", ".h5")) else key
    for record in records().values():
        if record.data is None:
            continue
        names = {record.name, record.data.minari_id, record.data.d4rl_id, generated_id(record)}
        if stem in names or re.sub(r"/(.*)-n\d+-s\d+-v0$", r"/\1-v0", stem) in names:
            return record
    return None


def generated_id(record: EnvRecord, size: int | None = None, seed: int = 0) -> str:
    """Minari id of the record's generated data; another size or seed than the default has an id of its own.

    So a quick look at ten thousand rows does not evict the million that took minutes.
    """
    assert record.data is not None
    usual = (size is None or size == record.data.size) and seed == 0
    return f"rlkit/{record.task}/{record.data.level}{'' if usual else f'-n{size or record.data.size}-s{seed}'}-v0"


def record_fields(record: EnvRecord | None) -> dict[str, Any]:
    """Fields of :class:`OfflineDataset` that a record settles."""
    if record is None:
        return {}
    return {
        "env_id": record.env_id,
        "env_kwargs": dict(record.env_kwargs),
        "reference": record.data.reference if record.data else None,
        "family": record.family,
        "task": record.task,
    }


def environment_fields(env_id: Any, kwargs: Any, reference: Any, where: str) -> dict[str, Any]:
    """Fields of :class:`OfflineDataset` for the environment that a file names, checked by the registry.

    An id that nothing is registered under is left out: the data is learnt from without evaluation.  Raises
    :class:`DataError` for what :func:`rlkit.registry.environment` refuses.
    """
    with refusing(where, "names no environment", DataError):
        found = environment({"id": env_id, "kwargs": kwargs}, where)
        returns = reference_returns(reference, where)
    if found is None or not is_known(found):
        return {"env_id": None, "env_kwargs": {}, "reference": returns}
    return {"env_id": found.env_id, "env_kwargs": dict(found.env_kwargs), "reference": returns}
