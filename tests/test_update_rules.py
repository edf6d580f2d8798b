"""The rules of an update: nothing is read back, only counts decide what is done, nothing that lasts is allocated.

An update that keeps them is a program over fixed tensors: what it does can be recorded once and done again.
"""

from __future__ import annotations

import gc
from functools import cache
from typing import Any

import pytest
import torch
import toy
from torch.utils._python_dispatch import TorchDispatchMode

from rlkit import registry
from rlkit.algorithms.offline import OfflineAlgorithm

LEARNERS = [n for n in registry.agent_names() if issubclass(registry.agent_class(n), OfflineAlgorithm)]
# What gives Python a value, or a shape that depends on values.
READS = {
    f"aten::{name}"
    for name in ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim")
}
PERIOD = 4  # updates: a multiple of every delay


class Trace(TorchDispatchMode):
    """The operators that ran, each with the shapes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, tuple[tuple[int, ...], ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        shapes = tuple(tuple(a.shape) for a in args if isinstance(a, torch.Tensor))
        self.steps.append((func._schema.name, shapes))
        return func(*args, **(kwargs or {}))


@cache
def dataset() -> Any:
    return toy.generate(size=600)


def learner(name: str, **settings: Any) -> Any:
    small = {"batch_size": 16, "hidden_sizes": (16, 16), "device": "cpu", **settings}
    return registry.agent_class(name)("MlpPolicy", dataset(), **small).learn(2 * PERIOD)  # moments are there


def traced(agent: Any, updates: int) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
    """The operators of the updates from a count of 0 on: what is done now and then depends on the count."""
    trace, agent._n_updates = Trace(), 0
    with trace:
        for _ in range(updates):
            agent.step()
            agent._n_updates += 1
    return trace.steps


@pytest.mark.parametrize("name", LEARNERS)
def test_nothing_is_read_back(name: str) -> None:
    assert not READS & {operator for operator, _ in traced(learner(name), PERIOD)}


@pytest.mark.parametrize("name", LEARNERS)
def test_only_counts_decide_what_is_done(name: str) -> None:
    """Two periods of one run, and one of a run over other values, are the same program."""
    agent, other = learner(name, seed=1), learner(name, seed=2)
    first = traced(agent, PERIOD)
    assert traced(agent, PERIOD) == first and traced(other, PERIOD) == first
    assert len(first) > PERIOD


@pytest.mark.parametrize("name", LEARNERS)
def test_nothing_that_lasts_is_allocated(name: str) -> None:
    agent = learner(name)
    held = []
    for _ in range(3):
        traced(agent, PERIOD)
        gc.collect()
        held.append(sum(type(entry) in (torch.Tensor, torch.nn.Parameter) for entry in gc.get_objects()))
    assert held[1] == held[2]


def test_the_rules_are_able_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = learner("bc")
    update, kept = agent.update, []

    def broken(batch: Any) -> Any:
        metrics = update(batch)
        kept.append(batch.observations.clone())
        return metrics if float(batch.observations.sum()) > 0 else {name: value + 0 for name, value in metrics.items()}

    monkeypatch.setattr(agent, "update", broken)
    assert "aten::_local_scalar_dense" in {operator for operator, _ in traced(agent, PERIOD)}
    periods = [traced(agent, PERIOD) for _ in range(6)]
    assert any(period != periods[0] for period in periods) and len(kept) == 7 * PERIOD
