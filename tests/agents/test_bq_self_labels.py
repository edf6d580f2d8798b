"""Labels without a solver: never worse, the same for a seed, and resumed to the byte."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit.agents.bq import self_labels
from rlkit.agents.bq.bq import BQ
from rlkit.algorithms.callbacks import Checkpoint
from rlkit.algorithms.checkpoint import read_artefact, write_artefact
from rlkit.envs.combinatorial import solvers
from rlkit.envs.combinatorial.base import generate, make_problem, row
from rlkit.envs.combinatorial.improvement import inserted
from rlkit.envs.combinatorial.labels import Labels
from rlkit.envs.combinatorial.solvers import QUICK, solve, solvers_of
from rlkit.errors import ArtefactError, UserError
from rlkit.registry import record

SIZES: dict[str, dict[str, Any]] = {
    "tsp": {"num_nodes": 24},
    "atsp": {"num_nodes": 20},
    "cvrp": {"num_nodes": 18, "capacity": 25},
    "op": {"num_nodes": 14, "budget": 2.2},
    "knapsack": {"num_nodes": 14, "capacity": 2.2},
}
TINY: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "feedforward": 16, "batch_size": 8, "train_size": 12}
OWN: dict[str, Any] = {"labels": "self", "effort": 0.1, "improve_every": 1, "improve_count": 8}  # one insertion


@pytest.fixture(autouse=True, scope="module")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLKIT_LABELS_PATH", str(tmp_path_factory.mktemp("labels")))
        yield


def rule(tokens: torch.Tensor, cost: torch.Tensor | None = None) -> torch.Tensor:
    """Scores in the place of a network that has learnt: the nearest, or the most value per weight."""
    if cost is not None:
        return -3.0 * cost[:, 0, 2:, None]
    if tokens.shape[2] == 3:
        return 3.0 * (tokens[..., 1:2] / tokens[..., :1])
    ways = (tokens[:, 2:, :2] - tokens[:, :1, :2]).norm(dim=-1)
    return -3.0 * torch.stack((ways, ways + 0.3), dim=-1)


def make(name: str, **options: Any) -> BQ:
    agent = BQ("MultiInputPolicy", replace(record(name), env_kwargs=SIZES[name]), **{**TINY, **OWN, **options})
    agent.policy.network.forward = rule  # type: ignore[method-assign]
    return agent


def held(agent: BQ) -> Labels:
    assert agent.imitation is not None
    return agent.imitation.labels


@pytest.fixture
def _poor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Insertions as they are, so that a few rounds find something."""
    monkeypatch.setenv("RLKIT_LABELS_PATH", str(tmp_path / "labels"))
    monkeypatch.setattr(solvers, "inserted", partial(inserted, improve=False))


@pytest.mark.usefixtures("_poor")
@pytest.mark.parametrize("name", SIZES)
def test_labels_never_become_worse_and_are_what_is_imitated(name: str) -> None:
    agent = make(name)
    agent.read_labels()
    labels, sign = held(agent), 1.0 if agent.problem.maximise else -1.0
    first = before = labels.objectives.copy()
    for number in range(1, 13):
        assert agent.own_labels is not None
        agent.own_labels.improve(agent.policy.network, number)
        now = held(agent)
        np.testing.assert_allclose(now.problem.objectives(now.instances, now.solutions), now.objectives, rtol=1e-12)
        assert (sign * (now.objectives - before) >= 0).all()
        asked = (np.arange(8) + (number - 1) * 8) % 12
        assert set(np.flatnonzero(now.objectives != before)) <= set(asked.tolist())
        assert float(agent.own_labels.mean) == pytest.approx(now.objectives.mean())
        before = now.objectives.copy()
    assert (sign * (before - first)).sum() > 0
    fresh = now.problem.device()(now.instances, "cpu")
    fresh.follow(now.solutions)  # all at once, not row by row
    assert agent.imitation is not None
    np.testing.assert_array_equal(fresh.counts, agent.imitation.rules.counts)
    for key, part in fresh.laid.items():
        assert torch.equal(part, agent.imitation.rules.laid[key]), key


@pytest.mark.usefixtures("_poor")
@pytest.mark.parametrize("name", SIZES)
def test_resumes_to_the_byte(name: str, tmp_path: Path) -> None:
    whole = make(name, improve_every=2, seed=3)
    whole.learn(9, Checkpoint(tmp_path, 4, dict), log_interval=9)
    fresh = make(name, improve_every=2, seed=3)
    fresh.restore(tmp_path / "step_0000000004.rlk")
    fresh.learn(5, log_interval=9, reset_num_timesteps=False)
    for agent in (whole, fresh):
        agent.save_checkpoint(tmp_path / f"{id(agent)}.rlk")
    assert (tmp_path / f"{id(whole)}.rlk").read_bytes() == (tmp_path / f"{id(fresh)}.rlk").read_bytes()
    np.testing.assert_array_equal(held(whole).solutions, held(fresh).solutions)
    start = make(name, seed=3)
    start.read_labels()
    assert (held(start).objectives != held(whole).objectives).any()  # there was something to restore
    other = make(name, improve_every=2, seed=4).learn(9)
    assert not torch.equal(next(other.network.parameters()), next(whole.network.parameters()))


def test_altered_labels_in_a_checkpoint_are_refused(tmp_path: Path) -> None:
    agent = make("tsp").learn(2)
    agent.save_checkpoint(tmp_path / "a.rlk")
    manifest, model, training = read_artefact(tmp_path / "a.rlk")
    assert training is not None
    for key in ("format", "versions", "sha256"):
        manifest.pop(key, None)
    tours = training["labels.solutions"]
    twice, below = tours.clone(), tours.clone()
    twice[3, 1], below[3, 1] = twice[3, 2], -7
    for wrong, said in (
        (twice, "solution 3 of tsp is infeasible"),
        (below, "no solutions of these labels"),
        (tours[:-1], "no solutions of these labels"),
        (tours.double(), "no solutions of these labels"),
    ):
        write_artefact(tmp_path / "b.rlk", manifest, model, {**training, "labels.solutions": wrong.contiguous()})
        with pytest.raises((ArtefactError, UserError), match=said) as caught:
            make("tsp").restore(tmp_path / "b.rlk")
        assert "\n" not in str(caught.value)


def test_they_are_logged_and_said() -> None:
    agent = make("tsp")
    metrics = agent.learn(1).update(agent.draw())
    assert agent.own_labels is not None and float(metrics["label_objective"]) == float(agent.own_labels.mean)
    assert "solved by insertion with effort 0.1" in agent.result()["source_sentence"]
    assert "label_objective" not in (other := make("tsp", labels=None, solver="own")).learn(1).update(other.draw())


@pytest.mark.parametrize("name", SIZES)
def test_quick_solvers_are_the_stage_s_own(name: str) -> None:
    problem = make_problem(name, **SIZES[name])
    instances = generate(problem, 3, 5)
    quick = self_labels.first_solver(problem)
    assert quick in QUICK and quick == ("density" if name == "knapsack" else "insertion")
    for k in range(3):
        one = row(instances, k)
        found = problem.objective(one, solve(problem, one, quick, effort=0.3, seed=9))
        many = {key: value[None] for key, value in one.items()}
        if name != "knapsack":
            assert found == pytest.approx(problem.objectives(many, inserted(problem, many, 3, seed=9))[0])


def test_without_quick_solutions_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_labels, "solvers_of", lambda kind: {"own": solvers_of(kind)["own"]})
    with pytest.raises(UserError, match=r"agent\.labels=self: knapsack has no moves to improve") as caught:
        make("knapsack").learn(1)
    assert "\n" not in str(caught.value)
    for wrong in ({"improve_every": 0}, {"improve_count": 0}):
        with pytest.raises(UserError, match="is out of range, expected a number above 0"):
            make("tsp", **wrong)
