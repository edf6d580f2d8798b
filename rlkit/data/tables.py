"""Tables of named columns: CSV, Parquet, NPZ and HDF5 files, data frames, mappings of arrays, lists of episodes.

Files are read in parts, straight into the arrays that are asked for.  What a file declares is checked before memory is
taken, and nothing in it is unpickled.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import re
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.data.files import DEFLATE, SMALL, reading, require_held
from rlkit.data.hdf5 import SUFFIXES as HDF5
from rlkit.errors import DataError, install_extra, nearest, one_line, refusing, shown
from rlkit.system.files import require_whole
from rlkit.system.machine import memory

SUFFIXES = (".csv", ".tsv", ".parquet", ".npz", *HDF5)
WIDE = ("observations", "actions", "next_observations")  # roles of any number of columns; the others have one
BUFFER = 1 << 20  # bytes of a Parquet column that are read at once; by default all of a group of rows is
SAMPLE, CHUNK = 1000, 100_000  # rows that kinds are told from; rows that are read at once
LINE = 1 << 24  # characters of a line of cells, at most
FLAGS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}


class Table(ABC):
    """Columns by name; the parts of an array ``[N, k]`` are columns ``name[0]`` to ``name[k-1]``."""

    where: str  # how an error calls it
    names: list[str]
    text: frozenset[str]  # columns that hold no numbers
    rows: int | None  # None: not known before it is read
    examples: Mapping[str, tuple[int, str]] = {}  # row and cell that show a column to be text, where these are known
    mixed: frozenset[str] = frozenset()  # columns of text that hold numbers too: hardly meant to be text

    def refuse_text(self, name: str, role: str) -> None:
        """Raise :class:`DataError` for a column of text where numbers are needed."""
        held, hint = "", " (words to choose from as numbers from 0 on)" if role == "actions" else ""
        if name in self.examples:
            row, cell = self.examples[name]
            held = f" ({shown(cell)} at row {row})"
            hint = " with a point, not a comma" if re.fullmatch(r"[-+]?\d+,\d+", cell) else hint
        raise DataError(
            f"{self.where}: the column '{name}' of {role} holds text{held}, expected numbers{hint}, or columns.{role} "
            "to name other columns"
        )

    def expanded(self, name: str) -> list[str]:
        """The columns that ``name`` stands for: itself, or all parts of the array of that name.

        Raises :class:`DataError` naming the nearest column where there is none.
        """
        parts = [n for n in self.names if n == name or (n.startswith(f"{name}[") and n.endswith("]"))]
        if not parts:
            known = nearest(name, self.names) or f" (it has {len(self.names)} others)"
            raise DataError(f"{self.where} has no column {shown(name)}{known}")
        return parts

    @abstractmethod
    def read(self, wanted: Mapping[str, Sequence[str]], progress: bool = False) -> dict[str, np.ndarray]:
        """Columns by role: float32 ``[N, k]`` for :data:`WIDE` ones, ``[N]`` for ``episode`` in any dtype, float64
        ``[N]`` for the others.

        Raises :class:`DataError` naming column and row (from 0) where a cell is no number.
        """


def require_names(where: str, names: Iterable[str]) -> None:
    """Raise :class:`DataError` for a column whose name no line can show."""
    for name in names:
        if not name.isprintable():
            raise DataError(f"{where}: the name {shown(name)} of a column is unprintable, expected a line of text")


def base_of(name: str) -> str:
    """``observations`` of ``observations[3]``."""
    return re.sub(r"\[\d+\]$", "", name)


def require_room(where: str, rows: int, columns: int) -> None:
    """Raise :class:`DataError` where ``rows`` of so many float32 would not fit this machine's memory."""
    size, room = 4 * rows * columns, memory()
    if size > room:
        raise DataError(
            f"{where}: {rows:,} rows of {columns} columns take {size / 2**30:.0f} GiB, this machine has "
            f"{room / 2**30:.0f}; expected fewer columns or rows"
        )


def numbers(values: Any, where: str, name: str) -> np.ndarray:
    """``values`` as an array of numbers, flags or times; :class:`DataError` naming the first that is none."""
    array = np.asarray(values)
    if array.dtype.kind in "fiub":
        return array
    if array.dtype.kind in "mM":
        found = array.astype("datetime64[us]" if array.dtype.kind == "M" else "timedelta64[us]")
        return np.where(np.isnat(found), np.nan, found.astype(np.int64).astype(np.float64))
    found = np.empty(array.shape)
    for place, value in np.ndenumerate(array):
        try:
            if isinstance(value, (str, bytes)):
                raise TypeError
            found[place] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"{where}: '{name}' holds {shown(value)} at row {place[0]}, expected numbers") from None
    return found


class Arrays(Table):
    """Arrays ``[N]`` or ``[N, k]`` by name, each fetched when it is read; ``fetch`` may fill what it is given."""

    def __init__(
        self,
        where: str,
        shapes: Mapping[str, tuple[int, ...]],
        text: Sequence[str],
        fetch: Callable[[str], Any],
    ):
        require_names(where, shapes)
        self.where, self.fetch = where, fetch
        self.widths = {name: shape[1] if len(shape) == 2 else None for name, shape in shapes.items()}
        self.names = [part for name in shapes for part in self._parts(name)]
        self.text = frozenset(part for name in text for part in self._parts(name))
        lengths = {name: shape[0] for name, shape in shapes.items()}
        self.rows = next(iter(lengths.values()), 0)
        for name, length in lengths.items():
            if length != self.rows:
                first = next(iter(lengths))
                raise DataError(f"{where}: '{name}' has {length} rows and '{first}' {self.rows}, expected as many")

    def _parts(self, name: str) -> list[str]:
        width = self.widths[name]
        return [name] if width is None else [f"{name}[{i}]" for i in range(width)]

    def read(self, wanted: Mapping[str, Sequence[str]], progress: bool = False) -> dict[str, np.ndarray]:
        assert self.rows is not None
        found: dict[str, np.ndarray] = {}
        with reading(self.where, sum(map(len, wanted.values())), "column", progress) as bar:
            for role, names in wanted.items():
                bases = dict.fromkeys(base_of(name) if base_of(name) in self.widths else name for name in names)
                if role == "episode":
                    ids = np.asarray(self.fetch(base := next(iter(bases))))
                    found[role] = ids if ids.ndim == 1 else ids[:, self._parts(base).index(names[0])]
                    bar.update()
                    continue
                found[role] = np.empty((self.rows, len(names)), np.float32 if role in WIDE else np.float64)
                for base in bases:
                    bar.update(self._fill(found[role], base, names))
                if role not in WIDE:
                    found[role] = found[role][:, 0]
        return found

    def _fill(self, out: np.ndarray, base: str, names: Sequence[str]) -> int:
        """How many columns of ``out`` were filled from the array ``base``."""
        values = numbers(self.fetch(base), self.where, base)
        parts = [(column, name) for column, name in enumerate(self._parts(base)) if name in names]
        for column, name in parts:
            with np.errstate(over="ignore"):  # a float64 beyond float32 becomes an infinity, which is then named
                out[:, names.index(name)] = values if self.widths[base] is None else values[:, column]
        return len(parts)


def from_mapping(arrays: Mapping[str, Any], where: str = "the mapping") -> Arrays:
    """The table of arrays ``[N]`` or ``[N, k]``, of lists, or of a data frame's columns."""
    found: dict[str, np.ndarray] = {}
    for name in arrays:
        if not isinstance(name, str):
            raise DataError(f"{where}: the column {shown(name)} has no name, expected text")
        values = arrays[name]
        try:
            found[name] = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
        except (ValueError, TypeError):  # lists of lists of different lengths
            raise DataError(f"{where}: '{name}' is no array, expected one number a row or as many in each") from None
        if found[name].ndim not in (1, 2):
            shape = list(found[name].shape)
            raise DataError(f"{where}: '{name}' has shape {shape}, expected one number a row or a vector")
    text = [name for name, array in found.items() if not _is_numeric(array)]
    table = Arrays(where, {name: array.shape for name, array in found.items()}, text, found.__getitem__)
    for name in text:
        values = list(found[name][:SAMPLE]) if found[name].ndim == 1 and found[name].dtype.kind == "O" else []
        if any(isinstance(value, (int, float, np.number)) and value == value for value in values):  # NaN: none is there
            at = next(at for at, value in enumerate(values) if isinstance(value, (str, bytes)))
            table.mixed |= {name}
            table.examples = {**table.examples, name: (at, str(values[at]))}
    return table


def _is_numeric(array: np.ndarray) -> bool:
    if array.dtype.kind == "O":
        return all(not isinstance(value, (str, bytes)) for value in array.ravel()[:SAMPLE])
    return array.dtype.kind in "fiubmM"


def from_episodes(episodes: Sequence[Any]) -> Arrays:
    """The table of a list of episodes, mappings or objects such as Minari's.

    Each has ``observations`` ``[T, ds]``, or ``[T + 1, ds]`` with the state that the last action led to; ``actions``
    ``[T, da]``; and perhaps ``rewards``, ``terminations`` (or ``terminals``) and ``truncations`` (or ``timeouts``)
    ``[T]``.

    Raises :class:`DataError` for episodes of other forms.
    """
    where = "the list of episodes"
    if not episodes:
        raise DataError(f"{where} is empty, expected at least one")
    columns: dict[str, list[np.ndarray]] = {}
    lengths: list[int] = []
    ahead: set[bool] = set()
    for index, episode in enumerate(episodes):
        found = {}
        for name, others in {
            "observations": ("observations",),
            "actions": ("actions",),
            "rewards": ("rewards",),
            "terminations": ("terminations", "terminals"),
            "truncations": ("truncations", "timeouts"),
        }.items():
            for other in others:
                values = episode.get(other) if isinstance(episode, Mapping) else getattr(episode, other, None)
                if values is not None:
                    found[name] = numbers(values, f"{where}: episode {index}", other)
        if not {"observations", "actions"} <= found.keys():
            raise DataError(f"{where}: episode {index} has no observations or no actions, expected both")
        columns = columns or {name: [] for name in found}
        if found.keys() != columns.keys():
            raise DataError(f"{where}: episode {index} has {', '.join(found)}, expected {', '.join(columns)}")
        steps, states = len(found["actions"]), len(found["observations"])
        lengths.append(steps)
        ahead.add(states == steps + 1)
        for name, values in found.items():
            if len(values) != steps + (name == "observations" and states == steps + 1):
                raise DataError(f"{where}: episode {index} has {len(values)} {name} and {steps} actions")
            columns[name].append(values)
    if len(ahead) == 2:
        raise DataError(f"{where}: some have a last observation beyond their actions and some not, expected one form")
    arrays: dict[str, Any] = {}
    if ahead == {True}:
        arrays["next_observations"] = _joined([states[1:] for states in columns["observations"]], where)
        columns["observations"] = [states[:-1] for states in columns["observations"]]
    arrays |= {name: _joined(values, where) for name, values in columns.items()}
    arrays["episode"] = np.repeat(np.arange(len(lengths)), lengths)
    return from_mapping(arrays, where)


def _joined(values: list[np.ndarray], where: str) -> np.ndarray:
    try:
        return np.concatenate(values)
    except ValueError as error:
        raise DataError(f"{where}: episodes differ in shape ({one_line(error)})") from None


# ---- files -----------------------------------------------------------------------------------------------------------


def open_table(path: str | Path) -> Table:
    """The table in a file, by its suffix.  Raises :class:`DataError` for one that is missing, empty or damaged."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise DataError(f"{path} is of no kind that is read, expected one of {', '.join(SUFFIXES)}")
    if not path.exists():
        raise DataError(f"{path} does not exist, expected a file of rows")
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a file of rows")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes), expected a file of rows")
    require_whole(path, DataError)
    if kind == ".parquet":
        return Parquet(path)
    if kind == ".npz":
        return _npz(path)
    return _hdf5(path) if kind in HDF5 else CSV(path)


class CSV(Table):
    """Lines of cells under a line of names; commas, semicolons, tabs or bars between them, ``.`` in numbers."""

    rows = None

    def __init__(self, path: Path):
        self.path, self.where = path, str(path)
        with self._lines() as lines:
            head = next(lines, "")
            self.delimiter = max(",;\t|", key=head.count)
            self.names = [name.strip() for name in next(_cells([head], self.delimiter, path), [])]
            sample = list(_first(_cells(lines, self.delimiter, path), SAMPLE))
        require_names(self.where, self.names)
        if all(_number(name) is not None for name in self.names):
            raise DataError(f"{path} has no line of names, its first one is {shown(head.strip())}")
        for name in self.names:
            if not name or self.names.count(name) > 1:
                raise DataError(f"{path}: the name {shown(name)} stands for several columns, expected each once")
        sample = [row for row in sample if row]
        cells = {name: {row[i].strip() for row in sample if i < len(row)} for i, name in enumerate(self.names)}
        self.words = {name for name, held in cells.items() if any(cell.lower() in ("true", "false") for cell in held)}
        self.examples = {}
        for place, name in enumerate(self.names):
            for row, held_cells in enumerate(sample):
                cell = held_cells[place].strip() if place < len(held_cells) else ""
                if name not in self.words and _number(cell) is None:
                    self.examples[name] = (row, cell)
                    break
        self.text = frozenset(self.examples)
        self.mixed = frozenset(n for n in self.text if any(cell and _number(cell) is not None for cell in cells[n]))
        width = sum(len(self.delimiter.join(row)) + 1 for row in sample) / max(len(sample), 1)
        self.expected_rows = int(path.stat().st_size / max(width, 1))

    def _lines(self) -> Any:
        try:
            return _Decoded(self.path)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from None

    def read(self, wanted: Mapping[str, Sequence[str]], progress: bool = False) -> dict[str, np.ndarray]:
        names = [name for role in wanted.values() for name in role]
        places = [self.names.index(name) for name in names]
        require_room(self.where, self.expected_rows, len(names))
        episodes: dict[str, int] = {}
        single = {names[0]: role for role, names in wanted.items() if role not in WIDE}
        converters: dict[int | str, Any] = {}
        for name, place in zip(names, places, strict=True):
            if single.get(name) == "episode":  # whatever is written there; numbers would lose digits
                converters[place] = lambda cell: episodes.setdefault(cell.strip(), len(episodes))
            elif name in self.words:
                converters[place] = lambda cell: FLAGS[cell.strip().lower()]
            elif name in self.text:
                converters[place] = _time
        parts: dict[str, list[np.ndarray]] = {role: [] for role in wanted}
        done = 0
        with self._lines() as lines, reading(self.path, self.path.stat().st_size, "B", progress) as bar:
            next(lines)
            lines.delimiter, lines.most = self.delimiter, len(self.names)
            while True:
                block = self._block(lines, places, converters, done)
                bar.update(lines.taken - bar.n)
                start = 0
                for role, columns in wanted.items():
                    values = block[:, start : start + len(columns)]
                    start += len(columns)
                    dtype = np.float32 if role in WIDE else np.int64 if role == "episode" else np.float64
                    with np.errstate(over="ignore", invalid="ignore"):
                        parts[role].append(values.astype(dtype) if role in WIDE else values[:, 0].astype(dtype))
                done += len(block)
                if len(block) < CHUNK:
                    break
        found = {}
        for role in list(parts):
            found[role] = np.concatenate(parts.pop(role))
        return found

    def _block(
        self, lines: Iterator[str], places: list[int], converters: dict[int | str, Any], done: int
    ) -> np.ndarray:
        """float64 ``[n, len(places)]``: the next rows; ``done`` came before."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of no rows left
                return np.loadtxt(
                    lines,
                    delimiter=self.delimiter,
                    usecols=places,
                    max_rows=CHUNK,
                    comments=None,
                    quotechar='"',
                    converters=converters or None,
                    ndmin=2,
                ).reshape(-1, len(places))
        except DataError:  # of the lines
            raise
        except (ValueError, KeyError, IndexError) as error:
            text = one_line(error)
            if cell := re.search(r"could not convert string (.*) to float64 at row (\d+), column (\d+)", text):
                name, row = self.names[int(cell[3]) - 1], done + int(cell[2])
                held = "nothing" if cell[1] == "''" else shown(cell[1].strip("'"))
                kind = "true or false as in other rows" if name in self.words else "a number"
                raise DataError(f"{self.where}: '{name}' holds {held} at row {row}, expected {kind}") from None
            if row_found := re.search(r"at row (\d+)", text):
                row = done + int(row_found[1]) - 1  # these it counts from 1
                what = "has fewer cells than names" if "column index" in text else "cannot be read"
                raise DataError(f"{self.where}: row {row} {what} ({text})") from None
            raise DataError(f"{self.where} cannot be read as {len(self.names)} columns ({text})") from None


class _Decoded:
    """The lines of a text file, and how many bytes were taken; UTF-8, with or without its mark."""

    def __init__(self, path: Path):
        self.path, self.taken = path, 0
        self.delimiter, self.most, self.row = ",", 0, -1  # most: cells that a line may hold; 0 for any number
        self.file = path.open("r", encoding="utf-8-sig", newline="")

    def __enter__(self) -> _Decoded:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __iter__(self) -> _Decoded:
        return self

    def __next__(self) -> str:
        try:
            line = self.file.readline(LINE + 1)
        except UnicodeDecodeError:
            raise DataError(f"{self.path} is no text in UTF-8, expected lines of cells") from None
        if not line:
            raise StopIteration
        if len(line) > LINE:
            raise DataError(f"{self.path} has a line of more than {LINE:,} characters, expected lines of cells")
        self.taken += len(line)
        if self.most and line.strip():
            self.row += 1
            if line.count(self.delimiter) >= self.most:  # some may be quoted
                cells = len(next(_cells([line], self.delimiter, self.path)))
                if cells > self.most:
                    raise DataError(
                        f"{self.path}: row {self.row} has {cells} cells, expected {self.most} as there are names "
                        "(numbers with decimal commas need semicolons between them and points instead)"
                    )
        return line


def _cells(lines: Iterable[str], delimiter: str, path: Path) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines, delimiter=delimiter)
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as lines of cells ({one_line(error)})") from None


def _first(rows: Iterator[list[str]], count: int) -> Iterator[list[str]]:
    for _, row in zip(range(count), rows, strict=False):
        yield row


def _number(text: str) -> float | None:
    """The number that a cell holds; 0 of an empty one, whose kind its neighbours tell; None where it is none."""
    try:
        return float(text or 0)
    except ValueError:
        return None


def _time(cell: str) -> float:
    """A date or time in ISO's form, in microseconds."""
    return float(np.datetime64(cell.strip(), "us").astype(np.int64))


class Parquet(Table):
    """Columns of a Parquet file; needs pyarrow."""

    def __init__(self, path: Path):
        self.where = str(path)
        if importlib.util.find_spec("pyarrow") is None:
            raise DataError(f"{path}: reading Parquet needs pyarrow, expected it installed: {install_extra('parquet')}")
        import pyarrow.parquet
        import pyarrow.types

        kinds = pyarrow.types
        with refusing(path, "is damaged, expected a Parquet file", DataError):
            self.file = pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER)
            schema = self.file.schema_arrow
            self.names, self.rows = list(schema.names), int(self.file.metadata.num_rows)
            require_names(self.where, self.names)
            numeric = (kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_decimal, kinds.is_temporal)
            self.text = frozenset(field.name for field in schema if not any(is_kind(field.type) for is_kind in numeric))

    def read(self, wanted: Mapping[str, Sequence[str]], progress: bool = False) -> dict[str, np.ndarray]:
        assert self.rows is not None
        names = [name for role in wanted.values() for name in role]
        require_room(self.where, self.rows, len(names))
        found: dict[str, Any] = {
            role: np.empty((self.rows, len(columns)), np.float32) if role in WIDE else np.empty(self.rows)
            for role, columns in wanted.items()
            if role != "episode"
        }
        episodes: list[np.ndarray] = []
        done = 0
        with reading(self.where, self.rows, "row", progress) as bar, np.errstate(over="ignore"):
            for group in range(self.file.num_row_groups):
                count = self.file.metadata.row_group(group).num_rows
                rows = slice(done, done + count)
                for role, columns in wanted.items():
                    for place, column in enumerate(columns):
                        values = self._column(group, column)
                        if role == "episode":
                            episodes.append(values)
                        else:
                            target = found[role][rows, place] if role in WIDE else found[role][rows]
                            target[...] = numbers(values, self.where, column)
                done += count
                bar.update(count)
        if "episode" in wanted:
            found["episode"] = np.concatenate(episodes) if episodes else np.empty(0)
        return found

    def _column(self, group: int, name: str) -> np.ndarray:
        """``[n]``: one column of a group of rows; several at once would take the memory of all."""
        with refusing(self.where, "is damaged, expected a Parquet file", DataError):
            return self.file.read_row_group(group, columns=[name], use_threads=False).column(0).to_numpy()


def _npz(path: Path) -> Arrays:
    """The arrays of an NPZ file, none of them pickled, each as large as the file says."""
    where, shapes, kinds = str(path), {}, {}
    with refusing(path, "is damaged, expected an NPZ file", DataError), zipfile.ZipFile(path) as members:
        for member in members.infolist():
            name = member.filename.removesuffix(".npy")
            with members.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            declared = math.prod(shape) * dtype.itemsize
            if dtype.hasobject or dtype.kind not in "fiubUSmM" or len(shape) not in (1, 2):
                raise DataError(f"{path}: '{name}' is no array of numbers, one or a vector of them a row")
            if declared > member.file_size or member.file_size > max(SMALL, DEFLATE * member.compress_size):
                raise DataError(f"{path}: '{name}' declares {declared:,} bytes of numbers and holds fewer")
            require_room(where, math.prod(shape), dtype.itemsize // 4 + 1)
            shapes[name], kinds[name] = shape, dtype.kind
    if not shapes:
        raise DataError(f"{path} holds no arrays, expected some")

    def fetch(name: str) -> np.ndarray:
        with refusing(path, "is damaged, expected an NPZ file", DataError), np.load(path, allow_pickle=False) as file:
            return file[name]

    return Arrays(where, shapes, [name for name, kind in kinds.items() if kind in "US"], fetch)


def _hdf5(path: Path) -> Arrays:
    """The arrays at the top of an HDF5 file; links out of it are not followed."""
    import h5py

    where, shapes = str(path), {}

    def fetch(name: str) -> np.ndarray:
        with refusing(path, "is damaged; download or copy it again", DataError), h5py.File(path, "r") as file:
            require_held(file[name].id, f"{path}: '{name}'")
            return file[name][()]

    with refusing(path, "is not an HDF5 file, or damaged", DataError), h5py.File(path, "r") as file:
        for name in file:
            node = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
            if isinstance(node, h5py.Dataset) and node.dtype.kind in "fiub" and node.shape and len(node.shape) <= 2:
                shapes[name] = node.shape
    if not shapes:
        raise DataError(f"{path} holds no arrays of numbers at its top, expected some")
    return Arrays(where, shapes, (), fetch)
