"""What a distribution is built from, laid out in another folder: building writes beside the sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINKS = (".layout/rlkit", "rlkit/agents", "rlkit/envs")


def checkout(folder: Path, links: bool = True) -> Path:
    """As git lays it out; without ``links``, as it does on a system that has none."""
    folder.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.nb?")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for name in (".layout", "rlkit", "agents", "envs"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore, symlinks=True)
    if not links:
        for name in LINKS:
            target = (folder / name).readlink()
            (folder / name).unlink()
            (folder / name).write_text(str(target), encoding="utf-8")
    return folder


def python(*arguments: str | Path, of: str | Path = sys.executable) -> str:
    """What ``python *arguments`` prints; fails the test with all of it where the command fails."""
    done = subprocess.run([of, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
