"""BQ-NCO: invariances of its scores, exact search, imitation, exact resume, several processes, artefacts."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from torch import multiprocessing

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit.agents.bq import data as bq_data
from rlkit.agents.bq import decode as bq_decode
from rlkit.agents.bq.bq import BQ, BQConfig, end_loss, imitation_loss
from rlkit.agents.bq.data import Imitation, SubProblemBatch
from rlkit.agents.bq.network import BQNetwork, Shape
from rlkit.agents.common import gaps
from rlkit.agents.common.blocks import folded, fused_attention
from rlkit.algorithms.callbacks import Checkpoint
from rlkit.algorithms.checkpoint import read_artefact, write_artefact
from rlkit.config import compose_config
from rlkit.envs.combinatorial.base import generate, make_problem, row
from rlkit.envs.combinatorial.bisimulation import optimal_values
from rlkit.envs.combinatorial.device import DeviceRules, States, turned
from rlkit.envs.combinatorial.labels import make_labels, read_labels
from rlkit.envs.combinatorial.metrics import gap
from rlkit.envs.combinatorial.solvers import nearest_tour
from rlkit.envs.combinatorial.solvers import solve as solve_exactly
from rlkit.errors import ArtefactError, UserError
from rlkit.registry import record
from rlkit.run import session as run

SIZES: dict[str, dict[str, Any]] = {
    "tsp": {"num_nodes": 7},
    "atsp": {"num_nodes": 7},
    "cvrp": {"num_nodes": 5, "capacity": 11},
    "op": {"num_nodes": 6, "budget": 2.2},
    "knapsack": {"num_nodes": 8, "capacity": 1.8},
}
TINY: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "feedforward": 32, "batch_size": 8, "train_size": 12}


@pytest.fixture(autouse=True, scope="module")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLKIT_LABELS_PATH", str(tmp_path_factory.mktemp("labels")))
        yield


def make(name: str, **options: Any) -> BQ:
    return BQ("MultiInputPolicy", replace(record(name), env_kwargs=SIZES[name]), **{**TINY, **options})


def rules_of(name: str) -> type[DeviceRules]:
    return make_problem(name).device()


def network(name: str, seed: int = 0, **options: Any) -> BQNetwork:
    return BQNetwork(rules_of(name), Shape(16, 2, 2, 32, **options), torch.Generator().manual_seed(seed))


def some(name: str, count: int = 4, seed: int = 1) -> tuple[Any, dict[str, np.ndarray]]:
    problem = make_problem(name, **SIZES[name])
    return problem, generate(problem, count, seed)


def probabilities(net: Any, problem: Any, instance: Any, state: Any) -> np.ndarray:
    """The policy at one state in actions of the environment, by the problem's own tokens and mask."""
    reduced, name = problem.reduced(instance, state), problem.name
    cost = None if reduced.cost is None else torch.from_numpy(reduced.cost[None].astype(np.float32))
    kinds = 2 if name == "cvrp" else 1
    with torch.no_grad():
        scores = net(torch.from_numpy(reduced.tokens[None].astype(np.float32)), cost)[0, :, :kinds].numpy()
    nodes = reduced.nodes if name == "knapsack" else reduced.nodes[2:]
    found = np.full((problem.num_points, kinds), -np.inf)
    found[nodes] = scores
    found[problem.feasible(instance, state).reshape(found.shape) == 0] = -np.inf
    return found.reshape(-1) - np.logaddexp.reduce(found.reshape(-1))


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def tensors(agent: BQ) -> dict[str, torch.Tensor]:
    return {**agent.model_tensors(), **agent.training_tensors()}


# ---- the network ---------------------------------------------------------------------------------------------------


def test_sizes_are_the_published_ones() -> None:
    def count(net: Any) -> int:
        return sum(p.numel() for p in net.parameters())

    assert count(BQNetwork(rules_of("tsp"), BQConfig().shape, torch.Generator())) == 1_189_122
    published = BQConfig(width=192, layers=9, heads=12, paper=True)
    net = BQNetwork(rules_of("tsp"), published.shape, torch.Generator())
    assert round(count(net) / 1e6, 2) == 3.11 and net.head.out_features == 1 and not net.rescale
    with torch.no_grad():  # ReZero begins as the identity: only a node's own place and the two marks count
        tokens = torch.rand(1, 9, 2, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(net(tokens), net.head(net.embed(tokens))[:, 2:])


@pytest.mark.parametrize("name", SIZES)
def test_equal_tails_get_equal_scores(name: str) -> None:
    problem, instances = some(name)
    instance = row(instances, 0)
    if name == "op":  # nodes 1 and 2 may be swapped without another length
        places = np.array([[0, 0], [0.5, 0], [0, 0.5], [0.5, 0.5], [0.3, 0.3], [0.4, 0.1], [0.2, 0.4]])
        instance |= {"coords": places, "budget": np.array(2.9)}
    if name == "cvrp":
        instance |= {"demand": np.array([0, 1, 2, 3, 4, 5]), "capacity": np.array(20)}
    if name == "knapsack":
        instance |= {"capacity": np.array(100.0)}
    found = []
    for prefix in ((1, 2, 3), (2, 1, 3)):
        state = problem.initial(instance)
        for node in prefix:
            state, _, _ = problem.step(instance, state, 2 * node if name == "cvrp" else node)
        found.append(probabilities(network(name), problem, instance, state))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert np.isfinite(found[0]).sum() > 1


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_scores_follow_the_tokens_through_any_order(name: str, paper: bool) -> None:
    net = network(name, paper=paper)
    if paper:
        for block in net.blocks:
            torch.nn.init.constant_(block.alpha, 0.7)
            torch.nn.init.constant_(block.beta, 0.4)
    generator = torch.Generator().manual_seed(1)
    width = {"atsp": 0, "cvrp": 4, "op": 4, "knapsack": 3}.get(name, 2)
    tokens = torch.rand(3, 9, width, generator=generator)
    cost = torch.rand(3, 9, 9, generator=generator) if name == "atsp" else None
    fixed = 0 if name == "knapsack" else 2
    inner = torch.randperm(9 - fixed, generator=generator)
    order = torch.cat((torch.arange(fixed), fixed + inner))
    with torch.no_grad():
        here = net(tokens, cost)
        there = net(tokens[:, order], None if cost is None else cost[:, order][:, :, order])
    torch.testing.assert_close(there, here[:, inner], atol=1e-5, rtol=0)
    assert here.std() > 1e-3


@pytest.mark.parametrize("name", SIZES)
def test_size_and_place_of_an_instance_do_not_matter(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    tokens = torch.rand(3, 9, {"atsp": 0, "cvrp": 4, "op": 4, "knapsack": 3}.get(name, 2), generator=generator)
    cost = torch.rand(3, 9, 9, generator=generator) if name == "atsp" else None
    other = tokens.clone()
    if name == "knapsack":
        other = tokens * torch.tensor([7.0, 3.0, 7.0])
    elif name != "atsp":
        other[..., :2] = tokens[..., :2] * 7.0 + torch.tensor([3.0, -2.0])
        if name == "op":
            other[..., 3] = tokens[..., 3] * 7.0
    net = network(name)
    with torch.no_grad():
        here, there = net(tokens, cost), net(other, None if cost is None else cost * 7.0)
        torch.testing.assert_close(there, here, atol=1e-5, rtol=0)
        raw = network(name, rescale=False)
        assert not torch.allclose(raw(other, None if cost is None else cost * 7.0), raw(tokens, cost), atol=1e-3)
    if name != "atsp":
        boxed = rules_of(name).to_unit_box(other, None)[0]
        assert boxed[..., :2].amin() >= 0 and boxed[..., :2].amax() == 1


def test_losses_equal_their_definitions() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 4, 2, generator=generator)
    mask = torch.rand(5, 4, 2, generator=generator) < 0.7
    mask[:, 0, 0] = True
    target = torch.rand(5, 4, 2, generator=generator) * mask
    target /= target.sum(dim=(1, 2), keepdim=True)
    expected = 0.0
    for b in range(5):
        open_scores, weights = scores[b][mask[b]].double(), target[b][mask[b]].double()
        expected += float(open_scores.exp().sum().log() - (weights * open_scores).sum()) / 5
    assert float(imitation_loss(scores, target, mask)) == pytest.approx(expected, abs=1e-6)
    before = torch.tensor([0, 3, 1, 2, 2])
    logs = scores[..., 1].double().log_softmax(dim=1)
    assert float(end_loss(scores[..., 1], before)) == pytest.approx(-float(logs[range(5), before].mean()), abs=1e-6)


# ---- the rules on tensors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_states_on_the_device_are_the_environments(name: str) -> None:
    problem, instances = some(name)
    rules, random = rules_of(name)(instances, "cpu"), np.random.default_rng(0)
    owner = torch.arange(4)
    states = rules.initial(owner, torch.zeros_like(owner), torch.zeros_like(owner))
    plain = {k: problem.initial(row(instances, k)) for k in range(4)}
    returns = dict.fromkeys(plain, 0.0)
    kinds = 2 if name == "cvrp" else 1
    for _ in range(problem.num_nodes):
        allowed = rules.feasible(states)
        columns, chosen = [], []
        for i, k in enumerate(states.owner.tolist()):
            instance = row(instances, k)
            mask = problem.feasible(instance, plain[k]).reshape(-1, kinds)[states.remaining[i].numpy()]
            np.testing.assert_array_equal(mask, allowed[i].numpy())
            if not mask.any():
                continue
            reduced = problem.reduced(instance, plain[k])
            tokens, cost = (None if x is None else x[i] for x in rules.tokens(states))
            np.testing.assert_array_equal(tokens, reduced.tokens.astype(np.float32))
            if cost is not None and reduced.cost is not None:
                np.testing.assert_array_equal(cost, reduced.cost.astype(np.float32))
            place, kind = (int(x) for x in random.permutation(np.argwhere(mask))[0])
            node = int(states.remaining[i, place])
            plain[k], reward, _ = problem.step(instance, plain[k], kinds * node + kind)
            returns[k] += reward
            columns.append(place)
            chosen.append((i, kind))
        if not chosen:
            break
        rows, via = (torch.tensor(x) for x in zip(*chosen, strict=True))
        states = rules.step(states.take(rows), torch.tensor(columns), via)
        for i, k in enumerate(states.owner.tolist()):
            assert float(states.total[i]) == pytest.approx(returns[k], abs=1e-12)
            assert float(states.budget[i]) == pytest.approx(float(plain[k].budget), abs=1e-12)


def test_the_eight_symmetries_are_different_and_keep_lengths() -> None:
    places = torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(0)).expand(8, -1, -1)
    found = turned(places, torch.arange(8))
    assert len({tuple(x.flatten().tolist()) for x in found}) == 8 and torch.equal(found[0], places[0])
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(places, places), atol=1e-6, rtol=0)
    assert found.min() >= 0 and found.max() <= 1


# ---- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_a_beam_that_holds_every_state_finds_the_optimum(name: str) -> None:
    problem, instances = some(name)
    exact = np.array(
        [problem.objective(row(instances, k), solve_exactly(problem, row(instances, k), "own")) for k in range(4)]
    )
    found = make(name, seed=3).solve(instances, beam=64 if name != "cvrp" else 100)
    np.testing.assert_allclose(found.objectives, exact, atol=1e-9)
    np.testing.assert_allclose(problem.objectives(instances, found.solutions), exact, atol=1e-9)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("beam", [1, 4])
def test_probabilities_of_solutions_are_the_policys(name: str, beam: int) -> None:
    problem, instances = some(name)
    agent = make(name, seed=2)
    found = agent.solve(instances, beam=beam)
    for k in range(4):
        instance, state, total = row(instances, k), None, 0.0
        state = problem.initial(instance)
        for action in problem.actions(found.solutions[k]):
            logs = probabilities(agent.policy.network, problem, instance, state)
            if beam == 1:
                assert action == int(np.argmax(logs))  # a beam of one is greedy
            total += logs[action]
            state, _, _ = problem.step(instance, state, action)
        assert not problem.feasible(instance, state).any()
        assert found.log_probabilities[k] == pytest.approx(total, abs=1e-5)
        assert found.objectives[k] == pytest.approx(problem.objective(instance, found.solutions[k]), abs=1e-12)


@pytest.mark.parametrize("name", SIZES)
def test_what_saves_work_changes_no_greedy_solution(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, instances = some(name, 5)
    agent = make(name)
    plain = agent.solve(instances, reuse=False)
    for options in ({}, {"knn": 8}, {"knn": 100, "reuse": False}):
        found = agent.solve(instances, **options)
        np.testing.assert_array_equal(found.solutions, plain.solutions)
        np.testing.assert_allclose(found.log_probabilities, plain.log_probabilities, atol=1e-6)
    monkeypatch.setattr(bq_decode, "ROWS", 3)
    monkeypatch.setattr(bq_decode, "TOKENS", 20)
    monkeypatch.setattr(bq_decode, "PAIRS", 200)
    np.testing.assert_array_equal(agent.solve(instances).solutions, plain.solutions)
    counted = []
    inner = agent.policy.network.forward
    monkeypatch.setattr(agent.policy.network, "forward", lambda *x: counted.append(len(x[0])) or inner(*x))
    agent.solve(instances)
    once = sum(counted)
    counted.clear()
    agent.solve(instances, reuse=False)
    assert once < sum(counted) or name == "cvrp"  # where the last customer can be reached in two ways


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("knn", [1, 2, 3])
def test_the_nearest_nodes_always_hold_a_feasible_one_and_the_destination(name: str, knn: int) -> None:
    problem, instances = some(name)
    agent, seen = make(name), []
    inner = agent.policy.network.forward

    def watch(tokens: Any, cost: Any = None) -> Any:
        seen.append(tokens)
        return inner(tokens, cost)

    agent.policy.network.forward = watch  # type: ignore[method-assign]
    found = agent.solve(instances, knn=knn, reuse=False)
    problem.objectives(instances, found.solutions)  # feasible to its end
    ends = 0 if name == "knapsack" else 2
    assert max(tokens.shape[1] for tokens in seen) == knn + ends
    if name in ("tsp", "cvrp", "op"):
        for tokens in seen:
            depots = torch.from_numpy(instances["coords"][:, 0].astype(np.float32))
            assert (torch.cdist(tokens[:, 1, :2], depots).amin(dim=1) == 0).all()
    for k in range(4 if knn == 1 and name in ("tsp", "atsp") else 0):
        np.testing.assert_array_equal(
            found.solutions[k], nearest_tour(problem, row(instances, k), np.random.default_rng())
        )


def test_the_only_feasible_node_is_near_however_far_it_is() -> None:
    instances = {
        "coords": np.array([[[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.9, 0.9]]]),
        "demand": np.array([[0, 9, 9, 1]]),
        "capacity": np.array([9]),
    }
    rules = rules_of("cvrp")(instances, "cpu")
    zero = torch.zeros(1, dtype=torch.int64)
    states = rules.initial(zero, zero, zero)
    allowed = torch.tensor([[[False, False], [False, False], [True, False]]])
    assert rules.near(states, allowed, 1).tolist() == [[2]]
    assert rules.near(states, allowed, 2).tolist() == [[0, 2]]  # then what is nearest


@pytest.mark.parametrize("name", ["tsp", "op"])
def test_searching_wider_finds_more(name: str) -> None:
    _, instances = some(name, 8)
    agent, sign = make(name, seed=1), 1.0 if name == "op" else -1.0
    greedy, best = agent.solve(instances), agent.solve(instances, augment=8)
    gain = sign * (best.objectives - greedy.objectives)
    assert (gain >= -1e-12).all() and gain.max() > 0.01
    np.testing.assert_array_equal(best.solutions, agent.solve(instances, augment=8).solutions)
    assert sign * (agent.solve(instances, beam=16).objectives - greedy.objectives).mean() > 0


def test_instances_of_any_size_alone_or_together() -> None:
    agent = make("tsp")
    parts = [generate(make_problem("tsp", num_nodes=n), 2, n) for n in (9, 5)]
    together = agent.solve([row(parts[0], 0), row(parts[1], 0), row(parts[0], 1)])
    assert together.solutions.shape == (3, 9) and (together.solutions[1, 5:] == -1).all()
    apart = agent.solve(parts[0])
    np.testing.assert_array_equal(together.solutions[[0, 2]], apart.solutions)
    one = agent.solve(row(parts[1], 0))
    np.testing.assert_array_equal(one.solutions[0], together.solutions[1, :5])
    assert together.objectives[1] == one.objectives[0]


# ---- predict ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_predict_builds_the_greedy_solution(name: str) -> None:
    agent = make(name, seed=5)
    _, instances = some(name)
    expected = agent.solve(instances)
    env_id = record(name).env_id
    vector = gym.make_vec(env_id, 4, vectorization_mode="vector_entry_point", autoreset_mode="Disabled", **SIZES[name])
    observations, _ = vector.reset(options={"instance": instances})
    solutions, over = [None] * 4, np.zeros(4, bool)
    while not over.all():
        actions, _ = agent.predict(observations, deterministic=True)
        assert actions.shape == (4,) and (actions[over] == 0).all()  # where nothing is feasible
        observations, _, ended, _, infos = vector.step(actions)
        for k in np.flatnonzero(ended & ~over):
            solutions[k] = infos["solution"][k]
        over |= ended
    env = gym.make(env_id, **SIZES[name])
    for k in range(4):
        np.testing.assert_array_equal(solutions[k], expected.solutions[k])
        observation, info = env.reset(options={"instance": row(instances, k)})
        ended = False
        while not ended:
            action, _ = agent.predict(observation, deterministic=True)
            assert np.ndim(action) == 0
            observation, _, ended, _, info = env.step(action)
        np.testing.assert_array_equal(info["solution"], expected.solutions[k])
        assert info["objective"] == pytest.approx(expected.objectives[k], abs=1e-9)


def test_predict_samples_what_is_feasible_and_sb3_evaluates() -> None:
    agent = make("cvrp")
    env = gym.make("rlkit/CVRP-v0", **SIZES["cvrp"])
    observation, info = env.reset(seed=0)
    many = {key: np.repeat(np.asarray(value)[None], 400, axis=0) for key, value in observation.items()}
    actions, _ = agent.predict(many)
    share = np.bincount(actions, minlength=12) / 400
    assert (share[info["action_mask"] == 0] == 0).all() and (share > 0).sum() == info["action_mask"].sum()
    logs = probabilities(agent.policy.network, env.unwrapped.problem, env.unwrapped.instance, env.unwrapped.state)  # type: ignore[attr-defined]
    np.testing.assert_allclose(share, np.exp(logs), atol=0.1)
    mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=3)
    assert mean < 0
    with pytest.raises(UserError, match="expected observations of cvrp"):
        agent.predict({"coords": np.zeros((6, 2))})


# ---- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_batches_hold_states_and_their_best_actions(name: str) -> None:
    problem = make_problem(name, **SIZES[name])
    labels = read_labels(make_labels(name, size=3, seed=4, solver="own", **SIZES[name]))
    imitation = Imitation(
        labels, np.random.default_rng(0), torch.device("cpu"), batch_size=6, min_size=4, symmetries=False
    )
    sizes = set()
    for _ in range(12):
        batch = imitation.draw()
        assert batch.mask.any(dim=(1, 2)).all() and batch.mask[batch.target > 0].all()
        torch.testing.assert_close(batch.target.sum(dim=(1, 2)), torch.ones(6))
        sizes.add(batch.tokens.shape[1])
        assert (batch.before is None) == (name != "tsp")
    assert len(sizes) > 2
    assert problem.num_nodes in {size - 2 + (name in ("tsp", "atsp")) for size in sizes} or name == "knapsack"


@pytest.mark.parametrize("name", SIZES)
def test_labels_are_what_dynamic_programming_does(name: str) -> None:
    problem = make_problem(name, **SIZES[name])
    labels = read_labels(make_labels(name, size=1, seed=4, solver="own", **SIZES[name]))
    instance = row(labels.instances, 0)
    imitation = Imitation(
        labels, np.random.default_rng(0), torch.device("cpu"), batch_size=4, min_size=4, symmetries=False
    )
    if name in ("tsp", "atsp"):  # sub-paths may end anywhere: each is compared with the best path of its own nodes
        _paths_are_best(imitation, name)
        return
    _, actions = optimal_values(problem, instance)
    by_tokens = {}
    for state, optimal in actions.items():
        reduced = problem.reduced(instance, state)
        by_tokens[_key(reduced.tokens)] = (reduced, optimal)
    checked = 0
    for _ in range(8):
        batch = imitation.draw()
        for b in range(4):
            found = by_tokens.get(_key(batch.tokens[b].double().numpy()))
            if found is None:
                continue  # routes and tours may be walked the other way round, in another order
            reduced, optimal = found
            checked += 1
            fixed = 0 if name == "knapsack" else 2
            for place, kind in np.argwhere(batch.target[b].numpy() > 0):
                token = batch.tokens[b, fixed + place].double().numpy()
                node = int(reduced.nodes[fixed:][np.abs(reduced.tokens[fixed:] - token).sum(axis=1).argmin()])
                assert (2 * node + int(kind) if name == "cvrp" else node) in optimal
    assert checked > 4


def _key(tokens: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(sorted(tuple(np.round(token, 4).tolist()) for token in tokens))


def _paths_are_best(imitation: Imitation, name: str) -> None:
    for _ in range(6):
        batch = imitation.draw()
        for b in range(4):
            if batch.cost is not None:
                cost = batch.cost[b].numpy()
            else:
                cost = torch.cdist(batch.tokens[b], batch.tokens[b]).numpy()
            inner = range(2, len(cost))
            if len(inner) > 5:
                continue
            ways = {
                p: cost[0, p[0]] + sum(cost[i, j] for i, j in pairwise(p)) + cost[p[-1], 1] for p in permutations(inner)
            }
            shortest = min(ways, key=ways.__getitem__)
            assert ways[shortest] == pytest.approx(ways[tuple(inner)], abs=1e-5)
            assert int(batch.target[b, :, 0].argmax()) == 0
            if name == "tsp":
                assert batch.before is not None and int(batch.before[b]) == len(inner) - 1


@pytest.mark.parametrize("name", SIZES)
def test_every_problem_is_learnt(name: str) -> None:
    agent = make(name, learning_rate=5e-3, decay_steps=0).learn(2)
    batch = agent.draw()
    losses = [float(agent.update(batch)["loss"]) for _ in range(30)]
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]


@pytest.mark.skipif("RLKIT_SLOW" not in os.environ, reason="takes minutes; RLKIT_SLOW=1 runs it")
def test_64_tours_are_learnt_by_heart() -> None:
    """Every state on the way of 64 tours of 20 cities, one size a batch."""
    settings: dict[str, Any] = {"layers": 4, "batch_size": 64, "train_size": 64, "learning_rate": 5e-4, "ema": 0.99}
    settings |= {"weight_decay": 0.0, "decay_steps": 18 * 120}
    agent = BQ("MultiInputPolicy", replace(record("tsp"), env_kwargs={"num_nodes": 20}), **settings)
    labels, owner = agent.read_labels(), torch.arange(64)
    rules, tours, batches = rules_of("tsp")(labels.instances, "cpu"), torch.from_numpy(labels.solutions), []
    zeros = torch.zeros(64, dtype=torch.float64)
    for done in range(18):
        remaining, nowhere = tours[:, done + 1 :], torch.zeros_like(owner)
        target = torch.zeros(*remaining.shape, 1)
        target[:, 0] = 1.0
        states = States(owner, nowhere, remaining, tours[:, done], nowhere, zeros, zeros, zeros, owner[:, None], owner)
        before = torch.full((64,), remaining.shape[1] - 1)
        batches.append(
            SubProblemBatch(rules.tokens(states)[0], None, torch.ones_like(target, dtype=torch.bool), target, before)
        )
    for epoch in range(100):
        for k in np.random.default_rng(epoch).permutation(18):
            agent.update(batches[k])
            agent._n_updates += 1
    with torch.no_grad():
        right = [agent.policy.network(batch.tokens)[..., 0].argmax(dim=1) == 0 for batch in batches]
    assert torch.cat(right).float().mean() >= 0.99
    assert gap(agent.solve(labels.instances).objectives, labels.objectives).mean() < 0.5


@pytest.mark.parametrize("name", ["tsp", "atsp"])
def test_bfloat16_gradients_are_near(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for amp in (False, True):
        agent = make(name, amp=amp, batch_size=64)
        agent.ready()
        monkeypatch.setattr(
            agent.optimiser, "descend", lambda slopes: found.append(torch.cat([*map(torch.ravel, slopes)]))
        )
        agent.update(agent.draw())
    assert 0 < float((found[0] - found[1]).norm() / found[0].norm()) < 0.06


def test_rates_and_averages() -> None:
    agent = make("tsp", learning_rate=1e-3, decay_steps=10, ema=0.5)
    rates = [agent._rate(step) for step in range(12)]
    np.testing.assert_allclose(rates[:11], 5e-4 * (1 + np.cos(np.pi * np.arange(11) / 10)), atol=1e-12)
    assert rates[11] == 0.0
    agent.ready()
    agent.average.schedule.done = 5
    before = [p.clone() for p in agent.policy.network.parameters()]
    agent.update(agent.draw())
    for old, online, new in zip(before, agent.parameters, agent.policy.network.parameters(), strict=True):
        torch.testing.assert_close(new, 0.4 * old + 0.6 * online)  # 6 / 15, a short average at first
    agent.solve(some("tsp")[1])


# ---- state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tsp", "op"])
def test_restored_checkpoint_goes_on_byte_for_byte(name: str, tmp_path: Path) -> None:
    whole = make(name, seed=3)
    saver = Checkpoint(tmp_path, 3, dict)
    whole.learn(6, saver, log_interval=6)
    (tmp_path / "step_0000000006.rlk").unlink()
    fresh = make(name, seed=3)
    fresh.restore(tmp_path / "step_0000000003.rlk")
    fresh.learn(3, log_interval=6, reset_num_timesteps=False)
    assert same(tensors(whole), tensors(fresh))
    assert whole.state_values() == fresh.state_values()
    other = make(name, seed=4).learn(6)
    assert not same(whole.model_tensors(), other.model_tensors())
    with pytest.raises(ArtefactError, match="another agent or configuration"):
        make(name, seed=3, label_seed=1).restore(tmp_path / "step_0000000003.rlk")
    labels = [
        make_labels(name, size=12, seed=s, solver="own", path=tmp_path / "l.safetensors", **SIZES[name]) for s in (5,)
    ]
    fresh = make(name, labels=labels[0]).learn(2)
    fresh.save_checkpoint(tmp_path / "c.rlk")
    labels[0].unlink()
    make_labels(name, size=12, seed=6, solver="own", path=labels[0], **SIZES[name])
    with pytest.raises(ArtefactError, match="other labels"):
        make(name, labels=labels[0]).restore(tmp_path / "c.rlk")


@pytest.mark.parametrize("name", SIZES)
def test_a_saved_agent_solves_without_environment_or_labels(name: str, tmp_path: Path) -> None:
    agent = make(name).learn(2)
    agent.save(tmp_path / "a.rlk")
    loaded = BQ.load(tmp_path / "a.rlk")
    assert loaded.world is None and loaded.imitation is None
    _, instances = some(name)
    expected, found = agent.solve(instances), loaded.solve(instances)
    np.testing.assert_array_equal(found.solutions, expected.solutions)
    np.testing.assert_array_equal(found.log_probabilities, expected.log_probabilities)
    env = gym.make(record(name).env_id, **SIZES[name])
    observation, _ = env.reset(seed=0)
    assert loaded.predict(observation, deterministic=True)[0] == agent.predict(observation, deterministic=True)[0]
    assert loaded.source() == agent.source()
    loaded.save(tmp_path / "b.rlk")
    assert (tmp_path / "a.rlk").read_bytes() == (tmp_path / "b.rlk").read_bytes()
    onward = BQ.load(tmp_path / "a.rlk", labels=make_labels(name, size=5, seed=9, solver="own", **SIZES[name]))
    onward.learn(1)
    assert onward.described is not None and onward.described["details"]["size"] == 5


def test_a_run_ends_in_a_gap_and_resumes_exactly(tmp_path: Path) -> None:
    settings = ["agent=bq", "env=tsp", "env.kwargs.num_nodes=7", "total_timesteps=4", "log_every=1", "eval_every=2"]
    settings += ["checkpoint_every=2", "eval_episodes=6", "final_episodes=8", "progress_bar=false", "tensorboard=true"]
    settings += [f"agent.{key}={value}" for key, value in TINY.items()]
    files = ("metrics.jsonl", "model.rlk")
    assert run.train(compose_config([*settings, f"out={tmp_path / 'run'}"])) == 0
    whole = [(tmp_path / "run" / file).read_bytes() for file in files]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["final"]["gap"] > 0 and result["final"]["nearest_neighbour_gap"] > 0
    assert len(result["evaluations"]) == 2 and "gap" in result["evaluations"][0]
    best = "fast-tsp" if importlib.util.find_spec("fast_tsp") else "own"
    assert result["dataset"]["details"]["solver"] == best
    assert "12 instances of tsp" in result["source_sentence"]
    (tmp_path / "run" / "checkpoints" / "step_0000000004.rlk").unlink()
    assert run.resume(tmp_path / "run", progress_bar=False) == 0
    assert [(tmp_path / "run" / file).read_bytes() for file in files] == whole


@pytest.mark.parametrize("name", SIZES)
def test_evaluations_are_of_the_same_instances(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(name)
    evaluator = agent.evaluator(9, 0)
    assert evaluator is not None
    first, second = evaluator(agent, index=0), make(name, seed=0).evaluator(9, 7)(agent, index=5)  # type: ignore[misc]
    assert first.summary() == second.summary() and len(first.returns) == 9
    summary, problem = first.summary(), make_problem(name, **SIZES[name])
    assert summary["gap"] >= 0 and summary["objective"] == abs(summary["return"])
    heuristics = {"knapsack": ["density_greedy"]}.get(name, ["nearest_neighbour"])
    assert all(summary[f"{h}_gap"] >= 0 for h in heuristics)
    reference = read_labels(make_labels(name, size=9, seed=gaps.HELD_OUT_SEED, solver="own", **SIZES[name]))
    worse = (reference.objectives - first.returns) if problem.maximise else (-first.returns - reference.objectives)
    assert summary["gap"] == pytest.approx(float(np.mean(100 * worse / reference.objectives)))
    assert first.lengths.max() <= problem.num_nodes
    evaluator.search = {"beam": 8}
    assert evaluator(agent).summary()["objective"] != summary["objective"]
    other = agent.evaluator(3, 0, replace(record(name), env_kwargs={**SIZES[name], "num_nodes": 9}))
    assert other is not None and other(agent).lengths.max() >= 2 and other.problem.num_nodes == 9
    with pytest.raises(UserError, match=f"this bq solves {name}, expected an environment of it"):
        agent.evaluator(3, 0, record("tsp" if name != "tsp" else "op"))

    def missing(*_: Any) -> str:
        raise UserError("not installed")

    monkeypatch.setattr(gaps, "choose_solver", missing)
    alone = agent.evaluator(9, 0)
    assert alone is not None
    found = alone(agent).summary()
    assert "gap" not in found and found["objective"] == summary["objective"] and f"{heuristics[0]}_objective" in found


# ---- several processes -----------------------------------------------------------------------------------------------

JOINT: dict[str, Any] = {**TINY, "batch_size": 16, "learning_rate": 1e-3}


def _process(rank: int, folder: str, port: str, labels: str) -> None:
    torch.set_num_threads(1)
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
    agent = make("tsp", labels=labels, **JOINT).learn(20)
    agent.save_checkpoint(Path(folder) / f"joint{rank}.rlk")
    bq_data.leave_processes()


def test_two_processes_follow_one(tmp_path: Path) -> None:
    import socket

    labels = make_labels("tsp", size=12, solver="own", path=tmp_path / "l.safetensors", **SIZES["tsp"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    multiprocessing.spawn(_process, (str(tmp_path), port, str(labels)), nprocs=2)
    assert not (tmp_path / "joint1.rlk").exists()  # the first alone writes
    one = make("tsp", labels=labels, **JOINT).learn(20)
    joint = make("tsp", labels=labels, **JOINT)
    joint.restore(tmp_path / "joint0.rlk")
    assert joint.num_timesteps == 20
    for (key, left), right in zip(one.network.named_parameters(), joint.parameters, strict=True):
        seen = torch.ones_like(left, dtype=torch.bool)
        if key.endswith("qkv.bias"):  # softmax does not see what is added to all keys or scores: such gradients are
            seen[16:32] = False  # nothing but rounding, which Adam takes for a direction
        if key != "head.bias":
            torch.testing.assert_close(left[seen], right[seen], atol=1e-5, rtol=0)
    _, instances = some("tsp")
    found = [agent.solve(instances).log_probabilities for agent in (one, joint)]
    np.testing.assert_allclose(*found, atol=1e-4)


def test_parts_of_a_batch_are_the_batch() -> None:
    agent = make("cvrp")
    labels = agent.read_labels()
    options: dict[str, Any] = {"batch_size": 8, "min_size": 4, "symmetries": True}
    whole, first, second = (
        Imitation(labels, np.random.default_rng(1), torch.device("cpu"), **options).draw(part)
        for part in (slice(None), slice(0, 4), slice(4, 8))
    )
    for key in ("tokens", "mask", "target"):
        assert torch.equal(getattr(whole, key), torch.cat((getattr(first, key), getattr(second, key))))


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_gets_a_sentence(tmp_path: Path) -> None:
    for arguments, expected in (
        ({"heads": 3}, "agent.heads=3 is out of range, expected a divisor of agent.width=16"),
        ({"layers": 0}, "layers=0 is out of range"),
        ({"min_size": 2}, "min_size=2"),
        ({"min_size": 9}, "at most 8 for labels with 7 nodes"),
        ({"decay_steps": -1}, "decay_steps=-1"),
        ({"ema": 1.5}, "ema=1.5"),
        ({"layer": 2}, "did you mean 'layers'"),
        ({"solver": "concorde"}, "unknown solver 'concorde' of tsp"),
        ({"label_seed": 2**31}, "that of evaluations"),
        ({"labels": "nowhere.safetensors"}, "no such file"),
        ({"labels": tmp_path / "op.safetensors"}, "holds labels of op, expected tsp"),
        ({"labels": tmp_path / "held.safetensors"}, "that of evaluations"),
    ):
        for name, seed in (("op", 0), ("tsp", gaps.HELD_OUT_SEED)):
            path = tmp_path / {"op": "op.safetensors", "tsp": "held.safetensors"}[name]
            make_labels(name, size=4, seed=seed, solver="own", path=path, **SIZES[name])
        with pytest.raises(UserError, match=expected):
            make("tsp", **arguments).learn(1)
    with pytest.raises(UserError, match="got convex-hull"):
        BQ("MultiInputPolicy", "convex-hull")
    with pytest.raises(UserError, match="bq solves tsp, atsp"):
        BQ("MultiInputPolicy", gym.make("CartPole-v1"))
    with pytest.raises(UserError, match="needs formulation='bq' of cvrp, got 'direct'"):
        BQ("MultiInputPolicy", gym.make("rlkit/CVRP-v0", formulation="direct", **SIZES["cvrp"]))
    with pytest.raises(UserError, match="got none"):
        BQ("MultiInputPolicy")
    with pytest.raises(UserError, match="expected 'MultiInputPolicy'"):
        BQ("MlpPolicy", "tsp")
    agent, (_, instances) = make("tsp"), some("tsp")
    for options, expected in (
        ({"beam": 0}, "beam=0 is out of range"),
        ({"knn": 0}, "knn=0 is out of range"),
        ({"augment": 0}, "augment=0"),
    ):
        with pytest.raises(UserError, match=expected):
            agent.solve(instances, **options)
    with pytest.raises(UserError, match="augment=2 is out of range, knapsack has 1 symmetries"):
        make("knapsack").solve(some("knapsack")[1], augment=2)
    with pytest.raises(UserError, match="expected a mapping of arrays with 'coords' for tsp"):
        agent.solve({"cost": np.zeros((4, 4))})
    with pytest.raises(UserError, match="holds nan"):
        agent.solve({"coords": np.full((4, 2), np.nan)})
    with pytest.raises(UserError, match="expected instances of tsp"):
        agent.solve([])
    with pytest.raises(UserError, match="has not the 3 rows"):
        make("cvrp").solve({"coords": np.zeros((3, 4, 2)), "demand": np.zeros((2, 4)), "capacity": np.ones(3)})
    bare = BQ("MultiInputPolicy", gym.make("rlkit/TSP-v0", num_nodes=7), **TINY)
    bare.save(tmp_path / "bare.rlk")
    loaded = BQ.load(tmp_path / "bare.rlk")
    assert loaded.get_env() is None and loaded.evaluator(3, 0) is None
    with pytest.raises(UserError, match="loaded without labels; pass labels= or env= to load"):
        loaded.learn(1)
    with pytest.raises(UserError, match="expected an environment of it"):
        BQ.load(tmp_path / "bare.rlk", "op")
    BQ.load(tmp_path / "bare.rlk", gym.make("rlkit/TSP-v0", num_nodes=8)).learn(1)


# ---- any unit, any place ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tsp", "cvrp", "op"])
def test_neither_unit_nor_origin_changes_a_solution(name: str) -> None:
    agent = make(name)
    problem = make_problem(name, **SIZES[name])
    instances = generate(problem, 4, 11)
    found = agent.solve(instances)
    for unit, origin in ((1000.0, 0.0), (1000.0, 4e6), (1e-3, -5.0)):
        moved = instances | {"coords": instances["coords"] * unit + origin}
        if name == "op":
            moved["budget"] = instances["budget"] * unit
        again = agent.solve(moved)
        np.testing.assert_array_equal(again.solutions, found.solutions)
        scale = 1.0 if name == "op" else unit  # of what is counted
        np.testing.assert_allclose(again.objectives, found.objectives * scale, rtol=1e-6)


@pytest.mark.parametrize("name", ["tsp", "cvrp", "op"])
def test_coincident_points_are_solved(name: str) -> None:
    agent, problem = make(name), make_problem(name, **SIZES[name])
    instances = generate(problem, 2, 12)
    instances["coords"][0, 3] = instances["coords"][0, 2]  # two orders at one address
    instances["coords"][0, 4] = instances["coords"][0, 0]  # one where the tour begins
    instances["coords"][1] = 0.5  # all of them
    for options in ({}, {"beam": 4}, {"augment": 4}, {"knn": 2}):
        found = agent.solve(instances, **options)
        assert np.isfinite(found.log_probabilities).all() and found.objectives[0] > 0
        np.testing.assert_array_equal(problem.objectives(instances, found.solutions), found.objectives)


def test_ragged_instances_are_one_sentence() -> None:
    for name in SIZES:
        ragged = {key: [[0, 1], [2]] for key in ("coords", "cost", "weight")}
        with pytest.raises(UserError, match="is not an array of numbers, its rows differ in length"):
            make(name).solve(ragged)
    rows = {"coords": np.random.default_rng(0).random((2, 5, 2)), "demand": [[0, 1, 1, 1, 1], [0]], "capacity": [9, 9]}
    with pytest.raises(UserError, match="'demand' is not an array of numbers"):
        make("cvrp").solve(rows)


# ---- attention that knows distances ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_attention_falls_with_the_squared_distance(name: str) -> None:
    net = network(name, distances=True)
    assert net.distances == (name in ("tsp", "cvrp", "op"))
    assert all((block.slope is not None) == net.distances for block in net.blocks)
    assert not network(name, distances=True, paper=True).distances
    if not net.distances:
        return
    generator = torch.Generator().manual_seed(3)
    places, x = torch.rand(2, 6, 2, generator=generator), torch.rand(2, 6, 16, generator=generator)
    block: Any = net.blocks[0]
    q, key, v = (part.view(2, 6, 2, 8).transpose(1, 2) for part in block.qkv(x).chunk(3, dim=-1))
    logits = q @ key.transpose(-1, -2) / 8**0.5
    logits = logits - block.slope[:, None, None] ** 2 * torch.cdist(places, places)[:, None] ** 2
    expected = block.out((logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(2, 6, 16))
    torch.testing.assert_close(block.attend(x, None, folded(places)), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(block.attend(x, None), expected, atol=1e-3)


@pytest.mark.parametrize("biased", [False, True])
def test_fused_attention_is_attention(biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, key = torch.randn(2, 3, 2, 7, 20, generator=generator)  # 20: 16 and four columns of places
    v, bias = torch.randn(3, 2, 7, 16, generator=generator), torch.randn(3, 2, 7, 7, generator=generator)
    logits = 0.3 * q @ key.transpose(-1, -2) + (bias if biased else 0.0)
    found = fused_attention(q, key, v, bias if biased else None, 0.3)
    torch.testing.assert_close(found, logits.softmax(dim=-1) @ v, atol=1e-5, rtol=0)


def test_who_has_distances_and_who_has_not(tmp_path: Path) -> None:
    assert [name for name in SIZES if make(name).config.distances] == ["tsp", "cvrp", "op"]
    agent = make("cvrp").learn(3)
    slopes = [block.slope for block in agent.policy.network.blocks]
    assert all(not torch.equal(slope, torch.linspace(0.1, 5.0, 2)) for slope in slopes)  # they are learnt
    assert not make("tsp", paper=True).network.distances
    old = make("tsp", distances=False).learn(2)
    old.save(tmp_path / "new.rlk")
    manifest, tensors, _ = read_artefact(tmp_path / "new.rlk")
    for key in ("format", "versions", "sha256"):
        manifest.pop(key, None)
    for key in ("distances", "init"):
        manifest["config"].pop(key)  # as it was written before there were distances
    write_artefact(tmp_path / "old.rlk", manifest, tensors)
    _, instances = some("tsp")
    again = BQ.load(tmp_path / "old.rlk")
    assert not again.network.distances
    np.testing.assert_array_equal(again.solve(instances).log_probabilities, old.solve(instances).log_probabilities)


@pytest.mark.parametrize("name", SIZES)
def test_larger_instances_are_shown_in_part(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = rules_of(name)
    monkeypatch.setattr(kind, "shown", None if kind.shown is None else 4)
    agent, seen = make(name), []
    inner = agent.policy.network.forward
    monkeypatch.setattr(agent.policy.network, "forward", lambda *x: seen.append(x[0].shape[1]) or inner(*x))
    for nodes, least in ((SIZES[name]["num_nodes"], 5), (12, 5 if kind.shown is None else 0)):
        seen.clear()
        found = agent.solve(generate(make_problem(name, **{**SIZES[name], "num_nodes": nodes}), 2, 0))
        assert np.isfinite(found.objectives).all() and max(seen) - 2 * kind.ends >= least
        assert least or max(seen) == 6
    assert (kind.shown is None) == (name not in ("tsp", "cvrp"))


# ---- first weights from a file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tsp", "atsp", "knapsack"])
def test_learning_begins_from_given_weights(name: str, tmp_path: Path) -> None:
    first = make(name, seed=1).learn(4)
    first.save(tmp_path / "first.rlk")
    _, instances = some(name)
    second = make(name, seed=2, init=str(tmp_path / "first.rlk"))
    second.ready()
    for network in (second.network, second.policy.network):
        assert same(network.state_dict(), first.policy.network.state_dict())
    expected = first.solve(instances)
    np.testing.assert_array_equal(second.solve(instances).log_probabilities, expected.log_probabilities)
    second.learn(2)
    second.save_checkpoint(tmp_path / "c.rlk")
    moved = make(name, seed=2, init=str(tmp_path / "first.rlk"))
    moved.restore(tmp_path / "c.rlk")
    assert same(tensors(second), tensors(moved))
    second.learn(2, reset_num_timesteps=False)
    moved.learn(2, reset_num_timesteps=False)  # goes on, and does not begin again
    assert same(tensors(second), tensors(moved))


def test_weights_without_distances_may_be_the_first(tmp_path: Path) -> None:
    first = make("tsp", distances=False).learn(2)
    first.save(tmp_path / "first.rlk")
    second = make("tsp", init=str(tmp_path / "first.rlk"))
    second.ready()
    assert second.network.distances
    for block in second.network.blocks:
        torch.testing.assert_close(block.slope, torch.linspace(0.02, 1.0, 2))
    theirs, ours = first.policy.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items()) and len(ours) == len(theirs) + 2
    with pytest.raises(UserError, match=r"distances=True.*expected tsp.*distances=False"):
        second.save(tmp_path / "second.rlk")
        make("tsp", distances=False, init=str(tmp_path / "second.rlk")).begin()


def test_first_weights_of_another_shape_are_one_sentence(tmp_path: Path) -> None:
    make("op").save(tmp_path / "op.rlk")
    make("tsp", layers=1).save(tmp_path / "one.rlk")
    (tmp_path / "none.rlk").write_bytes(b"PK")
    for file, expected in (
        ("op.rlk", "holds weights for op, Shape.*expected tsp"),
        ("one.rlk", "layers=1.*expected tsp.*layers=2"),
        ("none.rlk", "not a readable rlkit artefact"),
        ("nowhere.rlk", "no such artefact"),
    ):
        with pytest.raises(UserError, match=expected) as caught:
            make("tsp", init=str(tmp_path / file)).prepare(False)
        assert "\n" not in str(caught.value)
