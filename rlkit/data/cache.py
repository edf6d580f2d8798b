"""Generated datasets are kept in the local Minari store and made once.

A kept dataset is an ordinary Minari dataset.  Beside its ``data`` folder lies ``transitions.safetensors`` with the same
rows, because reading fifty thousand short episodes from Minari's layout takes many seconds and this one file half a
second.  Whatever is read is compared with the recorded content hash; what does not match is made anew.
"""

from __future__ import annotations

import importlib
import inspect
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.data.metadata import fields_from_metadata
from rlkit.data.minari_store import (
    enter_namespace,
    from_minari,
    has_local,
    join_states,
    read_metadata,
    split_states,
    staged,
    store_lock,
    store_root,
    write_into,
)
from rlkit.data.records import generated_id, record_fields
from rlkit.errors import DataError
from rlkit.registry import EnvRecord, resolve_object

FAST = "transitions.safetensors"


def generation_key(record: EnvRecord, size: int, seed: int) -> dict[str, Any]:
    """What a kept dataset must agree in to be used.

    A generator's module may offer ``fingerprint(record) -> str`` naming what else its rows depend on; without one its
    own path stands for it.
    """
    assert record.data is not None
    module = importlib.import_module(record.data.generator.partition(":")[0])
    fingerprint = getattr(module, "fingerprint", None)
    made_by = fingerprint(record) if fingerprint is not None else record.data.generator
    return {"size": size, "seed": seed, "fingerprint": made_by}


def _write_fast(path: Path, dataset: OfflineDataset) -> None:
    from safetensors.numpy import save_file

    states, lengths = join_states(dataset)
    columns = {key: np.ascontiguousarray(getattr(dataset, key)) for key in OfflineDataset.ARRAYS if "obs" not in key}
    save_file({"states": states, "lengths": lengths.astype(np.int64), **columns}, path)


def _read_fast(path: Path, meta: dict[str, Any]) -> OfflineDataset:
    from safetensors.numpy import load_file

    arrays: dict[str, Any] = load_file(path)
    states, lengths = arrays.pop("states"), arrays.pop("lengths")
    arrays |= split_states(states, lengths, arrays)
    return OfflineDataset(**arrays, **fields_from_metadata(meta), provenance=_provenance(meta))


def _provenance(meta: dict[str, Any]) -> Provenance:
    origin = meta["origin"]
    return Provenance(origin["source"], origin["locator"], origin["name"], dict(origin["details"]))


def kept(record: EnvRecord, size: int, seed: int) -> bool:
    """Whether the store holds the record's data of this size and seed, made by the behaviours as they are now."""
    dataset_id = generated_id(record, size, seed)
    try:
        meta = read_metadata(dataset_id).get("rlkit") or {} if has_local(dataset_id) else {}
        return meta.get("generation") == generation_key(record, size, seed)
    except DataError:
        return False


def _load(record: EnvRecord, dataset_id: str) -> OfflineDataset | None:
    """The kept dataset, by the fast copy or else by Minari's; None where neither has the recorded content."""
    try:
        meta = read_metadata(dataset_id)["rlkit"]
        wanted = meta["content_hash"]
    except (DataError, KeyError):
        return None
    for read in (
        lambda: _read_fast(store_root() / dataset_id / FAST, meta),
        lambda: from_minari(dataset_id, record=record).with_(provenance=_provenance(meta)),
    ):
        try:
            dataset = read()
        except Exception:  # a cache: whatever is wrong with it, the data can be made again
            continue
        if dataset.content_hash == wanted:
            return dataset
    return None


def _make(record: EnvRecord, size: int, seed: int, progress: bool, jobs: int | None) -> OfflineDataset:
    assert record.data is not None
    generator = resolve_object(record.data.generator)
    takes_jobs = "jobs" in inspect.signature(generator).parameters  # others have no use for several
    options = {"jobs": jobs} if takes_jobs else {}
    dataset: OfflineDataset = generator(record, size=size, seed=seed, progress=progress, **options)
    return dataset.with_(**record_fields(record))


def generated(
    record: EnvRecord,
    *,
    size: int | None = None,
    seed: int = 0,
    progress: bool = False,
    force: bool = False,
    jobs: int | None = None,
) -> OfflineDataset:
    """The record's stand-in: the kept one where it was made alike, else made now and kept.

    Two processes that ask at once make it once: the second waits.  A process killed meanwhile leaves no half dataset.
    A store that cannot be written (read-only, full) costs only the keeping; ``provenance.details["kept"]`` says so.

    ``force`` makes it anew in any case; ``jobs`` are the cores that its generator uses, by default all.  Raises
    :class:`DataError` where it cannot be generated.
    """
    if record.data is None:
        raise DataError(f"'{record.name}' is for learning online and has no dataset; pick one of its levels")
    size = record.data.size if size is None else size
    if size < 1 or seed < 0:
        raise DataError(
            f"cannot generate '{record.name}' with size {size} and seed {seed}, expected size > 0, seed >= 0"
        )
    dataset_id = generated_id(record, size, seed)
    key = generation_key(record, size, seed)
    with ExitStack() as stack:
        try:
            stack.enter_context(store_lock(dataset_id))
            writable = True
        except OSError:
            writable = False
        dataset = _load(record, dataset_id) if not force and kept(record, size, seed) else None
        if dataset is None:
            dataset = _make(record, size, seed, progress, jobs)
            dataset.provenance.details["kept"] = "no, the local Minari store cannot be written"
            if writable:
                _keep(dataset, dataset_id, {"generation": key})
        return dataset


def _keep(dataset: OfflineDataset, dataset_id: str, extra: dict[str, Any]) -> None:
    details = dataset.provenance.details
    refused = details["kept"]
    try:
        with staged(dataset_id) as folder:
            details["kept"] = dataset_id
            write_into(folder, dataset, dataset_id, extra)
            _write_fast(folder / FAST, dataset)
        enter_namespace(dataset_id)
    except OSError as error:
        details["kept"] = f"{refused} ({error.strerror or error})"
