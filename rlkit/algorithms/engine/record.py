"""An update written down: every operation it performed on which tensors, by performing it once.

A :class:`Recorder` watches PyTorch's dispatcher below automatic differentiation, so that backward passes, optimisers
and targets are in the list like everything else.  Tensors are told apart by the storage they lie in.  What lay there
before the update is *external*: parameters, moments, the replay's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import Token
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from rlkit.algorithms.engine.outside import RECORDING, Function
from rlkit.algorithms.engine.rules import line_of_text

_aten = torch.ops.aten


def _var_mean(
    x: Tensor, dim: list[int], unbiased: bool = True, keepdim: bool = False, correction: float | None = None
) -> tuple[Tensor, Tensor]:
    correction = int(unbiased) if correction is None else correction
    mean = x.mean(dim, keepdim=True)
    count = x.numel() / mean.numel()
    var = (x - mean).square().mean(dim, keepdim=keepdim) * (count / (count - correction))
    return var, mean if keepdim else mean.squeeze(dim)


def _constant_pad(x: Tensor, pad: list[int], value: float = 0) -> Tensor:
    sides = list(zip(pad[::2], pad[1::2], strict=True))[::-1]  # of the last dimensions
    sides = [(0, 0)] * (x.dim() - len(sides)) + sides
    padded = torch.full([n + sum(side) for n, side in zip(x.shape, sides, strict=True)], value, dtype=x.dtype)
    inner = padded
    for d, (before, _) in enumerate(sides):
        inner = inner.narrow(d, before, x.shape[d])
    inner.copy_(x)
    return padded


# Operations in terms of simpler ones.
DECOMPOSED: dict[Any, Callable[..., Any]] = get_decompositions(
    [
        *(_aten.huber_loss, _aten.huber_loss_backward, _aten.mse_loss, _aten.mse_loss_backward, _aten.softplus),
        *(_aten.softplus_backward, _aten.native_layer_norm, _aten.native_layer_norm_backward, _aten.slice_backward),
        *(_aten.linalg_vector_norm, _aten.logsumexp, _aten._softmax, _aten._softmax_backward_data),
        *(_aten.select_backward, _aten.sigmoid_backward, _aten.addcmul, _aten.stack),
    ]
) | {_aten.var_mean.dim: _var_mean, _aten.var_mean.correction: _var_mean, _aten.constant_pad_nd.default: _constant_pad}


@dataclass(eq=False)
class Store:
    """Memory that tensors lie in; ``shape`` is the first one's seen there, ``plain`` if that fills it row by row."""

    number: int
    shape: tuple[int, ...]
    size: int  # bytes
    plain: bool
    tensor: Tensor | None  # the first one seen there, None where the update made it
    constant: bool = False  # made from Python's numbers, such as ``torch.tensor(2.0)``

    @property
    def external(self) -> bool:
        return self.tensor is not None

    @property
    def key(self) -> object:
        """The same in two recordings of the same update."""
        if self.tensor is None:
            return ("made", self.number)
        if self.constant:
            return ("constant", tuple(self.tensor.flatten().tolist()), self.tensor.dtype)
        return ("external", _key(self.tensor))


@dataclass(frozen=True)
class Place:
    """A tensor: where in which store, in elements."""

    store: Store
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


@dataclass(eq=False)
class Node:
    """An operation; tensors among its arguments are places.  ``target`` is an operator, or a function of the host."""

    line: str  # of the update's text
    target: Any
    args: list[Any]
    kwargs: dict[str, Any]
    outs: list[Place]
    written: list[Place] = field(default_factory=list)  # what it changed or made

    @property
    def read(self) -> list[Place]:
        return [*places(self.args), *places(list(self.kwargs.values()))]

    @property
    def host(self) -> bool:
        """Whether it is done between parts of the program and not in one."""
        return not isinstance(self.target, torch._ops.OpOverload)

    @property
    def draws(self) -> bool:
        return isinstance(self.kwargs.get("generator"), torch.Generator)

    @property
    def key(self) -> object:
        kwargs = {name: value for name, value in self.kwargs.items() if name != "lr"}  # may follow the count
        return self.target, _described(self.args), _described(kwargs), _described(self.outs)


def places(values: Any) -> Iterator[Place]:
    """The places in ``values``, those in lists too."""
    for value in values:
        if isinstance(value, Place):
            yield value
        elif isinstance(value, list | tuple):
            yield from places(value)


def _described(value: Any) -> Any:
    if isinstance(value, Place):
        return value.store.key, value.offset, value.sizes, value.strides, value.dtype
    if isinstance(value, list | tuple):
        return tuple(_described(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _described(value[name])) for name in sorted(value))
    return id(value) if isinstance(value, torch.Generator) else value


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class Recorder(TorchDispatchMode):
    """Within it every operation is performed, and written down in ``nodes``."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.stores: dict[int, Store] = {}
        self._alive: list[Tensor] = []  # while recording: memory that is given back may be given out again
        self._tokens: list[Token[Any]] = []

    def __enter__(self) -> Recorder:
        self._tokens.append(RECORDING.set(self.outside))
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        RECORDING.reset(self._tokens.pop())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DECOMPOSED:
            with self:
                return DECOMPOSED[func](*args, **kwargs)
        seen = self._places(args), {name: self._places(value) for name, value in kwargs.items()}
        named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        changed = [named[a.name] for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
        found = func(*args, **kwargs)
        if func is _aten.lift_fresh.default:
            self.stores[_key(args[0])].constant = True
        known = len(self.stores)
        outs = list(places([self._places(found, made=True)]))
        made = [place for place in outs if place.store.number >= known]
        self.nodes.append(Node(line_of_text(), func, *seen, outs, [*places([self._places(changed)]), *made]))
        return found

    def outside(self, function: Function, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with _disable_current_modes(), torch.no_grad():
            seen = self._places(tensors)
            found = tuple(t.clone() for t in function(*tensors))
            outs = list(places(self._places(found, made=True)))
        self.nodes.append(Node(line_of_text(), function, seen, {}, outs, outs))
        return found

    def place(self, tensor: Tensor, made: bool = False) -> Place:
        """Where ``tensor`` lies; a storage not seen before is external unless an operation ``made`` it."""
        store = self.stores.get(_key(tensor))
        if store is None:
            size, plain = tensor.untyped_storage().nbytes(), tensor.is_contiguous() and not tensor.storage_offset()
            plain = plain and size == tensor.numel() * tensor.element_size()
            seen = tensor.detach()
            self._alive.append(seen)
            store = Store(len(self.stores), tuple(tensor.shape), size, plain, None if made else seen)
            self.stores[_key(tensor)] = store
        return Place(store, int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)

    def _places(self, value: Any, made: bool = False) -> Any:
        if isinstance(value, Tensor):
            return self.place(value, made)
        if isinstance(value, list | tuple):
            return [self._places(item, made) for item in value]
        return value

    def close(self) -> None:
        """Let go of what the update made, once no further operation is to come."""
        self._alive.clear()

    def differs(self, other: Recorder) -> str | None:
        """The first line at which the two are not recordings of one program; None where they are."""
        for one, two in zip(self.nodes, other.nodes, strict=False):
            if one.key != two.key:
                return two.line
        return None if len(self.nodes) == len(other.nodes) else max(self.nodes, other.nodes, key=len)[-1].line
