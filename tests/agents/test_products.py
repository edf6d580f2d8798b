"""The search by products against the one by certificates: the same rows and the same distances, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.agents import PRDC
from rlkit.agents.prdc import products
from rlkit.agents.prdc.neighbours import RowCertificateSearch
from rlkit.agents.prdc.products import ProductSearch, error
from rlkit.errors import DataError, UserError


def both(states: np.ndarray, actions: np.ndarray, beta: float) -> tuple[ProductSearch, RowCertificateSearch]:
    ours = ProductSearch(torch.from_numpy(states), torch.from_numpy(actions), beta=beta)
    return ours, RowCertificateSearch(states, actions, beta=beta)


def assert_same(ours: ProductSearch, theirs: RowCertificateSearch, rows: np.ndarray, proposals: np.ndarray) -> None:
    index, squares = ours.query(torch.from_numpy(rows), torch.from_numpy(proposals))
    expected = theirs.query(rows, proposals)
    np.testing.assert_array_equal(index.numpy(), expected[0])
    np.testing.assert_array_equal(np.sqrt(squares.numpy()), expected[1])
    assert index.dtype == torch.int64 and squares.dtype == torch.float64


@settings(max_examples=1200, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 90),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    beta=st.sampled_from([0.0, 1e-6, 0.3, 2.0, 1e4]),
    kind=st.sampled_from(["plain", "ties", "duplicates", "one row", "offset", "huge offset", "large", "scales"]),
)
def test_equals_the_search_by_certificates(seed: int, n: int, widths: tuple[int, int], beta: float, kind: str) -> None:
    random = np.random.default_rng(seed)
    states, actions = (random.normal(size=(n, width)) for width in widths)
    proposals = random.normal(size=(7, widths[1]))
    rows = random.integers(0, n, 7)
    if kind == "ties":
        states, actions, proposals = np.round(states), np.round(actions), np.round(2 * proposals) / 2
    elif kind == "duplicates":
        copies = random.integers(0, max(1, n // 8), n)
        states, actions = states[copies], actions[copies]
    elif kind == "one row":
        states[:], actions[:] = states[0], actions[0]
    elif kind in ("offset", "huge offset"):
        far = 1e3 if kind == "offset" else 1e7
        states, actions, proposals = states + far, actions - far, proposals - far
    elif kind == "large":
        states, actions, proposals = 1e25 * states, 1e20 * actions, 1e20 * proposals
    elif kind == "scales":
        states, actions = states * 10.0 ** random.integers(-9, 9, widths[0]), actions * 1e-6
    arrays = [array.astype(np.float32) for array in (states, actions, proposals)]
    ours, theirs = both(arrays[0], arrays[1], beta)
    assert_same(ours, theirs, rows, arrays[2])


def test_products_settle_nearly_everything_on_usual_data() -> None:
    random = np.random.default_rng(0)
    states = (random.normal(size=(20_000, 3)) @ random.normal(size=(3, 11))).astype(np.float32)
    actions = np.tanh(random.normal(size=(20_000, 3))).astype(np.float32)
    ours, theirs = both(states, actions, 2.0)
    rows = random.integers(0, len(states), 512)
    proposals = (actions[rows] + 0.2 * random.normal(size=(512, 3))).astype(np.float32)
    assert_same(ours, theirs, rows, proposals)
    assert ours.stats == {"queries": 512, "unsettled": ours.stats["unsettled"]} and ours.stats["unsettled"] < 8


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    states, actions = (np.round(random.normal(size=(200, 2)), 1).astype(np.float32) for _ in range(2))
    rows, proposals = random.integers(0, 200, 40), np.round(random.normal(size=(40, 2)), 1).astype(np.float32)
    ours, theirs = both(states, actions, 2.0)
    for chunk, settled in ((7, 50), (64, 1), (1 << 17, 1 << 22)):
        monkeypatch.setattr(products, "CHUNK", chunk)
        monkeypatch.setattr(products, "SETTLED", settled)
        assert_same(ours, theirs, rows, proposals)


def test_the_bound_holds_where_products_err_most() -> None:
    """Float32 values of every row against canonical squares, in float64."""
    random = np.random.default_rng(2)
    for scale, offset in ((1.0, 0.0), (1.0, 1e3), (1e-3, 10.0), (1e4, 0.0)):
        states = torch.from_numpy((offset + scale * random.normal(size=(500, 17))).astype(np.float32))
        actions = torch.from_numpy(random.uniform(-1, 1, (500, 6)).astype(np.float32))
        search = ProductSearch(states, actions, beta=2.0)
        rows, proposals = torch.arange(100), actions[:100] + 0.5
        moved = search._moved(states[:100], proposals)
        values = torch.addmm(search.half_norms, moved, search.points.T, alpha=-1.0).double()
        norms = moved.double().norm(dim=1)
        found = norms.square()[:, None] + 2 * values
        true = search._measured(torch.arange(500).expand(100, -1), states[rows], proposals)
        assert ((found - true).abs() <= error(norms, search.largest, 23)[:, None] / 2).all()


@pytest.mark.parametrize(
    ("states", "actions", "beta", "kind", "said"),
    [
        (torch.zeros(3, 2), torch.zeros(2, 1), 1.0, DataError, "as many states as actions, got 3 and 2"),
        (torch.zeros(0, 2), torch.zeros(0, 1), 1.0, DataError, "got 0 and 0"),
        (torch.full((2, 2), float("nan")), torch.zeros(2, 1), 1.0, DataError, "finite"),
        (torch.zeros(2, 2), torch.zeros(2, 1), -1.0, UserError, "beta must be 0 or within"),
    ],
)
def test_bad_arguments_get_a_sentence(states: Any, actions: Any, beta: float, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said):
        ProductSearch(states, actions, beta=beta)


def test_prdc_learns_the_same_by_either_search() -> None:
    data = toy.generate(size=600)
    small: dict[str, Any] = {"batch_size": 32, "hidden_sizes": (16, 16), "device": "cpu", "seed": 3}
    lists, found = (PRDC("MlpPolicy", data, search=kind, **small).learn(40) for kind in ("lists", "products"))
    assert isinstance(found.search, ProductSearch) and found.search.stats["queries"] == 20 * 32
    for name, tensor in lists.model_tensors().items():
        assert torch.equal(tensor, found.model_tensors()[name]), name
