"""Arguments of wrong types are refused by the library itself: tried in a process without the suite's type checks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOYS = Path(__file__).parents[1] / "toys"


def test_every_argument_in_every_form(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--noconftest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    found = subprocess.run(
        [*command, str(TOYS / "argument_forms.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TOYS), "OMP_NUM_THREADS": "1", "RLKIT_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-5000:]
    assert " passed" in found.stdout
