"""TSPLIB's files of tours and of their instances, which also hold asymmetric ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.tsplib import (
    PLANAR,
    Benchmark,
    Number,
    dimension,
    file_name,
    is_rounded,
    need,
    parse,
    published_length,
    read_geometry,
    seen,
    until_end,
)
from rlkit.errors import DataError
from rlkit.system.files import write_atomically


def read_tsplib(path: str | Path, optimum: Number | None = None, *, rounded: bool | None = None) -> Benchmark:
    """A TSPLIB file of TYPE TSP or ATSP.

    Args:
        path: the file.
        optimum: the length of its best tour, if that is known.
        rounded: whether lengths are rounded, as TSPLIB's are; by default unless ``optimum`` has a fraction.

    Raises:
        DataError: a file that cannot be read, is of another type, not whole, or holds what is not understood.
    """
    path = Path(path)
    header, sections = parse(path, ("TSP", "ATSP"))
    n = dimension(header, path, 1)
    kind, coords, matrix = read_geometry(path, header, sections, n)
    optimum = published_length(optimum, path)
    whole = is_rounded(kind, matrix, optimum, rounded, path)
    problem = "tsp" if kind in PLANAR else "atsp"
    found = Benchmark(file_name(header, path), problem, {}, kind, coords, matrix, whole, optimum)
    return replace(found, instance=seen(found, path))


def read_tour(path: str | Path) -> NDArray[np.int64]:
    """The tour of a TSPLIB file of TYPE TOUR, counted from 0.  Raises DataError where it is none."""
    path = Path(path)
    header, sections = parse(path, ("TOUR",))
    numbers = until_end(need(sections, "TOUR_SECTION", path), path)
    n = len(numbers)
    if "DIMENSION" in header and dimension(header, path, 1) != n:
        raise DataError(f"{path}: TOUR_SECTION has {n} nodes, expected {header['DIMENSION']}, the DIMENSION")
    if not n or not np.array_equal(np.sort(numbers), np.arange(1, n + 1)):
        raise DataError(f"{path}: TOUR_SECTION is no permutation of the nodes")
    return numbers.astype(np.int64) - 1


def write_tour(path: Path, name: str, tour: NDArray[np.int64], length: Number) -> None:
    """``tour`` int64 ``[n]``, counted from 0, as a TSPLIB file of TYPE TOUR, which counts from 1.

    Raises UserError where the disk refuses.
    """
    head = f"NAME : {name}\nCOMMENT : length {length}\nTYPE : TOUR\nDIMENSION : {len(tour)}\nTOUR_SECTION\n"
    write_atomically(path, (head + "".join(f"{city + 1}\n" for city in tour.tolist()) + "-1\nEOF\n").encode())


WRITERS = {".tour": write_tour}
READERS = {".tsp": read_tsplib, ".atsp": read_tsplib}
