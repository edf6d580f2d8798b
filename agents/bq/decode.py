"""BQ-NCO's decoding: batches of reduced states stepped on the device, greedily or by beam search.

What is feasible, what a step pays and what a network sees are the problem's
(:class:`rlkit.envs.combinatorial.device.DeviceRules`); here is the search.

What is not computed twice (``reuse``; a network's layers are not among it: each token attends to the origin, which
moves):

* a state that has ended leaves the batch;
* a state with one feasible action takes it without asking the network: its probability is 1;
* prefixes of a beam that leave the same tail are one state.  The best one, by the problem's ``worth``, goes on, ranked
  by the highest probability among them, and is evaluated once.  States are told apart by 64-bit keys of their nodes.

The first two change no solution.  The last never gives up the best completion of a beam's states, and leaves room in
the beam for other ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from rlkit.agents.bq.network import BQNetwork
from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.device import SYMMETRIES, DeviceRules, States
from rlkit.envs.combinatorial.instances import Group, Solutions, gathered, read_instances
from rlkit.errors import UserError

Network = Callable[[Tensor, Tensor | None], Tensor]
ROWS = 4096  # states at once
TOKENS, PAIRS = 1 << 16, 1 << 22  # of one call of the network: what bounds its memory
NEAR_TOKENS = 1 << 10  # of one call on a processor: what a layer makes of them stays in its caches


# ---- search --------------------------------------------------------------------------------------------------------


def masked_log_softmax(
    scores: Float[Tensor, "p r kinds"], allowed: Bool[Tensor, "p r kinds"]
) -> Float[Tensor, "p r kinds"]:
    """Log-probabilities over everything that is ``allowed``; -inf elsewhere."""
    flat = scores.masked_fill(~allowed, float("-inf")).flatten(1)  # [P, R kinds]
    return flat.log_softmax(dim=1).view_as(scores)


def rows_at_once(rules: type[DeviceRules] | DeviceRules, tokens: int, device: torch.device) -> int:
    """States of so many ``tokens`` that go through the network together."""
    most = min(TOKENS, NEAR_TOKENS) if device.type == "cpu" else TOKENS
    pairs = PAIRS // 4 if rules.costs else PAIRS  # costs have a hidden layer
    return max(1, min(most // tokens, pairs // tokens**2))


def evaluate(
    network: Network,
    rules: DeviceRules,
    states: States,
    allowed: Bool[Tensor, "p r kinds"],
    knn: int | None,
    reuse: bool,
) -> Float[Tensor, "p r kinds"]:
    """The policy's log-probabilities, float32; with ``knn`` over that many nodes alone."""
    count, remaining, kinds = allowed.shape
    found = torch.where(allowed, 0.0, float("-inf"))
    open_rows = torch.arange(count, device=allowed.device)
    if reuse:
        open_rows = open_rows[allowed.flatten(1).sum(dim=1) > 1]
    width = remaining if knn is None else min(knn, remaining)
    at_once = rows_at_once(rules, width + 2, allowed.device)
    for rows in open_rows.split(at_once) if len(open_rows) else ():
        part, mask = states.take(rows), allowed[rows]
        if width == remaining:
            scores = network(*rules.tokens(part))[..., :kinds]
            found[rows] = masked_log_softmax(scores, mask)
            continue
        columns = rules.near(part, mask, width)  # [p, k]
        spread = columns[..., None].expand(-1, -1, kinds)
        fed = replace(part, remaining=part.remaining.gather(1, columns))
        mask = mask.gather(1, spread)
        scores = network(*rules.tokens(fed))[..., :kinds]
        nowhere = torch.full((len(rows), remaining, kinds), float("-inf"), device=allowed.device)
        found[rows] = nowhere.scatter(1, spread, masked_log_softmax(scores, mask))
    return found


def best_of_beams(rules: DeviceRules, states: States, log_probability: Tensor, beam: int, merge: bool) -> States:
    """The ``beam`` likeliest successors of every group's states, one step on."""
    kinds = log_probability.shape[2]
    flat = states.log_probability[:, None] + log_probability.flatten(1).double()  # [P, R kinds]
    if beam == 1:
        chosen = flat.argmax(dim=1)
        ahead = replace(states, log_probability=flat.gather(1, chosen[:, None])[:, 0])
        return rules.step(ahead, chosen // kinds, chosen % kinds)
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
        rank = _without_equals(rules, states, rows, states.remaining[rows, column], kind, score)
    order = rank.topk(min(beam, wanted), dim=1).indices  # [G, beam]
    real = rank.gather(1, order) > float("-inf")
    rows, column, kind, score = (x.gather(1, order)[real] for x in (rows, column, kind, score))
    return rules.step(replace(states.take(rows), log_probability=score), column, kind)


def _without_equals(
    rules: DeviceRules, states: States, rows: Tensor, node: Tensor, kind: Tensor, score: Tensor
) -> Tensor:
    """Scores [G, M] by which to choose candidates: of equal next states only the best one's is not -inf."""
    names = torch.randint(
        -(2**63), 2**63 - 1, (2, rules.nodes), generator=torch.Generator().manual_seed(0), dtype=torch.int64
    ).to(score.device)
    flat_rows, flat_node = rows.flatten(), node.flatten()
    total, budget = rules.outcome(states, flat_rows, flat_node, kind.flatten())
    left = names[0][states.remaining].sum(dim=1)[flat_rows] - names[0][flat_node]  # of what remains, wrapping around
    key = left + rules.key(names[1], flat_node, budget)
    worth = rules.worth(total, budget).view_as(score)
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
    rules: DeviceRules,
    starts: NDArray[np.int64],
    *,
    beam: int = 1,
    knn: int | None = None,
    reuse: bool = True,
) -> Found:
    """Search every instance of ``rules`` once for each of ``starts`` [B, copies], the c-th in symmetry c mod 8.

    What ends is ranked by its return, equal ones by their probability: probabilities of solutions of different lengths
    do not compare.
    """
    count, copies = starts.shape
    device = rules.device
    owner = torch.arange(count, device=device).repeat_interleave(copies)
    copy = torch.arange(copies, device=device).repeat(count) % SYMMETRIES
    states = rules.initial(owner, copy, torch.as_tensor(starts.reshape(-1), device=device))
    found = Found(
        np.zeros(count, np.int64),
        np.full((count, states.remaining.shape[1]), -1, np.int64),
        np.full(count, -np.inf),
        np.full(count, -np.inf),
    )
    while True:
        allowed = rules.feasible(states)
        running = allowed.flatten(1).any(dim=1)
        if not bool(running.all()):
            _record(found, states.take(~running))
            states, allowed = states.take(running), allowed[running]
        if not len(states):
            return found
        log_probability = evaluate(network, rules, states, allowed, knn, reuse)
        states = best_of_beams(rules, states, log_probability, beam, reuse)


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


# ---- solving whole sets --------------------------------------------------------------------------------------------


def solve(
    network: Network,
    problem: Problem,
    instances: Any,
    device: torch.device | str,
    *,
    beam: int = 1,
    augment: int = 1,
    knn: int | None = None,
    reuse: bool = True,
    seed: int = 0,
    learnt: int | None = None,
) -> Solutions:
    """See :meth:`rlkit.agents.bq.bq.BQ.solve`; ``learnt``: nodes of the instances that the network learnt from."""
    begin = time.perf_counter()
    for what, value in (("beam", beam), ("augment", augment), ("knn", 1 if knn is None else knn)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise UserError(f"{what}={value} is out of range, expected a whole number of at least 1")
    most = problem.device().copies
    if most is not None and augment > most:
        raise UserError(
            f"augment={augment} is out of range, {problem.name} has {most} symmetries; expected 1 to {most}"
        )
    groups, shown = read_instances(problem, instances), problem.device().shown
    options: dict[str, Any] = {"beam": beam, "augment": augment, "reuse": reuse, "seed": seed}
    parts = []
    for group in groups:
        larger = learnt is not None and group.problem.num_nodes > learnt
        options["knn"] = shown if knn is None and larger else knn
        parts.append(_solve_group(network, group, device, **options))
    return gathered(groups, parts, time.perf_counter() - begin)


def _solve_group(
    network: Network, group: Group, device: torch.device | str, *, augment: int, seed: int, **options: Any
) -> Solutions:
    problem, count, kind = group.problem, len(group.places), group.problem.device()
    starts = kind.starts(count, problem.num_points, augment, seed)
    at_once, parts = max(1, ROWS // (augment * options["beam"])), []
    for begin in range(0, count, at_once):
        part = slice(begin, begin + at_once)
        some = {key: value[part] for key, value in group.arrays.items()}
        found = search(network, kind(some, device), starts[part], **options)
        solutions = kind.solutions(found.starts, found.actions)
        padded = np.full((len(solutions), problem.solution_length), -1, np.int64)
        padded[:, : solutions.shape[1]] = solutions
        parts.append((padded, problem.objectives(some, solutions), found.log_probabilities))
    solutions, objectives, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Solutions(solutions, objectives, scores, np.full(count, problem.num_nodes), np.ones(count, np.bool_))


# ---- the policy ------------------------------------------------------------------------------------------------------


class BQPolicy(BasePolicy):
    """The network behind SB3's ``predict``, on the observations of ``rlkit.envs``' environments."""

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, problem: Problem, network: BQNetwork
    ):
        super().__init__(observation_space, action_space)
        self.problem, self.rules, self.network = problem, problem.device(), network
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
            raise UserError(f"expected observations of {self.problem.name} with {', '.join(sorted(needed))}")
        arrays = {key: np.asarray(observation[key]) for key in needed}
        if arrays["action_mask"].ndim == 2:
            return self._act(arrays, deterministic), state
        return self._act({key: value[None] for key, value in arrays.items()}, deterministic)[0], state

    @torch.no_grad()
    def _act(self, arrays: dict[str, NDArray[Any]], deterministic: bool) -> NDArray[np.int64]:
        kinds, remaining = self.rules.kinds, arrays["remaining"].astype(np.bool_)  # [n, N]
        allowed = arrays["action_mask"].astype(np.bool_).reshape(*remaining.shape, kinds)
        counts = remaining.sum(axis=1) * allowed.any(axis=(1, 2))  # 0 where there is nothing to choose
        actions = np.zeros(len(counts), np.int64)
        for count in np.unique(counts[counts > 0]):
            rows = np.flatnonzero(counts == count)
            at_once = rows_at_once(self.rules, int(count) + 2, self.device)
            for begin in range(0, len(rows), at_once):
                some = rows[begin : begin + at_once]
                actions[some] = self._act_alike({k: v[some] for k, v in arrays.items()}, allowed[some], deterministic)
        return actions

    def _act_alike(
        self, arrays: dict[str, NDArray[Any]], allowed: NDArray[np.bool_], deterministic: bool
    ) -> NDArray[np.int64]:
        """Actions for rows with equally many nodes left."""
        n, device, kinds = len(allowed), self.device, allowed.shape[2]
        nodes = torch.as_tensor(np.nonzero(arrays["remaining"])[1].reshape(n, -1), device=device)  # [n, r]
        owner = torch.arange(n, device=device)
        zeros = np.zeros((n, 1), np.float32)
        origin, destination = (
            torch.as_tensor(arrays.get(key, zeros[:, 0]).reshape(n).astype(np.int64), device=device)
            for key in ("origin", "destination")
        )
        scalar = torch.as_tensor(arrays.get("budget", zeros).reshape(n), device=device)
        states = States(
            owner, torch.zeros_like(owner), nodes, origin, destination, scalar, scalar, scalar, owner[:, None], owner
        )
        static, matrix = self.rules.observed(arrays, device)
        scores = self.network(*self.rules.build_tokens(static, matrix, states, scalar))[..., :kinds]
        mask = torch.as_tensor(allowed, device=device)[owner[:, None], nodes]  # [n, r, kinds]
        found = masked_log_softmax(scores, mask).flatten(1)  # [n, r kinds]
        if not deterministic:  # Gumbel's trick
            assert self.noise is not None
            uniform = torch.rand(found.shape, generator=self.noise, device=self.noise.device).to(device)
            found = found - (-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
        best = found.argmax(dim=1)
        node, kind = nodes.gather(1, (best // kinds)[:, None])[:, 0], best % kinds
        return (node * kinds + kind).cpu().numpy()
