"""Imitation data: parts in whole episodes, counted as episodes, without rewards, the same through every store."""

import hashlib

import gymnasium as gym
import numpy as np
import pytest

import rlkit.registry
from rlkit.data import OfflineDataset, cache, from_minari, generate, load_dataset, read_d4rl, to_minari, write_d4rl
from rlkit.data.imitation import MixtureSpec, imitation_dataset, mixture, monitor_rows, pool_rows
from rlkit.envs.records.imitation import LEVELS, RECORDS
from rlkit.envs.records.locomotion import RECORDS as LOCOMOTION
from rlkit.envs.records.locomotion import TASKS
from rlkit.errors import DataError
from rlkit.registry import EnvRecord


@pytest.fixture
def expert(toy) -> OfflineDataset:
    return toy([5, 3, 1, 7, 2, 4], [False, True, True, False, True, False], seed=1)


@pytest.fixture
def pool(toy) -> OfflineDataset:
    return toy([6, 2, 9], [True, True, False], seed=2)


def test_episodes_are_counted_as_episodes_whatever_their_length(expert, pool):
    data = imitation_dataset(expert=expert, suboptimal=pool, labelled_episodes=2, hidden_expert_episodes=3)
    assert data.parts == (("expert", 8), ("hidden", 10), ("suboptimal", 17)) and len(data) == 35
    assert [data.rows_of(part) for part in ("expert", "hidden", "suboptimal")] == [(0, 8), (8, 18), (18, 35)]
    assert pool_rows(data) == (8, 35)
    for name in ("observations", "actions", "next_observations", "terminations", "truncations"):
        expected = np.concatenate([getattr(expert, name)[:18], getattr(pool, name)])
        np.testing.assert_array_equal(getattr(data, name), expected)
    assert data.episode_ends.tolist() == [5, 8, 9, 16, 18, 24, 26, 35]
    assert data.describe()["parts"] == {"expert": 8, "hidden": 10, "suboptimal": 17}
    assert (data.reference, data.family, data.task) == (pool.reference, "toys", "toy")
    assert data.provenance.source == "memory" and "rewards left out" in data.provenance.sentence


def test_nothing_hidden_is_no_part(expert, pool):
    data = imitation_dataset(expert=expert, suboptimal=pool)
    assert data.parts == (("expert", 5), ("suboptimal", 17))
    with pytest.raises(DataError, match="has no hidden part"):
        data.rows_of("hidden")


def test_an_episode_never_runs_on_into_another_part(expert, pool):
    open_end = expert.truncations.copy()
    open_end[-1] = False  # cut by the end of the data, and not flagged
    data = imitation_dataset(
        expert=expert.with_(truncations=open_end), suboptimal=pool, labelled_episodes=1, hidden_expert_episodes=5
    )
    assert data.truncations[21] and not data.terminations[21]
    assert data.rows_of("hidden") == (5, 22)


def test_rewards_of_the_sources_change_no_byte(expert, pool):
    g = np.random.default_rng(0)
    data = imitation_dataset(expert=expert, suboptimal=pool, hidden_expert_episodes=2)
    assert not data.rewards.any() and data.rewards.dtype == np.float32
    assert data.reward_free and not expert.reward_free
    others = [d.with_(rewards=g.standard_normal(len(d)).astype(np.float32)) for d in (expert, pool)]
    again = imitation_dataset(expert=others[0], suboptimal=others[1], hidden_expert_episodes=2)
    assert again.content_hash == data.content_hash and again.describe() == data.describe()


def test_parts_belong_to_the_content_and_data_without_them_keeps_its_hash(expert, pool):
    digest = hashlib.sha256()
    for name in OfflineDataset.ARRAYS:
        array = getattr(pool, name)
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode() + array.tobytes())
    assert pool.content_hash == digest.hexdigest()
    one, other = (pool.with_(parts=(("expert", n), ("suboptimal", 17 - n))) for n in (6, 8))
    assert len({pool.content_hash, one.content_hash, other.content_hash}) == 3
    assert "parts" not in pool.describe()


@pytest.mark.parametrize("parts", [(("expert", 16),), (("expert", 5), ("suboptimal", 12)), (("expert", 17), ("x", 0))])
def test_parts_that_do_not_make_up_the_rows_in_whole_episodes_are_refused(parts, pool):
    with pytest.raises(DataError, match="do not make up the 17 rows"):
        pool.with_(parts=parts)


def test_stores_keep_the_parts(expert, pool, tmp_path):
    data = imitation_dataset(expert=expert, suboptimal=pool, hidden_expert_episodes=2)
    stored = to_minari(data, "test/mixture-v0")
    write_d4rl(data, tmp_path / "mixture.hdf5")
    for back in (from_minari(stored), load_dataset("test/mixture-v0"), read_d4rl(tmp_path / "mixture.hdf5")):
        assert back.parts == data.parts and back.content_hash == data.content_hash


def test_rows_to_watch_lie_in_their_parts_evenly(expert, pool):
    data = imitation_dataset(expert=expert, suboptimal=pool, hidden_expert_episodes=2)
    rows = monitor_rows(data, count=6)
    assert list(rows) == ["expert", "hidden", "suboptimal"]
    for part, found in rows.items():
        first, last = data.rows_of(part)
        assert found[0] == first and found[-1] == last - 1 and len(found) == len(set(found)) == min(6, last - first)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"labelled_episodes": 0}, "labelled_episodes=0 is out of range, expected a whole number of at least 1"),
        ({"hidden_expert_episodes": -1}, "hidden_expert_episodes=-1 is out of range"),
        ({"hidden_expert_episodes": 6}, "holds 6 episodes, expected at least 7: 1 labelled and 6 hidden"),
    ],
)
def test_counts_out_of_range(counts, expected, expert, pool):
    with pytest.raises(DataError, match=expected):
        imitation_dataset(expert=expert, suboptimal=pool, **counts)


def test_an_expert_of_another_environment_is_refused(toy, expert, pool):
    named = [d.with_(env_id=env) for d, env in ((expert, "HalfCheetah-v5"), (pool, "Hopper-v5"))]
    with pytest.raises(DataError, match=r"is of HalfCheetah-v5, .* of Hopper-v5; expected both of one environment"):
        imitation_dataset(expert=named[0], suboptimal=named[1])
    lighter = [pool.with_(env_id="Hopper-v5", env_kwargs=kwargs) for kwargs in ({}, {"reset_noise_scale": 0.1})]
    with pytest.raises(DataError, match=r"of Hopper-v5 \{'reset_noise_scale': 0.1\}"):
        imitation_dataset(expert=lighter[0], suboptimal=lighter[1])
    with pytest.raises(DataError, match=r"observation_space of shape \[4\] .* of shape \[3\]"):
        imitation_dataset(expert=toy([5, 3], [True, True], ds=4), suboptimal=pool)
    wide = expert.with_(action_space=gym.spaces.Box(-2, 2, (2,), np.float32))
    with pytest.raises(DataError, match=r"action_space of shape \[2\] within \[-2, 2\]"):
        imitation_dataset(expert=wide, suboptimal=pool)
    # A file that names no environment is taken at its shapes; what is known comes from the other.
    assert imitation_dataset(expert=named[0], suboptimal=pool).env_id == "HalfCheetah-v5"


# ---- records ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed() -> EnvRecord:
    spec = MixtureSpec(
        level="random-expert",
        generator="rlkit.data.imitation:mixture",
        reference=(-1500.0, -150.0),
        size=700,
        expert="pendulum-expert",
        suboptimal="pendulum-random",
        hidden_episodes=4,
    )
    found = EnvRecord("pendulum-random-expert", "toy", "Pendulum-v1", "classic", "pendulum", spec)
    rlkit.registry.add_records([found])
    return found


def test_a_record_is_mixed_from_two_generated_ones_and_kept(behaviours, mixed, monkeypatch):
    first = load_dataset("pendulum-random-expert")
    assert first.parts == (("expert", 200), ("hidden", 800), ("suboptimal", 700)) and not first.rewards.any()
    assert first.provenance.name == "pendulum-random-expert" and "GENERATED" in first.provenance.sentence
    assert (first.env_id, first.reference) == ("Pendulum-v1", (-1500.0, -150.0))
    source = load_dataset("pendulum-random")
    np.testing.assert_array_equal(first.actions[1000:], source.actions)
    monkeypatch.setattr(cache, "_make", None)  # nothing is made a second time
    for again in (load_dataset("pendulum-random-expert"), load_dataset("rlkit/pendulum/random-expert-v0")):
        assert again.parts == first.parts and again.content_hash == first.content_hash
    (cache.store_root() / "rlkit/pendulum/random-expert-v0" / cache.FAST).unlink()
    assert load_dataset("pendulum-random-expert").content_hash == first.content_hash


def test_another_size_scales_what_is_hidden(behaviours, mixed):
    assert mixture(mixed, size=350).parts == (("expert", 200), ("hidden", 400), ("suboptimal", 350))
    assert mixture(mixed, size=10).parts == (("expert", 200), ("hidden", 200), ("suboptimal", 10))
    one, other = (mixture(mixed, size=10, seed=seed) for seed in (0, 1))
    assert one.content_hash != other.content_hash


def test_made_again_when_a_source_changes(behaviours, mixed):
    old = load_dataset("pendulum-random-expert")
    text = (behaviours / "manifest.json").read_text()
    (behaviours / "manifest.json").write_text(text.replace('"expert": ["expert"]', '"expert": ["medium"]'))
    new = load_dataset("pendulum-random-expert")
    assert new.content_hash != old.content_hash
    np.testing.assert_array_equal(new.actions[1000:], old.actions[1000:])


def test_a_record_that_mixes_nothing_is_refused():
    with pytest.raises(DataError, match="'pendulum-medium' names no sources to mix"):
        mixture(rlkit.registry.record("pendulum-medium"))


def test_the_shipped_records():
    assert set(RECORDS) == {f"{task}-{level}" for task in TASKS for level in LEVELS}
    for record in RECORDS.values():
        spec, whole = record.data, LOCOMOTION[f"{record.task}-expert"].data
        assert isinstance(spec, MixtureSpec) and whole is not None
        assert {spec.expert, spec.suboptimal} <= LOCOMOTION.keys()
        assert spec.reference == whole.reference and spec.labelled_episodes == 1
    counts = {name: record.data.hidden_episodes for name, record in RECORDS.items()}
    assert counts["hopper-random-expert"] == 200 and counts["walker2d-medium-expert-imitation"] == 100
    assert counts["ant-random-few"] == counts["walker2d-medium-few"] == 30
    assert not RECORDS.keys() & LOCOMOTION.keys()


def test_hopper_is_mixed_from_the_shipped_behaviours_and_without_behaviours_it_says_what_is_missing(
    tmp_path, monkeypatch
):
    data = mixture(RECORDS["hopper-random-few"], size=400)
    assert dict(data.parts)["suboptimal"] == 400 and data.env_id == "Hopper-v5"
    assert [part for part, _ in data.parts] == ["expert", "hidden", "suboptimal"]
    monkeypatch.setattr(generate, "BEHAVIOURS", tmp_path)
    rlkit.registry.add_records(RECORDS.values())
    with pytest.raises(DataError, match=r"'halfcheetah-expert' cannot be generated, .* scripts/train_behaviours\.py"):
        load_dataset("halfcheetah-random-few")
