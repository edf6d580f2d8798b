"""Runs in one process: folders, logs, results and resuming as if each were alone; what is refused, and what is said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy

import rlkit
from rlkit.agents import BC, PRDC, TD3BC
from rlkit.algorithms.engine.stacked import Stack
from rlkit.algorithms.evaluate import Evaluator
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.cli import main
from rlkit.errors import UserError
from rlkit.registry import agent_class, agent_names

SMALL = ["env=point-noisy", "agent.batch_size=16", "agent.hidden_sizes=[8]", "log_every=10", "env.size=600"]
SMALL += ["eval_every=20", "eval_episodes=2", "final_episodes=3", "checkpoint_every=20", "total_timesteps=50"]
SMALL += ["progress_bar=false", "tensorboard=false"]
SWEEP = [*SMALL, "-m", "engine=stacked", "out='runs/${agent.name}_${seed}'"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def log(run: str | Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def assert_alike(one: str, other: str) -> None:
    """Two logs with the same lines, their numbers within rounding."""
    ours, theirs = log(one), log(other)
    assert [list(line) for line in ours] == [list(line) for line in theirs]
    for mine, yours in zip(ours, theirs, strict=True):
        for key, value in mine.items():
            assert value == pytest.approx(yours[key], rel=2e-2, abs=2e-2), (mine["step"], key)


@pytest.mark.parametrize("name", ["td3bc", "prdc", "iql"])
def test_five_seeds_together_are_five_runs(name: str) -> None:
    assert main(["train", f"agent={name}", "seed=0,1,2,3,4", *SWEEP]) == 0
    for seed in range(5):
        assert main(["train", f"agent={name}", f"seed={seed}", *SMALL, f"out=alone{seed}"]) == 0
        assert_alike(f"runs/{name}_{seed}", f"alone{seed}")
        together, alone = (
            json.loads(Path(run, "result.json").read_text()) for run in (f"runs/{name}_{seed}", f"alone{seed}")
        )
        assert together.keys() == alone.keys() and together["final"].keys() == alone["final"].keys()
        assert [entry["step"] for entry in together["evaluations"]] == [20, 40]
        assert rlkit.load(f"runs/{name}_{seed}").name == name


def test_runs_go_on_together_and_alone(capsys: Any) -> None:
    main(["train", "agent=td3bc", "seed=0,1,2", *SWEEP])
    whole = {seed: Path(f"runs/td3bc_{seed}/metrics.jsonl").read_bytes() for seed in range(3)}
    for seed in range(3):
        cut = Path(f"runs/td3bc_{seed}")
        for checkpoint in sorted((cut / "checkpoints").iterdir())[1:]:
            checkpoint.unlink()  # as if killed after the first that is left
        for name in ("model.rlk", "result.json"):
            (cut / name).unlink()
    shutil.copytree("runs/td3bc_1", "alone")
    assert main(["resume", *(f"runs/td3bc_{seed}" for seed in range(3))]) == 0
    assert {seed: Path(f"runs/td3bc_{seed}/metrics.jsonl").read_bytes() for seed in range(3)} == whole
    capsys.readouterr()
    assert main(["resume", "alone"]) == 0
    assert "engine was stacked and is auto: sums may round differently from here on" in capsys.readouterr().out
    assert_alike("alone", "runs/td3bc_1")
    assert json.loads(Path("alone/result.json").read_text())["changes"][0]["setting"] == "engine"


def test_a_run_that_ends_or_fails_leaves_the_others(capsys: Any) -> None:
    runs = [["agent=td3bc", f"seed={seed}", *SMALL, f"out=r{seed}"] for seed in range(3)]
    runs[0].append("total_timesteps=30")
    runs[1].append("agent.learning_rate=1e30")
    with pytest.raises(UserError, match=r"r1: .* became"):
        rlkit.train_together(runs)
    assert [len(log(f"r{seed}")) for seed in (0, 2)] == [3 + 1 + 1, 5 + 2 + 1]
    assert Path("r2/result.json").exists() and not Path("r1/result.json").exists()


def test_agents_are_trained_in_memory() -> None:
    data = toy.generate(size=600)
    small = {"batch_size": 16, "hidden_sizes": (8, 8), "device": "cpu"}
    agents = [TD3BC("MlpPolicy", data, seed=seed, alpha=alpha, **small) for seed in (0, 1) for alpha in (1.0, 2.5)]
    seen: list[int] = []
    calls = [lambda own, _: seen.append(1) or True, None, None, None]
    found = rlkit.train_together(agents, 25, callbacks=calls, log_interval=10)
    assert found == agents and len(seen) == 25 and all(agent.num_timesteps == 25 for agent in agents)
    alone = TD3BC("MlpPolicy", data, seed=1, alpha=2.5, **small).learn(25, log_interval=10)
    seen_there = data.observations[:50]
    np.testing.assert_allclose(agents[3].predict(seen_there)[0], alone.predict(seen_there)[0], atol=5e-3)
    agents[3].learn(5, reset_num_timesteps=False)  # on alone
    assert agents[3].num_timesteps == 30 and agents[2].num_timesteps == 25


def test_results_come_back_and_settings_may_be_mappings() -> None:
    settings = dict(part.split("=", 1) for part in SMALL)
    found = rlkit.train_together([{"agent": "bc", **settings, "seed": s, "out": f"m{s}"} for s in (0, 1)], 20)
    assert [one["seed"] for one in found] == [0, 1] and all(one["updates"] == 20 for one in found)


def test_what_cannot_be_one_program_is_grouped_and_said(capsys: Any) -> None:
    sizes = "out='runs/${agent.batch_size}_${seed}'"
    assert main(["train", "agent=bc", "seed=0,1", *SMALL, "agent.batch_size=8,16", "-m", "engine=stacked", sizes]) == 0
    told = "4 runs in 2 programs of 2, 2; agent.batch_size is 8 in one run and 16 in another"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["agent=bc", "agent.hidden_sizes=[8],[4]"], "no two of these runs can be one program: agent.hidden_sizes is"),
        (
            ["agent=beer", "env=inverted-pendulum", "seed=0,1"],
            "engine=stacked is for agents that learn from a dataset alone, agent=beer",
        ),
        (["agent=bc", "threads=1,2"], "threads differs between runs of one process"),
        (["agent=bc", "seed=0,1", "hydra/launcher=basic"], "engine=stacked runs the whole sweep in one process"),
        (
            ["agent=bc", "seed=0,1", "engine=stackd"],
            "engine=stackd is unknown, expected one of auto, eager, graph, stacked",
        ),
        (["agent=bc", "seed=0,1", "engine=graph"], "engine=graph is for a GPU, this run is on device=cpu"),
        (["agent=bc", "seed=0,1", "precision=tf32"], "precision=tf32 is for a GPU, this run is on device=cpu"),
    ],
)
def test_bad_input(arguments: list[str], sentence: str, capsys: Any) -> None:
    names = {part.partition("=")[0] for part in arguments}
    usual = [part for part in SMALL if part.partition("=")[0] not in names]
    if "agent=beer" in arguments:
        usual = [part for part in usual if not part.startswith(("agent.", "env."))]
    engine = [] if "engine" in names else ["engine=stacked"]
    key = next(name for name in ("agent.hidden_sizes", "threads", "seed") if name in names)
    out = "out='bad/${" + key + "}'" if key != "agent.hidden_sizes" else "out='bad/${agent.hidden_sizes[0]}'"
    code = main(["train", *arguments, *usual, *engine, "-m", out])
    assert code == 2 and sentence in capsys.readouterr().err and not Path("bad").exists()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: rlkit.train_together([]), "needs agents or runs, got none"),
        (lambda: rlkit.train_together(["agent=bc"]), "a run is 'agent=bc', expected its settings"),
        (lambda: rlkit.train_together([made(), made()]), "needs total_timesteps"),
        (lambda: rlkit.train_together([made()] * 2, 5), "an agent is given twice|the same agent is given twice"),
        (lambda: rlkit.train_together([made(), made()], 5, callbacks=[None]), "callbacks= has 1 entries for 2 agents"),
        (lambda: rlkit.train_together([["agent=bc", *SMALL]], callbacks=[None]), "callbacks= are for agents"),
    ],
)
def test_bad_arguments(call: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        call()


def made() -> Any:
    return BC("MlpPolicy", toy.generate(size=100), batch_size=8, hidden_sizes=(4,), device="cpu")


def test_every_offline_agent_says_in_what_its_runs_may_differ() -> None:
    for name in agent_names():
        cls = agent_class(name)
        if issubclass(cls, OfflineAlgorithm):
            assert {"learning_rate", *cls.Config.VARYING} <= set(cls.Config.__dataclass_fields__)
    assert "beta" in PRDC.Config.VARYING


def test_a_signal_ends_all_of_them_with_checkpoints() -> None:
    code = "import sys, toy; from rlkit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "train", "agent=td3bc", "seed=0,1", *SWEEP, "total_timesteps=1000000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    for _ in range(600):
        if Path("runs/td3bc_1/checkpoints").exists() and any(Path("runs/td3bc_1/checkpoints").iterdir()):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and out.count("continue with: rlkit resume") == 2
    saved = [max(p.stem for p in Path(f"runs/td3bc_{seed}/checkpoints").iterdir()) for seed in (0, 1)]
    steps = [int(name.removeprefix("step_")) for name in saved]
    assert abs(steps[0] - steps[1]) <= 1  # it may come between their turns


@pytest.mark.parametrize("name", ["td3bc", "iql"])
def test_evaluations_beside_learning_give_the_same_log(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where learning goes on meanwhile; here it is asked for."""
    run = ["train", f"agent={name}", *SMALL, "log_every=5"]
    assert main([*run, "out=waiting"]) == 0
    assert main(["train", f"agent={name}", "seed=0,1", *SWEEP, "log_every=5"]) == 0
    monkeypatch.setattr("rlkit.run.session.beside", lambda *_: True)
    monkeypatch.setattr("rlkit.run.together.beside", lambda *_: True)
    evaluations: list[str] = []
    call = Evaluator.__call__

    def slow(self: Any, agent: Any, index: int = 0) -> Any:
        evaluations.append(threading.current_thread().name)
        time.sleep(0.2)
        return call(self, agent, index)

    monkeypatch.setattr(Evaluator, "__call__", slow)
    assert main([*run, "out=beside"]) == 0
    assert Path("beside/metrics.jsonl").read_bytes() == Path("waiting/metrics.jsonl").read_bytes()
    assert sum(thread != "MainThread" for thread in evaluations) == 2  # and the final one, which is waited for
    found, wanted = (json.loads(Path(run, "result.json").read_text()) for run in ("beside", "waiting"))
    assert found["evaluations"] == wanted["evaluations"] and found["final"] == wanted["final"]
    assert main(["train", f"agent={name}", "seed=0,1", *SWEEP, "log_every=5", "out='again/${seed}'"]) == 0
    for seed in (0, 1):
        assert (
            Path(f"again/{seed}/metrics.jsonl").read_bytes() == Path(f"runs/{name}_{seed}/metrics.jsonl").read_bytes()
        )


def test_an_evaluation_beside_learning_that_fails_ends_its_run(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("rlkit.run.session.beside", lambda *_: True)

    def fails(self: Any, agent: Any, index: int = 0) -> Any:
        raise UserError("return of the evaluation is nan")

    monkeypatch.setattr(Evaluator, "__call__", fails)
    assert main(["train", "agent=bc", *SMALL, "out=failing"]) == 2
    assert capsys.readouterr().err == "rlkit: return of the evaluation is nan\n"


def test_a_gpu_that_is_too_small_is_told_by_how_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it can be tried without one: what it has, what the runs took, and the error are made up."""
    gib = 2**30

    def full(self: Any, learners: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(Stack, "__init__", full)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * gib))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 72 * gib)
    agents = [made() for _ in range(36)]
    told = "36 runs do not fit together in the 80 GiB of cpu, each takes 2.00: expected about 35 at most"
    with pytest.raises(UserError, match=told):
        rlkit.train_together(agents, 5)
