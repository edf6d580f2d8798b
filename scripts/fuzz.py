"""Feed hostile files to everything that reads one, and count what happened.

    python scripts/fuzz.py --inputs 10000 --seed 0

Each input is a valid file with something in it replaced, and with every hash made right again, so that it reaches the
code behind the hashes: artefacts and checkpoints of all agents, HDF5 files, logs as CSV, NPZ and Parquet, Minari
datasets, run folders, label sets, routing files.  An input passes if it is read or refused in one sentence of one line.
An audit hook watches for what a file must never cause: imports beyond those of valid files, programs started, code
compiled from text, sockets, and files written or removed outside the folder of the input.  Memory beyond a gigabyte and
time beyond five seconds are counted too.  The exit code is 1 if anything was.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_files import (
    Door,
    artefact_door,
    checkpoint_door,
    hdf5_door,
    minari_door,
    routing_door,
    run_door,
    valid_artefacts,
)
from fuzz_logs import log_door

# what compiles text of the program's own: fields of dataclasses, names of tuples, annotations
LIBRARY = ("dataclasses.py", "collections/__init__.py", "typing.py")
SLOW, LARGE = 5.0, 1 << 30  # seconds and bytes of one input
# ---- the watch -------------------------------------------------------------------------------------------------------


class Watch:
    """An audit hook: while :attr:`inside` names a folder, what a file must not cause is noted in :attr:`seen`."""

    STARTS = (
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "os.forkpty",
        "subprocess.Popen",
        "pty.spawn",
    )
    NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request")
    CHANGES = (
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
        "os.link",
        "os.symlink",
        "shutil.rmtree",
        "shutil.move",
    )

    def __init__(self) -> None:
        self.inside: str | None = None
        self.seen: list[str] = []
        self.known: set[str] = set()
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def over(self, folder: Path) -> Iterator[None]:
        self.known = {name.partition(".")[0] for name in sys.modules}
        self.inside = str(folder)
        try:
            yield
        finally:
            self.inside = None

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event in self.STARTS or event in self.NETWORK:
            self.seen.append(f"{event} {args!r:.200}")
        elif event == "import" and str(args[0]).partition(".")[0] not in self.known:
            self.seen.append(f"import {args[0]}")
        elif event == "exec" and str(getattr(args[0], "co_filename", "")).startswith("<"):
            if not sys._getframe(1).f_code.co_filename.endswith(LIBRARY):
                self.seen.append(f"exec {args[0]!r:.200}")
        elif event == "open" and self._writes(args) and not self._allowed(args[0]):
            self.seen.append(f"open {args!r:.200}")
        elif event in self.CHANGES and not self._allowed(args[0]):
            self.seen.append(f"{event} {args!r:.200}")

    @staticmethod
    def _writes(args: tuple[Any, ...]) -> bool:
        mode, flags = args[1], args[2]
        return any(c in str(mode or "") for c in "wax+") or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))

    def _allowed(self, path: Any) -> bool:
        if isinstance(path, int):  # a descriptor that is open already
            return True
        text = str(Path(os.fsdecode(path)).absolute())
        return text.startswith((str(self.inside), "/dev/", "/proc/self/")) or text.endswith((".nbi", ".nbc", ".tmp"))


def run(scratch: Path, args: argparse.Namespace) -> int:
    """Feed ``args.inputs`` inputs, in turn from every kind, and print what happened."""
    os.environ |= {"RLKIT_OFFLINE": "1", "MINARI_DATASETS_PATH": str(scratch / "minari")}
    (scratch / "canary_module.py").write_text(f"open({str(scratch / 'hit')!r}, 'w')\n")
    sys.path.insert(0, str(scratch))
    from rlkit.errors import UserError

    generator = np.random.default_rng(args.seed)
    folders = {}
    for name in ("artefact", "checkpoint", "hdf5", "log", "minari", "run", "routing"):
        folders[name] = scratch / name
        folders[name].mkdir()
    saved: list[Path] = []
    checkpoints: list[Path] = []
    made: dict[str, Callable[[], Any]] = {}
    if not args.kinds or {"artefact", "checkpoint"} & set(args.kinds):
        print("making valid files", flush=True)
        saved, checkpoints, made = valid_artefacts(scratch)
    doors: dict[str, Door] = {
        "artefact": artefact_door(folders["artefact"], saved, generator),
        "checkpoint": checkpoint_door(folders["checkpoint"], checkpoints, made, generator),
        "hdf5": hdf5_door(folders["hdf5"], generator),
        "log": log_door(folders["log"], generator),
        "minari": minari_door(folders["minari"], generator),
        "run": run_door(folders["run"], generator),
        "routing": routing_door(folders["routing"], generator),
    }
    doors = {name: door for name, door in doors.items() if not args.kinds or name in args.kinds}
    shares = [SHARES.get(name, 1.0) for name in doors]
    counts: dict[str, Counter[str]] = {name: Counter() for name in doors}
    worst: list[str] = []
    watch, warm = Watch(), set[tuple[str, str]]()
    for number in range(args.inputs):
        kind = list(doors)[generator.choice(len(doors), p=np.array(shares) / sum(shares))]
        label, read = next(doors[kind])
        if (kind, label) not in warm:
            warm.add((kind, label))
            with contextlib.suppress(Exception):
                read()  # once unwatched: what a reader imports and compiles for any file
        outcome = attempt(read, watch, folders[kind], UserError)
        counts[kind][outcome[0]] += 1
        if outcome[0] not in ("read", "refused"):
            worst.append(f"{kind} {label} (input {number}): {outcome[0]}: {outcome[1]}")
            if args.keep is not None:
                shutil.copytree(folders[kind], args.keep / f"{number:06d}-{kind}-{label}", dirs_exist_ok=True)
        if (number + 1) % 500 == 0:
            print(f"{number + 1} inputs, {len(worst)} did not pass", flush=True)
    for name, count in counts.items():
        print(f"{name:<11}" + ", ".join(f"{key} {count[key]}" for key in sorted(count)))
    if (scratch / "hit").exists():
        worst.append("the canary was imported")
    print("\n".join(worst[:60]))
    print(f"{args.inputs} inputs, {len(worst)} did not pass")
    return 1 if worst else 0


SHARES = {"artefact": 6.0, "checkpoint": 4.0, "hdf5": 2.0, "log": 2.0, "minari": 2.0, "run": 0.5, "routing": 4.0}


def attempt(read: Callable[[], None], watch: Watch, folder: Path, refusal: type[Exception]) -> tuple[str, str]:
    """What reading one input came to, and what is to be said of it."""
    before, first = resident("VmRSS", reset=True), len(watch.seen)
    started, text = time.perf_counter(), ""
    outcome = "read"
    with watch.over(folder):
        try:
            read()
        except refusal as error:
            outcome, text = "refused", str(error)
        except Exception as error:
            import traceback

            outcome, text = "traceback", "".join(traceback.format_exception(error)[-3:])
    seconds, grown = time.perf_counter() - started, resident("VmHWM") - before
    if len(watch.seen) > first:
        return "forbidden", "; ".join(watch.seen[first : first + 3])
    if outcome == "refused" and (len(text.splitlines()) != 1 or not text.isprintable()):
        return "not one line", repr(text)
    if seconds > SLOW:
        return "slow", f"{seconds:.1f} s, {outcome} {text}"
    if grown > LARGE:
        return "large", f"{grown >> 20} MiB, {outcome} {text}"
    return outcome, text


def resident(field: str, reset: bool = False) -> int:
    """Bytes of this process's memory by a field of /proc/self/status; ``reset`` begins its highest mark anew."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=[], help="some of the kinds (default: all)")
    parser.add_argument("--keep", type=Path, help="folder to keep inputs in that did not pass")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        return run(Path(scratch), args)


if __name__ == "__main__":
    sys.exit(main())
