"""``rlkit solve FILE|PROBLEM [num_nodes=100 ...]``: a good solution, its length, gap and time.

A FILE is TSPLIB's or CVRPLIB's, or a table of coordinates; a PROBLEM's name draws an instance.  ``--method auto`` takes
what is best and says why.
"""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rlkit.cli.head_start import USUAL, head_start
from rlkit.cli.parser import Parser, of_problem
from rlkit.errors import UserError, one_line

PATIENCE = 2.0  # seconds until one is told why there is nothing yet
COMPILES = "rlkit: compiling the search for this machine, once: 15 seconds, on a slow one a minute"
TAKEN = ("given", "improve", "rounded", "chains", "told")  # arguments of rlkit.solve that are no options here
BEST = """\
best method for what:
  tsp, atsp  fast-tsp; search up to 200 (atsp 50) nodes, and above 5,000
  cvrp       search from 300 customers on, below it hygese
  op         search, from 50 to 500 nodes at least
  knapsack   own, which is exact
bq and ptrnet, networks, are for many instances of a kind, or where there is no
solver; they have to beat insertion. docs/solve.md has seconds against gaps."""


def parser() -> Parser:
    found = Parser(prog="rlkit solve", description="Solve a file of cities or routes.", epilog=BEST)
    found.add_argument("what", metavar="FILE|PROBLEM", help=".tsp, .atsp, .vrp, .csv, .txt, .npy; or tsp, cvrp, ...")
    found.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of a PROBLEM, such as num_nodes=100")
    found.add_argument("--seconds", default="10", metavar="S", help="time for searching (10)")
    found.add_argument("--method", default="auto", help="search, insertion, bq, ptrnet, a solver's name, or auto")
    found.add_argument("--seed", default="0", metavar="N", help="of the instance that is drawn, and of searches (0)")
    found.add_argument("--no-improve", action="store_true", help="leave what bq, ptrnet or insertion give as it is")
    found.add_argument("--against", metavar="METHOD", help="compare with this one, given the same time")
    found.add_argument("--optimum", metavar="X", help="the best known length (default: NAME.opt.tour or NAME.sol)")
    found.add_argument("--exact-lengths", action="store_true", help="lengths of the file are not rounded")
    found.add_argument("--out", type=Path, metavar="FILE", help="write the solution: .tour, or .sol for routes")
    found.add_argument("--picture", type=Path, metavar="FILE", help="draw it: .svg, .png or .pdf")
    return found


def number(name: str, text: str, kind: type[int] | type[float] = float) -> Any:
    """``text`` of an option as a number.  Raises :class:`UserError` where it is none."""
    try:
        return kind(text)
    except ValueError:
        whole = "a whole number" if kind is int else "a number"
        raise UserError(f"{name} {one_line(text, 60)} is out of range, expected {whole}") from None


def main(argv: list[str]) -> int:
    """Solve and print; returns 0.  Raises :class:`UserError` for bad input, before anything is searched or written."""
    args = parser().parse_intermixed_args(argv)
    settings = of_problem(args, *TAKEN)
    options: dict[str, Any] = {
        "seconds": number("--seconds", args.seconds),
        "seed": number("--seed", args.seed, int),
        "method": args.method,
        "improve": not args.no_improve,
        "against": args.against,
        "optimum": None if args.optimum is None else number("--optimum", args.optimum),
        "rounded": False if args.exact_lengths else None,
        "out": args.out,
        "picture": args.picture,
    }
    with head_start(args.what, args.method, settings.get("num_nodes", USUAL)) as in_python:
        options["chains"] = 1 if in_python else None  # threads would take turns
        _solve_and_print(args, options, settings)
    return 0


def _solve_and_print(args: Namespace, options: dict[str, Any], settings: dict[str, Any]) -> None:
    from rlkit import solve

    shows = sys.stderr.isatty()
    first: list[float] = []

    def told(seconds: float, objective: float) -> None:
        first.append(seconds)
        if shows:
            print(f"\r{seconds:8.2f} s  {objective:.6g}   ", end="", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _warn
        with compiling_is_told():
            found = solve(args.what, told=told, **options, **settings)
    if shows and first:
        print(file=sys.stderr)
    print(f"{one_line(found.task.name, 100)}: {found.task.kind.name}, {found.task.nodes}")
    print(f"method {found.method}: {found.why}")
    print(f"{found.task.word} {found.objective:.10g}{found.task.unit}")
    if found.gap is not None:
        print(f"gap {found.gap:.2f} % to {found.reference:.10g}, {found.against}")
    print(f"seconds {found.seconds:.2f}")
    for path in (args.out, args.picture):
        if path is not None:
            print(f"wrote {path}")


@contextmanager
def compiling_is_told() -> Iterator[None]:
    """Say on standard error why there is nothing yet, once, when numba has been compiling for some time."""
    from numba.core import event

    class Listener(event.Listener):
        running = 0

        def on_start(self, _: Any) -> None:
            self.running += 1

        def on_end(self, _: Any) -> None:
            self.running -= 1

    listener, over = Listener(), Event()

    def watch() -> None:
        seen = 0
        while not over.wait(0.5):
            seen += listener.running > 0
            if seen * 0.5 >= PATIENCE:
                print(COMPILES, file=sys.stderr, flush=True)
                return

    Thread(target=watch, daemon=True).start()
    event.register("numba:compile", listener)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)
        over.set()


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"rlkit: {one_line(message, 600)}", file=sys.stderr)
