"""``rlkit compare``: the order by verdict and by acting, intervals that overlap, what differs, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlkit.cli import main


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def verdict(value: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    judged = {"value": value, "value_interval95": [low, high], "outside": 0.04, "discount": 0.99, "updates": 20_000}
    return {"verdict": {**judged, **more}}


def final(score: float, low: float, high: float) -> dict[str, Any]:
    return {"measure": "score", "final": {"score": score, "score_interval95": [low, high], "episodes": 100}}


def a_run(name: str, result: dict[str, Any] | None, sha: str = "a" * 64, seed: int = 0, **agent: Any) -> str:
    """A run's folder; without ``result`` it is not finished."""
    config = {
        "agent": {"name": "td3bc", "alpha": 2.5, **agent},
        "env": {"name": "hopper-medium", "kwargs": {}},
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
    assert "60 % of its actions outside the data, so this is a guess" in lines[by_verdict + 2]
    assert "guess" not in lines[by_verdict + 1]
    assert any(x.startswith("The two orders differ") for x in lines)
    assert lines[-4:] == [
        "what differs:",
        *(f"  {n}: agent.alpha={a}" for n, a in (("low", 1.0), ("high", 3.0), ("near", 4.0))),
    ]


def test_intervals_apart_are_not_called_overlapping(capsys: Any) -> None:
    a_run("low", verdict(10, 9, 11), seed=1)
    a_run("high", verdict(30, 29, 31))
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
    assert "online on hopper-medium" in refusal(capsys, "one", "online")
    shown = said(capsys, "one", "far")
    assert "not ranked by verdict: one was judged with discount=0.99, far with 0.999" in shown
    assert "  1. " not in shown


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
