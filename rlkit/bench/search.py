"""Rows about PRDC, whose update waits for a nearest-neighbour query.

**Steady state.**  PRDC's search remembers each row's neighbourhood from earlier visits, and a run visits each row about
a hundred times; what counts is the cost of a visit that is not the first.  Waiting for all N rows to be visited would
take minutes, so here batches are drawn from a random *pool* of rows, while the index holds all N.  The policy first
learns on all rows without searching, and visits the pool at three points on the way: between two visits it has moved
on, as in a run.  The search's memory budget is cut to the share of rows that are visited at all, so that it runs full
where a run's would.  The JSON gives the share of queries answered from memory and of those whose own row is nearest.

**First visits** are measured on the remaining rows, each drawn once, and have no goal: over a million updates they are
1 of 128 visits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlkit import registry
from rlkit.algorithms.floats import fast_float32
from rlkit.algorithms.hyperparameters import presets
from rlkit.algorithms.replay import Batch
from rlkit.algorithms.tally import Tally
from rlkit.bench.data import bench_data
from rlkit.bench.measure import Line, PeerMissing, Settings, Side, alternate, cores, skipped
from rlkit.bench.peers import D3rlpyLearner, import_d3rlpy
from rlkit.bench.updates import fill, learner, ours_twice, two_lines, updates
from rlkit.data.dataset import OfflineDataset
from rlkit.errors import UserError

GOALS = {"hopper": 4.0, "halfcheetah": 20.0}
VISITS = 3
FIRST_BLOCK = 4  # updates per block of first visits: two searches


def rows_batch(agent: Any, indices: Tensor) -> Batch:
    replay = agent.replay
    s, a, r, alive, successor = replay.rows.index_select(0, indices).split(replay.widths, dim=1)
    return Batch(s, a, r, alive, successor, indices)


def pool_sampler(agent: Any, pool: Tensor) -> Callable[[], Batch]:
    """As ``Replay.batch``, from the rows in ``pool`` alone."""
    size, generator = agent.config.batch_size, agent.replay.generator
    return lambda: rows_batch(agent, pool[torch.randint(len(pool), (size,), generator=generator)])


def fresh_sampler(agent: Any, rows: Tensor) -> Callable[[], Batch]:
    """Batches of ``rows`` in order, none twice."""
    parts = iter(rows.split(agent.config.batch_size))
    return lambda: rows_batch(agent, next(parts))


class KDTreeAnchor:
    """PRDC's anchor found as its authors do: a SciPy KD-tree over ``[beta s, a]``, queried at every actor step."""

    def __init__(self, agent: Any, workers: int):
        from scipy.spatial import cKDTree

        states, self.actions = (c.contiguous() for c in agent.replay.rows.split(agent.replay.widths, dim=1)[:2])
        self.beta, self.workers = agent.config.beta, workers
        self.tree = cKDTree(torch.cat([self.beta * states, self.actions], dim=1).numpy(), leafsize=10)

    def __call__(self, batch: Batch, proposed: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        query = torch.cat([self.beta * batch.observations, proposed], dim=1).numpy()  # [B, ds + da]
        distance, nearest = self.tree.query(query, workers=self.workers)  # [B], [B]
        chosen = torch.from_numpy(nearest)
        return self.actions.index_select(0, chosen), {
            "own_nn": (chosen == batch.indices).float().mean(),
            "nn_distance": torch.from_numpy(distance).mean(),
        }


def steady_agent(data: OfflineDataset, settings: Settings) -> tuple[Any, Tensor, Tensor]:
    """PRDC with a policy on its way, the pool that its search has visited, and the rows that it has not."""
    kind = registry.agent_class("prdc")
    chosen = presets(kind, data.provenance.name, data.task, data.family)
    budget = chosen.get("memory_gb", kind.Config().memory_gb)
    visited = settings.pool + settings.rounds * FIRST_BLOCK * settings.batch_size
    agent = learner("prdc", data, settings, memory_gb=budget * min(1.0, visited / len(data)))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    pool, rest = order[: settings.pool], order[settings.pool :]
    run = updates(agent)
    with fast_float32():
        for _ in range(VISITS):
            agent.anchor = lambda batch, proposed: (batch.actions, {})  # TD3+BC's, which needs no search
            run(settings.warm_updates // VISITS)
            del agent.anchor
            visit(agent, pool)
    agent.tally = Tally(agent.device)
    return agent, pool, rest


@torch.no_grad()
def visit(agent: Any, pool: Tensor) -> None:
    for indices in pool.split(agent.config.batch_size):
        batch = rows_batch(agent, indices)
        agent.anchor(batch, agent.policy.actor(batch.observations))


def with_anchor(agent: Any, anchor: Callable[..., Any], run: Callable[[int], None]) -> Callable[[int], None]:
    """``run`` with another anchor: everything else of the update is the very same code and weights."""

    def replaced(n: int) -> None:
        agent.anchor = anchor
        try:
            run(n)
        finally:
            del agent.anchor

    return replaced


@torch.no_grad()
def check_same_answers(agent: Any, anchor: KDTreeAnchor, pool: Tensor) -> None:
    """Both searches must find neighbours at the same mean distance, or the times compare nothing."""
    batch = rows_batch(agent, pool[: agent.config.batch_size])
    proposed = agent.policy.actor(batch.observations)
    ours, theirs = (float(find(batch, proposed)[1]["nn_distance"]) for find in (agent.anchor, anchor))
    if abs(ours - theirs) > 1e-4 * max(1.0, theirs):
        raise RuntimeError(f"PRDC's search and SciPy's disagree: mean distance {ours} and {theirs}")


def _facts(agent: Any, settings: Settings, before: dict[str, int], after: dict[str, int]) -> dict[str, object]:
    visits = max(1, after["visits"] - before["visits"])
    return {
        "rows": settings.rows,
        "pool": settings.pool,
        "beta": agent.config.beta,
        "alpha": agent.config.alpha,
        "max_list": agent.config.max_list,
        "memory_gb": agent.config.memory_gb,
        "memory_used_gb": after["arena_bytes"] / 2**30,
        "own_nearest": float(agent.tally.sums["own_nn"]) / agent.tally.counts["own_nn"],
        "nearest_distance": float(agent.tally.sums["nn_distance"]) / agent.tally.counts["nn_distance"],
        "answered_from_memory": (after["certified"] - before["certified"]) / visits,
    }


def _remark(task: str, facts: dict[str, object]) -> str:
    shares = f"{facts['answered_from_memory']:.0%} from memory, own row nearest {facts['own_nearest']:.0%}"
    return f"{task}, {facts['rows']:,} rows; {shares}"


def scipy(settings: Settings, task: str) -> list[Line]:
    """PRDC's update with its own search and with SciPy's, one agent, taking turns."""
    row = f"prdc-{task}"
    steady = Line(row, "PRDC update, steady state, against a SciPy KD-tree", "update", goal=GOALS[task])
    first = Line(
        row,
        "PRDC update, first visits, against a SciPy KD-tree",
        "update",
        note="no goal: 1 visit of 128 in a long run",
    )
    with cores(settings.threads):
        agent, pool, rest = steady_agent(bench_data(task, settings.rows), settings)
        anchor = KDTreeAnchor(agent, settings.threads)
        check_same_answers(agent, anchor, pool)
        run, before = updates(agent, pool_sampler(agent, pool)), agent.search.stats
        sides = {
            "ours": Side(run, fast_float32, multiple=2),
            "peer": Side(with_anchor(agent, anchor, run), fast_float32, multiple=2),
        }
        times = alternate(sides, settings)
        steady.ours, steady.peer = times["ours"], times["peer"]
        steady.details = _facts(agent, settings, before, agent.search.stats)
        steady.note = _remark(task, steady.details)

        run, before = updates(agent, fresh_sampler(agent, rest)), agent.search.stats
        agent.tally = Tally(agent.device)
        sides = {
            "ours": Side(run, fast_float32, block=FIRST_BLOCK),
            "peer": Side(with_anchor(agent, anchor, run), fast_float32, block=FIRST_BLOCK),
        }
        if len(rest) < 2 * FIRST_BLOCK * settings.rounds * settings.batch_size:
            raise UserError(f"--rows {settings.rows} leaves too few unvisited rows, expected at least 20000")
        times = alternate(sides, settings)
        first.ours, first.peer = times["ours"], times["peer"]
        first.details = _facts(agent, settings, before, agent.search.stats)
    return [steady, first]


def d3rlpy(settings: Settings, task: str) -> list[Line]:
    """PRDC's update in its steady state and d3rlpy's, from the same weights on the same data."""
    lines = two_lines(f"prdc-d3rlpy-{task}", "PRDC update, steady state, against d3rlpy", GOALS[task], task)
    try:
        import_d3rlpy()  # before the agent is warmed up, not after
    except PeerMissing as error:
        return skipped(lines, error)
    with cores(settings.threads):
        data = bench_data(task, settings.rows)
        agent, pool, _ = steady_agent(data, settings)
        peer = D3rlpyLearner("PRDC", data, agent, settings)
        run, before = updates(agent, pool_sampler(agent, pool)), agent.search.stats
        fill(lines, alternate({**ours_twice(run), "peer": Side(peer.updates, multiple=2)}, settings))
        lines[0].details = _facts(agent, settings, before, agent.search.stats)
        lines[0].note = _remark(task, lines[0].details)
    return list(lines)
