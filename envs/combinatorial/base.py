"""What problems of combinatorial optimisation share, and the registry of them.

A :class:`Problem` holds the rules as plain Python: what an instance is and when it is sound, how one is drawn, what is
feasible, what a step pays, what a solution is worth.  Each has a folder with files of the same names: ``rules.py``, the
problem with its kernel and environments (``rlkit.envs.combinatorial.environment`` and ``.vector`` put Gymnasium around
it); ``device.py``, the same rules on tensors for the agents; ``solvers.py``; ``drawing.py``; and ``files.py`` where
there is a format of files.  Nothing else asks what a problem is called.

An instance is a dict of arrays such as ``{"coords": float64 [n, 2]}``, scalars being 0-dimensional; a batch of
instances has the same names with one axis in front.  A solution is int64 ``[L]``, padded with -1.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from math import sqrt
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_type_hints

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance, Reduced
from rlkit.errors import UserError, nearest
from rlkit.registry import resolve_object

if TYPE_CHECKING:
    from rlkit.envs.combinatorial.device import DeviceRules, PointerRules

PROBLEMS = {
    "tsp": "rlkit.envs.combinatorial.tsp:TSP",
    "atsp": "rlkit.envs.combinatorial.atsp:ATSP",
    "cvrp": "rlkit.envs.combinatorial.cvrp:CVRP",
    "op": "rlkit.envs.combinatorial.op:Orienteering",
    "knapsack": "rlkit.envs.combinatorial.knapsack:Knapsack",
    "convex-hull": "rlkit.envs.combinatorial.convex_hull:ConvexHull",
    "delaunay": "rlkit.envs.combinatorial.delaunay:Delaunay",
}
Solved = tuple[Instance, Sequence[int], float | None]  # with its solution and objective, None: not said
PICTURES = (".svg", ".png", ".pdf")  # of solved instances
FORMULATIONS = ("bq", "direct")
MOST_NODES = 1_000_000
MOST_SQUARE = 5_000  # nodes of a matrix of costs, which then takes 200 MB
LARGEST = 1e30  # of an instance's numbers: their squares and sums, and float32, hold them
LARGEST_WHOLE = 2**53  # up to which float64 counts by ones


Baseline = Callable[["Problem", Instance, np.random.Generator], NDArray[np.int64]]


class Problem(ABC):
    """The rules of one problem at one size.

    Args:
        num_nodes: nodes of an instance, the depot of cvrp and op not counted; items of a knapsack.

    Raises:
        UserError: too few or too many nodes, or a setting that is unknown, of another type or out of range.
    """

    name: ClassVar[str]
    maximise: ClassVar[bool]
    least: ClassVar[int] = 3  # nodes
    most: ClassVar[int] = MOST_NODES
    closing: ClassVar[tuple[int, ...]] = ()  # what ends a solution that does not end so by itself
    shows: ClassVar[tuple[str, ...]] = ("remaining", "origin", "destination")  # of a state, beside the action mask
    shows_sequence: ClassVar[bool] = False  # whether the solution so far is always observed
    optimum: ClassVar[float] = np.nan  # of every instance, where there is one
    reduces: ClassVar[bool] = True  # whether it has a BQ-MDP
    points: ClassVar[bool] = False  # whether its solutions are sequences of points, which pointer networks give
    permutes: ClassVar[bool] = False  # whether every solution is an order of all nodes

    def __init__(self, num_nodes: int) -> None:
        self.num_nodes = require_whole(self.name, "num_nodes", num_nodes, self.least, self.most)

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor that make an equal problem; JSON."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def resized(self, num_nodes: int) -> Problem:
        """The same problem with ``num_nodes`` nodes.  Raises UserError for too few or too many."""
        return build(type(self), {**self.settings(), "num_nodes": num_nodes})

    # ---- its other files, imported when they are asked for ---------------------------------------------------------

    @classmethod
    def part(cls, file: str, name: str) -> Any:
        """``name`` in the ``file`` beside the problem's rules."""
        return resolve_object(f"{cls.__module__.rpartition('.')[0]}.{file}:{name}")

    @classmethod
    def device(cls) -> type[DeviceRules]:
        """The BQ-MDP on tensors, where the problem ``reduces``; imports torch."""
        found: type[DeviceRules] = cls.part("device", "Device")
        return found

    @classmethod
    def pointers(cls) -> type[PointerRules]:
        """What may be pointed at, on tensors, where the problem ``points``; imports torch."""
        found: type[PointerRules] = cls.part("device", "Pointers")
        return found

    @classmethod
    def baselines(cls) -> dict[str, Baseline]:
        """Heuristics that a trained policy has to beat, by name: from problem, instance and a generator a solution."""
        found: dict[str, Baseline] = cls.part("solvers", "BASELINES")
        return found

    @classmethod
    def readers(cls) -> dict[str, Callable[..., Any]]:
        """What reads a file of an instance, by the file's suffix; nothing where there is no format."""
        return cls._formats("READERS")

    @classmethod
    def writers(cls) -> dict[str, Callable[..., None]]:
        """What writes a solution, by the file's suffix: from path, name, solution and objective."""
        return cls._formats("WRITERS")

    @classmethod
    def _formats(cls, name: str) -> dict[str, Callable[..., Any]]:
        found: dict[str, Callable[..., Any]] = {}
        if find_spec(f"{cls.__module__.rpartition('.')[0]}.files") is not None:
            found |= cls.part("files", name)
        return found

    def target(self, instance: Instance) -> NDArray[np.int64]:
        """The one right solution, padded, in the order in which pointer networks learn it; where there is one."""
        raise NotImplementedError(f"{self.name} may have several solutions that are equally good")

    # ---- sizes -----------------------------------------------------------------------------------------------------

    @property
    def num_points(self) -> int:
        """Rows of the arrays of an instance."""
        return self.num_nodes

    @property
    def num_actions(self) -> int:
        return self.num_points

    @property
    @abstractmethod
    def solution_length(self) -> int:
        """Entries of the longest solution."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and type of every array of an instance."""

    # ---- instances -------------------------------------------------------------------------------------------------

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """A random instance."""

    def draw_batch(self, generators: Sequence[np.random.Generator]) -> dict[str, NDArray[Any]]:
        """One instance of each generator, stacked."""
        return stack([self.draw(generator) for generator in generators])

    def check(self, instance: Any, where: str = "instance") -> dict[str, NDArray[Any]]:
        """``instance`` as contiguous arrays of the right types.  Raises UserError for what is missing or unsound."""
        if not isinstance(instance, Mapping):
            raise UserError(f"{where}: expected a mapping of arrays by name, got {type(instance).__name__}")
        found: dict[str, NDArray[Any]] = {}
        for key, (shape, kind) in self.shapes().items():
            if key not in instance:
                raise UserError(f"{where}: '{key}' is missing, expected an array of shape {shape} for {self.name}")
            try:
                array = np.asarray(instance[key], np.float64)
            except (TypeError, ValueError):
                raise UserError(f"{where}: '{key}' is not an array of numbers, expected shape {shape}") from None
            if array.shape != shape:
                raise UserError(
                    f"{where}: '{key}' has shape {array.shape}, expected {shape} for {self.name} with "
                    f"num_nodes={self.num_nodes}"
                )
            if not np.isfinite(array).all():
                at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
                raise UserError(f"{where}: '{key}' holds {array[at]} at {at}, expected finite numbers")
            if kind is np.int64 and (array != np.floor(array)).any():
                raise UserError(f"{where}: '{key}' holds fractions, expected whole numbers")
            largest = LARGEST if kind is np.float64 else LARGEST_WHOLE
            if (np.abs(array) > largest).any():
                raise UserError(f"{where}: '{key}' holds numbers beyond {largest:.3g}, expected smaller ones")
            found[key] = np.ascontiguousarray(array, kind).reshape(shape)
        self.check_sound(found, where)
        return found

    def check_sound(self, instance: dict[str, NDArray[Any]], where: str) -> None:  # noqa: B027  # not all need it
        """Raise UserError for an instance whose arrays have the right form and make no problem.

        Points may coincide: two orders at one address are two nodes.
        """

    def derive(self, instance: Instance) -> dict[str, NDArray[Any]]:
        """Further arrays that the rules look up, such as the area of the true hull."""
        return {}

    def static(self, instances: Instance) -> dict[str, NDArray[np.float32]]:
        """What is observed of an instance, or of a batch, throughout an episode."""
        return {key: instances[key].astype(np.float32) for key, (shape, _) in self.shapes().items() if shape}

    # ---- rules -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def initial(self, instance: Instance) -> Any:
        """The first state."""

    def opening(self) -> tuple[int, ...]:
        """With what every solution begins."""
        return ()

    @abstractmethod
    def feasible(self, instance: Instance, state: Any) -> NDArray[np.int8]:
        """1 where an action is feasible, ``[num_actions]``; none is where the episode has ended."""

    def canonical(self, state: Any, action: int) -> int:
        """The action that stands for ``action`` where two are the same."""
        return action

    @abstractmethod
    def step(self, instance: Instance, state: Any, action: int) -> tuple[Any, float, tuple[int, ...]]:
        """The next state, the reward, and what the solution grows by."""

    def dynamic_spaces(self) -> dict[str, spaces.Space[Any]]:
        """What is observed of a state, beside the action mask."""
        n = self.num_points
        known: dict[str, spaces.Space[Any]] = {
            "remaining": spaces.MultiBinary(n),
            "origin": spaces.Discrete(n),
            "destination": spaces.Discrete(n),
            "budget": spaces.Box(-np.inf, np.inf, (1,), np.float32),
        }
        return {key: known[key] for key in self.shows}

    def dynamic(self, instance: Instance, state: Any) -> dict[str, Any]:
        """Observation of ``state``."""
        if not self.shows:
            return {}
        found = {
            "remaining": remaining_mask(state.remaining, self.num_points),
            "origin": np.int64(state.origin),
            "destination": np.int64(state.destination),
            "budget": np.array([self.seen_budget(instance, state.budget)], np.float32),
        }
        return {key: found[key] for key in self.shows}

    def seen_budget(self, instances: Instance, budget: Any) -> Any:
        """What is left of the budget as it is observed, of one state or a batch."""
        return budget

    # ---- solutions -------------------------------------------------------------------------------------------------

    @abstractmethod
    def objectives(self, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Objective ``[B]`` of ``solutions [B, L]`` of a batch, from the instance alone.

        Raises UserError naming the first row that is not feasible.
        """

    def objective(self, instance: Instance, solution: Any) -> float:
        """Objective of one solution, padded or not.  Raises UserError where it is not feasible."""
        batch = {key: np.asarray(instance[key])[None] for key in self.shapes()}
        return float(self.objectives(batch, self.padded(solution)[None])[0])

    def padded(self, solution: Any) -> NDArray[np.int64]:
        """``solution`` as int64 ``[solution_length]``, filled up with -1."""
        numbers = np.asarray(solution, np.int64).reshape(-1)
        if len(numbers) > self.solution_length:
            numbers = numbers[numbers >= 0]
        if len(numbers) > self.solution_length:
            raise UserError(
                f"solution of {self.name}: {len(numbers)} entries, expected at most {self.solution_length} for "
                f"num_nodes={self.num_nodes}"
            )
        found = np.full(self.solution_length, -1, np.int64)
        found[: len(numbers)] = numbers
        return found

    def actions(self, solution: NDArray[np.int64]) -> list[int]:
        """The actions of the BQ formulation that build ``solution``."""
        visited = [int(j) for j in solution if j >= 0]
        return visited[len(self.opening()) :]

    def reduced(self, instance: Instance, state: Any) -> Reduced:
        """The state as tokens of a network; what it does not know is not shown.

        Raises UserError for a problem without a BQ-MDP.
        """
        known = ", ".join(kind.name for kind in problem_kinds() if kind.reduces)
        raise UserError(f"problem '{self.name}' has no BQ-MDP, expected one of {known}")

    def observation_space(self, sequence: bool) -> spaces.Dict:
        """Observation space; with ``sequence``, the solution so far is observed."""
        found: dict[str, spaces.Space[Any]] = {
            key: spaces.Box(-np.inf, np.inf, shape, np.float32) for key, (shape, _) in self.shapes().items() if shape
        }
        found |= self.dynamic_spaces() | {"action_mask": spaces.MultiBinary(self.num_actions)}
        if sequence:
            found["sequence"] = spaces.Box(-1, self.num_points - 1, (self.solution_length,), np.int64)
        return spaces.Dict(found)


# ---- helpers -------------------------------------------------------------------------------------------------------


def problem_kinds() -> list[type[Problem]]:
    """The classes of all problems, which are imported."""
    return [resolve_object(path) for path in PROBLEMS.values()]


def problem_of_space(space: spaces.Space[Any]) -> Problem | None:
    """The problem with a BQ-MDP whose observations ``space`` has: of that size, its other settings as by default."""
    found = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
    for kind in problem_kinds():
        usual: Any = kind()  # type: ignore[call-arg]  # every problem has a size by default
        if kind.reduces and found.keys() - {"sequence"} == usual.observation_space(False).spaces.keys():
            key, (shape, _) = next(iter(usual.shapes().items()))
            own = found[key].shape or ()
            return usual.resized(own[0] - usual.num_points + usual.num_nodes) if len(own) == len(shape) else None
    return None


def make_problem(name: str, /, **settings: Any) -> Problem:
    """The problem called ``name``; raises UserError for an unknown name or setting, or a value out of range."""
    if name not in PROBLEMS:
        raise UserError(f"unknown problem {name!r}{nearest(name, PROBLEMS)}")
    return build(resolve_object(PROBLEMS[name]), settings)


def build(kind: type[Problem], settings: Mapping[str, Any]) -> Problem:
    """``kind(**settings)``, each setting one that ``kind`` declares and of the type that it declares.

    Raises UserError for others, and where ``kind`` does, for values out of range.
    """
    declared = get_type_hints(kind.__init__)
    known = list(inspect.signature(kind).parameters)
    for key in settings:
        if key not in known:
            raise UserError(f"{kind.name}: unknown setting '{key}'{nearest(key, known)}")
    return kind(**{key: _typed(kind.name, key, value, declared[key]) for key, value in settings.items()})


def _typed(problem: str, name: str, value: Any, declared: Any) -> Any:
    """``value`` as one of the ``declared`` types, int, float, str or a union of them with None; no bool is a number."""
    kinds = get_args(declared) or (declared,)
    if value is None and NoneType in kinds:
        return None
    if isinstance(value, str) and str in kinds:
        return value
    if not isinstance(value, bool):
        if isinstance(value, (int, np.integer)) and int in kinds:
            return int(value)
        if isinstance(value, (int, float, np.integer, np.floating)) and float in kinds and -LARGEST <= value <= LARGEST:
            return float(value)
    expected = {int: "a whole number", float: "a finite number", str: "a word", NoneType: "nothing"}
    raise UserError(
        f"{problem}: {name}={_short(value)} is out of range, expected {' or '.join(expected[kind] for kind in kinds)}"
    )


def generate(problem: Problem, size: int, seed: int, start: int = 0) -> dict[str, NDArray[Any]]:
    """Instances ``start`` .. ``start + size - 1`` of the stream ``seed``, stacked.

    Instance k comes from PCG64 seeded by ``SeedSequence([seed, k])`` and from nothing else.
    """
    sequences = (np.random.SeedSequence([seed, k]) for k in range(start, start + size))
    return problem.draw_batch([np.random.Generator(np.random.PCG64(sequence)) for sequence in sequences])


def stack(instances: Sequence[Instance]) -> dict[str, NDArray[Any]]:
    """A batch of ``instances`` of one size."""
    return {key: np.stack([instance[key] for instance in instances]) for key in instances[0]}


def row(instances: Instance, k: int) -> dict[str, NDArray[Any]]:
    """Instance ``k`` of a batch."""
    return {key: np.asarray(value[k]) for key, value in instances.items()}


def require_whole(problem: str, name: str, value: Any, least: int, most: int) -> int:
    """``value`` as an int; raises UserError unless it is a whole number, no bool, from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise UserError(
            f"{problem}: {name}={_short(value)} is out of range, expected a whole number from {least} to {most}"
        )
    return int(value)


def require_number(problem: str, name: str, value: Any, least: float) -> float:
    """``value`` as a float; raises UserError unless it is a number, no bool, from ``least`` to :data:`LARGEST`."""
    kinds = (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= LARGEST:
        raise UserError(f"{problem}: {name}={_short(value)} is out of range, expected a number of at least {least:g}")
    return float(value)


def _short(value: Any) -> str:
    """``value`` for a sentence, whatever it is."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"a number of {value.bit_length()} bits"  # which Python may refuse to write out
    text = repr(value) if isinstance(value, str) else str(value)
    return " ".join(text.split())[:60]


def require_permutations(problem: str, solutions: NDArray[np.int64], nodes: NDArray[np.int64]) -> None:
    """Raise UserError unless every row of ``solutions`` is a permutation of ``nodes``."""
    if solutions.shape[1] != len(nodes):
        raise UserError(f"solutions of {problem}: {solutions.shape[1]} entries each, expected {len(nodes)}")
    wrong = np.flatnonzero((np.sort(solutions, axis=1) != nodes).any(axis=1))
    if len(wrong):
        raise UserError(f"solution {wrong[0]} of {problem} is infeasible: expected every node exactly once")


def euclidean(coords: NDArray[np.float64], i: int, j: int) -> float:
    """Distance of two points of ``coords [n, 2]``."""
    (x, y), (u, v) = coords[i].tolist(), coords[j].tolist()
    return sqrt((x - u) * (x - u) + (y - v) * (y - v))


def remaining_mask(remaining: Sequence[int], count: int) -> NDArray[np.int8]:
    """1 for each of ``remaining``, int8 ``[count]``."""
    mask = np.zeros(count, np.int8)
    mask[list(remaining)] = 1
    return mask


def lengths(coords: NDArray[np.float64], tours: NDArray[np.int64]) -> NDArray[np.float64]:
    """Euclidean length ``[B]`` of open walks ``tours [B, L]`` over ``coords [B, N, 2]``; -1 stands still."""
    known = np.maximum.accumulate(np.where(tours >= 0, np.arange(tours.shape[1]), 0), axis=1)
    places = np.take_along_axis(coords, np.take_along_axis(tours, known, axis=1)[..., None], axis=1)  # [B, L, 2]
    steps = np.diff(places, axis=1)
    return np.sqrt((steps**2).sum(axis=-1)).sum(axis=-1)
