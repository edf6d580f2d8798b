"""The linear MDP and the American put: laws by hand, exact values by enumeration, bad arguments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rlkit.envs.robust import american_put as put
from rlkit.envs.robust import linear_mdp as lin
from rlkit.errors import UserError
from rlkit.vector import make_vector_env


@pytest.mark.parametrize("shift", [None, 0.0, 0.4, 1.0])
def test_transitions_are_distributions_and_features_a_partition_of_unity(shift: float | None) -> None:
    model = lin.LinearMDP(0.2, 0.3, shift)
    np.testing.assert_allclose(model.transitions.sum(-1), 1, atol=1e-12)
    assert model.transitions.min() >= 0 and model.features.min() >= 0
    np.testing.assert_allclose(model.features.sum(-1), 1, atol=1e-12)


@pytest.mark.parametrize("xi_norm", [0.1, 0.2, 0.3])
def test_first_actions_earn_their_closed_form(xi_norm: float) -> None:
    plus = 0.3 + xi_norm
    following = 2 * plus + 0.999 * (1 - plus) * plus
    for q, (action, p) in itertools.product((0.0, 0.5, 1.0), ((15, plus), (0, 0.3 - xi_norm))):
        policy = np.zeros((3, 5, 16))
        policy[:, :, 15] = 1
        policy[0] = np.eye(16)[action]
        found = lin.policy_value(lin.LinearMDP(xi_norm, 0.3, q), policy, np.zeros((3, 4)))[0, 0]
        assert found == pytest.approx(2 * (1 - q) * p + (1 - p) * following, abs=2e-3)


def test_simulated_returns_average_to_the_exact_value() -> None:
    for env_id, kwargs in (("rlkit/LinearMDP-v0", {"shift": 0.5}), ("rlkit/AmericanPut-v0", {"p_up": 0.3})):
        n = 4000
        env = make_vector_env(env_id, n, **kwargs)
        observations, _ = env.reset(seed=0)
        returns, running = np.zeros(n), np.ones(n, bool)
        while running.any():
            late = observations[:, 1] >= 3
            actions = late.astype(np.int64) if "Put" in env_id else np.full(n, 15)
            observations, rewards, terminations, truncations, _ = env.step(actions)
            returns[running] += rewards[running]
            running &= ~(terminations | truncations)
        env.close()
        if "Put" in env_id:
            rises = np.array([0, 1, 2, 3])
            price = 100 * put.UP**rises * put.DOWN ** (3 - rises)
            law = np.array([0.343, 0.441, 0.189, 0.027])  # Binomial(3, 0.3)
            exact = float(law @ np.maximum(0, put.STRIKE - price))
        else:
            policy = np.zeros((3, 5, 16))
            policy[:, :, 15] = 1
            exact = lin.policy_value(lin.LinearMDP(shift=0.5), policy, np.zeros((3, 4)))[0, 0]
        assert returns.mean() == pytest.approx(exact, abs=4 * returns.std() / np.sqrt(n))


def test_optimal_values_bound_every_policy() -> None:
    model = lin.LinearMDP(0.2)
    radii = 0.5 * model.uncertain
    best = lin.optimal_value(model, radii)[0][0, 0]
    generator = np.random.default_rng(0)
    for _ in range(20):
        policy = generator.dirichlet(np.ones(16), (3, 5))
        assert lin.policy_value(model, policy, radii)[0, 0] <= best + 1e-9
    value, _ = put.optimal_value(put.AmericanPut())
    assert value > 0


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: lin.LinearMDP(0.4, 0.3), "give probabilities from -0.1 to 0.7"),
        (lambda: lin.LinearMDP(shift=1.5), "shift=1.5 is out of range"),
        (lambda: put.AmericanPut(p_up=-0.1), "p_up=-0.1 is out of range"),
        (lambda: put.AmericanPut(horizon=0), "horizon=0 is out of range"),
        (lambda: put.AmericanPut(s0=0.0), "s0=0.0 is out of range"),
        (lambda: put.AmericanPut(cap=3.0), "cap=3.0 is below the largest payoff"),
    ],
)
def test_bad_arguments_get_a_sentence(make: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()  # type: ignore[operator]
