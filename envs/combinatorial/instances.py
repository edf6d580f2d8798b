"""Instances as they are given to an agent, whatever form they have, and what comes back: :class:`Solutions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.combinatorial.base import Problem, stack
from rlkit.errors import UserError, shown


@dataclass(frozen=True)
class Group:
    """Instances of one size.  places: int64 ``[b]``, which of all they are; arrays: by name, ``b`` rows each."""

    places: NDArray[np.int64]
    problem: Problem
    arrays: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Solutions:
    """Of B instances, in the order in which they were given.

    solutions: int64 ``[B, L]``, padded with -1; objectives: float64 ``[B]``, NaN where a solution has none;
    log_probabilities: float64 ``[B]``, of the actions that built each under the network, over what it was shown; sizes:
    int64 ``[B]``, nodes of each instance; sound: bool ``[B]``, whether each is a solution under the problem's rules;
    seconds: that all of them took together, where known.
    """

    solutions: NDArray[np.int64]
    objectives: NDArray[np.float64]
    log_probabilities: NDArray[np.float64]
    sizes: NDArray[np.int64]
    sound: NDArray[np.bool_]
    seconds: float | None = None

    def __len__(self) -> int:
        return len(self.objectives)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Entries of each solution, ``[B]``."""
        return (self.solutions >= 0).sum(axis=1)

    @property
    def invalid(self) -> float:
        """The share of solutions that are none."""
        return float(1.0 - self.sound.mean())


def read_instances(problem: Problem, given: Any) -> list[Group]:
    """``given`` as groups of one size each, smallest first, every instance checked.

    ``given``: a mapping of arrays, or, of a problem with one array, that array; of one instance or of several, with an
    axis in front; what a reader of files returns; or a sequence of any of these, of any sizes.  Raises UserError for
    anything else, and for instances that are not sound.
    """
    singles = _singles(problem, given, "instances")
    if not singles:
        raise UserError(f"expected instances of {problem.name} to solve, got none")
    key = next(iter(problem.shapes()))
    beside = problem.num_points - problem.num_nodes  # points that are not counted: a depot
    sizes = np.array([np.shape(one[key])[0] - beside for one in singles])
    groups = []
    for size in np.unique(sizes):
        sized, places = problem.resized(int(size)), np.flatnonzero(sizes == size)
        arrays = stack([sized.check(singles[int(i)], f"instance {i}") for i in places])
        groups.append(Group(places, sized, arrays))
    return groups


def gathered(groups: Sequence[Group], parts: Sequence[Solutions], seconds: float | None = None) -> Solutions:
    """The solutions ``parts`` of each of ``groups``, in the order of the instances."""
    count, longest = sum(len(group.places) for group in groups), max(part.solutions.shape[1] for part in parts)
    found = Solutions(
        np.full((count, longest), -1, np.int64),
        np.zeros(count),
        np.zeros(count),
        np.zeros(count, np.int64),
        np.zeros(count, np.bool_),
        seconds,
    )
    for group, part in zip(groups, parts, strict=True):
        found.solutions[group.places, : part.solutions.shape[1]] = part.solutions
        for name in ("objectives", "log_probabilities", "sizes", "sound"):
            getattr(found, name)[group.places] = getattr(part, name)
    return found


def _singles(problem: Problem, given: Any, where: str) -> list[Mapping[str, Any]]:
    """Every instance in ``given``, as it is."""
    key, (shape, _) = next(iter(problem.shapes().items()))
    if hasattr(given, "problem"):
        return _singles(problem, _content(problem, given, where), where)
    if not isinstance(given, Mapping) and _is_several(given, len(shape)):
        return [one for i, part in enumerate(given) for one in _singles(problem, part, f"instance {i}")]
    if not isinstance(given, Mapping) and len(problem.shapes()) == 1 and _axes(given) != 0:
        given = {key: given}
    if not isinstance(given, Mapping) or key not in given:
        raise UserError(f"{where}: expected a mapping of arrays with '{key}' for {problem.name}, got {shown(given)}")
    found = _shape(given[key], key, where)
    if len(found) == len(shape):
        return [given]
    if len(found) != len(shape) + 1:
        axes = f"{len(shape)} axes for one instance of {problem.name}, {len(shape) + 1} for several"
        raise UserError(f"{where}: '{key}' has shape {found}, expected {axes}")
    for name, value in given.items():
        if _shape(value, name, where)[:1] != found[:1]:
            raise UserError(f"{where}: '{name}' has not the {found[0]} rows that '{key}' has")
    arrays = {name: np.asarray(value) for name, value in given.items()}
    return [{name: value[i] for name, value in arrays.items()} for i in range(found[0])]


def _is_several(given: Any, axes: int) -> bool:
    """Whether ``given`` is a sequence of instances, and not one array of ``axes`` or one more axes in lists."""
    if not isinstance(given, (list, tuple)):
        return False
    if not given or any(isinstance(one, (Mapping, np.ndarray)) or hasattr(one, "problem") for one in given):
        return True
    try:
        np.shape(given)
    except ValueError:  # lists of several lengths: instances of several sizes?
        return all(_axes(one) == axes for one in given)
    return False


def _axes(value: Any) -> int | None:
    try:
        return np.ndim(value)
    except ValueError:
        return None


def _shape(value: Any, key: str, where: str) -> tuple[int, ...]:
    """Shape of ``value`` as an array; raises UserError where its rows are of different lengths."""
    try:
        return np.shape(value)
    except ValueError:
        raise UserError(f"{where}: '{key}' is not an array of numbers, its rows differ in length") from None


def _content(problem: Problem, given: Any, where: str) -> Mapping[str, Any]:
    """The arrays of a benchmark file or of a labelled set.  Raises UserError for another problem's."""
    name = getattr(given.problem, "name", given.problem)
    if name != problem.name:
        raise UserError(f"{where}: {getattr(given, 'name', 'a file')} holds {name}, expected {problem.name}")
    if hasattr(given, "make_problem"):
        given.make_problem()  # raises for what agents cannot solve
    found: Mapping[str, Any] = given.instance if hasattr(given, "instance") else given.instances
    return found
