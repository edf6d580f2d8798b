"""The f-divergences behind the implicit-value learners, and the value loss they share.

    max_π E_d[r] - α D_f(d ‖ d_data)   has the dual   min_V (1 - γ) E V(s₀) + α E_data f*_p(δ / α),   with
    f*_p(y) = max_{x ≥ 0} x y - f(x),  w(y) = its argmax,  (f*_p)' = w                        conj_pos, ratio
    L_V = mean α [λ φ(δ / α) + (1 - λ) ψ(δ / α)],  δ = Q - V,  ψ(y) = -y                      value_loss

φ is f*_p or a surrogate of it.  Its slope settles V: E φ'(δ / α) = (1 - λ) / λ under the data's actions, so that with
an exact φ and λ = ½ the weights w have mean 1 in every state.

The forms of χ² differ below y = 0 alone: `chi2_exact` is f*_p, `chi2_monotone` is flat there, `chi2_paper` grows again
below y = -4.  λ → 1 takes V to the largest Q under `tv` and `chi2_monotone`; `chi2_exact` overshoots by 2α, and
`chi2_paper` falls short once values spread by much more than 4α.  `expectile` is no conjugate: the same two terms with
φ(y) = max(y, 0)², ψ(y) = max(-y, 0)², and λ the expectile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rlkit.algorithms.noise import Scalar

Function = Callable[[Tensor], Tensor]  # elementwise, any shape


@dataclass(frozen=True)
class Divergence:
    """One f; the functions are elementwise.  ``f``, ``conj_pos`` and ``ratio`` are None where there is no conjugate."""

    name: str
    f: Function | None  # convex on x >= 0, f(1) = 0
    conj_pos: Function | None  # f*_p, infinite above domain_max
    ratio: Function | None  # w
    surrogate: Function  # φ
    complement: Function = torch.neg  # ψ
    domain_max: float = math.inf
    lam_above: float = 0.0  # λ up to here leaves V unbounded below or idle
    lam_one: bool = False  # whether at λ = 1 anything still lowers V

    def lam_error(self, lam: float) -> str | None:
        """What λ should have been, or None when it will do."""
        if self.lam_above < lam < 1 or (self.lam_one and lam == 1):
            return None
        upper = "at most 1" if self.lam_one else "below 1"
        return f"a number above {self.lam_above:g} and {upper} for divergence '{self.name}'"


def _chi2(name: str, surrogate: Function, lam_one: bool = False) -> Divergence:
    return Divergence(
        name,
        f=lambda x: (x - 1).square(),
        conj_pos=_chi2_conjugate,
        ratio=lambda y: (1 + y / 2).relu(),
        surrogate=surrogate,
        lam_one=lam_one,
    )


def _chi2_conjugate(y: Tensor) -> Tensor:
    return (1 + y / 2).relu().square() - 1  # y + y²/4 from y = -2 on, -1 below


_KINDS = (
    Divergence("kl", lambda x: torch.xlogy(x, x) - x + 1, torch.expm1, torch.exp, torch.expm1),
    _chi2("chi2_exact", _chi2_conjugate),
    _chi2("chi2_monotone", lambda y: y.relu() + y.relu().square() / 4),
    _chi2("chi2_paper", lambda y: (y + y.square() / 4).relu(), lam_one=True),
    Divergence(
        "tv",
        f=lambda x: (x - 1).abs() / 2,
        conj_pos=lambda y: torch.where(y <= 0.5, y.clamp(min=-0.5), math.inf),
        ratio=lambda y: (y > -0.5).to(y.dtype),
        surrogate=torch.relu,
        domain_max=0.5,
        lam_above=0.5,  # V is the quantile of level 2 - 1 / λ
    ),
    Divergence("expectile", None, None, None, lambda y: y.relu().square(), lambda y: y.neg().relu().square()),
)
DIVERGENCES = {kind.name: kind for kind in _KINDS}


def value_loss(
    advantage: Float[Tensor, "batch 1"],
    divergence: Divergence,
    lam: Scalar,
    temperature: Scalar,
    clip: float = 0.0,
    rescale: bool = False,
) -> Float[Tensor, ""]:
    """L_V.  ``clip`` bounds δ / α from above (0: no bound); ``rescale`` divides KL's loss by the batch's largest e^y.

    With KL, λ = ½ and both, this is ½ α times XQL's  mean[e^(y-M) - y e^-M - e^-M],  M = max(-1, max y)  a constant.
    """
    y = advantage / temperature  # [batch, 1]
    if clip > 0:
        y = y.clamp(max=clip)
    if rescale:
        shift = y.detach().max().clamp(min=-1.0)  # []
        up, down = (y - shift).exp() - (-shift).exp(), -y * (-shift).exp()  # 2 x [batch, 1]
    else:
        up, down = divergence.surrogate(y), divergence.complement(y)  # 2 x [batch, 1]
    return temperature * (lam * up + (1 - lam) * down).mean()
