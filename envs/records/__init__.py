"""Records: what ``env=`` may name, one table a family, each of which also registers the ids of its environments."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from gymnasium.envs.registration import register, registry

FAMILIES = (
    "combinatorial",
    "contextual",
    "dmc",
    "hacking",
    "locomotion",
    "manipulation",
    "navigation",
    "robust",
)


def register_ids(ids: Mapping[str, Mapping[str, Any]]) -> None:
    """Make ``ids`` known to Gymnasium, each with what ``register`` takes; one that is known stays as it is."""
    for env_id, settings in ids.items():
        if env_id not in registry:
            register(id=env_id, **settings)


def register_all() -> None:
    """Make every family's ids known; imports none of the environments.  Once is enough."""
    for family in FAMILIES:
        import_module(f"{__name__}.{family}")
