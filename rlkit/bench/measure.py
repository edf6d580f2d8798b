"""Alternate measurement: blocks of A, B, A, B, ... in one process, compared round by round.

Whatever slows the machine for a while (another process, heat) then slows both sides, and the ratio within a round
stays.  A line's ratio is the *median of the per-round ratios*; its spread is their quartiles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Settings:
    """How long and on what to measure."""

    rows: int = 200_000  # transitions in each dataset; more: slower neighbour searches, as in real runs
    batch_size: int = 256
    rounds: int = 9  # blocks of each side; more: narrower spread
    block_seconds: float = 0.4  # least length of a block; more: less noise, longer bench
    warm_updates: int = 3000  # updates before the PRDC rows are measured; more: a policy nearer to a trained one
    pool: int = 16_384  # rows that PRDC's steady state draws from
    threads: int = 1  # of torch, BLAS and the neighbour searches
    stepping_threads: int = 2
    quick: bool = False

    @classmethod
    def short(cls) -> Settings:
        """All rows within a minute: enough to see that they run, not to quote."""
        return cls(rows=20_000, rounds=3, block_seconds=0.05, warm_updates=300, pool=1024, quick=True)


@dataclass(frozen=True)
class Side:
    """One way of doing the work: ``run(n)`` does ``n`` units of it, inside ``context``, which is not timed.

    ``block``: units per block; None finds how many fill ``Settings.block_seconds``, as a multiple of ``multiple``.
    """

    run: Callable[[int], object]
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    block: int | None = None
    multiple: int = 1


@dataclass(frozen=True)
class Times:
    """Seconds per unit of work in each round, and the units in a block."""

    block: int
    seconds: list[float]

    @property
    def median(self) -> float:
        return median(self.seconds)


def _timed(side: Side, units: int) -> float:
    with side.context():
        start = time.perf_counter()
        side.run(units)
        return time.perf_counter() - start


def _block(side: Side, seconds: float) -> int:
    if side.block is not None:
        return side.block
    _timed(side, side.multiple)  # the first call allocates, compiles and fills caches
    units = side.multiple
    while (spent := _timed(side, units)) < seconds:
        # At most eightfold at a time: a first estimate on so few units is poor.
        factor = min(8.0, 1.1 * seconds / max(spent, 1e-9))
        units = max(units + side.multiple, int(units * factor) // side.multiple * side.multiple)
    return units


def alternate(sides: dict[str, Side], settings: Settings) -> dict[str, Times]:
    """Time ``settings.rounds`` blocks of every side, taking turns."""
    blocks = {name: _block(side, settings.block_seconds) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(settings.rounds):
        for name, side in sides.items():
            seconds[name].append(_timed(side, blocks[name]) / blocks[name])
    return {name: Times(blocks[name], seconds[name]) for name in sides}


Kind = Literal["speed-up", "fraction", "share"]


@dataclass
class Line:
    """One line of the table.

    ``kind`` names the ratio: "speed-up", peer over ours; "fraction", ours over peer; "share", 1 - peer over ours.
    """

    row: str
    what: str
    unit: str
    kind: Kind = "speed-up"
    goal: float | None = None
    ours: Times | None = None
    peer: Times | None = None
    note: str = ""
    skipped: str = ""
    details: dict[str, object] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """One per round."""
        if self.ours is None or self.peer is None:
            return []
        pairs = zip(self.ours.seconds, self.peer.seconds, strict=True)
        match self.kind:
            case "speed-up":
                return [peer / ours for ours, peer in pairs]
            case "fraction":
                return [ours / peer for ours, peer in pairs]
            case "share":
                return [1.0 - peer / ours for ours, peer in pairs]

    @property
    def ratio(self) -> float | None:
        return median(self.ratios) if self.ratios else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """Quartiles of the per-round ratios."""
        if not self.ratios:
            return None
        low, high = np.quantile(self.ratios, [0.25, 0.75])
        return float(low), float(high)

    @property
    def met(self) -> bool | None:
        """None where there is no goal or nothing was measured."""
        if self.goal is None or self.ratio is None:
            return None
        return self.ratio >= self.goal if self.kind == "speed-up" else self.ratio <= self.goal


class PeerMissing(Exception):
    """The library to compare with is not installed."""


def skipped(lines: Sequence[Line], why: PeerMissing) -> list[Line]:
    """``lines`` marked as not measured."""
    for line in lines:
        line.skipped = str(why)
    return list(lines)


@contextmanager
def cores(threads: int) -> Iterator[None]:
    """Everything inside (torch, BLAS, OpenMP) on ``threads`` threads, as it was before afterwards."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
