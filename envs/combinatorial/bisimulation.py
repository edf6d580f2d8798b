"""The BQ-MDP (Drakulic et al. 2023): a partial solution is nothing but the smaller problem it leaves.

All prefixes of a solution that leave the same tail problem are one state, the quotient of the usual construction MDP by
bisimulation.  A state names what is left and nothing of how it came about:

========  ==========================================  ======================================================
problem   state                                       action, when feasible, and what it pays
========  ==========================================  ======================================================
TSP,      origin o, destination d, remaining R        j in R: -c(o, j), for the last one also -c(j, d)
ATSP
CVRP      o, depot d, R, load left Q (capacity C)     (j, b) as 2 j + b: b = 0 direct, if q_j <= Q: -c(o, j);
                                                      b = 1 by the depot: -c(o, d) - c(d, j); last: -c(j, d)
OP        o, depot d, R, budget B                     j, if c(o, j) + c(j, d) <= B + 1e-6: the prize
Knapsack  the items R, capacity W                     j, if w_j <= W + 1e-9: its value
========  ==========================================  ======================================================

An episode ends where nothing is feasible; there is no stop action.  The rules and the tokens stand in each problem's
``rules.py`` as plain Python, which is also the oracle of its kernel and of its ``device.py``; here are the state and
the exact solution by dynamic programming.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Instance = Mapping[str, NDArray[Any]]


class State(NamedTuple):
    """A reduced state; ``remaining`` is sorted, so that equal tails are equal states.

    ``budget`` is the load left (a whole number), the length left or the capacity left; 0 where there is none.
    """

    remaining: tuple[int, ...]
    origin: int = 0
    destination: int = 0
    budget: float = 0.0

    def nodes(self) -> NDArray[np.int64]:
        """The nodes of the tokens, ``[K]``: the origin, the destination and what remains."""
        return np.array((self.origin, self.destination, *self.remaining), np.int64)


class Reduced(NamedTuple):
    """A state as the tokens of a network.

    tokens: float64 ``[K, F]``, the origin, the destination (neither for the knapsack) and what remains, in the order of
    the indices; nodes: int64 ``[K]``, the original index of each; cost: float64 ``[K, K]`` for ATSP, else None.
    """

    tokens: NDArray[np.float64]
    nodes: NDArray[np.int64]
    cost: NDArray[np.float64] | None = None


@runtime_checkable
class PlainRules(Protocol):
    """What :func:`optimal_values` needs of a problem."""

    def initial(self, instance: Instance) -> State: ...

    def feasible(self, instance: Instance, state: State) -> NDArray[np.int8]: ...

    def step(self, instance: Instance, state: State, action: int) -> tuple[State, float, tuple[int, ...]]: ...


# ---- exact solution --------------------------------------------------------------------------------------------------


def optimal_values(rules: PlainRules, instance: Instance) -> tuple[dict[State, float], dict[State, tuple[int, ...]]]:
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
