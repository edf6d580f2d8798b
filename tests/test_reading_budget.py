"""An agent and the core files it stands on can be read in one sitting."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from rlkit import registry

CORE = ("rlkit.offline", "rlkit.replay", "rlkit.nets", "rlkit.registry", "rlkit.data.dataset")
AGENT_LINES, TOTAL_LINES = 350, 1050


def code_lines(path: Path) -> int:
    return sum(1 for line in path.read_text().splitlines() if line.strip())


def parents(module: str) -> list[str]:
    """Other agents' modules that ``module`` imports; kernels beside an agent count as libraries."""
    tree = ast.parse(Path(sys.modules[module].__file__ or "").read_text())
    agents = {registry.agent_class(name).__module__ for name in registry.agent_names()}
    found = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in agents]
    return [m for m in found if m is not None]


@pytest.mark.parametrize("name", registry.agent_names())
def test_reading_budget(name: str) -> None:
    module = registry.agent_class(name).__module__
    files = [module, *parents(module), *CORE]
    counts = {m: code_lines(Path(__import__("importlib").import_module(m).__file__)) for m in files}
    assert counts[module] <= AGENT_LINES
    assert sum(counts.values()) <= TOTAL_LINES, counts
