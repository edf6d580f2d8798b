"""What distributionally robust linear methods compute most: the exact total-variation dual, and ridge regression kept
current one sample at a time.  Plain counterparts of the kernels stand in ``tests/agents/test_drrpo.py``.

**The dual.**  The smallest mean of V over distributions within total variation ρ of μ is

    ν = max over α in [m, ∞) of  f(α) = E_μ[min(V, α)] - ρ (α - m),      m the smallest V of the whole state space

(m = 0 where a fail state is worth 0 and nothing is worth less).  With E_μ replaced by the sum over n values with
coefficients c, f is piecewise linear with corners at the values alone, so with v_1 <= ... <= v_n

    f(v_j) = Σ_{l<=j} c_l v_l + (Σ_{l>j} c_l) v_j - ρ (v_j - m),   f(m) = m Σ c,   ν = the largest of these

is exact: no grid, no search.  Ridge coefficients may be negative, then f is not concave and a search for its maximum
can end elsewhere.  For the same reason ρ = 0 does not give back c·V: the non-robust value is c·V itself.

**Ridge.**  Λ = λI + Σ w φφᵀ, Λ⁻¹ by Sherman and Morrison, and C = Λ⁻¹G with G's rows the sums of w φ over the samples
that led to the same next state: C·V(next states) is the regression of V(s') on φ, at a cost that does not grow with the
number of samples but with the number of distinct next states.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Array = NDArray[np.float64]
PARALLEL = 1 << 17  # coefficients from which threads are worth starting


@no_type_check
def _dual_rows(coefficients, values, order, radii, least, nu, alpha):
    """``nu_tv`` for B batches: coefficients [B, d, n], values and order [B, n], radii, nu and alpha [B, d]."""
    batches, d, n = coefficients.shape
    for row in prange(batches * d):
        b, i = row // d, row % d
        total = 0.0
        for j in range(n):
            total += coefficients[b, i, j]
        best, where = least * total, least
        below, weight = 0.0, 0.0  # Σ c v and Σ c up to the corner
        for j in range(n):
            k = order[b, j]
            value = values[b, k]
            below += coefficients[b, i, k] * value
            weight += coefficients[b, i, k]
            found = below + (total - weight) * value - radii[b, i] * (value - least)
            if found > best:  # among equals the smallest α
                best, where = found, value
        nu[b, i], alpha[b, i] = best, where


_dual = njit(cache=True, nogil=True)(_dual_rows)
_dual_parallel = njit(cache=True, nogil=True, parallel=True)(_dual_rows)


def nu_tv(coefficients: Array, values: Array, radii: Array, least: float = 0.0) -> tuple[Array, Array]:
    """ν [..., d] and the maximising α [..., d] of the dual, for all rows of ``coefficients`` [..., d, n] at once.

    ``values`` [..., n] are V at the next states, none below ``least``; ``radii`` [d] or [..., d] the ρ.  Leading axes
    are batches.  All float64.  With no values at all ν is 0.
    """
    *batch, d, n = coefficients.shape
    batches = int(np.prod(batch, dtype=np.int64))
    c = np.ascontiguousarray(coefficients).reshape(batches, d, n)
    v = np.ascontiguousarray(values).reshape(batches, n)
    rho = np.ascontiguousarray(np.broadcast_to(radii, (*batch, d))).reshape(batches, d)
    order = np.argsort(v, axis=-1, kind="stable")
    nu, alpha = np.empty((batches, d)), np.empty((batches, d))
    kernel = _dual_parallel if c.size >= PARALLEL else _dual
    kernel(c, v, order, rho, float(least), nu, alpha)
    return nu.reshape(*batch, d), alpha.reshape(*batch, d)


@njit(cache=True, nogil=True)
@no_type_check
def add_sample(gram, inverse, sums, coefficients, feature, weight, row):
    """Take one sample into Λ ``gram`` [d, d], its ``inverse``, G ``sums`` and C ``coefficients`` [m, d], in place.

    ``feature`` [d] is φ(s, a), ``weight`` w its weight, ``row`` the number of its next state.  Returns what log det Λ
    grew by.  O(d (d + m)).
    """
    d = len(feature)
    moved = np.empty(d)  # Λ⁻¹ φ
    for i in range(d):
        total = 0.0
        for k in range(d):
            total += inverse[i, k] * feature[k]
        moved[i] = total
    grown = 1.0
    for i in range(d):
        grown += weight * feature[i] * moved[i]
    for i in range(d):
        for k in range(d):
            gram[i, k] += weight * feature[i] * feature[k]
            inverse[i, k] -= weight / grown * moved[i] * moved[k]
    for j in range(len(sums)):
        along = 0.0
        for k in range(d):
            along += feature[k] * coefficients[j, k]
        along *= weight / grown
        for i in range(d):
            coefficients[j, i] -= along * moved[i]
    for i in range(d):
        sums[row, i] += weight * feature[i]
        coefficients[row, i] += weight / grown * moved[i]
    return np.log(grown)


def refactor(gram: Array, sums: Array) -> tuple[Array, Array, float]:
    """Λ⁻¹ [d, d], C [m, d] and log det Λ anew from Λ ``gram`` and G ``sums`` [m, d]: sheds the rounding of updates."""
    factor = np.linalg.cholesky(gram)
    half = np.linalg.solve(factor, np.eye(len(gram)))
    inverse = half.T @ half
    return inverse, sums @ inverse, 2.0 * float(np.log(np.diag(factor)).sum())
