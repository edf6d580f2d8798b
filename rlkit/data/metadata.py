"""The JSON that a file carries beside its arrays, so that reading it gives the same dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym

from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.data.records import environment_fields
from rlkit.errors import DataError, refusing, shown
from rlkit.spaces import read_space

MAX_METADATA = 16 << 20  # bytes


def _space_to_json(space: gym.spaces.Box | gym.spaces.Discrete) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    return {
        "shape": list(space.shape),
        "dtype": str(space.dtype),
        "low": space.low.tolist(),
        "high": space.high.tolist(),
    }


def _space_from_json(data: Mapping[str, Any], where: str) -> gym.spaces.Box | gym.spaces.Discrete:
    space = read_space({"type": "Box", **data}, where)
    assert isinstance(space, (gym.spaces.Box, gym.spaces.Discrete))
    return space


def metadata_of(dataset: OfflineDataset) -> dict[str, Any]:
    """What a file must carry beside the arrays so that reading it gives the same dataset; plain JSON values."""
    provenance = dataset.provenance
    return {
        "format": 1,
        "env_id": dataset.env_id,
        "env_kwargs": dict(dataset.env_kwargs),
        "reference": list(dataset.reference) if dataset.reference else None,
        "family": dataset.family,
        "task": dataset.task,
        "parts": [list(part) for part in dataset.parts],
        "observation_space": _space_to_json(dataset.observation_space),
        "action_space": _space_to_json(dataset.action_space),
        "origin": {
            "source": provenance.source,
            "locator": provenance.locator,
            "name": provenance.name,
            "details": provenance.details,
        },
    }


def fields_from_metadata(meta: Any, where: str = "rlkit's metadata") -> dict[str, Any]:
    """The inverse of :func:`metadata_of`, provenance excepted; ``{}`` where ``meta`` is empty.

    Raises :class:`DataError` that begins with ``where`` for anything that :func:`metadata_of` does not write.
    """
    if not meta:
        return {}
    with refusing(where, "is damaged, expected JSON as rlkit writes it", DataError):
        return {
            **environment_fields(meta["env_id"], meta["env_kwargs"], meta["reference"], where),
            "family": _word(meta["family"], where),
            "task": _word(meta["task"], where),
            "parts": tuple((_word(name, where), _rows(rows, where)) for name, rows in meta.get("parts", ())),
            "observation_space": _space_from_json(meta["observation_space"], f"{where}: observation_space"),
            "action_space": _space_from_json(meta["action_space"], f"{where}: action_space"),
        }


def _word(text: Any, where: str) -> str:
    if not isinstance(text, str) or not text.isprintable() or len(text) > 200:
        raise DataError(f"{where}: {shown(text)} is no name, expected one line of text")
    return text


def _rows(count: Any, where: str) -> int:
    if type(count) is not int or not 0 < count < 2**40:
        raise DataError(f"{where}: {shown(count)} is no number of rows")
    return count


def provenance_of_copy(source: Any, locator: str, name: str, meta: Mapping[str, Any]) -> Provenance:
    """Provenance of data read from a copy: what was generated stays generated, however often it is copied."""
    origin = meta.get("origin") if meta else None
    if not origin:
        return Provenance(source, locator, name)
    with refusing(locator, "does not say where its data is from, expected JSON as rlkit writes it", DataError):
        made_by, told, place = (_word(origin[key][:200], locator) for key in ("source", "name", "locator"))
        details = dict(origin["details"])
    name = name if name != "unnamed" else told
    if made_by == "generated":
        return Provenance("generated", f"{locator} <- {place.split(' <- ')[-1]}", name, details)
    return Provenance(source, locator, name, {"origin": f"{made_by} {place}"})
