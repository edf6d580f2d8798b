"""The point maze: its kernel against plain Python, walls, seeds, ends of episodes, bad arguments."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit.envs.mazes import point_maze
from rlkit.envs.mazes.point_maze import (
    LAYOUTS,
    MASS,
    PARALLEL_FROM,
    PointMazeEnv,
    PointMazeVectorEnv,
    build_maze,
    step_one,
)
from rlkit.errors import UserError

FRAMES = ("centred", "d4rl")
RADIUS, SKIN = 0.1, 1e-6
# x, y, vx, vy (m, m/s) of gymnasium-robotics 1.4.2's PointMaze_UMaze-v3 under MuJoCo 3.10, ten steps after rest at
# (-1, -1) with the action (0.5, -0.1)
MUJOCO = [-0.9349706789335659, -1.013005864213287, 1.1781374663487654, -0.23562749326975313]


def oracle(
    state: list[float], action: list[float], walls: list[list[bool]], origin: list[float], radius: float, dense: bool
) -> tuple[list[float], float, bool]:
    """One step as the module's docstring tells it: new state ``[6]``, reward, success."""
    place, speed, goal = state[:2], state[2:4], state[4:]
    for axis in (0, 1):
        v = max(-5.0, min(5.0, speed[axis]))
        push = 100.0 * max(-1.0, min(1.0, action[axis]))
        speed[axis] = v + 0.01 * (push - 1.0 * v) / (MASS + 0.01 * 1.0)
    for axis in (0, 1):
        target = place[axis] + 0.01 * speed[axis]
        ahead = 1 if speed[axis] > 0 else -1
        cell = math.floor(target + ahead * RADIUS - origin[axis])
        across = [math.floor(place[1 - axis] + side * RADIUS - origin[1 - axis]) for side in (-1, 1)]
        if any(walls[cell][c] if axis == 0 else walls[c][cell] for c in across):
            face = origin[axis] + cell if ahead > 0 else origin[axis] + cell + 1.0
            place[axis], speed[axis] = face - ahead * RADIUS - ahead * SKIN, 0.0
        else:
            place[axis] = target
    distance = math.dist(place, goal)
    reward = math.exp(-distance) if dense else float(distance <= radius)
    return [*place, *speed, *goal], reward, distance <= radius


def rollout(layout: str, frame: str, seed: int, steps: int, hold: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """States ``[T + 1, 6]`` and actions ``[T, 2]`` of long pushes, so that walls are hit often."""
    task = point_maze.MazeTask(layout, frame=frame, continuing=True)
    rng = np.random.default_rng(seed)
    states, actions = [task.draw(rng)], []
    for t in range(steps):
        if t % hold == 0:
            action = rng.uniform(-1.5, 1.5, 2)
        states.append(states[-1].copy())
        step_one(states[-1], action, *task.settings())
        actions.append(action)
    return np.array(states), np.array(actions), task


@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    frame=st.sampled_from(FRAMES),
    seed=st.integers(0, 2**32 - 1),
    hold=st.integers(1, 60),
    dense=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_kernel_equals_plain_python(layout: str, frame: str, seed: int, hold: int, dense: bool) -> None:
    states, actions, task = rollout(layout, frame, seed, 120, hold)
    walls, origin = task.maze.walls.tolist(), task.maze.origin.tolist()
    for before, action, after in zip(states[:-1], actions, states[1:], strict=True):
        again = before.copy()
        reward, ended, success = step_one(again, action, task.maze.walls, task.maze.origin, 0.45, dense, False)
        expected, pay, there = oracle(before.tolist(), action.tolist(), walls, origin, 0.45, dense)
        assert again.tolist() == after.tolist() == expected
        assert reward == pytest.approx(pay, rel=1e-15) and bool(ended) == bool(success) == there


@given(layout=st.sampled_from(sorted(LAYOUTS)), frame=st.sampled_from(FRAMES), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_walls_are_never_crossed(layout: str, frame: str, seed: int) -> None:
    states, _, task = rollout(layout, frame, seed, 600, 40)
    corners = [states[:, :2] + RADIUS * np.array(side) for side in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    cells = np.floor(np.concatenate(corners) - task.maze.origin).astype(int)
    assert not task.maze.walls[tuple(cells.T)].any()
    assert np.abs(np.diff(states[:, :2], axis=0)).max() < 0.053  # no jumps: at most h (5 + h 100 / m)
    assert np.abs(states[:, 2:4]).max() <= point_maze.SPEED_BOUND
    assert task.space.contains(task.observe(states[-1]))


def test_walls_stop_and_let_slide() -> None:
    env = PointMazeEnv(layout="umaze", continuing=True)
    env.reset(seed=0)
    env.state = np.array([1.0, 0.0, 0.0, 0.0, -1.0, -1.0])  # in the passage on the right: walls left and right of it
    for _ in range(200):
        env.step(np.array([1.0, 1.0], np.float32))
    assert env.state[0] == pytest.approx(1.4, abs=2e-6) and env.state[2] == 0.0
    assert env.state[1] == pytest.approx(1.4, abs=2e-6)  # slid along the wall up to the corner
    for _ in range(200):
        env.step(np.array([1.0, -1.0], np.float32))
    assert env.state[:2] == pytest.approx([1.4, -1.4], abs=4e-6)


def test_a_free_step_is_mujocos_euler() -> None:
    env = PointMazeEnv(layout="umaze", continuing=True)
    env.reset(seed=0)
    env.state = np.array([-1.0, -1.0, 0.0, 0.0, -1.0, 1.0])
    for _ in range(10):
        env.step(np.array([0.5, -0.1]))
    assert env.state[:4].tolist() == pytest.approx(MUJOCO, rel=1e-12)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_frames_are_the_same_maze(layout: str, frame: str) -> None:
    maze = build_maze(layout, frame)
    rows = LAYOUTS[layout]
    assert (~maze.walls).sum() == len(maze.cells) == sum(cell != "#" for row in rows for cell in row)
    for x, y in maze.cells:
        i, j = np.floor((x, y) - maze.origin).astype(int)
        assert not maze.walls[i, j]
        row, column = (round(x), round(y)) if frame == "d4rl" else (len(rows) - 1 - j, i)
        assert rows[row][column] != "#"
        assert (rows[row][column] == "G") == np.array_equal((x, y), maze.goal)


@pytest.mark.parametrize("count", [3, PARALLEL_FROM + 5])
@pytest.mark.parametrize("settings", [{}, {"reward": "dense"}, {"goal": "fixed", "observe_goal": False}])
def test_the_batch_equals_gymnasiums_synchronous_one(count: int, settings: dict[str, Any]) -> None:
    steps = 90 if count < 10 else 8
    ours = PointMazeVectorEnv(count, layout="umaze", max_episode_steps=40, **settings)

    def single() -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(PointMazeEnv(layout="umaze", **settings), 40)

    theirs = SyncVectorEnv([single] * count)
    assert ours.single_observation_space == theirs.single_observation_space
    np.testing.assert_array_equal(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(steps):
        actions = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
        for mine, other in zip(ours.step(actions)[:4], theirs.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(mine, other)
            assert mine.dtype == other.dtype
        ends += int(ours._autoreset.sum())
    assert ends or count > 10
    theirs.close()


def test_an_episode_ends_at_the_goal_or_is_truncated() -> None:
    env = gym.make("rlkit/PointMaze_UMaze-v0")
    env.reset(seed=0)
    env.unwrapped.state = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.46])
    rewards = []
    terminated = truncated = False
    while not terminated:
        _, reward, terminated, truncated, info = env.step(np.array([0.0, 1.0], np.float32))
        rewards.append(reward)
    assert rewards[-1] == 1.0 and sum(rewards) == 1.0 and info["success"] and not truncated
    env.reset(seed=0)
    env.unwrapped.state = np.array([1.0, 0.0, 0.0, 0.0, -1.0, 1.0])
    flags = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(300)]
    assert flags[-1] == (False, True) and not any(any(flag) for flag in flags[:-1])
    env.close()


def test_a_continuing_task_pays_at_the_goal_and_goes_on() -> None:
    env = PointMazeEnv(layout="medium", goal="fixed", continuing=True, frame="d4rl", observe_goal=False)
    observation, _ = env.reset(seed=1)
    assert observation.shape == (4,)
    env.state[:4] = [*env.task.maze.goal, 0.0, 0.0]
    outcomes = [env.step(np.zeros(2))[1:3] for _ in range(50)]
    assert outcomes == [(1.0, False)] * 50
    dense = PointMazeEnv(reward="dense")
    dense.reset(seed=0)
    dense.state = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    assert dense.step(np.zeros(2))[1:3] == (1.0, False)  # exp(0)


def test_starts_and_goals() -> None:
    task = point_maze.MazeTask("umaze")
    states = np.array([task.draw(np.random.default_rng(seed)) for seed in range(300)])
    starts, goals = (np.floor(states[:, part] - task.maze.origin) for part in (slice(0, 2), slice(4, 6)))
    assert len(np.unique(starts, axis=0)) == len(np.unique(goals, axis=0)) == len(task.maze.cells)
    assert (starts != goals).any(axis=1).all()  # never the same cell, so nobody starts at the goal
    assert (np.linalg.norm(states[:, :2] - states[:, 4:], axis=1) > task.goal_radius).all()
    offsets = states[:, :2] - task.maze.origin - starts - 0.5
    assert 0.2 < np.abs(offsets).max() <= 0.25


def test_the_same_seed_gives_the_same_episodes_and_resets_go_on() -> None:
    env = PointMazeVectorEnv(2, layout="large", max_episode_steps=5)
    first = env.reset(seed=3)[0].copy()
    for _ in range(6):
        env.step(np.zeros((2, 2), np.float32))
    second = env.states.copy()
    assert not np.array_equal(first, env.task.observe(second))
    np.testing.assert_array_equal(env.reset(seed=[3, 4])[0], first)
    for _ in range(6):
        env.step(np.zeros((2, 2), np.float32))
    np.testing.assert_array_equal(env.states, second)
    env.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(env.states[1], second[1])
    assert not np.array_equal(env.states[0], second[0])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"layout": "larg"}, "layout=larg is unknown, expected one of umaze, medium, large; did you mean 'large'"),
        ({"reward": "sparce"}, "did you mean 'sparse'"),
        ({"goal": "moving"}, "goal=moving is unknown, expected one of random, fixed"),
        ({"frame": "polar"}, "expected one of centred, d4rl"),
        ({"goal_radius": 0.0}, "goal_radius=0.0 is out of range"),
        ({"position_noise": 0.4}, "position_noise=0.4 is out of range"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], sentence: str) -> None:
    for build in (PointMazeEnv, lambda **kwargs: PointMazeVectorEnv(2, **kwargs)):
        with pytest.raises(UserError, match=sentence):
            build(**arguments)


def test_bad_calls() -> None:
    for bad in ({"num_envs": 0}, {"num_envs": 1, "max_episode_steps": 0}):
        with pytest.raises(UserError, match="expected num_envs >= 1"):
            PointMazeVectorEnv(**bad)
    env, single = PointMazeVectorEnv(2), PointMazeEnv()
    for call in (lambda: env.step(np.zeros((2, 2))), lambda: single.step(np.zeros(2))):
        with pytest.raises(ResetNeeded):
            call()
    with pytest.raises(ResetNeeded, match="all environments"):
        env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(UserError, match="2 seeds"):
        env.reset(seed=[1])
    env.reset(seed=0)
    single.reset(seed=0)
    with pytest.raises(UserError, match=r"shape \(2, 2\), got \(2,\)"):
        env.step(np.zeros(2))
    with pytest.raises(UserError, match=r"shape \(2,\), got \(3,\)"):
        single.step(np.zeros(3))
    with pytest.raises(UserError, match="reset_mask"):
        env.reset(options={"reset_mask": np.zeros(2, bool)})
