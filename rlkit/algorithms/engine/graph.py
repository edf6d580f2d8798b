"""A period of updates recorded once and replayed: on a GPU a launch takes longer than most of what it launches.

What is recorded are kernels over fixed tensors and generators registered with the graph, which go on drawing where they
stand.  What Python counts is added up beside them, learning rates are written before each replay.  A replay has the
bytes of the updates it stands for; where fewer than a period of them are due, they are done one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from rlkit.algorithms.engine.program import Counts, Doubtful, Program, Recordable

MOST_DOUBTED = 3  # after so many replays that had to be done again, updates are done one by one
UNROLLED = 8  # periods in the longer of two recordings, so that Python is asked less often
WARM_UPS = 2  # periods done before recording, so that nothing is allocated or chosen for the first time in it
Replay = Callable[[], Any]
Record = Callable[[Callable[[], None], Sequence[torch.Generator]], Replay]


class CudaRecorder:
    """Work as CUDA graphs, which are replayed one after another and share their memory."""

    pool: Any = None

    def __call__(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=self.pool):
            work()
        self.pool = graph.pool()
        return graph.replay


def beside(work: Callable[[], None], device: torch.device) -> None:
    """Do ``work`` on another stream of a GPU, as warming up for a graph needs."""
    if device.type != "cuda":
        work()
        return
    stream, main = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        work()
    main.wait_stream(stream)
    torch.cuda.synchronize(device)


class Moment:
    """All that updates change, to go back to."""

    def __init__(self, program: Recordable):
        self.program = program
        self.values = [tensor.detach().clone() for tensor in program.tensors()]
        self.drawn = [generator.get_state() for generator in program.generators()]
        self.counts = program.counts()

    @torch.no_grad()
    def restore(self) -> None:
        tensors = self.program.tensors()
        for tensor, value in zip(tensors, self.values, strict=False):
            tensor.copy_(value)
        for tensor in tensors[len(self.values) :]:  # sums of the tally that came to be since
            tensor.zero_()
        for generator, state in zip(self.program.generators(), self.drawn, strict=True):
            generator.set_state(state)
        self.program.set_counts(self.counts)


@dataclass(frozen=True)
class Recorded:
    """Updates that are replayed together: how many, how, what Python counts in them, steps of each schedule."""

    updates: int
    replay: Replay
    gained: Counts
    steps: list[int]


class Graph:
    """An engine over a :class:`~rlkit.algorithms.engine.program.Program` or a stack of them.

    What cannot be recorded is said in one sentence, and run as it is written.
    """

    def __init__(self, program: Recordable, record: Record | None = None):
        self.program, self.record = program, record or CudaRecorder()
        self.recorded: list[Recorded] = []  # the longest first
        self.failed = False
        self.doubted = 0  # how often replayed updates had to be done again

    def advance(self, most: int) -> None:
        program, period = self.program, self.program.period
        whole = 0 if self.failed or self.doubted > MOST_DOUBTED or program.updates() % period else most // period
        if whole and not self.recorded:
            self._prepare()
        if not whole or not self.recorded:
            program.once()
            return
        doubtful = program.doubtful()
        before = Moment(program) if doubtful else None
        remaining = whole * period
        for one in self.recorded:
            times, remaining = divmod(remaining, one.updates)
            self._replayed(one, times)
        if before is not None and _doubts(doubtful):
            self.doubted += 1
            before.restore()
            for _ in range(whole * period):
                program.once()

    def _replayed(self, one: Recorded, times: int) -> None:
        program, counts = self.program, self.program.counts()
        moving = [(s, steps) for s, steps in zip(program.schedules(), one.steps, strict=True) if not s.fixed]
        for _ in range(times):
            for schedule, steps in moving:
                schedule.plan(steps)
                schedule.done += steps
            one.replay()
        program.set_counts(_added(counts, one.gained, times))

    def _prepare(self) -> None:
        """Record a period, and several at once, leaving everything as it was."""
        program, period, before = self.program, self.program.period, Moment(self.program)

        def work(periods: int) -> None:
            for _ in range(periods * period):
                program.once()

        for one in program.doubtful():
            one.deferred = True
        try:
            beside(lambda: work(WARM_UPS), program.device)
            steps = [one["done"] // WARM_UPS for one in difference(program.counts(), before.counts)[2:]]
            for periods in (UNROLLED, 1):
                before.restore()
                planned = [periods * n for n in steps]
                for schedule, count in zip(program.schedules(), planned, strict=True):
                    schedule.plan(count)
                    schedule.place = 0
                replay = self.record(partial(work, periods), program.generators())
                gained = difference(program.counts(), before.counts)
                self.recorded.append(Recorded(periods * period, replay, gained, planned))
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.failed, self.recorded = True, []
            print(_refusal(program.name, error), file=sys.stderr)
        finally:
            for one in program.doubtful():
                one.deferred = False
        before.restore()
        _doubts(program.doubtful())


class Fed:
    """An engine for a learner whose batches are drawn on the host: a graph of its update for each shape of them.

    Updates of a shape not met before are done as they are written; from then on they are recorded and replayed.
    """

    def __init__(self, program: Program, record: Record | None = None):
        self.program, self.record = program, record or CudaRecorder()
        self.met: dict[tuple[Any, ...], int] = {}
        self.graphs: dict[tuple[Any, ...], tuple[Any, Replay, Counts]] = {}
        self.failed = False

    def advance(self, most: int) -> None:
        batch = self.program.learner.draw()
        shape = tuple(None if part is None else (part.shape, part.dtype) for part in batch)
        self.met[shape] = self.met.get(shape, 0) + 1
        if not self.failed and shape not in self.graphs and self.met[shape] > WARM_UPS:
            self._prepare(shape, batch)
        if shape not in self.graphs:
            beside(lambda: self._once(batch), self.program.device)
            return
        held, replay, gained = self.graphs[shape]
        for own, part in zip(held, batch, strict=True):
            if own is not None:
                own.copy_(part)
        for schedule in self.program.schedules():
            schedule.plan(1)
        replay()
        self.program.set_counts(_added(self.program.counts(), gained))

    def _once(self, batch: Any) -> None:
        learner = self.program.learner
        learner.tally.add(learner.update(batch))
        learner.num_timesteps += 1
        learner._n_updates += 1

    def _prepare(self, shape: tuple[Any, ...], batch: Any) -> None:
        program, before = self.program, Moment(self.program)
        held = type(batch)(*(None if part is None else part.clone() for part in batch))
        for schedule in program.schedules():
            schedule.plan(1)
            schedule.place = 0
        try:
            replay = self.record(lambda: self._once(held), program.generators())
            self.graphs[shape] = held, replay, difference(program.counts(), before.counts)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.failed = True
            print(_refusal(program.name, error), file=sys.stderr)
        before.restore()


def _refusal(name: str, error: RuntimeError) -> str:
    reason = str(error).partition("\n")[0]
    return f"rlkit: updates of {name} cannot be a graph ({reason}); going on eagerly"


def _doubts(doubtful: Sequence[Doubtful]) -> int:
    """How many answers may have been wrong since the last time."""
    found = sum(int(one.doubts) for one in doubtful)
    for one in doubtful:
        one.doubts.zero_()
    return found


def difference(after: Counts, before: Counts) -> Counts:
    """What was counted since."""
    return [{k: n - old.get(k, 0) for k, n in new.items()} for new, old in zip(after, before, strict=True)]


def _added(counts: Counts, gained: Counts, times: int = 1) -> Counts:
    pairs = zip(counts, gained, strict=True)
    return [{k: one.get(k, 0) + times * more.get(k, 0) for k in one | more if times or k in one} for one, more in pairs]
