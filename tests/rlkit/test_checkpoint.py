"""No artefact, however damaged or hostile, does anything but load whole or give a sentence."""

from __future__ import annotations

import io
import json
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlkit.agents import BC
from rlkit.algorithms.checkpoint import read_artefact, write_artefact
from rlkit.errors import ArtefactError, UserError
from rlkit.system.files import write_atomically


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artefact") / "a.rlk"
    BC("MlpPolicy", toy.generate(size=60), hidden_sizes=(4,), device="cpu").save(path)
    return path


def rebuilt(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The archive with ``change(name, data) -> [(name, data), ...]`` applied to its members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            for member, data in change(name, old.read(name)):
                new.writestr(member, data)
    return buffer.getvalue()


def edit_manifest(**values: Any) -> Any:
    def change(name: str, data: bytes) -> list[tuple[str, bytes]]:
        return (
            [(name, json.dumps({**json.loads(data), **values}).encode())] if name == "manifest.json" else [(name, data)]
        )

    return change


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_is_noticed_or_harmless(data: Any, artefact: Path, tmp_path: Path) -> None:
    good = artefact.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(0, 255))
    bad = bytearray(good)
    bad[place] = value
    path = tmp_path / "bad.rlk"
    path.write_bytes(bytes(bad))
    _, model, _ = read_artefact(artefact)
    try:
        _, found, _ = read_artefact(path)
    except ArtefactError:
        return
    assert found.keys() == model.keys() and all(torch.equal(found[k], model[k]) for k in model)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_truncated_file_is_refused(data: Any, artefact: Path, tmp_path: Path) -> None:
    good = artefact.read_bytes()
    path = tmp_path / "short.rlk"
    path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    with pytest.raises(ArtefactError):
        read_artefact(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.rlk"
    path.write_bytes(data)
    with pytest.raises(ArtefactError):
        read_artefact(path)


def test_a_changed_tensor_is_refused(artefact: Path, tmp_path: Path) -> None:
    def flip(name: str, data: bytes) -> list[tuple[str, bytes]]:
        return [(name, data[:-1] + bytes([data[-1] ^ 1]))] if name.endswith("safetensors") else [(name, data)]

    _refused(tmp_path, rebuilt(artefact, flip), "does not match its SHA-256")


def test_unknown_format_version(artefact: Path, tmp_path: Path) -> None:
    _refused(tmp_path, rebuilt(artefact, edit_manifest(format=99)), "format version 99 is unknown")


def test_unknown_registry_name(artefact: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.rlk"
    path.write_bytes(rebuilt(artefact, edit_manifest(agent="bcc")))
    with pytest.raises(ArtefactError, match="unknown agent 'bcc'; did you mean 'bc'"):
        BC.load(path)


@pytest.mark.parametrize("member", ["../evil.safetensors", "/etc/evil", "extra.pkl"])
def test_a_strange_member_is_refused(member: str, artefact: Path, tmp_path: Path) -> None:
    data = rebuilt(
        artefact, lambda name, data: [(name, data), (member, b"x")] if name == "manifest.json" else [(name, data)]
    )
    _refused(tmp_path, data, "unexpected member")
    assert {p.name for p in tmp_path.iterdir()} == {"b.rlk"}


def test_a_member_that_declares_a_huge_size_is_refused(artefact: Path, tmp_path: Path) -> None:
    good = bytearray(artefact.read_bytes())
    directory = good.rindex(b"PK\x01\x02")  # the last entry of the central directory; its size stands at offset 24
    struct.pack_into("<I", good, directory + 24, 0xFFFFFFF0)
    _refused(tmp_path, bytes(good), "declares 4294967280 bytes")


def test_a_compressed_bomb_is_refused(artefact: Path, tmp_path: Path) -> None:
    _refused(tmp_path, rebuilt(artefact, lambda n, d: [(n, d)], zipfile.ZIP_DEFLATED), "compressed")


def test_a_member_twice_or_none_is_refused(artefact: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = rebuilt(artefact, lambda n, d: [(n, d), (n, d)])
    _refused(tmp_path, twice, "one manifest.json")
    _refused(tmp_path, rebuilt(artefact, lambda n, d: [] if n.startswith("model") else [(n, d)]), "is missing")


def _refused(folder: Path, data: bytes, match: str) -> None:
    path = folder / "b.rlk"
    path.write_bytes(data)
    with pytest.raises(ArtefactError, match=match):
        read_artefact(path)


def test_missing_and_foreign_tensors(artefact: Path, tmp_path: Path) -> None:
    manifest, model, _ = read_artefact(artefact)
    manifest.pop("sha256")
    model.pop(sorted(model)[0])
    write_artefact(tmp_path / "c.rlk", manifest, model)
    with pytest.raises(ArtefactError, match="do not fit bc"):
        BC.load(tmp_path / "c.rlk")
    with pytest.raises(ArtefactError, match="no such artefact"):
        BC.load(tmp_path / "none.rlk")
    agent = BC("MlpPolicy", toy.generate(size=60), hidden_sizes=(4,), device="cpu")
    with pytest.raises(ArtefactError, match="without training state"):
        agent.restore(artefact)
    agent.save_checkpoint(tmp_path / "d.rlk")
    with pytest.raises(ArtefactError, match="other data"):
        BC("MlpPolicy", toy.generate(size=61), hidden_sizes=(4,), device="cpu").restore(tmp_path / "d.rlk")
    with pytest.raises(ArtefactError, match="another agent or configuration"):
        BC("MlpPolicy", toy.generate(size=60), hidden_sizes=(5,), device="cpu").restore(tmp_path / "d.rlk")


def test_equal_content_is_an_equal_file(tmp_path: Path) -> None:
    for name in ("x", "y"):
        BC("MlpPolicy", toy.generate(size=60), hidden_sizes=(4,), device="cpu").save(tmp_path / name)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


FULL = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from rlkit.system.files import write_atomically
from rlkit.errors import UserError
try:
    write_atomically(Path(sys.argv[1]), b"x" * 100_000)
except UserError as error:
    print(error); sys.exit(2)
"""


def test_a_full_disk_leaves_the_previous_file(artefact: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.rlk"
    path.write_bytes(artefact.read_bytes())
    assert resource.RLIMIT_FSIZE >= 0  # a file size limit fails a write as a full disk does, without filling one
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True)
    assert done.returncode == 2 and "cannot write" in done.stdout and "nothing was overwritten" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["a.rlk"]
    BC.load(path)


def test_an_unwritable_folder_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "file" / "a.rlk", b"")
