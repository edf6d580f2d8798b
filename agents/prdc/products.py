"""The same nearest rows by brute force, for a device on which matrix products are cheap.

    D_i^2 = beta^2 ||s_i - s_j||^2 + ||a_i - x||^2 = ||p_i - q||^2,      p_i = (beta s_i, a_i), q = (beta s_j, x)
          = ||q||^2 + 2 (||p_i||^2 / 2 - q . p_i)                        one product of all rows in float32

The product errs, so it only nominates: the :data:`NOMINEES` smallest of each query are measured in float64, as
:func:`rlkit.agents.prdc.kdtree._weighted_square` measures.  Every other row's float32 value is at least the largest
nominated one; where that exceeds the best measured square by more than both can err, no other row can beat it or tie
with it, and the answer is the one of :class:`~rlkit.agents.prdc.neighbours.RowCertificateSearch`, ties to the smaller
row.  Where it does not (many rows alike, values far from 0), all rows are measured in float64.

**The error.**  With u = 2^-24, and points moved by their mean so that their norms are small: rounding ``p_i`` and ``q``
to float32 moves a square by at most 4 u (|p_i| + |q|)^2, a dot product of D terms in any order and the half norm by at
most (D + 4) u (|p_i| + |q|)^2 each, so :func:`error` is an upper bound with room to spare.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlkit.errors import DataError, UserError

NOMINEES = 16  # rows per query that are measured in float64
OVERFLOWS = 1e18  # norms whose float32 products may be infinite
CHUNK = 1 << 17  # rows multiplied at once: what bounds the memory of products
SETTLED = 1 << 22  # pairs measured in float64 at once


def square_sums(points: Float[Tensor, "... d"], queries: Float[Tensor, "... d"]) -> Float[Tensor, ...]:
    """``sum_k (points_k - queries_k)^2`` in float64, columns in ascending order: the canonical sum."""
    shape = torch.broadcast_shapes(points.shape, queries.shape)[:-1]
    total = torch.zeros(shape, dtype=torch.float64, device=points.device)
    for k in range(points.shape[-1]):
        difference = points[..., k].double() - queries[..., k].double()
        total += difference * difference
    return total


def error(norms: Float[Tensor, " batch"], largest: float, columns: int) -> Float[Tensor, " batch"]:
    """How far a square from float32 products may be from the canonical one, queries having these ``norms``."""
    return 4.0 * (columns + 8) * 2.0**-24 * (norms + largest) ** 2


class ProductSearch:
    """Exact nearest rows to ``(beta s_j, x)`` among ``N`` rows ``(beta s_i, a_i)``, on the device that holds them.

    A query reads back whether it is settled.  While ``deferred``, as within a graph, it adds up in ``doubts`` how many
    were not; where that is not 0 in the end, what was done has to be done again without deferring.

    Args:
        states: float32 ``[N, ds]``, kept as they are.
        actions: float32 ``[N, da]``, on the same device, likewise.
        beta: weight of the state distance, 0 or within [1e-12, 1e12].

    Raises:
        DataError: no rows, other numbers of them, or values that are not finite.
        UserError: ``beta`` out of range.
    """

    def __init__(self, states: Float[Tensor, "n ds"], actions: Float[Tensor, "m da"], *, beta: float):
        if not 0 < len(states) == len(actions):
            raise DataError(f"the search needs as many states as actions, got {len(states)} and {len(actions)}")
        if not (states.isfinite().all() and actions.isfinite().all()):
            raise DataError("the search needs finite states and actions")
        if not (beta == 0 or 1e-12 <= beta <= 1e12):
            raise UserError(f"beta must be 0 or within [1e-12, 1e12], got {beta}")
        self.states, self.actions, self.beta, self.beta2 = states, actions, float(beta), float(beta) ** 2
        self.mean = torch.cat([self.beta * states.double().mean(dim=0), actions.double().mean(dim=0)])  # [D]
        self.points = self._moved(states, actions)  # [N, D]
        norms = self.points.double().square().sum(dim=1)  # [N]
        self.half_norms = (norms / 2).float()
        self.largest = float(norms.max().sqrt())
        self.stats = {"queries": 0, "unsettled": 0}
        self.deferred = False
        self.doubts = torch.zeros((), dtype=torch.int64, device=states.device)

    def _moved(self, states: Float[Tensor, "n ds"], actions: Float[Tensor, "n da"]) -> Float[Tensor, "n d"]:
        """Points around their mean, float32."""
        parts = [self.beta * states.double(), actions.double()]
        return (torch.cat(parts, dim=1) - self.mean).float()

    def query(
        self, rows: Int[Tensor, " batch"], actions: Float[Tensor, "batch da"]
    ) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
        """The nearest row to each ``(beta s_rows, actions)``: row numbers int64, squares of distances float64.

        Among equal distances the smallest row number is returned; the row's own transition is a legal answer.
        """
        states = self.states.index_select(0, rows)  # [batch, ds]
        moved = self._moved(states, actions)  # [batch, D]
        values, nominees = self._nominated(moved)  # 2 x [batch, k]
        squares = self._measured(nominees, states, actions)  # [batch, k]
        best = squares.amin(dim=1)  # [batch]
        index = torch.where(squares == best[:, None], nominees, len(self.states)).amin(dim=1)
        norms = moved.double().norm(dim=1)  # [batch]
        others = norms.square() + 2.0 * values.amax(dim=1).double()  # least square of the rest, but for its error
        settled = others - best > error(norms, self.largest, moved.shape[1])
        settled &= norms + self.largest < OVERFLOWS
        self.stats["queries"] += len(rows)
        if nominees.shape[1] == len(self.states):
            return index, best
        if self.deferred:
            self.doubts += settled.numel() - settled.sum()
        elif not bool(settled.all()):
            unsettled = (~settled).nonzero()[:, 0]
            self.stats["unsettled"] += len(unsettled)
            index[unsettled], best[unsettled] = self._all_measured(states[unsettled], actions[unsettled])
        return index, best

    def _nominated(self, moved: Float[Tensor, "batch d"]) -> tuple[Tensor, Tensor]:
        """The smallest float32 values ``||p||^2 / 2 - q . p`` of each query, and their rows."""
        values: list[Tensor] = []
        rows: list[Tensor] = []
        for begin in range(0, len(self.points), CHUNK):
            part = self.points[begin : begin + CHUNK]
            found = torch.addmm(self.half_norms[begin : begin + CHUNK], moved, part.T, alpha=-1.0)  # [batch, c]
            least = found.topk(min(NOMINEES, len(part)), dim=1, largest=False)
            values.append(least.values)
            rows.append(least.indices + begin)
        every, numbers = torch.cat(values, dim=1), torch.cat(rows, dim=1)
        least = every.topk(min(NOMINEES, every.shape[1]), dim=1, largest=False)
        return least.values, numbers.gather(1, least.indices)

    def _measured(
        self, rows: Int[Tensor, "batch k"], states: Float[Tensor, "batch ds"], actions: Float[Tensor, "batch da"]
    ) -> Float[Tensor, "batch k"]:
        """Canonical squares of ``rows``."""
        return self.beta2 * square_sums(self.states[rows], states[:, None]) + square_sums(
            self.actions[rows], actions[:, None]
        )

    def _all_measured(
        self, states: Float[Tensor, "batch ds"], actions: Float[Tensor, "batch da"]
    ) -> tuple[Tensor, Tensor]:
        """The smallest (square, row) over all rows, every one measured."""
        best = states.new_full((len(states),), float("inf"), dtype=torch.float64)
        index = torch.zeros(len(states), dtype=torch.int64, device=states.device)
        count = max(1, SETTLED // len(states))
        for begin in range(0, len(self.states), count):
            part = slice(begin, begin + count)
            squares = self.beta2 * square_sums(self.states[None, part], states[:, None]) + square_sums(
                self.actions[None, part], actions[:, None]
            )  # [batch, c]
            least = squares.amin(dim=1)
            numbers = torch.arange(begin, begin + squares.shape[1], device=states.device)
            first = torch.where(squares == least[:, None], numbers, len(self.states)).amin(dim=1)
            better = least < best
            best, index = torch.where(better, least, best), torch.where(better, first, index)
        return index, best
