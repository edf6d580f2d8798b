"""Draws of an update, from generators that the agent owns: float32 on the generator's device.

Where several runs are done together each draws from its own generator what it would draw alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rlkit.algorithms.each import Each, enter, parts

Generator = torch.Generator | Each
Scalar = float | Float[Tensor, ""]  # a number, or one of each of several runs done together


def normal(generator: Generator, shape: Sequence[int], std: Scalar = 1.0) -> Tensor:
    """N(0, std²), of ``shape``."""
    if isinstance(std, Tensor):
        return std * normal(generator, shape)
    return _filled(generator, shape, lambda out, own: out.normal_(0, std, generator=own))


def uniform(generator: Generator, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform from ``low`` to below ``high``, of ``shape``."""
    return _filled(generator, shape, lambda out, own: out.uniform_(low, high, generator=own))


def bernoulli(generator: Generator, shape: Sequence[int], probability: float) -> Tensor:
    """1 with ``probability``, else 0, of ``shape``."""
    return _filled(generator, shape, lambda out, own: out.bernoulli_(probability, generator=own))


def choice(generator: Generator, values: Tensor | Each, count: int) -> Tensor:
    """``count`` of ``values [n, ...]``, uniformly and with replacement."""
    if isinstance(generator, Each):
        found = zip(generator.items, parts(values, len(generator.items)), strict=True)
        return enter(lambda: (torch.stack([choice(own, of, count) for own, of in found]),))[0]
    assert isinstance(values, Tensor)
    return values[torch.randint(len(values), (count,), generator=generator, device=generator.device)]


def within(values: Tensor, bound: Scalar) -> Tensor:
    """``values`` within ± ``bound``."""
    limit: Any = bound  # clamp takes two numbers or two tensors
    return values.clamp(-limit, limit)


def _filled(generator: Generator, shape: Sequence[int], fill: Callable[[Tensor, torch.Generator], object]) -> Tensor:
    if isinstance(generator, Each):
        owns = generator.items
        return enter(lambda: (_together(owns, shape, fill),))[0]
    out = torch.empty(tuple(shape), device=generator.device)
    fill(out, generator)
    return out


def _together(
    generators: Sequence[torch.Generator], shape: Sequence[int], fill: Callable[[Tensor, torch.Generator], object]
) -> Tensor:
    out = torch.empty((len(generators), *shape), device=generators[0].device)
    for part, own in zip(out, generators, strict=True):
        fill(part, own)
    return out
