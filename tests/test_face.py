"""The face: make, load, evaluate, what help and editors show, and the field's other names."""

from __future__ import annotations

import ast
import inspect
import pydoc
import runpy
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from stable_baselines3 import PPO

import rlkit
from rlkit import registry
from rlkit.agents import BC, IQL, MBTL, PRDC
from rlkit.algorithms.hyperparameters import ALIASES, make_config
from rlkit.algorithms.signatures import comments
from rlkit.cli import main
from rlkit.config import compose_config
from rlkit.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SMALL: dict[str, Any] = {"batch_size": 16, "hidden_sizes": (8,)}


@pytest.fixture(scope="module")
def dataset() -> Any:
    return toy.generate(size=200)


@pytest.mark.parametrize("agent", ["td3bc", "TD3BC", registry.agent_class("td3bc")])
def test_make_takes_a_name_in_any_case_or_a_class(agent: Any, dataset: Any) -> None:
    made = rlkit.make(agent, dataset, seed=3, **SMALL)
    plain = registry.agent_class("td3bc")("MlpPolicy", dataset, seed=3, **SMALL)
    assert type(made) is type(plain) and made.config == plain.config
    assert np.array_equal(made.predict(dataset.observations)[0], plain.predict(dataset.observations)[0])


def test_make_gives_every_kind_what_it_learns_from() -> None:
    assert rlkit.make("drrpo", "linear-mdp").record.name == "linear-mdp"
    assert rlkit.make("drrpo_features", "american-put").name == "drrpo-features"
    assert isinstance(rlkit.make("mbtl", "contextual-cartpole", return_low=0, return_high=500), MBTL)
    assert rlkit.make("bq", "tsp", width=16, layers=1, heads=2).record.name == "tsp"


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: rlkit.make("prcd", "hopper-medium"), "unknown agent 'prcd'; did you mean 'prdc'"),
        (lambda: rlkit.make("prdc", "hoper-medium"), "hopper-medium"),
        (lambda: rlkit.make("beer", None), "expected one or its name"),
        (lambda: rlkit.make("bc", "point-noisy", betta=2), "unknown hyperparameter 'betta' of bc"),
        (lambda: rlkit.load("nowhere.rlk"), "nowhere.rlk: no such artefact"),
        (lambda: rlkit.evaluate("nowhere"), "nowhere: no such artefact"),
        (lambda: rlkit.evaluate(object(), "hopper", episodes=0), "episodes=0 is out of range"),
        (lambda: rlkit.evaluate(object(), "hopper", judged="mean"), "judged=mean is unknown, expected one of greedy"),
        (lambda: rlkit.evaluate(object(), env_kwargs={"xi_norm": 1}), "expected env= beside them"),
        (lambda: rlkit.evaluate(object()), "pass env=NAME"),
        (lambda: rlkit.load_dataset("nothing-like-it"), "nothing-like-it"),
    ],
)
def test_what_is_wrong_is_one_sentence(call: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_run_is_loaded_and_evaluated_as_the_command_line_does(
    dataset: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = rlkit.make("drrpo", "linear-mdp").learn(3)
    agent.save(tmp_path / "model.rlk")
    found = rlkit.evaluate(tmp_path, episodes=5, seed=1)
    again = rlkit.evaluate(rlkit.load(tmp_path), "linear-mdp", episodes=5, seed=1)
    assert found.returns.tolist() == again.returns.tolist() and len(found.returns) == 5
    shifted = rlkit.evaluate(tmp_path, "linear-mdp", episodes=40, env_kwargs={"shift": 0.9})
    assert shifted.returns.mean() != found.returns.mean()
    assert main(["eval", str(tmp_path), "episodes=5", "seed=1"]) == 0
    assert f"{found.returns.mean():.3f}"[:4] in capsys.readouterr().out
    bc = rlkit.make("bc", dataset, **SMALL)
    bc.save(tmp_path / "bc.rlk")
    assert rlkit.load(tmp_path / "bc.rlk", dataset).learn(2).num_timesteps == 2


def test_algorithms_of_sb3_are_evaluated_too() -> None:
    found = rlkit.evaluate(PPO("MlpPolicy", "CartPole-v1", device="cpu"), "CartPole-v1", episodes=4)
    assert len(found.returns) == 4 and found.scores is None


def test_rooms_say_what_is_in_them() -> None:
    assert list(rlkit.agents()) == registry.agent_names() and all(rlkit.agents().values())
    assert rlkit.envs().keys() == registry.records().keys()
    assert rlkit.agents.PRDC is PRDC and not hasattr(rlkit.agents, "PRCD")
    assert {"make", "load", "load_dataset", "evaluate", "agents", "envs"} <= set(dir(rlkit))


def test_importing_the_face_loads_nothing_heavy() -> None:
    code = (
        "import rlkit, sys; rlkit.agents(); rlkit.envs()\n"
        "print([m for m in ('torch', 'stable_baselines3', 'minari', 'mujoco', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- what help and editors show --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.agent_names())
def test_help_lists_every_hyperparameter_with_its_comment(name: str) -> None:
    cls = registry.agent_class(name)
    shown = pydoc.render_doc(cls, renderer=pydoc.plaintext)
    parameters = inspect.signature(cls).parameters
    for field in fields(cls.Config):
        comment = comments(cls.Config)[field.name]
        assert comment and comment in shown, field.name
        assert field.name in parameters
        if field.name not in ("learner", "ref_policy", "labels"):  # arguments of their own that take more than a word
            assert parameters[field.name].default == field.default
    assert not [p for p in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]


def test_what_type_checkers_see_is_what_there_is() -> None:
    written = runpy.run_path(str(ROOT / "scripts" / "make_signatures.py"))["written"]()
    for path, text in written.items():
        assert path.read_text() == text, f"run scripts/make_signatures.py: {path} is stale"
        ast.parse(text)


def test_every_public_class_says_what_it_is() -> None:
    silent = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for top in ("rlkit", "agents", "envs")
        for path in sorted((ROOT / top).rglob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not silent


# ---- the field's other names -----------------------------------------------------------------------------------------


def test_names_of_sb3_and_others_are_understood(dataset: Any) -> None:
    made = rlkit.make("td3bc", dataset, gamma=0.9, tau=0.01, lr=1e-3, policy_delay=3, net_arch=[8], batch_size=16)
    own = rlkit.make(
        "td3bc", dataset, discount=0.9, polyak=0.01, learning_rate=1e-3, actor_delay=3, hidden_sizes=[8], batch_size=16
    )
    assert made.config == own.config
    config = compose_config(["agent=td3bc", "env=hopper-medium", "agent.lr=0.001", "agent.gamma=0.9"])
    assert (config.agent.learning_rate, config.agent.discount) == (0.001, 0.9)


def test_an_alias_stands_before_a_preset() -> None:
    name = next(iter(ALIASES))
    assert make_config(registry.agent_class("iql"), {"lam": 0.7, name: 0.5}).discount == 0.5


@pytest.mark.parametrize(
    "cls, values, said",
    [
        (PRDC, {"gamma": 0.9, "discount": 0.9}, "discount of prdc is given twice, as gamma too"),
        (PRDC, {"policy_delay": 2, "policy_freq": 2}, "actor_delay of prdc is given twice"),
        (IQL, {"tau": 0.7}, "'tau' of iql may be either, expected polyak"),
        (BC, {"gamma": 0.9}, "unknown hyperparameter 'gamma' of bc"),
        (PRDC, {"lr": "fast"}, "agent.learning_rate='fast' is not a number"),
    ],
)
def test_names_that_cannot_be_understood_are_refused(cls: Any, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_config(cls, values)


def test_every_alias_belongs_to_some_agent() -> None:
    known = {field.name for name in registry.agent_names() for field in fields(registry.agent_class(name).Config)}
    assert set(ALIASES.values()) <= known and not set(ALIASES) & known
