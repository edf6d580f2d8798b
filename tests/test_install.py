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
    "import sys; {path}import rlkit, rlkit.agents, rlkit.envs, rlkit.envs.records.locomotion; "
    "from importlib import import_module; import_module('rlkit.agents.bc'); "
    "print(rlkit.__file__); print(rlkit.agents.__file__); print(len(rlkit.envs.records.locomotion.RECORDS))"
)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder, as pip lays it out."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    keep = ("pyproject.toml", "README.md", "LICENSE", "rlkit", "agents", "envs")
    source.mkdir()
    for name in keep:
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.nb?")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
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
    assert agents == str(ROOT / "agents" / "__init__.py")


def test_from_the_checkout(tmp_path: Path) -> None:
    home, agents, _ = run(probe(ROOT, None), tmp_path)[:3]
    assert home == str(ROOT / "rlkit" / "__init__.py")
    assert agents == str(ROOT / "agents" / "__init__.py")


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
