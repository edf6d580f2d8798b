"""A learner's update as a program: its state by tensor and generator, its counts, one run of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rlkit.algorithms.nets import Adam

if TYPE_CHECKING:
    from rlkit.algorithms.learner import Learner

Counts = list[dict[str, int]]  # what is counted in Python: the updates, each optimiser's steps, the tally's values


@runtime_checkable
class Doubtful(Protocol):
    """What needs to read back, now and then, whether an answer was right.

    While ``deferred`` it reads nothing and counts in ``doubts`` how many may be wrong: the engine asks once for many
    updates, and where there are any goes back and does those updates one by one.
    """

    deferred: bool
    doubts: Tensor  # int64, one number on the device


@runtime_checkable
class Recordable(Protocol):
    """What a graph is made of."""

    name: str
    period: int
    device: torch.device

    def once(self) -> None:
        """One update, counted."""

    def updates(self) -> int:
        """How many were done."""

    def tensors(self) -> list[Tensor]:
        """All that an update changes, or reads of what another changed."""

    def generators(self) -> list[torch.Generator]:
        """All that it draws from."""

    def optimisers(self) -> list[Adam]:
        """Those whose learning rate is a scalar on the device."""

    def doubtful(self) -> Sequence[Doubtful]:
        """What is asked, after replaying, whether all went well."""

    def counts(self) -> Counts:
        """What Python counts."""

    def set_counts(self, counts: Counts) -> None:
        """Undo :meth:`counts`."""


class Program:
    """The update of one learner."""

    def __init__(self, learner: Learner):
        self.learner = learner
        self.name, self.device, self.period = learner.name, learner.device, learner.period

    @property
    def recordable(self) -> bool:
        """Whether the learner's optimisers are ours, whose steps and rates are tensors."""
        every = self.learner._named(torch.optim.Optimizer).values()
        return all(isinstance(one, Adam) for one in every) and hasattr(self.learner, "replay")

    def once(self) -> None:
        learner = self.learner
        steps = learner.step()
        learner.num_timesteps += steps
        learner._n_updates += steps > 0

    def updates(self) -> int:
        return self.learner._n_updates

    def tensors(self) -> list[Tensor]:
        found = [t for m in self.learner._named(nn.Module).values() for t in m.state_dict(keep_vars=True).values()]
        for optimiser in self.optimisers():
            found += [*optimiser.moments[0], *optimiser.moments[1], *optimiser.steps]
        return [*found, *self.learner.tally.sums.values()]

    def generators(self) -> list[torch.Generator]:
        replay = getattr(self.learner, "replay", None)
        own = list(self.learner._named(torch.Generator).values())
        return own if replay is None else [*own, replay.generator]

    def optimisers(self) -> list[Adam]:
        return [one for one in self.learner._named(torch.optim.Optimizer).values() if isinstance(one, Adam)]

    def doubtful(self) -> Sequence[Doubtful]:
        return self.learner.doubtful()

    def counts(self) -> Counts:
        learner = self.learner
        own = {"updates": learner._n_updates, "steps": learner.num_timesteps}
        return [own, dict(learner.tally.counts), *({"done": one.done} for one in self.optimisers())]

    def set_counts(self, counts: Counts) -> None:
        learner, (own, tally, *optimisers) = self.learner, counts
        learner._n_updates, learner.num_timesteps = own["updates"], own["steps"]
        learner.tally.counts = dict(tally)
        for optimiser, one in zip(self.optimisers(), optimisers, strict=True):
            optimiser.done = one["done"]
