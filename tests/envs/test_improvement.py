"""Improvement and search: costs against the readers' lengths, local optima against plain oracles, never worse."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.envs.combinatorial import improvement, solvers, tsplib
from rlkit.envs.combinatorial.base import Problem, generate, make_problem, row, stack
from rlkit.envs.combinatorial.costs import EUCLID, MATRIX, NEAREST, Costs, costs_of_file, costs_within
from rlkit.envs.combinatorial.cvrp.improve import Search as RouteSearch
from rlkit.envs.combinatorial.cvrp.improve import inserted_routes
from rlkit.envs.combinatorial.cvrp.solvers import exact_cvrp
from rlkit.envs.combinatorial.op.improve import anneal as climb
from rlkit.envs.combinatorial.op.improve import replace, room
from rlkit.envs.combinatorial.op.solvers import exact_op
from rlkit.envs.combinatorial.route_search import anneal, copy_routes, empty_routes, walk_of
from rlkit.envs.combinatorial.tour_search import curve
from rlkit.errors import UserError

IMPROVED = ("tsp", "atsp", "cvrp", "op")
SETTINGS: dict[str, dict[str, Any]] = {"cvrp": {"capacity": 20}, "op": {"budget": 2.5}}
EPS = 1e-9


def problem_of(name: str, nodes: int) -> Problem:
    return make_problem(name, num_nodes=nodes, **SETTINGS.get(name, {}))


def random_solutions(problem: Problem, instances: Any, seed: int) -> np.ndarray:
    """Feasible solutions that nobody thought about: insertion of one node after another without looking."""
    generator = np.random.default_rng(seed)
    return np.stack(
        [
            solvers.walked(problem, row(instances, k), lambda state, actions: int(generator.choice(actions)))
            for k in range(len(next(iter(instances.values()))))
        ]
    )


def worth(problem: Problem, instances: Any, solutions: np.ndarray) -> np.ndarray:
    """Objectives, the smaller the better; raises where a solution is none."""
    return problem.objectives(instances, solutions) * (-1.0 if problem.maximise else 1.0)


# ---- costs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in tsplib.TYPES if kind != "EXPLICIT"])
@pytest.mark.parametrize("rounded", [True, False])
def test_costs_are_the_lengths_of_the_file(kind: str, rounded: bool) -> None:
    points = np.random.default_rng(0).uniform(-60, 60, (40, 3 if kind.endswith("3D") else 2))
    found = tsplib.Benchmark("toy", "tsp", {}, kind, points, rounded=rounded or kind in tsplib.WHOLE)
    costs, walk = costs_of_file(found), np.random.default_rng(1).permutation(40)
    i, j = np.divmod(np.arange(1600), 40)
    assert costs.between(i, j).reshape(40, 40) == pytest.approx(found.costs, abs=1e-9)
    assert costs.along(np.append(walk, walk[0])) == pytest.approx(found.length(walk), abs=1e-6)
    assert costs.symmetric and costs.nodes == 40


def test_explicit_lengths_are_taken_as_they_are() -> None:
    matrix = np.random.default_rng(0).integers(1, 99, (6, 6))
    found = tsplib.Benchmark("toy", "atsp", {}, "EXPLICIT", None, matrix)
    costs = costs_of_file(found)
    assert costs.norm == MATRIX and not costs.symmetric and np.array_equal(costs.array, matrix)


@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize("most", [0, 1, 5, 29, 50])
def test_neighbours_are_the_nearest(matrix: bool, most: int) -> None:
    points = np.random.default_rng(3).random((30, 2))
    points[7] = points[3]  # two at one place
    ways = solvers.distances(points)
    near = (Costs(ways, MATRIX) if matrix else Costs(points)).neighbours(most)
    assert near.shape == (30, min(most, 29)) and not (near == np.arange(30)[:, None]).any()
    np.fill_diagonal(ways, np.inf)
    assert np.take_along_axis(ways, near.astype(np.int64), 1) == pytest.approx(
        np.sort(ways, axis=1)[:, : near.shape[1]]
    )


def test_the_curve_visits_every_point_once_and_is_short() -> None:
    points = np.random.default_rng(0).random((4000, 2))
    order = curve(points)
    assert np.array_equal(np.sort(order), np.arange(4000))
    assert Costs(points).along(order) < 1.4 * 0.7124 * np.sqrt(4000)  # a quarter above the shortest, they say


# ---- improvement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMPROVED)
@pytest.mark.parametrize("nodes", [3, 4, 5, 8, 40])
def test_improved_solutions_are_solutions_and_no_worse(name: str, nodes: int) -> None:
    problem = problem_of(name, nodes)
    instances = generate(problem, 12, 5)
    before = random_solutions(problem, instances, 1)
    kept = before.copy()
    after = improvement.improved(problem, instances, before)
    assert np.array_equal(before, kept) and after.dtype == np.int64 and after.shape == before.shape
    assert (worth(problem, instances, after) <= worth(problem, instances, before) + EPS).all()
    if nodes == 40:
        assert (worth(problem, instances, after) < worth(problem, instances, before) - EPS).all()
    again = improvement.improved(problem, instances, after)
    assert worth(problem, instances, again) == pytest.approx(worth(problem, instances, after), abs=EPS)
    assert np.array_equal(again, after)


@pytest.mark.parametrize("name", IMPROVED)
def test_threads_and_batches_change_nothing(name: str) -> None:
    problem = problem_of(name, 30)
    instances = generate(problem, 9, 2)
    before = random_solutions(problem, instances, 3)
    found = improvement.improved(problem, instances, before)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert np.array_equal(improvement.improved(problem, instances, before), found)
    finally:
        numba.set_num_threads(threads)
    for k in (0, 8):
        one = {key: value[k : k + 1] for key, value in instances.items()}
        assert np.array_equal(improvement.improved(problem, one, before[k : k + 1])[0], found[k])


@pytest.mark.parametrize("name", ["tsp", "cvrp", "op"])
@pytest.mark.parametrize("form", ["one place", "a line", "pairs", "large"])
def test_points_that_coincide_or_lie_on_a_line(name: str, form: str) -> None:
    problem = problem_of(name, 16)
    instances = generate(problem, 4, 7)
    coords = instances["coords"]
    if form == "one place":
        coords[:] = 0.25
    elif form == "a line":
        coords[..., 1] = 0.0
    elif form == "pairs":
        coords[:, 1::2] = coords[:, : coords.shape[1] - 1 : 2]
    else:
        coords *= 1e12
        if name == "op":
            instances["budget"] *= 1e12
    before = random_solutions(problem, instances, 1)
    after = improvement.improved(problem, instances, before)
    scale = np.abs(worth(problem, instances, before)).max() + 1.0
    assert (worth(problem, instances, after) <= worth(problem, instances, before) + EPS * scale).all()
    if form == "a line" and name == "tsp":
        found = improvement.searched(
            type(problem), row(instances, 0), 5.0, chains=1, target=2 * np.ptp(coords[0, :, 0])
        )
        assert problem.objective(row(instances, 0), found) == pytest.approx(2 * np.ptp(coords[0, :, 0]))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(IMPROVED), st.integers(3, 14), st.integers(0, 10**6), st.booleans())
def test_any_instance(name: str, nodes: int, seed: int, grid: bool) -> None:
    problem = problem_of(name, nodes)
    instances = generate(problem, 2, seed)
    if grid and "coords" in instances:  # ties everywhere
        instances["coords"] = np.round(instances["coords"] * 3) / 3
    before = random_solutions(problem, instances, seed)
    after = improvement.improved(problem, instances, before)
    assert (worth(problem, instances, after) <= worth(problem, instances, before) + EPS).all()
    assert np.array_equal(improvement.improved(problem, instances, after), after)


# ---- oracles: every move of a neighbourhood, as plain Python --------------------------------------------------------


def closed(cost: np.ndarray, tour: list[int]) -> float:
    return float(cost[tour, [*tour[1:], tour[0]]].sum())


def two_opt_moves(tour: list[int]) -> Iterator[list[int]]:
    for i, j in combinations(range(len(tour)), 2):
        yield tour[:i] + tour[i : j + 1][::-1] + tour[j + 1 :]


def or_opt_moves(tour: list[int], cost: np.ndarray) -> Iterator[list[int]]:
    """Segments that move, one of whose ends comes nearer to a new neighbour than an edge was that had to go."""
    n = len(tour)
    for start in range(n):
        turned = tour[start:] + tour[:start]
        for size in range(1, min(3, n - 3) + 1):
            segment, others = turned[:size], turned[size:]
            p, q = others[-1], others[0]
            for k in range(len(others) - 1):
                for way in (segment, segment[::-1]):
                    first, last, c, d = way[0], way[-1], others[k], others[k + 1]
                    leaves = {segment[0]: cost[p, segment[0]], segment[-1]: cost[segment[-1], q]}
                    if size == 1:
                        leaves[first] = max(cost[p, first], cost[first, q])
                    nearer = (
                        cost[c, first] < max(leaves[first], cost[c, d]) - EPS,
                        cost[last, d] < max(leaves[last], cost[c, d]) - EPS,
                    )
                    if any(nearer):
                        yield others[: k + 1] + way + others[k + 1 :]


def exchange_moves(tour: list[int]) -> Iterator[list[int]]:
    for i, j, k in combinations(range(len(tour) + 1), 3):
        yield tour[:i] + tour[j:k] + tour[i:j] + tour[k:]


@pytest.mark.parametrize("nodes", [5, 6, 7, 10, 11])
def test_tours_are_local_optima_of_2_opt_and_or_opt(nodes: int) -> None:
    problem = problem_of("tsp", nodes)
    instances = generate(problem, 30, nodes)
    found = improvement.improved(problem, instances, random_solutions(problem, instances, 0))
    for k, tour in enumerate(found.tolist()):
        cost = solvers.distances(instances["coords"][k])
        moves = [*two_opt_moves(tour), *or_opt_moves(tour, cost)]
        assert min(closed(cost, move) for move in moves) >= closed(cost, tour) - 1e-8


@pytest.mark.parametrize("nodes", [5, 6, 8, 11])
def test_asymmetric_tours_are_local_optima_of_exchanges(nodes: int) -> None:
    problem = problem_of("atsp", nodes)
    instances = generate(problem, 30, nodes)
    found = improvement.improved(problem, instances, random_solutions(problem, instances, 0))
    for k, tour in enumerate(found.tolist()):
        cost = instances["cost"][k]
        assert min(closed(cost, move) for move in exchange_moves(tour)) >= closed(cost, tour) - 1e-8


def route_moves(walk: list[int]) -> Iterator[list[int]]:
    """Every move of the walk ``0 .. 0 .. 0``: turned stretches, exchanged ends, moved segments, swaps."""
    walk = [*walk, 0]  # an empty route at the end
    customers = [i for i, node in enumerate(walk) if node]
    for i, j in combinations(range(1, len(walk) - 1), 2):
        yield walk[:i] + walk[i : j + 1][::-1] + walk[j + 1 :]
    for i, j in combinations(customers, 2):
        if j - i > 1:
            swapped = walk.copy()
            swapped[i], swapped[j] = walk[j], walk[i]
            yield swapped
    for i in customers:
        for size in (1, 2, 3):
            segment = walk[i : i + size]
            if 0 not in segment:
                others = walk[:i] + walk[i + size :]
                for k in range(1, len(others)):
                    yield others[:k] + segment + others[k:]
                    yield others[:k] + segment[::-1] + others[k:]
    routes = [list(part) for part in _routes(walk)]
    for r, s in combinations(range(len(routes)), 2):
        for i in range(len(routes[r]) + 1):
            for j in range(len(routes[s]) + 1):
                changed = [*routes]
                changed[r], changed[s] = routes[r][:i] + routes[s][j:], routes[s][:j] + routes[r][i:]
                yield [0, *(node for route in changed for node in (*route, 0))]


def _routes(walk: list[int]) -> Iterator[list[int]]:
    route: list[int] = []
    for node in walk[1:]:
        if node:
            route.append(node)
        else:
            yield route
            route = []


@pytest.mark.parametrize("nodes", [3, 5, 7, 9])
def test_routes_are_local_optima(nodes: int) -> None:
    problem = problem_of("cvrp", nodes)
    instances = generate(problem, 20, nodes)
    found = improvement.improved(problem, instances, random_solutions(problem, instances, 0))
    for k, solution in enumerate(found):
        cost, demand = solvers.distances(instances["coords"][k]), instances["demand"][k]

        def length(walk: list[int], cost: np.ndarray = cost) -> float:
            return float(cost[walk[:-1], walk[1:]].sum())

        walk = solution[solution >= 0].tolist()
        for move in route_moves(walk):
            if max(demand[route].sum() for route in _routes(move)) <= instances["capacity"][k]:
                assert length(move) >= length(walk) - 1e-8, (walk, move)


@pytest.mark.parametrize("nodes", [5, 9, 14])
def test_orienteering_is_a_local_optimum(nodes: int) -> None:
    problem = problem_of("op", nodes)
    instances = generate(problem, 20, nodes)
    found = improvement.improved(problem, instances, random_solutions(problem, instances, 0))
    for k, solution in enumerate(found):
        cost, prize = solvers.distances(instances["coords"][k]), instances["prize"][k]
        budget = float(instances["budget"][k]) - EPS

        def length(walk: list[int], cost: np.ndarray = cost) -> float:
            return float(cost[walk[:-1], walk[1:]].sum())

        tour = solution[solution >= 0].tolist()
        others = sorted(set(range(1, nodes + 1)) - set(tour))
        for i, j in combinations(range(1, len(tour) - 1), 2):
            assert length(tour[:i] + tour[i : j + 1][::-1] + tour[j + 1 :]) >= length(tour) - 1e-8
            for a, b in ((i, j), (j, i)):
                left = tour[:a] + tour[a + 1 :]
                assert length([*left[:b], tour[a], *left[b:]]) >= length(tour) - 1e-8
        for node in others:
            for k in range(1, len(tour)):
                assert prize[node] == 0 or length([*tour[:k], node, *tour[k:]]) > budget
            for out in range(1, len(tour) - 1):
                left = tour[:out] + tour[out + 1 :]
                for k in range(1, len(left)):
                    changed = [*left[:k], node, *left[k:]]
                    better = prize[node] > prize[tour[out]] + EPS
                    assert not (better and length(changed) <= budget)


# ---- insertion and search --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMPROVED)
def test_more_insertions_are_no_worse(name: str) -> None:
    problem = problem_of(name, 20)
    instances = generate(problem, 5, 1)
    found = [worth(problem, instances, improvement.inserted(problem, instances, k, seed=4)) for k in (1, 4)]
    bare = worth(problem, instances, improvement.inserted(problem, instances, 1, seed=4, improve=False))
    assert (found[1] <= found[0]).all() and (found[0] <= bare + EPS).all() and found[1].sum() < bare.sum()
    again = improvement.inserted(problem, instances, 4, seed=4)
    assert np.array_equal(improvement.inserted(problem, instances, 4, seed=4), again)


@pytest.mark.parametrize("name", IMPROVED)
@pytest.mark.parametrize("nodes", [3, 4, 7, 10])
def test_small_instances_are_solved_exactly(name: str, nodes: int) -> None:
    problem = problem_of(name, nodes)
    instance = row(generate(problem, 1, 8), 0)
    found = problem.objective(instance, improvement.searched(type(problem), instance, 5.0))
    assert found == pytest.approx(problem.objective(instance, solvers.solve(problem, instance, "own")), abs=1e-9)


@pytest.mark.parametrize("name,nodes", [("tsp", 20), ("atsp", 16), ("cvrp", 20), ("op", 20)])
def test_a_search_repeats_itself_and_gets_better(name: str, nodes: int) -> None:
    problem = problem_of(name, nodes)
    instance = row(generate(problem, 1, 3), 0)
    make = problem.part("improve", "Search")
    searches = [make(instance, costs_within(instance), 11) for _ in range(2)]
    sign, before = -1.0 if problem.maximise else 1.0, np.inf
    for share in np.linspace(0.0, 1.0, 12):
        for search in searches:
            search.advance(float(share), 40)
        first, second = searches
        assert np.array_equal(first.solution, second.solution) and first.objective == second.objective
        assert sign * first.objective <= before
        assert problem.objective(instance, first.solution) == pytest.approx(first.objective, abs=1e-8)
        before = sign * first.objective
    start = make(instance, costs_within(instance), 11)
    assert sign * first.objective < sign * start.objective


def test_a_search_that_finds_nothing_more_ends_by_itself() -> None:
    problem = problem_of("tsp", 14)
    instance = row(generate(problem, 1, 0), 0)
    search = problem.part("improve", "Search")(instance, costs_within(instance), 0)
    for _ in range(100):
        search.advance(0.0, 500)
        if search.finished:
            break
    assert search.finished
    assert search.objective == pytest.approx(
        problem.objective(instance, solvers.local_search(solvers.costs_of(instance), 200, np.random.default_rng(0)))
    )


def test_a_search_tells_what_it_found_and_stops_at_its_target() -> None:
    problem = problem_of("tsp", 60)
    instance, told = row(generate(problem, 1, 0), 0), []
    found = improvement.searched(
        type(problem), instance, 30.0, told=lambda seconds, length: told.append((seconds, length)), target=6.5, chains=2
    )
    assert told == sorted(told, key=lambda line: -line[1]) and told[0][0] < 1.0 and told[-1][0] < 10.0
    assert problem.objective(instance, found) == pytest.approx(told[-1][1]) and told[-1][1] <= 6.5


@pytest.mark.parametrize("name", ["knapsack", "convex-hull", "delaunay"])
def test_problems_without_moves_say_so(name: str) -> None:
    problem = make_problem(name, num_nodes=10) if name != "knapsack" else make_problem(name, num_nodes=50)
    instances = stack([row(generate(problem, 1, 0), 0)])
    for call in (
        lambda: improvement.improved(problem, instances, np.zeros((1, 3), np.int64)),
        lambda: improvement.inserted(problem, instances, 2),
        lambda: improvement.searched(type(problem), row(instances, 0), 1.0),
    ):
        with pytest.raises(UserError, match=f"{name} has no moves"):
            call()


# ---- ruin and recreate of routes -------------------------------------------------------------------------------------


def customers(seed: int, count: int, form: str, capacity: int) -> dict[str, np.ndarray]:
    """An instance of vehicle routing that is unlike those that are drawn."""
    generator = np.random.default_rng(seed)
    coords, demand = generator.random((count + 1, 2)), generator.integers(1, capacity + 1, count + 1)
    if form == "one place":
        coords[:] = 0.5
    elif form == "grid":
        coords = np.round(coords * 2) / 2
    elif form == "full":
        demand[:] = capacity
    elif form == "small":
        demand[:] = 1
    demand[0] = 0
    return {"coords": coords, "demand": demand, "capacity": np.array(capacity)}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 30),
    st.sampled_from(["plain", "one place", "grid", "full", "small"]),
    st.integers(1, 12),
    st.sampled_from(["points", "matrix", "rounded", "one way"]),
)
def test_searched_routes_are_routes(seed: int, count: int, form: str, capacity: int, ways: str) -> None:
    instance = customers(seed, count, form, capacity)
    matrix = solvers.distances(instance["coords"])
    costs = Costs(instance["coords"])
    if ways == "rounded":
        costs, matrix = Costs(100.0 * instance["coords"], EUCLID, NEAREST), np.floor(100.0 * matrix + 0.5)
    elif ways != "points":
        matrix = matrix + np.random.default_rng(seed).random(matrix.shape) * (ways == "one way")
        np.fill_diagonal(matrix, 0.0)
        costs = Costs(matrix, MATRIX)
    search = RouteSearch(instance, costs, seed)
    first = search.objective
    for share in (0.0, 0.5, 1.0):
        search.advance(share, 60)
        walk = search.solution
        assert walk[0] == walk[-1] == 0 and np.array_equal(np.sort(walk[walk > 0]), np.arange(1, count + 1))
        assert all(0 < instance["demand"][route].sum() <= capacity for route in _routes(walk.tolist()))
        assert search.objective == pytest.approx(matrix[walk[:-1], walk[1:]].sum(), abs=1e-8) and search.objective >= 0
        assert search.objective <= first + EPS
    if form == "full":  # everyone has a route of his own
        assert len(search.solution) == 2 * count + 1


def test_a_round_that_does_not_pay_is_undone() -> None:
    """Where only shorter routes stay, all else is as it was; and rings, loads and lengths are right after each."""
    instance = customers(1, 60, "plain", 30)
    costs, demand, capacity = Costs(instance["coords"]), instance["demand"], 30
    routes, best = inserted_routes(costs, demand, capacity, 5), empty_routes(60)
    near, lengths = costs.neighbours(20), np.full(2, costs.along(walk_of(routes, 60)))
    random, before, undone = np.array([7], np.uint64), np.inf, 0
    for _ in range(300):
        kept = [part.copy() for part in routes]
        anneal(costs, routes, best, demand, capacity, near, costs.to(near), -EPS, 1, lengths, random)
        assert lengths[0] <= before
        if lengths[0] == before:
            undone += 1
            assert all(np.array_equal(a, b) for a, b in zip(kept, routes, strict=True))
        before = lengths[0]
        assert lengths[0] == pytest.approx(costs.along(walk_of(routes, 60)), abs=1e-9)
        for r in range(60):
            node, served = int(routes.following[61 + r]), []
            while node <= 60:
                assert routes.preceding[routes.following[node]] == node and routes.route[node] == r
                served.append(node)
                node = int(routes.following[node])
            assert node == 61 + r and routes.served[r] == len(served) and routes.load[r] == demand[served].sum()
        assert routes.used[0] == (routes.served > 0).sum()
    assert undone > 100 and lengths[0] < 0.97 * costs.along(walk_of(inserted_routes(costs, demand, capacity, 5), 60))


@pytest.mark.parametrize("seed", range(3))
def test_the_search_of_routes_finds_the_optimum_of_small_instances(seed: int) -> None:
    problem = make_problem("cvrp", num_nodes=10, capacity=20)
    instance = row(generate(problem, 1, seed), 0)
    costs, demand = costs_within(instance), instance["demand"]
    routes, best = inserted_routes(costs, demand, 20, seed), empty_routes(10)
    copy_routes(routes, best)
    near, lengths = costs.neighbours(9), np.full(2, costs.along(walk_of(routes, 10)))
    random = np.array([3], np.uint64)
    for heat in np.geomspace(0.3, 0.003, 20):
        anneal(costs, routes, best, demand, 20, near, costs.to(near), heat, 200, lengths, random)
    assert costs.along(walk_of(best, 10)) == pytest.approx(problem.objective(instance, exact_cvrp(instance)), abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_a_node_replaces_another_as_looking_at_all_pairs_and_places_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, prize = rng.random((14, 2)), rng.integers(1, 9, 14) / 8.0  # prizes with ties, exact in binary
    costs = Costs(points)
    tour = np.array([0, *(1 + rng.permutation(13)[: 1 + seed]), 0, 0, 0])
    size, inside = seed + 3, np.zeros(14, np.bool_)
    inside[tour[:size]] = True
    left, before = 0.3 * rng.random(), costs.along(tour[:size])

    def worth(found: list[int]) -> tuple[float, float]:
        return float(prize[found[:-1]].sum()), before - costs.along(np.array(found))

    options = []
    for k, j in product(range(1, size - 1), np.flatnonzero(~inside)):
        rest = np.delete(tour[:size], k).tolist()
        options += [worth([*rest[:i], int(j), *rest[i:]]) for i in range(1, len(rest))]
    prizes = worth(tour[:size].tolist())[0]
    sound = [(p, s) for p, s in options if -s <= left and (p > prizes + 1e-9 or (p > prizes - 1e-9 and s > 1e-9))]
    found, rest_left = replace(costs, tour, size, inside, np.ones(14, np.bool_), prize, left, 1e-9)
    assert found == bool(sound)
    if found:
        best = max(p for p, _ in sound)
        expected = best, max(s for p, s in sound if p > best - 1e-9)
        assert worth(tour[:size].tolist()) == pytest.approx(expected, abs=1e-9)
        assert rest_left == pytest.approx(left + expected[1], abs=1e-9)
        assert set(np.flatnonzero(inside)) == set(tour[:size])


@pytest.mark.parametrize("seed", range(3))
def test_the_search_of_orienteering_finds_the_optimum_of_small_instances(seed: int) -> None:
    problem = make_problem("op", num_nodes=12, budget=2.2)
    instance = row(generate(problem, 1, seed), 0)
    costs, prize = costs_within(instance), instance["prize"]
    tour, best, worth, size = np.zeros(14, np.int64), np.zeros(14, np.int64), np.array([0.0, 0.0, 0.0, 2.0]), 2
    random, budget = np.array([3], np.uint64), float(room(instance))
    for heat in np.linspace(0.5, 0.0, 10):
        given = costs.neighbours(), budget, 1e-9, heat, 50, best, worth, random
        size = climb(costs, tour, size, prize, *given)
        assert costs.along(tour[:size]) <= budget and len(set(tour[: size - 1])) == size - 1
        assert prize[tour[:size]].sum() == pytest.approx(worth[0]) and worth[0] <= worth[2] + 1e-9
    assert worth[2] == pytest.approx(problem.objective(instance, exact_op(instance)), abs=1e-9)
