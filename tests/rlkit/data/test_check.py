"""Each check fires on a dataset made to break it, and none fires on a good one."""

import json
import sys

import gymnasium as gym
import h5py
import numpy as np
import pytest

from rlkit.data import Provenance, behaviour_rollouts, check_dataset, load_dataset, to_minari, write_d4rl
from rlkit.data.expect import actions_covered, apart, expectations
from rlkit.data.minari_store import store_root
from rlkit.data.recorded import differences
from rlkit.registry import record


def codes(findings):
    return [finding.code for finding in findings]


@pytest.fixture(scope="module")
def hopper():
    return behaviour_rollouts(record("hopper-random"), size=3000, seed=0)


@pytest.fixture
def swinging(behaviours):
    """Eight truncated episodes of 200 steps."""
    return behaviour_rollouts(record("pendulum-medium"), size=1600)


def test_good_data_has_no_findings(hopper, swinging, behaviours, tmp_path):
    mixed = behaviour_rollouts(record("pendulum-medium-replay"), size=1000)  # cut three times
    for data in (hopper, swinging, mixed):
        assert check_dataset(data) == []
    assert check_dataset(write_d4rl(hopper, tmp_path / "a.hdf5")) == []
    assert check_dataset(to_minari(hopper, "a/b-v0")) == check_dataset("a/b-v0") == []
    assert check_dataset("pendulum-random") == []


def test_a_d4rl_file_without_next_observations_is_good(hopper, tmp_path):
    path = write_d4rl(hopper, tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        del file["next_observations"]
    assert check_dataset(path) == []


@pytest.mark.parametrize(("shift", "word"), [(1, "following"), (-1, "preceding")])
def test_shifted_rewards(hopper, shift, word):
    found = check_dataset(hopper.with_(rewards=np.roll(hopper.rewards, shift)))
    assert codes(found) == ["shifted-rewards"] and f"of the {word} row's" in found[0].sentence


def test_constant_rewards(swinging):
    found = check_dataset(swinging.with_(rewards=np.ones(1600, np.float32)))
    assert [(f.code, f.severity) for f in found] == [("constant-rewards", "warning")]


def test_random_rewards_are_no_finding(swinging):
    """Where nothing explains the rewards, nothing can be said of their place."""
    noise = np.random.default_rng(0).standard_normal(1600, dtype=np.float32)
    assert check_dataset(swinging.with_(rewards=noise)) == []


def test_broken_joins(hopper):
    order = np.random.default_rng(0).permutation(len(hopper))
    shuffled = {name: getattr(hopper, name)[order] for name in hopper.ARRAYS}
    shuffled["truncations"][-1] = True
    assert "broken-joins" in codes(check_dataset(hopper.with_(**shuffled)))
    row = int(np.flatnonzero(~hopper.terminations)[50])
    following = hopper.next_observations.copy()
    following[row] += 1
    found = check_dataset(hopper.with_(next_observations=following))
    assert codes(found) == ["broken-joins"] and f"(1 rows, first {row})" in found[0].sentence


def test_timeouts_recorded_as_terminals(swinging):
    flags = {"terminations": swinging.truncations, "truncations": swinging.terminations}
    found = check_dataset(swinging.with_(**flags))
    assert codes(found) == ["timeouts-as-terminals"] and "first at row 199" in found[0].sentence
    assert found[0].severity == "error"
    guessed = check_dataset(swinging.with_(**flags, env_id=None))
    assert [(f.code, f.severity) for f in guessed] == [("timeouts-as-terminals", "warning")]


def test_terminals_recorded_as_timeouts(hopper):
    nothing = np.zeros(len(hopper), bool)
    found = check_dataset(hopper.with_(terminations=nothing, truncations=hopper.terminations | hopper.truncations))
    assert [(f.code, f.severity) for f in found] == [("terminals-as-timeouts", "warning")]


def test_ends_that_are_not_flagged(swinging):
    ends = swinging.truncations.copy()
    ends[399] = False
    found = check_dataset(swinging.with_(truncations=ends))
    assert codes(found) == ["broken-joins", "episode-too-long"]
    assert "the first starts at row 200 and has 400" in found[1].sentence


def test_values(hopper):
    def altered(name, row, value):
        array = getattr(hopper, name).copy()
        array[row] = value
        return check_dataset(hopper.with_(**{name: array}))

    for name in ("rewards", "observations", "next_observations"):
        found = altered(name, 7, np.nan)
        assert "non-finite" in codes(found) and f"'{name}' holds NaN or infinity (1 rows, first 7)" in found[0].sentence
    assert codes(altered("actions", 8, np.inf))[-1] == "actions-out-of-bounds"
    assert codes(altered("actions", 8, np.nan)) == ["non-finite-actions"]
    found = altered("actions", 9, 1.5)
    assert codes(found) == ["actions-out-of-bounds"] and "first 9; largest magnitude 1.5" in found[0].sentence
    assert altered("actions", 9, 1.0005) == []


def test_duplicate_episodes(hopper):
    end = int(hopper.episode_ends[2])
    twice = {name: np.concatenate((getattr(hopper, name), getattr(hopper, name)[:end])) for name in hopper.ARRAYS}
    found = check_dataset(hopper.with_(**twice))
    assert [(f.code, f.severity) for f in found] == [("duplicate-episodes", "warning")]
    assert f"3 episodes repeat earlier ones exactly (the one at row {len(hopper)} repeats row 0)" in found[0].sentence


def test_files(hopper, tmp_path):
    path = write_d4rl(hopper, tmp_path / "a.hdf5")
    good = path.read_bytes()
    assert codes(check_dataset(tmp_path / "none.hdf5")) == ["missing-file"]
    for content, code in ((b"", "empty-file"), (good[:-4000], "truncated-file"), (b"text " * 100, "not-hdf5")):
        path.write_bytes(content)
        found = check_dataset(path)
        assert codes(found) == [code] and str(path) in found[0].sentence
    path.write_bytes(good)
    with h5py.File(path, "a") as file:
        del file["rewards"]
    assert codes(check_dataset(str(path))) == ["missing-array"]
    with h5py.File(path, "a") as file:
        file["rewards"] = np.zeros(5)
    assert codes(check_dataset(str(path))) == ["wrong-shapes"]


def test_another_environment(hopper):
    assert codes(check_dataset(hopper, env="Pendulum-v1")) == ["wrong-shapes"]
    assert codes(check_dataset(hopper, env=record("pendulum-medium"))) == ["wrong-shapes"]
    assert check_dataset(hopper, env="Hopper-v5") == []
    assert codes(check_dataset(hopper, env="NoSuch-v0")) == ["unreadable"]


def test_values_in_files_are_findings_not_exceptions(hopper, tmp_path):
    path = write_d4rl(hopper, tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["rewards"][11] = np.nan
        file["actions"][12] = 3.0
    assert codes(check_dataset(path)) == ["non-finite", "actions-out-of-bounds"]


@pytest.mark.parametrize(("noise", "said"), [(0.0, "cloning is expected to win"), (1.0, "cloning is not expected")])
def test_what_is_expected_of_cloning(noise, said):
    """One behaviour of states alone, or the same one drowned in noise that costs reward."""
    g = np.random.default_rng(0)
    states = g.normal(size=(2000, 3))
    actions = np.tanh(states @ [0.5, -0.3, 0.2]) + noise * g.normal(size=2000)
    rewards = 1.0 - (actions - np.tanh(states @ [0.5, -0.3, 0.2])) ** 2
    columns = {"obs": states, "action": actions, "reward": rewards, "episode": np.repeat(np.arange(40), 50)}
    told = expectations(load_dataset(columns))
    assert told[0].startswith("returns of 40 episodes") and told[2].startswith("behaviour: a fit on states leaves")
    assert told[1].startswith("coverage: ") and told[3].startswith(said)
    free = expectations(load_dataset({k: v for k, v in columns.items() if k != "reward"}))
    assert free == told[1:3]


def test_observations_that_the_environment_cannot_give(swinging):
    degrees = {
        name: getattr(swinging, name) * np.float32([1, 1, 57.3]) for name in ("observations", "next_observations")
    }
    found = check_dataset(swinging.with_(**degrees))
    assert codes(found) == ["observations-out-of-space"] and "column 2 goes from" in found[0].sentence
    assert "expected -8 to 8" in found[0].sentence


def test_coverage_is_what_it_says():
    """Actions in two of ten tenths; episodes that pass through the same states, or through their own."""
    g = np.random.default_rng(1)
    columns = {
        "obs": g.normal(size=(1000, 2)),
        "action": np.where(g.random(1000) < 0.5, 0.05, 0.95),
        "episode": np.repeat(np.arange(4), 250),
    }
    bounds = {"action": (0, 1)}
    data = load_dataset(columns, bounds=bounds)
    assert actions_covered(data) == pytest.approx(0.2) and actions_covered(load_dataset(columns)) == 0.2
    five = load_dataset({**columns, "action": np.arange(1000) % 4}, n_actions=5)
    assert actions_covered(five) == pytest.approx(0.8)
    near = apart(data)
    same = apart(load_dataset({**columns, "obs": np.tile(columns["obs"][:250], (4, 1))}, bounds=bounds))
    own = apart(load_dataset({**columns, "obs": columns["obs"] + 100 * columns["episode"][:, None]}, bounds=bounds))
    assert same < 0.01 < near < 0.1 < 0.4 < own <= 1
    one = {name: column for name, column in columns.items() if name != "episode"}
    assert apart(load_dataset(one, bounds=bounds)) is None
    far = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    assert actions_covered(data.with_(action_space=far)) is None


def test_the_environment_of_the_recording_beside_that_of_the_evaluation(hopper):
    assert differences(("Hopper-v5", {}), ("Hopper-v5", {"forward_reward_weight": 1.0})) == []
    found = differences(("Hopper-v5", {"healthy_reward": 2.0}), ("Hopper-v5", {}))
    assert found == ["healthy_reward=2.0, not 1.0"]
    found = differences(("Hopper-v5", {}), ("HalfCheetah-v5", {}))
    assert found[0] == "'Hopper-v5', not 'HalfCheetah-v5'" and any("positions" in one for one in found)
    mazes = [{"maze_map": [[1, 1, 1], [1, cell, 1], [1, 1, 1]]} for cell in ("r", 0, 1)]
    ids = ("D4RL/PointMaze_UMaze-v3", "farama/PointMaze_UMaze-v3")
    assert differences((ids[0], mazes[0]), (ids[1], mazes[1])) == []
    assert differences((ids[0], mazes[0]), (ids[1], mazes[2])) == ["maze_map has other walls"]
    assert "layout='umaze', not 'large'" in differences(
        ("rlkit/PointMaze_UMaze-v0", {}), ("rlkit/PointMaze_Large-v0", {})
    )
    assert differences(("a_module:Env-v0", {}), ("Hopper-v5", {})) == ["'a_module:Env-v0', not 'Hopper-v5'"]
    assert "a_module" not in sys.modules
    assert differences(("\x1b[2J", {}), ("Hopper-v5", {}))[0].isprintable()
    to_minari(hopper.with_(provenance=Provenance("memory", "own")), "a/b-v0")
    assert check_dataset("a/b-v0") == []
    assert codes(check_dataset("a/b-v0", env="Walker2d-v5")) == ["wrong-shapes"]
    path = store_root() / "a/b-v0/data/metadata.json"
    text = json.loads(path.read_text())
    recorded = json.loads(text["env_spec"])
    recorded["kwargs"] = {"frame_skip": 8}
    path.write_text(json.dumps({**text, "env_spec": json.dumps(recorded)}))
    found = check_dataset("a/b-v0")
    assert codes(found) == ["other-environment"] and "frame_skip=8, not 4; steps of" in found[0].sentence


def test_columns_that_are_alike_and_large_are_said_to_be_large():
    g = np.random.default_rng(0)
    columns = {"obs": 1e5 + g.normal(size=(100, 2)), "action": g.normal(size=100), "reward": g.normal(size=100)}
    said = next(f.sentence for f in check_dataset(load_dataset(columns)) if f.code == "scales")
    assert "far larger than 1" in said and "differ" not in said
