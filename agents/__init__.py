"""One file per method.  ``from rlkit.agents import PRDC`` loads that file and no other."""

from __future__ import annotations

from typing import Any

_HOMES = {
    "A2PR": "a2pr",
    "BC": "bc",
    "BEER": "beer",
    "BQ": "bq",
    "DRRPO": "drrpo",
    "FDVL": "fdvl",
    "FeatureDRRPO": "drrpo_features",
    "IQL": "iql",
    "IQLearn": "iqlearn",
    "MBTL": "mbtl",
    "ORPO": "orpo",
    "PRDC": "prdc",
    "PtrNet": "ptrnet",
    "ReCOIL": "recoil",
    "SMODICE": "smodice",
    "SQL": "sql",
    "TD3BC": "td3bc",
    "VaGraM": "vagram",
    "XQL": "xql",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
