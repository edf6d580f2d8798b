"""The tutorial's own commands, made shorter: from a machine's log to a verdict and a policy within its actuators."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlkit
from rlkit.algorithms.verdict import judge
from rlkit.cli import main

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "dryer.py"
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
SMALLER = ["progress_bar=false", "tensorboard=false", "agent.hidden_sizes=[32]", "agent.batch_size=64"]
BOUNDS = np.array([[0, 100], [0, 12]])


def test_the_tutorial_leads_from_a_log_to_an_onnx_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rlkit.run.session.judge", partial(judge, updates=200, hidden_sizes=(16,)))
    shutil.copy(EXAMPLE, "dryer.py")
    said: dict[str, str] = {}
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.DOTALL):
        if language == "python":
            if HAS_ONNX:
                exec(block, {})  # of this repository
            continue
        for line in block.splitlines():
            program, *argv = shlex.split(line.replace("20000", "300"))
            if program == "pip" or (not HAS_ONNX and line.endswith(".onnx")):
                continue
            if program == "python":
                monkeypatch.setattr(sys, "argv", argv)
                runpy.run_path(argv[0], run_name="__main__")
            else:
                assert program == "rlkit", line
                assert main([*argv, *(SMALLER if argv[0] == "train" else [])]) == 0, line
            said[" ".join(argv[:2])] = capsys.readouterr().out
    assert "guessed                 observations, episode, end, step" in said["data info"]
    assert "fan            9.02393 to 100" in said["data info"] and "bounds 0 to 12" in said["data info"]
    shown = said["data check"]
    assert shown.strip().endswith("0 errors, 0 warnings") and shown in PAGE, shown
    assert "2 runs on dryer.csv" in said["compare runs/bc"] and "by verdict" in said["compare runs/bc"]
    for agent in ("bc", "iql"):
        result = json.loads(Path(f"runs/{agent}/result.json").read_text())
        assert result["verdict"]["episodes"] == 200 and result["verdict"]["recorded_range"][0] < -15
    if not HAS_ONNX:
        return
    import onnxruntime

    random = np.random.default_rng(0)
    session = onnxruntime.InferenceSession("policy.onnx")
    for scale in (1.0, 1e5):  # measurements, and nonsense
        seen = (np.array([14, 69, 30]) + scale * np.array([2, 9, 2]) * random.normal(size=(1000, 3))).astype(np.float32)
        found = session.run(None, {"observations": seen})[0]
        assert (found >= BOUNDS[:, 0]).all() and (found <= BOUNDS[:, 1]).all()
        if scale == 1:
            assert np.abs((found - rlkit.load("runs/iql").predict(seen)[0]) / BOUNDS[:, 1]).max() < 1e-5
            assert (np.ptp(found, axis=0) > [1, 0.1]).all()
    assert "policy.onnx: " in said["dryer.py try"] and "of 200 tripped" in said["dryer.py try"]


def test_the_tunnel_is_worth_learning_from() -> None:
    tunnel: dict[str, Any] = runpy.run_path(str(EXAMPLE))
    random = np.random.default_rng(3)
    shifts = [np.array(tunnel["shift"](tunnel["operators"](random), random)) for _ in range(200)]
    rows = np.concatenate(shifts)
    assert (rows[:, 3:5] >= BOUNDS[:, 0]).all() and (rows[:, 3:5] <= BOUNDS[:, 1]).all()
    assert 0 < sum(len(found) < tunnel["MINUTES"] for found in shifts) < 40  # some trip, and the log says so
    assert all((found[-1, 6] == 1) == (len(found) < tunnel["MINUTES"]) for found in shifts)

    def better(state: Any) -> Any:
        return np.clip([50 + 6 * (state[0] - 12), 6 + 1.2 * (state[0] - 12)], *BOUNDS.T)

    steady = [np.array(tunnel["shift"](better, random))[:, 5].sum() for _ in range(50)]
    assert np.mean(steady) > 15 + np.mean([found[:, 5].sum() for found in shifts])
