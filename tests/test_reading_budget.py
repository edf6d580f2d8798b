"""An agent and everything it imports of this library can be read in one sitting."""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlkit import registry

# Lines that are not blank: of one file of an agent, and of all its own files with every module of rlkit and of its
# environments that they import.
FILE_LINES, TOTAL_LINES = 380, 1650
LONGER = {
    "recoil": 1750,  # stands on implicit value learning, which has a policy of numbers and one of choices
    "iqlearn": 1850,  # stands on ReCOIL's file
    "prdc": 2000,  # two exact searches, one for processors and one for devices
    "vagram": 1810,  # a world model with six losses beside SAC, and the replay of both
    "drrpo-features": 1850,  # stands on DR-RPO's file for the dual and the checks of references
    "orpo": 2330,  # base policies, a discriminator and PPO's update, and environments whose state is saved
    "mbtl": 3150,  # a selector, a trainer of other agents, and all of online learning under it
    "bq": 4370,  # a network, two searches, its data and labels of its own; a third is the rules of five problems
    "ptrnet": 4400,  # two networks, two ways of learning, four baselines; a third is the rules of three problems
}
LONG_FILES = {
    "rlkit.agents.common": 400,
    "rlkit.agents.prdc.kdtree": 450,  # kernels: one file, because numba's cache follows edits of a kernel's own file
    "rlkit.agents.drrpo": 500,  # core: seven methods by one backward induction
    "rlkit.agents.orpo": 500,
    "rlkit.agents.ptrnet": 400,
}


def code_lines(module: str) -> int:
    path = import_module(module).__file__
    assert path is not None
    return sum(1 for line in Path(path).read_text().splitlines() if line.strip())


def imported(module: str) -> set[str]:
    """Modules of this library that ``module`` takes something from, wherever in the file."""
    tree = ast.parse(Path(import_module(module).__file__ or "").read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rlkit"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = hasattr(import_module(str(node.module)), "__path__") and find_spec(name) is not None
                found.add(name if is_module else str(node.module))
    return found - {"rlkit"}


def reading(name: str) -> tuple[set[str], set[str]]:
    """The agent's own modules, with those of agents it stands on; and what they import of the core and environments."""
    own: set[str] = set()
    waiting = [registry.agent_class(name).__module__]
    while waiting:
        module = waiting.pop()
        if module not in own:
            own.add(module)
            waiting += [found for found in imported(module) if found.startswith("rlkit.agents.")]
    return own, set().union(*map(imported, own)) - own


@pytest.mark.parametrize("name", registry.agent_names())
def test_reading_budget(name: str) -> None:
    own, others = reading(name)
    for module in own:
        most = next((lines for start, lines in LONG_FILES.items() if module.startswith(start)), FILE_LINES)
        assert code_lines(module) <= most, module
    counts = {module: code_lines(module) for module in sorted(own | others)}
    assert sum(counts.values()) <= LONGER.get(name, TOTAL_LINES), counts


def test_exceptions_are_needed() -> None:
    for name, most in LONGER.items():
        total = sum(map(code_lines, set().union(*reading(name))))
        assert total > TOTAL_LINES and most - total < 120, (name, total)
