"""The row-certificate search against brute force, bit for bit, whatever its lists, limits and threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import cKDTree

from rlkit.agents.prdc import neighbours
from rlkit.agents.prdc.neighbours import RowCertificateSearch
from rlkit.errors import DataError, UserError

BETAS = (0.0, 0.1, 2.0, 7.5, 1e3)
LIMITS = (
    {},
    {"max_list": 2},  # most rows turn dense
    {"max_list": 64, "arena_bytes": 8 * 300, "threads": -1},  # the arena is compacted, then full
)


def square_sums(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """[B, N] squared distances in fp64, columns added in ascending order."""
    total = np.zeros((len(queries), len(points)))
    for k in range(points.shape[1]):
        total += (points[None, :, k].astype(np.float64) - queries[:, None, k].astype(np.float64)) ** 2
    return total


def brute_force(states, actions, beta, query_states, proposals) -> np.ndarray:
    """[B, N] squared distances of all rows to all queries."""
    return beta**2 * square_sums(states, query_states) + square_sums(actions, proposals)


def make_data(n: int, ds: int, da: int, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated rows; ``ties``: few distinct values, many rows equal, so that most minima are attained repeatedly."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(n, 3)) @ rng.normal(size=(3, ds)) + 0.1 * rng.normal(size=(n, ds))
    actions = np.tanh(states @ rng.normal(size=(ds, da)) + 0.5 * rng.normal(size=(n, da)))
    if kind == "ties":
        states, actions = np.round(states), np.round(2 * actions) / 2
        copies = rng.integers(0, n, n // 2)
        states[: n // 2], actions[: n // 2] = states[copies], actions[copies]
    return states.astype(np.float32), actions.astype(np.float32)


def propose(policy: str, actions: np.ndarray, rows: np.ndarray, kind: str, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base, noise = actions[rows], rng.normal(size=(len(rows), actions.shape[1]))
    proposals = {
        "behaviour": base + 0.1 * noise,
        "shifted": base + 0.5 * np.sign(noise),
        "random": rng.uniform(-1, 1, noise.shape),
    }[policy]
    return (np.round(2 * proposals) / 2 if kind == "ties" else proposals).astype(np.float32)


def assert_exact(answer: tuple[np.ndarray, np.ndarray], squares: np.ndarray) -> None:
    """The smallest row number among the exact minima, and the very distance."""
    np.testing.assert_array_equal(answer[0], squares.argmin(axis=1))
    np.testing.assert_array_equal(answer[1], np.sqrt(squares.min(axis=1)))
    assert answer[0].dtype == np.int64
    assert answer[1].dtype == np.float64


@pytest.mark.parametrize("kind", ["plain", "ties"])
@pytest.mark.parametrize("beta", BETAS)
def test_equals_brute_force(beta: float, kind: str) -> None:
    states, actions = make_data(1500, 6, 2, kind)
    searches = [RowCertificateSearch(states, actions, beta=beta, **limits) for limits in LIMITS]
    for seed, policy in enumerate(("behaviour", "shifted", "random")):
        rows = np.random.default_rng(seed).integers(0, len(states), 340)  # 10,200 queries over all parameters
        proposals = propose(policy, actions, rows, kind)
        squares = brute_force(states, actions, beta, states[rows], proposals)
        for search in searches:
            for _ in range(2):  # without and with lists
                assert_exact(search.query(rows, proposals), squares)
            assert search.stats["arena_bytes"] <= 8 * search._lists.index.size
        tree = cKDTree(np.concatenate([beta * states.astype(np.float64), actions], axis=1))
        theirs = tree.query(np.concatenate([beta * states[rows].astype(np.float64), proposals], axis=1))[0]
        np.testing.assert_allclose(searches[0].query(rows, proposals)[1], theirs, rtol=1e-12, atol=1e-12)
    if beta == 2.0:  # the limits do what they are there for
        assert searches[1].stats["dense_rows"] > 0
        assert searches[2]._book[neighbours._FULL]


@pytest.mark.parametrize("ds", [4, 70])
def test_answers_do_not_depend_on_history(ds: int) -> None:
    """Resuming with empty lists, other limits, other threads or another order of batches changes nothing."""
    states, actions = make_data(1200, ds, 2, "ties", seed=3)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 200, (8, 64))  # few rows: most are visited repeatedly, some twice in a batch
    proposals = [propose(("behaviour", "random")[t % 2], actions, rows[t], "ties", t) for t in range(8)]
    first = RowCertificateSearch(states, actions, beta=1.0)
    answers = [first.query(rows[t], proposals[t]) for t in range(8)]
    for limits in LIMITS:
        for order in (range(8), reversed(range(8))):
            warm = RowCertificateSearch(states, actions, beta=1.0, **limits)
            for t in order:
                for one, other in zip(warm.query(rows[t], proposals[t]), answers[t], strict=True):
                    np.testing.assert_array_equal(one, other)
        cold = RowCertificateSearch(states, actions, beta=1.0, **limits)
        np.testing.assert_array_equal(cold.query(rows[7], proposals[7])[0], answers[7][0])
        singles = [cold.query(rows[0, b : b + 1], proposals[0][b : b + 1])[0][0] for b in range(64)]
        np.testing.assert_array_equal(singles, answers[0][0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), n=st.integers(1, 90), ds=st.integers(1, 3), da=st.integers(1, 2))
def test_small_cases(data: st.DataObject, n: int, ds: int, da: int) -> None:
    """Small integers: nearly every query has ties."""
    numbers = st.integers(-2, 2).map(float)
    states = data.draw(arrays(np.float32, (n, ds), elements=numbers))
    actions = data.draw(arrays(np.float32, (n, da), elements=numbers))
    beta = data.draw(st.sampled_from([0.0, 0.5, 1.0, 1.1, 1e4]))
    search = RowCertificateSearch(
        states,
        actions,
        beta=beta,
        max_list=data.draw(st.integers(1, n)),
        arena_bytes=data.draw(st.sampled_from([0, 200, 1 << 20])),
    )
    k = data.draw(st.integers(1, n))
    for _ in range(2):
        rows = data.draw(arrays(np.int64, 8, elements=st.integers(0, n - 1)))
        proposals = data.draw(arrays(np.float32, (8, da), elements=numbers))
        squares = brute_force(states, actions, beta, states[rows], proposals)
        assert_exact(search.query(rows, proposals), squares)
        order = np.argsort(squares, axis=1, kind="stable")[:, :k]
        index, distance = search.query_k(rows, proposals, k)
        np.testing.assert_array_equal(index, order)
        np.testing.assert_array_equal(distance, np.sqrt(np.take_along_axis(squares, order, axis=1)))
        elsewhere = data.draw(arrays(np.float32, (8, ds), elements=numbers))
        assert_exact(search.query(rows, proposals, elsewhere), brute_force(states, actions, beta, elsewhere, proposals))


@pytest.mark.parametrize("ds", [5, 70])
def test_perturbed_states_and_several_neighbours(ds: int) -> None:
    states, actions = make_data(900, ds, 3, "plain")
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 900, 300)
    proposals = propose("shifted", actions, rows, "plain")
    for limits in LIMITS:
        search = RowCertificateSearch(states, actions, beta=2.0, **limits)
        for scale in (0.01, 1.0, 0.0):
            moved = (states[rows] + scale * rng.normal(size=(300, ds))).astype(np.float32)
            assert_exact(search.query(rows, proposals, moved), brute_force(states, actions, 2.0, moved, proposals))
        squares = brute_force(states, actions, 2.0, states[rows], proposals)
        for k in (2, 900):
            index, distance = search.query_k(rows[:50], proposals[:50], k)
            np.testing.assert_array_equal(index, np.argsort(squares[:50], axis=1, kind="stable")[:, :k])
            np.testing.assert_array_equal(distance, np.sqrt(np.sort(squares[:50], axis=1)[:, :k]))


@pytest.mark.parametrize("ds", [6, 70])
def test_lists_are_complete_sorted_lower_bounds(ds: int) -> None:
    """Also after lists have been replaced by longer ones and the arena compacted."""
    states, actions = make_data(600, ds, 2, "plain", seed=5)
    beta = 0.7 if ds == 6 else 0.1
    search = RowCertificateSearch(states, actions, beta=beta, arena_bytes=8 * 4000)
    rng = np.random.default_rng(0)
    rows = np.arange(60)
    for scale in np.geomspace(0.02, 1.5, 12):
        search.query(rows, (actions[rows] + scale * rng.normal(size=(60, 2))).astype(np.float32))
    lists, squares = search._lists, beta**2 * square_sums(states, states[rows])
    assert lists.length[rows].max() > 20
    assert search.stats["arena_bytes"] < 8 * 4000
    for j in rows:
        part = slice(lists.start[j], lists.start[j] + lists.length[j])
        index, entries = lists.index[part], lists.square[part].astype(np.float64)
        within = np.flatnonzero(squares[j] <= lists.reach[j])
        np.testing.assert_array_equal(np.sort(index), within[within != j])
        exact = squares[j, index]
        assert (np.diff(exact) >= 0).all()
        assert (entries <= exact).all()
        np.testing.assert_allclose(entries, exact, rtol=2**-23)


def test_visits_of_listed_rows_search_nothing() -> None:
    states, actions = make_data(2000, 6, 2, "plain")
    search = RowCertificateSearch(states, actions, beta=2.0)
    rows = np.arange(0, 2000, 10)
    proposals = propose("shifted", actions, rows, "plain")
    search.query(rows, proposals)
    before = search.stats
    assert before["visits"] == 200
    assert before["ball_searches"] > 0
    search.query(rows, proposals)
    after = search.stats
    assert after == before | {"visits": 400, "certified": before["certified"] + 200}


def test_a_list_is_trusted_up_to_its_radius_only() -> None:
    """The other row lies just outside the first ball, and answers the second query."""
    states, actions = np.float32([[0], [1.12]]), np.float32([[0], [1.13]])
    search = RowCertificateSearch(states, actions, beta=1.0)
    assert search.query(np.array([0]), np.float32([[1.0]]))[0] == 0
    assert search._lists.reach[0] < 1.12**2
    assert search.query(np.array([0]), np.float32([[1.13]]))[0] == 1


def test_limits_of_beta() -> None:
    states, actions = make_data(1500, 6, 2, "plain")
    rows = np.random.default_rng(0).permutation(1500)[:500]
    proposals = propose("random", actions, rows, "plain")
    np.testing.assert_array_equal(RowCertificateSearch(states, actions, beta=1e4).query(rows, proposals)[0], rows)
    nearest = square_sums(actions, proposals).argmin(axis=1)
    np.testing.assert_array_equal(RowCertificateSearch(states, actions, beta=0).query(rows, proposals)[0], nearest)
    states[7], actions[7] = states[1200], actions[1200]  # equal rows: the first of them answers, even for the other
    search = RowCertificateSearch(states, actions, beta=1e4)
    for _ in range(2):
        assert search.query(np.array([1200]), actions[[1200]])[0] == 7


@pytest.mark.parametrize("ds", [1, 3, 70])
@pytest.mark.parametrize("n", [1, 2, 64, 65])
def test_few_rows(n: int, ds: int) -> None:
    states, actions = make_data(n, ds, 1, "plain")
    rows = np.arange(n).repeat(3)
    proposals = propose("random", actions, rows, "plain")
    for beta in (0.0, 1.0):
        search = RowCertificateSearch(states, actions, beta=beta)
        for _ in range(2):
            assert_exact(search.query(rows, proposals), brute_force(states, actions, beta, states[rows], proposals))
        empty = search.query(np.empty(0, np.int64), np.empty((0, 1), np.float32))
        assert [part.shape for part in empty] == [(0,), (0,)]


@pytest.mark.parametrize("ds", [2, 70])
def test_constant_columns_and_extreme_values(ds: int) -> None:
    """All rows equal; fp32 squares that overflow or vanish; a list longer than allowed of the same distance."""
    rows = np.arange(0, 3000, 60)
    for states, actions, factor in [
        (np.ones((3000, ds)), np.zeros((3000, 2)), 1.0),
        (np.ones((3000, ds)), make_data(3000, 2, 2, "plain")[1], 1.0),
        (*make_data(3000, ds, 2, "plain"), 1e20),
        (*make_data(3000, ds, 2, "plain"), 1e-21),
        (*make_data(3000, ds, 2, "plain"), 1e-30),
    ]:
        states, actions = (factor * states).astype(np.float32), (factor * actions).astype(np.float32)
        proposals = (actions[rows] + factor * 0.3).astype(np.float32)
        search = RowCertificateSearch(states, actions, beta=1.0, max_list=256)
        for _ in range(2):
            assert_exact(search.query(rows, proposals), brute_force(states, actions, 1.0, states[rows], proposals))


STATES, ACTIONS = make_data(20, 3, 2, "plain")


@pytest.mark.parametrize(
    ("states", "actions", "settings", "error", "words"),
    [
        (STATES[0], ACTIONS, {}, DataError, "states must be"),
        (STATES, ACTIONS[:-1], {}, DataError, "20 rows, got 19"),
        (STATES, ACTIONS * np.float32(np.nan), {}, DataError, "row 0 is not"),
        (STATES.astype(np.float64) * 1e300, ACTIONS, {}, DataError, "finite"),
        (STATES.astype(str), ACTIONS, {}, DataError, "numbers"),
        (STATES[:0], ACTIONS[:0], {}, DataError, "got 0"),
        (STATES, ACTIONS, {"beta": -1.0}, UserError, "beta"),
        (STATES, ACTIONS, {"beta": np.nan}, UserError, "beta"),
        (STATES, ACTIONS, {"beta": np.inf}, UserError, "beta"),
        (STATES, ACTIONS, {"max_list": 0}, UserError, "max_list"),
        (STATES, ACTIONS, {"arena_bytes": -1}, UserError, "arena_bytes"),
        (STATES, ACTIONS, {"threads": 0}, UserError, "threads"),
    ],
)
def test_bad_data(states, actions, settings, error, words) -> None:
    with pytest.raises(error, match=words):
        RowCertificateSearch(states, actions, **{"beta": 1.0, **settings})


@pytest.mark.parametrize(
    ("rows", "actions", "states", "words"),
    [
        ([0, 20], ACTIONS[:2], None, "within"),
        ([0, -1], ACTIONS[:2], None, "within"),
        ([0.0, 1.0], ACTIONS[:2], None, "integers"),
        ([[0, 1]], ACTIONS[:2], None, "integers"),
        ([0, 1], ACTIONS[:3], None, "2 rows, got 3"),
        ([0, 1], ACTIONS[:2, :1], None, "actions must be"),
        ([0, 1], ACTIONS[:2] * np.float32(np.inf), None, "finite"),
        ([0, 1], ACTIONS[:2], STATES[:1], "states must have 2 rows"),
    ],
)
def test_bad_queries(rows, actions, states, words) -> None:
    search = RowCertificateSearch(STATES, ACTIONS, beta=1.0)
    with pytest.raises(DataError, match=words):
        search.query(np.array(rows), actions, states)
    for k in (0, 21):
        with pytest.raises(UserError, match="k must be"):
            search.query_k(np.array([0]), ACTIONS[:1], k)
    assert search.stats["visits"] == 0
