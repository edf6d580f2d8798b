"""Several runs done together by one text: what each of them has of its own, and how one text sees it.

Inside a stack (:mod:`rlkit.algorithms.engine.stacked`) the text of an update is run once under ``torch.vmap`` for all
runs: a tensor has the shape it has in a run alone, and stands for one of each run.  :class:`Each` holds what cannot be
one tensor (generators, replays, searches); :func:`enter` and :func:`leave` are the border.  Outside a stack nothing
here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_RUN: ContextVar[Tensor | None] = ContextVar("run", default=None)  # the number of the run, inside a stack


@contextmanager
def together(run: Tensor) -> Iterator[None]:
    """Inside, the text is that of several runs; ``run`` is their number, as ``torch.vmap`` shows it."""
    before = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(before)


class _Held:
    """Somewhere for tensors to lie: a plain list would be taken apart on its way."""

    def __init__(self, make: Callable[[], tuple[Tensor, ...]] = tuple):
        self.make = make
        self.tensors: tuple[Tensor, ...] = ()


class _Enter(torch.autograd.Function):
    """Tensors with a run's axis in front, made outside, seen without it inside."""

    @staticmethod
    def forward(run: Tensor, held: _Held) -> tuple[Tensor, ...]:
        raise RuntimeError("only within torch.vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """No gradient goes through."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, run: Tensor, held: _Held) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        found = held.make()
        return found, (0,) * len(found)


class _Leave(torch.autograd.Function):
    """What tensors inside are outside, with the run's axis in front and the graph they belong to."""

    @staticmethod
    def forward(run: Tensor, held: _Held, *tensors: Tensor) -> Tensor:
        raise RuntimeError("only within torch.vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """No gradient goes through."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, run: Tensor, held: _Held, *tensors: Tensor) -> tuple[Tensor, int]:
        count = info.batch_size
        held.tensors = tuple(
            tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors, in_dims[2:], strict=True)
        )
        return run, 0


def enter(make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What ``make`` returns, tensors ``[R, ...]`` of all runs, as the text sees them: ``[...]``; no gradient."""
    found: Any = _Enter.apply(_RUN.get(), _Held(make))
    return tuple(found)


def leave(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors of all runs, ``[R, ...]``, behind the ``[...]`` that the text sees; they keep their graph."""
    held = _Held()
    _Leave.apply(_RUN.get(), held, *tensors)
    return held.tensors


class Each:
    """One object of each run; a method called is called of each, with its own part of every tensor.

    Methods return a tensor, or a (named) tuple of tensors, of the same shapes for every run.
    """

    def __init__(self, items: Sequence[Any]):
        self.items = list(items)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            outside = [parts(argument, len(self.items)) for argument in arguments]
            kinds: list[Any] = []

            def make() -> tuple[Tensor, ...]:
                found = [getattr(item, name)(*own) for item, *own in zip(self.items, *outside, strict=True)]
                kinds.append(found[0])
                fields = [one if isinstance(one, tuple) else (one,) for one in found]
                return tuple(torch.stack(same) for same in zip(*fields, strict=True))

            tensors = enter(make)
            (kind,) = kinds
            if not isinstance(kind, tuple):
                return tensors[0]
            return type(kind)(*tensors) if hasattr(kind, "_fields") else tensors

        return call


def parts(value: Any, count: int) -> Sequence[Any]:
    """What each of ``count`` runs has of ``value``: its own item, its slice of a tensor, or the same."""
    if isinstance(value, Each):
        return value.items
    if isinstance(value, Tensor):
        return leave(value)[0].unbind()
    return [value] * count
