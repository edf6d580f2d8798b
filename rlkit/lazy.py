"""Packages whose names are imported on first use, and known to type checkers and editors all the same."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str | Path) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package that imports its names for type checkers alone.

    ``file`` holds the one list of what there is: the ``__init__.py`` in lines ``from a.b import C as C`` under
    ``if TYPE_CHECKING:``, or its ``__init__.pyi`` in lines ``from a.b import C as _C``.  A module is loaded when a name
    of it is first asked for.
    """
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    stub = Path(file).suffix == ".pyi"
    blocks = [tree.body] if stub else [node.body for node in tree.body if isinstance(node, ast.If)]
    homes = {
        alias.name: str(node.module)
        for block in blocks
        for node in block
        if isinstance(node, ast.ImportFrom) and node.module != package
        for alias in node.names
        if alias.asname in (alias.name, f"_{alias.name}")
    }

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return load, lambda: sorted(homes), sorted(homes)
