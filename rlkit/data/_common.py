"""What every reader and writer of datasets shares: spaces, the metadata block, validation, atomic files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.errors import DataError
from rlkit.files import replacing
from rlkit.registry import EnvRecord, records
from rlkit.vector import hush_mujoco

# Float32 rounding and old simulators put actions a hair outside their bounds.  An excess up to this share of the
# bounds' half width is clipped when data is read; anything larger is an error.
ACTION_TOLERANCE = 1e-3


@lru_cache(maxsize=64)
def _env_facts(env_id: str, kwargs: str) -> tuple[gym.Space, gym.Space, int | None]:
    try:
        hush_mujoco()
        env = gym.make(env_id, **json.loads(kwargs))
    except gym.error.Error as error:
        raise DataError(f"environment '{env_id}' cannot be made: {str(error).splitlines()[0]}") from None
    limit = env.spec.max_episode_steps if env.spec is not None else None
    env.close()
    return env.observation_space, env.action_space, limit


def env_facts(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> tuple[gym.Space, gym.Space, int | None]:
    """Observation space, action space and step limit of a Gymnasium id; :class:`DataError` if it cannot be made."""
    return _env_facts(env_id, json.dumps(dict(env_kwargs or {}), sort_keys=True))


def require_boxes(observation_space: Any, action_space: Any, where: str) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """The two spaces, or a :class:`DataError` where one is not a Box."""
    for what, space in (("observation", observation_space), ("action", action_space)):
        if not isinstance(space, gym.spaces.Box):
            raise DataError(f"{where}: the {what} space is {type(space).__name__}, expected a Box")
    return observation_space, action_space


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


def _space_to_json(space: gym.spaces.Box) -> dict[str, Any]:
    return {
        "shape": list(space.shape),
        "dtype": str(space.dtype),
        "low": space.low.tolist(),
        "high": space.high.tolist(),
    }


def _space_from_json(data: Mapping[str, Any]) -> gym.spaces.Box:
    dtype = np.dtype(data["dtype"])
    low, high = np.array(data["low"], dtype=dtype), np.array(data["high"], dtype=dtype)
    return gym.spaces.Box(low, high, shape=tuple(data["shape"]), dtype=dtype.type)


def metadata_of(dataset: OfflineDataset) -> dict[str, Any]:
    """What a file must carry beside the arrays so that reading it gives the same dataset; plain JSON values."""
    provenance = dataset.provenance
    return {
        "format": 1,
        "env_id": dataset.env_id,
        "env_kwargs": dict(dataset.env_kwargs),
        "reference": list(dataset.reference) if dataset.reference else None,
        "family": dataset.family,
        "task": dataset.task,
        "parts": [list(part) for part in dataset.parts],
        "observation_space": _space_to_json(dataset.observation_space),
        "action_space": _space_to_json(dataset.action_space),
        "origin": {
            "source": provenance.source,
            "locator": provenance.locator,
            "name": provenance.name,
            "details": provenance.details,
        },
    }


def plain_env_id(env_id: str, where: str) -> str:
    """``env_id`` if making it imports nothing by its name: Gymnasium reads ``module:id`` as an order to import."""
    if ":" in env_id:
        raise DataError(f"{where}: environment '{env_id}' names a module to import, expected a plain Gymnasium id")
    return env_id


def fields_from_metadata(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`metadata_of`, provenance excepted; ``{}`` where ``meta`` is empty."""
    if not meta:
        return {}
    return {
        "env_id": meta["env_id"] and plain_env_id(meta["env_id"], "rlkit's metadata"),
        "env_kwargs": dict(meta["env_kwargs"]),
        "reference": tuple(meta["reference"]) if meta["reference"] else None,
        "family": meta["family"],
        "task": meta["task"],
        "parts": tuple((str(name), int(rows)) for name, rows in meta.get("parts", ())),
        "observation_space": _space_from_json(meta["observation_space"]),
        "action_space": _space_from_json(meta["action_space"]),
    }


def provenance_of_copy(source: Any, locator: str, name: str, meta: Mapping[str, Any]) -> Provenance:
    """Provenance of data read from a copy: what was generated stays generated, however often it is copied."""
    origin = meta.get("origin") if meta else None
    if not origin:
        return Provenance(source, locator, name)
    name = name if name != "unnamed" else origin["name"]
    if origin["source"] == "generated":
        made = origin["locator"].split(" <- ")[-1]
        return Provenance("generated", f"{locator} <- {made}", name, dict(origin["details"]))
    return Provenance(source, locator, name, {"origin": f"{origin['source']} {origin['locator']}"})


def validate(arrays: dict[str, np.ndarray], action_space: gym.spaces.Box, where: str) -> int:
    """Raise :class:`DataError` for NaN, infinities and actions out of bounds; clip rounding excess in place.

    ``arrays`` holds observations ``[N, ds]``, actions ``[N, da]``, rewards ``[N]`` and perhaps next_observations
    ``[N, ds]``, all float32.  Returns the number of actions clipped, whose excess is at most ``ACTION_TOLERANCE``.
    """
    for name in ("observations", "actions", "rewards", "next_observations"):
        if name not in arrays:
            continue
        flat = arrays[name].reshape(len(arrays[name]), -1)
        with np.errstate(invalid="ignore"):  # inf - inf
            if np.isfinite(flat.sum(dtype=np.float64)):  # one pass when all is well: NaN and infinities survive a sum
                continue
        bad = np.argwhere(~np.isfinite(flat))
        if len(bad):
            row, column = bad[0]
            at = f"row {row}" + (f", column {column}" if arrays[name].ndim > 1 else "")
            raise DataError(f"{where}: '{name}' holds {flat[row, column]} at {at}, expected finite numbers")
    actions = arrays["actions"]
    low, high = action_space.low.astype(np.float32), action_space.high.astype(np.float32)
    outside = (actions < low) | (actions > high)
    if not outside.any():
        return 0
    slack = ACTION_TOLERANCE * np.where(np.isfinite(high - low), (high - low) / 2, 1.0)
    bad = np.argwhere((actions < low - slack) | (actions > high + slack))
    if len(bad):
        row, *column = (int(i) for i in bad[0])
        cell = (row, *column)
        raise DataError(
            f"{where}: action {actions[cell]:g} at row {row}, column {column[0] if column else 0} is out of bounds, "
            f"expected [{low[tuple(column)]:g}, {high[tuple(column)]:g}]"
        )
    np.clip(actions, low, high, out=actions)
    return int(outside.sum())


def first_broken_join(dataset: OfflineDataset) -> tuple[int, int]:
    """Number of rows inside an episode whose ``next_observations`` is not the following row's observation, and the
    first of them (-1 if none).  Two NaNs count as equal: they are another check's business."""
    inside = np.flatnonzero(~(dataset.terminations | dataset.truncations)[:-1])
    here, following = dataset.next_observations[inside], dataset.observations[inside + 1]
    differs = (here != following) & ~(np.isnan(here) & np.isnan(following))
    rows = inside[differs.any(axis=tuple(range(1, differs.ndim)))]
    return len(rows), int(rows[0]) if len(rows) else -1


@contextmanager
def atomic_path(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place, flushed to disk, once the block ends without an error."""
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists already; choose another name, or allow overwriting it")
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected the name of a file to write")
    if not path.parent.is_dir():
        raise DataError(f"cannot write {path}: the folder {path.parent} does not exist")
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
