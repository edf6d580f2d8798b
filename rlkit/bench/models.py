"""Rows about learnt models: VaGraM's ensemble against one network at a time, BQ in bfloat16 against float32."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlkit import registry
from rlkit.algorithms.floats import fast_float32
from rlkit.algorithms.replay import Replay
from rlkit.bench.measure import Line, Settings, Side, alternate, cores

MEMBERS, ELITES, WIDTHS = 7, 5, (200, 200, 200, 200)
STATES, ACTIONS = 11, 3  # Hopper-v5's
FIT_BATCH, START = 1024, 10_000
BQ_NODES = 50


def _perceptron(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in pairwise((inputs, *hidden)):
        layers += [nn.Linear(i, o), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], outputs))


def ensemble(settings: Settings) -> list[Line]:
    """A step of the fit, and a step of a roll-out with its rows remembered, against separate networks in a loop."""
    with cores(settings.threads):
        fit = {"ours": Side(_our_fit(), fast_float32), "peer": Side(_loop_fit())}
        roll = {"ours": Side(_our_roll_out(), fast_float32), "peer": Side(_loop_roll_out(), block=1)}
        fitted, rolled = alternate(fit, settings), alternate(roll, settings)
    shape = f"{MEMBERS} networks of {len(WIDTHS)} times {WIDTHS[0]}, Hopper's shapes"
    first = Line("model-fitting", "step of a model fit, against one network at a time", "step")
    first.ours, first.peer = fitted["ours"], fitted["peer"]
    rows = MEMBERS * FIT_BATCH / fitted["ours"].median
    first.note = f"{shape}, {FIT_BATCH} rows each: {rows:,.0f} rows a second"
    second = Line(
        "model-fitting", "step of a roll-out, against one network at a time and SB3's ReplayBuffer.add of rows", "step"
    )
    second.ours, second.peer = rolled["ours"], rolled["peer"]
    second.note = f"{START:,} rows from {ELITES} elites: {START / rolled['ours'].median:,.0f} rows a second"
    return [first, second]


def _ensemble(hidden: Sequence[int] = WIDTHS) -> Any:
    made = registry.resolve_object("rlkit.agents.vagram.world_model:Ensemble")
    return made(STATES + ACTIONS, STATES + 1, hidden, MEMBERS, False, torch.Generator().manual_seed(0))


def _data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs ``[n, D + A]``, targets ``[n, D + 1]``, weights ``[n, D]``, and a batch of rows per member."""
    generator = torch.Generator().manual_seed(1)
    n = START
    inputs = torch.randn(n, STATES + ACTIONS, generator=generator)
    targets = torch.randn(n, STATES + 1, generator=generator)
    weights = torch.rand(n, STATES, generator=generator)
    return inputs, targets, weights, torch.randint(n, (MEMBERS, FIT_BATCH), generator=generator)


def _our_fit() -> Callable[[int], None]:
    vagram_rows = registry.resolve_object("rlkit.agents.vagram.world_model:vagram_rows")
    model, (inputs, targets, weights, rows) = _ensemble(), _data()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def run(n: int) -> None:
        for _ in range(n):
            loss = vagram_rows(model(inputs[rows]), targets[rows], weights[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return run


def _loop_fit() -> Callable[[int], None]:
    inputs, targets, weights, rows = _data()
    models = [_perceptron(STATES + ACTIONS, WIDTHS, STATES + 1) for _ in range(MEMBERS)]
    optimisers = [torch.optim.Adam(model.parameters(), 1e-3) for model in models]

    def run(n: int) -> None:
        for _ in range(n):
            for model, optimiser, mine in zip(models, optimisers, rows, strict=True):
                error = (model(inputs[mine]) - targets[mine]).square()  # [batch, D + 1]
                loss = (weights[mine] * error[:, :-1]).mean() + error[:, -1].mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    return run


def _spaces() -> tuple[Any, Any]:
    from gymnasium.spaces import Box

    return Box(-np.inf, np.inf, (STATES,), np.float32), Box(-1.0, 1.0, (ACTIONS,), np.float32)


def _our_roll_out() -> Callable[[int], None]:
    imagine = registry.resolve_object("rlkit.agents.vagram.world_model:imagine")
    model, elites, generator = _ensemble(), torch.arange(ELITES), torch.Generator().manual_seed(2)
    memory = Replay(4 * START, *_spaces(), seed=0)
    states, actions = torch.randn(START, STATES), torch.zeros(START, ACTIONS)

    def run(n: int) -> None:
        with torch.no_grad():
            for _ in range(n):
                found = imagine(model, elites, torch.cat([states, actions], 1), generator)
                change, rewards = found.split([STATES, 1], dim=1)
                rows = [states, actions, rewards, torch.ones_like(rewards), states + change]
                memory.extend(torch.cat(rows, dim=1))

    return run


def _loop_roll_out() -> Callable[[int], None]:
    from stable_baselines3.common.buffers import ReplayBuffer

    models = [_perceptron(STATES + ACTIONS, WIDTHS, STATES + 1) for _ in range(ELITES)]
    memory = ReplayBuffer(4 * START, *_spaces(), device="cpu")
    states, actions = torch.randn(START, STATES), torch.zeros(START, ACTIONS)
    info: list[dict[str, Any]] = [{}]

    def run(n: int) -> None:
        with torch.no_grad():
            for _ in range(n):
                inputs = torch.cat([states, actions], 1)
                rows = zip(models, inputs.chunk(ELITES), strict=True)
                found = torch.cat([model(part) for model, part in rows]).numpy()
                before, acted, after = states.numpy(), actions.numpy(), states.numpy() + found[:, :-1]
                done = np.zeros(1)
                for i in range(START):
                    memory.add(before[i : i + 1], after[i : i + 1], acted[i : i + 1], found[i, -1:], done, info)

    return run


# ---- BQ --------------------------------------------------------------------------------------------------------------


def _bfloat16() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16)


def bq(settings: Settings) -> list[Line]:
    """Samples a second of BQ's training and time per instance of solving, bfloat16 products against float32."""
    size, count = (32, 8) if settings.quick else (256, 64)
    with tempfile.TemporaryDirectory() as folder, cores(settings.threads):
        labels = bq_labels(Path(folder), count)
        agents = {name: bq_agent(amp, size, labels) for name, amp in (("ours", True), ("peer", False))}
        training = {name: Side(partial(_updates, agent), fast_float32) for name, agent in agents.items()}
        instances = agents["peer"].read_labels().instances
        solving = {
            "ours": Side(partial(_solve, agents["peer"], instances), _bfloat16, block=1),
            "peer": Side(partial(_solve, agents["peer"], instances), block=1),
        }
        learnt, solved = alternate(training, settings), alternate(solving, settings)
    sizes = "width {width}, {layers} layers".format(**vars(agents["ours"].config))
    first = Line("bq", "BQ update in bfloat16, against float32", "update", ours=learnt["ours"], peer=learnt["peer"])
    speeds = [size / learnt[name].median for name in ("ours", "peer")]
    first.note = f"tsp{BQ_NODES}, {sizes}, batch {size}: {speeds[0]:,.0f} and {speeds[1]:,.0f} samples a second"
    second = Line(
        "bq", "BQ greedy solutions in bfloat16, against float32", "batch", ours=solved["ours"], peer=solved["peer"]
    )
    times = [1e3 * solved[name].median / count for name in ("ours", "peer")]
    second.note = f"{count} instances of tsp{BQ_NODES} at once: {times[0]:.3g} and {times[1]:.3g} ms an instance"
    return [first, second]


def bq_labels(folder: Path, count: int = 64) -> Path:
    """Tours to imitate, quickly made."""
    make_labels = registry.resolve_object("rlkit.envs.combinatorial.labels:make_labels")
    path = folder / "labels.safetensors"
    found: Path = make_labels("tsp", num_nodes=BQ_NODES, size=count, solver="own", effort=0.1, path=path)
    return found


def bq_agent(amp: bool, size: int, labels: Path, device: str = "cpu") -> Any:
    agent = registry.agent_class("bq")(env="tsp", labels=labels, amp=amp, batch_size=size, decay_steps=0, device=device)
    agent.ready()
    return agent


def _updates(agent: Any, n: int) -> None:
    for _ in range(n):
        agent.update(agent.draw())
        agent._n_updates += 1


def _solve(agent: Any, instances: Any, n: int) -> None:
    for _ in range(n):
        agent.solve(instances)
