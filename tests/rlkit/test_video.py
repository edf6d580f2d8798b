"""``rlkit video``: pictures of a policy's episodes, and a sentence where there can be none."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import rlkit
from rlkit.cli import main
from rlkit.cli.video import choose_gl
from rlkit.errors import UserError


def test_tours_are_drawn_the_same_each_time_and_nothing_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rlkit.make("bq", "tsp", width=16, layers=1, heads=2).save(tmp_path / "a.rlk")
    line = ["video", str(tmp_path / "a.rlk"), "--size", "64x48", "--out"]
    assert main([*line, str(tmp_path / "a.gif")]) == 0, capsys.readouterr().err
    assert main([*line, str(tmp_path / "b.gif")]) == 0
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (64, 48) and image.n_frames > 2
    assert main([*line, str(tmp_path / "a.gif")]) == 2 and "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--size 9x9", "--fps 0", "--episodes x", "--out a.txt"])
def test_bad_input_is_one_sentence(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["video", str(tmp_path), *words.split()]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_gl_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlkit.cli.video.PROBE", "raise SystemExit(1)")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(UserError, match="libegl1"):
        choose_gl()
