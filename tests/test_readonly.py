"""An installation that cannot be written, no home to write in, and a terminal that knows ASCII alone."""

from __future__ import annotations

import ast
import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlkit.system import caches

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "import sys; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
TRAIN = ["train", "agent=drrpo", "env=linear-mdp", "total_timesteps=4", "final_episodes=2", "eval_every=2", "out=r"]
TRAIN += ["eval_episodes=2"]


def _like_anybody() -> None:
    """Root may write everywhere; without these two capabilities it is asked as others are."""
    if os.geteuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    for name in ("rlkit", "agents", "envs"):
        ignore = shutil.ignore_patterns("__pycache__", "pretrained", "*.safetensors")
        shutil.copytree(ROOT / name, site / name, ignore=ignore, symlinks=True)
    for folder, _, _ in [*os.walk(site)]:
        Path(folder).chmod(0o555)
    return site


def run(installed: Path, cwd: Path, home: Path, *argv: str, code: str = COMMAND) -> str:
    (cwd / "tmp").mkdir(exist_ok=True)
    unset = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "MINARI_DATASETS_PATH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment |= {**ASCII, "PYTHONPATH": str(installed), "TMPDIR": str(cwd / "tmp"), "OMP_NUM_THREADS": "1"}
    environment["HOME"] = str(home)
    command = [sys.executable, "-c", code, *argv]
    streams: dict[str, Any] = {"capture_output": True, "text": True}
    done = subprocess.run(command, cwd=cwd, env=environment, preexec_fn=_like_anybody, **streams)
    assert done.returncode == 0 and done.stderr == "", (argv, done.stdout, done.stderr)
    return done.stdout


def test_everything_runs_where_nothing_but_the_working_folder_can_be_written(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o555)
    for argv in (TRAIN, ["eval", "r", "env=linear-mdp", "episodes=2"], ["list", "agents"]):
        printed = run(installed, tmp_path, tmp_path / "home" / "gone", *argv)
        assert argv[0] != "eval" or r"\xb1" in printed
    own = tmp_path / "tmp" / f"rlkit-{os.getuid()}"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700 and list((own / "numba").rglob("*.nbi"))
    assert not list(installed.rglob("__pycache__"))


@pytest.mark.parametrize("home", ["read-only", "writable"])
def test_a_home_is_used_where_it_can_be(home: str, installed: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o555 if home == "read-only" else 0o755)
    code = "import os, rlkit; print([os.environ.get(k) for k in ('NUMBA_CACHE_DIR', 'MPLCONFIGDIR')])"
    own = tmp_path / "tmp" / f"rlkit-{os.getuid()}"
    expected = [f"{own}/numba", f"{own}/matplotlib"] if home == "read-only" else [None, None]
    assert run(installed, tmp_path, tmp_path / "home", code=code) == f"{expected}\n"


def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    monkeypatch.setenv("MPLCONFIGDIR", "mine too")
    monkeypatch.setattr(os, "access", lambda *_: False)
    caches.prepare_caches(tmp_path)
    assert os.environ["NUMBA_CACHE_DIR"] == "mine" and os.environ["MPLCONFIGDIR"] == "mine too"


def test_a_temporary_folder_of_somebody_else_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = tmp_path / f"rlkit-{os.getuid()}"
    assert caches._temporary() == str(own) == caches._temporary()
    own.chmod(0o777)  # others could have put code there
    assert caches._temporary() != str(own)
    own.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    own.symlink_to(tmp_path / "elsewhere")
    assert caches._temporary() != str(own)


def test_text_files_name_their_encoding() -> None:
    """Without one, what is read and written depends on the locale."""
    found = []
    for folder in ("rlkit", "agents", "envs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _reads_text(node):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def _reads_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name in ("read_text", "write_text"):
        return True
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    of_a_path = isinstance(call.func, ast.Attribute) and not call.args and not call.keywords
    return name in ("open", "fdopen") and (of_a_path or any(set(m) <= set("rwax+t") for m in modes))
