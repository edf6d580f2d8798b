"""``rlkit plot``: one line per setting that differs, unfinished runs too, nothing left out in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml

from rlkit.cli import main, plot
from rlkit.stats import bootstrap_interval

CONFIG: dict[str, Any] = {
    "agent": {"name": "td3bc", "alpha": 2.5, "hidden_sizes": [256, 256]},
    "env": {"name": "hopper-medium", "path": None, "source": "generated", "size": None, "kwargs": {}},
    "total_timesteps": 30,
    "seed": 0,
    "out": "somewhere",
    "eval_every": 10,
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def a_run(
    name: str, values: list[float], *, sha: str | None = "a" * 64, key: str = "eval/score", **changes: Any
) -> str:
    """A run's folder with an evaluation every 10 steps; without ``sha`` it is not finished."""
    config = json.loads(json.dumps(CONFIG)) | {"out": name}
    for path, value in changes.items():
        *groups, last = path.split("__")
        part = config
        for group in groups:
            part = part[group]
        part[last] = value
    Path(name).mkdir()
    Path(name, "config.yaml").write_text(yaml.safe_dump(config))
    lines = [{"step": 10 * (i + 1), key: value} for i, value in enumerate(values)]
    Path(name, "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if sha is not None:
        Path(name, "result.json").write_text(json.dumps({"dataset": {"sha256": sha}}))
    return name


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The figures that were drawn, kept open until the test has ended."""
    figures: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(plt, "close", figures.append)
        yield figures
    for figure in figures:
        plt.close(figure)


def labels(figure: Any) -> list[list[str]]:
    return [sorted(axes.get_legend_handles_labels()[1]) for axes in figure.axes]


def test_seeds_are_a_mean_with_a_bootstrap_interval(drawn: list[Any]) -> None:
    values = [[1.0, 2.0, 4.0], [3.0, 2.0, 0.0], [5.0, 8.0, 6.0]]
    runs = [a_run(f"r{i}", row, seed=i) for i, row in enumerate(values)]
    assert main(["plot", *runs]) == 0
    assert labels(drawn[0]) == [["td3bc (n=3)"]]
    (axes,) = drawn[0].axes
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("hopper-medium", "updates", "eval/score")
    np.testing.assert_allclose(axes.lines[0].get_ydata(), np.mean(values, axis=0))
    band = axes.collections[0].get_paths()[0].vertices
    for i, step in enumerate((10, 20, 30)):
        low, high = bootstrap_interval(np.array(values)[:, i])
        at = band[band[:, 0] == step, 1]
        np.testing.assert_allclose([at.min(), at.max()], [low, high])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"agent__alpha": 5.0}, ["td3bc alpha=2.5 (n=1)", "td3bc alpha=5.0 (n=1)"]),
        ({"agent__name": "bc"}, ["bc (n=1)", "td3bc (n=1)"]),
        ({"agent__hidden_sizes": [64]}, ["td3bc hidden_sizes=[256, 256] (n=1)", "td3bc hidden_sizes=[64] (n=1)"]),
        ({"env__path": "mine.hdf5"}, ["td3bc env.path=None (n=1)", "td3bc env.path=mine.hdf5 (n=1)"]),
        ({"env__kwargs": {"level": 2}}, ["td3bc (n=1)", "td3bc env.kwargs.level=2 (n=1)"]),
        ({"total_timesteps": 60}, ["td3bc total_timesteps=30 (n=1)", "td3bc total_timesteps=60 (n=1)"]),
        ({"sha": "b" * 64}, ["td3bc data aaaaaaaa (n=1)", "td3bc data bbbbbbbb (n=1)"]),
        ({"seed": 1, "out": "x", "overwrite": True}, ["td3bc (n=2)"]),
    ],
)
def test_runs_are_grouped_by_every_setting_that_differs(
    changes: dict[str, Any], expected: list[str], drawn: list[Any]
) -> None:
    assert main(["plot", a_run("one", [1.0, 2.0]), a_run("two", [2.0, 3.0], **changes)]) == 0
    assert labels(drawn[0]) == [expected]


def test_environments_and_units_have_panels_of_their_own(drawn: list[Any]) -> None:
    other = a_run("b", [1.0], env__name="walker2d-medium")
    steps = a_run("c", [1.0], agent={"name": "beer"}, key="eval/return", sha=None)
    assert main(["plot", a_run("a", [1.0, 2.0]), other, steps]) == 0
    found = {(axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) for axes in drawn[0].axes}
    assert found == {
        ("hopper-medium", "updates", "eval/score"),
        ("hopper-medium", "steps", "eval/return"),
        ("walker2d-medium", "updates", "eval/score"),
    }


def test_unfinished_runs_are_drawn_and_said(drawn: list[Any], capsys: Any) -> None:
    runs = [a_run("whole", [1.0, 2.0, 3.0]), a_run("part", [3.0, 4.0], seed=1, sha=None)]
    with Path("part/metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "eval/sc')  # what is being written at this moment
    assert main(["plot", *runs]) == 0
    assert "part is not finished: 20 of 30 updates" in capsys.readouterr().out
    assert labels(drawn[0]) == [["td3bc (n=2)", "td3bc, where some have none"]]
    solid, dotted = drawn[0].axes[0].lines
    np.testing.assert_array_equal(solid.get_ydata(), [2.0, 3.0, np.nan])
    np.testing.assert_array_equal(dotted.get_ydata(), [2.0, 3.0, 3.0])


def test_what_is_left_out_is_said_and_why(drawn: list[Any], capsys: Any) -> None:
    Path("junk").mkdir()
    Path("torn").mkdir()
    Path("torn/config.yaml").write_text("agent: [")
    lacking = a_run("lacking", [1.0], key="train/loss", seed=3)
    unknown = a_run("unknown", [1.0], agent__name="td3bcc", seed=4)
    assert main(["plot", a_run("good", [1.0, 2.0]), "junk", "torn", lacking, unknown, "nowhere"]) == 0
    printed = capsys.readouterr().out
    for reason in (
        "left out: junk is not a run",
        "left out: torn/config.yaml is not the configuration of a run",
        "left out: lacking has no 'eval/score' in its metrics",
        "left out: unknown: unknown agent 'td3bcc'; did you mean 'td3bc'?",
        "left out: nowhere is not a run",
    ):
        assert reason in printed, printed
    assert labels(drawn[0]) == [["td3bc (n=1)"]]


@pytest.mark.parametrize(("values", "key"), [([], "eval/score"), ([None], "eval/score"), ([1.0], "eval/other")])
def test_there_is_no_empty_picture(values: list[Any], key: str, capsys: Any) -> None:
    assert main(["plot", a_run("r", values), "--key", key, "--out", "c.png"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"rlkit: r has no '{key}' in its metrics") and error.count("\n") == 1
    assert not Path("c.png").exists()
    assert main(["plot", "r", "elsewhere", "--key", "nothing", "--out", "c.png"]) == 2
    assert "nothing to draw: elsewhere is not a run" in capsys.readouterr().err


def test_scripts_draw_curves(drawn: list[Any]) -> None:
    plot.draw(
        {"td3bc on hopper-medium": [([10, 20], [1.0, 2.0]), ([10], [3.0])]},
        "score",
        Path("deep/c.png"),
        steps="environment steps",
    )
    assert Path("deep/c.png").stat().st_size > 1000
    assert drawn[0].axes[0].get_xlabel() == "environment steps"


def test_a_repeated_sweep_whose_runs_are_refused_is_no_success() -> None:
    small = ["agent.batch_size=8", "agent.hidden_sizes=[8]", "total_timesteps=10", "final_episodes=2", "eval_every=0"]
    arguments = [
        "train",
        "agent=bc",
        "env=hopper-random",
        "env.size=300",
        *small,
        "tensorboard=false",
        "-m",
        "seed=0,1",
    ]
    # in a process of its own: Hydra's logging keeps the streams of the one it sweeps in
    command = "import sys; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"
    sweep = [sys.executable, "-c", command, *arguments, "hydra/launcher=basic"]
    assert subprocess.run(sweep, capture_output=True).returncode == 0
    before = [path.read_bytes() for path in sorted(Path("runs").rglob("result.json"))]
    assert len(before) == 2
    told = subprocess.run(sweep, capture_output=True, text=True)
    assert told.returncode == 2 and "exists and is not empty" in told.stderr
    assert [path.read_bytes() for path in sorted(Path("runs").rglob("result.json"))] == before
