"""``rlkit report STUDY``: the bandit is UCB1 on resampled episodes, the page says what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rlkit.cli import main
from rlkit.cli.study import picked

ARMS = [np.array([10.0, 12.0, 14.0]), np.array([50.0, 52.0]), np.array([48.0, 20.0, 22.0])]


def a_study(out: Path, finals: list[dict[str, Any] | None], env: str = "hopper-medium") -> Path:
    study = {
        "overrides": ["agent=td3bc", f"env={env}"],
        "ranges": {"agent.alpha": "1..9"},
        "objective": "score",
        "trials": 3,
        "batch": 4,
        "seed": 0,
        "pruner": "median",
        "format": 1,
    }
    for number, final in enumerate(finals):
        folder = out / "trials" / f"{number:04d}"
        folder.mkdir(parents=True)
        agent = {"name": "td3bc", "alpha": 1.0 + number}
        config = {"agent": agent, "env": {"name": env}, "total_timesteps": 30, "seed": 0}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "metrics.jsonl").write_text('{"step": 10, "eval/score": 3.0}\n')
        if final is not None:
            evaluations = [{"step": 10, "returns": [1.0, 2.0]}]
            (folder / "result.json").write_text(json.dumps({"final": final, "evaluations": evaluations}))
    (out / "study.json").write_text(json.dumps(study))
    return out


def test_the_bandit_finds_the_best_policy_and_repeats_itself() -> None:
    values = picked(ARMS, 120, repetitions=40)
    assert values.shape == (40, 120)
    assert np.array_equal(values, picked(ARMS, 120, repetitions=40))
    assert not np.array_equal(values, picked(ARMS, 120, repetitions=40, seed=1))
    worth = [float(arm.mean()) for arm in ARMS]
    assert set(np.unique(values)) <= set(worth)
    assert set(np.unique(values[:, 0])) == set(worth)  # the first pull is of any
    assert values[:, -1].mean() > values[:, 0].mean() and (values[:, -1] == 51.0).mean() > 0.95


def test_of_one_policy_and_of_equal_ones_there_is_nothing_to_pick() -> None:
    assert (picked([np.array([3.0, 5.0])], 6, repetitions=3) == 4.0).all()
    assert (picked([np.array([2.0]), np.array([2.0])], 6, repetitions=3) == 2.0).all()


def test_the_page_has_the_curve_and_every_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = a_study(tmp_path / "s", [{"returns": list(ARMS[0])}, {"returns": list(ARMS[1])}, None])
    assert main(["report", str(study), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "| s | td3bc | 2 | 51.000 | 51.000 after 40 episodes | 9 |" in text  # 3 and 2 at the end, 2 and 2 before
    assert "not finished: 10 of 30 updates" in text and "| 0001 | 2 |" in text
    assert "<svg" in (tmp_path / "page.html").read_text()
    before = (tmp_path / "page.html").read_bytes()
    assert main(["report", str(study), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_bytes() == before


@pytest.mark.parametrize("finals", [[None], [{"score": 3.0}], [{"returns": ["x"]}]])
def test_a_study_without_episodes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], finals: Any) -> None:
    study = a_study(tmp_path / "s", finals)
    assert main(["report", str(study), "--out", str(tmp_path / "page.html")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "no trial that ended with episodes" in said[0]
    assert not (tmp_path / "page.html").exists()


def test_studies_of_one_environment_share_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    studies = [a_study(tmp_path / name, [{"returns": list(arm)}]) for name, arm in zip("ab", ARMS, strict=False)]
    assert main(["report", *map(str, studies), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "| episodes spent | a | b |" in text and "| 1 | 12 | 51 |" in text
    assert "## Trials of a" in text and "## Trials of b" in text
    other = a_study(tmp_path / "c", [{"returns": [1.0]}], env="walker2d-medium")
    assert main(["report", str(studies[0]), str(other), "--out", str(tmp_path / "other.html")]) == 2
    assert "expected studies of one environment" in capsys.readouterr().err
    assert not (tmp_path / "other.html").exists()


def test_a_study_among_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = a_study(tmp_path / "s", [{"returns": [1.0]}])
    assert main(["report", str(study), str(study / "trials" / "0000"), "--out", str(tmp_path / "page.html")]) == 2
    assert "expected studies alone" in capsys.readouterr().err
