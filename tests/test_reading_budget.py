"""An agent and the core files it stands on can be read in one sitting."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from rlkit import registry

# What a reader follows from a batch to a step.  Names (registry), range checks (hyperparameters) and files (persistent,
# checkpoint) can be taken on trust.
CORE = ("rlkit.learner", "rlkit.offline", "rlkit.replay", "rlkit.nets", "rlkit.data.dataset")
KERNELS = ("rlkit.agents.neighbours",)
# The six divergences of f-DVL and the learner they share are the largest.
AGENT_LINES, TOTAL_LINES = 360, 1150


def code_lines(path: Path) -> int:
    return sum(1 for line in path.read_text().splitlines() if line.strip())


def parents(module: str) -> set[str]:
    """The agents' modules that ``module`` stands on, directly or not; search kernels count as a library."""
    tree = ast.parse(Path(import_module(module).__file__ or "").read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found = {name for name in imported if name.startswith("rlkit.agents.") and name not in KERNELS}
    return found.union(*(parents(name) for name in found))


@pytest.mark.parametrize("name", registry.agent_names())
def test_reading_budget(name: str) -> None:
    module = registry.agent_class(name).__module__
    files = [module, *sorted(parents(module)), *CORE]
    counts = {m: code_lines(Path(import_module(m).__file__ or "")) for m in files}
    assert counts[module] <= AGENT_LINES
    assert sum(counts.values()) <= TOTAL_LINES, counts
