"""Graphs: replayed updates have the bytes of written ones, for every learner, wherever they begin and are resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tape
import torch
import toy

from rlkit import registry
from rlkit.agents.bq import BQ
from rlkit.agents.prdc import PRDC
from rlkit.agents.ptrnet import PtrNet
from rlkit.algorithms.callbacks import Spaced, StopOnSignal
from rlkit.algorithms.engine.graph import MOST_DOUBTED, WARM_UPS, Fed, Graph
from rlkit.algorithms.engine.program import Program
from rlkit.algorithms.nets import Adam
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.errors import Caution, UserError

LEARNERS = [n for n in registry.agent_names() if issubclass(registry.agent_class(n), OfflineAlgorithm)]
ODD = {"prdc": {"search": "products"}, "iql": {"decay_steps": 30, "actor_dropout": 0.1, "uniform_actions": True}}
DATA = toy.generate(size=600)


def learner(name: str, **settings: Any) -> Any:
    small = {"batch_size": 16, "hidden_sizes": (16, 16), "device": "cpu", **ODD.get(name, {}), **settings}
    agent = registry.agent_class(name)("MlpPolicy", DATA, **small)
    for optimiser in vars(agent).values():
        if isinstance(optimiser, Adam):
            optimiser.schedule.on_device = True  # as on a GPU
    return agent


def graphed(agent: Any) -> Any:
    agent._running = Graph(Program(agent), tape.record)
    return agent


def state(agent: Any) -> dict[str, torch.Tensor]:
    return {**agent.model_tensors(), **agent.training_tensors()}


def assert_same(one: Any, other: Any) -> None:
    ours, theirs = state(one), state(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor.nan_to_num(7.0), theirs[name].nan_to_num(7.0)), name
    assert one.state_values() == other.state_values() and one.num_timesteps == other.num_timesteps


@pytest.mark.parametrize("name", LEARNERS)
def test_a_replayed_update_has_the_bytes_of_a_written_one(name: str) -> None:
    written, replayed = learner(name), graphed(learner(name))
    for agent in (written, replayed):
        agent.learn(3, log_interval=None)  # not a multiple of any period but 1
        agent.learn(44, log_interval=20, reset_num_timesteps=False)
    assert len(replayed._running.recorded) == 2
    assert_same(written, replayed)


def test_a_graph_goes_on_from_a_checkpoint_and_back(tmp_path: Path) -> None:
    written = learner("iql").learn(50, log_interval=None)
    begun = graphed(learner("iql")).learn(23, log_interval=None)
    begun.save_checkpoint(tmp_path / "a.rlk")
    resumed = learner("iql")
    resumed.restore(tmp_path / "a.rlk")
    graphed(resumed).learn(27, log_interval=None, reset_num_timesteps=False)
    assert_same(written, resumed)
    begun.restore(tmp_path / "a.rlk")
    assert begun._running is None  # what it was recorded over has been replaced


def test_doubtful_answers_are_found_again() -> None:
    """Rows far from 0 that float32 cannot tell apart: replays are taken back, then given up."""
    far = np.where(np.arange(600) % 2, 3e3, -3e3)[:, None] + 1e-3 * DATA.observations
    crowded = DATA.with_(observations=far.astype(np.float32))
    settings = {"normalise_observations": False, "batch_size": 8, "hidden_sizes": (8, 8), "device": "cpu"}
    with pytest.warns(Caution, match="does not standardise them"):
        written, replayed = (PRDC("MlpPolicy", crowded, search="products", **settings) for _ in range(2))
    written.learn(40, log_interval=None)
    assert written.search.stats["unsettled"] > 0
    graphed(replayed)
    for _ in range(5):
        replayed.learn(8, log_interval=None, reset_num_timesteps=False)
    assert replayed._running.doubted == MOST_DOUBTED + 1
    assert_same(written, replayed)


def test_what_cannot_be_recorded_is_run_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    class Reading(type(learner("bc"))):  # type: ignore[misc]
        def update(self, batch: Any) -> Any:
            metrics = super().update(batch)
            return {"loss": torch.tensor(float(metrics["actor_loss"].detach()))}

    small = {"batch_size": 16, "hidden_sizes": (8,), "device": "cpu"}
    written, replayed = (Reading("MlpPolicy", DATA, **small) for _ in range(2))
    written.learn(10)
    graphed(replayed).learn(10)
    assert_same(written, replayed)
    assert (
        capsys.readouterr().err == "rlkit: updates of bc cannot be a graph (a value is read back); going on eagerly\n"
    )


def test_a_callback_of_somebody_elses_sees_every_update() -> None:
    steps: list[int] = []
    agent = graphed(learner("td3bc"))
    agent.learn(12, callback=lambda own, _: steps.append(agent.num_timesteps) or True, log_interval=None)
    assert steps == list(range(1, 13))


def test_ours_have_their_turn_on_time() -> None:
    agent, evaluated = graphed(learner("td3bc")), []

    class Look(Spaced):
        every = 6

        def _on_step(self) -> bool:
            if agent.num_timesteps % 6 == 0:
                evaluated.append(agent.num_timesteps)
            return True

    agent.learn(27, callback=[Look(), StopOnSignal()], log_interval=10)
    assert evaluated == [6, 12, 18, 24] and agent.num_timesteps == agent._n_updates == 27


def test_a_graph_needs_a_gpu() -> None:
    agent = learner("bc")
    agent.engine = "graph"
    with pytest.raises(UserError, match=r"^engine=graph records what a GPU does, expected one and not device=cpu$"):
        agent.learn(1)
    agent.engine = "grpah"
    with pytest.raises(UserError, match="engine"):
        agent.learn(1)


def test_batches_of_the_host_have_a_graph_for_each_size() -> None:
    world = gym.make(registry.record("tsp").env_id, num_nodes=8)
    small = {"width": 16, "layers": 2, "heads": 2, "feedforward": 32, "batch_size": 8, "train_size": 16, "seed": 1}
    written, replayed = (BQ(None, world, decay_steps=60, amp=False, **small) for _ in range(2))
    for agent in (written, replayed):
        agent.optimiser.schedule.on_device = agent.average.schedule.on_device = True
    engine = replayed._running = Fed(Program(replayed), tape.record)
    for agent in (written, replayed):
        agent.learn(40, log_interval=15)
    assert len(engine.graphs) > 3 and max(engine.met.values()) > WARM_UPS
    assert_same(written, replayed)


def test_pointer_networks_have_a_graph_for_each_size() -> None:
    world = gym.make(registry.record("tsp").env_id, num_nodes=6, observe_sequence=True)
    small = {"network": "attention", "hidden_size": 16, "batch_size": 4, "train_size": 8, "decay_steps": 5}
    written, replayed = (PtrNet(None, world, sizes=(5, 6), seed=1, **small) for _ in range(2))
    for agent in (written, replayed):
        agent.optimiser.schedule.on_device = True
    engine = replayed._running = Fed(Program(replayed), tape.record)
    for agent in (written, replayed):
        agent.learn(20, log_interval=6)
    assert len(engine.graphs) == 2
    assert_same(written, replayed)
