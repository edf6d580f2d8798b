"""The Minari store: loss-free both ways, readable by Minari itself, written whole or not at all."""

import json
import re
import warnings

import gymnasium as gym
import minari
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer

from rlkit.data import OfflineDataset, from_minari, local_ids, minari_store, to_minari
from rlkit.errors import DataError

episodes = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=8)


def same(a: OfflineDataset, b: OfflineDataset) -> None:
    for name in OfflineDataset.ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def native(dataset_id="native/box-v0", lengths=(4, 2), dtype=np.float64, action=0.5, spaces=None):
    """A dataset made by Minari's own writer; its last episode ends without a flag."""
    rng = np.random.default_rng(0)
    buffers = [
        EpisodeBuffer(
            observations=rng.standard_normal((n + 1, 3)).astype(dtype),
            actions=np.full((n, 2), action, np.float32),
            rewards=rng.standard_normal(n),
            terminations=np.arange(n) == (n - 1 if i == 0 else n),
            truncations=np.zeros(n, bool),
        )
        for i, n in enumerate(lengths)
    ]
    box, act = spaces or (gym.spaces.Box(-np.inf, np.inf, (3,), dtype), gym.spaces.Box(-1, 1, (2,), np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return minari.create_dataset_from_buffers(dataset_id, buffers, observation_space=box, action_space=act)


@given(episodes=episodes, seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(toy, episodes, seed):
    data = toy([n for n, _ in episodes], [t for _, t in episodes], seed)
    stored = to_minari(data, "toys/toy/mine-v0", overwrite=True)
    back = from_minari("toys/toy/mine-v0")
    same(data, back)
    assert back.content_hash == data.content_hash
    assert (back.reference, back.family, back.task) == (data.reference, data.family, data.task)
    assert (back.observation_space, back.action_space) == (data.observation_space, data.action_space)
    same(data, from_minari(stored))
    assert stored.total_episodes == len(episodes) and stored.total_steps == len(data)


def test_minari_reads_what_rlkit_writes(toy, capfd):
    data = toy([4, 3], [True, False]).with_(env_id="Pendulum-v1", env_kwargs={"g": 9.0})
    to_minari(data, "toys/toy/mine-v0")
    assert local_ids() == ["toys/toy/mine-v0"] == list(minari.list_local_datasets())
    assert minari.list_local_namespaces() if hasattr(minari, "list_local_namespaces") else True
    dataset = minari.load_dataset("toys/toy/mine-v0")
    assert dataset.env_spec.id == "Pendulum-v1" and dataset.env_spec.kwargs == {"g": 9.0}
    first, second = dataset.iterate_episodes()
    np.testing.assert_array_equal(first.observations[:-1], data.observations[:4])
    np.testing.assert_array_equal(first.observations[-1], data.next_observations[3])
    assert first.terminations.tolist() == [False] * 3 + [True] and second.truncations.tolist() == [False] * 2 + [True]
    assert from_minari(dataset).env_kwargs == {"g": 9.0}
    same(
        from_minari(dataset.filter_episodes(lambda e: bool(e.terminations[-1]))),
        toy([4, 3], [True, False]).with_(**{name: getattr(data, name)[:4] for name in OfflineDataset.ARRAYS}),
    )
    assert capfd.readouterr() == ("", "")


def test_minaris_own_datasets(monkeypatch):
    dataset = native()
    data = from_minari(dataset)
    assert data.observations.dtype == np.float32 and len(data) == 6
    assert data.terminations.tolist() == [False] * 3 + [True, False, False]
    assert data.truncations.tolist() == [False] * 5 + [True]  # an episode without an end was cut off
    assert data.provenance.source == "minari-local" and data.provenance.locator == "native/box-v0"

    class OtherFormat:
        """The same dataset as if stored by another backend: only the public interface can read it."""

        id, episode_indices, env_spec = dataset.id, dataset.episode_indices, dataset.env_spec
        observation_space, action_space = dataset.observation_space, dataset.action_space
        iterate_episodes = dataset.iterate_episodes

        class storage:
            metadata = {"data_format": "arrow"}  # noqa: RUF012
            data_path = ""

    same(data, from_minari(OtherFormat()))


def test_bad_datasets(toy):
    with pytest.raises(DataError, match=r"action 1.5 at row 0, column 0 is out of bounds"):
        from_minari(native("bad/action-v0", action=1.5))
    discrete = gym.spaces.Box(-1, 1, (3,), np.float64), gym.spaces.MultiDiscrete([2, 2])
    with pytest.raises(DataError, match="the action space is MultiDiscrete, expected a Box"):
        from_minari(native("bad/space-v0", spaces=discrete))
    with pytest.raises(DataError, match="'no/such-v0' is not in the local store"):
        from_minari("no/such-v0")
    with pytest.raises(DataError, match=r"'\.\./x' is no Minari id"):
        from_minari("../x")

    to_minari(toy([4], [True]), "bad/cut-v0")
    file = minari_store.store_root() / "bad/cut-v0/data/main_data.hdf5"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cannot be read .* fetch it again"):
        from_minari("bad/cut-v0")
    meta = file.with_name("metadata.json")
    fields = json.loads(meta.read_text())
    meta.write_text(json.dumps({key: value for key, value in fields.items() if key != "action_space"}))
    with pytest.raises(DataError, match="names no spaces"):
        from_minari("bad/cut-v0")
    meta.write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        from_minari("bad/cut-v0")


def test_inconsistent_episode_lengths():
    import h5py

    native()
    path = minari_store.store_root() / "native/box-v0/data/main_data.hdf5"
    with h5py.File(path, "a") as file:
        file["episode_1/actions"].resize((1, 2))
    with pytest.raises(DataError, match=re.escape("episode 1 has 1 actions, expected 2 beside its 2 rewards")):
        from_minari("native/box-v0")


def test_refused_writes(toy):
    data = toy([4, 3], [True, False])
    broken = data.next_observations.copy()
    broken[1] += 1
    with pytest.raises(DataError, match="next_observations of row 1 is not the observation of row 2"):
        to_minari(data.with_(next_observations=broken), "toys/a-v0")
    with pytest.raises(DataError, match="last row must end its episode"):
        to_minari(data.with_(truncations=np.zeros(7, bool)), "toys/a-v0")
    with pytest.raises(DataError, match="'toys/a' is no Minari id"):
        to_minari(data, "toys/a")
    assert local_ids() == []
    to_minari(data, "toys/a-v0")
    with pytest.raises(DataError, match="exists already"):
        to_minari(toy([2], [True]), "toys/a-v0")
    same(data, from_minari("toys/a-v0"))


def test_a_failed_write_leaves_the_old_dataset(toy, monkeypatch):
    data = toy([4, 3], [True, False])
    to_minari(data, "toys/a-v0")

    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(minari_store, "_write_episodes", dies)
        with pytest.raises(KeyboardInterrupt):
            to_minari(toy([2], [True]), "toys/a-v0", overwrite=True)
    same(data, from_minari("toys/a-v0"))
    leftover = minari_store.store_root() / ".rlkit" / "toys+a-v0" / "data"
    leftover.mkdir(parents=True)  # as a killed process leaves it
    to_minari(toy([2], [True]), "toys/a-v0", overwrite=True)
    assert len(from_minari("toys/a-v0")) == 2 and not leftover.exists()
