"""The command line: one sentence for bad input, exit code 2, nothing overwritten; and the verbs at work."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import toy

from rlkit.cli import main
from rlkit.data.hdf5 import write_d4rl

FAST = [
    "env=point-noisy",
    "total_timesteps=40",
    "log_every=10",
    "eval_every=20",
    "eval_episodes=2",
    "final_episodes=2",
    "agent.batch_size=8",
    "agent.hidden_sizes=[8]",
    "progress_bar=false",
    "tensorboard=false",
]
TRAIN = ["train", "agent=bc", *FAST]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(argv: list[str], capsys: Any, *expected: str) -> None:
    assert main(argv) == 2
    text = capsys.readouterr().err
    assert text.startswith("rlkit: ") and text.count("\n") == 1, text
    for word in expected:
        assert word in text, text


def with_(**changes: str) -> list[str]:
    kept = [a for a in TRAIN if a.split("=")[0] not in changes]
    return [*kept, *(f"{k}={v}" for k, v in changes.items())]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["trian"], ["unknown verb 'trian'", "did you mean 'train'"]),
        (with_(agent="prdcc"), ["unknown agent 'prdcc'", "did you mean 'prdc'"]),
        (with_(agent="nothing-like-it"), ["unknown agent 'nothing-like-it' (see rlkit list agents)"]),
        (with_(env="hoper-medium"), ["unknown env 'hoper-medium'", "did you mean 'hopper-medium'"]),
        (["train", "env=point-noisy"], ["agent= is missing"]),
        (["train", "agent=bc"], ["env= is missing"]),
        ([*TRAIN, "total_timestep=3"], ["unknown key 'total_timestep'", "did you mean 'total_timesteps'"]),
        ([*TRAIN, "agent.batchsize=3"], ["unknown key 'agent.batchsize'", "did you mean 'agent.batch_size'"]),
        ([*TRAIN, "agent.learning_rate=fast"], ["agent.learning_rate", "fast"]),
        (with_(total_timesteps="many"), ["total_timesteps", "many"]),
        (with_(total_timesteps="0"), ["total_timesteps=0 is out of range"]),
        (with_(eval_every="-1"), ["eval_every=-1 is out of range"]),
        ([*TRAIN, "agent.batch_size=0"], ["agent.batch_size=0 is out of range"]),
        ([*TRAIN, "agent.batch_size=-4"], ["agent.batch_size=-4 is out of range"]),
        ([*TRAIN, "seed=-1"], ["seed=-1 is out of range"]),
        ([*TRAIN, f"seed={2**32}"], ["out of range"]),
        ([*TRAIN, "device=cuda"], ["device=cuda", "there is none"]),
        ([*TRAIN, "device=gpu0"], ["device=gpu0"]),
        ([*TRAIN, "--fast"], ["unknown option '--fast'"]),
        ([*TRAIN, "not an override"], ["expected key=value"]),
        ([*TRAIN, "env.path=none.hdf5"], ["none.hdf5"]),
        ([*TRAIN, "env.source=clouds"], ["clouds"]),
        (with_(env="hopper"), ["learns from data", "hopper-medium"]),
        (["resume", "nowhere"], ["nowhere is not a run"]),
        (["resume"], ["usage"]),
        (["eval", "none.rlk"], ["no such artefact"]),
        (["eval", "none.rlk", "episode=3"], ["unknown key 'episode'", "did you mean 'episodes'"]),
        (["eval", "none.rlk", "episodes=0"], ["episodes=0 is out of range"]),
        (["list", "agentz"], ["did you mean 'agents'"]),
        (["plot", "nowhere"], ["nowhere is not a run"]),
    ],
)
def test_bad_input_gets_one_sentence(argv: list[str], expected: list[str], capsys: Any, tmp_path: Path) -> None:
    refused(argv, capsys, *expected)
    assert not (tmp_path / "runs").exists()


def _broken(path: Path, key: str, change: Any) -> str:
    write_d4rl(toy.generate(size=50), path)
    with h5py.File(path, "r+") as file:
        data = change(file[key][()])
        del file[key]
        if data is not None:
            file[key] = data
    return str(path)


def _poke(value: float) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[7] = value
        return array

    return change


@pytest.mark.parametrize(
    ("key", "change", "expected"),
    [
        ("rewards", _poke(np.nan), "rewards"),
        ("rewards", _poke(np.inf), "rewards"),
        ("observations", _poke(np.nan), "observations"),
        ("observations", _poke(np.inf), "observations"),
        ("actions", _poke(np.nan), "actions"),
        ("actions", _poke(7.0), "out of bounds"),
        ("actions", lambda a: a[:, :1], "action"),
        ("observations", lambda a: a[:-3], "expected [47"),
        ("rewards", lambda a: None, "rewards"),
    ],
)
def test_bad_data_gets_one_sentence(key: str, change: Any, expected: str, capsys: Any, tmp_path: Path) -> None:
    refused([*TRAIN, f"env.path={_broken(tmp_path / 'd.hdf5', key, change)}"], capsys, "d.hdf5", expected)
    assert not (tmp_path / "runs").exists()


def test_files_that_are_no_dataset(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.hdf5").write_bytes(b"")
    (tmp_path / "text.hdf5").write_text("observations, actions")
    write_d4rl(toy.generate(size=500), tmp_path / "whole.hdf5")
    whole = (tmp_path / "whole.hdf5").read_bytes()
    (tmp_path / "short.hdf5").write_bytes(whole[: len(whole) // 2])
    for name in ("empty", "text", "short"):
        refused([*TRAIN, f"env.path={name}.hdf5"], capsys, f"{name}.hdf5")


def test_data_of_another_environment_is_refused(capsys: Any, tmp_path: Path) -> None:
    write_d4rl(toy.generate(size=50), tmp_path / "d.hdf5")
    refused(["train", "agent=bc", "env=hopper-medium", f"env.path={tmp_path / 'd.hdf5'}"], capsys, "d.hdf5")


def test_output_folders(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    refused([*TRAIN, "out=full"], capsys, "out=full exists and is not empty", "overwrite=true")
    refused([*TRAIN, "out=full", "overwrite=true"], capsys, "not a run")
    assert (tmp_path / "full" / "thesis.tex").read_text() == "precious"
    (tmp_path / "file").write_text("")
    refused([*TRAIN, "out=file"], capsys, "is a file")
    refused([*TRAIN, "out=file/below"], capsys, "cannot be written", "file is a file")


def test_train_resume_eval_plot_list(capsys: Any, tmp_path: Path) -> None:
    assert main([*TRAIN, "checkpoint_every=20", "out=r"]) == 0
    printed = capsys.readouterr().out
    assert "GENERATED" in printed and "normalised score" in printed and "95 % interval" in printed
    names = {p.name for p in (tmp_path / "r").iterdir()}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "model.rlk", "result.json"} <= names
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["dataset"]["source"] == "generated" and len(result["dataset"]["sha256"]) == 64
    assert result["updates"] == 40 and len(result["evaluations"]) == 2 and len(result["final"]["returns"]) == 2
    assert {"last10", "best", "versions", "machine", "seed", "seconds"} <= set(result)
    refused([*TRAIN, "out=r"], capsys, "exists and is not empty")
    assert main(["resume", "r", "total_timesteps=60", "progress_bar=false"]) == 0
    assert json.loads((tmp_path / "r" / "result.json").read_text())["updates"] == 60
    assert main([*TRAIN, "out=r", "overwrite=true"]) == 0
    assert main(["eval", "r", "episodes=3"]) == 0
    assert "3 episodes" in capsys.readouterr().out
    assert main(["plot", "r", "--out", "c.png"]) == 0 and (tmp_path / "c.png").stat().st_size > 1000
    refused(["plot", "r", "--key", "eval/scor"], capsys, "did you mean 'eval/score'")
    for kind, word in (("agents", "prdc"), ("envs", "hopper-medium")):
        capsys.readouterr()
        assert main(["list", kind]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith(word) for line in lines) and all(len(line.split()) > 1 for line in lines)


def test_the_configuration_is_printed_with_presets(capsys: Any) -> None:
    assert main(["train", "agent=prdc", "env=halfcheetah-medium", "--cfg"]) == 0
    assert re.search(r"alpha: 40\.0", capsys.readouterr().out)
    assert main(["train", "agent=prdc", "env=halfcheetah-medium", "agent.alpha=3", "--cfg"]) == 0
    assert re.search(r"alpha: 3\.0", capsys.readouterr().out)


COMMAND = "import sys, toy; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent), "OMP_NUM_THREADS": "1"}


def test_a_sweep_runs_one_process_a_seed(tmp_path: Path) -> None:
    # a record that workers know too: the toy is registered in this process alone
    arguments = [*with_(env="hopper-random"), "env.size=300", "-m", "seed=0,1", "hydra.launcher.n_jobs=2"]
    environment = _environment()
    done = subprocess.run([sys.executable, "-c", COMMAND, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    seeds = [json.loads(p.read_text())["seed"] for p in sorted((tmp_path / "runs").rglob("result.json"))]
    assert seeds == [0, 1]


def test_a_sweep_is_checked_before_it_starts(capsys: Any, tmp_path: Path) -> None:
    refused([*TRAIN, "-m", "seed=0,-1"], capsys, "seed=-1 is out of range")
    refused([*TRAIN, "-m", "agent.learning_rate=1e-3,1e-4"], capsys, "share a folder")
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = [*with_(total_timesteps="1000000"), "out=r", "checkpoint_every=0", "eval_every=0"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    metrics = tmp_path / "r" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "interrupted, ending with a checkpoint after the step" in output
    assert "continue with: rlkit resume r" in output
    assert len(list((tmp_path / "r" / "checkpoints").glob("*.rlk"))) == 1
    assert not (tmp_path / "r" / "result.json").exists()


def test_a_broken_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path, capsys: Any) -> None:
    assert main([*TRAIN, "checkpoint_every=20", "out=r"]) == 0
    older, newest = sorted((tmp_path / "r" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:100])
    expected = (tmp_path / "r" / "model.rlk").read_bytes()
    assert main(["resume", "r", "progress_bar=false"]) == 0
    assert "resuming at step 20" in capsys.readouterr().out
    assert (tmp_path / "r" / "model.rlk").read_bytes() == expected
    older.write_bytes(b"")
    for path in (tmp_path / "r" / "checkpoints").iterdir():
        path.write_bytes(b"")
    refused(["resume", "r"], capsys, "no readable checkpoint")
