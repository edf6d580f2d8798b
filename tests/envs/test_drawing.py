"""Environments that draw themselves: by Gymnasium's own checks and wrappers, and what a picture shows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordVideo, RenderCollection

from rlkit import registry
from rlkit.envs.contextual.drawing import cart, pendulum
from rlkit.envs.hacking.drawing import CELL, patient
from rlkit.envs.mazes.point_maze import BALL, WALL
from rlkit.errors import UserError

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tomato": ("rlkit/Tomato-v0", {}),
    "toy tomato": ("rlkit/Tomato-v0", {"level": "toy", "horizon": 7}),
    "glucose": ("rlkit/Glucose-v0", {"horizon": 30}),
    "cart": ("rlkit/ContextualCartPole-v0", {"context": {"length": 1.5}}),
    "pendulum": ("rlkit/ContextualPendulum-v0", {"context": {"dt": 0.1}}),
    "maze": ("rlkit/PointMaze_Medium-v0", {}),
    "D4RL's maze": ("rlkit/Maze2D_UMaze-v0", {}),
}


@pytest.fixture(autouse=True)
def _known() -> None:
    registry.records()


def made(kind: str, mode: str | None = "rgb_array") -> Any:
    name, settings = KINDS[kind]
    return gym.make(name, render_mode=mode, **settings)


@pytest.mark.filterwarnings("ignore:.*(Box action spaces|infinity)")  # as Gymnasium's own cart and pendulum are
@pytest.mark.parametrize("kind", KINDS)
def test_gymnasiums_checks_pass(kind: str) -> None:
    for mode in made(kind).metadata["render_modes"]:
        check_env(made(kind, mode).unwrapped)


@pytest.mark.parametrize("kind", KINDS)
def test_wrappers_collect_pictures(kind: str, tmp_path: Path) -> None:
    env: Any = RenderCollection(made(kind))
    env.reset(seed=0)
    for _ in range(4):
        env.step(env.action_space.sample())
    pictures = env.render()
    assert len(pictures) == 5 and len({(one.shape, one.dtype.str) for one in pictures}) == 1
    if importlib.util.find_spec("moviepy") is None:
        pytest.skip("RecordVideo needs moviepy")
    film = RecordVideo(made(kind), str(tmp_path / "films"), episode_trigger=lambda _: True, disable_logger=True)
    film.reset(seed=0)
    for _ in range(5):
        film.step(film.action_space.sample())
    film.close()
    assert [path.suffix for path in (tmp_path / "films").iterdir()] == [".mp4"]


def test_a_picture_of_the_garden_shows_what_its_text_says() -> None:
    pictures, texts = made("tomato"), made("tomato", "ansi")
    for env in (pictures, texts):
        env.reset(seed=0)
    fills: dict[str, tuple[int, ...]] = {}
    for action in (None, 3, 2):
        if action is not None:
            for env in (pictures, texts):
                env.step(action)
        picture, rows = pictures.render(), texts.render().split("\n")
        assert picture.shape == (CELL * len(rows), CELL * len(rows[0]), 3)
        for i, row in enumerate(rows):
            for j, mark in enumerate(row):
                middle = tuple(picture[CELL * i + CELL - 12, CELL * j + CELL // 2].tolist())
                assert fills.setdefault(mark, middle) == middle, (mark, i, j)
    assert len(set(fills.values())) == len(fills) == 6  # wall, path, dry, wet, sprinkler, gardener


def test_a_patients_chart_rises_and_falls_with_glucose() -> None:
    history = np.array([np.linspace(100, 250, 48), np.full(48, 0.05)])
    rising, falling = patient(history, 0), patient(history[:, ::-1].copy(), 0)
    red = [((p[..., 0] > 150) & (p[..., 1] < 60)).nonzero() for p in (rising, falling)]  # rows, columns
    slopes = [np.polyfit(columns, rows, 1)[0] for rows, columns in red]
    assert slopes[0] < -0.1 and slopes[1] > 0.1
    more = patient(np.array([history[0], np.full(48, 0.09)]), 0)
    assert (more == (0x3F, 0x88, 0xC5)).all(-1).sum() > 1.5 * (rising == (0x3F, 0x88, 0xC5)).all(-1).sum()
    assert not np.array_equal(patient(history, 0), patient(history, 1500))  # day and hour
    patient(np.array([np.full(48, 5000.0), np.full(48, 9.0)]), 10**6)  # beyond the axes


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_mode_there_is_no_picture_and_another_mode_is_a_sentence(kind: str) -> None:
    env = made(kind, None).unwrapped
    env.reset(seed=0)
    assert env.render() is None
    with pytest.raises(UserError, match="render_mode=human is unknown, expected one of rgb_array"):
        type(env)(render_mode="human")


def test_a_cart_and_a_pole_are_where_they_are() -> None:
    def columns(picture: np.ndarray, dark: bool) -> float:
        brown = (picture[..., 0] > 180) & (picture[..., 2] < 90)
        return float(((picture.max(-1) < 60) if dark else brown).nonzero()[1].mean())

    left, right = cart(-1.0, 0.2, 0.5, 2.4), cart(1.0, -0.2, 0.5, 2.4)
    assert columns(left, True) == pytest.approx(240 - 90, abs=3) and columns(right, True) == pytest.approx(330, abs=3)
    assert columns(left, False) > columns(left, True) and columns(right, False) < columns(right, True)
    up, side, long = pendulum(0.0, 1.0, 2.0), pendulum(np.pi / 2, 1.0, 2.0), pendulum(0.0, 2.0, 2.0)
    rows = [float(((p[..., 0] > 180) & (p[..., 2] < 90)).nonzero()[0].mean()) for p in (up, side, long)]
    assert rows[2] < rows[0] < rows[1] - 10 and columns(side, False) > 130
    env = made("pendulum")
    assert env.metadata["render_fps"] == 10  # a step of this context is a tenth of a second


@pytest.mark.parametrize("kind", ["maze", "D4RL's maze"])
def test_a_ball_is_drawn_in_the_cell_that_it_is_in(kind: str) -> None:
    env = made(kind)
    maze = env.unwrapped.task.maze
    for seed in range(3):
        env.reset(seed=seed)
        picture, state = env.render(), env.unwrapped.state
        ball = (picture == BALL).all(-1).nonzero()
        assert 60 < len(ball[0]) < 110  # of radius 0.1 m at 48 pixels a metre
        shut = (picture == WALL).all(-1)
        assert shut.mean() == pytest.approx(maze.walls.mean(), abs=0.01)
        row, column = float(ball[0].mean()) / 48, float(ball[1].mean()) / 48
        along = state[:2] - maze.origin
        wanted = along if kind != "maze" else (maze.walls.shape[1] - along[1], along[0])
        assert (row, column) == pytest.approx(tuple(wanted), abs=0.05)


def test_drawing_changes_nothing() -> None:
    """An episode that is drawn is the one that is not."""
    for kind in KINDS:
        told = []
        for mode in ("rgb_array", None):
            env = made(kind, mode)
            env.reset(seed=1)
            env.action_space.seed(2)
            rows = []
            for _ in range(6):
                rows.append(env.step(env.action_space.sample())[1])
                env.render() if mode else None
            told.append(rows)
        assert told[0] == told[1]
