"""D4RL's legacy HDF5 files, read and written with h5py alone.

Layout: ``observations [N, ds]``, ``actions [N, da]``, ``rewards [N]``, ``terminals [N]``, and optionally
``timeouts [N]`` and ``next_observations [N, ds]``; ``infos/*`` and ``metadata/*`` are ignored, save for
``metadata/rlkit``, a JSON string by which a file written here is read back as the same dataset.

Where ``next_observations`` is missing, a row's successor is the following row's observation.  The successor of a row
at a timeout, or at the end of the file, is then unknown: as in ``d4rl.qlearning_dataset`` that transition is dropped,
and the row before it is flagged as truncated so that the episode still ends where it ends.  A terminal row needs no
successor (its bootstrap is masked), so it is kept, also when flagged as a timeout too; its ``next_observations`` is
its own observation, never the first of the next episode.

Files older than ``timeouts`` have them inferred as D4RL does: an episode is cut after the environment's step limit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np

from rlkit.data.dataset import OfflineDataset
from rlkit.data.files import atomic_path, reading, require_held
from rlkit.data.metadata import MAX_METADATA, fields_from_metadata, metadata_of, provenance_of_copy
from rlkit.data.records import env_facts, find_record, record_fields, require_boxes
from rlkit.data.validate import require_flags, validate
from rlkit.errors import DataError, refusing
from rlkit.registry import EnvRecord
from rlkit.system.files import require_whole

SUFFIXES = (".hdf5", ".h5")
MOVED = 100_000  # rows at once
DEFAULT_LIMIT = 1000  # of the environments D4RL recorded before it stored timeouts


def _open(path: Path) -> h5py.File:
    if not path.exists():
        raise DataError(f"{path} does not exist, expected a D4RL HDF5 file")
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a D4RL HDF5 file")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes), expected a D4RL HDF5 file; download or copy it again")
        require_whole(path, DataError)
        return h5py.File(path, "r")
    except OSError as error:
        text = str(error)
        if "truncated" in text:
            raise DataError(f"{path} is truncated, its end is missing; download or copy it again") from None
        if "signature" in text:
            raise DataError(f"{path} is not an HDF5 file, expected D4RL's layout") from None
        raise DataError(f"{path} cannot be opened as HDF5: {error.strerror or text}") from None


def has_d4rl_layout(path: str | Path) -> bool:
    """Whether a file is to be read as D4RL's: an HDF5 file with its two main arrays, or one that cannot be opened.

    Actions of one number a row may be discrete, and are read as a log.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        return False
    if not path.is_file() or not h5py.is_hdf5(path):
        return True  # reading it says what is wrong
    with refusing(path, "is damaged; download or copy it again", DataError), _open(path) as file:
        if not {"observations", "actions"} <= set(file):
            return not len(file)
        own = isinstance(file.get("actions", getlink=True), h5py.HardLink)  # others may lead out of the file
        return not own or len(getattr(file["actions"], "shape", None) or ()) != 1


def _read(file: h5py.File, name: str, dtype: Any, path: Path) -> np.ndarray | None:
    """The array called ``name`` in ``dtype``, or None.  Links out of the file are not followed."""
    if file.get(name, getlink=True) is None:
        return None
    node = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "fiub" or node.shape is None:
        raise DataError(f"{path}: '{name}' is not an array of numbers inside the file")
    require_held(node.id, f"{path}: '{name}'")
    try:
        values = node[()]
        if dtype is np.bool_:
            require_flags(values, f"{path}: '{name}'")
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes an infinity, which validation names
            return np.ascontiguousarray(values.astype(dtype))
    except OSError:
        raise DataError(f"{path}: '{name}' cannot be read, the file is damaged; download or copy it again") from None


def _metadata(file: h5py.File, path: Path) -> dict[str, Any]:
    group = file["metadata"] if isinstance(file.get("metadata", getlink=True), h5py.HardLink) else None
    if not isinstance(group, h5py.Group) or not isinstance(group.get("rlkit", getlink=True), h5py.HardLink):
        return {}
    node = group["rlkit"]
    if not isinstance(node, h5py.Dataset) or node.shape != () or h5py.check_string_dtype(node.dtype) is None:
        raise DataError(f"{path}: 'metadata/rlkit' is damaged, expected JSON as rlkit writes it")
    require_held(node.id, f"{path}: 'metadata/rlkit'")
    try:
        text = node[()]
        meta = json.loads(text) if len(text) <= MAX_METADATA else None
    except (ValueError, TypeError, AttributeError, OSError, RecursionError, MemoryError):
        raise DataError(f"{path}: 'metadata/rlkit' is damaged, expected JSON as rlkit writes it") from None
    if not isinstance(meta, dict):
        raise DataError(f"{path}: 'metadata/rlkit' is damaged, expected JSON as rlkit writes it")
    return meta


def _raw(file: h5py.File, path: Path, progress: bool) -> dict[str, np.ndarray]:
    """The file's arrays with the dtypes of :class:`OfflineDataset`, of equal lengths."""
    kinds = {"observations": np.float32, "actions": np.float32, "rewards": np.float32, "terminals": np.bool_}
    arrays: dict[str, np.ndarray] = {}
    every = {**kinds, "timeouts": np.bool_, "next_observations": np.float32}
    with reading(path, len(every), "array", progress) as bar:
        for name, kind in every.items():
            array = _read(file, name, kind, path)
            bar.update()
            if array is not None:
                arrays[name] = array
            elif name in kinds:
                found = ", ".join(sorted(file)) or "nothing"
                raise DataError(f"{path} has no '{name}', expected D4RL's layout; it holds {found}")
    for name in ("rewards", "terminals", "timeouts"):
        if name in arrays and arrays[name].ndim == 2 and arrays[name].shape[1] == 1:
            arrays[name] = arrays[name][:, 0]
    n = len(arrays["observations"]) if arrays["observations"].ndim else 0
    for name, array in arrays.items():
        per_row = name in ("rewards", "terminals", "timeouts")
        if array.ndim == 0 or len(array) != n or (array.ndim != 1 if per_row else array.ndim < 2):
            wanted = f"[{n}]" if per_row else f"[{n}, …]"
            raise DataError(f"{path}: '{name}' has shape {list(array.shape)}, expected {wanted}")
    following = arrays.get("next_observations")
    if following is not None and following.shape != arrays["observations"].shape:
        raise DataError(
            f"{path}: 'next_observations' has shape {list(following.shape)}, "
            f"expected {list(arrays['observations'].shape)} as 'observations'"
        )
    if n == 0:
        raise DataError(f"{path} holds no transitions, expected at least one")
    return arrays


def infer_timeouts(terminals: np.ndarray, limit: int) -> np.ndarray:
    """bool ``[N]``: rows that are the ``limit``-th of their episode, episodes ending at terminals and at the limit."""
    ends = np.flatnonzero(terminals) + 1
    starts = np.concatenate(([0], ends))
    lengths = np.diff(np.concatenate((starts, [len(terminals)])))
    step = np.arange(len(terminals)) - np.repeat(starts, lengths)  # step since the last terminal
    return (step + 1) % limit == 0


def transitions(
    raw: dict[str, np.ndarray], timeouts: np.ndarray, where: str | Path
) -> tuple[dict[str, np.ndarray], int]:
    """The arrays of :class:`OfflineDataset`, and how many rows were dropped for want of a successor.

    ``raw`` has ``observations``, ``actions``, ``rewards``, ``terminals`` and perhaps ``next_observations``, of the
    dtypes of :class:`OfflineDataset`; rows that stay are moved together in these arrays themselves, as a copy of a
    large file would not fit beside it.  Raises :class:`DataError` where no row has a successor.
    """
    observations, terminations = raw["observations"], raw["terminals"]
    last = len(observations) - 1
    truncations = timeouts.copy()
    columns = {**raw, "terminations": terminations, "truncations": truncations}
    if "next_observations" in raw:
        truncations[last] |= not terminations[last]
        return {name: columns[name] for name in OfflineDataset.ARRAYS}, 0

    following = columns["next_observations"] = np.empty_like(observations)
    following[:-1], following[-1] = observations[1:], observations[-1]
    following[terminations] = observations[terminations]
    unknown = timeouts & ~terminations
    unknown[last] |= not terminations[last]
    before = np.flatnonzero(unknown) - 1
    truncations[before[before >= 0]] |= ~terminations[before[before >= 0]]
    if unknown.all():
        raise DataError(f"{where} holds no transition whose next observation is known")
    keep = np.flatnonzero(~unknown)
    return {name: _together(columns[name], keep) for name in OfflineDataset.ARRAYS}, int(unknown.sum())


def _together(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``array[rows]``, rising, moved to the front of ``array``."""
    if len(rows) == len(array):
        return array
    for start in range(0, len(rows), MOVED):
        block = rows[start : start + MOVED]
        array[start : start + len(block)] = array[block]
    return array[: len(rows)]


def column_ranges(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and largest finite value of each column, ``[da]`` each; 1 to either side where that is no range."""
    finite = np.isfinite(actions)
    low, high = np.min(actions, 0, where=finite, initial=np.inf), np.max(actions, 0, where=finite, initial=-np.inf)
    middle = np.where(np.isfinite(low), low, 0)
    flat = ~(low < high)
    return np.where(flat, middle - 1, low), np.where(flat, middle + 1, high)


def _guess_actions(actions: np.ndarray) -> gym.spaces.Box:
    """[-1, 1], D4RL's own, where that holds all the data; else each column's range: nothing is known without an env."""
    low, high = column_ranges(actions)
    finite = np.abs(actions[np.isfinite(actions)])
    if finite.max(initial=0.0) <= 1:
        return gym.spaces.Box(-1.0, 1.0, actions.shape[1:], np.float32)
    return gym.spaces.Box(low, high, dtype=np.float32)


def read_d4rl(
    path: str | Path,
    *,
    record: EnvRecord | None = None,
    env_id: str | None = None,
    max_episode_steps: int | None = None,
    strict: bool = True,
    progress: bool = False,
) -> OfflineDataset:
    """Read a D4RL HDF5 file (see the module's docstring for how rows become transitions).

    The environment, and with it the spaces, the bounds and the reference scores, is that of ``record``, else of
    ``env_id``, else the one the file names (rlkit's own files), else of the record whose D4RL id is the file's name;
    else the spaces are taken from the data.  ``max_episode_steps`` (default: the environment's, else 1000) matters
    for files without ``timeouts`` only; what was inferred is told in ``provenance.details``.

    Actions beyond the bounds by at most 0.1 % of their half width are clipped to them.  ``strict=False`` skips the
    checks of values, for a linter to make; with ``progress`` a long file shows a bar.

    Raises :class:`DataError` for a file that is missing, empty, truncated or not HDF5, for a missing array, wrong
    shapes, NaN or infinite values, actions out of bounds, and spaces that do not fit the environment.
    """
    path = Path(path)
    with refusing(path, "is damaged; download or copy it again", DataError), _open(path) as file:
        raw, meta = _raw(file, path, progress), _metadata(file, path)
    fields = fields_from_metadata(meta, f"{path}: 'metadata/rlkit'")
    if record is None and env_id is None and not meta:
        record = find_record(path.name)
    if record is not None:
        fields |= record_fields(record)
    elif env_id is not None and env_id != fields.get("env_id"):
        fields = {"env_id": env_id}

    limit = max_episode_steps
    if fields.get("env_id") and ("observation_space" not in fields or record is not None or env_id is not None):
        observation_space, action_space, env_limit = env_facts(fields["env_id"], fields.get("env_kwargs"))
        boxes = require_boxes(observation_space, action_space, fields["env_id"])
        fields["observation_space"], fields["action_space"] = boxes
        limit = limit or env_limit
    shape = raw["observations"].shape[1:]
    fields.setdefault("observation_space", gym.spaces.Box(-np.inf, np.inf, shape, np.float32))
    fields.setdefault("action_space", _guess_actions(raw["actions"]))
    for name, space in (("observations", fields["observation_space"]), ("actions", fields["action_space"])):
        if raw[name].shape[1:] != space.shape:
            raise DataError(
                f"{path}: '{name}' has shape {list(raw[name].shape)}, which does not fit "
                f"{fields.get('env_id') or 'the space named in the file'}: expected {[len(raw[name]), *space.shape]}"
            )

    notes: dict[str, Any] = {}
    if strict:  # before rows are dropped, so that the rows in a message are the file's
        clipped = validate(raw, fields["action_space"], str(path))
        if clipped:
            notes["clipped"] = f"{clipped} action entries beyond their bounds by rounding"
    timeouts = raw.get("timeouts")
    if timeouts is None:
        limit = limit or DEFAULT_LIMIT
        timeouts = infer_timeouts(raw["terminals"], limit)
        notes["timeouts"] = f"not in the file, inferred from episodes of {limit} steps"
    arrays, dropped = transitions(raw, timeouts, path)
    if dropped:
        notes["dropped"] = f"{dropped} rows at timeouts or the end, whose next observation the file does not hold"
    provenance = provenance_of_copy("path", str(path), record.name if record else "unnamed", meta)
    provenance.details.update(notes)
    columns: dict[str, Any] = {**arrays, **fields}
    return OfflineDataset(**columns, provenance=provenance)


def write_d4rl(dataset: OfflineDataset, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``dataset`` in D4RL's layout, ``next_observations`` and rlkit's metadata included; returns the path.

    Reading it back gives identical arrays and an equal ``content_hash``.  The file appears whole or not at all.
    Raises :class:`DataError` for a file that exists already (without ``overwrite``), cannot be written, or for values
    that :func:`read_d4rl` would refuse or alter.
    """
    path = Path(path)
    if dataset.discrete:
        raise DataError(
            f"{dataset.provenance.locator}: its actions are discrete, which D4RL's layout has no form for, expected "
            "`rlkit data import` into the Minari store"
        )
    arrays = {name: getattr(dataset, name) for name in OfflineDataset.ARRAYS}
    if validate({**arrays, "actions": arrays["actions"].copy()}, dataset.action_space, dataset.provenance.locator):
        raise DataError(f"{dataset.provenance.locator}: actions exceed their bounds by rounding, clip them first")
    if not (dataset.terminations[-1] or dataset.truncations[-1]):
        raise DataError(f"{dataset.provenance.locator}: the last row must end its episode, expected it truncated")
    names = {"terminations": "terminals", "truncations": "timeouts"}
    with atomic_path(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(names.get(name, name), data=array)
        file["metadata/rlkit"] = json.dumps(metadata_of(dataset))
    return path
