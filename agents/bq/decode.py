"""BQ-NCO's decoding: batches of reduced states stepped on the device, greedily or by beam search.

:class:`World` holds instances as tensors and the rules of ``rlkit.envs``' problems over :class:`States`: what is
feasible, what a step pays, the tokens a network sees.  Lengths, loads and returns are float64 and equal the
environments' but for the last digit of a square root; tokens are the float32 of their observations.  All states of a
batch have taken equally many actions, so no row is ever padded.

What is not computed twice (``reuse``; a network's layers are not among it: each token attends to the origin, which
moves):

* a state that has ended leaves the batch;
* a state with one feasible action takes it without asking the network: its probability is 1;
* prefixes of a beam that leave the same tail are one state.  The one with the best return goes on (op: with the most
  length left, their prizes being equal), ranked by the highest probability among them, and is evaluated once.  States
  are told apart by 64-bit keys of their nodes.

The first two change no solution.  The last never gives up the best completion of a beam's states, and leaves room in
the beam for other ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from rlkit.agents.bq.network import KINDS, BQNetwork
from rlkit.envs.combinatorial.base import Problem, make_problem, stack
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.knapsack import TOLERANCE as WEIGHT_TOLERANCE
from rlkit.envs.combinatorial.orienteering import TOLERANCE as LENGTH_TOLERANCE
from rlkit.errors import UserError

Network = Callable[[Tensor, Tensor | None], Tensor]
ROWS = 4096  # states at once
TOKENS, PAIRS = 1 << 16, 1 << 22  # of one call of the network: what bounds its memory
SYMMETRIES = 8  # of the square
LARGE = 1e9  # further than any node: infeasible ones are the last to be near


@dataclass(frozen=True)
class States:
    """P states after equally many actions.

    owner int64 [P]: row of the instance; copy int64 [P]: the symmetry of the square it is seen in; rest int64 [P, R]:
    what remains, increasing; origin, destination int64 [P]; budget float64 [P]: load, length or capacity left; total
    float64 [P]: return so far; log_probability float64 [P]; actions int64 [P, T]; group int64 [P]: the search it is of.
    """

    owner: Tensor
    copy: Tensor
    rest: Tensor
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


# ---- tokens --------------------------------------------------------------------------------------------------------


def turned(places: Float[Tensor, "batch k 2"], copy: Int[Tensor, " batch"]) -> Float[Tensor, "batch k 2"]:
    """Points of the unit square in symmetry 0..7 of it: bit 0 mirrors x, bit 1 mirrors y, bit 2 swaps them."""
    bits = (copy[:, None, None] & torch.tensor([1, 2], device=copy.device)) != 0  # [batch, 1, 2]
    places = torch.where(bits, 1.0 - places, places)
    return torch.where((copy & 4 != 0)[:, None, None], places.flip(-1), places)


def build_tokens(
    name: str,
    static: Float[Tensor, "count n s"],
    matrix: Float[Tensor, "count n n"] | None,
    states: States,
    scalar: Float[Tensor, " batch"],
) -> tuple[Float[Tensor, "batch k f"], Float[Tensor, "batch k k"] | None]:
    """Tokens of :func:`rlkit.envs.combinatorial.bisimulation.reduce`, and atsp's costs between them, as float32."""
    owner = states.owner[:, None]
    if name == "knapsack":
        tokens = static[owner, states.rest]  # [batch, r, 2]
        return torch.cat((tokens, scalar[:, None, None].expand(-1, tokens.shape[1], 1)), dim=-1), None
    nodes = torch.cat((states.origin[:, None], states.destination[:, None], states.rest), dim=1)  # [batch, k]
    if matrix is not None:
        return static[owner, nodes], matrix[owner[..., None], nodes[:, :, None], nodes[:, None, :]]
    tokens = static[owner, nodes]
    places, own = turned(tokens[..., :2], states.copy), tokens[..., 2:]
    if name == "tsp":
        return places, None
    own = torch.cat((torch.zeros_like(own[:, :2]), own[:, 2:]), dim=1)  # the ends' own demand and prize are past
    return torch.cat((places, own, scalar[:, None, None].expand_as(own)), dim=-1), None


# ---- rules ---------------------------------------------------------------------------------------------------------


class World:
    """``instances`` (arrays with one axis in front) of the problem called ``name`` as tensors on ``device``."""

    def __init__(self, name: str, instances: Instance, device: torch.device | str):
        self.name, self.device = name, torch.device(device)
        self.exact = {key: torch.as_tensor(np.asarray(value), device=device) for key, value in instances.items()}
        self.limit = self.exact.get("budget", self.exact.get("capacity"))  # int64 or float64 [B]
        seen = {key: np.asarray(value) for key, value in instances.items()}
        if "coords" in seen:
            seen["coords"] = near_origin(seen["coords"])
        self.static, self.matrix = observed(name, seen, device)
        self.nodes = self.static.shape[1]

    def initial(self, owner: Int[Tensor, " p"], copy: Int[Tensor, " p"], start: Int[Tensor, " p"]) -> States:
        """First states of instances ``owner``; ``start``: where a tour begins, 0 but for tsp and atsp."""
        everything = torch.arange(self.nodes, device=self.device).expand(len(owner), -1)  # [P, N]
        if self.name != "knapsack":
            everything = everything[everything != start[:, None]].view(len(owner), -1)  # [P, N - 1]
        zeros = torch.zeros(len(owner), dtype=torch.float64, device=self.device)
        budget = zeros if self.limit is None else self.limit[owner].double()
        actions = owner.new_zeros((len(owner), 0))
        group = torch.arange(len(owner), device=self.device)
        return States(owner, copy, everything, start, start, budget, zeros, zeros, actions, group)

    def way(self, owner: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Length float64 of going from ``i`` to ``j``; broadcasts."""
        if "cost" in self.exact:
            return self.exact["cost"][owner, i, j]
        step = self.exact["coords"][owner, i] - self.exact["coords"][owner, j]
        return (step[..., 0] * step[..., 0] + step[..., 1] * step[..., 1]).sqrt()

    def feasible(self, states: States) -> Bool[Tensor, "p r kinds"]:
        owner, rest, budget = states.owner[:, None], states.rest, states.budget[:, None]
        if self.name == "cvrp":
            direct = self.exact["demand"][owner, rest] <= budget
            return torch.stack((direct, (states.origin != 0)[:, None].expand_as(direct)), dim=-1)
        if self.name == "op":
            ways = self.way(owner, states.origin[:, None], rest) + self.way(owner, rest, torch.zeros_like(rest))
            found = ways <= budget + LENGTH_TOLERANCE
        elif self.name == "knapsack":
            found = self.exact["weight"][owner, rest] <= budget + WEIGHT_TOLERANCE
        else:
            found = torch.ones_like(rest, dtype=torch.bool)
        return found[..., None]

    def outcome(self, states: States, rows: Tensor, node: Tensor, via: Tensor) -> tuple[Tensor, Tensor]:
        """Total and budget float64 [M] after states ``rows`` [M] go to ``node`` [M], ``via`` [M] the depot or not."""
        owner, origin, budget = states.owner[rows], states.origin[rows], states.budget[rows]
        if self.name == "knapsack":
            return states.total[rows] + self.exact["value"][owner, node], budget - self.exact["weight"][owner, node]
        cost = self.way(owner, origin, node)
        if self.name == "op":
            return states.total[rows] + self.exact["prize"][owner, node], budget - cost
        destination = states.destination[rows]
        if self.name == "cvrp":
            assert self.limit is not None
            by_depot = self.way(owner, origin, destination) + self.way(owner, destination, node)
            cost = torch.where(via, by_depot, cost)
            budget = torch.where(via, self.limit[owner].double(), budget) - self.exact["demand"][owner, node]
        if states.rest.shape[1] == 1:
            cost = cost + self.way(owner, node, destination)
        return states.total[rows] - cost, budget

    def step(self, states: States, column: Int[Tensor, " p"], kind: Int[Tensor, " p"]) -> States:
        """Every state goes to its ``column`` of ``rest``, by action ``kind``."""
        count = len(states)
        node = states.rest.gather(1, column[:, None])[:, 0]  # [P]
        total, budget = self.outcome(states, torch.arange(count, device=self.device), node, kind == 1)
        action = 2 * node + kind if self.name == "cvrp" else node
        rest = states.rest[states.rest != node[:, None]].view(count, -1)  # [P, R - 1]
        actions = torch.cat((states.actions, action[:, None]), dim=1)
        return replace(states, rest=rest, origin=node, budget=budget, total=total, actions=actions)

    def tokens(self, states: States) -> tuple[Tensor, Tensor | None]:
        """See :func:`build_tokens`."""
        scalar = states.budget / self.exact["capacity"][states.owner] if self.name == "cvrp" else states.budget
        return build_tokens(self.name, self.static, self.matrix, states, scalar.float())

    def near(self, states: States, allowed: Bool[Tensor, "p r kinds"], k: int) -> Int[Tensor, "p k"]:
        """Columns of the ``k`` nearest to the origin, feasible ones before all others, in increasing order.

        op: half of them nearest, half of the highest prizes; knapsack: of the most value per weight.
        """
        owner, rest = states.owner[:, None], states.rest
        last = (~allowed.any(dim=-1)) * LARGE  # [P, R]
        if self.name == "knapsack":
            key = -self.exact["value"][owner, rest] / self.exact["weight"][owner, rest].clamp_min(1e-12)
            key = key.clamp_min(-LARGE / 2) + last
        else:
            key = self.way(owner, states.origin[:, None], rest) + last
        if self.name != "op":
            return key.topk(k, dim=1, largest=False).indices.sort(dim=1).values
        close = key.topk(k - k // 2, dim=1, largest=False).indices
        rich = (last - self.exact["prize"][owner, rest]).scatter(1, close, 2 * LARGE)
        return torch.cat((close, rich.topk(k // 2, dim=1, largest=False).indices), dim=1).sort(dim=1).values


def near_origin(coords: NDArray[np.float64]) -> NDArray[np.float64]:
    """``coords [B, N, 2]``, those of instances that leave the unit square moved to where float32 has most digits."""
    low, high = coords.min(axis=1, keepdims=True), coords.max(axis=1, keepdims=True)
    outside = ((low < 0) | (high > 1)).any(axis=2, keepdims=True)
    return np.where(outside, coords - low, coords)


def observed(name: str, arrays: Instance, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
    """What the environments show of instances: float32 [B, N, S], and atsp's costs [B, N, N]."""
    if name == "atsp":
        cost = torch.as_tensor(arrays["cost"].astype(np.float32), device=device)
        return cost.new_zeros((*cost.shape[:2], 0)), cost
    columns = [arrays["coords"]] if "coords" in arrays else []
    for key in ("demand", "prize", "weight", "value"):
        if key in arrays:
            share = key == "demand" and "capacity" in arrays  # observations have it in parts of the capacity already
            column = arrays[key] / arrays["capacity"][:, None] if share else arrays[key]
            columns.append(column[..., None])
    static = np.concatenate([column.astype(np.float32) for column in columns], axis=-1)
    return torch.as_tensor(static, device=device), None


# ---- search --------------------------------------------------------------------------------------------------------


def masked_log_softmax(
    scores: Float[Tensor, "p r kinds"], allowed: Bool[Tensor, "p r kinds"]
) -> Float[Tensor, "p r kinds"]:
    """Log-probabilities over everything that is ``allowed``; -inf elsewhere."""
    flat = scores.masked_fill(~allowed, float("-inf")).flatten(1)  # [P, R kinds]
    return flat.log_softmax(dim=1).view_as(scores)


def rows_at_once(name: str, tokens: int) -> int:
    """States of so many ``tokens`` that go through the network together."""
    pairs = PAIRS // 4 if name == "atsp" else PAIRS  # costs have a hidden layer
    return max(1, min(TOKENS // tokens, pairs // tokens**2))


def evaluate(
    network: Network, world: World, states: States, allowed: Bool[Tensor, "p r kinds"], knn: int | None, reuse: bool
) -> Float[Tensor, "p r kinds"]:
    """The policy's log-probabilities, float32; with ``knn`` over that many nodes alone."""
    count, rest, kinds = allowed.shape
    found = torch.where(allowed, 0.0, float("-inf"))
    open_rows = torch.arange(count, device=allowed.device)
    if reuse:
        open_rows = open_rows[allowed.flatten(1).sum(dim=1) > 1]
    width = rest if knn is None else min(knn, rest)
    at_once = rows_at_once(world.name, width + 2)
    for rows in open_rows.split(at_once) if len(open_rows) else ():
        part, mask = states.take(rows), allowed[rows]
        if width == rest:
            scores = network(*world.tokens(part))[..., :kinds]
            found[rows] = masked_log_softmax(scores, mask)
            continue
        columns = world.near(part, mask, width)  # [p, k]
        spread = columns[..., None].expand(-1, -1, kinds)
        fed = replace(part, rest=part.rest.gather(1, columns))
        mask = mask.gather(1, spread)
        scores = network(*world.tokens(fed))[..., :kinds]
        nowhere = torch.full((len(rows), rest, kinds), float("-inf"), device=allowed.device)
        found[rows] = nowhere.scatter(1, spread, masked_log_softmax(scores, mask))
    return found


def best_of_beams(world: World, states: States, log_probability: Tensor, beam: int, merge: bool) -> States:
    """The ``beam`` likeliest successors of every group's states, one step on."""
    kinds = log_probability.shape[2]
    flat = states.log_probability[:, None] + log_probability.flatten(1).double()  # [P, R kinds]
    if beam == 1:
        chosen = flat.argmax(dim=1)
        ahead = replace(states, log_probability=flat.gather(1, chosen[:, None])[:, 0])
        return world.step(ahead, chosen // kinds, chosen % kinds)
    _, local, counts = torch.unique_consecutive(states.group, return_inverse=True, return_counts=True)
    first = counts.cumsum(0) - counts  # [G], row of each group's first state
    table = flat.new_full((len(counts), beam, flat.shape[1]), float("-inf"))
    table[local, torch.arange(len(states), device=flat.device) - first[local]] = flat
    # one state has at most ``beam`` candidates, one of each of the beam's: so there are ``beam`` states among beam²
    wanted = min(beam * beam if merge else beam, table[0].numel())
    score, index = table.flatten(1).topk(wanted, dim=1)  # [G, M]
    rows = first[:, None] + (index // flat.shape[1]).clamp_max((counts - 1)[:, None])
    column, kind = index % flat.shape[1] // kinds, index % kinds
    rank = score
    if merge:
        rank = _without_equals(world, states, rows, states.rest[rows, column], kind, score)
    order = rank.topk(min(beam, wanted), dim=1).indices  # [G, beam]
    real = rank.gather(1, order) > float("-inf")
    rows, column, kind, score = (x.gather(1, order)[real] for x in (rows, column, kind, score))
    return world.step(replace(states.take(rows), log_probability=score), column, kind)


def _without_equals(world: World, states: States, rows: Tensor, node: Tensor, kind: Tensor, score: Tensor) -> Tensor:
    """Scores [G, M] by which to choose candidates: of equal next states only the best one's is not -inf."""
    names = torch.randint(
        -(2**63), 2**63 - 1, (2, world.nodes), generator=torch.Generator().manual_seed(0), dtype=torch.int64
    ).to(score.device)
    flat_rows, flat_node = rows.flatten(), node.flatten()
    total, budget = world.outcome(states, flat_rows, flat_node, kind.flatten() == 1)
    key = names[0][states.rest].sum(dim=1)[flat_rows] - names[0][flat_node]  # of the set that remains, wrapping around
    if world.name != "knapsack":
        key = key + names[1][flat_node]
    if world.name == "cvrp":
        key = key + budget.long() * names[1][0]
    worth = (budget if world.name == "op" else total).view_as(score)
    key = torch.where(score > float("-inf"), key.view_as(score), 0)
    worth = worth.masked_fill(score == float("-inf"), float("-inf"))
    by_worth = worth.sort(dim=1, descending=True, stable=True).indices
    by_key = key.gather(1, by_worth).sort(dim=1, stable=True)
    order, key = by_worth.gather(1, by_key.indices), by_key.values  # equal states side by side, the best one first
    leads = torch.ones_like(key, dtype=torch.bool)
    leads[:, 1:] = key[:, 1:] != key[:, :-1]
    member = leads.cumsum(dim=1) - 1
    ordered = score.gather(1, order)
    highest = torch.full_like(ordered, float("-inf")).scatter_reduce(1, member, ordered, "amax").gather(1, member)
    own = ordered > float("-inf")
    return torch.full_like(score, float("-inf")).scatter(1, order, highest.masked_fill(~(leads & own), float("-inf")))


@dataclass(frozen=True)
class Found:
    """Per instance the best of its searches: int64 [B] where it started, int64 [B, T] actions padded with -1, float64
    [B] return, float64 [B] log-probability of the actions."""

    starts: NDArray[np.int64]
    actions: NDArray[np.int64]
    totals: NDArray[np.float64]
    log_probabilities: NDArray[np.float64]


@torch.no_grad()
def search(
    network: Network,
    world: World,
    starts: NDArray[np.int64],
    *,
    beam: int = 1,
    knn: int | None = None,
    reuse: bool = True,
) -> Found:
    """Search every instance of ``world`` once for each of ``starts`` [B, copies], the c-th in symmetry c mod 8.

    What ends is ranked by its return, equal ones by their probability: probabilities of solutions of different lengths
    do not compare.
    """
    count, copies = starts.shape
    device = world.device
    owner = torch.arange(count, device=device).repeat_interleave(copies)
    copy = torch.arange(copies, device=device).repeat(count) % SYMMETRIES
    states = world.initial(owner, copy, torch.as_tensor(starts.reshape(-1), device=device))
    found = Found(
        np.zeros(count, np.int64),
        np.full((count, states.rest.shape[1]), -1, np.int64),
        np.full(count, -np.inf),
        np.full(count, -np.inf),
    )
    while True:
        allowed = world.feasible(states)
        running = allowed.flatten(1).any(dim=1)
        if not bool(running.all()):
            _record(found, states.take(~running))
            states, allowed = states.take(running), allowed[running]
        if not len(states):
            return found
        log_probability = evaluate(network, world, states, allowed, knn, reuse)
        states = best_of_beams(world, states, log_probability, beam, reuse)


def _record(found: Found, ended: States) -> None:
    owner, total, score = (x.cpu().numpy() for x in (ended.owner, ended.total, ended.log_probability))
    before, likely = found.totals[owner], found.log_probabilities[owner]
    better = (total > before) | ((total == before) & (score > likely))
    order = np.lexsort((score, total))
    order = order[better[order]]  # of several of one instance the last, the best, is what stays
    rows, actions = owner[order], ended.actions.cpu().numpy()[order]
    found.totals[rows], found.log_probabilities[rows] = total[order], score[order]
    found.starts[rows] = ended.destination.cpu().numpy()[order]
    found.actions[rows, : actions.shape[1]] = actions
    found.actions[rows, actions.shape[1] :] = -1


def to_solutions(name: str, starts: NDArray[np.int64], actions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Solutions [B, L] padded with -1, tours from node 0, of ``actions`` [B, T]."""
    count = len(actions)
    if name in ("tsp", "atsp"):
        tours = np.concatenate((starts[:, None], actions), axis=1)
        begins = np.argmax(tours == 0, axis=1)[:, None]
        return np.take_along_axis(tours, (begins + np.arange(tours.shape[1])) % tours.shape[1], axis=1)
    if name == "knapsack":
        return actions
    visits = actions
    if KINDS[name] == 2:
        visits = np.stack((np.where(actions % 2 == 1, 0, -1), actions // 2), axis=2).reshape(count, -1)  # [B, 2 T]
        visits = visits[:, 1:]  # nothing comes by the depot before the first
    edge = np.zeros((count, 1), np.int64)
    visits = np.concatenate((edge, visits, edge), axis=1)
    return np.take_along_axis(visits, np.argsort(visits < 0, axis=1, kind="stable"), axis=1)


def random_starts(name: str, count: int, nodes: int, copies: int, seed: int) -> NDArray[np.int64]:
    """Where each copy of each instance begins [B, copies]: at 0, and from the second copy of tsp and atsp anywhere."""
    starts = np.zeros((count, copies), np.int64)
    if name in ("tsp", "atsp"):
        generator: Any = np.random.Generator(np.random.PCG64(seed))
        starts[:, 1:] = generator.integers(nodes, size=(count, copies - 1))
    return starts


# ---- solving whole sets --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Solutions:
    """solutions: int64 [B, L] padded with -1; objectives: float64 [B]; log_probabilities: float64 [B], of the actions
    that built each, over what the network was shown."""

    solutions: NDArray[np.int64]
    objectives: NDArray[np.float64]
    log_probabilities: NDArray[np.float64]


def shape_of(value: Any, key: str, where: str) -> tuple[int, ...]:
    """Shape of ``value`` as an array; raises UserError where its rows are of different lengths."""
    try:
        return np.shape(value)
    except ValueError:
        raise UserError(f"{where}: '{key}' is not an array of numbers, its rows differ in length") from None


def by_size(name: str, instances: Any) -> list[tuple[NDArray[np.int64], Problem, dict[str, NDArray[Any]]]]:
    """``(places, problem, batch)`` of every size among ``instances``, checked.

    ``instances``: a mapping of arrays, one instance or a batch with an axis in front, or a sequence of single ones.
    Raises UserError for anything else, and for instances that are not sound.
    """
    key = {"atsp": "cost", "knapsack": "weight"}.get(name, "coords")
    dims = 1 if name == "knapsack" else 2
    depot = name in ("cvrp", "op")

    def size_of(instance: Any, where: str) -> int:
        if not isinstance(instance, Mapping) or key not in instance:
            raise UserError(f"{where}: expected a mapping of arrays with '{key}' for {name}")
        shape = shape_of(instance[key], key, where)
        return int(shape[-dims]) - depot if len(shape) >= dims else 0

    if isinstance(instances, Mapping):
        size_of(instances, "instances")
        if np.ndim(instances[key]) == dims + 1:
            count = len(instances[key])
            for name_, value in instances.items():
                if shape_of(value, name_, "instances")[:1] != (count,):
                    raise UserError(f"instances: '{name_}' has not the {count} rows that '{key}' has")
            instances = [{k: np.asarray(v)[i] for k, v in instances.items()} for i in range(count)]
        else:
            instances = [instances]
    if not isinstance(instances, Sequence) or not instances:
        raise UserError(f"expected instances of {name} to solve: a mapping of arrays, or a sequence of them")
    sizes = np.array([size_of(instance, f"instance {i}") for i, instance in enumerate(instances)])
    found = []
    for size in np.unique(sizes):
        problem, places = make_problem(name, num_nodes=int(size)), np.flatnonzero(sizes == size)
        found.append((places, problem, stack([problem.check(instances[int(i)], f"instance {i}") for i in places])))
    return found


def solve(
    name: str,
    network: Network,
    instances: Any,
    device: torch.device | str,
    *,
    beam: int = 1,
    augment: int = 1,
    knn: int | None = None,
    reuse: bool = True,
    seed: int = 0,
) -> Solutions:
    """See :meth:`rlkit.agents.bq.bq.BQ.solve`."""
    for what, value in (("beam", beam), ("augment", augment), ("knn", 1 if knn is None else knn)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise UserError(f"{what}={value} is out of range, expected a whole number of at least 1")
    most = {"cvrp": SYMMETRIES, "op": SYMMETRIES, "knapsack": 1}.get(name)
    if most is not None and augment > most:
        raise UserError(f"augment={augment} is out of range, {name} has {most} symmetries; expected 1 to {most}")
    groups = by_size(name, instances)
    count, longest = sum(len(g[0]) for g in groups), max(g[1].solution_length for g in groups)
    result = Solutions(np.full((count, longest), -1, np.int64), np.zeros(count), np.zeros(count))
    for places, problem, batch in groups:
        starts = random_starts(name, len(places), problem.num_points, augment, seed)
        at_once = max(1, ROWS // (augment * beam))
        for begin in range(0, len(places), at_once):
            part = slice(begin, begin + at_once)
            some = {key: value[part] for key, value in batch.items()}
            found = search(network, World(name, some, device), starts[part], beam=beam, knn=knn, reuse=reuse)
            solutions = to_solutions(name, found.starts, found.actions)
            rows = places[part]
            result.solutions[rows, : solutions.shape[1]] = solutions
            result.objectives[rows] = problem.objectives(some, solutions)
            result.log_probabilities[rows] = found.log_probabilities
    return result


# ---- the policy ------------------------------------------------------------------------------------------------------


class BQPolicy(BasePolicy):
    """The network behind SB3's ``predict``, on the observations of ``rlkit.envs``' environments."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, name: str, network: BQNetwork):
        super().__init__(observation_space, action_space)
        self.problem, self.network = name, network
        self.noise: torch.Generator | None = None

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        arrays = {key: np.asarray(value.cpu()) for key, value in observation.items()}
        return torch.as_tensor(self._act(arrays, deterministic))

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Actions int64 [n] for a batch of observations, or one for one; 0 where nothing is feasible."""
        needed = set(self.observation_space.spaces) - {"sequence"}  # type: ignore[attr-defined]  # a Dict
        if not isinstance(observation, Mapping) or not needed <= set(observation):
            raise UserError(f"expected observations of {self.problem} with {', '.join(sorted(needed))}")
        arrays = {key: np.asarray(observation[key]) for key in needed}
        if arrays["action_mask"].ndim == 2:
            return self._act(arrays, deterministic), state
        return self._act({key: value[None] for key, value in arrays.items()}, deterministic)[0], state

    @torch.no_grad()
    def _act(self, arrays: dict[str, NDArray[Any]], deterministic: bool) -> NDArray[np.int64]:
        kinds, remaining = KINDS[self.problem], arrays["remaining"].astype(np.bool_)  # [n, N]
        allowed = arrays["action_mask"].astype(np.bool_).reshape(*remaining.shape, kinds)
        counts = remaining.sum(axis=1) * allowed.any(axis=(1, 2))  # 0 where there is nothing to choose
        actions = np.zeros(len(counts), np.int64)
        for count in np.unique(counts[counts > 0]):
            rows = np.flatnonzero(counts == count)
            at_once = rows_at_once(self.problem, int(count) + 2)
            for begin in range(0, len(rows), at_once):
                some = rows[begin : begin + at_once]
                actions[some] = self._act_alike({k: v[some] for k, v in arrays.items()}, allowed[some], deterministic)
        return actions

    def _act_alike(
        self, arrays: dict[str, NDArray[Any]], allowed: NDArray[np.bool_], deterministic: bool
    ) -> NDArray[np.int64]:
        """Actions for rows with equally many nodes left."""
        n, device, kinds = len(allowed), self.device, allowed.shape[2]
        rest = torch.as_tensor(np.nonzero(arrays["remaining"])[1].reshape(n, -1), device=device)  # [n, r]
        owner = torch.arange(n, device=device)
        zeros = np.zeros((n, 1), np.float32)
        origin, destination = (
            torch.as_tensor(arrays.get(key, zeros[:, 0]).reshape(n).astype(np.int64), device=device)
            for key in ("origin", "destination")
        )
        scalar = torch.as_tensor(arrays.get("budget", zeros).reshape(n), device=device)
        states = States(
            owner, torch.zeros_like(owner), rest, origin, destination, scalar, scalar, scalar, owner[:, None], owner
        )
        static, matrix = observed(self.problem, arrays, device)
        scores = self.network(*build_tokens(self.problem, static, matrix, states, scalar))[..., :kinds]
        mask = torch.as_tensor(allowed, device=device)[owner[:, None], rest]  # [n, r, kinds]
        found = masked_log_softmax(scores, mask).flatten(1)  # [n, r kinds]
        if not deterministic:  # Gumbel's trick
            assert self.noise is not None
            uniform = torch.rand(found.shape, generator=self.noise, device=self.noise.device).to(device)
            found = found - (-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
        best = found.argmax(dim=1)
        node, kind = rest.gather(1, (best // kinds)[:, None])[:, 0], best % kinds
        return (node * kinds + kind).cpu().numpy()
