"""DR-RPO and its peers: dual, regression, plans and what they learn, against plain and exact counterparts."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from rlkit.agents.drrpo import dual as robust_dual
from rlkit.agents.drrpo.core import METHODS, DRRPOConfig, Planner, State, bonus, greedy, soft_value, softmax
from rlkit.agents.drrpo.dual import add_sample, nu_tv, refactor
from rlkit.envs.robust import american_put as put
from rlkit.envs.robust.linear_mdp import LinearMDP, LinearMDPEnv, optimal_value, policy_value, worst_case_means

# ---- plain counterparts ----------------------------------------------------------------------------------------------


def plain_dual(coefficients: np.ndarray, values: np.ndarray, radii: np.ndarray, least: float = 0.0) -> tuple:
    """ν [d] and α [d], the objective written out at every corner."""
    corners = np.concatenate([[least], np.sort(values)])
    objective = np.stack([coefficients @ np.minimum(values, a) - radii * (a - least) for a in corners])  # [n + 1, d]
    return objective.max(axis=0), objective


def signed_case(seed: int, n: int = 12, d: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients of a real ridge regression, so of both signs; values in [0, 3]; radii in [0, 1]."""
    rng = np.random.default_rng(seed)
    phi = rng.dirichlet(np.full(d, 0.5), n)  # [n, d]
    coefficients = np.linalg.solve(0.1 * np.eye(d) + phi.T @ phi, phi.T)  # [d, n]
    return coefficients, rng.uniform(0, 3, n), rng.uniform(0, 1, d)


def rollouts(planner: Planner, state: State, env: Any, episodes: int) -> list[Any]:
    """Run and return every transition."""
    seen = []
    for _ in range(episodes):
        planner.improve(state)
        steps, _ = planner.play(state, env)
        planner.record(state, steps)
        state.counters[1] += 1
        seen += steps
    return seen


def train(method: str, env: Any, seed: int, episodes: int = 100, **options: Any) -> tuple[Planner, State]:
    planner = Planner(env.problem, DRRPOConfig(method=method, **{"ridge": 0.1, **options}))
    state = planner.initial(seed)
    for _ in range(episodes):
        planner.run_episode(state, env)
    return planner, state


def table(planner: Planner, policy: Any) -> np.ndarray:
    """[H, S, A] of a policy on the linear MDP."""
    return np.stack([planner.probabilities(policy, planner.problem.observations(h)) for h in range(3)])


# ---- the dual --------------------------------------------------------------------------------------------------------


def test_the_dual_is_the_linear_programs_optimum() -> None:
    rng = np.random.default_rng(0)
    for case in range(200):
        n = int(rng.integers(2, 9))
        mu, values, rho = rng.dirichlet(np.ones(n)), rng.uniform(0, 3, n), rng.uniform()
        if case % 2:
            values[0] = 0.0  # a fail state
        least = values.min()
        # m = mu + up - down, up and down >= 0, Σ(up + down) <= 2ρ, Σ(up - down) = 0, m >= 0
        bounds = [(0, None)] * n + [(0, float(p)) for p in mu]
        solved = linprog(
            np.concatenate([values, -values]),
            A_ub=np.ones((1, 2 * n)),
            b_ub=[2 * rho],
            A_eq=np.concatenate([np.ones(n), -np.ones(n)])[None],
            b_eq=[0.0],
            bounds=bounds,
        )
        expected = mu @ values + solved.fun
        nu, _ = nu_tv(mu[None], values, np.array([rho]), least)
        assert abs(nu[0] - expected) <= 1e-9
        assert abs(worst_case_means(mu[None], values, np.array([rho]))[0] - expected) <= 1e-9


@pytest.mark.parametrize("seed", range(30))
def test_no_search_beats_the_corners(seed: int) -> None:
    coefficients, values, radii = signed_case(seed)
    nu, alpha = nu_tv(coefficients, values, radii)
    for i, row in enumerate(coefficients):

        def objective(a: float, row: np.ndarray = row, rho: float = radii[i]) -> float:
            return float(row @ np.minimum(values, a) - rho * a)

        assert objective(alpha[i]) == pytest.approx(nu[i], abs=1e-12)
        assert nu[i] >= max(objective(a) for a in np.linspace(0, 3, 500)) - 1e-12
        found = minimize(lambda a, f=objective: -f(np.clip(a[0], 0, 3)), [1.0], method="Nelder-Mead")
        assert nu[i] >= -found.fun - 1e-12


def test_a_search_can_miss_the_maximum() -> None:
    """Slopes 1.1, -0.9, 0.6 between the corners: a search from the left stays on the first hill."""
    coefficients, values = np.array([[2.0, -1.5, 0.8]]), np.array([0.5, 1.5, 4.0])
    nu, alpha = nu_tv(coefficients, values, np.array([0.2]))
    assert alpha[0] == 4.0 and nu[0] == pytest.approx(1.0 - 2.25 + 3.2 - 0.8)

    def descent(a: np.ndarray) -> float:
        return -float(coefficients[0] @ np.minimum(values, np.clip(a[0], 0, 4)) - 0.2 * np.clip(a[0], 0, 4))

    assert -minimize(descent, [0.1], method="Nelder-Mead").fun < nu[0] - 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 6))
def test_the_kernel_is_its_plain_counterpart(seed: int, n: int, d: int) -> None:
    coefficients, values, radii = signed_case(seed, n, d)
    if seed % 3 == 0:
        values = np.round(values)  # ties
    least = -1.0 if seed % 2 else 0.0
    nu, alpha = nu_tv(coefficients, values, radii, least)
    expected, objective = plain_dual(coefficients, values, radii, least)
    np.testing.assert_allclose(nu, expected, rtol=0, atol=1e-12)
    for i in range(d):
        assert coefficients[i] @ np.minimum(values, alpha[i]) - radii[i] * (alpha[i] - least) == pytest.approx(
            objective[:, i].max(), abs=1e-12
        )


def test_batches_and_threads_change_no_bit() -> None:
    cases = [signed_case(seed) for seed in range(6)]
    coefficients, values, radii = (np.stack(column) for column in zip(*cases, strict=True))
    nu, alpha = nu_tv(coefficients, values, radii)
    for b, case in enumerate(cases):
        one = nu_tv(*case)
        assert np.array_equal(one[0], nu[b]) and np.array_equal(one[1], alpha[b])
    order = np.argsort(values, axis=-1, kind="stable")
    threaded = np.empty_like(nu), np.empty_like(alpha)
    robust_dual._dual_parallel(coefficients, values, order, radii, 0.0, *threaded)
    assert np.array_equal(threaded[0], nu) and np.array_equal(threaded[1], alpha)
    none = nu_tv(np.zeros((4, 0)), np.zeros(0), np.full(4, 0.5))
    assert not none[0].any() and not none[1].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_a_larger_radius_never_gains(seed: int) -> None:
    coefficients, values, _ = signed_case(seed)
    radii = np.linspace(0, 1, 21)
    found = np.stack([nu_tv(coefficients, values, np.full(5, rho))[0] for rho in radii])
    assert (np.diff(found, axis=0) <= 1e-12).all()
    mu = np.random.default_rng(seed).dirichlet(np.ones(12))[None]
    values[0] = 0.0
    robust = np.array([nu_tv(mu, values, np.array([rho]))[0][0] for rho in radii])
    assert robust[-1] == pytest.approx(0, abs=1e-12)
    assert (robust <= (mu @ values)[0] + 1e-12).all()
    assert robust[0] == pytest.approx((mu @ values)[0])


def test_at_radius_zero_signed_coefficients_exceed_the_regression() -> None:
    """Hence the bypass: ρ = 0 is not the non-robust method."""
    gaps = []
    for seed in range(200):
        coefficients, values, _ = signed_case(seed)
        gaps.append(nu_tv(coefficients, values, np.zeros(5))[0] - coefficients @ values)
    assert np.min(gaps) >= -1e-12 and np.max(gaps) > 0.01


# ---- the regression --------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 5))
def test_one_sample_at_a_time_is_the_whole_regression(seed: int, d: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    ridge, count = 0.3, 25
    phi, weights = rng.dirichlet(np.ones(d), count), rng.uniform(0.1, 2, count)
    rows = rng.integers(0, m, count)
    gram, inverse = ridge * np.eye(d), np.eye(d) / ridge
    sums, coefficients = np.zeros((m, d)), np.zeros((m, d))
    grown = sum(add_sample(gram, inverse, sums, coefficients, phi[t], weights[t], rows[t]) for t in range(count))
    whole = ridge * np.eye(d) + (phi * weights[:, None]).T @ phi
    expected = np.stack([(phi * weights[:, None])[rows == r].sum(axis=0) for r in range(m)])
    np.testing.assert_allclose(gram, whole, rtol=1e-12)
    np.testing.assert_allclose(sums, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(inverse, np.linalg.inv(whole), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(coefficients, expected @ np.linalg.inv(whole), rtol=1e-10, atol=1e-12)
    assert grown == pytest.approx(np.linalg.slogdet(whole)[1] - d * np.log(ridge), rel=1e-10)
    for ours, theirs in zip(refactor(gram, sums), (inverse, coefficients), strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_five_thousand_updates_stay_accurate() -> None:
    env = put.AmericanPutEnv()
    planner = Planner(env.problem, DRRPOConfig(ridge=0.1))
    state, rng = planner.initial(0), np.random.default_rng(0)
    for _ in range(5000):
        observation = np.array([rng.uniform(82, 122), 3.0])
        feature = planner.describe(observation[None])[0][0, put.CONTINUE]
        planner.observe(state, 3, feature, 0.0, np.array([float(rng.integers(85, 115)), 4.0]), False)
    used = slice(state.size[3])
    exact = np.linalg.inv(state.gram[3])
    for ours, theirs in ((state.inverse[3], exact), (state.coefficients[3, used], state.sums[3, used] @ exact)):
        assert np.abs(ours - theirs).max() <= 1e-8 * np.abs(theirs).max()
    assert state.log_det[3] == pytest.approx(np.linalg.slogdet(state.gram[3])[1], rel=1e-8)
    assert state.size[3] == 30 and state.updates[3] == 5000


def test_pooled_next_states_are_the_same_regression() -> None:
    for method in ("drrpo", "we-drive-u", "oppo"):
        env = LinearMDPEnv(0.2)
        planners = [Planner(env.problem, DRRPOConfig(method=method, pool=pool)) for pool in (True, False)]
        states = [planner.initial(1) for planner in planners]
        for planner, state in zip(planners, states, strict=True):
            for _ in range(30):
                planner.run_episode(state, env)
        assert states[0].size.max() <= 4 and states[1].size[0] == 30
        np.testing.assert_allclose(states[0].weights, states[1].weights, rtol=0, atol=1e-9)


# ---- values ----------------------------------------------------------------------------------------------------------


def test_bonuses() -> None:
    rng = np.random.default_rng(0)
    phi = rng.dirichlet(np.ones(4), (3, 2))
    root = rng.normal(size=(4, 4))
    inverse = root @ root.T
    wide = np.sqrt(np.diag(inverse))
    total, diagonal = (bonus(phi, wide[None], kind)[0] for kind in ("sum", "diag2"))
    ellipse = bonus(phi, inverse[None], "elliptic")[0]
    for s, a in itertools.product(range(3), range(2)):
        x = phi[s, a]
        assert total[s, a] == pytest.approx(sum(x[i] * np.sqrt(inverse[i, i]) for i in range(4)))
        assert diagonal[s, a] == pytest.approx(np.sqrt(sum(x[i] ** 2 * inverse[i, i] for i in range(4))))
        assert ellipse[s, a] == pytest.approx(np.sqrt(x @ inverse @ x))
    assert (diagonal <= total + 1e-12).all() and (ellipse <= total + 1e-12).all()


def test_eta_runs_from_the_reference_to_the_best_action() -> None:
    rng = np.random.default_rng(0)
    q, reference = rng.uniform(0, 3, (5, 4)), rng.dirichlet(np.ones(4), 5)
    tiny = 1e-9
    np.testing.assert_allclose(softmax(tiny * q + np.log(reference)), reference, atol=1e-8)
    np.testing.assert_allclose(soft_value(q, np.log(reference), tiny), (reference * q).sum(axis=1), atol=1e-6)
    uniform = np.full_like(q, np.log(0.25))
    gap = q.max(axis=1) - soft_value(q, uniform, 1e4)
    assert (gap >= 0).all() and (gap <= np.log(4) / 1e4 + 1e-12).all()
    assert np.isfinite(soft_value(1e6 * q, np.log(reference), 1e4)).all()
    np.testing.assert_allclose(greedy(np.array([[1.0, 2.0, 2.0]])), [[0, 0.5, 0.5]])


def test_eta_1e4_plans_as_the_greedy_method() -> None:
    """V of whole plans from the same data differ by no more than H log|A|/η."""
    env = LinearMDPEnv(0.3)
    greedy_planner, state = train("dr-lsvi-ucb", env, 0, 60)
    soft_planner = Planner(env.problem, DRRPOConfig(eta=1e4, ridge=0.1))
    gap = greedy_planner.plan(state).weights - soft_planner.plan(state).weights
    assert np.abs(gap).max() <= 3 * np.log(16) / 1e4 * 2
    assert np.abs(gap).max() > 0


def test_the_robust_regularised_optimum_is_learnt() -> None:
    """With plenty of data and no bonus the plan's first value is the exact one: 1.0839 at η = 10, 1.3719 at η = 100."""
    model = LinearMDP(0.3)
    for eta, expected in ((10.0, 1.0839), (100.0, 1.3719)):
        planner = Planner(model, DRRPOConfig(eta=eta, beta=0.0, ridge=1e-6))
        state = planner.initial(0)
        for h, s, a in itertools.product(range(2), range(5), (0, 5, 15)):
            for following in np.flatnonzero(model.transitions[h, s, a]):
                weight = 1e6 * model.transitions[h, s, a, following]
                observation = np.array([following, h + 1.0])
                planner.observe(state, h, model.features[s, a], 0.0, observation, bool(following == 3), weight)
        planner.improve(state)
        phi, known = planner.describe(model.observations(0)[:1])
        q = planner.q_values(0, phi, known, state.weights[:, 0], state.spreads[:, 0])[0]
        assert soft_value(q, np.full((1, 16), -np.log(16)), eta)[0] == pytest.approx(expected, abs=5e-4)


def test_the_bypass_is_lsvi() -> None:
    """w = Λ⁻¹Φᵀ(r + max Q) from the raw samples, rewards unknown."""
    env = LinearMDPEnv(0.2)
    config = DRRPOConfig(method="lsvi-ucb", known_rewards=False, beta=0.7)
    planner = Planner(env.problem, config)
    state = planner.initial(3)
    steps = rollouts(planner, state, env, 40)
    found = planner.plan(state)
    features, following = env.problem.features, None
    for h in reversed(range(3)):
        mine = [step for step in steps if step.h == h]
        phi = np.stack([features[int(step.observation[0]), step.action] for step in mine])  # [n, d]
        inverse = np.linalg.inv(0.1 * np.eye(4) + phi.T @ phi)
        targets = np.array([step.reward for step in mine])
        if following is not None:
            weights, spread = following
            for t, step in enumerate(mine):
                x = features[int(step.following[0])]  # [A, d]
                width = np.sqrt(np.einsum("ai,ij,aj->a", x, spread, x))
                targets[t] += 0.0 if step.terminal else np.clip(x @ weights + 0.7 * width, 0, 2 - h).max()
        weights = inverse @ phi.T @ targets
        np.testing.assert_allclose(found.weights[h], weights, rtol=0, atol=1e-10)
        following = weights, inverse


class Tabular:
    """Six states, of which 0 fails, three actions, one-hot features; what :class:`Planner` needs to know of it."""

    horizon, num_actions, dim = 4, 3, 18
    caps = np.arange(4, -1.0, -1.0)

    def __init__(self, seed: int):
        rng = np.random.default_rng(seed)
        self.kernel = rng.dirichlet(np.ones(6), (4, 6, 3))  # [H, S, A, S]
        self.kernel[:, 0] = np.eye(6)[0]
        rewards = rng.uniform(0, 1, (4, 6, 3))
        rewards[:, 0] = 0
        self.reward_weights = rewards.reshape(4, 18)
        self.uncertain = np.ones((4, 18), bool)

    def describe(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        states = observations[:, 0].astype(int)
        return np.eye(18).reshape(6, 3, 18)[states], np.full((len(states), 3), np.nan)

    def optimum(self, rho: float) -> np.ndarray:
        """[H + 1, S] exact robust values."""
        values = np.zeros((5, 6))
        for h in reversed(range(4)):
            means = worst_case_means(self.kernel[h].reshape(18, 6), values[h + 1], np.full(18, rho)).reshape(6, 3)
            values[h] = (self.reward_weights[h].reshape(6, 3) + means).max(axis=1)
            values[h, 0] = 0
        return values


@pytest.mark.parametrize(("count", "bound"), [(10**2, 0.16), (10**3, 0.04), (10**4, 0.016), (10**5, 0.004)])
def test_tabular_values_converge_on_robust_dynamic_programming(count: int, bound: float) -> None:
    """About .08, .02, .008, .002 are expected; twice that is allowed, and the mean over problems held to it."""
    errors = []
    for seed in range(5):
        problem, rng = Tabular(seed), np.random.default_rng(100 + seed)
        planner = Planner(problem, DRRPOConfig(method="dr-lsvi-ucb", rho=0.2, beta=0.0, ridge=1e-6))
        state = planner.initial(0)
        for h, s, a in itertools.product(range(4), range(6), range(3)):
            times = rng.multinomial(count, problem.kernel[h, s, a])
            for following in np.flatnonzero(times):
                observation = np.array([float(following), h + 1.0])
                feature = np.eye(18)[3 * s + a]
                planner.observe(state, h, feature, 0.0, observation, bool(following == 0), float(times[following]))
        planner.improve(state)
        observations = np.stack([np.arange(6.0), np.zeros(6)], axis=1)
        phi, known = planner.describe(observations)
        found = planner.q_values(0, phi, known, state.weights[:, 0], state.spreads[:, 0])[0].max(axis=1)
        errors.append(np.abs(found - problem.optimum(0.2)[0])[1:].max())
    assert np.mean(errors) <= bound


# ---- what is learnt --------------------------------------------------------------------------------------------------


def returns(planner: Planner, policy: Any, xi_norm: float) -> np.ndarray:
    """Exact returns at shifts 0, 0.5 and 1."""
    tabled = table(planner, policy)
    return np.array([policy_value(LinearMDP(xi_norm, shift=q), tabled)[0, 0] for q in (0.0, 0.5, 1.0)])


@pytest.mark.parametrize("xi_norm", [0.1, 0.2, 0.3])
def test_robust_methods_agree_and_cross_the_nominal_one(xi_norm: float) -> None:
    """Four seeds of the twenty in ``scripts/robust_figures.py``, which also tabulates them."""
    means = {}
    for method in ("lsvi-ucb", "dr-lsvi-ucb", "drrpo"):
        runs = [train(method, LinearMDPEnv(xi_norm), seed) for seed in range(4)]
        means[method] = np.mean([returns(planner, planner.deployed(state), xi_norm) for planner, state in runs], axis=0)
    assert np.abs(means["drrpo"] - means["dr-lsvi-ucb"]).max() <= 0.03
    nominal, robust = means["lsvi-ucb"], means["drrpo"]
    assert nominal[0] > robust[0] and nominal[2] < robust[2]
    plus, minus = 0.3 + xi_norm, 0.3 - xi_norm
    following = 2 * plus + 0.999 * (1 - plus) * plus
    np.testing.assert_allclose(nominal, [2 * (1 - q) * plus + (1 - plus) * following for q in (0, 0.5, 1)], atol=0.03)
    np.testing.assert_allclose(robust, [2 * (1 - q) * minus + (1 - minus) * following for q in (0, 0.5, 1)], atol=0.03)
    gap = nominal - robust  # linear in the shift
    assert gap[0] / (gap[0] - gap[2]) == pytest.approx(1 - following / 2, abs=0.02)


@pytest.mark.slow
def test_the_put_is_robust_where_prices_rise() -> None:
    """Eight first prices spread evenly over [95, 105], twenty in the script; the crossing is within [.6, .7]."""
    drifts = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    means = {}
    for method in ("lsvi-ucb", "dr-lsvi-ucb", "drrpo"):
        curves = []
        for seed in range(8):
            s0 = 95.625 + 1.25 * seed
            planner, state = train(method, put.AmericanPutEnv(s0=s0), seed, eta=20.0, bonus="sum")
            policy = planner.deployed(state)
            tabled = [planner.probabilities(policy, planner.problem.observations(h)) for h in range(10)]
            curves.append([put.policy_value(put.AmericanPut(p_up=p, s0=s0), tabled) for p in drifts])
        means[method] = np.mean(curves, axis=0)
    assert np.abs(means["drrpo"] - means["dr-lsvi-ucb"]).max() <= 0.1
    gap = means["lsvi-ucb"] - means["drrpo"]
    assert (gap[:5] > 0).all() and (gap[5:] < 0).all()  # positive at .6, negative at .7


def regret(xi_norm: float, beta: float, episodes: int) -> np.ndarray:
    """Cumulative regularised robust regret."""
    env = LinearMDPEnv(xi_norm)
    planner = Planner(env.problem, DRRPOConfig(beta=beta, ridge=0.1))
    state = planner.initial(0)
    best = optimal_value(env.problem, planner.radii, 100.0)[0][0, 0]
    found = []
    for _ in range(episodes):
        planner.run_episode(state, env)
        played = policy_value(env.problem, table(planner, state.policy), planner.radii, 100.0)
        found.append(best - played[0, 0])
    return np.cumsum(found)


def slope(regrets: np.ndarray) -> float:
    """Log-log slope from episode 50 on."""
    count = np.arange(50, len(regrets) + 1)
    return float(np.polyfit(np.log(count), np.log(regrets[49:]), 1)[0])


@pytest.mark.slow
def test_regret_is_sublinear_only_with_enough_exploration() -> None:
    """To 500 episodes here, to 1600 and with more seeds in ``scripts/robust_figures.py``."""
    assert slope(regret(0.1, 1.0, 500)) < 0.9
    assert slope(regret(0.1, 0.1, 500)) > 0.9


def test_doubling_plans_rarely_and_learns_the_same() -> None:
    planner, state = train("drrpo", LinearMDPEnv(0.3), 0, 400, refresh="doubling")
    assert 10 <= state.plans <= 25
    np.testing.assert_allclose(returns(planner, planner.deployed(state), 0.3), 1.43976, atol=0.01)


def test_uniform_uncertainty_flips_nothing() -> None:
    """Why only factor 4 of the first step is uncertain."""
    model = LinearMDP(0.3)
    for rho in (0.3, 0.5, 0.8):
        _, policy = optimal_value(model, np.full((3, 4), rho))
        assert policy[0, 0].argmax() == 15
    assert optimal_value(model, 0.5 * model.uncertain)[1][0, 0].argmax() == 0


# ---- the state and the options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [LinearMDPEnv, put.AmericanPutEnv])
def test_a_restored_state_goes_on_byte_for_byte(method: str, make: Any, tmp_path: Any) -> None:
    planner = Planner(make().problem, DRRPOConfig(method=method))
    whole = planner.initial(5)
    env = make()
    expected = [planner.run_episode(whole, env) for _ in range(14)]
    part = planner.initial(5)
    for k in range(14):
        metrics = planner.run_episode(part, make())
        assert metrics == expected[k]
        if k == 7:
            np.savez(tmp_path / "state.npz", **part.arrays())
            with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
                part = State.from_arrays(dict(file))
    for name, value in whole.arrays().items():
        assert value.tobytes() == part.arrays()[name].tobytes(), name
        assert value.dtype == part.arrays()[name].dtype
    assert part.episodes == 14
    other = planner.initial(6)
    for _ in range(14):
        planner.run_episode(other, env)
    assert other.gram.tobytes() != whole.gram.tobytes()


@pytest.mark.parametrize("options", [{"bonus": kind} for kind in ("sum", "diag2", "elliptic")] + [{"cap": "tight"}])
@pytest.mark.parametrize("known", [True, False])
def test_every_option_learns_the_optimum_of_a_wide_margin(options: dict, known: bool) -> None:
    planner, state = train("drrpo", LinearMDPEnv(0.3), 0, 150, known_rewards=known, **options)
    np.testing.assert_allclose(returns(planner, planner.deployed(state), 0.3)[1:], 1.44, atol=0.06)


def test_mirror_descent_follows_its_equations() -> None:
    """π^{k+1} ∝ π^k exp(ηQ^k) with the Q of a plan that evaluated π^k."""
    env = LinearMDPEnv(0.2)
    planner = Planner(env.problem, DRRPOConfig(method="drrpo-mirror", eta=0.5))
    state = planner.initial(0)
    observations = env.problem.observations(0)
    for k in range(12):
        before = planner.probabilities(state.policy, observations)
        planner.improve(state)
        phi, known = planner.describe(observations)
        q = planner.q_values(0, phi, known, state.weights[-1:, 0], state.spreads[-1:, 0])[0]
        raised = before * np.exp(0.5 * q)
        after = planner.probabilities(state.policy, observations)
        np.testing.assert_allclose(after, raised / raised.sum(axis=1, keepdims=True), rtol=1e-10)
        steps, _ = planner.play(state, env)
        planner.record(state, steps)
        state.counters[1] += 1
        assert len(state.gains) == k + 1


def test_we_drive_u_never_raises_q_and_weights_by_variance() -> None:
    env = LinearMDPEnv(0.2)
    planner = Planner(env.problem, DRRPOConfig(method="we-drive-u"))
    assert planner.ridge == pytest.approx(1 / 9)
    state, last = planner.initial(0), np.inf
    phi, known = planner.describe(env.problem.observations(1))
    for _ in range(60):
        planner.run_episode(state, env)
        q = planner.q_values(1, phi, known, state.weights[:, 1], state.spreads[:, 1]).min(axis=0)
        assert (q <= last).all()
        last = q
    state.moments[0] = [[1.0, 0, 0, 0], [3.5, 0, 0, 0]]  # mean 1, square 3.5: variance 2.5
    assert planner.sample_weight(state, 0, np.array([1.0, 0, 0, 0])) == pytest.approx(1 / 2.5)
    assert planner.sample_weight(state, 0, np.array([0.0, 1.0, 0, 0])) == 1.0


def test_annealing_ends_greedy() -> None:
    planner = Planner(LinearMDP(0.3), DRRPOConfig(method="drrpo-annealed", eta=2.0))
    assert [planner.eta(k) for k in (1, 2, 100)] == [2.0, 4.0, 200.0]


def test_a_reference_policy_is_kept_to() -> None:
    env = LinearMDPEnv(0.3)
    probabilities = np.full(16, 0.01 / 15)
    probabilities[7] = 0.99
    fixed = Planner(env.problem, DRRPOConfig(reference=probabilities.tolist(), eta=0.01))
    asked = Planner(
        env.problem, DRRPOConfig(eta=0.01), lambda observations: np.tile(probabilities, (len(observations), 1))
    )
    found = []
    for planner in (fixed, asked):
        state = planner.initial(0)
        for _ in range(5):
            planner.run_episode(state, env)
        found.append(planner.probabilities(state.policy, env.problem.observations(0)))
        assert found[-1][0, 7] == pytest.approx(0.99, abs=0.001)
    assert np.array_equal(*found)


def test_deployment_drops_the_bonus_and_takes_the_best_action_when_asked() -> None:
    env = LinearMDPEnv(0.3)
    planner, state = train("drrpo", env, 0, 40)
    policy = planner.deployed(state)
    assert not policy.spreads.any() and state.spreads.any()
    kept = Planner(env.problem, DRRPOConfig(deploy_bonus=True)).deployed(state)
    assert np.array_equal(kept.spreads, state.spreads)
    observations = np.array([[0.0, 0], [1, 1], [0, 0], [2, 2]])
    soft = planner.probabilities(policy, observations)
    best = planner.probabilities(policy, observations, deterministic=True)
    assert np.array_equal(soft[0], soft[2]) and soft[0].max() < 1
    assert (best.max(axis=1) > 0).all() and np.array_equal(best.argmax(axis=1), soft.argmax(axis=1))


def test_before_any_episode_the_policy_is_the_reference() -> None:
    for method in METHODS:
        planner = Planner(LinearMDP(), DRRPOConfig(method=method))
        state = planner.initial(0)
        found = planner.probabilities(planner.deployed(state), planner.problem.observations(0))
        np.testing.assert_allclose(found, 1 / 16)


def test_what_is_known_teaches_nothing() -> None:
    """Exercised steps are no samples of continuing."""
    env = put.AmericanPutEnv()
    planner = Planner(env.problem, DRRPOConfig(eta=20.0))
    state = planner.initial(0)
    steps = rollouts(planner, state, env, 60)
    continued = np.bincount([s.h for s in steps if s.action == put.CONTINUE], minlength=10)
    assert np.array_equal(state.updates, continued) and any(s.action == put.EXERCISE for s in steps)


def test_a_time_limit_bootstraps_and_a_termination_does_not() -> None:
    env = gym.wrappers.TimeLimit(LinearMDPEnv(0.3), 1)
    planner = Planner(env.unwrapped.problem, DRRPOConfig())
    state = planner.initial(0)
    steps = rollouts(planner, state, env, 50)
    assert {step.terminal for step in steps if step.following[0] != 3} == {False}
    assert not state.terminal[0, : state.size[0]].all()
    assert planner.plan(state).weights[0, 0] > 1.0  # x2 is worth about V_2
    planner.observe(state, 1, np.eye(4)[0], 0.0, np.array([1.0, 2.0]), True)
    assert state.terminal[1, 0] and not state.phi[1, 0].any()
