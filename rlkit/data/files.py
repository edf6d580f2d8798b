"""Files of arrays: what they may declare, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlkit.errors import DataError
from rlkit.system.files import replacing
from rlkit.system.machine import memory

DEFLATE = 1100  # what compressed bytes can become, at most
USUAL, SMALL = 64, 64 << 20  # what they become in arrays of data, and the bytes of an array that may be all alike
LAYOUT_CHUNKED, LAYOUT_VIRTUAL = 2, 3  # h5py.h5d.CHUNKED and VIRTUAL


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


def reading(path: str | Path, total: int, unit: str, progress: bool) -> Any:
    """A bar of tqdm's for reading ``path``; silent without ``progress``, and where no terminal shows it."""
    from tqdm import tqdm

    return tqdm(total=total, desc=Path(path).name, unit=unit, unit_scale=True, disable=None if progress else True)


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
