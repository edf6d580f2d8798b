"""CVRPLIB's files: instances (.vrp) and their best solutions (.sol)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import LARGEST_WHOLE
from rlkit.envs.combinatorial.cvrp.rules import split_routes
from rlkit.envs.combinatorial.tsplib import (
    MOST_NUMBER,
    NORMS,
    Benchmark,
    Number,
    Section,
    by_id,
    dimension,
    file_name,
    is_plain,
    is_rounded,
    need,
    parse,
    published_length,
    quoted,
    read_geometry,
    seen,
    text_lines,
    until_end,
)
from rlkit.errors import DataError
from rlkit.system.files import write_atomically


def read_cvrplib(path: str | Path, solution: str | Path | None = None, *, rounded: bool | None = None) -> Benchmark:
    """A CVRPLIB file of TYPE CVRP, with its best solution and optimum from a ``.sol`` file if one is given.

    Some sets publish rounded lengths (A, B, E, P, X), others exact ones (CMT, Golden, Li), and files do not say which.

    Args:
        path: the file.
        solution: routes of customers 1 to n, and their cost, which is taken as it is written.
        rounded: whether lengths are rounded; by default as the solution's cost shows: not if it has a fraction, or is
            the exact length of its routes and not the rounded one; without a solution as the optimum in the comment
            shows, if there is one.

    Raises:
        DataError: a file that cannot be read, is of another type, not whole, or holds what is not understood; a
            customer's demand above the capacity; a solution that is not feasible.
    """
    path = Path(path)
    header, sections = parse(path, ("CVRP",))
    n = dimension(header, path, 4)
    kind, coords, matrix = read_geometry(path, header, sections, n)
    load, scale = _demands(path, header, sections, n)
    routes, cost = (None, _commented(header, path)) if solution is None else _read_solution(Path(solution), n)
    whole = is_rounded(kind, matrix, cost, rounded, path)
    found = Benchmark(file_name(header, path), "cvrp", {}, kind, coords, matrix, whole, cost, routes, scale)
    if routes is not None:
        _require_loads(Path(str(solution)), routes, load["demand"], int(load["capacity"]))
        if rounded is None and kind in NORMS and found.length(routes) != cost:
            exact = replace(found, rounded=False)
            found = exact if abs(exact.length(routes) - (cost or 0.0)) < 1e-9 * max(1.0, cost or 0.0) else found
    return replace(found, instance={**seen(found, path), **load})


def _commented(header: Mapping[str, str], path: Path) -> Number | None:
    """The optimum that CVRPLIB's comments end with: ``(..., Optimal value: 784)``."""
    found = re.search(
        r"(?:optimal|best) value\s*[:=]\s*([0-9]+(?:\.[0-9]+)?)", header.get("COMMENT", ""), re.IGNORECASE
    )
    return None if found is None else published_length(float(found[1]), path)


def _demands(
    path: Path, header: Mapping[str, str], sections: Mapping[str, Section], n: int
) -> tuple[dict[str, NDArray[Any]], int]:
    """``demand`` int64 ``[n]`` and ``capacity`` int64, and what both were multiplied by to be whole numbers."""
    text = header.get("CAPACITY", "")
    capacity = float(text) if is_plain(text) else np.nan
    if not 0.0 < capacity <= MOST_NUMBER:
        raise DataError(f"{path}: CAPACITY is {quoted(text)}, expected a number above 0, up to {MOST_NUMBER:g}")
    depots = until_end(need(sections, "DEPOT_SECTION", path), path)
    if len(depots) != 1:
        raise DataError(f"{path}: DEPOT_SECTION has {len(depots)} depots, expected one")
    if depots[0] != 1:
        raise DataError(f"{path}: the depot is node {depots[0]:g}, expected the first")
    demand = by_id(need(sections, "DEMAND_SECTION", path), n, 1, path)[:, 0]
    if demand[0] != 0.0:
        raise DataError(f"{path}: the depot's demand is {demand[0]:g}, expected 0")
    wrong = np.flatnonzero(~((demand[1:] > 0.0) & (demand[1:] <= capacity))) + 1
    if len(wrong):
        k = int(wrong[0])
        raise DataError(
            f"{path}: the demand of node {k + 1} is {demand[k]:g}, expected above 0 and up to the capacity {capacity:g}"
        )
    # as they are written: a float's shortest decimal is what it was read from
    values, which = np.unique(np.append(demand, capacity), return_inverse=True)
    exact = [Fraction(repr(value)) for value in values.tolist()]
    scale = lcm(*(value.denominator for value in exact))
    if exact[-1] * scale > LARGEST_WHOLE:
        raise DataError(f"{path}: demands and capacity have too many digits to be added exactly, expected up to 15")
    whole = np.array([int(value * scale) for value in exact], np.int64)[which]
    return {"demand": whole[:-1], "capacity": whole[-1:].reshape(())}, scale


def _read_solution(path: Path, n: int) -> tuple[NDArray[np.int64], Number]:
    """Routes ``0 .. 0 .. 0`` and cost of a ``.sol`` file of n nodes."""
    visits, cost = [0], None
    served: set[int] = set()
    for number, text in text_lines(path):
        where = f"{path}:{number}"
        words = re.sub("[#:]", " ", text).lower().split()
        if words[:1] == ["route"] and words[1:] and all(re.fullmatch("[0-9]{1,9}", word) for word in words[1:]):
            customers = [int(word) for word in words[2:]]
            for customer in customers:
                if not 1 <= customer < n or customer in served:
                    raise DataError(
                        f"{where}: customer {customer} again or unknown, expected each of 1 to {n - 1} once"
                    )
                served.add(customer)
            visits += [*customers, 0] if customers else []
        elif words[:1] == ["cost"] and len(words) == 2:
            if cost is not None or not is_plain(words[1]) or not 0.0 <= float(words[1]) <= LARGEST_WHOLE:
                raise DataError(f"{where}: {quoted(text)}, expected one cost of at least 0")
            cost = published_length(float(words[1]), path)
        else:
            raise DataError(f"{where}: {quoted(text)} is neither a route nor the cost")
    if cost is None:
        raise DataError(f"{path}: the cost is missing")
    if len(served) != n - 1:
        raise DataError(f"{path}: its routes serve {len(served)} customers, expected {n - 1}")
    return np.array(visits, np.int64), cost


def _require_loads(path: Path, routes: NDArray[np.int64], demand: NDArray[np.int64], capacity: int) -> None:
    loads = np.bincount(np.cumsum(routes == 0), demand[routes])  # exact: whole numbers below 2^53
    if loads.max() > capacity:
        route = int(loads.argmax())
        raise DataError(f"{path}: route {route} carries {loads[route] / capacity:.6g} times the capacity")


def write_routes(path: Path, name: str, solution: NDArray[np.int64], cost: Number) -> None:
    """Routes ``0 .. 0 .. 0`` as a ``.sol`` file, which numbers customers from 1.  UserError where the disk refuses."""
    lines = [f"Route #{k}: {' '.join(map(str, route.tolist()))}\n" for k, route in enumerate(split_routes(solution), 1)]
    write_atomically(path, "".join([*lines, f"Cost {cost}\n"]).encode())


WRITERS = {".sol": write_routes}
READERS = {".vrp": read_cvrplib}
