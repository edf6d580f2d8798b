"""What ``mkdocs build`` does beside rendering: mirror packages for mkdocstrings, fill tables, typeset equations.

``agents/`` and ``envs/`` are installed as ``rlkit.agents`` and ``rlkit.envs``.  mkdocstrings reads files without
importing them, so :func:`mirror` lays out a copy in which they lie where their names say.

In a page, a comment of its own line is replaced by a table, so that no figure is written down twice::

    <!-- fields: rlkit.agents.prdc.prdc:PRDCConfig -->      the fields of a dataclass, with their comments
    <!-- behaviours -->                                the measured policies of the behaviours' manifest
    <!-- file: docs/examples/awr.py -->                a file's text

TeX between dollar signs, ``$x$`` in a line and ``$$`` on lines of their own, becomes MathML, which browsers draw by
themselves.  Code is left alone.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import tokenize
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MIRROR = ROOT / "build" / "docs"
MANIFEST = ROOT / "rlkit" / "data" / "behaviours" / "manifest.json"
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)([\w.]+)`")


def source_of(module: str) -> Path:
    """The file of ``rlkit.a.b``, whether or not the checkout has its links."""
    _, *parts = module.split(".")
    base = ROOT if parts and parts[0] in ("agents", "envs") else ROOT / "rlkit"
    path = base.joinpath(*parts)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def plain_markdown(source: str) -> str:
    """Docstrings' Sphinx markup as Markdown; code is left as it is but for strings that look like it."""
    source = ROLE.sub(lambda m: f"`{m[2].rpartition('.')[2] if m[1] else m[2]}`", source)
    return re.sub(r"(?<=[\w`])::$", ":", source, flags=re.MULTILINE)


def mirror() -> None:
    shutil.rmtree(MIRROR, ignore_errors=True)
    for source, target in (("rlkit", "rlkit"), ("agents", "rlkit/agents"), ("envs", "rlkit/envs")):
        for path in sorted((ROOT / source).rglob("*.py")):
            copy = MIRROR / target / path.relative_to(ROOT / source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(plain_markdown(path.read_text()))


def on_startup(command: str, dirty: bool) -> None:
    mirror()  # mkdocstrings drops paths that are not there when it is configured


def on_pre_build(config: Any) -> None:
    mirror()


def _class(path: Path, name: str) -> ast.ClassDef:
    tree = ast.parse(path.read_text())
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def fields_table(target: str) -> str:
    """Markdown table of a dataclass's own fields: name, default, and the comment on its line."""
    module, _, name = target.partition(":")
    path = source_of(module)
    text = path.read_text()
    with path.open("rb") as file:
        found = [token for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
    comments = {token.start[0]: token.string.lstrip("# ") for token in found}
    rows = []
    for node in _class(path, name).body:
        if not isinstance(node, ast.AnnAssign) or node.value is None or "ClassVar" in ast.unparse(node.annotation):
            continue
        name, default = (ast.get_source_segment(text, part) for part in (node.target, node.value))
        comment = comments.get(node.lineno, "").replace("|", "\\|")
        rows.append(f"| `{name}` | `{default}` | {comment} |")
    return "\n".join(["| name | default | what it does |", "|---|---|---|", *rows])


def behaviours_table() -> str:
    """Markdown table of the manifest: every shipped policy and its measured returns."""
    lines = ["| task | policy | trained for | return, mean ± sd | normalised | episodes |", "|---|---|---|---|---|---|"]
    for task, entry in json.loads(MANIFEST.read_text())["tasks"].items():
        for name, policy in entry["policies"].items():
            lines.append(
                f"| {task} | {name} | {policy['step']:,} steps | {policy['return_mean']} ± {policy['return_sd']} "
                f"| {policy['normalised']} | {policy['episodes']} |"
            )
    return "\n".join(lines)


def file_text(name: str) -> str:
    path = ROOT / name
    return f'```{path.suffix[1:].replace("py", "python")} title="{name}"\n{path.read_text().rstrip()}\n```'


MAKERS = {"fields": fields_table, "file": file_text}


def fill(markdown: str) -> str:
    """``markdown`` with every comment of the module's docstring replaced."""
    markdown = re.sub(r"^<!-- behaviours -->$", lambda _: behaviours_table(), markdown, flags=re.MULTILINE)
    pattern = rf"^<!-- ({'|'.join(MAKERS)}): (\S+) -->$"
    return re.sub(pattern, lambda m: MAKERS[m[1]](m[2]), markdown, flags=re.MULTILINE)


CODE = re.compile(r"(^ *(`{3,})[^\n]*\n.*?^ *\2[^\S\n]*$|(`+)[^`].*?\3)", re.DOTALL | re.MULTILINE)
EQUATION = re.compile(r"^\$\$\n(.+?)\n\$\$$|\$([^$\n]+)\$", re.DOTALL | re.MULTILINE)


def typeset(markdown: str) -> str:
    """``markdown`` with its equations as MathML, a line each; ValueError for TeX that the converter does not know."""
    from latex2mathml.converter import convert

    def mathml(found: re.Match[str]) -> str:
        block, inline = found.groups()
        made: str = convert(" ".join((block or inline).split()), display="block" if block else "inline")
        if "\\" in made:
            raise ValueError(f"not converted: {found[0]}")
        return made if block else made.replace("<math ", '<math displaystyle="true" ', 1)

    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [EQUATION.sub(mathml, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, EQUATION.sub(mathml, markdown[end:])])


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    return typeset(fill(markdown))
