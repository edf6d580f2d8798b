"""The BQ-MDP (Drakulic et al. 2023): a partial solution is nothing but the smaller problem it leaves.

All prefixes of a solution that leave the same tail problem are one state, the quotient of the usual construction MDP by
bisimulation.  A state names what is left and nothing of how it came about:

========  ==========================================  ======================================================
problem   state                                       action, when feasible, and what it pays
========  ==========================================  ======================================================
TSP,      origin o, destination d, the rest R         j in R: -c(o, j), for the last one also -c(j, d)
ATSP
CVRP      o, depot d, R, load left Q (capacity C)     (j, b) as 2 j + b: b = 0 direct, if q_j <= Q: -c(o, j);
                                                      b = 1 by the depot: -c(o, d) - c(d, j); last: -c(j, d)
OP        o, depot d, R, budget B                     j, if c(o, j) + c(j, d) <= B + 1e-6: the prize
Knapsack  the items R, capacity W                     j, if w_j <= W + 1e-9: its value
========  ==========================================  ======================================================

An episode ends where nothing is feasible; there is no stop action.  The rules stand in the problems
(``rlkit.envs.combinatorial.tsp``, ``.cvrp``, ``.orienteering``, ``.knapsack``) as plain Python, which is also the
oracle of their kernels; here are the state, its tokens, the exact solution by dynamic programming, and the sub-problems
of optimal solutions that imitation learns from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rlkit.errors import UserError

Instance = Mapping[str, NDArray[Any]]


class State(NamedTuple):
    """A reduced state; ``remaining`` is sorted, so that equal tails are equal states.

    ``budget`` is the load left (a whole number), the length left or the capacity left; 0 where there is none.
    """

    remaining: tuple[int, ...]
    origin: int = 0
    destination: int = 0
    budget: float = 0.0


class Reduced(NamedTuple):
    """A state as the tokens of a network.

    tokens: float64 ``[K, F]``, the origin, the destination (neither for the knapsack) and what remains, in the order of
    the indices; nodes: int64 ``[K]``, the original index of each; cost: float64 ``[K, K]`` for ATSP, else None.
    """

    tokens: NDArray[np.float64]
    nodes: NDArray[np.int64]
    cost: NDArray[np.float64] | None = None


@runtime_checkable
class Rules(Protocol):
    """What :func:`optimal_values` needs of a problem."""

    def initial(self, instance: Instance) -> State: ...

    def feasible(self, instance: Instance, state: State) -> NDArray[np.int8]: ...

    def step(self, instance: Instance, state: State, action: int) -> tuple[State, float, tuple[int, ...]]: ...


# ---- tokens ----------------------------------------------------------------------------------------------------------


def reduce(name: str, instance: Instance, state: State) -> Reduced:
    """The tokens of ``state``: (x, y) for tsp, (x, y, q/C, Q/C) for cvrp, (x, y, p, B) for op, (w, v, W) for knapsack;
    atsp has none of its own (F = 0) and the cost matrix between tokens instead.

    What the state does not know is not shown: the origin's and the destination's own demand and prize are 0.  Raises
    UserError for another problem.
    """
    rest = np.array(state.remaining, np.int64)
    if name == "knapsack":
        scalar = np.full(len(rest), state.budget)
        return Reduced(np.stack([instance["weight"][rest], instance["value"][rest], scalar], axis=1), rest)
    nodes = np.concatenate((np.array([state.origin, state.destination], np.int64), rest))  # [K]
    if name == "atsp":
        return Reduced(np.zeros((len(nodes), 0)), nodes, instance["cost"][np.ix_(nodes, nodes)])
    if name not in ("tsp", "cvrp", "op"):
        raise UserError(f"problem '{name}' has no BQ-MDP, expected tsp, atsp, cvrp, op or knapsack")
    tokens = instance["coords"][nodes]  # [K, 2]
    if name != "tsp":
        capacity = float(instance["capacity"]) if name == "cvrp" else 1.0
        own = instance["demand" if name == "cvrp" else "prize"][nodes] / capacity
        own[:2] = 0.0
        tokens = np.column_stack((tokens, own, np.full(len(nodes), state.budget / capacity)))  # [K, 4]
    return Reduced(tokens, nodes)


# ---- exact solution --------------------------------------------------------------------------------------------------


def optimal_values(rules: Rules, instance: Instance) -> tuple[dict[State, float], dict[State, tuple[int, ...]]]:
    """Optimal value and set of optimal actions (within 1e-9) of every reachable state, by dynamic programming.

    The number of states grows exponentially: for instances of up to ten nodes or so.
    """
    values: dict[State, float] = {}
    actions: dict[State, tuple[int, ...]] = {}

    def visit(state: State) -> float:
        if state not in values:
            found = {}
            for action in np.flatnonzero(rules.feasible(instance, state)):
                following, reward, _ = rules.step(instance, state, int(action))
                found[int(action)] = reward + visit(following)
            values[state] = max(found.values(), default=0.0)
            actions[state] = tuple(a for a, value in found.items() if value >= values[state] - 1e-9)
        return values[state]

    visit(rules.initial(instance))
    return values, actions


# ---- sub-problems of solutions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SubProblems:
    """A batch of states on the way of good solutions, and what is done there.

    nodes: int64 ``[B, K]``, original indices: origin, what remains, destination (knapsack: what remains); budget:
    float64 ``[B]``, zeros where there is none; target: float64 ``[B, K, A]``, a distribution over tokens and A kinds of
    action (2 for cvrp: direct, by the depot; else 1); backward: int64 ``[B]`` or None, the token visited just before
    the destination, a second label where costs are symmetric.
    """

    nodes: NDArray[np.int64]
    budget: NDArray[np.float64]
    target: NDArray[np.float64]
    backward: NDArray[np.int64] | None = None


def _one_hot(tokens: NDArray[np.int64], width: int, kinds: int = 1) -> NDArray[np.float64]:
    target = np.zeros((len(tokens), width * kinds))
    target[np.arange(len(tokens)), tokens] = 1.0
    return target.reshape(len(tokens), width, kinds)  # [B, K, A]


def sub_tours(
    tours: NDArray[np.int64], size: int, generator: np.random.Generator, *, symmetric: bool = True
) -> SubProblems:
    """Paths of ``size`` nodes out of ``tours [B, n]``, beginning anywhere and, if ``symmetric``, in either direction.

    Every path in an optimal tour is an optimal path between its ends.  ``size`` = n + 1 is the whole closed tour, whose
    origin is also its destination.  Tokens are in the path's order, so the target is always token 1.  Raises UserError
    for a size outside 3..n + 1.
    """
    count, n = tours.shape
    if not 3 <= size <= n + 1:
        raise UserError(f"size={size} of a sub-path is out of range, expected 3 to {n + 1} for tours of {n} nodes")
    starts = generator.integers(n, size=(count, 1))
    directions = generator.choice((-1, 1), (count, 1)) if symmetric else np.ones((count, 1), np.int64)
    nodes = np.take_along_axis(tours, (starts + directions * np.arange(size)) % n, axis=1)  # [B, K]
    backward = np.full(count, size - 2, np.int64) if symmetric else None
    return SubProblems(nodes, np.zeros(count), _one_hot(np.ones(count, np.int64), size), backward)


def split_routes(solution: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The customers of each route of ``solution``, such as ``0 3 1 0 2 0 -1 -1``."""
    solution = solution[solution >= 0]
    depots = np.flatnonzero(solution == 0)
    return [solution[a + 1 : b] for a, b in pairwise(depots) if b > a + 1]


def order_routes(
    demand: NDArray[np.int64], solution: NDArray[np.int64], generator: np.random.Generator | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``(customers [n], via [n])`` of a CVRP solution: fullest routes first, in a random direction each if a generator
    is given; ``via`` is 1 where the customer is reached by the depot (0 at the very first, which begins there).

    The least full route comes last: a policy then learns to leave slack for the end (about half the gap, BQ-NCO).
    """
    routes = split_routes(solution)
    loads = [int(demand[route].sum()) for route in routes]
    order = sorted(range(len(routes)), key=lambda k: (-loads[k], int(routes[k].min())))  # the direction decides no tie
    flips = generator.random(len(routes)) < 0.5 if generator is not None else np.zeros(len(routes), np.bool_)
    customers = np.concatenate([routes[k][::-1] if flips[k] else routes[k] for k in order])
    via = np.concatenate([np.arange(len(routes[k])) == 0 for k in order]).astype(np.int64)
    via[0] = 0
    return customers, via


def sub_routes(
    instances: Instance, solutions: NDArray[np.int64], size: int, generator: np.random.Generator
) -> SubProblems:
    """Suffixes of CVRP ``solutions [B, L]``: the last ``size`` customers (1..n), with the load that is left there.

    Tokens are origin, customers in the order of service, depot; the target is token 1 and its ``via`` bit.  Raises
    UserError for a size out of range.
    """
    demand, capacity = instances["demand"], instances["capacity"]  # [B, N], [B]
    count, n = len(solutions), demand.shape[1] - 1
    if not 1 <= size <= n:
        raise UserError(f"size={size} of a sub-problem is out of range, expected 1 to {n} for {n} customers")
    nodes, budget, bits = np.zeros((count, size + 2), np.int64), np.zeros(count), np.zeros(count, np.int64)
    for i, solution in enumerate(solutions):
        customers, via = order_routes(demand[i], solution, generator)
        done = n - size
        begins = np.flatnonzero(via[:done])  # where the route under way began
        begin = begins[-1] if len(begins) else 0
        nodes[i, 0] = customers[done - 1] if done else 0
        nodes[i, 1:-1] = customers[done:]
        budget[i] = capacity[i] - demand[i, customers[begin:done]].sum()
        bits[i] = via[done]
    return SubProblems(nodes, budget, _one_hot(2 + bits, size + 2, 2))  # token 1, so 2 * 1 + via


def sub_orienteering(
    instances: Instance, solutions: NDArray[np.int64], visited: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], SubProblems]:
    """States after ``visited`` nodes of OP ``solutions [B, L]`` (0 .. 0, padded with -1), in either direction.

    Everything not visited remains, as a distractor or as part of the optimal tail; the budget is what the way so far
    has left.  Solutions with no more than ``visited`` nodes have no such state: returns the rows that have one, int64
    ``[R]``, and their sub-problems.  Raises UserError where none has.
    """
    lengths = (solutions > 0).sum(axis=1)
    rows = np.flatnonzero(lengths > visited)
    if visited < 0 or not len(rows):
        most = lengths.max(initial=0)
        raise UserError(f"visited={visited} is out of range, expected 0 to {most - 1}: no solution is longer")
    coords, total = instances["coords"], instances["coords"].shape[1] - 1
    nodes, budget = np.zeros((len(rows), total - visited + 2), np.int64), np.zeros(len(rows))
    for i, row in enumerate(rows):
        tour = solutions[row][solutions[row] > 0]
        if generator.random() < 0.5:
            tour = tour[::-1]
        way = np.concatenate(([0], tour[:visited]))
        rest = np.setdiff1d(np.arange(1, total + 1), tour[: visited + 1])
        nodes[i] = np.concatenate(([way[-1], tour[visited]], rest, [0]))
        steps = coords[row][way[1:]] - coords[row][way[:-1]]
        budget[i] = instances["budget"][row] - np.sqrt((steps**2).sum(axis=1)).sum()
    return rows, SubProblems(nodes, budget, _one_hot(np.ones(len(rows), np.int64), nodes.shape[1]))


def sub_knapsacks(
    instances: Instance, solutions: NDArray[np.int64], taken: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], SubProblems]:
    """States after ``taken`` random items of knapsack ``solutions [B, L]`` (items, padded with -1).

    The order of an optimal set is of no matter: the target is uniform over its remaining items.  Solutions with no more
    than ``taken`` items have no such state: returns the rows that have one, int64 ``[R]``, and their sub-problems.
    Raises UserError where none has.
    """
    lengths = (solutions >= 0).sum(axis=1)
    rows = np.flatnonzero(lengths > taken)
    if taken < 0 or not len(rows):
        raise UserError(
            f"taken={taken} is out of range, expected 0 to {lengths.max(initial=0) - 1}: no solution has more"
        )
    weight, n = instances["weight"], instances["weight"].shape[1]
    nodes, budget = np.zeros((len(rows), n - taken), np.int64), np.zeros(len(rows))
    target = np.zeros((len(rows), n - taken, 1))
    for i, row in enumerate(rows):
        items = generator.permutation(solutions[row][solutions[row] >= 0])
        nodes[i] = np.setdiff1d(np.arange(n), items[:taken])
        budget[i] = instances["capacity"][row] - weight[row, items[:taken]].sum()
        target[i, :, 0] = np.isin(nodes[i], items[taken:]) / (len(items) - taken)
    return rows, SubProblems(nodes, budget, target)
