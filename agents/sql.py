"""SQL: sparse Q-learning, implicit value regularisation by χ² (Xu, Jiang, Li, Yang, Wang, Chan & Zhan 2023).

    L_V = ½ α mean[max(1 + δ/(2α), 0)² - 1 - δ/α],   w = min(max(δ, 0), 100)

the exact χ² at λ = ½, where the weights max(1 + δ/(2α), 0) have mean 1.  The paper gives these to the policy
(`agent.actor_weight=ratio`); its authors' code, and the default here, clones in proportion to the positive advantage.

L_V is ½ α times the code's mean[max(1 + δ/(2α), 0)² + V/α], up to a constant: α is the paper's and the scripts'
`--alpha`.  (Before March 2023 the code had max(δ/a + ½, 0)² + V/a, the same V at a = 4α.)  The rest, and where each
function is: :mod:`rlkit.agents.common.implicit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlkit.agents.common.implicit import ImplicitConfig, ImplicitValue
from rlkit.algorithms.offline import OfflineConfig
from rlkit.registry import register


@dataclass(frozen=True)
class SQLConfig(ImplicitConfig):
    """Hyperparameters of SQL: those of implicit value learning, a sparse regulariser."""

    divergence: str = "chi2_exact"
    lam: float | None = 0.5  # ½ is SQL: weights of mean 1
    temperature: float = 1.0  # α; larger: V nearer the data's mean, fewer weights at 0
    actor_weight: str = "relu"  # relu: max(δ, 0); ratio: the paper's max(1 + δ/(2α), 0); exp: e^(κδ)
    huber: float = 0.0


@register("sql")
class SQL(ImplicitValue):
    """Implicit value learning whose policy leaves out poor actions."""

    Config: ClassVar[type[OfflineConfig]] = SQLConfig
