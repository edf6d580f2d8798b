"""Minari datasets: read fast, written loss-free and whole or not at all.

Minari keeps each episode as a group of five arrays, ``observations [T+1, ds]`` among them.  Its own reader and writer
cost about a millisecond per episode and, by chunking arrays of a few rows, several times the data's size on disk; with
fifty thousand short episodes that is minutes and gigabytes.  So ``main_data.hdf5`` is read and written here with
h5py's low-level interface, in the same layout; any other storage format goes through Minari's public interface.

Nothing read here is a pickle: Minari keeps spaces, environment specs and metadata as JSON, arrays as HDF5 or Arrow.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.data.dataset import OfflineDataset, Source
from rlkit.data.files import SMALL, USUAL, require_held
from rlkit.data.metadata import MAX_METADATA, fields_from_metadata, metadata_of, provenance_of_copy
from rlkit.data.records import environment_fields, find_record, record_fields, require_learnable
from rlkit.data.validate import first_broken_join, require_flags, validate, whole_numbers
from rlkit.errors import DataError, one_line, refusing, shown
from rlkit.registry import EnvRecord
from rlkit.spaces import read_space
from rlkit.system.files import replacing, require_whole, sync_folder, sync_tree

MINARI_ID = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+")
_KEYS = ("observations", "actions", "rewards", "terminations", "truncations")
_SCRATCH = ".rlkit"  # hidden, so Minari does not list it: locks, and datasets being written
_SLASH = "+"  # in the names there; no id holds one


def store_root() -> Path:
    """Minari's local store: ``$MINARI_DATASETS_PATH``, else ``~/.minari/datasets``."""
    path = os.environ.get("MINARI_DATASETS_PATH")
    return Path(path) if path is not None else Path.home() / ".minari" / "datasets"


def check_id(dataset_id: str) -> str:
    """``dataset_id`` if it is well formed, like ``mujoco/hopper/medium-v0``; else :class:`DataError`."""
    if not MINARI_ID.fullmatch(dataset_id):
        raise DataError(f"'{dataset_id}' is no Minari id, expected one like 'mujoco/hopper/medium-v0'")
    return dataset_id


def has_local(dataset_id: str) -> bool:
    """Whether the local store holds ``dataset_id``."""
    if not (store_root() / dataset_id).exists() and _retired(dataset_id).exists():
        with contextlib.suppress(OSError), store_lock(dataset_id):
            pass  # whoever takes the lock puts back what a killed process had taken out
    return (store_root() / dataset_id / "data" / "metadata.json").is_file()


def local_ids() -> list[str]:
    """Ids of the datasets in the local store, without importing Minari."""
    root, found = store_root(), []
    for retired in (root / _SCRATCH).glob("*.old"):
        has_local(retired.name.removesuffix(".old").replace(_SLASH, "/"))
    for folder, names, _ in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if (Path(folder) / "data" / "metadata.json").is_file():
            found.append(Path(folder).relative_to(root).as_posix())
            names.clear()
    return sorted(found)


def read_metadata(dataset_id: str) -> dict[str, Any]:
    """Minari's ``metadata.json`` of a local dataset; :class:`DataError` where it is missing or no JSON object."""
    path = store_root() / check_id(dataset_id) / "data" / "metadata.json"
    if not has_local(dataset_id):
        raise DataError(f"Minari dataset '{dataset_id}' is not in the local store {store_root()}")
    try:
        meta = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_METADATA else None
    except (OSError, ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise DataError(f"{path} is damaged, expected a JSON object; delete the dataset's folder and fetch it again")
    return meta


def _scratch(dataset_id: str, kind: str) -> Path:
    return store_root() / _SCRATCH / f"{dataset_id.replace('/', _SLASH)}{kind}"


def _retired(dataset_id: str) -> Path:
    """Where a dataset lies between the moment it leaves its place and the moment its successor has it."""
    return _scratch(dataset_id, ".old")


@contextmanager
def store_lock(dataset_id: str) -> Iterator[None]:
    """Hold the right to write ``dataset_id``; other processes wait.  Raises OSError where the store is read-only."""
    from filelock import FileLock

    path = _scratch(dataset_id, ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        _put_back(dataset_id)
        yield


def _put_back(dataset_id: str) -> None:
    """The dataset that a process took out of its place, when it was stopped before the new one had it."""
    target, retired = store_root() / dataset_id, _retired(dataset_id)
    if retired.exists() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        retired.rename(target)


@contextmanager
def staged(dataset_id: str) -> Iterator[Path]:
    """An empty folder that becomes the dataset's folder once the block ends without an error.

    At every moment one whole copy is in its place, or is put back by the next :func:`store_lock`.  The caller holds
    that lock, which is why what a killed process left in the staging folder can be removed.
    """
    target, staging, retired = store_root() / dataset_id, _scratch(dataset_id, ""), _retired(dataset_id)
    _discard(staging, retired)
    staging.mkdir(parents=True)
    try:
        yield staging
        sync_tree(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.rename(retired)
        staging.rename(target)
        sync_folder(target.parent)
    finally:
        _put_back(dataset_id)
        _discard(staging, retired)


def _discard(*leftovers: Path) -> None:
    for path in leftovers:
        if path.is_symlink():  # a dataset that somebody keeps on another disk: what it leads to is theirs
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)


def _episodes_hdf5(file: Path, indices: Iterable[int]) -> dict[str, list[np.ndarray]]:
    """Every episode's five arrays, read with h5py's low-level calls (a third of the high-level ones' time)."""
    import h5py

    columns: dict[str, list[np.ndarray]] = {key: [] for key in _KEYS}
    if not file.is_file():
        raise DataError(f"{file} is not there, or is no file")
    require_whole(file, DataError)
    size, stored, taken = file.stat().st_size, 0, 0
    with h5py.File(file, "r") as handle:
        for index in indices:
            for key in _KEYS:
                name = f"episode_{index}/{key}".encode()
                if any(
                    handle.id.links.get_info(part).type != h5py.h5l.TYPE_HARD
                    for part in (name.partition(b"/")[0], name)
                ):
                    raise DataError(
                        f"{file}: '{key}' of episode {index} is a link, expected numbers in the file itself"
                    )
                node = h5py.h5d.open(handle.id, name)
                if node.dtype.kind not in "fiub":
                    raise DataError(f"{file}: '{key}' of episode {index} is not an array of numbers")
                require_held(node, f"{file}: '{key}' of episode {index}")
                stored, taken = stored + node.get_storage_size(), taken + math.prod(node.shape) * node.dtype.itemsize
                if stored > size or taken > max(SMALL, USUAL * size):  # many names for the same numbers
                    raise DataError(f"{file}: its episodes have more numbers than the file holds")
                array = np.empty(node.shape, node.dtype)
                node.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
                columns[key].append(array)
    return columns


def _columns(source: Any) -> dict[str, list[np.ndarray]]:
    where = f"Minari dataset '{source.id}'"
    try:
        if source.storage.metadata["data_format"] == "hdf5":
            return _episodes_hdf5(Path(source.storage.data_path) / "main_data.hdf5", source.episode_indices.tolist())
        columns: dict[str, list[np.ndarray]] = {key: [] for key in _KEYS}
        for episode in source.iterate_episodes():
            for key in _KEYS:
                columns[key].append(np.asarray(getattr(episode, key)))
        return columns
    except DataError:
        raise
    except Exception as error:  # a file may hold anything
        text = one_line(error).strip("'\"")
        raise DataError(
            f"{where} in {source.storage.data_path} cannot be read ({text}); delete its folder and fetch it again"
        ) from None


def _flatten(columns: dict[str, list[np.ndarray]], where: str, discrete: bool) -> dict[str, np.ndarray]:
    """Episodes to the arrays of :class:`OfflineDataset`."""
    lengths = np.array([len(rewards) for rewards in columns["rewards"]], dtype=np.int64)
    for key in _KEYS:
        extra = int(key == "observations")
        wrong = np.flatnonzero([len(a) != n + extra for a, n in zip(columns[key], lengths, strict=True)])
        if len(wrong):
            episode = int(wrong[0])
            raise DataError(
                f"{where}: episode {episode} has {len(columns[key][episode])} {key}, expected "
                f"{lengths[episode] + extra} beside its {lengths[episode]} rewards"
            )
    filled = [i for i, n in enumerate(lengths) if n]
    lengths = lengths[filled]
    if not filled:
        raise DataError(f"{where} holds no transitions, expected at least one")

    def flags(key: str) -> np.ndarray:
        values = np.concatenate([columns[key][i] for i in filled])
        require_flags(values, f"{where}: '{key}'")
        return values.astype(np.bool_, copy=False)

    def joined(key: str, dtype: Any) -> np.ndarray:
        with np.errstate(over="ignore"):  # what overflows becomes an infinity, which validation names
            return np.concatenate([columns[key][i] for i in filled]).astype(dtype, copy=False)

    try:
        states = joined("observations", np.float32)  # [N + E, ds]
        arrays = {
            "actions": joined("actions", np.float64 if discrete else np.float32),
            "rewards": joined("rewards", np.float32),
            "terminations": flags("terminations"),
            "truncations": flags("truncations"),
        }
        if discrete:
            arrays["actions"] = whole_numbers(arrays["actions"], f"{where}: 'actions'")
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{where}: episodes differ in shape ({error})") from None
    return {**arrays, **split_states(states, lengths, arrays)}


def split_states(states: np.ndarray, lengths: np.ndarray, flags: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``states [N + E, ds]``, each episode's ``T + 1`` in a row, to observations and next_observations ``[N, ds]``.

    An episode whose last row carries neither flag gets ``truncations`` set there (in place): it was cut off.
    """
    ends = np.cumsum(lengths)
    rows = np.arange(ends[-1]) + np.repeat(np.arange(len(lengths)), lengths)  # a state more per episode before it
    flags["truncations"][ends - 1] |= ~flags["terminations"][ends - 1]
    return {"observations": states[rows], "next_observations": states[rows + 1]}


def join_states(dataset: OfflineDataset) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of :func:`split_states`: ``states [N + E, ds]`` and each episode's length, int64 ``[E]``.

    Raises :class:`DataError` where a next observation differs from the following row's observation inside an episode,
    since one array of states could not hold both.
    """
    count, row = first_broken_join(dataset)
    if count:
        raise DataError(
            f"{dataset.provenance.locator}: next_observations of row {row} is not the observation of row {row + 1} "
            f"although no episode ends there, expected them equal ({count} such rows)"
        )
    if not (dataset.terminations[-1] or dataset.truncations[-1]):
        raise DataError(f"{dataset.provenance.locator}: the last row must end its episode, expected it truncated")
    ends = dataset.episode_ends
    lengths = np.diff(ends, prepend=0)
    states = np.empty((len(dataset) + len(ends), *dataset.observations.shape[1:]), dtype=np.float32)
    rows = np.arange(len(dataset)) + np.repeat(np.arange(len(ends)), lengths)
    states[rows] = dataset.observations
    states[ends + np.arange(len(ends))] = dataset.next_observations[ends - 1]
    return states, lengths


def open_local(dataset_id: str) -> Any:
    """The ``MinariDataset`` called ``dataset_id`` in the local store; :class:`DataError` where it cannot be opened."""
    meta = read_metadata(dataset_id)  # its errors are clearer than Minari's
    if not {"observation_space", "action_space"} <= meta.keys():
        # Minari would make the environment to learn its spaces, running whatever entry point the file names.
        raise DataError(f"Minari dataset '{dataset_id}' names no spaces, expected both in its metadata.json")
    where, data = f"Minari dataset '{dataset_id}'", store_root() / dataset_id / "data"
    size = sum(file.stat().st_size for file in data.rglob("*") if file.is_file())
    episodes = meta.get("total_episodes")
    if meta.get("dataset_id") != dataset_id or type(episodes) is not int or not 0 <= episodes <= size:
        raise DataError(
            f"{where} is damaged: its metadata.json has another id, or no number of episodes that it could hold"
        )
    for key in ("observation_space", "action_space"):  # Minari would take whatever memory they ask for
        with refusing(where, f"its {key} is unsound", DataError):
            read_space(meta[key], f"{where}: its {key}")
    import minari

    with refusing(where, "cannot be opened", DataError):
        return minari.load_dataset(dataset_id)


def from_minari(
    source: Any, *, record: EnvRecord | None = None, provenance: Source = "minari-local", strict: bool = True
) -> OfflineDataset:
    """A ``MinariDataset``, or the id of a local one, as :class:`OfflineDataset`; float64 becomes float32.

    The environment and reference scores are those of ``record`` (default: the record that names this id), else what
    rlkit wrote beside the data, else the dataset's own environment.  ``strict=False`` skips the checks of values.

    Raises :class:`DataError` for a dataset that is missing or damaged, for observations other than Box and actions
    other than Box or Discrete, for episodes of inconsistent lengths, NaN or infinite values, and actions out of bounds.
    """
    dataset = open_local(source) if isinstance(source, str) else source
    where = f"Minari dataset '{dataset.id}'"
    observation_space, action_space = require_learnable(dataset.observation_space, dataset.action_space, where)
    raw_meta = dataset.storage.metadata
    meta = raw_meta.get("rlkit") or {}
    record = record or find_record(dataset.id)
    notes: dict[str, Any] = {}
    fields = fields_from_metadata(meta, f"{where}, rlkit's metadata")
    spec = dataset.env_spec
    if record is not None:
        fields |= record_fields(record)
    elif not meta and spec is not None:
        known = raw_meta.get("ref_max_score") is not None
        reference = [raw_meta["ref_min_score"], raw_meta["ref_max_score"]] if known else None
        fields = environment_fields(spec.id, dict(spec.kwargs), reference, where)
        if fields["env_id"] is None:
            notes["evaluation"] = f"none, its environment {shown(spec.id)} is not registered here"
    fields |= {"observation_space": observation_space, "action_space": action_space}

    with refusing(where, "has episodes of another form than Minari's", DataError):
        arrays = _flatten(_columns(dataset), where, isinstance(action_space, gym.spaces.Discrete))
    for name, space in (("observations", observation_space), ("actions", action_space)):
        wanted = (len(arrays[name]), *(space.shape or ()))
        if arrays[name].shape != wanted:
            raise DataError(
                f"{where}: '{name}' has shape {list(arrays[name].shape)}, expected {list(wanted)} as its space says"
            )
    origin = provenance_of_copy(provenance, dataset.id, record.name if record else "unnamed", meta)
    origin.details.update(notes)
    if strict:
        clipped = validate(arrays, action_space, where)
        if clipped:
            origin.details["clipped"] = f"{clipped} action entries beyond their bounds by rounding"
    everything: dict[str, Any] = {**arrays, **fields}
    return OfflineDataset(**everything, provenance=origin)


def _write_episodes(file: Path, dataset: OfflineDataset) -> None:
    import h5py

    states, lengths = join_states(dataset)
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_obj_track_times(False)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    columns = {key: np.ascontiguousarray(getattr(dataset, key)) for key in _KEYS[1:]}
    types = {key: h5py.h5t.py_create(array.dtype, logical=True) for key, array in columns.items()}
    types["observations"] = h5py.h5t.py_create(states.dtype)
    start = 0
    with h5py.File(file, "w", track_order=True) as handle:
        for index, length in enumerate(lengths.tolist()):
            group = handle.create_group(f"episode_{index}")
            group.attrs["id"] = index
            group.attrs["total_steps"] = length
            rows = slice(start, start + length)
            episode = {"observations": states[start + index : start + index + length + 1]}
            for key, array in (episode | {key: column[rows] for key, column in columns.items()}).items():
                shape = h5py.h5s.create_simple(array.shape)
                h5py.h5d.create(group.id, key.encode(), types[key], shape, layout).write(
                    h5py.h5s.ALL, h5py.h5s.ALL, array
                )
            start += length


def write_into(folder: Path, dataset: OfflineDataset, dataset_id: str, extra: dict[str, Any]) -> None:
    """Write ``dataset`` as the Minari dataset ``dataset_id`` under ``folder``; ``extra`` joins rlkit's metadata."""
    import minari
    from minari.dataset.minari_storage import MinariStorage

    spec = copy.deepcopy(gym.registry.get(dataset.env_id)) if dataset.env_id is not None else None
    if spec is not None:
        spec.kwargs |= dataset.env_kwargs
    data = folder / "data"
    data.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an env spec that is not JSON is told by its absence
        storage = MinariStorage.new(data, dataset.observation_space, dataset.action_space, spec)
    _write_episodes(data / "main_data.hdf5", dataset)
    reference = dataset.reference or (None, None)
    storage.update_metadata(
        {
            "dataset_id": dataset_id,
            "minari_version": minari.__version__,
            "total_episodes": len(dataset.episode_ends),
            "total_steps": len(dataset),
            "description": dataset.provenance.sentence,
            "rlkit": metadata_of(dataset) | {"content_hash": dataset.content_hash} | extra,
            **({"ref_min_score": reference[0], "ref_max_score": reference[1]} if dataset.reference else {}),
        }
    )
    storage.update_metadata({"dataset_size": storage.get_size()})


def enter_namespace(dataset_id: str) -> None:
    """Mark the folders above the dataset as Minari namespaces (Minari's own function trips over a second process)."""
    for parent in list(Path(dataset_id).parents)[:-1]:
        mark = store_root() / parent / "namespace_metadata.json"
        if not mark.exists():
            with replacing(mark) as temporary:
                temporary.write_text("{}", encoding="utf-8")


def to_minari(dataset: OfflineDataset, dataset_id: str, *, overwrite: bool = False) -> Any:
    """Store ``dataset`` in the local Minari store under ``dataset_id`` and return the ``MinariDataset``.

    :func:`from_minari` gives back identical arrays.  The dataset appears whole or not at all, whatever is killed when.
    Raises :class:`DataError` for a malformed id, one that is taken (without ``overwrite``), data that one array of
    states per episode cannot hold, or a store that cannot be written.
    """
    check_id(dataset_id)
    try:
        with store_lock(dataset_id):
            if (store_root() / dataset_id).exists() and not overwrite:
                raise DataError(
                    f"Minari dataset '{dataset_id}' exists already; choose another id, or allow overwriting"
                )
            with staged(dataset_id) as folder:
                write_into(folder, dataset, dataset_id, {})
            enter_namespace(dataset_id)
    except OSError as error:
        raise DataError(f"cannot write '{dataset_id}' to {store_root()}: {error.strerror or error}") from None
    return open_local(dataset_id)
