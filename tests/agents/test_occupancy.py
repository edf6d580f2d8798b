"""Occupancies and divergences: the toy garden's published values, the bound, and gradients by finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import occupancy as o
import pytest
from garden import toy

from rlkit.errors import UserError


def random_problem(seed: int) -> tuple[Any, ...]:
    """transitions, start, two policies, proxy and true reward, the latter two correlated under the second policy."""
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.full(6, 0.5), (6, 3))
    policy, base = rng.dirichlet(np.ones(3), (2, 6))
    proxy = rng.normal(size=(6, 3))
    return transitions, rng.dirichlet(np.ones(6)), policy, base, proxy, proxy + rng.normal(size=(6, 3))


def test_divergences_of_the_toy_garden() -> None:
    mu, nu, policy, base = toy()
    assert mu.sum() == pytest.approx(1) and nu.sum() == pytest.approx(1)
    assert o.divergence(mu, nu, "kl") == pytest.approx(0.9550, abs=5e-5)
    assert o.divergence(mu, nu, "chi2") == pytest.approx(3.3726, abs=5e-5)
    assert o.divergence(mu, nu, "sqrt_chi2") == pytest.approx(3.3726**0.5, abs=5e-5)
    first, second = o.measured(mu, "state"), o.measured(nu, "state")
    assert o.divergence(first, second, "kl") == pytest.approx(0.5731, abs=5e-5)
    assert o.divergence(first, second, "chi2") == pytest.approx(1.1863, abs=5e-5)
    action = o.action_divergence(mu, policy, base, "kl")
    assert action == pytest.approx(0.3819, abs=5e-5)
    assert action == pytest.approx(o.divergence(mu, nu, "kl") - o.divergence(first, second, "kl"), abs=1e-12)


def test_divergences_where_support_is_missing() -> None:
    mu, nu = np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.0, 0.5])
    assert o.divergence(mu, nu, "kl") == o.divergence(mu, nu, "chi2") == np.inf
    assert o.divergence(mu, nu, "tv") == 0.5
    for kind in o.DIVERGENCES:
        assert o.divergence(mu, mu, kind) == pytest.approx(0)
    with pytest.raises(UserError, match="divergence=js is unknown, expected one of sqrt_chi2"):
        o.divergence(mu, nu, "js")
    with pytest.raises(UserError, match=r"discount=1\.0 is out of range"):
        o.occupancy(np.ones((1, 1, 1)), np.ones(1), np.ones((1, 1)), 1.0)


@pytest.mark.parametrize("kind", o.DIVERGENCES)
def test_first_order_change_of_a_divergence(kind: str) -> None:
    rng = np.random.default_rng(0)
    mu, nu = rng.dirichlet(np.ones(12), 2)
    gradient = o.divergence_gradient(mu, nu, kind)
    direction = rng.normal(size=12)
    direction -= direction.mean()  # within the simplex
    step = 1e-7
    ahead, behind = (o.divergence(mu + sign * step * direction, nu, kind) for sign in (1, -1))
    assert gradient @ direction == pytest.approx((ahead - behind) / (2 * step), rel=1e-5, abs=1e-6)


def test_the_bound_holds_wherever_the_proxy_correlates() -> None:
    held, tight = 0, []
    for seed in range(300):
        transitions, start, policy, base, proxy, true = random_problem(seed)
        mu, nu = (o.occupancy(transitions, start, p, 0.9) for p in (policy, base))
        if o.moments(nu, proxy, true)[2] <= 0:
            with pytest.raises(UserError, match="expected a number above 0"):
                o.guarantee(mu, nu, proxy, true)
            continue
        gain, promised = o.guarantee(mu, nu, proxy, true)
        assert gain >= promised - 1e-9
        held += 1
        tight.append(gain - promised)
    assert held > 200 and min(tight) < 0.5  # the bound is not met by being empty


def test_the_bound_promises_nothing_of_the_base_policy_itself() -> None:
    transitions, start, _, base, proxy, _ = random_problem(0)
    nu = o.occupancy(transitions, start, base, 0.9)
    assert o.guarantee(nu, nu, proxy, 2 * proxy + 1) == pytest.approx((0, 0), abs=1e-6)


@pytest.mark.parametrize("kind", o.DIVERGENCES)
@pytest.mark.parametrize("seed", range(3))
def test_the_shaped_reward_has_the_objectives_gradient(kind: str, seed: int) -> None:
    transitions, start, _, base, proxy, _ = random_problem(seed)
    logits, weight = np.random.default_rng(seed).normal(size=(6, 3)), 0.3
    nu = o.occupancy(transitions, start, base, 0.9)

    def occupancy(x: np.ndarray) -> np.ndarray:
        policy = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        return o.occupancy(transitions, start, policy, 0.9)

    def objective(x: np.ndarray) -> float:
        mu = occupancy(x)
        return float((mu * proxy).sum() - weight * o.divergence(mu, nu, kind))

    policy = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    shaped = proxy - weight * o.divergence_gradient(occupancy(logits), nu, kind)
    found = o.policy_gradient(transitions, start, policy, shaped, 0.9)
    for index in np.ndindex(6, 3):
        moved = np.zeros((6, 3))
        moved[index] = 1e-6
        difference = (objective(logits + moved) - objective(logits - moved)) / 2e-6
        assert found[index] == pytest.approx(difference, rel=1e-4, abs=1e-8)


def test_regularising_by_the_bounds_own_weight_keeps_the_truth() -> None:
    """Ascent from π_ref on what the bound promises never loses true reward; on the proxy alone it sometimes does."""
    fell, promises = 0, []
    for seed in range(40):
        transitions, start, _, base, proxy, noisy = random_problem(seed // 2)
        # a proxy that is nearly the truth, and a poor one
        true = proxy + 0.2 * (noisy - proxy) if seed % 2 else noisy - 0.8 * proxy
        nu = o.occupancy(transitions, start, base, 0.9)
        sd, _, r = o.moments(nu, proxy, true)
        if r <= 0.1:
            continue
        for weight in (sd * (1 - r * r) ** 0.5, 0.0):
            logits, best = np.log(base), (0.0, 0.0, 0.0)
            for _ in range(120):
                policy = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                mu = o.occupancy(transitions, start, policy, 0.9)
                apart = o.divergence(mu, nu, "sqrt_chi2")
                gain, promised = o.guarantee(mu, nu, proxy, true)
                best = max(best, (float((mu * proxy).sum() - weight * apart - (nu * proxy).sum()), gain, promised))
                shaped = proxy - (weight * o.divergence_gradient(mu, nu, "sqrt_chi2") if apart > 1e-3 else 0.0)
                logits += o.policy_gradient(transitions, start, policy, shaped, 0.9)
            if weight:
                assert best[1] >= -1e-9
                promises.append(best[2])
            else:
                fell += best[1] < 0
    assert fell > 0 and max(promises) > 0.01
