"""Re-construction: parts of a solution solved again by the network, and kept where that is better.

A sub-problem of a solution is a state of the BQ-MDP, whatever made the solution.  A round cuts every instance's into
disjoint parts with as many nodes to decide on (Luo et al. 2023 cut one at a random place, random re-construction; Luo
et al. 2024 many at once, parallel local re-construction), sees each in a symmetry of the square drawn for it, solves
all of them greedily in one batch, and takes what became shorter:

    a size; parts of solutions as states, and what they cost now        DeviceRules.pieces
    each solved anew                                                     solved_again
    those that cost less take their place                                DeviceRules.rejoined

At first, and where something changed, solutions are moved to local optima by the problem's own moves, which costs next
to nothing beside the network.  Nothing is ever worse than before.  With a number of rounds the result depends on the
seed alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.agents.bq.decode import ROWS, Network, best_of_beams, evaluate, solve
from rlkit.envs.combinatorial.base import Problem, problem_kinds
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.device import SYMMETRIES, DeviceRules, States
from rlkit.envs.combinatorial.improvement import improved
from rlkit.envs.combinatorial.instances import Group, Solutions, gathered, read_instances
from rlkit.errors import UserError, shown

LARGEST = 100  # nodes to decide on at once, or as many as the network learnt from
MARGIN = 1e-9  # of its cost, by which a part has to be better than it was


def require_budget(problem: Problem, budget: Any) -> None:
    """Raise UserError unless ``budget`` is a number of rounds or of seconds, and the problem's solutions have parts."""
    if problem.device().piece_sizes(problem.num_nodes) is None:
        known = ", ".join(kind.name for kind in problem_kinds() if kind.reduces and kind.device().piece_sizes(10))
        raise UserError(
            f"reconstruct: solutions of {problem.name} have no parts to solve again, expected one of {known}"
        )
    whole = isinstance(budget, (int, np.integer)) and not isinstance(budget, bool)
    if not (whole and budget >= 1) and not (isinstance(budget, float) and 0 < budget < 1e7):
        raise UserError(
            f"reconstruct={shown(budget)} is out of range, expected rounds, a whole number of at least 1, or seconds, "
            "such as 2.0"
        )


@torch.no_grad()
def solved_again(network: Network, rules: DeviceRules, states: States) -> States:
    """``states`` of one size at their ends, greedily."""
    done = []
    for rows in torch.arange(len(states), device=rules.device).split(ROWS):
        part = states.take(rows)
        while part.remaining.shape[1]:
            allowed = rules.feasible(part)
            part = best_of_beams(rules, part, evaluate(network, rules, part, allowed, None, True), 1, True)
        done.append(part)
    return States(*(torch.cat(column) for column in zip(*(tuple(vars(part).values()) for part in done), strict=True)))


def reconstructed(
    network: Network,
    problem: Problem,
    instances: Instance,
    solutions: NDArray[np.int64],
    device: torch.device | str,
    budget: int | float,
    *,
    largest: int = LARGEST,
    seed: int = 0,
) -> NDArray[np.int64]:
    """``solutions`` [B, L] of a batch of instances after ``budget`` rounds if that is whole, else so many seconds.

    largest: nodes to decide on in the largest parts.  Seconds are looked at between rounds: one more may be done.
    """
    begin, rounds = time.perf_counter(), 0
    rules, generator = problem.device()(instances, device), np.random.Generator(np.random.PCG64([seed, 3]))
    sizes = rules.piece_sizes(problem.num_nodes)
    assert sizes is not None
    most = max(sizes[0], min(sizes[1], largest))
    solutions = improved(problem, instances, solutions)
    while rounds < budget if isinstance(budget, (int, np.integer)) else time.perf_counter() - begin < budget:
        after = one_round(network, rules, solutions, int(generator.integers(sizes[0], most + 1)), generator)
        if (changed := (after != solutions).any(axis=1)).any():
            solutions = after.copy()
            some = {key: value[changed] for key, value in instances.items()}
            solutions[changed] = improved(problem, some, after[changed])
        rounds += 1
    return solutions


def one_round(
    network: Network, rules: DeviceRules, solutions: NDArray[np.int64], size: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """``solutions`` with every part of ``size`` nodes that the network does better done so."""
    pieces = rules.pieces(solutions, size, generator)
    if not len(pieces.states):
        return solutions
    copy: Tensor = torch.as_tensor(generator.integers(SYMMETRIES, size=len(pieces.states))).to(rules.device)
    found = solved_again(network, rules, pieces.states.seen_as(copy))
    better = (-found.total < pieces.costs * (1.0 - MARGIN)).cpu().numpy()
    return rules.rejoined(solutions, pieces, better, found.actions.cpu().numpy()) if better.any() else solutions


# ---- whole sets ------------------------------------------------------------------------------------------------------


def solve_again(
    network: Network,
    problem: Problem,
    instances: Any,
    device: torch.device | str,
    budget: int | float,
    start: Any = None,
    **options: Any,
) -> Solutions:
    """See :meth:`rlkit.agents.bq.bq.BQ.solve`, of which ``options`` are."""
    require_budget(problem, budget)
    begin, groups = time.perf_counter(), read_instances(problem, instances)
    count = sum(len(group.places) for group in groups)
    first = solve(network, problem, instances, device, **options) if start is None else _given(groups, start, count)
    spent, parts = time.perf_counter() - begin, []
    for group in groups:
        solutions = first.solutions[group.places, : group.problem.solution_length]
        share = budget if isinstance(budget, (int, np.integer)) else (budget - spent) * len(group.places) / count
        largest = min(LARGEST, options.get("learnt") or LARGEST)
        limits: dict[str, Any] = {"largest": largest, "seed": options.get("seed", 0)}
        found = reconstructed(network, group.problem, group.arrays, solutions, device, share, **limits)
        before = first.log_probabilities[group.places]
        likely = np.where((found == solutions).all(axis=1), before, np.nan)  # the network did not build the others
        sizes, sound = first.sizes[group.places], first.sound[group.places]
        parts.append(Solutions(found, group.problem.objectives(group.arrays, found), likely, sizes, sound))
    return gathered(groups, parts, time.perf_counter() - begin)


def _given(groups: Sequence[Group], start: Any, count: int) -> Solutions:
    """``start``, solutions of all instances in their order.  Raises UserError where it is not that."""
    try:
        given = [np.asarray(one, np.int64).reshape(-1) for one in getattr(start, "solutions", start)]
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"start={shown(start)} holds no solutions, expected one for each instance") from None
    if len(given) != count:
        raise UserError(f"start: holds {len(given)} solutions, expected one for each of {count} instances")
    parts = []
    for group in groups:
        problem, size = group.problem, len(group.places)
        solutions = np.stack([problem.padded(given[int(i)][given[int(i)] >= 0]) for i in group.places])
        objectives, unknown = problem.objectives(group.arrays, solutions), np.full(size, np.nan)
        parts.append(
            Solutions(solutions, objectives, unknown, np.full(size, problem.num_nodes), np.ones(size, np.bool_))
        )
    return gathered(groups, parts)
