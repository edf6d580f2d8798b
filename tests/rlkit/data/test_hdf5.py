"""D4RL HDF5: loss-free both ways, and one sentence for each kind of broken file."""

import re
import tempfile
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.data import OfflineDataset, read_d4rl, write_d4rl
from rlkit.data.hdf5 import infer_timeouts
from rlkit.errors import DataError
from rlkit.registry import record


def raw(n=12, ds=3, da=1, **changes):
    """Arrays of a D4RL file for Pendulum-v1: episodes of 4 rows, timeouts, the second ends in a terminal."""
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.uniform(-1, 1, (n, ds)).astype(np.float32),
        "actions": rng.uniform(-2, 2, (n, da)).astype(np.float32),
        "rewards": rng.standard_normal(n).astype(np.float32),
        "terminals": np.arange(n) == 7,
        "timeouts": (np.arange(n) % 4 == 3) & (np.arange(n) != 7),
    }
    return {name: array for name, array in (arrays | changes).items() if array is not None}


def save(path: Path, arrays) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def same(a: OfflineDataset, b: OfflineDataset) -> None:
    for name in OfflineDataset.ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.content_hash == b.content_hash


episodes = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=8)


@given(episodes=episodes, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_round_trip(toy, episodes, seed):
    data = toy([n for n, _ in episodes], [t for _, t in episodes], seed)
    with tempfile.TemporaryDirectory() as folder:
        back = read_d4rl(write_d4rl(data, Path(folder) / "a.hdf5"))
    same(data, back)
    assert (back.observation_space, back.action_space) == (data.observation_space, data.action_space)
    assert (back.reference, back.family, back.task, back.env_id) == ((-1.0, 2.0), "toys", "toy", None)
    assert back.provenance.source == "path" and back.provenance.details["origin"] == "memory toy"


def test_generated_data_stays_generated(toy, tmp_path):
    data = toy([3], [True])
    data = data.with_(provenance=type(data.provenance)("generated", "3 transitions", "toy-medium"))
    for name in ("a.hdf5", "b.hdf5"):
        data = read_d4rl(write_d4rl(data, tmp_path / name))
    assert data.provenance.source == "generated"
    assert data.provenance.locator == f"{tmp_path / 'b.hdf5'} <- 3 transitions"


def test_rows_without_successor_are_dropped(tmp_path):
    arrays = raw()
    data = read_d4rl(save(tmp_path / "pendulum-medium-v2.hdf5", arrays))
    kept = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]  # 3 and 11 are timeouts; 7 is terminal and needs no successor
    np.testing.assert_array_equal(data.observations, arrays["observations"][kept])
    np.testing.assert_array_equal(data.rewards, arrays["rewards"][kept])
    successors = [1, 2, 3, 5, 6, 7, 7, 9, 10, 11]  # the terminal row's is its own, never the next episode's first
    np.testing.assert_array_equal(data.next_observations, arrays["observations"][successors])
    assert np.flatnonzero(data.truncations).tolist() == [2, 9]
    assert np.flatnonzero(data.terminations).tolist() == [6]
    assert (data.env_id, data.reference, data.provenance.name) == ("Pendulum-v1", (-1500.0, -150.0), "pendulum-medium")
    assert data.provenance.details["dropped"].startswith("2 rows")


def test_transitions_match_d4rl_qlearning_dataset(tmp_path):
    """The reference loop, written out: what d4rl.qlearning_dataset keeps, for episodes that do not end in terminals."""
    arrays = raw(n=30, terminals=np.zeros(30, bool), timeouts=np.isin(np.arange(30), [0, 6, 7, 20]))
    rows = [i for i in range(29) if not arrays["timeouts"][i]]
    data = read_d4rl(save(tmp_path / "a.hdf5", arrays))
    np.testing.assert_array_equal(data.observations, arrays["observations"][rows])
    np.testing.assert_array_equal(data.next_observations, arrays["observations"][[i + 1 for i in rows]])
    inside = ~(data.truncations | data.terminations)[:-1]
    np.testing.assert_array_equal(data.next_observations[:-1][inside], data.observations[1:][inside])


def test_next_observations_keep_every_row(tmp_path):
    arrays = raw(n=10, next_observations=np.ones((10, 3), np.float32))
    data = read_d4rl(save(tmp_path / "a.hdf5", arrays))
    assert len(data) == 10 and data.next_observations.min() == 1
    assert np.flatnonzero(data.truncations).tolist() == [3, 9]  # 9: cut off by the end of the data


def test_missing_timeouts_are_inferred(tmp_path):
    path = save(tmp_path / "a.hdf5", raw(timeouts=None))
    data = read_d4rl(path, max_episode_steps=5)
    assert "5 steps" in data.provenance.details["timeouts"]
    assert np.flatnonzero(data.truncations).tolist() == [3, 9]  # row 4 was dropped, the last one is unknown
    assert "200 steps" in read_d4rl(path, record=record("pendulum-medium")).provenance.details["timeouts"]
    assert "1000 steps" in read_d4rl(path).provenance.details["timeouts"]


@given(terminals=st.lists(st.booleans(), min_size=1, max_size=40), limit=st.integers(1, 7))
@settings(max_examples=50, deadline=None)
def test_inferred_timeouts_match_the_loop(terminals, limit):
    step, wanted = 0, []
    for terminal in terminals:
        step += 1
        wanted.append(step == limit)
        if terminal or step == limit:
            step = 0
    assert infer_timeouts(np.array(terminals), limit).tolist() == wanted


def test_columns_and_kinds_are_tolerated(tmp_path):
    plain = read_d4rl(save(tmp_path / "a.hdf5", raw()))
    n = len(raw()["rewards"])
    odd = raw()
    odd |= {name: odd[name].reshape(n, 1).astype(np.float64) for name in ("rewards", "terminals", "timeouts")}
    same(plain, read_d4rl(save(tmp_path / "b.hdf5", odd | {"observations": odd["observations"].astype(np.float64)})))


def test_actions_beyond_their_bounds_by_rounding_are_clipped(tmp_path):
    actions = raw()["actions"]
    actions[4] = 2.001
    data = read_d4rl(save(tmp_path / "a.hdf5", raw(actions=actions)), record=record("pendulum-medium"))
    assert data.actions.max() == 2.0 and data.provenance.details["clipped"].startswith("1 ")


def bad(name, row, value):
    array = raw()[name].copy()
    array[row] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"rewards": None},
            "has no 'rewards', expected D4RL's layout; it holds actions, observations, terminals, t",
        ),
        ({"observations": None}, "has no 'observations'"),
        ({"rewards": np.zeros((12, 2))}, "'rewards' has shape [12, 2], expected [12]"),
        ({"rewards": np.zeros(5)}, "'rewards' has shape [5], expected [12]"),
        ({"actions": np.zeros((11, 1))}, "'actions' has shape [11, 1], expected [12, …]"),
        (
            {"observations": np.zeros((12, 4))},
            "'observations' has shape [12, 4], which does not fit Pendulum-v1: expected [12, 3]",
        ),
        (
            {"actions": np.zeros((12, 2))},
            "'actions' has shape [12, 2], which does not fit Pendulum-v1: expected [12, 1]",
        ),
        ({"next_observations": np.zeros((12, 4))}, "'next_observations' has shape [12, 4], expected [12, 3]"),
        (bad("rewards", 5, np.nan), "'rewards' holds nan at row 5, expected finite numbers"),
        (bad("observations", 9, np.inf), "'observations' holds inf at row 9, column 0, expected finite numbers"),
        (bad("actions", 2, np.nan), "'actions' holds nan at row 2, column 0, expected finite numbers"),
        (bad("actions", 6, 2.5), "action 2.5 at row 6, column 0 is out of bounds, expected [-2, 2]"),
        ({"actions": np.array(["a"] * 12, dtype="S1")}, "'actions' is not an array of numbers"),
        ({name: array[:0] for name, array in raw().items()}, "holds no transitions, expected at least one"),
        ({name: array[:1] for name, array in raw().items()}, "holds no transition whose next observation is known"),
    ],
)
def test_bad_arrays(tmp_path, changes, sentence):
    path = save(tmp_path / "a.hdf5", raw(**changes))
    with pytest.raises(DataError, match=re.escape(sentence)) as error:
        read_d4rl(path, record=record("pendulum-medium"))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_float64_beyond_float32_is_infinite(tmp_path):
    with pytest.raises(DataError, match="'rewards' holds inf at row 1"):
        read_d4rl(save(tmp_path / "a.hdf5", raw(rewards=np.where(np.arange(12) == 1, 1e300, 0.0))))


def test_bad_files(tmp_path):
    good = save(tmp_path / "good.hdf5", raw(n=5000)).read_bytes()
    cases = {
        "empty": (b"", "is empty (0 bytes)"),
        "truncated": (good[: len(good) // 2], "is truncated"),
        "text": (b"<html>404</html>" * 40, "is not an HDF5 file"),
    }
    for name, (content, sentence) in cases.items():
        path = tmp_path / f"{name}.hdf5"
        path.write_bytes(content)
        with pytest.raises(DataError, match=re.escape(f"{path} {sentence}")):
            read_d4rl(path)
    with pytest.raises(DataError, match="does not exist"):
        read_d4rl(tmp_path / "none.hdf5")
    with pytest.raises(DataError, match="is a folder"):
        read_d4rl(tmp_path)


def test_links_out_of_the_file_are_not_followed(tmp_path):
    save(tmp_path / "other.hdf5", raw())
    with h5py.File(save(tmp_path / "a.hdf5", raw(rewards=None)), "a") as file:
        file["rewards"] = h5py.ExternalLink("other.hdf5", "/rewards")
    with pytest.raises(DataError, match="'rewards' is not an array of numbers inside the file"):
        read_d4rl(tmp_path / "a.hdf5")


def test_damaged_metadata(toy, tmp_path):
    path = write_d4rl(toy([3], [True]).with_(env_id="os:evil"), tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="'os:evil' names a module to import"):
        read_d4rl(path)
    with h5py.File(path, "a") as file:
        del file["metadata/rlkit"]
        file["metadata/rlkit"] = "{"
    with pytest.raises(DataError, match="'metadata/rlkit' is damaged"):
        read_d4rl(path)


def test_nothing_is_overwritten(toy, tmp_path, monkeypatch):
    path = tmp_path / "a.hdf5"
    path.write_text("precious")
    data = toy([3], [True])
    with pytest.raises(DataError, match="exists already"):
        write_d4rl(data, path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(h5py.Group, "create_dataset", full)
        with pytest.raises(DataError, match=r"cannot write .*No space left"):
            write_d4rl(data, path, overwrite=True)
    assert path.read_text() == "precious" and [p.name for p in tmp_path.iterdir()] == ["a.hdf5"]
    write_d4rl(data, path, overwrite=True)
    same(data, read_d4rl(path))
    with pytest.raises(DataError, match=r"folder .* does not exist"):
        write_d4rl(data, tmp_path / "no" / "a.hdf5")


def test_what_reading_would_refuse_is_not_written(toy, tmp_path):
    data = toy([3], [True])
    with pytest.raises(DataError, match="'rewards' holds nan"):
        write_d4rl(data.with_(rewards=np.full(3, np.nan, np.float32)), tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="clip them first"):
        write_d4rl(data.with_(actions=np.full((3, 2), 1.0005, np.float32)), tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="last row must end its episode"):
        write_d4rl(data.with_(terminations=np.zeros(3, bool)), tmp_path / "a.hdf5")
    assert not list(tmp_path.glob("*.hdf5"))


def test_spaces_come_from_the_environment(tmp_path):
    data = read_d4rl(save(tmp_path / "a.hdf5", raw()), env_id="Pendulum-v1")
    env = gym.make("Pendulum-v1")
    assert (data.observation_space, data.action_space) == (env.observation_space, env.action_space)
    with pytest.raises(DataError, match="'NoSuch-v0': cannot be made"):
        read_d4rl(tmp_path / "a.hdf5", env_id="NoSuch-v0")
