"""Processes of this Python beside this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any


def child(*arguments: str, **environment: str) -> dict[str, Any]:
    """``args`` and ``env`` for :class:`subprocess.Popen`: this Python with ``arguments``, and ``environment`` changed.

    It imports what this process does and nothing else: ``python -c`` would take a module that happens to lie in the
    working folder, beside somebody's data, before the packages.
    """
    path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    return {"args": [sys.executable, "-P", *arguments], "env": {**os.environ, "PYTHONPATH": path, **environment}}


@contextmanager
def _safe_path() -> Iterator[None]:
    """For interpreters that are started meanwhile, what -P is."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


class _SafeProcess(SpawnProcess):
    def start(self) -> None:
        with _safe_path():
            super().start()


class _SafeContext(SpawnContext):
    Process = _SafeProcess


def spawning() -> SpawnContext:
    """multiprocessing's way of fresh processes, which import nothing from the working folder either."""
    with _safe_path():
        resource_tracker.ensure_running()  # a process too, which queues would start
    return _SafeContext()
