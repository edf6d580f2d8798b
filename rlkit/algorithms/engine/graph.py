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

from rlkit.algorithms.engine.program import Counts, Doubtful, Recordable

MOST_DOUBTED = 3  # after so many replays that had to be done again, updates are done one by one
WARM_UPS = 2  # periods done before recording, so that nothing is allocated or chosen for the first time in it
Replay = Callable[[], Any]
Record = Callable[[Callable[[], None], Sequence[torch.Generator]], Replay]


def cuda_record(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Replay:
    """``work`` as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        work()
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

    def __init__(self, program: Recordable, record: Record = cuda_record):
        self.program, self.record = program, record
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
            for optimiser, steps in zip(program.optimisers(), self.steps, strict=True):
                optimiser.plan(steps)
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
            for optimiser, planned in zip(program.optimisers(), steps, strict=True):
                optimiser.plan(planned)
                optimiser.place = 0
            self.replay, self.steps = self.record(work, program.generators()), steps
            self.gained = difference(program.counts(), before.counts)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.failed, self.replay = True, None
            reason = str(error).partition("\n")[0]
            print(f"rlkit: updates of {program.name} cannot be a graph ({reason}); going on eagerly", file=sys.stderr)
        finally:
            for one in program.doubtful():
                one.deferred = False
        before.restore()
        _doubts(program.doubtful())


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
