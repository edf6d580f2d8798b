"""Measure the methods of ``rlkit solve`` after 1, 5 and 20 processor seconds, and make the table of docs/solve.md.

    python scripts/solve_table.py measure tsp:100 cvrp:1000    add lines to docs/assets/combinatorial/seconds.jsonl
    python scripts/solve_table.py page                         the table, from those lines and nothing else

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


def table() -> list[str]:
    """Markdown: percent behind the best that any method found of an instance, the mean over instances."""
    lines, best = known(), {}
    for line in lines:
        key, sign = (line["problem"], line["nodes"], line["instance"]), sign_of(line["problem"])
        best[key] = min(best.get(key, np.inf), sign * line["objective"])
    text = ["| problem | method | " + " | ".join(f"{seconds} s" for seconds in SECONDS) + " |", "|---|---|---|---|---|"]
    for problem, nodes in sorted({(line["problem"], line["nodes"]) for line in lines}):
        own = [line for line in lines if (line["problem"], line["nodes"]) == (problem, nodes)]
        sign, rows = sign_of(problem), []
        for method in dict.fromkeys(line["method"] for line in own):
            gaps = []
            for seconds in SECONDS:
                some = [line for line in own if (line["method"], line["seconds"]) == (method, seconds)]
                of = [best[problem, nodes, line["instance"]] for line in some]
                worse = [100.0 * (sign * line["objective"] - b) / abs(b) for line, b in zip(some, of, strict=True)]
                gaps.append(float(np.mean(worse)) if worse else np.nan)
            rows.append((gaps, method))
        for gaps, method in sorted(rows, key=lambda row: row[0][::-1]):
            cells = ["-" if np.isnan(gap) else f"{gap:.2f} %" for gap in gaps]
            text.append(f"| {problem} {nodes} | `{method}` | " + " | ".join(cells) + " |")
    names = {line["problem"] for line in lines}
    count = max(len({line["instance"] for line in lines if line["problem"] == name}) for name in names)
    drawn = "one instance" if count == 1 else f"up to {count} instances"
    said = f"Percent behind the best that any of these found, after so many processor seconds of one core, on {drawn}"
    said += " each, drawn as `rlkit solve PROBLEM` draws them; what ended by itself needed less."
    return [textwrap.fill(said, 120, break_on_hyphens=False), "", *text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "page"))
    parser.add_argument("problems", nargs="*", metavar="PROBLEM:NODES")
    parser.add_argument("--instances", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=[], help="by default all that know the problem")
    arguments = parser.parse_args()
    if arguments.what == "page":
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text("\n".join([before + BEGIN, "", *table(), "", END]) + rest.split(END)[1])
        return
    for what in arguments.problems:
        try:
            measure(what, arguments.instances, arguments.methods)
        except UserError as error:
            raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
