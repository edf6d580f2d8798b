"""Rows about a whole update: against d3rlpy, JAX, a plain loop, itself compiled, and its own matrix products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rlkit import registry
from rlkit.algorithms.engine import engine_of
from rlkit.algorithms.engine.compiled import Compiled
from rlkit.algorithms.floats import fast_float32
from rlkit.algorithms.nets import Adam, Critics, Polyak, fused_adam
from rlkit.algorithms.replay import Batch
from rlkit.bench.data import bench_data
from rlkit.bench.measure import Line, PeerMissing, Settings, Side, Times, alternate, cores, skipped
from rlkit.bench.peers import D3rlpyLearner
from rlkit.bench.plain import PlainTD3BC, ReplayBuffer
from rlkit.bench.xla import JaxTD3BC
from rlkit.data.dataset import OfflineDataset

SAME = "default precision setting on both sides"


def learner(
    name: str, data: OfflineDataset, settings: Settings, device: str = "cpu", seed: int = 0, **more: Any
) -> Any:
    """The registered agent on ``data``, with its presets for such data and ``more`` hyperparameters."""
    create = registry.agent_class(name)
    return create("MlpPolicy", data, seed=seed, device=device, batch_size=settings.batch_size, **more)


def updates(agent: Any, draw: Callable[[], Batch] | None = None) -> Callable[[int], None]:
    """The body of ``learn``: batch, update, metrics added up; ``draw`` replaces the sampling from all rows."""
    size = agent.config.batch_size
    draw = draw or (lambda: agent.replay.batch(size))

    def run(n: int) -> None:
        for _ in range(n):
            metrics = agent.update(draw())
            agent.num_timesteps += 1
            agent._n_updates += 1
            agent.tally.add(metrics)

    return run


def advances(agent: Any) -> Callable[[int], None]:
    """The same by the agent's own engine."""

    def run(n: int) -> None:
        done = agent._n_updates
        while agent._n_updates < done + n:
            agent.advance(done + n - agent._n_updates)

    return run


def repeated(way: Callable[[], object]) -> Callable[[int], None]:
    def run(n: int) -> None:
        for _ in range(n):
            way()

    return run


@contextmanager
def default_precision() -> Iterator[None]:
    """PyTorch's own setting, which is what ``fast_float32`` leaves behind."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def ours_twice(run: Callable[[int], None]) -> dict[str, Side]:
    """Our update as ``learn`` runs it, and with the matrix products that the peer has."""
    return {
        "ours": Side(run, fast_float32, multiple=2),  # 2: an actor step is in every second update
        "same": Side(run, default_precision, multiple=2),
    }


def two_lines(row: str, what: str, goal: float | None, note: str) -> tuple[Line, Line]:
    return (
        Line(row, what, "update", goal=goal, note=note),
        Line(row, f"{what}, same matmul kernels", "update", note=SAME),
    )


def fill(lines: tuple[Line, Line], times: dict[str, Times]) -> None:
    lines[0].ours, lines[1].ours = times["ours"], times["same"]
    lines[0].peer = lines[1].peer = times["peer"]


def d3rlpy(settings: Settings, agent_name: str, algorithm: str, goal: float | None = None) -> list[Line]:
    """Our update and that of d3rlpy's ``algorithm``, sampling included on both sides, its logger left out."""
    lines = two_lines(f"{agent_name}-d3rlpy", f"{algorithm} update, against d3rlpy", goal, "hopper")
    with cores(settings.threads):
        data = bench_data("hopper", settings.rows)
        agent = learner(agent_name, data, settings)
        try:
            peer = D3rlpyLearner(algorithm, data, agent, settings)
        except PeerMissing as error:
            return skipped(lines, error)
        fill(lines, alternate({**ours_twice(updates(agent)), "peer": Side(peer.updates, multiple=2)}, settings))
    return list(lines)


def plain(settings: Settings, task: str = "hopper") -> list[Line]:
    """Our TD3+BC and the plain eager loop of :mod:`rlkit.bench.plain`."""
    lines = two_lines("td3bc-plain", "TD3+BC update, against a plain eager loop", 1.6, task)
    with cores(settings.threads):
        data = bench_data(task, settings.rows)
        agent = learner("td3bc", data, settings)
        ds, da = data.observations.shape[1], data.actions.shape[1]
        peer, buffer = PlainTD3BC(ds, da, float(agent.action_space.high[0]), agent.config.alpha), ReplayBuffer(data)

        def run(n: int) -> None:
            for _ in range(n):
                peer.train(buffer.sample(settings.batch_size))

        fill(lines, alternate({**ours_twice(updates(agent)), "peer": Side(run, multiple=2)}, settings))
    return list(lines)


def jax(settings: Settings, task: str = "hopper") -> list[Line]:
    """TD3+BC compiled, and as it is written, against JAX's ``lax.scan`` of it (:mod:`rlkit.bench.xla`)."""
    lines = [
        Line("td3bc-jax", f"TD3+BC update, {way}, against JAX", "update", goal=goal, note=f"{task}; jit of lax.scan")
        for way, goal in (("compile=true", 1.0), ("as written", None))
    ]
    with cores(settings.threads):
        data = bench_data(task, settings.rows)
        written = learner("td3bc", data, settings)
        compiled = learner("td3bc", data, settings, compile=True)
        rows, (ds, da, *_) = written.replay.rows.numpy(), written.replay.widths
        try:
            peer = JaxTD3BC(rows, ds, da, written.config.alpha, settings)
        except PeerMissing as error:
            return skipped(lines, error)
        sides = {
            "compiled": Side(advances(compiled), fast_float32, multiple=2),
            "written": Side(updates(written), fast_float32, multiple=2),
            # A length of the scan is a program of its own: one of them alone, compiled before it is timed.
            "peer": Side(peer.updates, block=20 if settings.quick else 200),
        }
        peer.updates(sides["peer"].block or 0)
        times = alternate(sides, settings)
    for line, side in zip(lines, ("compiled", "written"), strict=True):
        line.ours, line.peer = times[side], times["peer"]
    return lines


def compiled(settings: Settings, task: str = "hopper") -> list[Line]:
    """``compile=true`` against the same update as it is written, and how many updates pay for compiling."""
    lines = []
    for name in ("bc", "td3bc", "prdc", "iql", "a2pr"):
        line = Line("compiled", f"{name} update, compile=true against as written", "update", note=task)
        with cores(settings.threads), fast_float32():
            data = bench_data(task, settings.rows)
            ours, peer = learner(name, data, settings, compile=True), learner(name, data, settings)
            engine = ours._running = engine_of(ours)
            if isinstance(engine, Compiled):
                sides = {
                    "ours": Side(advances(ours), fast_float32, multiple=2),
                    "peer": Side(updates(peer), fast_float32, multiple=2),
                }
                times = alternate(sides, settings)
                line.ours, line.peer = times["ours"], times["peer"]
                gain = line.peer.median - line.ours.median
                pays = f"pays after {engine.seconds / gain:,.0f} updates" if gain > 0 else "never pays"
                line.note = f"{task}; compiled in {engine.seconds:.0f} s, {pays}"
                line.details["compile_seconds"] = engine.seconds
            else:
                line.skipped = "not measured: nothing here compiles C++"
        lines.append(line)
    return lines


def optimiser(settings: Settings) -> list[Line]:
    """Adam's and Polyak's steps on TD3's twin critics, gradients given, against PyTorch's and the usual statement."""
    critics, peer, fused, target, other = (
        Critics(11, 3, (256, 256), torch.Generator().manual_seed(0)) for _ in range(5)
    )
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(p.shape, generator=generator) for p in critics.parameters()]
    mine, polyak = Adam(critics.parameters(), 3e-4), Polyak([(critics, target)], 0.005)
    theirs = {False: torch.optim.Adam(peer.parameters(), 3e-4), True: torch.optim.Adam(fused.parameters(), fused=True)}
    for module in (peer, fused):
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def own() -> None:
        torch._foreach_add_(mine.steps, 1)
        fused_adam(mine.parameters, gradients, mine.moments, mine.steps, mine.param_groups[0])

    @torch.no_grad()
    def usual() -> None:
        for slow, fast in zip(other.parameters(), critics.parameters(), strict=True):
            slow.data.copy_((1 - 0.005) * slow.data + 0.005 * fast.data)

    with cores(settings.threads):
        ways = {"adam": own, "default": theirs[False].step, "fused": theirs[True].step, "polyak": polyak.step}
        times = alternate({name: Side(repeated(way)) for name, way in {**ways, "usual": usual}.items()}, settings)
    return [
        Line("optimiser", what, "step", ours=times[ours], peer=times[peer], note="2 networks of 256 twice")
        for what, ours, peer in (
            ("Adam's step, against torch.optim.Adam(fused=True)", "adam", "fused"),
            ("Adam's step, against torch.optim.Adam", "adam", "default"),
            ("Polyak's step, against a statement a parameter", "polyak", "usual"),
        )
    ]


def overhead(settings: Settings, task: str = "hopper") -> list[Line]:
    """What share of a TD3+BC update is not matrix products: the same products alone, same shapes and kernels."""
    line = Line("overhead", "share of a TD3+BC update outside matrix products", "update", "share", goal=0.4)
    with cores(settings.threads):
        data = bench_data(task, settings.rows)
        agent = learner("td3bc", data, settings)
        actor = [m for m in agent.policy.actor.modules() if isinstance(m, torch.nn.Linear)]
        critics = [[m for m in net.modules() if isinstance(m, torch.nn.Linear)] for net in agent.critic.nets]
        products = Products(actor, critics, settings.batch_size, agent.config.actor_delay)
        times = alternate(
            {
                "ours": Side(updates(agent), fast_float32, multiple=agent.config.actor_delay),
                "peer": Side(products.run, fast_float32, multiple=agent.config.actor_delay),
            },
            settings,
        )
    line.ours, line.peer = times["ours"], times["peer"]
    line.note = (
        f"{task}; {products.gflop:.2f} GFLOP an update, {products.gflop / times['peer'].median:.0f} GFLOP/s bare"
    )
    line.details["gflop_per_update"] = products.gflop
    return [line]


def silent(settings: Settings) -> list[Line]:
    """A step of TD3's critics none of whose units is heard any more, by our Adam and by PyTorch's, fused too."""
    ours, peer = (Critics(11, 3, (256, 256), torch.Generator().manual_seed(0)) for _ in range(2))
    mine, theirs = Adam(ours.parameters(), 3e-4), torch.optim.Adam(peer.parameters(), 3e-4, fused=True)
    rows = torch.randn(settings.batch_size, 14, generator=torch.Generator().manual_seed(1)).split([11, 3], dim=1)

    def loss(critics: Critics) -> torch.Tensor:
        return 0 * torch.cat(critics(*rows)).sum()

    def step_ours(n: int) -> None:
        for _ in range(n):
            mine.minimise(loss(ours))

    def step_peer(n: int) -> None:
        for _ in range(n):
            theirs.zero_grad()
            loss(peer).backward()
            theirs.step()

    with cores(settings.threads):
        step_peer(1)  # PyTorch's makes its state in the first step
        for optimiser in (mine, theirs):
            for state in optimiser.state.values():
                for moment in ("exp_avg", "exp_avg_sq"):
                    state[moment].fill_(1e-40)  # on its way down
        times = alternate({"ours": Side(step_ours, fast_float32), "peer": Side(step_peer, fast_float32)}, settings)
    what = "step of critics that have fallen silent, against PyTorch's Adam"
    return [Line("adam-silent", what, "step", ours=times["ours"], peer=times["peer"], note="2 networks of 256 twice")]


class Products:
    """The matrix products of TD3+BC's updates as bare ``torch.mm`` into memory allocated before.

    A critic step: target actor and target critics forward; critics forward, with gradients of all weights and of all
    inputs but the first layer's.  An actor step: actor and first critic forward; gradients of the critic's inputs;
    gradients of the actor's weights and of all its inputs but the first layer's.
    """

    def __init__(self, actor: list[torch.nn.Linear], critics: list[list[torch.nn.Linear]], batch: int, delay: int):
        self.delay, self.count, self.flop = delay, 0, 0
        self.batch = batch
        self.critic_step, self.actor_step = [], []
        for net in (actor, *critics):
            self.critic_step += self._forward(net)
        for net in critics:
            self.critic_step += [*self._forward(net), *self._weights(net), *self._inputs(net[1:])]
        self.actor_step += [*self._forward(actor), *self._forward(critics[0]), *self._inputs(critics[0])]
        self.actor_step += [*self._weights(actor), *self._inputs(actor[1:])]
        self.gflop = (self._flop(self.critic_step) + self._flop(self.actor_step) / delay) / 1e9

    def _forward(self, net: list[torch.nn.Linear]) -> list[tuple[torch.Tensor, ...]]:
        """``x [B, in] @ W.T [in, out]``"""
        shapes = [(layer.in_features, layer.out_features) for layer in net]
        return [(torch.randn(self.batch, i), torch.randn(o, i).t(), torch.empty(self.batch, o)) for i, o in shapes]

    def _weights(self, net: list[torch.nn.Linear]) -> list[tuple[torch.Tensor, ...]]:
        """``dy.T [out, B] @ x [B, in]``"""
        shapes = [(layer.in_features, layer.out_features) for layer in net]
        return [(torch.randn(self.batch, o).t(), torch.randn(self.batch, i), torch.empty(o, i)) for i, o in shapes]

    def _inputs(self, net: list[torch.nn.Linear]) -> list[tuple[torch.Tensor, ...]]:
        """``dy [B, out] @ W [out, in]``"""
        shapes = [(layer.in_features, layer.out_features) for layer in net]
        return [(torch.randn(self.batch, o), torch.randn(o, i), torch.empty(self.batch, i)) for i, o in shapes]

    @staticmethod
    def _flop(products: list[tuple[torch.Tensor, ...]]) -> int:
        return sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b, _ in products)

    @torch.no_grad()
    def run(self, n: int) -> None:
        for _ in range(n):
            self.count += 1
            for a, b, out in self.critic_step:
                torch.mm(a, b, out=out)
            if self.count % self.delay == 0:
                for a, b, out in self.actor_step:
                    torch.mm(a, b, out=out)
