"""The page of claims is what its script makes, and every verdict on it follows from figures by the rule."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlkit import registry
from rlkit.algorithms.hyperparameters import make_config

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("make_claims")


@pytest.fixture
def verdicts(made: Any) -> Any:
    return made.verdicts


def test_the_page_and_the_readme_are_what_the_script_makes(made: Any) -> None:
    readme = (ROOT / "README.md").read_text()
    again = "after new runs: python scripts/make_claims.py"
    assert made.page(readme) == (DOCS / "claims.md").read_text(), again
    assert made.with_verdicts(readme) == readme, again


def test_every_agent_of_the_readme_links_to_its_verdict(made: Any) -> None:
    readme, page = (ROOT / "README.md").read_text(), (DOCS / "claims.md").read_text()
    agents = [row[1] for row in made.rows(readme)]
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["rlkit.agents"]
    assert sorted(agents) == sorted(made.CLAIMS["methods"]) == sorted(shipped)
    for agent, word in made.words().items():
        assert f"| [{made.SHORT[word]}](docs/claims.md#{agent}) |" in readme
        assert f"**Verdict: {word}.**" in " ".join(page.partition(f"## {agent}\n")[2].partition("\n## ")[0].split())
        assert word in made.WORDS
    bare = re.sub(r" verdict \|| \[[^|]*\]\(docs/claims[^|]*\|", "", readme)
    bare = bare.replace("|---|---|---|---|", "|---|---|---|")
    assert "claims.md" not in "".join(row[0] for row in made.rows(bare))
    assert made.with_verdicts(bare) == readme  # the column is made anew where it is missing


def claims_of(made: Any) -> list[dict[str, Any]]:
    claims = [claim for method in made.CLAIMS["methods"].values() for claim in method["claims"]]
    return claims + made.CLAIMS["errata"]


def settings(agent: str) -> tuple[str, dict[str, Any]]:
    """An agent and its settings, as run_offline_table.py reads them."""
    name, *own = agent.split(",")
    pairs = (setting.removeprefix("agent.").partition("=") for setting in own)
    return name, {key: yaml.safe_load(value) for key, _, value in pairs}


def test_claims_are_complete_and_name_what_exists(made: Any, verdicts: Any) -> None:
    labels = made.CLAIMS["labels"]
    for name, method in made.CLAIMS["methods"].items():
        assert (DOCS / method["page"]).is_file()
        for claim in method["claims"]:
            assert claim["source"] and claim["form"] in ("as published", "equal settings"), name
            assert claim["tests"], f"{name}: {claim['claimed']}: no test"
    for claim in claims_of(made):
        assert claim["claimed"] and claim["why"].endswith("."), claim["claimed"]
        assert "verdict" not in claim
        if "figure" in claim:
            assert (DOCS / "assets" / claim["figure"]).is_file(), claim["figure"]
        for test in claim["tests"]:
            if "sets" in test:
                assert test["left"] in labels
                assert test["right"] in {*labels, "data"} or isinstance(test["right"], int | float)
                for env in verdicts.sets_of(test):
                    registry.record(env)
        ruling = made.ruled(claim)
        if not ruling.run and claim["tests"]:  # says what it would take
            assert "takes" in claim or made.open_runs([claim]), claim["claimed"]
    for label, of in labels.items():
        agent, own = settings(of["agent"])
        assert of["seconds"] > 0, label
        make_config(registry.agent_class(agent), own)  # raises for a setting that there is not


def test_runs_of_a_label_are_those_of_its_settings(made: Any, verdicts: Any) -> None:
    for (_, label), runs in (*verdicts.groups("offline").items(), *verdicts.groups("online").items()):
        if label not in made.CLAIMS["labels"]:
            continue
        agent, own = settings(made.CLAIMS["labels"][label]["agent"])
        for run in runs:
            assert run["agent"] == agent, run["run"]
            assert {key: run["config"]["agent"][key] for key in own} == own, run["run"]


def test_runs_of_a_length_are_evaluated_as_often(made: Any, verdicts: Any) -> None:
    for runs in verdicts.groups("offline").values():
        for run in runs:  # the last ten evaluations are as much of a run in every row of a table
            assert run["config"]["eval_every"] == made.EVERY.get(run["updates"], 5_000), run["run"]
    short = 0
    for command in made.takes(claims_of(made)):
        assert ("--steps 50000 " in command) == (" eval_every=2500 " in command), command
        short += "--steps 50000 " in command
    assert short


def runs(verdicts: Any, monkeypatch: pytest.MonkeyPatch, **scores: list[float]) -> None:
    """Runs ``LABEL__SET`` with these ``last10``, a seed each, in place of the published ones."""
    held: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, values in scores.items():
        label, env = name.split("__")
        held[env, label] = [
            {"run": name, "last10": v, "best": v + 9, "updates": 200, "dataset": {"sha256": env, "score_mean": 50}}
            for v in values
        ]
    monkeypatch.setattr(verdicts, "groups", lambda family: held)


def word(verdicts: Any, sets: list[str], **own: Any) -> str:
    return str(verdicts.ruling({"tests": [{"sets": sets, "left": "a", "right": "b", **own}]}).word)


def test_new_runs_change_the_verdict_on_one_set(verdicts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[list[float], list[float], str]] = [
        ([], [], "undecided"),
        ([90], [50, 51, 52], "undecided"),  # one seed says nothing
        ([90, 91], [50, 51], "undecided"),  # nor do two
        ([90, 91, 92], [50, 51, 52], "holds"),
        ([50, 51, 52], [90, 91, 92], "does not hold"),
        ([40, 60, 80], [41, 59, 81], "undecided"),
    ]
    for left, right, expected in cases:
        runs(verdicts, monkeypatch, a__x=left, b__x=right)
        assert word(verdicts, ["x"]) == expected, (left, right)
    runs(verdicts, monkeypatch, a__x=[90, 91, 92], b__x=[50, 51, 52])
    assert word(verdicts, ["x"], margin=50) == "does not hold"
    assert word(verdicts, ["x"], least=1000) == "undecided"
    assert word(verdicts, ["x"], want="below") == "does not hold"
    assert word(verdicts, ["x"], right=80) == "holds" and word(verdicts, ["x"], right="data") == "holds"
    assert word(verdicts, ["x"], right=91, want="near", margin=5) == "holds"
    assert word(verdicts, ["x"], left="b", right_metric="best", margin=-60) == "holds"


def test_several_sets_are_decided_by_their_mean_difference(verdicts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    up, down = {"a": [90, 92], "b": [50, 52]}, {"a": [50, 52], "b": [60, 62]}

    def put(**sets: dict[str, list[float]]) -> str:
        runs(verdicts, monkeypatch, **{f"{side}__{env}": v for env, both in sets.items() for side, v in both.items()})
        return word(verdicts, ["x", "y", "z", "w"])

    assert put(x=up) == "undecided"  # a quarter of the sets
    assert put(x=up, y=up) == "holds in part"  # a half
    assert put(x=up, y=up, z=up, w=up) == "holds"  # two seeds are enough over several sets
    assert put(x=down, y=down, z=down, w=down) == "does not hold"
    lost = {"a": [50, 51, 52], "b": [60, 61, 62]}
    assert put(x=up, y=up, z=up, w=lost) == "holds in part"  # and one set is lost for certain
    won = {"a": [60, 61, 62], "b": [50, 51, 52]}
    assert put(x=lost, y=lost, z=lost, w=won) == "holds in part"


def test_runs_that_cannot_be_compared_decide_nothing(verdicts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(verdicts, monkeypatch, a__x=[90, 91, 92], b__x=[50, 51, 52])
    held = verdicts.groups("offline")
    for change in ({"updates": 100}, {"dataset": {"sha256": "other", "score_mean": 50}}):
        changed = {**held, ("x", "b"): [{**run, **change} for run in held["x", "b"]]}
        monkeypatch.setattr(verdicts, "groups", lambda family, changed=changed: changed)
        found = verdicts.ruling({"tests": [{"sets": ["x"], "left": "a", "right": "b"}]})
        assert found.word == "undecided" and "not comparable" in found.tests[0].reason


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], "undecided"),
        ([None], "undecided"),
        ([True], "holds"),
        ([False], "does not hold"),
        ([True, True, None], "holds in part"),
        ([True, None], "holds in part"),
        ([True, None, None], "undecided"),
        ([False, None], "does not hold"),
        ([True, False], "holds in part"),
    ],
)
def test_one_word_for_several_outcomes(verdicts: Any, outcomes: list[bool | None], expected: str) -> None:
    assert verdicts.combined(outcomes) == expected


def test_one_word_for_a_method(verdicts: Any) -> None:
    assert verdicts.overall(["holds", "holds"]) == "holds"
    assert verdicts.overall(["holds", "does not hold"]) == "holds in part"
    assert verdicts.overall(["does not hold"]) == "does not hold"
    assert verdicts.overall(["holds in part", "undecided"]) == "holds in part"
    assert verdicts.overall(["holds in part", "undecided", "undecided"]) == "undecided"
    assert verdicts.overall(["holds", "holds in part"]) == "holds in part"


def test_figures_of_files_are_read_with_their_spread(verdicts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"way": "a", "gap": 2.0, "error": 0.1, "n": 64}, {"way": "b", "gap": 3.0, "error": 0.1, "n": 64}]
    held = {"rows": rows, "seeds": {"s0": 4.0, "s1": 5.0, "s2": 6.0}, "ended": [None, 7, None]}
    monkeypatch.setattr(verdicts, "read", lambda file: held)

    def of(way: str) -> dict[str, Any]:
        return {
            "file": "f",
            **{to: ["rows", {"way": way}, key] for to, key in (("value", "gap"), ("error", "error"), ("n", "n"))},
        }

    test = {"what": "gap", "left": of("a"), "right": of("b"), "want": "below"}
    assert verdicts.of_files(test).outcome is True
    assert verdicts.of_files({**test, "margin": 0.9}).outcome is None
    assert verdicts.of_files({**test, "right": of("c")}).text == ""  # not there: not run
    alone = {"file": "f", "value": ["rows", {"way": "b"}, "gap"]}
    assert verdicts.of_files({**test, "right": alone}).outcome is None  # one seed
    seeds = verdicts.from_file({"file": "f", "value": ["seeds", "s*"]})
    assert seeds.n == 3 and seeds.mean == 5.0
    assert verdicts.from_file({"file": "f", "value": ["ended"], "finite": True}) is not None
    short = {**test, "updates": ["rows", {"way": "a"}, "n"], "least": 100}
    assert verdicts.of_files(short).outcome is None
