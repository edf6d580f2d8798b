"""What people type first, as what it stands for: other libraries' verbs and keys, names in any case, bare words.

Nothing is guessed that may mean two things: that is answered with the line to type.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rlkit import registry
from rlkit.cli.facts import agent_facts, agent_name, plain, settings
from rlkit.cli.parser import SETTING
from rlkit.errors import UserError, nearest, one_line, shown

KEYS: Mapping[str, str] = {
    **dict.fromkeys(("algo", "algorithm"), "agent"),
    **dict.fromkeys(("environment", "env_id", "env_name", "dataset"), "env"),
    **dict.fromkeys(
        ("steps", "n_steps", "timesteps", "n_timesteps", "num_timesteps", "total_steps", "max_timesteps", "max_steps"),
        "total_timesteps",
    ),
    **dict.fromkeys(("output", "out_dir", "output_dir", "log_dir", "logdir", "folder"), "out"),
    **dict.fromkeys(("eval_freq", "eval_interval"), "eval_every"),
    "n_eval_episodes": "eval_episodes",
    "save_freq": "checkpoint_every",
    "log_interval": "log_every",
    "random_seed": "seed",
    **dict.fromkeys(("num_threads", "n_threads"), "threads"),
}
WHOLE = re.compile(r"\d+(\.\d*)?[eE]\+?\d{1,2}|\d+\.0*")
SHOWN = 3  # names in a suggestion


def names_of(words: Iterable[str], key: str) -> list[str]:
    """The names that ``words`` give ``key``, of a sweep all of them; those in any case that are an agent's as it is."""
    value = next((word.partition("=")[2] for word in words if key_of(word) == key), "")
    return [name for name in value.split(",") if name]


def key_of(word: str) -> str:
    return word.partition("=")[0]


def spelt(words: Iterable[str]) -> list[str]:
    """Every word as ``key=value``; raises :class:`UserError` for a word that is none and stands for none."""
    return [_named(word) if SETTING.match(word) else _bare(word) for word in words]


def understood(typed: Sequence[str]) -> list[str]:
    """The words that :func:`spelt` gave, each key one of the configuration's, in order.

    Raises :class:`UserError` for what may mean two things, or nothing, with the line to type.
    """
    agents, begun = names_of(typed, "agent"), bool(names_of(typed, "init"))  # one that learnt from data may now act
    found = []
    for word in typed:
        key, _, value = word.partition("=")
        if key == "agent":
            value = ",".join(agent_name(name) for name in value.split(","))
        elif key == "env":
            value = _env(value, [] if begun else agents)
        elif key == "device" and value.lower() in ("gpu", "nvidia"):
            value = "cuda"
        else:
            key = _own(key, agents)
            if _is_whole(key, agents):
                value = ",".join(_whole(part) for part in value.split(","))
        found.append(f"{key}={value}")
    return found


def _named(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{KEYS.get(key, key)}={value}" if KEYS.get(key) in ("agent", "env") else word


def _bare(word: str) -> str:
    """A word without ``key=``: an agent's or an environment's name, a file of data; a run is answered."""
    if (Path(word) / "config.yaml").is_file():
        raise UserError(f"{word} is a run, expected rlkit resume {shlex.quote(word)} to go on with it")
    parts = word.split(",")
    if all(plain(part) in registry.agent_names() for part in parts):
        return f"agent={word}"
    if all(record_named(part) for part in parts) or Path(word).is_file() or _is_id(word):
        if Path(word).suffix in (".yaml", ".yml"):
            raise UserError(f"{word} holds settings, expected rlkit train --config {shlex.quote(word)}")
        return f"env={word}"
    agents = nearest(word, registry.agent_names()) if " " not in word else ""
    agents = agents if agents.startswith(";") else ""
    raise UserError(f"cannot read '{one_line(word, 60)}', expected key=value{agents}")


def _is_id(word: str) -> bool:
    return re.fullmatch(r"([\w.]+:)?[\w.-]+(/[\w.-]+)*-v\d+", word) is not None


def _own(key: str, agents: Sequence[str]) -> str:
    """A bare key as the run's setting, or as the hyperparameter of the agents that it names."""
    run = {option.name for option in settings()}
    if key in run or "." in key or "/" in key or key[0] in "+~":
        return key
    from rlkit.algorithms.hyperparameters import own_name

    owns = [name for name in map(plain, agents) if name in registry.agent_names()]
    has = [name for name in owns if own_name(registry.agent_class(name), key) in _options(name)]
    if has and key in KEYS:
        raise UserError(
            f"{key}= may be either with agent={has[0]}, expected {KEYS[key]}= for the run's "
            f"or agent.{key}= for the agent's"
        )
    if has:
        return f"agent.{own_name(registry.agent_class(has[0]), key)}"
    return KEYS.get(key, key)


def _options(agent: str) -> dict[str, str]:
    return {option.name: option.kind for option in agent_facts(agent).options}


def _is_whole(key: str, agents: Sequence[str]) -> bool:
    """Whether the setting is a whole number."""
    kinds = {option.name: option.kind for option in settings()}
    for name in agents:
        if plain(name) in registry.agent_names():
            kinds |= {f"agent.{option}": kind for option, kind in _options(plain(name)).items()}
    return kinds.get(key, "") in ("int", "int | None")


def _whole(text: str) -> str:
    """``1e6`` as ``1000000``; what is no whole number as it is."""
    if WHOLE.fullmatch(text) and float(text).is_integer():
        return str(int(float(text)))
    return re.sub(r"(?<=\d)_(?=\d)", "", text) if re.fullmatch(r"\d[\d_]*", text) else text


# ---- environments -------------------------------------------------------------------------------------------------


def _env(value: str, agents: Sequence[str]) -> str:
    """The names in ``value`` as records have them; raises :class:`UserError` where one cannot be learnt from."""
    from rlkit.data.resolve import is_file

    if is_file(value) or Path(value).exists():
        return value
    kinds = {agent_facts(plain(name)).learns_from for name in agents if plain(name) in registry.agent_names()}
    found = []
    for name in value.split(","):
        own = record_named(name) or name
        if not is_file(own):
            _require_fit(own, kinds)
        found.append(own)
    return ",".join(found)


def record_named(text: str) -> str | None:
    """The record that ``text`` names in any case, or by D4RL's id."""
    known = registry.records()
    if text in known:
        return text
    for name, record in known.items():
        if plain(name) == plain(text) or (record.data is not None and record.data.d4rl_id == plain(text)):
            return name
    return None


def _require_fit(name: str, kinds: set[str]) -> None:
    """Refuse an environment for agents of data, and an unknown name, with what is near."""
    known = registry.records()
    if len(kinds) != 1 or "/" in name or ":" in name:  # an id of Minari, or a package to import
        return
    (kind,) = kinds
    if kind == "data" and (name in known and known[name].data is None):
        raise UserError(f"env={name} is an environment and the agent learns from data, {_meant(name, kind)}")
    if name in known:
        return
    import gymnasium

    if name in gymnasium.registry:
        if kind == "data":
            raise UserError(f"env={name} is an environment and the agent learns from data, {_meant(name, kind)}")
        return
    from rlkit.data.minari_store import has_local

    if kind == "data" and re.fullmatch(r"[\w.-]+", name) and has_local(name):
        return
    raise UserError(f"unknown env '{one_line(name, 60)}'{_near(name, kind)}")


def suggestions(text: str, kind: str) -> list[str]:
    """Up to three records near ``text`` that agents learning from ``kind`` can be given, the usual one first."""
    fit = {name: record for name, record in registry.records().items() if (record.data is not None) == (kind == "data")}
    stem = re.sub(r"-v\d+$", "", plain(text)).removeprefix("rlkit/")
    near = difflib.get_close_matches(stem, [name for name in fit if name != text], n=SHOWN, cutoff=0.75)
    tasks = difflib.get_close_matches(stem, {record.task for record in fit.values()}, n=1, cutoff=0.6)
    tasks = tasks or [task for task in {record.task for record in fit.values()} if stem.startswith(f"{task}-")]
    of_task = [name for name, record in fit.items() if record.task in tasks]
    usual = [name for name in of_task if (data := fit[name].data) is not None and data.d4rl_id]
    usual.sort(key=lambda name: (not name.endswith("-medium"), "medium" not in name))
    exact = bool(tasks) and (stem == tasks[0] or len(stem) <= len(tasks[0]) + 1)
    order = [*usual, *of_task, *near] if exact else [*near, *usual, *of_task]
    return list(dict.fromkeys(order))[:SHOWN]


def _meant(name: str, kind: str) -> str:
    found = suggestions(name, kind)
    return (
        f"expected {_either(f'env={one}' for one in found)}"
        if found
        else "expected a record (rlkit data list), a file, or an id of Minari"
    )


def _near(name: str, kind: str) -> str:
    found = suggestions(name, kind)
    if found:
        return f"; did you mean {_either(map(repr, found))}?"
    return ", expected a record (rlkit list envs), a file, or an id of Minari or Gymnasium"


def _either(names: Iterable[str]) -> str:
    """``a, b or c``."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def missing(words: Sequence[str]) -> None:
    """Raise :class:`UserError` with a line to type where ``agent=`` or ``env=`` is missing."""
    agents, envs = names_of(words, "agent"), names_of(words, "env")
    if not agents:
        of = f"env={envs[0]}" if envs else "env=hopper-medium"
        raise UserError(f"agent= is missing, expected a line like rlkit train agent=td3bc {of} (see rlkit list agents)")
    if not envs:
        kind = agent_facts(agents[0]).learns_from
        usual = "hopper-medium" if kind == "data" else USUAL.get(agents[0], "hopper")
        raise UserError(
            f"env= is missing, expected a line like rlkit train agent={agents[0]} env={usual} (see rlkit list envs)"
        )


USUAL = {  # environments that agents which act are shown with, where it is not Hopper
    "bq": "tsp",
    "ptrnet": "tsp",
    "drrpo": "linear-mdp",
    "drrpo-features": "american-put",
    "mbtl": "contextual-cartpole",
    "orpo": "tomato",
}


def require_shared(keys: Iterable[str], agents: Sequence[str]) -> None:
    """Raise :class:`UserError` for a hyperparameter that some agents of a sweep have and others have not."""
    if len(agents) < 2:
        return
    from rlkit.algorithms.hyperparameters import own_name

    for key in keys:
        name = key.removeprefix("agent.")
        if name == key:
            continue
        has = [a for a in agents if own_name(registry.agent_class(a), name) in _options(a)]
        lacks = [a for a in agents if a not in has]
        if has and lacks:
            raise UserError(
                f"agent={lacks[0]} of this sweep has no {shown(name)}, which agent={has[0]} has; "
                f"expected keys that all have, or a sweep of agent={','.join(has)} alone"
            )
