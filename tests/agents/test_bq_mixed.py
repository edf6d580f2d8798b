"""Labelled sets of several sizes: what is drawn of each, exact resume, what a manifest says, bad folders."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rlkit.envs  # noqa: F401  # registers the ids
from rlkit.agents.bq.bq import BQ
from rlkit.agents.bq.data import Mixture
from rlkit.agents.common.gaps import HELD_OUT_SEED
from rlkit.algorithms.callbacks import Checkpoint
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.envs.combinatorial.labels import make_labels
from rlkit.errors import ArtefactError, DataError, UserError
from rlkit.registry import record

SIZES: dict[str, list[dict[str, Any]]] = {
    "tsp": [{"num_nodes": 6}, {"num_nodes": 9}],
    "atsp": [{"num_nodes": 5}, {"num_nodes": 8}],
    "cvrp": [{"num_nodes": 4, "capacity": 11}, {"num_nodes": 7, "capacity": 20}],
    "op": [{"num_nodes": 5, "budget": 1.8}, {"num_nodes": 8, "budget": 2.4}],
    "knapsack": [{"num_nodes": 6, "capacity": 1.5}, {"num_nodes": 10, "capacity": 2.0}],
}
TINY: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "feedforward": 16, "batch_size": 8}
COUNTS = (30, 10)  # instances, of the smaller ones and of the larger


def folder_of(name: str, at: Path) -> Path:
    at.mkdir(exist_ok=True)
    for settings, count in zip(SIZES[name], COUNTS, strict=True):
        file = at / f"{100 - settings['num_nodes']}.safetensors"  # larger instances come first by name
        make_labels(name, size=count, seed=3, solver="own", path=file, **settings)
    return at


def make(name: str, labels: Path, **options: Any) -> BQ:
    env = replace(record(name), env_kwargs=SIZES[name][0])
    return BQ("MultiInputPolicy", env, **{**TINY, "seed": 1, "labels": labels, **options})


@pytest.mark.parametrize("name", SIZES)
def test_batches_are_of_one_set_each_and_of_its_sizes(name: str, tmp_path: Path) -> None:
    agent = make(name, folder_of(name, tmp_path / "sets"))
    assert len(agent.read_labels()) == COUNTS[1]  # of the larger instances
    assert isinstance(agent.imitation, Mixture)
    drawn: list[int] = []
    for number, part in enumerate(agent.imitation.parts):
        inner = part.draw
        part.draw = lambda *a, n=number, f=inner: drawn.append(n) or f(*a)  # type: ignore[method-assign,func-returns-value,misc]
    most = [0, 0]
    for _ in range(400):
        batch = agent.draw()
        assert batch.tokens.shape[0] == 8 and (batch.target.sum(dim=(1, 2)) - 1.0).abs().max() < 1e-6
        most[drawn[-1]] = max(most[drawn[-1]], batch.tokens.shape[1])
    assert most[0] < most[1]
    counts = Counter(drawn)
    assert 0.68 < counts[0] / 400 < 0.82  # three quarters of the instances
    assert agent.learn(2)._n_updates == 2


@pytest.mark.parametrize("name", ["tsp", "cvrp", "knapsack"])
def test_resumes_to_the_byte(name: str, tmp_path: Path) -> None:
    sets = folder_of(name, tmp_path / "sets")
    whole = make(name, sets)
    whole.learn(9, Checkpoint(tmp_path, 4, dict), log_interval=9)
    fresh = make(name, sets)
    fresh.restore(tmp_path / "step_0000000004.rlk")
    fresh.learn(5, log_interval=9, reset_num_timesteps=False)
    for agent, path in ((whole, "whole.rlk"), (fresh, "fresh.rlk")):
        agent.save_checkpoint(tmp_path / path)
    assert (tmp_path / "whole.rlk").read_bytes() == (tmp_path / "fresh.rlk").read_bytes()
    other = make(name, sets, seed=2).learn(9)
    assert not torch.equal(next(other.network.parameters()), next(whole.network.parameters()))


def test_the_manifest_names_every_set_and_other_sets_are_not_resumed_with(tmp_path: Path) -> None:
    sets = folder_of("tsp", tmp_path / "sets")
    agent = make("tsp", sets).learn(2)
    assert "30 instances of tsp with 6 nodes" in agent.result()["source_sentence"]
    assert "10 instances of tsp with 9 nodes" in agent.result()["source_sentence"]
    agent.save_checkpoint(tmp_path / "a.rlk")
    held = read_artefact(tmp_path / "a.rlk")[0]["dataset"]
    assert held["name"] == "tsp-6-9" and held["locator"] == "sets"
    assert [one["settings"]["num_nodes"] for one in held["details"]["sets"]] == [6, 9]
    assert held["details"]["settings"]["num_nodes"] == 9  # what it counts as having learnt from
    loaded = BQ.load(tmp_path / "a.rlk")
    assert loaded._learnt_nodes() == 9
    (sets / "91.safetensors").rename(sets / "b.safetensors")  # it is the same set under another name
    make("tsp", sets).restore(tmp_path / "a.rlk")
    (sets / "b.safetensors").unlink()
    with pytest.raises(ArtefactError, match="was made from other labels"):
        make("tsp", sets).restore(tmp_path / "a.rlk")


def test_a_folder_of_one_set_is_that_set(tmp_path: Path) -> None:
    sets = folder_of("tsp", tmp_path / "sets")
    (sets / "91.safetensors").unlink()
    alone, within = make("tsp", sets / "94.safetensors").learn(4), make("tsp", sets).learn(4)
    for left, right in zip(alone.network.parameters(), within.network.parameters(), strict=True):
        assert torch.equal(left, right)
    assert alone.described is not None and within.described is not None
    assert alone.described["sha256"] == within.described["sha256"]


def test_bad_folders_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: holds no \.safetensors files, expected labelled sets"):
        make("tsp", tmp_path / "empty").read_labels()
    sets = folder_of("tsp", tmp_path / "sets")
    make_labels("atsp", size=3, solver="own", num_nodes=5, path=sets / "z.safetensors")
    with pytest.raises(UserError, match=r"z\.safetensors: holds labels of atsp, expected tsp"):
        make("tsp", sets).read_labels()
    (sets / "z.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"z\.safetensors: not a labelled set"):
        make("tsp", sets).read_labels()
    (sets / "z.safetensors").unlink()
    make_labels("tsp", size=3, seed=HELD_OUT_SEED, solver="own", num_nodes=5, path=sets / "z.safetensors")
    with pytest.raises(UserError, match="that of evaluations"):
        make("tsp", sets).read_labels()
    with pytest.raises(UserError, match="min_size=9 is out of range, expected at most 7 for labels with 6 nodes"):
        make("tsp", folder_of("tsp", tmp_path / "good"), min_size=9).read_labels()
