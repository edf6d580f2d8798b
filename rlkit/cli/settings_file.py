"""``rlkit train --config FILE``: settings from a YAML file, with keys as on the command line, nested or dotted.

A list is a sweep, but where the setting itself is one.  Nothing in a file is made, looked up or run: there are no tags
and no aliases, and a value may stand for another one only by its key, as in ``out: runs/b${agent.beta}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from rlkit import registry
from rlkit.cli.facts import agent_facts, plain
from rlkit.config import quoted
from rlkit.errors import UserError, one_line
from rlkit.run.folder import marked
from rlkit.system.plain import MAX_CONFIG, PlainLoader

MOST = 1000  # settings of a file
REFERENCE = re.compile(r"\$\{[a-z][\w.]*\}")
NUMBER = re.compile(r"[-+]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
KINDS = {"str", "int", "float", "bool", "null", "timestamp"}


@dataclass(frozen=True)
class Entry:
    """A setting of a file: ``place`` says where it stands."""

    key: str
    node: yaml.Node
    place: str


def read_settings(path: Path) -> list[Entry]:
    """The settings in ``path``, in order; raises :class:`UserError`, with the line, for what a file may not hold."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG + 1)
        if len(data) > MAX_CONFIG:
            raise UserError(f"{path} has more than {MAX_CONFIG} bytes, expected the settings of a run")
        root = yaml.compose(data.decode("utf-8"), PlainLoader)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        reason = getattr(error, "problem", None) or error
        raise UserError(f"{where}: cannot be read as YAML ({one_line(reason, 100)}), expected key: value") from None
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} holds no settings, expected lines like seed: 0")
    found: dict[str, Entry] = {}
    for entry in _entries(root, path):
        if entry.key in found:
            _refuse(entry, f"{entry.key} is given twice, expected it once")
        found[entry.key] = entry
        if len(found) > MOST:
            _refuse(entry, f"more than {MOST} settings, expected fewer")
    return _as_typed(found, path)


def _entries(node: yaml.MappingNode, path: Path, prefix: str = "") -> Iterator[Entry]:
    for key, value in node.value:
        name = getattr(key, "value", None)
        entry = Entry(f"{prefix}{name}", value, f"{path}, line {key.start_mark.line + 1}")
        if not isinstance(name, str) or not re.fullmatch(r"[^\W\d][\w./-]*", name):
            _refuse(entry, f"'{one_line(name, 60)}' is no key, expected one like agent.beta")
        if isinstance(value, yaml.MappingNode):
            _require_untagged(entry, value, "map")
            yield from _entries(value, path, f"{entry.key}.")
        else:
            yield entry


def _as_typed(found: dict[str, Entry], path: Path) -> list[Entry]:
    """``agent.name`` as ``agent``, and of a run's own configuration what was typed for ``env``; its folder is its own.

    Nulls of a run's configuration are defaults.
    """
    named = {group: found.pop(f"{group}.name", None) for group in ("agent", "env")}
    for group, entry in named.items():
        if entry is not None and group not in found:
            found[group] = Entry(group, entry.node, entry.place)
    if named["env"] is not None and str(named["env"].node.value) not in registry.records():
        for key in ("env.path", "env.id"):
            typed = found.get(key)
            if typed is not None and _is_text(typed.node):
                found["env"] = Entry("env", typed.node, typed.place)
                del found[key]
                break
    out = found.get("out")
    if marked(path.parent) and path.name == "config.yaml" and out is not None:
        del found["out"]
    if named["agent"] is not None:
        found = {key: entry for key, entry in found.items() if not _is_null(entry.node)}
    return list(found.values())


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _is_text(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not _is_null(node)


def values(entries: Sequence[Entry], key: str) -> list[str]:
    """What ``entries`` give ``key``: a name, or those of a sweep."""
    nodes = [entry.node for entry in entries if entry.key == key]
    parts = nodes[0].value if nodes and isinstance(nodes[0], yaml.SequenceNode) else nodes
    return [str(part.value) for part in parts if isinstance(part, yaml.ScalarNode)]


def as_words(entries: Sequence[Entry], agents: Sequence[str]) -> list[str]:
    """``key=value`` of each of ``entries``, as one would type it for ``agents``."""
    lists = {"env.bounds"} | {f"env.columns.{role}" for role in ("observations", "actions", "next_observations")}
    for name in map(plain, agents):
        if name in registry.agent_names():
            lists |= {f"agent.{o.name}" for o in agent_facts(name).options if re.search("Sequence|tuple|list", o.kind)}
            from rlkit.algorithms.hyperparameters import ALIASES

            lists |= {f"agent.{alias}" for alias, own in ALIASES.items() if f"agent.{own}" in lists}
    lists |= {entry.key for entry in entries if entry.key.startswith("env.bounds.")}
    return [f"{entry.key}={_value(entry, entry.key in lists)}" for entry in entries]


def _value(entry: Entry, is_list: bool) -> str:
    node = entry.node
    if not isinstance(node, yaml.SequenceNode):
        return _scalar(entry, node)
    _require_untagged(entry, node, "seq")
    if not node.value:
        if is_list:
            return "[]"
        _refuse(entry, f"{entry.key} has no values, expected one at least")
    if entry.key == "out":
        _refuse(entry, "out is a list, expected one folder with what differs in it, as runs/s${seed}")
    nested = all(isinstance(part, yaml.SequenceNode) for part in node.value)
    if is_list and not (nested and not entry.key.startswith("env.bounds")):
        return _list(entry, node)
    return ",".join(_list(entry, part) if is_list else _scalar(entry, part) for part in node.value)


def _list(entry: Entry, node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        _require_untagged(entry, node, "seq")
        return f"[{','.join(_list(entry, part) for part in node.value)}]"
    return _scalar(entry, node, inside=True)


def _scalar(entry: Entry, node: yaml.Node, inside: bool = False) -> str:
    if not isinstance(node, yaml.ScalarNode):
        _refuse(entry, f"{entry.key} holds a list or a mapping, expected a value")
    kind = node.tag.rpartition(":")[2]
    if node.tag.startswith("!") or kind not in KINDS or not node.tag.startswith("tag:yaml.org,2002:"):
        _refuse(entry, f"{entry.key} has the tag {one_line(node.tag, 60)}, expected a value without one")
    text = str(node.value)
    if kind == "null":
        return "null"
    if kind == "bool":
        return "true" if text.lower() in ("true", "yes", "on") else "false"
    if kind in ("int", "float") or (NUMBER.fullmatch(text) and node.style is None):
        return text.replace("_", "") if NUMBER.fullmatch(text) else quoted(text)
    if "${" in REFERENCE.sub("", text):
        _refuse(entry, f"{entry.key} stands for something else, expected a value, or a key of the run in ${{...}}")
    if entry.key in ("agent", "env", "out", "env.path") and not inside:
        return text
    return quoted(text)


def _require_untagged(entry: Entry, node: yaml.Node, kind: str) -> None:
    if node.tag != f"tag:yaml.org,2002:{kind}":
        _refuse(entry, f"{entry.key} has the tag {one_line(node.tag, 60)}, expected a value without one")


def _refuse(entry: Entry, sentence: str) -> NoReturn:
    raise UserError(f"{entry.place}: {sentence}")


def placed(error: UserError, places: dict[str, str]) -> UserError:
    """``error`` with the place of the setting that it names, where a file holds that."""
    text = str(error)
    for key in sorted(places, key=len, reverse=True):
        if re.match(rf"(unknown key '|unknown |agent=\S+ of this sweep has no '|no )?{re.escape(key)}\b", text):
            return type(error)(f"{places[key]}: {text}")
    return error
