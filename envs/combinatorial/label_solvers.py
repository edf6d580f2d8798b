"""Solutions to imitate: the solver of choice for each problem, all behind one call.

==========  ==========================================  ================================================================
problem     solver (default first)                      notes
==========  ==========================================  ================================================================
tsp         ``fast-tsp`` (MIT)                          has no seed and stops by the clock; up to 12 nodes Held-Karp, up
                                                        to 20 local search from random tours instead
atsp        ``fast-tsp``                                on the symmetric problem of 2 n nodes (Jonker & Volgenant 1983)
cvrp        ``hygese`` (HGS-CVRP, MIT)                  by iterations, so a seed decides; up to 10 customers exact
op          ``pyvrp`` (MIT)                             by iterations, so a seed decides; up to 12 nodes exact
knapsack    ``own``: dynamic programming, or branch     exact; ``ortools`` gives the same value
            and bound for weights without a unit
convex-     ``own``                                     the answer is unique
hull,
delaunay
==========  ==========================================  ================================================================

``own`` is known for every problem and needs no package; for cvrp and op it is exact and takes small instances only.
The packages come with ``pip install 'rlkit-papers[labels]'``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit import __version__
from rlkit.envs.combinatorial import solvers
from rlkit.envs.combinatorial.base import Problem, generate, make_problem, row
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.errors import UserError, install_extra, nearest

Solution = NDArray[np.int64]
Solver = Callable[[Problem, Instance, float, int], Solution]  # problem, instance, effort, seed
Task = tuple[str, dict[str, Any], int, int, int, str, float]  # problem, settings, seed, start, size, solver, effort

FAST_TSP_LARGEST = 65_000  # it takes whole numbers below 2^16
EXACT, RESTARTS = 12, 20  # up to how many nodes Held-Karp and the local search stand in for fast-tsp
HYGESE_SCALE = 10_000  # it stops at improvements below 10^-5
SOLVER_STREAM = 1  # sets a solver's seeds apart from the instances', which come from [seed, k]
PYVRP_PRIZE, PYVRP_LENGTH = 100_000, 10_000  # whole numbers per unit


def _load(package: str, solver: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError:
        command = install_extra("labels", before=(3, 14) if solver == "hygese" else (4, 0))
        raise UserError(
            f"the solver '{solver}' is not installed: {command}, or choose solver=own if that will do"
        ) from None


# ---- tsp and atsp ----------------------------------------------------------------------------------------------------


def _own_tour(problem: Problem, instance: Instance, effort: float, seed: int) -> Solution:
    cost = solvers.costs_of(instance)
    if len(cost) <= EXACT:
        return solvers.held_karp(cost)
    generator = np.random.Generator(np.random.PCG64(seed))
    return solvers.local_search(cost, max(1, round(30 * effort)), generator)


def _fast_tsp(problem: Problem, instance: Instance, effort: float, seed: int) -> Solution:
    """Effort 1 is 0.1 ms a node and a quarter more for every hundred: 0.01% or better up to 200 nodes."""
    fast_tsp: Any = _load("fast_tsp", "fast-tsp")
    cost = solvers.costs_of(instance)
    n = len(cost)
    if n <= (RESTARTS if problem.name == "tsp" else EXACT):
        return _own_tour(problem, instance, effort, seed)
    if problem.name == "atsp":
        whole = _symmetric(cost).tolist()
        for more in (1, 3, 9):  # a search cut short may leave a node's halves apart
            found = _from_symmetric(np.array(fast_tsp.find_tour(whole, 0.3 * more * effort * n / 100)), n)
            if found is not None:
                return found
        raise UserError("fast-tsp found no tour of the asymmetric problem, expected more effort or solver=own")
    whole = np.round(cost * (FAST_TSP_LARGEST / _largest(cost))).astype(np.int64)
    seconds = effort * n * 1e-4 * (1.0 + n / 100)
    tour = np.array(fast_tsp.find_tour(whole.tolist(), seconds), np.int64)
    return np.roll(tour, -int(np.argmin(tour)))


def _largest(cost: NDArray[np.float64]) -> float:
    """Of ``cost``, to divide by; 1 where all nodes are at one place."""
    return float(cost.max()) or 1.0


def _symmetric(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Symmetric costs ``[2 n, 2 n]``: entry i and exit n + i of each node joined by 0, exit i to entry j by c_ij.

    Everything else is so dear that no short tour uses it, and c_ij is shifted so that joining a node is always cheaper.
    """
    n = len(cost)
    largest = FAST_TSP_LARGEST // 8
    shift = 4 * largest
    whole = np.round(cost * (largest / _largest(cost))).astype(np.int64) + shift
    found = np.full((2 * n, 2 * n), FAST_TSP_LARGEST, np.int64)
    found[n:, :n], found[:n, n:] = whole, whole.T
    found[n + np.arange(n), np.arange(n)] = found[np.arange(n), n + np.arange(n)] = 0
    np.fill_diagonal(found, 0)
    return found


def _from_symmetric(tour: Solution, n: int) -> Solution | None:
    """The tour of n nodes in one of 2 n, or None where not every entry is beside its exit."""
    place = np.empty(2 * n, np.int64)
    place[tour] = np.arange(2 * n)
    behind = (place[n:] - place[:n]) % (2 * n)  # 1 where the exit follows the entry, 2 n - 1 where it precedes it
    if not (np.all(behind == 1) or np.all(behind == 2 * n - 1)):
        return None
    nodes = tour[tour < n].astype(np.int64)
    if behind[0] != 1:
        nodes = nodes[::-1]
    return np.roll(nodes, -int(np.argmin(nodes)))


# ---- cvrp and op -----------------------------------------------------------------------------------------------------


def _own_cvrp(problem: Problem, instance: Instance, effort: float, seed: int) -> Solution:
    return solvers.exact_cvrp(instance)


def _hygese(problem: Problem, instance: Instance, effort: float, seed: int) -> Solution:
    if problem.num_nodes <= solvers.MOST_EXACT["cvrp"]:
        return solvers.exact_cvrp(instance)
    hygese: Any = _load("hygese", "hygese")
    settings = hygese.AlgorithmParameters(nbIter=max(1, round(1000 * effort)), timeLimit=0.0, seed=seed % 2**31)
    data = {
        "distance_matrix": solvers.distances(instance["coords"]) * HYGESE_SCALE,
        "demands": instance["demand"],
        "vehicle_capacity": int(instance["capacity"]),
    }
    found = hygese.Solver(settings, verbose=False).solve_cvrp(data)
    return np.array([0, *(j for route in found.routes for j in (*route, 0))], np.int64)


def _own_op(problem: Problem, instance: Instance, effort: float, seed: int) -> Solution:
    return solvers.exact_op(instance)


def _pyvrp(problem: Problem, instance: Instance, effort: float, seed: int) -> Solution:
    if problem.num_nodes <= solvers.MOST_EXACT["op"]:
        return solvers.exact_op(instance)
    pyvrp: Any = _load("pyvrp", "pyvrp")
    model = pyvrp.Model()
    coords, prizes = instance["coords"], np.round(instance["prize"] * PYVRP_PRIZE).astype(np.int64)
    # lengths up and the budget down, so that what fits there fits here
    cost = np.ceil(solvers.distances(coords) * PYVRP_LENGTH).astype(np.int64)
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
    stop = importlib.import_module("pyvrp.stop").MaxIterations(iterations)
    best = model.solve(stop, seed=seed % 2**31, collect_stats=False, display=False).best
    visited = [activity.idx + 1 for route in best.routes() for activity in route.schedule() if activity.is_client()]
    tour = np.array([0, *visited, 0], np.int64)
    if not best.is_feasible():
        tour = np.array([0, 0], np.int64)
    return solvers.complete_op(instance, tour)


# ---- knapsack and geometry -------------------------------------------------------------------------------------------


def _own_knapsack(problem: Problem, instance: Instance, effort: float, seed: int) -> Solution:
    from rlkit.envs.combinatorial.knapsack import UNIT

    weight = instance["weight"] * UNIT
    whole = np.round(weight).astype(np.int64)
    if np.abs(weight - whole).max() > 1e-9 * UNIT:
        return solvers.knapsack_search(instance)
    capacity = int(np.floor(float(instance["capacity"]) * UNIT + 1e-9))
    return np.flatnonzero(solvers.knapsack_table(whole, instance["value"], min(capacity, int(whole.sum()))))


def _ortools(problem: Problem, instance: Instance, effort: float, seed: int) -> Solution:
    knapsack: Any = _load("ortools.algorithms.python.knapsack_solver", "ortools")
    scale = 10**7
    solver = knapsack.KnapsackSolver(knapsack.SolverType.KNAPSACK_MULTIDIMENSION_BRANCH_AND_BOUND_SOLVER, "labels")
    # weights up and the capacity down where they have more digits than these
    weight = np.ceil(instance["weight"] * scale - 1e-3).astype(np.int64)
    capacity = int(np.floor(float(instance["capacity"]) * scale + 1e-3))
    value = np.round(instance["value"] * scale).astype(np.int64)
    solver.init(value.tolist(), [weight.tolist()], [capacity])
    solver.solve()
    return np.flatnonzero([solver.best_solution_contains(j) for j in range(problem.num_nodes)])


def _own_geometry(problem: Problem, instance: Instance, effort: float, seed: int) -> Solution:
    return solvers.optimal_targets(problem, instance)


SOLVERS: dict[str, dict[str, Solver]] = {  # the first of each is the default
    "tsp": {"fast-tsp": _fast_tsp, "own": _own_tour},
    "atsp": {"fast-tsp": _fast_tsp, "own": _own_tour},
    "cvrp": {"hygese": _hygese, "own": _own_cvrp},
    "op": {"pyvrp": _pyvrp, "own": _own_op},
    "knapsack": {"own": _own_knapsack, "ortools": _ortools},
    "convex-hull": {"own": _own_geometry},
    "delaunay": {"own": _own_geometry},
}


def solver_name(problem: str, name: str | None) -> str:
    """``name``, or the default's.  Raises UserError for a solver that ``problem`` does not have."""
    known = SOLVERS[problem]
    if name is None:
        return next(iter(known))
    if name not in known:
        raise UserError(f"unknown solver '{name}' of {problem}{nearest(name, known)}")
    return name


def solver_version(name: str) -> str:
    """Version of the solver's package, rlkit's for its own; UserError where it is not installed."""
    if name != "own":
        _load({"fast-tsp": "fast_tsp"}.get(name, name), name)
    return __version__ if name == "own" else version(name)


def solve(
    problem: Problem, instance: Instance, solver: str | None = None, effort: float = 1.0, seed: int = 0
) -> Solution:
    """A solution of ``instance``, padded; ``effort`` scales the time or iterations of those that are not exact.

    Raises UserError for an unknown solver or one that is not installed, or an instance too large for an exact one.
    """
    run = SOLVERS[problem.name][solver_name(problem.name, solver)]
    return problem.padded(run(problem, instance, effort, seed))


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
