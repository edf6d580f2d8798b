"""Steps of an update that are no operations on tensors, such as a search on the processor."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]
Recording = Callable[[Function, tuple[Tensor, ...]], tuple[Tensor, ...]]
RECORDING: ContextVar[Recording | None] = ContextVar("recording", default=None)


def outside(function: Function, *tensors: Tensor) -> tuple[Tensor, ...]:
    """``function(*tensors)``, which may read values and branch on them, but has no gradient.

    A compiled update calls it between two of its parts; what it returns has the same shapes and types each time.
    """
    recording = RECORDING.get()
    return function(*tensors) if recording is None else recording(function, tensors)
