"""Sub-problems cut by indexing are distributed as those cut one by one, in plain Python."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.envs.combinatorial.base import generate, make_problem, row
from rlkit.envs.combinatorial.cvrp.rules import split_routes
from rlkit.envs.combinatorial.device import picked, turned
from rlkit.envs.combinatorial.solvers import solve

DRAWS = 4000
SETTINGS: dict[str, dict[str, Any]] = {
    "tsp": {"num_nodes": 5},
    "atsp": {"num_nodes": 5},
    "cvrp": {"num_nodes": 5, "capacity": 12},
    "op": {"num_nodes": 5, "budget": 2.2},
    "knapsack": {"num_nodes": 6, "capacity": 1.6},
}
SIZES = {"tsp": (3, 5, 6), "atsp": (3, 6), "cvrp": (1, 2, 3, 4, 5), "op": (0, 1, 2), "knapsack": (0, 1, 2)}


def plain(name: str, instance: Any, solution: np.ndarray, size: int, rng: Any) -> tuple[Any, ...]:
    """Origin, destination, what remains as a set, budget, targets as pairs of node and kind, node before the end."""
    n = len(next(iter(instance.values())))
    if name in ("tsp", "atsp"):
        start, step = int(rng.integers(n)), int(rng.choice((-1, 1))) if name == "tsp" else 1
        path = [int(solution[(start + step * i) % n]) for i in range(size)]
        before = path[-2] if name == "tsp" else None
        return path[0], path[-1], frozenset(path[1:-1]), 0.0, frozenset({(path[1], 0)}), before
    if name == "cvrp":
        routes = [route.tolist() for route in split_routes(solution)]
        routes.sort(key=lambda route: (-sum(instance["demand"][route]), min(route)))
        served, load = [], []  # (customer, whether a route begins there), load left behind it
        for route in routes:
            if rng.random() < 0.5:
                route = route[::-1]
            left = int(instance["capacity"])
            for k, customer in enumerate(route):
                left -= int(instance["demand"][customer])
                served.append((customer, int(k == 0 and len(served) > 0)))
                load.append(left)
        done = n - 1 - size
        origin, budget = (served[done - 1][0], load[done - 1]) if done else (0, int(instance["capacity"]))
        return origin, 0, frozenset(c for c, _ in served[done:]), float(budget), frozenset({served[done]}), None
    if name == "op":
        tour = [int(j) for j in solution if j > 0]
        if rng.random() < 0.5:
            tour = tour[::-1]
        way = [0, *tour[:size]]
        used = sum(float(np.linalg.norm(instance["coords"][a] - instance["coords"][b])) for a, b in pairwise(way))
        rest = frozenset(range(1, n)) - frozenset(way)
        return way[-1], 0, rest, round(float(instance["budget"]) - used, 9), frozenset({(tour[size], 0)}), None
    items = rng.permutation([int(j) for j in solution if j >= 0]).tolist()
    rest = frozenset(range(n)) - frozenset(items[:size])
    budget = float(instance["capacity"]) - float(instance["weight"][items[:size]].sum())
    return 0, 0, rest, round(budget, 9), frozenset((j, 0) for j in items[size:]), None


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, sizes in SIZES.items() for size in sizes])
def test_cut_by_indexing_as_one_by_one(name: str, size: int) -> None:
    problem: Any = make_problem(name, **SETTINGS[name])
    instances = generate(problem, 6, 3)
    solutions = np.stack([problem.padded(solve(problem, row(instances, k), "own")) for k in range(6)])
    rules = problem.device()(instances, "cpu")
    rules.follow(solutions)
    steps = rules.steps(solutions)
    fitting = np.arange(6) if steps is None else np.flatnonzero(steps > size)
    assert len(fitting) > 1
    rng = np.random.default_rng(5)
    rows = fitting[rng.integers(len(fitting), size=DRAWS)]
    batch = rules.cut(torch.as_tensor(rows), size, *map(torch.as_tensor, rules.lots(rows, size, rng)))
    states, target = batch.states, batch.target.expand(DRAWS, -1, -1)
    found: Counter[Any] = Counter()
    for b, k in enumerate(rows.tolist()):
        remaining = states.remaining[b].tolist()
        assert len(set(remaining)) == len(remaining) and float(target[b].sum()) == pytest.approx(1.0)
        weights = target[b][target[b] > 0]
        assert float(weights.max() - weights.min()) < 1e-6  # of several right answers none counts more
        right = frozenset((remaining[i], kind) for i, kind in np.argwhere(target[b].numpy() > 0).tolist())
        ends = int(states.origin[b]), int(states.destination[b])
        before = None if batch.before is None else remaining[int(batch.before[b])]
        found[k, *ends, frozenset(remaining), round(float(states.budget[b]), 9), right, before] += 1
    expected = Counter(
        (k, *plain(name, row(instances, k), solutions[k], size, rng))
        for k in fitting[rng.integers(len(fitting), size=DRAWS)].tolist()
    )
    common = {key for key, count in (found + expected).items() if count > 60}  # rare ones may be missing by chance
    assert common and all(found[key] and expected[key] for key in common)
    for key in common:  # five standard errors of a difference of counts
        assert abs(found[key] - expected[key]) < 5 * np.sqrt(found[key] + expected[key]), key
    assert sum(found[key] for key in common) > 0.9 * DRAWS


def test_picking_and_turning_are_what_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(4, 7, 3, generator=generator)
    rows, columns = torch.tensor([3, 0, 3]), torch.randint(7, (3, 5), generator=generator)
    assert torch.equal(picked(table, rows, columns), table[rows[:, None], columns])
    assert torch.equal(picked(table[..., 0], rows, columns), table[rows[:, None], columns, 0])
    places, copy = torch.rand(8, 3, 2, generator=generator), torch.arange(8)
    for c in range(8):
        x, y = places[c].unbind(-1)
        x, y = (1.0 - x if c & 1 else x), (1.0 - y if c & 2 else y)
        assert torch.equal(turned(places, copy)[c], torch.stack((y, x) if c & 4 else (x, y), dim=-1))
