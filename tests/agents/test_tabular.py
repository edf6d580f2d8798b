"""Dual V-learning and the learners' value losses against exact solutions of random MDPs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rlkit.agents.common.divergence import DIVERGENCES, value_loss

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves a test's own folder out

import tabular
from tabular import MDP, random_mdp


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("name", ["kl", "chi2_exact"])
def test_the_dual_solves_the_regularised_problem(name: str, alpha: float) -> None:
    for seed in range(3):
        mdp = random_mdp(seed)
        data = tabular.occupancy(mdp, mdp.behaviour)
        assert np.abs(tabular.flow_residual(mdp, data)).max() < 1e-12
        dual = tabular.solve_dual(mdp, name, alpha)

        # rlkit's own conjugate and ratio, at the V found without them
        y = (mdp.reward + mdp.discount * mdp.transition @ dual.value - dual.value[:, None]) / alpha
        kind = DIVERGENCES[name]
        assert kind.ratio is not None and kind.conj_pos is not None
        ratio = kind.ratio(torch.from_numpy(y)).numpy()
        conjugate = kind.conj_pos(torch.from_numpy(y)).numpy()
        d = ratio * data
        assert np.abs(tabular.flow_residual(mdp, d)).max() < 1e-8
        policy = d / d.sum(axis=1, keepdims=True)
        primal = tabular.regularised_return(mdp, name, alpha, policy)
        assert primal == pytest.approx(dual.objective, abs=1e-6)
        value = (1 - mdp.discount) * mdp.start @ dual.value + alpha * (data * conjugate).sum()
        assert value == pytest.approx(primal, abs=1e-6)

        g = np.random.default_rng(seed)
        for scale in (0.001, 0.03, 1.0):
            for _ in range(30):
                other = np.maximum(policy + scale * g.normal(size=policy.shape), 0) + 1e-12
                other /= other.sum(axis=1, keepdims=True)
                assert tabular.regularised_return(mdp, name, alpha, other) <= primal + 1e-12


def learned_fixed_point(mdp: MDP, name: str, lam: float, alpha: float) -> np.ndarray:
    """V after many rounds of the learner's two regressions, with its own loss and a table for each network."""
    rows = [np.repeat(np.arange(mdp.behaviour.shape[1]), np.rint(20 * mu).astype(int)) for mu in mdp.behaviour]
    actions = torch.from_numpy(np.stack(rows))  # [S, 20]
    states = torch.arange(len(actions))[:, None].expand_as(actions)  # [S, 20]
    reward, transition = torch.from_numpy(mdp.reward), torch.from_numpy(mdp.transition)
    table = torch.zeros(len(actions), dtype=torch.float64, requires_grad=True)
    for _ in range(150):
        q = (reward + mdp.discount * transition @ table.detach())[states, actions].reshape(-1, 1)  # [20 S, 1]
        optimiser = torch.optim.LBFGS(
            [table], max_iter=60, tolerance_grad=1e-13, tolerance_change=0.0, line_search_fn="strong_wolfe"
        )

        def closure(q: torch.Tensor = q, optimiser: torch.optim.Optimizer = optimiser) -> torch.Tensor:
            optimiser.zero_grad()
            loss = value_loss(q - table[states].reshape(-1, 1), DIVERGENCES[name], lam, alpha)
            loss.backward()
            return loss

        optimiser.step(closure)
    return table.detach().numpy()


@pytest.mark.parametrize(
    ("name", "lam", "alpha"),
    [("kl", 0.5, 0.3), ("kl", 0.7, 1.0), ("chi2_exact", 0.5, 0.3), ("chi2_exact", 0.8, 1.0), ("expectile", 0.9, 1.0)],
)
def test_the_learners_regressions_end_at_the_exact_fixed_point(name: str, lam: float, alpha: float) -> None:
    mdp = random_mdp(7)
    exact, _ = tabular.fixed_point(mdp, name, lam, alpha)
    np.testing.assert_allclose(learned_fixed_point(mdp, name, lam, alpha), exact, atol=1e-5)


def test_extreme_q_learning_gives_a_normalised_policy_that_is_the_soft_optimum() -> None:
    mdp, alpha = random_mdp(3), 0.4
    v, q = tabular.fixed_point(mdp, "kl", 0.5, alpha)
    np.testing.assert_allclose(v, alpha * np.log((mdp.behaviour * np.exp(q / alpha)).sum(axis=1)), atol=1e-10)
    policy = mdp.behaviour * np.exp((q - v[:, None]) / alpha)
    np.testing.assert_allclose(policy.sum(axis=1), 1.0, atol=1e-10)

    def soft_return(pi: np.ndarray) -> float:  # E Σ γᵗ (r - α KL(π ‖ μ)), per state and not per occupancy
        return float((tabular.occupancy(mdp, pi) * (mdp.reward - alpha * np.log(pi / mdp.behaviour))).sum())

    best, g = soft_return(policy), np.random.default_rng(0)
    assert best == pytest.approx((1 - mdp.discount) * mdp.start @ v, abs=1e-10)
    for _ in range(50):
        other = np.maximum(policy + 0.05 * g.normal(size=policy.shape), 1e-9)
        other /= other.sum(axis=1, keepdims=True)
        assert soft_return(other) <= best + 1e-12

    # It regularises policies, the dual regularises occupancies: two answers, not one.
    dual = tabular.solve_dual(mdp, "kl", alpha)
    d = dual.ratio * tabular.occupancy(mdp, mdp.behaviour)
    assert np.abs(d / d.sum(axis=1, keepdims=True) - policy).max() > 0.01


def test_the_quantile_of_total_variation_is_the_exact_fixed_point() -> None:
    mdp, lam = random_mdp(5), 0.8
    v = np.zeros(5)
    for _ in range(400):
        q = mdp.reward + mdp.discount * mdp.transition @ v
        for s in range(5):
            order = np.argsort(q[s])
            reached = np.cumsum(mdp.behaviour[s, order]) >= 2 - 1 / lam - 1e-9  # counts of 20 at three quarters
            v[s] = q[s, order][np.argmax(reached)]
    q = mdp.reward + mdp.discount * mdp.transition @ v
    for s in range(5):
        rows = torch.from_numpy(np.repeat(q[s], np.rint(20 * mdp.behaviour[s]).astype(int)))[:, None]  # [20, 1]
        at = value_loss(rows - v[s], DIVERGENCES["tv"], lam, 1.0)
        for other in (*q[s], v[s] - 1e-3, v[s] + 1e-3):
            assert at <= value_loss(rows - other, DIVERGENCES["tv"], lam, 1.0) + 1e-12
