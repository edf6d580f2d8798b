"""A period of updates recorded once and replayed: on a GPU a launch takes longer than most of what it launches.

What is recorded are kernels over fixed tensors and generators registered with the graph, which go on drawing where they
stand.  What Python counts is added up beside them, learning rates are written before each replay.  A replay has the
bytes of the updates it stands for; where fewer than a period of them are due, they are done one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from rlkit.algorithms.engine.program import Counts, Doubtful, Program, Recordable

MOST_DOUBTED = 3  # after so many replays that had to be done again, updates are done one by one
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


class Graph:
    """An engine over a :class:`~rlkit.algorithms.engine.program.Program` or a stack of them.

    What cannot be recorded is said in one sentence, and run as it is written.
    """

    def __init__(self, program: Recordable, record: Record | None = None):
        self.program, self.record = program, record or CudaRecorder()
        self.replay: Replay | None = None
        self.failed = False
        self.doubted = 0  # how often replayed updates had to be done again

    def advance(self, most: int) -> None:
        program, period = self.program, self.program.period
        whole = 0 if self.failed or program.updates() % period else most // period
        if whole and self.replay is None:
            self._prepare()
        if not whole or self.replay is None or self.doubted > MOST_DOUBTED:
            program.once()
            return
        doubtful = program.doubtful()
        before = Moment(program) if doubtful else None
        for _ in range(whole):
            for schedule, steps in zip(program.schedules(), self.steps, strict=True):
                schedule.plan(steps)
            self.replay()
            program.set_counts(_added(program.counts(), self.gained))
        if before is not None and _doubts(doubtful):
            self.doubted += 1
            before.restore()
            for _ in range(whole * period):
                program.once()

    def _prepare(self) -> None:
        """Record a period, leaving everything as it was."""
        program, period = self.program, self.program.period

        def work() -> None:
            for _ in range(period):
                program.once()

        def warm() -> None:
            for _ in range(WARM_UPS):
                work()

        before = Moment(program)
        for one in program.doubtful():
            one.deferred = True
        try:
            beside(warm, program.device)
            steps = [one["done"] // WARM_UPS for one in difference(program.counts(), before.counts)[2:]]
            before.restore()
            for schedule, planned in zip(program.schedules(), steps, strict=True):
                schedule.plan(planned)
                schedule.place = 0
            self.replay, self.steps = self.record(work, program.generators()), steps
            self.gained = difference(program.counts(), before.counts)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.failed, self.replay = True, None
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


def _added(counts: Counts, gained: Counts) -> Counts:
    return [{k: one.get(k, 0) + more.get(k, 0) for k in one | more} for one, more in zip(counts, gained, strict=True)]
