"""A recording of what a processor does, done again by the operators it consists of: a graph without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map


class Tape(TorchDispatchMode):
    """Operators with their arguments; what one of them returned is replaced, in the next, by what it returns now."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::_local_scalar_dense", "aten::is_nonzero"):
            raise RuntimeError("a value is read back")
        found = func(*args, **(kwargs or {}))
        returned = [one for one in tree_flatten(found)[0] if isinstance(one, torch.Tensor)]
        self.operators.append((func, args, kwargs or {}, returned))
        return found

    def replay(self) -> None:
        now: dict[int, torch.Tensor] = {}

        def current(value: Any) -> Any:
            return now.get(id(value), value) if isinstance(value, torch.Tensor) else value

        with torch.no_grad():
            for func, args, kwargs, returned in self.operators:
                found = func(*tree_map(current, args), **tree_map(current, kwargs))
                again = [one for one in tree_flatten(found)[0] if isinstance(one, torch.Tensor)]
                for old, new in zip(returned, again, strict=True):
                    if old is not new:
                        now[id(old)] = new


def record(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    """A recorder for :class:`rlkit.algorithms.engine.graph.Graph`; here recording is doing."""
    tape = Tape()
    with tape:
        work()
    return tape.replay
