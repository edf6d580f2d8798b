"""The BQ-MDP is the problem it reduces: values, optimal policies, invariances; the sub-problems agents learn from."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit.envs.combinatorial import solvers
from rlkit.envs.combinatorial.base import generate, make_problem, row
from rlkit.envs.combinatorial.bisimulation import State, optimal_values
from rlkit.envs.combinatorial.cvrp.device import order_routes
from rlkit.envs.combinatorial.device import SubProblems
from rlkit.envs.combinatorial.solvers import solve
from rlkit.errors import UserError

SMALL: dict[str, dict[str, Any]] = {
    "tsp": {"num_nodes": 7},
    "atsp": {"num_nodes": 7},
    "cvrp": {"num_nodes": 5, "capacity": 11},
    "op": {"num_nodes": 6, "budget": 1.8},
    "knapsack": {"num_nodes": 7, "capacity": 1.6},
}
IDS = {"tsp": "TSP", "atsp": "ATSP", "cvrp": "CVRP", "op": "OP", "knapsack": "Knapsack"}


def some(name: str, count: int = 1, seed: int = 0) -> tuple[Any, dict[str, np.ndarray]]:
    problem = make_problem(name, **SMALL[name])
    return problem, generate(problem, count, seed)


# ---- brute force ---------------------------------------------------------------------------------------------------


def enumerate_prefixes(
    problem: Any, instance: Any
) -> dict[tuple[int, ...], tuple[State, float, float, tuple[int, ...]]]:
    """Every prefix of actions: its state, its return, the best total return after it, the actions that lead there."""
    found = {}

    def visit(prefix: tuple[int, ...], state: State, got: float) -> float:
        totals = {}
        for action in np.flatnonzero(problem.feasible(instance, state)):
            following, reward, _ = problem.step(instance, state, int(action))
            totals[int(action)] = visit((*prefix, int(action)), following, got + reward)
        best = max(totals.values(), default=got)
        found[prefix] = (state, got, best, tuple(a for a, v in totals.items() if v >= best - 1e-9))
        return best

    visit((), problem.initial(instance), 0.0)
    return found


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("seed", [0, 1])
def test_dynamic_programming_over_reduced_states_equals_enumeration(name: str, seed: int) -> None:
    problem, instances = some(name, 1, seed)
    instance = row(instances, 0)
    values, actions = optimal_values(problem, instance)
    prefixes = enumerate_prefixes(problem, instance)
    for state, got, best, first in prefixes.values():
        assert got + values[state] == pytest.approx(best, abs=1e-9)
        assert actions[state] == first
    assert len(values) < len(prefixes) or name == "op"  # where two ways to one node are seldom of one length
    if name in ("tsp", "atsp"):
        assert (len(values), len(prefixes)) == (193, 1957)
    best = values[problem.initial(instance)]
    exact = problem.objective(instance, solve(problem, instance, "own"))
    assert (best if problem.maximise else -best) == pytest.approx(exact, abs=1e-9)


def test_eight_cities() -> None:
    problem = make_problem("tsp", num_nodes=8)
    instance = row(generate(problem, 1, 3), 0)
    values, _ = optimal_values(problem, instance)
    best = enumerate_prefixes(problem, instance)[()][2]
    assert values[problem.initial(instance)] == pytest.approx(best, abs=1e-9)


# ---- invariances ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_prefixes_with_one_tail_are_one_state(name: str) -> None:
    problem, instances = some(name)
    instance = row(instances, 0)
    if name == "op":  # on a lattice different ways are equally long
        lattice = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [0, 2], [2, 2]])
        instance |= {"coords": lattice / 4, "budget": np.array(1.8)}
    tails: dict[Any, list[tuple[State, Any]]] = {}
    for prefix, (state, *_) in enumerate_prefixes(problem, instance).items():
        nodes = sorted(a // 2 if name == "cvrp" else a for a in prefix)
        last = prefix[-1] // 2 if name == "cvrp" and prefix else (prefix or (0,))[-1]
        budget = round(state.budget, 9)  # what is left of it is a matter of the way, where there is one
        key = (tuple(nodes), 0 if name == "knapsack" else last, budget)
        tails.setdefault(key, []).append((state, problem.reduced(instance, state)))
    several = [group for group in tails.values() if len(group) > 1]
    assert len(several) > 3
    for group in several:
        for state, reduced in group:
            assert state.remaining == group[0][0].remaining
            np.testing.assert_array_equal(reduced.nodes, group[0][1].nodes)
            np.testing.assert_allclose(reduced.tokens, group[0][1].tokens, atol=1e-12)


@pytest.mark.parametrize("name", ["tsp", "atsp", "cvrp", "op", "knapsack"])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=8, deadline=None)
def test_numbering_the_nodes_differently_changes_nothing_but_the_numbers(name: str, seed: int) -> None:
    problem, instances = some(name, 1, seed)
    instance, rng = row(instances, 0), np.random.default_rng(seed)
    first = 0 if name == "knapsack" else 1  # the depot, or where the tour begins, stays
    order = np.concatenate((np.arange(first), first + rng.permutation(problem.num_points - first)))
    other = {key: value[order] if value.ndim else value for key, value in instance.items()}
    if name == "atsp":
        other = {"cost": instance["cost"][np.ix_(order, order)]}
    place = np.argsort(order)  # where each node went
    state, twin = problem.initial(instance), problem.initial(other)
    while (mask := problem.feasible(instance, state)).any():
        action = int(rng.choice(np.flatnonzero(mask)))
        moved = int(2 * place[action // 2] + action % 2 if name == "cvrp" else place[action])
        here, there = problem.reduced(instance, state), problem.reduced(other, twin)
        fixed = 0 if name == "knapsack" else 2  # tokens of origin and destination, which may be one node
        match = [int(np.flatnonzero(there.nodes[fixed:] == place[j])[0]) + fixed for j in here.nodes[fixed:]]
        np.testing.assert_array_equal(here.tokens[fixed:], there.tokens[match])
        np.testing.assert_array_equal(here.tokens[:fixed], there.tokens[:fixed])
        if here.cost is not None:
            ids = [0, 1, *match]
            np.testing.assert_array_equal(here.cost, there.cost[np.ix_(ids, ids)])
        state, reward, _ = problem.step(instance, state, action)
        twin, same, _ = problem.step(other, twin, moved)
        assert reward == same


@pytest.mark.parametrize("scale", [0.25, 8.0])
@pytest.mark.parametrize(
    "name,keys,paid",
    [
        ("tsp", ("coords",), True),
        ("atsp", ("cost",), True),
        ("cvrp", ("coords",), True),
        ("op", ("coords", "budget"), False),
        ("knapsack", ("weight", "capacity"), False),
    ],
)
def test_lengths_and_weights_may_be_scaled(name: str, keys: tuple[str, ...], paid: bool, scale: float) -> None:
    problem, instances = some(name)
    instance = row(instances, 0)
    other = instance | {key: instance[key] * scale for key in keys}
    values, actions = optimal_values(problem, instance)
    scaled, same = optimal_values(problem, other)
    assert list(actions.values()) == list(same.values())
    factor = scale if paid else 1.0
    np.testing.assert_allclose(np.array(list(values.values())) * factor, list(scaled.values()), rtol=1e-12)


def test_tokens_are_what_the_state_knows_and_no_more() -> None:
    problem, instances = some("cvrp")
    instance = row(instances, 0)
    state, _, _ = problem.step(instance, problem.initial(instance), 2 * 3)
    reduced = problem.reduced(instance, state)
    assert reduced.nodes.tolist() == [3, 0, 1, 2, 4, 5] and reduced.tokens.shape == (6, 4)
    assert not reduced.tokens[:2, 2].any()  # the origin has been served
    np.testing.assert_array_equal(reduced.tokens[2:, 2], instance["demand"][[1, 2, 4, 5]] / 11)
    np.testing.assert_array_equal(reduced.tokens[:, 3], (11 - instance["demand"][3]) / 11)
    env = gym.make("rlkit/OP-v0", num_nodes=6, budget=1.8).unwrapped
    env.reset(seed=0)
    env.step(env.action_space.sample())
    nodes, tokens = env.reduced().nodes, env.reduced().tokens
    assert (
        nodes[0] == env.state.origin and nodes[1] == 0 and not tokens[0, 2] and (tokens[:, 3] == env.state.budget).all()
    )
    with pytest.raises(UserError, match="has no BQ-MDP"):
        gym.make("rlkit/Delaunay-v0", num_nodes=5).unwrapped.problem.reduced({}, State(()))


# ---- sub-problems --------------------------------------------------------------------------------------------------


def cut(problem: Any, instances: Any, solutions: np.ndarray, rows: np.ndarray, size: int, rng: Any) -> SubProblems:
    rules = problem.device()(instances, "cpu")
    rules.follow(solutions)
    return rules.cut(torch.as_tensor(rows), size, *map(torch.as_tensor, rules.lots(rows, size, rng)))


def held_karp_path(cost: np.ndarray, nodes: np.ndarray) -> float:
    """Shortest way from ``nodes[0]`` to ``nodes[-1]`` through all between, by trying every order."""
    from itertools import permutations

    inner = [np.array([nodes[0], *order, nodes[-1]]) for order in permutations(nodes[1:-1].tolist())]
    return min(float(cost[way[:-1], way[1:]].sum()) for way in inner)


@pytest.mark.parametrize("name", ["tsp", "atsp"])
def test_paths_in_optimal_tours_are_optimal_paths(name: str) -> None:
    problem = make_problem(name, num_nodes=8)
    instances = generate(problem, 12, 1)
    tours = np.stack([solve(problem, row(instances, k), "own") for k in range(12)])
    rng, symmetric = np.random.default_rng(0), name == "tsp"
    seen = set()
    for size in (3, 4, 6, 8, 9):
        batch = cut(problem, instances, tours, np.arange(12), size, rng)
        states = batch.states
        assert states.remaining.shape == (12, size - 2) and (batch.target.sum(dim=(1, 2)) == 1).all()
        assert not states.budget.any()
        assert (batch.target[:, 0] == 1).all() and (batch.before is None) == (not symmetric)
        ways = torch.cat((states.origin[:, None], states.remaining, states.destination[:, None]), dim=1).numpy()
        for k, nodes in enumerate(ways):
            cost = solvers.costs_of(row(instances, k))
            assert len(set(nodes[:-1].tolist())) == size - 1 and (nodes[0] == nodes[-1]) == (size == 9)
            assert cost[nodes[:-1], nodes[1:]].sum() == pytest.approx(held_karp_path(cost, nodes), abs=1e-9)
            at = int(np.flatnonzero(tours[k] == nodes[0])[0])
            seen.add((at, bool(tours[k][(at + 1) % 8] == nodes[1])))
    assert len({at for at, _ in seen}) == 8 and len({way for _, way in seen}) == (2 if symmetric else 1)
    for size in (2, 10):
        with pytest.raises(UserError, match=f"size={size} of a sub-path is out of range, expected 3 to 9"):
            cut(problem, instances, tours, np.arange(12), size, rng)


def state_of(batch: SubProblems, k: int, kind: str) -> State:
    """The state a row of sub-problems stands for."""
    states = batch.states
    remaining, budget = tuple(sorted(states.remaining[k].tolist())), float(states.budget[k])
    if kind == "knapsack":
        return State(remaining, budget=budget)
    return State(
        remaining, int(states.origin[k]), int(states.destination[k]), int(budget) if kind == "cvrp" else budget
    )


def values_from(problem: Any, instance: Any, state: State) -> tuple[float, dict[State, tuple[int, ...]]]:
    class From:
        def initial(self, instance: Any) -> State:
            return state

        feasible, step = staticmethod(problem.feasible), staticmethod(problem.step)

    values, actions = optimal_values(From(), instance)
    return values[state], actions


@pytest.mark.parametrize("size", [1, 3, 5])
def test_suffixes_of_optimal_routes_are_optimal(size: int) -> None:
    problem, instances = some("cvrp", 12, 2)
    solutions = np.stack([solve(problem, row(instances, k), "own") for k in range(12)])
    batch = cut(problem, instances, solutions, np.arange(12), size, np.random.default_rng(0))
    bits = set()
    for k in range(12):
        instance, state = row(instances, k), state_of(batch, k, "cvrp")
        place, bit = np.argwhere(batch.target[k].numpy())[0]
        _, actions = values_from(problem, instance, state)
        action = 2 * int(batch.states.remaining[k, place]) + int(bit)
        assert problem.feasible(instance, state)[action] and action in actions[state]
        bits.add(int(bit))
        assert state.destination == 0 and len(state.remaining) == size
    assert bits == ({0} if size == 5 else {0, 1})
    with pytest.raises(UserError, match="size=6 of a sub-problem is out of range, expected 1 to 5"):
        cut(problem, instances, solutions, np.arange(12), 6, np.random.default_rng(0))


def test_routes_are_learnt_fullest_first() -> None:
    demand = np.array([0, 1, 5, 2, 4, 3])
    solution = np.array([0, 1, 0, 3, 2, 0, 4, 5, 0, -1, -1])
    customers, via = order_routes(demand, solution)
    assert customers.tolist() == [3, 2, 4, 5, 1] and via.tolist() == [0, 0, 1, 0, 1]
    problem = make_problem("cvrp", num_nodes=5, capacity=9)
    instances = {
        "coords": np.random.default_rng(0).random((1, 6, 2)),
        "demand": demand[None],
        "capacity": np.array([9]),
    }
    drawn = cut(problem, instances, solution[None], np.zeros(40, np.int64), 5, np.random.default_rng(0))
    found = set(map(tuple, drawn.states.remaining.tolist()))
    assert found == {(a, b, c, d, 1) for a, b in ((3, 2), (2, 3)) for c, d in ((4, 5), (5, 4))}


def longer(problem: Any, instances: Any, solutions: np.ndarray, steps: int) -> tuple[np.ndarray, SubProblems]:
    """The rows of ``solutions`` that have a state after so many ``steps``, and their sub-problems."""
    rows = np.flatnonzero(problem.device().steps(solutions) > steps)
    return rows, cut(problem, instances, solutions, rows, steps, np.random.default_rng(0))


@pytest.mark.parametrize("visited", [0, 1, 2])
def test_tails_of_optimal_orienteering_tours_are_optimal(visited: int) -> None:
    problem, instances = some("op", 12, 4)
    solutions = np.stack([solve(problem, row(instances, k), "own") for k in range(12)])
    rows, batch = longer(problem, instances, solutions, visited)
    assert len(rows) == ((solutions > 0).sum(axis=1) > visited).sum() > 3
    for r, k in enumerate(rows):
        instance, state = row(instances, int(k)), state_of(batch, r, "op")
        _, actions = values_from(problem, instance, state)
        assert len(state.remaining) == 6 - visited and int(batch.states.remaining[r, 0]) in actions[state]
    with pytest.raises(UserError, match="size=9 visited nodes are out of range, expected 0 to"):
        cut(problem, instances, solutions, rows, 9, np.random.default_rng(0))


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_what_is_left_of_optimal_packings_is_optimal(taken: int) -> None:
    problem, instances = some("knapsack", 12, 5)
    solutions = np.stack([solve(problem, row(instances, k), "own") for k in range(12)])
    rows, batch = longer(problem, instances, solutions, taken)
    for r, k in enumerate(rows):
        instance, state = row(instances, int(k)), state_of(batch, r, "knapsack")
        _, actions = values_from(problem, instance, state)
        targets = batch.states.remaining[r][batch.target[r, :, 0] > 0]
        assert set(targets.tolist()) <= set(actions[state])
        assert len(targets) == (solutions[k] >= 0).sum() - taken
        assert float(batch.target[r].sum()) == pytest.approx(1.0) and len(np.unique(batch.target[r])) <= 2
    with pytest.raises(UserError, match="size=7 packed items are out of range, expected 0 to"):
        cut(problem, instances, solutions, rows, 7, np.random.default_rng(0))
