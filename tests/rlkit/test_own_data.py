"""From a CSV file to a policy for other programs: the page's own commands, runs of files and ids, exported policies."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from stable_baselines3 import PPO

import rlkit
from rlkit.algorithms.export import export
from rlkit.algorithms.verdict import judge
from rlkit.cli import main
from rlkit.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "own-data.md").read_text()
COLUMNS = {"actions": ["valve", "heater"], "reward": "yield"}
QUIET = ["progress_bar=false", "tensorboard=false"]
UNJUDGED = [*QUIET, "verdict=false"]  # judging by the data alone is 20,000 updates of a network of its own
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
Policy = runpy.run_path(str(ROOT / "docs" / "examples" / "numpy_policy.py"))["Policy"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the page's blocks were run, in their order."""
    folder = tmp_path_factory.mktemp("page")
    scope: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlkit.run.session.judge", partial(judge, updates=200, hidden_sizes=(16,)))
        patch.chdir(folder)
        patch.syspath_prepend(str(ROOT / "docs" / "examples"))
        for language, block in re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.DOTALL):
            if language == "python":
                exec(block, scope)  # of this repository
                continue
            for line in block.splitlines():
                argv = shlex.split(line.replace("20000", "60"))[1:]
                if argv[-1].endswith(".onnx") and not HAS_ONNX:
                    continue
                more = [*QUIET, "agent.hidden_sizes=[16]", "checkpoint_every=30"] if argv[0] == "train" else []
                assert main([*argv, *more]) == 0, line
    return folder


def test_the_page_leads_from_a_csv_to_a_policy(page: Path) -> None:
    result = json.loads((page / "runs" / "machine" / "result.json").read_text())
    assert result["updates"] == 60 and result["config"]["agent"]["normalise_observations"]
    assert result["dataset"]["transitions"] == 40 * 49
    card = (page / "policy.onnx.md").read_text()
    assert "| valve | 0 | 100 |" in card and "| temperature | 2" in card and result["dataset"]["sha256"] in card
    hub = (page / "machine-iql" / "README.md").read_text()
    assert "model-index" not in hub and "by its data alone: estimated discounted return" in hub
    observations = rlkit.load_dataset(page / "log.csv", columns=COLUMNS).observations[:1000]
    wanted = rlkit.load(page / "runs" / "machine").predict(observations)[0]
    run = torch.export.load(page / "policy.pt2").module()
    found = {"pt2": run(torch.from_numpy(observations)).detach().numpy()}
    found["numpy"] = Policy(page / "runs" / "machine" / "model.rlk")(observations)
    if HAS_ONNX:
        import onnxruntime

        session = onnxruntime.InferenceSession(page / "policy.onnx")
        found["onnx"] = session.run(None, {"observations": observations})[0]
        told = session.get_modelmeta().custom_metadata_map
        assert json.loads(told["rlkit.actions"]) == ["valve", "heater"]
    low, high = np.array([0, 0]), np.array([100, 0.02])
    for kind, actions in found.items():
        assert np.abs((actions - wanted) / (high - low)).max() < 1e-5, kind
        assert (actions >= low).all() and (actions <= high).all(), kind


def test_a_run_of_a_file_goes_on_from_anywhere_exactly(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ["env.columns.actions=[valve,heater]", "env.columns.reward=yield"]
    small = [*columns, *UNJUDGED, "agent.hidden_sizes=[8]", "log_every=5", "checkpoint_every=10"]
    monkeypatch.chdir(page)
    assert main(["train", "agent=td3bc", "env=log.csv", "total_timesteps=20", f"out={tmp_path / 'whole'}", *small]) == 0
    assert main(["train", "agent=td3bc", "env=log.csv", "total_timesteps=10", f"out={tmp_path / 'part'}", *small]) == 0
    monkeypatch.chdir(tmp_path)  # the path is remembered whole
    assert main(["resume", "part", "total_timesteps=20", "progress_bar=false"]) == 0
    for name in ("model.rlk", "metrics.jsonl"):
        written = [(tmp_path / run / name).read_bytes() for run in ("whole", "part")]
        if name == "metrics.jsonl":
            written = [re.sub(rb'"time/[^,}]*', b"", text) for text in written]
        assert written[0] == written[1]
    other = tmp_path / "log.csv"
    other.write_text((page / "log.csv").read_text().replace("\n0,0,", "\n0,0,9", 1))
    config = yaml.safe_load((tmp_path / "part" / "config.yaml").read_text())
    config["env"]["path"] = str(other)
    (tmp_path / "part" / "config.yaml").write_text(yaml.safe_dump(config))
    capsys.readouterr()
    assert main(["resume", "part", "total_timesteps=30", "progress_bar=false"]) == 2
    assert "was made from other data" in capsys.readouterr().err


def test_a_sweep_takes_files(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(page)
    (page / "again.csv").write_bytes((page / "log.csv").read_bytes())
    words = ["agent=bc", f"env=log.csv,{page / 'again.csv'}", "env.columns.actions=[valve,heater]", "engine=stacked"]
    out = f"out='{tmp_path}/${{env.name}}'"
    assert (
        main(["train", "-m", *words, out, "agent.hidden_sizes=[8]", "total_timesteps=4", "log_every=2", *UNJUDGED]) == 0
    )
    hashes = {json.loads(path.read_text())["dataset"]["sha256"] for path in tmp_path.rglob("result.json")}
    assert len(list(tmp_path.rglob("result.json"))) == 2 and len(hashes) == 1


PACKAGE = """
import gymnasium
from gymnasium.envs.classic_control.pendulum import PendulumEnv
gymnasium.register("Mine/Swing-v0", entry_point=PendulumEnv, max_episode_steps=20)
"""
ACTS = ["total_timesteps=40", "log_every=20", "eval_every=0", "final_episodes=1", "agent.learning_starts=10", *QUIET]


def test_a_gymnasium_id_is_taken_by_agents_that_act(tmp_path: Path) -> None:
    assert main(["train", "agent=beer", "env=Pendulum-v1", f"out={tmp_path / 'r'}", *ACTS]) == 0
    assert json.loads((tmp_path / "r" / "result.json").read_text())["final"]["return"] < 0
    assert main(["resume", str(tmp_path / "r"), "total_timesteps=60", "progress_bar=false"]) == 0


def test_only_what_is_typed_names_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "swinging.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = tmp_path / "r"
    assert main(["train", "agent=beer", "env=swinging:Mine/Swing-v0", f"out={run}", *ACTS]) == 0
    assert "swinging" not in (run / "config.yaml").read_text()
    del gym.registry["Mine/Swing-v0"], sys.modules["swinging"]
    for forged in ("Mine/Swing-v0", "swinging:Mine/Swing-v0"):  # what a file names is not imported
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["env"]["id"] = forged
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        capsys.readouterr()
        assert main(["resume", str(run), "total_timesteps=60", "progress_bar=false"]) == 2
        assert capsys.readouterr().err.count("\n") == 1 and "swinging" not in sys.modules
    config["env"]["id"] = "Mine/Swing-v0"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    typed = "env=swinging:Mine/Swing-v0"
    assert main(["resume", str(run), "total_timesteps=60", "progress_bar=false", typed]) == 0
    assert main(["eval", str(run), typed, "episodes=2"]) == 0
    del gym.registry["Mine/Swing-v0"], sys.modules["swinging"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["agent=iql", "env=Pendulum-v1"], "the agent learns from data, expected a record"),
        (["agent=beer", "env=log.csv"], "is a file, expected an environment"),
        (["agent=beer", "env=Pendulun-v1"], "unknown env 'Pendulun-v1'"),
        (["agent=beer", "env=no_such_package:Id-v0"], "'no_such_package' cannot be imported"),
        (["agent=beer", "env=json:Id-v0"], "'json' registers no 'Id-v0'"),
        (["agent=iql", "env=nobody/has/this-v0"], "'nobody/has/this-v0' is not in the local Minari store"),
        (["agent=iql", "env=log.csv", "env.columns.rewards=r"], "unknown key 'env.columns.rewards'; did you mean"),
        (["agent=iql", "env=hopper-medium", "env.bounds.x=[0,1]"], "are for files and tables of rows"),
    ],
)
def test_what_env_cannot_be_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words, "out=never"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not Path("never").exists()


@pytest.mark.parametrize("name", ["bc", "prdc", "xql"])
def test_numpy_and_an_exported_program_act_as_the_agent_does(name: str, page: Path, tmp_path: Path) -> None:
    data = rlkit.load_dataset(page / "log.csv", columns=COLUMNS)
    more = {"lam": 0.6} if name == "xql" else {}
    agent = rlkit.make(name, data, hidden_sizes=(8, 4), batch_size=16, **more).learn(3)
    assert export(agent, tmp_path / "a.pt2") < 1e-6
    agent.save(tmp_path / "a.rlk")
    actions, wanted = Policy(tmp_path / "a.rlk")(data.observations), agent.predict(data.observations)[0]
    assert np.abs((actions - wanted) / np.ptp(data.actions, axis=0)).max() < 1e-5


class Choosing(PPO):
    """An agent of discrete actions."""

    name = "ppo"

    def source(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_policies_of_agents_that_act_are_exported(kind: str, tmp_path: Path) -> None:
    if kind == "onnx" and not HAS_ONNX:
        pytest.skip("the export extra is not installed")
    assert export(rlkit.make("beer", "Pendulum-v1"), tmp_path / f"a.{kind}") < 1e-5
    assert export(Choosing("MlpPolicy", "CartPole-v1", device="cpu"), tmp_path / f"b.{kind}") == 0


def test_what_cannot_be_exported_is_said(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = rlkit.load(page / "runs" / "machine")
    (tmp_path / "a.pt2").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export(agent, tmp_path / "a.pt2")
    with pytest.raises(UserError, match=r"expected \.onnx or \.pt2"):
        export(agent, tmp_path / "a.torch")
    with pytest.raises(UserError, match="bq cannot be exported"):
        export(rlkit.make("bq", "tsp", width=16, layers=1, heads=2), tmp_path / "b.pt2")
    monkeypatch.setattr("rlkit.algorithms.export.TOLERANCE", -1.0)  # no file is as good as that
    with pytest.raises(UserError, match="acts otherwise than iql"):
        export(agent, tmp_path / "c.pt2")
    monkeypatch.setattr("rlkit.algorithms.export.NEEDED", ("no_such_package",))
    with pytest.raises(UserError, match=r"pip install .*\[export\]"):
        export(agent, tmp_path / "c.onnx")
    assert main(["export", str(page / "runs" / "machine")]) == 2 and "usage" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt2"] and (tmp_path / "a.pt2").read_text() == "mine"
