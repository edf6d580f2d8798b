"""One call from a file, an array or a problem's name to a good solution: :func:`solve`.

A method is ``search``, ``insertion``, an agent whose weights ship (``bq``, ``ptrnet``), or a solver of the problem's
``solvers.py``.  Which of them know a problem, the problem's own files say.  Whatever was used, the answer's length is
measured as the file's own lengths are, and its gap against the optimum that lies beside the file, if there is one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit import registry
from rlkit.envs.combinatorial.base import MOST_SQUARE, Problem, require_whole
from rlkit.envs.combinatorial.improvement import Told, improves, restarts, searched, warm_up
from rlkit.envs.combinatorial.solvers import Solver, solver_version
from rlkit.envs.combinatorial.solvers import solve as solve_by
from rlkit.envs.combinatorial.tasks import Task, read_task
from rlkit.envs.combinatorial.tsplib import Number
from rlkit.errors import UserError, nearest, shown

AGENTS = {"bq": "reduces", "ptrnet": "points"}  # and what a problem has that they solve
OWN = ("search", "insertion")
LEAST_SECONDS, MOST_SECONDS = 1e-3, 1e7
FIRST = 0.1  # of the seconds, that go into the solution whose parts bq solves again


@dataclass(frozen=True)
class Answer:
    """What :func:`solve` found.

    task: what was solved; solution: int64 ``[L]``, a tour from node 0, routes ``0 .. 0 .. 0``, items, or pointers,
    counted from 0; objective: its length, as the file measures lengths, or its prizes, value or share; method: what
    found it, and why: for ``auto`` a sentence; seconds: that it took; reference: the objective it is compared with, and
    against: whose that is.
    """

    task: Task
    solution: NDArray[np.int64]
    objective: Number
    method: str
    why: str
    seconds: float
    reference: Number | None = None
    against: str | None = None

    @property
    def gap(self) -> float | None:
        """How much worse than the reference, in percent of it; below 0 where better; None without one."""
        if self.reference is None:
            return None
        worse = self.reference - self.objective if self.task.kind.maximise else self.objective - self.reference
        if self.reference == 0:
            return 0.0 if worse == 0 else None
        return float(100.0 * worse / self.reference)

    def write(self, path: str | Path) -> None:
        """The solution as a file: ``.tour`` of TSPLIB's for tours, ``.sol`` of CVRPLIB's for routes.

        Raises UserError for another suffix, and where the disk refuses.
        """
        self.task.write(Path(path), self.solution, self.objective)

    def picture(self, path: str | Path) -> None:
        """The solution drawn as the problem draws it, ``.svg``, ``.png`` or ``.pdf``.

        Raises UserError for another suffix, nothing to draw by, and where the disk refuses.
        """
        self.task.draw(Path(path), self.solution, self.objective)


# ---- methods ---------------------------------------------------------------------------------------------------------


def methods_of(kind: type[Problem]) -> list[str]:
    """Methods that know the problem, ``auto`` aside."""
    found = list(OWN) if improves(kind) else []
    found += [agent for agent, has in AGENTS.items() if getattr(kind, has)]
    solvers: dict[str, Solver] = kind.part("solvers", "SOLVERS")
    return found + [name for name in solvers if name != "own" or not improves(kind)]


def installed(solver: str) -> bool:
    """Whether the package of ``solver`` is there."""
    try:
        solver_version(solver)
    except UserError:
        return False
    return True


def choose(task: Task, method: str) -> tuple[str, str]:
    """``(method, why)``, for ``auto`` the best one.  Raises UserError for one that does not know the problem."""
    known = methods_of(task.kind)
    if method != "auto":
        if method not in known:
            raise UserError(f"method '{method}' does not know {task.kind.name}{nearest(method, known)}")
        return method, "as asked"
    best = next(name for name in known if name not in OWN and name not in AGENTS)
    if best == "own":
        return best, "it is exact"
    if task.exact:
        return "search", "so few nodes are solved exactly"
    nodes, name = task.problem.num_nodes if task.problem is not None else task.rows, task.kind.name
    if nodes <= task.kind.part("improve", "AS_GOOD_UP_TO"):
        return "search", f"for {name} of so few nodes it does as well as any solver"
    better = task.kind.part("improve", "BETTER_FROM")
    if better is not None and nodes >= better:
        return "search", f"for {name} of so many nodes it does better than {best} in equal time"
    what = f"for {name} alone a solver is best, which is {best}"
    if task.rows > MOST_SQUARE:
        return "search", f"{what}, but it takes a matrix, too large for {task.rows} nodes"
    if not installed(best):
        return "search", f"{what}, but it is not installed (pip install 'rlkit-papers[labels]'); search is best without"
    return best, what


def solve(
    given: Any,
    problem: str | None = None,
    *,
    seconds: Number = 10.0,
    method: str = "auto",
    seed: int = 0,
    improve: bool = True,
    against: str | None = None,
    optimum: Number | None = None,
    rounded: bool | None = None,
    chains: int | None = None,
    told: Told | None = None,
    out: str | Path | None = None,
    picture: str | Path | None = None,
    **settings: Any,
) -> Answer:
    """A good solution of one instance.

    Args:
        given: the path of a file of TSPLIB's or CVRPLIB's (``.tsp``, ``.atsp``, ``.vrp``) or of coordinates (``.csv``,
            ``.txt``, ``.npy``); coordinates ``[n, 2]`` or a matrix of costs ``[n, n]``; a mapping of an instance's
            arrays, or of ``lon`` and ``lat``, degrees; what a reader of files returns; or the name of a problem, of
            which instance ``seed`` is drawn.
        problem: the problem of arrays; by default tsp for coordinates and atsp for a matrix.
        seconds: time for searching, above 0; methods without a clock take what they take, and a search ends sooner
            where the optimum is known and reached, or where nothing better has been found for long.
        method: ``search``, ``insertion``, ``bq``, ``ptrnet``, a solver's name, or ``auto``.
        seed: decides instances and searches, up to where the clock stops them.
        improve: whether what an agent or insertion gives is improved until no move helps.
        against: a method to compare with, given the same time.
        optimum: the best known objective; by default what lies beside a file: ``NAME.opt.tour``, ``NAME.sol``.
        rounded: whether a file's lengths are rounded; by default as its reader finds.
        chains: searches beside each other, one a thread; by default one for every core.
        told: called with seconds and objective whenever a search has found a better solution.
        out: file for the solution, see :meth:`Answer.write`; picture: see :meth:`Answer.picture`.
        settings: of the problem that is named, such as ``num_nodes=100``.

    Raises:
        UserError: an instance that is not sound, a number out of range, a method that does not know the problem, or a
            solver that is not installed.
    """
    require_seconds(seconds)
    seed = require_whole("solve", "seed", seed, 0, 2**32 - 1)
    if chains is not None:
        require_whole("solve", "chains", chains, 1, 2**10)
    task = read_task(given, problem, seed, optimum, rounded, settings)
    method, why = choose(task, method)
    if against is not None:
        choose(task, against)
    if out is not None:
        task.require_writable(Path(out))
    if picture is not None:
        task.require_drawable(Path(picture))
    limits: dict[str, Any] = {"seconds": float(seconds), "seed": seed, "improve": improve, "chains": chains}
    if method == "search":
        warm_up(task.kind)
    elif improves(task.kind) and method in (*OWN, *AGENTS):
        warm_up(task.kind, restarts(task.kind, improve))
    begin = time.perf_counter()
    solution = run(task, method, told=told, **limits)
    found = Answer(task, solution, task.measure(solution), method, why, time.perf_counter() - begin)
    reference, whose = task.optimum, task.source
    if against is not None:
        whose = choose(task, against)[0]
        reference = task.measure(run(task, whose, **limits))
    found = replace(found, reference=reference, against=whose)
    if out is not None:
        found.write(out)
    if picture is not None:
        found.picture(picture)
    return found


def require_seconds(seconds: Any) -> None:
    """Raise UserError unless ``seconds`` is a number of them that one can wait."""
    known = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not known or not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise UserError(
            f"seconds={shown(seconds)} is out of range, expected a number from {LEAST_SECONDS:g} to {MOST_SECONDS:g}"
        )


def run(
    task: Task,
    method: str,
    *,
    seconds: float,
    seed: int = 0,
    improve: bool = True,
    chains: int | None = None,
    told: Told | None = None,
) -> NDArray[np.int64]:
    """The solution of ``method``, int64 ``[L]`` without padding; arguments are those of :func:`solve`."""
    kind = task.kind
    if method in OWN:
        make = restarts(kind, improve) if method == "insertion" else None
        target = None if task.optimum is None else float(task.optimum)
        limits: dict[str, Any] = {"costs": task.costs, "seed": seed, "chains": chains, "told": told, "target": target}
        return searched(kind, task.instance, seconds, make=make, **limits)
    if method in AGENTS:
        agent = registry.agent_class(method).load(registry.shipped_weights(method, kind.name))
        given, further = task.benchmark if task.benchmark is not None else task.instance, {}
        if method == "bq" and improve and kind.device().piece_sizes(task.rows) is not None:
            first = run(task, "insertion", seconds=FIRST * seconds, seed=seed, chains=chains)
            further = {"reconstruct": (1.0 - FIRST) * seconds, "start": [first], "seed": seed}
        found = agent.solve(given, **further).solutions[0]
        if improve and improves(kind):
            found = task.improved(found)
    else:
        solver_version(method)
        if task.problem is None:
            raise UserError(f"method '{method}' takes no tour of {task.rows} nodes, expected search")
        found = solve_by(task.problem, task.for_solvers(), method, seed=seed, seconds=seconds)
    return found[found >= 0]
