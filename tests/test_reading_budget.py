"""An agent and the core files it stands on can be read in one sitting."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from rlkit import registry

# What a reader follows from a batch to a step.  Names (registry), range checks (hyperparameters), files (persistent,
# checkpoint) and the processor's modes (floats) can be taken on trust.
CORE = {
    *(
        "rlkit.algorithms.learner",
        "rlkit.algorithms.offline",
        "rlkit.algorithms.online",
        "rlkit.algorithms.replay",
        "rlkit.algorithms.nets",
        "rlkit.algorithms.tally",
        "rlkit.algorithms.vecenv",
    ),
    "rlkit.data.dataset",
}
KERNELS = ("rlkit.agents.prdc.neighbours",)
# PRDC with TD3+BC and the core is about 950.  Longer ones are named, with what it is that they are two of.
AGENT_LINES, TOTAL_LINES = 375, 1200
LONGER = {
    "beer": 1230,  # three regularisers on two of SB3's algorithms
    "vagram": 1550,  # a world model and SAC
    "recoil": 1350,  # the implicit-value learner and imitation's parts of the data
    "drrpo-features": 1450,  # its dual and reference checks are in DR-RPO's own files
    "mbtl": 2000,  # a selector, a trainer, and all of online learning under it
    "bq": 1560,  # a network, a search and their data
    "ptrnet": 1480,  # two networks, two ways of learning, four baselines, four ways of decoding
    "orpo": 1820,  # base policies, a discriminator and PPO's update
    "iqlearn": 1420,  # stands on ReCOIL's file for those parts
}


def code_lines(path: Path) -> int:
    return sum(1 for line in path.read_text().splitlines() if line.strip())


def stands_on(module: str) -> set[str]:
    """``module`` and the agents and core it stands on, directly or not; search kernels count as a library."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        tree = ast.parse(Path(import_module(name).__file__ or "").read_text())
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        waiting += [n for n in imported if n in CORE or (n.startswith("rlkit.agents.") and n not in KERNELS)]
    return found


@pytest.mark.parametrize("name", registry.agent_names())
def test_reading_budget(name: str) -> None:
    module = registry.agent_class(name).__module__
    counts = {m: code_lines(Path(import_module(m).__file__ or "")) for m in sorted(stands_on(module))}
    assert counts[module] <= AGENT_LINES
    assert sum(counts.values()) <= LONGER.get(name, TOTAL_LINES), counts
