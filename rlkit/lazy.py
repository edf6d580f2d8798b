"""Packages whose names are imported on first use, and known to type checkers and editors all the same."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package that imports its names for type checkers alone.

    ``file`` is the package's ``__init__.py``.  Its lines ``from a.b import C as C`` under ``if TYPE_CHECKING:`` are the
    one list of its names: a module is loaded when its name is first asked for.
    """
    homes = {
        alias.name: str(node.module)
        for block in ast.parse(Path(file).read_text(encoding="utf-8")).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return load, lambda: sorted(homes), sorted(homes)
