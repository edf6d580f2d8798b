"""A dataset that is replaced: killed at any rename or removal, one whole copy is found at the next start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from rlkit.cli import main
from rlkit.data.hdf5 import write_d4rl
from rlkit.data.minari_store import from_minari, has_local, local_ids, store_root, to_minari

ID, SIBLING = "test/kills/a-v0", "test/kills__a-v0"  # names that are alike once the slash is gone


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))


class Killed(BaseException):
    """What nothing catches; nothing is tidied up after it either, as after SIGKILL."""


def killing(monkeypatch: pytest.MonkeyPatch, at: int, after: bool) -> list[str]:
    """The ``at``-th rename or removal is the last thing that happens, or does not happen any more."""
    calls: list[str] = []

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            if len(calls) > at:
                raise Killed  # dead: the clean-up of a block that unwinds does not run
            if not Path(args[0]).exists():
                return original(*args, **kwargs)
            calls.append(f"{name} {Path(args[0]).name}")
            if len(calls) <= at:
                return original(*args, **kwargs)
            if after:
                original(*args, **kwargs)
            raise Killed

        monkeypatch.setattr(owner, name, method)

    wrap(Path, "rename")
    wrap(shutil, "rmtree")
    return calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(4))
def test_one_whole_copy_is_found(at: int, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = toy.generate(size=50), toy.generate(size=60, seed=1)
    to_minari(old, ID)
    to_minari(old, SIBLING)
    left = store_root() / ".rlkit" / ID.replace("/", "+")
    left.mkdir()  # of a process killed before
    with monkeypatch.context() as patch:
        calls = killing(patch, at, after)
        with pytest.raises(Killed):
            to_minari(new, ID, overwrite=True)
    assert len(calls) == at + 1, calls
    assert sorted(local_ids()) == sorted([ID, SIBLING])
    assert has_local(ID)
    found = from_minari(ID).content_hash
    assert found in (old.content_hash, new.content_hash)
    assert found == (new.content_hash if (at, after) >= (2, True) else old.content_hash), calls
    assert from_minari(SIBLING).content_hash == old.content_hash
    to_minari(new, ID, overwrite=True)
    assert from_minari(ID).content_hash == new.content_hash
    assert {p.suffix for p in (store_root() / ".rlkit").iterdir()} <= {".lock"}


def test_a_rename_that_fails_puts_the_old_one_back(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    old, new = toy.generate(size=50), toy.generate(size=60, seed=1)
    to_minari(old, ID)
    write_d4rl(new, tmp_path / "new.hdf5")
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if target.name == "a-v0" and self.suffix != ".old":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        assert main(["data", "import", str(tmp_path / "new.hdf5"), "--id", ID, "--overwrite"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert from_minari(ID).content_hash == old.content_hash


def test_a_dataset_kept_on_another_disk_is_replaced_and_not_followed(tmp_path: Path) -> None:
    old, new = toy.generate(size=50), toy.generate(size=60, seed=1)
    to_minari(old, ID)
    (store_root() / ID).rename(tmp_path / "elsewhere")
    (store_root() / ID).symlink_to(tmp_path / "elsewhere")
    for _ in range(2):
        to_minari(new, ID, overwrite=True)
    assert from_minari(ID).content_hash == new.content_hash
    assert (tmp_path / "elsewhere" / "data" / "metadata.json").exists()
    assert np.array_equal(from_minari(ID).rewards, new.rewards)


def test_a_store_that_cannot_be_written_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    to_minari(toy.generate(size=50), ID)
    assert has_local(ID)
    (store_root() / ID).rename(store_root() / ".rlkit" / f"{ID.replace('/', '+')}.old")

    def read_only(self: Path, target: Path) -> Path:
        raise OSError(30, os.strerror(30))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", read_only)
        assert not has_local(ID)
    assert has_local(ID)
