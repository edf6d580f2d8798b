"""Hostile logs for ``scripts/fuzz.py``: CSV, NPZ and Parquet files with something in them that should not be there."""

from __future__ import annotations

import importlib
import importlib.util
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_files import Door, hostile, spoilt_tensors


def log_door(folder: Path, generator: np.random.Generator) -> Door:
    """Check and load a log: CSV, NPZ and, where pyarrow is there, Parquet."""
    from rlkit.data import check_dataset, load_dataset

    importlib.import_module("tqdm")  # which a reader imports once it reads
    rows = 60
    columns: dict[str, np.ndarray] = {f"obs_{i}": generator.normal(size=rows) for i in range(3)}
    columns |= {"act_0": generator.uniform(size=rows), "act_1": np.arange(rows) % 3, "reward": np.ones(rows)}
    columns |= {"episode": np.arange(rows) // 10, "done": np.arange(rows) % 10 == 9, "t": np.arange(rows) % 10}
    makers: dict[str, Callable[[], bytes]] = {
        "csv": lambda: spoilt_csv(columns, generator),
        "npz": lambda: spoilt_npz(columns, generator),
    }
    if importlib.util.find_spec("pyarrow"):
        makers["parquet"] = lambda: spoilt_parquet(columns, generator)
    while True:
        kind = list(makers)[generator.integers(len(makers))]
        path = folder / f"input.{kind}"
        path.write_bytes(broken_bytes(makers[kind](), generator))

        def read(path: Path = path) -> None:
            check_dataset(path)
            load_dataset(path)

        yield kind, read


def broken_bytes(data: bytes, generator: np.random.Generator) -> bytes:
    """``data``, one time in six with some bytes replaced and perhaps its end missing."""
    if generator.integers(6) or not data:
        return data
    found = bytearray(data)
    for at in generator.integers(len(found), size=8):
        found[at] = generator.integers(256)
    return bytes(found[: len(found) if generator.integers(2) else int(generator.integers(1, len(found) + 1))])


def spoilt_csv(columns: dict[str, np.ndarray], generator: np.random.Generator) -> bytes:
    """A CSV with cells, names or lines that should not be there."""
    lines = [list(columns), *([str(cell) for cell in row] for row in zip(*columns.values(), strict=True))]
    for _ in range(int(generator.integers(1, 4))):
        row = lines[int(generator.integers(len(lines)))] if generator.integers(4) else lines[0]
        at = int(generator.integers(len(row))) if row else 0
        kind = generator.integers(6)
        if kind < 3 and row:
            row[at] = str(hostile(generator))
        elif kind == 3 and row:
            del row[at]
        elif kind == 4:
            row.insert(at, ('"', "1,5", "", "=1+1", "x" * 200_000, "\x00", "9" * 400, "1e999")[generator.integers(8)])
        else:
            lines.insert(
                int(generator.integers(len(lines))), [[], [""] * 5000, ["0"] * len(columns)][generator.integers(3)]
            )
    text = "\n".join(",;\t|"[0 if generator.integers(4) else generator.integers(4)].join(row) for row in lines)
    return text.encode(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")[generator.integers(5)], "replace")


def spoilt_npz(columns: dict[str, np.ndarray], generator: np.random.Generator) -> bytes:
    """An NPZ file of spoilt arrays, of pickles, or whose headers promise what is not there."""
    arrays = spoilt_tensors({name: np.asarray(column) for name, column in columns.items()}, generator)
    buffer = io.BytesIO()
    members = {name: array_bytes(array) for name, array in arrays.items()}
    name = sorted(members)[generator.integers(len(members))]
    kind = generator.integers(8)
    if kind == 0:
        members[name] = array_bytes(np.array([{"a": print}] * 60, object))  # a pickle
    elif kind == 1:
        shape = ((10**12,), (2**62, 2**62), (-1,), (60, 10**9), (), (60, 0), (1,) * 30)[generator.integers(7)]
        header = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
        members[name] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\x00" * 240
    elif kind == 2:
        texts = ("canary_module", "__import__('os')", "{" * 3000, "", "{'descr': '|O'}", "\x00")
        header = texts[generator.integers(6)].encode()
        members[name] = b"\x93NUMPY\x03\x00" + struct.pack("<I", len(header)) + header
    elif kind == 3:
        members[("../up", "/etc/x", "", "a" * 5000, "\x1b[2J\n")[generator.integers(5)]] = members.pop(name)
    elif kind == 4:
        odd = (np.array(["text"] * 60), np.zeros(60, "m8[s]"), np.zeros(60, "c8"), np.zeros(60, [("a", "f4")]))
        members[name] = array_bytes(odd[generator.integers(4)])
    packing = zipfile.ZIP_DEFLATED if generator.integers(2) else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(f"{member}.npy"), data, packing)
        if kind == 5:
            archive.writestr("note.txt", b"no array")
    return buffer.getvalue()


def array_bytes(array: np.ndarray) -> bytes:
    """An array as NPY; objects are pickled."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def spoilt_parquet(columns: dict[str, np.ndarray], generator: np.random.Generator) -> bytes:
    """A Parquet file of spoilt columns, or of kinds of columns that are no numbers."""
    import pyarrow
    import pyarrow.parquet

    table: dict[str, Any] = {name: pyarrow.array(column) for name, column in columns.items()}
    name = sorted(table)[generator.integers(len(table))]
    odd: tuple[Any, ...] = (
        [None] * 60,
        [[1.0]] * 60,
        [{"a": 1}] * 60,
        ["text"] * 60,
        [b"\xff"] * 60,
        [1.5, None] * 30,
        [True, None] * 30,
        [2**63 - 1, None] * 30,
        [float("inf")] * 60,
        ["0"] * 60,
    )
    table[name] = pyarrow.array(odd[generator.integers(len(odd))])
    if not generator.integers(3):
        table[str(hostile(generator))] = table.pop(name)
    buffer = io.BytesIO()
    size = (None, 1, 7)[generator.integers(3)]
    rows = (60, 60, 1, 0)[generator.integers(4)]
    found = pyarrow.table({key: column.slice(0, rows) for key, column in table.items()})
    pyarrow.parquet.write_table(found, buffer, row_group_size=size)
    return buffer.getvalue()
