"""How updates are run: line by line, as a recorded graph, compiled, or several runs as one program.

``eager`` is the text, line by line; ``graph`` records a period of updates on a GPU and replays it; with `compile=true`
a processor runs them compiled; a stack runs several learners of one shape together, and may be a graph too.  All have
the same results: ``graph`` to the bit, the others within the rounding of float32.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rlkit.algorithms.engine.compiled import compile_updates
from rlkit.algorithms.engine.graph import Fed, Graph
from rlkit.algorithms.engine.program import Program
from rlkit.algorithms.engine.rules import broken
from rlkit.errors import UserError, require_choice

if TYPE_CHECKING:
    from rlkit.algorithms.learner import Learner

ENGINES = ("auto", "eager", "graph")


@runtime_checkable
class Engine(Protocol):
    """What does the updates of a learner, and counts them."""

    def advance(self, most: int) -> None:
        """Between one and ``most`` updates."""


class Eager:
    """An update is its text."""

    def __init__(self, program: Program):
        self.program = program

    def advance(self, most: int) -> None:
        self.program.once()


def engine_of(learner: Learner) -> Engine:
    """The engine that ``learner.engine`` asks for.

    Raises :class:`UserError` for an unknown name, and for a graph where there is no GPU.
    """
    require_choice("engine", learner.engine, ENGINES)
    program = Program(learner)
    on_gpu = learner.device.type == "cuda"
    if learner.engine == "graph" and not on_gpu:
        raise UserError(f"engine=graph records what a GPU does, expected one and not device={learner.device}")
    if learner.engine == "auto" and getattr(learner.config, "compile", False):
        found = compile_updates(program)
        if found is not None:
            return found
    if not on_gpu or learner.engine == "eager" or not program.recordable:
        return Eager(program)
    if program.fed:
        return Fed(program)
    reason = broken(learner)
    if reason is None:
        return Graph(program)
    print(f"rlkit: updates of {learner.name} cannot be a graph: {reason}; going on eagerly", file=sys.stderr)
    return Eager(program)
