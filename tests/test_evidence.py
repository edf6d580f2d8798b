"""Published runs lie in archives that are whole, made alike every time, and write nowhere else; and can be repeated."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import toy

from rlkit.cli import main
from rlkit.config import compose_config
from rlkit.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
RUN = {"result.json": b'{"seed": 0}', "metrics.jsonl": b'{"step": 1}\n'}


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("evidence")


@pytest.fixture
def shelf(evidence: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of archives instead of the published one."""
    monkeypatch.setattr(evidence, "FOLDER", tmp_path / "shelf")
    return tmp_path / "shelf"


def runs(folder: Path, *names: str, **changed: bytes) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for file, data in RUN.items():
            (folder / name / file).write_bytes(changed.get(file.split(".")[0], data))
        (folder / name / "last.rlk").write_bytes(b"weights stay where they are")
    return folder


def test_what_is_published_is_what_its_hashes_say(evidence: Any) -> None:
    assert {"offline", "online", "controls"} <= set(evidence.families())
    for family in evidence.families():
        files = evidence.runs(family)
        assert len(files) == 2 * len(evidence.names(files))
        assert evidence.archive_of(family).stat().st_size < 2 << 20
    assert not list((ROOT / "docs").rglob("metrics.jsonl")) and not list((ROOT / "docs").rglob("result.json"))


def test_the_same_runs_make_the_same_bytes(evidence: Any, shelf: Path, tmp_path: Path) -> None:
    assert evidence.main(["pack", str(runs(tmp_path / "all", "a_x_s0", "b_x_s0")), "all"]) == 0
    for name in ("b_x_s0", "a_x_s0"):
        assert evidence.main(["pack", str(runs(tmp_path / name, name)), "each"]) == 0
    assert (shelf / "all.tar.xz").read_bytes() == (shelf / "each.tar.xz").read_bytes()
    assert (shelf / "all.sha256").read_bytes() == (shelf / "each.sha256").read_bytes()


def test_runs_are_added_replaced_dropped_and_come_back(evidence: Any, shelf: Path, tmp_path: Path) -> None:
    evidence.main(["pack", str(runs(tmp_path / "old", "a_x_s0", "b_x_s0")), "f"])
    evidence.main(["pack", str(runs(tmp_path / "new", "b_x_s0", "c_x_s0", metrics=b"{}\n")), "f"])
    assert evidence.main(["drop", "f", "a_x_s0"]) == 0
    assert evidence.main(["unpack", "f", str(tmp_path / "out")]) == 0
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.json*")}
    assert found.keys() == {f"f/{run}/{file}" for run in ("b_x_s0", "c_x_s0") for file in RUN}
    assert found["f/b_x_s0/metrics.jsonl"] == b"{}\n" and found["f/b_x_s0/result.json"] == RUN["result.json"]
    assert evidence.main(["check"]) == 0
    assert evidence.main(["unpack", str(tmp_path / "every")]) == 0 and (tmp_path / "every" / "f").is_dir()


def archive(
    shelf: Path, members: dict[str, bytes], *, link: bool = False, listed: dict[str, bytes] | None = None
) -> None:
    """A family ``f`` of these members, whose list of hashes is that of ``listed``."""
    shelf.mkdir(exist_ok=True)
    with tarfile.open(shelf / "f.tar.xz", "w:xz") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            if link:
                entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(entry, io.BytesIO(data))
    held = members if listed is None else listed
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in held.items())
    (shelf / "f.sha256").write_text("".join(lines))


GOOD = {f"a_x_s0/{file}": data for file, data in RUN.items()}
WRONG = {
    "a path out of the folder": {"members": {**GOOD, "../a/result.json": b"{}"}},
    "an absolute path": {"members": {"/tmp/result.json": b"{}"}},
    "a file of another name": {"members": {"a_x_s0/setup.py": b"{}"}},
    "a link": {"members": GOOD, "link": True},
    "changed bytes": {"members": {**GOOD, "a_x_s0/result.json": b'{"seed": 1}'}, "listed": GOOD},
    "a file too many": {"members": {**GOOD, "b_x_s0/result.json": b"{}"}, "listed": GOOD},
    "a file too few": {"members": {"a_x_s0/result.json": RUN["result.json"]}, "listed": GOOD},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_archive_is_refused_in_one_line_and_writes_nothing(
    wrong: str, evidence: Any, shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive(shelf, **WRONG[wrong])
    assert evidence.main(["unpack", "f", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not (tmp_path / "out").exists()
    assert evidence.main(["check"]) == 2


def test_a_large_file_is_refused_before_it_is_read(evidence: Any, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "LARGEST", 1 << 10)
    archive(shelf, {"a_x_s0/metrics.jsonl": bytes(1 << 20)})
    monkeypatch.setattr(tarfile.TarFile, "extractfile", lambda *_: pytest.fail("read"))
    with pytest.raises(UserError, match="1,048,576 bytes"):
        evidence.runs("f")


def test_other_wrong_input_is_refused(
    evidence: Any, shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive(shelf, GOOD)
    whole = (shelf / "f.tar.xz").read_bytes()
    half = runs(tmp_path / "half", "a_x_s0")
    (half / "a_x_s0" / "metrics.jsonl").unlink()
    (tmp_path / "out" / "f").mkdir(parents=True)
    for words in (
        ["unpack", "f", str(tmp_path / "out")],  # exists
        ["unpack", "../f", str(tmp_path / "elsewhere")],
        ["unpack", "g", str(tmp_path / "elsewhere")],
        ["pack", str(tmp_path / "nowhere"), "f"],
        ["pack", str(tmp_path / "out"), "f"],  # no runs
        ["pack", str(half), "f"],
        ["pack", str(runs(tmp_path / "spaced", "a x_s0")), "f"],
        ["drop", "f", "b_x_s0"],
    ):
        assert evidence.main(words) == 2, words
        assert len(capsys.readouterr().err.splitlines()) == 1, words
    assert (shelf / "f.tar.xz").read_bytes() == whole
    for broken in (whole[: len(whole) // 2], b"no archive", b""):
        (shelf / "f.tar.xz").write_bytes(broken)
        assert evidence.main(["check"]) == 2


def test_a_result_is_packed_without_folders_of_its_machine(evidence: Any) -> None:
    data = b'{"out": "/home/me/runs/bc_x_s0", "tried": {"minari-local": "\'a/b\' is not in /home/me/.minari"}}'
    assert evidence.portable(data) == (
        b'{"out": "runs/bc_x_s0", "tried": {"minari-local": "\'a/b\' is not in the local store"}}'
    )
    for family in evidence.families():
        for name, found in evidence.runs(family).items():
            assert not name.endswith(".json") or evidence.portable(found) == found, (family, name)


def test_every_published_run_can_be_asked_for_again(evidence: Any) -> None:
    for family in evidence.families():
        files = evidence.runs(family)
        labels = {run.split("_")[0]: run for run in evidence.names(files)}  # of each, one data set and seed
        for run in labels.values():
            result = json.loads(files[f"{run}/result.json"])
            config = compose_config(evidence.overrides(result))
            assert {key: config.agent[key] for key in result["config"]["agent"]} == result["config"]["agent"], run


def test_a_run_again_is_equal_to_the_digit_or_says_where_it_is_not(
    evidence: Any, shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert toy  # registers the environment
    monkeypatch.chdir(tmp_path)
    words = ["agent=bc", "env=point-noisy", "agent.hidden_sizes=[8]", "agent.learning_rate=0.01", "seed=3"]
    words += ["total_timesteps=20", "eval_every=10", "eval_episodes=2", "final_episodes=3", "out=runs/a_x_s3"]
    assert main(["train", *words]) == 0
    assert evidence.main(["pack", "runs", "f"]) == 0
    assert evidence.main(["again", "f", "a_x_s3", "again"]) == 0
    assert capsys.readouterr().out.endswith("a_x_s3: 2 evaluations and the final one are equal, to the digit\n")

    result = json.loads((tmp_path / "runs" / "a_x_s3" / "result.json").read_text())
    changed = json.loads(json.dumps(result))
    changed["evaluations"][1]["returns"][0] += 1e-9
    assert evidence.difference(result, result) is None
    assert str(evidence.difference(result, changed)).startswith("returns at step 20, ")
    changed["dataset"]["sha256"] = "0" * 64
    assert str(evidence.difference(result, changed)).startswith("the data, of SHA-256 ")
    changed = json.loads(json.dumps(result))
    changed["final"]["returns"][2] += 1e-9
    assert str(evidence.difference(result, changed)).startswith("returns at the end, ")

    (tmp_path / "runs" / "a_x_s3" / "result.json").write_text(json.dumps(changed))
    assert evidence.main(["pack", "runs", "f"]) == 0
    assert evidence.main(["again", "f", "a_x_s3", "again"]) == 1  # what has ended is compared, not trained
    assert "a_x_s3: other numbers, first returns at the end, " in capsys.readouterr().out
    assert evidence.main(["again", "f", "b_x_s0", "again"]) == 2
    assert capsys.readouterr().err == "evidence: b_x_s0: no such run in f\n"
