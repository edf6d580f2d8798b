"""The glucose patient: published trajectories, an accurate integrator, meals, the batch, its state, its bad input."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit.algorithms.vecenv import environment_state, set_environment_state
from rlkit.envs.hacking import glucose as g
from rlkit.envs.hacking.glucose import BASAL, INSULIN_PER_ACTION, GlucoseEnv, GlucoseVectorEnv, draw_meals, simulate
from rlkit.errors import UserError


def plain_derivative(x: Any, carbs: float, insulin: float, meal: float) -> np.ndarray:
    """The equations by name; states are held where they are negative."""
    q1, q2, q3, gp, gt, ip, remote, i1, i_d, il, s1, s2, gs = x
    if meal > 0:
        a, b = 2.5 / ((1 - g.B) * meal), 2.5 / (g.D * meal)
        bend = np.tanh(a * (q1 + q2 - g.B * meal)) - np.tanh(b * (q1 + q2 - g.D * meal)) + 2
        gut = g.K_MIN + (g.K_MAX - g.K_MIN) / 2 * bend
    else:
        gut = g.K_MAX
    production = max(g.KP1 - g.KP2 * gp - g.KP3 * i_d, 0)
    appearance = g.F * g.K_ABS * q3 / g.BW
    excretion = g.KE1 * (gp - g.KE2) if gp > g.KE2 else 0.0
    used = (g.VM0 + g.VMX * remote) * gt / (g.KM0 + gt)
    plasma = ip / g.VI
    change = np.array(
        [
            carbs * 1000 - g.K_MAX * q1,
            g.K_MAX * q1 - gut * q2,
            gut * q2 - g.K_ABS * q3,
            production + appearance - g.F_SNC - excretion - g.K1 * gp + g.K2 * gt,
            g.K1 * gp - g.K2 * gt - used,
            g.M1 * il + g.KA1 * s1 + g.KA2 * s2 - (g.M2 + g.M4) * ip,
            g.P2U * (plasma - g.IB - remote),
            g.KI * (plasma - i1),
            g.KI * (i1 - i_d),
            g.M2 * ip - (g.M1 + g.M30) * il,
            6000 * insulin / g.BW - (g.KA1 + g.KD) * s1,
            g.KD * s1 - g.KA2 * s2,
            g.KSC * (gp - gs),
        ]
    )
    held = [k for k in (3, 4, 5, 9, 10, 11, 12) if x[k] < 0]
    change[held] = 0
    return change


def runge_kutta(f: Any, x: np.ndarray) -> np.ndarray:
    """A minute in one step of the classical method."""
    k1 = f(x)
    k2 = f(x + k1 / 2)
    k3 = f(x + k2 / 2)
    return x + (k1 + 2 * k2 + 2 * k3 + f(x + k3)) / 6


def accurate(f: Any, x: np.ndarray) -> np.ndarray:
    """A minute by SciPy's eighth-order method."""
    return solve_ivp(lambda _t, y: f(y), (0, 1), x, "DOP853", rtol=1e-9).y[:, -1]


def plain_simulation(insulin: np.ndarray, meals: dict[int, float], minute_of: Any) -> list[float]:
    x, left, onset, eaten, before = np.array(g.START, float), 0.0, 0.0, 0.0, 0.0
    found = [x[12] / g.VG]
    for minute, rate in enumerate(insulin):
        left += meals.get(minute, 0.0)
        carbs = min(5.0, left)
        left -= carbs
        if carbs > 0 and before <= 0:
            onset, eaten = x[0] + x[1], 0.0
        eaten, before = eaten + carbs, carbs
        arguments = (carbs, float(rate), onset + 1000 * eaten)
        x = minute_of(lambda y, a=arguments: plain_derivative(y, *a), x)
        found.append(x[12] / g.VG)
    return found


def test_golden_trajectories() -> None:
    basal = simulate(np.full(1440, BASAL))
    assert np.abs(basal - 138.560).max() < 1e-3
    meal = simulate(np.full(720, BASAL), {60: 80.0})
    assert meal.max() == pytest.approx(256.06, abs=0.005) and meal.argmax() == 324
    assert meal[720] == pytest.approx(160.72, abs=0.005)
    assert simulate(np.zeros(1440))[-1] == pytest.approx(363.92, abs=0.005)
    assert simulate(np.full(600, 0.1 * INSULIN_PER_ACTION))[-1] == pytest.approx(11.69, abs=0.005)
    assert pytest.approx(0.02112, abs=5e-6) == BASAL


@settings(max_examples=8, deadline=None)
@given(
    st.dictionaries(st.integers(0, 100), st.floats(1, 120), max_size=3),
    st.lists(st.floats(0, 0.09), min_size=4, max_size=4),
)
def test_the_kernel_is_the_plain_method(meals: dict[int, float], rates: list[float]) -> None:
    insulin = np.repeat(rates, 40)
    np.testing.assert_allclose(simulate(insulin, meals), plain_simulation(insulin, meals, runge_kutta), rtol=1e-9)


def test_the_kernel_is_accurate() -> None:
    insulin, meals = np.full(500, BASAL), {60: 80.0}
    assert np.abs(simulate(insulin, meals) - plain_simulation(insulin, meals, accurate)).max() < 2e-4


def test_meals_are_as_described() -> None:
    minutes, grams = draw_meals(np.random.default_rng(0), 4000)
    minutes, grams = minutes.reshape(-1, 6) % 1440, grams.reshape(-1, 6)
    assert (minutes >= 60 * g.FROM).all() and (minutes <= 60 * g.UNTIL).all()
    assert (grams > 0).mean(axis=0) == pytest.approx(g.CHANCE, abs=0.03)
    taken = [grams[:, k][grams[:, k] > 0] for k in range(6)]
    assert [t.mean() for t in taken] == pytest.approx(g.GRAMS, rel=0.02)
    assert taken[0].std() == pytest.approx(0.15 * g.GRAMS[0], rel=0.05)
    assert minutes[:, 1].mean() == pytest.approx(570, abs=2)  # cut symmetrically


def test_rewards_and_observations_of_a_step() -> None:
    env = GlucoseEnv()
    env.reset(seed=4)
    seen, reward, ended, _, info = env.step(np.array([0.03], np.float32))
    insulin, level = 43.2 * BASAL * 0.03, info["glucose"]
    assert seen[0, -1] == pytest.approx((level - 100) / 100, abs=1e-5)
    assert seen[1, -1] == pytest.approx(10 * insulin, abs=1e-5)
    assert info["true_reward"] == pytest.approx(-10 * (3.5506 * (np.log(level) ** 0.8353 - 3.7932)) ** 2)
    assert reward == info["proxy_reward"] == pytest.approx(-0.32 * insulin - 0.128 * (level < 70))
    assert not ended


def test_death_costs_a_hundred_and_is_left_out_of_info() -> None:
    env = gym.make("rlkit/Glucose-v0", reward="true")
    env.reset(seed=0)
    for t in range(2000):  # noqa: B007  # how long it took is looked at
        _, reward, ended, truncated, info = env.step(np.array([0.1], np.float32))
        if ended:
            break
    assert ended and not truncated and 20 < t < 500
    assert info["glucose"] < 10 and reward == pytest.approx(info["true_reward"] - 100)


@pytest.mark.parametrize("n", [2, 17])
def test_the_batch_is_single_patients(n: int) -> None:
    kwargs = {"horizon": 30, "reward": "true"}
    batch, singles = GlucoseVectorEnv(n, **kwargs), [GlucoseEnv(**kwargs) for _ in range(2)]
    seen, _ = batch.reset(seed=7)
    for i, env in enumerate(singles):
        assert (env.reset(seed=7 + i)[0] == seen[i]).all()
    batch.action_space.seed(0)
    for t in range(70):
        actions = batch.action_space.sample()
        seen, rewards, ends, cuts, infos = batch.step(actions)
        for i, env in enumerate(singles):
            if t in (30, 61):
                assert (env.reset()[0] == seen[i]).all()
                continue
            one, reward, ended, truncated, info = env.step(actions[i])
            assert (one == seen[i]).all() and (reward, ended, truncated) == (rewards[i], ends[i], cuts[i])
            assert info == {key: infos[key][i] for key in info}
            assert truncated == (t in (29, 60))


def test_a_restored_patient_goes_on() -> None:
    env, other = (gym.make("rlkit/Glucose-v0", horizon=200) for _ in range(2))
    env.reset(seed=3)
    for _ in range(50):
        env.step(np.array([0.02], np.float32))
    state = environment_state(env)
    assert state is not None
    set_environment_state(other, state)
    for _ in range(160):
        left, right = (e.step(np.array([0.03], np.float32)) for e in (env, other))
        assert left[0].tobytes() == right[0].tobytes() and left[1:] == right[1:]
        if left[3]:
            assert env.reset()[0].tobytes() == other.reset()[0].tobytes()
            break


def test_bad_input_gets_a_sentence() -> None:
    for make in (GlucoseEnv, GlucoseVectorEnv):
        with pytest.raises(UserError, match="reward=cost is unknown, expected one of proxy, true"):
            make(reward="cost")
        with pytest.raises(UserError, match="horizon=0 is out of range"):
            make(horizon=0)
    env = GlucoseVectorEnv(2)
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"expected finite actions of shape \(2, 1\)"):
        env.step(np.array([[np.nan], [0.0]]))
    with pytest.raises(UserError, match=r"expected finite actions of shape \(2, 1\)"):
        env.step(np.zeros(2))
