"""The folder of a run: whose it is, who writes it, and what may ever be removed from it.

A run's folder carries a marker, and a lock that the process writing it holds.  Only names that a run writes are ever
moved or removed; whatever else lies there stays.  A run that is overwritten is kept in ``.former`` until the new one
has a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rlkit.errors import UserError
from rlkit.system.files import leftovers, write_atomically

FORMAT = 1
MARKER, LOCK = ".rlkit-run", ".rlkit-lock"
FORMER, PART = ".former", ".former.part"  # a former run, and one that is only partly moved there or back
CHECKPOINT = re.compile(r"step_\d{10,}\.rlk")
# What a run writes, by folder.  config.yaml is the last: a folder without it is no run.
NAMES = {
    "checkpoints": CHECKPOINT,
    "tensorboard": re.compile(r"events\.out\.tfevents\..+"),
    "": re.compile(r"metrics\.jsonl|init\.rlk|model\.rlk|result\.json|track\.json|config\.yaml"),
}


def folder_of(text: str) -> Path:
    """The folder that ``out=text`` names; ``~`` is the home folder.  Raises :class:`UserError` where it names none."""
    if not text.strip() or "\0" in text:
        raise UserError(f"out={text!r} is no name, expected that of a folder for the run")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"out={text}: {error}, expected a folder that exists or can be made") from None


def runs_in(folders: Iterable[Path]) -> list[Path]:
    """``folders``, each once; in place of one that is neither a run nor a study, such as ``runs``, those inside it."""
    found: dict[Path, Path] = {}
    for folder in folders:
        folder = folder.expanduser()
        inside = [] if _is_run(folder) or not folder.is_dir() else sorted(filter(_is_run, folder.iterdir()))
        for one in inside or [folder]:
            found.setdefault(one.resolve(), one)
    return list(found.values())


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.yaml", "study.json"))


def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse an ``out`` that a run must not be written into, before minutes are spent on its data.

    Raises :class:`UserError` for a file, the working folder, the home folder or what contains them, a folder that
    another process is writing, one that is not empty without ``overwrite``, and with it one that is no run or a link.
    """
    try:
        _check_place(out)
        if not out.exists() or _empty(out):
            return
        if not overwrite:
            raise UserError(
                f"out={out} exists and is not empty; pass another out=, overwrite=true, or resume=true to go on"
            )
        for place in (out, *(out / name for name in (*filter(None, NAMES), FORMER, PART))):
            if place.is_symlink():
                raise UserError(
                    f"{place} is a link to {place.resolve()}, expected a folder: overwrite=true goes through no link"
                )
        if not (marked(out) or _old_run(out)):
            raise UserError(f"out={out} is not empty and not a run; overwrite=true replaces runs alone")
    except (OSError, RuntimeError) as error:  # a loop of links, a name too long, a folder that cannot be read
        raise UserError(f"out={out} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    with locked(out):
        pass


def _check_place(out: Path) -> None:
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"out={out} cannot be written: {path} is a file, expected a folder")
        if path.is_symlink() and not path.exists():
            raise UserError(f"out={out} cannot be written: {path} is a link to nothing, expected a folder")
    meant, here = out.resolve(), Path.cwd()
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  # pathlib's fails where there is none
    for what, folder in (("working", here), ("home", home)):
        if meant in (folder.resolve(), *folder.resolve().parents):
            raise UserError(f"out={out} is the {what} folder or contains it, expected a folder of the run's own")
    nearest = next(path for path in (meant, *meant.parents) if path.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"out={out} cannot be written: no permission to write in {nearest}")


def _empty(out: Path) -> bool:
    """Whether no run was begun in ``out``: one that was killed at once left a mark, a lock, a file half written."""
    return {path.name for path in out.iterdir()} <= {MARKER, LOCK, *(path.name for path in _left(out, NAMES[""]))}


def _left(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """What a process that was killed had half written in ``folder`` of a run's own files."""
    return [path for path, name, _ in leftovers(folder) if pattern.fullmatch(name) or name == MARKER]


def marked(out: Path) -> bool:
    """Whether ``out`` carries a run's marker.  Raises :class:`UserError` for that of a later version."""
    try:
        if not (out / MARKER).is_file():
            return False
        with (out / MARKER).open("rb") as file:
            found = json.loads(file.read(1000))["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    if found != FORMAT:
        raise UserError(f"{out / MARKER}: format {found!r} is unknown, this rlkit knows format {FORMAT}")
    return True


def _old_run(out: Path) -> bool:
    """Whether ``out`` is beyond doubt a run from before there were markers: its config, and no foreign name."""
    from rlkit.system.plain import read_plain

    try:
        config: Any = read_plain(out / "config.yaml")
        names = (config["agent"]["name"], config["env"]["name"], config["out"])
        settings = {"total_timesteps", "seed", "checkpoint_every", "log_every"} <= set(config)
    except (UserError, KeyError, TypeError):
        return False
    return settings and all(isinstance(name, str) for name in names) and not foreign(out)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the right to write ``out``, which ends with the process at the latest.

    Raises :class:`UserError` where another process holds it, and for a link where the run would write: what it leads
    to is somebody else's.
    """
    for name in (LOCK, MARKER, "metrics.jsonl", *filter(None, NAMES), FORMER, PART):
        if (out / name).is_symlink():
            raise UserError(f"{out / name} is a link, expected the run's own: a run is written through no link")
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{out} is being written by another process, expected none; stop it or wait for its end"
        ) from None
    except NotImplementedError:
        print(f"rlkit: {out} lies on a disk without locks; see that no other process writes it", file=sys.stderr)
    except OSError as error:
        raise UserError(f"out={out} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def begin(out: Path, overwrite: bool) -> None:
    """Make ``out`` the folder of a run that begins; the caller holds its lock.  A former run is moved to ``.former``.

    Raises :class:`UserError` where the folder may not or cannot be written.
    """
    try:
        if not _empty(out) and not (overwrite and (marked(out) or _old_run(out))):
            raise UserError(f"out={out} was filled by another process meanwhile; pass another out=")
        reopen(out)
        _move_aside(out)
    except OSError as error:
        raise UserError(f"out={out} cannot be written: {error.strerror or error}") from error
    if left := foreign(out):
        print(f"left alone in {out}: {', '.join(left[:5])}{', ...' if len(left) > 5 else ''}")
    if (out / FORMER).exists():
        print(f"the former run is kept in {out / FORMER} until this one has its first checkpoint")


def reopen(out: Path) -> None:
    """Mark ``out`` as a run and tidy up after a process that was killed there; the caller holds its lock.

    Raises :class:`UserError` where the folder cannot be written.
    """
    for folder, pattern in NAMES.items():
        for path in _left(out / folder, pattern):  # under the lock, whoever wrote it is gone
            with contextlib.suppress(OSError):
                path.unlink()
    if not marked(out):
        write_atomically(out / MARKER, json.dumps({"format": FORMAT}).encode() + b"\n")
    try:
        _move_back(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error


def write(out: Path, name: str, data: bytes) -> None:
    """Write a file of the run, whole or not at all.  Raises :class:`UserError` where the run's folder is gone."""
    if not (out / MARKER).is_file():
        raise UserError(f"{out} was deleted while the run was writing it, expected it to stay until the end")
    write_atomically(out / name, data)


def read_result(out: Path) -> dict[str, Any]:
    """``result.json`` of the run in ``out``.  Raises :class:`UserError` where there is none."""
    try:
        found: dict[str, Any] = json.loads((out / "result.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{out} has no result, expected its run to have ended: {error}") from None
    return found


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files, oldest first; nothing else that lies there."""
    return sorted(path for path in folder.glob("step_*.rlk") if CHECKPOINT.fullmatch(path.name))


def forget_former(out: Path) -> None:
    """Remove the run that this one replaces, once this one has a checkpoint."""
    if (out / FORMER).exists():
        with contextlib.suppress(OSError):  # tried again at the next checkpoint
            _remove(out / FORMER)


def foreign(out: Path) -> list[str]:
    """Names in a run's folder that no run writes, relative to ``out``."""
    found = []
    for folder, pattern in NAMES.items():
        known = {MARKER, LOCK, FORMER, PART, *filter(None, NAMES)} if not folder else set()
        temporary = {path.name for path, name, _ in leftovers(out / folder) if pattern.fullmatch(name)}
        if (out / folder).is_dir():
            names = sorted(path.name for path in (out / folder).iterdir())
            found += [str(Path(folder, n)) for n in names if not pattern.fullmatch(n) and n not in known | temporary]
    return sorted(found)


def _ours(root: Path) -> list[Path]:
    """What a run wrote below ``root``, relative to it."""
    return [
        Path(folder, path.name)
        for folder, pattern in NAMES.items()
        if (root / folder).is_dir() and not (root / folder).is_symlink()
        for path in sorted((root / folder).iterdir(), key=lambda path: (path.name == "config.yaml", path.name))
        if pattern.fullmatch(path.name)
    ]


def _move(source: Path, target: Path) -> None:
    for name in _ours(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).rename(target / name)
    _drop_empty(source)


def _drop_empty(root: Path) -> None:
    for folder in filter(None, NAMES):
        with contextlib.suppress(OSError):
            (root / folder).rmdir()


def _remove(root: Path) -> None:
    for name in _ours(root):
        (root / name).unlink()
    _drop_empty(root)
    if root.name in (FORMER, PART):
        root.rmdir()


def _move_aside(out: Path) -> None:
    """Move the run in ``out`` to ``.former``; where one is there already, keep the one of the two that got further."""
    if (out / FORMER).exists():
        if not (checkpoints(out / "checkpoints") or (out / "model.rlk").exists()):
            _remove(out)
            return
        try:
            _remove(out / FORMER)
        except OSError as error:
            raise UserError(f"{out / FORMER} cannot be removed, expected nothing but a former run in it") from error
    if not _ours(out):
        return
    (out / PART).mkdir()
    _move(out, out / PART)
    (out / PART).rename(out / FORMER)  # from here on, it is whole


def _move_back(out: Path) -> None:
    """Undo a move to ``.former`` that was cut short: nothing new has been written yet."""
    if (out / PART).is_dir() and not (out / PART).is_symlink():
        _move(out / PART, out)
        (out / PART).rmdir()
