"""Benchmark files: TSPLIB read here, CVRPLIB through vrplib (extra ``labels``).

TSPLIB's lengths are whole numbers with a rounding of their own for every type of edge (Reinelt 1991, TSPLIB 95), and
published optima hold for those only: :meth:`Benchmark.length` measures with them, while ``instance``, what an agent
sees, is scaled to the unit square and not rounded.  vrplib reads CVRPLIB well, but returns unrounded lengths for TSPLIB
and refuses several of its formats.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial import Problem, make_problem
from rlkit.envs.solvers import distances
from rlkit.errors import DataError

Array = NDArray[np.float64]
GEO_RADIUS, GEO_PI = 6378.388, 3.141592  # km, and TSPLIB's own pi
FORMATS = {  # entries of EDGE_WEIGHT_SECTION as (row, column); the two triangles are each other's transposes
    "UPPER_ROW": (1, False),
    "LOWER_COL": (1, False),
    "UPPER_DIAG_ROW": (0, False),
    "LOWER_DIAG_COL": (0, False),
    "LOWER_ROW": (1, True),
    "UPPER_COL": (1, True),
    "LOWER_DIAG_ROW": (0, True),
    "UPPER_DIAG_COL": (0, True),
}


@dataclass(frozen=True)
class Benchmark:
    """One file.

    problem: the name of the problem it is an instance of, "atsp" also for symmetric costs without coordinates;
    instance: arrays for that problem's environment, coordinates moved and scaled into the unit square, costs divided by
    the largest; costs: int64 ``[n, n]``, the official lengths; optimum: if the file or its reader knows it.
    """

    name: str
    problem: str
    instance: dict[str, NDArray[Any]]
    costs: NDArray[np.int64]
    optimum: int | None = None

    def length(self, solution: NDArray[np.int64]) -> int:
        """Official length of a solution: a tour, closed here, or CVRP's ``0 .. 0``, padded or not."""
        visited = solution[solution >= 0]
        return int(self.costs[visited, np.roll(visited, -1)].sum())

    def make_problem(self) -> Problem:
        """The problem at this size."""
        return make_problem(self.problem, num_nodes=len(self.costs) - (self.problem == "cvrp"))


# ---- lengths ---------------------------------------------------------------------------------------------------------


def _round(values: Array) -> NDArray[np.int64]:
    return np.floor(values + 0.5).astype(np.int64)


def _att(coords: Array) -> NDArray[np.int64]:
    exact = distances(coords) / np.sqrt(10.0)
    rounded = _round(exact)
    return rounded + (rounded < exact)


def _geo(coords: Array) -> NDArray[np.int64]:
    degrees = np.trunc(coords)
    radians = GEO_PI * (degrees + 5.0 * (coords - degrees) / 3.0) / 180.0  # the fraction counts minutes
    latitude, longitude = radians.T
    q1 = np.cos(longitude[:, None] - longitude)
    q2 = np.cos(latitude[:, None] - latitude)
    q3 = np.cos(latitude[:, None] + latitude)
    inner = np.clip(0.5 * ((1.0 + q1) * q2 - (1.0 - q1) * q3), -1.0, 1.0)
    return np.trunc(GEO_RADIUS * np.arccos(inner) + 1.0).astype(np.int64)


LENGTHS = {
    "EUC_2D": lambda coords: _round(distances(coords)),
    "CEIL_2D": lambda coords: np.ceil(distances(coords)).astype(np.int64),
    "ATT": _att,
    "GEO": _geo,
}


def official_costs(kind: str, coords: Array) -> NDArray[np.int64]:
    """TSPLIB's whole-number lengths ``[n, n]`` of ``coords [n, 2]``; ``kind``: EUC_2D, CEIL_2D, ATT or GEO."""
    costs: NDArray[np.int64] = LENGTHS[kind](coords)
    np.fill_diagonal(costs, 0)
    return costs


def _matrix(numbers: Array, n: int, form: str, path: Path) -> NDArray[np.int64]:
    if form == "FULL_MATRIX":
        if len(numbers) != n * n:
            raise DataError(
                f"{path}: EDGE_WEIGHT_SECTION has {len(numbers)} numbers, expected {n} x {n}: a square matrix"
            )
        costs = numbers.reshape(n, n).astype(np.int64)
    elif form in FORMATS:
        offset, lower = FORMATS[form]
        rows, columns = np.tril_indices(n, -offset) if lower else np.triu_indices(n, offset)
        if len(numbers) != len(rows):
            raise DataError(f"{path}: EDGE_WEIGHT_SECTION has {len(numbers)} numbers, expected {len(rows)} for {form}")
        costs = np.zeros((n, n), np.int64)
        costs[rows, columns] = costs[columns, rows] = numbers.astype(np.int64)
    else:
        raise DataError(f"{path}: EDGE_WEIGHT_FORMAT '{form}' is not known, expected FULL_MATRIX or a triangle")
    np.fill_diagonal(costs, 0)  # files write 0, 9999 or 100000000 there, all meaning nothing
    return costs


# ---- reading ---------------------------------------------------------------------------------------------------------


def _parse(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """``(header, sections)``: values by key, and the words of every section."""
    try:
        text = path.read_text(encoding="ascii", errors="strict")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text file, expected TSPLIB's format") from None
    header: dict[str, str] = {}
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] == "EOF":
            continue
        key = words[0].rstrip(":")
        if key.endswith("_SECTION"):
            current = sections.setdefault(key, [])
        elif key[0].isalpha() and ":" in line:
            current = None
            name, _, value = line.partition(":")
            header[name.strip()] = value.strip()
        elif current is None:
            raise DataError(
                f"{path}: '{line.strip()[:40]}' is neither KEY: VALUE nor in a section, expected TSPLIB's format"
            )
        else:
            current += words
    return header, sections


def _numbers(words: list[str], path: Path, section: str) -> Array:
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise DataError(f"{path}: {section} holds what is not a number ({error})") from None


def _dimension(header: dict[str, str], path: Path) -> int:
    text = header.get("DIMENSION", "")
    if not text.isdigit() or int(text) < 3:
        raise DataError(f"{path}: DIMENSION is '{text}', expected a whole number of at least 3")
    return int(text)


def _coords(words: list[str], n: int, path: Path) -> Array:
    numbers = _numbers(words, path, "NODE_COORD_SECTION")
    if len(numbers) != 3 * n:
        raise DataError(f"{path}: NODE_COORD_SECTION has {len(numbers)} numbers, expected {n} lines of 3")
    return numbers.reshape(n, 3)[:, 1:]


def _unit(coords: Array) -> Array:
    return (coords - coords.min(axis=0)) / max(float(np.ptp(coords, axis=0).max()), np.finfo(np.float64).tiny)


def read_tsplib(path: str | Path, optimum: int | None = None) -> Benchmark:
    """A TSPLIB file of TYPE TSP or ATSP with edges EUC_2D, CEIL_2D, ATT, GEO or EXPLICIT.

    Raises DataError for a file that cannot be read, or is of another type or not whole.
    """
    path = Path(path)
    header, sections = _parse(path)
    kind, edges = header.get("TYPE", "").split(" ")[0], header.get("EDGE_WEIGHT_TYPE", "")
    if kind not in ("TSP", "ATSP"):
        raise DataError(f"{path}: TYPE is '{kind}', expected TSP or ATSP")
    n, name = _dimension(header, path), header.get("NAME", path.stem)
    if edges == "EXPLICIT":
        numbers = _numbers(sections.get("EDGE_WEIGHT_SECTION", []), path, "EDGE_WEIGHT_SECTION")
        costs = _matrix(numbers, n, header.get("EDGE_WEIGHT_FORMAT", ""), path)
        instance = {"cost": costs / max(int(costs.max()), 1)}
        problem = "atsp"
    elif edges in LENGTHS:
        coords = _coords(sections.get("NODE_COORD_SECTION", []), n, path)
        costs, instance, problem = official_costs(edges, coords), {"coords": _unit(coords)}, "tsp"
    else:
        raise DataError(f"{path}: EDGE_WEIGHT_TYPE '{edges}' is not known, expected EXPLICIT, {', '.join(LENGTHS)}")
    return Benchmark(name, problem, instance, costs, optimum)


def read_tour(path: str | Path) -> NDArray[np.int64]:
    """The tour of a TSPLIB file of TYPE TOUR, counted from 0.  Raises DataError where it is none."""
    path = Path(path)
    _, sections = _parse(path)
    numbers = _numbers(sections.get("TOUR_SECTION", []), path, "TOUR_SECTION")
    tour = numbers[: int(np.argmax(numbers == -1)) if (numbers == -1).any() else None].astype(np.int64) - 1
    if not len(tour) or not np.array_equal(np.sort(tour), np.arange(len(tour))):
        raise DataError(f"{path}: TOUR_SECTION is no permutation of the nodes")
    return tour


def read_cvrplib(path: str | Path, solution: str | Path | None = None) -> Benchmark:
    """A CVRPLIB file, and its optimum from a ``.sol`` file.  Lengths are rounded, as those of the X and A sets are.

    Raises DataError where vrplib is not installed, or for a file that it cannot read or that is no CVRP in the plane.
    """
    try:
        vrplib: Any = importlib.import_module("vrplib")
    except ImportError:
        raise DataError("reading CVRPLIB files needs vrplib: pip install 'rlkit[labels]'") from None
    path = Path(path)
    try:
        found = vrplib.read_instance(path, compute_edge_weights=False)
        optimum = None if solution is None else int(vrplib.read_solution(solution)["cost"])
        coords, demand = np.asarray(found["node_coord"], np.float64), np.asarray(found["demand"], np.int64)
        capacity, depot = int(found["capacity"]), int(np.asarray(found["depot"]).reshape(-1)[0])
    except OSError as error:
        raise DataError(f"cannot read {error.filename or path}: {error.strerror}") from None
    except Exception as error:  # vrplib has no errors of its own
        raise DataError(f"{path}: not a CVRPLIB instance in the plane ({type(error).__name__}: {error})") from None
    if depot != 0:
        raise DataError(f"{path}: the depot is node {depot + 1}, expected the first")
    arrays = {"coords": _unit(coords), "demand": demand, "capacity": np.array(capacity, np.int64)}
    return Benchmark(str(found.get("name", path.stem)), "cvrp", arrays, official_costs("EUC_2D", coords), optimum)
