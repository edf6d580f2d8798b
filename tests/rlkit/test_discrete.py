"""Logs of discrete actions: how they are told, which agents take them, and that these keep what every agent does."""

from __future__ import annotations

import csv
import importlib.util
import json
import runpy
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch

import rlkit
from rlkit import registry
from rlkit.algorithms.engine import stacked
from rlkit.algorithms.engine.rules import broken
from rlkit.algorithms.export import export
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.algorithms.verdict import judge
from rlkit.cli import main
from rlkit.config import read_config
from rlkit.data import load_dataset
from rlkit.data.check import check_dataset
from rlkit.data.expect import expectations
from rlkit.data.hdf5 import write_d4rl
from rlkit.data.minari_store import to_minari
from rlkit.errors import DataError, UserError
from rlkit.run import session
from rlkit.run.card import file_card

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = [
    name for name in registry.agent_names() if issubclass(registry.agent_class(name), OfflineAlgorithm)
]  # fmt: skip
TAKE = [name for name in OFFLINE if registry.agent_class(name).takes_discrete]  # type: ignore[attr-defined]
Log = dict[str, np.ndarray]  # columns by name
SMALL: dict[str, Any] = {"hidden_sizes": (32, 32), "device": "cpu"}
QUIET = ["progress_bar=false", "tensorboard=false", "device=cpu", "agent.hidden_sizes=[16]", "verdict=false"]


def _write(log: Log, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(log)
        writer.writerows(zip(*(column.tolist() for column in log.values()), strict=True))


def _cartpole(episodes: int, noise: float) -> Log:
    """A pole balanced by a rule, which is overruled at random in a share ``noise`` of the steps."""
    env, random, rows = gym.make("CartPole-v1"), np.random.default_rng(0), []
    for episode in range(episodes):
        seen, _ = env.reset(seed=episode)
        over = False
        while not over:
            action = int(random.integers(2)) if random.random() < noise else int(seen[2] + 0.3 * seen[3] > 0)
            following, reward, ended, cut, _ = env.step(action)
            over = ended or cut
            rows.append([episode, *seen.tolist(), action, reward, int(ended), int(cut)])
            seen = following
    names = ["episode", "x", "v", "angle", "spin", "action", "reward", "done", "timeout"]
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


@pytest.fixture(scope="module")
def frame() -> Log:
    return _cartpole(40, 0.5)


@pytest.fixture(scope="module")
def data(frame: Log) -> Any:
    return load_dataset(frame)


@pytest.fixture(scope="module")
def log(frame: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "cart.csv"
    _write(frame, path)
    return path


def test_every_form_of_a_log_is_the_same_discrete_data(frame: Log, data: Any, tmp_path: Path) -> None:
    import h5py

    assert data.action_space == gym.spaces.Discrete(2) and data.actions.dtype == np.int64 and data.actions.ndim == 1
    assert set(data.actions.tolist()) == {0, 1}
    for name, kind in {"a.csv": int, "b.csv": float, "c.csv": bool}.items():
        _write({**frame, "action": frame["action"].astype(kind)}, tmp_path / name)
    arrays = dict(frame)
    arrays["obs"] = np.stack([arrays.pop(name) for name in ("x", "v", "angle", "spin")], axis=1)
    np.savez(tmp_path / "d.npz", **arrays)
    with h5py.File(tmp_path / "e.hdf5", "w") as file:
        renamed = {"obs": "observations", "action": "actions", "reward": "rewards", "done": "terminals"}
        for name, array in arrays.items():
            file[{**renamed, "timeout": "timeouts"}.get(name, name)] = array
    made = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv", "d.npz", "e.hdf5")]
    if importlib.util.find_spec("pyarrow"):
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({**frame, "action": frame["action"].astype(np.int8)})
        pyarrow.parquet.write_table(table, tmp_path / "f.parquet")
        made.append(tmp_path / "f.parquet")
    for path in made:
        assert load_dataset(path).content_hash == data.content_hash, path.name
    ends = np.flatnonzero(np.diff(frame["episode"])) + 1
    whole = [rows for rows in np.split(np.arange(len(frame["x"])), ends) if frame["done"][rows[-1]]]
    listed = [
        {
            "observations": arrays["obs"][rows],
            "actions": arrays["action"][rows],
            "rewards": arrays["reward"][rows],
            "terminations": arrays["done"][rows],
        }
        for rows in whole
    ]
    assert load_dataset(listed).action_space == gym.spaces.Discrete(2)


def test_values_tell_choices_from_numbers_and_the_caller_overrules(frame: Log) -> None:
    def space(actions: Any, **given: Any) -> Any:
        return load_dataset({**frame, "action": actions}, **given).action_space

    n = len(frame["x"])
    assert space(np.arange(n) % 5) == gym.spaces.Discrete(5)
    assert space(np.arange(n) % 5, n_actions=9) == gym.spaces.Discrete(9)
    for numbers in (20 * (np.arange(n) % 2), np.arange(n) % 60, 0.5 * (np.arange(n) % 4), np.arange(n) % 3 - 1):
        assert isinstance(space(numbers), gym.spaces.Box), numbers[:4]
    assert isinstance(space(np.arange(n) % 2, n_actions=0), gym.spaces.Box)
    assert isinstance(space(np.arange(n) % 2, bounds={"action": (0, 1)}), gym.spaces.Box)
    two = load_dataset({**frame, "act_1": np.arange(n) % 2})
    assert isinstance(two.action_space, gym.spaces.Box) and two.actions.shape[1] == 2
    for given, error in (
        ({"n_actions": 1}, "n_actions=1, expected a whole number from 2 to 1000, or 0"),
        ({"n_actions": 10**7}, "n_actions=10000000, expected a whole number"),
        ({"n_actions": 2, "bounds": {"action": (0, 1)}}, "n_actions=2 and bounds, expected one column without"),
    ):
        with pytest.raises(DataError, match=error):
            space(np.arange(n) % 2, **given)
    with pytest.raises(DataError, match=r"'action' holds 0\.5 at row 1, expected whole numbers"):
        space(0.5 * (np.arange(n) % 2), n_actions=2)
    with pytest.raises(DataError, match=r"action 3 at row 3 is none of the 3, expected 0 to 2"):
        space(np.arange(n) % 5, n_actions=3)
    with pytest.raises(DataError, match="'action' is 1 in every row, so that nothing"):
        space(np.ones(n))
    with pytest.raises(DataError, match="'action' of actions holds text, expected numbers"):
        space(["left", "right"] * (n // 2) + ["left"] * (n % 2))


@pytest.mark.parametrize("name", [name for name in OFFLINE if name not in TAKE])
def test_agents_of_numbers_refuse_choices_and_name_those_that_take_them(name: str, data: Any) -> None:
    with pytest.raises(UserError, match="a choice among 2, expected one of bc, fdvl, iql, sql, xql, or") as error:
        registry.agent_class(name)("MlpPolicy", data, device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["bc", "iql"])
def test_a_policy_of_a_noisy_log_does_better_than_the_log(name: str, data: Any) -> None:
    agent = rlkit.make(name, data, seed=0, hidden_sizes=(64, 64), device="cpu").learn(600)
    found = rlkit.evaluate(agent, "CartPole-v1", episodes=10, seed=1)
    assert found.returns.mean() > 1.5 * data.episode_returns.mean()
    verdict = judge(agent, updates=100)
    assert 0 < verdict.action_distance < 0.5 and 0 <= verdict.outside <= 1


@pytest.mark.parametrize("name", TAKE)
def test_it_keeps_the_contract(name: str, data: Any, tmp_path: Path) -> None:
    cls = registry.agent_class(name)

    def make(**more: Any) -> Any:
        return cls("MlpPolicy", data, **{**SMALL, **more})

    whole, part, fresh = make(), make(), make()
    whole.learn(60)
    part.learn(25)
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(35, reset_num_timesteps=False)
    tensors = whole.model_tensors() | whole.training_tensors()
    for key, tensor in (fresh.model_tensors() | fresh.training_tensors()).items():
        assert torch.equal(tensor, tensors[key]), key
    whole.save(tmp_path / "a.rlk")
    loaded = rlkit.load(tmp_path / "a.rlk", device="cpu")
    actions, _ = loaded.predict(data.observations[:500])
    assert actions.dtype == np.int64 and actions.shape == (500,) and set(actions.tolist()) <= {0, 1}
    assert np.array_equal(actions, whole.predict(data.observations[:500])[0])
    assert whole.predict(data.observations[0])[0].shape == ()
    assert broken(make()) is None
    agents = [make(seed=seed) for seed in range(2)]
    stack = stacked.Stack(agents)
    for _ in range(10):
        stack.once()
    stack.release()
    alone = make(seed=1).learn(10)
    for key, tensor in agents[1].model_tensors().items():
        assert torch.allclose(tensor, alone.model_tensors()[key], atol=1e-5), key


def test_runs_of_other_choices_are_no_stack(data: Any) -> None:
    more = data.with_(action_space=gym.spaces.Discrete(3))
    agents = [registry.agent_class("iql")("MlpPolicy", one, **SMALL) for one in (data, more)]
    assert stacked.differing(agents) == "actions have 2 columns in one run and 3 in another"
    boxed = data.with_(actions=data.action_columns(), action_space=gym.spaces.Box(0, 1, (2,), np.float32))
    agents[1] = registry.agent_class("iql")("MlpPolicy", boxed, **SMALL)
    assert stacked.differing(agents) == "actions are a choice in one run and numbers in another"


def test_the_losses_are_those_of_a_categorical_policy(data: Any) -> None:
    agent = registry.agent_class("bc")("MlpPolicy", data, **SMALL)
    batch = agent.draw()
    chosen = batch.actions.argmax(dim=1)
    assert torch.equal(batch.actions.sum(dim=1), torch.ones(len(chosen)))
    logits = agent.policy.actor(batch.observations)
    assert torch.allclose(agent.update(batch)["actor_loss"], torch.nn.functional.cross_entropy(logits, chosen))
    agent = registry.agent_class("iql")("MlpPolicy", data, uniform_actions=True, **SMALL)
    states, values = agent.data_values(agent.draw())
    every = torch.eye(2)
    first = agent.target_critic(states[-1:].expand(2, -1), every)
    of_each = torch.minimum(*first)  # [2, 1]: the last one of the uniform actions is one of them
    assert len(states) == 512 and (values[-1] - of_each).abs().min() < 1e-6
    sampled = agent.predict(np.repeat(data.observations[:1], 400, axis=0), deterministic=False)[0]
    seen = agent.policy.normalise(torch.from_numpy(data.observations[:1]))
    share = agent.policy.actor(seen).softmax(dim=1)[0, 1].item()
    assert abs(sampled.mean() - share) < 0.1
    far = torch.full((1, 4), 50.0), torch.full((1, 4), -50.0)  # probabilities that float32 cannot hold
    assert all(agent.policy.actor.log_prob(x, every[:1]).isfinite().all() for x in far)


def test_minari_keeps_choices_wherever_they_begin(data: Any, tmp_path: Path) -> None:
    shifted = data.with_(actions=data.actions + 3, action_space=gym.spaces.Discrete(2, start=3), env_id="CartPole-v1")
    stored = load_dataset(to_minari(shifted, "test/cart-v0"))
    assert stored.content_hash == shifted.content_hash and stored.action_space == shifted.action_space
    agent = registry.agent_class("iql")("MlpPolicy", "test/cart-v0", **SMALL).learn(5)
    assert set(agent.predict(data.observations[:300])[0].tolist()) <= {3, 4}
    export(agent, tmp_path / "p.pt2")
    assert minari.load_dataset("test/cart-v0").action_space == shifted.action_space
    with pytest.raises(DataError, match="its actions are discrete, which D4RL's layout has no form for"):
        write_d4rl(data, tmp_path / "x.hdf5")
    assert not (tmp_path / "x.hdf5").exists()
    with pytest.raises(UserError, match=r"the agent has actions of shape \[2\], the data of \[3\]: expected the same"):
        judge(agent, data.with_(action_space=gym.spaces.Discrete(3)))


def test_it_leaves_as_a_file(data: Any, tmp_path: Path) -> None:
    agent = registry.agent_class("iql")("MlpPolicy", data, **SMALL).learn(100)
    agent.save(tmp_path / "model.rlk")
    wanted = agent.predict(data.observations[:1000])[0]
    policy = runpy.run_path(str(ROOT / "docs" / "examples" / "numpy_policy.py"))["Policy"](tmp_path / "model.rlk")
    found = {"numpy": policy(data.observations[:1000])}
    export(agent, tmp_path / "p.pt2")
    program = torch.export.load(tmp_path / "p.pt2").module()
    found["pt2"] = program(torch.from_numpy(data.observations[:1000])).numpy()
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        import onnxruntime

        export(agent, tmp_path / "p.onnx")
        one = onnxruntime.InferenceSession(tmp_path / "p.onnx")
        found["onnx"] = one.run(None, {"observations": data.observations[:1000]})[0]
        assert json.loads(one.get_modelmeta().custom_metadata_map["rlkit.n_actions"]) == 2
    for kind, actions in found.items():
        assert actions.dtype == np.int64 and (actions != wanted).sum() <= 1, kind
    assert "int64 `[batch]`, the most probable of 0 to 1" in file_card(agent, None, tmp_path / "p.pt2")


def test_from_the_command_line(log: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "info", str(log)]) == 0
    said = capsys.readouterr().out
    assert "one of 2: 0 " in said and "2 actions, by the values; n_actions=0 takes them as numbers" in said
    run = ["train", "agent=iql", f"env={log}", "total_timesteps=40", "checkpoint_every=20", "out=r", *QUIET]
    assert main(run) == 0
    assert main(["resume", "r", "total_timesteps=60"]) == 0
    assert main([*run[:-6], "total_timesteps=60", "out=whole", *QUIET]) == 0
    assert Path("r/metrics.jsonl").read_bytes() == Path("whole/metrics.jsonl").read_bytes()
    assert main(["eval", "r", "env=CartPole-v1", "episodes=2"]) == 0
    assert main(["export", "r", "p.pt2"]) == 0
    assert "p.pt2: acts as iql does on 1000 observations" in capsys.readouterr().out
    assert main([*run[:-7], "env.n_actions=0", "total_timesteps=20", "out=n", *QUIET]) == 0
    assert rlkit.load("n").action_space.shape == (1,)
    capsys.readouterr()
    assert main(["train", "agent=td3bc", f"env={log}", "total_timesteps=20", "out=x", *QUIET]) == 2
    assert "expected one of bc, fdvl, iql, sql, xql" in capsys.readouterr().err and not Path("x").exists()
    assert main(["data", "info", str(log), "n_actions=two"]) == 2


def test_a_run_of_an_older_version_goes_on_as_it_began(log: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["train", "agent=bc", f"env={log}", "env.n_actions=0", "total_timesteps=20", "out=old", *QUIET]
    assert main(args) == 0
    config = Path("old/config.yaml")
    text = "".join(line for line in config.read_text().splitlines(keepends=True) if "n_actions" not in line)
    config.write_text(text)  # they knew of no such key
    assert read_config(config).env.n_actions == 0
    assert session.resume(Path("old"), total_timesteps=30) == 0


def test_checks_of_discrete_data(frame: Log, data: Any) -> None:
    assert {one.code for one in check_dataset(frame)} == {"constant-rewards"}
    told = expectations(data)
    noise = next(float(text.split("leaves ")[1].split(" %")[0]) for text in told if "behaviour" in text)
    clear = expectations(load_dataset(_cartpole(10, 0.0)))
    certain = next(float(text.split("leaves ")[1].split(" %")[0]) for text in clear if "behaviour" in text)
    assert certain < 40 < 60 < noise  # a step is hard to fit, but chance cannot be fitted at all
    bad = data.with_(actions=np.where(np.arange(len(data)) == 7, 5, data.actions))
    assert "actions are none of the 2 (1 rows, first 7), expected 0 to 1" in [
        one.sentence for one in check_dataset(bad)
    ]
