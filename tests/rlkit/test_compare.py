"""``rlkit compare``: the order by verdict and by acting, intervals that overlap, what differs, what is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy  # noqa: F401  the environment of real runs
import yaml

from rlkit.algorithms.verdict import judge
from rlkit.cli import main
from rlkit.cli.compare import over_seeds


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def verdict(value: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    judged = {"value": value, "value_interval95": [low, high], "outside": 0.04, "discount": 0.99, "updates": 20_000}
    return {"verdict": {**judged, **more}}


def final(score: float, low: float, high: float) -> dict[str, Any]:
    return {"measure": "score", "final": {"score": score, "score_interval95": [low, high], "episodes": 100}}


def a_run(
    name: str, result: dict[str, Any] | None, sha: str = "a" * 64, seed: int = 0, env: Any = None, **agent: Any
) -> str:
    """A run's folder; without ``result`` it is not finished."""
    config = {
        "agent": {"name": "td3bc", "alpha": 2.5, **agent},
        "env": env or {"name": "hopper-medium", "kwargs": {}},
        "total_timesteps": 30,
        "seed": seed,
        "out": name,
    }
    Path(name).mkdir()
    Path(name, "config.yaml").write_text(yaml.safe_dump(config))
    Path(name, "metrics.jsonl").write_text('{"step": 20, "eval/score": 3.0}\n')
    if result is not None:
        Path(name, "result.json").write_text(json.dumps({"dataset": {"sha256": sha} if sha else None, **result}))
    return name


def said(capsys: Any, *runs: str) -> str:
    assert main(["compare", *runs]) == 0
    return str(capsys.readouterr().out)


def refusal(capsys: Any, *runs: str) -> str:
    assert main(["compare", *runs]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and not capsys.readouterr().out
    return str(lines[0])


def test_both_orders_and_what_the_intervals_show(capsys: Any) -> None:
    a_run("low", verdict(10, 9, 11) | final(50, 45, 55), alpha=1.0)
    a_run("high", verdict(30, 29, 31) | final(40, 35, 46), alpha=3.0)
    a_run("near", verdict(29, 28, 30, outside=0.6) | final(10, 5, 15), alpha=4.0)
    lines = said(capsys, "low", "high", "near").splitlines()
    assert lines[0] == "3 runs on hopper-medium, data aaaaaaaa"
    by_verdict, by_acting = (
        lines.index(next(x for x in lines if x.startswith(how))) for how in ("by verdict", "by acting")
    )
    assert [x.split(":")[0] for x in lines[by_verdict + 1 : by_verdict + 4]] == ["  1. high", "  2. near", "  3. low"]
    assert "1 and 2: which is better is not shown" in lines[by_verdict + 4] and "2 and 3" not in lines[by_verdict + 4]
    assert [x.split(":")[0] for x in lines[by_acting + 1 : by_acting + 4]] == ["  1. low", "  2. high", "  3. near"]
    assert "1 and 2" in lines[by_acting + 4] and "2 and 3" not in lines[by_acting + 4]
    assert (
        "60 % of its actions outside the data, so this is a guess: more than 20 % of the actions"
        in lines[by_verdict + 2]
    )
    assert "guess" not in lines[by_verdict + 1]
    assert any(x.startswith("The two orders differ") for x in lines)
    assert lines[-4:] == [
        "what differs:",
        *(f"  {n}: agent.alpha={a}" for n, a in (("low", 1.0), ("high", 3.0), ("near", 4.0))),
    ]


def test_intervals_apart_are_not_called_overlapping(capsys: Any) -> None:
    a_run("low", verdict(10, 9, 11), seed=1)
    a_run("high", verdict(30, 29, 31), alpha=1.0)
    shown = said(capsys, "low", "high")
    assert "not shown" not in shown and "differ:" not in shown.split("what differs:")[0]
    assert "seed=1" in shown and "by acting" not in shown


def test_runs_that_are_not_finished_or_not_judged_are_said(capsys: Any) -> None:
    a_run("done", verdict(10, 9, 11))
    a_run("going", None)
    a_run("bare", {})
    a_run("acted", final(3, 2, 4))
    shown = said(capsys, "done", "going", "bare", "acted")
    assert "not ranked: going, not finished: 20 of 30 updates" in shown
    assert "not ranked: bare, neither judged nor evaluated" in shown and "acted has no verdict" in shown


def test_other_data_and_verdicts_of_another_kind_are_not_ranked(capsys: Any) -> None:
    a_run("one", verdict(10, 9, 11))
    a_run("other", verdict(10, 9, 11), sha="b" * 64)
    a_run("online", final(1, 0, 2), sha="")
    a_run("far", verdict(100, 99, 101, discount=0.999))
    assert "one is on data aaaaaaaa, other on data bbbbbbbb, expected runs on the same data" in refusal(
        capsys, "one", "other"
    )
    assert "online on hopper-medium without data" in refusal(capsys, "one", "online")
    shown = said(capsys, "one", "far")
    assert "not ranked by verdict: one was judged with discount=0.99, far with 0.999" in shown
    assert "  1. " not in shown


def test_the_same_data_in_another_environment_is_refused(capsys: Any) -> None:
    a_run("one", verdict(10, 9, 11))
    for name, env, world in (
        ("walker", {"name": "walker2d-medium", "kwargs": {}}, "Walker2d-v5"),
        ("gym", {"name": "Walker", "id": "Walker2d-v4"}, "Walker2d-v4"),
        ("heavy", {"name": "hopper-medium", "kwargs": {"gravity": 20}}, "Hopper-v5 env.kwargs.gravity=20"),
    ):
        a_run(name, verdict(10, 9, 11), env=env)
        assert f"one acts in Hopper-v5, {name} in {world}, expected runs in the same" in refusal(capsys, "one", name)
    a_run("online", final(1, 0, 2), env={"name": "hopper", "kwargs": {}}, alpha=1.0)  # goes on by acting, data mixed in
    a_run("file", verdict(10, 9, 11), env={"name": "log.csv", "path": "log.csv", "kwargs": {}}, alpha=2.0)
    assert "3 runs on hopper-medium" in said(capsys, "one", "online", "file")


def test_overlaps_are_of_all_pairs(capsys: Any) -> None:
    a_run("wide", verdict(30, 5, 55), alpha=1.0)
    a_run("middle", verdict(20, 19, 21), alpha=2.0)
    a_run("low", verdict(10, 9, 11), alpha=3.0)
    a_run("lowest", verdict(1, 0, 2), alpha=4.0)
    shown = said(capsys, "wide", "middle", "low", "lowest")
    assert "overlap, or are missing, of 1 and 2, 3: which" in shown
    a_run("lower", verdict(9, 8, 10), alpha=5.0)
    assert "of 1 and 2 to 4; 3 and 4: which" in said(capsys, "wide", "middle", "low", "lower", "lowest")


def test_seeds_of_a_configuration_are_one_row(capsys: Any) -> None:
    for seed, value in enumerate((10, 20, 30)):
        a_run(f"a{seed}", verdict(value, value - 1, value + 1) | final(value, value - 1, value + 1), seed=seed)
    a_run("b", verdict(25, 24, 26) | final(60, 59, 61), alpha=1.0)
    a_run("a3", None, seed=3)
    shown = said(capsys, "b", "a0", "a1", "a2", "a3")
    assert "(95 % over first states and seeds, not over the estimator)" in shown
    assert "(95 % over episodes and seeds):" in shown
    (row,) = [
        line for line in shown.splitlines() if line.startswith("  2. a0 and 2 other seeds: 20 (") and "4 %" in line
    ]
    low, high = (float(end) for end in row.split("(")[1].split(", seed")[0].split(" to "))
    assert 9 < low < 14 and 26 < high < 31 and "seed 0 10, seed 1 20, seed 2 30)" in row
    assert "1 and 2: which is better is not shown" in shown.split("by acting")[0]
    assert "not shown" not in shown.split("by acting")[1] and "300 episodes" in shown
    assert "not ranked: a3, not finished" in shown
    assert "what differs:\n  b: agent.alpha=1.0\n  a0 and 3 other seeds: agent.alpha=2.5\n" in shown
    a_run("again", verdict(11, 10, 12), seed=0)  # the same seed twice is no second seed
    assert "again: 11 (10 to 12)" in said(capsys, "a0", "a1", "again")
    assert "The runs differ in seed alone." in said(capsys, "a0", "a1")


def test_the_interval_over_seeds() -> None:
    assert over_seeds([3.0], [(1.0, 5.0)]) == (1.0, 5.0) and over_seeds([3.0], [None]) is None
    rng = np.random.default_rng(1)
    for between, within in ((2.0, 0.0), (0.0, 2.0), (1.5, 1.5)):
        values = rng.normal(0, between, 400) if between else np.zeros(400)
        found = over_seeds(values.tolist(), [(float(v) - 1.96 * within, float(v) + 1.96 * within) for v in values])
        assert found is not None
        wanted = 1.96 * np.hypot(values.std(), within) / 20  # of a mean of 400
        assert (found[1] - found[0]) / 2 == pytest.approx(wanted, rel=0.1)


def test_less_of_a_gap_is_better(capsys: Any) -> None:
    a_run("wide", {"final": {"gap": 8.5, "return": -7.0, "episodes": 100}}, alpha=1.0)
    a_run("narrow", {"final": {"gap": 0.4, "return": -7.9, "episodes": 100}}, alpha=2.0)
    shown = said(capsys, "wide", "narrow")
    assert "the gap in percent, less being better, of the final evaluation" in shown
    assert "  1. narrow: 0.4 " in shown and "  2. wide: 8.5 " in shown
    a_run("bare", {"final": {"return": -1.0, "episodes": 100}}, alpha=3.0)  # where there was no solver
    assert "  1. bare: -1 " in said(capsys, "wide", "narrow", "bare")


def test_estimates_beyond_what_was_recorded_are_guesses(capsys: Any) -> None:
    a_run("mad", verdict(16256, 16000, 16500, outside=0.194, recorded_range=[-3.0, 3600.0]), alpha=1.0)
    a_run("sane", verdict(900, 800, 1000, outside=0.194, recorded_range=[-3.0, 3600.0]), alpha=2.0)
    mad, sane = (line for line in said(capsys, "mad", "sane").splitlines() if "outside" in line and "%" in line[:60])
    assert "19 % of its actions outside the data, so this is a guess: what followed recorded states" in mad
    assert "was worth -3 to 3600, and nothing beyond" in mad and "guess" not in sane


def test_real_runs(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlkit.run.session.judge", partial(judge, updates=30, hidden_sizes=(8,)))
    train = [
        "env=point-noisy",
        "env.size=600",
        "total_timesteps=20",
        "log_every=10",
        "eval_every=0",
        "final_episodes=2",
    ]
    train += [
        "agent.batch_size=16",
        "agent.hidden_sizes=[8]",
        "progress_bar=false",
        "tensorboard=false",
        "verdict=true",
    ]
    for agent, seed in (("td3bc", 0), ("td3bc", 1), ("bc", 0)):
        assert main(["train", f"agent={agent}", f"seed={seed}", *train, f"out={agent}{seed}"]) == 0
    Path("bc0/result.json").rename("kept.json")
    capsys.readouterr()
    shown = said(capsys, "td3bc0", "td3bc1", "bc0")
    assert "not ranked: bc0, not finished: 20 of 20 updates" in shown and "td3bc0 and 1 other seed: " in shown
    Path("kept.json").rename("bc0/result.json")
    shown = said(capsys, "td3bc0", "td3bc1", "bc0")
    results = {name: json.loads(Path(name, "result.json").read_text()) for name in ("td3bc0", "td3bc1", "bc0")}
    values = [results[name]["verdict"]["value"] for name in ("td3bc0", "td3bc1")]
    assert f"td3bc0 and 1 other seed: {np.mean(values):.4g} (" in shown and shown.startswith(
        "3 runs on point-noisy, data "
    )
    assert f"bc0: {results['bc0']['verdict']['value']:.4g} (" in shown
    assert f"bc0: {results['bc0']['final']['score']:.4g} (" in shown and "2 episodes" in shown
    config = yaml.safe_load(Path("td3bc1/config.yaml").read_text())
    assert config.pop("init") is None and config.pop("finetune")  # as before there was any
    Path("td3bc1/config.yaml").write_text(yaml.safe_dump(config))
    assert "td3bc0 and 1 other seed: " in said(capsys, "td3bc0", "td3bc1", "bc0")
    assert main(["train", "agent=bc", *train, "env.data_seed=1", "out=other"]) == 0
    capsys.readouterr()
    assert "expected runs on the same data" in refusal(capsys, "bc0", "other")


@pytest.mark.parametrize("runs", [["one"], ["one", "one"], ["one", "nowhere"]])
def test_what_is_refused(runs: list[str], capsys: Any) -> None:
    a_run("one", verdict(10, 9, 11))
    assert "expected" in refusal(capsys, *runs)


@pytest.mark.parametrize(
    "result", ["[]", "{", '{"verdict": [1], "final": 3}', '{"verdict": {"value": "x"}}', '{"a": 1e999}']
)
def test_a_result_that_is_none_is_no_rank(result: str, capsys: Any) -> None:
    a_run("one", verdict(10, 9, 11))
    a_run("broken", None)
    Path("broken/result.json").write_text(result)
    if "{" in result[:1] and result != "{":
        Path("broken/result.json").write_text(json.dumps({"dataset": {"sha256": "a" * 64}} | json.loads(result)))
    shown = said(capsys, "one", "broken")
    assert "not ranked: broken" in shown and "1. one" in shown


def test_a_narrow_terminal_wraps_and_breaks_no_name(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    long = "a_run_with_a_name_of_some_length_and_more"
    a_run(long, verdict(10, 9, 11), alpha=1.0)
    a_run("b", verdict(12, 11, 13))
    shown = said(capsys, long, "b")
    assert all(len(line) <= 50 or long in line for line in shown.splitlines()) and long in shown
