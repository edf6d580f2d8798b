"""Ctrl-C and SIGTERM: the first is answered at once and ends in good order, the second does not wait."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a scheduler sends before it kills
AGAIN = "once more ends at once"


class Interrupted(KeyboardInterrupt):
    """The signal ``number`` came."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def tell(text: str) -> None:
    """A line on stderr from inside a signal handler, where ``print`` could meet itself half-way through a line."""
    with contextlib.suppress(OSError):
        os.write(2, f"\nrlkit: {text}\n".encode())


def stop(number: int, frame: FrameType | None) -> None:
    """A handler that ends whatever runs with :class:`Interrupted`; the next signal kills the process."""
    tell(f"interrupted, ending ({AGAIN})")
    for other in SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    raise Interrupted(number)


@contextmanager
def handling(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """``handler`` for both signals inside the block, as before after it; nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
