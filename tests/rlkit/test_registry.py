"""Names lead to agents and records; somebody else's package adds its own without touching rlkit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy

from rlkit import registry
from rlkit.agents import BC
from rlkit.errors import UserError, nearest

PLUGIN = '''
"""Mine: behavioural cloning under another name."""
from rlkit.agents.bc import BC
from rlkit.registry import EnvRecord, register

@register("mine")
class Mine(BC):
    pass

RECORDS = {"my-env": EnvRecord("my-env", "mine", "Pendulum-v1", "mine", "mine")}
'''
ENTRY = "[rlkit.agents]\nmine = plugin:Mine\n[rlkit.envs]\nmine = plugin:RECORDS\n"


def test_a_third_partys_package_is_found_by_its_entry_points(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY)
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r}); from rlkit.cli import main; main(['list', 'agents']); "
        "main(['list', 'envs']); main(['train', 'agent=mine', 'env=hopper-medium', '--cfg']); "
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Mine: behavioural cloning under another name." in done.stdout
    assert "my-env" in done.stdout and "name: mine" in done.stdout


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"agent name .bc. is taken by rlkit\.agents\.bc\.BC"):
        registry.register("bc")(type("Other", (BC,), {}))


@pytest.mark.parametrize(
    ("word", "options", "expected"),
    [
        ("hoper", ["hopper", "walker"], "; did you mean 'hopper'?"),
        ("zzz", ["a", "b"], " (known: a, b)"),
        ("zzz", [], ""),
        ("zzz", [str(i) for i in range(40)], ""),
    ],
)
def test_nearest(word: str, options: list[str], expected: str) -> None:
    assert nearest(word, options) == expected


def test_records_carry_d4rls_reference_scores() -> None:
    found: Any = registry.record("hopper-medium")
    assert found.data.reference == (-20.272305, 3234.3)
    assert registry.record("halfcheetah-expert").data.reference == (-280.178953, 12135.0)
    assert registry.record("walker2d-random").data.reference == (1.629008, 4592.3)
    assert registry.record("ant-medium-replay").data.reference == (-325.6, 3879.7)
    names = {f"{t}-{level}" for t in ("hopper", "halfcheetah", "walker2d", "ant") for level in _levels()}
    assert names <= set(registry.records())
    assert registry.record("point-noisy") is toy.RECORD


def _levels() -> list[str]:
    return ["random", "medium", "medium-replay", "medium-expert", "expert"]
