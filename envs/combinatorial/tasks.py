"""What is to be solved, out of whatever form it comes in: a file, coordinates, a matrix, arrays, a problem's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import (
    LARGEST,
    MOST_NODES,
    MOST_SQUARE,
    PROBLEMS,
    Problem,
    generate,
    make_problem,
    problem_kinds,
    row,
)
from rlkit.envs.combinatorial.costs import Costs, costs_of_file, costs_within
from rlkit.envs.combinatorial.drawing import pictures, require_picture
from rlkit.envs.combinatorial.improvement import improves
from rlkit.envs.combinatorial.tsp.files import read_tour
from rlkit.envs.combinatorial.tsplib import (
    GREAT_CIRCLE,
    Benchmark,
    Number,
    is_plain,
    quoted,
    seen_flat,
    text_lines,
)
from rlkit.errors import DataError, UserError, nearest, shown
from rlkit.system.files import write_atomically

TABLES = (".csv", ".txt", ".npy")  # of coordinates
AXES = (("x",), ("y",))  # what a header calls the two
GLOBE = (("lon", "lng", "long", "longitude"), ("lat", "latitude"))  # and where they are degrees
MOST_DEGREES = (360.0, 90.0)


@dataclass(frozen=True)
class Task:
    """One instance.

    name: of the file or problem; kind: the problem; instance: its arrays; costs: between nodes, as the file has them,
    None where nothing is travelled; benchmark: the file; optimum: the best known objective, and source: who says so.
    """

    name: str
    kind: type[Problem]
    instance: dict[str, NDArray[Any]]
    costs: Costs | None = None
    benchmark: Benchmark | None = None
    optimum: Number | None = None
    source: str | None = None

    @cached_property
    def problem(self) -> Problem | None:
        """The problem at this size; None of tours with one city or two, which are no problem."""
        usual: Any = self.kind()  # type: ignore[call-arg]  # every problem has a size by default
        nodes = self.rows - usual.num_points + usual.num_nodes
        return usual.resized(nodes) if nodes >= usual.least else None

    @property
    def rows(self) -> int:
        """Nodes with the depot, or items."""
        return self.costs.nodes if self.costs is not None else len(next(iter(self.instance.values())))

    @property
    def exact(self) -> bool:
        """Whether the problem's own search is exact for so few nodes."""
        nodes = self.rows if self.problem is None else self.problem.num_nodes
        return improves(self.kind) and nodes <= int(self.kind.part("improve", "MOST_EXACT"))

    @property
    def word(self) -> str:
        """What is measured."""
        return "objective" if self.kind.maximise else "length"

    @property
    def unit(self) -> str:
        """Of the length, with a blank before it; nothing where it is the numbers' own."""
        return " km" if self.benchmark is not None and self.benchmark.kind == GREAT_CIRCLE else ""

    @property
    def nodes(self) -> str:
        """How many of what, for a sentence."""
        return f"{self.rows} nodes" if self.costs is not None else f"{self.rows} rows"

    def measure(self, solution: NDArray[np.int64]) -> Number:
        """The objective of ``solution``.  Raises UserError where it is none under the problem's rules."""
        if self.problem is None:
            assert self.costs is not None
            length = self.costs.along(np.append(solution, solution[0]))
            return int(length) if self.benchmark is not None and self.benchmark.rounded else length
        arrays = self.instance
        if not set(self.problem.shapes()) <= set(arrays):  # lengths are explicit; visits and loads are checked alone
            arrays = {"coords": np.zeros((self.rows, 2)), **arrays}
        found = self.problem.objective(arrays, solution)
        return found if self.benchmark is None else self.benchmark.length(solution)

    def improved(self, solution: NDArray[np.int64]) -> NDArray[np.int64]:
        """``solution``, perhaps padded, moved to a local optimum."""
        assert self.costs is not None
        many = {key: value[None] for key, value in self.instance.items()}
        costs = self.costs._replace(array=self.costs.array[None])
        found: NDArray[np.int64] = self.kind.part("improve", "improve")(many, costs, solution[None])[0]
        return found

    def for_solvers(self) -> dict[str, NDArray[Any]]:
        """The instance with the matrix of its file's lengths.  Raises UserError where that would be too large."""
        if self.costs is not None and self.rows > MOST_SQUARE:
            raise UserError(
                f"{self.name} has {self.rows} nodes, expected at most {MOST_SQUARE} for a solver that takes a matrix; "
                "method=search takes more"
            )
        if self.benchmark is None:
            return self.instance
        return {**self.instance, "cost": np.asarray(self.benchmark.costs, np.float64)}

    def write(self, path: Path, solution: NDArray[np.int64], objective: Number) -> None:
        """Write the solution in the problem's own format."""
        writers = self.kind.writers()
        self.require_writable(path)
        writers[path.suffix](path, self.name, solution, objective)

    def require_writable(self, path: Path) -> None:
        """Raise UserError for a path that :meth:`write` would not take."""
        writers = self.kind.writers()
        if not writers:
            raise UserError(f"solutions of {self.kind.name} have no format of files, expected no out")
        if path.suffix not in writers or path.is_dir():
            raise UserError(f"{path} is no file for a solution of {self.kind.name}, expected {' or '.join(writers)}")

    def draw(self, path: Path, solution: NDArray[np.int64], objective: Number) -> None:
        """Draw the solution into ``path``."""
        self.require_drawable(path)
        arrays = self.instance
        if "coords" not in arrays and self.benchmark is not None and self.benchmark.coords is not None:
            arrays = {"coords": self.benchmark.coords[:, :2], **arrays}
        held = pictures(self.kind, [(arrays, solution.tolist(), float(objective))], path.suffix)
        write_atomically(path, held)

    def require_drawable(self, path: Path) -> None:
        """Raise UserError for a path that :meth:`draw` would not take, or where there is nothing to draw by."""
        require_picture(path)
        places = self.benchmark is not None and self.benchmark.coords is not None
        if not places and not {"coords", "cost", "weight"} & set(self.instance):
            raise UserError(f"{self.name} has lengths and no coordinates, expected some to draw by")


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_task(
    given: Any,
    problem: str | None = None,
    seed: int = 0,
    optimum: Number | None = None,
    rounded: bool | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Task:
    """``given`` as :func:`rlkit.envs.combinatorial.solving.solve` takes it.

    Raises UserError for what is none of these, and for instances that are not sound.
    """
    if problem is not None and problem not in PROBLEMS:
        raise UserError(f"unknown problem {shown(problem)}{nearest(str(problem), PROBLEMS)}")
    _positive(optimum)
    named = isinstance(given, (str, Path))
    if isinstance(given, str) and given in PROBLEMS and not Path(given).exists():
        return _drawn(given, problem, seed, optimum, settings or {})
    if settings:
        raise UserError(f"'{next(iter(settings))}' is a setting of a problem that is named, expected one like tsp")
    if rounded is not None and not named:
        raise UserError("rounded is for files, whose lengths may be, expected a path beside it")
    if named:
        return _file(Path(given), problem, optimum, rounded)
    if isinstance(given, Benchmark):
        return _benchmark(given, problem, optimum, None if given.optimum is None else "its optimum")
    return _arrays(given, problem, optimum, "instance")


def _drawn(name: str, problem: str | None, seed: int, optimum: Number | None, settings: Mapping[str, Any]) -> Task:
    if problem not in (None, name):
        raise UserError(f"problem={problem} contradicts {name}, expected one of them")
    rules = make_problem(name, **settings)
    instance = row(generate(rules, 1, seed), 0)
    costs = costs_within(instance) if improves(type(rules)) else None
    return Task(f"{name}-{rules.num_nodes}-s{seed}", type(rules), instance, costs, None, optimum, _given(optimum))


def _positive(optimum: Number | None) -> None:
    if optimum is not None and not 0 <= optimum <= LARGEST:
        raise UserError(f"optimum={optimum} is out of range, expected a length of at least 0")


def _given(optimum: Number | None) -> str | None:
    return None if optimum is None else "the optimum given"


def _file(path: Path, problem: str | None, optimum: Number | None, rounded: bool | None) -> Task:
    readers = {suffix: reader for kind in problem_kinds() for suffix, reader in kind.readers().items()}
    suffix = path.suffix.lower()
    if suffix in TABLES:
        if rounded is not None:
            raise UserError(f"{path}: coordinates have no rule of rounding, expected no rounded")
        coords, degrees = read_coordinates(path)
        if degrees and problem in (None, _toured().name):
            return _globe(path.stem, coords, optimum)
        return _arrays(coords, problem, optimum, str(path), path.stem)
    if suffix not in readers:
        if not path.exists():
            raise UserError(f"no file and no problem is called {shown(str(path))}{nearest(str(path), PROBLEMS)}")
        raise UserError(f"{path}: expected a file ending in {', '.join((*readers, *TABLES))}")
    beside = [path.with_suffix(end) for end in (".opt.tour", ".sol")]
    tour, routes = (found if found.is_file() else None for found in beside)
    options: dict[str, Any] = {"rounded": rounded}
    if suffix == ".vrp":
        found = readers[suffix](path, routes, **options)
        source = None if found.optimum is None else "its comment" if routes is None else routes.name
    else:
        found, source = readers[suffix](path, optimum, **options), None
        if tour is not None and optimum is None:
            order = read_tour(tour)
            if len(order) != found.nodes:
                raise DataError(f"{tour}: has {len(order)} nodes, expected the {found.nodes} of {path}")
            return _benchmark(found, problem, found.length(order), tour.name)
    return _benchmark(found, problem, optimum, _given(optimum) or source)


def _toured() -> type[Problem]:
    """The problem of tours of places."""
    return next(kind for kind in problem_kinds() if kind.permutes and set(kind().shapes()) == {"coords"})  # type: ignore[call-arg]


def _globe(name: str, degrees: NDArray[np.float64], optimum: Number | None) -> Task:
    """A tour of places ``[n, 2]``, longitude and latitude, by great circles."""
    instance = {"coords": seen_flat(degrees)}
    found = Benchmark(name, _toured().name, instance, GREAT_CIRCLE, degrees, rounded=False, optimum=optimum)
    return _benchmark(found, None, optimum, _given(optimum))


def _degrees(given: Mapping[str, Any], where: str) -> NDArray[np.float64] | None:
    """Longitudes and latitudes ``[n, 2]`` where these are the arrays of ``given``; None for others."""
    named = _named([str(key) for key in given])
    if len(given) != 2 or named is None or not named[1]:
        return None
    keys = list(given)
    try:
        columns = [np.asarray(given[keys[k]], np.float64) for k in named[0]]
    except (TypeError, ValueError):
        columns = []
    if len(columns) != 2 or columns[0].ndim != 1 or columns[0].shape != columns[1].shape or not len(columns[0]):
        raise UserError(f"{where}: {' and '.join(map(str, keys))} are expected to be two lists of as many numbers")
    for column, most in zip(columns, MOST_DEGREES, strict=True):
        wrong = np.flatnonzero(~(np.abs(column) <= most))
        if len(wrong):
            raise UserError(f"{where}: {column[wrong[0]]:g} is no {_axis(most)}, expected at most {most:g} degrees")
    return np.column_stack(columns)


def _axis(most: float) -> str:
    return "latitude" if most == MOST_DEGREES[1] else "longitude"


def _benchmark(found: Benchmark, problem: str | None, optimum: Number | None, source: str | None) -> Task:
    if problem not in (None, found.problem):
        raise UserError(f"{found.name}: is an instance of {found.problem}, expected problem={found.problem}")
    best = found.optimum if optimum is None else optimum
    kind = type(make_problem(found.problem))
    source = source if best is not None else None
    return Task(found.name, kind, dict(found.instance), costs_of_file(found), found, best, source)


def _arrays(given: Any, problem: str | None, optimum: Number | None, where: str, name: str | None = None) -> Task:
    if not isinstance(given, Mapping):
        given = _bare(given, problem, where)
    elif problem in (None, _toured().name) and (degrees := _degrees(given, where)) is not None:
        return _globe(name or f"tsp-{len(degrees)}", degrees, optimum)
    kinds = [kind for kind in problem_kinds() if problem in (None, kind.name)]
    fitting = [kind for kind in kinds if set(kind().shapes()) == set(given)]  # type: ignore[call-arg]
    if not fitting:
        wanted = " or ".join(", ".join(kind().shapes()) for kind in kinds)  # type: ignore[call-arg]
        raise UserError(f"{where}: has arrays {', '.join(map(str, given))}, expected {wanted}")
    kind = fitting[0]
    usual: Any = kind()  # type: ignore[call-arg]
    key, (shape, _) = next(iter(usual.shapes().items()))
    try:
        first = np.asarray(given[key], np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where}: '{key}' is not an array of numbers") from None
    if first.ndim != len(shape) or not len(first):
        raise UserError(f"{where}: '{key}' has shape {first.shape}, expected one instance with {len(shape)} axes")
    nodes = len(first) - usual.num_points + usual.num_nodes
    if nodes < usual.least and usual.permutes:
        found = {key: _few(first, key, where)}
    else:
        found = usual.resized(nodes).check(given, where)
    costs = costs_within(found) if improves(kind) else None
    return Task(name or f"{kind.name}-{nodes}", kind, found, costs, None, optimum, _given(optimum))


def _few(array: NDArray[np.float64], key: str, where: str) -> NDArray[np.float64]:
    """The points or costs of one city or two, which no problem of ours checks."""
    side = 2 if key == "coords" else len(array)
    if array.shape != (len(array), side):
        raise UserError(f"{where}: '{key}' has shape {array.shape}, expected ({len(array)}, {side})")
    if not (np.abs(array) <= LARGEST).all():
        raise UserError(f"{where}: '{key}' holds numbers that are not finite or beyond {LARGEST:g}")
    if key != "coords" and ((array < 0).any() or np.diagonal(array).any()):
        raise UserError(f"{where}: '{key}' must be zero on the diagonal and nowhere negative")
    return np.ascontiguousarray(array)


def _bare(given: Any, problem: str | None, where: str) -> dict[str, Any]:
    """An array of coordinates or of costs, by its shape."""
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {shown(given)} is not an array of numbers, expected [n, 2] or [n, n]") from None
    for kind in problem_kinds():
        usual: Any = kind()  # type: ignore[call-arg]
        shapes = usual.shapes()
        if kind.name == problem and len(shapes) > 1:
            raise UserError(f"{where}: {kind.name} has several arrays, expected a mapping of {', '.join(shapes)}")
        if problem not in (None, kind.name) or len(shapes) > 1 or not array.ndim or not array.size:
            continue
        key, (shape, _) = next(iter(shapes.items()))
        if array.shape == tuple(len(array) if side == usual.num_points else side for side in shape):
            return {key: array}
    raise UserError(f"{where}: has shape {array.shape}, expected coordinates [n, 2] or costs [n, n]")


# ---- coordinates -----------------------------------------------------------------------------------------------------


def read_coordinates(path: str | Path) -> tuple[NDArray[np.float64], bool]:
    """Coordinates ``[n, 2]`` of a table, one city a line, with commas, semicolons, tabs or blanks between numbers, and
    whether they are degrees of longitude and latitude.

    A first line that is not all numbers is a header; with more columns than two it names x and y, or lon and lat.
    Other lines that begin with # are remarks.  ``.npy`` is NumPy's format.  Raises DataError where a number is missing,
    is none, is not finite or is no degree where a header says so.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return _read_npy(path), False
    places: list[tuple[float, float]] = []
    columns, pick, degrees, begun = 2, (0, 1), False, False
    for number, text in text_lines(path):
        where = f"{path}:{number}"
        words = _cells(text)
        remark = text.startswith("#")
        if remark and (begun or _named(words) is None):
            continue
        if not begun and not all(map(is_plain, words)):
            columns, (pick, degrees), begun = len(words), _axes(words, where), True
            continue
        begun = True
        if len(words) != columns:
            raise DataError(f"{where}: has {len(words)} column{'s' * (len(words) > 1)}, expected {columns}")
        if len(places) == MOST_NODES:
            raise DataError(f"{path}: has more than {MOST_NODES} cities")
        places.append(_place([words[k] for k in pick], degrees, where))
    if not places:
        raise DataError(f"{path}: holds no coordinates, expected a line for every city")
    return np.array(places), degrees


def _place(words: list[str], degrees: bool, where: str) -> tuple[float, float]:
    for word, most in zip(words, MOST_DEGREES, strict=True):
        if not is_plain(word) or not abs(float(word)) <= LARGEST:
            raise DataError(f"{where}: {quoted(word)} is no coordinate, expected finite numbers")
        if degrees and not abs(float(word)) <= most:
            raise DataError(
                f"{where}: {quoted(word)} is no {_axis(most)}, expected at most {most:g} degrees; a header "
                "of x and y has distances in a plane"
            )
    return float(words[0]), float(words[1])


def _cells(text: str) -> list[str]:
    mark = next((mark for mark in (",", ";", "\t") if mark in text), None)
    return [word.strip().strip("\"'") for word in text.lstrip("#").split(mark)]


def _named(words: list[str]) -> tuple[tuple[int, int], bool] | None:
    """Which columns a header calls x and y, or longitude and latitude, and whether it is these; None for others."""
    names = [word.casefold() for word in words]
    for axes in (AXES, GLOBE):
        found = [[k for k, name in enumerate(names) if name in axis] for axis in axes]
        if all(len(places) == 1 for places in found):
            return (found[0][0], found[1][0]), axes is GLOBE
    return None


def _axes(words: list[str], where: str) -> tuple[tuple[int, int], bool]:
    """:func:`_named`, or the first columns of two."""
    named = _named(words)
    if named is None and len(words) != 2:
        raise DataError(
            f"{where}: has {len(words)} column{'s' * (len(words) > 1)}, expected two, or a header that names x and y, "
            "or lon and lat"
        )
    return named or ((0, 1), False)


def _read_npy(path: Path) -> NDArray[np.float64]:
    if not path.is_file():
        raise DataError(f"cannot read {path}: No such file, or not a regular one")
    try:
        held = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: its size is known before memory is taken
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise DataError(
            f"{path}: is no array of NumPy's ({str(error).splitlines()[0] if str(error) else 'empty'})"
        ) from None
    if not isinstance(held, np.ndarray) or held.dtype.kind not in "iuf" or held.ndim != 2 or held.shape[1] != 2:
        form = f"{held.dtype} {held.shape}" if isinstance(held, np.ndarray) else "several arrays"
        raise DataError(f"{path}: holds {form}, expected numbers [n, 2]")
    if not 1 <= len(held) <= MOST_NODES:
        raise DataError(f"{path}: has {len(held)} cities, expected 1 to {MOST_NODES}")
    return np.array(held, np.float64)
