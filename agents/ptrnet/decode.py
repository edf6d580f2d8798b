"""Answers of a pointer network, by greedy, sampled, beam or active search.

What may be pointed at, and what answers are worth, are the problem's
(:class:`rlkit.envs.combinatorial.device.PointerRules`).  ``valid`` answers are under the environment's rules: tours
visit every city once, polygons stay convex, a triangulation has as many triangles as the true one, and ⇐ is not used,
since the environment ends an answer.  Otherwise the network points where it likes until it points at ⇐ (a tour: n
times).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from rlkit.agents.ptrnet.network import Memory, Pointer, chosen, tour_masks, unit_square
from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.device import PointerRules
from rlkit.envs.combinatorial.instances import Solutions

ROWS = 1 << 26  # floats of the memories of one block of walks

Draw = Callable[[Tensor], Tensor]  # log-probabilities [r, m] to tokens [r]


# ---- walks -----------------------------------------------------------------------------------------------------------


def greedy(log_probabilities: Tensor) -> Tensor:
    return log_probabilities.argmax(dim=-1)


def sampler(generator: torch.Generator, temperature: float = 1.0) -> Draw:
    """Draws from p^(1/T), normalised."""

    def draw(log_probabilities: Tensor) -> Tensor:
        weights = (log_probabilities / temperature).softmax(dim=-1)
        return torch.multinomial(weights, 1, generator=generator)[:, 0]

    return draw


@torch.no_grad()
def walk(
    network: Pointer, memory: Memory, rules: PointerRules, rows: Int[Tensor, " r"], draw: Draw
) -> tuple[Int[Tensor, "r t"], Float[Tensor, " r"]]:
    """One walk for each row of ``memory``, through the instances ``rows`` of ``rules``.

    Returns tokens, padded with -1, and the log-probabilities of the walks, float64.
    """
    tokens = torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    over = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    inputs, state = network.begin(memory), (memory.h, memory.c)
    for _ in range(rules.longest):
        log_p, state = _step(network, memory, rules, rows, tokens, inputs, state)  # [r, m]
        token = draw(log_p).masked_fill(over, -1)  # [r]
        total += chosen(log_p[:, None], token[:, None])[:, 0].double()
        tokens = torch.cat((tokens, token[:, None]), dim=1)
        over |= rules.ended(rows, tokens)
        if over.all():
            break
        inputs = network.inputs(memory, token[:, None])
    return tokens, total


def _step(
    network: Pointer, memory: Memory, rules: PointerRules, rows: Tensor, tokens: Tensor, inputs: Tensor, state: Any
) -> tuple[Tensor, Any]:
    queries, state = network.read(inputs, state)  # [r, 1, h]
    allowed = rules.allowed(rows, tokens)
    mask = None if allowed is None else allowed[:, None]
    return network.log_probabilities(memory, queries, mask)[:, 0], state


@torch.no_grad()
def beam_search(
    network: Pointer, memory: Memory, rules: PointerRules, rows: Int[Tensor, " b"], width: int
) -> tuple[Int[Tensor, "b t"], Float[Tensor, " b"]]:
    """The most probable of ``width`` walks kept for each row; a walk that has ended competes with those that go on."""
    b = len(rows)
    origin = torch.arange(b, device=rows.device).repeat_interleave(width)  # [b k]
    memory, rows = memory.rows(origin), rows[origin]
    tokens = torch.empty(b * width, 0, dtype=torch.int64, device=rows.device)
    total = torch.full((b, width), -torch.inf, dtype=torch.float64, device=rows.device)
    total[:, 0] = 0.0  # the others are copies of the first, which would stay copies
    over = torch.zeros(b * width, dtype=torch.bool, device=rows.device)
    inputs, state = network.begin(memory), (memory.h, memory.c)
    for _ in range(rules.longest):
        log_p, state = _step(network, memory, rules, rows, tokens, inputs, state)
        m = log_p.shape[1]
        log_p = log_p.double().masked_fill(over[:, None], -torch.inf)
        log_p[:, 0] = log_p[:, 0].masked_fill(over, 0.0)  # the one way on of a walk that has ended
        ways = (total[:, :, None] + log_p.view(b, width, m)).view(b, width * m)
        total, best = ways.sort(dim=1, descending=True, stable=True)  # stable: ties go to the earlier walk
        total, best = total[:, :width], best[:, :width]
        parent = (best // m + torch.arange(b, device=rows.device)[:, None] * width).view(-1)  # [b k]
        ended_before = over[parent]
        token = (best % m).view(-1).masked_fill(ended_before, -1)
        tokens = torch.cat((tokens[parent], token[:, None]), dim=1)
        over = ended_before | rules.ended(rows, tokens)
        if over.all():
            break
        state = (state[0][:, parent], state[1][:, parent])
        inputs = network.inputs(memory, token[:, None])
    return tokens.view(b, width, -1)[:, 0], total[:, 0]


# ---- solving ---------------------------------------------------------------------------------------------------------


def solve(
    network: Pointer,
    problem: Problem,
    coords: NDArray[np.float64],
    *,
    beam: int = 1,
    valid: bool = True,
    samples: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
) -> Solutions:
    """Solutions of ``coords [B, n, 2]``; see :meth:`rlkit.agents.ptrnet.ptrnet.PtrNet.solve`."""
    device = network.start.device
    generator = torch.Generator(device).manual_seed(seed)
    weight = network.width * (coords.shape[1] + 1) * 4  # floats of an instance's memory
    block = max(1, ROWS // (weight * max(beam, 1)))
    parts = []
    for part in np.array_split(coords, -(-len(coords) // block)):
        rules = problem.pointers()(problem, torch.from_numpy(part).to(device), valid)
        rows = torch.arange(len(part), device=device)
        with torch.no_grad():
            memory = network.encode(unit_square(rules.coords).float())
        if samples:
            draw = sampler(generator, temperature)
            parts.append(_best_of(network, problem, memory, rules, samples, draw, max(1, block // len(part))))
        elif beam > 1:
            parts.append(_judged(problem, part, valid, *_numbers(*beam_search(network, memory, rules, rows, beam))))
        else:
            parts.append(_judged(problem, part, valid, *_numbers(*walk(network, memory, rules, rows, greedy))))
    solutions, objectives, totals, sound = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Solutions(solutions, objectives, totals, np.full(len(coords), problem.num_nodes), sound)


Judged = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]


def _numbers(tokens: Tensor, totals: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return tokens.cpu().numpy(), totals.cpu().numpy()


def _judged(
    problem: Problem, coords: NDArray[np.float64], valid: bool, tokens: NDArray[np.int64], totals: NDArray[np.float64]
) -> Judged:
    """Tokens ``[B, t]`` of whole walks as solutions ``[B, L]``, with objectives, log-probabilities and soundness."""
    ends = problem.pointers().ends
    solutions = np.full((len(tokens), problem.solution_length), -1, np.int64)
    kept = np.maximum(tokens - ends, -1)[:, : problem.solution_length]  # ⇐ becomes padding
    solutions[:, : kept.shape[1]] = kept
    objectives, sound = judge(problem, coords, solutions, valid)
    return solutions, objectives, totals, sound


def judge(
    problem: Problem, coords: NDArray[np.float64], solutions: NDArray[np.int64], valid: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Objectives ``[B]`` and whether each of ``solutions [B, L]`` is one.

    ``valid`` ones go through the environment's own objective, which raises UserError for one that is not feasible.
    Others are the problem's to judge.
    """
    if valid:
        return problem.objectives({"coords": coords}, solutions), np.ones(len(solutions), np.bool_)
    return problem.pointers().judge(problem, coords, solutions)


def _best_of(
    network: Pointer, problem: Problem, memory: Memory, rules: PointerRules, samples: int, draw: Draw, at_once: int
) -> Judged:
    """The best of ``samples`` walks through each instance, ``at_once`` at a time; the first of equals.

    Best by objective, where that is there to be measured, else by probability: the problem's ``preference``.
    """
    coords, b = rules.coords.cpu().numpy(), len(rules.coords)
    best: list[NDArray[Any]] = []
    for begin in range(0, samples, at_once):
        k = min(at_once, samples - begin)
        rows = torch.arange(b, device=rules.coords.device).repeat_interleave(k)  # [b k]
        tokens, totals = _numbers(*walk(network, memory.rows(rows), rules, rows, draw))
        judged = _judged(problem, np.repeat(coords, k, axis=0), rules.valid, tokens, totals)
        worth = rules.preference(judged[1] if problem.maximise else -judged[1], judged[2])
        worth = np.where(np.isnan(worth), -np.inf, worth)  # [b k]
        pick = worth.reshape(b, k).argmax(axis=1) + np.arange(b) * k
        found = [part[pick] for part in (worth, *judged)]
        better = found[0] > best[0] if best else np.ones(b, np.bool_)
        pairs = zip(found, best or found, strict=True)
        best = [np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old) for new, old in pairs]
    return best[1], best[2], best[3], best[4]


def active_search(
    network: Pointer,
    problem: Problem,
    coords: NDArray[np.float64],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    max_grad_norm: float,
    ema_decay: float = 0.99,
    seed: int = 0,
) -> Solutions:
    """The shortest tour met while REINFORCE trains a copy of ``network`` on the one instance ``coords [n, 2]``
    (Bello et al. 2016, algorithm 2).  Every row of a batch has the cities in an order of its own."""
    network = copy.deepcopy(network)
    network.masks = True  # a gradient needs the probabilities that tours are drawn with
    parameters = list(network.parameters())
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    generator = torch.Generator(network.start.device).manual_seed(seed)
    points = unit_square(torch.from_numpy(coords[None]).to(network.start.device))[0]  # [n, 2]
    n, opening = len(points), len(problem.opening())
    best, shortest, probability, average = np.arange(n), np.inf, 0.0, 0.0
    for step in range(steps):
        noise = torch.rand(batch_size, n, generator=generator, device=points.device)
        orders = noise.argsort(dim=1)  # [b, n]
        rules = problem.pointers()(problem, points[orders], True)
        memory = network.encode(rules.coords.float())
        tokens, totals, lengths = sample_tours(network, memory, rules, sampler(generator))
        k = int(lengths.argmin())
        if float(lengths[k]) < shortest - 1e-12:
            best, shortest, probability = orders[k, tokens[k]].cpu().numpy(), float(lengths[k]), float(totals[k])
        mean = lengths.mean().item()
        average = mean if step == 0 else ema_decay * average + (1 - ema_decay) * mean
        log_p = chosen(network.follow(memory, tokens, tour_masks(tokens, opening)), tokens).sum(dim=1)
        loss = ((lengths - average).float() * log_p).mean()
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        optimiser.step()
    tour = np.roll(best, -int(np.argmin(best)))[None]  # from city 0, as the environment's tours
    objectives = problem.objectives({"coords": coords[None]}, tour)
    return Solutions(tour, objectives, np.array([probability]), np.array([n]), np.ones(1, np.bool_))


def sample_tours(
    network: Pointer, memory: Memory, rules: PointerRules, draw: Draw
) -> tuple[Int[Tensor, "b n"], Float[Tensor, " b"], Float[Tensor, " b"]]:
    """A tour of each instance of ``rules``, encoded in ``memory``: tokens, log-probabilities, and lengths, float64."""
    rows = torch.arange(len(rules.coords), device=rules.coords.device)
    tokens, totals = walk(network, memory, rules, rows, draw)
    return tokens, totals, rules.measured(tokens)
