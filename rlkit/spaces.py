"""Spaces from files: read with the sizes checked before any memory is taken.

The form is Minari's (``minari.serialization.serialize_space``), which artefacts and Minari's ``metadata.json`` share:
JSON, as text or parsed, with ``type`` and what the type is made from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rlkit.errors import UserError, shown

MOST = 5_000_000  # numbers of a whole space
OVERHEAD = 1000  # of them, that a space within a space counts for
DEEPEST = 4  # spaces within spaces
DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")


def read_space(data: Any, where: str) -> spaces.Space[Any]:
    """The space that ``data`` describes: Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of them.

    Raises :class:`UserError` that begins with ``where`` for anything else, and for a space of more than ``MOST``
    numbers.
    """
    try:
        return _space(json.loads(data) if isinstance(data, str) else data, where, DEEPEST, MOST)[0]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, AssertionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where} is no space: expected a Box, Discrete or the like, got {shown(data)}") from None


def _space(data: Mapping[str, Any], where: str, depth: int, most: int) -> tuple[spaces.Space[Any], int]:
    """The space and how many numbers it has, at most ``most``."""
    kind = data["type"]
    found: spaces.Space[Any]
    if kind in ("Dict", "Tuple") and depth:
        names = list(data["subspaces"]) if kind == "Dict" else range(len(data["subspaces"]))
        parts, left = [], most
        for name in names:
            part, size = _space(data["subspaces"][name], where, depth - 1, left)
            parts.append(part)
            left -= size + OVERHEAD
            if left < 0:
                raise UserError(f"{where} has {len(names)} parts, expected fewer")
        found = spaces.Dict(dict(zip(map(str, names), parts, strict=True))) if kind == "Dict" else spaces.Tuple(parts)
        return found, most - left
    if kind == "Box":
        found = _box(data, where, most)
    elif kind == "Discrete":
        found = spaces.Discrete(_whole(data["n"], where, 1), start=_whole(data.get("start", 0), where, -MOST))
    elif kind == "MultiDiscrete":
        counts = _numbers(data["nvec"], None, np.int64, where)
        start = _numbers(data["start"], counts.shape, np.int64, where) if "start" in data else None
        found = spaces.MultiDiscrete(counts, start=start)
    elif kind == "MultiBinary":
        shape = _shape(data["n"] if isinstance(data["n"], list) else [data["n"]], where, most)
        found = spaces.MultiBinary(shape if isinstance(data["n"], list) else shape[0])
    else:
        expected = "expected Box, Discrete, MultiDiscrete, MultiBinary or Dict"
        raise UserError(f"{where} has the type {shown(kind)}, {expected}")
    return found, math.prod(found.shape or ())


def _box(data: Mapping[str, Any], where: str, most: int) -> spaces.Box:
    if data["dtype"] not in DTYPES:
        raise UserError(f"{where} has the dtype {shown(data['dtype'])}, expected one of {', '.join(DTYPES)}")
    shape, dtype = _shape(data["shape"], where, most), np.dtype(data["dtype"])
    low, high = (_numbers(data[side], shape, dtype, where) for side in ("low", "high"))
    if (np.isnan(low) | np.isnan(high) | (low > high)).any():
        raise UserError(f"{where} has a lower bound above its upper one, or one that is no number")
    return spaces.Box(low, high, shape, dtype.type)


def _whole(value: Any, where: str, least: int) -> int:
    if type(value) is not int or not least <= value <= 2**31:
        raise UserError(f"{where} has the size {shown(value)}, expected a whole number of at least {least}")
    return value


def _shape(shape: Any, where: str, most: int) -> tuple[int, ...]:
    found = tuple(_whole(n, where, 0) for n in shape)
    if math.prod(found) > most or len(found) > 8:
        raise UserError(f"{where} has the shape {shown(list(found))}, expected at most {max(most, 0)} numbers")
    return found


def _numbers(data: Any, shape: tuple[int, ...] | None, dtype: Any, where: str) -> np.ndarray:
    """Nested lists as an array of ``shape``; one number stands for all of it."""
    if np.dtype(dtype) == np.float16 or np.dtype(dtype).kind == "f":
        with np.errstate(over="ignore"):
            found = np.array(data, np.float64).astype(dtype)
    else:
        found = np.array(data)
        if found.size and found.dtype.kind not in "iub":
            raise UserError(f"{where} has bounds {shown(data)}, expected whole numbers")
        found = found.astype(dtype)
    if shape is not None and found.shape not in (shape, ()):
        raise UserError(f"{where} has bounds of shape {list(found.shape)}, expected {list(shape)}")
    return found if shape is None or found.shape == shape else np.full(shape, found)
