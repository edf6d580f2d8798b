"""Settings in a YAML file as plain data: nothing in it is resolved, looked up or made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rlkit.errors import UserError

MAX_CONFIG = 1 << 16  # bytes


class PlainLoader(yaml.SafeLoader):
    """YAML without references: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("it holds an alias")
        return super().compose_node(parent, index)


def read_plain(path: Path) -> dict[str, Any]:
    """The ``config.yaml`` of a run as plain data: nothing in it is resolved, looked up or made.

    Raises :class:`UserError` for a file that cannot be read or holds anything but text, numbers, lists and mappings.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG + 1)
        if len(data) > MAX_CONFIG:
            raise ValueError(f"more than {MAX_CONFIG} bytes")
        found = yaml.load(data.decode("utf-8"), PlainLoader)  # a SafeLoader
        _require_plain(found)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not the configuration of a run: {reason}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not the configuration of a run: it holds no settings")
    return found


def _require_plain(value: Any) -> None:
    if isinstance(value, dict):
        for key, below in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is no name")
            _require_plain(below)
    elif isinstance(value, list):
        for below in value:
            _require_plain(below)
    elif isinstance(value, str) and ("${" in value or value == "???"):
        raise ValueError(f"{value!r} stands for another value")
    elif not isinstance(value, (str, int, float, type(None))):
        raise ValueError(f"it holds a {type(value).__name__}")
    elif isinstance(value, int) and abs(value) >= 2**64:
        raise ValueError("it holds a whole number of more than twenty digits")
