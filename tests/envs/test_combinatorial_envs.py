"""Combinatorial environments: kernels against plain Python, rewards, masks, seeds, saving, pictures, bad input."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit.algorithms.vecenv import StatefulVecEnv
from rlkit.envs.combinatorial.base import generate, make_problem, row, stack
from rlkit.envs.records.combinatorial import RECORDS
from rlkit.errors import UserError

IDS = {
    "tsp": "TSP",
    "atsp": "ATSP",
    "cvrp": "CVRP",
    "op": "OP",
    "knapsack": "Knapsack",
    "convex-hull": "ConvexHull",
    "delaunay": "Delaunay",
}
SMALL: dict[str, dict[str, Any]] = {
    "tsp": {"num_nodes": 6},
    "atsp": {"num_nodes": 5},
    "cvrp": {"num_nodes": 6, "capacity": 12},
    "op": {"num_nodes": 7, "budget": 1.9},
    "knapsack": {"num_nodes": 8, "capacity": 1.5},
    "convex-hull": {"num_nodes": 8},
    "delaunay": {"num_nodes": 5},
}
FORMS = [(name, {}) for name in SMALL] + [(name, {"formulation": "direct"}) for name in ("tsp", "atsp", "cvrp", "op")]


def batch(name: str, count: int, **kwargs: Any) -> Any:
    return gym.make_vec(f"rlkit/{IDS[name]}-v0", count, vectorization_mode="vector_entry_point", **kwargs)


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    if isinstance(ours, dict):
        assert set(ours) == set(theirs), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, np.ndarray) and ours.dtype == object:
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(mine, other, f"{where}/{i}")
    elif ours is not None or theirs is not None:
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype, where


def rollout(env: Any, seed: int = 0, instance: Any = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Random feasible actions until all rows have ended: returns ``[B]`` and the last infos of every row."""
    env.reset(seed=seed, options={} if instance is None else {"instance": instance})
    env.action_space.seed(seed)
    returns, ended = np.zeros(env.num_envs), np.zeros(env.num_envs, bool)
    last: dict[str, np.ndarray] = {}
    while not ended.all():
        _, rewards, terminations, _, infos = env.step(env.action_space.sample())
        assert not rewards[ended].any()
        returns += rewards
        for key in ("solution", "objective", "optimal"):
            if key in infos:
                rows = infos[f"_{key}"]
                last.setdefault(key, np.zeros_like(infos[key]))[rows] = infos[key][rows]
        ended = terminations
    return returns, last


# ---- kernels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name,form", FORMS)
@given(
    seed=st.integers(0, 2**31),
    mode=st.sampled_from([AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]),
    sequence=st.booleans(),
)
@settings(max_examples=3, deadline=None)
def test_the_batch_equals_plain_python_in_every_bit(
    name: str, form: dict[str, Any], seed: int, mode: AutoresetMode, sequence: bool
) -> None:
    kwargs = {**SMALL[name], **form, "observe_sequence": sequence}
    ours = batch(name, 3, autoreset_mode=mode, **kwargs)
    single = f"rlkit/{IDS[name]}-v0"
    theirs = SyncVectorEnv([lambda: gym.make(single, disable_env_checker=True, **kwargs)] * 3, autoreset_mode=mode)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    ours.action_space.seed(seed)
    for mine, other in zip(ours.reset(seed=seed), theirs.reset(seed=seed), strict=True):
        assert_same(mine, other, "reset")
    for step in range(24):
        actions = ours.action_space.sample()
        for mine, other in zip(ours.step(actions), theirs.step(actions), strict=True):
            assert_same(mine, other, f"step {step}")
    theirs.close()


@pytest.mark.parametrize("name", SMALL)
def test_disabled_autoreset_leaves_finished_rows_alone(name: str) -> None:
    env = batch(name, 5, autoreset_mode=AutoresetMode.DISABLED, **SMALL[name])
    rollout(env, 1)
    before = env._observe()
    observations, rewards, terminations, _, infos = env.step(np.zeros(5, np.int64))
    assert terminations.all() and not rewards.any() and "solution" not in infos
    assert_same(before, observations, "still")
    mask = np.array([False, True, False, False, True])
    observations, _ = env.reset(options={"reset_mask": mask})
    assert (observations["action_mask"].any(axis=1) == mask).all()
    _, rewards, terminations, _, _ = env.step(env.action_space.sample())
    assert (terminations[~mask]).all() and not rewards[~mask].any()


@pytest.mark.parametrize("name,form", FORMS)
def test_ten_thousand_random_solutions_are_worth_their_rewards(name: str, form: dict[str, Any]) -> None:
    count = 10_000 if name not in ("convex-hull", "delaunay") else 300  # their plain objectives are slow
    env = batch(name, count, autoreset_mode="Disabled", **SMALL[name], **form)
    returns, last = rollout(env, 3)
    plain = env.problem.objectives(env.instances, last["solution"])
    sign = 1.0 if env.problem.maximise else -1.0
    assert np.abs(sign * returns - plain).max() < 1e-9
    assert np.abs(last["objective"] - plain).max() < 1e-9
    assert len({tuple(solution) for solution in last["solution"].tolist()}) > 20


@pytest.mark.parametrize("name", ["tsp", "atsp", "cvrp", "op"])
def test_both_formulations_value_a_solution_alike(name: str) -> None:
    bq = batch(name, 1000, autoreset_mode="Disabled", **SMALL[name])
    returns, last = rollout(bq, 5)
    direct = make_problem(name, **SMALL[name], formulation="direct")
    for k in range(0, 1000, 10):
        instance, total = row(bq.instances, k), 0.0
        state, solution = direct.initial(instance), list(direct.opening())
        for action in direct.actions(last["solution"][k]):
            if not direct.feasible(instance, state).any():  # the op's last way home, once everything is visited
                break
            assert direct.feasible(instance, state)[action]
            state, reward, grown = direct.step(instance, state, action)
            total += reward
            solution += grown
        assert abs(total - returns[k]) < 1e-9
        assert solution[: len(solution) - 1] == last["solution"][k][: len(solution) - 1].tolist()


@pytest.mark.parametrize("name", SMALL)
def test_solutions_replay_as_actions(name: str) -> None:
    env = batch(name, 40, autoreset_mode="Disabled", **SMALL[name])
    returns, last = rollout(env, 7)
    for k in range(40):
        instance = row(env.instances, k) | env.problem.derive(row(env.instances, k))
        state, total = env.problem.initial(instance), 0.0
        for action in env.problem.actions(last["solution"][k]):
            assert env.problem.feasible(instance, state)[action]
            state, reward, _ = env.problem.step(instance, state, action)
            total += reward
        assert not env.problem.feasible(instance, state).any() and abs(total - returns[k]) < 1e-12


# ---- Gymnasium -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_gymnasiums_and_sb3s_checks_pass_and_pictures_show_something(name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Box observation space (minimum|maximum).*")
        env = gym.make(f"rlkit/{IDS[name]}-v0", render_mode="rgb_array", **SMALL[name])
        check_env(env.unwrapped)
        check_env_for_sb3(env.unwrapped, warn=False)
    env.reset(seed=1)
    empty = env.render()
    ended = False
    while not ended:
        ended = env.step(env.action_space.sample())[2]
    full = env.render()
    assert full.shape == (400, 400, 3) and full.dtype == np.uint8 and (full != empty).any()
    env.close()


@pytest.mark.parametrize("name", SMALL)
def test_masks_are_everywhere_the_same(name: str) -> None:
    env = gym.make(f"rlkit/{IDS[name]}-v0", **SMALL[name]).unwrapped
    observation, info = env.reset(seed=2)
    ended = False
    while not ended:
        np.testing.assert_array_equal(observation["action_mask"], info["action_mask"])
        np.testing.assert_array_equal(env.action_masks(), info["action_mask"] == 1)
        forbidden = np.flatnonzero(info["action_mask"] == 0)
        forbidden = [a for a in forbidden if not info["action_mask"][env.problem.canonical(env.state, int(a))]]
        if forbidden:
            with pytest.raises(UserError, match="not feasible"):
                env.step(forbidden[-1])
        action = env.action_space.sample()
        assert info["action_mask"][action]
        observation, _, ended, _, info = env.step(action)
    assert not observation["action_mask"].any()
    with pytest.raises(ResetNeeded):
        env.step(0)


@pytest.mark.parametrize("name", SMALL)
def test_a_state_put_back_goes_on_as_it_would_have(name: str) -> None:
    def make() -> StatefulVecEnv:
        return StatefulVecEnv([lambda: gym.make(f"rlkit/{IDS[name]}-v0", **SMALL[name])] * 2)

    def act(env: StatefulVecEnv) -> np.ndarray:
        masks = [e.unwrapped.action_masks() for e in env.envs]
        return np.array([int(np.flatnonzero(mask)[len(np.flatnonzero(mask)) // 2]) for mask in masks])

    env, other = make(), make()
    env.seed(3)
    env.reset()
    for _ in range(4):
        env.step(act(env))
    saved = env.state()
    assert saved is not None
    other.reset()
    other.load_state(saved)
    for _ in range(40):
        for mine, theirs in zip(env.step(act(env))[:3], other.step(act(other))[:3], strict=True):
            assert_same(mine, theirs, "")


@pytest.mark.parametrize("name", SMALL)
def test_given_instances_come_back_with_their_optimum(name: str) -> None:
    problem = make_problem(name, **SMALL[name])
    instances = generate(problem, 4, 9)
    env = gym.make(f"rlkit/{IDS[name]}-v0", **SMALL[name])
    env.reset(options={"instance": row(instances, 2) | {"optimal": 1.25}})
    assert_same(
        env.unwrapped.get_state()[f"instance.{next(iter(instances))}"], row(instances, 2)[next(iter(instances))], ""
    )
    ended = False
    while not ended:
        _, _, ended, _, info = env.step(env.action_space.sample())
    assert info["optimal"] == 1.25
    many = batch(name, 4, autoreset_mode="Disabled", **SMALL[name])
    _, last = rollout(many, 0, instances | {"optimal": np.array([1.0, np.nan, 3.0, 4.0])})
    assert last["optimal"].tolist() == [1.0, 0.0, 3.0, 4.0]
    for key, array in instances.items():
        np.testing.assert_array_equal(many.instances[key], array)


def test_what_was_observed_stays_as_it_was() -> None:
    env = batch("knapsack", 6, **SMALL["knapsack"])
    seen = [env.reset(seed=0)[0]]
    copies = [{key: value.copy() for key, value in seen[0].items()}]
    for _ in range(25):
        seen.append(env.step(env.action_space.sample())[0])
        copies.append({key: value.copy() for key, value in seen[-1].items()})
    for before, now in zip(copies, seen, strict=True):
        assert_same(before, now, "")


def test_the_action_space_samples_every_feasible_action_and_no_other() -> None:
    env = batch("cvrp", 2000, **SMALL["cvrp"])
    env.reset(seed=0, options={"instance": {k: np.repeat(v, 2000, 0) for k, v in generate(env.problem, 1, 0).items()}})
    env.action_space.seed(0)
    counts = np.bincount(env.action_space.sample(), minlength=env.problem.num_actions)
    feasible = env.mask[0] == 1
    assert not counts[~feasible].any() and (np.abs(counts[feasible] / 2000 - 1 / feasible.sum()) < 0.05).all()
    assert env.action_space.sample(tuple(np.eye(14, dtype=np.int8)[3] for _ in range(2000))).tolist() == [3] * 2000


def test_records_can_be_made() -> None:
    assert set(RECORDS) == set(IDS)
    for record in RECORDS.values():
        env = gym.make_vec(record.env_id, 2, vectorization_mode="vector_entry_point", **record.env_kwargs)
        assert record.family == "combinatorial" and env.reset(seed=0)[0]["action_mask"].any()


# ---- what the rules say ----------------------------------------------------------------------------------------------


def test_a_tour_pays_every_leg_and_the_way_home() -> None:
    square = {"coords": [[0, 0], [0, 1], [1, 1], [1, 0]]}
    env = gym.make("rlkit/TSP-v0", num_nodes=4)
    env.reset(options={"instance": square})
    assert [env.step(j)[1] for j in (1, 2, 3)] == [-1.0, -1.0, -2.0]
    assert env.unwrapped.objective == 4.0 and env.unwrapped.sequence == [0, 1, 2, 3]


def test_the_vehicle_refills_before_it_serves() -> None:
    line = {"coords": [[0, 0], [1, 0], [2, 0], [4, 0]], "demand": [0, 2, 2, 1], "capacity": 3}
    env = gym.make("rlkit/CVRP-v0", num_nodes=3, capacity=9)
    env.reset(options={"instance": line})
    assert env.unwrapped.action_masks().tolist() == [0, 0, 1, 0, 1, 0, 1, 0]  # at the depot only the direct action
    observation, reward, *_ = env.step(2 * 1)
    assert reward == -1.0 and observation["budget"] == pytest.approx(1 / 3)
    assert env.unwrapped.action_masks().tolist() == [0, 0, 0, 0, 0, 1, 1, 1]  # customer 2 needs the depot
    observation, reward, *_ = env.step(2 * 2 + 1)
    assert reward == -3.0 and observation["budget"] == pytest.approx(1 / 3)
    _, reward, ended, _, info = env.step(2 * 3)
    assert ended and reward == -6.0 and info["objective"] == 10.0
    assert info["solution"].tolist() == [0, 1, 0, 2, 3, 0, -1]
    env.reset(options={"instance": line})
    assert env.step(2 * 3 + 1)[1] == -4.0  # by the depot, from the depot: the same as directly


def test_feasible_nodes_of_the_op_count_the_way_home() -> None:
    line = {"coords": [[0, 0], [1, 0], [0, 1.6], [-1, 0]], "prize": [0, 1, 5, 2], "budget": 4.0}
    env = gym.make("rlkit/OP-v0", num_nodes=3, budget=4.0)
    env.reset(options={"instance": line})
    assert env.unwrapped.action_masks().tolist() == [0, 1, 1, 1]
    env.step(1)
    assert env.unwrapped.action_masks().tolist() == [0, 0, 0, 1]  # 1.887 to node 2, 1.6 home: above the 3 that are left
    _, reward, ended, _, info = env.step(3)
    assert ended and reward == 2.0 and info["solution"].tolist() == [0, 1, 3, 0, -1] and info["objective"] == 3.0


def test_the_hull_is_worth_one_and_a_part_of_it_its_area() -> None:
    points = {"coords": [[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.4]]}
    env = gym.make("rlkit/ConvexHull-v0", num_nodes=5)
    env.reset(options={"instance": points})
    rewards = [env.step(j)[1] for j in (1, 2, 3, 0)]
    *_, ended, _, info = env.step(1)
    assert rewards == [0.0, 0.0, 0.5, 0.5] and ended and info["solution"].tolist() == [1, 2, 3, 0, 1, -1]
    env.reset(options={"instance": points})
    for j in (0, 1, 4):
        env.step(j)
    assert env.unwrapped.action_masks().tolist() == [True, False, False, False, False]
    info = env.step(0)[4]
    assert info["objective"] == pytest.approx(0.2) and info["optimal"] == 1.0


def test_a_triangle_counts_once() -> None:
    points = {"coords": [[0, 0], [1, 0], [0.4, 1], [0.45, 0.3]]}
    env = gym.make("rlkit/Delaunay-v0", num_nodes=4)
    env.reset(options={"instance": points})
    rewards = [env.step(j)[1] for j in (3, 0, 1, 1, 3, 0, 2, 3, 0)]
    assert rewards == pytest.approx([0, 0, 1 / 3, 0, 0, 0, 0, 0, 1 / 3])
    assert env.unwrapped.objective == pytest.approx(2 / 3)


# ---- instances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_instances_do_not_depend_on_how_many_are_drawn(name: str) -> None:
    problem = make_problem(name, **SMALL[name])
    many = generate(problem, 9, 4)
    for start, size in ((0, 1), (3, 4), (8, 1)):
        assert_same(generate(problem, size, 4, start), {k: v[start : start + size] for k, v in many.items()}, "")
    assert (generate(problem, 9, 5)[next(iter(many))] != many[next(iter(many))]).any()
    for k in range(9):
        assert_same(problem.check(row(many, k)), row(many, k), "")
    small, large = batch(name, 2, **SMALL[name]), batch(name, 9, **SMALL[name])
    small.reset(seed=6)
    large.reset(seed=6)
    assert_same(small.instances, {key: value[:2] for key, value in large.instances.items()}, "")


def test_generators_have_the_literatures_distributions() -> None:
    tsp = generate(make_problem("tsp", num_nodes=50), 400, 0)["coords"]
    assert tsp.mean() == pytest.approx(0.5, rel=0.01) and tsp.var() == pytest.approx(1 / 12, rel=0.02)
    cvrp = generate(make_problem("cvrp", num_nodes=50), 400, 0)
    assert (cvrp["capacity"] == 40).all() and not cvrp["demand"][:, 0].any()
    shares = np.bincount(cvrp["demand"][:, 1:].ravel(), minlength=10)[1:] / (400 * 50)
    assert shares == pytest.approx(np.full(9, 1 / 9), abs=0.01)
    assert make_problem("cvrp", num_nodes=200, capacities="rl4co").draw(np.random.default_rng(0))["capacity"] == 70
    op = generate(make_problem("op", num_nodes=20), 200, 0)
    away = np.linalg.norm(op["coords"][:, 1:] - op["coords"][:, :1], axis=-1)
    prizes = (1 + np.floor(99 * away / away.max(axis=1, keepdims=True))) / 100
    np.testing.assert_allclose(op["prize"][:, 1:], prizes, atol=0.0101)  # a floor may fall either way
    assert (op["budget"] == 2.0).all() and (op["prize"].max(axis=1) == 1.0).all()
    uniform = generate(make_problem("op", num_nodes=50, prizes="uniform"), 200, 0)["prize"][:, 1:]
    assert uniform.mean() == pytest.approx(0.505, rel=0.01) and set(np.round(uniform * 100).ravel()) == set(
        range(1, 101)
    )
    assert (generate(make_problem("op", num_nodes=20, prizes="const"), 2, 0)["prize"][:, 1:] == 1).all()
    packs = generate(make_problem("knapsack", num_nodes=200), 200, 0)
    for key in ("weight", "value"):
        numbers = np.round(packs[key] * 1000)
        assert np.abs(numbers / 1000 - packs[key]).max() < 1e-15 and numbers.min() == 1 and numbers.max() == 998
        assert packs[key].mean() == pytest.approx(0.4995, rel=0.01)
    assert (packs["capacity"] == 25).all()
    assert make_problem("knapsack", num_nodes=50).draw(np.random.default_rng(0))["capacity"] == 12.5
    free = generate(make_problem("knapsack", num_nodes=100, items="uniform"), 200, 0)["weight"]
    assert free.mean() == pytest.approx(0.5, rel=0.01)


def test_asymmetric_costs_keep_the_triangle_inequality_exactly() -> None:
    costs = np.round(generate(make_problem("atsp", num_nodes=12), 20, 0)["cost"] * 1e6).astype(np.int64)
    assert (costs[:, :, None, :] <= costs[:, :, :, None] + costs[:, None, :, :]).all()
    assert not np.diagonal(costs, axis1=1, axis2=2).any() and (costs != costs.transpose(0, 2, 1)).any()
    seeds = [np.random.PCG64(np.random.SeedSequence([0, k])) for k in range(20)]
    raw = np.stack([np.random.Generator(seed).integers(0, 10**6, (12, 12)) for seed in seeds])
    for k in range(12):
        raw[:, k, k] = 0
    plain = raw.copy()
    for _ in range(4):  # min-plus squares of paths of 1, 2, 4, 8, 16 edges
        plain = np.min(plain[:, :, :, None] + plain[:, None, :, :], axis=2)
    np.testing.assert_array_equal(costs, plain)


@pytest.mark.parametrize("n,expected", [(20, 4.49), (50, 6.99), (100, 9.69)])
def test_nearest_neighbour_tours_have_the_known_mean_length(n: int, expected: float) -> None:
    env = batch("tsp", 1500, num_nodes=n)
    observation, _ = env.reset(seed=0)
    coords, total, rows = env.instances["coords"].copy(), np.zeros(1500), np.arange(1500)
    for _ in range(n - 1):
        away = ((coords - coords[rows, observation["origin"]][:, None]) ** 2).sum(-1)
        observation, rewards, *_ = env.step(np.where(observation["action_mask"], away, np.inf).argmin(1))
        total -= rewards
    assert total.mean() == pytest.approx(expected, rel=0.01)


# ---- bad input -----------------------------------------------------------------------------------------------------

POINTS = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.3, 0.4]]


@pytest.mark.parametrize(
    "name,arguments,sentence",
    [
        ("tsp", {"num_nodes": 2}, "num_nodes=2 is out of range, expected a whole number from 3 to 1000000"),
        ("cvrp", {"num_nodes": 2}, "num_nodes=2 is out of range"),
        ("knapsack", {"num_nodes": 0}, "expected a whole number from 1 to 1000000"),
        ("tsp", {"formulation": "bp"}, "formulation=bp is unknown, expected one of bq, direct"),
        ("tsp", {"num_node": 5}, "unknown setting 'num_node'; did you mean 'num_nodes'"),
        ("cvrp", {"capacity": 8}, "capacity=8 is out of range"),
        ("cvrp", {"capacities": "x"}, "capacities=x is unknown"),
        ("op", {"budget": 0.0}, "budget=0.0 is out of range"),
        ("op", {"prizes": "x"}, "prizes=x is unknown"),
        ("knapsack", {"capacity": 0.5}, "capacity=0.5 is out of range"),
        ("knapsack", {"items": "x"}, "items=x is unknown"),
        ("tsp", {"num_nodes": 1_000_001}, "num_nodes=1000001 is out of range"),
        ("atsp", {"num_nodes": 5_001}, "expected a whole number from 3 to 5000"),
        ("delaunay", {"num_nodes": 5_001}, "expected a whole number from 3 to 5000"),
        ("tsp", {"num_nodes": True}, "num_nodes=True is out of range, expected a whole number"),
        ("tsp", {"num_nodes": 7.0}, "num_nodes=7.0 is out of range, expected a whole number"),
        ("tsp", {"num_nodes": "7"}, "num_nodes='7' is out of range, expected a whole number"),
        ("tsp", {"num_nodes": None}, "num_nodes=None is out of range"),
        ("tsp", {"num_nodes": 10**5000}, "num_nodes=a number of 16610 bits is out of range"),
        ("tsp", {"formulation": ["bq"]}, r"formulation=\['bq'\] is out of range, expected a word"),
        ("cvrp", {"capacity": True}, "capacity=True is out of range, expected a whole number or nothing"),
        ("cvrp", {"capacity": 2**53 + 1}, "capacity=9007199254740993 is out of range"),
        ("op", {"budget": np.nan}, "budget=nan is out of range, expected a finite number or nothing"),
        ("op", {"budget": 10**400}, "budget=a number of 1329 bits is out of range"),
        ("knapsack", {"capacity": np.inf}, "capacity=inf is out of range"),
        ("knapsack", {"capacity": False}, "capacity=False is out of range"),
    ],
)
def test_bad_arguments_are_one_sentence(name: str, arguments: dict[str, Any], sentence: str) -> None:
    for make in (lambda: batch(name, 2, **arguments), lambda: gym.make(f"rlkit/{IDS[name]}-v0", **arguments)):
        with pytest.raises(UserError, match=sentence):
            make()


@pytest.mark.parametrize(
    "name,arguments,sentence",
    [
        ("cvrp", {"num_nodes": 7}, "no usual capacity for num_nodes=7"),
        ("op", {"num_nodes": 7}, "no usual budget for num_nodes=7"),
        ("op", {"num_nodes": 3, "budget": 1e-9}, "reaches no node of 1000 random instances"),
        ("knapsack", {"num_nodes": 7}, "no usual capacity for num_nodes=7"),
    ],
)
def test_sizes_without_a_usual_setting_ask_for_one(name: str, arguments: dict[str, Any], sentence: str) -> None:
    env = gym.make(f"rlkit/{IDS[name]}-v0", **arguments)
    with pytest.raises(UserError, match=sentence):
        env.reset(seed=0)


@pytest.mark.parametrize(
    "name,instance,sentence",
    [
        (
            "convex-hull",
            {"coords": [*POINTS[:3], [1.0, 0.0]]},
            r"'coords' 1 and 3 are both \(1, 0\), expected distinct points",
        ),
        ("tsp", {"coords": [*POINTS[:3], [np.nan, 0.0]]}, r"'coords' holds nan at \(3, 0\)"),
        ("tsp", {"coords": POINTS[:3]}, r"shape \(3, 2\), expected \(4, 2\) for tsp with num_nodes=4"),
        ("tsp", {"coords": "here"}, "not an array of numbers"),
        ("tsp", {"points": POINTS}, "'coords' is missing"),
        ("tsp", POINTS, "expected a mapping of arrays by name, got list"),
        ("atsp", {"cost": np.ones((4, 3))}, r"shape \(4, 3\), expected \(4, 4\)"),
        ("atsp", {"cost": np.ones((4, 4))}, "zero on the diagonal"),
        (
            "cvrp",
            {"coords": [*POINTS, [2, 2]], "demand": [0, 1, 9, 2, 1], "capacity": 8},
            "customer 2 is 9, expected 1 to",
        ),
        (
            "cvrp",
            {"coords": [*POINTS, [2, 2]], "demand": [1, 1, 1, 2, 1], "capacity": 8},
            "of the depot is 1, expected 0",
        ),
        ("cvrp", {"coords": [*POINTS, [2, 2]], "demand": [0, 1.5, 1, 2, 1], "capacity": 8}, "expected whole numbers"),
        (
            "op",
            {"coords": [*POINTS, [2, 2]], "prize": [0, 1, 1, 1, 1], "budget": 0.9},
            "reaches no node, expected at least 1",
        ),
        ("op", {"coords": [*POINTS, [2, 2]], "prize": [0, 1, -1, 1, 1], "budget": 2}, "nowhere negative"),
        (
            "knapsack",
            {"weight": [3, 4, 5, 6], "value": [1, 1, 1, 1], "capacity": 2.5},
            "holds no item, expected at least 3",
        ),
        ("knapsack", {"weight": [3, -4, 5, 6], "value": [1, 1, 1, 1], "capacity": 9}, "nowhere be negative"),
        ("convex-hull", {"coords": [[0, 0], [1, 1], [2, 2], [3, 3]]}, "lie on one line"),
        ("convex-hull", {"coords": [[0, 0], [2, 0], [1, 0], [1, 2]]}, "lie on one line of the hull"),
        ("delaunay", {"coords": [[0, 0], [1, 0], [1, 1], [0, 1]]}, "lie on one circle"),
    ],
)
def test_bad_instances_are_one_sentence(name: str, instance: Any, sentence: str) -> None:
    usual = {"cvrp": {"capacity": 9}, "op": {"budget": 2.0}, "knapsack": {"capacity": 9.0}}.get(name, {})
    env = gym.make(f"rlkit/{IDS[name]}-v0", num_nodes=4, **usual)
    with pytest.raises(UserError, match=sentence):
        env.reset(options={"instance": instance})
    many = batch(name, 1, num_nodes=4, **usual)
    unlike = not isinstance(instance, dict) or "points" in instance  # no batch at all
    whole = (
        {key: np.asarray(value)[None] for key, value in instance.items()} if isinstance(instance, dict) else instance
    )
    with pytest.raises(UserError, match="instance: expected" if unlike else sentence):
        many.reset(options={"instance": whole})


@pytest.mark.parametrize("name", ["tsp", "cvrp", "op"])
@pytest.mark.parametrize("formulation", ["bq", "direct"])
def test_points_may_coincide(name: str, formulation: str) -> None:
    usual = {"cvrp": {"capacity": 9}, "op": {"budget": 9.0}}.get(name, {})
    problem = make_problem(name, num_nodes=4, formulation=formulation, **usual)
    generator = np.random.default_rng(0)
    instance = problem.draw(generator) | {"coords": np.array([[1.0, 0.0], [1, 0], [3, 4], [3, 4], [1, 0]])}
    instance["coords"] = instance["coords"][: problem.num_points]
    env = gym.make(f"rlkit/{IDS[name]}-v0", num_nodes=4, formulation=formulation, **usual)
    many = batch(name, 1, num_nodes=4, formulation=formulation, **usual)
    _, info = env.reset(options={"instance": instance})
    many.reset(options={"instance": stack([instance])})
    ended = False
    while not ended:
        action = int(generator.choice(np.flatnonzero(info["action_mask"])))
        _, reward, ended, _, info = env.step(action)
        _, rewards, ends, _, _ = many.step(np.array([action]))
        assert rewards[0] == reward and ends[0] == ended
    assert problem.objective(instance, info["solution"]) == pytest.approx(info["objective"])


def test_settings_of_the_declared_types_are_taken() -> None:
    assert make_problem("knapsack", num_nodes=np.int64(3), capacity=2).settings()["capacity"] == 2.0
    assert make_problem("op", budget=np.float32(2.0), num_nodes=5).settings()["budget"] == 2.0
    assert make_problem("cvrp", capacity=None).settings()["capacity"] is None
    with pytest.raises(UserError, match="tsp: unknown setting 'self'"):
        make_problem("tsp", self=3)
    with pytest.raises(UserError, match="tsp: unknown setting 'name'"):
        make_problem("tsp", name="cvrp")


def test_bad_calls() -> None:
    env, single = batch("tsp", 2, num_nodes=4), gym.make("rlkit/TSP-v0", num_nodes=4).unwrapped
    for call in (lambda: env.step(np.zeros(2, np.int64)), lambda: single.step(1), single.reduced):
        with pytest.raises(ResetNeeded):
            call()
    assert single.render() is None
    with pytest.raises(ResetNeeded, match="all environments"):
        env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(UserError, match="2 seeds"):
        env.reset(seed=[1])
    with pytest.raises(UserError, match="'coords' with 2 rows"):
        env.reset(options={"instance": stack([{"coords": np.array(POINTS)}])})
    env.reset(seed=0)
    single.reset(seed=0)
    with pytest.raises(UserError, match="reset_mask"):
        env.reset(options={"reset_mask": np.zeros(2, bool)})
    with pytest.raises(UserError, match=r"shape \(2,\)"):
        env.step(np.zeros(3, np.int64))
    for actions in ([1, 0], [1, 4], [1, -1]):
        with pytest.raises(UserError, match="of environment 1 is not feasible"):
            env.step(np.array(actions))
    for action in (4, -1, 1.5, [1, 2]):
        with pytest.raises(UserError, match="out of range"):
            single.step(action)
    with pytest.raises(UserError, match="num_envs=0"):
        batch("tsp", 0)
    with pytest.raises(UserError, match="autoreset_mode='later' is unknown"):
        batch("tsp", 1, autoreset_mode="later")
    with pytest.raises(UserError, match="render_mode='human' is unknown"):
        type(single)(render_mode="human")
    with pytest.raises(UserError, match="does not render"):
        type(env)(1, render_mode="rgb_array")
    with pytest.raises(UserError, match="unknown problem 'tps'; did you mean 'tsp'"):
        make_problem("tps")
    with pytest.raises(UserError, match="expected at most 4"):
        single.problem.padded(np.arange(6))
