"""Task selection: published values on plain landscapes, synthetic replays, invariances, and bad input."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlkit.agents.mbtl.select import (
    TaskSelector,
    equidistant,
    generalised,
    independent,
    oracle,
    replay,
    sequential_oracle,
)
from rlkit.errors import UserError

N = 100
STEPS = np.abs(np.arange(N)[:, None] - np.arange(N))


def plain() -> np.ndarray:
    return np.clip(0.9 - 0.005 * STEPS, 0, None)


def landscape(seed: int) -> np.ndarray:
    """J ~ GP(0.6, 0.15², length 0.2) clipped to [0.05, 1], a fall of 0.005 a step."""
    x = np.linspace(0, 1, N)
    covariance = 0.15**2 * np.exp(-0.5 * ((x[:, None] - x) / 0.2) ** 2) + 1e-10 * np.eye(N)
    own = 0.6 + np.linalg.cholesky(covariance) @ np.random.default_rng(seed).standard_normal(N)
    return np.clip(np.clip(own, 0.05, 1)[:, None] - 0.005 * STEPS, 0, None)


@pytest.mark.parametrize(("budget", "expected"), [(3, 0.8584), (5, 0.8719), (10, 0.8868), (15, 0.8911)])
def test_the_plain_landscape_is_solved_as_by_the_sequential_oracle(budget: int, expected: float) -> None:
    returns = plain()
    found = replay(returns, TaskSelector(np.arange(N)), budget)[-1]
    assert expected - 1e-3 <= found <= expected + 2e-3  # one who is not myopic may have a little more
    assert generalised(returns, sequential_oracle(returns, budget)) == pytest.approx(expected, abs=1e-3)


def test_the_official_process_does_worse_on_it() -> None:
    returns = plain()
    official = replay(returns, TaskSelector(np.arange(N), compat="official"), 15)[-1]
    assert official == pytest.approx(0.8695, abs=8e-3)  # its restarts are not seeded alike
    by_chance = np.random.default_rng(0)
    assert official < np.mean([generalised(returns, by_chance.permutation(N)[:15]) for _ in range(100)])
    assert official < generalised(returns, equidistant(np.linspace(0, 1, N), 15)) == pytest.approx(0.8918, abs=1e-3)


MEASURED = json.loads((Path(__file__).parents[2] / "docs" / "assets" / "mbtl" / "summary.json").read_text())


def committed(env: str, **settings: Any) -> tuple[list[float], list[int]]:
    """Served after each of ten choices on the measured returns of ``env``, and the choices."""
    part = MEASURED[env]
    returns, bounds = np.array(part["returns"]), tuple(part["bounds"])
    selector = TaskSelector(part["contexts"], bounds=bounds, theta=0.5 * 0.99 / 14, **settings)
    return replay(returns, selector, 10), selector.sources


@pytest.mark.parametrize(
    ("env", "sources"),
    [("cartpole", [7, 6, 12, 1, 2, 0, 13, 14, 11, 3]), ("pendulum", [7, 1, 13, 2, 0, 8, 9, 10, 11, 6])],
)
def test_the_official_process_chooses_as_it_always_did(env: str, sources: list[int]) -> None:
    assert committed(env, compat="official")[1] == sources


@pytest.mark.parametrize("env", ["cartpole", "pendulum"])
def test_three_sources_pass_one_policy_for_every_context(env: str) -> None:
    """With the deviation that likelihood alone would choose, Pendulum's took ten."""
    served, _ = committed(env)
    assert served[2] > MEASURED[env]["levels"]["independent"] > served[1]


def test_one_source_does_not_end_the_doubt() -> None:
    """One return, centred, is 0: its likelihood is largest for a deviation of 0."""
    selector = TaskSelector(np.arange(N))
    selector.tell(50, plain()[50])
    mean, deviation = selector.posterior()
    assert deviation[50] < 0.02 and deviation.max() == pytest.approx(0.1, abs=0.03)
    assert np.allclose(mean, 0.9, atol=0.01)


@pytest.mark.slow
def test_mbtl_beats_random_and_equidistant_choices() -> None:
    over_random = over_equidistant = 0
    behind = []
    for seed in range(20):
        returns = landscape(seed)
        ours = replay(returns, TaskSelector(np.arange(N)), 10)[-1]
        choices = np.random.default_rng(seed)
        by_chance = [generalised(returns, choices.permutation(N)[:10]) for _ in range(100)]
        over_random += ours > np.mean(by_chance)
        over_equidistant += ours >= generalised(returns, equidistant(np.linspace(0, 1, N), 10))
        behind.append(generalised(returns, sequential_oracle(returns, 10)) - ours)
    assert over_random == 20
    assert over_equidistant >= 16
    # 0.005 at worst on the specification's draw of landscapes; this draw has one that is mostly clipped
    assert sorted(behind)[-2] <= 0.01 and max(behind) <= 0.015


GRID = np.array(list(itertools.product(range(8), repeat=3)), np.float64)


def synthetic(f: str, h: str, distance: str) -> np.ndarray:
    """SD-MBTL's synthetic transfer: 500 - dist + f(source) + h(target), min-max scaled."""
    difference = GRID[:, None] - GRID  # [N, N, 3] source minus target
    below = np.array([3.0, 3.0, 3.0]) if distance == "l1" else np.array([-1.0, -1.0, 3.0])
    dist = (3.0 * np.maximum(difference, 0) + below * np.maximum(-difference, 0)).sum(-1)
    total = GRID.sum(axis=1)
    returns = 500 - dist + (4 * total[:, None] if f == "lin" else 0) + (3 * total if h == "lin" else 0)
    return (returns - returns.min()) / np.ptp(returns)


@pytest.mark.parametrize(
    ("f", "h", "distance", "published_oracle", "published"),
    [
        ("0", "lin", "other", 0.7250, 0.7250),
        ("0", "lin", "l1", 0.7190, 0.7110),
        ("0", "0", "other", 0.9091, 0.9091),
        ("0", "0", "l1", 0.9382, 0.9364),
        ("lin", "lin", "l1", 0.5714, 0.5714),
        ("lin", "0", "l1", 0.7857, 0.7857),
    ],
)
def test_synthetic_replay_in_three_dimensions(
    f: str, h: str, distance: str, published_oracle: float, published: float
) -> None:
    returns = synthetic(f, h, distance)
    best = generalised(returns, sequential_oracle(returns, 50))
    assert best == pytest.approx(published_oracle, abs=2e-3)
    budget = 12 if f == "lin" else 50  # those are solved by a few sources
    found = replay(returns, TaskSelector(GRID, budget=budget), budget)[-1]
    assert found >= published - 2e-3
    assert found <= best + 1e-9


@pytest.mark.parametrize("settings", [{}, {"gap": "estimated"}, {"strategy": "greedy"}, {"strategy": "random"}])
def test_what_is_served_never_falls_and_sources_are_unique(settings: dict[str, Any]) -> None:
    selector = TaskSelector(np.linspace(0.1, 10, 40), seed=2, **settings)
    returns = landscape(3)[:40, :40]
    curve = replay(returns, selector, 12)
    assert (np.diff(curve) >= 0).all()
    assert len(set(selector.sources)) == 12
    assert independent(returns) <= oracle(returns) and curve[-1] <= oracle(returns) + 1e-12


def test_an_affine_change_of_returns_changes_no_choice() -> None:
    returns = landscape(4)
    one, other = TaskSelector(np.arange(N)), TaskSelector(np.arange(N), bounds=(-2200.0, -500.0))
    left = replay(returns, one, 8)
    right = replay(returns * 1700 - 2200, other, 8)
    assert one.sources == other.sources
    np.testing.assert_allclose(left, right, atol=1e-9)


def test_greedy_and_equidistant_points_by_hand() -> None:
    selector = TaskSelector(np.arange(101.0), strategy="greedy")
    chosen = []
    for _ in range(5):
        source = selector.ask()
        assert source is not None
        chosen.append(source)
        selector.tell(source, np.zeros(101))
    assert chosen[0] == 50 and set(chosen[1:3]) == {17, 83}
    assert set(chosen[3:]) <= {33, 34, 66, 67}
    assert equidistant(np.linspace(0, 100, 101), 2) == [75, 25]
    assert TaskSelector(np.arange(9.0), strategy="equidistant", budget=3).ask() == 7


def test_a_flat_promise_ends_the_search() -> None:
    selector = TaskSelector(np.arange(20.0), theta=0.0, enough=1e-3)
    first = selector.ask()
    assert first is not None
    selector.tell(first, np.ones(20))
    second = selector.ask()
    if second is not None:
        selector.tell(second, np.ones(20))
    assert selector.ask() is None or len(selector.sources) < 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"contexts": []}, "expected at least one finite context"),
        ({"contexts": [1.0, np.nan]}, "expected at least one finite context"),
        ({"contexts": [1.0, 2.0], "budget": 3}, "budget=3 is out of range, expected from 1 to the 2 contexts"),
        ({"contexts": [1.0, 2.0], "strategy": "mbtI"}, "did you mean 'mbtl'"),
        ({"contexts": np.zeros((4, 2)), "strategy": "greedy"}, "contexts have 2 dimensions"),
        ({"contexts": [1.0, 2.0], "bounds": (1.0, 0.0)}, "expected the lower one below"),
        ({"contexts": [1.0, 2.0], "compat": "paper"}, "compat=paper is unknown"),
    ],
)
def test_bad_arguments_get_a_sentence(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        TaskSelector(**arguments)


def test_bad_rows_get_a_sentence() -> None:
    selector = TaskSelector([1.0, 2.0, 3.0])
    with pytest.raises(UserError, match="expected 3 finite numbers"):
        selector.tell(0, [1.0])
    selector.tell(0, [1.0, 0.5, 0.2])
    with pytest.raises(UserError, match="was not told before"):
        selector.tell(0, [1.0, 0.5, 0.2])
