"""``track=``: lines of the log at each tracker's own reader, resumed, and no run that ends by a tracker's trouble."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy  # noqa: F401  # registers point-noisy

from rlkit import config
from rlkit.cli import main
from rlkit.errors import UserError
from rlkit.run import trackers

RUN = ["train", "agent=td3bc", "env=point-noisy", "env.size=600", "agent.batch_size=16", "agent.hidden_sizes=[8]"]
RUN += ["total_timesteps=40", "eval_every=20", "log_every=10", "checkpoint_every=20", "eval_episodes=2"]
RUN += ["final_episodes=2", "progress_bar=false", "tensorboard=false"]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path


def logged(out: Path) -> dict[tuple[str, int], float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {(key, line["step"]): value for line in lines for key, value in line.items() if key != "step"}


@pytest.mark.filterwarnings("ignore:.*filesystem tracking backend:FutureWarning")
def test_mlflow_holds_every_number_and_goes_on(offline: Path) -> None:
    from mlflow.tracking import MlflowClient

    assert main([*RUN, "track=mlflow", "out=r"]) == 0
    assert main(["resume", "r", "total_timesteps=60", "progress_bar=false"]) == 0
    client = MlflowClient()
    experiment = client.get_experiment_by_name("rlkit")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["agent.alpha"] == "2.5"
    assert run.info.status == "FINISHED"
    expected = logged(offline / "r")
    for (key, step), value in expected.items():
        history = {entry.step: entry.value for entry in client.get_metric_history(run.info.run_id, key)}
        assert history[step] == pytest.approx(value), (key, step)
    assert ("final/score", 60) in expected


def test_trackio_holds_every_number(offline: Path) -> None:
    assert main([*RUN, "track=trackio", "out=r"]) == 0
    (file,) = (offline / "trackio").glob("*.db")
    with sqlite3.connect(file) as database:
        rows = [json.loads(row[0]) for row in database.execute("select metrics from metrics order by rowid")]
    found = {key for row in rows for key in row}
    assert {key for key, _ in logged(offline / "r")} <= found


def test_wandb_is_written_offline_and_goes_on(offline: Path) -> None:
    assert main([*RUN, "track=wandb", "out=r"]) == 0
    identity = json.loads((offline / "r" / "track.json").read_text())["run"]
    assert main(["resume", "r", "total_timesteps=60", "progress_bar=false"]) == 0
    assert json.loads((offline / "r" / "track.json").read_text())["run"] == identity
    assert len(list((offline / "r" / "wandb").glob(f"offline-run-*-{identity}"))) >= 1


def test_nothing_is_imported_unless_asked_for() -> None:
    code = "import sys, rlkit.run.session; sys.exit(bool({'wandb', 'mlflow', 'trackio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("track", ["comet", "WANDB", "1"])
def test_unknown(track: str, offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, f"track={track}", "out=r"]) == 2
    told = capsys.readouterr().err
    assert "expected wandb, mlflow, trackio" in told
    assert told.count("\n") == 1
    assert not (offline / "r").exists()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rlkit-papers\[wandb\]'"):
        config.require_tracker("wandb")


def test_trouble_of_a_tracker_is_not_the_runs(
    offline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(out: Path, before: str | None, settings: dict[str, Any]) -> trackers.Opened:
        def log(numbers: dict[str, float], step: int) -> None:
            raise ConnectionError("no route to host")

        return "one", log, lambda: None

    monkeypatch.setitem(trackers.OPEN, "mlflow", broken)
    assert main([*RUN, "track=mlflow", "out=r"]) == 0
    assert capsys.readouterr().err.count("mlflow: no route to host; going on without it") == 1
    assert (offline / "r" / "result.json").is_file()
