"""Solutions to imitate, the solver of choice for each problem behind one call; and what solvers of our own share.

==========  ==========================================  ================================================================
problem     solver (default first)                      notes
==========  ==========================================  ================================================================
tsp         ``fast-tsp`` (MIT)                          has no seed and stops by the clock; up to 12 nodes Held-Karp, up
                                                        to 20 local search from random tours instead
atsp        ``fast-tsp``                                on the symmetric problem of 2 n nodes (Jonker & Volgenant 1983)
cvrp        ``hygese`` (HGS-CVRP, MIT)                  by iterations, so a seed decides; up to 10 customers exact
op          ``own``, by rounds, so a seed decides       up to 12 nodes exact; ``pyvrp`` (MIT) takes longer
knapsack    ``own``: dynamic programming, or branch     exact; ``ortools`` gives the same value
            and bound for weights without a unit
convex-     ``own``                                     the answer is unique
hull,
delaunay
==========  ==========================================  ================================================================

``own`` is known for every problem and needs no package; for cvrp it is exact and takes small instances only.
So are the quick ones: ``insertion``, the best of ten random insertions, each improved, of every problem with moves, and
knapsack's ``density``.  The packages come with ``pip install 'rlkit-papers[labels]'``.

Effort scales the time or the iterations of those that are not exact; ``seconds``, where given, are its time instead.

Each problem's ``solvers.py`` has them in ``SOLVERS``, the default first; in ``BASELINES`` the heuristics that a trained
policy has to beat; and in ``OWN_UP_TO`` the number of nodes up to which ``own`` does as well as any.  Of our own:

========================  ============================================================================================
:func:`held_karp`         shortest tour through every subset, by dynamic programming (Held & Karp 1962); exact TSP and
                          ATSP, and the table behind the exact solvers of CVRP and OP
:func:`local_search`      the moves of ``tour_moves.py`` from random tours; the best of several
heuristics                nearest neighbour, random insertion
========================  ============================================================================================

Costs are float64 ``[n, n]``, tours int64 ``[n]`` from node 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import Any, no_type_check

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlkit import __version__
from rlkit.envs.combinatorial.base import Problem, generate, make_problem, row
from rlkit.envs.combinatorial.bisimulation import Instance, State
from rlkit.envs.combinatorial.costs import MATRIX, Costs
from rlkit.envs.combinatorial.improvement import improves, inserted
from rlkit.envs.combinatorial.tour_moves import LEAST_NODES, improve_tours, insert_cities
from rlkit.errors import UserError, install_extra, nearest

Array = NDArray[np.float64]
Solution = NDArray[np.int64]
Solver = Callable[[Problem, Instance, float, int, float | None], Solution]  # problem, instance, effort, seed, seconds
Task = tuple[str, dict[str, Any], int, int, int, str, float]  # problem, settings, seed, start, size, solver, effort

MOST_EXACT = 12  # nodes of a tour that :func:`held_karp` takes
RESTARTS = 30  # of the local search, at effort 1
STARTS = 10  # insertions, at effort 1
QUICK = ("insertion", "density")  # solvers that hardly take time, the better one first
BUILT_IN = ("own", *QUICK)  # solvers that need no package
SOLVER_STREAM = 1  # sets a solver's seeds apart from the instances', which come from [seed, k]


# ---- one call for all ------------------------------------------------------------------------------------------------


def load(package: str, solver: str) -> ModuleType:
    """The ``package`` of ``solver``.  Raises UserError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        command = install_extra("labels", before=(3, 14) if solver == "hygese" else (4, 0))
        instead = "take rlkit's own: --method search, of labels solver=own"
        raise UserError(f"the solver '{solver}' is not installed: {command}, or {instead}") from None


def insertion(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """The best of random insertions, each improved; ten of them at effort 1."""
    one = {key: np.asarray(value)[None] for key, value in instance.items()}
    found: Solution = inserted(problem, one, max(1, round(STARTS * effort)), seed)[0]
    return found


def solvers_of(kind: type[Problem]) -> dict[str, Solver]:
    """All that solve the problem, by name, the best first."""
    found: dict[str, Solver] = dict(kind.part("solvers", "SOLVERS"))
    return found | ({"insertion": insertion} if improves(kind) else {})


def solver_name(problem: Problem, name: str | None) -> str:
    """``name``, or the default's.  Raises UserError for a solver that ``problem`` does not have."""
    known = solvers_of(type(problem))
    if name is None:
        return str(next(iter(known)))
    if name not in known:
        raise UserError(f"unknown solver '{name}' of {problem.name}{nearest(name, known)}")
    return name


def solver_version(name: str) -> str:
    """Version of the solver's package, rlkit's for its own; UserError where it is not installed."""
    if name in BUILT_IN:
        return __version__
    load({"fast-tsp": "fast_tsp"}.get(name, name), name)
    return version(name)


def choose_solver(problem: Problem, name: str) -> str:
    """``name``, or for "auto" the problem's best solver: if it is not installed, rlkit's own where that does as well.

    Raises UserError for an unknown solver or one that is needed and not installed.
    """
    best = solver_name(problem, None if name == "auto" else name)
    try:
        solver_version(best)
    except UserError:
        if name != "auto" or problem.num_nodes > problem.part("solvers", "OWN_UP_TO"):
            raise
        best = "own"
    return best


def solve(
    problem: Problem,
    instance: Instance,
    solver: str | None = None,
    effort: float = 1.0,
    seed: int = 0,
    seconds: float | None = None,
) -> Solution:
    """A solution of ``instance``, padded; ``effort`` scales the time or iterations of those that are not exact.

    ``seconds`` are its time instead, if they are given.  An array ``cost`` in ``instance`` stands for its distances.

    Raises UserError for an unknown solver or one that is not installed, or an instance too large for an exact one.
    """
    run = solvers_of(type(problem))[solver_name(problem, solver)]
    return problem.padded(run(problem, instance, effort, seed, seconds))


def solve_chunk(task: Task) -> NDArray[np.int64]:
    """Solutions ``[size, L]`` of a stretch of a stream of instances; what a process of its own is given to do."""
    name, settings, seed, start, size, solver, effort = task
    problem = make_problem(name, **settings)
    instances = generate(problem, size, seed, start)
    found = []
    for k in range(size):
        own = int(np.random.SeedSequence([seed, start + k, SOLVER_STREAM]).generate_state(1)[0])
        found.append(solve(problem, row(instances, k), solver, effort, own))
    return np.stack(found)


def heuristic_solutions(
    problem: Problem, instances: Instance, generator: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """What a trained policy has to beat on a batch of instances, int64 ``[B, L]`` by the heuristic's name."""
    every = [row(instances, k) for k in range(len(next(iter(instances.values()))))]
    return {
        name: np.stack([find(problem, one, generator) for one in every]) for name, find in problem.baselines().items()
    }


# ---- exact tours -----------------------------------------------------------------------------------------------------


def distances(coords: Array) -> Array:
    """Euclidean distances ``[n, n]`` of ``coords [n, 2]``."""
    steps = coords[:, None] - coords[None]
    return np.sqrt((steps**2).sum(axis=-1))


def costs_of(instance: Instance) -> Array:
    """The cost matrix ``[N, N]`` of a routing instance."""
    return instance["cost"] if "cost" in instance else distances(instance["coords"])


@njit(cache=True, nogil=True)
@no_type_check
def held_karp_table(cost):
    """``(best, last)`` over subsets S of the nodes 1..n - 1, as bits of S.

    best float64 ``[2^(n-1), n - 1]``: the shortest way from 0 through all of S that ends in S's node of that column;
    last int64: the node before it.
    """
    m = cost.shape[0] - 1
    best, last = np.full((1 << m, m), np.inf), np.full((1 << m, m), -1, np.int64)
    for j in range(m):
        best[1 << j, j] = cost[0, j + 1]
    for s in range(1, 1 << m):
        for j in range(m):
            if s >> j & 1:
                here = best[s, j]
                for k in range(m):
                    if not s >> k & 1:
                        way = here + cost[j + 1, k + 1]
                        if way < best[s | 1 << k, k]:
                            best[s | 1 << k, k], last[s | 1 << k, k] = way, j
    return best, last


def closed_tours(best: Array, cost: Array) -> tuple[Array, NDArray[np.int64]]:
    """Length ``[2^m]`` of the shortest tour through each subset and 0, and the node it ends with."""
    closed = best + cost[1:, 0]
    ends = np.argmin(closed, axis=1)
    found = closed[np.arange(len(closed)), ends]
    found[0] = 0.0
    return found, ends


def trace(subset: int, end: int, last: NDArray[np.int64]) -> list[int]:
    """The nodes of ``subset`` in the order of the shortest way that ends in ``end``."""
    nodes: list[int] = []
    while subset:
        nodes.append(end + 1)
        subset, end = subset & ~(1 << end), int(last[subset, end])
    return nodes[::-1]


def require_small(what: str, nodes: int, most: int) -> None:
    """Raise UserError for more than ``most`` nodes, for which an exact solver would take too long."""
    if nodes > most:
        raise UserError(f"the exact solver of {what} takes at most {most} nodes, got {nodes}")


def held_karp(cost: Array) -> NDArray[np.int64]:
    """The shortest tour.  Raises UserError above 12 nodes, where :func:`held_karp_table` grows too large."""
    require_small("tours", len(cost), MOST_EXACT)
    best, last = held_karp_table(np.ascontiguousarray(cost))
    _, ends = closed_tours(best, cost)
    everything = len(best) - 1
    return np.array([0, *trace(everything, int(ends[everything]), last)], np.int64)


# ---- local search ----------------------------------------------------------------------------------------------------


def local_search(cost: Array, restarts: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The best of ``restarts`` random tours at their local optima, from node 0."""
    costs = Costs(np.ascontiguousarray(cost, np.float64), MATRIX)
    best, shortest = np.arange(len(cost)), np.inf
    for _ in range(restarts):
        tour = generator.permutation(len(cost))
        if len(tour) >= LEAST_NODES:
            improve_tours(costs.array[None], costs.norm, costs.rounding, costs.symmetric, tour[None])
        length = float(cost[tour, np.roll(tour, -1)].sum())
        if length < shortest - 1e-12:
            best, shortest = tour, length
    return np.roll(best, -int(np.argmin(best)))


def own_tour(problem: Problem, instance: Instance, effort: float, seed: int, seconds: float | None = None) -> Solution:
    """The shortest tour, from 13 nodes on a short one."""
    cost = costs_of(instance)
    if len(cost) <= MOST_EXACT:
        return held_karp(cost)
    generator = np.random.Generator(np.random.PCG64(seed))
    return local_search(cost, max(1, round(RESTARTS * effort)), generator)


# ---- heuristics ------------------------------------------------------------------------------------------------------


def walked(problem: Problem, instance: Instance, choose: Callable[[State, NDArray[np.int64]], int]) -> Solution:
    """The solution, padded, that comes of ``choose``, which picks one of a state's feasible actions."""
    state, found = problem.initial(instance), list(problem.opening())
    while (mask := problem.feasible(instance, state)).any():
        state, _, grown = problem.step(instance, state, choose(state, np.flatnonzero(mask)))
        found += grown
    if found[-1] != 0 and problem.closing:
        found.append(0)
    return problem.padded(found)


def nearest_tour(problem: Problem, instance: Instance, generator: np.random.Generator) -> Solution:
    """Always the nearest node that is left."""
    cost = costs_of(instance)
    return walked(problem, instance, lambda state, nodes: int(nodes[np.argmin(cost[state.origin, nodes])]))


def random_insertion(cost: Array, generator: np.random.Generator) -> NDArray[np.int64]:
    """Cities in random order, each where it lengthens the tour least; from node 0."""
    costs = Costs(np.ascontiguousarray(cost, np.float64), MATRIX)
    return np.asarray(insert_cities(costs, generator.permutation(len(cost))))


def inserted_tour(problem: Problem, instance: Instance, generator: np.random.Generator) -> Solution:
    """:func:`random_insertion` of the instance's costs."""
    return random_insertion(costs_of(instance), generator)


TOUR_BASELINES = {"nearest_neighbour": nearest_tour, "random_insertion": inserted_tour}
FAST_TSP_LARGEST = 65_000  # fast-tsp takes whole numbers below 2^16


def largest_cost(cost: Array) -> float:
    """Of ``cost``, to divide by; 1 where all nodes are at one place."""
    return float(cost.max()) or 1.0
