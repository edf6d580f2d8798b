"""A disk that fills up, or a folder that goes away, anywhere in a run: one sentence, and the run goes on later."""

from __future__ import annotations

import itertools
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import toy  # noqa: F401  # registers point-noisy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from rlkit.algorithms import callbacks
from rlkit.algorithms.callbacks import Checkpoint, JsonlWriter, TensorBoardWriter
from rlkit.algorithms.evaluate import Evaluator
from rlkit.cli import main
from rlkit.errors import UserError
from rlkit.system.files import write_atomically

TRAIN = ["train", "agent=bc", "env=point-noisy", "total_timesteps=60", "log_every=2", "eval_every=30"]
TRAIN += ["eval_episodes=2", "final_episodes=2", "agent.batch_size=8", "agent.hidden_sizes=[8]", "progress_bar=false"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file grows beyond ``size`` bytes: a write fails as on a full disk, half done too, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "r"
    assert main([*TRAIN, "tensorboard=false", "checkpoint_every=20", f"out={out}"]) == 0
    return out


def sentence(capsys: Any) -> str:
    text = capsys.readouterr().err
    assert text.startswith("rlkit: ") and text.count("\n") == 1, text
    return text


@pytest.mark.parametrize(
    ("size", "every", "expected"),
    [
        (100, 20, "cannot write r/config.yaml"),
        (1100, 0, "cannot write r/metrics.jsonl"),
        (1200, 0, "cannot write r/metrics.jsonl"),
        (2500, 20, "cannot write r/checkpoints/step_0000000020.rlk"),
        (2500, 0, "cannot write r/checkpoints/step_0000000060.rlk"),
    ],
)
def test_a_disk_that_fills_up(size: int, every: int, expected: str, whole: Path, capsys: Any) -> None:
    settings = [*TRAIN, "tensorboard=false", f"checkpoint_every={every}", "out=r"]
    with room(size):
        assert main(settings) == 2
    assert expected in sentence(capsys)
    assert not list(Path("r").rglob("*.tmp"))
    again = [*settings, "overwrite=true"] if size == 100 else ["resume", "r"]
    with room(size):  # still full
        assert main(again) == 2
    capsys.readouterr()
    assert main(again) == 0
    for name in ("metrics.jsonl", "model.rlk"):
        assert (Path("r") / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("name", ["model.rlk", "result.json", "step_0000000040.rlk"])
def test_a_disk_that_fills_up_late(name: str, whole: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if name in self.name:
            write(self, data[:50])
            raise OSError(28, "No space left on device")
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert main([*TRAIN, "tensorboard=false", "checkpoint_every=20", "out=r"]) == 2
    assert f"{name}: No space left on device" in sentence(capsys)
    assert main(["resume", "r"]) == 0
    for file in ("metrics.jsonl", "model.rlk"):
        assert (Path("r") / file).read_bytes() == (whole / file).read_bytes(), file


def test_a_disk_that_cannot_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JsonlWriter(tmp_path / "m.jsonl")
    writer.write({"a": 1.0}, {}, 1)
    assert writer.sync() == len((tmp_path / "m.jsonl").read_bytes())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*m.jsonl: No space left"):
        writer.sync()
    with pytest.raises(UserError, match="nothing was overwritten"):
        write_atomically(tmp_path / "a", b"x")
    writer.close()
    assert {path.name for path in tmp_path.iterdir()} == {"m.jsonl"}


@pytest.mark.parametrize("when", ["log", "checkpoint", "evaluation", "replaced"])
def test_a_folder_that_is_deleted_meanwhile(when: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def deleting(cls: type, name: str, now: Any) -> None:
        original = getattr(cls, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not done and now(kwargs):
                done.append(True)
                if when == "replaced":
                    Path("r/metrics.jsonl").unlink()
                    Path("r/metrics.jsonl").write_text("mine")
                else:
                    shutil.rmtree("r")
            return original(self, *args, **kwargs)

        monkeypatch.setattr(cls, name, method)

    if when in ("log", "replaced"):
        deleting(JsonlWriter, "write", lambda _: True)
    elif when == "checkpoint":
        deleting(Checkpoint, "save", lambda _: True)
    else:
        deleting(Evaluator, "__call__", lambda kwargs: kwargs["index"] == 0)
    assert main([*TRAIN, "tensorboard=true", "checkpoint_every=20", "out=r"]) == 2
    assert "was deleted" in sentence(capsys) and done
    if when == "replaced":
        assert Path("r/metrics.jsonl").read_text() == "mine"
    else:
        assert not Path("r").exists()


def test_tensorboard_reads_what_is_written_and_hides_what_a_kill_undid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "_numbers", itertools.count(9))  # files are read in the order of their names
    first = TensorBoardWriter(tmp_path / "tb")
    for step in (1, 2, 3):
        first.write({"train/loss": step / 2, "name": "text", "time/rate": 5}, {}, step)
    first.close()
    second = TensorBoardWriter(tmp_path / "tb", purge_step=3)
    second.write({"train/loss": 9.0}, {}, 3)
    assert len(list((tmp_path / "tb").iterdir())) == 2
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 0.5), (2, 1.0), (3, 9.0)]
    assert events.Tags()["scalars"] == ["time/rate", "train/loss"]


def test_tensorboard_has_hyperparameters_and_what_the_run_came_to() -> None:
    assert main([*TRAIN, "tensorboard=true", "out=r"]) == 0
    result = json.loads(Path("r/result.json").read_text())
    events = EventAccumulator("r/tensorboard")
    events.Reload()
    (final,) = events.Scalars("final/score")
    assert final.value == pytest.approx(result["final"]["score"]) and final.step == result["updates"]
    found = events.summary_metadata["_hparams_/session_start_info"].plugin_data
    assert found.plugin_name == "hparams"
    settings = HParamsPluginData.FromString(found.content).session_start_info.hparams
    assert settings["agent.batch_size"].number_value == result["config"]["agent"]["batch_size"]
    assert settings["agent.name"].string_value == result["agent"]
    experiment = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = HParamsPluginData.FromString(experiment).experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == ["final/score"]
    assert events.summary_metadata["_hparams_/session_end_info"]


def test_a_run_goes_on_without_tensorboard(
    tmp_path: Path, capsys: Any, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = TensorBoardWriter(tmp_path / "tb")
    shutil.rmtree(tmp_path / "tb")
    (tmp_path / "tb").write_text("")
    for step in (1, 2):
        writer.write({"loss": 1.0}, {}, step)
    assert "going on without TensorBoard" in sentence(capsys)  # once
    mkdir = Path.mkdir

    def full(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.name == "tensorboard":
            raise OSError(28, "No space left on device")
        mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", full)
    assert main([*TRAIN, "tensorboard=true", "checkpoint_every=20", "out=r"]) == 0
    assert "No space left on device; going on without TensorBoard" in sentence(capsys)
    assert (Path("r") / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
