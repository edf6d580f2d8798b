"""From whatever names a dataset to the dataset, always knowing where it came from.

In order: what was asked for explicitly (a path, a source); the local Minari store; Minari's remote, when reachable;
data generated here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from rlkit.data.cache import generated
from rlkit.data.dataset import OfflineDataset, Source
from rlkit.data.flat import flat_observations
from rlkit.data.hdf5 import has_d4rl_layout, read_d4rl
from rlkit.data.logs import is_frame, read_log
from rlkit.data.minari_store import (
    MINARI_ID,
    check_id,
    enter_namespace,
    from_minari,
    has_local,
    local_ids,
    open_local,
    staged,
    store_lock,
    store_root,
)
from rlkit.data.records import env_facts, find_record, generated_id
from rlkit.data.tables import SUFFIXES
from rlkit.errors import DataError, UserError, nearest, one_line, shown
from rlkit.registry import LOG, EnvRecord, record, records

SOURCES = ("auto", "minari-local", "minari-remote", "generated")
PROBE_SECONDS = 3.0


def _remote_address() -> str:
    """What answers quickly where Minari's remote (``$MINARI_REMOTE``) can be reached at all."""
    remote = os.environ.get("MINARI_REMOTE", "hf://farama-minari")
    kind, _, name = remote.partition("://")
    if kind == "gcp":
        return f"https://storage.googleapis.com/{urllib.parse.quote(name)}"
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{host}/{urllib.parse.quote(name)}"


def probe(address: str, seconds: float = PROBE_SECONDS) -> str | None:
    """None if ``address`` answers within ``seconds``, else why not, in a few words.

    A thread does the asking because looking up a name has no time limit of its own.
    """
    found = [f"no answer within {seconds:g} s"]

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                found[0] = ""
        except urllib.error.HTTPError as error:
            error.close()
            found[0] = f"answered {error.code}"
        except (OSError, ValueError) as error:
            found[0] = f"not reachable ({getattr(error, 'reason', error)})"
        except Exception as error:  # a thread's traceback would reach the terminal
            found[0] = f"not reachable ({type(error).__name__})"

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 0.5)
    return found[0] or None


def _is_offline(offline: bool | None) -> bool:
    return os.environ.get("RLKIT_OFFLINE", "").lower() in ("1", "true", "yes", "on") if offline is None else offline


def remote_obstacle(offline: bool | None = None) -> str | None:
    """None if Minari's remote can be used, else what is in the way."""
    if _is_offline(offline):
        return "switched off (RLKIT_OFFLINE)" if offline is None else "switched off"
    kind = os.environ.get("MINARI_REMOTE", "hf://").partition("://")[0]
    package, extra = ("google", "gcs") if kind == "gcp" else ("huggingface_hub", "hf")
    if importlib.util.find_spec(package) is None:
        return f"needs another package: pip install 'minari[{extra}]'"
    return probe(_remote_address())


def download(dataset_id: str) -> None:
    """Fetch ``dataset_id`` from Minari's remote into the local store, whole or not at all.

    Raises :class:`DataError` for whatever stands in the way.
    """
    check_id(dataset_id)
    try:
        from minari.storage.remotes import get_cloud_storage

        with store_lock(dataset_id):
            if has_local(dataset_id):  # another process was faster
                return
            with staged(dataset_id) as folder:
                scratch = folder / "download"
                get_cloud_storage().download_dataset(dataset_id, scratch)
                data = scratch / dataset_id / "data"
                if not (data / "metadata.json").is_file():
                    raise DataError(f"Minari's remote has no dataset '{dataset_id}'")
                data.rename(folder / "data")
                shutil.rmtree(scratch)
            enter_namespace(dataset_id)
    except DataError:
        raise
    except Exception as error:  # every backend raises its own kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"'{dataset_id}' cannot be downloaded from Minari's remote: {reason}") from None


def stored(
    what: Any, found: EnvRecord | None = None, provenance: Source = "minari-local", strict: bool = True
) -> OfflineDataset:
    """:func:`from_minari`, with Dict observations joined as the record says."""
    source = open_local(what) if isinstance(what, str) else what
    found = found or find_record(source.id)
    if found is not None and found.data is not None and found.data.minari_keys:
        source = flat_observations(source, found.data.minari_keys)
    return from_minari(source, record=found, provenance=provenance, strict=strict)


def from_file(
    path: str | Path, found: EnvRecord | None = None, strict: bool = True, progress: bool = False, **log: Any
) -> OfflineDataset:
    """:func:`read_d4rl` of D4RL's layout, :func:`read_log` of any other file.

    The dataset names no environment where none here simulates what was recorded.  ``log``: ``columns``,
    ``bounds`` and ``n_actions`` as :func:`read_log` takes them.
    """
    given = {name: value for name, value in log.items() if value or value == 0}
    if given or not has_d4rl_layout(path):
        return read_log(path, record=found, strict=strict, progress=progress, **given)
    known = found or find_record(Path(path).name)
    if known is None or known.data is None or known.data.d4rl_simulated:
        return read_d4rl(path, record=found, strict=strict, progress=progress)
    dataset = read_d4rl(path, env_id="", strict=strict, progress=progress)  # spaces are taken from the data
    widths = (*dataset.observations.shape[1:], *dataset.actions.shape[1:])
    if known.data.d4rl_widths not in (None, widths):
        raise DataError(
            f"{path}: rows have {list(widths)} numbers of observation and action, '{known.name}' expects "
            f"{list(known.data.d4rl_widths or ())}"
        )
    dataset.provenance.details["evaluation"] = "none, no environment here is the one that D4RL's file was recorded in"
    named = replace(dataset.provenance, name=known.name)
    return dataset.with_(
        env_id=None, provenance=named, reference=known.data.reference, family=known.family, task=known.task
    )


def _from_remote(dataset_id: str, found: EnvRecord | None) -> OfflineDataset:
    download(dataset_id)
    return stored(dataset_id, found, "minari-remote")


def not_generated(record: EnvRecord, *, size: int | None, seed: int, progress: bool) -> OfflineDataset:
    """The generator of records that have no stand-in: raises :class:`DataError` saying how to fetch their data."""
    assert record.data is not None
    ways = []
    if record.data.minari_id is not None:
        ways.append(f"fetch it with `minari download {record.data.minari_id}`")
    if record.data.d4rl_id is not None:
        ways.append(f"pass D4RL's file as env.path={record.data.d4rl_id}.hdf5")
    raise DataError(f"the data of '{record.name}' is not here and cannot be generated: {', or '.join(ways)}")


def learning_rewards(dataset: OfflineDataset, *, scale: float | None = None, shift: float | None = None) -> np.ndarray:
    """float32 ``[N]``: ``scale * rewards + shift``, what a learner of ``dataset`` sees.

    Both default to the convention of the dataset's record (antmaze: r - 1), 1 and 0 for data of no known record.  The
    dataset keeps its own rewards: returns, scores and the content hash are of those.
    """
    scale, shift = reward_convention(dataset, scale=scale, shift=shift)
    return (np.float32(scale) * dataset.rewards + np.float32(shift)).astype(np.float32)


def reward_convention(
    dataset: OfflineDataset, *, scale: float | None = None, shift: float | None = None
) -> tuple[float, float]:
    """The ``scale`` and ``shift`` of :func:`learning_rewards`."""
    found = records().get(dataset.provenance.name)
    convention = found.data if found is not None else None
    if convention is not None:
        scale = convention.reward_scale if scale is None else scale
        shift = convention.reward_shift if shift is None else shift
    return 1.0 if scale is None else scale, shift or 0.0


def _minari_id(found: EnvRecord) -> str:
    assert found.data is not None
    if found.data.minari_id is None:
        raise DataError(f"Minari has no dataset for '{found.name}'; use source=generated, or give a path")
    return found.data.minari_id


def _auto(found: EnvRecord, make: Callable[[], OfflineDataset], offline: bool | None) -> OfflineDataset:
    assert found.data is not None
    tried: dict[str, str] = {}
    dataset_id = found.data.minari_id
    if dataset_id is None:
        tried = {"minari": "has no dataset of this level"}
    elif has_local(dataset_id):
        return stored(dataset_id, found)
    else:
        tried["minari-local"] = f"'{dataset_id}' is not in {store_root()}"
        obstacle = remote_obstacle(offline)
        if obstacle is None:
            try:
                return _from_remote(dataset_id, found)
            except DataError as error:
                obstacle = str(error)
        tried["minari-remote"] = obstacle
    dataset = make()
    dataset.provenance.details["tried"] = tried
    return dataset


def _by_id(dataset_id: str, source: str, offline: bool | None) -> OfflineDataset:
    found = find_record(dataset_id)
    if source in ("auto", "minari-local") and has_local(dataset_id):
        return stored(dataset_id, found)
    if source in ("auto", "generated") and found is not None and dataset_id == generated_id(found):
        return generated(found)
    if source == "generated":
        raise DataError(f"'{dataset_id}' is not generated by rlkit, expected a record's name such as 'hopper-medium'")
    if source == "minari-local":
        raise DataError(
            f"'{dataset_id}' is not in the local Minari store {store_root()}{nearest(dataset_id, local_ids())}"
        )
    obstacle = remote_obstacle(offline)
    if obstacle is not None:
        raise DataError(
            f"'{dataset_id}' is not in the local Minari store {store_root()}, "
            f"and Minari's remote is out of reach: {obstacle}{nearest(dataset_id, local_ids())}"
        )
    return _from_remote(dataset_id, found)


def _by_record(
    found: EnvRecord, source: str, size: int | None, seed: int, progress: bool, offline: bool | None
) -> OfflineDataset:
    if found.data is None:
        levels = [r.name for r in records().values() if r.task == found.task and r.data is not None]
        raise DataError(f"'{found.name}' is for learning online and has no dataset; pick one of {', '.join(levels)}")

    def make() -> OfflineDataset:
        return generated(found, size=size, seed=seed, progress=progress)

    if source == "generated":
        return make()
    if source == "minari-local":
        return _by_id(_minari_id(found), source, offline)
    if source == "minari-remote":
        dataset_id = _minari_id(found)
        obstacle = remote_obstacle(offline)
        if obstacle is not None:
            raise DataError(f"Minari's remote is out of reach for '{dataset_id}': {obstacle}")
        return _from_remote(dataset_id, found)
    return _auto(found, make, offline)


def load_dataset(
    what: Any,
    *,
    path: str | Path | None = None,
    columns: Mapping[str, Any] | None = None,
    bounds: Any = None,
    n_actions: int | None = None,
    source: str = "auto",
    size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    offline: bool | None = None,
) -> OfflineDataset:
    """The dataset that ``what`` names or holds; ``dataset.provenance.sentence`` says where it came from.

    Args:
        what: a record's name (``"hopper-medium"``) or an :class:`EnvRecord`; a Minari id
            (``"mujoco/hopper/medium-v0"``) or a ``MinariDataset``; the path of a CSV, Parquet, NPZ or HDF5 file, as a
            ``Path`` or text; a mapping of arrays, a data frame of pandas or polars, a list of episodes; or an
            :class:`OfflineDataset`, which is returned as it is.
        path: a file to take for the record ``what``.
        columns: of a log, which column is what, as :func:`~rlkit.data.logs.read_log` takes it: names by role,
            ``{"actions": ["valve", "heater"], "reward": "yield"}``; what is not said is guessed from the names.
        bounds: of a log, lowest and highest action by column, ``{"valve": (0, 100)}``; by default those recorded.
        n_actions: of a log, how many actions there are to choose from, numbered from 0; 0: actions are numbers; by
            default told by the values.
        source: ``auto`` (the order of this module), ``minari-local``, ``minari-remote`` or ``generated``.
        size: transitions of generated data.
        seed: of generated data.
        progress: whether what takes long shows a bar.
        offline: keeps away from the network (default: the environment variable ``RLKIT_OFFLINE``).

    Raises:
        UserError: an unknown name, or data that cannot be had, read or made, or does not fit the environment.
    """
    if source not in SOURCES:
        raise DataError(f"unknown source '{source}', expected one of {', '.join(SOURCES)}{nearest(source, SOURCES)}")
    log = {"columns": columns, "bounds": bounds, "n_actions": n_actions}
    if path is not None:
        return from_file(path, what if isinstance(what, EnvRecord) else record(what), progress=progress, **log)
    if is_file(what):
        return from_file(what, progress=progress, **log)
    if isinstance(what, (Mapping, list, tuple)) or is_frame(what):
        return read_log(what, **log)
    if columns or bounds or n_actions:
        raise DataError(f"columns=, bounds= and n_actions= are for files and tables of rows, {shown(what)} has its own")
    if isinstance(what, OfflineDataset):
        return what
    if isinstance(what, EnvRecord):
        return _by_record(what, source, size, seed, progress, offline)
    if isinstance(what, str):
        if what not in records() and MINARI_ID.fullmatch(what):
            return _by_id(what, source, offline)
        return _by_record(record(what), source, size, seed, progress, offline)
    if all(hasattr(what, name) for name in ("storage", "iterate_episodes", "episode_indices")):
        return stored(what)
    raise DataError(
        f"cannot make a dataset of {type(what).__name__}, expected a record's name, a Minari id, a MinariDataset, "
        "the path of a file, a table of rows, a list of episodes, or an OfflineDataset"
    )


def is_file(what: Any) -> bool:
    """Whether ``what`` is the path of a file of data."""
    return isinstance(what, Path) or (isinstance(what, str) and what.lower().endswith(SUFFIXES))


def chosen(record: EnvRecord, choices: Any, progress: bool, agent: str) -> OfflineDataset:
    """The dataset of a run of ``agent``, announced: of ``record``, or of what ``choices`` names without one.

    ``choices`` is the run's ``env`` group; where the data comes from is settled there, so that a resumed run finds the
    same.  Raises as :func:`load_dataset`, and :class:`UserError` for a record that has no data.
    """
    own = choices.path if record.family == LOG else choices.id
    if record.data is None and own is None:
        found = [name for name, known in records().items() if known.data and known.env_id == record.env_id]
        hint = f"try {record.name}-medium" if f"{record.name}-medium" in found else "rlkit data list shows which do"
        raise UserError(f"agent '{agent}' learns from data, env '{record.name}' has none; {hint}")
    path, source = choices.path, choices.source
    options = {"size": choices.size, "seed": choices.data_seed, "progress": progress, "bounds": choices.bounds}
    options["n_actions"] = choices.n_actions
    options["columns"] = {role: names for role, names in choices.columns.items() if names is not None}
    if own is not None:
        dataset = load_dataset(own, **options)
    else:
        dataset = load_dataset(record, path=path, source=source, **options)
    if record.extra is not None and dataset.env_id is not None:
        env_facts(dataset.env_id, dataset.env_kwargs)  # a missing extra is found now, not at the first evaluation
    if own is not None and record.family == LOG and choices.n_actions is None:
        choices.n_actions = int(dataset.action_space.n) if isinstance(dataset.action_space, Discrete) else 0
    print(dataset.provenance.sentence, flush=True)
    if ignored := dataset.provenance.details.get("ignored"):
        print(f"left out: {one_line(', '.join(ignored), 200)}; rlkit data info shows which column is what")
    if source == "auto" and path is None and own is None:
        # A resumed run must find the same data, whatever has become reachable since.
        choices.source = "generated" if dataset.provenance.source == "generated" else "minari-local"
    return dataset
