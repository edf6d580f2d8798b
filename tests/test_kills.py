"""Runs stopped at random moments, in every way, over all agents: each goes on to the bytes of the run left alone.

``RLKIT_KILLS=100 pytest -m slow tests/test_kills.py`` stops that many runs (else 20); ``RLKIT_KILLS_SEED`` says which.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from rlkit import registry
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.run import folder

COMMAND = "import sys, toy; from rlkit.cli import main; sys.exit(main(sys.argv[1:]))"
KILLS, SEED = int(os.environ.get("RLKIT_KILLS", "20")), int(os.environ.get("RLKIT_KILLS_SEED", "0"))
KINDS = ("SIGKILL", "SIGTERM", "two at once", "full disk")
REFUSALS = ("another process", "is not empty")  # what the second of two processes is told
SHORT = ["progress_bar=false", "eval_episodes=2", "final_episodes=2"]
OFFLINE = ["env=point-noisy", "total_timesteps=1200", "log_every=20", "eval_every=200", "checkpoint_every=50"]
OFFLINE += ["agent.batch_size=32", "agent.hidden_sizes=[32,32]"]
ONLINE = ["env=hopper", "total_timesteps=900", "log_every=50", "eval_every=200", "checkpoint_every=100"]
ONLINE += ["agent.hidden_sizes=[16,16]"]
LEARNT = ["agent.batch_size=16", "agent.buffer_size=500", "agent.learning_starts=40"]
ROBUST = ["log_every=20", "eval_every=100", "checkpoint_every=20"]
SOLVER = ["env=tsp", "env.kwargs.num_nodes=6", "agent.batch_size=8", "log_every=2", "eval_every=20"]
SOLVER += ["checkpoint_every=10", "total_timesteps=150"]
CONTEXTS = ["env=contextual-cartpole", "agent.n_contexts=4", "agent.budget=3", "agent.episodes=2", "eval_every=512"]
CONTEXTS += ["agent.task_timesteps=512", "agent.select_every=256", "checkpoint_every=512"]
SETTINGS = {
    "beer": [*ONLINE, *LEARNT, "agent.rank_interval=50"],
    "vagram": [*ONLINE, *LEARNT, "agent.model_hidden_sizes=[16]", "agent.termination=never", "agent.refit_every=100"],
    "orpo": [*ONLINE, "agent.n_envs=2", "agent.n_steps=32", "agent.batch_size=32", "agent.disc_hidden_sizes=[16]"],
    "drrpo": ["env=linear-mdp", "total_timesteps=600", *ROBUST],
    "drrpo-features": [
        "env=contextual-cartpole",
        "total_timesteps=60",
        "agent.centres=8",
        "agent.refit_every=4",
        *ROBUST,
    ],
    "mbtl": [*CONTEXTS, "agent.learner_kwargs={n_steps: 16, batch_size: 64}"],
    "bq": [*SOLVER, "agent.width=16", "agent.layers=2", "agent.heads=2", "agent.feedforward=32", "agent.train_size=12"],
    "ptrnet": [*SOLVER, "agent.hidden_size=16", "agent.train_size=16"],
}
SETTINGS["vagram"] += ["agent.rollout_batch=50", "agent.patience=1", "agent.updates_per_step=1"]
SETTINGS["orpo"] += ["agent.n_epochs=2", "agent.trim=0.02", "agent.calibration_steps=200"]


def settings(agent: str) -> list[str]:
    offline = issubclass(registry.agent_class(agent), OfflineAlgorithm)
    return [f"agent={agent}", *(OFFLINE if offline else SETTINGS[agent]), *SHORT]


def start(cwd: Path, *argv: str, before: Callable[[], Any] | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent), "OMP_NUM_THREADS": "1"}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", COMMAND, *argv]
    return subprocess.Popen(command, cwd=cwd, env=environment, preexec_fn=before, **streams)


def finish(process: subprocess.Popen[str], *codes: int) -> str:
    output, errors = process.communicate(timeout=600)
    assert process.returncode in codes, output + errors
    assert "Traceback" not in errors, errors
    return errors


@pytest.fixture(scope="session")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, float]]:
    """The run of an agent that nothing disturbed, and the seconds from its first file to its end; made once."""
    made: dict[str, tuple[Path, float]] = {}

    def whole(agent: str) -> tuple[Path, float]:
        if agent not in made:
            cwd = tmp_path_factory.mktemp(agent)
            process = start(cwd, "train", *settings(agent), "out=r")
            begun = _begun(process, cwd / "r")
            finish(process, 0)
            made[agent] = cwd / "r", time.monotonic() - begun
        return made[agent]

    return whole


def _begun(process: subprocess.Popen[str], out: Path) -> float:
    while not (out / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.005)
    return time.monotonic()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
def test_a_stopped_run_goes_on_to_the_same_bytes(number: int, wholes: Any, tmp_path: Path) -> None:
    agents = registry.agent_names()
    agent, kind = agents[(number + SEED) % len(agents)], KINDS[number % len(KINDS)]
    random = np.random.default_rng([SEED, number])
    whole, seconds = wholes(agent)
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    out = tmp_path / "r"
    verb = ["train", *settings(agent), "out=r"]
    for _ in range(int(random.integers(1, 4))):
        if kind == "full disk":
            limit = int(np.exp(random.uniform(np.log(1_500), np.log(1.02 * largest))))
            full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
            errors = finish(start(tmp_path, *verb, before=full), 0, 2)
            assert all(line.startswith("rlkit: ") for line in errors.splitlines()), errors
        else:
            process = start(tmp_path, *verb)
            _begun(process, out)
            time.sleep(random.uniform(0, seconds))
            process.send_signal(signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL)
            # a SIGTERM that comes when all is written finds nobody to answer it
            finish(process, 0, *((143, -signal.SIGTERM) if kind == "SIGTERM" else (-signal.SIGKILL,)))
        if (out / "config.yaml").exists():
            verb = ["resume", "r"]
        elif out.exists():
            verb = ["train", *settings(agent), "out=r", "overwrite=true"]
    processes = [start(tmp_path, *verb) for _ in range(2 if kind == "two at once" else 1)]
    for errors in [finish(process, 0, 2 if len(processes) == 2 else 0) for process in processes]:
        assert not errors.startswith("rlkit: ") or any(word in errors for word in REFUSALS), errors
    assert 0 in [process.returncode for process in processes]
    compare(whole, out)


def compare(whole: Path, out: Path) -> None:
    for name in ("metrics.jsonl", "model.rlk"):
        assert (whole / name).read_bytes() == (out / name).read_bytes(), name
    last = [read_artefact(folder.checkpoints(run / "checkpoints")[-1])[1:] for run in (whole, out)]
    for one, other in zip(*last, strict=True):
        assert one is not None and other is not None and one.keys() == other.keys()
        assert [key for key in one if one[key].numpy().tobytes() != other[key].numpy().tobytes()] == []
    results = [json.loads((run / "result.json").read_text()) for run in (whole, out)]
    for key in ("final", "evaluations", "config"):
        assert results[0].get(key) == results[1].get(key), key
    assert folder.foreign(out) == [] and not list(out.rglob("*.tmp")) and not (out / folder.FORMER).exists()


def test_every_agent_has_settings() -> None:
    for agent in registry.agent_names():
        assert settings(agent)
