"""Train, measure and ship the small combinatorial solvers: agents/pretrained/ and docs/combinatorial-results.md.

    python scripts/train_combinatorial.py --problem tsp --seconds 600 --out runs/bq_tsp      # train, or go on
    python scripts/train_combinatorial.py measure --problem tsp --out runs/bq_tsp     # gaps on held-out sets, per size
    python scripts/train_combinatorial.py measure --problem tsp --sizes 50 100        # of what ships, at these sizes
    python scripts/train_combinatorial.py rival --problem tsp --out runs/attention    # an attention model's, to beat
    python scripts/train_combinatorial.py ship --problem tsp --out runs/bq_tsp        # float16 into agents/pretrained/
    python scripts/train_combinatorial.py files --problem tsp --folder tsplib         # what ships, on benchmark files
    python scripts/train_combinatorial.py page                                        # the tables, from measurements

Training is ``rlkit train agent=bq`` in OUT/run, on the GPU if there is one, for so many seconds; the same command goes
on where the last one stopped.  OUT/labels.safetensors is made first, of as many instances as a fifth of the first
budget solves, and OUT/model.rlk is what was learnt so far.  The learning rate stays, as nobody knows how often one will
go on, and the average of the weights makes up for that; a last run with ``init=OUT/model.rlk
agent.decay_steps=UPDATES`` into another folder lets it fall.  Further ``key=value`` settings are those of ``rlkit
train``, at the first call.  ``measure`` keeps a line per set and way of solving
in docs/assets/combinatorial/gaps.jsonl; what is there for these weights is not measured again.  What is measured are
the weights as they ship, rounded to float16.  References come from the labels' solvers, so a gap is to those and not
to an optimum (knapsack's are optimal).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from rlkit.agents.bq.bq import BQ
from rlkit.agents.common.gaps import HELD_OUT_SEED, held_out_heuristics
from rlkit.agents.ptrnet.ptrnet import PtrNet
from rlkit.algorithms.checkpoint import read_artefact, versions, write_artefact
from rlkit.envs.combinatorial.base import make_problem
from rlkit.envs.combinatorial.improvement import improves, inserted, warm_up
from rlkit.envs.combinatorial.labels import Labels, make_labels, read_labels
from rlkit.envs.combinatorial.metrics import gap
from rlkit.envs.combinatorial.tsplib import Benchmark
from rlkit.errors import UserError
from rlkit.run.folder import checkpoints
from rlkit.system.files import write_atomically
from rlkit.system.machine import processor

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "agents" / "pretrained"
FILES = ROOT / "docs" / "assets" / "combinatorial" / "files.jsonl"
LINES = ROOT / "docs" / "assets" / "combinatorial" / "gaps.jsonl"
PAGE = ROOT / "docs" / "combinatorial-results.md"


@dataclass(frozen=True)
class Measured:
    """How a problem is measured.

    sets: settings of each held-out set, from the size trained on to ten times it, and how many instances; effort: of
    the solver of the references; copies: searches of an instance the best of which is measured as well, 1: none; near:
    whether larger instances are shown in part; published: greedy gaps at n = 100 in percent, by whose they are.
    """

    problem: str
    sets: list[tuple[dict[str, Any], int]]
    effort: float = 1.0
    copies: int = 1
    near: bool = True
    published: dict[str, float] = field(default_factory=dict)


def plain(*counts: tuple[int, int]) -> list[tuple[dict[str, Any], int]]:
    """Sets of so many nodes, and how many instances."""
    return [({"num_nodes": nodes}, count) for nodes, count in counts]


PAPER, AGAIN = "Drakulic et al. 2023", "retrained by Luo et al. 2023"
MEASURED = {
    measured.problem: measured
    for measured in (
        Measured(
            "tsp",
            plain((20, 256), (50, 128), (100, 64), (250, 8), (500, 4)),
            effort=5.0,
            copies=8,
            published={PAPER: 0.35, AGAIN: 0.58},
        ),
        Measured("atsp", plain((50, 128), (100, 32), (250, 4), (500, 2)), effort=2.0, published={PAPER: 1.27}),
        Measured(
            "cvrp",
            [*plain((50, 128), (100, 64)), ({"num_nodes": 250, "capacity": 80}, 8), *plain((500, 4))],
            copies=8,
            published={PAPER: 2.79, AGAIN: 2.99},
        ),
        Measured(
            "op",
            [*plain((50, 128), (100, 32)), *(({"num_nodes": n, "budget": 4.0}, c) for n, c in ((250, 8), (500, 4)))],
            copies=8,
            published={PAPER: 0.22},
        ),
        Measured("knapsack", plain((50, 256), (100, 64), (250, 16), (500, 4)), near=False, published={PAPER: 0.10}),
    )
}
# TSPLIB's published optima (Reinelt 1991 and the library's own page), in official lengths
OPTIMA = {"burma14": 3323, "ulysses16": 6859, "gr17": 2085, "br17": 39, "att48": 10628, "eil51": 426, "berlin52": 7542}
OPTIMA |= {"st70": 675, "eil76": 538, "pr76": 108159, "rat99": 1211, "kroA100": 21282, "lin105": 14379, "ch130": 6110}
OPTIMA |= {"ch150": 6528, "a280": 2579, "pcb442": 50778, "att532": 27686, "ftv33": 1286, "ftv47": 1776, "ft53": 6905}
# CVRPLIB's, of sets A and X
OPTIMA |= {"A-n32-k5": 784, "A-n45-k6": 944, "X-n101-k25": 27591}
TRAINED = 50  # nodes, where a line does not say
NODES = 100  # that are trained on
TRIED = 8  # labels that are made to see how long one takes
SEARCHED = 100  # nodes up to which beams and best-of-8 are measured; beyond, an instance takes minutes
NEAR = 100  # nodes shown to the network on larger sets
FEW = 50  # and where fewer are tried
TIMES = 10  # the time of greedy, within which parts are solved again
MOST_ROUNDS = 1000
STARTED = 10  # insertions that re-construction begins with the best of
HONEST = "insertions + improvement, time of "  # rows to beat, each followed by the row whose time they took


def label_seconds(problem: str, nodes: int) -> float:
    """How long a label takes on a core, once kernels are compiled."""
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, TRIED):
            begun = time.monotonic()
            make_labels(problem, num_nodes=nodes, size=count, path=Path(folder) / f"{count}.safetensors", jobs=1)
    return (time.monotonic() - begun) / TRIED


def bfloat16_pays() -> bool:
    """Whether this machine multiplies faster in bfloat16: processors without units for it take five times as long."""
    if torch.cuda.is_available():
        return True
    best = []
    for kind in (torch.float32, torch.bfloat16):
        left, right = torch.ones(1024, 128, dtype=kind), torch.ones(128, 512, dtype=kind)
        tries = []
        for _ in range(9):  # the first of them make ready
            begun = time.perf_counter()
            left @ right
            tries.append(time.perf_counter() - begun)
        best.append(min(tries))
    return best[1] < best[0]


def train(problem: str, seconds: float, out: Path, nodes: int, labels: Path | None, extra: list[str]) -> int:
    """Train in ``out`` for so many seconds, from the beginning or from where it stopped; returns the exit code."""
    run, cores = out / "run", os.cpu_count() or 1
    command = [sys.executable, "-c", "import sys; from rlkit.cli import main; sys.exit(main())"]
    if (run / "config.yaml").exists():
        if extra:
            raise SystemExit(f"{run}: goes on with the settings it began with, expected none, got {' '.join(extra)}")
        command += ["resume", str(run)]
    else:
        if labels is None:
            labels, made = out / "labels.safetensors", {"num_nodes": nodes, "jobs": cores, "progress": True}
            size = int(min(max(0.2 * seconds * cores / label_seconds(problem, nodes), 500), 100_000))
            labels if labels.exists() else make_labels(problem, size=size, path=labels, **made)
        gpu = torch.cuda.is_available()
        settings = [f"agent.labels={labels}", f"env.kwargs.num_nodes={nodes}", f"out={run}", f"total_timesteps={10**8}"]
        settings += [f"agent.batch_size={1024 if gpu else 32}", "agent.decay_steps=0", "device=auto"]
        settings += [f"agent.amp={str(bfloat16_pays()).lower()}"]
        settings += ["eval_every=5000", "eval_episodes=64", "checkpoint_every=500"]
        command += ["train", "agent=bq", f"env={problem}", *settings, *extra]
    process = subprocess.Popen(command)
    try:
        code = process.wait(seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.send_signal(signal.SIGTERM)  # it ends with a checkpoint
        code = process.wait()
    if code not in (0, 128 + signal.SIGTERM, 128 + signal.SIGINT):
        return code
    saved = checkpoints(run / "checkpoints")
    if not saved:
        raise SystemExit(f"{run}: no update was done within {seconds:g} seconds, expected more of them")
    BQ.load(saved[-1]).save(out / "model.rlk")
    print(f"wrote {out / 'model.rlk'}")
    return 0


def rounded(run: Path, path: Path) -> str:
    """Write the artefact of ``run`` to ``path`` with float16 weights; returns the SHA-256 of its tensors."""
    manifest, tensors, _ = read_artefact(run / "model.rlk")
    for key in ("format", "versions", "sha256"):
        manifest.pop(key, None)
    # a file of the machine that trained it; "dataset" says what was in it
    manifest["config"]["labels"] = "" if manifest["agent"] == "ptrnet" else None
    manifest["config"]["init"] = None  # :func:`earlier` says what was there before
    path.parent.mkdir(parents=True, exist_ok=True)
    write_artefact(path, manifest, {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()})
    return str(read_artefact(path)[0]["sha256"]["model.safetensors"])


def earlier(manifest: dict[str, Any]) -> int:
    """Updates of the weights that those of ``manifest`` began with, and of theirs."""
    first = manifest["config"].get("init")
    if first is None:
        return 0
    before = read_artefact(Path(first))[0]
    return int(before["num_timesteps"]) + earlier(before)


def trained(run: Path) -> dict[str, Any]:
    """How the weights of ``run`` came about."""
    keys = ("updates", "earlier", "seed", "seconds", "machine", "versions", "dataset")
    if (run / "result.json").exists():
        result = json.loads((run / "result.json").read_text())
    else:  # as :func:`train` leaves it
        result = read_artefact(checkpoints(run / "run" / "checkpoints")[-1])[0]
        result |= {"updates": result["num_timesteps"], "seconds": result["training"]["extra"]["seconds"]}
        result["machine"] = {"processor": processor(), "system": platform.system()}
    if before := earlier(read_artefact(run / "model.rlk")[0]):
        result["earlier"] = before
    return {key: result[key] for key in keys if key in result}


def ways(problem: str, nodes: int) -> dict[str, dict[str, Any]]:
    """How a set of ``nodes`` is solved."""
    measured = MEASURED[problem]
    near = {"knn": NEAR} if nodes > 2 * NEAR and measured.near else {}
    found: dict[str, dict[str, Any]] = {"greedy": near}
    if nodes <= SEARCHED:
        found["beam 16"] = {"beam": 16}
        if measured.copies > 1:
            found[f"best of {measured.copies}"] = {"augment": measured.copies}
    if nodes > 2 * FEW and measured.near:
        found[f"greedy, nearest {FEW}"] = {"knn": FEW}
    return found


def honest_ways(
    agent: BQ, labels: Labels, greedy: dict[str, Any], done: Callable[[str], bool]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What greedy solutions are compared with: improved ones, parts solved again, and for the time of each as many
    improved insertions as there is time for.  Nothing where a problem has no moves.

    greedy: options of a greedy solution; done: whether a row is known.
    """
    problem, count = labels.problem, len(labels)
    parts = problem.device().piece_sizes(problem.num_nodes) is not None
    names = ["greedy + improve", *(["re-construction"] if parts else [])]
    if not improves(type(problem)) or all(done(way) for way in (*names, *(HONEST + n for n in ("greedy", *names)))):
        return
    warm_up(type(problem))
    inserted(problem, labels.instances, 1)
    rows = {"greedy": timed(agent, labels, greedy), names[0]: timed(agent, labels, {**greedy, "improve": True})}
    one = clocked(lambda: inserted(problem, labels.instances, 1), count)[1]
    if parts:

        def again(rounds: int) -> Any:
            start = inserted(problem, labels.instances, STARTED)
            return agent.solve(labels.instances, reconstruct=rounds, start=start)

        few, more = (clocked(lambda n=n: again(n), count)[1] for n in (1, 5))
        room = TIMES * rows["greedy"]["seconds"] - few
        rounds = min(MOST_ROUNDS, 1 + max(0, int(room / max((more - few) / 4, 1e-6))))
        found, seconds = clocked(lambda: again(rounds), count)
        rows[names[1]] = {**scores(labels, found.objectives), "seconds": round(seconds, 4), "rounds": rounds}
    yield from rows.items()
    for way, row in rows.items():
        starts = max(1, int(row["seconds"] / one))
        solutions, seconds = clocked(lambda starts=starts: inserted(problem, labels.instances, starts), count)
        found = scores(labels, problem.objectives(labels.instances, solutions))
        yield HONEST + way, {**found, "seconds": round(seconds, 4), "starts": starts}


def held_out(problem: str, settings: dict[str, Any], count: int) -> Labels:
    """The instances that are measured on, with their references."""
    options = {"size": count, "seed": HELD_OUT_SEED, "effort": MEASURED[problem].effort, "progress": True}
    return read_labels(make_labels(problem, **options, **settings))


def known_lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def keep(problem: str, lines: list[dict[str, Any]]) -> None:
    """Write ``problem``'s lines, those of others being what the file has now: they may be measured at the same time."""
    order = list(MEASURED)
    lines = sorted(
        [line for line in known_lines() if line["problem"] != problem] + lines,
        key=lambda line: order.index(line["problem"]),
    )
    LINES.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(LINES, "".join(json.dumps(line) + "\n" for line in lines).encode())


def clocked(work: Callable[[], Any], count: int) -> tuple[Any, float]:
    """What ``work`` gives, and processor seconds for each of ``count`` instances."""
    begin = time.process_time()
    found = work()
    return found, (time.process_time() - begin) / count


def timed(agent: Any, labels: Labels, options: dict[str, Any]) -> dict[str, float]:
    """Scores of ``agent``'s solutions, and processor seconds an instance."""
    found, seconds = clocked(lambda: agent.solve(labels.instances, **options), len(labels))
    return {**scores(labels, found.objectives), "seconds": round(seconds, 4)}


def measure(problem: str, run: Path | None, sizes: list[int]) -> None:
    """Add this problem's lines to :data:`LINES`; without ``run`` of what ships, with ``sizes`` of these alone."""
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    path = WEIGHTS / f"bq_{problem}.rlk" if run is None else run / "shipped.rlk"
    sha = str(read_artefact(path)[0]["sha256"]["model.safetensors"]) if run is None else rounded(run, path)
    agent, ships = BQ.load(path), json.loads((WEIGHTS / "manifest.json").read_text()).get(f"bq_{problem}.rlk", {})
    before = ships.get("trained", {}).get("earlier", 0) if run is None else earlier(read_artefact(run / "model.rlk")[0])
    known = [
        line for line in known_lines() if line["problem"] == problem and (line["weights"] == sha or "rival" in line)
    ]
    done = {(line["nodes"], line["way"]) for line in known}
    machine = {"processor": processor(), "system": platform.system(), "threads": 1}
    for settings, count in MEASURED[problem].sets:
        nodes = settings["num_nodes"]
        if sizes and nodes not in sizes:
            continue
        labels = held_out(problem, settings, count)
        line = {"problem": problem, "nodes": nodes, "settings": settings, "instances": count, "weights": sha}
        line |= {
            "updates": agent.num_timesteps + before,
            "earlier": before,
            "solver": labels.metadata["solver"],
            "machine": machine,
        }
        line |= {"versions": versions(), "effort": MEASURED[problem].effort}
        line["trained"] = agent.described["details"]["settings"]["num_nodes"]
        for way, options in ways(problem, nodes).items():
            if (nodes, way) not in done:
                known.append({**line, "way": way, **timed(agent, labels, options)})
                print(json.dumps(known[-1] | {"versions": None, "machine": None}), flush=True)
        greedy = ways(problem, nodes)["greedy"]
        for way, row in honest_ways(agent, labels, greedy, lambda way, n=nodes: (n, way) in done):
            known = [one for one in known if (one["nodes"], one["way"]) != (nodes, way)]  # times are of one machine
            known.append({**line, "way": way, **row})
            print(json.dumps(known[-1] | {"versions": None, "machine": None}), flush=True)
        for way, solutions in held_out_heuristics(labels.problem, labels.instances).items():
            way = way.replace("_", " ")
            if (nodes, way) not in done:
                known.append(
                    {**line, "way": way, **scores(labels, labels.problem.objectives(labels.instances, solutions))}
                )
        keep(problem, known)


def rival(problem: str, run: Path) -> None:
    """Add the lines of an attention model, ``agent=ptrnet agent.network=attention``, trained on the same labels."""
    torch.set_num_threads(1)
    agent, learnt = PtrNet.load(run / "model.rlk"), trained(run)
    known = [line for line in known_lines() if line["problem"] == problem and "rival" not in line]
    line = {"problem": problem, "rival": {key: learnt[key] for key in ("updates", "seconds")}}
    line |= {"weights": str(read_artefact(run / "model.rlk")[0]["sha256"]["model.safetensors"])}
    for settings, count in MEASURED[problem].sets:
        nodes, labels = settings["num_nodes"], held_out(problem, settings, count)
        for way, options in {"greedy": {}, **({"beam 16": {"beam": 16}} if nodes <= SEARCHED else {})}.items():
            known.append({**line, "nodes": nodes, "way": f"attention model, {way}", **timed(agent, labels, options)})
            print(json.dumps(known[-1]), flush=True)
    keep(problem, known)


def scores(labels: Labels, objectives: np.ndarray) -> dict[str, float]:
    """Mean objective, and mean gap with its standard error, in percent."""
    gaps = gap(objectives, labels.objectives, maximise=labels.problem.maximise)
    error = float(gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return {"objective": float(objectives.mean()), "gap": round(float(gaps.mean()), 4), "error": round(error, 4)}


def ship(problem: str, run: Path) -> None:
    """Put the weights of ``run`` and what was measured of them into :data:`WEIGHTS`."""
    name = f"bq_{problem}.rlk"
    sha = rounded(run, WEIGHTS / name)
    measured = [line for line in known_lines() if line["problem"] == problem and line["weights"] == sha]
    if not measured:
        raise SystemExit(f"{run}: these weights have not been measured; run measure first")
    path = WEIGHTS / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    keys = ("nodes", "instances", "way", "gap", "error", "objective", "solver", "effort")
    manifest[name] = {
        "sha256": sha,
        "trained": trained(run),
        "gaps": [{k: line[k] for k in keys} for line in measured],
    }
    write_atomically(path, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


def read_files(problem: str, folder: Path) -> list[Benchmark]:
    """The benchmark files of ``problem`` in ``folder`` whose optimum is known, smallest first."""
    found = []
    readers = make_problem(problem).readers()
    for path in sorted(path for path in folder.iterdir() if path.suffix in readers):
        one = replace(readers[path.suffix](path), optimum=OPTIMA.get(path.stem))
        if one.problem == problem and one.optimum is not None:
            found.append(one)
    return sorted(found, key=lambda one: one.nodes)


def files(problem: str, folder: Path) -> None:
    """Add official lengths of the shipped weights' solutions of the files in ``folder`` to :data:`FILES`."""
    torch.set_num_threads(1)
    path = WEIGHTS / f"bq_{problem}.rlk"
    agent, sha = BQ.load(path), str(read_artefact(path)[0]["sha256"]["model.safetensors"])
    known = [json.loads(line) for line in FILES.read_text().splitlines()] if FILES.exists() else []
    known = [line for line in known if line["problem"] != problem]
    for one in read_files(problem, folder):
        rules, nodes = one.make_problem(), one.nodes
        instances = {key: value[None] for key, value in one.instance.items()}
        near = ways(problem, nodes)["greedy"]
        solved = {way: {**options, **near} for way, options in ways(problem, SEARCHED).items()}
        lengths = {way: one.length(agent.solve(one, **options).solutions[0]) for way, options in solved.items()}
        for way, solutions in held_out_heuristics(rules, instances).items():
            lengths[way.replace("_", " ")] = one.length(solutions[0])
        known.append({"problem": problem, "name": one.name, "nodes": nodes, "optimum": one.optimum, "weights": sha})
        known[-1]["lengths"] = lengths
        print(json.dumps(known[-1]), flush=True)
    write_atomically(FILES, "".join(json.dumps(entry) + "\n" for entry in known).encode())


def files_table(problem: str) -> list[str]:
    """Markdown of :data:`FILES` for ``problem``."""
    lines = [json.loads(line) for line in FILES.read_text().splitlines()] if FILES.exists() else []
    own = [line for line in lines if line["problem"] == problem]
    if not own:
        return []
    order = list(own[0]["lengths"])
    text = ["Benchmark files, official lengths, percent above the published optimum:", ""]
    text += ["| file | nodes | optimum | " + " | ".join(order) + " |", "|" + "---|" * (3 + len(order))]
    for line in own:
        over = [f"{100 * (line['lengths'][way] / line['optimum'] - 1):.1f} %" for way in order]
        text.append(f"| {line['name']} | {line['nodes']} | {line['optimum']} | " + " | ".join(over) + " |")
    return [*text, ""]


def page() -> str:
    """Markdown of all measurements."""
    lines = known_lines()
    text = [
        "# Combinatorial results",
        "",
        "Made by `scripts/train_combinatorial.py page` from `docs/assets/combinatorial/gaps.jsonl`; no figure is typed",
        "in. Gaps are percent above the reference, mean and standard error over held-out instances; references are",
        "those of the named solver, which is exact for knapsack only. Times are processor seconds per instance on one",
        f"core, other work running beside it. With more than {2 * NEAR} nodes the network is shown the {NEAR} nearest",
        "(knapsack: all). Greedy, greedy + improve and re-construction of tsp and cvrp, beside insertions",
        f"in their time, see the {FEW} nearest of more nodes than were learnt from; these rows were measured together,",
        f"others earlier. Re-construction begins with the best of {STARTED} insertions.",
        "",
    ]
    for problem in dict.fromkeys(line["problem"] for line in lines):
        own = [line for line in lines if line["problem"] == problem]
        sizes = sorted({line["nodes"] for line in own})
        first = next(line for line in own if "rival" not in line)
        text += [f"## {problem}", "", f"BQ, {learning(first)}.", ""]
        rivals = {line["way"].rpartition(",")[0]: line["rival"] for line in own if "rival" in line}
        if rivals:
            said = [
                f"{name}, {r['updates']:,} updates in {r['seconds'] / 60:.0f} minutes" for name, r in rivals.items()
            ]
            text[-2] += f" From one set of labels of {TRAINED} nodes learnt: {'; '.join(said)}."
        heads = []
        for n in sizes:
            first = next(line for line in own if line["nodes"] == n and "rival" not in line)
            heads.append(f"n = {n} ({first['instances']} instances)")
        text += ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
        for way in dict.fromkeys(line["way"] for line in own):
            cells = []
            for n in sizes:
                found = [line for line in own if line["way"] == way and line["nodes"] == n]
                cell = f"{found[0]['gap']:.2f} ± {found[0]['error']:.2f} %" if found else "-"
                cells.append(cell + (f", {found[0]['seconds']:.3g} s" if found and "seconds" in found[0] else ""))
            text.append(f"| {way} | " + " | ".join(cells) + " |")
        text += verdicts(own)
        text += ["", f"Reference: {first['solver']}, effort {first['effort']:g}.", "", *files_table(problem)]
    return "\n".join([*text, *published(lines)]).rstrip() + "\n"


def learning(line: dict[str, Any]) -> str:
    """How long and on what the weights of ``line`` learnt."""
    before = line.get("earlier", 0)
    told = f"{line['updates'] - before:,} updates on {line.get('trained', TRAINED)} nodes"
    return told + (f" after {before:,} earlier ones" if before else "")


def verdicts(own: list[dict[str, Any]]) -> list[str]:
    """Of each size, which way is better than insertions in its own time, from the ``own`` lines of a problem."""
    gaps = {(line["nodes"], line["way"]): line for line in own}
    text = []
    for n, way in gaps:
        if not way.startswith(HONEST):
            continue
        name = way.removeprefix(HONEST)
        ours, theirs = gaps[n, name], gaps[n, way]
        margin = 2.0 * math.hypot(ours["error"], theirs["error"])
        ahead = theirs["gap"] - ours["gap"]
        told = "neither, within two standard errors" if abs(ahead) <= margin else name if ahead > 0 else "insertions"
        count = f"{theirs['starts']} insertion{'s' if theirs['starts'] > 1 else ''}"
        text.append(f"- n = {n}, time of {name}: {ours['gap']:.2f} % against {theirs['gap']:.2f} % of {count}: {told}.")
    return (
        ["", "At equal time, which is better, the network's way or the best of insertions, each improved:", "", *text]
        if text
        else []
    )


def published(lines: list[dict[str, Any]]) -> list[str]:
    """Greedy gaps at n = 100 beside published ones."""
    text = ["## Published and here", "", "Greedy, n = 100, percent.", ""]
    text += ["| problem | published | here | why different |", "|---|---|---|---|"]
    for problem, measured in MEASURED.items():
        own = [line for line in lines if (line["problem"], line["nodes"], line["way"]) == (problem, 100, "greedy")]
        if not own:
            continue
        theirs = ", ".join(f"{gap:.2f} ({whose})" for whose, gap in measured.published.items())
        why = f"{learning(own[0])}; published: 3.1 million "
        why += "parameters and some 500,000 updates of 1,024 on 100 nodes"
        text.append(f"| {problem} | {theirs} | {own[0]['gap']:.2f} ± {own[0]['error']:.2f} | {why} |")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ("train", "measure", "rival", "ship", "files", "page")
    parser.add_argument("words", nargs="*", metavar="WHAT", help=f"{', '.join(known)}; settings of rlkit train")
    parser.add_argument("--problem", choices=list(MEASURED), default="tsp")
    parser.add_argument("--out", type=Path, help="folder of the run")
    parser.add_argument("--seconds", type=float, default=600.0, help="of training")
    parser.add_argument("--nodes", type=int, default=NODES, help="of the largest sub-problem")
    parser.add_argument("--labels", type=Path, help="a labelled set, instead of making one")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="of the sets to measure; by default all")
    parser.add_argument("--folder", type=Path, help="benchmark files")
    arguments = parser.parse_args()
    words = arguments.words
    arguments.what = words.pop(0) if words and "=" not in words[0] else "train"
    if arguments.what not in known:
        parser.error(f"{arguments.what!r} is none of {', '.join(known)}")
    needed = {"page": None, "measure": None, "files": "folder"}.get(arguments.what, "out")
    if needed is not None and getattr(arguments, needed) is None:
        parser.error(f"{arguments.what} needs --{needed}")
    if not arguments.seconds > 0:
        parser.error(f"--seconds {arguments.seconds:g} is out of range, expected a number above 0")
    if words and arguments.what != "train":
        parser.error(f"settings are for train, got {' '.join(words)}")
    if arguments.what == "page":
        PAGE.write_text(page())
    elif arguments.what == "files":
        files(arguments.problem, arguments.folder)
    elif arguments.what == "train":
        given = arguments.out, arguments.nodes, arguments.labels, words
        try:
            sys.exit(train(arguments.problem, arguments.seconds, *given))
        except UserError as error:
            sys.exit(str(error))
    elif arguments.what == "measure":
        measure(arguments.problem, arguments.out, arguments.sizes)
    else:
        {"rival": rival, "ship": ship}[arguments.what](arguments.problem, arguments.out)


if __name__ == "__main__":
    main()
