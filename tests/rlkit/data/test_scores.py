"""Scores of recorded episodes, flags that are none, shapes of another robot, and what data check and import take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
import toy

from rlkit import registry
from rlkit.agents import BC
from rlkit.cli import main
from rlkit.data import check_dataset, load_dataset
from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.data.hdf5 import write_d4rl
from rlkit.data.minari_store import to_minari
from rlkit.data.scores import episode_scores
from rlkit.errors import DataError


def write_file(path: Path, length: int = 20, width: int = 29, actions: int = 8, **changes: Any) -> Path:
    """Nine trajectories of D4RL's antmaze; three reach the goal and stay, each row there flagged as terminal."""
    random = np.random.default_rng(0)
    n = 9 * length
    rewards = np.zeros((9, length), np.float32)
    rewards[1, 5:] = rewards[4, 12:15] = rewards[8, -1:] = 1  # it stays, leaves again, arrives at the very end
    timeouts = np.zeros((9, length), bool)
    timeouts[:, -1] = True
    columns: dict[str, Any] = {
        "observations": random.standard_normal((n, width)).astype(np.float32),
        "actions": random.uniform(-1, 1, (n, actions)).astype(np.float32),
        "rewards": rewards.ravel(),
        "terminals": rewards.ravel() > 0,
        "timeouts": timeouts.ravel(),
    }
    with h5py.File(path, "w") as file:
        for name, column in {**columns, **changes}.items():
            file[name] = column
    return path


def named(name: str, rewards: list[list[float]], terminal: bool = False) -> OfflineDataset:
    """Episodes with these rewards as data of the record ``name``."""
    n = sum(map(len, rewards))
    ended = np.zeros(n, np.bool_)
    ended[np.cumsum([len(r) for r in rewards]) - 1] = True
    rows = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    box = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    spec = registry.record(name).data
    assert spec is not None
    return OfflineDataset(
        rows,
        np.zeros((n, 1), np.float32),
        np.concatenate([np.array(r, np.float32) for r in rewards]),
        rows,
        ended & terminal,
        ended & (not terminal),
        box,
        gym.spaces.Box(-1, 1, (1,), np.float32),
        Provenance("memory", "rows", name),
        reference=spec.reference,
    )


def test_three_of_nine_trajectories_is_a_third(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_file(tmp_path / "antmaze-umaze-v2.hdf5")
    data = load_dataset("antmaze-umaze", path=path)
    scores = episode_scores(data)
    assert scores is not None and sorted(scores.tolist()) == [0.0] * 6 + [100.0] * 3
    agent = BC("MlpPolicy", data, device="cpu", hidden_sizes=(8,))
    assert agent.result()["dataset"]["score_mean"] == pytest.approx(100 / 3)
    assert main(["data", "info", str(path)]) == 0
    assert "33.3 (mean)" in capsys.readouterr().out
    kept = to_minari(data, "test/antmaze/copy-v0")  # and what is read back from a copy
    copied = load_dataset(kept)
    assert np.mean(episode_scores(copied)) == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("name", "rewards", "terminal", "expected"),
    [
        ("antmaze-large-play", [[0, 0, 1, 1, 1], [0, 0, 0], [0, 1]], False, [100, 0, 100]),
        ("antmaze-umaze", [[0, 1], [1], [1], [0, 0], [0, 1], [1]], True, [100, 0, 100]),  # episodes of one row
        ("pointmaze-medium", [[0, 1, 1], [0, 0]], False, [100, 0]),
        ("kitchen-mixed", [[0, 1, 2, 2, 3, 3], [0, 0], [4, 4, 4]], False, [75, 0, 100]),
        ("rlkit-pointmaze-umaze", [[0, 1], [0, 0, 0]], False, [100, -100 * 0.2425 / (1 - 0.2425)]),
        ("maze2d-umaze", [[0, 1, 1], [0, 0]], False, None),  # a continuing task: a row's reward is earned anew
        ("pen-human", [[1, 1, 1], [0, 2]], False, None),
        ("hopper-medium", [[1, 1, 1], [0, 2]], False, None),
    ],
)
def test_what_an_episode_is_worth(name: str, rewards: Any, terminal: bool, expected: Any) -> None:
    data = named(name, rewards, terminal)
    if expected is None:
        sums = data.normalised_score(np.array([float(sum(r)) for r in rewards]))
        assert sums is not None
        expected = sums
    np.testing.assert_allclose(episode_scores(data), expected)


def test_without_reference_returns_there_is_no_score() -> None:
    assert episode_scores(named("antmaze-umaze", [[0, 1]]).with_(reference=None)) is None
    assert episode_scores(toy.generate(size=60)) is not None


# ---- flags, shapes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["terminals", "timeouts"])
@pytest.mark.parametrize("value", [np.nan, 0.5, 2.0, -1.0, np.inf])
def test_flags_that_are_none_are_findings_and_errors(name: str, value: float, tmp_path: Path) -> None:
    flags = np.zeros(180, np.float32)
    flags[[19, 179]], flags[7] = 1, value
    path = write_file(tmp_path / "antmaze-umaze-v2.hdf5", **{name: flags})
    for read in (lambda: load_dataset(path), lambda: load_dataset("antmaze-umaze", path=path)):
        with pytest.raises(DataError, match=f"'{name}' holds {value} at row 7, expected flags, each 0 or 1") as caught:
            read()
        assert "\n" not in str(caught.value)
    (finding,) = check_dataset(path)
    assert (finding.code, finding.severity) == ("not-flags", "error") and "row 7" in finding.sentence


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, np.bool_])
def test_flags_of_any_dtype_are_read(dtype: Any, tmp_path: Path) -> None:
    flags = np.zeros((180, 1), dtype)
    flags[19::20] = 1
    data = load_dataset(write_file(tmp_path / "antmaze-umaze-v2.hdf5", timeouts=flags))
    assert data.truncations.sum() >= 8


def test_flags_of_a_minari_dataset(tmp_path: Path) -> None:
    stored = to_minari(toy.generate(size=60), "test/point/flags-v0")
    with h5py.File(Path(stored.storage.data_path) / "main_data.hdf5", "r+") as file:
        flags = file["episode_0/terminations"][()].astype(np.float32)
        flags[0] = 0.5
        del file["episode_0/terminations"]
        file["episode_0/terminations"] = flags
    with pytest.raises(DataError, match=r"'terminations' holds 0.5 at row 0, expected flags"):
        load_dataset("test/point/flags-v0")
    assert [finding.code for finding in check_dataset("test/point/flags-v0")] == ["not-flags"]


@pytest.mark.parametrize(("width", "actions"), [(31, 8), (29, 7), (11, 3)])
def test_a_file_of_another_shape_is_refused_before_training(
    width: int, actions: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_file(tmp_path / "mine.hdf5", width=width, actions=actions)
    words = ["agent=bc", "env=antmaze-umaze", f"env.path={path}", "total_timesteps=4", "out=r"]
    assert main(["train", *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and f"[{width}, {actions}]" in said[0] and "'antmaze-umaze' expects [29, 8]" in said[0]
    assert not (tmp_path / "r").exists()
    assert [f.code for f in check_dataset("antmaze-umaze", path=path)] == ["wrong-shapes"]


def test_not_evaluated_and_why_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_file(tmp_path / "mine.hdf5")
    words = ["agent=bc", "env=antmaze-umaze", f"env.path={path}", "total_timesteps=4", "out=r"]
    assert main(["train", *words, "agent.hidden_sizes=[8]", "verdict=false"]) == 0
    assert "not evaluated: none, no environment here is the one" in capsys.readouterr().out
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["dataset"]["score_mean"] == pytest.approx(100 / 3)


# ---- what check and import take --------------------------------------------------------------------------------------


def test_check_and_import_take_what_train_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = toy.generate(size=60)
    toy_file = write_d4rl(data, tmp_path / "point.hdf5")
    to_minari(data, "test/point/taken-v0")
    antmaze = write_file(tmp_path / "mine.hdf5")
    for number, (words, rows) in enumerate(
        [
            ([str(toy_file)], 60),
            (["point-noisy"], 600),
            (["test/point/taken-v0"], 60),
            (["antmaze-umaze", "--path", str(antmaze)], 173),
        ]
    ):
        assert main(["data", "check", *words]) in (0, 1)
        assert "unreadable" not in capsys.readouterr().out
        name = f"test/imported/n{number}-v0"
        taken = words if len(words) == 1 else [str(antmaze), "--record", "antmaze-umaze"]
        assert main(["data", "import", *taken, "--id", name]) == 0
        assert f"{rows} transitions" in capsys.readouterr().out
        assert len(load_dataset(name)) == rows
