"""gymnasium-robotics' mazes, kitchen and Adroit hand, with observations that are one Box.

They need the extra ``robotics``.  Ids are ``rlkit-robotics/<Name>``: the same class of gymnasium-robotics under a time
limit, a start and a goal of its own, since D4RL's and Minari's evaluations fix what gymnasium-robotics leaves open.
Goal-aware observations, a Dict, are joined to one float32 vector in the order that ``keys`` says.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlkit.errors import UserError, install_extra, nearest, shown

INSTALL = install_extra("robotics")
MAZE_KEYS = ("observation", "desired_goal")  # the point's observation holds its position
ANT_KEYS = ("achieved_goal", "observation", "desired_goal")  # the ant's does not
KITCHEN_KEYS = ("observation",)  # the goal is always the same

# AntMaze: r is where episodes start, g the goal; 4 m a cell.  The medium and large ones are D4RL's.  In the small one
# Minari's fixed-goal data runs from the bottom left to the top left, the other way round than D4RL's.
ANT_MAPS = {
    "UMaze": ("#####", "#g..#", "###.#", "#r..#", "#####"),
    "Medium": ("########", "#r.##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.g#", "########"),
    "Large": (
        "############",
        "#r...#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#.g.#",
        "############",
    ),
}
# PointMaze: without letters, starts and goals may be in any free cell.
POINT_MAPS = {name: tuple(row.replace("r", ".").replace("g", ".") for row in rows) for name, rows in ANT_MAPS.items()}
HAND_STEPS = {"Pen": 100, "Door": 200, "Hammer": 200, "Relocate": 200}  # D4RL's time limits
MAZE_STEPS = {"UMaze": (300, 700), "Medium": (600, 1000), "Large": (800, 1000)}  # of the point and of the ant


class FlatObservation(gym.ObservationWrapper[NDArray[Any], Any, dict[str, NDArray[Any]]]):
    """The parts ``keys`` of a Dict observation, joined to one float32 vector."""

    def __init__(self, env: gym.Env[Any, Any], keys: Sequence[str]) -> None:
        super().__init__(env)
        self.keys = tuple(keys)
        self.observation_space = flat_space(env.observation_space, keys)

    def observation(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        return np.concatenate([observation[key] for key in self.keys]).astype(np.float32)


def flat_space(space: Any, keys: Sequence[str]) -> gym.spaces.Box:
    """The float32 Box of the vectors that :class:`FlatObservation` makes of observations from the Dict ``space``."""
    boxes = [space[key] for key in keys]
    low, high = (np.concatenate([getattr(box, side) for box in boxes]) for side in ("low", "high"))
    return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


@dataclass(frozen=True)
class Task:
    """A class of gymnasium-robotics, its time limit, and what is fixed of its arguments."""

    module: str
    name: str
    steps: int
    keys: tuple[str, ...] = ()  # parts of a Dict observation to join; none: the observation is a vector
    maze: tuple[str, ...] = ()  # rows of its map

    def settings(self) -> dict[str, Any]:
        """Arguments of the class."""
        if not self.maze:
            return {}
        cells = {"#": 1, ".": 0}
        return {"maze_map": [[cells.get(cell, cell) for cell in row] for row in self.maze], "continuing_task": False}


def _tasks() -> dict[str, Task]:
    mazes = "gymnasium_robotics.envs.maze"
    found = {"FrankaKitchen-v1": Task("gymnasium_robotics.envs.franka_kitchen", "KitchenEnv", 280, KITCHEN_KEYS)}
    for size, (point, ant) in MAZE_STEPS.items():
        found[f"PointMaze_{size}-v3"] = Task(
            f"{mazes}.point_maze", "PointMazeEnv", point, MAZE_KEYS, tuple(POINT_MAPS[size])
        )
        found[f"AntMaze_{size}-v4"] = Task(f"{mazes}.ant_maze_v4", "AntMazeEnv", ant, ANT_KEYS, tuple(ANT_MAPS[size]))
    for hand, steps in HAND_STEPS.items():
        home = f"gymnasium_robotics.envs.adroit_hand.adroit_{hand.lower()}"
        found[f"AdroitHand{hand}-v1"] = Task(home, f"AdroitHand{hand}Env", steps)
    return found


TASKS = _tasks()


def make(task: str, **settings: Any) -> gym.Env[Any, Any]:
    """The environment of :data:`TASKS` called ``task``; a Dict observation is joined as the task says.

    Raises :class:`UserError` for another ``task``, and where gymnasium-robotics is missing or does not work with the
    MuJoCo that is installed.
    """
    if task not in TASKS:
        raise UserError(f"robotics: task={shown(task)} is unknown{nearest(str(task), TASKS)}")
    home = TASKS[task]
    try:
        cls = getattr(importlib.import_module(home.module), home.name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "gymnasium_robotics":
            raise
        raise UserError(f"{home.name} needs gymnasium-robotics, which is not installed: {INSTALL}") from None
    try:
        env = cls(**{**home.settings(), **settings})
    except AssertionError:
        import mujoco

        raise UserError(
            f"{home.name} of gymnasium-robotics does not work with MuJoCo {mujoco.__version__}, expected one below "
            f"3.12: {INSTALL}"
        ) from None
    return FlatObservation(env, home.keys) if home.keys else env


def robotics_ids(*kinds: str) -> dict[str, dict[str, Any]]:
    """The ids ``rlkit-robotics/...`` whose names begin with one of ``kinds``, each with how Gymnasium registers it."""
    return {
        f"rlkit-robotics/{name}": {
            "entry_point": "rlkit.envs.robotics:make",
            "max_episode_steps": task.steps,
            "kwargs": {"task": name},
        }
        for name, task in TASKS.items()
        if name.startswith(kinds)
    }
