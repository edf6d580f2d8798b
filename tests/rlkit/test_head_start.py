"""``rlkit solve`` of a few cities answers before numba has compiled anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import rlkit
from rlkit.cli import head_start
from rlkit.envs.combinatorial import tour_moves
from rlkit.envs.combinatorial.base import make_problem
from rlkit.envs.combinatorial.improvement import warm_up

ROOT = Path(__file__).parents[2]


def ring(path: Path, cities: int) -> Path:
    """Cities on a circle, in no order; the shortest tour is the circle."""
    turns = np.random.default_rng(0).permutation(cities) * 2.0 * np.pi / cities
    path.write_text("".join(f"{np.cos(t):.17g},{np.sin(t):.17g}\n" for t in turns))
    return path


def test_an_answer_is_printed_while_kernels_are_compiled(tmp_path: Path) -> None:
    """Nothing has been compiled: the answer is there with the seconds asked for, then one waits, and may leave."""
    cities = ring(tmp_path / "ring.csv", 60)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba"), "PYTHONPATH": str(ROOT)}
    environment.pop("NUMBA_DISABLE_JIT", None)
    code = "import sys; from rlkit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "solve", str(cities), "--seconds", "1"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        said = [process.stdout.readline() for _ in range(4)]
        assert process.stderr.readline() == f"{head_start.WAITS}\n"
        assert process.poll() is None and not any((tmp_path / "numba").glob("*/tour_moves.iterate-*.nbi"))
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(30) == 130 and "Traceback" not in rest, rest
    length = float(said[2].removeprefix("length "))
    assert length == pytest.approx(2 * 60 * np.sin(np.pi / 60)) and float(said[3].removeprefix("seconds ")) < 5
    time.sleep(0.2)
    left = subprocess.run(["ps", "-e", "-o", "args"], capture_output=True, text=True, check=False).stdout
    assert str(tmp_path) not in left and "warm_up(type(make_problem" not in left


def test_which_files_have_few_cities(tmp_path: Path) -> None:
    assert head_start.few(str(ring(tmp_path / "a.csv", 100))) and not head_start.few(str(ring(tmp_path / "b.csv", 200)))
    (tmp_path / "long.tsp").write_text("0 " * head_start.MOST_BYTES)
    for name in ("long.tsp", "none.tsp", "a.vrp", "atsp"):
        assert not head_start.few(str(tmp_path / name)), name
    assert not head_start.few("") and not head_start.few(".") and not head_start.few("cvrp")
    assert head_start.few("tsp") and head_start.few("tsp", 100)
    assert not head_start.few("tsp", 1000) and not head_start.few("tsp", "many")
    assert make_problem("tsp").num_nodes == head_start.USUAL
    (tmp_path / "folder.csv").mkdir()
    assert not head_start.few(str(tmp_path / "folder.csv"))


def test_kernels_are_found_where_numba_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm_up(type(make_problem("tsp")))
    assert head_start.compiled()
    assert callable(getattr(tour_moves, head_start.LAST)) and tour_moves.__name__ == head_start.KERNELS
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not head_start.compiled()
    (tmp_path / "combinatorial_1").mkdir()
    (tmp_path / "combinatorial_1" / "tour_moves.iterate-1.py311.nbi").touch()
    assert head_start.compiled()


def test_nothing_begins_where_numba_is_there_or_another_method_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(ring(tmp_path / "a.csv", 20))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "empty"))
    with head_start.head_start(path, "auto") as in_python:
        assert not in_python and "numba" in sys.modules
    monkeypatch.delitem(sys.modules, "numba")
    with head_start.head_start(path, "insertion") as in_python:
        assert not in_python
    with head_start.head_start(str(tmp_path / "no.csv"), "auto") as in_python:
        assert not in_python
    assert "NUMBA_DISABLE_JIT" not in os.environ


def test_python_searches_as_kernels_do(tmp_path: Path) -> None:
    """With so many steps the search without a compiler has the same tours, bit for bit: it is the same functions."""
    code = (
        "import numpy as np; from rlkit.envs.combinatorial.base import make_problem, generate, row\n"
        "from rlkit.envs.combinatorial.costs import costs_within\n"
        "instance = row(generate(make_problem('tsp', num_nodes=30), 1, 3), 0)\n"
        "search = make_problem('tsp').part('improve', 'Search')(instance, costs_within(instance), 7)\n"
        "for step in range(60): search.advance(step / 60, 5)\n"
        "print(search.solution.tolist(), repr(search.objective))"
    )
    found = []
    for disabled in ("0", "1"):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert not done.stderr
        found.append(done.stdout)
    assert found[0] == found[1]
    assert rlkit.solve("tsp", num_nodes=30, seed=3, seconds=0.5).objective <= float(found[0].split("]")[1])
