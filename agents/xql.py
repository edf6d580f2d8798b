"""XQL: extreme Q-learning, V the soft maximum of Q by Gumbel regression (Garg, Hejna, Geist & Ermon 2023).

    L_V = ½ α mean[e^(z-M) - z e^-M - e^-M],  z = min(δ/α, clip),  M = max(-1, max z) held constant

the KL case at λ = ½, whose minimiser without the clip is V = α log mean e^(Q/α).  `agent.value_clip=0
agent.rescale=false` is the naive form, which overflows once δ/α passes 88 (`scripts/instability_figure.py`).  The clip
takes the gradient from just the largest advantages, so V comes out low, and stands still once all advantages pass it.
The rescaling lets one outlier shrink every other gradient of its batch.

The rest, and where each function is: :mod:`rlkit.agents.common.implicit`.  α is the paper's β.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlkit.agents.common.implicit import ImplicitConfig, ImplicitValue
from rlkit.algorithms.offline import OfflineConfig
from rlkit.registry import register


@dataclass(frozen=True)
class XQLConfig(ImplicitConfig):
    """Hyperparameters of XQL: those of implicit value learning, a Gumbel regression."""

    divergence: str = "kl"
    lam: float | None = 0.5  # ½ is XQL: weights e^(δ/α) of mean 1
    temperature: float = 2.0  # α, XQL's β; larger: V nearer the data's mean, steadier
    value_clip: float = 7.0  # bound on δ/α; smaller: steadier, V biased low; 0: none
    rescale: bool = True


@register("xql")
class XQL(ImplicitValue):
    """Implicit value learning by Gumbel regression."""

    Config: ClassVar[type[OfflineConfig]] = XQLConfig
