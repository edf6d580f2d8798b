"""A run's folder: recognised, locked, and never relieved of anything that the run did not write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy

from rlkit.algorithms.callbacks import Checkpoint
from rlkit.cli import main
from rlkit.errors import UserError
from rlkit.run import folder
from rlkit.system.files import replacing, write_atomically

FAST = ["env=point-noisy", "total_timesteps=20", "log_every=10", "eval_every=0", "final_episodes=1"]
FAST += ["agent.batch_size=8", "agent.hidden_sizes=[8]", "progress_bar=false", "tensorboard=false"]
TRAIN = ["train", "agent=bc", *FAST]
OURS = {"config.yaml", "metrics.jsonl", "model.rlk", "result.json", "checkpoints", folder.MARKER, folder.LOCK}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def refused(argv: list[str], capsys: Any, *expected: str) -> None:
    capsys.readouterr()
    assert main(argv) == 2
    text = capsys.readouterr().err
    assert text.startswith("rlkit: ") and text.count("\n") == 1, text
    for word in expected:
        assert word in text, text


def listing(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != folder.LOCK
    }


def test_a_run_is_marked_and_overwritten_with_its_own_names_alone(capsys: Any) -> None:
    assert main([*TRAIN, "out=r"]) == 0
    out = Path("r")
    assert {path.name for path in out.iterdir()} == OURS
    foreign = [out / "thesis.tex", out / "checkpoints" / "step_best.rlk", out / "checkpoints" / "notes", out / "model"]
    for path in foreign:
        path.write_text(f"precious {path}")
    before = (out / "model.rlk").read_bytes()
    assert main([*TRAIN, "out=r", "overwrite=true", "seed=1"]) == 0
    printed = capsys.readouterr().out
    assert "left alone in r: checkpoints/notes, checkpoints/step_best.rlk, model, thesis.tex" in printed
    assert all(path.read_text() == f"precious {path}" for path in foreign)
    assert (out / "model.rlk").read_bytes() != before
    assert not (out / folder.FORMER).exists()  # the new run has a checkpoint
    assert main(["resume", "r", "total_timesteps=30"]) == 0  # step_best.rlk is taken for none of ours


def test_a_folder_that_only_looks_like_a_run_is_left_alone(capsys: Any, tmp_path: Path) -> None:
    own = tmp_path / "thesis"
    own.mkdir()
    (own / "config.yaml").write_text("agent: {name: bc}\nenv: {name: point-noisy}\nout: x\n")
    (own / "metrics.jsonl").write_text("{}")
    for extra in ("", "thesis.tex"):
        if extra:
            (own / extra).write_text("precious")
        before = listing(own)
        refused([*TRAIN, f"out={own}", "overwrite=true"], capsys, "not a run")
        assert listing(own) == before and not (own / folder.LOCK).exists()


def test_a_run_of_before_markers_is_resumed_and_overwritten_but_not_with_foreign_files(capsys: Any) -> None:
    assert main([*TRAIN, "out=r"]) == 0
    (Path("r") / folder.MARKER).unlink()
    (Path("r") / folder.LOCK).unlink(missing_ok=True)
    (Path("r") / "thesis.tex").write_text("precious")
    refused([*TRAIN, "out=r", "overwrite=true"], capsys, "not a run")
    (Path("r") / "thesis.tex").unlink()
    assert main([*TRAIN, "out=r", "overwrite=true"]) == 0
    (Path("r") / folder.MARKER).unlink()
    assert main(["resume", "r"]) == 0
    assert json.loads((Path("r") / folder.MARKER).read_text()) == {"format": 1}


def test_a_marker_of_a_later_version_is_refused(capsys: Any) -> None:
    assert main([*TRAIN, "out=r"]) == 0
    (Path("r") / folder.MARKER).write_text('{"format": 2}')
    before = listing(Path("r"))
    refused([*TRAIN, "out=r", "overwrite=true"], capsys, "format 2 is unknown")
    refused(["resume", "r"], capsys, "format 2 is unknown")
    assert listing(Path("r")) == before


@pytest.mark.parametrize(
    "out", ["", " ", ".", "./", "..", "../../", "/", "../work", "../x/..", "~", "~/", "~/..", "link/../work", "no~"]
)
@pytest.mark.parametrize("overwrite", ["false", "true"])
def test_places_that_are_no_runs_own(
    out: str, overwrite: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    (tmp_path / "home" / "me").mkdir(parents=True)
    Path("link").symlink_to(tmp_path / "home")
    Path("no~").symlink_to(tmp_path / "home" / "me")  # home by another name
    kept = tmp_path / "home" / "me" / "thesis.tex"
    kept.write_text("precious")
    refused([*TRAIN, f"out='{out}'", f"overwrite={overwrite}"], capsys, "out=", "expected")
    assert kept.read_text() == "precious"
    assert {path.name for path in Path().iterdir()} == {"link", "no~"}


def test_other_names_that_lead_nowhere(capsys: Any) -> None:
    Path("file").write_text("precious")
    Path("to_file").symlink_to("file")
    Path("to_nothing").symlink_to("nothing")
    Path("loop").symlink_to("loop")
    names = ("file", "file/", "to_file", "to_nothing", "to_nothing/below", "~nobody-of-this-name/r", "loop", "x" * 300)
    for out in names:
        for overwrite in ("false", "true"):
            refused([*TRAIN, f"out='{out}'", f"overwrite={overwrite}"], capsys, "out=")
    assert Path("file").read_text() == "precious" and not Path("nothing").exists()


def test_home_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main([*TRAIN, "out='~/r'"]) == 0
    assert (tmp_path / "home" / "r" / "result.json").exists() and not Path("~").exists()


def test_overwriting_goes_through_no_link(capsys: Any, tmp_path: Path) -> None:
    assert main([*TRAIN, f"out={tmp_path / 'elsewhere'}"]) == 0
    before = listing(tmp_path / "elsewhere")
    Path("link").symlink_to(tmp_path / "elsewhere")
    refused([*TRAIN, "out=link", "overwrite=true"], capsys, "is a link to")
    refused([*TRAIN, "out=link/", "overwrite=true"], capsys, "is a link to")
    assert main([*TRAIN, "out=r"]) == 0
    (Path("r") / "checkpoints").rename("saved")
    (Path("r") / "checkpoints").symlink_to(tmp_path / "elsewhere" / "checkpoints")
    refused([*TRAIN, "out=r", "overwrite=true"], capsys, "is a link to")
    assert listing(tmp_path / "elsewhere") == before
    Path("empty").mkdir()
    Path("to_empty").symlink_to("empty")  # a disk with more room, say
    assert main([*TRAIN, "out=to_empty"]) == 0 and (Path("empty") / "result.json").exists()


# ---- the run before --------------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def save(self: Checkpoint) -> Path:
        raise error

    monkeypatch.setattr(Checkpoint, "save", save)


def test_the_run_before_is_kept_until_there_is_a_checkpoint(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*TRAIN, "out=r"]) == 0
    before = {name: data for name, data in listing(Path("r")).items() if name != folder.MARKER}
    with monkeypatch.context() as patch:
        failing(patch, UserError("cannot write: No space left on device"))
        for seed in (1, 2):  # failing twice does not cost the good one
            capsys.readouterr()
            assert main([*TRAIN, "out=r", "overwrite=true", f"seed={seed}"]) == 2
            assert f"left on device; the run before this one is in r/{folder.FORMER}" in capsys.readouterr().err
            assert listing(Path("r") / folder.FORMER) == before
    assert main(["eval", f"r/{folder.FORMER}", "episodes=1"]) == 0
    assert main(["resume", "r"]) == 0  # the new run goes on from its beginning
    assert not (Path("r") / folder.FORMER).exists()
    assert json.loads((Path("r") / "result.json").read_text())["seed"] == 2


@pytest.mark.parametrize("at", range(6))
def test_a_kill_while_the_run_before_is_moved_loses_nothing(
    at: int, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*TRAIN, "out=r"]) == 0
    before = {name: data for name, data in listing(Path("r")).items() if name != folder.MARKER}
    moves, rename = [], Path.rename

    def killed(self: Path, target: Path) -> Path:
        if len(moves) == at:
            raise KeyboardInterrupt
        moves.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        assert main([*TRAIN, "out=r", "overwrite=true", "seed=1"]) == 130
    assert len(moves) == at
    assert main(["resume", "r"]) == 0
    after = listing(Path("r"))
    assert {name for name in before if name not in after} == set()
    for name in ("model.rlk", "metrics.jsonl", "config.yaml"):
        assert after[name] == before[name], name


def test_foreign_files_beside_the_run_before_stay(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*TRAIN, "out=r"]) == 0
    with monkeypatch.context() as patch:
        failing(patch, UserError("no"))
        assert main([*TRAIN, "out=r", "overwrite=true"]) == 2
    thesis = Path("r") / folder.FORMER / "thesis.tex"
    thesis.write_text("precious")
    assert main(["resume", "r"]) == 0
    assert listing(thesis.parent) == {"thesis.tex": b"precious"}
    refused([*TRAIN, "out=r", "overwrite=true"], capsys, folder.FORMER, "cannot be removed")
    assert (Path("r") / "result.json").exists() and thesis.read_text() == "precious"


# ---- the lock --------------------------------------------------------------------------------------------------------


COMMAND = "import sys, toy; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"


def test_a_run_that_is_being_written_is_left_to_its_process(capsys: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent)}
    argv = [argument.replace("total_timesteps=20", "total_timesteps=1000000") for argument in TRAIN]
    arguments = [sys.executable, "-c", COMMAND, *argv, "out=r", "checkpoint_every=50"]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while not list(Path("r/checkpoints").glob("*.rlk")):
                assert process.poll() is None
            refused(["resume", "r"], capsys, "r is being written by another process")
            refused([*TRAIN, "out=r", "overwrite=true"], capsys, "r is being written by another process")
            refused([*TRAIN, "out=r", "overwrite=true"][:-1], capsys, "is not empty")
            # in a process of its own: Hydra's logging keeps the streams of the one it sweeps in
            sweep = [sys.executable, "-c", COMMAND, *TRAIN, "out=r", "overwrite=true", "-m", "seed=0"]
            told = subprocess.run([*sweep, "hydra/launcher=basic"], env=environment, capture_output=True, text=True)
            assert told.returncode == 2 and "r is being written by another process" in told.stderr
        finally:
            process.send_signal(signal.SIGKILL)
    assert main([*TRAIN, "out=r", "overwrite=true"]) == 0  # the lock went with its process


def test_a_lock_is_one_processes(tmp_path: Path) -> None:
    second = folder.locked(tmp_path)
    with folder.locked(tmp_path), pytest.raises(UserError, match="being written by another process"), second:
        pass
    with folder.locked(tmp_path):
        pass


# ---- leftovers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.yaml", ".rlkit-run"])
def test_a_run_that_was_killed_while_it_began_begins_again(name: str) -> None:
    """A scheduler starts the line again, and nobody need tidy up before."""
    for extra in ([], ["resume=true"]):
        out = Path(f"r{len(extra)}")
        out.mkdir()
        (out / ".rlkit-lock").touch()
        (out / f".{name}.{dead()}.tmp").write_text("half of")
        if name == "config.yaml":
            (out / ".rlkit-run").write_text('{"format": 1}\n')
        assert main([*TRAIN, f"out={out}", *extra]) == 0
        assert (out / "result.json").exists() and not list(out.glob(".*.tmp"))


def test_what_somebody_else_had_half_written_is_not_ours(capsys: Any) -> None:
    Path("mine").mkdir()
    Path(f"mine/.thesis.tex.{dead()}.tmp").write_text("half of")
    refused([*TRAIN, "out=mine"], capsys, "out=mine exists and is not empty")


def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_killed_writes_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    assert main([*TRAIN, "out=r"]) == 0
    pid, out = dead(), Path("r")
    left = [out / f".model.rlk.{pid}.tmp", out / "checkpoints" / f".step_0000000007.rlk.{os.getpid()}.tmp"]
    left.append(out / f".result.json.{pid}.tmp")
    kept = [out / f".thesis.tex.{pid}.tmp", out / "checkpoints" / ".step_best.rlk.tmp", out / "a.tmp"]
    for path in (*left, *kept):
        path.write_text("half")
    assert main(["resume", "r"]) == 0
    assert [path for path in left if path.exists()] == [] and all(path.exists() for path in kept)


def test_what_killed_writes_left_beside_a_file_is_removed_when_it_is_written_again(tmp_path: Path) -> None:
    mine, alive = tmp_path / f".a.rlk.{dead()}.tmp", tmp_path / f".a.rlk.{os.getppid()}.tmp"
    kept = [alive, tmp_path / f".b.rlk.{dead()}.tmp", tmp_path / ".a.rlk.tmp", tmp_path / ".a.rlk.x.tmp"]
    for path in (mine, *kept):
        path.write_text("half")
    write_atomically(tmp_path / "a.rlk", b"whole")
    assert not mine.exists() and all(path.exists() for path in kept)
    assert (tmp_path / "a.rlk").read_bytes() == b"whole"
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.rlk") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.rlk").read_bytes() == b"whole" and not temporary.exists()
