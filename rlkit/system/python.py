"""Processes of this Python beside this one."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any


def child(*arguments: str, **environment: str) -> dict[str, Any]:
    """``args`` and ``env`` for :class:`subprocess.Popen`: this Python with ``arguments``, and ``environment`` changed.

    It imports what this process does and nothing else: ``python -c`` would take a module that happens to lie in the
    working folder, beside somebody's data, before the packages.
    """
    path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    return {"args": [sys.executable, "-P", *arguments], "env": {**os.environ, "PYTHONPATH": path, **environment}}


def spawning() -> SpawnContext:
    """multiprocessing's way of fresh processes, which import nothing from the working folder either."""
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # as -P, for those that are started from now on
    return multiprocessing.get_context("spawn")
