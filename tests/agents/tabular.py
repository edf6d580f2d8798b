"""Exact answers on small random MDPs: the regularised dual by convex optimisation, fixed points by root finding.

Written in NumPy and SciPy alone, with conjugates of its own, so that nothing here shares code with what it judges.
Shapes: S states, A actions, tables over pairs are [S, A].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize


@dataclass(frozen=True)
class MDP:
    transition: np.ndarray  # [S, A, S]
    reward: np.ndarray  # [S, A]
    start: np.ndarray  # [S]
    behaviour: np.ndarray  # [S, A], whole multiples of 1/20: twenty equally weighted rows a state have its distribution
    discount: float = 0.9


def random_mdp(seed: int, states: int = 5, actions: int = 3) -> MDP:
    g = np.random.default_rng(seed)
    counts = 1 + g.multinomial(20 - actions, np.full(actions, 1 / actions), size=states)
    return MDP(
        g.dirichlet(np.ones(states), size=(states, actions)),
        g.uniform(-1, 1, size=(states, actions)),
        g.dirichlet(np.ones(states)),
        counts / 20.0,
    )


def occupancy(mdp: MDP, policy: np.ndarray) -> np.ndarray:
    """d(s, a) = (1 - γ) Σ γᵗ P(s_t = s, a_t = a), which sums to 1."""
    moves = np.einsum("sa,sat->st", policy, mdp.transition)
    flow = np.eye(len(moves)) - mdp.discount * moves.T
    return policy * np.linalg.solve(flow, (1 - mdp.discount) * mdp.start)[:, None]


def flow_residual(mdp: MDP, d: np.ndarray) -> np.ndarray:
    """Σ_a d(s, a) - (1 - γ) d₀(s) - γ Σ P(s | s', a') d(s', a'), zero for an occupancy."""
    arriving = np.einsum("sat,sa->t", mdp.transition, d)
    return d.sum(axis=1) - (1 - mdp.discount) * mdp.start - mdp.discount * arriving


# name: (f(x), f*_p(y), w(y), w'(y))
CONJUGATES = {
    "kl": (
        lambda x: np.where(x > 0, x * np.log(np.maximum(x, 1e-300)), 0.0) - x + 1,
        lambda y: np.exp(y) - 1,
        np.exp,
        np.exp,
    ),
    "chi2_exact": (
        lambda x: (x - 1) ** 2,
        lambda y: np.where(y > -2, y + y**2 / 4, -1.0),
        lambda y: np.maximum(1 + y / 2, 0),
        lambda y: np.where(y > -2, 0.5, 0.0),
    ),
}


def regularised_return(mdp: MDP, name: str, alpha: float, policy: np.ndarray) -> float:
    """E_d[r] - α D_f(d ‖ d_data), the primal objective."""
    d, data = occupancy(mdp, policy), occupancy(mdp, mdp.behaviour)
    return float((d * mdp.reward).sum() - alpha * (data * CONJUGATES[name][0](d / data)).sum())


@dataclass(frozen=True)
class Dual:
    value: np.ndarray  # [S], the minimiser V
    objective: float
    ratio: np.ndarray  # [S, A], w = d / d_data


def solve_dual(mdp: MDP, name: str, alpha: float) -> Dual:
    """min_V (1 - γ) E V(s₀) + α E_data f*_p((r + γ P V - V) / α), convex in V, by trust-region Newton steps."""
    _, conjugate, ratio, slope = CONJUGATES[name]
    data = occupancy(mdp, mdp.behaviour)
    states = len(mdp.start)
    residual = mdp.discount * mdp.transition - np.eye(states)[:, None, :]  # [S, A, S], the Jacobian of α y
    first = (1 - mdp.discount) * mdp.start

    def y(v: np.ndarray) -> np.ndarray:
        return (mdp.reward + residual @ v) / alpha

    def value(v: np.ndarray) -> float:
        return float(first @ v + alpha * (data * conjugate(y(v))).sum())

    def gradient(v: np.ndarray) -> np.ndarray:
        return first + np.einsum("sa,sat->t", data * ratio(y(v)), residual)

    def hessian(v: np.ndarray) -> np.ndarray:
        return np.einsum("sa,sat,sau->tu", data * slope(y(v)), residual, residual) / alpha

    highest = np.full(states, mdp.reward.max() / (1 - mdp.discount))  # all y ≤ 0 here: nothing overflows
    found = minimize(value, highest, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-9})
    v = found.x
    for _ in range(5):  # Newton's last digits, where differences of the objective are lost in rounding
        v = v - np.linalg.lstsq(hessian(v), gradient(v), rcond=None)[0]
    return Dual(v, value(v), ratio(y(v)))


# Slope of λ α φ(δ/α) + ... in V, up to sign: the stationarity of the learners' value loss in one state.
SLOPES = {
    "kl": lambda y, lam: lam * np.exp(y) - (1 - lam),
    "chi2_exact": lambda y, lam: lam * np.maximum(1 + y / 2, 0) - (1 - lam),
    "chi2_monotone": lambda y, lam: lam * np.where(y > 0, 1 + y / 2, 0) - (1 - lam),
    "expectile": lambda y, lam: 2 * (lam * np.maximum(y, 0) - (1 - lam) * np.maximum(-y, 0)),
}


def best_value(name: str, lam: float, alpha: float, q: np.ndarray, weights: np.ndarray) -> float:
    """The V that minimises the value loss in one state: values ``q`` [A] met with probabilities ``weights`` [A]."""

    def slope(v: float) -> float:
        return float(weights @ SLOPES[name]((q - v) / alpha, lam))

    return brentq(slope, q.min() - 50 * alpha, q.max() + 50 * alpha, xtol=1e-13)


def fixed_point(mdp: MDP, name: str, lam: float, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """V [S] and Q [S, A] with Q = r + γ P V and V the loss's minimiser in every state, by iterating the two."""
    v = np.zeros(len(mdp.start))
    for _ in range(400):  # 0.9⁴⁰⁰ = 5e-19
        q = mdp.reward + mdp.discount * mdp.transition @ v
        v = np.array([best_value(name, lam, alpha, *row) for row in zip(q, mdp.behaviour, strict=True)])
    return v, mdp.reward + mdp.discount * mdp.transition @ v
