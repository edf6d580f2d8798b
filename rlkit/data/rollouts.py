"""Rollouts of a policy in a batch of environments, stepped here or in processes beside this one.

The course of an environment follows from its seed and its actions, so processes can step slices of a batch without
waiting for each other, and the rows are the same in every bit.  Two things tie environments together: the noise, which
is drawn for the whole batch wherever a part of it is used, and the rounding of a product, which depends on how many
rows it has and where among them a row lies; see :func:`window`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.data.actors import Actor, Uniform, load_behaviour
from rlkit.errors import DataError
from rlkit.system.python import child
from rlkit.vector import make_vector_env

BLOCK = 32  # steps that a process hands over at once
AHEAD = 3  # blocks that it may be ahead
PROBES = 32  # batches in which two products are compared
PROBED = 2_000  # rows of a part that are compared at least
UNITS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)  # rows that the kernels of matrix products take at once

Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # observations [B, ds] -> actions [B, da]
Step = tuple[np.ndarray, ...]  # actions, rewards, terminations, truncations, and the observations after it, [E, ...]


def collect(
    env: gym.vector.VectorEnv,
    policy: Policy,
    size: int,
    generator: np.random.Generator,
    env_seed: int,
    tick: Callable[[int], Any] = lambda rows: None,
) -> dict[str, np.ndarray]:
    """``size`` transitions of ``policy`` in ``env``, stepped in this process; see :func:`in_order`."""
    observations, _ = env.reset(seed=env_seed)
    first = np.asarray(observations, dtype=np.float32)

    def steps() -> Iterator[Step]:
        states = first
        while True:
            actions = policy(states, generator)
            observations, rewards, terminations, truncations, _ = env.step(actions)
            states = np.array(observations, dtype=np.float32)
            yield actions, rewards.astype(np.float32), terminations, truncations, states

    return in_order(first, steps(), size, tick)


def in_order(first: np.ndarray, steps: Iterator[Step], size: int, tick: Callable[[int], Any]) -> dict[str, np.ndarray]:
    """Exactly ``size`` transitions, episodes one after another, as one environment would give.

    ``first``: the observations ``[E, ds]`` after a reset of all environments; ``steps``: what follows, where the step
    after an episode's end resets that environment.  ``tick`` is told how many transitions each step has given.

    Episodes are numbered in the order in which they start and laid out in that order; the last one is cut (and
    flagged as truncated) where ``size`` is reached.  An episode gets its number before anything of it is known, so
    numbering is blind to length, and the rows are distributed as those of a single environment run for ``size`` steps.
    Keeping whichever episodes finish first would favour short ones; keeping a fixed share per environment would
    leave one cut episode for each of them.  The price is the work on episodes still running at the end.

    The result has the arrays of :class:`OfflineDataset`.
    """
    count = len(first)
    states = [first]  # [E, ds] per step, one more than the rest
    taken: list[tuple[np.ndarray, ...]] = []
    episode = np.arange(count)  # the number of the episode each environment is in
    lengths = np.zeros(max(4 * count, 1024), dtype=np.int64)
    finished = np.zeros_like(lengths, dtype=np.bool_)
    started, head, settled = count, 0, 0  # all episodes below `head` are over and hold `settled` rows together
    over = np.zeros(count, dtype=np.bool_)
    for actions, rewards, terminations, truncations, observations in steps:
        fresh = np.flatnonzero(over)  # these were reset by this step: no transition, a new episode
        if started + len(fresh) > len(lengths):
            lengths = np.concatenate((lengths, np.zeros_like(lengths)))
            finished = np.concatenate((finished, np.zeros_like(finished)))
        episode[fresh] = np.arange(started, started + len(fresh))
        started += len(fresh)
        live = ~over
        taken.append((actions, rewards, terminations & live, truncations & live, np.where(live, episode, -1)))
        states.append(observations)
        lengths[episode[live]] += 1
        over = (terminations | truncations) & live
        finished[episode[over]] = True
        tick(int(live.sum()))
        while finished[head]:
            settled += int(lengths[head])
            head += 1
        if settled + lengths[head] >= size:
            break

    numbers = np.stack([step[4] for step in taken]).ravel()  # [T * E], -1 where nothing happened
    order = np.argsort(numbers, kind="stable")[(numbers < 0).sum() :][:size]  # by episode, then by time
    flat = np.concatenate(states)  # [(T + 1) * E, ds]
    states.clear()
    rows = {"observations": flat[order], "next_observations": flat[order + count]}
    for index, name in enumerate(("actions", "rewards", "terminations", "truncations")):
        rows[name] = np.concatenate([step[index] for step in taken])[order]
    rows["truncations"][-1] |= not rows["terminations"][-1]
    return rows


# ---- a slice of a batch ----------------------------------------------------------------------------------------------


def window(actor: Actor, count: int, first: int, last: int, observation_size: int) -> tuple[int, int]:
    """Rows around ``first`` to ``last`` (exclusive) that ``actor`` can act for alone as it would for all ``count``.

    The order of a product's sums follows from its shape and not from its numbers.  So where random numbers give the
    same bytes for rows of a part as for those rows of the whole, and do so again and again, the two are summed alike.
    The parts that are tried are bounded where kernels of products are; the whole batch always serves.
    """
    generator = np.random.default_rng(0)
    probes = []
    for _ in range(max(PROBES, PROBED // max(last - first, 1))):  # of few rows as many numbers as of many
        observations = generator.standard_normal((count, observation_size), dtype=np.float32)
        noise = actor.draw(generator, count)
        probes.append((observations, noise, actor.act(observations, noise)[first:last].tobytes()))
    for unit in UNITS:
        low, high = first // unit * unit, min(-(-last // unit) * unit, count)
        alike = (
            actor.act(seen[low:high], noise[low:high])[first - low : last - low].tobytes() == wanted
            for seen, noise, wanted in probes
        )
        if all(alike):
            return low, high
    return 0, count


FIELDS = ("actions", "rewards", "terminations", "truncations", "observations")


def slice_type(env: gym.vector.VectorEnv) -> np.dtype[np.void]:
    """A step of one of ``env``'s environments, as processes hand it over: :data:`FIELDS`."""
    shapes = {
        "actions": env.single_action_space.shape,
        "rewards": (),
        "observations": env.single_observation_space.shape,
    }
    return np.dtype([(name, "<f4", shapes[name]) if name in shapes else (name, "?") for name in FIELDS])


class Slice:
    """Environments ``first`` to ``last`` (exclusive) of a batch of ``count``, begun with the seeds they have in it.

    ``env`` holds these environments alone; ``observations`` are theirs, float32 ``[n, ds]``.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv,
        actor: Actor,
        generator: np.random.Generator,
        env_seed: int,
        count: int,
        first: int,
        last: int,
    ):
        self.env, self.actor, self.generator, self.count = env, actor, generator, count
        seeds: Any = [env_seed + row for row in range(first, last)]
        observations, _ = env.reset(seed=seeds)
        self.observations = np.asarray(observations, dtype=np.float32)
        width = self.observations.shape[1]
        low, high = window(actor, count, first, last, width)
        self.drawn, self.own = slice(low, high), slice(first - low, last - low)
        self.seen = np.zeros((high - low, width), np.float32)  # other environments' rows stay 0
        self.type = slice_type(env)

    def block(self, steps: int) -> np.ndarray:
        """The next ``steps`` steps, ``[T, n]`` of :func:`step_type`."""
        found = np.empty((steps, len(self.observations)), self.type)
        for row in found:
            self.seen[self.own] = self.observations
            noise = self.actor.draw(self.generator, self.count)[self.drawn]
            actions = self.actor.act(self.seen, noise)[self.own]
            observations, rewards, terminations, truncations, _ = self.env.step(actions)
            for name, values in zip(FIELDS, (actions, rewards, terminations, truncations, observations), strict=True):
                row[name] = values
            self.observations = row["observations"]
        return found


def serve() -> None:
    """What ``python -m rlkit.data.rollouts`` does: steps slices as it is told on stdin, until that ends.

    A line of JSON begins a slice and is answered with its observations; an empty line is answered with a block.
    """
    from threadpoolctl import threadpool_limits

    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints
    env: Any = None
    playing: Any = None
    with threadpool_limits(limits=1, user_api="blas"):
        for line in sys.stdin:
            if line.strip():
                told = json.loads(line)
                count, first, last = told["rows"]
                if env is None:  # all slices of a process are of the same environments
                    env = make_vector_env(told["env_id"], last - first, num_threads=1, **told["env_kwargs"])
                space = env.single_action_space
                size = env.single_observation_space.shape[0]
                actor = Uniform(space) if told["file"] is None else load_behaviour(Path(told["file"]), size, space)
                generator = np.random.default_rng(np.random.SeedSequence(told["stream"]))
                playing = Slice(env, actor, generator, told["env_seed"], count, first, last)
                found = playing.observations
            else:
                found = playing.block(BLOCK)
            try:
                replies.write(found.tobytes())
                replies.flush()
            except BrokenPipeError:  # the parent is no more
                os._exit(1)


class Crew:
    """``jobs`` processes, each with a slice of environments like ``env``'s, which are ``env_id`` with ``env_kwargs``.

    Raises OSError where processes cannot be started.  To be closed.
    """

    def __init__(self, env: gym.vector.VectorEnv, env_id: str, env_kwargs: Mapping[str, Any], jobs: int):
        bounds = np.linspace(0, env.num_envs, jobs + 1).astype(np.int64).tolist()
        self.rows = [(env.num_envs, first, last) for first, last in itertools.pairwise(bounds)]
        self.told = {"env_id": env_id, "env_kwargs": dict(env_kwargs)}
        self.type = slice_type(env)
        self.processes: list[subprocess.Popen[bytes]] = []
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        try:
            for _ in self.rows:
                # a session of their own: Ctrl-C is for the parent, who ends them
                command = child("-m", "rlkit.data.rollouts")
                self.processes.append(subprocess.Popen(**command, start_new_session=True, **pipes))
        except OSError:
            self.close()
            raise

    def play(
        self, file: Path | None, stream: list[int], env_seed: int
    ) -> tuple[np.ndarray, Generator[Step, None, None]]:
        """Observations of a reset, ``[E, ds]``, and the steps that follow, of the policy in ``file`` or random.

        The iterator is to be closed before the next call.
        """
        told = {**self.told, "file": None if file is None else str(file), "stream": stream, "env_seed": env_seed}
        for process, rows in zip(self.processes, self.rows, strict=True):
            self._tell(process, json.dumps({**told, "rows": rows}) + AHEAD * "\n" + "\n")
        width = self.type["observations"].shape
        first = np.concatenate([self._read(k, "<f4", lambda n: (n, *width)) for k in range(len(self.rows))])  # [E, ds]
        return first, self._steps()

    def _steps(self) -> Generator[Step, None, None]:
        while True:
            block = self._block()
            for process in self.processes:
                self._tell(process, "\n")
            try:
                for row in block:  # [E]
                    yield tuple(row[name] for name in FIELDS)
            except GeneratorExit:
                for _ in range(AHEAD):  # asked for and not needed
                    self._block()
                raise

    def _block(self) -> np.ndarray:
        parts = [self._read(k, self.type, lambda n: (BLOCK, n)) for k in range(len(self.rows))]
        return np.concatenate(parts, axis=1)  # [T, E]

    def _tell(self, process: subprocess.Popen[bytes], text: str) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reading says why
            process.stdin.write(text.encode())
            process.stdin.flush()

    def _read(self, which: int, type_: Any, shape: Callable[[int], tuple[int, ...]]) -> np.ndarray:
        _, first, last = self.rows[which]
        process = self.processes[which]
        assert process.stdout is not None
        wanted = math.prod(shape(last - first)) * np.dtype(type_).itemsize
        data = process.stdout.read(wanted)
        if len(data) < wanted:
            code = process.wait()
            raise DataError(
                f"a process that steps {self.told['env_id']} ended with exit code {code}; its output says why"
            )
        return np.frombuffer(data, type_).reshape(shape(last - first))

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.communicate()


if __name__ == "__main__":
    serve()
