"""rlkit imports the same way from a checkout, from a wheel, and from a wheel while standing in the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROBE = (
    "import sys; {path}import rlkit, rlkit.agents, rlkit.envs, rlkit.envs.locomotion; "
    "from importlib import import_module; import_module('rlkit.agents.bc'); "
    "print(rlkit.__file__); print(rlkit.agents.__file__); print(len(rlkit.envs.locomotion.RECORDS))"
)


LINKS = ("src/rlkit", "rlkit/agents", "rlkit/envs")


def checkout(folder: Path, links: bool) -> Path:
    """What a wheel is made of, as git lays it out; without ``links``, as it does where a system has none."""
    folder.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.nb?")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("src", "rlkit", "agents", "envs"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore, symlinks=True)
    if not links:
        for name in LINKS:
            target = (folder / name).readlink()
            (folder / name).unlink()
            (folder / name).write_text(str(target), encoding="utf-8")
    return folder


def build(*command: str | Path) -> None:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def unlinked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("unlinked") / "source", links=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as ``python -m build`` does."""
    folder = tmp_path_factory.mktemp("wheel")
    build("build", "--outdir", folder, checkout(folder / "source", links=True))
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


@pytest.mark.parametrize("first", [ROOT, ROOT / "src"])
def test_a_module_has_one_path_whatever_link_it_was_found_through(first: Path, tmp_path: Path) -> None:
    """A debugger's breakpoint in agents/bc.py would not be met in another name of the file."""
    modules = {"rlkit.agents.bc": "agents/bc.py", "rlkit.envs.dmc_tasks": "envs/dmc_tasks.py"}
    modules |= {"rlkit.envs.locomotion": "envs/locomotion.py", "rlkit.errors": "rlkit/errors.py"}
    code = f"import sys; sys.path.insert(0, {str(first)!r}); from importlib import import_module; "
    code += f"print(*(import_module(name).__file__ for name in {[*modules]}), sep='\\n')"
    assert run(code, tmp_path)[:-1] == [str(ROOT / path) for path in modules.values()]


def test_the_wheel_holds_every_file_once(wheel: Path, unlinked: Path) -> None:
    build("pip", "wheel", "-q", "--no-deps", "-w", unlinked.parent, unlinked)
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
