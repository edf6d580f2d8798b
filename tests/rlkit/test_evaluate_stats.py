"""Evaluation counts every episode once; statistics against SciPy; the float32 kernels round as float32."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlkit.algorithms.evaluate import MAX_ENVS, Evaluator
from rlkit.algorithms.floats import fast_float32, flush_subnormals
from rlkit.algorithms.nets import Adam, Critics, linear
from rlkit.errors import UserError
from rlkit.stats import bootstrap_interval, improvement, iqm


class Constant:
    def predict(self, observation: Any, deterministic: bool = True) -> tuple[Any, Any]:
        return np.full((len(observation), 2), 0.3, np.float32), None


def by_hand(seed: int, index: int, episodes: int) -> list[float]:
    returns = []
    for s in np.random.SeedSequence([seed, index]).generate_state(episodes):
        env = gym.make(toy.ENV_ID)
        env.reset(seed=int(s))
        total, done = 0.0, False
        while not done:
            _, reward, terminated, truncated, _ = env.step(np.full(2, 0.3, np.float32))
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def test_returns_equal_single_environments_one_after_another() -> None:
    evaluator = Evaluator(toy.ENV_ID, episodes=MAX_ENVS + 6, seed=3, reference=(-30.0, -5.0))
    found = evaluator(Constant(), index=2)
    np.testing.assert_allclose(found.returns, by_hand(3, 2, MAX_ENVS + 6), rtol=1e-6)
    assert found.scores is not None
    np.testing.assert_allclose(found.scores, (found.returns + 30) / 25 * 100)
    assert len(set(found.lengths)) > 1 and found.lengths.max() == toy.LIMIT


def test_an_evaluation_does_not_depend_on_those_before() -> None:
    first, second = Evaluator(toy.ENV_ID, episodes=4), Evaluator(toy.ENV_ID, episodes=4)
    for index in (1, 2):
        first(Constant(), index=index)
    assert np.array_equal(first(Constant(), index=3).returns, second(Constant(), index=3).returns)
    assert not np.array_equal(first(Constant(), index=3).returns, first(Constant(), index=4).returns)
    first.close()
    second.close()


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6)))
def test_iqm_is_scipys_trimmed_mean(values: np.ndarray) -> None:
    np.testing.assert_allclose(iqm(values), scipy.stats.trim_mean(values, 0.25), rtol=1e-9, atol=1e-9)


def test_bootstrap_interval_against_scipy() -> None:
    values = np.random.default_rng(0).normal(3, 2, 200)
    low, high = bootstrap_interval(values, samples=5000)
    result = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=1)
    np.testing.assert_allclose([low, high], list(result.confidence_interval), atol=0.05)


def test_a_stratified_interval_resamples_each_group_by_itself() -> None:
    generator = np.random.default_rng(3)
    groups = {"hard": generator.normal(0, 1, 30), "easy": generator.normal(100, 1, 30)}
    values, names = np.concatenate(list(groups.values())), [name for name in groups for _ in range(30)]
    low, high = bootstrap_interval(values, samples=4000, strata=names)
    spread = np.sqrt(sum(v.var() / 30 for v in groups.values())) / 2  # of the mean of the groups' means
    np.testing.assert_allclose([low, high], values.mean() + spread * np.array([-1.96, 1.96]), atol=0.03)
    assert bootstrap_interval(values)[1] - bootstrap_interval(values)[0] > 10 * (high - low)
    shuffled = generator.permutation(60)
    other = bootstrap_interval(values[shuffled], samples=4000, strata=[names[i] for i in shuffled])
    np.testing.assert_allclose(other, (low, high), atol=0.05)
    assert bootstrap_interval(values, iqm, samples=200, strata=names)[0] <= iqm(values)


def test_intervals_of_few_equal_and_wrong_values() -> None:
    assert np.isnan(bootstrap_interval(np.array([3.0]))).all()  # there is none
    assert np.isnan(bootstrap_interval(np.array([3.0, 4.0]), strata=["a", "b"])).all()
    assert bootstrap_interval(np.full(7, 0.1)) == pytest.approx((0.1, 0.1), abs=1e-15)
    low, high = bootstrap_interval(np.array([1.0, 2.0]))
    assert (low, high) == (1.0, 2.0)
    for wrong in ([1.0, np.nan], [np.inf, 1.0, 2.0], []):
        with pytest.raises(UserError, match="needs finite values, got"):
            bootstrap_interval(np.array(wrong))
        with pytest.raises(UserError, match="needs finite values, got"):
            iqm(np.array(wrong))
    with pytest.raises(UserError, match="2 values needs as many strata, got 1"):
        bootstrap_interval(np.array([1.0, 2.0]), strata=["a"])


def test_fast_float32_keeps_float32_and_puts_the_setting_back() -> None:
    a, b = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(1))
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    with fast_float32():
        assert (a @ b - exact).abs().max() < 2e-4
    assert torch.get_float32_matmul_precision() == before


def test_layers_have_pytorchs_default_distribution() -> None:
    ours = linear(64, 4000, torch.Generator().manual_seed(0))
    theirs = torch.nn.Linear(64, 4000)
    for mine, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        assert mine.abs().max() <= 1 / 8
        np.testing.assert_allclose(mine.std().item(), other.std().item(), rtol=0.05)


def test_adam_is_pytorchs_bit_for_bit_and_restores() -> None:
    def network() -> torch.nn.Module:
        return Critics(3, 2, (16,), torch.Generator().manual_seed(0))

    ours, theirs = network(), network()
    mine, plain = Adam(ours.parameters(), 1e-3), torch.optim.Adam(theirs.parameters(), 1e-3, fused=True)
    generator = torch.Generator().manual_seed(1)
    for step in range(12):
        s, a = torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)
        mine.minimise(sum(q.square().mean() for q in ours(s, a)))
        plain.zero_grad()
        sum(q.square().mean() for q in theirs(s, a)).backward()
        plain.step()
        if step == 6:  # through a state dict and on
            again = Adam(ours.parameters(), 1e-3)
            again.load_state_dict(mine.state_dict())
            mine = again
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(left, right)


def test_adam_lets_silent_moments_become_zero_and_no_weight_notices() -> None:
    def parameter() -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.linspace(-1, 1, 64))

    ours, theirs = parameter(), parameter()
    mine, plain = Adam([ours], 1e-3), torch.optim.Adam([theirs], 1e-3, fused=True)
    heard = torch.ones(64)
    for step in range(1200):  # 0.9 to the power of 1000 is 1e-46
        if step == 100:
            heard[:40] = 0
        mine.minimise((heard * ours).square().sum())
        plain.zero_grad()
        (heard * theirs).square().sum().backward()
        plain.step()
    assert torch.equal(ours, theirs)
    kept, flushed = plain.state[theirs]["exp_avg"], mine.state[ours]["exp_avg"]
    assert (kept[:40] != 0).all() and (kept[:40].abs() < 1.2e-38).all()  # the trap that this is about
    assert (flushed[:40] == 0).all()
    assert torch.equal(kept[40:], flushed[40:])


@pytest.mark.parametrize("before", [False, True])
def test_flush_subnormals_puts_the_setting_back(before: bool) -> None:
    def flushes() -> bool:
        return (torch.full((), 1e-40) * 1).item() == 0

    torch.set_flush_denormal(before)
    try:
        with flush_subnormals():
            assert flushes()
        assert flushes() == before
        with pytest.raises(ZeroDivisionError), flush_subnormals():
            _ = 1 / 0
        assert flushes() == before
    finally:
        torch.set_flush_denormal(False)


def test_probability_of_improvement_is_the_share_of_pairs() -> None:
    generator = np.random.default_rng(4)
    tasks = [(generator.normal(shift, size=6).round(1), generator.normal(size=5).round(1)) for shift in (0.0, 2.0)]
    share = [np.mean([(a > b) + 0.5 * (a == b) for a in one for b in other]) for one, other in tasks]
    chance, (low, high) = improvement(tasks)
    assert chance == pytest.approx(np.mean(share)) and low < chance < high
    assert improvement([(one, one) for one, _ in tasks])[0] == pytest.approx(0.5)
    assert improvement([(other, one) for one, other in tasks])[0] == pytest.approx(1 - chance)
    assert np.isnan(improvement([(tasks[0][0][:1], tasks[0][1])])[1]).all()
    with pytest.raises(UserError, match="1 of 2 not finite"):
        improvement([(np.array([1.0, np.nan]), tasks[0][1])])
