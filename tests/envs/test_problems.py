"""Problems own their rules: nobody asks what one is called, and every agent takes the same instances."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

import rlkit.envs
from rlkit.agents.bq.bq import BQ
from rlkit.agents.ptrnet.ptrnet import PtrNet
from rlkit.envs.combinatorial.base import PROBLEMS, generate, make_problem, problem_kinds, problem_of_space, row
from rlkit.envs.combinatorial.cvrp.files import read_cvrplib
from rlkit.envs.combinatorial.instances import Solutions, read_instances
from rlkit.envs.combinatorial.labels import make_labels, read_labels
from rlkit.envs.combinatorial.tsp.files import read_tsplib
from rlkit.errors import UserError
from rlkit.registry import record

ENVS = Path(rlkit.envs.__file__).resolve().parent
FOLDERS = {kind.name: ENVS / "combinatorial" / kind.__module__.split(".")[-2] for kind in problem_kinds()}
IDS = {name: record(name).env_id for name in PROBLEMS}
USUAL: dict[str, dict[str, Any]] = {"cvrp": {"capacity": 20}, "op": {"budget": 2.0}, "knapsack": {"capacity": 2.0}}
TINY: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "feedforward": 16}


# ---- names -----------------------------------------------------------------------------------------------------------


def switches(tree: ast.AST) -> Iterator[int]:
    """Lines that compare with a problem's name, look it up, or have it as a key or pattern."""

    def named(node: ast.AST | None) -> bool:
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            return any(named(part) for part in node.elts)
        return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in PROBLEMS

    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=others) if any(named(part) for part in (left, *others)):
                yield node.lineno
            case ast.Dict(keys=keys) if any(named(key) for key in keys):
                yield node.lineno
            case ast.Subscript(slice=key) | ast.Call(func=ast.Attribute(attr="get" | "pop"), args=[key, *_]) if named(
                key
            ):
                yield node.lineno
            case ast.MatchValue(value=value) if named(value):
                yield node.lineno
            case ast.Call(func=ast.Name(id="dict"), keywords=words) if any(word.arg in PROBLEMS for word in words):
                yield node.lineno


def test_nothing_but_the_registry_switches_on_a_problems_name() -> None:
    root, registries = ENVS.parent, (ENVS / "combinatorial" / "base.py", ENVS / "records" / "combinatorial.py")
    found, read = [], 0
    for folder in ("agents", "envs", "rlkit", "scripts"):
        for path in sorted((root / folder).rglob("*.py")):
            if path in registries or any(path.is_relative_to(own) for own in FOLDERS.values()):
                continue
            read += 1
            found += [f"{path.relative_to(root)}:{line}" for line in switches(ast.parse(path.read_text()))]
    assert not found and read > 100


def test_switches_are_seen() -> None:
    for text in (
        "x == 'tsp'",
        "x not in ('a', 'op')",
        "{'cvrp': 1}",
        "f(x)['knapsack']",
        "x.get('delaunay', 3)",
        "dict(tsp=1)",
        "match x:\n case 'atsp' | 'b': pass",
    ):
        assert list(switches(ast.parse(text))), text
    assert not list(switches(ast.parse("make_problem('tsp'); x == 'tour'; {'a': 'tsp'}")))


def test_the_registrys_own_file_switches_once() -> None:
    assert len(list(switches(ast.parse((ENVS / "combinatorial" / "base.py").read_text())))) == 1


@pytest.mark.parametrize("name", FOLDERS)
def test_every_problem_has_the_same_files(name: str) -> None:
    found = {path.name for path in FOLDERS[name].glob("*.py")}
    assert found - {"files.py", "improve.py"} == {"__init__.py", "rules.py", "device.py", "solvers.py", "drawing.py"}
    problem = make_problem(name)
    assert ("files.py" in found) == (name in ("tsp", "atsp", "cvrp"))
    assert ("files.py" in found) == bool(problem.readers()) == bool(problem.writers())
    assert ("improve.py" in found) == (name in ("tsp", "atsp", "cvrp", "op"))
    assert all(suffix.startswith(".") and callable(read) for suffix, read in problem.readers().items())
    assert "own" in problem.part("solvers", "SOLVERS") and problem.part("solvers", "OWN_UP_TO") > 3
    assert callable(problem.part("drawing", "draw"))
    assert problem.reduces or problem.points
    for asked, kind in ((problem.reduces, problem.device), (problem.points, problem.pointers)):
        if asked:
            assert isinstance(kind(), type)


def test_environments_are_made_without_torch_pictures_or_solvers() -> None:
    code = f"""
import sys, gymnasium as gym, rlkit.envs
for env_id in {sorted(IDS.values())}:
    gym.make(env_id).reset(seed=0)
    gym.make_vec(env_id, 2, vectorization_mode="vector_entry_point").reset(seed=0)
parts = (".device", ".solvers", ".drawing", ".files", ".instances", ".labels")
print([m for m in sys.modules if m in ("torch", "matplotlib") or (m.endswith(parts) and "combinatorial" in m)])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_known_by_what_it_shows(name: str) -> None:
    usual = make_problem(name, num_nodes=9, **USUAL.get(name, {}))
    for sequence in (False, True):
        found = problem_of_space(usual.observation_space(sequence))
        assert (found is not None and (found.name, found.num_nodes) == (name, 9)) == usual.reduces
    assert problem_of_space(spaces.Dict({"coords": spaces.Box(0, 1, (9, 2))})) is None
    assert problem_of_space(spaces.Discrete(3)) is None
    odd = dict(usual.observation_space(False).spaces)
    odd[next(iter(usual.shapes()))] = spaces.Discrete(4)
    assert problem_of_space(spaces.Dict(odd)) is None


# ---- instances -------------------------------------------------------------------------------------------------------


def bq(name: str = "tsp") -> BQ:
    return BQ("MultiInputPolicy", replace(record(name), env_kwargs={"num_nodes": 6, **USUAL.get(name, {})}), **TINY)


def pointer(name: str = "tsp") -> PtrNet:
    return PtrNet(env=replace(record(name), env_kwargs={"num_nodes": 6}), hidden_size=16)


TSP = """NAME: four
TYPE: TSP
DIMENSION: 4
EDGE_WEIGHT_TYPE: EUC_2D
NODE_COORD_SECTION
1 0 0
2 9 1
3 8 7
4 0 5
EOF
"""


@pytest.mark.parametrize("make", [bq, pointer])
def test_agents_take_instances_in_every_form(make: Any, tmp_path: Path) -> None:
    agent = make()
    (tmp_path / "four.tsp").write_text(TSP)
    labels = read_labels(make_labels("tsp", num_nodes=7, size=3, solver="own", path=tmp_path / "l.safetensors"))
    five = generate(make_problem("tsp", num_nodes=5), 2, 3)
    found = agent.solve(five)
    assert type(found) is Solutions and len(found) == 2
    assert found.sizes.tolist() == [5, 5] and found.lengths.tolist() == [5, 5] and found.sound.all()
    assert found.invalid == 0.0 and found.seconds is not None and found.seconds > 0
    forms = [
        five["coords"],
        five["coords"].tolist(),
        list(five["coords"]),
        [row(five, 0), five["coords"][1]],
        [{key: value[:1] for key, value in five.items()}, row(five, 1)],
    ]
    for form in forms:
        again = agent.solve(form)
        np.testing.assert_array_equal(again.solutions, found.solutions)
        np.testing.assert_array_equal(again.objectives, found.objectives)
    np.testing.assert_array_equal(agent.solve(row(five, 1)).solutions[0], found.solutions[1])
    np.testing.assert_array_equal(agent.solve(five["coords"][1]).solutions[0], found.solutions[1])
    file = read_tsplib(tmp_path / "four.tsp")
    mixed = agent.solve([five["coords"][0], file, labels, row(five, 1), [[0.1, 0.1], [0.9, 0.2], [0.5, 0.8]]])
    assert mixed.sizes.tolist() == [5, 4, 7, 7, 7, 5, 3] and mixed.lengths.tolist() == mixed.sizes.tolist()
    np.testing.assert_array_equal(mixed.solutions[[0, 5], :5], found.solutions)
    np.testing.assert_array_equal(mixed.solutions[1, :4], agent.solve(file).solutions[0])
    assert (mixed.solutions[1, 4:] == -1).all() and file.length(mixed.solutions[1]) > 0
    np.testing.assert_allclose(mixed.objectives[2:5], agent.solve(labels).objectives)
    lists = agent.solve([part.tolist() for part in (five["coords"][0], labels.instances["coords"][0])])
    assert lists.sizes.tolist() == [5, 7]


def test_problems_of_several_arrays_take_mappings_and_files(tmp_path: Path) -> None:
    agent = bq("cvrp")
    text = TSP.replace("TYPE: TSP", "TYPE: CVRP\nCAPACITY: 9").replace("EOF\n", "")
    (tmp_path / "four.vrp").write_text(f"{text}DEMAND_SECTION\n1 0\n2 4\n3 5\n4 6\nDEPOT_SECTION\n1\n-1\nEOF\n")
    file, problem = read_cvrplib(tmp_path / "four.vrp"), make_problem("cvrp", num_nodes=6, capacity=20)
    found = agent.solve([generate(problem, 2, 0), file])
    assert found.sizes.tolist() == [6, 6, 3] and found.objectives[2] == file.make_problem().objective(
        file.instance, found.solutions[2]
    )
    knapsack = make_problem("knapsack", num_nodes=5, capacity=2.0)
    [group] = read_instances(knapsack, row(generate(knapsack, 1, 0), 0))
    assert group.problem.num_nodes == 5 and group.arrays["weight"].shape == (1, 5)


def test_instances_that_are_none_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "four.tsp").write_text(TSP)
    tsp, cvrp = make_problem("tsp"), make_problem("cvrp")
    for problem, given, expected in (
        (tsp, 3, "instances: expected a mapping of arrays with 'coords' for tsp, got 3"),
        (tsp, None, "instances: expected a mapping of arrays with 'coords' for tsp, got None"),
        (tsp, [], "expected instances of tsp to solve, got none"),
        (tsp, [{"cost": np.ones((4, 4))}], "instance 0: expected a mapping of arrays with 'coords' for tsp"),
        (
            tsp,
            np.zeros((1, 1, 4, 2)),
            r"'coords' has shape \(1, 1, 4, 2\), expected 2 axes for one instance of tsp, 3 for",
        ),
        (tsp, np.zeros((2, 4, 3)), r"instance 0: 'coords' has shape \(4, 3\), expected \(4, 2\)"),
        (tsp, [np.random.default_rng(0).random((4, 2)), np.full((5, 2), np.nan)], "instance 1: 'coords' holds nan"),
        (tsp, [[[0, 0], [1]], [[0, 0]]], "'coords' is not an array of numbers, its rows differ in length"),
        (tsp, np.zeros((2, 2)), "num_nodes=2 is out of range, expected a whole number from 3 to"),
        (cvrp, np.zeros((4, 2)), "instances: expected a mapping of arrays with 'coords' for cvrp"),
        (cvrp, read_tsplib(tmp_path / "four.tsp"), "instances: four holds tsp, expected cvrp"),
        (cvrp, [{"coords": np.zeros((4, 2))}], "instance 0: 'demand' is missing"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            read_instances(problem, given)
        assert "\n" not in str(error.value)
