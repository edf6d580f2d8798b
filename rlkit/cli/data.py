"""``rlkit data``: list, inspect, make, check and convert offline datasets; make and check labelled instances."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from rlkit.cli.parser import Parser, of_problem
from rlkit.errors import DataError, UserError, one_line

MAX_JOBS = 1024


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a plain table, as wide as its longest words need, however narrow the terminal: no name is broken."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if any(columns) else None, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(one_line(cell, 2000) for cell in row))  # a file may hold what moves a terminal's cursor
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.width = max(
        console.width, Measurement.get(console, console.options.update(max_width=10_000), table).minimum
    )
    console.print(table)


def _list(args: argparse.Namespace) -> int:
    from rlkit.data.cache import kept
    from rlkit.data.generate import shares
    from rlkit.data.imitation import MixtureSpec
    from rlkit.data.minari_store import has_local, local_ids, store_root
    from rlkit.data.records import generated_id
    from rlkit.registry import EnvRecord, records

    rows, known = [], set()
    known_records = records()
    for record in known_records.values():
        if record.data is None:
            continue
        data = record.data
        known |= {data.minari_id, generated_id(record)}
        found = []
        if data.minari_id and has_local(data.minari_id):
            found.append("minari")
        if kept(record, data.size, 0):
            found.append("generated")
        if not found and data.generator.endswith(":not_generated"):
            rows.append((record.name, record.env_id, data.level, "-", "to be fetched", data.minari_id or "-"))
            continue
        if not found and data.generator.startswith("rlkit.data.navigation:"):
            found.append("can be generated")
        if not found and data.generator.startswith(("rlkit.data.generate:", "rlkit.data.imitation:")):
            parts: tuple[EnvRecord, ...] = (record,)
            if isinstance(data, MixtureSpec):
                parts = (known_records[data.expert], known_records[data.suboptimal])
            try:
                for part in parts:
                    shares(part)
                found.append("can be generated")
            except DataError:
                found.append("no behaviours")
        rows.append((record.name, record.env_id, data.level, f"{data.size:,}", ", ".join(found), data.minari_id or "-"))
    _table(("record", "env", "level", "rows", "here", "minari id"), rows)
    others = [name for name in local_ids() if name not in known]
    print(f"Minari store: {store_root()}" + (f"; also there: {', '.join(others)}" if others else ""))
    return 0


def _describe(dataset: Any) -> None:
    from rlkit.data.scores import episode_scores

    print(dataset.provenance.sentence)
    facts = dataset.describe()
    scores = episode_scores(dataset)
    ended = dataset.terminations[dataset.episode_ends - 1].mean()
    rows = [
        ("environment", str(dataset.env_id)),
        ("transitions", f"{facts['transitions']:,}"),
        ("episodes", f"{facts['episodes']:,} ({100 * ended:.0f} % end in a terminal state)"),
        ("return", f"{facts['return_mean']:.1f} ± {facts['return_sd']:.1f} (mean ± sd over episodes)"),
        ("normalised", "no reference scores" if scores is None else f"{float(scores.mean()):.1f} (mean)"),
        ("observations", str(list(dataset.observations.shape))),
        ("actions", str(list(dataset.actions.shape))),
        ("sha256", facts["sha256"]),
    ]
    details = dict(facts["details"])
    columns = details.pop("columns", None)
    for role, names in columns.items() if isinstance(columns, dict) else ():
        for name, text in _columns(dataset, role, names):
            rows.append((f"{role}: {name}", text))
    rows += [(key, str(value)) for key, value in details.items() if key != "policies"]
    policies = facts["details"].get("policies")
    for name, policy in policies.items() if isinstance(policies, dict) else ():
        if isinstance(policy, dict):
            rows.append((f"policy {name}", f"return {policy.get('return_mean')} ± {policy.get('return_sd')}"))
    _table(("", ""), rows)


def _columns(dataset: Any, role: str, names: Any) -> list[tuple[str, str]]:
    """The names of a role's columns, and what is in them."""
    import numpy as np

    if role not in ("observations", "actions"):
        return [(str(names) if isinstance(names, str) else ", ".join(map(str, names)), "")]
    values, found = getattr(dataset, role), []
    if role == "actions" and dataset.discrete:
        chosen, counts = np.unique(dataset.actions, return_counts=True)
        often = ", ".join(
            f"{one} {100 * n / len(dataset):.0f} %" for one, n in zip(chosen[:8], counts[:8], strict=True)
        )
        more = f" and {len(chosen) - 8} more" if len(chosen) > 8 else ""
        return [(str(names[0]), f"one of {dataset.action_space.n}: {often}{more}")]
    for column, name in enumerate(names[: values.shape[1]]):
        one = values[:, column]
        text = f"{one.min():.6g} to {one.max():.6g}, mean {one.mean():.4g}, sd {one.std():.3g}"
        if role == "actions":
            text += f"; bounds {dataset.action_space.low[column]:.6g} to {dataset.action_space.high[column]:.6g}"
        found.append((str(name), text))
    return found


def _log(args: argparse.Namespace) -> dict[str, Any]:
    """``columns``, ``bounds`` and ``n_actions`` of a log, from words such as ``columns.actions=valve,heater
    bounds.valve=0,100``."""
    import yaml

    found: dict[str, Any] = {"columns": {}, "bounds": {}}
    for word in args.settings:
        key, _, text = word.partition("=")
        kind, _, name = key.removeprefix("env.").partition(".")
        if (kind, name) == ("n_actions", "") and text:
            if not text.isdecimal():
                raise UserError(f"n_actions={one_line(text, 60)}, expected a whole number")
            found[kind] = int(text)
            continue
        if kind not in found or not name or not text:
            raise UserError(f"'{one_line(word, 60)}' is no setting, expected one like columns.actions=valve,heater")
        try:
            value = yaml.safe_load(f"[{text}]" if "," in text and not text.startswith("[") else text)
        except yaml.YAMLError:
            raise UserError(f"'{one_line(word, 60)}' cannot be read, expected names or numbers") from None
        found[kind][name] = value
    return {kind: values for kind, values in found.items() if values or kind == "n_actions"}


def _info(args: argparse.Namespace) -> int:
    from rlkit.data import load_dataset

    _describe(load_dataset(args.what, progress=True, **_log(args)))
    return 0


def _make(args: argparse.Namespace) -> int:
    from rlkit.data.cache import generated
    from rlkit.registry import record

    if args.jobs is not None and not 1 <= args.jobs <= MAX_JOBS:
        raise UserError(f"--jobs {args.jobs} is out of range, expected a whole number from 1 to {MAX_JOBS}")
    options = {"size": args.size, "seed": args.seed, "force": args.force, "jobs": args.jobs}
    _describe(generated(record(args.name), progress=True, **options))
    return 0


def _check(args: argparse.Namespace) -> int:
    from rlkit.data.check import look_at
    from rlkit.data.expect import expectations

    findings, data = look_at(args.what, args.env, path=args.path, **_log(args))
    for finding in findings:
        print(f"{finding.severity}: {finding.code}: {finding.sentence}")
    errors = sum(finding.severity == "error" for finding in findings)
    if data is not None and not errors:
        for sentence in expectations(data):
            print(f"expect: {sentence}")
    print(f"{args.what}: {errors} errors, {len(findings) - errors} warnings")
    return 1 if errors else 0


def _import(args: argparse.Namespace) -> int:
    from rlkit.data import load_dataset, to_minari
    from rlkit.data.minari_store import check_id

    check_id(args.id)  # before minutes are spent on data
    what = {"what": args.record, "path": args.what} if args.record else {"what": args.what}
    dataset = load_dataset(**what, progress=True, **_log(args))
    to_minari(dataset, args.id, overwrite=args.overwrite)
    print(f"{args.what}: {len(dataset):,} transitions stored as Minari dataset '{args.id}'")
    return 0


def _export(args: argparse.Namespace) -> int:
    from rlkit.data import load_dataset, write_d4rl

    dataset = load_dataset(args.what, progress=True, **_log(args))
    write_d4rl(dataset, args.file, overwrite=args.overwrite)
    print(f"{dataset.provenance.sentence}: {len(dataset):,} transitions written to {args.file}")
    return 0


def _labels(args: argparse.Namespace) -> int:
    from pathlib import Path

    from rlkit.registry import resolve_object

    path = Path(args.what)
    if path.suffix != ".safetensors":
        settings = of_problem(args, "problem", "progress", "path")
        path = resolve_object("rlkit.envs.combinatorial.labels:make_labels")(
            args.what,
            size=args.size,
            seed=args.seed,
            solver=args.solver,
            effort=args.effort,
            jobs=args.jobs,
            progress=True,
            path=args.out,
            **settings,
        )
    labels = resolve_object("rlkit.envs.combinatorial.labels:read_labels")(path)
    made = labels.metadata
    objectives = labels.objectives
    rows = [
        ("problem", made["problem"]),
        ("settings", ", ".join(f"{k}={v}" for k, v in sorted(made["settings"].items()))),
        ("instances", f"{len(labels):,} of seed {made['seed']}"),
        ("objective", f"{objectives.mean():.4f} ± {objectives.std():.4f} (mean ± sd, recomputed)"),
        ("solver", f"{made['solver']} {made['versions'][made['solver']]}, effort {made['effort']}"),
        ("checked", "every solution is feasible, every objective and hash is what the file says"),
        ("file", str(path)),
    ]
    _table(("", ""), rows)
    return 0


def parser() -> Parser:
    found = Parser(prog="rlkit data", description="Offline datasets, and labelled instances.")
    verbs = found.add_subparsers(dest="verb", required=True, metavar="VERB")
    what = "a record's name, a Minari id, or a file: CSV, Parquet, NPZ, HDF5"

    def add_log(verb: argparse.ArgumentParser) -> None:
        text = "of a log: columns.actions=valve,heater columns.reward=yield bounds.valve=0,100 n_actions=4"
        verb.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=text)

    verb = verbs.add_parser("list", help="the records, and which of their datasets are here")
    verb.set_defaults(run=_list)

    verb = verbs.add_parser("info", help="what a dataset holds and where it came from")
    verb.add_argument("what", metavar="NAME|PATH", help=what)
    add_log(verb)
    verb.set_defaults(run=_info)

    verb = verbs.add_parser("make", help="generate a record's stand-in from rlkit's behaviours")
    verb.add_argument("name", metavar="NAME", help="a record's name")
    verb.add_argument("--size", type=int, help="transitions (default: the record's)")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--jobs", type=int, help="cores to use (default: all); the data does not depend on it")
    verb.add_argument("--force", action="store_true", help="make it anew although it is kept already")
    verb.set_defaults(run=_make)

    verb = verbs.add_parser("check", help="look for faults; exit code 1 if there are errors")
    verb.add_argument("what", metavar="NAME|PATH", help=what)
    verb.add_argument("--path", metavar="FILE.hdf5", help="a D4RL file to take for the record NAME, as with env.path")
    verb.add_argument("--env", help="Gymnasium id, where the dataset does not name its environment")
    add_log(verb)
    verb.set_defaults(run=_check)

    verb = verbs.add_parser("labels", help="solved instances of a combinatorial problem: make them, or check a file")
    verb.add_argument(
        "what", metavar="PROBLEM|FILE.safetensors", help="tsp, atsp, cvrp, op, knapsack, convex-hull, ..."
    )
    verb.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of the problem, such as num_nodes=50")
    verb.add_argument("--size", type=int, default=1000, help="instances")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--solver", help="by default the best one for the problem")
    verb.add_argument("--effort", type=float, default=1.0, help="scales the time of a solver that is not exact")
    verb.add_argument("--jobs", type=int, default=1, help="processes")
    verb.add_argument("--out", metavar="FILE.safetensors", help="by default under ~/.cache/rlkit/labels")
    verb.set_defaults(run=_labels)

    verb = verbs.add_parser("import", help="a dataset, such as D4RL's HDF5, into the local Minari store")
    verb.add_argument("what", metavar="NAME|PATH", help=what)
    verb.add_argument("--id", required=True, help="the Minari id to give it, such as rlkit/hopper/mine-v0")
    verb.add_argument("--record", help="the record that a file is for, as with env.path")
    verb.add_argument("--overwrite", action="store_true")
    add_log(verb)
    verb.set_defaults(run=_import)

    verb = verbs.add_parser("export", help="a dataset into D4RL's HDF5 layout")
    verb.add_argument("what", metavar="NAME|ID", help=what)
    verb.add_argument("file", metavar="FILE.hdf5")
    verb.add_argument("--overwrite", action="store_true")
    add_log(verb)
    verb.set_defaults(run=_export)
    return found


def main(argv: list[str]) -> int:
    """Run ``rlkit data`` with ``argv`` (the words after ``data``) and return the exit code.

    0, or 1 where ``check`` found errors; bad input raises :class:`~rlkit.errors.UserError`.
    """
    args = parser().parse_args(argv)
    return args.run(args)
