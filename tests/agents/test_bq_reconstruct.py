"""Re-construction: parts are what they cost, disjoint and put back where they were; nothing becomes worse."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit.agents.bq.bq import BQ
from rlkit.agents.bq.reconstruct import one_round, reconstructed, solved_again
from rlkit.envs.combinatorial.base import generate, make_problem, row
from rlkit.envs.combinatorial.improvement import inserted
from rlkit.envs.combinatorial.solving import solve
from rlkit.errors import UserError
from rlkit.registry import record

SIZES: dict[str, dict[str, Any]] = {
    "tsp": {"num_nodes": 14},
    "atsp": {"num_nodes": 14},
    "cvrp": {"num_nodes": 14, "capacity": 17},
}
TINY: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "feedforward": 16}


def nearest(tokens: Any, cost: Any = None) -> Any:
    """Scores of a rule in the network's place: the nearest, by the depot where that is on the way."""
    if cost is not None:
        return -cost[:, 0, 2:, None]
    ways = (tokens[:, 2:, :2] - tokens[:, :1, :2]).norm(dim=-1)
    if tokens.shape[2] == 2:
        return torch.stack((-ways, -ways), dim=-1)
    home, again = ((tokens[:, 1:2, :2] - other).norm(dim=-1) for other in (tokens[:, :1, :2], tokens[:, 2:, :2]))
    return torch.stack((-ways, -home - again), dim=-1)


def make(name: str, **sizes: Any) -> tuple[BQ, Any, dict[str, np.ndarray], np.ndarray]:
    """An agent that has learnt nothing, a problem, six instances, and a solution of each."""
    settings = {**SIZES[name], **sizes}
    problem = make_problem(name, **settings)
    instances = generate(problem, 6, 2)
    agent = BQ("MultiInputPolicy", replace(record(name), env_kwargs=settings), **TINY)
    agent.policy.network.forward = nearest  # type: ignore[method-assign]
    if name == "cvrp":
        return agent, problem, instances, inserted(problem, instances, 1, improve=False)
    random = np.random.default_rng(0)
    tours = [np.concatenate(([0], 1 + random.permutation(problem.num_nodes - 1))) for _ in range(6)]
    return agent, problem, instances, np.stack(tours)


@pytest.mark.parametrize("size", [2, 3, 5, 9, 13])
@pytest.mark.parametrize("name", SIZES)
def test_parts_add_up_to_the_solution(name: str, size: int) -> None:
    agent, problem, instances, solutions = make(name)
    rules = problem.device()(instances, "cpu")
    before, seen = problem.objectives(instances, solutions), set()
    for seed in range(8):
        pieces = rules.pieces(solutions, size, np.random.default_rng(seed))
        owner = pieces.states.owner.numpy()
        assert len(owner) and pieces.states.remaining.shape == (len(owner), size)
        for k in range(6):  # disjoint
            inside = pieces.states.remaining.numpy()[owner == k].ravel()
            assert len(set(inside.tolist())) == len(inside)
            seen |= {(k, j) for j in inside.tolist()}
        with torch.no_grad():
            found = solved_again(agent.policy.network, rules, pieces.states)
        actions, change = found.actions.numpy(), (-found.total - pieces.costs).numpy()
        for better in (np.ones(len(owner), np.bool_), np.arange(len(owner)) % 3 == 0, np.zeros(len(owner), np.bool_)):
            after = problem.objectives(instances, rules.rejoined(solutions, pieces, better, actions))
            expected = before + np.bincount(owner[better], change[better], minlength=6)
            np.testing.assert_allclose(after, expected, atol=1e-9)
    assert len(seen) > 6 * 10  # every node has its turn, but for what ends parts


@pytest.mark.parametrize("name", SIZES)
def test_never_worse_and_the_same_for_a_seed(name: str) -> None:
    agent, problem, instances, solutions = make(name)
    given = agent.policy.network, problem, instances, solutions, "cpu"
    worth = [problem.objectives(instances, solutions)]
    worth += [problem.objectives(instances, reconstructed(*given, rounds, largest=7)) for rounds in (1, 4, 12)]
    for earlier, later in pairwise(worth):
        assert (later <= earlier + 1e-12).all()
    assert worth[-1].mean() < worth[0].mean()
    again = reconstructed(*given, 12, largest=7)
    np.testing.assert_array_equal(problem.objectives(instances, again), worth[-1])
    rules, generator = problem.device()(instances, "cpu"), np.random.default_rng(0)
    drawn = [rules.pieces(solutions, 4, np.random.default_rng(seed)).places for seed in (0, 1)]
    assert drawn[0].shape != drawn[1].shape or (drawn[0] != drawn[1]).any()
    alone = one_round(agent.policy.network, rules, solutions, 4, generator)
    assert (problem.objectives(instances, alone) <= worth[0]).all()


def test_the_network_alone_finds_what_is_better() -> None:
    """A tour with two neighbours swapped: a part of which the network is asked between them is put right."""
    agent, problem, instances, _ = make("tsp")
    rules = problem.device()(instances, "cpu")
    best = inserted(problem, instances, 30)
    worse = best.copy()
    worse[:, [4, 5]] = worse[:, [5, 4]]

    generator, found = np.random.default_rng(0), worse
    for _ in range(40):
        found = one_round(nearest, rules, found, 2, generator)
    repaired = problem.objectives(instances, found) < problem.objectives(instances, worse) - 1e-9
    assert repaired.mean() > 0.5
    assert agent.problem.name == "tsp"


@pytest.mark.parametrize("name", SIZES)
def test_solve_reconstructs_instances_of_any_size(name: str) -> None:
    agent, problem, instances, solutions = make(name)
    larger = row(generate(problem.resized(17), 1, 0), 0)
    given = [*(row(instances, k) for k in range(3)), larger]
    plain, found = agent.solve(given), agent.solve(given, reconstruct=5)
    assert (found.objectives <= plain.objectives).all() and found.objectives.mean() < plain.objectives.mean()
    assert found.sizes.tolist() == [14, 14, 14, 17] and found.seconds is not None
    changed = found.objectives < plain.objectives
    assert np.isnan(found.log_probabilities[changed]).all() and changed.any()
    begun = agent.solve(instances, reconstruct=2, start=solutions)
    assert (begun.objectives <= problem.objectives(instances, solutions)).all()
    again = agent.solve(instances, reconstruct=2, start=begun)
    assert (again.objectives <= begun.objectives).all()
    timed = agent.solve(instances, reconstruct=0.3, start=solutions)
    assert timed.seconds is not None and 0.3 <= timed.seconds < 3.0
    problem.objectives(instances, timed.solutions)


@pytest.mark.parametrize("name", ["tsp", "cvrp"])
def test_few_nodes_are_solved_again_too(name: str) -> None:
    agent, problem, _, _ = make(name)
    for nodes in (3, 4):
        small = generate(problem.resized(nodes), 5, 1)
        found = agent.solve(small, reconstruct=10)
        best = inserted(problem.resized(nodes), small, 20)
        np.testing.assert_allclose(found.objectives, problem.resized(nodes).objectives(small, best), rtol=0.02)


@pytest.mark.parametrize("name", [*SIZES, "op"])
def test_solve_improves_where_that_is_asked(name: str) -> None:
    settings = {"num_nodes": 14, "budget": 2.5} if name == "op" else SIZES[name]
    problem = make_problem(name, **settings)
    agent = BQ("MultiInputPolicy", replace(record(name), env_kwargs=settings), **TINY)
    given = [*(row(generate(problem, 5, 4), k) for k in range(5)), row(generate(problem.resized(17), 1, 0), 0)]
    plain, found = agent.solve(given), agent.solve(given, improve=True)
    gain = (found.objectives - plain.objectives) * (1.0 if problem.maximise else -1.0)
    assert (gain >= -1e-12).all() and gain.sum() > 0.1
    assert found.sizes.tolist() == [14] * 5 + [17] and found.sound.all() and found.seconds is not None
    assert np.isnan(found.log_probabilities[gain > 1e-9]).all()
    for one, solution, objective in zip(given, found.solutions, found.objectives, strict=True):
        sized = problem.resized(len(next(iter(one.values()))) - problem.num_points + problem.num_nodes)
        assert sized.objective(one, solution[solution >= 0]) == pytest.approx(objective)
    if name != "op":
        again = agent.solve(given, reconstruct=2, improve=True)
        np.testing.assert_array_equal(again.solutions, agent.solve(given, reconstruct=2).solutions)


def test_bad_input_is_one_sentence() -> None:
    agent, _, instances, solutions = make("tsp")
    for options, expected in (
        ({"reconstruct": 0}, "reconstruct=0 is out of range, expected rounds"),
        ({"reconstruct": -1.0}, "reconstruct=-1.0 is out of range"),
        ({"reconstruct": float("nan")}, "reconstruct=nan is out of range"),
        ({"reconstruct": True}, "reconstruct=True is out of range"),
        ({"start": solutions}, "expected reconstruct= with it"),
        ({"reconstruct": 1, "start": solutions[:2]}, "holds 2 solutions, expected one for each of 6"),
        ({"reconstruct": 1, "start": 7}, "start=7 holds no solutions"),
        ({"reconstruct": 1, "start": solutions * 0}, "solution 0 of tsp"),
    ):
        with pytest.raises(UserError, match=expected) as caught:
            agent.solve(instances, **options)
        assert "\n" not in str(caught.value)
    other = BQ("MultiInputPolicy", replace(record("op"), env_kwargs={"num_nodes": 6, "budget": 2.0}), **TINY)
    with pytest.raises(
        UserError, match="solutions of op have no parts to solve again, expected one of tsp, atsp, cvrp"
    ):
        other.solve(generate(make_problem("op", num_nodes=6, budget=2.0), 2, 0), reconstruct=3)
    packing = BQ("MultiInputPolicy", replace(record("knapsack"), env_kwargs={"num_nodes": 6, "capacity": 1.0}), **TINY)
    with pytest.raises(UserError, match="knapsack has no moves to improve a solution by"):
        packing.solve(generate(make_problem("knapsack", num_nodes=6, capacity=1.0), 2, 0), improve=True)


@pytest.mark.parametrize("name", ["tsp", "cvrp"])
def test_a_file_is_solved_for_as_long_as_is_asked(name: str) -> None:
    problem = make_problem(name, **({"num_nodes": 40, "capacity": 40} if name == "cvrp" else {"num_nodes": 40}))
    instance = row(generate(problem, 1, 0), 0)
    found = solve(instance, name, seconds=1.0, method="bq", chains=1)
    many = {key: value[None] for key, value in instance.items()}
    assert found.method == "bq" and found.seconds >= 1.0
    assert found.objective <= problem.objectives(many, inserted(problem, many, 1))[0] * 1.001
