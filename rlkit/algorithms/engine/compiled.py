"""Whole updates as programs of the processor: losses, gradients, optimisers and targets compiled as one.

An update is recorded (:mod:`record`), written as C++ (:mod:`lower`, ``kernels.hpp``) and compiled by the machine's own
compiler.  Its state stays in the tensors that the agent owns, its draws come from the agent's generators: a checkpoint
does not tell how it was made, and what an update computes differs from eager by rounding in float32 alone.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlkit.algorithms.engine.lower import Lowered, Part, Unsupported, lower
from rlkit.algorithms.engine.record import Node, Place, Recorder
from rlkit.algorithms.floats import flush_subnormals
from rlkit.algorithms.nets import Adam

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
TIMED_SECONDS = 0.15  # of each of both ways, to say when compiling pays


class CompiledUpdates:
    """The updates of a ``Learner`` on the processor, one program for each place in its period.

    Raises :class:`Unsupported` where its update is no program, or there is nothing to compile it with.
    """

    def __init__(self, agent: Any):
        start = time.perf_counter()
        if agent.device.type != "cpu":
            raise Unsupported(f"the device is {agent.device.type}, not cpu")
        command = _compiler()
        recorded = _Recorded(agent)
        lowered = recorded.lowered()
        parts = [step for program in lowered for step in program.steps if isinstance(step, Part)]
        texts = list(dict.fromkeys(part.text for part in parts))
        library = _compiled(command, texts)
        functions = {text: getattr(library, f"part{i}") for i, text in enumerate(texts)}
        arena = _aligned(max(program.size + 4 * program.scratch for program in lowered))
        self.agent, self.optimisers = agent, [x for x in vars(agent).values() if isinstance(x, Adam)]
        self.programs = [
            _Program(program, functions, arena, self.optimisers, list(names))
            for program, (_, names) in zip(lowered, recorded.updates, strict=True)
        ]
        self._held = [(optimiser, optimiser.moments) for optimiser in self.optimisers]
        self.seconds = time.perf_counter() - start
        self.update_seconds, self.eager_seconds = recorded.timed(self.update, lambda: agent.update(agent.draw()))

    @property
    def stale(self) -> bool:
        """Whether the agent's state lies elsewhere by now, as after loading an optimiser's."""
        return any(optimiser.moments is not moments for optimiser, moments in self._held)

    @property
    def sentence(self) -> str:
        """How long compiling took and what it gains here."""
        text = f"compiled in {self.seconds:.0f} s: {1e3 * self.update_seconds:.2f} ms an update"
        gain = self.eager_seconds - self.update_seconds
        if gain <= 0:
            return f"{text}, {1e3 * self.eager_seconds:.2f} without; compile=false is the faster here"
        return f"{text}, {1e3 * self.eager_seconds:.2f} without; pays after {self.seconds / gain:,.0f} updates"

    def update(self) -> None:
        """One update, its metrics added to the agent's tally."""
        with flush_subnormals():
            names = self.programs[self.agent._n_updates % len(self.programs)].run()
        counts = self.agent.tally.counts
        for name in names:
            counts[name] = counts.get(name, 0) + 1


def compiled_updates(agent: Any) -> CompiledUpdates | None:
    """``agent``'s updates compiled, or None; what came of it is one sentence on stdout."""
    try:
        found = CompiledUpdates(agent)
    except Unsupported as error:
        print(f"not compiled, updates are as without compile=true: {error}", flush=True)
        return None
    print(found.sentence, flush=True)
    return found


class _Recorded:
    """A period of an agent's updates, recorded twice and taken back: what differs between the two is no program."""

    def __init__(self, agent: Any):
        self.agent = agent
        self.counts = agent._n_updates, [(x, x.done) for x in vars(agent).values() if isinstance(x, Adam)]
        self.period, self.recorders = agent.period, list[Recorder]()
        # For each place in the period: the recording, and where each metric's sum and its value lie.
        self.updates: list[tuple[Recorder, dict[str, tuple[Place, Place]]]] = []
        try:
            self._record()
        finally:
            self._undo()

    def _record(self) -> None:
        agent, found = self.agent, dict[int, tuple[Recorder, dict[str, Tensor]]]()
        for _ in range(2 * self.period):
            place = agent._n_updates % self.period
            recorder = Recorder()
            self.recorders.append(recorder)
            with recorder:
                metrics = agent.update(agent.draw())
            if place in found and found[place][0].key != recorder.key:
                raise Unsupported(f"update {agent._n_updates + 1} is another than that a period before")
            places = {name: (self._total(name, recorder), recorder.place(value)) for name, value in metrics.items()}
            if place not in found:
                found[place] = recorder, places
            recorder.close()
            agent._n_updates += 1
        self.updates = [found[place] for place in range(self.period)]

    def _total(self, name: str, recorder: Recorder) -> Place:
        sums = self.agent.tally.sums
        if name not in sums:
            sums[name] = torch.zeros((), dtype=torch.float64)
        return recorder.place(sums[name])

    def lowered(self) -> list[Lowered]:
        return [lower(recorder.nodes, list(metrics.values())) for recorder, metrics in self.updates]

    def _undo(self) -> None:
        for recorder in reversed(self.recorders):
            recorder.undo()
        self.agent._n_updates = self.counts[0]
        for optimiser, done in self.counts[1]:
            optimiser.done = done

    def timed(self, *ways: Callable[[], object]) -> list[float]:
        """Seconds of an update in each of several ways, all of them taken back."""
        tally = self.agent.tally
        before = {name: total.clone() for name, total in tally.sums.items()}, dict(tally.counts)
        seconds = []
        try:
            for way in ways:
                done, start = 0, time.perf_counter()
                while (spent := time.perf_counter() - start) < TIMED_SECONDS or done < 2 * self.period:
                    for _ in range(self.period):
                        way()
                        self.agent._n_updates += 1
                    done += self.period
                seconds.append(spent / done)
        finally:
            self._undo()
            for name, total in before[0].items():
                tally.sums[name].copy_(total)
            tally.counts = before[1]
        return seconds


class _Program:
    """One update: draws, parts of C++, and functions of the host between them."""

    def __init__(
        self,
        lowered: Lowered,
        functions: dict[str, Any],
        arena: Tensor,
        optimisers: Sequence[Adam],
        names: list[str],
    ):
        self.names, self._arena, self._offsets = names, arena, lowered.offsets
        self._externals: list[Tensor] = []  # what the tables point to stays
        self.optimisers = [_owner(node.args[0][0], optimisers) for node in lowered.adams]
        self.rates = (ctypes.c_double * max(len(self.optimisers), 1))()
        scratch = arena.data_ptr() + lowered.size
        self.steps: list[Callable[[], object]] = []
        for step in lowered.steps:
            if isinstance(step, Part):
                held = [store.tensor for store in step.externals if store.tensor is not None]
                self._externals += held
                pointers = [tensor.untyped_storage().data_ptr() for tensor in held]
                table = (ctypes.c_void_p * max(len(pointers), 1))(*pointers)
                self.steps.append(_call(functions[step.text], table, arena.data_ptr(), self.rates, scratch))
            else:
                self.steps.append(self._hosted(step))

    def run(self) -> list[str]:
        """The update; returns the names of its metrics."""
        for i, optimiser in enumerate(self.optimisers):
            group = optimiser.param_groups[0]
            self.rates[i] = optimiser.rate(optimiser.done) if optimiser.decay_steps else group["lr"]
            optimiser.done += 1
        for step in self.steps:
            step()
        return self.names

    def _hosted(self, node: Node) -> Callable[[], object]:
        """A draw, or a function that an update calls through ``outside``."""
        args, kwargs, outs = self._views(node.args), node.kwargs, self._views(node.outs)
        if node.draws and node.written == [place for place in node.read if place in node.written]:
            return lambda: node.target(*args, **kwargs)  # it fills its argument

        def run() -> None:
            found = node.target(*args, **kwargs)
            for out, value in zip(outs, [found] if isinstance(found, Tensor) else found, strict=True):
                out.copy_(value)

        return run

    def _views(self, value: Any) -> Any:
        if isinstance(value, Place):
            view = torch.empty(0, dtype=value.dtype)
            if value.store.tensor is not None:
                return view.set_(value.store.tensor.untyped_storage(), value.offset, value.sizes, value.strides)
            start = self._arena.storage_offset() + self._offsets[value.store]
            return view.set_(
                self._arena.untyped_storage(), start // view.element_size() + value.offset, value.sizes, value.strides
            )
        return [self._views(item) for item in value] if isinstance(value, list | tuple) else value


def _call(function: Any, *arguments: Any) -> Callable[[], object]:
    return lambda: function(*arguments)


def _owner(parameter: Place, optimisers: Sequence[Adam]) -> Adam:
    held = parameter.store.tensor
    for optimiser in optimisers:
        if held is not None and optimiser.parameters[0].data_ptr() == held.data_ptr():
            return optimiser
    raise Unsupported("an optimiser other than rlkit.algorithms.nets.Adam")


def _aligned(size: int) -> Tensor:
    whole = torch.zeros(size + 64, dtype=torch.uint8)
    return whole[-whole.data_ptr() % 64 :][:size]


def _compiler() -> str:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise Unsupported(f"there is no C++ compiler ({', '.join(names)})")


def _compiled(command: str, texts: Sequence[str]) -> ctypes.CDLL:
    """The library of functions ``part0``, ``part1``, ..., one for each text."""
    head = 'extern "C" void part{}(char** __restrict e, char* arena, const double* rates, float* scratch) {{\n{}\n}}\n'
    with tempfile.TemporaryDirectory(prefix="rlkit-") as folder:
        source, library = Path(folder) / "updates.cpp", Path(folder) / "updates.so"
        kernels = Path(__file__).with_name("kernels.hpp").read_text()
        source.write_text(kernels + "".join(head.format(i, text) for i, text in enumerate(texts)))
        done = subprocess.run(
            [command, *FLAGS, *os.environ.get("CXXFLAGS", "").split(), str(source), "-o", str(library)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or ["it said nothing"]
            raise Unsupported(f"{command} failed: {lines[0]}")
        found = ctypes.CDLL(str(library))
    for i in range(len(texts)):
        function = getattr(found, f"part{i}")
        function.argtypes, function.restype = [ctypes.c_void_p] * 4, None
    return found
