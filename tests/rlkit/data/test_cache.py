"""Stand-ins are made once, made again when anything differs, and never half there."""

import subprocess
import sys
from pathlib import Path

import minari
import pytest
from filelock import FileLock

from rlkit.data import cache, from_minari, generate, load_dataset
from rlkit.data.minari_store import local_ids, store_root
from rlkit.registry import record


@pytest.fixture
def made(monkeypatch):
    """How often something was generated."""
    calls = []
    original = cache._make
    monkeypatch.setattr(cache, "_make", lambda *args: calls.append(args) or original(*args))
    return calls


def folder() -> Path:
    return store_root() / "rlkit/pendulum/medium-v0"


def test_kept_as_a_minari_dataset(behaviours, made):
    first, second = load_dataset("pendulum-medium"), load_dataset("pendulum-medium")
    assert len(made) == 1 and len(first) == 700 and first.content_hash == second.content_hash
    assert first.provenance.sentence == second.provenance.sentence and "GENERATED" in first.provenance.sentence
    assert second.provenance.details["kept"] == "rlkit/pendulum/medium-v0"
    assert (second.reference, second.family) == (first.reference, first.family)
    dataset = minari.load_dataset("rlkit/pendulum/medium-v0")
    assert dataset.total_steps == 700 and dataset.env_spec.id == "Pendulum-v1"
    for data in (from_minari(dataset), load_dataset("rlkit/pendulum/medium-v0")):
        assert data.content_hash == first.content_hash
        assert data.provenance.source == "generated"  # by whichever name it is reached


def test_sizes_and_seeds_are_kept_apart(behaviours, made):
    for _ in range(2):
        load_dataset("pendulum-medium")
        load_dataset("pendulum-medium", size=60)
        load_dataset("pendulum-medium", size=60, seed=2)
    assert len(made) == 3
    names = ["rlkit/pendulum/medium-n60-s0-v0", "rlkit/pendulum/medium-n60-s2-v0", "rlkit/pendulum/medium-v0"]
    assert local_ids() == names
    assert load_dataset(names[1]).provenance.name == "pendulum-medium"


def test_made_again_when_the_behaviours_change(behaviours, made, request, monkeypatch):
    old = load_dataset("pendulum-medium")
    load_dataset("pendulum-medium")
    assert len(made) == 1
    (behaviours / "manifest.json").write_text(
        (behaviours / "manifest.json").read_text().replace('"medium": ["medium"]', '"medium": ["expert"]')
    )
    new = load_dataset("pendulum-medium")
    assert len(made) == 2 and new.content_hash != old.content_hash
    monkeypatch.setattr(generate, "ALGORITHM", generate.ALGORITHM + 1)
    load_dataset("pendulum-medium")
    assert len(made) == 3
    cache.generated(record("pendulum-medium"), force=True)
    assert len(made) == 4


def test_damage_is_noticed(behaviours, made):
    wanted = load_dataset("pendulum-medium").content_hash
    fast, slow = folder() / cache.FAST, folder() / "data" / "main_data.hdf5"
    content = bytearray(fast.read_bytes())
    content[-100] ^= 1
    fast.write_bytes(content)  # one bit: Minari's copy is taken
    assert load_dataset("pendulum-medium").content_hash == wanted and len(made) == 1
    fast.unlink()
    slow.write_bytes(slow.read_bytes()[:500])  # nothing good is left: made again
    assert load_dataset("pendulum-medium").content_hash == wanted and len(made) == 2
    (folder() / "data" / "metadata.json").write_text("{")
    assert load_dataset("pendulum-medium").content_hash == wanted and len(made) == 3


def test_a_killed_generation_leaves_nothing(behaviours, made, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_write_fast", killed)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("pendulum-medium")
    assert local_ids() == [] and not folder().exists()
    half = store_root() / ".rlkit" / "rlkit+pendulum+medium-v0" / "data"
    half.mkdir(parents=True)  # SIGKILL leaves what it was writing
    (half / "main_data.hdf5").write_bytes(b"half")
    assert len(load_dataset("pendulum-medium")) == 700 and not half.exists()


def test_a_full_disk_costs_only_the_keeping(behaviours, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_write_fast", full)
        data = load_dataset("pendulum-medium")
    assert len(data) == 700 and "No space left" in data.provenance.details["kept"] and local_ids() == []
    monkeypatch.setattr(FileLock, "acquire", lambda *args, **kwargs: full())
    data = load_dataset("pendulum-medium")
    assert len(data) == 700 and data.provenance.details["kept"].startswith("no") and local_ids() == []


def test_two_processes_make_it_once(tmp_path):
    code = (
        "import rlkit.data.cache as c; make = c._make\n"
        "def told(*a):\n    print('made'); return make(*a)\n"
        "c._make = told\n"
        "from rlkit.data import load_dataset; print(load_dataset('hopper-random', size=300).content_hash)"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [line for run in runs for line in run.communicate(timeout=60)[0].split()]
    assert [run.returncode for run in runs] == [0, 0]
    assert lines.count("made") == 1 and len(set(lines) - {"made"}) == 1
