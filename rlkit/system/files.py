"""Files that are whole or as they were before, and what killed writers left beside them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlkit.errors import UserError

LARGE, HOLES = 256 << 20, 64  # bytes; a disk that compresses makes data smaller, by less than that
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place, flushed to disk, once the block ends without an error.

    What killed processes left of earlier tries is removed.  Raises OSError where the disk refuses.
    """
    for leftover, name, pid in leftovers(path.parent):
        if name == path.name and not _alive(pid):
            with contextlib.suppress(OSError):
                leftover.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)  # the rename itself must survive a power cut
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write through a temporary file, flushed to disk, then renamed: ``path`` is whole or as it was before.

    Raises :class:`UserError` when the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; nothing was overwritten") from error


def require_whole(path: Path, kind: type[UserError]) -> None:
    """Raise ``kind`` for a large file that is nearly all holes: it takes no disk, and would take its size in memory."""
    found = path.stat()
    held = getattr(found, "st_blocks", 0) * 512  # no number of blocks is told everywhere
    if held and found.st_size > max(LARGE, HOLES * held):
        raise kind(f"{path} declares {found.st_size:,} bytes and holds {held:,}, expected a file without holes")


def leftovers(folder: Path) -> Iterator[tuple[Path, str, int]]:
    """The temporary files of :func:`replacing` in ``folder``: path, name of the file meant, id of the process."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  # pathlib's listing fails late, inside a loop
    except OSError:
        return
    for name in names:
        found = _TEMPORARY.fullmatch(name)
        if found:
            yield folder / name, found["name"], int(found["pid"])


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder`` to disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            with (Path(place) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        return True
    return True
