"""Labelled sets: random instances with solutions to imitate, in one open file that says where it comes from.

A file is safetensors: the instances' arrays, ``solution`` int64 ``[B, L]`` padded with -1 and ``objective`` float64
``[B]``; its metadata, under ``rlkit``, is JSON with problem, settings, seed, solver, versions, and the SHA-256 of every
array.  Instance k of seed s is the k-th of :func:`rlkit.envs.combinatorial.generate`, and the solver's seed for it is
made from (s, k): the same call writes the same bytes, however many processes work on it, except with fast-tsp, which
has no seed and stops by the clock (its instances are the same, its tours nearly).

Whatever is read is checked: hashes, the form of every array, that every solution is feasible and its objective is what
the file says.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rlkit.envs.combinatorial import Problem, generate, make_problem, row
from rlkit.envs.label_solvers import Task, solve_chunk, solver_name, solver_version
from rlkit.errors import DataError, UserError

FORMAT = 1
CHUNK = 64  # instances per task of a process


@dataclass(frozen=True)
class Labels:
    """A labelled set as it was checked.

    instances: arrays by name, ``B`` rows each; solutions: int64 ``[B, L]`` padded with -1; objectives: float64 ``[B]``;
    metadata: what the file says of its making.
    """

    problem: Problem
    instances: dict[str, NDArray[Any]]
    solutions: NDArray[np.int64]
    objectives: NDArray[np.float64]
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.objectives)


def labels_root() -> Path:
    """Where sets are kept: ``$RLKIT_LABELS_PATH``, or ``~/.cache/rlkit/labels``."""
    return Path(os.environ.get("RLKIT_LABELS_PATH", "~/.cache/rlkit/labels")).expanduser()


def _results(tasks: list[Task], jobs: int) -> Iterator[NDArray[np.int64]]:
    if jobs == 1:
        yield from map(solve_chunk, tasks)
        return
    # a process of its own start: one forked from a program with numba's or torch's threads may hang
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(solve_chunk, tasks)


def make_labels(
    problem: str,
    *,
    num_nodes: int | None = None,
    size: int = 1000,
    seed: int = 0,
    solver: str | None = None,
    effort: float = 1.0,
    jobs: int = 1,
    progress: bool = False,
    path: str | Path | None = None,
    **settings: Any,
) -> Path:
    """Generate and solve ``size`` instances; returns the file, which is made only if it is not there yet.

    Args:
        problem: "tsp", "atsp", "cvrp", "op", "knapsack", "convex-hull" or "delaunay".
        num_nodes: nodes of an instance, by default the problem's own.
        size: instances.
        seed: of the instances, and of the solver where it takes one.
        solver: see :mod:`rlkit.envs.label_solvers`.
        effort: scales the time or iterations of a solver that is not exact.
        jobs: processes.
        progress: whether to show a bar.
        path: the file to write; by default one under :func:`labels_root` whose name tells all of these.
        settings: further arguments of the problem.

    Raises:
        UserError: arguments out of range, a solver that is not installed, or a file of that name that is another set.
    """
    for what, value in (("size", size), ("jobs", jobs), ("effort", effort)):
        if not value > 0:
            raise UserError(f"{what}={value} is out of range, expected a number above 0")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} is out of range, expected a whole number from 0 to {2**32 - 1}")
    rules = make_problem(problem, **({} if num_nodes is None else {"num_nodes": num_nodes}), **settings)
    solver = solver_name(problem, solver)
    description = {
        "problem": problem,
        "settings": rules.settings(),
        "size": size,
        "seed": seed,
        "solver": solver,
        "effort": effort,
    }
    path = labels_root() / _file_name(description) if path is None else Path(path)
    if path.exists():
        made = _metadata(path)
        if {key: made.get(key) for key in description} != description:
            raise UserError(f"{path} exists and holds another set, expected another name; nothing was overwritten")
        return path
    solved_by = solver_version(solver)
    instances = generate(rules, size, seed)
    tasks: list[Task] = [
        (problem, rules.settings(), seed, start, min(CHUNK, size - start), solver, effort)
        for start in range(0, size, CHUNK)
    ]
    parts = _results(tasks, min(jobs, len(tasks)))
    if progress:
        from tqdm import tqdm

        parts = tqdm(parts, total=len(tasks), desc=f"{problem} labels", unit=f"x{CHUNK}")
    solutions = np.concatenate(list(parts))
    arrays = {**instances, "solution": solutions, "objective": rules.objectives(instances, solutions)}
    metadata = {
        "format": FORMAT,
        **description,
        "versions": {"rlkit": version("rlkit"), "numpy": np.__version__, solver: solved_by},
        "sha256": {key: _digest(array) for key, array in arrays.items()},
    }
    from rlkit.checkpoint import write_atomically  # here, because it loads torch

    write_atomically(path, save(arrays, {"rlkit": json.dumps(metadata, sort_keys=True)}))
    return path


def _file_name(description: dict[str, Any]) -> str:
    settings = dict(description["settings"])
    short = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]
    parts = (description["problem"], settings["num_nodes"], f"n{description['size']}", f"s{description['seed']}")
    return "-".join(map(str, (*parts, description["solver"], short))) + ".safetensors"


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _metadata(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "numpy") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {})["rlkit"])
        if found["format"] != FORMAT:
            raise DataError(f"{path}: format version {found['format']!r} is unknown, this rlkit reads version {FORMAT}")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a labelled set, or truncated ({error})") from None
    return found


def read_labels(path: str | Path, problem: Problem | None = None) -> Labels:
    """The set in ``path``, every part of it checked.

    ``problem``, if given, must be what the set is for.  Raises DataError for a file that is unreadable, truncated or
    altered, for instances that are unsound, for solutions that are infeasible or for another instance, and for a set of
    another problem or size.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a labelled set")
    metadata = _metadata(path)
    try:
        rules = make_problem(metadata["problem"], **metadata["settings"])
        hashes = dict(metadata["sha256"])
    except (KeyError, TypeError, UserError) as error:
        raise DataError(f"{path}: its metadata name no problem ({error})") from None
    if problem is not None and (rules.name, rules.num_nodes) != (problem.name, problem.num_nodes):
        raise DataError(
            f"{path}: holds {rules.name} with {rules.num_nodes} nodes, expected {problem.name} with {problem.num_nodes}"
        )
    try:
        with safe_open(path, "numpy") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no dict
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a labelled set, or truncated ({error})") from None
    expected = {key: (tuple(shape), kind) for key, (shape, kind) in rules.shapes().items()}
    expected |= {"solution": ((rules.solution_length,), np.int64), "objective": ((), np.float64)}
    rows = len(arrays["objective"]) if "objective" in arrays else 0
    for key, (shape, kind) in expected.items():
        if key not in arrays or arrays[key].shape != (rows, *shape) or arrays[key].dtype != kind:
            raise DataError(f"{path}: '{key}' is missing or has another form, expected {rows} rows of shape {shape}")
        if _digest(arrays[key]) != hashes.get(key):
            raise DataError(f"{path}: '{key}' does not match its SHA-256 in the metadata; the file was altered")
    instances = {key: arrays[key] for key in rules.shapes()}
    try:
        for k in range(rows):
            rules.check(row(instances, k), f"instance {k}")
        objectives = rules.objectives(instances, arrays["solution"])
    except UserError as error:
        raise DataError(f"{path}: {error}") from None
    wrong = np.flatnonzero(np.abs(objectives - arrays["objective"]) > 1e-9 * np.maximum(1.0, np.abs(objectives)))
    if len(wrong):
        k = wrong[0]
        raise DataError(
            f"{path}: solution {k} is worth {objectives[k]:.9g} in its instance, the file says "
            f"{arrays['objective'][k]:.9g}; the labels are for another instance"
        )
    return Labels(rules, instances, arrays["solution"], objectives, metadata)
