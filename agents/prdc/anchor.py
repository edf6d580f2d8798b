"""The actions that a policy is held to: those of the nearest rows, found on the device that holds the data."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlkit.agents.prdc.neighbours import RowCertificateSearch
from rlkit.agents.prdc.products import ProductSearch
from rlkit.algorithms.engine.outside import outside


class Anchors:
    """Actions ``[N, da]`` behind a search over them and their states ``[N, ds]``."""

    def __init__(self, actions: Float[Tensor, "n da"], search: RowCertificateSearch | ProductSearch):
        self.actions, self.search = actions, search

    def nearest(
        self, rows: Int[Tensor, " batch"], proposed: Float[Tensor, "batch da"]
    ) -> tuple[Float[Tensor, "batch da"], Int[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Of the rows nearest to ``(s_rows, proposed)``: actions, numbers, distances in float64."""
        if isinstance(self.search, ProductSearch):
            chosen, squares = self.search.query(rows, proposed)  # [batch], [batch]
            distance = squares.sqrt()
        else:
            chosen, distance = outside(self._found, rows, proposed)  # [batch], [batch]
        return self.actions.index_select(0, chosen), chosen, distance

    def _found(self, rows: Tensor, proposed: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.search, RowCertificateSearch)
        found, far = self.search.query(rows.cpu().numpy(), proposed.cpu().numpy())
        return torch.from_numpy(found).to(rows.device), torch.from_numpy(far).to(rows.device)
