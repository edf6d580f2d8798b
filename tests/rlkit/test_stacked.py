"""Runs done together have what they have alone: the draws to the bit, the rest within rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import toy

from rlkit import registry
from rlkit.algorithms.engine.stacked import Stack, differing, groups
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.errors import UserError

LEARNERS = [n for n in registry.agent_names() if issubclass(registry.agent_class(n), OfflineAlgorithm)]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "iql": [{}, {"actor_dropout": 0.1, "uniform_actions": True, "decay_steps": 30, "value_updates": 2}],
    "a2pr": [{}, {"proposal": "prior", "detach_target": True}],
    "recoil": [{}, {"q_loss": "contrastive"}],
    "smodice": [{}, {"divergence": "chi2", "bootstrap_absorbing": True}],
    "bc": [{}, {"part": "expert"}],
    "prdc": [{}, {"search": "products"}],
}
CASES = [(name, options) for name in LEARNERS for options in OPTIONS.get(name, [{}])]
DATA, OTHER = toy.generate(size=600), toy.generate(size=700, seed=5)
# another value of every hyperparameter in which runs may differ
VALUES: dict[str, Any] = {
    "learning_rate": 1e-3,
    "normalise_observations": None,
    "reward_scale": 2.0,
    "reward_shift": 1.0,
    "alpha": 1.0,
    "discount": 0.9,
    "polyak": 0.05,
    "target_noise": 0.4,
    "target_clip": 0.1,
    "beta": 0.5,
    "max_list": 8,
    "memory_gb": 0.1,
    "mask": 0.5,
    "vae_weight": 2.0,
    "vae_learning_rate": 1e-4,
    "temperature": 3.0,
    "lam": 0.9,
    "inverse_temperature": 1.0,
    "weight_clip": 0.5,
    "decay_steps": 15,
    "reward_scaling": "return_range",
    "mixture": 0.2,
    "regulariser": 0.1,
    "lam_tv": 0.9,
    "lam_chi2": 0.9,
    "gradient_penalty": 1.0,
    "value_decay": 0.1,
}
# what has no effect there, or may not be changed
WITHOUT = {
    "max_list": LEARNERS,  # the answers are the same
    "memory_gb": LEARNERS,
    "lam_tv": LEARNERS,  # of another divergence
    "reward_scale": ["bc", "recoil", "iqlearn", "smodice"],
    "reward_shift": ["bc", "recoil", "iqlearn", "smodice"],
    "reward_scaling": ["recoil", "iqlearn"],
    "mixture": ["recoil"],  # tried with contrastive below
    "inverse_temperature": ["sql"],  # its weight is another one
    "weight_clip": ["sql"],  # is not reached
}


def learner(name: str, data: Any = DATA, **settings: Any) -> Any:
    small = {"batch_size": 16, "hidden_sizes": (16, 16), "device": "cpu", **settings}
    return registry.agent_class(name)("MlpPolicy", data, **small)


def state(agent: Any) -> dict[str, torch.Tensor]:
    return {**agent.model_tensors(), **agent.training_tensors()}


def assert_close(alone: Any, together: Any, near: float = 2e-3) -> None:
    """Draws and counts are the same; values within ``near`` of the largest of their tensor."""
    ours, theirs = state(together), state(alone)
    assert ours.keys() == theirs.keys() and alone.state_values() == together.state_values()
    for name, tensor in ours.items():
        if name.startswith("generator") or not tensor.is_floating_point():
            assert torch.equal(tensor, theirs[name]), name
        else:
            step = alone.config.learning_rate  # Adam divides a slope by its size: rounding can be a step or two
            room = near * float(theirs[name].abs().max()) + 2 * step
            assert float((tensor - theirs[name]).abs().max()) <= room, name


def assert_as_alone(make: list[Any], updates: int = 20) -> None:
    """``make``: a function for each run, which makes its learner."""
    alone, together = [one().learn(updates, log_interval=None) for one in make], [one() for one in make]
    stack = Stack(together)
    for _ in range(updates):
        stack.once()
    for one, other in zip(alone, together, strict=True):
        assert_close(one, other)
    stack.release()
    for one, other in zip(alone, together, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_runs_of_several_seeds(name: str, options: dict[str, Any]) -> None:
    assert_as_alone([lambda seed=seed: learner(name, seed=seed, **options) for seed in range(3)])


@pytest.mark.parametrize("name", LEARNERS)
def test_runs_on_different_data(name: str) -> None:
    imitating = name in ("recoil", "iqlearn", "smodice")  # the parts they watch have to be of one size
    other = DATA.with_(observations=1.1 * DATA.observations) if imitating else OTHER
    assert_as_alone([lambda data=data: learner(name, data) for data in (DATA, other)])


@pytest.mark.parametrize(
    ("name", "key"),
    [(n, k) for n in LEARNERS for k in registry.agent_class(n).Config.VARYING if n not in WITHOUT.get(k, [])],
)
def test_runs_of_different_hyperparameters(name: str, key: str) -> None:
    usual = getattr(learner(name).config, key)
    value = not usual if VALUES[key] is None else VALUES[key]
    make = [lambda: learner(name, seed=1), lambda: learner(name, seed=1, **{key: value})]
    assert_as_alone(make)
    one, other = (made().learn(20, log_interval=None) for made in make)
    assert any(not torch.equal(tensor, state(other)[k]) for k, tensor in state(one).items())


def test_every_hyperparameter_that_may_differ_is_tried() -> None:
    named = {key for name in LEARNERS for key in registry.agent_class(name).Config.VARYING}
    assert named == VALUES.keys()


def test_mixtures_may_differ() -> None:
    assert_as_alone([lambda m=m: learner("recoil", q_loss="contrastive", mixture=m) for m in (0.2, 0.5)])


def test_runs_leave_a_stack_and_go_on_alone() -> None:
    alone, together = ([learner("td3bc", seed=seed) for seed in range(3)] for _ in range(2))
    stack = Stack(together)
    for _ in range(10):
        stack.once()
    stack.release()
    smaller = Stack(together[:2])
    for _ in range(10):
        smaller.once()
    smaller.release()
    together[2].learn(10, log_interval=None, reset_num_timesteps=False)
    for one, other in zip(alone, together, strict=True):
        assert_close(one.learn(20, log_interval=None), other)


def test_the_same_data_is_held_once() -> None:
    first, second = learner("prdc", seed=0), learner("prdc", seed=1)
    Stack([first, second])
    assert first.replay.rows is second.replay.rows and first.search is second.search
    steeper = learner("prdc", seed=1, beta=4.0)
    Stack([learner("prdc", seed=0), steeper])
    assert steeper.search is not first.search


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: learner("iql"), "one run is of agent=td3bc, another of agent=iql"),
        (lambda: learner("td3bc", batch_size=32), "agent.batch_size is 16 in one run and 32 in another"),
        (lambda: learner("td3bc", hidden_sizes=(8,)), r"agent.hidden_sizes is .* in one run and .* in another"),
        (lambda: learner("td3bc", actor_delay=1), "agent.actor_delay is 2 in one run and 1 in another"),
        (lambda: learner("td3bc").learn(3), "one run stands at update 0 on cpu, another at update 3 on cpu"),
    ],
)
def test_what_cannot_be_stacked(make: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Stack([learner("td3bc"), make()])


def test_parts_of_other_sizes_cannot_be_watched_together() -> None:
    with pytest.raises(UserError, match="'watched' has other shapes in one run than in another"):
        Stack([learner("recoil"), learner("recoil", OTHER)])


def test_runs_are_grouped_by_shape() -> None:
    agents = [learner("td3bc", seed=s, batch_size=b) for s in (0, 1) for b in (16, 32)] + [learner("bc")]
    assert groups(agents) == [[0, 2], [1, 3], [4]]
    assert differing([agents[0], agents[2]]) is None
