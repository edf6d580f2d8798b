"""``rlkit bench [ROW ...] [--quick] [--out bench.json] [--rows N] [--list]``: speed against other libraries."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rlkit.bench import ROWS, pick
from rlkit.cli.parser import Parser
from rlkit.errors import UserError

LEAST_ROWS = 20_000  # fewer do not hold PRDC's pool and its first visits


def parser() -> Parser:
    found = Parser(
        prog="rlkit bench", description="Measure speed against other libraries, side by side in one process."
    )
    found.add_argument("row", nargs="*", help="rows to measure (default: all); see --list")
    found.add_argument("--quick", action="store_true", help="under a minute: shows that it runs, not to quote")
    found.add_argument("--out", type=Path, default=Path("bench.json"), help="where the JSON goes (bench.json)")
    found.add_argument("--rows", type=int, help="transitions in each dataset (200000; with --quick 20000)")
    found.add_argument("--rounds", type=int, help="blocks of each side (9; with --quick 3)")
    found.add_argument("--threads", type=int, default=1, help="threads of the update rows (1)")
    found.add_argument("--list", action="store_true", help="show the rows and stop")
    return found


def main(argv: list[str]) -> int:
    """Measure, print the table, write the JSON; returns 0.  Raises :class:`UserError` for bad input."""
    args = parser().parse_args(argv)
    if args.list:
        width = max(map(len, ROWS))
        for name, row in ROWS.items():
            print(f"{name:<{width}}  {row.summary}")
        return 0
    names = pick(args.row)
    for option, least in (("rows", LEAST_ROWS), ("rounds", 1), ("threads", 1)):
        value = getattr(args, option)
        if value is not None and value < least:
            raise UserError(f"--{option} {value} is out of range, expected a whole number of at least {least}")
    _require_writable(args.out)

    from rlkit.bench.measure import Settings
    from rlkit.bench.peers import hush_gym
    from rlkit.bench.report import print_table, report, write
    from rlkit.vector import hush_mujoco

    hush_gym()
    hush_mujoco()
    settings = Settings.short() if args.quick else Settings()
    given = {name: getattr(args, name) for name in ("rows", "rounds", "threads")}
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    settings = replace(settings, stepping_threads=min(settings.stepping_threads, os.cpu_count() or 1))
    lines = []
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name}: {ROWS[name].summary}", file=sys.stderr, flush=True)
        found = ROWS[name](settings)
        for reason in {line.skipped for line in found if line.skipped}:
            print(f"  {reason}", file=sys.stderr)
        lines += found
        write(args.out, report(lines, settings))  # after every row: an interrupted bench keeps what it has
    print_table(lines, settings)
    print(f"wrote {args.out}")
    return 0


def _require_writable(path: Path) -> None:
    # Before minutes of measuring, not after.
    if path.is_dir():
        raise UserError(f"--out {path} is a folder, expected a file name")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"--out {path} cannot be written: {error.strerror or error}") from error
