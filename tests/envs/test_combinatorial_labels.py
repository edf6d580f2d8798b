"""Labelled sets: the same bytes for the same call, whole provenance, and nothing read that was not checked."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from rlkit.envs.combinatorial.base import generate, make_problem, row
from rlkit.envs.combinatorial.labels import make_labels, read_labels
from rlkit.errors import DataError, UserError

SMALL: dict[str, dict[str, Any]] = {
    "tsp": {"num_nodes": 8},
    "atsp": {"num_nodes": 7},
    "cvrp": {"num_nodes": 6, "capacity": 12},
    "op": {"num_nodes": 8, "budget": 2.0},
    "knapsack": {"num_nodes": 9, "capacity": 2.0},
    "convex-hull": {"num_nodes": 9},
    "delaunay": {"num_nodes": 6},
}


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLKIT_LABELS_PATH", str(tmp_path / "labels"))


def rewrite(path: Path, change: dict[str, np.ndarray], meta: dict[str, Any] | None = None, honest: bool = True) -> Path:
    """A copy with other arrays; ``honest`` has the hashes fit them."""
    from rlkit.envs.combinatorial.labels import _digest

    arrays = {**load_file(path), **change}
    with safe_open(path, "numpy") as file:
        metadata = json.loads(file.metadata()["rlkit"]) | (meta or {})
    if honest:
        metadata["sha256"] = {key: _digest(array) for key, array in arrays.items()}
    other = path.with_name("altered.safetensors")
    save_file(arrays, other, {"rlkit": json.dumps(metadata)})
    return other


@pytest.mark.parametrize("name", SMALL)
def test_labels_are_optimal_replay_and_say_where_they_come_from(name: str, tmp_path: Path) -> None:
    path = make_labels(name, size=70, seed=3, solver="own", **SMALL[name])
    again = make_labels(name, size=70, seed=3, solver="own", path=tmp_path / "again.safetensors", **SMALL[name])
    assert path.read_bytes() == again.read_bytes() and path.parent == tmp_path / "labels"
    found = read_labels(path, make_problem(name, **SMALL[name]))
    assert len(found) == 70 and found.metadata["solver"] == "own" and found.metadata["seed"] == 3
    assert found.metadata["settings"].items() >= SMALL[name].items() and "own" in found.metadata["versions"]
    for key, array in generate(found.problem, 70, 3).items():
        np.testing.assert_array_equal(found.instances[key], array)
    for k in range(0, 70, 10):
        instance = row(found.instances, k)
        instance |= found.problem.derive(instance)
        state, total = found.problem.initial(instance), 0.0
        for action in found.problem.actions(found.solutions[k]):
            assert found.problem.feasible(instance, state)[action]
            state, reward, _ = found.problem.step(instance, state, action)
            total += reward
        assert not found.problem.feasible(instance, state).any()
        assert (total if found.problem.maximise else -total) == pytest.approx(found.objectives[k], abs=1e-9)
        if name in ("convex-hull", "delaunay"):
            assert found.objectives[k] == pytest.approx(1.0)


def test_processes_change_nothing(tmp_path: Path) -> None:
    one = make_labels("tsp", num_nodes=6, size=130, seed=1, path=tmp_path / "one.safetensors", solver="own")
    two = make_labels("tsp", num_nodes=6, size=130, seed=1, path=tmp_path / "two.safetensors", solver="own", jobs=2)
    assert one.read_bytes() == two.read_bytes()
    longer = read_labels(make_labels("tsp", num_nodes=6, size=150, seed=1, solver="own"))
    np.testing.assert_array_equal(longer.solutions[:130], read_labels(one).solutions)


def test_a_set_is_made_once(tmp_path: Path) -> None:
    path = make_labels("knapsack", num_nodes=9, capacity=2.0, size=5)
    stamp = path.stat().st_mtime_ns
    assert make_labels("knapsack", num_nodes=9, capacity=2.0, size=5) == path and path.stat().st_mtime_ns == stamp
    others = [{"size": 6}, {"size": 5, "seed": 1}, {"size": 5, "capacity": 3.0}, {"size": 5, "items": "uniform"}]
    names = {make_labels("knapsack", **{"num_nodes": 9, "capacity": 2.0, **other}).name for other in others}
    assert len(names | {path.name}) == 5
    with pytest.raises(UserError, match="holds another set, expected another name; nothing was overwritten"):
        make_labels("knapsack", num_nodes=9, capacity=2.0, size=7, path=path)
    assert path.stat().st_mtime_ns == stamp


def test_bad_files_are_one_sentence(tmp_path: Path) -> None:
    path = make_labels("tsp", num_nodes=6, size=5, solver="own")
    arrays = load_file(path)
    tours, objective, coords = arrays["solution"], arrays["objective"], arrays["coords"]
    infeasible, swapped, moved = tours.copy(), tours.copy(), coords.copy()
    infeasible[2, 1] = infeasible[2, 2]
    swapped[3, [1, 2]] = swapped[3, [2, 1]]
    moved[1, 0] = np.nan
    garbage = tmp_path / "garbage"
    garbage.write_bytes(path.read_bytes()[:200])
    cases: list[tuple[Any, str]] = [
        (tmp_path / "missing", "no such file"),
        (garbage, "not a labelled set, or truncated"),
        (lambda: rewrite(path, {"solution": swapped}, honest=False), "'solution' does not match its SHA-256"),
        (lambda: rewrite(path, {"solution": infeasible}), "solution 2 of tsp is infeasible"),
        (lambda: rewrite(path, {"solution": swapped}), "solution 3 is worth .* the labels are for another instance"),
        (lambda: rewrite(path, {"coords": coords[::-1].copy()}), "the labels are for another instance"),
        (lambda: rewrite(path, {"coords": moved}), r"instance 1: 'coords' holds nan at \(0, 0\)"),
        (lambda: rewrite(path, {"coords": coords[:, :5].copy()}), "'coords' is missing or has another form"),
        (
            lambda: rewrite(path, {"objective": objective.astype(np.float32)}),
            "'objective' is missing or has another form",
        ),
        (lambda: rewrite(path, {}, {"format": 9}), "format version 9 is unknown"),
        (lambda: rewrite(path, {}, {"problem": "tps"}), "name no problem"),
        (lambda: rewrite(path, {}, {"settings": {"nodes": 6}}), "name no problem"),
    ]
    wrong, late, gone = tours.copy(), tours.copy(), objective.copy()
    wrong[0, 0], late[0, :2], gone[1] = -7, (-1, 2), np.nan
    cases += [
        (lambda: rewrite(path, {"solution": wrong}), "'solution' holds numbers below -1"),
        (lambda: rewrite(path, {"solution": late}), "goes on behind -1"),
        (lambda: rewrite(path, {"objective": gone}), "the file says nan"),
        (lambda: rewrite(path, {"more": objective}), "expected texts in 'sha256' for coords, objective, solution"),
        (lambda: rewrite(path, {}, {"size": 4}), "expected 4 rows of shape"),
        (lambda: rewrite(path, {}, {"size": True}), "size=True is out of range"),
        (lambda: rewrite(path, {}, {"size": 10**12}), "size=1000000000000 is out of range"),
        (lambda: rewrite(path, {}, {"format": True}), "format version True is unknown"),
        (lambda: rewrite(path, {}, {"problem": "os:system"}), "unknown problem 'os:system'"),
        (lambda: rewrite(path, {}, {"problem": ["tsp"]}), "'problem' is no name"),
        (lambda: rewrite(path, {}, {"settings": [6]}), "'settings' no mapping"),
        (lambda: rewrite(path, {}, {"settings": {"num_nodes": 10**9}}), "num_nodes=1000000000 is out of range"),
        (lambda: rewrite(path, {}, {"settings": {"num_nodes": True}}), "num_nodes=True is out of range"),
        (lambda: rewrite(path, {}, {"settings": {"num_nodes": float("nan")}}), "num_nodes=nan is out of range"),
        (lambda: rewrite(path, {}, {"settings": {"num_nodes": 5}}), "'coords' is missing or has another form"),
        (lambda: rewrite(path, {}, {"solver": "os"}), "unknown solver 'os' of tsp"),
        (lambda: rewrite(path, {}, {"solver": None}), "'solver' is no name"),
        (lambda: rewrite(path, {}, {"effort": float("inf")}), "effort=inf is out of range"),
        (lambda: rewrite(path, {}, {"seed": -1}), "seed=-1 is out of range"),
        (lambda: rewrite(path, {}, {"versions": {"rlkit": "1", "numpy": "2", "own": "a\nb"}}), "texts in 'versions'"),
        (lambda: rewrite(path, {}, {"callable": "os:system"}), "expected the fields format, problem, settings"),
    ]
    for make, sentence in cases:
        with pytest.raises(DataError, match=sentence) as error:
            read_labels(make() if callable(make) else make)
        assert "\n" not in str(error.value)
    plain = tmp_path / "plain.safetensors"
    save_file(arrays, plain)
    with pytest.raises(DataError, match="not a labelled set"):
        read_labels(plain)
    with pytest.raises(DataError, match="holds tsp with 6 nodes, expected tsp with 7"):
        read_labels(path, make_problem("tsp", num_nodes=7))
    with pytest.raises(DataError, match="holds tsp with 6 nodes, expected atsp with 6"):
        read_labels(path, make_problem("atsp", num_nodes=6))


def test_shapes_are_compared_before_arrays_are_read() -> None:
    path = make_labels("tsp", num_nodes=6, size=5, solver="own")
    many = {key: np.concatenate([array] * 10_000) for key, array in load_file(path).items()}
    for change, size in (({"coords": many["coords"].astype(np.float32)}, 50_000), ({}, 49_999)):
        wrong = rewrite(path, {**many, **change}, {"size": size})
        tracemalloc.start()
        with pytest.raises(DataError, match="'coords' is missing or has another form"):
            read_labels(wrong)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert memory < 2**20 < wrong.stat().st_size
    huge = (2 << 20).to_bytes(8, "little") + b" " * (2 << 20)
    path.write_bytes(huge)
    with pytest.raises(DataError, match="its header is larger than 1048576 bytes"):
        read_labels(path)


@pytest.mark.parametrize(
    "arguments,sentence",
    [
        ({"size": 0}, "size=0 is out of range"),
        ({"jobs": 0}, "jobs=0 is out of range"),
        ({"effort": 0.0}, "effort=0.0 is out of range"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"solver": "lkh"}, "unknown solver 'lkh' of tsp"),
        ({"num_nodes": 2}, "num_nodes=2 is out of range"),
        ({"colour": 2}, "unknown setting 'colour'"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_labels("tsp", **{"num_nodes": 6, "size": 2, "solver": "own", **arguments})
