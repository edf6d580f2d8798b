"""Weights that ship: they are what the manifest says, load without running code, and are as good as the specification
asks of models trained for so long (its acceptance items 7, 8 and 13)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rlkit import registry
from rlkit.agents.bq.bq import BQ
from rlkit.agents.common.gaps import HELD_OUT_SEED, held_out_heuristics
from rlkit.agents.ptrnet.data import PtrNetEvaluator
from rlkit.agents.ptrnet.ptrnet import PtrNet
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.cli import main
from rlkit.envs.combinatorial.base import generate, make_problem, row
from rlkit.envs.combinatorial.metrics import gap
from rlkit.envs.combinatorial.solvers import distances, local_search
from rlkit.errors import UserError

FOLDER = Path(registry.shipped_weights("bq", "tsp")).parent
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
BQS = sorted(name for name in MANIFEST if name.startswith("bq_"))
FRESH = 20_261  # a seed that nothing was trained or chosen on


def test_the_manifest_names_every_file_and_all_are_small() -> None:
    files = sorted(FOLDER.glob("*.rlk"))
    assert [path.name for path in files] == sorted(MANIFEST)
    assert sum(path.stat().st_size for path in files) <= 20e6


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_weights_are_those_that_were_measured(name: str) -> None:
    found, entry = read_artefact(FOLDER / name)[0], MANIFEST[name]
    assert found["sha256"]["model.safetensors"] == entry["sha256"]
    assert not found["config"]["labels"]
    if name in BQS:
        assert {"greedy", "beam 16"} <= {line["way"] for line in entry["gaps"]}
    else:
        assert {1, 8} == {line["beam"] for line in entry["measured"]}


@pytest.mark.parametrize("name", BQS)
def test_they_beat_a_heuristic(name: str) -> None:
    agent = BQ.load(FOLDER / name)
    problem = agent.problem.resized(50)
    instances = generate(problem, 24, HELD_OUT_SEED)
    found = agent.solve(instances).objectives
    other = problem.objectives(instances, next(iter(held_out_heuristics(problem, instances).values())))
    if problem.maximise:  # density greedy is within a third of a percent of knapsack's optimum
        assert np.mean(found / other) > (0.99 if problem.name == "knapsack" else 1.0)
    else:
        assert np.mean(found / other) < 0.95


def tour_gaps(nodes: int, count: int, augment: int) -> float:
    """Mean gap of shipped tours to the best of 20 local searches, which is a little above the optimum from 50 on."""
    agent, problem = BQ.load(FOLDER / "bq_tsp.rlk"), make_problem("tsp", num_nodes=nodes)
    instances, random = generate(problem, count, FRESH), np.random.Generator(np.random.PCG64(0))
    costs = [distances(row(instances, k)["coords"]) for k in range(count)]
    best = problem.objectives(instances, np.stack([local_search(cost, 20, random) for cost in costs]))
    return float(gap(agent.solve(instances, augment=augment).objectives, best).mean())


@pytest.mark.slow
def test_tours_of_20_cities_are_near_the_shortest() -> None:
    assert tour_gaps(20, 64, 1) <= 2.0
    assert tour_gaps(20, 64, 8) <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "greedy", "best"), [(20, 2.0, 0.2), (50, 4.5, 1.2), (100, 7.0, 3.3)])
def test_tours_are_as_near_the_shortest_as_specified(nodes: int, greedy: float, best: float) -> None:
    count = {20: 512, 50: 256, 100: 64}[nodes]
    assert tour_gaps(nodes, count, 1) <= greedy
    assert tour_gaps(nodes, count, 8) <= best


@pytest.mark.parametrize(("problem", "nodes", "accuracy"), [("convex-hull", 10, 0.85), ("delaunay", 5, 0.70)])
def test_answers_are_as_often_right_as_specified(problem: str, nodes: int, accuracy: float) -> None:
    agent = PtrNet.load(FOLDER / f"ptrnet_{problem}.rlk")
    world = make_problem(problem, num_nodes=nodes)
    assert PtrNetEvaluator(world, 1, episodes=500, seed=FRESH)(agent).measures["accuracy"] >= accuracy


@pytest.mark.slow
def test_tours_by_reinforce_are_as_short_as_specified_and_as_measured() -> None:
    agent = PtrNet.load(FOLDER / "ptrnet_tsp.rlk")
    [line] = [m for m in MANIFEST["ptrnet_tsp.rlk"]["measured"] if (m["nodes"], m["beam"]) == (20, 1)]
    found = PtrNetEvaluator(make_problem("tsp", num_nodes=20), 1, episodes=1_000, seed=FRESH)(agent).measures
    assert found["gap"] < line["metrics"]["gap"] + 1.0
    assert found["tour_length"] <= 3.95
    assert found["gap"] < found["random_insertion_gap"] < found["nearest_neighbour_gap"]


def test_they_are_used_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "agent=bq", "env=tsp", "num_nodes=20", "episodes=4", "beam=2"]) == 0
    printed = capsys.readouterr().out
    assert "4 episodes" in printed and "nearest neighbour" in printed
    assert main(["eval", "agent=ptrnet", "env=convex-hull", "num_nodes=8", "episodes=4"]) == 0
    assert "accuracy" in capsys.readouterr().out
    with pytest.raises(UserError, match="no weights ship for agent=bq env=hopper, expected env="):
        registry.shipped_weights("bq", "hopper")
    assert main(["eval", "agent=bq"]) == 2 and "expected env=NAME beside it" in capsys.readouterr().err
    assert main(["eval", "agent=bq", "env=tsp", "num_node=20"]) == 2
    assert "did you mean 'num_nodes'" in capsys.readouterr().err
