"""What ``help`` and editors show of an agent: a constructor with its hyperparameters, each with its comment."""

from __future__ import annotations

import ast
import inspect
import textwrap
import tokenize
from dataclasses import MISSING, fields
from functools import cache
from io import StringIO
from typing import Any

KINDS = inspect.Parameter


@cache
def comments(config: type[Any]) -> dict[str, str]:
    """What the source of a config's class, or of those it descends from, says on the line of each field."""
    found: dict[str, str] = {}
    fields_ = {field.name for field in fields(config)}
    for cls in reversed(config.__mro__):
        if "__dataclass_fields__" not in vars(cls):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(cls))
        except (OSError, TypeError):  # made where no file is
            continue
        tokens = tokenize.generate_tokens(StringIO(source).readline)
        lines = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
        (tree,) = ast.parse(source).body
        assert isinstance(tree, ast.ClassDef)
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in fields_:
                comment = lines.get(node.end_lineno or node.lineno, "")
                found[node.target.id] = comment or found.get(node.target.id, "")
    return found


def signature(cls: type[Any]) -> inspect.Signature:
    """The constructor of an agent, its ``**hyperparameters`` written out as the fields of its ``Config``."""
    found: dict[str, inspect.Parameter] = {}
    outer = False  # whether a descendant's constructor was met, which passes what it does not know by keyword
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        own = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for parameter in own:
            if parameter.kind is not KINDS.VAR_KEYWORD:
                kind = KINDS.KEYWORD_ONLY if outer else parameter.kind
                found.setdefault(parameter.name, parameter.replace(kind=kind))
        outer = True
        if not any(parameter.kind is KINDS.VAR_KEYWORD for parameter in own):
            break
        if any(parameter.name == "policy_kwargs" for parameter in own):  # what is left are hyperparameters
            break
    for field in fields(cls.Config):
        default = field.default if field.default is not MISSING else KINDS.empty
        new = KINDS(field.name, KINDS.KEYWORD_ONLY, default=default, annotation=field.type)
        found.setdefault(field.name, new)
    return inspect.Signature(sorted(found.values(), key=lambda parameter: parameter.kind))


def documentation(cls: type[Any], own: str | None) -> str:
    """``own`` docstring of an agent's class, and its hyperparameters with their defaults and comments."""
    said = comments(cls.Config)
    lines = [inspect.cleandoc(own or ""), "", "Hyperparameters:"]
    for field in fields(cls.Config):
        default = "" if field.default is MISSING else f" = {field.default!r}"
        lines.append(f"    {field.name}: {field.type}{default}")
        if said.get(field.name):
            lines.append(f"        {said[field.name]}")
    return "\n".join(lines).strip()


class Signed:
    """``__signature__`` of an agent's class."""

    def __get__(self, instance: Any, owner: type[Any]) -> inspect.Signature:
        return signature(owner)
