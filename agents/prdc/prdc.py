"""PRDC: policy regularisation with dataset constraint (Ran, Li, Zhang, Zhang & Yu, ICML 2023).

TD3+BC pulls the actor towards the action recorded *in that state*.  PRDC pulls it towards the nearest recorded
state-action pair, so that it may take an action seen in a neighbouring state:

    d²((s, a), (s', a')) = β² |s - s'|² + |a - a'|²                               the distance, s normalised, a in ±1
    i* = argmin_i d((s, π(s)), (s_i, a_i)),  â = a_{i*}                           RowCertificateSearch.query
    L_π = -λ mean Q₁(s, π(s)) + mean (π(s) - â)²                                  td3bc.actor_loss

All else is TD3+BC.  The neighbour's state only selects; no gradient passes through â.  β → ∞ gives TD3+BC, β = 0 the
nearest action anywhere in the data.  Where the neighbour is the sample's own transition ("own_nn" near 1), PRDC *is*
TD3+BC: read that figure before believing a difference.

Deviation from the authors' code: the search (a KD-tree query a step there) is an exact one that remembers, per row, its
neighbourhood; it returns the same minimum whatever it remembers, so resuming is exact with a cold memory.  Ties go to
the smaller row.  On a GPU the same rows are found by products (``products.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from rlkit.agents.prdc.anchor import Anchors
from rlkit.agents.prdc.neighbours import RowCertificateSearch
from rlkit.agents.prdc.products import ProductSearch
from rlkit.agents.td3bc import TD3BC, TD3BCConfig
from rlkit.algorithms.offline import OfflineConfig
from rlkit.algorithms.replay import Batch
from rlkit.registry import register


@dataclass(frozen=True)
class PRDCConfig(TD3BCConfig):
    """Hyperparameters of PRDC, beside TD3+BC's."""

    beta: float = 2.0  # weight of the state in the distance; larger: nearer to TD3+BC
    max_list: int = 1024  # neighbours remembered per row; larger: more memory, fewer tree searches
    memory_gb: float = 2.0  # bound on all remembered neighbours together
    search: str = "auto"  # lists on a processor, products on a GPU; auto: as the device is.  The answers are the same

    POSITIVE: ClassVar[tuple[str, ...]] = (*TD3BCConfig.POSITIVE, "max_list", "memory_gb")
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = (*TD3BCConfig.NON_NEGATIVE, "beta")
    VARYING: ClassVar[tuple[str, ...]] = (*TD3BCConfig.VARYING, "beta", "max_list", "memory_gb")
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {"search": ("auto", "lists", "products")}


@register("prdc")
class PRDC(TD3BC):
    """Offline TD3 whose actions are held to those of the nearest rows of the data."""

    Config: ClassVar[type[OfflineConfig]] = PRDCConfig
    fine_tunes: ClassVar[bool] = False  # neighbours are looked for by a row's place in the data

    def on_data(self) -> None:
        assert self.replay is not None
        cfg = self.config
        states, actions = (part.contiguous() for part in self.replay.rows.split(self.replay.widths, dim=1)[:2])
        self.search: RowCertificateSearch | ProductSearch
        if cfg.search == "products" or (cfg.search == "auto" and self.device.type == "cuda"):
            self.search = ProductSearch(states, actions, beta=cfg.beta)
        else:
            arrays = states.cpu().numpy(), actions.cpu().numpy()  # [N, ds], [N, da]
            room = {"max_list": cfg.max_list, "arena_bytes": int(cfg.memory_gb * 2**30)}
            self.search = RowCertificateSearch(*arrays, beta=cfg.beta, **room)
        self.anchors = Anchors(actions, self.search)

    def share(self, other: Any) -> None:
        super().share(other)
        same = all(getattr(self.config, key) == getattr(other.config, key) for key in ("beta", "max_list", "memory_gb"))
        if same and self.replay is not None and other.replay is not None and self.replay.rows is other.replay.rows:
            self.search, self.anchors = other.search, Anchors(other.anchors.actions, other.search)

    def anchor(self, batch: Batch, proposed: Float[Tensor, "batch da"]) -> tuple[Tensor, dict[str, Tensor]]:
        anchor, chosen, distance = self.anchors.nearest(batch.indices, proposed)  # [batch, da], [batch], [batch]
        return anchor, {"own_nn": (chosen == batch.indices).float().mean(), "nn_distance": distance.mean()}

    def doubtful(self) -> list[ProductSearch]:
        return [self.search] if isinstance(self.search, ProductSearch) else []
