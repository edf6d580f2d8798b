"""After the README's installation a user's type checker knows every name of rlkit, and refuses any other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
from source_tree import checkout, python

AGENTS = sorted(entry.attr for entry in entry_points(group="rlkit.agents") if entry.module.startswith("rlkit.agents."))
KNOWN = "\n".join(
    [
        f"from rlkit.agents import {', '.join(AGENTS)}",
        "from rlkit.data import OfflineDataset, load_dataset",
        "from rlkit.envs.records import register_all",
        "from rlkit.agents.prdc import PRDC as THE_SAME",
        *(f"reveal_type({name})" for name in (*AGENTS, "THE_SAME", "OfflineDataset", "load_dataset", "register_all")),
    ]
)
UNKNOWN = "\n".join(
    [
        "from rlkit.agents import PRCD",
        "import rlkit.agents; rlkit.agents.PRCD",
        "from rlkit.data import load_datset",
        "from rlkit.envs.records import registr_all",
        "from rlkit.agents.prdc import PRCD as ANOTHER",
        "from rlkit.agnets import PRDC",
    ]
)
OURS = "[mypy]\nfollow_imports = skip\n[mypy-rlkit.*]\nfollow_imports = silent\n"  # other libraries take 20 seconds


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two programs and a fresh environment, installed as the README says into a checkout's copy.

    The dependencies come from where this Python has them, by a path that runs no import hooks.
    """
    folder = tmp_path_factory.mktemp("user")
    python("-m", "venv", folder / ".venv")
    own = folder / ".venv" / "bin" / "python"
    site = Path(python("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", of=own).strip())
    python("-m", "pip", "install", "-q", "--no-deps", "-e", checkout(folder / "rlkit"), of=own)
    found = [find_spec(name) for name in ("torch", "gymnasium", "stable_baselines3", "numpy")]
    homes = {str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin}
    (site / "dependencies.pth").write_text("\n".join(sorted(homes)), encoding="utf-8")
    (folder / "known.py").write_text(KNOWN, encoding="utf-8")
    (folder / "unknown.py").write_text(UNKNOWN, encoding="utf-8")
    return folder


def judge(user: Path, *command: str | Path) -> str:
    done = subprocess.run([*command, "known.py", "unknown.py"], cwd=user, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr  # errors were found, and nothing else went wrong
    return done.stdout


def expect(errors: set[tuple[str, int]], types: list[str]) -> None:
    assert errors == {("unknown.py", line + 1) for line in range(UNKNOWN.count("\n") + 1)}
    assert len(types) == KNOWN.count("reveal_type(")
    for name, text in zip((*AGENTS, "PRDC", "OfflineDataset"), types, strict=False):
        assert re.search(rf"\b{name}\b", text), (name, text)
    assert not any(text in ("Any", "Unknown") for text in types)


@pytest.mark.parametrize(
    "settings", [pytest.param(OURS, id="quick"), pytest.param("[mypy]\n", id="as-it-comes", marks=pytest.mark.slow)]
)
def test_mypy(user: Path, settings: str) -> None:
    (user / "mypy.ini").write_text(settings, encoding="utf-8")
    mypy = (sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--cache-dir=cache")
    printed = judge(user, *mypy, "--python-executable", user / ".venv" / "bin" / "python")
    errors = {(name, int(line)) for name, line in re.findall(r"^(\S+\.py):(\d+): error", printed, re.MULTILINE)}
    expect(errors, re.findall(r'Revealed type is "(.*)"$', printed, re.MULTILINE))


def test_pyright(user: Path) -> None:
    beside = str(Path(sys.executable).parent)
    found = [shutil.which(name, path=path) for name in ("pyright", "basedpyright") for path in (beside, None)]
    pyright = next(filter(None, found), None)
    if pyright is None:
        pytest.skip("needs pyright or basedpyright, which the extra test installs")
    printed = judge(user, pyright, "--outputjson", "--pythonpath", user / ".venv" / "bin" / "python")
    said = json.loads(printed)["generalDiagnostics"]
    lines = [(Path(line["file"]).name, line["range"]["start"]["line"] + 1, line) for line in said]
    errors = {(name, number) for name, number, line in lines if line["severity"] == "error"}
    expect(errors, re.findall(r'Type of "\w+" is "(.*)"', "\n".join(line["message"] for _, _, line in lines)))
