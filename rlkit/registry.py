"""Names to agents and environments, without importing any until it is asked for.

Built-in and third-party packages are found the same way: through the entry-point groups ``rlkit.agents`` (a name for
each agent class) and ``rlkit.envs`` (a name for each mapping of :class:`EnvRecord`).  Code that is not installed adds
itself with :func:`register` or :func:`add_records`.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from rlkit.arguments import GYMNASIUM, Argument, checked
from rlkit.errors import UserError, nearest, shown

T = TypeVar("T", bound=type)

ENV_ID = re.compile(r"[A-Za-z0-9][-\w.]*(/[A-Za-z0-9][-\w.]*)?", re.ASCII)  # without a module before a colon
FORMERLY = "rlkit"  # the distribution's former name
LOG = "log"  # family of tables of rows that somebody recorded, without a record here
UNKNOWN = "unknown"  # family of an environment that a file names and that nobody registered here


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
    file, whose rows have ``d4rl_widths`` (of observation and action): it is learnt from without evaluation.  With
    ``reward_stands`` a row's reward says what is reached by now: a recorded episode is worth its largest, not the sum.
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
    d4rl_widths: tuple[int, int] | None = None
    reward_stands: bool = False


def described(env_id: str | None, kwargs: Mapping[str, Any], reference: Any = None) -> dict[str, Any]:
    """An environment as manifests and metadata name it; :func:`environment` reads it back."""
    return {"id": env_id, "kwargs": dict(kwargs), "reference": reference and list(reference)}


@dataclass(frozen=True)
class EnvRecord:
    """One value of ``env=``: a Gymnasium environment and, for offline learning, its dataset.

    ``episodes`` is how many an evaluation of this family has; ``extra`` the extra that its environment needs.
    ``arguments`` are the keywords of the environment that a file or command line may set, with what they may be;
    ``env_kwargs`` those that this record sets itself.
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
    arguments: Mapping[str, Argument] = field(default_factory=dict, repr=False)


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
def _entries(group: str) -> dict[str, Any]:
    """Entry points by name; what is left of an installation under the former name has modules that moved.

    They may be of the ``importlib_metadata`` package, which puts itself before the standard library once it is loaded.
    """
    found = entry_points(group=group)
    return {entry.name: entry for entry in found if entry.dist is None or entry.dist.name != FORMERLY}


def agent_names() -> list[str]:
    return sorted({*_entries("rlkit.agents"), *_agents})


def agent_home(name: str) -> tuple[str, str] | None:
    """Module and class of the agent ``name``, without importing it; None where no package declares one."""
    entry = _entries("rlkit.agents").get(name)
    return None if entry is None else (entry.module, entry.attr)


def agent_class(name: str) -> Any:
    """The class registered under ``name``; raises :class:`UserError` naming the nearest known one."""
    if name not in _agents:
        entry = _entries("rlkit.agents").get(name)
        if entry is None:
            raise UserError(f"unknown agent '{name}'{nearest(name, agent_names())}")
        _agents[name] = entry.load()
    return _agents[name]


def beside(cls: type[Any], name: str) -> Path:
    """The folder ``name`` beside an agent's file or, where its file lies in a folder of its own, beside that."""
    home = Path(inspect.getfile(cls)).parent
    return home / name if (home / name).is_dir() else home.parent / name


def shipped_weights(agent: str, env: str) -> Path:
    """The artefact in ``pretrained/`` beside ``agent``'s file; raises :class:`UserError` naming those there are."""
    folder = beside(agent_class(agent), "pretrained")
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


def configured(found: EnvRecord, settings: Mapping[str, Any], where: str = "env.kwargs") -> EnvRecord:
    """``found`` with ``settings`` over its own keywords, each one that the record declares, or as the record has it.

    Raises :class:`UserError` that begins with ``where`` for any other keyword or value.
    """
    own = found.env_kwargs
    new = {key: value for key, value in settings.items() if not (key in own and _same(own[key], value))}
    return replace(found, env_kwargs={**own, **checked(new, found.arguments, where)})


def _same(own: Any, value: Any) -> bool:
    plain = [list(v) if isinstance(v, tuple) else v for v in (own, value)]
    return type(plain[0]) is type(plain[1]) and plain[0] == plain[1]


def environment(entry: Any, where: str) -> EnvRecord | None:
    """The environment that a file names by ``{"id", "kwargs", "reference"}``; None where it names none.

    An id stands for what is registered under it, here or with Gymnasium, and keywords must be declared: nothing in a
    file is imported or called.  An id that nothing is registered under gives a record of the family ``unknown``, which
    is told apart from the others by :func:`is_known` and made by nobody.

    Raises :class:`UserError` that begins with ``where`` for an entry of another form, an id with a module to import,
    and keywords or values that are not declared.
    """
    if entry is None or (isinstance(entry, Mapping) and entry.get("id") is None):
        return None
    if not isinstance(entry, Mapping) or not isinstance(entry["id"], str):
        raise UserError(f"{where}: {shown(entry)} names no environment, expected id, kwargs and reference")
    env_id, settings = entry["id"], entry.get("kwargs") or {}
    if not ENV_ID.fullmatch(env_id):
        what = "names a module to import" if ":" in env_id else "is no id of an environment"
        raise UserError(f"{where}: {shown(env_id)} {what}, expected a plain id like 'Hopper-v5'")
    reference = reference_returns(entry.get("reference"), where)
    known = _registered(env_id)
    found = EnvRecord(env_id, env_id, env_id, UNKNOWN, "", data=reference and DataSpec("", "", reference))
    if known is None:
        return found
    if not isinstance(settings, Mapping):
        raise UserError(f"{where}: kwargs={shown(settings)} is not allowed, expected keywords with values")
    # what a record sets by itself it need not declare
    own = {k for r in known for k, v in r.env_kwargs.items() if k in settings and _same(v, settings[k])}
    arguments = {name: argument for record in known for name, argument in record.arguments.items()}
    new = {name: value for name, value in settings.items() if name not in own}
    values = {**{name: settings[name] for name in own}, **checked(new, arguments, f"{where}: {env_id}")}
    kwargs = {name: values[name] for name in settings}
    return replace(found, family=known[0].family, env_kwargs=kwargs, arguments=arguments, extra=known[0].extra)


def is_known(found: EnvRecord) -> bool:
    """Whether anything is registered under the id of a record that :func:`environment` gave."""
    return found.family != UNKNOWN


def _registered(env_id: str) -> list[EnvRecord] | None:
    """The records with this id, and one for what Gymnasium knows by it; None where there is neither."""
    known = [record for record in records().values() if env_id in (record.env_id, f"rlkit/{record.env_id}")]
    spec = sys.modules["gymnasium"].registry.get(env_id) if "gymnasium" in sys.modules else None
    if spec is None:
        return known or None
    home = spec.entry_point if isinstance(spec.entry_point, str) else ""
    near = [prefix for prefix in GYMNASIUM if home.startswith(prefix)]
    arguments = GYMNASIUM[max(near, key=len)] if near else {}
    return [*known, EnvRecord(env_id, env_id, env_id, "", "", arguments=arguments)]


def reference_returns(pair: Any, where: str) -> tuple[float, float] | None:
    """What a file says that random and expert policies return, or None; :class:`UserError` for anything else."""
    if pair is None:
        return None
    numbers = isinstance(pair, (list, tuple)) and all(type(x) in (int, float) and abs(x) < 1e300 for x in pair)
    if not numbers or len(pair) != 2 or pair[0] == pair[1]:
        raise UserError(f"{where}: reference={shown(pair)} is not allowed, expected two different finite returns")
    return float(pair[0]), float(pair[1])


def resolve_object(path: str) -> Any:
    """``"module:attribute"`` to the object."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
