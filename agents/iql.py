"""IQL: implicit Q-learning, V the expectile of Q over the data's actions (Kostrikov, Nair & Levine 2022).

    L_V = mean |λ - 1(δ < 0)| δ²,   w = min(exp(κ δ), 100),   L_Q = mean (Q - y)² over both critics

The rest, and where each function is: :mod:`rlkit.agents.common.implicit`.  λ is the paper's expectile τ, κ its β.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlkit.agents.common.implicit import ImplicitConfig, ImplicitValue
from rlkit.algorithms.offline import OfflineConfig
from rlkit.registry import register


@dataclass(frozen=True)
class IQLConfig(ImplicitConfig):
    """Hyperparameters of IQL: those of implicit value learning, an expectile."""

    divergence: str = "expectile"
    lam: float | None = 0.7  # the expectile, IQL's τ; ½ is the mean, larger nearer the best action
    huber: float = 0.0
    value_layer_norm: bool = False


@register("iql")
class IQL(ImplicitValue):
    """Implicit value learning by expectile regression."""

    Config: ClassVar[type[OfflineConfig]] = IQLConfig
