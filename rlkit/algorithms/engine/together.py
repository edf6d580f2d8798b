"""Lessons of several learners, those of one shape as one program: each has its own turns, as if it learnt alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from rlkit.algorithms.engine.graph import Graph
from rlkit.algorithms.engine.rules import broken
from rlkit.algorithms.engine.stacked import Stack, groups
from rlkit.algorithms.floats import fast_float32
from rlkit.errors import UserError

if TYPE_CHECKING:
    from rlkit.algorithms.learner import Learner

Lessons = Generator[int, None, Any]  # how many updates until the next turn; 0: none, the turn comes again at once


def learn_together(
    learners: Sequence[Learner], lessons: Sequence[Lessons], prepare: Callable[[list[int]], None] = lambda places: None
) -> list[Any]:
    """Drive the ``lessons`` of all ``learners``; returns what each of them returned, or the UserError that ended it.

    ``prepare`` is told whose turn comes next, as places in ``learners``.  A run that ends, or fails, leaves the stack;
    the others go on.
    """
    ends: dict[int, Any] = {}
    most: dict[int, int] = {}

    def turn(places: list[int]) -> None:
        prepare(places)
        for place in places:
            try:
                most[place] = next(lessons[place])
            except StopIteration as end:
                ends[place] = end.value
            except UserError as error:
                ends[place] = error
        again = [place for place in places if place not in ends and most[place] == 0]
        if again:
            turn(again)

    with ExitStack() as stack:
        for one in lessons:
            stack.enter_context(closing(one))
        stack.enter_context(fast_float32(learners[0].device, learners[0].tf32))
        turn(list(range(len(learners))))
        begun = [place for place in range(len(learners)) if place not in ends]
        for group in groups([learners[place] for place in begun]):
            if len(group) > 1:
                _require_rules(learners[begun[group[0]]])
            _drive([begun[k] for k in group], learners, turn, most, ends)
    return [ends[place] for place in range(len(learners))]


def _drive(
    places: list[int],
    learners: Sequence[Learner],
    turn: Callable[[list[int]], None],
    most: dict[int, int],
    ends: dict[int, Any],
) -> None:
    """Learn on at ``places``, whose learners can be stacked, until all have ended."""
    while places:
        if len(places) == 1:
            alone = places[0]
            learners[alone].advance(most[alone])
            turn(places)
        else:
            with _room(learners, places):
                program = Stack([learners[place] for place in places])
                engine = Graph(program) if program.device.type == "cuda" and program.graphs else None
                try:
                    while not any(place in ends for place in places):
                        if engine is None:
                            program.once()
                        else:
                            engine.advance(min(most[place] for place in places))
                        turn(places)
                finally:
                    program.release()
        places = [place for place in places if place not in ends]


def _require_rules(learner: Learner) -> None:
    reason = broken(learner)
    if reason is not None:
        raise UserError(f"agent={learner.name} cannot be stacked: {reason}; expected another engine")


@contextmanager
def _room(learners: Sequence[Learner], places: Sequence[int]) -> Iterator[None]:
    """Say how many runs fit where a GPU's memory is not enough for those at ``places``."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        device = learners[places[0]].device
        whole = torch.cuda.get_device_properties(device).total_memory
        shared = max(row.element_size() * row.nelement() for row in _rows(learners, places))
        each = max(1, (torch.cuda.max_memory_allocated(device) - shared) // len(places))
        raise UserError(
            f"{len(places)} runs do not fit together in the {whole / 2**30:.0f} GiB of {device}, each takes "
            f"{each / 2**30:.2f}: expected about {min(len(places) - 1, (whole - shared) * 9 // 10 // each)} at most"
        ) from None


def _rows(learners: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [learners[place].replay.rows for place in places]
