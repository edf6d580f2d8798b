"""``rlkit.agents`` and ``rlkit.envs``: packages that also answer when they are called, ``rlkit.agents()``.

What type checkers see of the two is in ``rooms.pyi``, which ``scripts/make_signatures.py`` writes.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from rlkit import registry


class Agents(ModuleType):
    """The package of agents."""

    def __call__(self) -> dict[str, str]:
        """Every agent's name, as :func:`rlkit.make` and the command line take it, and what it is in one line."""
        return {name: registry.agent_summary(name) for name in registry.agent_names()}


class Envs(ModuleType):
    """The package of environments."""

    def __call__(self) -> dict[str, str]:
        """Every environment's name, as :func:`rlkit.make` and the command line take it, and what it is in one line."""
        return {name: record.summary for name, record in sorted(registry.records().items())}


def __getattr__(name: str) -> Any:
    if name in ("agents", "envs"):
        return import_module(f"rlkit.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
