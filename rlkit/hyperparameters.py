"""Hyperparameters: a frozen dataclass per agent, its range checks, and presets per task."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import yaml

from rlkit.errors import UserError, nearest


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
    table = yaml.safe_load(path.read_text()) if path.exists() else {}
    found: dict[str, Any] = {}
    for key in (family, task, record_name):
        found |= table.get(key, {})
    return found


def make_config(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """``cls.Config(**values)`` with a sentence for unknown names and wrong types."""
    known = {f.name: f for f in fields(cls.Config)}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"unknown hyperparameter '{name}' of {cls.name}{nearest(name, known)}")
        default = known[name].default
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        if default is not MISSING and number and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise UserError(f"agent.{name}={value!r} is not a number, expected one like {default}")
    return cls.Config(**values)


def check_seed_and_device(seed: int, device: torch.device | str) -> None:
    """Raises :class:`UserError` for a seed out of range or a device that is unknown or not there."""
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} is out of range, expected a whole number from 0 to {2**32 - 1}")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={device} asks for a CUDA device and there is none; expected 'cpu' or 'auto'")
    if not str(device).startswith(("auto", "cpu", "cuda", "mps")):
        raise UserError(f"device={device} is unknown, expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
