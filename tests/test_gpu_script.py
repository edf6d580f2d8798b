"""The script for a GPU that is at hand for ten minutes, tried on a processor."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_check_of_each_kind_passes(gpu: Any, tmp_path: Path) -> None:
    tried = set()
    for what, check, of in gpu.CHECKS:
        if what not in tried:
            tried.add(what)
            assert check(of, "cpu", tmp_path)
    assert len(tried) == 6 and {of for what, _, of in gpu.CHECKS if what == "graph = eager"} == set(gpu.LEARNERS)


def test_checks_are_able_to_fail(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="differs"):
        gpu.require_same(gpu.learner("bc", "cpu", seed=0), gpu.learner("bc", "cpu", seed=1))
    with pytest.raises(AssertionError, match="differs by"):
        gpu.require_same(gpu.learner("bc", "cpu", seed=0), gpu.learner("bc", "cpu", seed=1), near=1e-3)

    def broken(name: str, device: str, scratch: Path) -> str:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(gpu, "CHECKS", [("a", broken, "bc"), ("b", lambda *_: "well", "bc")])
    gpu.checks(tmp_path, "cpu", time.monotonic() + 60)
    found = json.loads((tmp_path / "checks.json").read_text())["checks"]
    assert [one["ok"] for one in found] == [False, True] and "no kernel" in found[0]["said"]
    gpu.checks(tmp_path, "cpu", time.monotonic() - 1)
    found = json.loads((tmp_path / "checks.json").read_text())["checks"]
    assert [one["ok"] for one in found] == [None, None]


def test_what_it_needs_is_named(gpu: Any) -> None:
    names = {line.partition("==")[0] for line in gpu.needs()}
    assert {"torch", "numpy", "numba", "gymnasium", "stable-baselines3", "mujoco"} <= names
    assert not {"pytest", "d3rlpy", "jax"} & names


@pytest.mark.slow
def test_a_table_goes_on_where_it_stopped(tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--stages", "table", "--agents", "bc", "--seeds", "0", "1", "--out", "out"]
    settings = ["env.size=20000", "eval_every=0", "final_episodes=1", "log_every=50"]

    def run(seconds: int, steps: int) -> int:
        own = [sys.executable, str(SCRIPT), *arguments, "--seconds", str(seconds), "--steps", str(steps)]
        return subprocess.run([*own, "--extra", *settings], cwd=tmp_path, timeout=300).returncode

    assert run(75, 10_000_000) == 0
    first = sorted(path.name for path in (tmp_path / "out" / "table").glob("*/checkpoints/*"))
    assert len(first) == 2 and first[0] == first[1]
    assert run(75, 10_000_000) == 0
    second = sorted(path.name for path in (tmp_path / "out" / "table").glob("*/checkpoints/*"))
    assert second[-1] > first[-1]
