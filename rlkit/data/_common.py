"""What every reader and writer of datasets shares: spaces, the metadata block, validation, atomic files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.errors import DataError, refusing, shown
from rlkit.registry import ENV_ID, EnvRecord, environment, is_known, records, reference_returns
from rlkit.spaces import read_space
from rlkit.system.files import replacing
from rlkit.system.machine import memory
from rlkit.vector import hush_mujoco

# Float32 rounding and old simulators put actions a hair outside their bounds.  An excess up to this share of the
# bounds' half width is clipped when data is read; anything larger is an error.
ACTION_TOLERANCE = 1e-3
DEFLATE = 1100  # what compressed bytes can become, at most
USUAL, SMALL = 64, 64 << 20  # what they become in arrays of data, and the bytes of an array that may be all alike
MAX_METADATA = 16 << 20  # bytes of the JSON beside the arrays
LAYOUT_CHUNKED, LAYOUT_VIRTUAL = 2, 3  # h5py.h5d.CHUNKED and VIRTUAL


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


def _space_from_json(data: Mapping[str, Any], where: str) -> gym.spaces.Box:
    space = read_space({**data, "type": "Box"}, where)
    assert isinstance(space, gym.spaces.Box)
    return space


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


def fields_from_metadata(meta: Any, where: str = "rlkit's metadata") -> dict[str, Any]:
    """The inverse of :func:`metadata_of`, provenance excepted; ``{}`` where ``meta`` is empty.

    Raises :class:`DataError` that begins with ``where`` for anything that :func:`metadata_of` does not write.
    """
    if not meta:
        return {}
    with refusing(where, "is damaged, expected JSON as rlkit writes it", DataError):
        return {
            **environment_fields(meta["env_id"], meta["env_kwargs"], meta["reference"], where),
            "family": _word(meta["family"], where),
            "task": _word(meta["task"], where),
            "parts": tuple((_word(name, where), _rows(rows, where)) for name, rows in meta.get("parts", ())),
            "observation_space": _space_from_json(meta["observation_space"], f"{where}: observation_space"),
            "action_space": _space_from_json(meta["action_space"], f"{where}: action_space"),
        }


def _word(text: Any, where: str) -> str:
    if not isinstance(text, str) or not text.isprintable() or len(text) > 200:
        raise DataError(f"{where}: {shown(text)} is no name, expected one line of text")
    return text


def _rows(count: Any, where: str) -> int:
    if type(count) is not int or not 0 < count < 2**40:
        raise DataError(f"{where}: {shown(count)} is no number of rows")
    return count


def provenance_of_copy(source: Any, locator: str, name: str, meta: Mapping[str, Any]) -> Provenance:
    """Provenance of data read from a copy: what was generated stays generated, however often it is copied."""
    origin = meta.get("origin") if meta else None
    if not origin:
        return Provenance(source, locator, name)
    with refusing(locator, "does not say where its data is from, expected JSON as rlkit writes it", DataError):
        made_by, told, place = (_word(origin[key][:200], locator) for key in ("source", "name", "locator"))
        details = dict(origin["details"])
    name = name if name != "unnamed" else told
    if made_by == "generated":
        return Provenance("generated", f"{locator} <- {place.split(' <- ')[-1]}", name, details)
    return Provenance(source, locator, name, {"origin": f"{made_by} {place}"})


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


def require_flags(values: np.ndarray, where: str) -> None:
    """Raise :class:`DataError` unless all ``values`` are 0 or 1, the way to say no and yes in any dtype."""
    bad = np.flatnonzero((values != 0) & (values != 1))  # NaN is neither
    if len(bad):
        raise DataError(f"{where} holds {values.ravel()[bad[0]]} at row {bad[0]}, expected flags, each 0 or 1")


def first_broken_join(dataset: OfflineDataset) -> tuple[int, int]:
    """Number of rows inside an episode whose ``next_observations`` is not the following row's observation, and the
    first of them (-1 if none).  Two NaNs count as equal: they are another check's business."""
    inside = np.flatnonzero(~(dataset.terminations | dataset.truncations)[:-1])
    here, following = dataset.next_observations[inside], dataset.observations[inside + 1]
    differs = (here != following) & ~(np.isnan(here) & np.isnan(following))
    rows = inside[differs.any(axis=tuple(range(1, differs.ndim)))]
    return len(rows), int(rows[0]) if len(rows) else -1


def require_held(node: Any, where: str) -> None:
    """Raise :class:`DataError` unless the ``h5py.h5d.DatasetID`` has as many numbers as it declares, in its own file.

    HDF5 gives fill values for what was never written: a file of a kilobyte may declare any size, and reading would take
    that much memory.  Compressed numbers may take a thousandth of their size, the most that deflate reaches; where they
    are many, what is usual for data.
    """
    plan, declared = node.get_create_plist(), math.prod(node.shape) * node.dtype.itemsize
    if plan.get_external_count() or plan.get_layout() == LAYOUT_VIRTUAL:
        raise DataError(f"{where} refers to other files, expected its numbers in the file itself")
    held = node.get_storage_size() * ((DEFLATE if declared <= SMALL else USUAL) if plan.get_nfilters() else 1)
    chunk = math.prod(plan.get_chunk()) * node.dtype.itemsize if plan.get_layout() == LAYOUT_CHUNKED else 0
    if chunk > max(declared, SMALL):
        raise DataError(f"{where} is kept in parts of {chunk:,} bytes, expected none larger than the whole")
    if declared > held or declared > memory():
        raise DataError(f"{where} declares {declared:,} bytes of numbers, the file holds {node.get_storage_size():,}")


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
