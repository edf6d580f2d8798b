"""rlkit imports the same way from a checkout, from a wheel, and from a wheel while standing in the checkout."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_tree import ROOT, checkout, python

from rlkit.errors import DISTRIBUTION, install_extra

PROBE = (
    "import sys; {path}import rlkit, rlkit.agents, rlkit.envs, rlkit.envs.records.locomotion; "
    "from importlib import import_module; import_module('rlkit.agents.bc'); "
    "print(rlkit.__file__); print(rlkit.agents.__file__); print(len(rlkit.envs.records.locomotion.RECORDS))"
)


@pytest.fixture(scope="module")
def unlinked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("unlinked") / "source", links=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as ``python -m build`` does."""
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--outdir", folder, checkout(folder / "source"))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The wheel's content in a folder, as pip lays it out."""
    site = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(code: str, cwd: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def probe(first: Path | None, site: Path | None) -> str:
    """With -c, the current folder comes first on the path; ``site`` is put behind it, where site-packages stand."""
    extra = f"sys.path[1:1] = [{str(site)!r}]; " if site else ""
    extra += f"sys.path[0:1] = [{str(first)!r}]; " if first else ""
    return PROBE.format(path=extra)


def test_from_a_wheel_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    home, agents, records = run(probe(None, installed), tmp_path)[:3]
    assert home.startswith(str(installed)) and agents.startswith(str(installed)) and int(records) >= 24


def test_from_a_wheel_while_standing_in_the_checkout(installed: Path) -> None:
    home, agents, _ = run(probe(ROOT, installed), ROOT)[:3]
    assert home == str(ROOT / "rlkit" / "__init__.py")
    assert Path(agents).resolve() == ROOT / "agents" / "__init__.py"


def test_from_the_checkout(tmp_path: Path) -> None:
    home, agents, _ = run(probe(ROOT, None), tmp_path)[:3]
    assert home == str(ROOT / "rlkit" / "__init__.py")
    assert Path(agents).resolve() == ROOT / "agents" / "__init__.py"


def test_from_a_checkout_without_links(unlinked: Path, tmp_path: Path) -> None:
    home, agents, records = run(probe(unlinked, None), tmp_path)[:3]
    assert home == str(unlinked / "rlkit" / "__init__.py") and int(records) >= 24
    assert agents == str(unlinked / "agents" / "__init__.py")


@pytest.mark.parametrize("first", [ROOT, ROOT / ".layout"])
def test_a_module_has_one_path_whatever_link_it_was_found_through(first: Path, tmp_path: Path) -> None:
    """A debugger's breakpoint in agents/bc.py would not be met in another name of the file."""
    modules = {"rlkit.agents.bc": "agents/bc.py", "rlkit.envs.robotics": "envs/robotics.py"}
    modules |= {"rlkit.envs.records.locomotion": "envs/records/locomotion.py", "rlkit.errors": "rlkit/errors.py"}
    code = f"import sys; sys.path.insert(0, {str(first)!r}); from importlib import import_module; "
    code += f"print(*(import_module(name).__file__ for name in {[*modules]}), sep='\\n')"
    assert run(code, tmp_path)[:-1] == [str(ROOT / path) for path in modules.values()]


def test_the_wheel_holds_every_file_once(wheel: Path, unlinked: Path) -> None:
    python("-m", "pip", "wheel", "-q", "--no-deps", "-w", unlinked.parent, unlinked)
    (other,) = unlinked.parent.glob("*.whl")
    names, others = (zipfile.ZipFile(path).namelist() for path in (wheel, other))
    assert sorted(names) == sorted(set(others)) and len(names) == len(others)
    homes = {"rlkit": ROOT / "rlkit", "rlkit/agents": ROOT / "agents", "rlkit/envs": ROOT / "envs"}
    sources = [f"{name}/{path.relative_to(home)}" for name, home in homes.items() for path in home.rglob("*.py")]
    assert sorted(name for name in names if name.endswith(".py")) == sorted(sources)


def test_the_wheel_carries_its_data(installed: Path) -> None:
    assert (installed / "rlkit" / "py.typed").exists()
    assert (installed / "rlkit" / "agents" / "presets" / "prdc.yaml").exists()
    assert (installed / "rlkit" / "data" / "behaviours" / "manifest.json").exists()
    assert {path.name for path in installed.iterdir()} == {"rlkit", next(installed.glob("*.dist-info")).name}


def test_shipped_weights_stay_small() -> None:
    total = sum(path.stat().st_size for path in ROOT.rglob("*.safetensors") if "runs" not in path.parts)
    assert total < 15_000_000


def test_help_loads_no_torch() -> None:
    code = "import sys; from rlkit.cli import main; main(['--help']); main(['list', 'agents']); "
    run(code + "assert 'torch' not in sys.modules", ROOT)


def test_entry_points_lead_to_their_names() -> None:
    for entry in entry_points(group="rlkit.agents"):
        assert entry.load().name == entry.name


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CALLED = {"PIL": "pillow", "hydra": "hydra-core", "sklearn": "scikit-learn", "sumo": "eclipse-sumo", "yaml": "pyyaml"}
PEERS = {
    "envpool",
    "gym",
    "rl4co",
    "simglucose",
    "tensordict",
}  # measured against where somebody has them; no extra brings them


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, by statement or by a literal name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "_load"):
            found |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return {name.partition(".")[0] for name in found}


def test_what_is_imported_is_declared() -> None:
    """What another library happens to bring goes when that library changes its mind."""
    extras = [*PROJECT["optional-dependencies"].values()]
    declared = {Requirement(text).name for text in sum(extras, PROJECT["dependencies"])}
    files = [path for folder in ("rlkit", "agents", "envs") for path in (ROOT / folder).rglob("*.py")]
    names = set().union(*map(imported, files)) - sys.stdlib_module_names - PEERS - {"rlkit", "Box2D"}
    known = {canonicalize_name(name) for name in declared}
    assert len(names) > 20
    assert {name for name in names if canonicalize_name(CALLED.get(name, name)) not in known} == set()


def test_what_is_not_tried_against_has_a_reason() -> None:
    """A bound without one is a bound that nobody dares to lift."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = text[text.index("dependencies = [") : text.index("[project.scripts]")].splitlines()
    bounds = [line for line in lines if re.match(r"  \".*[<>=]", line)]
    assert len(bounds) > 40 and [line for line in bounds if "#" not in line] == []


def test_nothing_tells_to_install_the_other_rlkit() -> None:
    """PyPI's ``rlkit`` is not this project."""
    assert PROJECT["name"] == DISTRIBUTION != "rlkit"
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    sources = [path for folder in ("rlkit", "agents", "envs") for path in (ROOT / folder).rglob("*.py")]
    wrong = re.compile(r"\brlkit\[[a-z]|\bpip3? install( -\S+)* ['\"]?rlkit(?![-\w])")
    found = [str(path) for path in pages + sources if wrong.search(path.read_text(encoding="utf-8"))]
    assert found == []
    assert all(map(wrong.search, ("pip install rlkit", "pip install -U 'rlkit'", "'rlkit[dmc]'")))


def test_an_extra_that_this_python_is_too_new_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 2))
    assert install_extra("labels", before=(3, 14)) == "pip install 'rlkit-papers[labels]'"
    assert install_extra("dmc", before=(3, 13)) == "pip install 'rlkit-papers[dmc]' with Python 3.12 or older"


def test_the_citation_names_the_papers() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "type", "license"} <= cited.keys()
    for paper in cited["references"]:
        assert {"type", "title", "authors", "year", "scope"} <= paper.keys(), paper
        assert all("family-names" in author for author in paper["authors"])
    scopes = {name for paper in cited["references"] for name in paper["scope"].split(", ")}
    assert scopes == {entry.name for entry in entry_points(group="rlkit.agents")} - {"bc", "drrpo-features"}
