"""Rows about what surrounds an update: sampling, stepping environments, starting the command line."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlkit.bench.measure import Line, Settings, Side, alternate, cores

TASKS = ("hopper", "halfcheetah", "walker2d", "ant")
NUM_ENVS = 16
PLAN = 256  # different action batches, repeated


def sampling(settings: Settings, task: str = "hopper") -> list[Line]:
    """A batch as tensors from our replay and from SB3's, holding the same rows."""
    from stable_baselines3.common.buffers import ReplayBuffer

    from rlkit.algorithms.replay import Replay
    from rlkit.bench.data import bench_data

    note = f"{task}, {settings.rows:,} rows, batch {settings.batch_size}"
    data = bench_data(task, settings.rows)
    ours = Replay.from_dataset(data)
    theirs = ReplayBuffer(len(data), data.observation_space, data.action_space, device="cpu")
    theirs.observations[:, 0], theirs.next_observations[:, 0] = data.observations, data.next_observations
    theirs.actions[:, 0], theirs.rewards[:, 0] = data.actions, data.rewards
    theirs.dones[:, 0], theirs.timeouts[:, 0] = data.terminations | data.truncations, data.truncations
    theirs.full = True

    def repeat(draw: Callable[[int], object]) -> Callable[[int], None]:
        def run(n: int) -> None:
            for _ in range(n):
                draw(settings.batch_size)

        return run

    with cores(settings.threads):
        sides = {"sample": repeat(ours.sample), "batch": repeat(ours.batch), "peer": repeat(theirs.sample)}
        times = alternate({name: Side(run) for name, run in sides.items()}, settings)
    return [
        Line("sampling", what, "batch", goal=goal, ours=times[side], peer=times["peer"], note=remark)
        for side, what, goal, remark in (
            ("batch", "batch(), as our agents draw, against SB3's sample()", 3.0, note),
            ("sample", "sample(), SB3's signature, against SB3's sample()", 3.0, note),
        )
    ]


def stepping(settings: Settings) -> list[Line]:
    """The batched stepper and Gymnasium's loop, 16 environments each, the same random actions."""
    import gymnasium as gym

    def sync(env_id: str) -> Any:
        return gym.make_vec(env_id, num_envs=NUM_ENVS, vectorization_mode="sync")

    return _stepping("stepping", "SyncVectorEnv", 2.4, sync, settings)


def envpool(settings: Settings) -> list[Line]:
    """The batched stepper and EnvPool, 16 environments each, as many threads each, the same random actions."""
    try:
        peer = importlib.import_module("envpool")
    except ModuleNotFoundError as error:
        if error.name != "envpool":
            raise
        why = "not measured: EnvPool is not installed (pip install envpool, wheels for Linux only)"
        return [Line("stepping-envpool", "MuJoCo, against EnvPool", "vector step", goal=1.0, skipped=why)]

    def pool(env_id: str) -> Any:
        return peer.make_gymnasium(env_id, num_envs=NUM_ENVS, num_threads=settings.stepping_threads, seed=0)

    return _stepping("stepping-envpool", f"EnvPool {peer.__version__}", 1.0, pool, settings)


def _stepping(row: str, name: str, goal: float, make: Callable[[str], Any], settings: Settings) -> list[Line]:
    import numpy as np

    from rlkit import registry
    from rlkit.vector import make_vector_env

    lines = []
    for task in TASKS:
        env_id = registry.record(task).env_id
        ours = make_vector_env(env_id, NUM_ENVS, num_threads=settings.stepping_threads)
        theirs = make(env_id)
        space: Any = ours.single_action_space
        generator = np.random.default_rng(0)
        plan = generator.uniform(space.low, space.high, (PLAN, NUM_ENVS, *space.shape)).astype(np.float32)
        times = alternate({"ours": Side(_steps(ours, plan)), "peer": Side(_steps(theirs, plan))}, settings)
        what = f"{env_id}, {NUM_ENVS} envs, {settings.stepping_threads} threads, against {name}"
        line = Line(row, what, "vector step", goal=goal, ours=times["ours"], peer=times["peer"])
        line.note = f"{NUM_ENVS / times['ours'].median:,.0f} steps a second; uniformly random actions, resets included"
        lines.append(line)
        ours.close()
        theirs.close()
    return lines


def _steps(env, plan) -> Callable[[int], None]:  # type: ignore[no-untyped-def]  # annotations would import NumPy
    env.reset(seed=0)
    position = 0

    def run(n: int) -> None:
        nonlocal position
        for _ in range(n):
            env.step(plan[position % len(plan)])
            position += 1

    return run


def help_start(settings: Settings) -> list[Line]:
    """Wall time of ``rlkit --help`` and of ``import torch``, each in a process of its own."""
    script = Path(sys.executable).with_name("rlkit")
    if script.exists():
        command = [str(script), "--help"]
    else:
        command = [sys.executable, "-c", "import sys; from rlkit.cli import main; sys.exit(main(['--help']))"]

    def repeat(arguments: list[str]) -> Callable[[int], None]:
        def run(n: int) -> None:
            for _ in range(n):
                subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)

        return run

    for arguments in (command, [sys.executable, "-c", "import torch"]):
        repeat(arguments)(1)  # the first start reads the files from disk
    sides = {
        "ours": Side(repeat(command), block=1),
        "peer": Side(repeat([sys.executable, "-c", "import torch"]), block=1),
    }
    times = alternate(sides, settings)
    line = Line("help", "rlkit --help, against python -c 'import torch'", "start", "fraction", goal=0.3)
    line.ours, line.peer = times["ours"], times["peer"]
    return [line]
