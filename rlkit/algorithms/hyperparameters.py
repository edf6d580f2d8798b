"""Hyperparameters: a frozen dataclass per agent, its range checks, and presets per task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
import yaml

from rlkit.algorithms.policy_kwargs import with_policy_kwargs
from rlkit.errors import UserError, nearest, one_line, require_choice, shown
from rlkit.registry import LOG, beside

# What SB3 and others call a hyperparameter that here has its own name, and means the same.
ALIASES: Mapping[str, str] = {
    "gamma": "discount",
    "tau": "polyak",
    "lr": "learning_rate",
    "actor_lr": "actor_learning_rate",
    "critic_lr": "critic_learning_rate",
    "ent_coef": "entropy_coef",
    "vf_coef": "value_coef",
    "clip_grad": "max_grad_norm",
    "policy_delay": "actor_delay",
    "policy_freq": "actor_delay",
    "target_policy_noise": "target_noise",
    "policy_noise": "target_noise",
    "target_noise_clip": "target_clip",
    "noise_clip": "target_clip",
    "gradient_steps": "updates_per_step",
    "hidden_dims": "hidden_sizes",
    "net_arch": "hidden_sizes",
    "normalize_observations": "normalise_observations",
    "normalize_states": "normalise_observations",
    "regularizer": "regulariser",
    "optimizer": "optimiser",
}
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
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = MappingProxyType({})  # the words allowed
    VARYING: ClassVar[tuple[str, ...]] = ()  # those in which runs of one stack may differ
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
        for name, known in self.CHOICES.items():
            if getattr(self, name) is not None or getattr(type(self), name) is not None:  # None where it is the default
                require_choice(f"agent.{name}", getattr(self, name), known)

    def _widths(self, name: str) -> None:
        """Keep the layer widths in ``name`` as a tuple: a list from JSON and a tuple are the same widths."""
        object.__setattr__(self, name, tuple(int(n) for n in getattr(self, name)))
        self._require(name, all(n > 0 for n in getattr(self, name)), "widths above 0")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UserError(f"agent.{name}={one_line(getattr(self, name), 60)} is out of range, expected {expected}")


def presets(cls: type[Any], record_name: str, task: str, family: str) -> dict[str, Any]:
    """Hyperparameters that differ from the defaults for this data, from ``presets/<agent>.yaml`` beside the agent.

    The file's keys are families, tasks and record names; the more specific one wins.  Columns of a log may be in any
    unit, so there observations are standardised whatever the paper does.
    """
    table = preset_table(cls)
    found: dict[str, Any] = {}
    if family == LOG and any(f.name == "normalise_observations" for f in fields(cls.Config)):
        found["normalise_observations"] = True
    for key in (family, task, record_name):
        found |= table.get(key, {})
    return found


def preset_table(cls: type[Any]) -> dict[str, Any]:
    """What the file of presets of ``cls`` holds, nothing where there is none."""
    path = beside(cls, "presets") / f"{cls.name}.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def own_name(cls: type[Any], name: str) -> str:
    """The hyperparameter of ``cls`` that ``name`` stands for: itself, or what :data:`ALIASES` says.

    Raises :class:`UserError` for "tau" where it may mean the targets' step or the expectile.
    """
    known = {f.name for f in fields(cls.Config)}
    if name in known or ALIASES.get(name) not in known:
        return name
    if name == "tau" and "lam" in known:
        raise UserError(
            f"'tau' of {cls.name} may be either, expected polyak (of the targets) or lam (of V's regression)"
        )
    return ALIASES[name]


def make_config(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """``cls.Config(**values)`` with a sentence for unknown names and wrong types; NumPy's scalars become Python's.

    Names may be those that :data:`ALIASES` translates.
    """
    named = {name: own_name(cls, str(name)) for name in values}
    for name, own in named.items():
        if list(named.values()).count(own) > 1 and name != own:
            raise UserError(f"{own} of {cls.name} is given twice, as {name} too, expected one of them")
    values = {named[name]: _plain(value) for name, value in values.items()}
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


def chosen_config(cls: type[Any], policy_kwargs: Any, values: Mapping[str, Any], *keys: str) -> Any:
    """The config that a constructor's arguments ask for: ``values``, else presets, else defaults.

    ``keys`` are name, task and family of what is learnt from, as :func:`presets` takes them, or nothing.  Raises as
    :func:`make_config`.
    """
    values = with_policy_kwargs(cls, policy_kwargs, values)
    usual = presets(cls, *keys) if keys else {}
    given = {own_name(cls, str(name)) for name in values}
    return make_config(cls, {**{name: value for name, value in usual.items() if name not in given}, **values})


def check_policy(cls: type[Any], policy: Any) -> None:
    """Raise :class:`UserError` unless ``policy``, SB3's first argument, is ``cls.policy_name``."""
    if policy != cls.policy_name:
        raise UserError(f"policy {shown(policy)} is unknown to {cls.name}, expected '{cls.policy_name}'")


def loaded_config(cls: type[Any], values: Any) -> Any:
    """:func:`make_config` of what a file holds; settings of a machine (``OWN``) are the defaults, whatever it says."""
    if not isinstance(values, Mapping):
        raise UserError(f"config={shown(values)} is not allowed, expected hyperparameters by name")
    return without_own(make_config(cls, values))


def changed_config(cls: type[Any], config: Any, changes: Mapping[str, Any]) -> Any:
    """``config`` with ``changes``, whose names may be those of :data:`ALIASES`; raises as :func:`make_config`."""
    return make_config(cls, {**asdict(config), **{own_name(cls, str(name)): value for name, value in changes.items()}})


def without_own(config: Any) -> Any:
    """``config`` with its settings of a machine as they are by default."""
    return replace(config, **{f.name: f.default for f in fields(config) if f.name in config.OWN})


@cache
def _hints(config: type[Any]) -> dict[str, Any]:
    try:
        return get_type_hints(config)
    except NameError:  # a class made inside a function may name what is known there alone; it checks its fields itself
        return dict.fromkeys((f.name for f in fields(config)), Any)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(entry) for entry in value) if type(value) in (list, tuple) else value
    return value.item() if isinstance(value, np.generic) else value


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return value.isprintable() if isinstance(value, str) else not isinstance(value, float) or abs(value) < 1e300
    if origin := get_origin(hint):
        if origin in (Union, UnionType):
            return any(_fits(value, one) for one in get_args(hint))
        plain = isinstance(value, Sequence) and not isinstance(value, str) and len(value) <= MOST_ENTRIES
        return plain and all(_fits(entry, get_args(hint)[0]) for entry in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, hint) and (hint is not str or value.isprintable())


def _words(hint: Any) -> str:
    if origin := get_origin(hint):
        if origin in (Union, UnionType):
            return " or ".join(_words(one) for one in get_args(hint))
        return f"a sequence of {_words(get_args(hint)[0]).split(' ', 1)[1]}s"
    if hint is Any:
        return "a finite value"
    words = {float: "a number", int: "a whole number", bool: "a truth value", str: "a word", type(None): "null"}
    return words[hint]


def check_seed_and_device(seed: Any, device: Any, tensorboard_log: Any = None, verbose: Any = 0) -> None:
    """Raises :class:`UserError` for a seed out of range, a device that is unknown or not there, a log folder that is no
    path, or a verbosity that is none."""
    if not _whole(seed) or not 0 <= seed < 2**32:
        raise UserError(f"seed={shown(seed)} is out of range, expected a whole number from 0 to {2**32 - 1}")
    if not isinstance(device, (str, torch.device)):
        raise UserError(f"device={shown(device)} is unknown, expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", str(device)):
        raise UserError(f"device={one_line(device, 60)} is unknown, expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
    kind, _, number = str(device).partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={device} asks for a CUDA device and there is none; expected 'cpu' or 'auto'")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"device={device} is not there, expected a number below {torch.cuda.device_count()}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps is not there; expected 'cpu' or 'auto'")
    if tensorboard_log is not None and not isinstance(tensorboard_log, (str, Path)):
        raise UserError(f"tensorboard_log={shown(tensorboard_log)} is no folder, expected a path or None")
    if verbose not in (0, 1, 2):
        raise UserError(f"verbose={shown(verbose)} is out of range, expected 0, 1 or 2")


def check_learning(total_timesteps: Any, callback: Any, log_interval: Any) -> int:
    """Arguments of SB3's ``learn``; returns the number of steps, which as in SB3 may be written as 1e6.

    Raises :class:`UserError` for counts that are not positive whole numbers and callbacks that cannot be called.
    """
    for name, value in (("total_timesteps", total_timesteps), ("log_interval", log_interval)):
        counts = _whole(value) or (isinstance(value, float) and value.is_integer())
        if name == "log_interval" and value is None:
            continue
        if not counts or not 0 < value < 2**62:
            raise UserError(f"{name}={shown(value)} is out of range, expected a number above 0")
    entries = callback if isinstance(callback, list) else [] if callback is None else [callback]
    for entry in entries:
        if not callable(entry) and not hasattr(entry, "on_step"):
            raise UserError(f"callback={shown(entry)} is none, expected a function or a BaseCallback of SB3, or a list")
    return int(total_timesteps)


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
