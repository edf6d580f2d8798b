"""The page "The house" is true: the tree, the sentences, who imports whom."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rlkit import registry

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "house.md").read_text()
ROOMS = ("rlkit", "agents", "envs")
BLOCKS = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
TREE, LAYERS = BLOCKS[0], [line.split() for line in BLOCKS[1].splitlines()]
HELPERS = {
    "registry",
    "arguments",
    "errors",
    "lazy",
    "rooms",
    "system",
    "__version__",
}  # what environments may use of the core


class Entry(NamedTuple):
    path: str  # from the root; a folder's ends with a slash
    sentence: str


def entries() -> list[Entry]:
    """The lines of the page's tree."""
    found: list[Entry] = []
    above: list[str] = []
    for line in TREE.splitlines():
        name, sentence = line.split(maxsplit=1)
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth:] = [name]
        found.append(Entry("".join(above[: depth + 1]), sentence))
    return found


def files() -> list[Path]:
    """Every module of the three rooms once; the links within ``rlkit/`` lead to the other two."""
    return [
        path
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if path.relative_to(ROOT).parts[:2] not in (("rlkit", "agents"), ("rlkit", "envs"))
    ]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((("rlkit",) if parts[0] != "rlkit" else ()) + parts).removesuffix(".__init__")


class Import(NamedTuple):
    source: str
    target: str  # a module, or a name within a package
    typing: bool  # under TYPE_CHECKING: nothing is imported


MODULES = {module_of(path): path for path in files()}


def imports_of(node: ast.AST, source: str, typing: bool = False) -> Iterator[Import]:
    """Imports of this library below ``node``, also those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(source, alias.name, typing) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{source}: an import that is relative"
            yield from (Import(source, f"{child.module}.{alias.name}", typing) for alias in child.names)
        only = typing or (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING")
        yield from imports_of(child, source, only)


def home(name: str) -> str:
    """The module that ``rlkit.a.b.C`` is taken from; ``name`` itself where it is none of a module's."""
    return name if name in MODULES else name.rpartition(".")[0] if name.rpartition(".")[0] in MODULES else name


IMPORTS = [
    found
    for source, path in MODULES.items()
    for found in imports_of(ast.parse(path.read_text()), source)
    if found.target.split(".")[0] == "rlkit"
]
# As the page says, each for one thing.
EXCEPTIONS = {tuple(re.findall(r"`([\w.]+)`", line)) for line in PAGE.splitlines() if re.match(r"\| `rlkit.* → ", line)}


def part(name: str) -> str:
    """``rlkit.a.b`` is in part ``a``."""
    return [*name.split("."), ""][1]


def excepted(found: Import) -> bool:
    return (found.source, home(found.target)) in EXCEPTIONS


def test_the_tree_names_every_package_and_nothing_that_is_not_there() -> None:
    named = [entry.path for entry in entries()]
    assert len(named) == len(set(named))
    for path in named:
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path
    packages = {f"{path.parent.relative_to(ROOT)}/" for path in files() if path.name == "__init__.py"}
    top = {str(path.relative_to(ROOT)) for path in files() if path.parent == ROOT / "rlkit"} - {"rlkit/__init__.py"}
    inside = {f"{room}/{path.name}" for room in ("agents", "envs") for path in (ROOT / room).glob("*.py")}
    assert packages | top | inside <= {*named, "agents/__init__.py", "envs/__init__.py"}


def test_sentences_begin_the_docstrings() -> None:
    """Those of every package and of every agent; the top of ``rlkit/`` is described in other words."""
    for path, sentence in entries():
        init = ROOT / path / "__init__.py"
        agent = path.startswith("agents/") and path.endswith(".py")
        if path == "rlkit/" or not (init.is_file() or agent):
            continue
        text = ast.get_docstring(ast.parse((init if init.is_file() else ROOT / path).read_text())) or ""
        plain = " ".join(text.replace("``", "`").split())
        assert sentence[0].isupper() or agent, path
        assert plain.startswith(sentence.removesuffix(".")), f"{path}: {sentence}"


def test_agents_lists_agents_and_three_folders_more() -> None:
    found = {path.partition(".")[0] for path in (entry.name for entry in (ROOT / "agents").iterdir())}
    named = {name: registry.agent_class(name).__module__ for name in registry.agent_names()}
    agents = {name.replace("-", "_") for name, module in named.items() if module.startswith("rlkit.agents.")}
    assert len(agents) == 19
    assert found - {"__init__", "__pycache__"} == agents | {"common", "presets", "pretrained"}


def test_the_core_imports_no_agent_and_no_environment() -> None:
    wrong = [i for i in IMPORTS if part(i.source) not in ("agents", "envs") and part(i.target) in ("agents", "envs")]
    assert wrong == []


def test_environments_import_helpers_alone() -> None:
    wrong = [i for i in IMPORTS if part(i.source) == "envs" and part(i.target) not in HELPERS | {"envs"}]
    assert [i for i in wrong if not excepted(i)] == []
    row = next(line for line in PAGE.splitlines() if line.startswith("| `envs/`"))
    assert set(re.findall(r"`rlkit\.(\w+)`", row)) == HELPERS - {"__version__"}


def test_agents_import_nothing_that_runs_them() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| `agents/`"))
    banned = set(re.findall(r"`rlkit\.(\w+)`", row))
    assert len(banned) == 4
    assert [i for i in IMPORTS if part(i.source) == "agents" and part(i.target) in banned] == []


def test_packages_of_the_core_import_what_is_below_them() -> None:
    floor = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    parts = {part(module) for module in MODULES if module != "rlkit"} - {"agents", "envs"}
    assert floor.keys() == parts
    for found in IMPORTS:
        above, below = part(found.source), part(found.target)
        if above in floor and below in floor and above != below and not excepted(found):
            assert floor[above] < floor[below], found


def test_every_exception_is_still_one() -> None:
    assert len(EXCEPTIONS) == 2
    assert {pair for pair in EXCEPTIONS if pair in {(i.source, home(i.target)) for i in IMPORTS}} == EXCEPTIONS


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: {home(i.target) for i in IMPORTS if i.source == name and not i.typing} for name in MODULES}
    done: set[str] = set()

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for target in sorted(graph.get(name, set()) & MODULES.keys()):
                walk(target, (*above, name))
            done.add(name)

    for name in MODULES:
        walk(name, ())


def test_docstrings_have_one_form() -> None:
    """Prose, then ``Args:`` and ``Raises:``; no fields of Sphinx's, no underlined sections of NumPy's."""
    other = re.compile(
        r"^ *(?:\"\"\")?(?::(?:param|type|returns?|rtype|raises)\b|(?:Parameters|Returns|Raises)\n *-{3})", re.MULTILINE
    )
    assert [str(path) for path in files() if other.search(path.read_text())] == []


PATHS = re.compile(r"``((?:agents|docs|envs|rlkit|scripts|tests)/[\w/.-]+\.(?:py|md|json|png|yaml|sh))``")


def test_files_that_comments_and_docstrings_name_are_there() -> None:
    scripts = sorted((ROOT / "scripts").glob("*.py"))
    for path in [*files(), *scripts]:
        for name in PATHS.findall(path.read_text()):
            assert (ROOT / name).exists(), f"{path.relative_to(ROOT)}: {name}"
