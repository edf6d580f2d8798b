"""Offline datasets: resolve, read, write, generate, check.

Names are loaded on first use, so that importing this package brings in neither torch nor Minari.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "OfflineDataset": "dataset",
    "Provenance": "dataset",
    "load_dataset": "resolve",
    "read_d4rl": "hdf5",
    "write_d4rl": "hdf5",
    "from_minari": "minari_store",
    "to_minari": "minari_store",
    "local_ids": "minari_store",
    "behaviour_rollouts": "generate",
    "imitation_dataset": "imitation",
    "check_dataset": "check",
    "Finding": "check",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
