"""``rlkit tune``: what is searched, what is refused, and that a study is the same whoever dies in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import toy  # noqa: F401  # registers point-noisy
from filelock import FileLock

from rlkit import registry
from rlkit.algorithms.hyperparameters import presets
from rlkit.cli import main
from rlkit.errors import UserError
from rlkit.run.tuning import Study, Worker, distribution, tuning_ranges

COMMAND = "import sys, toy; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"
RUN = ["agent=td3bc", "env=point-noisy", "env.size=600", "agent.batch_size=16", "agent.hidden_sizes=[8]"]
RUN += ["total_timesteps=240", "eval_every=60", "checkpoint_every=20", "log_every=20", "eval_episodes=2"]
RUN += ["final_episodes=3", "tensorboard=false"]
SPACE = ["agent.alpha=0.5..80:log", "agent.learning_rate=1e-4..1e-1:log"]
WAYS = ["--trials", "6", "--batch", "2", "--out"]


def trials(out: Path) -> list[tuple[Any, ...]]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(out / "journal.log")))
    found = optuna.load_study(study_name="rlkit", storage=storage).trials
    return [(t.number, t.state.name, t.params, t.value, t.intermediate_values, t.user_attrs["episodes"]) for t in found]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tune") / "study"
    assert main(["tune", *RUN, *SPACE, *WAYS, str(out)]) == 0
    return out


def test_study(undisturbed: Path) -> None:
    found = trials(undisturbed)
    assert [trial[0] for trial in found] == list(range(6))
    assert found[0][2] == {"agent.alpha": 2.5, "agent.learning_rate": 3e-4}  # the defaults come first
    assert {trial[1] for trial in found} <= {"COMPLETE", "PRUNED"}
    assert all(0.5 <= trial[2]["agent.alpha"] <= 80 for trial in found)
    assert len({trial[2]["agent.alpha"] for trial in found}) == 6
    best = Worker(undisturbed).found()
    assert best is not None
    assert best.value == max(trial[3] for trial in found if trial[1] == "COMPLETE")
    assert best.default == found[0][3]
    complete = [trial for trial in found if trial[1] == "COMPLETE"]
    assert all(trial[5] == 4 * 2 + 3 for trial in complete)  # every episode that was looked at is counted
    assert best.episodes == sum(trial[5] for trial in found)
    for number, state, *_ in found:  # each is a run, and one that was pruned can go on
        folder = undisturbed / "trials" / f"{number:04d}"
        assert (folder / "config.yaml").is_file()
        assert (folder / "result.json").is_file() == (state == "COMPLETE")


def test_more_trials_go_on_with_the_same(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert main(["tune", *RUN, *SPACE, "--batch", "2", "--trials", "3", "--out", str(out)]) == 0
    assert main(["tune", str(out), "--trials", "6"]) == 0
    assert trials(out) == trials(undisturbed)


def test_a_worker_is_killed(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    line = [sys.executable, "-c", COMMAND, "tune", *RUN, *SPACE, *WAYS, str(out)]
    path = os.pathsep.join([str(Path(__file__).parent.parent / "toys"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    first, second = (
        subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(out.glob("trials/*/checkpoints/step_*.rlk")):
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=240)[1] == b""
    assert second.returncode == 0
    assert trials(out) == trials(undisturbed)


def test_every_agent_ships_ranges() -> None:
    for name in registry.agent_names():
        cls = registry.agent_class(name)
        if not cls.__module__.startswith("rlkit."):
            continue
        ranges = tuning_ranges(cls)
        assert ranges, name
        for record in registry.records().values():  # no preset of the agent lies outside
            values = {f: getattr(cls.Config, f) for f in ranges} | presets(cls, record.name, record.task, record.family)
            for key, text in ranges.items():
                distribution(key, text, values[key])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["agent.alpha=5..10"], "leaves out its default 2.5"),
        (["agent.alpha=3..1"], "empty"),
        (["agent.alpha=0..3:log"], "above 0"),
        (["agent.alhpa=1..2"], "agent.alpha"),
        (["agent.batch_size=10.5..300"], "fractions"),
        (["agent.batch_size=64,128"], "leaves out its default 16"),
        (["agent.hidden_sizes=1..9"], "choices"),
        (["agent.alpha=1,,2.5"], "no range"),
        (["agent.alpha=1..3", "agent.alpha=1..4"], "twice"),
        (["seed=0,1"], "not tuned"),
        (["total_timesteps=10..500"], "not tuned"),
        (["--trials", "0"], "--trials 0"),
        (["--batch", "-1"], "--batch -1"),
        (["--objective", "luck"], "true_return"),
        (["--pruner", "axe"], "median"),
        (["--workers", "0"], "--workers 0"),
    ],
)
def test_refused(arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *RUN, "--out", str(tmp_path / "study"), *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_folders_that_are_no_study(undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert main(["tune", *RUN, "--out", str(tmp_path / "mine")]) == 2
    assert main(["tune", str(tmp_path)]) == 2
    assert main(["tune", *RUN, *SPACE, "agent.discount=0.9..1", *WAYS, str(undisturbed)]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert "not empty" in first
    assert "not a study" in second
    assert "other ranges" in third
    (tmp_path / "study.json").write_text('{"format": 2}')
    with pytest.raises(UserError, match="another version"):
        Worker(tmp_path)


def test_a_study_that_is_locked(
    undisturbed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlkit.run.tuning.PATIENCE", 0.2)
    before = (undisturbed / "journal.log").read_bytes()
    with FileLock(undisturbed / ".journal-lock", is_singleton=False):
        for argv in ([*RUN, *SPACE, *WAYS, str(undisturbed)], [str(undisturbed)]):
            assert main(["tune", *argv]) == 2
            told = capsys.readouterr().err
            assert "is locked by another process" in told and told.count("\n") == 1, told
    assert (undisturbed / "journal.log").read_bytes() == before


def test_the_defaults_must_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *RUN, "env.path=/nowhere.hdf5", "--out", str(tmp_path / "study")]) == 2
    assert "trial 0, which has the defaults, failed" in capsys.readouterr().err


def test_verdicts_and_choices() -> None:
    study = Study((*RUN,), {"agent.actor_delay": "1,2,4"}, objective="verdict")
    assert study.judged == "verdict"
    assert not study.minimises
    assert distribution("agent.actor_delay", "1,2,4", 2).choices == ("1", "2", "4")
    assert distribution("agent.hidden_sizes", "[8],[8,8]", [8]).choices == ("[8]", "[8,8]")
