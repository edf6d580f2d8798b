"""Rows about a GPU: graphs of updates, stacks of runs, neighbours.  Without one each says that it was not measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rlkit.algorithms.engine.graph import Graph
from rlkit.algorithms.engine.stacked import Stack
from rlkit.bench.data import bench_data
from rlkit.bench.measure import Line, PeerMissing, Settings, Side, alternate, cores, skipped
from rlkit.bench.models import BQ_NODES, bq_agent, bq_labels
from rlkit.bench.peers import D3rlpyLearner
from rlkit.bench.updates import advances, learner
from rlkit.bench.xla import JaxTD3BC

DEVICE = "cuda"
RUNS = 45  # three learners' worth of seeds and settings
RATES = "{:,.0f} updates a second"


def _absent(lines: Sequence[Line]) -> bool:
    """Whether there is no GPU, which ``lines`` then say."""
    if torch.cuda.is_available():
        return False
    skipped(lines, PeerMissing("not measured: there is no CUDA device"))
    return True


def _whole(run: Callable[[int], object]) -> Callable[[int], None]:
    """``run`` until the device has done it."""

    def waited(n: int) -> None:
        run(n)
        torch.cuda.synchronize()

    return waited


def _agents(name: str, settings: Settings, **more: Any) -> tuple[Any, Any]:
    """A learner on the GPU by graphs, and one as it is written."""
    data = bench_data("hopper", settings.rows)
    graph, eager = (learner(name, data, settings, device=DEVICE, **more) for _ in range(2))
    eager.engine = "eager"
    return graph, eager


def graphs(settings: Settings) -> list[Line]:
    """Updates by graphs against the same as written, on one GPU."""
    goals = {"bc": None, "td3bc": None, "iql": 5.0, "fdvl": 5.0, "a2pr": 5.0}
    lines = [Line("gpu-graph", f"{name} update, graph against eager", "update", goal=goals[name]) for name in goals]
    if not _absent(lines):
        for line, name in zip(lines, goals, strict=True):
            graph, eager = _agents(name, settings)
            sides = {"ours": graph, "peer": eager}
            times = alternate({key: Side(_whole(advances(one)), multiple=20) for key, one in sides.items()}, settings)
            line.ours, line.peer = times["ours"], times["peer"]
            line.note = RATES.format(1 / times["ours"].median)
    return lines


def peers(settings: Settings) -> list[Line]:
    """TD3+BC by graphs against d3rlpy, eager and by its own graphs, and JAX, all on one GPU."""
    lines = [
        Line("gpu-peers", f"TD3+BC update, graph against {peer}", "update", goal=goal)
        for peer, goal in (("d3rlpy", None), ("d3rlpy with compile_graph", 3.0), ("JAX, a lax.scan", None))
    ]
    if _absent(lines):
        return lines
    graph, _ = _agents("td3bc", settings)
    data = bench_data("hopper", settings.rows)

    def d3rlpy(compile_graph: bool) -> Callable[[int], None]:
        return D3rlpyLearner("TD3PlusBC", data, graph, settings, compile_graph).updates

    def jax() -> Callable[[int], None]:
        rows, (ds, da, *_) = graph.replay.rows.cpu().numpy(), graph.replay.widths
        peer = JaxTD3BC(rows, ds, da, graph.config.alpha, settings, platform=DEVICE)
        peer.updates(200)
        return peer.updates

    for line, make in zip(lines, (lambda: d3rlpy(False), lambda: d3rlpy(True), jax), strict=True):
        try:
            side = Side(_whole(make()), multiple=2, block=200 if make is jax else None)
        except PeerMissing as error:
            skipped([line], error)
            continue
        times = alternate({"ours": Side(_whole(advances(graph)), multiple=20), "peer": side}, settings)
        line.ours, line.peer = times["ours"], times["peer"]
        line.note = RATES.format(1 / times["ours"].median)
    return lines


def stacked(settings: Settings) -> list[Line]:
    """Many runs of TD3+BC as one program, against as many one after another, by graphs both."""
    line = Line("gpu-stacked", f"{RUNS} TD3+BC runs together, against one after another", "run-update")
    if _absent([line]):
        return [line]
    data = bench_data("hopper", settings.rows)
    alone, _ = _agents("td3bc", settings)
    together = Graph(Stack([learner("td3bc", data, settings, device=DEVICE, seed=seed) for seed in range(RUNS)]))

    def run(n: int) -> None:
        left = n // RUNS
        while left:
            before = together.program.updates()
            together.advance(left)
            left -= together.program.updates() - before

    sides = {"ours": Side(_whole(run), multiple=20 * RUNS), "peer": Side(_whole(advances(alone)), multiple=20)}
    times = alternate(sides, settings)
    line.ours, line.peer = times["ours"], times["peer"]
    line.note = f"{1 / times['ours'].median:,.0f} run-updates a second"
    return [line]


def neighbours(settings: Settings) -> list[Line]:
    """PRDC's update on the GPU, neighbours by products, against its own on one thread of the processor."""
    line = Line("gpu-prdc", "PRDC update on the GPU, against its own on a processor", "update", goal=10.0)
    if _absent([line]):
        return [line]
    data = bench_data("hopper", settings.rows)
    with cores(settings.threads):
        ours, peer = (learner("prdc", data, settings, device=device) for device in (DEVICE, "cpu"))
        sides = {"ours": Side(_whole(advances(ours)), multiple=20), "peer": Side(advances(peer), multiple=2)}
        times = alternate(sides, settings)
    line.ours, line.peer = times["ours"], times["peer"]
    line.note = f"{settings.rows:,} rows of hopper; {RATES.format(1 / times['ours'].median)}"
    return [line]


def bq(settings: Settings) -> list[Line]:
    """BQ's update with a graph for each size of sub-problems, against the same as written, on one GPU."""
    line = Line("gpu-bq", "BQ update, a graph for each size against eager", "update", goal=5.0)
    if _absent([line]):
        return [line]
    with tempfile.TemporaryDirectory() as folder:
        labels = bq_labels(Path(folder))
        graph, eager = (bq_agent(True, settings.batch_size, labels, device=DEVICE) for _ in range(2))
        eager.engine = "eager"
        for _ in range(4 * BQ_NODES):  # every size has been met, and recorded
            graph.advance(1)
        sides = {"ours": Side(_whole(advances(graph)), multiple=20), "peer": Side(_whole(advances(eager)), multiple=20)}
        times = alternate(sides, settings)
    line.ours, line.peer = times["ours"], times["peer"]
    line.note = f"tsp{BQ_NODES}: {settings.batch_size / times['ours'].median:,.0f} samples a second"
    return [line]
