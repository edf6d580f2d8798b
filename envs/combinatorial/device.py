"""Problems on tensors: the rules that agents search and learn by, the same as each problem's plain ones.

:class:`DeviceRules` is a problem's BQ-MDP over :class:`States`: what is feasible, what a step pays, the tokens a
network sees.  Lengths, loads and returns are float64 and equal the environments' but for the last digit of a square
root; tokens are the float32 of their observations.  All states of a batch have taken equally many actions, so no row is
ever padded.

:class:`PointerRules` says what a pointer network may point at, and what its answers are worth.

Each problem's ``device.py`` has its own as ``Device`` and ``Pointers``; whatever asks for rules asks once a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.instances import Solutions
from rlkit.errors import UserError

SYMMETRIES = 8  # of the square
LARGE = 1e9  # further than any node: infeasible ones are the last to be near


def turned(places: Float[Tensor, "batch k 2"], copy: Int[Tensor, " batch"]) -> Float[Tensor, "batch k 2"]:
    """Points of the unit square in symmetry 0..7 of it: bit 0 mirrors x, bit 1 mirrors y, bit 2 swaps them."""
    mirrored = ((copy >> torch.arange(2, device=copy.device)[:, None]) & 1).to(places.dtype)[..., None]  # [2, batch, 1]
    x, y = (torch.addcmul(m, side, 1.0 - 2.0 * m) for m, side in zip(mirrored, places.unbind(-1), strict=True))
    swap = (copy & 4 != 0)[:, None]
    return torch.stack((torch.where(swap, y, x), torch.where(swap, x, y)), dim=-1)


def picked(table: Tensor, rows: Int[Tensor, " p"], columns: Int[Tensor, "p k"]) -> Tensor:
    """``table[rows[:, None], columns]`` of a ``table`` [B, N, ...]: [P, K, ...], by the fastest way there is."""
    flat = (rows[:, None] * table.shape[1] + columns).flatten()
    return table.flatten(0, 1).index_select(0, flat).view(*columns.shape, *table.shape[2:])


def near_origin(coords: NDArray[np.float64]) -> NDArray[np.float64]:
    """``coords [B, N, 2]``, those of instances that leave the unit square moved to where float32 has most digits."""
    low, high = coords.min(axis=1, keepdims=True), coords.max(axis=1, keepdims=True)
    outside = ((low < 0) | (high > 1)).any(axis=2, keepdims=True)
    return np.where(outside, coords - low, coords)


@dataclass(frozen=True)
class States:
    """P states after equally many actions.

    owner int64 [P]: row of the instance; copy int64 [P]: the symmetry of the square it is seen in; remaining int64
    [P, R]: what remains, increasing; origin, destination int64 [P]; budget float64 [P]: load, length or capacity left;
    total float64 [P]: return so far; log_probability float64 [P]; actions int64 [P, T]; group int64 [P]: the search it
    is of.
    """

    owner: Tensor
    copy: Tensor
    remaining: Tensor
    origin: Tensor
    destination: Tensor
    budget: Tensor
    total: Tensor
    log_probability: Tensor
    actions: Tensor
    group: Tensor

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, rows: Tensor) -> States:
        return States(**{name: value[rows] for name, value in vars(self).items()})

    def seen_as(self, copy: Tensor) -> States:
        """The same in symmetries ``copy`` [P], each a search of its own."""
        return replace(self, copy=copy, group=torch.arange(len(copy), device=copy.device))


# ---- the BQ-MDP ------------------------------------------------------------------------------------------------------


class DeviceRules(ABC):
    """``instances``, arrays with one axis in front, as tensors on ``device``, and the rules over their states.

    features: numbers per token; kinds: of action per token; ends: whether the origin and the destination are tokens;
    costs: whether tokens have costs between each other in place of features; places: whether their first two numbers
    are coordinates; reversible: whether paths are optimal in both directions; copies: most searches of one instance
    that differ, None: any number; shown: of instances larger than those learnt from, how many of the nearest nodes a
    network had best be shown, None: all.
    """

    features: ClassVar[int]
    kinds: ClassVar[int] = 1
    ends: ClassVar[bool] = True
    costs: ClassVar[bool] = False
    places: ClassVar[bool] = True
    shown: ClassVar[int | None] = None
    reversible: ClassVar[bool] = False
    copies: ClassVar[int | None] = SYMMETRIES

    def __init__(self, instances: Instance, device: torch.device | str):
        self.device = torch.device(device)
        self.exact = {key: torch.as_tensor(np.asarray(value), device=device) for key, value in instances.items()}
        self.limit = self.exact.get("budget", self.exact.get("capacity"))  # int64 or float64 [B]
        seen = {key: np.asarray(value) for key, value in instances.items()}
        if "coords" in seen:
            seen["coords"] = near_origin(seen["coords"])
        self.static, self.matrix = self.observed(seen, device)
        self.nodes = self.static.shape[1]

    # ---- what a network sees ---------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def columns(cls, arrays: Instance) -> list[NDArray[Any]]:
        """Of instances or of their observations, what is shown of every node: ``[B, N]`` or ``[B, N, 2]`` each."""

    @classmethod
    def observed(cls, arrays: Instance, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
        """What the environments show of instances: float32 [B, N, S], and costs [B, N, N] where there are."""
        columns = [column if column.ndim == 3 else column[..., None] for column in cls.columns(arrays)]
        static = np.concatenate([column.astype(np.float32) for column in columns], axis=-1)
        return torch.as_tensor(static, device=device), None

    @classmethod
    def build_tokens(
        cls,
        static: Float[Tensor, "count n s"],
        matrix: Float[Tensor, "count n n"] | None,
        states: States,
        scalar: Float[Tensor, " batch"],
    ) -> tuple[Float[Tensor, "batch k f"], Float[Tensor, "batch k k"] | None]:
        """The problem's ``reduced`` as float32 tensors; here (x, y), what a node has, and ``scalar``.

        What the two ends have of their own is past, 0.
        """
        tokens = picked(static, states.owner, cls.token_nodes(states))  # [batch, k, s]
        tokens[:, :2, 2:] = 0.0
        left = scalar[:, None, None].expand(-1, tokens.shape[1], 1)
        return torch.cat((turned(tokens[..., :2], states.copy), tokens[..., 2:], left), dim=-1), None

    @staticmethod
    def token_nodes(states: States) -> Int[Tensor, "batch k"]:
        """The nodes of the tokens: the ends, and what remains."""
        return torch.cat((states.origin[:, None], states.destination[:, None], states.remaining), dim=1)

    def scalar(self, states: States) -> Float[Tensor, " p"]:
        """What is left of the budget, as tokens show it."""
        return states.budget

    def tokens(self, states: States) -> tuple[Tensor, Tensor | None]:
        """See :meth:`build_tokens`."""
        return self.build_tokens(self.static, self.matrix, states, self.scalar(states).float())

    @classmethod
    def to_unit_box(
        cls, tokens: Float[Tensor, "batch k f"], cost: Float[Tensor, "batch k k"] | None
    ) -> tuple[Float[Tensor, "batch k f"], Float[Tensor, "batch k k"] | None]:
        """The same sub-problem in a unit square: moved and scaled alike in x and y, and lengths with them."""
        places = tokens[..., :2]  # [batch, k, 2]
        low = places.amin(dim=1, keepdim=True)
        extent = (places.amax(dim=1, keepdim=True) - low).amax(dim=-1, keepdim=True).clamp_min(1e-12)  # [batch, 1, 1]
        return torch.cat(((places - low) / extent, *cls.scaled(tokens[..., 2:], extent)), dim=-1), cost

    @classmethod
    def scaled(cls, own: Tensor, extent: Tensor) -> tuple[Tensor, ...]:
        """The numbers behind the places, in a square whose side was ``extent``."""
        return (own,)

    # ---- rules -----------------------------------------------------------------------------------------------------

    def initial(self, owner: Int[Tensor, " p"], copy: Int[Tensor, " p"], start: Int[Tensor, " p"]) -> States:
        """First states of instances ``owner``; ``start``: where a search begins, see :meth:`starts`."""
        everything = torch.arange(self.nodes, device=self.device).expand(len(owner), -1)  # [P, N]
        if self.ends:
            everything = everything[everything != start[:, None]].view(len(owner), -1)  # [P, N - 1]
        zeros = torch.zeros(len(owner), dtype=torch.float64, device=self.device)
        budget = zeros if self.limit is None else self.limit[owner].double()
        actions = owner.new_zeros((len(owner), 0))
        group = torch.arange(len(owner), device=self.device)
        return States(owner, copy, everything, start, start, budget, zeros, zeros, actions, group)

    def way(self, owner: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Length float64 of going from ``i`` to ``j``; broadcasts."""
        step = self.exact["coords"][owner, i] - self.exact["coords"][owner, j]
        return (step[..., 0] * step[..., 0] + step[..., 1] * step[..., 1]).sqrt()

    @abstractmethod
    def feasible(self, states: States) -> Bool[Tensor, "p r kinds"]:
        """Where each of the actions is feasible; nowhere where the episode has ended."""

    @abstractmethod
    def outcome(self, states: States, rows: Tensor, node: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """Total and budget float64 [M] after states ``rows`` [M] go to ``node`` [M] by action ``kind`` [M]."""

    def step(self, states: States, column: Int[Tensor, " p"], kind: Int[Tensor, " p"]) -> States:
        """Every state goes to its ``column`` of what remains, by action ``kind``."""
        count = len(states)
        node = states.remaining.gather(1, column[:, None])[:, 0]  # [P]
        total, budget = self.outcome(states, torch.arange(count, device=self.device), node, kind)
        action = node if self.kinds == 1 else self.kinds * node + kind
        remaining = states.remaining[states.remaining != node[:, None]].view(count, -1)  # [P, R - 1]
        actions = torch.cat((states.actions, action[:, None]), dim=1)
        return replace(states, remaining=remaining, origin=node, budget=budget, total=total, actions=actions)

    # ---- searching -------------------------------------------------------------------------------------------------

    def nearness(self, states: States) -> Float[Tensor, "p r"]:
        """The lower, the nearer is what remains; finite."""
        return self.way(states.owner[:, None], states.origin[:, None], states.remaining)

    def near(self, states: States, allowed: Bool[Tensor, "p r kinds"], k: int) -> Int[Tensor, "p k"]:
        """Columns of the ``k`` nearest, feasible ones before all others, in increasing order."""
        last = (~allowed.any(dim=-1)) * LARGE  # [P, R]
        key = self.nearness(states) + last
        return key.topk(k, dim=1, largest=False).indices.sort(dim=1).values

    def key(self, names: Int[Tensor, " n"], node: Tensor, budget: Tensor) -> Tensor | int:
        """What tells states [M] apart that have the same left, as a 64-bit sum of random ``names`` of the nodes."""
        return names[node]

    def worth(self, total: Tensor, budget: Tensor) -> Tensor:
        """By what the better of equal states is known, [M]."""
        return total

    @classmethod
    def starts(cls, count: int, nodes: int, copies: int, seed: int) -> NDArray[np.int64]:
        """Where each copy of each instance begins, [count, copies]: at 0."""
        return np.zeros((count, copies), np.int64)

    @classmethod
    @abstractmethod
    def solutions(cls, starts: NDArray[np.int64], actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Solutions [B, L], padded with -1, of ``actions`` [B, T] from ``starts`` [B]."""

    # ---- imitating -------------------------------------------------------------------------------------------------

    @classmethod
    def steps(cls, solutions: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """How many states ``solutions`` [B, L] pass, [B]; None where every size of sub-problem can be cut from any."""
        return None

    @classmethod
    def sizes(cls, nodes: int, least: int) -> tuple[int, int]:
        """Least and most of what :meth:`cut` may be asked for, where :meth:`steps` is None."""
        return least, nodes + 1

    def follow(self, solutions: NDArray[np.int64], rows: NDArray[np.int64] | None = None) -> None:
        """Lay ``solutions`` [B, L], one of each instance, out in :attr:`laid` so that :meth:`cut` is nothing but
        indexing; with ``rows`` [B] the new ones of these instances, all of which are followed already."""
        every = np.arange(len(solutions)) if rows is None else rows
        count, arrays = self.layout(every, solutions)
        made = {key: torch.as_tensor(np.ascontiguousarray(part)).to(self.device) for key, part in arrays.items()}
        if rows is None:
            self.laid, self.counts = made, count
            return
        self.counts[rows] = count
        where = torch.as_tensor(rows).to(self.device)
        for key, part in made.items():
            self.laid[key][where] = part

    @abstractmethod
    def layout(
        self, rows: NDArray[np.int64], solutions: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """How many steps, or routes, ``solutions`` [P, L] of instances ``rows`` [P] have, int64 [P], and arrays by name
        with a row for each that :meth:`cut` looks up."""

    laid: dict[str, Tensor]
    counts: NDArray[np.int64]

    @abstractmethod
    def lots(self, rows: NDArray[np.int64], size: int, generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """All that is random of sub-problems of instances ``rows`` [P], in arrays with so many rows.

        Raises UserError for a size that does not occur.
        """

    @abstractmethod
    def cut(self, rows: Int[Tensor, " p"], size: int, *lots: Tensor) -> SubProblems:
        """States on the way of the solutions followed, those of instances ``rows``, and what is done there, all of one
        size: one of :meth:`sizes`, or after ``size`` of the :meth:`steps`, which these solutions all have."""

    # ---- solving again, part by part -------------------------------------------------------------------------------

    @classmethod
    def piece_sizes(cls, nodes: int) -> tuple[int, int] | None:
        """Least and most nodes to decide on in a part of a solution; None where there are no such parts."""
        return None

    def pieces(self, solutions: NDArray[np.int64], size: int, generator: np.random.Generator) -> Pieces:
        """As many disjoint parts as there are with ``size`` nodes to decide on, of ``solutions`` [B, L], one of each
        instance; where they lie is random."""
        raise NotImplementedError

    def rejoined(
        self, solutions: NDArray[np.int64], pieces: Pieces, better: NDArray[np.bool_], actions: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """``solutions`` with the parts that are ``better`` [P] done by ``actions`` [P, T] instead."""
        raise NotImplementedError

    def states(self, rows: Tensor, origin: Tensor, remaining: Tensor, budget: Tensor | None = None) -> States:
        """States of instances ``rows`` as they are: nothing of how they came about, symmetry 0, back to node 0."""
        zeros, none = torch.zeros_like(rows), torch.zeros(len(rows), dtype=torch.float64, device=self.device)
        budget = none if budget is None else budget
        return States(rows, zeros, remaining, origin, zeros, budget, none, none, rows[:, None][:, :0], rows)


@dataclass(frozen=True)
class SubProblems:
    """A batch of states on the way of good solutions, and what is done there.

    states: of one size; target: float32 ``[P, R, kinds]``, or one row for all, a distribution over the actions; before:
    int64 ``[P]`` or None, the column of what remains that is visited just before the destination, a second label where
    costs are symmetric.  Columns are in no order that means anything but to these two.
    """

    states: States
    target: Tensor
    before: Tensor | None = None


@dataclass(frozen=True)
class Pieces:
    """P parts of solutions that can be solved anew by themselves, whatever the others become.

    states: of one size; costs: float64 ``[P]``, of each part as it is, what a better one is below; places: int64 ``[P,
    ...]``, where it lies, for :meth:`DeviceRules.rejoined`.
    """

    states: States
    costs: Tensor
    places: NDArray[np.int64]


def closed_walks(visits: NDArray[np.int64]) -> NDArray[np.int64]:
    """``visits`` [B, T] with node 0 before and behind, and all of -1 at the end."""
    edge = np.zeros((len(visits), 1), np.int64)
    visits = np.concatenate((edge, visits, edge), axis=1)
    return np.take_along_axis(visits, np.argsort(visits < 0, axis=1, kind="stable"), axis=1)


class TourRules(DeviceRules):
    """Every node once and back to the first: nothing is ever infeasible, and a search may begin anywhere."""

    copies = None

    def feasible(self, states: States) -> Bool[Tensor, "p r kinds"]:
        return torch.ones_like(states.remaining, dtype=torch.bool)[..., None]

    def outcome(self, states: States, rows: Tensor, node: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        owner = states.owner[rows]
        cost = self.way(owner, states.origin[rows], node)
        if states.remaining.shape[1] == 1:
            cost = cost + self.way(owner, node, states.destination[rows])
        return states.total[rows] - cost, states.budget[rows]

    @classmethod
    def starts(cls, count: int, nodes: int, copies: int, seed: int) -> NDArray[np.int64]:
        """The first copy begins at 0, others anywhere."""
        starts = np.zeros((count, copies), np.int64)
        generator = np.random.Generator(np.random.PCG64(seed))
        starts[:, 1:] = generator.integers(nodes, size=(count, copies - 1))
        return starts

    @classmethod
    def solutions(cls, starts: NDArray[np.int64], actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tours from node 0."""
        tours = np.concatenate((starts[:, None], actions), axis=1)
        begins = np.argmax(tours == 0, axis=1)[:, None]
        return np.take_along_axis(tours, (begins + np.arange(tours.shape[1])) % tours.shape[1], axis=1)

    def layout(
        self, rows: NDArray[np.int64], solutions: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Twice around, so that no path has to begin again at 0."""
        around = np.concatenate((solutions, solutions, solutions[:, :1]), axis=1)
        return np.full(len(rows), self.nodes), {"around": around}

    def lots(self, rows: NDArray[np.int64], size: int, generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Where paths begin, and if reversible in which direction they go."""
        n = self.nodes
        if not 3 <= size <= n + 1:
            raise UserError(f"size={size} of a sub-path is out of range, expected 3 to {n + 1} for tours of {n} nodes")
        starts = generator.integers(n, size=len(rows))
        return starts, generator.integers(2, size=len(rows)) if self.reversible else np.zeros_like(starts)

    def cut(self, rows: Int[Tensor, " p"], size: int, *lots: Tensor) -> SubProblems:
        """Paths of ``size`` nodes out of tours, beginning anywhere, if reversible in either direction.

        Every path in an optimal tour is an optimal path between its ends.  ``size`` = n + 1 is the whole closed tour,
        whose origin is also its destination.  Columns are in the path's order, so the first is always the target.
        """
        start, back = lots
        steps = torch.arange(size, device=self.device)
        path = picked(
            self.laid["around"], rows, (start + back * self.nodes)[:, None] + (1 - 2 * back)[:, None] * steps
        )  # [P, K]
        states = replace(self.states(rows, path[:, 0], path[:, 1:-1]), destination=path[:, -1])
        target = torch.zeros((1, size - 2, 1), device=self.device)
        target[:, 0] = 1.0
        before = torch.full_like(rows, size - 3) if self.reversible else None
        return SubProblems(states, target, before)

    # ---- solving again, part by part -------------------------------------------------------------------------------

    @classmethod
    def piece_sizes(cls, nodes: int) -> tuple[int, int] | None:
        return 2, nodes - 1

    def pieces(self, solutions: NDArray[np.int64], size: int, generator: np.random.Generator) -> Pieces:
        """Paths that follow one another, each from the end of the one before, if reversible in either direction."""
        count, n = solutions.shape
        offset = generator.integers(n, size=(count, 1, 1))
        begins = (size + 1) * np.arange(n // (size + 1))[:, None]  # [M, 1]
        places = ((offset + begins + np.arange(size + 2)) % n).reshape(-1, size + 2)  # [P, K]
        if self.reversible:
            back = generator.integers(2, size=len(places), dtype=np.bool_)
            places[back] = places[back, ::-1]
        owner = np.repeat(np.arange(count), len(begins))
        path = torch.as_tensor(solutions[owner[:, None], places]).to(self.device)
        rows = torch.as_tensor(owner).to(self.device)
        costs = self.way(rows[:, None], path[:, :-1], path[:, 1:]).sum(dim=1)
        remaining = path[:, 1:-1].sort(dim=1).values
        return Pieces(replace(self.states(rows, path[:, 0], remaining), destination=path[:, -1]), costs, places)

    def rejoined(
        self, solutions: NDArray[np.int64], pieces: Pieces, better: NDArray[np.bool_], actions: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        found, owner = solutions.copy(), pieces.states.owner.cpu().numpy()[better]
        found[owner[:, None], pieces.places[better, 1:-1]] = actions[better]
        return self.solutions(found[:, 0], found[:, 1:])


# ---- pointing --------------------------------------------------------------------------------------------------------


class PointerRules(ABC):
    """What may follow a walk, as tokens: 0 is ⇐, which ends an answer, where ``ends`` is 1, and points come after it.

    ``valid`` rules are the environment's, which ends an answer by itself; otherwise the network points where it likes
    until it points at ⇐ or as often as the longest answer has entries.

    Args:
        problem: of the size of the instances.
        coords: float64 ``[b, n, 2]``; walks are rows of tokens, several to an instance.
        valid: see above.
    """

    ends: ClassVar[int] = 1  # whether answers are of several lengths, so that ⇐ has to end them

    def __init__(self, problem: Problem, coords: Tensor, valid: bool):
        self.coords, self.valid = coords, valid
        self.opening = problem.opening()
        self.longest = problem.solution_length + (0 if valid else self.ends)
        self.pointers = self.most_pointers(problem).to(coords.device)  # [b]

    def most_pointers(self, problem: Problem) -> Int[Tensor, " b"]:
        """After how many pointers a walk ends in any case."""
        return torch.full((len(self.coords),), problem.solution_length)

    @abstractmethod
    def free(self, rows: Int[Tensor, " r"], points: Int[Tensor, "r t"], free: Bool[Tensor, "r n"]) -> Tensor:
        """``free``, which is all True, where the walks ``points``, of at least one point, may go on to."""

    def allowed(self, rows: Int[Tensor, " r"], tokens: Int[Tensor, "r t"]) -> Bool[Tensor, "r m"] | None:
        """Where the walks ``tokens`` through the instances ``rows`` may go; None: anywhere."""
        if not self.valid:
            return None
        points = (tokens - self.ends).clamp_min(0)
        n, t = self.coords.shape[1], tokens.shape[1]
        free = torch.ones(len(rows), n, dtype=torch.bool, device=tokens.device)
        if t < len(self.opening):
            free[:] = False
            free[:, self.opening[t]] = True
        elif t > 0:
            free = self.free(rows, points, free)
        # whatever ended or cannot go on points anywhere: a softmax over nothing is no number
        free |= ~free.any(dim=1, keepdim=True)
        return torch.cat((torch.zeros_like(free[:, : self.ends]), free), dim=1)

    def closed(self, tokens: Int[Tensor, "r t"]) -> Bool[Tensor, " r"] | None:
        """Where the environment ends valid walks with their last token, before they are as long as can be."""
        return None

    def ended(self, rows: Int[Tensor, " r"], tokens: Int[Tensor, "r t"]) -> Bool[Tensor, " r"]:
        """Whether the walks, which had not ended before their last token, have ended with it."""
        over = self.pointers[rows] <= tokens.shape[1]
        if not self.valid:
            return tokens[:, -1] == 0 if self.ends else over
        closed = self.closed(tokens)
        return over if closed is None else over | closed

    def measured(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """Lengths of tours, one of each instance, on the device; where solutions are tours."""
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def judge(
        cls, problem: Problem, coords: NDArray[np.float64], solutions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Objectives ``[B]``, NaN where there is none, and whether each of ``solutions [B, L]`` is one."""

    @classmethod
    def preference(cls, objectives: NDArray[np.float64], log_probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """By what the best of several answers is known, the largest; what may be measured without the true answer."""
        return objectives

    @classmethod
    @abstractmethod
    def scores(
        cls, problem: Problem, coords: NDArray[np.float64], found: Solutions, free: Solutions, seed: int
    ) -> dict[str, float]:
        """Means over instances beside the return, by name, of solutions under the rules and of ``free`` ones."""
