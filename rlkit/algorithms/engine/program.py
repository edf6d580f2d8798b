"""A learner's update as a program: its state by tensor and generator, its counts, one run of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rlkit.algorithms.nets import Adam, Average, Schedule

if TYPE_CHECKING:
    from rlkit.algorithms.learner import Learner

Counts = list[dict[str, int]]  # what is counted in Python: the updates, each schedule's steps, the tally's values


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

    def schedules(self) -> Sequence[Schedule]:
        """What follows the counts of steps, such as learning rates."""

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
        return all(isinstance(one, Adam) for one in self.learner._named(torch.optim.Optimizer).values())

    @property
    def fed(self) -> bool:
        """Whether its batches come from the host, on which what is drawn depends."""
        return not hasattr(self.learner, "replay")

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

    def schedules(self) -> Sequence[Schedule]:
        averages = [one.schedule for one in vars(self.learner).values() if isinstance(one, Average)]
        return [*(one.schedule for one in self.optimisers()), *averages]

    def optimisers(self) -> list[Adam]:
        return [one for one in self.learner._named(torch.optim.Optimizer).values() if isinstance(one, Adam)]

    def doubtful(self) -> Sequence[Doubtful]:
        return self.learner.doubtful()

    def counts(self) -> Counts:
        learner = self.learner
        own = {"updates": learner._n_updates, "steps": learner.num_timesteps}
        return [own, dict(learner.tally.counts), *({"done": one.done} for one in self.schedules())]

    def set_counts(self, counts: Counts) -> None:
        learner, (own, tally, *schedules) = self.learner, counts
        learner._n_updates, learner.num_timesteps = own["updates"], own["steps"]
        learner.tally.counts = dict(tally)
        for schedule, one in zip(self.schedules(), schedules, strict=True):
            schedule.done = one["done"]
