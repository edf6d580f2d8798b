"""What a run shows while it runs: a bar on a terminal, lines elsewhere, and how to stop it and go on."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy

import rlkit.algorithms.callbacks as callbacks
from rlkit.algorithms.verdict import judge
from rlkit.cli import main

TRAIN = ["train", "agent=bc", "env=point-noisy", "agent.batch_size=8", "agent.hidden_sizes=[8]", "tensorboard=false"]
TRAIN += ["eval_every=10", "eval_episodes=2", "final_episodes=70", "out=r s"]
COMMAND = "import sys, toy; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def seen(fd: int, until: str, seconds: float = 60.0) -> str:
    """What comes to the terminal until a pattern does; raises AssertionError where it does not."""
    found, end = b"", time.monotonic() + seconds
    while not re.search(until, found.decode(errors="replace")):
        assert time.monotonic() < end, found.decode(errors="replace")
        if select.select([fd], [], [], 0.2)[0]:
            try:
                found += os.read(fd, 1 << 16)
            except OSError:  # the other side is closed
                break
    text = found.decode(errors="replace")
    assert re.search(until, text), text
    return text


def test_a_newcomer_at_a_terminal_sees_what_goes_on_stops_it_and_goes_on() -> None:
    here, there = pty.openpty()
    fcntl.ioctl(here, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent), "OMP_NUM_THREADS": "1", "TERM": "xterm"}

    def begin(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", COMMAND, *words]
        return subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, env=environment, start_new_session=True
        )

    process = begin(*TRAIN, "total_timesteps=1000000")
    text = seen(here, r"updates/s.*\d:\d\d:\d\d.*score \d+\.\d\b")
    assert "bc on point-noisy: 1,000,000 updates into r s" in text
    assert "Ctrl-C ends it with a checkpoint, rlkit resume 'r s' goes on" in text
    process.send_signal(2)
    text = seen(here, "continue with: rlkit resume 'r s'")
    assert process.wait() == 130
    process = begin("resume", "r s")
    seen(here, r"resuming at step \d+")
    process.send_signal(2)
    seen(here, "continue with")
    assert process.wait() == 130
    os.close(here)
    os.close(there)


def test_bars_of_learning_and_of_the_final_evaluation(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "shows_bars", lambda: True)
    assert main([*TRAIN, "total_timesteps=20"]) == 0
    printed = capsys.readouterr().out
    assert "final evaluation" in printed and "70/70" in printed and "20/20" in printed


def test_elsewhere_there_are_lines_and_no_control_characters(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "FIRST_LINE", 1e-6)
    assert main([*TRAIN, "total_timesteps=30"]) == 0
    printed = capsys.readouterr().out.splitlines()
    (line,) = [line for line in printed if line.startswith("r s: ")]  # the next is a minute later
    assert re.fullmatch(r"r s: \d+ of 30 updates, \d+ updates/s, 0:00:\d\d left(, score -?\d+\.\d)?", line)
    assert "final evaluation: 70 episodes" in printed and not any("\x1b" in line or "\r" in line for line in printed)


def test_a_minute_later_comes_the_next(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "FIRST_LINE", 1e-6)
    monkeypatch.setattr(callbacks, "LINES", 0.0)
    assert main([*TRAIN, "total_timesteps=30"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(" of 30 updates, ") == 29 and re.search(r"30 of 30 updates, .* left, score \d", printed)


def test_progress_bar_false_shows_none(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "FIRST_LINE", 1e-6)
    assert main([*TRAIN, "total_timesteps=20", "progress_bar=false"]) == 0
    printed = capsys.readouterr().out
    assert "updates/s" not in printed and "Ctrl-C" not in printed and "70 episodes:" not in printed


def test_a_verdict_says_that_it_is_being_made(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = replace(toy.generate(size=200), env_id=None)
    monkeypatch.setattr("rlkit.algorithms.offline.load_dataset", lambda what, **options: data)
    monkeypatch.setattr("rlkit.run.session.UPDATES", 200)
    told: list[int] = []

    def judged(agent: Any, seed: int, on_progress: Any) -> Any:
        on_progress(0)
        return judge(agent, seed=seed, updates=200, on_progress=told.append)

    monkeypatch.setattr("rlkit.run.session.judge", judged)
    assert main([*TRAIN, "total_timesteps=20"]) == 0
    assert "judging by the data: 200 updates" in capsys.readouterr().out and told == [100, 200]
