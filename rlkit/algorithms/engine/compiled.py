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

from rlkit.algorithms.engine.expressions import Unsupported
from rlkit.algorithms.engine.graph import Moment, difference
from rlkit.algorithms.engine.lower import Lowered, Part, lower
from rlkit.algorithms.engine.program import Counts, Program, Recordable
from rlkit.algorithms.engine.record import Node, Place, Recorder
from rlkit.algorithms.floats import flush_subnormals
from rlkit.algorithms.nets import Adam

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
TIMED_SECONDS = 0.15  # of each of both ways, to say when compiling pays


class Compiled:
    """An engine: updates as compiled programs, one for each place in the period.

    Raises :class:`Unsupported` where the update is no program, or there is nothing to compile it with.
    """

    def __init__(self, program: Program):
        start = time.perf_counter()
        if program.device.type != "cpu":
            raise Unsupported(f"the device is {program.device}, expected cpu")
        command, self.program = _compiler(), program
        before = Moment(program)
        try:
            for _ in range(program.period):
                program.once()  # sums of the tally are there
            recorders, self.gained = _recorded(program)
        finally:
            before.restore()
        lowered = [lower(recorder.nodes) for recorder in recorders]
        texts = list(dict.fromkeys(step.text for one in lowered for step in one.steps if isinstance(step, Part)))
        functions = _compiled(command, texts)
        arena = _aligned(max(one.size + 4 * one.scratch for one in lowered))
        self.updates = [_Update(one, functions, arena, program.optimisers()) for one in lowered]
        self.seconds = time.perf_counter() - start
        self.update_seconds, self.eager_seconds = self._timed(before, lambda: self.advance(1), program.once)

    def advance(self, most: int) -> None:
        """``most`` updates."""
        program, times = self.program, [0] * self.program.period
        first = program.updates()
        with flush_subnormals():
            for place in (done % program.period for done in range(first, first + most)):
                self.updates[place].run()
                times[place] += 1
        counts = program.counts()
        for gained, n in zip(self.gained, times, strict=True):
            for own, more in zip(counts, gained, strict=True):
                own.update({name: own.get(name, 0) + n * count for name, count in more.items() if n})
        program.set_counts(counts)

    def _timed(self, before: Moment, *ways: Callable[[], object]) -> list[float]:
        """Seconds of an update in each of several ways, all taken back."""
        seconds = []
        for way in ways:
            done, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < TIMED_SECONDS or done < 2 * self.program.period:
                for _ in range(self.program.period):
                    way()
                done += self.program.period
            seconds.append(spent / done)
            before.restore()
        return seconds

    @property
    def sentence(self) -> str:
        """How long compiling took, and what it gains here."""
        text = f"compiled in {self.seconds:.0f} s: {1e3 * self.update_seconds:.2f} ms an update"
        text += f", {1e3 * self.eager_seconds:.2f} without"
        gain = self.eager_seconds - self.update_seconds
        return f"{text}; pays after {self.seconds / gain:,.0f} updates" if gain > 0 else f"{text}: slower here"


def compile_updates(program: Program) -> Compiled | None:
    """The engine, or None where there can be none; which it is, is one sentence on stdout."""
    try:
        found = Compiled(program)
    except Unsupported as error:
        print(f"not compiled, updates are as without compile=true: {error}", flush=True)
        return None
    print(found.sentence, flush=True)
    return found


def _recorded(program: Recordable) -> tuple[list[Recorder], list[Counts]]:
    """For each place in the period the update's recording, and what Python counted in it.

    Every update is recorded twice: what differs between the two is no program.
    """
    found: dict[int, tuple[Recorder, Counts]] = {}
    for _ in range(2 * program.period):
        place, recorder, before = program.updates() % program.period, Recorder(), program.counts()
        with recorder:
            program.once()
        line = found[place][0].differs(recorder) if place in found else None
        if line is not None:
            raise Unsupported(f"two updates a period ({program.period}) apart are not the same program ({line})")
        own, tally, *optimisers = difference(program.counts(), before)
        found.setdefault(place, (recorder, [own, tally, *({} for _ in optimisers)]))  # steps are counted one by one
        recorder.close()
    recorders, gained = zip(*(found[place] for place in range(program.period)), strict=True)
    return list(recorders), list(gained)


class _Update:
    """One update: draws, parts of C++, and functions of the host between them."""

    def __init__(self, lowered: Lowered, functions: dict[str, Any], arena: Tensor, optimisers: Sequence[Adam]):
        self._arena, self._offsets = arena, lowered.offsets
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

    def run(self) -> None:
        for i, optimiser in enumerate(self.optimisers):
            self.rates[i] = float(optimiser.next_rate())
        for step in self.steps:
            step()

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


def _compiled(command: str, texts: Sequence[str]) -> dict[str, Any]:
    """A function for each of ``texts``."""
    head = 'extern "C" void part{}(char** __restrict e, char* arena, const double* rates, float* scratch) {{\n{}\n}}\n'
    with tempfile.TemporaryDirectory(prefix="rlkit-") as folder:
        source, library = Path(folder) / "updates.cpp", Path(folder) / "updates.so"
        kernels = Path(__file__).with_name("kernels.hpp").read_text(encoding="utf-8")
        source.write_text(kernels + "".join(head.format(i, text) for i, text in enumerate(texts)), encoding="utf-8")
        done = subprocess.run(
            [command, *FLAGS, *os.environ.get("CXXFLAGS", "").split(), str(source), "-o", str(library)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or ["it said nothing"]
            raise Unsupported(f"{command} failed: {lines[0]}")
        loaded = ctypes.CDLL(str(library))
    found = {text: getattr(loaded, f"part{i}") for i, text in enumerate(texts)}
    for function in found.values():
        function.argtypes, function.restype = [ctypes.c_void_p] * 4, None
    return found
