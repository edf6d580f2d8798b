"""Updates compiled whole are the updates as written, to rounding; what cannot be compiled is done as before."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy
from torch import Tensor, nn

from rlkit import registry
from rlkit.algorithms.engine.compiled import Compiled
from rlkit.algorithms.engine.expressions import Unsupported
from rlkit.algorithms.engine.program import Program
from rlkit.algorithms.nets import Adam, Polyak, mlp
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.algorithms.tally import Tally

LEARNERS = [n for n in registry.agent_names() if issubclass(registry.agent_class(n), OfflineAlgorithm)]
# Every learner as it is, and what else of it an update may hold: other losses, draws, schedules, periods.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in LEARNERS),
    ("td3bc", {"actor_delay": 3, "critic_hidden_sizes": (17, 5, 9)}),
    ("a2pr", {"proposal": "prior", "detach_target": True, "q_scale": "data"}),
    ("iql", {"actor_dropout": 0.1, "uniform_actions": True, "decay_steps": 5, "value_updates": 2}),
    ("iql", {"huber": 1.0, "critic_layer_norm": True}),
    ("fdvl", {"divergence": "tv"}),
    ("recoil", {"q_loss": "contrastive"}),
    ("smodice", {"divergence": "chi2", "decay_steps": 5, "bootstrap_absorbing": True}),
]
NAMES = [f"{name}{'-' if more else ''}{'-'.join(more)}" for name, more in VARIANTS]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without optimising, which is most of the time; the program is the same."""
    monkeypatch.setenv("CXXFLAGS", "-O0")


@cache
def dataset() -> Any:
    return toy.generate(size=600)


def learner(name: str, **settings: Any) -> Any:
    small = {"batch_size": 16, "hidden_sizes": (16, 16), "device": "cpu", "seed": 3, **settings}
    return registry.agent_class(name)("MlpPolicy", dataset(), **small)


def state(agent: Any) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in {**agent.model_tensors(), **agent.training_tensors()}.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("name", "more"), VARIANTS, ids=NAMES)
def test_compiled_is_eager_to_rounding(name: str, more: dict[str, Any], quick: None, capsys: Any) -> None:
    """Parameters, moments, generators and metrics after some updates; each update rounds by about 1e-7."""
    compiled, eager = learner(name, compile=True, **more), learner(name, **more)
    compiled.learn(13)
    eager.learn(13)
    assert capsys.readouterr().out.startswith("compiled in ")
    ours, theirs = state(compiled), state(eager)
    assert ours.keys() == theirs.keys()
    assert compiled.tally.counts == eager.tally.counts and compiled._n_updates == 13
    for key, value in theirs.items():
        if value.dtype == torch.uint8:
            assert torch.equal(ours[key], value), key  # a generator: the same draws
        else:
            scale = float(value.double().abs().max()) if value.numel() else 0.0
            assert torch.allclose(ours[key].double(), value.double(), rtol=1e-3, atol=2e-4 * scale + 1e-6), key


@pytest.mark.parametrize("name", ["td3bc", "recoil"])
def test_recording_leaves_the_agent_as_it_was(name: str, quick: None) -> None:
    agent = learner(name)
    agent.learn(3)
    before, counts = state(agent), (agent._n_updates, agent.actor_optimiser.schedule.done, dict(agent.tally.counts))
    Compiled(Program(agent))
    assert same(before, state(agent))
    assert counts == (agent._n_updates, agent.actor_optimiser.schedule.done, agent.tally.counts)


@pytest.mark.parametrize("name", ["prdc", "iql"])
def test_resuming_is_exact_at_any_step(name: str, quick: None, tmp_path: Path) -> None:
    """The bytes of a run that was never stopped; an eager agent reads the checkpoint as well."""
    settings: dict[str, Any] = {"compile": True, **({"decay_steps": 9} if name == "iql" else {})}
    whole, part = learner(name, **settings), learner(name, **settings)
    whole.learn(12)
    part.learn(5)
    part.save_checkpoint(tmp_path / "c.rlk")
    resumed = learner(name, **settings)
    resumed.restore(tmp_path / "c.rlk")
    resumed.learn(7, reset_num_timesteps=False)
    assert same(state(whole), state(resumed))
    eager = learner(name, **{**settings, "compile": False})
    eager.restore(tmp_path / "c.rlk")
    assert same(state(part), state(eager))
    part.restore(tmp_path / "c.rlk")  # moments lie elsewhere now: what was compiled is not used any more
    part.learn(7, reset_num_timesteps=False)
    assert same(state(whole), state(part))


def test_without_a_compiler_updates_are_as_they_were(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    agent, eager = learner("bc", compile=True).learn(4), learner("bc").learn(4)
    said = capsys.readouterr().out
    assert said == ("not compiled, updates are as without compile=true: there is no C++ compiler (c++, g++, clang++)\n")
    assert same(state(agent), state(eager))


@pytest.mark.parametrize(
    ("script", "sentence"),
    [("#!/bin/sh\necho 'x.cpp:1: error: unknown -march' >&2\nexit 1\n", "error: unknown -march"),
     ("#!/bin/sh\nexit 3\n", "it said nothing")],
)  # fmt: skip
def test_a_compiler_that_fails_is_named(
    script: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    command = tmp_path / "cc"
    command.write_text(script)
    command.chmod(0o755)
    monkeypatch.setenv("CXX", str(command))
    assert learner("bc", compile=True).learn(2)._n_updates == 2
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and str(command) in said and sentence in said


# ---- what is no program ----------------------------------------------------------------------------------------------


def broken(kind: str) -> Any:
    agent = learner("bc")
    update, kept = agent.update, [0.0]

    def changed(batch: Any) -> Any:
        metrics = update(batch)
        if kind == "reads":
            kept[0] += float(metrics["actor_loss"].detach())
        elif kind == "counts":
            kept[0] += 1
            metrics["actor_loss"] = metrics["actor_loss"] * kept[0]
        elif kind == "arrays":
            metrics["more"] = torch.from_numpy(batch.rewards.numpy().copy()).mean()
        elif kind == "unknown":
            metrics["more"] = torch.linalg.det(batch.observations[:2, :2])
        elif kind == "draws":
            chance = metrics["actor_loss"].abs().clamp(0, 1).expand(3)
            metrics["more"] = torch.bernoulli(chance, generator=agent.noise).mean()
        return metrics

    agent.update = changed
    return agent


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("reads", r"it reads a value back \(test_compiled.py:\d+\)$"),
        ("counts", r"two updates a period \(1\) apart are not the same program \(test_compiled.py:\d+\)$"),
        ("arrays", r"two updates a period \(1\) apart are not the same program \(test_compiled.py:\d+\)$"),
        ("unknown", r"there is no C\+\+ for the operation \S+ \(test_compiled.py:\d+\)$"),
        ("draws", r"a draw depends on what was computed \(test_compiled.py:\d+\)$"),
    ],
)
def test_what_is_no_program_is_said(kind: str, sentence: str, quick: None) -> None:
    agent = broken(kind)
    before = state(agent)
    with pytest.raises(Unsupported, match=sentence):
        Compiled(Program(agent))
    assert same(before, state(agent)) and agent._n_updates == 0


# ---- kernels ---------------------------------------------------------------------------------------------------------


def program(update: Any, **parts: Any) -> Any:
    """The program of the least that a learner is: ``update()`` is its own."""
    agent = SimpleNamespace(
        **parts, name="toy", device=torch.device("cpu"), period=1, tally=Tally("cpu"), _n_updates=0, num_timesteps=0
    )
    agent._named = lambda kind: {name: part for name, part in parts.items() if isinstance(part, kind)}
    agent.doubtful = tuple
    agent.step = lambda: update() or 1
    return Program(agent)


def test_products_of_all_shapes_and_layouts() -> None:
    """Against float64: tails of registers and of tiles, transposed operands, bias, ReLU, masks, results in rows."""
    generator = torch.Generator().manual_seed(0)
    sizes = [*itertools.product((1, 3, 37), (1, 40), (1, 5, 33)), (16, 256, 70), (70, 30, 19)]
    cases = []
    for i, (m, k, n) in enumerate([*sizes, *sizes]):
        turned = (i + i // len(sizes)) % 4
        a = torch.randn(k, m, generator=generator).t() if turned & 1 else torch.randn(m, k, generator=generator)
        b = torch.randn(n, k, generator=generator).t() if turned & 2 else torch.randn(k, n, generator=generator)
        cases.append((a, b, torch.randn(n, generator=generator), torch.zeros(3, m, n)))

    def update() -> None:
        for a, b, bias, out in cases:
            hidden = torch.addmm(bias, a, b).relu_()
            out[0].copy_(hidden)
            out[1].copy_(torch.ops.aten.threshold_backward(torch.mm(a, b), hidden, 0))
            out[2].copy_(torch.mm(a.clone(), b * 1))  # operands that the program itself lays out

    Compiled(program(update)).advance(1)
    for a, b, bias, out in cases:
        product = a.double() @ b.double()
        hidden = (product + bias).relu()
        expected = torch.stack([hidden, product * (hidden > 0), product])
        sure = ((product + bias).abs() > 1e-4).expand(3, -1, -1)
        assert ((out - expected).abs() * sure).max() < 1e-4, (a.shape, b.shape)


def test_operations_over_layouts_and_broadcasts(quick: None) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(7, 6, generator=generator) for _ in range(2))
    x[0, 0], y[1, 1] = torch.nan, torch.inf
    row, column, number = x[1:2], y[:, 2:3], torch.tensor(0.5)
    index = torch.tensor([6, 0, 3, 3])
    functions = [
        lambda: x.t() + y.t() * row.t(),
        lambda: torch.minimum(x, column).clamp(-0.5, 0.7),
        lambda: torch.maximum(x, y).relu() - 2 * number,
        lambda: torch.where((x > y) | (x.abs() <= 0.1), x.exp(), (1 + y.square()).log()),
        lambda: torch.cat([x[2:, :3], y[2:, 1:2], torch.ones(5, 1)], dim=1).sum(dim=0, keepdim=True),
        lambda: torch.stack([x, y]).mean(dim=2),
        lambda: y[index] * x.index_select(0, index),
        lambda: (x[2:] * 3).t().sum(dim=1),
        lambda: (x[2:] * 3).sum(dim=1) / y[2:].sum(),
        lambda: torch.nn.functional.pad(x, (1, 2, 0, 1)),
        lambda: torch.nn.functional.softplus(30 * x),
        lambda: y[2:].logsumexp(dim=0),
        lambda: torch.stack([x[2:].std(correction=0), y[2:].max(), x[2:].norm(), x.max()]),
        lambda: torch.nn.functional.layer_norm(x, (6,)),
        lambda: torch.nn.functional.huber_loss(x[2:], y[2:], delta=0.4)[None],
        lambda: (index.float() / 4).tanh() + (index == 3) * 2,
        lambda: (x * 2).masked_fill(y > 0, -torch.inf).neg(),
        lambda: (x * 1.5)[::2, 1::2] ** 3,
    ]
    wanted = [function() for function in functions]
    outs = [torch.zeros_like(value) for value in wanted]

    def update() -> None:
        for out, function in zip(outs, functions, strict=True):
            out.copy_(function())

    Compiled(program(update)).advance(1)
    for i, (out, value) in enumerate(zip(outs, wanted, strict=True)):
        assert torch.allclose(out, value, rtol=1e-5, atol=1e-6, equal_nan=True), i


def test_the_compiled_flags_and_silent_units(capsys: Any) -> None:
    """With optimisation as in use: Adam and Polyak as PyTorch has them, moments of silent units end at 0."""
    generator = torch.Generator().manual_seed(0)
    net, other, target = (mlp([5, 40, 3], generator) for _ in range(3))
    other.load_state_dict(net.state_dict())
    x = torch.randn(33, 5, generator=generator)
    adam, polyak = Adam(net.parameters(), 1e-2), Polyak([(net, target)], 0.1)
    peer = torch.optim.Adam(other.parameters(), 1e-2)
    with torch.no_grad():
        for module in (net, other):
            module[0].bias[0] = -1e6  # a unit that is never heard
    adam.moments[0][0].fill_(1e-38)
    before = [p.clone() for p in target.parameters()]

    def update() -> None:
        adam.minimise(net(x).square().mean())
        polyak.step()

    compiled = Compiled(program(update, adam=adam, net=net, target=target))
    for _ in range(50):
        compiled.advance(1)
        peer.zero_grad()
        other(x).square().mean().backward()
        peer.step()
    assert adam.schedule.done == 50 and float(adam.steps[0]) == 50
    assert all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(net.parameters(), other.parameters(), strict=True)
    )
    assert not adam.moments[0][0][0].any()
    assert all(not torch.equal(a, b) for a, b in zip(before, target.parameters(), strict=True))
    assert np.isfinite(compiled.seconds) and compiled.eager_seconds > 0


def test_a_step_outside_is_called_between_two_parts(quick: None) -> None:
    from rlkit.algorithms.engine.outside import outside

    x, out, seen = torch.arange(12.0).reshape(4, 3), torch.zeros(4, 3), []

    def flipped(values: Tensor) -> tuple[Tensor, ...]:
        seen.append(values.clone())
        return (torch.from_numpy(values.numpy()[::-1].copy()),)

    def update() -> None:
        out.copy_(outside(flipped, x * 2)[0] + 1)

    compiled = Compiled(program(update))
    seen.clear()
    x += 1
    compiled.advance(1)
    assert len(seen) == 1 and torch.equal(seen[0], x * 2) and torch.equal(out, (x * 2).flip(0) + 1)


def test_gradients_of_other_optimisers_are_refused(quick: None) -> None:
    net = nn.Linear(3, 2)
    adam = Adam(net.parameters(), 1e-3)
    agent = program(lambda: adam.minimise(net(torch.ones(4, 3)).sum()))  # not an attribute: its rate is not known
    with pytest.raises(Unsupported, match="an optimiser other than"):
        Compiled(agent)
