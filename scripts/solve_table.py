"""Measure the methods of ``rlkit solve`` after 1, 5 and 20 processor seconds: docs/solve.md's table and figure.

    python scripts/solve_table.py measure tsp:100 cvrp:1000    add lines to docs/assets/combinatorial/seconds.jsonl
    python scripts/solve_table.py page                         table and figure, from those lines alone

One thread.  Other work may run beside it, so what counts is processor time: a method by the clock is given the longer
the less of the processor it got, and what it used is in its line.  What is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rlkit.envs.combinatorial.base import make_problem
from rlkit.envs.combinatorial.improvement import warm_up
from rlkit.envs.combinatorial.solvers import solver_version
from rlkit.envs.combinatorial.solving import installed, methods_of, run
from rlkit.envs.combinatorial.tasks import Task, read_task
from rlkit.errors import UserError
from rlkit.system.machine import processor

ROOT = Path(__file__).resolve().parent.parent
LINES = ROOT / "docs" / "assets" / "combinatorial" / "seconds.jsonl"
PAGE = ROOT / "docs" / "solve.md"
FIGURE = ROOT / "docs" / "assets" / "solve_seconds.png"
LEAST, TICKS = 0.01, (0.01, 0.1, 1.0, 10.0)  # percent; what is drawn for less, and the axis
BEGIN, END = "<!-- made by scripts/solve_table.py -->", "<!-- end of it -->"
SECONDS = (1, 5, 20)
SEED = 4096  # of the first instance of each problem
LEFT_OUT = ("own", "ortools", "ptrnet")  # exact ones, and weights for few points
NEAR = (0.85, 1.25)  # of the seconds that were to be used
TRIES = 3


def used(task: Task, method: str, seconds: float, wait: float) -> tuple[np.ndarray, float, float]:
    """The solution of ``method``, processor seconds that it took, and how long one waited for each of them."""
    limit = seconds * wait
    for _ in range(TRIES):
        clock, begin = time.perf_counter(), time.process_time()
        found = run(task, method, seconds=limit, seed=1, chains=1)
        took, passed = time.process_time() - begin, time.perf_counter() - clock
        wait = max(1.0, passed / max(took, 1e-3))
        if passed < 0.9 * limit or NEAR[0] * seconds <= took <= NEAR[1] * seconds:
            break
        limit *= seconds / took
    return found, took, wait


def measure(what: str, instances: int, methods: list[str]) -> None:
    """Add the lines of ``what``, a problem and its nodes as ``tsp:100``; of ``methods`` alone, if there are any."""
    torch.set_num_threads(1)
    problem, _, nodes = what.partition(":")
    for number in range(instances):
        task = read_task(problem, None, SEED + number, None, None, {"num_nodes": int(nodes)})
        warm_up(task.kind)
        wait = 1.0
        for method in methods_of(task.kind):
            if method in LEFT_OUT or (methods and method not in methods):
                continue
            if method not in ("search", "insertion", "bq") and not installed(method):
                continue
            version = "" if method in ("search", "insertion", "bq") else solver_version(method)
            if method == "bq":
                run(task, method, seconds=0.1, chains=1)  # compiled, and read
            for seconds in SECONDS:
                line: dict[str, Any] = {"problem": problem, "nodes": int(nodes), "instance": SEED + number}
                line |= {"method": method, "seconds": seconds}
                if any(line.items() <= one.items() for one in known()):
                    continue
                found, took, wait = used(task, method, seconds, wait)
                line |= {"objective": float(task.measure(found)), "used": round(took, 2), "version": version}
                with LINES.open("a") as file:
                    file.write(json.dumps(line | {"processor": processor()}) + "\n")
                print(json.dumps(line), flush=True)


def known() -> list[dict[str, Any]]:
    """The lines that there are."""
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def sign_of(problem: str) -> float:
    """Of objectives: the smaller the better."""
    return -1.0 if make_problem(problem).maximise else 1.0


def gaps() -> dict[tuple[str, int], dict[str, list[float]]]:
    """Of each problem and number of nodes, each method's percent behind the best that any found of an instance, after
    :data:`SECONDS`: the mean over instances, NaN where nothing was measured."""
    lines, best = known(), {}
    for line in lines:
        key, sign = (line["problem"], line["nodes"], line["instance"]), sign_of(line["problem"])
        best[key] = min(best.get(key, np.inf), sign * line["objective"])
    behind: dict[tuple[str, int], dict[str, dict[int, list[float]]]] = {}
    for line in lines:
        least = best[line["problem"], line["nodes"], line["instance"]]
        of = behind.setdefault((line["problem"], line["nodes"]), {}).setdefault(line["method"], {})
        gap = 100.0 * (sign_of(line["problem"]) * line["objective"] - least) / abs(least)
        of.setdefault(line["seconds"], []).append(gap)
    return {
        what: {
            method: [float(np.mean(of[seconds])) if seconds in of else np.nan for seconds in SECONDS]
            for method, of in methods.items()
        }
        for what, methods in sorted(behind.items())
    }


def table() -> list[str]:
    """Markdown of :func:`gaps`."""
    text = ["| problem | method | " + " | ".join(f"{seconds} s" for seconds in SECONDS) + " |", "|---|---|---|---|---|"]
    for (problem, nodes), methods in gaps().items():
        for method, behind in sorted(methods.items(), key=lambda item: item[1][::-1]):
            cells = ["-" if np.isnan(gap) else f"{gap:.2f} %" for gap in behind]
            text.append(f"| {problem} {nodes} | `{method}` | " + " | ".join(cells) + " |")
    lines = known()
    names = {line["problem"] for line in lines}
    count = max(len({line["instance"] for line in lines if line["problem"] == name}) for name in names)
    drawn = "one instance" if count == 1 else f"up to {count} instances"
    said = f"Percent behind the best that any of these found, after so many processor seconds of one core, on {drawn}"
    said += " each, drawn as `rlkit solve PROBLEM` draws them; what ended by itself needed less."
    figure = f"![percent behind the best against seconds, for each problem and method](assets/{FIGURE.name})"
    return [textwrap.fill(said, 120, break_on_hyphens=False), "", figure, "", *text]


def draw() -> None:
    """:func:`gaps` against seconds, a panel for each problem; solvers of others are dashed."""
    found = gaps()
    figure = Figure(figsize=(12, 6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, -(-len(found) // 2), sharex=True, sharey=True).flat
    colours = dict(zip(("search", "insertion", "bq"), ("C0", "C1", "C2"), strict=True))
    for panel, ((problem, nodes), methods) in zip(panels, found.items(), strict=False):
        for method, behind in methods.items():
            style = {"color": colours[method]} if method in colours else {"color": "0.4", "linestyle": "--"}
            panel.plot(SECONDS, np.maximum(behind, LEAST), marker="o", label=method, **style)
        panel.set(title=f"{problem} {nodes}", xscale="log", yscale="log", xticks=SECONDS)
        panel.set_xticklabels([str(seconds) for seconds in SECONDS])
        panel.minorticks_off()
        panel.set_yticks(TICKS, [f"{tick:g}" if tick > LEAST else f"≤ {tick:g}" for tick in TICKS])
        panel.set_ylim(LEAST / 1.5, 200.0)
        panel.legend(fontsize=8, ncols=2, loc="upper center")
    for panel in figure.axes[len(found) :]:
        panel.remove()
    figure.supxlabel("processor seconds of one core")
    figure.supylabel("percent behind the best that was found")
    figure.savefig(FIGURE, dpi=100, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "page"))
    parser.add_argument("problems", nargs="*", metavar="PROBLEM:NODES")
    parser.add_argument("--instances", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=[], help="by default all that know the problem")
    arguments = parser.parse_args()
    if arguments.what == "page":
        before, rest = PAGE.read_text().split(BEGIN)
        draw()
        PAGE.write_text("\n".join([before + BEGIN, "", *table(), "", END]) + rest.split(END)[1])
        return
    for what in arguments.problems:
        try:
            measure(what, arguments.instances, arguments.methods)
        except UserError as error:
            raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
