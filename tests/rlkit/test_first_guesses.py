"""What people type first at a command line, and what they get."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--help"], 0, "usage: rlkit VERB"),
        (["--version"], 0, "rlkit "),
        (["trian"], 2, "unknown verb 'trian'; did you mean 'train'?"),
    ],
)
def test_the_package_runs_as_a_module(words: list[str], code: int, text: str) -> None:
    done = subprocess.run([sys.executable, "-m", "rlkit", *words], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert text in (done.stderr if code else done.stdout)
    assert not (done.stdout if code else done.stderr)
