"""Improvement as a stage, and search: every problem's own moves behind the same few calls.

A problem with moves has ``improve.py`` beside its rules:

``improve``     solutions of a batch to local optima, one instance a thread, whatever the number of threads the same
``insert``      one solution by inserting nodes in random order, each where it costs least
``objective``   what one solution costs, or its prizes
``Search``      one instance for as long as there is time, see :class:`Search`
``MOST_EXACT``  nodes up to which the search is exact; ``AS_GOOD_UP_TO``: up to which it does as well as any solver;
                ``BETTER_FROM``: from which it does better than the solver of choice, or None

:func:`improved` and :func:`inserted` are the stage and its honest opponent, :func:`searched` the search.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import Event, Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import Problem, generate, row
from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.costs import Costs, costs_within
from rlkit.envs.combinatorial.instances import Solutions, gathered, read_instances
from rlkit.errors import UserError

SLICE = 0.02  # seconds between looks at the clock
MOST_CHAINS = 16  # searches beside each other
Told = Callable[[float, float], None]  # seconds, objective


@runtime_checkable
class Search(Protocol):
    """A search of one instance, made of ``(instance, costs, seed)``; it has a solution from the beginning.

    solution: int64 ``[L]``, the best so far; objective: what it costs, or its prizes; finished: whether more time would
    change nothing.
    """

    solution: NDArray[np.int64]
    objective: float
    finished: bool

    def advance(self, share: float, count: int) -> None:
        """``count`` rounds; ``share`` of the time, from 0 to 1, is over."""


def improves(kind: type[Problem]) -> bool:
    """Whether the problem has moves."""
    return find_spec(f"{kind.__module__.rpartition('.')[0]}.improve") is not None


def require_moves(kind: type[Problem]) -> None:
    """Raise UserError for a problem without moves."""
    if not improves(kind):
        raise UserError(f"{kind.name} has no moves to improve a solution by, expected solver=own, which is exact")


def improved(problem: Problem, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.int64]:
    """``solutions [B, L]`` of a batch, each moved to a local optimum and never worse; on all cores.

    Raises UserError for a problem without moves.
    """
    require_moves(type(problem))
    found: NDArray[np.int64] = problem.part("improve", "improve")(instances, costs_within(instances), solutions)
    return found


def improved_answers(problem: Problem, instances: Any, found: Solutions) -> Solutions:
    """``found``, an agent's solutions of ``instances`` in any form and of any sizes, at local optima.

    Log-probabilities of those that changed are NaN.  Raises UserError for a problem without moves, or solutions that
    are none under its rules.
    """
    require_moves(type(problem))
    if not found.sound.all():
        raise UserError("improve=True is for solutions under the problem's rules, expected valid=True")
    begin, parts, groups = time.perf_counter(), [], read_instances(problem, instances)
    for group in groups:
        before = found.solutions[group.places, : group.problem.solution_length]
        after = improved(group.problem, group.arrays, before)
        likely = np.where((after == before).all(axis=1), found.log_probabilities[group.places], np.nan)
        sizes, sound = found.sizes[group.places], found.sound[group.places]
        parts.append(Solutions(after, group.problem.objectives(group.arrays, after), likely, sizes, sound))
    return gathered(groups, parts, None if found.seconds is None else found.seconds + time.perf_counter() - begin)


def inserted(
    problem: Problem, instances: Instance, starts: int, seed: int = 0, improve: bool = True
) -> NDArray[np.int64]:
    """The best of ``starts`` random insertions, ``[B, L]``, each improved if ``improve``: what others have to beat.

    Insertion k of instance i depends on (seed, i, k) alone.  Raises UserError for a problem without moves.
    """
    require_moves(type(problem))
    insert, count = problem.part("improve", "insert"), len(next(iter(instances.values())))
    every = [row(instances, i) for i in range(count)]
    costs = [costs_within(one) for one in every]
    best, found = np.zeros((count, problem.solution_length), np.int64), np.full(count, np.inf)
    for k in range(starts):
        seeds = [int(np.random.SeedSequence([seed, i, k]).generate_state(1)[0]) for i in range(count)]
        made = [problem.padded(insert(*parts)) for parts in zip(every, costs, seeds, strict=True)]
        tried = np.stack(made)
        if improve:
            tried = improved(problem, instances, tried)
        worth = problem.objectives(instances, tried) * (-1.0 if problem.maximise else 1.0)
        better = worth < found
        best[better], found[better] = tried[better], worth[better]
    return best


def restarts(kind: type[Problem], improve: bool) -> Callable[[Instance, Costs, int], Search]:
    """The search that inserts at random again and again, each time improved if ``improve``, and keeps the best."""
    parts = [kind.part("improve", name) for name in ("insert", "improve", "objective")]
    insert, move, objective = parts
    sign = -1.0 if kind.maximise else 1.0

    class Restarts:
        """Best of k insertions."""

        finished = False

        def __init__(self, instance: Instance, costs: Costs, seed: int) -> None:
            self.given, self.seed, self.made, self.objective = (instance, costs), seed, 0, sign * np.inf
            self.solution = np.zeros(0, np.int64)
            self.advance(0.0, 1)

        def advance(self, share: float, count: int) -> None:
            instance, costs = self.given
            for _ in range(count):
                own = int(np.random.SeedSequence([self.seed, self.made]).generate_state(1)[0])
                found, self.made = insert(instance, costs, own), self.made + 1
                if improve:
                    many = {key: value[None] for key, value in instance.items()}
                    found = move(many, costs._replace(array=costs.array[None]), found[None])[0]
                found = found[found >= 0]
                worth = float(objective(instance, costs, found))
                if sign * worth < sign * self.objective:
                    self.solution, self.objective = found, worth

    return Restarts


def warm_up(kind: type[Problem], make: Callable[[Instance, Costs, int], Search] | None = None) -> None:
    """Search a small instance for a moment: kernels are compiled, or read where they were before.

    ``make`` is the search, by default the problem's own.
    """
    make = kind.part("improve", "Search") if make is None else make
    usual: Any = kind()  # type: ignore[call-arg]  # every problem has a size by default
    instance = row(generate(usual, 1, 0), 0)
    search = make(instance, costs_within(instance), 0)
    for share in (0.0, 0.5, 1.0):
        search.advance(share, 1)


def searched(
    kind: type[Problem],
    instance: Instance,
    seconds: float,
    *,
    costs: Costs | None = None,
    seed: int = 0,
    chains: int | None = None,
    told: Told | None = None,
    target: float | None = None,
    make: Callable[[Instance, Costs, int], Search] | None = None,
) -> NDArray[np.int64]:
    """The best solution of ``instance`` that is found within ``seconds``, int64 ``[L]``, not padded.

    Args:
        kind: the problem.
        instance: its arrays; of how many nodes, the arrays say.
        seconds: time for searching; kernels are compiled or read before it begins to count.
        costs: what ways cost; by default as the instance's own arrays have it.
        seed: decides the searches, up to the moment at which the clock stops them.
        chains: searches beside each other, each on a thread; by default one for every core, up to 16.
        told: called with the seconds so far and the objective whenever that has become better.
        target: an objective that ends the search when it is reached, such as the optimum.
        make: the search, by default the problem's own.

    Raises:
        UserError: a problem without moves.
    """
    require_moves(kind)
    make = kind.part("improve", "Search") if make is None else make
    costs = costs_within(instance) if costs is None else costs
    warm_up(kind, make)
    begin, stop, lock = time.perf_counter(), Event(), Lock()
    best: list[Any] = [None, np.inf]
    sign = -1.0 if kind.maximise else 1.0

    def note(search: Search) -> None:
        with lock:
            if best[0] is None or sign * search.objective < best[1]:
                best[0], best[1] = search.solution.copy(), sign * search.objective
                if told is not None:
                    told(time.perf_counter() - begin, search.objective)
                if target is not None and best[1] <= sign * target:
                    stop.set()

    def chain(number: int) -> None:
        search: Search = make(instance, costs, int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        note(search)
        count = 1
        while not (search.finished or stop.is_set()):
            before = time.perf_counter()
            if before - begin >= seconds:
                break
            search.advance((before - begin) / seconds, count)
            took = time.perf_counter() - before
            count = max(1, min(2 * count, int(count * SLICE / max(took, 1e-6))))
            note(search)
        if search.finished:
            stop.set()  # what one has finished the others would find too

    count = min(os.cpu_count() or 1, MOST_CHAINS) if chains is None else chains
    if count == 1:
        chain(0)
    else:
        with ThreadPoolExecutor(count) as pool:
            waiting = [pool.submit(chain, number) for number in range(count)]
            try:
                for one in waiting:
                    one.result()
            finally:
                stop.set()
    found: NDArray[np.int64] = best[0]
    return found
