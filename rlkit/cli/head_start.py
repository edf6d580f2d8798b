"""An answer while numba still compiles: a few cities are searched without kernels, in Python, as well as with them.

Compiling the search takes some fifteen seconds, once on a machine.  Where it has not been done, ``rlkit solve`` of at
most :data:`FEW` lines lets another process do it and searches at once, with the same functions and no compiler; then it
waits for the other to end, so that the next call finds the kernels.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlkit.system.python import child

FEW = 110  # lines of a file with a hundred cities: so many are searched in Python to what kernels find, in a second
MOST_BYTES = 16_384  # of such a file; one of explicit lengths has more
USUAL = 20  # cities of an instance that is drawn
PROBLEM = "tsp"  # whose kernels these are
KERNELS = "rlkit.envs.combinatorial.tour_moves"
LAST = "iterate"  # of its kernels, compiled after the others
WARM = (
    "from rlkit.envs.combinatorial.base import make_problem\n"
    "from rlkit.envs.combinatorial.improvement import warm_up\n"
    f"warm_up(type(make_problem({PROBLEM!r})))"
)
WAITS = "rlkit: compiling for later calls, once: 15 seconds, on a slow machine a minute; Ctrl-C leaves it"


@contextmanager
def head_start(what: str, method: str, nodes: Any = USUAL) -> Iterator[bool]:
    """Around a search of ``what``: see above; gives whether it is in Python.  Not where kernels are there or needed."""
    if "numba" in sys.modules or method not in ("auto", "search") or not few(what, nodes) or compiled():
        yield False
        return
    silent = subprocess.DEVNULL
    with subprocess.Popen(**child("-c", WARM), stdin=silent, stdout=silent, stderr=silent) as compiling:
        os.environ["NUMBA_DISABLE_JIT"] = "1"  # read when numba is imported
        try:
            yield True
            if compiling.poll() is None:
                sys.stdout.flush()  # the answer is to be seen before anything is waited for
                print(WAITS, file=sys.stderr, flush=True)
                compiling.wait()
        finally:
            compiling.kill()


def few(what: str, nodes: Any = USUAL) -> bool:
    """Whether ``what`` is a file of a few cities, by its lines, or an instance of so few ``nodes`` that is drawn."""
    path = Path(what)
    if what == PROBLEM and not path.exists():
        return isinstance(nodes, int) and nodes < FEW
    if path.suffix.lower() not in (".tsp", ".csv", ".txt"):
        return False
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return False
        return path.read_bytes().count(b"\n") <= FEW
    except OSError:
        return False  # the reader says so


def compiled() -> bool:
    """Whether numba has kept the kernels of tours, wherever it does."""
    found = find_spec(KERNELS)
    if found is None or found.origin is None:
        return True
    source = Path(found.origin)
    wanted = f"{source.stem}.{LAST}-*.nbi"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return any(Path(chosen).glob(f"*/{wanted}"))
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return any((source.parent / "__pycache__").glob(wanted)) or any((own / "numba").glob(f"*/{wanted}"))
