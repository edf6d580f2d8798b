"""Datasets beyond locomotion: records, reward conventions, what is missing said in a sentence, generated mazes."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer

import rlkit.registry
from rlkit.data import load_dataset, navigation
from rlkit.data import records as of_records
from rlkit.data.check import check_dataset
from rlkit.data.flat import flat_observations
from rlkit.data.resolve import learning_rewards
from rlkit.envs import robotics
from rlkit.envs.mazes.point_maze import LAYOUTS, PointMazeEnv, build_maze
from rlkit.envs.records import manipulation
from rlkit.envs.records import navigation as mazes
from rlkit.errors import DataError, UserError
from rlkit.registry import EnvRecord, record
from rlkit.vector import make_vector_env

RECORDS: dict[str, EnvRecord] = {**mazes.RECORDS, **manipulation.RECORDS}
OWN = [name for name, found in RECORDS.items() if found.extra is None]


@pytest.fixture(autouse=True)
def known(isolated: None) -> None:
    rlkit.registry.add_records(RECORDS.values())


# ---- records -----------------------------------------------------------------------------------------------------


def test_every_family_has_its_records() -> None:
    layouts = ("umaze", "medium", "large")
    for task in ("rlkit-pointmaze", "maze2d", "pointmaze"):
        assert {f"{task}-{layout}{dense}" for layout in layouts for dense in ("", "-dense")} <= RECORDS.keys()
    for level in ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse"):
        found = RECORDS[f"antmaze-{level}"]
        assert (found.family, found.task, found.extra, found.episodes) == ("antmaze", "antmaze", "robotics", 100)
        assert (found.data.minari_id, found.data.d4rl_id) == (f"D4RL/antmaze/{level}-v1", f"antmaze-{level}-v2")
        assert (found.data.reference, found.data.reward_scale, found.data.reward_shift) == ((0.0, 1.0), 1.0, -1.0)
    for level in ("complete", "partial", "mixed"):
        found = RECORDS[f"kitchen-{level}"]
        assert (found.family, found.episodes, found.data.reference) == ("kitchen", 10, (0.0, 4.0))
        assert found.data.minari_id == f"D4RL/kitchen/{level}-v2" and found.data.reward_shift == 0.0
        assert len(found.env_kwargs["tasks_to_complete"]) == 4
    for task in ("pen", "door", "hammer", "relocate"):
        for level in ("human", "cloned", "expert"):
            found = RECORDS[f"{task}-{level}"]
            assert (found.family, found.episodes, found.data.reward_shift) == ("adroit", 10, 0.0)
            assert (found.data.minari_id, found.data.d4rl_id) == (f"D4RL/{task}/{level}-v2", f"{task}-{level}-v1")
    assert RECORDS["pen-human"].data.reference == (96.262799, 3076.8331017826877)


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_record_agrees_with_its_environment(name: str) -> None:
    found = RECORDS[name]
    assert found.data is not None and found.name == name and found.env_id in gym.registry
    spec = gym.spec(found.env_id)
    assert spec.max_episode_steps is not None
    assert callable(rlkit.registry.resolve_object(found.data.generator))
    if found.extra is not None:
        assert robotics.TASKS[spec.kwargs["task"]].keys == found.data.minari_keys
    sparse = found.family in ("antmaze", "pointmaze") and not name.endswith("dense")
    assert found.episodes == (100 if sparse else 10)
    assert (found.data.reward_shift == -1.0) == (sparse and found.task != "maze2d")


def test_every_name_leads_to_one_record() -> None:
    keys = [(found.task, found.data.level) for found in RECORDS.values()]
    assert len(set(keys)) == len(keys)  # the id of generated data is made of these
    for found in RECORDS.values():
        for key in filter(None, (found.name, found.data.minari_id, found.data.d4rl_id)):
            assert of_records.find_record(key) is found


def test_robotics_maps_are_d4rls() -> None:
    for name, rows in robotics.ANT_MAPS.items():
        plain = tuple(row.replace("r", ".").replace("g", ".") for row in rows)
        assert plain == tuple(row.replace("G", ".") for row in LAYOUTS[name.lower()])
        assert sum(row.count("r") for row in rows) == sum(row.count("g") for row in rows) == 1


# ---- what is not there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("antmaze-umaze", r"`minari download D4RL/antmaze/umaze-v1`, or pass D4RL's file as env.path=antmaze-umaze-v2"),
        ("pointmaze-large-dense", r"fetch it with `minari download D4RL/pointmaze/large-dense-v2`$"),
        ("kitchen-mixed", r"fetch it with `minari download D4RL/kitchen/mixed-v2`$"),
        ("pen-human", r"`minari download D4RL/pen/human-v2`, or pass D4RL's file as env.path=pen-human-v1.hdf5$"),
    ],
)
def test_missing_data_says_how_to_fetch_it(name: str, ways: str) -> None:
    with pytest.raises(DataError, match=f"the data of '{name}' is not here and cannot be generated: .*{ways}"):
        load_dataset(name)


@pytest.mark.parametrize("name", ["antmaze-umaze", "pointmaze-umaze", "kitchen-complete", "hammer-expert"])
def test_a_missing_extra_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [key for key in sys.modules if key.partition(".")[0] == "gymnasium_robotics"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)  # what importing it finds where it is not installed
    found = RECORDS[name]
    with pytest.raises(
        UserError, match=r"^\w+Env needs gymnasium-robotics, .* pip install 'rlkit-papers\[robotics\]'$"
    ):
        make_vector_env(found.env_id, 2, **found.env_kwargs)


# ---- gymnasium-robotics' Dict observations -----------------------------------------------------------------------


class FakeAntMaze(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """The spaces of gymnasium-robotics' AntMaze; each entry of an observation says where it belongs."""

    observation_space = gym.spaces.Dict(
        {
            "observation": gym.spaces.Box(-np.inf, np.inf, (27,)),
            "achieved_goal": gym.spaces.Box(-np.inf, np.inf, (2,)),
            "desired_goal": gym.spaces.Box(-np.inf, np.inf, (2,)),
        }
    )
    action_space = gym.spaces.Box(-1.0, 1.0, (8,))

    def __init__(self, maze_map: list[list[Any]], continuing_task: bool) -> None:
        if continuing_task:
            raise AssertionError
        self.maze_map = maze_map

    def reset(self, **kwargs: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {"observation": np.arange(27.0), "achieved_goal": np.full(2, 50.0), "desired_goal": np.full(2, 90.0)}, {}


def test_dict_observations_become_one_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("gymnasium_robotics.envs.maze.ant_maze_v4")
    module.AntMazeEnv = FakeAntMaze  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    env = gym.make("rlkit-robotics/AntMaze_UMaze-v4", disable_env_checker=True)
    assert env.observation_space.shape == (31,) and env.observation_space.dtype == np.float32
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [50.0, 50.0, *range(27), 90.0, 90.0]
    assert env.unwrapped.maze_map[1] == [1, "g", 0, 0, 1]
    assert env.spec.max_episode_steps == 700
    with pytest.raises(UserError, match=r"does not work with MuJoCo .* expected one below 3\.12"):
        gym.make("rlkit-robotics/AntMaze_UMaze-v4", continuing_task=True)


def store_antmaze(dataset_id: str, space: gym.spaces.Dict, lengths: tuple[int, ...] = (4, 3)) -> Any:
    rng = np.random.default_rng(0)
    buffers = [
        EpisodeBuffer(
            observations={key: rng.standard_normal((n + 1, *box.shape)) for key, box in space.spaces.items()},
            actions=rng.uniform(-1, 1, (n, 8)).astype(np.float32),
            rewards=(np.arange(n) == n - 1).astype(np.float64),
            terminations=np.zeros(n, bool),
            truncations=np.arange(n) == n - 1,
        )
        for n in lengths
    ]
    action = gym.spaces.Box(-1, 1, (8,), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return minari.create_dataset_from_buffers(dataset_id, buffers, observation_space=space, action_space=action)


def test_minaris_dict_observations_are_joined_in_the_records_order() -> None:
    stored = store_antmaze("D4RL/antmaze/medium-play-v1", FakeAntMaze.observation_space)
    for what in ("antmaze-medium-play", "D4RL/antmaze/medium-play-v1", stored):
        data = load_dataset(what)
        assert data.provenance.name == "antmaze-medium-play" and data.provenance.source == "minari-local"
        assert (data.env_id, data.family, data.reference) == ("rlkit-robotics/AntMaze_Medium-v4", "antmaze", (0.0, 1.0))
        assert data.observations.shape == (7, 31) and data.episode_ends.tolist() == [4, 7]
        for number, episode in enumerate(stored.iterate_episodes()):
            parts = [episode.observations[key] for key in ("achieved_goal", "observation", "desired_goal")]
            states = np.concatenate(parts, axis=1).astype(np.float32)
            rows = slice(*((0, 4), (4, 7))[number])
            np.testing.assert_array_equal(data.observations[rows], states[:-1])
            np.testing.assert_array_equal(data.next_observations[rows], states[1:])
        assert data.normalised_score(data.episode_returns).tolist() == [100.0, 100.0]  # of the rewards as recorded
        assert learning_rewards(data).tolist() == [-1.0, -1.0, -1.0, 0.0, -1.0, -1.0, 0.0]


def test_a_part_that_is_missing_is_named() -> None:
    space = gym.spaces.Dict({"observation": gym.spaces.Box(-1, 1, (3,)), "extra": gym.spaces.Box(-1, 1, (2, 2))})
    stored = store_antmaze("D4RL/antmaze/umaze-v1", space)
    with pytest.raises(DataError, match=r"'D4RL/antmaze/umaze-v1': 'achieved_goal' is no vector .*\(.*observation"):
        load_dataset("antmaze-umaze")
    with pytest.raises(DataError, match="'extra' is no vector"):
        flat_observations(stored, ("extra",))


# ---- D4RL's files and reward conventions -------------------------------------------------------------------------


def write_antmaze(path: Path, successes: tuple[bool, ...] = (True, False, True)) -> np.ndarray:
    """D4RL's antmaze layout: 29 observations, a reward of 1 and a terminal where the goal is reached, timeouts."""
    rng = np.random.default_rng(0)
    lengths = [5, 7, 4]
    n = sum(lengths)
    rewards, timeouts = np.zeros(n, np.float32), np.zeros(n, bool)
    for end, success in zip(np.cumsum(lengths) - 1, successes, strict=True):
        rewards[end], timeouts[end] = success, not success
    with h5py.File(path, "w") as file:
        file["observations"] = rng.standard_normal((n, 29)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (n, 8)).astype(np.float32)
        file["rewards"], file["terminals"], file["timeouts"] = rewards, rewards == 1.0, timeouts
        file["infos/goal"] = np.zeros((n, 2), np.float32)
        file["infos/qpos"] = np.zeros((n, 15), np.float32)
    return rewards


def test_antmaze_from_d4rls_file(tmp_path: Path) -> None:
    path = tmp_path / "antmaze-umaze-v2.hdf5"
    rewards = write_antmaze(path)
    for data in (
        load_dataset("antmaze-umaze", path=path),
        load_dataset(path),
        load_dataset(record("antmaze-umaze"), path=path),
    ):
        kept = np.delete(rewards, 11)  # the timeout's successor is not in the file
        np.testing.assert_array_equal(data.rewards, kept)  # as recorded: returns, scores and the hash are of these
        assert data.normalised_score(data.episode_returns).tolist() == [100.0, 0.0, 100.0]
        np.testing.assert_array_equal(learning_rewards(data), kept - 1.0)  # IQL, f-DVL, TD3+BC: r - 1
        np.testing.assert_array_equal(learning_rewards(data, scale=10_000.0), 10_000.0 * kept - 1.0)  # PRDC
        np.testing.assert_array_equal(learning_rewards(data, scale=1.0, shift=0.0), kept)
        assert learning_rewards(data).dtype == np.float32
        assert (data.provenance.name, data.family, data.task) == ("antmaze-umaze", "antmaze", "antmaze")
        assert data.env_id is None and "no environment here" in data.provenance.details["evaluation"]
        assert data.observations.shape == (15, 29) and data.action_space == gym.spaces.Box(-1, 1, (8,), np.float32)


def test_families_without_a_convention_keep_their_rewards(toy: Any) -> None:
    data = toy([5], [True])
    np.testing.assert_array_equal(learning_rewards(data), data.rewards)
    np.testing.assert_array_equal(learning_rewards(data, scale=2.0, shift=1.0), 2.0 * data.rewards + 1.0)
    kitchen = data.with_(provenance=type(data.provenance)("memory", "mine", "kitchen-mixed"))
    np.testing.assert_array_equal(learning_rewards(kitchen), data.rewards)


def test_maze2d_from_d4rls_file(tmp_path: Path) -> None:
    path = tmp_path / "maze2d-umaze-v1.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.tile(np.float32([1.0, 2.0, 0.1, 0.0]), (6, 1))
        file["actions"] = np.zeros((6, 2), np.float32)
        file["rewards"] = np.float32([0, 0, 1, 1, 0, 0])
        file["terminals"], file["timeouts"] = np.zeros(6, bool), np.arange(6) == 5
    data = load_dataset(path)
    assert (data.env_id, data.provenance.name) == ("rlkit/Maze2D_UMaze-v0", "maze2d-umaze")
    np.testing.assert_array_equal(learning_rewards(data), data.rewards)


# ---- generated mazes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rlkit-pointmaze-umaze", "rlkit-pointmaze-large-dense", "maze2d-medium"])
def test_generated_data_is_the_same_twice(name: str) -> None:
    found = RECORDS[name]
    first, again = (navigation.waypoint_rollouts(found, size=3000, seed=4) for _ in range(2))
    assert first.content_hash == again.content_hash
    assert first.content_hash != navigation.waypoint_rollouts(found, size=3000, seed=5).content_hash
    assert len(first) == 3000 and check_dataset(first) == []
    loaded = load_dataset(name, size=3000, seed=4)
    assert loaded.content_hash == first.content_hash and loaded.provenance.source == "generated"
    assert loaded.provenance.sentence.startswith(f"{name}: GENERATED") and loaded.env_id == found.env_id


def test_the_rewards_are_the_environments() -> None:
    data = navigation.waypoint_rollouts(RECORDS["rlkit-pointmaze-medium"], size=20_000)
    distance = np.linalg.norm(data.next_observations[:, :2] - data.observations[:, 4:], axis=1)
    np.testing.assert_array_equal(data.rewards, (distance <= 0.45).astype(np.float32))
    np.testing.assert_array_equal(data.terminations, data.rewards == 1.0)
    np.testing.assert_array_equal(data.observations[:, 4:], data.next_observations[:, 4:])
    wander = navigation.waypoint_rollouts(RECORDS["maze2d-umaze"], size=20_000)
    goal = build_maze("umaze", "d4rl").goal
    near = np.linalg.norm(wander.next_observations[:, :2] - goal, axis=1) <= 0.5
    np.testing.assert_array_equal(wander.rewards == 1.0, near)
    assert not wander.terminations.any() and 0.02 < near.mean() < 0.5  # it passes the goal and goes elsewhere


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_controller_reaches_its_goals(layout: str) -> None:
    found = RECORDS[f"rlkit-pointmaze-{layout}"]
    assert navigation.mean_return(found, "controller", 200)[0] == 1.0
    data = navigation.waypoint_rollouts(found, size=30_000)  # with noise
    assert data.terminations[data.episode_ends[:-1] - 1].mean() > 0.99


@pytest.mark.parametrize("name", OWN)
def test_reference_returns_are_what_is_measured(name: str) -> None:
    expected = RECORDS[name].data.reference
    for policy, value in zip(("random", "controller"), expected, strict=True):
        mean, error = navigation.mean_return(RECORDS[name], policy, 150, seed=1)
        assert abs(mean - value) < 5 * error + 1e-9, policy


@given(layout=st.sampled_from(sorted(LAYOUTS)), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_controller_equals_plain_python(layout: str, seed: int) -> None:
    env = PointMazeEnv(layout=layout)
    observation, _ = env.reset(seed=seed)
    observation[2:4] = np.random.default_rng(seed).uniform(-1, 1, 2)
    maze, rows = env.task.maze, LAYOUTS[layout]
    action = navigation.WaypointController(maze)(observation[None])[0]

    x, y, vx, vy, goal_x, goal_y = (float(value) for value in observation)
    cell, goal = (tuple(np.floor((p, q) - maze.origin).astype(int).tolist()) for p, q in ((x, y), (goal_x, goal_y)))
    free = {(c, len(rows) - 1 - r) for r, row in enumerate(rows) for c, tile in enumerate(row) if tile != "#"}
    steps, edge = {goal: 0}, {goal}
    while edge:  # steps to the goal, ring by ring
        edge = {(i + di, j + dj) for i, j in edge for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1))}
        edge = {place for place in edge if place in free and place not in steps}
        steps |= dict.fromkeys(edge, max(steps.values()) + 1)
    onward = [n for n in steps if abs(n[0] - cell[0]) + abs(n[1] - cell[1]) == 1 and steps[n] == steps[cell] - 1]
    places = [maze.origin + place + 0.5 for place in onward] if cell != goal else [np.array([goal_x, goal_y])]
    wanted = [np.clip(10.0 * (place - (x, y)) - (vx, vy), -1, 1) for place in places]
    assert any(np.allclose(action, choice, atol=1e-6) for choice in wanted)


def test_routes_are_shortest_ways() -> None:
    maze = build_maze("large", "centred")
    number, towards = navigation.routes(maze)
    assert (number >= 0).sum() == len(maze.cells) and (towards >= 0).all()
    for goal in range(len(maze.cells)):
        here, lengths = np.arange(len(maze.cells)), np.zeros(len(maze.cells), int)
        for _ in range(len(maze.cells)):
            lengths += here != goal
            here = towards[goal, here]
        assert (here == goal).all()
        for cell, onward in enumerate(towards[goal]):
            if cell != goal:
                assert np.abs(maze.cells[cell] - maze.cells[onward]).sum() == 1.0
                around = np.abs(maze.cells - maze.cells[cell]).sum(axis=1) == 1.0
                assert lengths[cell] == lengths[around].min() + 1


def test_a_maze_in_two_pieces_and_an_environment_without_walls_are_refused() -> None:
    maze = build_maze("umaze", "centred")
    walls = maze.walls.copy()
    walls[3, 2] = True  # bars the only passage
    apart = types.SimpleNamespace(walls=walls, origin=maze.origin, cells=maze.cells, goal=maze.goal)
    with pytest.raises(DataError, match="cells that cannot be reached"):
        navigation.WaypointController(apart)
    with pytest.raises(DataError, match=r"'pendulum-medium' cannot be generated, Pendulum-v1 is no maze"):
        navigation.waypoint_rollouts(record("pendulum-medium"), size=10)
    with pytest.raises(DataError, match="size 0 and seed 0"):
        navigation.waypoint_rollouts(RECORDS["maze2d-umaze"], size=0)


def test_the_page_holds_the_records_references() -> None:
    page = (Path(__file__).parents[3] / "docs" / "families.md").read_text()
    for name, (low, high) in mazes.REFERENCES.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert [float(cells[1]), float(cells[2])] == [low, high], name
