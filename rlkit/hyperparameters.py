"""Hyperparameters: a frozen dataclass per agent, its range checks, and presets per task."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
import yaml

from rlkit.errors import UserError, nearest, one_line, shown

MOST_ENTRIES = 1000  # of a sequence, such as the widths of layers


@dataclass(frozen=True)
class RunDefaults:
    """How an agent is run and judged where the command line does not say.

    ``unit`` is what ``num_timesteps`` counts, and with it all that is counted here but episodes.  ``judged`` is how
    evaluations act: "greedy", by the mean or the most probable action, or "sampled", by the policy's own samples.
    """

    unit: str
    total_timesteps: int = 1_000_000
    log_every: int = 1_000
    eval_every: int = 5_000
    checkpoint_every: int = 50_000
    final_episodes: int = 100  # of the one evaluation after the last step
    judged: str = "greedy"

    def settings(self) -> dict[str, int]:
        """The settings of a run, by the command line's names."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("unit", "judged")}


@dataclass(frozen=True)
class AgentConfig:
    """Base of every agent's hyperparameters.  Raises :class:`UserError` for values out of range."""

    POSITIVE: ClassVar[tuple[str, ...]] = ()
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ()
    UNIT: ClassVar[tuple[str, ...]] = ()  # in [0, 1]
    OWN: ClassVar[
        tuple[str, ...]
    ] = ()  # settings of a machine, which an artefact does not switch on where it is loaded

    def __post_init__(self) -> None:
        for name in self.POSITIVE:
            self._require(name, getattr(self, name) > 0, "a number above 0")
        for name in self.NON_NEGATIVE:
            self._require(name, getattr(self, name) >= 0, "a number of at least 0")
        for name in self.UNIT:
            self._require(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")

    def _widths(self, name: str) -> None:
        """Keep the layer widths in ``name`` as a tuple: a list from JSON and a tuple are the same widths."""
        object.__setattr__(self, name, tuple(int(n) for n in getattr(self, name)))
        self._require(name, all(n > 0 for n in getattr(self, name)), "widths above 0")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UserError(f"agent.{name}={getattr(self, name)} is out of range, expected {expected}")


def presets(cls: type[Any], record_name: str, task: str, family: str) -> dict[str, Any]:
    """Hyperparameters that differ from the defaults for this data, from ``presets/<agent>.yaml`` beside the agent.

    The file's keys are families, tasks and record names; the more specific one wins.
    """
    path = Path(inspect.getfile(cls)).parent / "presets" / f"{cls.name}.yaml"
    table = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    found: dict[str, Any] = {}
    for key in (family, task, record_name):
        found |= table.get(key, {})
    return found


def make_config(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """``cls.Config(**values)`` with a sentence for unknown names and wrong types."""
    known, hints = {f.name: f for f in fields(cls.Config)}, _hints(cls.Config)
    values = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"unknown hyperparameter {shown(name)} of {cls.name}{nearest(str(name), known)}")
        if not _fits(value, hints[name]):
            default = known[name].default
            like = "" if default is MISSING or default is None else f", expected one like {shown(default)}"
            raise UserError(f"agent.{name}={shown(value)} is not {_words(hints[name])}{like}")
        if isinstance(value, int) and not isinstance(value, bool) and hints[name] in (float, float | None):
            values[name] = float(value)
    try:
        return cls.Config(**values)
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # a field of any type, checked by its class
        raise UserError(f"the hyperparameters of {cls.name} do not fit ({one_line(error)})") from error


def loaded_config(cls: type[Any], values: Any) -> Any:
    """:func:`make_config` of what a file holds; settings of a machine (``OWN``) are the defaults, whatever it says."""
    if not isinstance(values, Mapping):
        raise UserError(f"config={shown(values)} is not allowed, expected hyperparameters by name")
    return without_own(make_config(cls, values))


def without_own(config: Any) -> Any:
    """``config`` with its settings of a machine as they are by default."""
    return replace(config, **{f.name: f.default for f in fields(config) if f.name in config.OWN})


@cache
def _hints(config: type[Any]) -> dict[str, Any]:
    return get_type_hints(config)


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if origin := get_origin(hint):
        if origin in (Union, UnionType):
            return any(_fits(value, one) for one in get_args(hint))
        plain = isinstance(value, Sequence) and not isinstance(value, str) and len(value) <= MOST_ENTRIES
        return plain and all(_fits(entry, get_args(hint)[0]) for entry in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    if origin := get_origin(hint):
        if origin in (Union, UnionType):
            return " or ".join(_words(one) for one in get_args(hint))
        return f"a sequence of {_words(get_args(hint)[0]).split(' ', 1)[1]}s"
    words = {float: "a number", int: "a whole number", bool: "a truth value", str: "a word", type(None): "null"}
    return words[hint]


def check_seed_and_device(seed: int, device: torch.device | str) -> None:
    """Raises :class:`UserError` for a seed out of range or a device that is unknown or not there."""
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"seed={shown(seed)} is out of range, expected a whole number from 0 to {2**32 - 1}")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={device} asks for a CUDA device and there is none; expected 'cpu' or 'auto'")
    if not str(device).startswith(("auto", "cpu", "cuda", "mps")):
        raise UserError(f"device={device} is unknown, expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
