"""Means of metrics between two log lines, kept on the device: reading a value would make every step wait for it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rlkit.errors import ArtefactError, UserError


class Tally:
    """Sums and counts of scalar tensors by name; a name's sum is one tensor for good."""

    def __init__(self, device: torch.device | str):
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}  # of names that were given a value since the last time

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add one value of each metric, a scalar tensor of any float type."""
        for key, value in metrics.items():
            if key not in self.sums:
                self.sums[key] = torch.zeros((), dtype=torch.float64, device=self.device)
            self.sums[key] += value.detach()
            self.counts[key] = self.counts.get(key, 0) + 1

    def take(self, step: int) -> dict[str, float]:
        """The means since the last time, in order of their names.

        Raises :class:`UserError` when one is not finite.
        """
        means = {key: float(self.sums[key]) / self.counts[key] for key in sorted(self.counts)}
        self.counts = {}
        for total in self.sums.values():
            total.zero_()
        for key, value in means.items():
            if not math.isfinite(value):
                raise UserError(f"'{key}' became {value} by step {step}; training stopped, checkpoints kept")
        return means

    def tensors(self) -> dict[str, Tensor]:
        return {f"metric.{key}": self.sums[key] for key in self.counts}

    def load(self, tensors: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        """Undo :meth:`tensors` and ``counts``; ``tensors`` may hold others too.

        Raises :class:`ArtefactError` where sums are no scalars or counts do not belong to them.
        """
        sums = {key[7:]: value for key, value in tensors.items() if key.startswith("metric.")}
        whole = all(type(count) is int and count > 0 for count in counts.values())
        if not whole or sums.keys() != counts.keys() or any(s.shape or s.dtype != torch.float64 for s in sums.values()):
            raise ArtefactError("the sums of its log do not fit their counts")
        for total in self.sums.values():
            total.zero_()
        for key, value in sums.items():
            self.sums.setdefault(key, torch.zeros((), dtype=torch.float64, device=self.device)).copy_(value)
        self.counts = dict(counts)
