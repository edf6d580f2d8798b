"""Occupancies and their divergences in problems small enough to tabulate: what ORPO estimates, here exactly.

S states, A actions; transitions P [S, A, S], start ρ [S], policy π [S, A], rewards R [S, A], discount γ.

    μ_π(s, a) = (1 - γ) E Σ_t γ^t 1{s_t = s, a_t = a},   J(R) = E_μ[R]                        occupancy
    KL = E_μ[ln(μ/ν)],  χ² = E_ν[(μ/ν - 1)²],  √χ²,  TV = ½ Σ |μ - ν|                        divergence
    (J(R) - J_ref(R)) / σ_R  >=  r⁻¹ [(J(R̃) - J_ref(R̃)) / σ_R̃ - √((1 - r²) χ²(μ_π ‖ μ_ref))]    guarantee

R̃ is the proxy, r its correlation with R > 0 under μ_ref, σ standard deviations under μ_ref (Laidlaw et al. 2024).  The
bound says how much regularisation a proxy needs: maximise J(R̃) - λ √χ² with λ = σ_R̃ √(1 - r²).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlkit.errors import UserError

Array = NDArray[np.float64]
DIVERGENCES = ("sqrt_chi2", "chi2", "kl", "tv")


def occupancy(transitions: Array, start: Array, policy: Array, discount: float) -> Array:
    """μ_π [S, A], summing to one; solves μ_s = (1 - γ) ρ + γ P_πᵀ μ_s.  Raises UserError for γ outside [0, 1)."""
    if not 0 <= discount < 1:
        raise UserError(f"discount={discount} is out of range, expected at least 0 and below 1")
    step = np.einsum("sa,sat->st", policy, transitions)  # [S, S]
    states = np.linalg.solve(np.eye(len(step)) - discount * step.T, (1 - discount) * start)  # [S]
    return states[:, None] * policy


def divergence(mu: Array, nu: Array, kind: str) -> float:
    """D(μ‖ν) of two distributions of one shape; infinite where ν lacks support, but for TV.

    Raises UserError for an unknown kind.
    """
    if kind not in DIVERGENCES:
        raise UserError(f"divergence={kind} is unknown, expected one of {', '.join(DIVERGENCES)}")
    if kind == "tv":
        return float(0.5 * np.abs(mu - nu).sum())
    held = mu > 0
    if (nu[held] <= 0).any():
        return float("inf")
    if kind == "kl":
        return float((mu[held] * np.log(mu[held] / nu[held])).sum())
    chi2 = float((mu[held] ** 2 / nu[held]).sum() - 1.0)
    return chi2 if kind == "chi2" else float(np.sqrt(max(chi2, 0.0)))


def divergence_gradient(mu: Array, nu: Array, kind: str) -> Array:
    """∂D/∂μ: d + 1 for KL, 2e^d for χ², e^d/√χ² for √χ², ½ sign d for TV, where d = ln(μ/ν); ν > 0 throughout."""
    ratio = mu / nu  # e^d
    if kind == "kl":
        return np.log(ratio) + 1
    if kind == "chi2":
        return 2 * ratio
    if kind == "tv":
        return 0.5 * np.sign(mu - nu)
    return ratio / divergence(mu, nu, "sqrt_chi2")


def measured(mu: Array, measure: str) -> Array:
    """The occupancy [S, A] of state and action as it is, or of the state alone [S]."""
    return mu if measure == "state_action" else mu.sum(axis=-1)


def action_divergence(mu: Array, policy: Array, base: Array, kind: str) -> float:
    """E_{s ~ μ_π} D(π(·|s) ‖ π_ref(·|s)), the usual regulariser, blind to where actions lead."""
    states = mu.sum(axis=1)  # [S]
    return float(sum(p * divergence(policy[s], base[s], kind) for s, p in enumerate(states) if p > 0))


def action_values(transitions: Array, policy: Array, rewards: Array, discount: float) -> Array:
    """Q [S, A] of ``policy``, undiscounted by (1 - γ)."""
    step = np.einsum("sa,sat->st", policy, transitions)  # [S, S]
    values = np.linalg.solve(np.eye(len(step)) - discount * step, (policy * rewards).sum(axis=1))  # [S]
    return rewards + discount * transitions @ values


def policy_gradient(transitions: Array, start: Array, policy: Array, rewards: Array, discount: float) -> Array:
    """∂J/∂logits [S, A] of a softmax policy: μ(s, a) (Q(s, a) - V(s))."""
    mu = occupancy(transitions, start, policy, discount)
    q = action_values(transitions, policy, rewards, discount)
    return mu * (q - (policy * q).sum(axis=1, keepdims=True))


def moments(mu: Array, proxy: Array, true: Array) -> tuple[float, float, float]:
    """σ_R̃, σ_R and their correlation r under ``mu`` [S, A]; r is 0 where either is constant."""
    first, second = proxy - (mu * proxy).sum(), true - (mu * true).sum()
    sd, sd_true = float(np.sqrt((mu * first**2).sum())), float(np.sqrt((mu * second**2).sum()))
    if sd * sd_true <= 0:
        return sd, sd_true, 0.0
    return sd, sd_true, float((mu * first * second).sum() / (sd * sd_true))


def guarantee(mu: Array, base: Array, proxy: Array, true: Array) -> tuple[float, float]:
    """Both sides of the bound: the gain in true reward over the base policy's in units of σ_R, and what is promised.

    ``mu`` and ``base`` [S, A] are occupancies.  Raises UserError where proxy and truth do not correlate positively
    under ``base``: nothing is promised then.
    """
    sd, sd_true, r = moments(base, proxy, true)
    if r <= 0:
        raise UserError(f"the proxy's correlation with the true reward is {r:.3g}, expected a number above 0")
    change = mu - base
    penalty = np.sqrt(max(1 - r**2, 0.0)) * divergence(mu, base, "sqrt_chi2")
    return float((change * true).sum() / sd_true), float(((change * proxy).sum() / sd - penalty) / r)
