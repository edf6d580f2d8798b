"""Solvers against brute force and each other, metrics, geometry."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from rlkit.envs.combinatorial import geometry, metrics, solvers
from rlkit.envs.combinatorial.atsp import solvers as atsp_solvers
from rlkit.envs.combinatorial.base import generate, make_problem, row
from rlkit.envs.combinatorial.bisimulation import optimal_values
from rlkit.envs.combinatorial.convex_hull.rules import hull_target
from rlkit.envs.combinatorial.delaunay.rules import delaunay_target
from rlkit.envs.combinatorial.knapsack.solvers import density_greedy, knapsack_search
from rlkit.envs.combinatorial.op.solvers import complete_op
from rlkit.errors import UserError


def nearest(problem: Any, instance: Any) -> np.ndarray:
    found: np.ndarray = problem.baselines()["nearest_neighbour"](problem, instance, np.random.default_rng(0))
    return found


# ---- solvers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tsp", "atsp"])
def test_held_karp_equals_brute_force(name: str) -> None:
    problem = make_problem(name, num_nodes=7)
    for k in range(5):
        instance = row(generate(problem, 5, 0), k)
        tours = np.array([(0, *order) for order in permutations(range(1, 7))])
        many = {key: np.broadcast_to(value, (len(tours), *value.shape)) for key, value in instance.items()}
        tour = solvers.held_karp(solvers.costs_of(instance))
        assert problem.objective(instance, tour) == pytest.approx(problem.objectives(many, tours).min(), abs=1e-12)
    with pytest.raises(UserError, match="at most 12 nodes, got 13"):
        solvers.held_karp(np.ones((13, 13)))


@pytest.mark.parametrize(
    "name,settings_", [("cvrp", {"num_nodes": 6, "capacity": 13}), ("op", {"num_nodes": 7, "budget": 2.0})]
)
def test_exact_solvers_equal_dynamic_programming_over_states(name: str, settings_: dict[str, Any]) -> None:
    problem = make_problem(name, **settings_)
    for k in range(4):
        instance = row(generate(problem, 4, 1), k)
        best = optimal_values(problem, instance)[0][problem.initial(instance)]
        found = problem.objective(instance, solvers.solve(problem, instance, "own"))
        assert found == pytest.approx(best if problem.maximise else -best, abs=1e-9)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 10), items=st.sampled_from(["bq", "uniform"]))
@settings(max_examples=25, deadline=None)
def test_packings_are_optimal(seed: int, n: int, items: str) -> None:
    problem = make_problem("knapsack", num_nodes=n, items=items, capacity=1.0 + 3 * (seed % 100) / 100)
    instance = row(generate(problem, 1, seed), 0)
    weight, value = instance["weight"], instance["value"]
    subsets = [list(c) for size in range(n + 1) for c in combinations(range(n), size)]
    best = max(value[c].sum() for c in subsets if weight[c].sum() <= instance["capacity"] + 1e-9)
    for solution in (solvers.solve(problem, instance, "own"), knapsack_search(instance)):
        assert problem.objective(instance, solution) == pytest.approx(best, abs=1e-9)


def test_branch_and_bound_equals_the_table_and_beats_density() -> None:
    problem = make_problem("knapsack", num_nodes=50)
    instances, gaps = generate(problem, 60, 2), []
    for k in range(60):
        instance = row(instances, k)
        table = problem.objective(instance, solvers.solve(problem, instance, "own"))
        assert problem.objective(instance, knapsack_search(instance)) == pytest.approx(table, abs=1e-9)
        gaps.append(100 * (1 - problem.objective(instance, density_greedy(instance)) / table))
    assert 0.1 < np.mean(gaps) < 0.6 and min(gaps) >= -1e-9  # 0.27 measured over many


def test_local_search_finds_optimal_tours_and_shortens_long_ones() -> None:
    for name in ("tsp", "atsp"):
        problem, rng = make_problem(name, num_nodes=11), np.random.default_rng(0)
        instances = generate(problem, 10, 3)
        for k in range(10):
            cost = solvers.costs_of(row(instances, k))
            best = problem.objective(row(instances, k), solvers.held_karp(cost))
            found = problem.objective(row(instances, k), solvers.local_search(cost, 30, rng))
            assert best - 1e-12 <= found <= 1.0001 * best or (name == "atsp" and found <= 1.1 * best)
    problem = make_problem("tsp", num_nodes=60)
    instance = row(generate(problem, 1, 0), 0)
    cost = solvers.costs_of(instance)
    insertion = problem.objective(instance, solvers.random_insertion(cost, np.random.default_rng(0)))
    neighbour = problem.objective(instance, nearest(problem, instance))
    assert problem.objective(instance, solvers.local_search(cost, 3, np.random.default_rng(0))) < min(
        insertion, neighbour
    )


def test_optimal_tours_of_twenty_cities_have_the_known_mean_length() -> None:
    problem = make_problem("tsp", num_nodes=20)
    instances = generate(problem, 600, 11)
    tours = np.stack([solvers.solve(problem, row(instances, k), "own", 0.4, k) for k in range(600)])
    assert problem.objectives(instances, tours).mean() == pytest.approx(3.84, rel=0.01)


@pytest.mark.parametrize("name,arguments", [("tsp", {}), ("atsp", {}), ("cvrp", {}), ("op", {})])
def test_nearest_neighbour_is_feasible_everywhere(name: str, arguments: dict[str, Any]) -> None:
    problem = make_problem(name, num_nodes=20, **arguments)
    instances = generate(problem, 20, 0)
    found = np.stack([nearest(problem, row(instances, k)) for k in range(20)])
    assert (problem.objectives(instances, found) > 0).all()


def test_prizes_on_the_way_are_taken() -> None:
    problem = make_problem("op", num_nodes=20)
    instance = row(generate(problem, 1, 0), 0)
    found = complete_op(instance, np.array([0, 5, 0, -1]))
    assert 5 in found and problem.objective(instance, found) > instance["prize"][5]
    state = problem.initial(instance)
    for action in problem.actions(found):
        assert problem.feasible(instance, state)[action]
        state, _, _ = problem.step(instance, state, action)
    assert not problem.feasible(instance, state).any()


@pytest.mark.parametrize(
    "package,name,settings_,worst",
    [
        ("fast_tsp", "tsp", {"num_nodes": 21}, 1.0001),
        ("fast_tsp", "atsp", {"num_nodes": 13}, 1.0001),
        ("hygese", "cvrp", {"num_nodes": 11, "capacity": 25}, 1.0),
        ("pyvrp", "op", {"num_nodes": 13, "budget": 1.8}, 1.0),
        ("ortools", "knapsack", {"num_nodes": 50}, 1.0),
    ],
)
def test_packages_of_the_extra_solve(
    package: str, name: str, settings_: dict[str, Any], worst: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    problem = make_problem(name, **settings_)
    own = importlib.import_module(f"rlkit.envs.combinatorial.{name}.solvers")
    limits = [(module, limit) for module in (solvers, own) for limit in ("MOST_EXACT", "OWN_UP_TO")]

    def limited(patch: pytest.MonkeyPatch, nodes: int) -> None:
        for module, limit in limits:
            if hasattr(module, limit):
                patch.setattr(module, limit, nodes)

    limited(monkeypatch, 13)
    exact = {"tsp": lambda i: solvers.local_search(solvers.costs_of(i), 200, np.random.default_rng(0))}.get(
        name, lambda i: solvers.solve(problem, i, "own")
    )
    for k in range(3):
        instance = row(generate(problem, 3, 0), k)
        best = problem.objective(instance, exact(instance))
        with monkeypatch.context() as patch:
            limited(patch, 0)
            solver = next(s for s in own.SOLVERS if s.replace("-", "_") == package)
            found = problem.objective(instance, solvers.solve(problem, instance, solver, 1.0, k))
        assert found <= worst * best + 1e-9 and found >= best / worst - 1e-6


@pytest.mark.parametrize(
    "solver,name,package", [("fast-tsp", "tsp", "fast_tsp"), ("hygese", "cvrp", "hygese"), ("pyvrp", "op", "pyvrp")]
)
def test_a_missing_package_is_named(solver: str, name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    problem = make_problem(name, num_nodes=50)
    for call in (
        lambda: solvers.solve(problem, row(generate(problem, 1, 0), 0), solver),
        lambda: solvers.solver_version(solver),
    ):
        with pytest.raises(UserError, match=rf"'{solver}' is not installed: pip install 'rlkit-papers\[labels\]'"):
            call()
    with pytest.raises(UserError, match="unknown solver 'concord'"):
        solvers.solve(problem, {}, "concord")


# ---- infeasible solutions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,settings_,solution,sentence",
    [
        ("tsp", {"num_nodes": 4}, [0, 1, 2, 2], "expected every node exactly once"),
        ("cvrp", {"num_nodes": 3, "capacity": 9}, [0, 1, 2, 0], "expected every customer exactly once"),
        ("cvrp", {"num_nodes": 3, "capacity": 9}, [0, 1, 2, 3], "begin and end at the depot"),
        ("cvrp", {"num_nodes": 3, "capacity": 9}, [0, 1, 2, 3, 0], "a route carries [0-9]+, expected at most 9"),
        ("cvrp", {"num_nodes": 3, "capacity": 9}, [0, 1, 7, 3, 0], "names node 7, expected 0 to 3"),
        ("op", {"num_nodes": 3, "budget": 1.0}, [0, 1, 2, 3, 0], "length [0-9.]+, expected up to 1"),
        ("op", {"num_nodes": 3, "budget": 1.0}, [0, 1, 1, 0], "no node visited twice"),
        ("op", {"num_nodes": 3, "budget": 1.0}, [0, 1, 9, 0], "names node 9"),
        ("knapsack", {"num_nodes": 9, "capacity": 1.0}, list(range(9)), "weight [0-9.]+, expected at most 1"),
        ("knapsack", {"num_nodes": 9, "capacity": 1.0}, [1, 1], "expected no item twice"),
        ("knapsack", {"num_nodes": 9, "capacity": 1.0}, [9], "names item 9"),
        ("convex-hull", {"num_nodes": 4}, [0, 0], "makes it no convex polygon"),
        ("convex-hull", {"num_nodes": 4}, [0], "closed at its first corner"),
        ("delaunay", {"num_nodes": 4}, [0, 1, 2], "expected 3 pointers for each of"),
        ("delaunay", {"num_nodes": 3}, [0, 1, 1], "names a point twice"),
    ],
)
def test_infeasible_solutions_are_one_sentence(
    name: str, settings_: dict[str, Any], solution: list[int], sentence: str
) -> None:
    problem = make_problem(name, **settings_)
    instance = row(generate(problem, 1, 2), 0)
    if name == "cvrp":
        instance["demand"] = np.array([0, 9, 9, 9])
    with pytest.raises(UserError, match=sentence):
        problem.objective(instance, solution)


# ---- geometry and metrics --------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), n=st.integers(3, 40))
@settings(max_examples=40, deadline=None)
def test_hulls_and_triangulations(seed: int, n: int) -> None:
    coords = np.random.default_rng(seed).random((n, 2))
    corners = geometry.convex_hull(coords)
    reference = ConvexHull(coords)
    assert set(corners.tolist()) == set(reference.vertices.tolist()) and corners[0] == corners.min()
    assert geometry.polygon_area(coords, corners) == pytest.approx(reference.volume, rel=1e-9)
    target = hull_target(coords)
    assert target[0] == target[-1] == corners[0] and metrics.same_polygon(target, np.roll(corners, 2))
    triangles = delaunay_target(coords)
    assert len(triangles) == 2 * n - 2 - len(corners) and (np.diff(triangles, axis=1) > 0).all()
    centres = geometry.incentres(coords, triangles)
    assert (np.diff(centres[:, 0]) >= 0).all()
    for (i, j, k), centre in zip(triangles, centres, strict=True):  # no point inside a triangle's circle
        a, b, c = coords[i], coords[j], coords[k]
        squares = [(p**2).sum() for p in (a, b, c)]
        d = 2 * (a[0] * (b[1] - c[1]) + b[0] * (c[1] - a[1]) + c[0] * (a[1] - b[1]))
        x = (squares[0] * (b[1] - c[1]) + squares[1] * (c[1] - a[1]) + squares[2] * (a[1] - b[1])) / d
        y = (squares[0] * (c[0] - b[0]) + squares[1] * (a[0] - c[0]) + squares[2] * (b[0] - a[0])) / d
        away = ((coords - (x, y)) ** 2).sum(axis=1)
        assert (away >= (1 - 1e-6) * ((a - (x, y)) ** 2).sum()).all()
        sides = [
            abs(geometry.turn(np.stack((p, q, centre)), 0, 1, 2)) / math.dist(p, q) for p, q in ((a, b), (b, c), (c, a))
        ]
        assert sides == pytest.approx([sides[0]] * 3, rel=1e-6)  # as far from every side


SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.2]])
HULL = np.array([0, 1, 2, 3, 0])


def test_hull_scores() -> None:
    def score(*polygons: list[int]) -> metrics.HullScores:
        return metrics.hull_scores([SQUARE] * len(polygons), [np.array(p) for p in polygons], [HULL] * len(polygons))

    assert score([2, 3, 0, 1, 2, -1], [1, 2, 3, 0]) == (1.0, 1.0, 0.0)
    assert score([0, 1, 2, 3, 4, 0]).accuracy == 0.0 and score([0, 4, 1, 2, 3, 0]).area == pytest.approx(0.9)
    assert score([0, 1, 2, 0]) == (0.0, 0.5, 0.0)
    crossed = score([0, 2, 1, 3, 0], HULL.tolist())
    assert crossed.crossed == 0.5 and math.isnan(crossed.area) and crossed.accuracy == 0.5
    mostly = score([0, 2, 1, 3, 0], *[HULL.tolist()] * 99)
    assert mostly.crossed == pytest.approx(0.01) and mostly.area == 1.0
    for few in ([0, 1], [0, 1, 0], [-1, -1], [0, 1, 1, 2]):
        assert not metrics.is_simple(SQUARE, np.array(few)) and score(few).accuracy == 0.0


def test_triangulation_scores() -> None:
    true = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [0, 3, 4]])
    exact = np.array([4, 0, 1, 2, 4, 1, 3, 2, 4, 3, 0, 4, -1, -1, -1])
    half = np.array([0, 1, 4, 0, 1, 4, 2, 1, 4, 0, 2, 3, 4])
    assert metrics.triangulation_scores([exact], [true]) == (1.0, 1.0)
    assert metrics.triangulation_scores([exact, half], [true, true]) == (0.5, 0.75)


def test_gaps_and_lengths() -> None:
    assert metrics.tour_length(SQUARE[None, :4], np.array([[0, 1, 2, 3]])).tolist() == [4.0]
    assert metrics.gap(np.array([11.0]), np.array([10.0])).tolist() == [10.0]
    assert metrics.gap(np.array([8.0]), np.array([10.0]), maximise=True).tolist() == [20.0]
    with pytest.raises(UserError, match="above 0"):
        metrics.gap(np.array([8.0]), np.array([0.0]))


@pytest.mark.parametrize("name,n", [("tsp", 6), ("tsp", 15), ("atsp", 6), ("cvrp", 5), ("op", 6)])
def test_coincident_points_are_solved(name: str, n: int) -> None:
    usual = {"cvrp": {"capacity": 12}, "op": {"budget": 2.0}}.get(name, {})
    problem = make_problem(name, num_nodes=n, **usual)
    instance = problem.draw(np.random.default_rng(2))
    pairs = np.random.default_rng(3).integers(0, 3, problem.num_points)
    for group in (pairs, np.zeros_like(pairs)):  # at three places, at one
        if name == "atsp":
            instance["cost"] = instance["cost"][np.ix_(group, group)]
            np.testing.assert_array_equal(np.isfinite(atsp_solvers.symmetric(instance["cost"])), True)
        else:
            instance["coords"] = instance["coords"][group]
        checked = problem.check(instance)
        assert problem.objective(checked, solvers.solve(problem, checked, "own")) >= 0
        assert problem.objective(checked, nearest(problem, checked)) >= 0


@pytest.mark.parametrize("name", ["own", "pyvrp"])
def test_orienteering_equals_cp_sat_on_twenty_nodes(name: str) -> None:
    if name == "pyvrp":
        pytest.importorskip("pyvrp")
    cp_model: Any = pytest.importorskip("ortools.sat.python.cp_model")
    problem = make_problem("op", num_nodes=20)
    instance = row(generate(problem, 1, 5), 0)
    cost, model, arcs, ways = solvers.distances(instance["coords"]), cp_model.CpModel(), [], []
    for i in range(21):
        for j in range(21):
            arc = model.new_bool_var("")
            arcs.append((i, j, arc))
            if i != j:
                ways.append(round(cost[i, j] * 1e7) * arc)
    model.add_circuit(arcs)
    left_out = [arc for i, j, arc in arcs if i == j]
    model.add(left_out[0] == 0)
    model.add(sum(ways) <= int(float(instance["budget"]) * 1e7) + 5)
    model.maximize(sum(round(p * 100) * (1 - out) for p, out in zip(instance["prize"], left_out, strict=True)))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.status_name(solver.solve(model)) == "OPTIMAL"
    found = problem.objective(instance, solvers.solve(problem, instance, name))
    assert found == pytest.approx(solver.objective_value / 100, abs=1e-9)


def test_solvers_are_imported_when_they_are_called() -> None:
    packages = ("fast_tsp", "hygese", "pyvrp", "ortools", "torch", "matplotlib")
    modules = "rlkit.envs.combinatorial.labels, rlkit.envs.combinatorial.tsplib"
    code = f"import {modules}, sys; print([m for m in {packages} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
