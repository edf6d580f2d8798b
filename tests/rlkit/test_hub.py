"""``rlkit export RUN FOLDER/``: what a hub is given, what its card says, and that reading it back runs nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

import rlkit
from rlkit.cli import main
from rlkit.data import write_d4rl
from rlkit.data.generate import behaviour_rollouts
from rlkit.registry import record

QUIET = ["progress_bar=false", "tensorboard=false", "agent.hidden_sizes=[8]", "checkpoint_every=10"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Behavioural cloning of a table of hopper's shape: played, and measured by a normalised score."""
    folder = tmp_path_factory.mktemp("hub")
    write_d4rl(behaviour_rollouts(record("hopper-random"), size=400), folder / "made.hdf5")
    with h5py.File(folder / "made.hdf5") as made, h5py.File(folder / "rows.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts"):
            file[name] = made[name][:]  # as a stranger's file is: nothing says who made it
    line = f"train agent=bc env=hopper-medium env.path={folder}/rows.hdf5 out={folder}/run total_timesteps=20 seed=3"
    assert main([*line.split(), *QUIET, "eval_every=10", "eval_episodes=1", "final_episodes=2"]) == 0
    return folder / "run"


def front(folder: Path) -> tuple[dict[str, Any], str]:
    """The card's front matter as YAML, and the text below it."""
    empty, above, text = (folder / "README.md").read_text().split("---\n", 2)
    assert not empty
    return yaml.safe_load(above), text


def test_a_folder_holds_the_run_and_its_card_the_numbers(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), f"{tmp_path}/out/"]) == 0
    out = tmp_path / "out"
    for name in ("model.rlk", "config.yaml", "result.json"):
        assert (out / name).read_bytes() == (run / name).read_bytes()
    told, text = front(out)
    final = json.loads((run / "result.json").read_text())["final"]
    assert told["library_name"] == "rlkit" and {"reinforcement-learning", "bc", "Hopper-v5"} <= set(told["tags"])
    (entry,) = told["model-index"]
    (result,) = entry["results"]
    assert (entry["name"], result["dataset"]["type"]) == ("out", "Hopper-v5")
    assert "rows.hdf5" in result["dataset"]["name"] and str(run.parent) not in text + str(told)
    (metric,) = result["metrics"]
    assert metric["type"] == "normalised_score" and metric["value"] == pytest.approx(final["score"], abs=1e-6)
    assert f"normalised score {final['score']:.1f} (95 % interval" in text and "not known to rlkit" in text
    assert "20 updates, seed 3" in text and "not finished" not in text
    for name in ("model.rlk", "config.yaml", "result.json"):
        assert f"| {name} | `{hashlib.sha256((out / name).read_bytes()).hexdigest()}` |" in text
    again = tmp_path / "again" / "out"
    assert main(["export", str(run), str(again)]) == 0
    assert (again / "README.md").read_bytes() == (out / "README.md").read_bytes()


def test_a_folder_is_loaded_and_played_by_its_path(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    seen = np.random.default_rng(0).normal(size=(5, 11)).astype(np.float32)
    wanted = rlkit.load(run).predict(seen, deterministic=True)[0]
    assert np.array_equal(rlkit.load(tmp_path / "out").predict(seen, deterministic=True)[0], wanted)
    capsys.readouterr()
    told = []
    for folder in (run, tmp_path / "out"):
        assert main(["eval", str(folder), "episodes=2"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] and "normalised score" in told[0]


def test_an_unfinished_run_says_so_everywhere(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part, out = tmp_path / "part", tmp_path / "out"
    shutil.copytree(run, part)
    for name in ("model.rlk", "result.json", "checkpoints/step_0000000020.rlk"):
        (part / name).unlink()
    assert main(["export", str(part), str(out)]) == 0
    told, text = front(out)
    assert "**not finished: 10 of 20 updates**" in text and "not evaluated here" in text
    assert "model-index" not in told and not (out / "result.json").exists()
    first = part / "checkpoints" / "step_0000000010.rlk"
    assert (out / "model.rlk").stat().st_size < first.stat().st_size  # no optimiser
    seen = np.zeros((1, 11), np.float32)
    assert np.array_equal(rlkit.load(out).predict(seen)[0], rlkit.load(first).predict(seen)[0])
    capsys.readouterr()
    assert main(["eval", str(part), "episodes=1"]) == 0
    assert "not finished: 10 of 20 updates" in capsys.readouterr().out
    first.unlink()
    for verb in (["export", str(part), str(tmp_path / "none")], ["eval", str(part)], ["video", str(part)]):
        assert main(verb) == 2
        assert "holds no policy" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_true_and_proxy_return_stand_apart(tmp_path: Path) -> None:
    small = "n_envs=2 n_steps=20 batch_size=20 n_epochs=1 calibration_steps=40 ref_policy=uniform trim=0.05"
    toy = ["env.kwargs.horizon=20", "env.kwargs.level=toy", "agent.hidden_sizes=[8]", "final_episodes=2"]
    line = f"train agent=orpo env=tomato out={tmp_path}/run total_timesteps=40 progress_bar=false tensorboard=false"
    assert main([*line.split(), *(f"agent.{word}" for word in small.split()), *toy]) == 0
    assert main(["export", f"{tmp_path}/run", f"{tmp_path}/out"]) == 0
    told, text = front(tmp_path / "out")
    final = json.loads((tmp_path / "run" / "result.json").read_text())["final"]
    metrics = told["model-index"][0]["results"][0]["metrics"]
    assert {m["type"]: m["value"] for m in metrics} == {
        key: pytest.approx(final[key], abs=1e-6) for key in ("true_return", "proxy_return")
    }
    assert all(m["name"].endswith("mean of 2 episodes, sampled") for m in metrics) and "true return" in text


def test_generated_data_says_so_and_an_artefact_alone_claims_nothing(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    result = json.loads((copy / "result.json").read_text())
    result["dataset"] |= {"source": "generated", "locator": "200 transitions", "name": "hopper-medium"}
    result["source_sentence"] = (
        "hopper-medium: GENERATED by rlkit's behaviours (200 transitions); scores are not D4RL's"
    )
    (copy / "result.json").write_text(json.dumps(result))
    assert main(["export", str(copy), str(tmp_path / "a")]) == 0
    told, text = front(tmp_path / "a")
    assert "GENERATED" in told["model-index"][0]["results"][0]["dataset"]["name"] and "its licence: MIT" in text
    assert told["datasets"] == ["hopper-medium-generated"]
    assert main(["export", str(run / "model.rlk"), str(tmp_path / "b")]) == 0
    told, text = front(tmp_path / "b")
    assert "model-index" not in told and "not evaluated here" in text
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["README.md", "model.rlk"]


def test_a_film_goes_along_unless_it_is_of_an_earlier_policy(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "video.gif").write_bytes(b"GIF89a")
    assert main(["export", str(copy), str(tmp_path / "a")]) == 0
    assert (tmp_path / "a" / "video.gif").read_bytes() == b"GIF89a" and "](video.gif)" in front(tmp_path / "a")[1]
    os.utime(copy / "video.gif", (0, 0))
    assert main(["export", str(copy), str(tmp_path / "a"), "overwrite=true"]) == 0
    assert not (tmp_path / "a" / "video.gif").exists() and "video.gif" not in front(tmp_path / "a")[1]


def test_what_is_in_the_way_is_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    (tmp_path / "file").write_text("mine")
    assert main(["export", str(run), str(out)]) == 0
    (out / "notes.txt").write_text("mine")
    (out / "README.md").write_text("mine")
    for target, said in ((out, "is not empty"), (tmp_path / "file/", "is a file"), (run, "is a run")):
        capsys.readouterr()
        assert main(["export", str(run), f"{target}/"]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert main(["export", str(run), str(run), "overwrite=true"]) == 2
    assert main(["export", str(run), str(tmp_path / "a.torch")]) == 2 and (out / "README.md").read_text() == "mine"
    assert main(["export", str(run / "model.rlk"), str(out), "overwrite=true"]) == 0
    assert (out / "notes.txt").read_text() == "mine" and "# out" in (out / "README.md").read_text()
    assert not (out / "result.json").exists()  # it would be another policy's


def test_a_card_belongs_to_its_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two kinds of one stem do not get in each other's way."""
    assert main(["export", str(run), str(tmp_path / "p.pt2")]) == 0
    (tmp_path / "p.onnx.md").write_text("mine")
    assert main(["export", str(run), str(tmp_path / "p.onnx")]) == 2 and "p.onnx.md exists" in capsys.readouterr().err
    (tmp_path / "p.onnx.md").unlink()
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert main(["export", str(run), str(tmp_path / "p.onnx")]) == 0
    assert "# p.pt2\n" in (tmp_path / "p.pt2.md").read_text() and "# p.onnx\n" in (tmp_path / "p.onnx.md").read_text()


WATCHED = """
import socket, sys
import rlkit
folder = sys.argv[1]
rlkit.load(sys.argv[2]).policy  # what a sound folder imports, it may import
known, seen = set(sys.modules), []
BAD = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "socket.getaddrinfo")
def watch(event, args):
    if event in BAD or (event == "import" and args[0].partition(".")[0] not in {n.partition(".")[0] for n in known}):
        seen.append((event, str(args)[:200]))
sys.addaudithook(watch)
sys.path.insert(0, folder)
agent = rlkit.load(folder)
agent.predict(agent.observation_space.sample(), deterministic=True)
print("seen", seen)
"""


def test_loading_a_folder_runs_nothing_of_it_and_fetches_nothing(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run), str(out)]) == 0
    for name in ("model.py", "__init__.py", "sitecustomize.py", "handler.py", "bc.py"):
        (out / name).write_text("raise SystemExit('this code must not run')")
    (out / "config.yaml").write_text("agent: !!python/object/apply:os.system ['touch ran']\n")
    (out / "README.md").write_text("---\nlibrary_name: !!python/name:os.system\n---\n")
    found = subprocess.run(
        [sys.executable, "-c", WATCHED, str(out), str(run)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert found.returncode == 0 and found.stdout.splitlines()[-1] == "seen []", found.stderr + found.stdout
    assert not (tmp_path / "ran").exists()
