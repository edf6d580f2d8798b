"""Pointer Networks: decoding, masks, exact resume, artefacts, learning, and bad input."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure

from rlkit.agents.common.blocks import BlockShape
from rlkit.agents.ptrnet import data, decode
from rlkit.agents.ptrnet import network as networks
from rlkit.agents.ptrnet.ptrnet import PtrNet
from rlkit.algorithms.callbacks import Evaluate
from rlkit.envs.combinatorial.base import generate, make_problem, row
from rlkit.envs.combinatorial.convex_hull.rules import hull_target
from rlkit.envs.combinatorial.delaunay.rules import delaunay_target
from rlkit.envs.combinatorial.instances import Solutions
from rlkit.envs.combinatorial.labels import make_labels
from rlkit.envs.combinatorial.metrics import tour_length
from rlkit.envs.combinatorial.solvers import distances, held_karp
from rlkit.errors import ArtefactError, UserError
from rlkit.registry import record

IDS = {"tsp": "rlkit/TSP-v0", "convex-hull": "rlkit/ConvexHull-v0", "delaunay": "rlkit/Delaunay-v0"}
PROBLEMS = tuple(IDS)
ATTENTION = (("supervised", "attention"), ("reinforce", "attention"))
TINY: dict[str, Any] = {"hidden_size": 16, "batch_size": 8, "train_size": 16}
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "hull": ("convex-hull", {"sizes": (5, 8)}),
    "delaunay": ("delaunay", {"optimiser": "sgd", "beam": 2}),
    "tsp": ("tsp", {"sizes": (5, 6), "order": "angle"}),
    "attention": ("tsp", {"network": "attention", "sizes": (5, 6), "heads": 4}),
    "critic": ("tsp", {"training": "reinforce", "sizes": (5, 7), "curriculum": 4, "glimpses": 1}),
    "ema": ("tsp", {"training": "reinforce", "baseline": "ema"}),
    "rollout": ("tsp", {"training": "reinforce", "baseline": "rollout", "epoch": 2, "challenge_size": 8}),
    "samples": ("tsp", {"training": "reinforce", "baseline": "samples"}),
}


def make(env: str, n: int = 6, **settings: Any) -> PtrNet:
    return PtrNet(env=replace(record(env), env_kwargs={"num_nodes": n}), **{**TINY, **settings})


def sharpened(env: str, n: int = 6, **settings: Any) -> PtrNet:
    """An agent with opinions: a new one finds all pointers nearly alike, and is slow to leave that."""
    agent = make(env, n, **{"init_range": 1.0, **settings})
    if agent.config.network == "attention":  # which does not begin with that range
        with torch.no_grad():
            for parameter in agent.policy.network.parameters():
                parameter.mul_(2.0)
    return agent


def reinforced(baseline: str, **settings: Any) -> PtrNet:
    """One that learns to shorten tours of five cities within a second."""
    quick: dict[str, Any] = {"batch_size": 64, "learning_rate": 1e-2, "ema_decay": 0.9, "epoch": 15, **settings}
    return make("tsp", 5, training="reinforce", init_range=0.5, baseline=baseline, **quick)


def tensors(agent: Any) -> dict[str, torch.Tensor]:
    return {**agent.model_tensors(), **agent.training_tensors()}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].numpy().tobytes() == right[key].numpy().tobytes(), key


# ---- the network -------------------------------------------------------------------------------------------------


def test_attention_is_the_papers_equation_in_one_block_or_several(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = networks.build(lambda: networks.Attention(4), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(2, 5, 4, generator=generator)
    queries = torch.randn(2, 7, 4, generator=generator, requires_grad=True)
    found = attention(attention.key(values), queries)
    w1, w2, v = attention.key.weight, attention.query.weight, attention.v
    for b in range(2):
        for i in range(7):
            for j in range(5):
                expected = v @ torch.tanh(w1 @ values[b, j] + w2 @ queries[b, i])
                torch.testing.assert_close(found[b, i, j], expected)
    gradient = torch.autograd.grad(found.square().sum(), (v, queries))
    monkeypatch.setattr(networks, "MOST", 2 * 5 * 4 * 2)  # two steps to a block
    blocks = attention(attention.key(values), queries)
    torch.testing.assert_close(blocks, found)
    for part, whole in zip(torch.autograd.grad(blocks.square().sum(), (v, queries)), gradient, strict=True):
        torch.testing.assert_close(part, whole)


def test_a_glimpse_takes_the_querys_place_and_logits_are_clipped() -> None:
    style: dict[str, Any] = {"ends": False, "embedding": 4, "masks": True}
    network = networks.build(
        lambda: networks.PointerNetwork(4, glimpses=1, clip=2.0, **style), torch.Generator().manual_seed(0)
    )
    coords = torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(1))
    memory = network.encode(coords)
    query = memory.h.transpose(0, 1)  # [1, 1, 4]
    allowed = torch.tensor([[[True, False, True, True, False]]])
    scores = network.glimpses[0](memory.keys[1], query).masked_fill(~allowed, -torch.inf)
    glimpse = scores.softmax(dim=-1) @ memory.values
    logits = 2.0 * torch.tanh(network.pointer(memory.keys[0], glimpse))
    expected = logits.masked_fill(~allowed, -torch.inf).log_softmax(dim=-1)
    found = network.log_probabilities(memory, query, allowed)
    torch.testing.assert_close(found, expected)
    assert (found[~allowed] == -torch.inf).all()
    assert found.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    with torch.no_grad():  # the most that clipped logits can tell two pointers apart is e^(2 C)
        network.pointer.v.mul_(1e6)
    extreme = network.log_probabilities(memory, query)
    assert (extreme.max() - extreme.min()).item() <= 4.0 + 1e-5


@pytest.mark.parametrize("order", ["angle", "lexicographic"])
def test_sorted_points_are_read_alike_however_they_come(order: str) -> None:
    agent = sharpened("convex-hull", 7, order=order)
    network = agent.policy.network
    generator = torch.Generator().manual_seed(1)
    coords = torch.rand(4, 7, 2, generator=generator)
    if order == "lexicographic":
        coords[0, :, 0] = 0.5  # y decides
    shuffle = torch.rand(4, 7, generator=generator).argsort(dim=1)
    tokens = torch.randint(0, 7, (4, 5), generator=generator)
    before = network.follow(network.encode(coords), 1 + shuffle.gather(1, tokens))
    after = network.follow(network.encode(networks.rearranged(coords, shuffle)), 1 + tokens)
    torch.testing.assert_close(before[..., :1], after[..., :1])
    points = before[..., 1:].gather(2, shuffle[:, None].expand(-1, 5, -1))
    torch.testing.assert_close(points, after[..., 1:])
    read = networks.rearranged(coords, networks.reading_order(coords, order))
    if order == "angle":
        x, y = (read - coords.mean(dim=1, keepdim=True)).unbind(dim=2)
        assert (torch.atan2(y, x).diff(dim=1) >= 0).all()
    else:
        assert [sorted(row) for row in read.tolist()] == read.tolist()
    network.order = "given"  # or the agreement above would mean little
    assert (network.follow(network.encode(networks.rearranged(coords, shuffle)), 1 + tokens) - after).abs().max() > 1e-3


def test_answers_begin_where_a_network_that_sorts_can_tell() -> None:
    for env, target in (("convex-hull", hull_target), ("delaunay", delaunay_target)):
        agent = make(env, 7, order="angle")
        points, tokens = agent.draw()
        assert torch.equal(networks.reading_order(points, "angle"), networks.reading_order(points, "given"))
        assert tokens is not None
        for one, answer in zip(points.numpy(), tokens - 1, strict=True):  # behind the answer's end there is ⇐
            expected = target(one)
            assert answer[answer >= 0].tolist() == expected[expected >= 0].tolist()


def test_the_attention_model_is_the_papers_equations() -> None:
    shape = BlockShape(width=8, layers=2, heads=2, feedforward=16)
    model = networks.AttentionModel(shape, torch.Generator().manual_seed(0), clip=3.0, masks=True)
    coords = torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(1))
    memory = model.encode(coords)
    nodes = memory.points[0]  # [5, 8]
    tokens = torch.tensor([[2, 4, 0, 1, 3]])
    found = model.follow(model.encode(coords), tokens, networks.tour_masks(tokens, 0))[0]  # [5, 5]
    values, looked_at, pointed_at = model.glimpse(nodes).chunk(3, dim=-1)
    for t in range(5):
        first = nodes[2] if t else model.start
        last = nodes[tokens[0, t - 1]] if t else model.start
        d = model.context(torch.cat((nodes.mean(dim=0), first, last)))
        left = tokens[0, t:]
        parts = []
        for head in (slice(0, 4), slice(4, 8)):
            weights = (looked_at[left][:, head] @ d[head] / 2.0).softmax(dim=0)
            parts.append(weights @ values[left][:, head])
        g = model.out(torch.cat(parts))
        u = 3.0 * torch.tanh(pointed_at[left] @ g / 8**0.5)
        torch.testing.assert_close(found[t, left], u.log_softmax(dim=0), atol=1e-5, rtol=1e-4)
        assert (found[t, tokens[0, :t]] == -torch.inf).all()


def test_the_attention_model_does_not_care_about_the_order_of_cities() -> None:
    network = sharpened("tsp", 7, network="attention").policy.network
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(3, 7, 2, generator=generator)
    order = torch.randperm(7, generator=generator)
    tours = torch.stack([torch.randperm(7, generator=generator) for _ in range(3)])
    there = network.follow(network.encode(coords), tours, networks.tour_masks(tours, 0))
    renamed = order.argsort()[tours]
    here = network.follow(network.encode(coords[:, order]), renamed, networks.tour_masks(renamed, 0))
    torch.testing.assert_close(here, there[:, :, order], atol=1e-4, rtol=1e-4)
    assert there.isfinite().any() and not torch.allclose(there.exp(), there.exp().flip(2))


@pytest.mark.parametrize(("training", "network"), [("supervised", "lstm"), ("reinforce", "lstm"), *ATTENTION])
def test_teacher_forcing_equals_stepwise_decoding(training: str, network: str) -> None:
    """Walks drawn step by step have, all at once, the same log-probability."""
    for env in PROBLEMS if (training, network) == ("supervised", "lstm") else ("tsp",):
        agent = sharpened(env, 7, training=training, network=network)
        pointer, problem = agent.policy.network, agent.problem
        coords = torch.from_numpy(generate(problem, 12, 5)["coords"])
        rows, draw = torch.arange(12), decode.sampler(torch.Generator().manual_seed(0))
        memory = pointer.encode(coords.float())
        for valid in (True, False):
            rules = problem.pointers()(problem, coords, valid)
            tokens, totals = decode.walk(pointer, memory, rules, rows, draw)
            parts = [rules.allowed(rows, tokens[:, :t]) for t in range(tokens.shape[1])]
            allowed = torch.stack(parts, dim=1) if valid else None  # type: ignore[arg-type]
            log_p = pointer.follow(pointer.encode(coords.float()), tokens, allowed)
            forced = networks.chosen(log_p, tokens).sum(dim=1).double()
            torch.testing.assert_close(forced, totals, rtol=1e-4, atol=1e-4)
            if env == "tsp" and valid:
                assert torch.equal(networks.tour_masks(tokens, 1), allowed)


@pytest.mark.parametrize("env", PROBLEMS)
@given(seed=st.integers(0, 2**31), n=st.integers(4, 9), direct=st.booleans())
@settings(max_examples=12, deadline=None)
def test_rules_allow_what_the_environment_allows(env: str, seed: int, n: int, direct: bool) -> None:
    problem = make_problem(env, num_nodes=n, **({"formulation": "direct"} if direct and env == "tsp" else {}))
    instance = {"coords": generate(problem, 1, seed)["coords"][0]}
    instance |= problem.derive(instance)
    rules = problem.pointers()(problem, torch.from_numpy(instance["coords"])[None], True)
    ends = rules.ends
    assert ends == int(env != "tsp")
    random, row = np.random.default_rng(seed), torch.zeros(1, dtype=torch.int64)
    state, walk = problem.initial(instance), list(problem.opening())
    if walk:
        opening = rules.allowed(row, torch.empty(1, 0, dtype=torch.int64))
        assert opening is not None and torch.nonzero(opening[0]).tolist() == [[walk[0] + ends]]
    while (mask := problem.feasible(instance, state)).any():
        tokens = torch.tensor([walk], dtype=torch.int64).reshape(1, -1) + ends
        assert not walk or not rules.ended(row, tokens).item()
        found = rules.allowed(row, tokens)
        assert found is not None and not found[0, :ends].any()
        np.testing.assert_array_equal(found[0, ends:].numpy(), mask.astype(bool))
        state, _, grown = problem.step(instance, state, int(random.choice(np.flatnonzero(mask))))
        walk += grown
    assert rules.ended(row, torch.tensor([walk]) + ends).item()


# ---- decoding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_predicting_step_by_step_gives_the_greedy_solution(name: str) -> None:
    env, settings_ = LEARNERS[name]
    agent = sharpened(env, **settings_)
    for n in (5, 8):  # also sizes it was not made for
        problem = make_problem(env, num_nodes=n)
        instances = generate(problem, 6, 3)
        sequence = {"observe_sequence": True} if env == "tsp" else {}
        worlds = [gym.make(IDS[env], num_nodes=n, **sequence).unwrapped for _ in range(6)]
        rows = [w.reset(options={"instance": row(instances, k)})[0] for k, w in enumerate(worlds)]
        over, returns = np.zeros(6, bool), np.zeros(6)
        while not over.all():
            observations = {key: np.stack([observation[key] for observation in rows]) for key in rows[0]}
            actions, _ = agent.predict(observations, deterministic=True)
            assert (actions[over] == 0).all()  # nothing is allowed there
            one, _ = agent.predict(rows[-1], deterministic=True)
            assert one == actions[-1] and np.shape(one) == ()
            sampled, _ = agent.predict(observations)
            assert observations["action_mask"][np.arange(6), sampled][~over].all()
            for k in np.flatnonzero(~over):
                rows[k], reward, over[k], _, _ = worlds[k].step(actions[k])
                returns[k] += float(reward)
        found = agent.solve(instances)
        np.testing.assert_array_equal(found.solutions, np.stack([observation["sequence"] for observation in rows]))
        sign = 1.0 if problem.maximise else -1.0
        np.testing.assert_allclose(found.objectives, sign * returns, atol=1e-9)
        assert found.invalid == 0.0


@pytest.mark.parametrize("name", LEARNERS)
def test_one_beam_is_greedy_and_more_are_more_probable(name: str) -> None:
    env, settings_ = LEARNERS[name]
    agent = sharpened(env, 8, **settings_)
    network, problem = agent.policy.network, agent.problem
    coords = generate(problem, 24, 11)["coords"]
    for valid in (True, False):
        rules = problem.pointers()(problem, torch.from_numpy(coords), valid)
        memory, rows = network.encode(torch.from_numpy(coords).float()), torch.arange(24)
        greedy, totals = decode.walk(network, memory, rules, rows, decode.greedy)
        one, one_totals = decode.beam_search(network, memory, rules, rows, 1)
        assert torch.equal(greedy, one)
        torch.testing.assert_close(totals, one_totals)
        found, wide = agent.solve(coords, valid=valid), agent.solve(coords, beam=6, valid=valid)
        np.testing.assert_allclose(found.log_probabilities, totals.numpy(), rtol=1e-5)
        more = wide.log_probabilities - found.log_probabilities
        assert (more > -1e-6).mean() >= 0.7 and more.mean() >= 0
        assert not valid or more.mean() > 1e-4
        # what is reported is the log-probability of what is returned
        tokens, totals = decode.beam_search(network, memory, rules, rows, 6)
        parts = [rules.allowed(rows, tokens[:, :t].clamp_min(0)) for t in range(tokens.shape[1])]
        allowed = torch.stack(parts, dim=1) if valid else None  # type: ignore[arg-type]
        log_p = network.follow(network.encode(torch.from_numpy(coords).float()), tokens, allowed)
        again = networks.chosen(log_p, tokens).sum(dim=1).double()
        torch.testing.assert_close(again, totals, rtol=1e-4, atol=1e-4)


def test_a_beam_of_everything_finds_the_most_probable_tour() -> None:
    from itertools import permutations

    agent = sharpened("tsp", 5)
    network = agent.policy.network
    coords = generate(agent.problem, 4, 2)["coords"]
    tours = torch.tensor([(0, *rest) for rest in permutations(range(1, 5))])  # [24, 5]
    wide = agent.solve(coords, beam=24)
    for points, solution, total in zip(coords, wide.solutions, wide.log_probabilities, strict=True):
        each = torch.from_numpy(points).float().expand(24, 5, 2)
        log_p = networks.chosen(network.follow(network.encode(each), tours), tours).sum(dim=1)
        assert solution.tolist() == tours[int(log_p.argmax())].tolist()
        assert total == pytest.approx(log_p.max().item(), abs=1e-4)


def test_constrained_tours_are_tours_and_unconstrained_ones_say_how_many_are_none() -> None:
    agent = sharpened("tsp", 8)
    coords = generate(agent.problem, 64, 0)["coords"]
    arguments: tuple[dict[str, Any], ...] = ({}, {"beam": 4}, {"samples": 4, "temperature": 2.0})
    for settings_ in arguments:
        found = agent.solve(coords, **settings_)
        assert (np.sort(found.solutions, axis=1) == np.arange(8)).all() and found.invalid == 0.0
        np.testing.assert_allclose(found.objectives, tour_length(coords, found.solutions), atol=1e-12)
    free = agent.solve(coords, valid=False)
    whole = (np.sort(free.solutions, axis=1) == np.arange(8)).all(axis=1)
    assert free.invalid == pytest.approx(1.0 - whole.mean()) and free.invalid > 0
    assert np.isnan(free.objectives[~whole]).all() and not np.isnan(free.objectives[whole]).any()


@pytest.mark.parametrize("env", PROBLEMS)
def test_samples_repeat_with_their_seed_and_more_are_better(env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(env, 6)
    coords = generate(agent.problem, 16, 4)["coords"]
    few, same, other = (agent.solve(coords, samples=2, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(few.solutions, same.solutions)
    assert not np.array_equal(few.solutions, other.solutions)
    monkeypatch.setattr(decode, "ROWS", 16 * 7 * 2 * 16 * 3)  # a few samples at a time
    many = agent.solve(coords, samples=24)
    if env == "delaunay":
        assert many.log_probabilities.mean() > few.log_probabilities.mean()
    else:
        sign = 1.0 if agent.problem.maximise else -1.0
        assert (sign * many.objectives).mean() > (sign * few.objectives).mean()


def test_tours_are_improved_where_that_is_asked() -> None:
    agent, coords = sharpened("tsp", 12), np.random.default_rng(5).random((6, 12, 2))
    plain, found = agent.solve(coords), agent.solve(coords, improve=True)
    assert (found.objectives <= plain.objectives + 1e-12).all() and found.objectives.mean() < plain.objectives.mean()
    np.testing.assert_allclose(
        found.objectives, agent.problem.resized(12).objectives({"coords": coords}, found.solutions)
    )
    with pytest.raises(UserError, match="improve=True is for solutions under the problem's rules, expected valid=True"):
        agent.solve(coords, improve=True, valid=False)
    with pytest.raises(UserError, match="convex-hull has no moves to improve a solution by"):
        make("convex-hull", 6).solve(coords[:, :6], improve=True)


def test_judging_without_rules() -> None:
    square = np.array([[0.0, 0.0], [1.0, 0.1], [1.1, 1.0], [0.1, 1.2], [0.5, 0.6]])
    coords = np.stack([square] * 4)
    hulls = np.array([[0, 1, 2, 3, 0, -1], [2, 3, 0, 1, -1, -1], [0, 2, 1, 3, 0, -1], [0, 1, -1, -1, -1, -1]])
    objectives, sound = decode.judge(make_problem("convex-hull", num_nodes=5), coords, hulls)
    assert sound.tolist() == [True, True, False, False]
    np.testing.assert_allclose(objectives[:2], 1.0)
    assert np.isnan(objectives[2:]).all()
    problem = make_problem("delaunay", num_nodes=5)
    true = delaunay_target(square).reshape(-1)  # four triangles around the middle
    rows = [true, true[::-1], true[:-1], np.r_[true[:-3], 0, 0, 1]]
    objectives, sound = decode.judge(problem, coords, np.stack([problem.padded(row) for row in rows]))
    np.testing.assert_allclose(objectives, [1.0, 1.0, 0.75, 0.75])
    assert sound.tolist() == [True, True, False, False]


def test_active_search_beats_what_it_starts_from() -> None:
    agent = make("tsp", 7, training="reinforce", learning_rate=0.1)  # a hundredth of it is used
    before = copy.deepcopy(agent.model_tensors())
    coords = generate(agent.problem, 1, 9)["coords"]
    found = agent.active_search(coords[0], steps=14, batch_size=32)
    assert found.objectives[0] < agent.solve(coords).objectives[0] and found.solutions[0, 0] == 0
    best = tour_length(coords, held_karp(distances(coords[0]))[None])[0]
    assert best - 1e-9 <= found.objectives[0] <= 1.05 * best
    assert_same(before, agent.model_tensors())
    again = agent.active_search(coords[0], steps=14, batch_size=32)
    np.testing.assert_array_equal(found.solutions, again.solutions)
    with pytest.raises(UserError, match="active search is for tours, got convex-hull"):
        make("convex-hull").active_search(coords[0])


# ---- what is learnt from -----------------------------------------------------------------------------------------


def test_targets_are_in_the_specified_order() -> None:
    random = np.random.Generator(np.random.PCG64(0))
    for env, target in (("convex-hull", hull_target), ("delaunay", delaunay_target)):
        agent = make(env, sizes=(5, 8))
        assert agent.answers is not None
        coords, solutions = agent.answers.draw(7, 5, random)
        tokens = data.as_tokens(solutions, 1).numpy()
        for points, target_row in zip(coords, tokens, strict=True):
            answer = target(points).reshape(-1)
            assert target_row[: len(answer)].tolist() == (answer + 1).tolist()
            assert target_row[len(answer)] == 0 and (target_row[len(answer) + 1 :] == -1).all()
        assert (tokens == 0).sum() == 5 and (tokens[:, -1] >= 0).any()  # one end each, no idle column


def test_tours_are_optimal_from_city_0_and_counter_clockwise(tmp_path: Path) -> None:
    path = make_labels("tsp", num_nodes=7, size=20, seed=1, solver="own", path=tmp_path / "l.safetensors")
    random = np.random.Generator(np.random.PCG64(0))
    for settings_ in ({}, {"augment": False}, {"labels": str(path)}):
        agent = make("tsp", 7, **settings_)
        assert agent.answers is not None
        coords, tours = agent.answers.draw(7, 24, random)
        assert (coords >= 0).all() and (coords <= 1).all() and (tours[:, 0] == 0).all()
        best = np.stack([held_karp(distances(points)) for points in coords])
        np.testing.assert_allclose(tour_length(coords, tours), tour_length(coords, best), atol=1e-12)
        corners = np.take_along_axis(coords, tours[..., None], axis=1)
        x, y = corners[..., 0], corners[..., 1]
        assert ((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(axis=1) > 0).all()
        known = agent.answers.solved[7][0]
        fresh = [points for points in coords if not (known == points).all(axis=(1, 2)).any()]
        assert bool(fresh) == (settings_ != {"augment": False})
    digests = make("tsp", 7, labels=str(path)).source()["problem"]["labels"]
    assert list(digests) == ["7"] and len(digests["7"]) == 64


def test_the_loss_is_that_of_each_pointer_in_turn() -> None:
    agent = sharpened("convex-hull", 6)
    network = agent.policy.network
    coords, tokens = agent.draw()
    assert tokens is not None
    points = coords.float()
    loss, accuracy = networks.negative_log_likelihood(network, points, tokens)
    terms, hits = [], []
    for points_, answer in zip(points, tokens, strict=True):
        memory = network.encode(points_[None])
        inputs, state = network.begin(memory), (memory.h, memory.c)
        for token in answer[answer >= 0]:
            query, state = network.read(inputs, state)
            log_p = network.log_probabilities(memory, query)[0, 0]
            terms.append(-log_p[token])
            hits.append(float(log_p.argmax() == token))
            inputs = network.inputs(memory, token[None, None])
    torch.testing.assert_close(loss, torch.stack(terms).mean(), rtol=1e-4, atol=1e-5)
    assert float(accuracy) == pytest.approx(np.mean(hits), abs=1e-6)


def test_the_policy_gradient_is_that_of_the_expected_length() -> None:
    """Over all tours, weighted by their probabilities, the surrogate's gradient is the gradient of E[L]."""
    from itertools import permutations

    agent = sharpened("tsp", 5, training="reinforce")
    network = agent.policy.network.double()
    points = torch.from_numpy(generate(agent.problem, 1, 2)["coords"])
    tours = torch.tensor([(0, *rest) for rest in permutations(range(1, 5))])
    each = points.expand(24, 5, 2)
    lengths = agent.problem.pointers()(agent.problem, each, True).measured(tours)
    masks = networks.tour_masks(tours, 1)
    parameters = list(network.parameters())
    probabilities = networks.chosen(network.follow(network.encode(each), tours, masks), tours).sum(dim=1).exp()
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-9)
    exact = torch.autograd.grad((probabilities * lengths).sum(), parameters)
    advantages = 24 * probabilities.detach() * (lengths - 1.7)  # any baseline will do
    surrogate = torch.autograd.grad(
        networks.reinforce_loss(network, network.encode(each), tours, advantages, 1), parameters
    )
    for mine, theirs in zip(surrogate, exact, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def test_a_better_policy_replaces_the_rival_and_a_worse_one_does_not() -> None:
    agent = reinforced("rollout", challenge_size=64)
    start = copy.deepcopy(agent.rival.state_dict())
    agent.policy.network.load_state_dict(start)
    agent.challenge()  # itself: no better
    assert agent.rivals == 0 and agent.defended is not None
    trained = reinforced("ema").learn(45).policy.network.state_dict()
    agent.policy.network.load_state_dict(trained)
    agent.challenge()
    assert agent.rivals == 1 and agent.defended is None
    assert_same(agent.rival.state_dict(), trained)
    agent.policy.network.load_state_dict(start)
    agent.challenge()
    assert agent.rivals == 1 and agent.defended is not None
    assert_same(agent.rival.state_dict(), trained)


# ---- state -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_resumes_exactly_and_loads_without_an_environment(name: str, tmp_path: Path) -> None:
    env, settings_ = LEARNERS[name]
    before = torch.get_rng_state()
    whole = make(env, **settings_).learn(6, log_interval=4)
    part = make(env, **settings_).learn(3, log_interval=4)
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh = make(env, **settings_)
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(3, log_interval=4, reset_num_timesteps=False)
    assert torch.equal(before, torch.get_rng_state())  # the global generator has no part in it
    assert_same(tensors(whole), tensors(fresh))
    assert json.dumps(whole.state_values()) == json.dumps(fresh.state_values())
    other = make(env, **settings_, seed=1).learn(6)
    assert not torch.equal(whole.policy.network.start, other.policy.network.start)

    whole.save(tmp_path / "a.rlk")
    loaded = PtrNet.load(tmp_path / "a.rlk")
    coords = generate(whole.problem, 8, 0)["coords"]
    for arguments in ({}, {"beam": 3}, {"valid": False}):
        mine, theirs = whole.solve(coords, **arguments), loaded.solve(coords, **arguments)
        np.testing.assert_array_equal(mine.solutions, theirs.solutions)
        np.testing.assert_array_equal(mine.log_probabilities, theirs.log_probabilities)
    assert whole.world is not None
    observation, _ = whole.world.reset(seed=0)
    assert whole.predict(observation, deterministic=True) == loaded.predict(observation, deterministic=True)
    assert whole.source()["env"] == loaded.source()["env"]
    assert whole.evaluator(8, 0)(whole).summary() == loaded.evaluator(8, 0)(loaded).summary()
    with pytest.raises(UserError, match="was loaded without an environment"):
        loaded.learn(1)
    onward = PtrNet.load(tmp_path / "a.rlk", whole.world)
    onward.learn(1)
    with pytest.raises(ArtefactError, match="was made for"):
        make(env, 7, **settings_).restore(tmp_path / "c.rlk")


def test_evaluations_report_every_metric_and_do_not_disturb_training(tmp_path: Path) -> None:
    expected = {
        "tsp": {"tour_length", "reference_length", "gap", "nearest_neighbour_gap", "random_insertion_gap", "invalid"},
        "convex-hull": {"accuracy", "crossed"},
        "delaunay": {"accuracy", "triangle_coverage", "invalid"},
    }
    for env in PROBLEMS:
        agent, plain = make(env), make(env).learn(4)
        callback = Evaluate(agent.evaluator(12, 0), 2)
        agent.set_logger(configure(str(tmp_path / env), ["json"]))
        agent.learn(4, callback)
        agent.logger.close()
        assert_same(tensors(plain), tensors(agent))
        larger = replace(record(env), env_kwargs={"num_nodes": 9})  # as rlkit eval RUN env=NAME num_nodes=9 asks for
        assert agent.evaluator(4, 0, larger)(agent).summary()["length"] >= 3
        assert [entry["step"] for entry in callback.history] == [2, 4]
        for entry in callback.history:
            assert expected[env] <= set(entry) and len(entry["returns"]) == 12
            assert all(np.isfinite(value) for key, value in entry.items() if key != "returns")
        assert "eval/return" in (tmp_path / env / "progress.json").read_text()


def test_true_answers_score_full_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    for env in PROBLEMS:
        agent = make(env, 6)

        def answer(network: Any, problem: Any, coords: np.ndarray, **_: Any) -> Solutions:
            if problem.name == "tsp":
                solutions = np.stack([held_karp(distances(points)) for points in coords])
            else:
                solutions = np.stack([problem.target({"coords": points}) for points in coords])
            objectives = problem.objectives({"coords": coords}, solutions)
            sizes, sound = np.full(len(coords), problem.num_nodes), np.ones(len(coords), np.bool_)
            return Solutions(solutions, objectives, np.zeros(len(coords)), sizes, sound)

        monkeypatch.setattr(data, "solve", answer)
        found = agent.evaluator(16, 0)(agent).summary()
        if env == "tsp":
            assert found["gap"] == pytest.approx(0.0, abs=1e-9) and found["nearest_neighbour_gap"] > 0
            assert found["return"] == pytest.approx(-found["tour_length"]) and found["length"] == 5
        else:
            assert found["accuracy"] == 1.0 and found["return"] == pytest.approx(1.0)
            assert found["area_coverage" if env == "convex-hull" else "triangle_coverage"] == pytest.approx(1.0)


def test_sb3s_objects_run(tmp_path: Path) -> None:
    for env in PROBLEMS:
        agent = make(env, tensorboard_log=str(tmp_path / "tb")).learn(
            4, CheckpointCallback(save_freq=2, save_path=str(tmp_path / env))
        )
        assert len(list((tmp_path / env).iterdir())) == 2
        mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=4)
        assert np.isfinite(mean)


# ---- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", PROBLEMS)
def test_supervised_learning_finds_pointers(env: str) -> None:
    agent = make(env, 5, hidden_size=32, batch_size=32, learning_rate=1e-2, train_size=128)
    before = agent.update(agent.draw())
    agent.learn(80)
    after = agent.update(agent.draw())
    assert after["nll"].item() < (0.95 if env == "delaunay" else 0.8) * before["nll"].item()
    assert after["pointer_accuracy"].item() > before["pointer_accuracy"].item() + 0.05


@pytest.mark.slow
def test_the_attention_model_learns_tours() -> None:
    agent = make("tsp", 7, network="attention", batch_size=64, learning_rate=3e-3, train_size=256)
    before = agent.evaluator(64, 0)(agent).summary()["gap"]
    agent.learn(150)
    after = agent.evaluator(64, 0)(agent).summary()["gap"]
    assert after < 0.5 * before and after < 10.0


@pytest.mark.parametrize("baseline", ["critic", "ema", "rollout", "samples"])
def test_reinforce_improves_on_its_start(baseline: str) -> None:
    agent = reinforced(baseline, challenge_size=128)
    evaluator = agent.evaluator(256, 0)
    before = evaluator(agent).summary()["tour_length"]
    agent.learn(45)
    after = evaluator(agent).summary()["tour_length"]
    assert after < 0.94 * before
    if baseline == "rollout":
        assert agent.rivals >= 1


def test_each_tour_is_measured_by_the_others_of_its_instance() -> None:
    lengths = torch.tensor([3.0, 5.0, 10.0, 1.0, 2.0, 6.0], dtype=torch.float64)
    found = networks.others_mean(lengths, 3)
    assert found.tolist() == [7.5, 6.5, 4.0, 4.0, 3.5, 1.5]
    agent = make("tsp", 7, training="reinforce", baseline="samples", samples=4)
    drawn = agent.draw()
    assert drawn.points.shape == (2, 7, 2) and drawn.tokens is None  # of 8 tours
    metrics = agent.update(drawn)
    assert metrics["baseline"].item() == pytest.approx(metrics["tour_length"].item(), abs=1e-12)  # over all of them


def test_a_curriculum_ends_at_the_most_nodes() -> None:
    agent = make("tsp", training="reinforce", sizes=(5, 9), curriculum=80)
    drawn: dict[int, set[int]] = {}
    for update in (0, 40, 79, 80, 500):
        agent._n_updates = update
        drawn[update] = {agent.draw()[0].shape[1] for _ in range(60)}
    assert drawn == {0: {5, 6, 7, 8, 9}, 40: {7, 8, 9}, 79: {8, 9}, 80: {9}, 500: {9}}


def test_what_a_city_has_to_do_with_the_next_is_in_the_first_weights_of_reinforce() -> None:
    """From the papers' range tanh is a straight line, and what is left of u_ij is the same for every i."""

    def share(**settings: Any) -> float:
        network = make("tsp", training="reinforce", hidden_size=128, **settings).policy.network
        with torch.no_grad():
            memory = network.encode(torch.rand(64, 6, 2, generator=torch.Generator().manual_seed(0)))
            queries, _ = network.read(memory.points, (memory.h, memory.c))  # as if each city were the last
            scores = network.scores(memory, queries, None)  # u, [64, 6, 6]
        scores = scores - scores.mean(dim=2, keepdim=True)  # what a softmax sees
        own = scores - scores.mean(dim=1, keepdim=True)  # what depends on i
        return (own.square().mean() / scores.square().mean()).item()

    assert share(init_range=networks.INIT) < 1e-4 < 1e-3 < share()


# ---- instances of any unit -------------------------------------------------------------------------------------------


def moved(coords: np.ndarray) -> list[np.ndarray]:
    """The same instances in other units and places, each of them outside the unit square or in a corner of it."""
    return [coords * 1000, coords * 1000 - 300, coords * 0.02 + 0.5, coords - 7, coords * 3e5 + 4e6, coords * 1e-6]


@pytest.mark.parametrize("env,settings", [*((env, {}) for env in PROBLEMS), ("tsp", {"network": "attention"})])
def test_neither_unit_nor_origin_changes_an_answer(env: str, settings: dict[str, Any]) -> None:
    agent = sharpened(env, 7, order="given" if settings else "angle", **settings)
    coords = np.random.default_rng(3).random((12, 7, 2))
    low, high = coords.min(axis=1, keepdims=True), coords.max(axis=1, keepdims=True)
    coords = (coords - low) / (high - low).max(axis=2, keepdims=True)  # whose box is the unit square already
    ways: tuple[dict[str, Any], ...] = ({}, {"beam": 3}, {"valid": False}, {"samples": 4, "seed": 1})
    for options in ways:
        found = agent.solve(coords, **options)
        for other in moved(coords):
            again = agent.solve(other, **options)
            np.testing.assert_array_equal(again.solutions, found.solutions)
            np.testing.assert_allclose(again.log_probabilities, found.log_probabilities, atol=1e-3)
    world = agent.make_world(replace(record(env), env_kwargs={"num_nodes": 7}))[0]
    for k, points in enumerate(agent.solve(coords).solutions):
        for other in moved(coords)[:4]:  # float32, which observations are, has no digits left for the last two
            observation, info = world.reset(options={"instance": {"coords": other[k]}})
            while info["action_mask"].any():
                action, _ = agent.predict(observation, deterministic=True)
                observation, _, _, _, info = world.step(action)
            np.testing.assert_array_equal(info["solution"], points)


def test_instances_as_in_training_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    coords = np.random.default_rng(4).random((500, 6, 2))
    for kind in (torch.float64, torch.float32):
        points = torch.from_numpy(coords).to(kind)
        assert torch.equal(networks.unit_square(points), points)
    apart = networks.unit_square(torch.from_numpy(coords * 50 - 9))
    assert apart.amin(dim=1).abs().max() == 0.0 and (apart.amax(dim=1).amax(dim=1) == 1.0).all()
    sides = np.ptp(coords, axis=1)
    np.testing.assert_allclose(np.ptp(apart.numpy(), axis=1), sides / sides.max(axis=1, keepdims=True))
    assert networks.unit_square(torch.full((1, 4, 2), 7.0)).tolist() == [[[0.0, 0.0]] * 4]  # one place
    agent = sharpened("tsp", 6)
    found = agent.solve(coords)
    monkeypatch.setattr(decode, "unit_square", lambda points: points)
    again = agent.solve(coords)
    np.testing.assert_array_equal(again.solutions, found.solutions)
    np.testing.assert_array_equal(again.log_probabilities, found.log_probabilities)


def test_active_search_takes_any_unit() -> None:
    agent = make("tsp", 7, training="reinforce")
    coords = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.3, 0.6], [0.8, 0.4], [0.5, 0.1]])
    found, again = (agent.active_search(points, steps=5, batch_size=8) for points in (coords, coords * 1000 - 70))
    np.testing.assert_array_equal(again.solutions, found.solutions)
    assert again.objectives[0] == pytest.approx(1000 * found.objectives[0])


def test_tours_through_coincident_points() -> None:
    coords = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    for points in (coords, coords * 9, np.zeros((5, 2))):
        found = make("tsp", 5).solve(points[None], beam=2)
        assert sorted(found.solutions[0]) == [0, 1, 2, 3, 4] and found.invalid == 0.0
    for env in ("convex-hull", "delaunay"):  # which of the two would be the answer?
        with pytest.raises(UserError, match="instance 0: 'coords' 0 and 1 are both"):
            make(env, 5).solve(coords[None])


# ---- bad input ---------------------------------------------------------------------------------------------------


def test_bad_input_gets_a_sentence(tmp_path: Path) -> None:
    labels = make_labels("tsp", num_nodes=5, size=4, seed=0, solver="own", path=tmp_path / "five.safetensors")
    hulls = make_labels("convex-hull", num_nodes=6, size=4, seed=0, path=tmp_path / "hull.safetensors")
    for env, arguments, expected in (
        ("tsp", {"baseline": "mean"}, "agent.baseline=mean is unknown, expected one of critic, ema, rollout, samples"),
        ("tsp", {"baseline": "samples", "samples": 1}, "agent.samples=1 is out of range, expected at least 2"),
        ("tsp", {"baseline": "samples", "samples": 3}, "a divisor of batch_size=8"),
        ("tsp", {"training": "imitation"}, "agent.training=imitation is unknown"),
        ("tsp", {"optimiser": "lion"}, "agent.optimiser=lion is unknown"),
        ("tsp", {"network": "gru"}, "agent.network=gru is unknown, expected one of lstm, attention"),
        ("tsp", {"order": "size"}, "agent.order=size is unknown, expected one of given, angle, lexicographic"),
        ("tsp", {"network": "attention", "order": "angle"}, "agent.order=angle is for LSTMs"),
        ("tsp", {"network": "attention", "heads": 3}, "agent.heads=3 is out of range, expected a divisor of"),
        ("convex-hull", {"network": "attention"}, "agent.network=attention is for tsp, expected lstm"),
        ("convex-hull", {"training": "reinforce"}, "agent.training=reinforce is for tours, got convex-hull"),
        ("tsp", {"sizes": (9, 5)}, r"agent.sizes=\(9, 5\) is out of range, expected fewest and most nodes"),
        ("tsp", {"sizes": (2, 5)}, "agent.sizes"),
        ("tsp", {"sizes": (5,)}, "agent.sizes"),
        ("tsp", {"sizes": (5, 13)}, "agent.labels has no tours of 13 cities"),
        ("tsp", {"labels": str(labels)}, "holds tsp with 5 nodes, expected tsp, one file for each size from 6 to 6"),
        ("tsp", {"labels": str(hulls)}, "holds convex-hull with 6 nodes"),
        ("convex-hull", {"labels": str(hulls)}, "is for tours, the answers of convex-hull are computed"),
        ("tsp", {"labels": str(tmp_path / "none")}, "no such file, expected a labelled set"),
        ("tsp", {"curriculum": -1}, "curriculum=-1 is out of range"),
        ("tsp", {"batch_size": 0}, "batch_size=0 is out of range"),
        ("tsp", {"challenge_size": 1}, "challenge_size=1 is out of range"),
        ("tsp", {"hiden_size": 3}, "did you mean 'hidden_size'"),
        ("knapsack", {}, "expected an environment of tsp, convex-hull, delaunay, got knapsack"),
    ):
        with pytest.raises(UserError, match=expected):
            make(env, **arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="expected one or its name, got none"):
        PtrNet("MultiInputPolicy")
    with pytest.raises(UserError, match="expected an environment of tsp"):
        PtrNet(env=gym.make("CartPole-v1"))
    with pytest.raises(UserError, match="observe_sequence=True"):
        PtrNet(env=gym.make("rlkit/TSP-v0", num_nodes=6), **TINY)
    agent = make("tsp", 6)
    for coords, arguments, expected in (
        ([[[0.0, 1.0], [2.0]]], {}, "'coords' is not an array of numbers, its rows differ in length"),
        ({"points": np.zeros((1, 6, 2))}, {}, "expected a mapping of arrays with 'coords' for tsp"),
        (np.zeros(6), {}, r"'coords' has shape \(6,\), expected 2 axes for one instance of tsp, 3 for several"),
        (np.zeros((0, 6, 2)), {}, "expected instances of tsp to solve, got none"),
        ("eil51.tsp", {}, "expected a mapping of arrays with 'coords' for tsp, got 'eil51.tsp'"),
        (np.full((1, 6, 2), np.nan), {}, "expected finite numbers"),
        (np.zeros((1, 2, 2)), {}, "num_nodes=2 is out of range"),
        (np.zeros((1, 6, 2)), {"beam": 0}, "beam=0 is out of range"),
        (np.zeros((1, 6, 2)), {"samples": 0}, "samples=0 is out of range"),
        (np.zeros((1, 6, 2)), {"temperature": 0.0}, "temperature=0.0 is out of range"),
    ):
        with pytest.raises(UserError, match=expected):
            agent.solve(coords, **arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'sequence' is missing"):
        agent.predict({"coords": np.zeros((6, 2)), "action_mask": np.ones(6)})
    line = np.stack([np.arange(6.0), np.arange(6.0)], axis=1)[None]
    with pytest.raises(UserError, match="lie on one line"):
        make("convex-hull").solve(line)
    with pytest.raises(UserError, match="points at answers of convex-hull, got env=tsp"):
        make("convex-hull").evaluator(4, 0, record("tsp"))
    with pytest.raises(UserError, match="did you mean"):
        make("delaunay").save(tmp_path / "d.rlk")
        PtrNet("MultiInputPolicy", "convex-hul")
    with pytest.raises(ArtefactError, match="was made for delaunay, got an environment of convex-hull"):
        PtrNet.load(tmp_path / "d.rlk", "convex-hull")
