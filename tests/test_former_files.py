"""What earlier versions left on disk is still read: artefacts, checkpoints, run folders, kept data, and every name.

``tests/fixtures/write_former.py`` wrote the files, at the commit before modules were moved.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import toy  # noqa: F401  # registers the toy records

import rlkit.envs  # noqa: F401  # registers the environments
from rlkit import registry
from rlkit.cli import main
from rlkit.data import load_dataset

FORMER = Path(__file__).parent / "fixtures" / "former"
EXPECTED: dict[str, Any] = json.loads((FORMER / "expected.json").read_text(encoding="utf-8"))
NEAR = 1e-5  # of actions; processors round differently

# Entry points, by name.
AGENTS = {
    "a2pr": "rlkit.agents.a2pr:A2PR",
    "bc": "rlkit.agents.bc:BC",
    "beer": "rlkit.agents.beer:BEER",
    "bq": "rlkit.agents.bq:BQ",
    "drrpo": "rlkit.agents.drrpo:DRRPO",
    "drrpo-features": "rlkit.agents.drrpo_features:FeatureDRRPO",
    "fdvl": "rlkit.agents.fdvl:FDVL",
    "iql": "rlkit.agents.iql:IQL",
    "iqlearn": "rlkit.agents.iqlearn:IQLearn",
    "mbtl": "rlkit.agents.mbtl:MBTL",
    "orpo": "rlkit.agents.orpo:ORPO",
    "prdc": "rlkit.agents.prdc:PRDC",
    "ptrnet": "rlkit.agents.ptrnet:PtrNet",
    "recoil": "rlkit.agents.recoil:ReCOIL",
    "smodice": "rlkit.agents.smodice:SMODICE",
    "sql": "rlkit.agents.sql:SQL",
    "td3bc": "rlkit.agents.td3bc:TD3BC",
    "vagram": "rlkit.agents.vagram:VaGraM",
    "xql": "rlkit.agents.xql:XQL",
}
ENVS = (
    "combinatorial",
    "contextual",
    "dmc",
    "hacking",
    "imitation",
    "locomotion",
    "manipulation",
    "navigation",
    "robust",
)
# Generators that records named, and that the records of other packages may.
GENERATORS = (
    "rlkit.data.generate:behaviour_rollouts",
    "rlkit.data.imitation:mixture",
    "rlkit.data.navigation:waypoint_rollouts",
    "rlkit.data.resolve:not_generated",
)
IDS = """
rlkit-box2d/ContextualWalker-v0 rlkit-robotics/AdroitHandDoor-v1 rlkit-robotics/AdroitHandHammer-v1
rlkit-robotics/AdroitHandPen-v1 rlkit-robotics/AdroitHandRelocate-v1 rlkit-robotics/AntMaze_Large-v4
rlkit-robotics/AntMaze_Medium-v4 rlkit-robotics/AntMaze_UMaze-v4 rlkit-robotics/FrankaKitchen-v1
rlkit-robotics/PointMaze_Large-v3 rlkit-robotics/PointMaze_Medium-v3 rlkit-robotics/PointMaze_UMaze-v3
rlkit-sumo/Traffic-v0 rlkit/ATSP-v0 rlkit/AmericanPut-v0 rlkit/Ant-v5 rlkit/CVRP-v0 rlkit/ContextualCartPole-v0
rlkit/ContextualHalfCheetah-v0 rlkit/ContextualPendulum-v0 rlkit/ConvexHull-v0 rlkit/Delaunay-v0 rlkit/Glucose-v0
rlkit/HalfCheetah-v5 rlkit/Hopper-v5 rlkit/HopperDistractors-v0 rlkit/InvertedPendulumDistractors-v0 rlkit/Knapsack-v0
rlkit/LinearMDP-v0 rlkit/Maze2D_Large-v0 rlkit/Maze2D_Medium-v0 rlkit/Maze2D_UMaze-v0 rlkit/OP-v0 rlkit/Pandemic-v0
rlkit/PendulumDistractors-v0 rlkit/PointMaze_Large-v0 rlkit/PointMaze_Medium-v0 rlkit/PointMaze_UMaze-v0 rlkit/TSP-v0
rlkit/Tomato-v0 rlkit/Walker2d-v5 rlkit/dmc-acrobot-swingup-v0 rlkit/dmc-acrobot-swingup_sparse-v0
rlkit/dmc-ball_in_cup-catch-v0 rlkit/dmc-cartpole-balance-v0 rlkit/dmc-cartpole-balance_sparse-v0
rlkit/dmc-cartpole-swingup-v0 rlkit/dmc-cartpole-swingup_sparse-v0 rlkit/dmc-cartpole-three_poles-v0
rlkit/dmc-cartpole-two_poles-v0 rlkit/dmc-cheetah-run-v0 rlkit/dmc-dog-fetch-v0 rlkit/dmc-dog-run-v0
rlkit/dmc-dog-stand-v0 rlkit/dmc-dog-trot-v0 rlkit/dmc-dog-walk-v0 rlkit/dmc-finger-spin-v0
rlkit/dmc-finger-turn_easy-v0 rlkit/dmc-finger-turn_hard-v0 rlkit/dmc-fish-swim-v0 rlkit/dmc-fish-upright-v0
rlkit/dmc-hopper-hop-v0 rlkit/dmc-hopper-stand-v0 rlkit/dmc-humanoid-run-v0 rlkit/dmc-humanoid-run_pure_state-v0
rlkit/dmc-humanoid-stand-v0 rlkit/dmc-humanoid-walk-v0 rlkit/dmc-humanoid_CMU-run-v0 rlkit/dmc-humanoid_CMU-stand-v0
rlkit/dmc-humanoid_CMU-walk-v0 rlkit/dmc-lqr-lqr_2_1-v0 rlkit/dmc-lqr-lqr_6_2-v0 rlkit/dmc-manipulator-bring_ball-v0
rlkit/dmc-manipulator-bring_peg-v0 rlkit/dmc-manipulator-insert_ball-v0 rlkit/dmc-manipulator-insert_peg-v0
rlkit/dmc-pendulum-swingup-v0 rlkit/dmc-point_mass-easy-v0 rlkit/dmc-point_mass-hard-v0 rlkit/dmc-quadruped-escape-v0
rlkit/dmc-quadruped-fetch-v0 rlkit/dmc-quadruped-run-v0 rlkit/dmc-quadruped-walk-v0 rlkit/dmc-reacher-easy-v0
rlkit/dmc-reacher-hard-v0 rlkit/dmc-stacker-stack_2-v0 rlkit/dmc-stacker-stack_4-v0 rlkit/dmc-swimmer-swimmer15-v0
rlkit/dmc-swimmer-swimmer6-v0 rlkit/dmc-walker-run-v0 rlkit/dmc-walker-stand-v0 rlkit/dmc-walker-walk-v0
""".split()  # noqa: SIM905


@pytest.fixture(scope="module", autouse=True)
def former(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The former files, unpacked; datasets and labels are looked for among them."""
    folder = tmp_path_factory.mktemp("former")
    with zipfile.ZipFile(FORMER / "files.zip") as archive:
        archive.extractall(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.setenv("RLKIT_LABELS_PATH", str(folder / "labels"))
        yield folder


def kept(name: str) -> Any:
    return load_dataset(name, source="generated", size=EXPECTED["datasets"][name]["size"])


def rebuilt(name: str) -> Any:
    """A new agent with the settings of the former one."""
    entry, cls = EXPECTED["agents"][name], registry.agent_class(name)
    if name == "mbtl":
        return cls(entry["env"], **entry["settings"])
    data: Any = kept(entry["env"]) if entry["env"] in EXPECTED["datasets"] else registry.record(entry["env"])
    if entry["env"] == "tsp":
        data = replace(data, env_kwargs={"num_nodes": 6})
    plain = {"distances": False} if name == "bq" else {}  # before there were networks that see them
    return cls("MultiInputPolicy" if entry["env"] == "tsp" else "MlpPolicy", data, **entry["settings"], **plain)


def require_known(name: str, agent: Any) -> None:
    """``agent`` answers as was recorded."""
    entry = EXPECTED["agents"][name]
    if "coords" in entry:
        found = agent.solve({"coords": np.array(entry["coords"])})
        np.testing.assert_allclose(found.objectives, entry["objectives"], atol=NEAR)
        return
    observations = np.array(entry["observations"], agent.observation_space.dtype)
    actions, _ = agent.predict(observations, deterministic=True)
    np.testing.assert_allclose(actions, np.array(entry["actions"]), atol=NEAR)


def test_there_is_a_file_of_every_agent() -> None:
    assert sorted(EXPECTED["agents"]) == sorted(AGENTS)


@pytest.mark.parametrize("name", AGENTS)
def test_an_artefact_predicts_as_it_did(name: str, former: Path) -> None:
    agent = registry.agent_class(name).load(former / f"{name}.rlk", device="cpu")
    assert agent.name == name and agent.num_timesteps == EXPECTED["agents"][name]["done"]
    require_known(name, agent)


@pytest.mark.parametrize("name", AGENTS)
def test_a_checkpoint_is_restored_and_goes_on(name: str, former: Path) -> None:
    entry, agent = EXPECTED["agents"][name], rebuilt(name)
    assert agent.restore(former / f"{name}.checkpoint.rlk") == {"note": 1}
    assert agent.num_timesteps == entry["done"]
    require_known(name, agent)
    updates = agent._n_updates
    agent.learn(entry["after"] - entry["done"], reset_num_timesteps=False)
    assert agent.num_timesteps == entry["after"] and agent._n_updates > updates


@pytest.mark.parametrize("name", sorted(EXPECTED["runs"]))
def test_a_run_is_resumed_to_its_end(name: str, former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, entry = former / "runs" / name, EXPECTED["runs"][name]
    log = (out / "metrics.jsonl").read_bytes()
    assert log and not (out / "result.json").exists()
    assert main(["resume", str(out), "progress_bar=false"]) == 0
    assert "resuming at step" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert result["unit"] == entry["unit"] and result[entry["unit"]] >= entry["total"]
    after = (out / "metrics.jsonl").read_bytes()
    assert after.startswith(log.splitlines(keepends=True)[0]) and len(after) > len(log)
    assert registry.agent_class(name).load(out / "model.rlk", device="cpu").num_timesteps >= entry["total"]


@pytest.mark.parametrize("name", sorted(EXPECTED["datasets"]))
def test_a_kept_dataset_is_found_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = registry.record(name)
    assert record.data is not None
    module, _, function = record.data.generator.partition(":")

    def made_anew(*_: Any, **__: Any) -> None:
        raise AssertionError(f"{name} is made anew, though it was kept")

    monkeypatch.setattr(importlib.import_module(module), function, made_anew)
    dataset = kept(name)
    assert dataset.content_hash == EXPECTED["datasets"][name]["sha256"]
    assert "GENERATED" in dataset.provenance.sentence and dataset.provenance.name == name


def test_kept_labels_are_found_again(former: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (former / "labels").iterdir()}
    agent = rebuilt("bq")
    agent.ready()
    assert before == {path: path.stat().st_mtime_ns for path in (former / "labels").iterdir()}


@pytest.mark.parametrize("name", AGENTS)
def test_an_agents_entry_point_loads(name: str) -> None:
    former = EntryPoint(name, AGENTS[name], "rlkit.agents").load()
    assert former.name == name and former is registry.agent_class(name)
    assert {entry.load() for entry in entry_points(group="rlkit.agents", name=name)} == {former}


@pytest.mark.parametrize("name", ENVS)
def test_an_entry_point_of_records_loads(name: str) -> None:
    known = registry.records()
    for entry in entry_points(group="rlkit.envs", name=name):
        found = entry.load()
        assert found and all(known[key] is record and record.name == key for key, record in found.items())


def test_generators_can_be_imported() -> None:
    own = {record.data.generator for record in registry.records().values() if record.data is not None}
    for generator in {*GENERATORS, *own}:
        module, _, function = generator.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), generator


@pytest.mark.parametrize("env_id", IDS)
def test_an_environments_id_is_registered(env_id: str) -> None:
    spec = gym.spec(env_id)
    assert spec.id == env_id
    for entry in (spec.entry_point, spec.vector_entry_point):
        if isinstance(entry, str) and not env_id.startswith("rlkit-"):  # those need an extra
            module, _, attribute = entry.partition(":")
            assert callable(getattr(importlib.import_module(module), attribute)), entry
