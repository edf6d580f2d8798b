"""Stand-in datasets for mazes: a controller that follows the shortest way through the cells, with noise.

As in D4RL (Fu et al. 2020) and Minari's pointmaze, a PD controller of gains 10 and -1 drives the ball from the middle
of one cell to the next, with Gaussian noise of standard deviation 0.5 on its actions.  It pursues the goal that it
observes; in a task that shows no goal, as Maze2D, it wanders from one random place to another and is rewarded when it
happens to be at the task's own.  Unlike theirs it remembers nothing of the way: where to go follows from the cell it is
in, so the noise-free controller is a function of the observation.

``python -m rlkit.data.navigation`` measures the reference returns that :mod:`rlkit.envs.records.navigation` holds.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import deque
from typing import Any, Protocol, no_type_check, runtime_checkable

import numpy as np
from numba import njit

from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.data.records import env_facts, record_fields, require_boxes
from rlkit.data.rollouts import collect
from rlkit.errors import DataError
from rlkit.registry import EnvRecord, records
from rlkit.vector import make_vector_env, play_episodes

ALGORITHM = 1  # raised whenever the same record, size and seed would give other rows
GAIN, BRAKE = 10.0, -1.0  # per metre and per metre a second
NOISE = 0.5
ARRIVAL = 0.45  # m from the place it pursues at which a wandering controller chooses the next
MAX_ENVS = 100
MEASURED_EPISODES = 2000


@runtime_checkable
class Maze(Protocol):
    """What the controller knows of a maze: see ``rlkit.envs.mazes.point_maze.Maze``."""

    walls: np.ndarray  # bool [I, J]
    origin: np.ndarray  # float64 [2]
    cells: np.ndarray  # float64 [C, 2]
    goal: np.ndarray  # float64 [2]


@functools.lru_cache(maxsize=32)
def _routes(packed: bytes, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    walls = np.frombuffer(packed, np.bool_).reshape(shape)
    number = np.full(shape, -1, np.int64)  # [I, J]: of a free cell, in the order of np.argwhere
    free = np.argwhere(~walls)
    number[tuple(free.T)] = np.arange(len(free))
    towards = np.full((len(free), len(free)), -1, np.int64)  # [C, C]
    for goal, start in enumerate(free):
        towards[goal, goal] = goal
        queue = deque([tuple(start)])
        while queue:
            i, j = queue.popleft()
            for cell in ((i + 1, j), (i, j + 1), (i - 1, j), (i, j - 1)):  # a fixed order breaks ties
                if number[cell] >= 0 and towards[goal, number[cell]] < 0:
                    towards[goal, number[cell]] = number[i, j]
                    queue.append(cell)
    return number, towards


def routes(maze: Maze) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the free cells, int64 ``[I, J]`` (-1 in walls), and the shortest ways, int64 ``[C, C]``.

    The second, by breadth-first search, holds at ``[goal, cell]`` the cell to go to next; ``cell`` itself at the goal,
    and -1 where there is no way.
    """
    return _routes(np.ascontiguousarray(maze.walls).tobytes(), maze.walls.shape)


@njit(cache=True, nogil=True)
@no_type_check
def _follow(observations, targets, number, towards, cells, origin, actions):
    """The noise-free controller: ``observations [B, >= 4]``, ``targets [B, 2]`` to ``actions [B, 2]``, not clipped."""
    for b in range(observations.shape[0]):
        x, y = float(observations[b, 0]), float(observations[b, 1])
        here = number[int(np.floor(x - origin[0])), int(np.floor(y - origin[1]))]
        goal = number[int(np.floor(targets[b, 0] - origin[0])), int(np.floor(targets[b, 1] - origin[1]))]
        onward = towards[goal, here]
        to_x, to_y = targets[b, 0], targets[b, 1]
        if onward != here:
            to_x, to_y = cells[onward, 0], cells[onward, 1]
        actions[b, 0] = GAIN * (to_x - x) + BRAKE * float(observations[b, 2])
        actions[b, 1] = GAIN * (to_y - y) + BRAKE * float(observations[b, 3])


class WaypointController:
    """Policy of ``B`` balls in one maze; see the module's docstring.

    Called with observations, float32 ``[B, 4]`` (position, velocity) or ``[B, 6]`` (and the goal), and a generator, it
    gives actions, float32 ``[B, 2]`` in [-1, 1]; without a generator it acts without noise.  Where the goal is not
    observed it pursues the maze's fixed goal, or wanders if ``wander``.  Raises :class:`DataError` for a maze with
    cells that cannot be reached.
    """

    def __init__(self, maze: Maze, wander: bool = False, position_noise: float = 0.0) -> None:
        self.maze, self.wander, self.position_noise = maze, wander, position_noise
        self.number, self.towards = routes(maze)
        if (self.towards < 0).any():
            raise DataError("waypoint controller: the maze has cells that cannot be reached from others")
        self._targets: np.ndarray | None = None

    def targets(self, observations: np.ndarray, generator: np.random.Generator | None) -> np.ndarray:
        """Where each ball is to go, float64 ``[B, 2]``."""
        if observations.shape[1] == 6:
            return observations[:, 4:].astype(np.float64)
        if not self.wander:
            return np.broadcast_to(self.maze.goal, (len(observations), 2))
        assert generator is not None, "wandering needs a generator"
        if self._targets is None:
            self._targets = observations[:, :2].astype(np.float64)  # it has arrived: chooses at once
        arrived = np.linalg.norm(self._targets - observations[:, :2], axis=1) <= ARRIVAL  # [B]
        count = int(arrived.sum())
        places = self.maze.cells[generator.integers(len(self.maze.cells), size=count)]
        noise = self.position_noise
        self._targets[arrived] = places + generator.uniform(-noise, noise, (count, 2))
        return self._targets

    def __call__(self, observations: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        actions = np.empty((len(observations), 2))
        targets = np.ascontiguousarray(self.targets(observations, generator))
        _follow(observations, targets, self.number, self.towards, self.maze.cells, self.maze.origin, actions)
        if generator is not None:
            actions += NOISE * generator.standard_normal(actions.shape)
        return np.clip(actions, -1.0, 1.0).astype(np.float32)


def fingerprint(record: EnvRecord) -> str:
    """What the rows depend on beside size and seed."""
    facts = [ALGORITHM, record.env_id, dict(record.env_kwargs), GAIN, BRAKE, NOISE, ARRIVAL, MAX_ENVS]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _environment(record: EnvRecord, count: int) -> tuple[Any, Any]:
    """``count`` environments of ``record``, and their task."""
    env: Any = make_vector_env(record.env_id, count, **record.env_kwargs)
    task = getattr(env.unwrapped, "task", None)
    if not hasattr(task, "maze"):
        raise DataError(f"'{record.name}' cannot be generated, {record.env_id} is no maze whose walls are known")
    return env, task


def waypoint_rollouts(
    record: EnvRecord, *, size: int | None = None, seed: int = 0, progress: bool = False
) -> OfflineDataset:
    """Generate ``size`` transitions (default: the record's) of the controller in ``record``'s maze.

    The same record, size and seed give the same bytes.  Raises :class:`DataError` where size or seed are out of range,
    or the environment is no maze.
    """
    from tqdm import tqdm

    assert record.data is not None
    size = record.data.size if size is None else size
    if size < 1 or seed < 0:
        raise DataError(
            f"cannot generate '{record.name}' with size {size} and seed {seed}, expected size > 0, seed >= 0"
        )
    observation_space, action_space, limit = env_facts(record.env_id, record.env_kwargs)
    observation_space, action_space = require_boxes(observation_space, action_space, record.env_id)
    env, task = _environment(record, int(np.clip(size // (limit or 1000), 1, MAX_ENVS)))
    controller = WaypointController(task.maze, wander=not task.observe_goal, position_noise=task.position_noise)
    stream = np.random.SeedSequence(seed)
    env_seed = int(stream.generate_state(1)[0]) % 2**31
    bar = tqdm(
        total=size, desc=f"generating {record.name}", unit="row", unit_scale=True, disable=None if progress else True
    )

    def tick(rows: int) -> None:
        bar.update(min(rows, size - bar.n))

    with bar:
        arrays: dict[str, Any] = collect(env, controller, size, np.random.default_rng(stream), env_seed, tick)
    env.close()
    purpose = "wandering" if controller.wander else "going to its goal"
    details = {
        "size": size,
        "seed": seed,
        "fingerprint": fingerprint(record),
        "controller": {"gains": [GAIN, BRAKE], "noise": NOISE, "wanders": controller.wander},
        "versions": {"numpy": np.__version__},
    }
    locator = f"{size:,} transitions of a waypoint controller {purpose}, noise {NOISE}, seed {seed}"
    return OfflineDataset(
        **arrays,
        **record_fields(record),
        observation_space=observation_space,
        action_space=action_space,
        provenance=Provenance("generated", locator, record.name, details),
    )


def mean_return(record: EnvRecord, policy: str, count: int, seed: int = 0) -> tuple[float, float]:
    """Mean undiscounted return of ``policy``, "random" or "controller" (noise-free), and its standard error."""
    env, task = _environment(record, count)
    generator, controller = np.random.default_rng([seed, 1]), WaypointController(task.maze)

    def act(observations: np.ndarray) -> np.ndarray:
        uniform = generator.uniform(-1.0, 1.0, (count, 2)).astype(np.float32)
        return uniform if policy == "random" else controller(observations)

    returns, _ = play_episodes(act, env, seed)
    env.close()
    return float(returns.mean()), float(returns.std() / np.sqrt(count))


if __name__ == "__main__":
    for found in records().values():
        if found.data is not None and found.data.generator == "rlkit.data.navigation:waypoint_rollouts":
            measured = [mean_return(found, policy, MEASURED_EPISODES) for policy in ("random", "controller")]
            print(
                f'    "{found.name}": ({measured[0][0]:.4g}, {measured[1][0]:.4g}),  # ± {measured[0][1]:.2g}, ', end=""
            )
            print(f"{measured[1][1]:.2g}")
