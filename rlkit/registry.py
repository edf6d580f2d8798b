"""Names to agents and environments, without importing any until it is asked for.

Built-in and third-party packages are found the same way: through the entry-point groups ``rlkit.agents`` (a name for
each agent class) and ``rlkit.envs`` (a name for each mapping of :class:`EnvRecord`).  Code that is not installed adds
itself with :func:`register` or :func:`add_records`.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from rlkit.errors import UserError, nearest

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class DataSpec:
    """Where the transitions of a record come from, and what its scores are measured against.

    ``reference`` holds the mean returns of D4RL's random and expert policies; a normalised score is
    ``100 (return - random) / (expert - random)``.  ``generator`` is ``"module:function"``, called as
    ``function(record, size=, seed=, progress=) -> OfflineDataset`` where no recorded data can be had.

    ``reward_scale`` and ``reward_shift`` are the family's convention: a learner sees ``scale * reward + shift``
    (``rlkit.data.resolve.learning_rewards``), while a dataset keeps the rewards in which returns and scores are
    measured.  ``minari_keys`` are the parts of Minari's Dict observations, in the order in which they are joined to
    one vector.  Where ``d4rl_simulated`` is False no environment here has the robot, or the observation, of D4RL's
    file: it is learnt from without evaluation.
    """

    level: str
    generator: str
    reference: tuple[float, float] | None = None
    minari_id: str | None = None
    d4rl_id: str | None = None
    size: int = 1_000_000
    reward_scale: float = 1.0
    reward_shift: float = 0.0
    minari_keys: tuple[str, ...] = ()
    d4rl_simulated: bool = True


@dataclass(frozen=True)
class EnvRecord:
    """One value of ``env=``: a Gymnasium environment and, for offline learning, its dataset.

    ``episodes`` is how many an evaluation of this family has; ``extra`` the extra that its environment needs.
    """

    name: str
    summary: str
    env_id: str
    family: str
    task: str
    data: DataSpec | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    episodes: int = 10
    extra: str | None = None


_agents: dict[str, type] = {}
_records: dict[str, EnvRecord] = {}


def register(name: str) -> Callable[[T], T]:
    """Class decorator: makes the class reachable as ``agent=name`` and names it so in artefacts."""

    def decorate(cls: T) -> T:
        known = _agents.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise UserError(f"agent name '{name}' is taken by {known.__module__}.{known.__qualname__}")
        cls.name = name  # type: ignore[attr-defined]
        _agents[name] = cls
        return cls

    return decorate


def add_records(records: Iterable[EnvRecord]) -> None:
    """Add environment records of code that has no entry point."""
    _records.update({record.name: record for record in records})


@cache
def _entries(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def agent_names() -> list[str]:
    return sorted({*_entries("rlkit.agents"), *_agents})


def agent_class(name: str) -> Any:
    """The class registered under ``name``; raises :class:`UserError` naming the nearest known one."""
    if name not in _agents:
        entry = _entries("rlkit.agents").get(name)
        if entry is None:
            raise UserError(f"unknown agent '{name}'{nearest(name, agent_names())}")
        _agents[name] = entry.load()
    return _agents[name]


def shipped_weights(agent: str, env: str) -> Path:
    """The artefact in ``pretrained/`` beside ``agent``'s file; raises :class:`UserError` naming those there are."""
    folder = Path(inspect.getfile(agent_class(agent))).parent / "pretrained"
    path = folder / f"{agent}_{env}.rlk"
    if not path.exists():
        known = sorted(p.stem.removeprefix(f"{agent}_") for p in folder.glob(f"{agent}_*.rlk"))
        expected = f"env={' or '.join(known)}" if known else "the path of a run or artefact"
        raise UserError(f"no weights ship for agent={agent} env={env}, expected {expected}")
    return path


def agent_summary(name: str) -> str:
    """First line of the agent's module docstring, read from the file without importing it."""
    if name in _agents:
        cls = _agents[name]
        text = sys.modules[cls.__module__].__doc__ or cls.__doc__
    else:
        spec = importlib.util.find_spec(_entries("rlkit.agents")[name].module)
        text = (
            ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) if spec and spec.origin else ""
        )
    return (text or "").strip().split("\n")[0]


def records() -> dict[str, EnvRecord]:
    """Every known environment record by name."""
    found: dict[str, EnvRecord] = {}
    for entry in _entries("rlkit.envs").values():
        found |= entry.load()
    return found | _records


def record(name: str) -> EnvRecord:
    """The record called ``name``; raises :class:`UserError` naming the nearest known one."""
    known = records()
    if name not in known:
        raise UserError(f"unknown env '{name}'{nearest(name, known)}")
    return known[name]


def resolve_object(path: str) -> Any:
    """``"module:attribute"`` to the object."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
