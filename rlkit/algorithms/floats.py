"""How the processor computes floating-point numbers, set for the time of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SUBNORMAL = 5e-324  # a thread that flushes takes it for 0, which is how to ask whether it does


@contextmanager
def flush_subnormals() -> Iterator[None]:
    """Numbers nearer to 0 than the least normal one are 0 in this thread; PyTorch's other threads keep theirs."""
    before = SUBNORMAL == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def fast_float32(device: torch.device | str = "cpu", tf32: bool = False) -> Iterator[None]:
    """Use oneDNN's float32 matrix products where they round as float32 should; they are twice as fast on AVX-512 AMD.

    PyTorch reaches them only through the precision setting "medium", which on other machines (AMX) means bfloat16
    products instead.  So the setting is tried on a product first and kept only if the error is that of float32.  On a
    GPU the same setting would allow TensorFloat-32, with 10 bits of mantissa for 23: there only ``tf32`` allows it.
    """
    before = torch.get_float32_matmul_precision()
    if torch.device(device).type != "cpu":
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 256, generator=generator)
    torch.set_float32_matmul_precision("medium")
    error = (a @ b - (a.double() @ b.double())).abs().max().item()
    if error > 2e-4 or before != "highest":  # float32: 5e-5 here; bfloat16: 2e-1
        torch.set_float32_matmul_precision(before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
