"""Sweeps that are cut short and go on: the same line with ``resume=true``, and jobs that a cluster starts again."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import toy

from rlkit.cli import main, sweep
from rlkit.run import folder

SMALL = ["env=point-noisy", "env.size=600", "agent.batch_size=16", "agent.hidden_sizes=[8]", "log_every=10"]
SMALL += ["eval_every=20", "eval_episodes=2", "final_episodes=3", "checkpoint_every=20", "tensorboard=false"]
SMALL += ["progress_bar=false"]
TRAIN = ["train", "agent=bc", *SMALL]
# Workers know what is registered where they are; and Hydra's logging keeps the streams of the process it sweeps in.
COMMAND = [sys.executable, "-c", "import sys, toy; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent), "OMP_NUM_THREADS": "1"}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], env=environment(), capture_output=True, text=True)


def refused(argv: list[str], capsys: Any, *words: str) -> None:
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("rlkit: ") and error.count("\n") == 1 and all(word in error for word in words), error


def written(out: str | Path) -> tuple[bytes, bytes]:
    return (Path(out) / "metrics.jsonl").read_bytes(), (Path(out) / "model.rlk").read_bytes()


def test_one_line_begins_goes_on_and_leaves_what_has_ended(capsys: Any) -> None:
    assert main([*TRAIN, "out=whole", "total_timesteps=60"]) == 0
    line = [*TRAIN, "out=r", "resume=true"]
    assert main([*line, "total_timesteps=30"]) == 0
    before = (Path("r") / "result.json").read_bytes()
    capsys.readouterr()
    assert main([*line, "total_timesteps=30"]) == 0
    assert capsys.readouterr().out == "r has ended already\n"
    assert main([*line, "total_timesteps=20"]) == 0  # it got there, and further
    assert (Path("r") / "result.json").read_bytes() == before
    assert main([*line, "total_timesteps=60"]) == 0
    assert written("r") == written("whole")


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*TRAIN, "out=whole", "total_timesteps=60"]) == 0
    assert main([*TRAIN, "out=r", "total_timesteps=60"]) == 0
    for path in (*folder.checkpoints(Path("r/checkpoints")), Path("r/model.rlk"), Path("r/result.json")):
        path.unlink()
    assert main([*TRAIN, "out=r", "total_timesteps=60", "resume=true"]) == 0
    assert written("r") == written("whole")


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ("agent.batch_size=32", "agent.batch_size=16"),
        ("agent=td3bc", "agent."),
        ("env.size=500", "env.size=600"),
        ("seed=3", "seed=0"),
    ],
)
def test_a_run_of_other_settings_is_refused(other: str, word: str, capsys: Any) -> None:
    assert main([*TRAIN, "out=r", "total_timesteps=20"]) == 0
    before = {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()}
    argv = [a for a in TRAIN if a.partition("=")[0] != other.partition("=")[0]]
    refused([*argv, other, "out=r", "total_timesteps=40", "resume=true"], capsys, "out=r holds a run with", word)
    assert {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()} == before


def test_a_folder_that_holds_no_run_is_refused(capsys: Any) -> None:
    Path("r").mkdir()
    (Path("r") / "thesis.tex").write_text("precious")
    refused([*TRAIN, "out=r", "total_timesteps=20", "resume=true"], capsys, "out=r exists and is not empty")


def test_as_one_program_too_each_run_is_begun_continued_or_left(capsys: Any) -> None:
    sweep = [*TRAIN, "-m", "engine=stacked", "out='r/${seed}'", "resume=true"]
    for seed, steps in ((0, 60), (1, 30)):
        assert main([*TRAIN, f"seed={seed}", f"out=r/{seed}", f"total_timesteps={steps}"]) == 0
    before = written("r/0")
    assert main([*sweep, "seed=0,1,2", "total_timesteps=60"]) == 0
    assert "r/0 has ended already" in capsys.readouterr().out
    assert written("r/0") == before
    results = {seed: folder.read_result(Path(f"r/{seed}")) for seed in (1, 2)}
    assert all(result["updates"] == 60 for result in results.values())
    assert len(results[1]["evaluations"]) == 3  # 20 of the first time, 40 and 60 of the second
    assert main([*sweep, "seed=0,1,2", "total_timesteps=60"]) == 0  # nothing is left


def test_a_sweep_over_agents_sets_what_they_share_and_looks_at_folders_first() -> None:
    line = [*TRAIN, "-m", "agent=bc,td3bc", "total_timesteps=20", "hydra/launcher=basic", "out='r/${agent.name}'"]
    line.remove("agent=bc")
    assert command(*line).returncode == 0
    assert {"batch_size: 16" in Path(f"r/{name}/config.yaml").read_text() for name in ("bc", "td3bc")} == {True}
    again = command(*line)
    assert again.returncode == 2 and again.stderr.startswith("rlkit: out=r/bc exists and is not empty")
    before = written("r/td3bc")
    assert command(*line, "overwrite=true").returncode == 0
    assert written("r/td3bc") == before and not Path("r/td3bc", folder.FORMER).exists()


def test_a_launcher_that_is_not_installed_is_a_sentence(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "find_spec", lambda name: None)
    for launcher in ("submitit_slurm", "submitit_local", "ray"):
        line = [*TRAIN, "-m", "seed=0,1", f"hydra/launcher={launcher}"]
        refused(line, capsys, f"hydra/launcher={launcher} needs a package that is not here", "[cluster]")
    assert not Path("runs").exists()


def test_a_launcher_that_nobody_knows_is_a_sentence() -> None:
    told = command(*TRAIN, "-m", "seed=0,1", "total_timesteps=20", "hydra/launcher=slurm")
    assert told.returncode == 2 and told.stderr.count("\n") == 1 and "slurm" in told.stderr, told.stderr


def writers(place: Path) -> list[int]:
    """The processes that hold the lock of a run below ``place``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            names = [str(name.readlink()) for name in (process / "fd").iterdir()]
        except OSError:  # it has ended, or is another's
            continue
        if any(name.startswith(str(place)) and name.endswith(folder.LOCK) for name in names):
            found.append(int(process.name))
    return found


def disturbed(launcher: str, line: list[str], kills: int, place: Path) -> int:
    """Repeat a sweep until it is through, killing processes of its runs; returns how many were killed."""
    rng, killed, extra = random.Random(0), 0, list[str]()
    for _ in range(20):
        arguments = [*COMMAND, *line, f"hydra/launcher={launcher}", *extra]
        process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with process, (place / "told").open("wb") as told:
            while process.poll() is None:
                time.sleep(rng.uniform(0.2, 2.0))
                if killed < kills and (found := writers(place)):
                    try:
                        os.kill(rng.choice(found), signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    killed += 1
            told.write(process.stderr.read() if process.stderr is not None else b"")
        if process.returncode == 0:
            return killed
        told_text = (place / "told").read_text()
        assert process.returncode == 2 and "did not finish" in told_text and "Traceback" not in told_text, told_text
        while writers(place):  # jobs of their own outlive the command
            time.sleep(0.2)
        extra = ["resume=true"]
    raise AssertionError("the sweep did not come to its end")


REAL = ["env=hopper-random", "env.size=300", "agent.batch_size=16", "log_every=20", "eval_every=50", "eval_episodes=1"]
REAL += ["final_episodes=1", "checkpoint_every=20", "tensorboard=false"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize(
    ("launcher", "agents", "seeds", "kills"),
    [
        ("submitit_local", "bc", "0,1", 1),
        pytest.param("submitit_local", "bc,td3bc,iql", "0,1,2,3", 12, marks=pytest.mark.slow),
        pytest.param("ray", "bc,td3bc,iql", "0,1,2,3", 12, marks=pytest.mark.slow),
    ],
)
def test_a_sweep_whose_workers_are_killed_ends_as_one_left_alone(
    launcher: str, agents: str, seeds: str, kills: int, tmp_path: Path
) -> None:
    plugin = next(module for name, module in sweep.PLUGINS.items() if launcher.startswith(name))
    if importlib.util.find_spec("hydra_plugins") is None or importlib.util.find_spec(plugin) is None:
        pytest.skip(f"{plugin} is not installed")
    line = ["train", "-m", f"agent={agents}", f"seed={seeds}", *REAL, "total_timesteps=200"]
    Path("multirun.yaml").write_text("mine\n")  # the name that Hydra gives a file of its own
    alone = command(*line, "out='alone/${agent.name}_${seed}'")
    assert alone.returncode == 0, alone.stderr
    assert "runs; the same line with resume=true goes on" in alone.stdout and "HYDRA" not in alone.stdout
    assert disturbed(launcher, [*line, "out='r/${agent.name}_${seed}'"], kills, tmp_path) >= 1
    assert Path("multirun.yaml").read_text() == "mine\n"
    assert {path.name for path in Path().iterdir()} <= {"alone", "r", "told", "multirun.yaml", ".submitit"}
    runs = sorted(path.name for path in Path("alone").iterdir())
    assert len(runs) == (agents.count(",") + 1) * (seeds.count(",") + 1)
    for run in runs:
        assert written(Path("r", run)) == written(Path("alone", run)), run
    pages = [page(where, runs) for where in ("alone", "r")]
    assert pages[0] == pages[1] and agents.split(",")[0] in pages[0]


def page(where: str, runs: list[str]) -> str:
    """The report on runs, but for what they cost."""
    assert main(["report", *(f"{where}/{run}" for run in runs), "--out", f"{where}.html"]) == 0
    text = Path(f"{where}.md").read_text().replace(f"{where}/", "")
    before, _, cost = text.partition("## Cost")
    return before + cost.partition("\n## ")[2]
