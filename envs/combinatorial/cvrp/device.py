"""Vehicle routing on tensors; actions of kind 0 go directly, of kind 1 by the depot."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.cvrp.rules import split_routes
from rlkit.envs.combinatorial.device import DeviceRules, Pieces, States, SubProblems, closed_walks, picked
from rlkit.errors import UserError


class Device(DeviceRules):
    """Tokens (x, y, q/C, Q/C)."""

    features, kinds, shown = 4, 2, 50

    @classmethod
    def columns(cls, arrays: Instance) -> list[NDArray[Any]]:
        if "capacity" not in arrays:  # observations have demands in parts of it already
            return [arrays["coords"], arrays["demand"]]
        return [arrays["coords"], arrays["demand"] / arrays["capacity"][:, None]]

    def scalar(self, states: States) -> Float[Tensor, " p"]:
        return states.budget / self.exact["capacity"][states.owner]

    def feasible(self, states: States) -> Bool[Tensor, "p r 2"]:
        direct = picked(self.exact["demand"], states.owner, states.remaining) <= states.budget[:, None]
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

    def layout(
        self, rows: NDArray[np.int64], solutions: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Customers route by route; of each place where its route begins, what it is the other way round, and the
        load before it."""
        demand = self.exact["demand"][torch.as_tensor(rows).to(self.device)].cpu().numpy()
        laid = [order_routes(one, solution) for one, solution in zip(demand, solutions, strict=True)]
        customers, via = (np.stack(parts) for parts in zip(*laid, strict=True))  # [B, n]
        count, n = customers.shape
        places, opens = np.arange(n), via.astype(np.bool_)
        opens[:, 0] = True
        begin = np.maximum.accumulate(np.where(opens, places, 0), axis=1)
        closes = np.concatenate((opens[:, 1:], np.ones((count, 1), np.bool_)), axis=1)
        last = np.minimum.accumulate(np.where(closes, places, n)[:, ::-1], axis=1)[:, ::-1]
        load = np.zeros((count, n + 1), np.int64)
        load[:, 1:] = np.take_along_axis(demand, customers, axis=1).cumsum(axis=1)
        route = opens.cumsum(axis=1) - 1
        found = {"customers": customers, "via": via, "route": route, "begin": begin, "mirror": begin + last}
        return route[:, -1] + 1, {**found, "load": load}

    def lots(self, rows: NDArray[np.int64], size: int, generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Which routes are driven the other way round."""
        n = self.nodes - 1
        if not 1 <= size <= n:
            raise UserError(f"size={size} of a sub-problem is out of range, expected 1 to {n} for {n} customers")
        return (generator.integers(2, size=(len(rows), int(self.counts.max())), dtype=np.bool_),)

    def cut(self, rows: Int[Tensor, " p"], size: int, *lots: Tensor) -> SubProblems:
        """Suffixes of solutions: the last ``size`` customers, with the load that is left there.

        Columns are in the order of service, so the first is the target, with its ``via`` bit as the kind.
        """
        (turned,), laid = lots, self.laid  # [P, routes]
        n = self.nodes - 1
        done, begun = n - size, n > size  # begun: there is somebody who was served last
        places = torch.arange(done - begun, n, device=self.device)  # [size + begun]
        route, mirror = (laid[name][rows, done - begun :] for name in ("route", "mirror"))
        swap = turned.gather(1, route)
        served = picked(laid["customers"], rows, torch.where(swap, mirror - places, places))
        assert self.limit is not None
        budget, origin = self.limit[rows], torch.zeros_like(rows)
        if begun:
            origin, served = served[:, 0], served[:, 1:]
            first, ends = (
                laid["begin"][rows, done - 1],
                laid["mirror"][rows, done - 1] + 1,
            )  # ends: first plus one past last
            ahead = laid["load"][rows, done] - laid["load"][rows, first]
            back = laid["load"][rows, ends - first] - laid["load"][rows, ends - done]
            budget = budget - torch.where(swap[:, 0], back, ahead)
        target = torch.zeros((len(rows), size, 2), device=self.device)
        target[:, 0, 1] = laid["via"][rows, done].float()
        target[:, 0, 0] = 1.0 - target[:, 0, 1]
        return SubProblems(self.states(rows, origin, served, budget.double()), target)

    # ---- solving again, part by part -------------------------------------------------------------------------------

    @classmethod
    def piece_sizes(cls, nodes: int) -> tuple[int, int] | None:
        return 2, nodes

    def pieces(self, solutions: NDArray[np.int64], size: int, generator: np.random.Generator) -> Pieces:
        """The last ``size`` customers of routes that are neighbours, in a random direction each.

        Routes go around the depot by their middles; from a random one on, as many as it takes are put together.  What
        is fixed is the beginning of the first of them.  Places are the actions that make these routes, one by one.
        """
        coords = self.exact["coords"].cpu().numpy()
        owners: list[int] = []
        groups: list[list[int]] = []
        for i, solution in enumerate(solutions):
            routes = split_routes(solution)
            middles = np.stack([coords[i][route].mean(axis=0) - coords[i][0] for route in routes])
            around = np.argsort(np.arctan2(middles[:, 1], middles[:, 0]), kind="stable")
            group: list[int] = []
            for k in np.roll(around, -int(generator.integers(len(routes)))):
                route = 2 * routes[k][:: generator.choice((-1, 1))]
                route[0] += len(group) > 0  # by the depot
                group += route.tolist()
                if len(group) >= size:
                    owners.append(i)
                    groups.append(group)
                    group = []
        places = np.full((len(groups), max(map(len, groups), default=size)), -1, np.int64)
        for p, group in enumerate(groups):
            places[p, len(places[p]) - len(group) :] = group  # what is decided on at the end
        return self._pieces(torch.as_tensor(np.array(owners, np.int64)).to(self.device), places, size)

    def _pieces(self, rows: Int[Tensor, " p"], places: NDArray[np.int64], size: int) -> Pieces:
        assert self.limit is not None
        actions = torch.as_tensor(places).to(self.device)
        node, via = actions.clamp_min(0) // 2, actions % 2 == 1  # -1 % 2 is 1: no load is carried on from there
        fixed = node.shape[1] - size
        budget = self.limit[rows]
        for column in range(fixed):
            budget = torch.where(via[:, column], self.limit[rows], budget)
            budget = budget - self.exact["demand"][rows, node[:, column]]
        origin = node[:, fixed - 1] if fixed else torch.zeros_like(rows)
        before, after, by = torch.cat((origin[:, None], node[:, fixed:-1]), dim=1), node[:, fixed:], via[:, fixed:]
        owner, depot = rows[:, None], torch.zeros_like(after)
        by_depot = self.way(owner, before, depot) + self.way(owner, depot, after)
        costs = torch.where(by, by_depot, self.way(owner, before, after)).sum(dim=1)
        costs = costs + self.way(rows, after[:, -1], depot[:, 0])
        return Pieces(self.states(rows, origin, after.sort(dim=1).values, budget.double()), costs, places)

    def rejoined(
        self, solutions: NDArray[np.int64], pieces: Pieces, better: NDArray[np.bool_], actions: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        found, owner = solutions.copy(), pieces.states.owner.cpu().numpy()
        for p in np.flatnonzero(better):
            group = pieces.places[p][pieces.places[p] >= 0]
            others = [route for route in split_routes(found[owner[p]]) if not np.isin(route[0], group // 2)]
            made = np.concatenate((group[: len(group) - actions.shape[1]], actions[p]))
            walk = [part for a in made.tolist() for part in ((0, a // 2) if a % 2 else (a // 2,))]
            walk = [0, *walk, *(part for route in others for part in (0, *route.tolist())), 0]
            found[owner[p]] = -1
            found[owner[p], : len(walk)] = walk
        return found


def order_routes(demand: NDArray[np.int64], solution: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``(customers [n], via [n])`` of a CVRP solution: fullest routes first; ``via`` is 1 where the customer is reached
    by the depot (0 at the very first, which begins there).

    The least full route comes last: a policy then learns to leave slack for the end (about half the gap, BQ-NCO).
    """
    routes = split_routes(solution)
    loads = [int(demand[route].sum()) for route in routes]
    order = sorted(range(len(routes)), key=lambda k: (-loads[k], int(routes[k].min())))  # the direction decides no tie
    customers = np.concatenate([routes[k] for k in order])
    via = np.concatenate([np.arange(len(routes[k])) == 0 for k in order]).astype(np.int64)
    via[0] = 0
    return customers, via
