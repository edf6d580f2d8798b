"""A force-driven ball in a maze, one at a time or thousands at once, without a physics engine.

Layouts, masses, forces, time step, speed limit, goal radius and time limits are those of D4RL's Maze2D (Fu et al.
2020) and of gymnasium-robotics' PointMaze; where no wall is near, a step equals MuJoCo's.  Walls are hard and square
here (the ball stops dead in the direction that is barred and slides in the other), while MuJoCo's give way a little
and round the ball's corners off.  So returns are close to theirs and not equal, and are never called theirs.

One step of h = 0.01 s, each axis by itself (MuJoCo's Euler with damping d taken implicitly)::

    v <- clip(v, -5, 5)                               m/s
    v <- v + h (100 clip(a, -1, 1) - d v) / (m + h d)  d = 1, m = 4/3 pi 0.1^3 1000 kg
    x <- x + h v                                      and v <- 0 where a wall bars it
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any, no_type_check

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs import rows
from rlkit.errors import UserError, require_choice

# Rows from top to bottom: # is wall, G is Maze2D's goal.
LAYOUTS = {
    "umaze": ("#####", "#G..#", "###.#", "#...#", "#####"),
    "medium": ("########", "#..##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.G#", "########"),
    "large": (
        "############",
        "#....#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#.G.#",
        "############",
    ),
}
RADIUS = 0.1  # of the ball, m
TIME_STEP = 0.01  # s
MASS = 4.0 / 3.0 * math.pi * RADIUS**3 * 1000.0  # kg
DAMPING = 1.0  # N s/m
FORCE = 100.0  # N at full action
MAX_SPEED = 5.0  # m/s along each axis, before the force acts
SKIN = 1e-6  # m kept free before a wall, so that a ball sliding along it never counts as inside it
SPEED_BOUND = 6.0  # m/s: no velocity that is observed exceeds it
PARALLEL_FROM = 512  # below, starting threads costs more than the steps
CELL = 48  # pixels of a metre in a picture
WALL, FLOOR, GOAL, BALL = (91, 70, 54), (233, 226, 210), (127, 191, 127), (193, 18, 31)  # their colours


@dataclass(frozen=True)
class Maze:
    """A layout in metres, cells of 1 m.

    walls: bool ``[I, J]``, the cell at ``origin + (i, j)`` and up to one metre further along x and y; origin: float64
    ``[2]``, the lower corner; cells: float64 ``[C, 2]``, centres of the free cells; goal: float64 ``[2]``, the fixed
    goal.
    """

    walls: NDArray[np.bool_]
    origin: NDArray[np.float64]
    cells: NDArray[np.float64]
    goal: NDArray[np.float64]


@functools.lru_cache(maxsize=32)
def build_maze(layout: str, frame: str) -> Maze:
    """The layout called ``layout``, its axes and origin as ``frame`` says.

    ``centred`` (gymnasium-robotics, Minari): x to the right, y up, the origin in the maze's middle.  ``d4rl``: x down
    the rows, y to the right, the top left cell's centre at the origin.
    """
    rows = np.array([list(row) for row in LAYOUTS[layout]])  # [rows, columns]
    grid, origin = (rows[::-1].T, -0.5 * np.array(rows.shape[::-1])) if frame == "centred" else (rows, np.full(2, -0.5))
    free = np.argwhere(grid != "#")  # [C, 2]
    goal = np.argwhere(grid == "G")[0]  # [2]
    origin = origin.astype(np.float64)
    return Maze(np.ascontiguousarray(grid == "#"), origin, origin + free + 0.5, origin + goal + 0.5)


# ---- kernels -----------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _slide(walls, axis, position, other, low, other_low, distance):
    """Move along ``axis`` by ``distance``; returns the new coordinate and whether a wall stopped the ball."""
    target = position + distance
    if distance > 0.0:
        cell = math.floor(target + RADIUS - low)
        face = low + cell - RADIUS - SKIN
    else:
        cell = math.floor(target - RADIUS - low)
        face = low + cell + 1.0 + RADIUS + SKIN
    first, last = math.floor(other - RADIUS - other_low), math.floor(other + RADIUS - other_low)
    barred = walls[cell, first] or walls[cell, last] if axis == 0 else walls[first, cell] or walls[last, cell]
    return (face, True) if barred else (target, False)


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _push(velocity, action):
    velocity = min(max(velocity, -MAX_SPEED), MAX_SPEED)
    force = FORCE * min(max(action, -1.0), 1.0)
    return velocity + TIME_STEP * (force - DAMPING * velocity) / (MASS + TIME_STEP * DAMPING)


@njit(cache=True, nogil=True)
@no_type_check
def step_one(state, action, walls, origin, radius, dense, continuing):
    """One step of ``state [6]`` (x, y, vx, vy, goal x, goal y) in place; returns reward, termination and success."""
    velocity_x, velocity_y = _push(state[2], float(action[0])), _push(state[3], float(action[1]))
    x, stopped_x = _slide(walls, 0, state[0], state[1], origin[0], origin[1], TIME_STEP * velocity_x)
    y, stopped_y = _slide(walls, 1, state[1], x, origin[1], origin[0], TIME_STEP * velocity_y)
    state[0], state[1] = x, y
    state[2], state[3] = 0.0 if stopped_x else velocity_x, 0.0 if stopped_y else velocity_y
    distance = math.sqrt((x - state[4]) * (x - state[4]) + (y - state[5]) * (y - state[5]))
    success = distance <= radius
    reward = math.exp(-distance) if dense else (1.0 if success else 0.0)
    return reward, success and not continuing, success


@njit(cache=True, nogil=True)
@no_type_check
def _step_few(states, actions, skip, walls, origin, radius, dense, continuing, rewards, terminations, successes):
    for i in range(states.shape[0]):
        if not skip[i]:
            rewards[i], terminations[i], successes[i] = step_one(
                states[i], actions[i], walls, origin, radius, dense, continuing
            )


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _step_many(states, actions, skip, walls, origin, radius, dense, continuing, rewards, terminations, successes):
    for i in prange(states.shape[0]):
        if not skip[i]:
            rewards[i], terminations[i], successes[i] = step_one(
                states[i], actions[i], walls, origin, radius, dense, continuing
            )


# ---- the task ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MazeTask:
    """What the single environment and the batch have in common.

    layout: "umaze", "medium" or "large".  reward: "sparse", 1 within ``goal_radius`` metres of the goal and else 0, or
    "dense", exp(-distance in metres).  continuing: whether an episode goes on at the goal, by default with the dense
    reward alone, since there ending it would be a loss.  goal: "random", in another cell than the start and anew each
    episode, or "fixed", the layout's own.  observe_goal: whether the goal is part of the observation.  frame: see
    :func:`build_maze`.  position_noise: starts, and random goals, lie up to this many metres off a cell's centre along
    each axis.

    Raises :class:`UserError` for values other than these, or out of range.
    """

    layout: str = "umaze"
    reward: str = "sparse"
    continuing: bool | None = None
    goal: str = "random"
    observe_goal: bool = True
    frame: str = "centred"
    goal_radius: float = 0.45
    position_noise: float = 0.25
    maze: Maze = field(init=False, repr=False)
    space: gym.spaces.Box = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, known in (
            ("layout", tuple(LAYOUTS)),
            ("reward", ("sparse", "dense")),
            ("goal", ("random", "fixed")),
            ("frame", ("centred", "d4rl")),
        ):
            require_choice(f"point maze: {name}", getattr(self, name), known)
        if not self.goal_radius > 0.0:
            raise UserError(f"point maze: goal_radius={self.goal_radius} is out of range, expected metres above 0")
        if not 0.0 <= self.position_noise < 0.5 - RADIUS:
            raise UserError(
                f"point maze: position_noise={self.position_noise} is out of range, expected metres from 0 to below "
                f"{0.5 - RADIUS}, so that the ball stays inside its cell"
            )
        if self.continuing is None:
            object.__setattr__(self, "continuing", self.reward == "dense")
        maze = build_maze(self.layout, self.frame)
        low, high = maze.origin, maze.origin + maze.walls.shape
        speed = np.full(2, SPEED_BOUND)
        parts = ((low, high), (-speed, speed), (low, high))[: 3 if self.observe_goal else 2]
        lower, upper = (np.concatenate(side).astype(np.float32) for side in zip(*parts, strict=True))
        object.__setattr__(self, "maze", maze)
        object.__setattr__(self, "space", gym.spaces.Box(lower, upper, dtype=np.float32))

    def draw(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """A first state ``[6]``: at rest in a free cell, the goal in another one (or the fixed one)."""
        cells, noise = self.maze.cells, self.position_noise
        start = generator.integers(len(cells))
        offsets = generator.uniform(-noise, noise, 4)
        goal = self.maze.goal
        if self.goal == "random":
            other = generator.integers(len(cells) - 1)
            goal = cells[other + (other >= start)] + offsets[2:]
        return np.concatenate((cells[start] + offsets[:2], np.zeros(2), goal))

    def settings(self) -> tuple[Any, ...]:
        """The kernels' arguments from ``walls`` to ``continuing``."""
        return self.maze.walls, self.maze.origin, self.goal_radius, self.reward == "dense", bool(self.continuing)

    def observe(self, states: NDArray[np.float64]) -> NDArray[np.float32]:
        """Observations ``[..., 6 or 4]`` of ``states [..., 6]``: position, velocity, and the goal where it is seen."""
        return states[..., : self.space.shape[0]].astype(np.float32)


class PointMazeEnv(gym.Env[NDArray[Any], NDArray[Any]]):
    """Drive a ball to a goal in a maze.

    Observation, float32 ``[6]``: position (m), velocity (m/s) and the goal's position; ``[4]`` without the goal.
    Action, float32 ``[2]`` in [-1, 1]: the force along x and y, 100 N at 1; larger values are clipped.  An episode ends
    at the goal unless the task is continuing, and is truncated after the registered number of steps.
    ``info["success"]``: whether the ball is at the goal.

    Arguments are those of :class:`MazeTask`, whose errors it raises.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012  # Gymnasium's own form

    def __init__(self, render_mode: str | None = None, **task: Any) -> None:
        if render_mode is not None:
            require_choice("point maze: render_mode", render_mode, ("rgb_array",))
        self.render_mode = render_mode
        self.task = MazeTask(**task)
        self.observation_space = self.task.space
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.state: NDArray[np.float64] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.task.draw(self.np_random)
        return self.task.observe(self.state), {"success": False}

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Raises UserError for an action of another shape, ``ResetNeeded`` before the first reset."""
        if self.state is None:
            raise ResetNeeded("call reset() first")
        action = np.asarray(action, np.float64)
        if action.shape != (2,):
            raise UserError(f"point maze: expected an action of shape (2,), got {action.shape}")
        reward, terminated, success = step_one(self.state, action, *self.task.settings())
        return self.task.observe(self.state), float(reward), bool(terminated), False, {"success": bool(success)}

    def render(self) -> NDArray[np.uint8] | None:
        """The maze from above with ball and goal, uint8 ``[height, width, 3]``; None without a mode."""
        if self.render_mode is None or self.state is None:
            return None
        return _picture(self.task, self.state)


def _picture(task: MazeTask, state: NDArray[np.float64]) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    walls = task.maze.walls if task.frame == "d4rl" else task.maze.walls.T[::-1]  # [rows, columns] as they are seen
    image = Image.fromarray(np.where(walls[..., None], WALL, FLOOR).astype(np.uint8))
    image = image.resize((CELL * walls.shape[1], CELL * walls.shape[0]), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    for place, radius, colour in ((state[4:6], task.goal_radius, GOAL), (state[:2], RADIUS, BALL)):
        along = place - task.maze.origin
        down, right = along if task.frame == "d4rl" else (len(walls) - along[1], along[0])
        ends = (right - radius, down - radius, right + radius, down + radius)
        pen.ellipse(tuple(CELL * float(end) for end in ends), fill=colour)
    return np.asarray(image).copy()


class PointMazeVectorEnv(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """``num_envs`` mazes behind one step; equal, bit for bit, to Gymnasium's ``SyncVectorEnv`` of single ones.

    Shapes are those of :class:`PointMazeEnv` with ``num_envs`` in front; an episode that has ended is reset on the
    next step (``NEXT_STEP``).  ``states``, float64 ``[num_envs, 6]``, is what the environments are in.

    Args:
        num_envs: number of environments.
        max_episode_steps: steps until truncation, -1 for no limit.
        task: arguments of :class:`MazeTask`.

    Raises:
        UserError: an argument out of range.
    """

    def __init__(self, num_envs: int = 1, *, max_episode_steps: int = -1, **task: Any) -> None:
        if num_envs < 1 or max_episode_steps == 0 or max_episode_steps < -1:
            raise UserError(
                "point maze: expected num_envs >= 1 and max_episode_steps >= 1 (or -1 for no limit), "
                f"got {num_envs} and {max_episode_steps}"
            )
        self.task, self.num_envs, self.max_episode_steps = MazeTask(**task), num_envs, max_episode_steps
        self.metadata = {**PointMazeEnv.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = self.task.space
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.states = np.zeros((num_envs, 6))
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._elapsed, self._autoreset = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.bool_)
        self._was_reset = False

    def reset(
        self, *, seed: rows.Seeds = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin new episodes everywhere, or where the bool array ``options["reset_mask"]`` says.

        A seed makes the generators of environments 0, 1, ... anew from ``seed``, ``seed + 1``, ..., or from one seed
        each; without, they go on.  Raises UserError for seeds or a mask that do not fit ``num_envs``.
        """
        mask, seeds = rows.which(self.num_envs, seed, options, began=self._was_reset)
        rows.reseed(self._generators, mask, seeds)
        self._was_reset = True
        self._begin(mask)
        success = np.zeros(self.num_envs, np.bool_)
        return self.task.observe(self.states), {"success": success, "_success": mask.copy()}

    def _begin(self, mask: NDArray[np.bool_]) -> None:
        for i in np.flatnonzero(mask):
            generator = self._generators[i]
            assert generator is not None
            self.states[i] = self.task.draw(generator)
        self._elapsed[mask] = 0
        self._autoreset[mask] = False

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step every environment; one whose episode has ended is reset instead and its action ignored.

        Raises UserError for actions of another shape, ``ResetNeeded`` before the first reset.
        """
        actions = np.asarray(actions, np.float64)
        if actions.shape != (self.num_envs, 2):
            raise UserError(f"point maze: expected actions of shape ({self.num_envs}, 2), got {actions.shape}")
        if not self._was_reset:
            raise ResetNeeded("call reset() first")
        n, resets = self.num_envs, self._autoreset.copy()
        rewards, terminations, successes = np.zeros(n), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        self._elapsed += 1
        kernel = _step_many if n >= PARALLEL_FROM else _step_few
        kernel(self.states, actions, resets, *self.task.settings(), rewards, terminations, successes)
        self._begin(resets)
        truncations = np.zeros(n, np.bool_)
        if self.max_episode_steps > 0:
            truncations = self._elapsed >= self.max_episode_steps
        self._autoreset = terminations | truncations
        infos = {"success": successes, "_success": np.ones(n, np.bool_)}
        return self.task.observe(self.states), rewards, terminations, truncations, infos
