"""Hostile files of routing: mutated and grammar-built benchmark files, and label sets whose hashes are right.

:func:`cases` yields them without end, as a generator decides; the name's suffix says which of :data:`READERS` a file is
for.  A reader may return, or raise one ``UserError`` of one line; nothing else, and within 200 MB.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.envs.combinatorial.base import PROBLEMS, generate, make_problem, row
from rlkit.envs.combinatorial.cvrp.files import read_cvrplib
from rlkit.envs.combinatorial.labels import read_labels
from rlkit.envs.combinatorial.solvers import solve
from rlkit.envs.combinatorial.tsp.files import read_tour, read_tsplib
from rlkit.envs.combinatorial.tsplib import FORMATS, KNOWN, TYPES

FILES = Path(__file__).parent / "routing"
READERS: dict[str, Callable[[Path], Any]] = {
    ".tsp": read_tsplib,
    ".vrp": read_cvrplib,
    ".tour": read_tour,
    ".sol": lambda path: read_cvrplib(FILES / "sol-float.vrp", path),
    ".safetensors": read_labels,
}
NUMBERS = (
    *("0", "1", "2", "3", "-1", "4", "10", "0.5", "2.5", "1e3", "-0", "+7", "1e12", "1e13", "1e-300", "1e308", "1e999"),
    *(
        "nan",
        "inf",
        "-inf",
        "1_0",
        "0x10",
        "1,5",
        "\uff11",
        "9" * 400,
        "1000000",
        "999999999",
        "4294967296",
        "x",
        "--1",
    ),
)
WORDS = sorted({*(key for keys in KNOWN.values() for key in keys), *TYPES, *FORMATS, *KNOWN, "FULL_MATRIX", "EOF"})
WORDS += ["DISTANCE", "TIME_WINDOW_SECTION", "FIXED_EDGES_SECTION", "_SECTION", "Route", "#1:", "Cost", ":", "=", "\0"]
WORDS += ["\ufeff", "\x85", "\u2028", "\x1b[2J", "--", "!!python/object", "${x}", "a" * 3000]
SMALL: dict[str, dict[str, Any]] = {
    "tsp": {"num_nodes": 5},
    "atsp": {"num_nodes": 4},
    "cvrp": {"num_nodes": 4, "capacity": 12},
    "op": {"num_nodes": 4, "budget": 2.0},
    "knapsack": {"num_nodes": 4, "capacity": 2.0},
    "convex-hull": {"num_nodes": 5},
    "delaunay": {"num_nodes": 4},
}
assert set(SMALL) == set(PROBLEMS)


def cases(generator: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """``(name, content)`` of one file after another, of every kind, without end."""
    kinds = (_mutated, _built, _odd, _labels, _label_bytes)
    number = 0
    while True:
        suffix, content = kinds[number % len(kinds)](generator)
        yield f"{number}{suffix}", content
        number += 1


def _pick(generator: np.random.Generator, options: Any) -> Any:
    return options[int(generator.integers(len(options)))]


# ---- benchmark files -------------------------------------------------------------------------------------------------


@cache
def _originals() -> list[tuple[str, bytes]]:
    tour = b"NAME: t\nTYPE: TOUR\nDIMENSION: 4\nTOUR_SECTION\n1\n3\n2\n4\n-1\nEOF\n"
    return [*((path.suffix, path.read_bytes()) for path in sorted(FILES.iterdir())), (".tour", tour)]


def _mutated(generator: np.random.Generator) -> tuple[str, bytes]:
    """A sound file with a few bytes, words or lines changed, moved, repeated or lost."""
    suffix, content = _pick(generator, _originals())
    for _ in range(int(generator.integers(1, 6))):
        a, b = sorted(generator.integers(0, len(content) + 1, 2).tolist())
        b = min(b, a + 40)
        lines = content.split(b"\n")
        i, j = generator.integers(len(lines), size=2).tolist()
        word = str(_pick(generator, NUMBERS if generator.random() < 0.5 else WORDS)).encode()
        match int(generator.integers(8)):
            case 0:
                content = content[:a] + bytes(generator.integers(0, 256, b - a, np.uint8)) + content[b:]
            case 1:
                content = content[:a] + content[b:]
            case 2:
                content = content[:b] + content[a:b] * int(generator.integers(1, 50)) + content[b:]
            case 3:
                content = content[:a] + b" " + word + b" " + content[a:]
            case 4:
                lines[i], lines[j] = lines[j], lines[i]
                content = b"\n".join(lines)
            case 5:
                words = lines[i].split()
                if words:
                    words[int(generator.integers(len(words)))] = word
                lines[i] = b" ".join(words)
                content = b"\n".join(lines)
            case 6:
                content = content[:a]
            case _:
                content = b"\n".join([*lines[:i], word, *lines[i:]])
    return suffix, content


def _built(generator: np.random.Generator) -> tuple[str, bytes]:
    """A file by the grammar, mostly sound, with any keywords, numbers and sections."""
    suffix = _pick(generator, (".tsp", ".vrp", ".tour", ".sol"))
    n = int(_pick(generator, (3, 4, 4, 5, 9)))
    wild = float(_pick(generator, (0.0, 0.02, 0.3)))

    def number(sound: Any) -> str:
        return str(_pick(generator, NUMBERS)) if generator.random() < wild else str(sound)

    def rows(columns: int) -> list[str]:
        order = generator.permutation(n) + 1 if generator.random() < 0.5 else np.arange(1, n + 1)
        values = np.round(generator.random((n, columns)) * float(_pick(generator, (1, 10, 1e4))), 2)
        return [" ".join(number(v) for v in (i, *values[k])) for k, i in enumerate(order.tolist())]

    if suffix == ".sol":
        routes = np.array_split(generator.permutation(3) + 1, int(generator.integers(1, 4)))
        lines = [f"Route #{number(k + 1)}: " + " ".join(map(number, r.tolist())) for k, r in enumerate(routes)]
        return suffix, "\n".join([*lines, f"Cost {number(24.61)}"]).encode()
    kind, edges = ("TOUR" if suffix == ".tour" else "CVRP" if suffix == ".vrp" else "TSP"), str(_pick(generator, TYPES))
    form = str(_pick(generator, (*FORMATS, "FULL_MATRIX")))
    header = [f"NAME: {number('a')}", f"TYPE: {number(kind)}", f"DIMENSION: {number(n)}"]
    sections: list[list[str]] = []
    if kind == "TOUR":
        sections.append(["TOUR_SECTION", *map(number, (generator.permutation(n) + 1).tolist()), "-1"])
    else:
        header.append(f"EDGE_WEIGHT_TYPE: {number(edges)}")
        if edges == "EXPLICIT":
            header.append(f"EDGE_WEIGHT_FORMAT: {form}")
            offset = -1 if form == "FULL_MATRIX" else 0 if "DIAG" in form else 1
            count = n * n if offset < 0 else n * (n + 1) // 2 - offset * n
            sections.append(["EDGE_WEIGHT_SECTION", *map(number, generator.integers(0, 99, count).tolist())])
        if edges != "EXPLICIT" or generator.random() < 0.3:
            sections.append(["NODE_COORD_SECTION", *rows(3 if edges.endswith("3D") else 2)])
        if generator.random() < 0.2:
            sections.append(["DISPLAY_DATA_SECTION", *rows(2)])
    if kind == "CVRP":
        header.append(f"CAPACITY: {number(_pick(generator, (10, 9.5, 1e5)))}")
        demands = np.round(generator.random(n) * 9 + 0.1, int(generator.integers(0, 4)))
        sections.append(["DEMAND_SECTION", *(f"{k + 1} {number(d if k else 0)}" for k, d in enumerate(demands))])
        sections.append(["DEPOT_SECTION", number(1), "-1"])
    if generator.random() < wild:
        header.insert(int(generator.integers(len(header))), f"{_pick(generator, WORDS)}: {number(3)}")
    for part in (header, sections):
        if generator.random() < 0.5:
            generator.shuffle(part)  # type: ignore[arg-type]
    newline = str(_pick(generator, ("\n", "\r\n", "\r", "\n\n")))
    return suffix, newline.join([*header, *(line for section in sections for line in section), "EOF", ""]).encode()


def _odd(generator: np.random.Generator) -> tuple[str, bytes]:
    """What is large, deep or no text."""
    suffix, content = _pick(generator, _originals())
    big = int(generator.integers(1, 200_000))
    odd = (
        lambda: content + b"1 " * big,
        lambda: content.replace(b" ", b" " * (big % 1000)),
        lambda: b"Route" + b" " * big + b"x",
        lambda: b"Route #1: " + b"1 " * big,
        lambda: b"COMMENT: a\n" * (big // 10) + content,
        lambda: b"A" * big,
        lambda: b"NAME" + b":" * big + b"\n" + content,
        lambda: content.replace(b"DIMENSION: 4", b"DIMENSION: " + b"9" * big),
        lambda: content.decode("utf-8", "replace").encode("utf-16"),
        lambda: bytes(generator.integers(0, 256, big % 5000, np.uint8)),
        lambda: b"",
        lambda: b"TYPE: TOUR\nTOUR_SECTION\n" + b"1\n" * big,
        lambda: (
            b"TYPE: TSP\nDIMENSION: 999999\nEDGE_WEIGHT_TYPE: EXPLICIT\nEDGE_WEIGHT_FORMAT: FULL_MATRIX\n"
            b"EDGE_WEIGHT_SECTION\n" + b"3 " * (big % 100)
        ),
    )
    return suffix, _pick(generator, odd)()


# ---- label sets ------------------------------------------------------------------------------------------------------


@cache
def sound_set(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata of a small set that is sound."""
    problem, size = make_problem(name, **SMALL[name]), 3
    instances = generate(problem, size, 1)
    solutions = np.stack([solve(problem, row(instances, k), "own") for k in range(size)])
    arrays = {**instances, "solution": solutions, "objective": problem.objectives(instances, solutions)}
    made = {"size": size, "seed": 1, "solver": "own", "effort": 1.0}
    versions = {"rlkit": "1", "numpy": "2", "own": "1"}
    return arrays, {"format": 1, "problem": name, "settings": problem.settings(), **made, "versions": versions}


DTYPES = {"float64": "F64", "int64": "I64", "float32": "F32", "int32": "I32", "bool": "BOOL", "uint8": "U8"}


def pack(arrays: dict[str, np.ndarray], metadata: str, change: Callable[[dict[str, Any]], Any] | None = None) -> bytes:
    """Safetensors of ``arrays``, whose header ``change`` may spoil, in place or by returning its text."""
    header: dict[str, Any] = {"__metadata__": {"rlkit": metadata}}
    data = b""
    for key, array in arrays.items():
        begin, data = len(data), data + np.ascontiguousarray(array).tobytes()
        header[key] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, len(data)],
        }
    spoilt = change(header) if change is not None else None
    text = spoilt if isinstance(spoilt, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def digests(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    return {key: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for key, array in arrays.items()}


DEEP = "[" * 100_000 + "]" * 100_000
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 6, 7, 10**6, 10**9, 10**12, 2**63, 10**400, 0.5, 1e308, -1e-9, "", "6", "tsp"),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        [],
        [6],
        {},
        {"num_nodes": 6},
        "a\nb",
        "\x1b[2J",
        "os:system",
        "x" * 5000,
    ),
    *("rlkit.envs.combinatorial.tsp:TSP", "__import__", "own", "fast-tsp", "bq", "direct", "\ud800"),
)
KEYS = ("num_nodes", "formulation", "capacity", "budget", "items", "self", "name", "env", "__class__", "module", "a\nb")


def _labels(generator: np.random.Generator) -> tuple[str, bytes]:
    """A set with hostile metadata or arrays, and the hashes that fit them."""
    arrays, metadata = sound_set(str(_pick(generator, list(SMALL))))
    arrays, metadata = {key: array.copy() for key, array in arrays.items()}, json.loads(json.dumps(metadata))
    key, value = str(_pick(generator, list(arrays))), _pick(generator, VALUES)
    with np.errstate(all="ignore"):
        match int(generator.integers(10)):
            case 0:
                metadata[str(_pick(generator, list(metadata)))] = value
            case 1:
                metadata["settings"][str(_pick(generator, (*KEYS, *metadata["settings"])))] = value
            case 2:
                metadata[str(_pick(generator, KEYS))] = value
            case 3:
                del metadata[str(_pick(generator, list(metadata)))]
            case 4 | 5:
                flat = arrays[key].reshape(-1)
                number = _pick(
                    generator, (0, -1, 1, -2, 7, 2**53 + 2, -(2**63), 2**62, 0.5, 1e30, -1e300, np.nan, np.inf)
                )
                flat[int(generator.integers(len(flat)))] = np.float64(number).astype(flat.dtype)
            case 6:
                arrays[key] = arrays[key].astype(str(_pick(generator, list(DTYPES))))
            case 7:
                other = _pick(generator, (lambda a: a[:0], lambda a: a[:-1], lambda a: a[..., None], lambda a: a.T))
                arrays[key] = other(arrays[key])
            case 8:
                if generator.random() < 0.5:
                    del arrays[key]
                else:
                    arrays[str(_pick(generator, KEYS))] = np.zeros(3)
            case _:  # all alike: points on one place, costs of nothing
                arrays[key][:] = _pick(generator, (0, 1, -1))
    metadata["sha256"] = metadata.get("sha256", digests(arrays))
    text = json.dumps(metadata)
    if generator.random() < 0.05:
        text = str(
            _pick(generator, (DEEP, text[:-1], "null", '{"format": ' + "9" * 5000 + "}", "\ufeff" + text, "[1]"))
        )
    return ".safetensors", pack(arrays, text)


def _label_bytes(generator: np.random.Generator) -> tuple[str, bytes]:
    """A set whose container is hostile: sizes, shapes and offsets that are not there, or bytes changed."""
    arrays, metadata = sound_set(str(_pick(generator, list(SMALL))))
    text = json.dumps({**metadata, "sha256": digests(arrays)})
    key = str(_pick(generator, list(arrays)))

    def change(header: dict[str, Any]) -> bytes | None:
        part = header[key]
        match int(generator.integers(12)):
            case 0:
                part["shape"] = [2**40, 2**40]
            case 1:
                part["shape"] = [-3, *part["shape"][1:]]
            case 2:
                part["shape"] = [10**9, *part["shape"][1:]]
            case 3:
                part["data_offsets"] = [0, 2**62]
            case 4:
                part["data_offsets"] = part["data_offsets"][::-1]
            case 5:
                part["dtype"] = _pick(generator, ("F64", "I64", "OBJECT", "BF16", "F8_E4M3", "I8", "", None, 7))
            case 6:
                header["__metadata__"] = _pick(generator, (None, [], {"rlkit": 7}, {}, {"other": text}))
            case 7:
                return b"{" * int(generator.integers(1, 50_000))
            case 8:
                return json.dumps(header).encode() + b" " * int(generator.integers(0, 2_000_000))
            case 9:
                return json.dumps(header).encode("utf-16")
            case 10:
                return json.dumps(header).encode().replace(b"rlkit", b"\xff\xfe")
            case _:
                header[_pick(generator, KEYS)] = dict(part)
        return None

    if generator.random() < 0.5:
        return ".safetensors", pack(arrays, text, change)
    content = bytearray(pack(arrays, text))
    for at in generator.integers(0, len(content), int(generator.integers(1, 5))).tolist():
        content[at] = int(generator.integers(256))
    end = len(content) if generator.random() < 0.7 else int(generator.integers(len(content)))
    return ".safetensors", bytes(content[:end])
