"""f-DVL: dual V-learning with total variation or Pearson χ² (Sikchi, Zheng, Zhang & Niekum 2024, "Dual RL").

`agent=fdvl` takes χ² in its monotone form, `agent.divergence=tv` total variation, `agent.divergence=chi2_paper` the
form of the authors' code, whose V falls short of the best action where values spread by much more than 4.

The equations and what λ means: :mod:`rlkit.agents.common.implicit`.  α is 1.  λ differs by divergence, so each has its
own preset per family, which `agent.lam` overrides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlkit.agents.common.implicit import ImplicitConfig, ImplicitValue
from rlkit.algorithms.offline import OfflineConfig
from rlkit.registry import register


@dataclass(frozen=True)
class FDVLConfig(ImplicitConfig):
    """Hyperparameters of f-DVL: those of implicit value learning, λ by divergence."""

    lam_tv: float = 0.8  # λ of total variation where `lam` is not given: V is the quantile of level 2 - 1/λ
    lam_chi2: float = 0.8  # λ of the three forms of χ² where `lam` is not given; larger: more optimistic

    VARYING: ClassVar[tuple[str, ...]] = (*ImplicitConfig.VARYING, "lam_tv", "lam_chi2")

    def __post_init__(self) -> None:
        if self.lam is None:
            by_name = {"tv": self.lam_tv, **dict.fromkeys(("chi2_exact", "chi2_monotone", "chi2_paper"), self.lam_chi2)}
            object.__setattr__(self, "lam", by_name.get(self.divergence))
        super().__post_init__()


@register("fdvl")
class FDVL(ImplicitValue):
    """Implicit value learning by a dual of total variation or χ²."""

    Config: ClassVar[type[OfflineConfig]] = FDVLConfig
