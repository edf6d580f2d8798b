"""Solvers of orienteering: the search by rounds, exact for small instances; PyVRP; most prize per way."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.bisimulation import Instance, State
from rlkit.envs.combinatorial.costs import costs_within
from rlkit.envs.combinatorial.op.rules import TOLERANCE
from rlkit.envs.combinatorial.solvers import (
    Solution,
    Solver,
    closed_tours,
    distances,
    held_karp_table,
    load,
    require_small,
    trace,
    walked,
)

MOST_EXACT = 12  # nodes that are solved exactly
OWN_UP_TO = 500  # nodes that were tried; at 50 it collects a percent more than PyVRP in a seventh of the time
ROUNDS, SHARES = 1000, 20  # of the search at effort 1, and into how many parts they are cut, each cooler
PYVRP_PRIZE, PYVRP_LENGTH = 100_000, 10_000  # whole numbers per unit


def exact_op(instance: Instance) -> NDArray[np.int64]:
    """An optimal tour ``0 .. 0``, the shortest of them.  Raises UserError above 12 nodes."""
    cost, prize = distances(instance["coords"]), instance["prize"]
    m = len(prize) - 1
    require_small("op", m, MOST_EXACT)
    best, last = held_karp_table(cost)
    closed, ends = closed_tours(best, cost)
    prizes = ((np.arange(1 << m)[:, None] >> np.arange(m)) & 1) @ prize[1:]
    prizes[closed > instance["budget"] + TOLERANCE / 2] = -1.0
    subset = int(np.lexsort((closed, -np.round(prizes, 9)))[0])
    return np.array([0, *trace(subset, int(ends[subset]), last), 0], np.int64)


def own(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """An optimal tour up to 12 nodes; of more, what the search finds in 1,000 rounds at effort 1."""
    if problem.num_nodes <= MOST_EXACT:
        return exact_op(instance)
    search = problem.part("improve", "Search")(instance, costs_within(instance), seed)
    for share in np.arange(SHARES) / SHARES:
        search.advance(float(share), max(1, round(ROUNDS * effort / SHARES)))
    found: Solution = search.solution
    return found


def pyvrp(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """Effort 1 is 3,000 iterations; prizes left on the way are added."""
    if problem.num_nodes <= MOST_EXACT:
        return exact_op(instance)
    package: Any = load("pyvrp", "pyvrp")
    model = package.Model()
    coords, prizes = instance["coords"], np.round(instance["prize"] * PYVRP_PRIZE).astype(np.int64)
    # lengths up and the budget down, so that what fits there fits here
    cost = np.ceil(distances(coords) * PYVRP_LENGTH).astype(np.int64)
    places = [model.add_location(float(x), float(y)) for x, y in coords]
    depot = model.add_depot(places[0])
    for place, prize in zip(places[1:], prizes[1:], strict=True):
        model.add_client(place, prize=int(prize), required=False)
    model.add_vehicle_type(
        1,
        start_depot=depot,
        end_depot=depot,
        max_distance=int(np.floor(float(instance["budget"]) * PYVRP_LENGTH)),
        unit_distance_cost=1,  # with 0 the search has nothing to shorten tours by, and ends far from good
    )
    for i, here in enumerate(places):
        for j, there in enumerate(places):
            if i != j:
                model.add_edge(here, there, int(cost[i, j]))
    iterations = max(1, round(3000 * effort))
    rules = importlib.import_module("pyvrp.stop")
    stop = rules.MaxIterations(iterations) if seconds is None else rules.MaxRuntime(seconds)
    best = model.solve(stop, seed=seed % 2**31, collect_stats=False, display=False).best
    visited = [activity.idx + 1 for route in best.routes() for activity in route.schedule() if activity.is_client()]
    tour = np.array([0, *visited, 0], np.int64)
    if not best.is_feasible():
        tour = np.array([0, 0], np.int64)
    return complete_op(instance, tour)


def complete_op(instance: Instance, solution: NDArray[np.int64]) -> NDArray[np.int64]:
    """``solution`` with nodes inserted, most prize per added way first, until none fits: no prize left on the way."""
    cost, prize = distances(instance["coords"]), instance["prize"]
    tour = solution[solution >= 0]
    while True:
        others = np.setdiff1d(np.flatnonzero(prize > 0), tour)
        left = float(instance["budget"]) + TOLERANCE / 2 - cost[tour[:-1], tour[1:]].sum()
        added = (
            cost[tour[:-1, None], others] + cost[others, tour[1:, None]] - cost[tour[:-1], tour[1:]][:, None]
        )  # [L, R]
        score = np.where(added <= left, prize[others] / np.maximum(added, 1e-9), -np.inf)
        if not score.size or score.max() == -np.inf:
            return tour
        place, which = np.unravel_index(int(np.argmax(score)), score.shape)
        tour = np.insert(tour, place + 1, others[which])


def nearest_neighbour(problem: Problem, instance: Instance, generator: np.random.Generator) -> Solution:
    """Always the feasible node of most prize per way."""
    cost, prize = distances(instance["coords"]), instance["prize"]

    def choose(state: State, nodes: NDArray[np.int64]) -> int:
        return int(nodes[np.argmin(-prize[nodes] / np.maximum(cost[state.origin, nodes], 1e-12))])

    return walked(problem, instance, choose)


SOLVERS: dict[str, Solver] = {"own": own, "pyvrp": pyvrp}
BASELINES = {"nearest_neighbour": nearest_neighbour}
