"""Runs as evidence: the raw ``result.json`` and ``metrics.jsonl`` of published runs, one small archive a family.

    python scripts/evidence.py pack runs/table offline     # add these runs, or replace those of the same name
    python scripts/evidence.py drop offline prdc_hopper-medium_s0   # out, until it has been run again
    python scripts/evidence.py unpack offline evidence     # into evidence/offline/; without a family, all of them
    python scripts/evidence.py check
    python scripts/evidence.py again offline bc-all_hopper-random-few_s0 runs/again  # train it; equal to the digit?

``scripts/evidence/FAMILY.tar.xz`` holds RUN/result.json and RUN/metrics.jsonl, sorted and without times or owners, so
that the same runs make the same bytes; ``FAMILY.sha256`` beside it has a line for every file, as ``sha256sum -c`` reads
them.  What is read back is checked against it, file by file: plain files of these two names, none too large.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlkit.config import quoted
from rlkit.errors import UserError
from rlkit.system.files import write_atomically

FOLDER = Path(__file__).resolve().parent / "evidence"
KEPT = ("result.json", "metrics.jsonl")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*/(result\.json|metrics\.jsonl)")
FAMILY = re.compile(r"[a-z][a-z0-9-]*")
LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
LARGEST, TOTAL = 16 << 20, 256 << 20  # bytes of a file, and of all of a family
Files = dict[str, bytes]


def families() -> list[str]:
    """Names of the archives there are."""
    return sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))


def archive_of(family: str) -> Path:
    if not FAMILY.fullmatch(family):
        raise UserError(f"family {family!r}: expected a name of small letters, digits and hyphens")
    return FOLDER / f"{family}.tar.xz"


def runs(source: Path | str) -> Files:
    """``RUN/FILE -> bytes`` of a folder of runs, or of a family's archive, checked.

    Args:
        source: a folder, the path of an archive with its list of hashes beside it, or the name of a family.

    Raises:
        UserError: there is no such thing, or the archive and its list of hashes differ.
    """
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    return _archive(path if path.name.endswith(".tar.xz") else archive_of(str(source)))


def _folder(path: Path) -> Files:
    folders = [path] if (path / KEPT[0]).exists() else sorted(p for p in path.iterdir() if (p / KEPT[0]).exists())
    if not folders:
        raise UserError(f"{path}: no run with a result.json, expected finished runs")
    found: Files = {}
    for folder in folders:
        for name in KEPT:
            if not (folder / name).is_file():
                raise UserError(f"{folder}: no {name}, expected it in a finished run")
            found[f"{folder.resolve().name}/{name}"] = (folder / name).read_bytes()
    return found


def manifest(archive: Path) -> dict[str, str]:
    """``RUN/FILE -> SHA-256`` beside an archive."""
    path = archive.with_name(archive.name.removesuffix(".tar.xz") + ".sha256")
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected the hashes of {archive.name}")
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = LINE.fullmatch(line)
        if match is None or not NAME.fullmatch(match[2]) or match[2] in found:
            raise UserError(f"{path}: line {number}: expected a SHA-256, two spaces and a RUN/FILE not named before")
        found[match[2]] = match[1]
    return found


def _archive(path: Path) -> Files:
    if not path.is_file():
        raise UserError(f"{path}: no such archive or folder, expected one of {', '.join(families()) or 'none yet'}")
    hashes, found, total = manifest(path), {}, 0
    try:
        with tarfile.open(path, "r|xz") as tar:
            for member in tar:
                if not member.isreg() or member.name not in hashes or member.name in found:
                    raise UserError(f"{path}: {member.name!r} is not a plain file of its list of hashes")
                total += member.size
                if member.size > LARGEST or total > TOTAL:
                    raise UserError(f"{path}: {member.name} has {member.size:,} bytes, more than a run's file may")
                held = tar.extractfile(member)
                data = held.read() if held else b""
                if hashlib.sha256(data).hexdigest() != hashes[member.name]:
                    raise UserError(f"{path}: {member.name} is not what its hash says")
                found[member.name] = data
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: not a readable archive ({str(error) or type(error).__name__})") from None
    if missing := sorted(hashes.keys() - found.keys()):
        raise UserError(f"{path}: {missing[0]} is in its list of hashes and not in the archive")
    return found


def packed(files: Mapping[str, bytes]) -> bytes:
    """An archive of ``files``: the same bytes for the same files, in whatever order and whenever they are given."""
    out = io.BytesIO()
    with lzma.open(out, "wb", preset=7) as squeezed, tarfile.open(fileobj=squeezed, mode="w") as tar:
        for name in sorted(files, key=lambda name: (name.split("/")[1], name)):  # alike beside alike: smaller
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files[name]))
    return out.getvalue()


def write(family: str, files: Mapping[str, bytes]) -> Path:
    """Write a family's archive and its list of hashes; returns the archive's path."""
    path = archive_of(family)
    for name, data in files.items():
        if not NAME.fullmatch(name):
            raise UserError(f"{name!r}: expected a run's folder of letters, digits and ._+- only")
        if len(data) > LARGEST:
            raise UserError(f"{name}: {len(data):,} bytes, expected at most {LARGEST:,} in a run's file")
        if name.endswith(".json"):
            json.loads(data)
    FOLDER.mkdir(exist_ok=True)
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    write_atomically(path, packed(files))
    write_atomically(path.with_name(f"{family}.sha256"), "".join(lines).encode())
    return path


def unpack(family: str, into: Path) -> int:
    """Write a family's files below ``into/FAMILY``, which must not exist; returns how many."""
    files, target = runs(family), into / family
    if target.exists():
        raise UserError(f"{target} exists, expected a folder that is not there yet: nothing is overwritten")
    for name, data in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    return len(files)


def names(files: Mapping[str, bytes]) -> list[str]:
    return sorted({name.split("/")[0] for name in files})


def portable(data: bytes) -> bytes:
    """A ``result.json`` without the folders of the machine that it was written on."""
    data = re.sub(rb'("out": ")/[^"]*/([^"/]+")', rb"\1runs/\2", data)
    return re.sub(rb" is not in /[^\"]*", b" is not in the local store", data)


# of a run's configuration: what decides its numbers; where it was written and what it showed does not
DECIDING = (
    *("seed", "total_timesteps", "device", "engine", "precision", "threads"),
    *("eval_every", "eval_episodes", "final_episodes"),
)


def overrides(result: Mapping[str, Any]) -> list[str]:
    """``rlkit train``'s settings of a published run: all that its ``result.json`` has of its agent and environment."""
    config = result["config"]
    agent, env = dict(config["agent"]), dict(config["env"])
    found = [f"agent={agent.pop('name')}", f"env={env.pop('name')}"]
    found += [f"{key}={_typed(config[key])}" for key in DECIDING if key in config]
    found += [f"agent.{key}={_typed(value)}" for key, value in agent.items()]
    return found + [f"env.{key}={_typed(value)}" for key, value in _given(env)]


def _given(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with dots, and values, of what is not left to be found out."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _given(value, f"{above}{key}.")
        elif value is not None:
            yield f"{above}{key}", value


def _typed(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Where the second of two ``result.json`` first has other numbers than the first; None where all are the same."""
    if (old := there["dataset"].get("sha256")) != (new := here["dataset"].get("sha256")):
        return f"the data, of SHA-256 {old} there and {new} here"
    both = [
        [(f"step {e['step']:,}", e["returns"]) for e in result["evaluations"]]
        + [("the end", result["final"]["returns"])]
        for result in (there, here)
    ]
    for (step, old), (_, new) in zip(*both, strict=True):
        if old != new:
            return f"returns at {step}, {sum(old) / len(old)} on the mean there and {sum(new) / len(new)} here"
    return None


def _made(result: Mapping[str, Any]) -> str:
    versions = " ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{result['machine']['processor']}, {versions}"


def again(family: str, run: str, folder: Path) -> bool:
    """Train a published run once more in ``folder`` (or go on there) and say whether every return is the same."""
    from rlkit.cli import main as rlkit

    files = runs(family)
    if f"{run}/result.json" not in files:
        raise UserError(f"{run}: no such run in {family}")
    there = json.loads(files[f"{run}/result.json"])
    code = rlkit(["train", *overrides(there), f"out={quoted(str(folder))}", "resume=true"])
    if code:
        raise UserError(f"{run}: training it again ended with {code}")
    here = json.loads((folder / "result.json").read_text())
    if (found := difference(there, here)) is None:
        print(f"{run}: {len(here['evaluations'])} evaluations and the final one are equal, to the digit")
        return True
    print(f"{run}: other numbers, first {found}\nthere: {_made(there)}\nhere:  {_made(here)}")
    return False


def act(arguments: argparse.Namespace) -> int:
    if arguments.verb == "pack":
        new = runs(arguments.folder) if arguments.folder.is_dir() else None
        if new is None:
            raise UserError(f"{arguments.folder}: no such folder, expected one of finished runs")
        old = runs(arguments.family) if archive_of(arguments.family).exists() else {}
        both = {name: portable(data) if name.endswith(".json") else data for name, data in (old | new).items()}
        path = write(arguments.family, both)
        print(f"{path}: {len(names(old | new))} runs, {path.stat().st_size:,} bytes")
    elif arguments.verb == "drop":
        old = runs(arguments.family)
        for run in arguments.run:
            if run not in names(old):
                raise UserError(f"{run}: no such run in {arguments.family}")
        write(arguments.family, {name: data for name, data in old.items() if name.split("/")[0] not in arguments.run})
    elif arguments.verb == "unpack":
        for family in [arguments.family] if arguments.family else families():
            print(f"{arguments.folder / family}: {unpack(family, arguments.folder)} files")
    elif arguments.verb == "again":
        return 0 if again(arguments.family, arguments.run, arguments.folder) else 1
    else:
        for family in families():
            print(f"{family}: {len(names(runs(family)))} runs, every file is what its hash says")
    return 0


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    pack = verbs.add_parser("pack", help="add runs to a family, or replace those of the same name")
    pack.add_argument("folder", type=Path)
    pack.add_argument("family")
    drop = verbs.add_parser("drop", help="take runs out of a family")
    drop.add_argument("family")
    drop.add_argument("run", nargs="+")
    out = verbs.add_parser("unpack", help="write a family's files, or all of them, into a folder")
    out.add_argument("family", nargs="?")
    out.add_argument("folder", type=Path)
    verbs.add_parser("check", help="compare every archive with its list of hashes")
    anew = verbs.add_parser("again", help="train a run again, and say whether every return is the same")
    anew.add_argument("family")
    anew.add_argument("run")
    anew.add_argument("folder", type=Path, help="to train in")
    try:
        return act(parser.parse_args(words))
    except UserError as error:
        print(f"evidence: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
