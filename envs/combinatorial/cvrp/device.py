"""Vehicle routing on tensors; actions of kind 0 go directly, of kind 1 by the depot."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.bisimulation import Instance, SubProblems, one_hot
from rlkit.envs.combinatorial.cvrp.rules import split_routes
from rlkit.envs.combinatorial.device import DeviceRules, States, closed_walks
from rlkit.errors import UserError


class Device(DeviceRules):
    """Tokens (x, y, q/C, Q/C)."""

    features, kinds = 4, 2

    @classmethod
    def columns(cls, arrays: Instance) -> list[NDArray[Any]]:
        if "capacity" not in arrays:  # observations have demands in parts of it already
            return [arrays["coords"], arrays["demand"]]
        return [arrays["coords"], arrays["demand"] / arrays["capacity"][:, None]]

    def scalar(self, states: States) -> Float[Tensor, " p"]:
        return states.budget / self.exact["capacity"][states.owner]

    def feasible(self, states: States) -> Bool[Tensor, "p r 2"]:
        direct = self.exact["demand"][states.owner[:, None], states.remaining] <= states.budget[:, None]
        return torch.stack((direct, (states.origin != 0)[:, None].expand_as(direct)), dim=-1)

    def outcome(self, states: States, rows: Tensor, node: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        assert self.limit is not None
        owner, origin, depot, via = states.owner[rows], states.origin[rows], states.destination[rows], kind == 1
        by_depot = self.way(owner, origin, depot) + self.way(owner, depot, node)
        cost = torch.where(via, by_depot, self.way(owner, origin, node))
        load = torch.where(via, self.limit[owner].double(), states.budget[rows]) - self.exact["demand"][owner, node]
        if states.remaining.shape[1] == 1:
            cost = cost + self.way(owner, node, depot)
        return states.total[rows] - cost, load

    def key(self, names: Tensor, node: Tensor, budget: Tensor) -> Tensor:
        """The load left is a whole number, which tells states apart as well; the depot's name is nobody else's."""
        return names[node] + budget.long() * names[0]

    @classmethod
    def solutions(cls, starts: NDArray[np.int64], actions: NDArray[np.int64]) -> NDArray[np.int64]:
        visits = np.stack((np.where(actions % 2 == 1, 0, -1), actions // 2), axis=2).reshape(
            len(actions), -1
        )  # [B, 2 T]
        return closed_walks(visits[:, 1:])  # nothing comes by the depot before the first

    @classmethod
    def sizes(cls, nodes: int, least: int) -> tuple[int, int]:
        return least - 2, nodes

    @classmethod
    def sub_problems(
        cls, instances: Instance, solutions: NDArray[np.int64], size: int, generator: np.random.Generator
    ) -> SubProblems:
        """Suffixes of ``solutions [B, L]``: the last ``size`` customers (1..n), with the load that is left there.

        Tokens are origin, customers in the order of service, depot; the target is token 1 and its ``via`` bit.
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
        return SubProblems(nodes, budget, one_hot(2 + bits, size + 2, 2))  # token 1, so 2 * 1 + via


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
