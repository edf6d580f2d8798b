"""What benchmark files of routing have in common: TSPLIB's (.tsp, .atsp, .tour) and CVRPLIB's (.vrp, .sol).

Here are their words, lengths and points; the readers are ``files.py`` beside each problem's rules.

Published lengths follow a rounding of their own for every type of edge (Reinelt 1991, TSPLIB 95):
:meth:`Benchmark.length` measures with it, while ``instance``, what an agent sees, is scaled to the unit square and not
rounded.  Some benchmarks publish lengths that are not rounded; ``rounded`` says so, or the published optimum does.

Nothing is dropped: a keyword or section that is not read here (a limit on distance, time windows, a second depot) makes
another problem, and is refused with a sentence.  Nothing is allocated that the file does not hold: rows are counted
before a matrix is made, and of points no matrix is made until :attr:`Benchmark.costs` is asked for.
"""

from __future__ import annotations

import re
import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import LARGEST_WHOLE, MOST_NODES, MOST_SQUARE, Problem, make_problem
from rlkit.errors import DataError, UserError, nearest

Array = NDArray[np.float64]
Number = int | float  # int where lengths are whole
MOST_BYTES, MOST_LINE = 1 << 26, 1 << 24  # of a file, characters of a line
MOST_NUMBER = 1e12  # in a file: sums over any tour stay whole numbers of 64 bits
GEO_RADIUS, GEO_PI = 6378.388, 3.141592  # km, and TSPLIB's own pi
EARTH_RADIUS = 6371.0088  # km, the mean one of the WGS84 ellipsoid
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
_COMMON = ("NAME", "TYPE", "COMMENT", "DIMENSION")
_LENGTHS = (
    *("EDGE_WEIGHT_TYPE", "EDGE_WEIGHT_FORMAT", "NODE_COORD_TYPE", "DISPLAY_DATA_TYPE"),
    *("NODE_COORD_SECTION", "EDGE_WEIGHT_SECTION", "DISPLAY_DATA_SECTION"),
)
KNOWN: dict[str, tuple[str, ...]] = {  # keywords and sections, by TYPE
    "TSP": _COMMON + _LENGTHS,
    "ATSP": _COMMON + _LENGTHS,
    "CVRP": (*_COMMON, *_LENGTHS, "CAPACITY", "DEMAND_SECTION", "DEPOT_SECTION"),
    "TOUR": (*_COMMON, "TOUR_SECTION"),
}


# ---- lengths ---------------------------------------------------------------------------------------------------------


def _euclid(a: Array, b: Array) -> Array:
    return np.sqrt(((a - b) ** 2).sum(axis=-1))


def _manhattan(a: Array, b: Array) -> Array:
    return np.abs(a - b).sum(axis=-1)


def _maximum(a: Array, b: Array) -> Array:
    return np.abs(a - b).max(axis=-1)


def _att(a: Array, b: Array) -> Array:
    exact = _euclid(a, b) / np.sqrt(10.0)
    rounded = nint(exact)
    return rounded + (rounded < exact)


def _geo(a: Array, b: Array) -> Array:
    def radians(coords: Array) -> tuple[Array, Array]:
        degrees = np.trunc(coords)
        found = GEO_PI * (degrees + 5.0 * (coords - degrees) / 3.0) / 180.0  # the fraction counts minutes
        return found[..., 0], found[..., 1]

    (latitude, longitude), (other, further) = radians(a), radians(b)
    q1, q2, q3 = np.cos(longitude - further), np.cos(latitude - other), np.cos(latitude + other)
    inner = np.clip(0.5 * ((1.0 + q1) * q2 - (1.0 - q1) * q3), -1.0, 1.0)
    return np.trunc(GEO_RADIUS * np.arccos(inner) + 1.0)


def on_sphere(places: Array) -> Array:
    """Points ``[..., 3]`` of the unit sphere at ``places [..., 2]``, longitude and latitude in radians."""
    longitude, latitude = np.moveaxis(places, -1, 0)
    flat = np.cos(latitude)
    return np.stack((flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)), axis=-1)


def _great_circle(a: Array, b: Array) -> Array:
    chord = _euclid(on_sphere(np.deg2rad(a)), on_sphere(np.deg2rad(b)))
    return 2.0 * EARTH_RADIUS * np.arcsin(np.minimum(0.5 * chord, 1.0))


def nint(values: Array) -> Array:
    """The nearest whole number, halves up."""
    return np.floor(values + 0.5)


GREAT_CIRCLE = "GREAT_CIRCLE"
NORMS: dict[str, Callable[[Array, Array], Array]] = {  # exact lengths, which a benchmark rounds or does not
    "EUC_2D": _euclid,
    "EUC_3D": _euclid,
    "MAN_2D": _manhattan,
    "MAN_3D": _manhattan,
    "MAX_2D": _maximum,
    "MAX_3D": _maximum,
    GREAT_CIRCLE: _great_circle,  # of tables with longitudes; no file names it
}
WHOLE: dict[str, Callable[[Array, Array], Array]] = {  # whole numbers by their own definition
    "CEIL_2D": lambda a, b: np.ceil(_euclid(a, b)),
    "ATT": _att,
    "GEO": _geo,
}
TYPES = ("EXPLICIT", *(kind for kind in NORMS if kind != GREAT_CIRCLE), *WHOLE)
PLANAR = ("EUC_2D", "CEIL_2D", "ATT", "GEO")  # whose points an agent sees in place of their lengths


@dataclass(frozen=True)
class Benchmark:
    """One file.

    problem: the name of the problem it is an instance of, "atsp" also for symmetric lengths that are not those of
    points in the plane; instance: arrays for that problem's environment, coordinates moved and scaled into the unit
    square, costs divided by the largest; kind: its EDGE_WEIGHT_TYPE; coords: float64 ``[n, 2]`` or ``[n, 3]`` as in the
    file, or None, for pictures alone where lengths are explicit; matrix: ``[n, n]``, explicit lengths; rounded: whether
    lengths are whole numbers; optimum: if the file or its reader knows it; solution: int64 ``[L]`` that came with it;
    demand_scale: what the file's demands and capacity were multiplied by to be whole numbers in ``instance``.
    """

    name: str
    problem: str
    instance: dict[str, NDArray[Any]]
    kind: str
    coords: Array | None
    matrix: NDArray[Any] | None = field(repr=False, default=None)
    rounded: bool = True
    optimum: Number | None = None
    solution: NDArray[np.int64] | None = None
    demand_scale: int = 1

    @property
    def nodes(self) -> int:
        """n, the depot among them."""
        if self.matrix is not None:
            return len(self.matrix)
        assert self.coords is not None
        return len(self.coords)

    @cached_property
    def costs(self) -> NDArray[Any]:
        """Official lengths ``[n, n]``, int64, or float64 where they are not whole; made when it is first asked for.

        Raises DataError for points whose matrix would be too large.
        """
        if self.matrix is not None:
            return self.matrix
        assert self.coords is not None
        if self.nodes > MOST_SQUARE:
            raise DataError(
                f"{self.name}: a matrix of its {self.nodes} nodes would be too large, expected at most {MOST_SQUARE}; "
                "length() needs none"
            )
        found = np.empty((self.nodes, self.nodes), np.int64 if self.rounded else np.float64)
        for i, place in enumerate(self.coords):  # by rows: nothing larger on the way
            found[i] = lengths_between(self.kind, place, self.coords, self.rounded)
        np.fill_diagonal(found, 0)
        return found

    def length(self, solution: NDArray[np.int64]) -> Number:
        """Official length of a solution: a tour, closed here, or CVRP's ``0 .. 0``, padded or not.

        An int where lengths are whole.  Raises UserError for a solution that names nodes which there are not.
        """
        visited = np.asarray(solution)
        visited = visited[visited >= 0]
        if visited.max(initial=0) >= self.nodes:
            raise UserError(f"{self.name}: a solution names node {visited.max()}, expected 0 to {self.nodes - 1}")
        following = np.roll(visited, -1)
        if self.matrix is not None:
            return self.matrix[visited, following].sum().item()
        assert self.coords is not None
        steps = lengths_between(self.kind, self.coords[visited], self.coords[following], self.rounded)
        steps = np.where(visited == following, 0.0, steps)
        return int(steps.astype(np.int64).sum()) if self.rounded else float(steps.sum())

    def make_problem(self) -> Problem:
        """The problem at this size.

        Raises UserError for a CVRP whose lengths are not those of points in the plane, which no problem of ours is.
        """
        usual = make_problem(self.problem)
        if not set(usual.shapes()) <= set(self.instance):
            raise UserError(
                f"{self.name}: its lengths are {self.kind}, expected points in the plane ({', '.join(PLANAR)}): agents "
                "cannot solve it, but costs and length() hold"
            )
        return usual.resized(self.nodes - usual.num_points + usual.num_nodes)


def lengths_between(kind: str, a: Array, b: Array, rounded: bool) -> Array:
    """From ``a`` to ``b``, ``[..., 2]`` or ``[..., 3]`` each."""
    if kind in WHOLE:
        return WHOLE[kind](a, b)
    exact = NORMS[kind](a, b)
    return nint(exact) if rounded else exact


# ---- lines -----------------------------------------------------------------------------------------------------------


class Section:
    """Numbers of a section, and how many each of its lines has."""

    def __init__(self, name: str) -> None:
        self.name, self.numbers = name, array("d")
        self.lines, self.counts = array("i"), array("i")

    def add(self, text: str, where: str, line: int) -> None:
        words = text.split()
        try:
            if not text.isascii() or "_" in text:
                raise ValueError
            self.numbers.extend(map(float, words))
        except ValueError:
            bad = next((word for word in words if not is_plain(word)), text)
            raise DataError(f"{where}: {quoted(bad)} in {self.name} is not a number") from None
        self.lines.append(line)
        self.counts.append(len(words))

    def values(self, path: Path) -> Array:
        """All numbers, float64, each finite and no larger than :data:`MOST_NUMBER`."""
        found = np.frombuffer(self.numbers, np.float64) if self.numbers else np.zeros(0)
        wrong = np.flatnonzero(~(np.abs(found) <= MOST_NUMBER))
        if len(wrong):
            line = self.lines[int(np.searchsorted(np.cumsum(self.counts), wrong[0], side="right"))]
            raise DataError(
                f"{path}:{line}: {self.name} holds {found[wrong[0]]:g}, expected finite numbers up to {MOST_NUMBER:g}"
            )
        return found


def is_plain(word: str) -> bool:
    """Whether ``word`` is a number as C has it: Python's may have underscores and digits of other scripts."""
    try:
        float(word)
    except ValueError:
        return False
    return word.isascii() and "_" not in word


def quoted(text: str) -> str:
    """``text`` as it may stand in a sentence, whatever it came from."""
    return ascii(text.strip()[:40])


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers; bytes that are not UTF-8 become surrogates."""
    try:
        if not path.is_file():
            raise DataError(f"cannot read {path}: No such file, or not a regular one")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise DataError(f"{path}: has {size} bytes, expected at most {MOST_BYTES}")
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(iter(lambda: file.readline(MOST_LINE + 1), ""), 1):
                if len(line) > MOST_LINE or "\0" in line:
                    raise DataError(f"{path}:{number}: is not a text file of lines, expected one")
                if text := line.strip():
                    yield number, text
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def parse(path: Path, kinds: tuple[str, ...]) -> tuple[dict[str, str], dict[str, Section]]:
    """``(header, sections)``: values by keyword, numbers by section; all but what :data:`KNOWN` has is refused.

    The first of ``kinds`` whose TYPE the file has says what that is; raises DataError where it has none of them.
    """
    header: dict[str, str] = {}
    sections: dict[str, Section] = {}
    known = [key for kind in kinds for key in KNOWN[kind]]
    current: Section | None = None
    for number, text in text_lines(path):
        where = f"{path}:{number}"
        match = re.match(r"([A-Za-z]\w*)\s*[:=]?\s*(.*)", text, re.ASCII)
        if match is None or (current is not None and is_plain(match[1])):  # nan and inf are numbers to Python
            if current is None:
                raise DataError(f"{where}: {quoted(text)} is neither KEY: VALUE nor in a section")
            current.add(text, where, number)
            continue
        key, value = match[1].upper(), match[2]
        if key == "EOF":
            break
        if key not in known:
            raise DataError(
                f"{where}: {quoted(match[1])} is not understood, and nothing of a file is left out"
                f"{nearest(key[:40], known)}"
            )
        if key != "COMMENT" and (key in sections or key in header):
            raise DataError(f"{where}: a second {key}, expected one")
        if key.endswith("_SECTION"):
            current = sections[key] = Section(key)
            if value:
                current.add(value, where, number)
        else:
            current, header[key] = None, value
    found = (header.get("TYPE", "").upper().split() or [""])[0]  # a remark may follow
    if found not in kinds:
        raise DataError(f"{path}: TYPE is {quoted(found)}, expected {' or '.join(kinds)}")
    return header, sections


# ---- parts -----------------------------------------------------------------------------------------------------------


def file_name(header: Mapping[str, str], path: Path) -> str:
    """What is not UTF-8 is read as Latin-1, in which every byte is a letter."""
    text = header.get("NAME") or path.stem
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        text = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return "".join(letter if letter.isprintable() else " " for letter in text)[:100]


def dimension(header: Mapping[str, str], path: Path, least: int = 3) -> int:
    """The number of nodes.  Raises DataError for none, or fewer than ``least``."""
    text = header.get("DIMENSION", "")
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= MOST_NODES:
        raise DataError(
            f"{path}: DIMENSION is {quoted(text)}, expected a whole number of at least {least}, at most {MOST_NODES}"
        )
    return int(text)


def need(sections: Mapping[str, Section], name: str, path: Path) -> Section:
    """The section called ``name``.  Raises DataError where there is none."""
    if name not in sections:
        raise DataError(f"{path}: {name} is missing")
    return sections[name]


def by_id(section: Section, n: int, columns: int, path: Path) -> Array:
    """The ``columns`` numbers of every node, ``[n, columns]``, in the order of the ids 1..n that begin the lines."""
    counts = np.frombuffer(section.counts, np.int32) if section.counts else np.zeros(0, np.int32)
    wrong = np.flatnonzero(counts != columns + 1)
    if len(wrong):
        raise DataError(
            f"{path}:{section.lines[int(wrong[0])]}: {section.name} has {counts[wrong[0]]} numbers in a line, expected "
            f"a node and {columns}"
        )
    if len(counts) != n:
        raise DataError(f"{path}: {section.name} has {len(counts)} lines, expected {n}, the DIMENSION")
    rows = section.values(path).reshape(n, columns + 1)
    ids = rows[:, 0]
    order = np.argsort(ids, kind="stable")
    wrong = np.flatnonzero(~((ids >= 1) & (ids <= n) & (ids == np.floor(ids))))
    wrong = np.append(wrong, order[1:][ids[order[1:]] == ids[order[:-1]]])  # outside, or again
    if len(wrong):
        raise DataError(
            f"{path}:{section.lines[int(wrong[0])]}: {section.name} has node {ids[wrong[0]]:g} here, expected every "
            f"one of 1 to {n} once"
        )
    return np.ascontiguousarray(rows[order, 1:])


def _explicit(section: Section, n: int, form: str, path: Path) -> NDArray[Any]:
    """Lengths ``[n, n]``, int64 if all are whole; numbers are counted before anything of that size is made."""
    if form != "FULL_MATRIX" and form not in FORMATS:
        raise DataError(f"{path}: EDGE_WEIGHT_FORMAT {quoted(form)} is not known, expected FULL_MATRIX or a triangle")
    offset, lower = FORMATS.get(form, (0, False))
    count = n * n if form == "FULL_MATRIX" else n * (n + 1) // 2 - offset * n
    if len(section.numbers) != count:
        raise DataError(
            f"{path}: EDGE_WEIGHT_SECTION has {len(section.numbers)} numbers, expected {count} for {form} of {n} nodes"
        )
    if n > MOST_SQUARE:
        raise DataError(f"{path}: has a matrix of {n} nodes, expected at most {MOST_SQUARE}")
    numbers = section.values(path)
    if form == "FULL_MATRIX":
        costs = numbers.reshape(n, n).copy()
    else:
        costs, begin = np.zeros((n, n)), 0
        for i in range(n):
            part = slice(0, i + 1 - offset) if lower else slice(i + offset, n)
            width = part.stop - part.start
            costs[i, part] = costs[part, i] = numbers[begin : begin + width]
            begin += width
    np.fill_diagonal(costs, 0.0)  # files write 0, 9999 or 100000000 there, all meaning nothing
    if costs.min() < 0.0:
        i, j = divmod(int(costs.argmin()), n)
        raise DataError(f"{path}: the length from node {i + 1} to {j + 1} is {costs[i, j]:g}, expected at least 0")
    return costs.astype(np.int64) if (costs == np.floor(costs)).all() else costs


def read_geometry(
    path: Path, header: Mapping[str, str], sections: Mapping[str, Section], n: int
) -> tuple[str, Array | None, NDArray[Any] | None]:
    """``(kind, coords, matrix)`` of a file; explicit lengths win over any coordinates."""
    kind, form = (header.get(f"EDGE_WEIGHT_{part}", "").upper() for part in ("TYPE", "FORMAT"))
    if kind not in TYPES:
        raise DataError(f"{path}: EDGE_WEIGHT_TYPE {quoted(kind)} is not known, expected one of {', '.join(TYPES)}")
    solid = kind.endswith("3D") or header.get("NODE_COORD_TYPE", "").upper() == "THREED_COORDS"
    coords = by_id(found, n, 3 if solid else 2, path) if (found := sections.get("NODE_COORD_SECTION")) else None
    display = by_id(found, n, 2, path) if (found := sections.get("DISPLAY_DATA_SECTION")) else None
    if kind == "EXPLICIT":
        matrix = _explicit(need(sections, "EDGE_WEIGHT_SECTION", path), n, form, path)
        return kind, display if coords is None else coords, matrix
    if "EDGE_WEIGHT_SECTION" in sections or form not in ("", "FUNCTION"):
        raise DataError(f"{path}: has a matrix of lengths, expected EDGE_WEIGHT_TYPE EXPLICIT and not {kind}")
    need(sections, "NODE_COORD_SECTION", path)
    assert coords is not None
    if solid and not kind.endswith("3D"):
        raise DataError(f"{path}: NODE_COORD_TYPE THREED_COORDS, expected TWOD_COORDS for {kind}")
    return kind, coords, None


def is_rounded(
    kind: str, matrix: NDArray[Any] | None, published: Number | None, asked: bool | None, path: Path
) -> bool:
    """Whether lengths are rounded: as ``asked``, else as the ``published`` one shows.  DataError for contradictions."""
    fraction = published is not None and published != int(published)
    if matrix is not None:
        whole = matrix.dtype == np.int64
        if asked and not whole:
            raise DataError(f"{path}: its lengths have fractions, expected rounded=False")
        return whole
    if kind in WHOLE and (fraction or asked is False):
        raise DataError(
            f"{path}: {kind} has whole lengths alone, expected rounded=True and an optimum without fraction"
        )
    if asked and fraction:
        raise DataError(f"{path}: an optimum of {published!r} is no sum of rounded lengths, expected rounded=False")
    return not fraction if asked is None else asked


def seen(found: Benchmark, path: Path) -> dict[str, NDArray[Any]]:
    """What an agent sees of the lengths: points of the unit square, or costs over the largest."""
    if found.kind not in PLANAR:
        if "cost" not in make_problem(found.problem).shapes():  # it has no form with costs
            return {}
        return {"cost": found.costs / (float(found.costs.max()) or 1.0)}
    coords = found.coords
    assert coords is not None
    low, extent = coords.min(axis=0), np.ptp(coords, axis=0)
    if found.rounded and found.kind != "GEO" and 0.0 < extent.max() <= 1.0:
        most = int(lengths_between(found.kind, low[None], (low + extent)[None], True)[0])
        to = "" if most == 0 else " or 1" if most == 1 else f" to {most}"
        warnings.warn(
            f"{path}: all nodes lie within 1 of each other, where the rounding of {found.kind} makes every length "
            f"0{to}; rounded=False measures exactly",
            stacklevel=3,
        )
    return {"coords": (coords - low) / max(float(extent.max()), np.finfo(np.float64).tiny)}


def seen_flat(coords: Array) -> Array:
    """Longitudes and latitudes ``[n, 2]`` as points of the unit square: those of a map that is true in its middle."""
    turns = np.exp(1j * np.deg2rad(coords[:, 0]))
    middle = np.angle(turns.sum())  # a mean of 179 and -179 is 180
    latitude = np.deg2rad(coords[:, 1])
    places = np.column_stack((np.angle(turns * np.exp(-1j * middle)) * np.cos(latitude.mean()), latitude))
    return (places - places.min(axis=0)) / max(float(np.ptp(places, axis=0).max()), np.finfo(np.float64).tiny)


def published_length(value: Number | None, path: Path) -> Number | None:
    """An optimum as it is kept: whole where it is.  Raises DataError for one below 0."""
    if value is None:
        return None
    if not 0.0 <= value <= LARGEST_WHOLE:
        raise DataError(f"{path}: an optimum of {value:g}, expected a length of at least 0")
    return int(value) if value == int(value) else value


def until_end(section: Section, path: Path) -> Array:
    """The numbers before -1, behind which there must be none."""
    numbers = section.values(path)
    ends = np.flatnonzero(numbers == -1)
    if len(ends) and ends[0] < len(numbers) - 1:
        raise DataError(f"{path}: {section.name} goes on behind its -1, expected one list")
    return numbers[: ends[0]] if len(ends) else numbers
