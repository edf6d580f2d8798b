"""Labelled sets: random instances with solutions to imitate, in one open file that says where it comes from.

A file is safetensors: the instances' arrays, ``solution`` int64 ``[B, L]`` padded with -1 and ``objective`` float64
``[B]``; its metadata, under ``rlkit``, is JSON with problem, settings, seed, solver, versions, and the SHA-256 of every
array.  Instance k of seed s is the k-th of :func:`rlkit.envs.combinatorial.base.generate`, and the solver's seed for it
is made from (s, k): the same call writes the same bytes, however many processes work on it, except with fast-tsp, which
has no seed and stops by the clock (its instances are the same, its tours nearly).

Whatever is read is checked, and before anything is taken into memory: what the metadata say, which are values for what
the problem declares and name no code, and the shape and type of every array; then hashes, every instance, that every
solution is feasible, and that its objective is what the file says.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rlkit import __version__
from rlkit.envs.combinatorial.base import Problem, generate, make_problem, require_number, require_whole, row
from rlkit.envs.combinatorial.solvers import Task, solve_chunk, solver_name, solver_version
from rlkit.errors import DataError, UserError
from rlkit.system.files import write_atomically
from rlkit.system.python import spawning

FORMAT = 1
CHUNK = 64  # instances per task of a process
MOST_HEADER = 1 << 20  # bytes; a real one has about two thousand
FIELDS = ("format", "problem", "settings", "size", "seed", "solver", "effort", "versions", "sha256")
TYPES: dict[Any, str] = {np.float64: "F64", np.int64: "I64"}  # as safetensors calls them


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
    with ProcessPoolExecutor(jobs, spawning()) as pool:
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
        solver: see :mod:`rlkit.envs.combinatorial.solvers`.
        effort: scales the time or iterations of a solver that is not exact.
        jobs: processes.
        progress: whether to show a bar.
        path: the file to write; by default one under :func:`labels_root` whose name tells all of these.
        settings: further arguments of the problem.

    Raises:
        UserError: arguments out of range, a solver that is not installed, or a file of that name that is another set.
    """
    _require_making(size, seed, effort)
    require_whole("labels", "jobs", jobs, 1, 2**16)
    rules = make_problem(problem, **({} if num_nodes is None else {"num_nodes": num_nodes}), **settings)
    solver = solver_name(rules, solver)
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
        made = _metadata(path)[1]
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

        parts = tqdm(parts, total=len(tasks), desc=f"{problem} labels", unit=f"x{CHUNK}", disable=None)
    solutions = np.concatenate(list(parts))
    arrays = {**instances, "solution": solutions, "objective": rules.objectives(instances, solutions)}
    metadata = {
        "format": FORMAT,
        **description,
        "versions": {"rlkit": __version__, "numpy": np.__version__, solver: solved_by},
        "sha256": {key: _digest(array) for key, array in arrays.items()},
    }
    write_atomically(path, save(arrays, {"rlkit": json.dumps(metadata, sort_keys=True)}))
    return path


def _file_name(description: dict[str, Any]) -> str:
    settings = dict(description["settings"])
    short = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]
    parts = (description["problem"], settings["num_nodes"], f"n{description['size']}", f"s{description['seed']}")
    return "-".join(map(str, (*parts, description["solver"], short))) + ".safetensors"


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _require_making(size: Any, seed: Any, effort: Any) -> None:
    """Raise UserError for what no set is made of."""
    require_whole("labels", "size", size, 1, 2**32)
    require_whole("labels", "seed", seed, 0, 2**32 - 1)
    require_number("labels", "effort", effort, 1e-6)


def _one_line(error: Exception) -> str:
    """What another library says, perhaps in the words of the file, as a part of a sentence."""
    text = " ".join(str(error).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:300]


def _metadata(path: Path) -> tuple[Problem, dict[str, Any]]:
    """The problem, and what the file says of its making, each value of the type and in the range that it must have."""
    try:
        with path.open("rb") as file:
            if int.from_bytes(file.read(8), "little") > MOST_HEADER:
                raise ValueError(f"its header is larger than {MOST_HEADER} bytes")
        with safe_open(path, "numpy") as tensors:
            found = json.loads((tensors.metadata() or {})["rlkit"])
        if not isinstance(found, dict):
            raise ValueError("its metadata are no mapping")
    except OSError as error:
        raise DataError(f"cannot read {path}: {_one_line(OSError(error.strerror or error))}") from None
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not a labelled set, or truncated ({_one_line(error)})") from None
    number = found.get("format")
    if type(number) is not int or number != FORMAT:
        shown = f"{str(number)[:20]} " if isinstance(number, int) else ""
        raise DataError(f"{path}: format version {shown}is unknown, this rlkit reads version {FORMAT}")
    try:
        if set(found) != set(FIELDS):
            raise UserError(f"expected the fields {', '.join(FIELDS)}")
        if not isinstance(found["problem"], str) or not isinstance(found["settings"], dict):
            raise UserError("'problem' is no name, or 'settings' no mapping")
        rules = make_problem(found["problem"], **found["settings"])
        _require_making(found["size"], found["seed"], found["effort"])
        if not isinstance(found["solver"], str):
            raise UserError("'solver' is no name")
        solver_name(rules, found["solver"])
        _require_words("versions", found["versions"], {"rlkit", "numpy", found["solver"]})
        _require_words("sha256", found["sha256"], set(_forms(rules)))
    except UserError as error:
        raise DataError(f"{path}: its metadata name no problem and making ({_one_line(error)})") from None
    return rules, found


def _require_words(name: str, found: Any, keys: set[str]) -> None:
    """Raise UserError unless ``found`` has the ``keys``, each with a short printable text."""
    whole = isinstance(found, dict) and set(found) == keys
    if not whole or not all(isinstance(v, str) and v.isprintable() and len(v) <= 64 for v in found.values()):
        raise UserError(f"expected texts in '{name}' for {', '.join(sorted(keys))}")


def _forms(rules: Problem) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape of a row, and type, of every array of a set."""
    return {**rules.shapes(), "solution": ((rules.solution_length,), np.int64), "objective": ((), np.float64)}


def read_labels(path: str | Path, problem: Problem | None = None) -> Labels:
    """The set in ``path``, every part of it checked.

    ``problem``, if given, must be what the set is for.  Raises DataError for a file that is unreadable, truncated or
    altered, whose metadata or arrays have another form than its problem's, for instances that are unsound, for
    solutions that are infeasible or for another instance, and for a set of another problem or size.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a labelled set")
    rules, metadata = _metadata(path)
    if problem is not None and (rules.name, rules.num_nodes) != (problem.name, problem.num_nodes):
        raise DataError(
            f"{path}: holds {rules.name} with {rules.num_nodes} nodes, expected {problem.name} with {problem.num_nodes}"
        )
    rows, forms, arrays = int(metadata["size"]), _forms(rules), {}
    try:
        with safe_open(path, "numpy") as file:
            names = set(file.keys())
            for key, (shape, kind) in forms.items():
                part = file.get_slice(key) if key in names else None
                if part is None or part.get_shape() != [rows, *shape] or part.get_dtype() != TYPES[kind]:
                    raise DataError(
                        f"{path}: '{key}' is missing or has another form, expected {rows} rows of shape {shape}"
                    )
            if names != set(forms):
                raise DataError(f"{path}: has {len(names)} arrays, expected {', '.join(forms)} alone")
            for key in forms:
                arrays[key] = file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a labelled set, or truncated ({_one_line(error)})") from None
    for key, array in arrays.items():
        if _digest(array) != metadata["sha256"][key]:
            raise DataError(f"{path}: '{key}' does not match its SHA-256 in the metadata; the file was altered")
    ended = arrays["solution"] < 0
    if (arrays["solution"] < -1).any() or (ended[:, :-1] & ~ended[:, 1:]).any():
        raise DataError(f"{path}: 'solution' holds numbers below -1, or goes on behind -1, which ends one")
    instances = {key: arrays[key] for key in rules.shapes()}
    try:
        for k in range(rows):
            rules.check(row(instances, k), f"instance {k}")
        objectives = rules.objectives(instances, arrays["solution"])
    except UserError as error:
        raise DataError(f"{path}: {_one_line(error)}") from None
    near = np.abs(objectives - arrays["objective"]) <= 1e-9 * np.maximum(1.0, np.abs(objectives))
    wrong = np.flatnonzero(~near)  # NaN is near nothing
    if len(wrong):
        k = wrong[0]
        raise DataError(
            f"{path}: solution {k} is worth {objectives[k]:.9g} in its instance, the file says "
            f"{arrays['objective'][k]:.9g}; the labels are for another instance"
        )
    return Labels(rules, instances, arrays["solution"], objectives, metadata)
