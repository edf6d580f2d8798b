"""What help and completion say of agents, environments and settings, read from files: no agent is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlkit import registry
from rlkit.errors import UserError, nearest


@dataclass(frozen=True)
class Option:
    """A hyperparameter or a setting: its name, type, default and comment, as the source has them."""

    name: str
    kind: str
    default: str
    comment: str


@dataclass(frozen=True)
class Facts:
    """What is declared of an agent; ``defaults`` are those of its runs, ``unit`` and ``judged`` among them."""

    name: str
    summary: str
    learns_from: str
    defaults: dict[str, Any]
    options: tuple[Option, ...]


def agent_name(text: str) -> str:
    """The name of an agent, typed in any case; raises :class:`UserError` naming the nearest one."""
    name = plain(text)
    if name not in registry.agent_names():
        hint = nearest(name, registry.agent_names()) or " (see rlkit list agents)"
        raise UserError(f"unknown agent '{text}'{hint}")
    return name


def plain(text: str) -> str:
    """``text`` as names are written: small letters, hyphens."""
    return text.lower().replace("_", "-")


@cache
def agent_facts(name: str) -> Facts:
    """What is declared of the agent ``name``: of this package's from their stub, of others' from their class."""
    module, attribute = registry.agent_home(name) or ("", "")
    node = _stubs().get(attribute) if module.startswith("rlkit.agents.") else None
    if node is None:
        return _of_class(name)
    declared: dict[str, ast.expr] = {}
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.value is not None:
            declared[part.target.id] = part.value
    run = declared["defaults"]
    assert isinstance(run, ast.Call)
    constructor = next(part for part in node.body if isinstance(part, ast.FunctionDef))
    given = constructor.args
    positional = [*given.posonlyargs, *given.args]
    values = [*[None] * (len(positional) - len(given.defaults)), *given.defaults, *given.kw_defaults]
    typed = {a.arg: (a, value) for a, value in zip([*positional, *given.kwonlyargs], values, strict=True)}
    options = [
        Option(name, _text(typed[name][0].annotation), _text(typed[name][1]), comment)
        for name, comment in _said(ast.get_docstring(constructor) or "")
    ]
    return Facts(
        name,
        registry.agent_summary(name),
        ast.literal_eval(declared["learns_from"]),
        {str(word.arg): ast.literal_eval(word.value) for word in run.keywords},
        tuple(options),
    )


def _text(value: ast.expr | None) -> str:
    return "" if value is None else ast.unparse(value)


def _said(docstring: str) -> Iterator[tuple[str, str]]:
    """Name and comment of every line below the last ``Args:``, whose continuations are indented further."""
    block = docstring.rpartition("Args:\n")[2]
    for entry in re.split(r"\n {4}(?! )", f"\n{block}")[1:]:
        name, _, text = " ".join(entry.split()).partition(":")
        yield name, text.strip()


@cache
def _stubs() -> dict[str, ast.ClassDef]:
    spec = find_spec("rlkit.agents")
    path = Path(spec.origin).with_suffix(".pyi") if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        return {}
    return {
        node.name: node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
    }


def _of_class(name: str) -> Facts:
    from dataclasses import MISSING, asdict

    from rlkit.algorithms.signatures import comments

    cls = registry.agent_class(name)
    said = comments(cls.Config)
    options = [
        Option(f.name, str(f.type), "" if f.default is MISSING else repr(f.default), said.get(f.name, ""))
        for f in fields(cls.Config)
    ]
    return Facts(name, registry.agent_summary(name), cls.learns_from, asdict(cls.defaults), tuple(options))


@cache
def settings() -> tuple[Option, ...]:
    """The settings of a run, by the command line's names, from the source of :mod:`rlkit.config`."""
    spec = find_spec("rlkit.config")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    lines, found = source.splitlines(), []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef) or node.name not in ("ColumnsConfig", "EnvConfig", "TrainConfig"):
            continue
        prefix = {"TrainConfig": "", "EnvConfig": "env.", "ColumnsConfig": "env.columns."}[node.name]
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                comment = (
                    lines[part.end_lineno - 1][part.end_col_offset :].strip().lstrip("# ")
                    if part.end_lineno and part.end_col_offset
                    else ""
                )
                found.append(
                    Option(f"{prefix}{part.target.id}", ast.unparse(part.annotation), _text(part.value), comment)
                )
    return tuple(found)
