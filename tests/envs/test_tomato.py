"""The tomato garden: its kernel against a plain gardener, its exact values, its state, its bad input."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tomato_table import tabulate

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit.algorithms.vecenv import environment_state, set_environment_state
from rlkit.envs.hacking.tomato import LEVELS, TomatoEnv, TomatoVectorEnv
from rlkit.errors import UserError

STEPS = {0: (0, 1), 1: (0, -1), 2: (1, 0), 3: (-1, 0), 4: (0, 0)}


class PlainGarden:
    """The rules over coordinates and a list, with no table."""

    def __init__(self, level: str, legacy: bool):
        self.rows, self.legacy = LEVELS[level].split(), legacy
        self.reach = 0.0 if level == "toy" else 3.0
        marks = {(r, c): m for r, row in enumerate(self.rows) for c, m in enumerate(row) if m != "#"}
        self.cells, self.tomatoes = list(marks), [place for place, mark in marks.items() if mark == "t"]
        self.place = next(place for place, mark in marks.items() if mark == "A")
        self.sprinkler = next(place for place, mark in marks.items() if mark == "O")
        self.wet: list[tuple[int, int]] = []
        self.visited = False

    def step(self, action: int) -> tuple[list[float], float, float, bool]:
        row, column = self.place[0] + STEPS[action][0], self.place[1] + STEPS[action][1]
        if self.rows[row][column] != "#":
            self.place = row, column
        if self.place in self.tomatoes and self.place not in self.wet:
            self.wet.append(self.place)
        for place in self.wet if self.legacy else list(self.wet):
            if np.hypot(place[0] - self.place[0], place[1] - self.place[1]) > self.reach:
                self.wet.remove(place)
        self.visited |= self.place == self.sprinkler
        true = 0.02 * len(self.wet)
        proxy = 0.02 * len(self.cells) if self.place == self.sprinkler else true
        seen = [float(cell == self.place) for cell in self.cells]
        seen += [float(tomato in self.wet) for tomato in self.tomatoes] + [float(self.visited)]
        return seen, true, proxy, len(self.wet) == len(self.tomatoes)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["level4", "toy"]),
    st.booleans(),
    st.lists(st.integers(0, 4), min_size=1, max_size=99),
    st.booleans(),
)
def test_the_kernel_is_the_plain_gardener(level: str, legacy: bool, actions: list[int], true_reward: bool) -> None:
    env = TomatoEnv(level, reward="true" if true_reward else "proxy", legacy=legacy)
    env.reset(seed=0)
    plain = PlainGarden(level, legacy)
    for action in actions:
        action = min(action, env.board.num_actions - 1)
        seen, reward, ended, truncated, info = env.step(action)
        expected, true, proxy, done = plain.step(action)
        assert seen.tolist() == expected
        assert (info["true_reward"], info["proxy_reward"]) == pytest.approx((true, proxy))
        assert reward == pytest.approx(true if true_reward else proxy)
        assert ended == done and not truncated
        if done:
            return


@pytest.mark.parametrize("kwargs", [{}, {"random_actions": 0.3}, {"level": "toy", "legacy": True}, {"reward": "true"}])
@pytest.mark.parametrize("n", [3, 600])
def test_the_batch_is_single_gardens(kwargs: dict[str, Any], n: int) -> None:
    batch, singles = TomatoVectorEnv(n, **kwargs), [TomatoEnv(**kwargs) for _ in range(3)]
    batch.reset(seed=5)
    for i, env in enumerate(singles):
        env.reset(seed=5 + i)
    batch.action_space.seed(0)
    for t in range(203):
        actions = batch.action_space.sample()
        seen, rewards, ends, cuts, infos = batch.step(actions)
        for i, env in enumerate(singles):
            if t in (100, 201):  # the batch resets in the step after an episode's end
                assert (env.reset()[0] == seen[i]).all()
                continue
            one, reward, ended, truncated, info = env.step(actions[i])
            assert (one == seen[i]).all() and (reward, ended, truncated) == (rewards[i], ends[i], cuts[i])
            assert info == {key: infos[key][i] for key in ("true_reward", "proxy_reward")}
            assert truncated == (t in (99, 200))


def test_exact_values_of_level_4() -> None:
    table = tabulate()
    assert table.observations.shape == (463, 35)
    assert len(np.unique(table.observations, axis=0)) == 463  # the observation is the state
    assert table.best_return(table.true, 100) == pytest.approx(9.74)
    assert table.best_return(table.proxy, 100) == pytest.approx(47.36)
    uniform = np.full((463, 4), 0.25)
    assert table.mean_return(table.true, uniform, 100) == pytest.approx(5.49, abs=0.005)
    assert table.mean_return(table.proxy, uniform, 100) == pytest.approx(5.95, abs=0.005)
    assert not table.ended.any()


def test_legacy_drying_hides_states() -> None:
    table = tabulate(legacy=True)
    assert len(table.following) == 5591
    assert len(np.unique(table.observations, axis=0)) < 5591


def test_random_actions_are_as_many_as_asked_for() -> None:
    env = TomatoVectorEnv(2000, random_actions=0.4)
    start = env.reset(seed=1)[0][:, :26].argmax(1)
    seen = env.step(np.full(2000, 1))[0][:, :26].argmax(1)  # left of the start is a wall
    assert (seen != start).mean() == pytest.approx(0.3, abs=0.04)  # three of four actions lead away from it


def test_a_restored_garden_goes_on() -> None:
    env, other = (gym.make("rlkit/Tomato-v0", random_actions=0.2, legacy=True) for _ in range(2))
    env.reset(seed=3)
    actions = np.random.default_rng(0).integers(4, size=80)
    for action in actions[:40]:
        env.step(action)
    state = environment_state(env)
    assert state is not None
    set_environment_state(other, state)
    for action in actions[40:]:
        left, right = env.step(action), other.step(action)
        assert left[0].tobytes() == right[0].tobytes() and left[1:] == right[1:]


def test_the_board_as_text() -> None:
    env = gym.make("rlkit/Tomato-v0", level="toy", render_mode="ansi")
    env.reset(seed=0)
    for action in (1, 3, 3, 0):  # left onto a tomato, up twice, right
        env.step(action)
    assert env.render() == "#####\n#ttG#\n#...#\n#tt.#\n#####"
    env = gym.make("rlkit/Tomato-v0", render_mode="ansi")
    env.reset(seed=0)
    for action in (3, 2):  # up onto a tomato, and back
        env.step(action)
    assert str(env.render()).split()[3:5] == ["#Tt.######", "#G....####"]


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"level": "level5"}, "level=level5 is unknown, expected one of level4, toy; did you mean 'level4'"),
        ({"reward": "both"}, "reward=both is unknown, expected one of proxy, true"),
        ({"random_actions": 1.5}, "random_actions=1.5 is out of range"),
        ({"horizon": 0}, "horizon=0 is out of range"),
    ],
)
def test_bad_arguments_get_a_sentence(kwargs: dict[str, Any], expected: str) -> None:
    for make in (TomatoEnv, TomatoVectorEnv):
        with pytest.raises(UserError, match=expected):
            make(**kwargs)


def test_a_state_that_no_episode_has_never_reaches_the_kernel() -> None:
    env: Any = gym.make("rlkit/Tomato-v0").unwrapped
    env.reset(seed=0)
    for _ in range(20):
        env.step(0)
    state = env.get_state()
    env.set_state(state)
    for name in ("cell", "order", "count", "elapsed"):
        for value in (-1, 2**62):
            with pytest.raises(UserError, match=f"state '{name}'"):
                env.set_state({**state, name: np.full_like(state[name], value)})
    for wrong in (state["order"][:, :1], state["order"].astype(np.int32)):
        with pytest.raises(UserError, match="state 'order'"):
            env.set_state({**state, "order": wrong})
