"""No file of routing, however it was made, gets more than one sentence, a second, or 200 MB."""

from __future__ import annotations

import json
import sys
import tracemalloc
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlkit.envs.combinatorial.labels import read_labels
from rlkit.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves a test's own folder out

from fuzz_routing import READERS, SMALL, cases, digests, pack, sound_set


def outcome(path: Path, suffix: str, content: bytes) -> str:
    """What a file's reader says, "" where it returns; fails where it takes too much."""
    path = path.with_suffix(suffix)
    path.write_bytes(content)
    tracemalloc.start()
    said = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the unit square
            READERS[suffix](path)
    except UserError as error:
        said = str(error)
    finally:
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert memory < 200e6
    assert "\n" not in said and len(said) < 600 and said.isprintable()
    return said


def test_hostile_files_of_every_kind(tmp_path: Path) -> None:
    said = [
        outcome(tmp_path / "a", Path(name).suffix, text) for name, text in islice(cases(np.random.default_rng(0)), 600)
    ]
    read = sum(not sentence for sentence in said)
    assert 50 < read < 300  # neither harmless all of them nor garbage


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_hostile_files_of_any_seed(tmp_path: Path, seed: int) -> None:
    for name, content in islice(cases(np.random.default_rng(seed)), 5):
        outcome(tmp_path / "a", Path(name).suffix, content)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(sorted(READERS)), content=st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes(tmp_path: Path, suffix: str, content: bytes) -> None:
    outcome(tmp_path / "a", suffix, content)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_made_hostile_was_sound(tmp_path: Path, name: str) -> None:
    arrays, metadata = sound_set(name)
    (tmp_path / "a.safetensors").write_bytes(pack(arrays, json.dumps({**metadata, "sha256": digests(arrays)})))
    assert len(read_labels(tmp_path / "a.safetensors")) == 3
