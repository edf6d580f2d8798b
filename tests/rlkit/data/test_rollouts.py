"""Processes that step slices of a batch give the bytes that one process gives, and end with it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from rlkit.data import behaviour_rollouts, generate, rollouts
from rlkit.data.actors import Uniform, load_behaviour
from rlkit.data.cache import generated
from rlkit.data.records import env_facts
from rlkit.errors import DataError
from rlkit.registry import record
from rlkit.vector import make_vector_env

COUNT = 30


def hopper_actor() -> Any:
    observation_space, action_space, _ = env_facts("Hopper-v5")
    assert observation_space.shape is not None
    return load_behaviour(generate.BEHAVIOURS / "hopper_medium.safetensors", observation_space.shape[0], action_space)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "size", "jobs"),
    [
        ("hopper-medium-expert", 6_500, (2,)),  # two shares of three environments
        ("walker2d-medium", 4_500, (3,)),
        ("halfcheetah-random", 2_000, (99,)),  # no more processes than environments
    ],
)
def test_the_bytes_do_not_depend_on_the_number_of_processes(name: str, size: int, jobs: tuple[int, ...]) -> None:
    one = behaviour_rollouts(record(name), size=size, seed=2, jobs=1)
    for several in (None, *jobs):
        found = behaviour_rollouts(record(name), size=size, seed=2, jobs=several)
        assert found.content_hash == one.content_hash
        assert found.provenance == one.provenance


def test_long_data_takes_all_cores_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    hired: list[int] = []
    crew = generate.Crew
    monkeypatch.setattr(generate, "Crew", lambda *args: hired.append(args[-1]) or crew(*args))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    wanted = behaviour_rollouts(record("hopper-random"), size=4_000).content_hash
    assert hired == []
    monkeypatch.setattr(generate, "WORTH", 4_000)
    assert behaviour_rollouts(record("hopper-random"), size=4_000).content_hash == wanted
    assert hired == [3]


@pytest.mark.parametrize("units", [rollouts.UNITS, ()])
@pytest.mark.parametrize("bounds", [(0, COUNT), (0, 1, 12, 17, COUNT), (0, 7, 29, COUNT)])
def test_slices_make_up_the_whole(
    units: tuple[int, ...], bounds: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a batch is cut, and where no smaller product rounds alike, too."""
    monkeypatch.setattr(rollouts, "UNITS", units)
    actor = hopper_actor()
    blocks = []
    for cut in (bounds, (0, COUNT)):
        parts = []
        for first, last in itertools.pairwise(cut):
            env = make_vector_env("Hopper-v5", last - first, num_threads=1)
            part = rollouts.Slice(env, actor, np.random.default_rng(3), 11, COUNT, first, last)
            assert units or part.seen.shape == (COUNT, 11)
            parts.append(np.concatenate([part.block(50), part.block(30)]))
            env.close()
        blocks.append(np.concatenate(parts, axis=1))
    assert blocks[0].tobytes() == blocks[1].tobytes()

    env = make_vector_env("Hopper-v5", COUNT)
    states = env.reset(seed=11)[0].astype(np.float32)
    generator = np.random.default_rng(3)
    for row in blocks[0]:
        actions = actor(states, generator)
        states, *rest = env.step(actions)
        states = states.astype(np.float32)
        for name, values in zip(rollouts.FIELDS, (actions, *rest[:3], states), strict=True):
            np.testing.assert_array_equal(row[name], values.astype(row[name].dtype))
    env.close()


class Crowd:
    """Rows are rounded by how many there are: ``rule`` says which, bool ``[B]``, are rounded up."""

    def __init__(self, rule: Any):
        self.rule = rule

    def draw(self, generator: np.random.Generator, count: int) -> np.ndarray:
        return np.zeros((count, 1), np.float32)

    def act(self, observations: np.ndarray, noise: np.ndarray) -> np.ndarray:
        up = self.rule(np.arange(len(observations)), len(observations))[:, None]
        return observations[:, :1] * np.where(up, np.float32(1 + 2**-23), np.float32(1))

    def __call__(self, observations: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return self.act(observations, noise=self.draw(generator, len(observations)))


def test_a_window_is_as_small_as_rounding_allows() -> None:
    eights = Crowd(lambda row, count: row < count // 8 * 8)  # a kernel of eight rows, and another for what is left
    assert rollouts.window(eights, 30, 17, 19, 3) == (16, 24)
    assert rollouts.window(eights, 30, 20, 25, 3) == (16, 30)
    assert rollouts.window(eights, 30, 26, 28, 3) == (26, 28)
    fives = Crowd(lambda row, count: row < count // 5 * 5)  # no unit that is tried
    assert rollouts.window(fives, 30, 29, 30, 3) == (0, 30)
    sizes = Crowd(lambda row, count: np.full(count, count == 30))  # another kernel for products so small
    assert rollouts.window(sizes, 30, 3, 4, 3) == (0, 30)
    uniform = Uniform(env_facts("Hopper-v5")[1])  # type: ignore[arg-type]
    assert rollouts.window(uniform, 30, 7, 9, 11) == (7, 9)


def test_processes_that_cannot_start_or_end_early(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    wanted = behaviour_rollouts(record("hopper-random"), size=2_000, jobs=1).content_hash
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert behaviour_rollouts(record("hopper-random"), size=2_000, jobs=2).content_hash == wanted
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DataError, match="a process that steps Hopper-v5 ended with exit code 1; its output says why"):
        behaviour_rollouts(record("hopper-random"), size=2_000, jobs=2)


def test_processes_end_with_what_they_work_for() -> None:
    env = make_vector_env("Hopper-v5", 4)
    with closing(rollouts.Crew(env, "Hopper-v5", {}, 2)) as crew:
        first, steps = crew.play(None, [0, 1], 5)
        np.testing.assert_array_equal(first, env.reset(seed=5)[0].astype(np.float32))
        assert len(next(steps)) == len(rollouts.FIELDS)
        steps.close()  # type: ignore[attr-defined]
        again, steps = crew.play(None, [0, 1], 5)  # what was asked for and not taken does not get in the way
        assert again.tobytes() == first.tobytes()
        next(steps)
        crew.processes[0].send_signal(signal.SIGKILL)
        with pytest.raises(DataError, match="exit code -9"):
            for _ in range(10_000):
                next(steps)
    assert all(process.returncode is not None for process in crew.processes)
    env.close()
    command = [sys.executable, "-m", "rlkit.data.rollouts"]
    assert subprocess.run(command, input=b"", check=False).returncode == 0  # nobody is left to tell it anything


def test_jobs_of_other_generators_and_out_of_range() -> None:
    with pytest.raises(DataError, match="size 10, seed 0 and jobs 0, expected size > 0, seed >= 0, jobs > 0"):
        behaviour_rollouts(record("hopper-random"), size=10, jobs=0)
    maze = record("rlkit-pointmaze-umaze")
    assert generated(maze, size=500, jobs=2, force=True).content_hash == generated(maze, size=500).content_hash
    mixed = record("hopper-random-few")
    first = generated(mixed, size=2_000, jobs=2)
    assert len(first) > 2_000
