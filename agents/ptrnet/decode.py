"""Answers of a pointer network, by greedy, sampled, beam or active search, and what judges them.

:class:`Rules` says what may be pointed at.  ``valid`` ones are the environment's: tours visit every city once, polygons
stay convex, a triangulation has as many triangles as the true one, and ⇐ is not used, since the environment ends an
answer.  Otherwise the network points where it likes until it points at ⇐ (a tour: n times).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from rlkit.agents.ptrnet.network import Memory, Pointer, chosen, tour_masks, unit_square
from rlkit.envs.combinatorial.base import Problem
from rlkit.envs.combinatorial.geometry import convex_hull, polygon_area, triangulation
from rlkit.envs.combinatorial.metrics import corners_of, is_simple, tour_length, triangles_of

ROWS = 1 << 26  # floats of the memories of one block of walks

Draw = Callable[[Tensor], Tensor]  # log-probabilities [r, m] to tokens [r]


@dataclass(frozen=True)
class Solved:
    """solutions: int64 ``[B, L]``, padded with -1; objectives: float64 ``[B]``, NaN where a solution has none;
    log_probabilities: float64 ``[B]`` of the walks under the network, ⇐ included where it was pointed at; invalid: the
    share of solutions that are none (tours that miss a city, polygons that cross themselves, triangles cut short)."""

    solutions: NDArray[np.int64]
    objectives: NDArray[np.float64]
    log_probabilities: NDArray[np.float64]
    invalid: float


# ---- what may be pointed at ------------------------------------------------------------------------------------------


class Rules:
    """What may follow a walk.  ``coords`` float64 ``[b, n, 2]``; walks are rows of tokens, several to an instance."""

    def __init__(self, problem: Problem, coords: Tensor, ends: int, valid: bool):
        self.name, self.coords, self.ends, self.valid = problem.name, coords, ends, valid
        self.opening = problem.opening()
        self.longest = problem.solution_length + (0 if valid else ends)
        self.pointers = torch.full((len(coords),), problem.solution_length)  # after which a walk ends in any case
        if valid and problem.name == "delaunay":
            self.pointers = torch.tensor([3 * len(triangulation(c)) for c in coords.cpu().numpy()])
        self.pointers = self.pointers.to(coords.device)

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
        elif self.name == "delaunay":
            free.scatter_(1, points[:, t - t % 3 :], False)
        elif t > 0:
            free.scatter_(1, points, False)
            if self.name == "convex-hull":
                free = self._convex(self.coords[rows], points, free)
        # whatever ended or cannot go on points anywhere: a softmax over nothing is no number
        free |= ~free.any(dim=1, keepdim=True)
        return torch.cat((torch.zeros_like(free[:, : self.ends]), free), dim=1)

    @staticmethod
    def _convex(coords: Tensor, points: Tensor, free: Tensor) -> Tensor:
        """The corners that keep a polygon convex and able to close, as
        :class:`rlkit.envs.combinatorial.geometry.ConvexHull` says.
        """
        t = points.shape[1]
        corner = coords.gather(1, points[..., None].expand(-1, -1, 2))[:, :, None]  # [r, t, 1, 2]
        first, last = corner[:, 0], corner[:, -1]  # [r, 1, 2]
        if t == 1:  # something must lie to the left of the first edge
            return free & (turn(first[:, :, None], coords[:, :, None], coords[:, None]) > 0).any(dim=2)
        free &= (turn(corner[:, -2], last, coords) > 0) & (turn(last, coords, first) > 0)
        if t > 2:
            free &= turn(coords, first, corner[:, 1]) > 0
            free.scatter_(1, points[:, :1], True)  # closing
        return free

    def ended(self, rows: Int[Tensor, " r"], tokens: Int[Tensor, "r t"]) -> Bool[Tensor, " r"]:
        """Whether the walks, which had not ended before their last token, have ended with it."""
        over = self.pointers[rows] <= tokens.shape[1]
        if not self.valid:
            return tokens[:, -1] == 0 if self.ends else over
        if self.name == "convex-hull" and tokens.shape[1] > 1:
            over = over | (tokens[:, -1] == tokens[:, 0])
        return over


def turn(i: Tensor, j: Tensor, k: Tensor) -> Tensor:
    """Twice the signed area of triangles ``[..., 2]``, rounded as :func:`rlkit.envs.combinatorial.geometry.turn`
    rounds.
    """
    x, y = i.unbind(-1)
    (u, v), (s, t) = j.unbind(-1), k.unbind(-1)
    return (u - x) * (t - y) - (v - y) * (s - x)


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
    network: Pointer, memory: Memory, rules: Rules, rows: Int[Tensor, " r"], draw: Draw
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
    network: Pointer, memory: Memory, rules: Rules, rows: Tensor, tokens: Tensor, inputs: Tensor, state: Any
) -> tuple[Tensor, Any]:
    queries, state = network.read(inputs, state)  # [r, 1, h]
    allowed = rules.allowed(rows, tokens)
    mask = None if allowed is None else allowed[:, None]
    return network.log_probabilities(memory, queries, mask)[:, 0], state


@torch.no_grad()
def beam_search(
    network: Pointer, memory: Memory, rules: Rules, rows: Int[Tensor, " b"], width: int
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
) -> Solved:
    """Solutions of ``coords [B, n, 2]``; see :meth:`rlkit.agents.ptrnet.ptrnet.PtrNet.solve`."""
    device = network.start.device
    generator = torch.Generator(device).manual_seed(seed)
    weight = network.width * (coords.shape[1] + 1) * 4  # floats of an instance's memory
    block = max(1, ROWS // (weight * max(beam, 1)))
    parts = []
    for part in np.array_split(coords, -(-len(coords) // block)):
        rules = Rules(problem, torch.from_numpy(part).to(device), network.ends, valid)
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
    return Solved(solutions, objectives, totals, float(1.0 - sound.mean()))


Judged = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]


def _numbers(tokens: Tensor, totals: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return tokens.cpu().numpy(), totals.cpu().numpy()


def _judged(
    problem: Problem, coords: NDArray[np.float64], valid: bool, tokens: NDArray[np.int64], totals: NDArray[np.float64]
) -> Judged:
    """Tokens ``[B, t]`` of whole walks as solutions ``[B, L]``, with objectives, log-probabilities and soundness."""
    ends = int(problem.name != "tsp")
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
    Others: length, area over the true hull's, or share of the true triangles named; NaN where there is none.
    """
    if valid:
        return problem.objectives({"coords": coords}, solutions), np.ones(len(solutions), np.bool_)
    if problem.name == "tsp":
        sound = (np.sort(solutions, axis=1) == np.arange(problem.num_nodes)).all(axis=1)
        objectives = np.where(sound, tour_length(coords, np.maximum(solutions, 0)), np.nan)
        return objectives, sound
    objectives, sound = np.full(len(solutions), np.nan), np.zeros(len(solutions), np.bool_)
    for b, (points, solution) in enumerate(zip(coords, solutions, strict=True)):
        pointers = solution[solution >= 0]
        if problem.name == "convex-hull":
            sound[b] = is_simple(points, pointers)
            if sound[b]:
                area = polygon_area(points, corners_of(pointers))
                objectives[b] = abs(area) / polygon_area(points, convex_hull(points))
        else:
            true = {tuple(triangle) for triangle in triangulation(points).tolist()}
            objectives[b] = len(triangles_of(pointers) & true) / len(true)
            whole = len(pointers) % 3 == 0 and len(pointers) > 0
            sound[b] = whole and all(len(set(triangle)) == 3 for triangle in triangles_of(pointers))
    return objectives, sound


def _best_of(
    network: Pointer, problem: Problem, memory: Memory, rules: Rules, samples: int, draw: Draw, at_once: int
) -> Judged:
    """The best of ``samples`` walks through each instance, ``at_once`` at a time; the first of equals.

    Best by objective, which of a tour or polygon is there to be measured; of triangulations, whose objective would give
    the answer away, the most probable.
    """
    coords, b = rules.coords.cpu().numpy(), len(rules.coords)
    best: list[NDArray[Any]] = []
    for begin in range(0, samples, at_once):
        k = min(at_once, samples - begin)
        rows = torch.arange(b, device=rules.coords.device).repeat_interleave(k)  # [b k]
        tokens, totals = _numbers(*walk(network, memory.rows(rows), rules, rows, draw))
        judged = _judged(problem, np.repeat(coords, k, axis=0), rules.valid, tokens, totals)
        worth = judged[2] if problem.name == "delaunay" else judged[1] if problem.maximise else -judged[1]
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
) -> Solved:
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
        rules = Rules(problem, points[orders], 0, True)
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
    return Solved(tour, problem.objectives({"coords": coords[None]}, tour), np.array([probability]), 0.0)


def sample_tours(
    network: Pointer, memory: Memory, rules: Rules, draw: Draw
) -> tuple[Int[Tensor, "b n"], Float[Tensor, " b"], Float[Tensor, " b"]]:
    """A tour of each instance of ``rules``, encoded in ``memory``: tokens, log-probabilities, and lengths, float64."""
    rows = torch.arange(len(rules.coords), device=rules.coords.device)
    tokens, totals = walk(network, memory, rules, rows, draw)
    return tokens, totals, tour_lengths(rules.coords, tokens)


def tour_lengths(coords: Float[Tensor, "b n 2"], tours: Int[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Closed lengths."""
    places = coords.gather(1, tours[..., None].expand(-1, -1, 2))  # [b, n, 2]
    return (places - places.roll(-1, dims=1)).norm(dim=-1).sum(dim=-1)
