"""Ctrl-C and SIGTERM: answered at once wherever they come, and nothing is left half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import toy

from rlkit.run.interrupt import Interrupted, handling, stop

SLOW = """
import sys, time, toy
from rlkit.cli import main
{patch}
sys.exit(main(sys.argv[1:]))
"""
TRAIN = ["train", "agent=bc", "env=point-noisy", "total_timesteps=100000", "eval_every=0", "final_episodes=1"]
TRAIN += ["agent.batch_size=8", "agent.hidden_sizes=[8]", "progress_bar=false", "tensorboard=false", "out=r"]
# where the signal comes, and what the process is busy with then
PLACES = {
    "imports": ("", 0.0),
    "data": (
        "toy.generate = None; import rlkit.run.session as r\n"
        "r.build = lambda c: (print('here', flush=True), time.sleep(60))",
        0.2,
    ),
    "work that no signal stops": (
        "import rlkit.run.session as r, ctypes\n"
        "def build(c):\n    print('here', flush=True); a = time.time()\n"
        "    while time.time() < a + 0.5: sum(range(10**5))\n    time.sleep(60)\n"
        "r.build = build",
        0.1,
    ),
    "training": (
        "import rlkit.algorithms.callbacks as c\nc.JsonlWriter.write = lambda *a: print('here', flush=True)",
        0.0,
    ),
}


@pytest.mark.parametrize(
    ("place", "number"),
    [(place, signal.SIGINT) for place in PLACES] + [("data", signal.SIGTERM), ("training", signal.SIGTERM)],
)
def test_the_first_signal_is_answered(place: str, number: signal.Signals, tmp_path: Path) -> None:
    patch, wait = PLACES[place]
    code = SLOW.format(patch=patch or "print('here', flush=True)")
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *TRAIN],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    while "here" not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    time.sleep(wait or 0.3)
    process.send_signal(number)
    sent = time.monotonic()
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline().startswith("rlkit: interrupted, ending")
    assert time.monotonic() - sent < 5  # at once, on a machine that is busy too
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output + errors
    assert "Traceback" not in errors
    if place == "training":
        assert "continue with: rlkit resume r" in output and list((tmp_path / "r" / "checkpoints").iterdir())
    else:
        assert not (tmp_path / "r").exists()


def test_the_second_does_not_wait() -> None:
    code = "import os, time\nfrom rlkit.run.interrupt import handling, stop\nwith handling(stop):\n    try:\n        "
    code += "os.kill(os.getpid(), 2); time.sleep(9)\n    except KeyboardInterrupt:\n        "
    code += "os.kill(os.getpid(), 15); time.sleep(9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM and "Traceback" not in done.stderr


def test_handlers_are_the_callers_again() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted) as caught, handling(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert caught.value.number == signal.SIGTERM
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    entered = []

    def elsewhere() -> None:
        with handling(stop):  # Python takes handlers from the main thread alone
            entered.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert entered == [True]
