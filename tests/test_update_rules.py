"""The rules of an update: nothing is read back, only counts decide what is done, nothing that lasts is allocated.

An update that keeps them is a program over fixed tensors: what it does can be recorded once and done again.
"""

from __future__ import annotations

import copy
import gc
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import toy

import rlkit
from rlkit import registry
from rlkit.agents import BC, TD3BC
from rlkit.algorithms.engine.program import Program
from rlkit.algorithms.engine.rules import Trace, broken
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.errors import UserError

LEARNERS = [n for n in registry.agent_names() if issubclass(registry.agent_class(n), OfflineAlgorithm)]


@cache
def dataset() -> Any:
    return toy.generate(size=600)


def learner(name: str | type[Any], **settings: Any) -> Any:
    small = {"batch_size": 16, "hidden_sizes": (16, 16), "device": "cpu", **settings}
    cls = registry.agent_class(name) if isinstance(name, str) else name
    return cls("MlpPolicy", dataset(), **small).learn(7)  # moments are there, the count is no multiple of a period


def state(agent: Any) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in {**agent.model_tensors(), **agent.training_tensors()}.items()}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_keeps_the_rules_and_is_left_as_it_was(name: str) -> None:
    agent = learner(name)
    before, values = state(agent), copy.deepcopy(agent.state_values())
    assert broken(agent) is None
    assert agent.state_values() == values and agent.num_timesteps == 7
    assert all(torch.equal(tensor, before[key]) for key, tensor in state(agent).items())


@pytest.mark.parametrize("name", LEARNERS)
def test_runs_over_other_values_are_the_same_program(name: str) -> None:
    found = []
    for seed in (1, 2):
        program, trace = Program(learner(name, seed=seed)), Trace()
        with trace:
            for _ in range(program.period):
                program.once()
        found.append(trace.steps)
    assert found[0] == found[1] and len(found[0]) > 10


@pytest.mark.parametrize("name", LEARNERS)
def test_nothing_that_lasts_is_allocated(name: str) -> None:
    program, held = Program(learner(name)), []
    for _ in range(3):
        for _ in range(program.period):
            program.once()
        gc.collect()
        held.append(sum(type(entry) in (torch.Tensor, torch.nn.Parameter) for entry in gc.get_objects()))
    assert held[1] == held[2]


class Reads(BC):
    def update(self, batch: Any) -> Any:
        metrics = super().update(batch)
        return {"loss": torch.tensor(float(metrics["actor_loss"].detach()))}


class Branches(BC):
    def update(self, batch: Any) -> Any:
        self.seen = getattr(self, "seen", [])
        self.seen.append(batch)  # a count of its own
        return super().update(batch) if len(self.seen) % 4 else {"loss": batch.rewards.mean()}


class Replaces(TD3BC):
    def update(self, batch: Any) -> Any:
        self.mean = 0.9 * getattr(self, "mean", 0.0) + 0.1 * batch.rewards.mean()
        return super().update(batch)


class Hurries(TD3BC):
    period = 1  # in truth it is 2


BROKEN = [
    (Reads, r"it reads a value back \(test_update_rules.py:\d+\)"),
    (Branches, r"what it does depends on more than the count of updates \("),
    (Replaces, "attribute 'mean' is replaced by an update, expected it to be changed in place"),
    (Hurries, r"what it does depends on more than the count of updates \((td3bc.py:\d+|a period is 1)\)"),
]


@pytest.mark.parametrize(("cls", "sentence"), BROKEN)
def test_a_broken_rule_is_named_with_its_line(cls: type[Any], sentence: str) -> None:
    agent = learner(cls)
    found = broken(agent)
    assert found is not None and re.match(sentence, found)
    number = re.search(r"test_update_rules.py:(\d+)", found)
    if number is not None and cls is Reads:
        assert "float(metrics" in Path(__file__).read_text().splitlines()[int(number[1]) - 1]


@pytest.mark.parametrize(("cls", "sentence"), BROKEN)
def test_what_breaks_a_rule_is_not_stacked(cls: type[Any], sentence: str) -> None:
    agents = [learner(cls, seed=seed) for seed in (0, 1)]
    with pytest.raises(UserError, match=f"agent=.* cannot be stacked: {sentence}"):
        rlkit.train_together(agents, 4)
