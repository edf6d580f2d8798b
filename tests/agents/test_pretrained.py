"""Weights that ship: they are what the manifest says, load without running code, and beat what a heuristic does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rlkit import registry
from rlkit.agents.bq import BQ
from rlkit.agents.bq_data import HELD_OUT_SEED, heuristic_solutions
from rlkit.checkpoint import read_artefact
from rlkit.cli import main
from rlkit.envs.combinatorial import generate, make_problem
from rlkit.errors import UserError

FOLDER = Path(registry.shipped_weights("bq", "tsp")).parent
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())


def test_the_manifest_names_every_file_and_all_are_small() -> None:
    files = sorted(FOLDER.glob("*.rlk"))
    assert [path.name for path in files] == sorted(MANIFEST)
    assert sum(path.stat().st_size for path in files) <= 20e6


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_weights_are_those_that_were_measured(name: str) -> None:
    found, entry = read_artefact(FOLDER / name)[0], MANIFEST[name]
    assert found["sha256"]["model.safetensors"] == entry["sha256"]
    assert {"greedy", "beam 16"} <= {line["way"] for line in entry["gaps"]}
    assert found["config"]["labels"] is None


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_they_beat_a_heuristic(name: str) -> None:
    agent = BQ.load(FOLDER / name)
    problem = make_problem(agent.problem, num_nodes=50)
    instances = generate(problem, 24, HELD_OUT_SEED)
    found = agent.solve(instances).objectives
    other = problem.objectives(instances, next(iter(heuristic_solutions(problem, instances, 24).values())))
    if problem.maximise:  # density greedy is within a third of a percent of knapsack's optimum
        assert np.mean(found / other) > (0.99 if problem.name == "knapsack" else 1.0)
    else:
        assert np.mean(found / other) < 0.95


def test_they_are_used_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "agent=bq", "env=tsp", "num_nodes=20", "episodes=4", "beam=2"]) == 0
    printed = capsys.readouterr().out
    assert "4 episodes" in printed and "nearest neighbour" in printed
    with pytest.raises(UserError, match="no weights ship for agent=bq env=hopper, expected env="):
        registry.shipped_weights("bq", "hopper")
    assert main(["eval", "agent=bq"]) == 2 and "expected env=NAME beside it" in capsys.readouterr().err
    assert main(["eval", "agent=bq", "env=tsp", "num_node=20"]) == 2
    assert "did you mean 'num_nodes'" in capsys.readouterr().err
