"""``rlkit.solve``: a file of cities, an array or a problem's name to a good solution.

It lies with the problems, in ``envs/combinatorial/solving.py``, which this module finds when it is asked for; type
checkers see it in ``solving.pyi``.
"""

from __future__ import annotations

from typing import Any

from rlkit.registry import resolve_object


def __getattr__(name: str) -> Any:
    if name in ("Answer", "solve"):
        return resolve_object(f"rlkit.envs.combinatorial.solving:{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
