"""Hyperparameters, policy_kwargs and SB3's own arguments in every form people try: used, or refused in a sentence.

Run by ``tests/rlkit/test_argument_forms.py`` in a process of its own, where nothing but the library checks types.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pytest
import torch
import toy
from torch import nn

from rlkit import registry
from rlkit.algorithms.hyperparameters import check_learning, check_seed_and_device, make_config
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.algorithms.online import OnlineAlgorithm
from rlkit.algorithms.policy_kwargs import KNOWN, with_policy_kwargs
from rlkit.algorithms.solver import Solver
from rlkit.cli import main
from rlkit.errors import UserError

AGENTS = registry.agent_names()
NAN, INF = math.nan, math.inf
FORMS: list[Any] = [
    *("x", "", "1", "0.5", "true", "None", "a\nb", b"x", "\x00", "é" * 400),
    *(True, False, None, 1, 0, -1, 3, 10**30, 2**62, -(10**30), 0.5, -0.5, 1e3, 1e308, 1e-320, NAN, INF, -INF, 1j),
    *([], [1], [0], [-1], ["a"], [None], [True], [NAN], [[1]], [1.5], (2, 3), {1, 2}, {}, {"a": 1}, range(3)),
    *([1] * 5000, object(), print, int, Ellipsis),
    *(np.float32(0.5), np.float64(NAN), np.int64(3), np.bool_(True), np.array([1, 2]), np.array(3), [np.int64(4)]),
    *(torch.tensor(1.0), torch.tensor([1, 2]), torch.tensor(NAN), [torch.tensor(1)]),
]


def sentence(caught: Any) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.isprintable() and 10 < len(text) < 400, text
    return text


@pytest.mark.parametrize("name", AGENTS)
def test_every_hyperparameter_in_every_form(name: str) -> None:
    cls = registry.agent_class(name)
    base = {"lam": 0.6} if name == "fdvl" else {}
    for field in fields(cls.Config):
        taken = 0
        for form in FORMS:
            try:
                config = make_config(cls, {**base, field.name: form})
            except UserError as error:
                text = str(error)
                assert "\n" not in text and len(text) < 700, (field.name, form, text)
                continue
            taken += 1
            kept = getattr(config, field.name)
            json.dumps(asdict(config), allow_nan=False)  # what an artefact holds
            assert isinstance(kept, bool) == (type(form) in (bool, np.bool_)), (field.name, form)
            make_config(cls, json.loads(json.dumps(asdict(config))))
        assert taken < len(FORMS) - 20, field.name


def test_a_wrong_type_names_the_setting_its_value_and_what_is_expected() -> None:
    cls = registry.agent_class("td3bc")
    for values, expected in (
        ({"batch_size": "64"}, "agent.batch_size='64' is not a whole number"),
        ({"batch_size": 64.0}, "agent.batch_size=64.0 is not a whole number"),
        ({"batch_size": True}, "agent.batch_size=True is not a whole number"),
        ({"alpha": NAN}, "agent.alpha=nan is not a number"),
        ({"alpha": torch.tensor(2.5)}, "agent.alpha=tensor(2.5000) is not a number"),
        ({"compile": 1}, "agent.compile=1 is not a truth value"),
        ({"hidden_sizes": 256}, "agent.hidden_sizes=256 is not a sequence"),
        ({"hidden_sizes": np.array([8])}, "agent.hidden_sizes=array([8]) is not a sequence"),
        ({"alhpa": 1}, "unknown hyperparameter 'alhpa' of td3bc; did you mean 'alpha'?"),
    ):
        with pytest.raises(UserError) as caught:
            make_config(cls, values)
        assert sentence(caught).startswith(expected)
    kept = make_config(cls, {"alpha": np.float32(0.5), "batch_size": np.int64(8), "hidden_sizes": [np.int32(4), 4]})
    assert (type(kept.alpha), type(kept.batch_size), kept.hidden_sizes) == (float, int, (4, 4))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("agent.batch_size=many", "agent.batch_size: Value 'many'"),
        ("agent.batch_size=1e-2", "agent.batch_size: Value '0.01'"),
        ("agent.alpha=nan", "agent.alpha=nan is not a number"),
        ("agent.alpha=.inf", "agent.alpha"),
        ("agent.hidden_sizes=[8,x]", "agent.hidden_sizes"),
        ("agent.compile=maybe", "agent.compile: Value 'maybe'"),
        ("agent.alpha=null", "agent.alpha"),
        ("agent.batch_size=-1", "agent.batch_size=-1 is out of range"),
    ],
)
def test_the_command_line_says_what_is_wrong_too(
    words: str, expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "agent=td3bc", "env=point-noisy", "total_timesteps=4", "out=r", words]) == 2
    printed = capsys.readouterr()
    lines = [line for line in (printed.out + printed.err).splitlines() if line.strip()]
    assert len(lines) == 1 and expected in lines[0], lines
    assert not (tmp_path / "r").exists()


# ---- SB3's arguments -------------------------------------------------------------------------------------------------

CALLS: list[tuple[dict[str, Any], str]] = [
    *(({"seed": s}, "seed=") for s in (-1, 2**32, 1.0, "1", None, True, NAN, [1], torch.tensor(1))),
    *(({"device": d}, "device=") for d in ("gpu", "cpux", "cuda:x", "cuda:99", "cuda:-1", "", None, 0, ["cpu"], "tpu")),
    *(({"verbose": v}, "verbose=") for v in ("1", 3, -1, None, NAN)),
    *(({"tensorboard_log": t}, "tensorboard_log=") for t in (5, True, ["logs"], b"logs")),
    *(({"policy": p}, "policy ") for p in ("MlpPolice", "CnnPolicy", "", 5, ["MlpPolicy"], nn.Linear)),
]


def make(name: str, **more: Any) -> Any:
    cls = registry.agent_class(name)
    policy = more.pop("policy", None)
    more = {"device": "cpu", **more}
    if issubclass(cls, OfflineAlgorithm):
        return cls("MlpPolicy" if policy is None else policy, toy.generate(size=200), **more)
    if name == "mbtl":
        return cls("contextual-cartpole", "orpo", **more)
    if issubclass(cls, Solver):
        env = {"bq": "tsp", "ptrnet": "tsp", "drrpo": "american-put", "drrpo-features": "CartPole-v1"}[name]
        return cls(policy, env, **more)
    policy = "MlpPolicy" if policy is None else policy
    env = "CartPole-v1" if name == "orpo" else toy.ENV_ID
    return cls(policy, env, **({} if name == "orpo" else {"buffer_size": 100}), **more)


@pytest.mark.parametrize("name", AGENTS)
def test_sb3s_arguments_are_checked_by_every_agent(name: str) -> None:
    for arguments, expected in CALLS:
        if name == "mbtl" and "policy" in arguments:
            continue  # it has none
        with pytest.raises(UserError) as caught:
            make(name, **arguments)
        assert sentence(caught).startswith(expected), arguments


def test_good_seeds_devices_and_logs_pass() -> None:
    for seed in (0, np.int64(3), 2**32 - 1):
        for device in ("auto", "cpu", torch.device("cpu")):
            check_seed_and_device(seed, device, None, 1)
    check_seed_and_device(0, "cpu", "logs", 2)


LEARNING: list[tuple[dict[str, Any], str]] = [
    *(({"total_timesteps": n}, "total_timesteps=") for n in (0, -5, 0.5, NAN, INF, "10", True, [10], torch.tensor(9))),
    *(({"log_interval": n}, "log_interval=") for n in (0, -1, "1", 0.5, NAN, True, [1])),
    *(({"callback": c}, "callback=") for c in (5, "print", [5], [print, None], {"a": 1})),
]


@pytest.mark.parametrize("name", ["td3bc", "recoil", "beer", "vagram", "orpo", "bq", "drrpo"])
def test_learns_arguments_are_checked_before_anything_is_learnt(name: str) -> None:
    cls = registry.agent_class(name)
    agent = make(name, **({"model_loss": "none"} if name == "vagram" else {}))
    for arguments, expected in LEARNING:
        with pytest.raises(UserError) as caught:
            agent.learn(**{"total_timesteps": 10, **arguments})
        assert sentence(caught).startswith(expected), arguments
    assert agent.num_timesteps == 0 and issubclass(cls, (OfflineAlgorithm, OnlineAlgorithm, Solver))


def test_sb3s_ways_of_writing_a_count_and_a_callback_pass() -> None:
    for count in (10, 10.0, 1e1, np.int64(10)):
        assert check_learning(count, None, None) == 10
    for callback in (None, print, [], [print]):
        check_learning(1, callback, 4)
    assert make("bc").learn(5.0, log_interval=None).num_timesteps == 5


# ---- policy_kwargs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_policy_kwargs_are_used_or_refused_by_name(name: str) -> None:
    cls = registry.agent_class(name)
    has = {f.name for f in fields(cls.Config)}
    critic = "vf" if name == "orpo" else "qf"
    same, other = {"pi": [32], critic: [32]}, {"pi": [32], critic: [64]}
    if "hidden_sizes" in has:
        assert with_policy_kwargs(cls, {"net_arch": [32]}, {})["hidden_sizes"] == [32]
        assert with_policy_kwargs(cls, {"net_arch": same}, {})["hidden_sizes"] == [32]
        if "critic_hidden_sizes" in has:
            expected = {"hidden_sizes": [32], "critic_hidden_sizes": [64]}
            assert with_policy_kwargs(cls, {"net_arch": other}, {}) == expected
        else:
            with pytest.raises(UserError, match=r"has one agent\.hidden_sizes for all"):
                with_policy_kwargs(cls, {"net_arch": other}, {})
        with pytest.raises(UserError, match=r"agent\.hidden_sizes is given twice"):
            with_policy_kwargs(cls, {"net_arch": [32]}, {"hidden_sizes": [8]})
    else:
        with pytest.raises(UserError, match=f"{name} does not take net_arch="):
            with_policy_kwargs(cls, {"net_arch": [32]}, {})
    for key in KNOWN.keys() - {"net_arch"} - has:
        with pytest.raises(UserError) as caught:
            with_policy_kwargs(cls, {key: nn.Tanh}, {})
        assert sentence(caught).startswith(f"{name} does not take {key}=")
    for wrong, expected in (
        ({"net_arh": [8]}, "unknown key 'net_arh' of policy_kwargs; did you mean 'net_arch'?"),
        ({"activation": nn.ReLU}, "did you mean 'activation_fn'?"),
        ({1: 2}, "unknown key 1 of policy_kwargs"),
        ([("net_arch", [8])], "policy_kwargs=[('net_arch', [8])] is not allowed"),
        ("net_arch=8", "policy_kwargs='net_arch=8' is not allowed"),
    ):
        with pytest.raises(UserError) as caught:
            make(name, policy_kwargs=wrong)
        assert expected in sentence(caught)
    for wrong in ({"pi": [8]}, {"qf": [8]}, {"pi": [8], "qff": [8]}, [{"pi": [8]}], 8, "8", {}, ["a"]):
        with pytest.raises(UserError) as caught:
            make(name, policy_kwargs={"net_arch": wrong})
        sentence(caught)


def test_what_policy_kwargs_say_is_what_is_built() -> None:
    agent = make("td3bc", policy_kwargs={"net_arch": {"pi": [32, 16], "qf": [64]}})
    assert [m.out_features for m in agent.policy.actor.net if isinstance(m, nn.Linear)] == [32, 16, 2]
    assert [m.out_features for m in agent.critic.nets[0] if isinstance(m, nn.Linear)] == [64, 1]
    agent = make("beer", policy_kwargs={"net_arch": [24]})
    assert agent.actor.mu[0].out_features == 24 == agent.critic.q_networks[0][0].out_features
    agent = make("orpo", policy_kwargs={"net_arch": [24], "log_std_init": -1.0})
    assert agent.policy.mlp_extractor.policy_net[0].out_features == 24 and agent.config.log_std_init == -1.0
    with pytest.raises(
        UserError, match=r"td3bc does not take optimizer_kwargs=.* expected agent\.learning_rate instead"
    ):
        make("td3bc", policy_kwargs={"optimizer_kwargs": {"lr": 1e-3}})
