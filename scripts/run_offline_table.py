"""Run every (agent, dataset, seed) of a results table, a few single-thread processes at a time, resumably.

A run that has its ``result.json`` is left alone, one that was interrupted is resumed, the others are started.  Seeds go
outermost, so a table can be made (and is then called unfinished) as soon as the first seed is through.

    python scripts/run_offline_table.py --agents prdc td3bc bc --envs hopper-medium --seeds 0 1 2 --steps 200000

An agent with settings of its own gets a label: ``fdvl-tv=fdvl,agent.divergence=tv``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COMMAND = [sys.executable, "-c", "import sys; from rlkit.cli import main; sys.exit(main())"]


def run(what: str, env: str, seed: int, steps: int, folder: Path, extra: list[str]) -> int:
    """One run in a process of its own, and a line about how it ended; returns its exit code."""
    label, _, settings_of = what.partition("=")
    agent, *own = (settings_of or label).split(",")
    out = folder / f"{label}_{env}_s{seed}"
    if (out / "result.json").exists():
        print(f"{out}: done before", flush=True)
        return 0
    if (out / "config.yaml").exists():
        arguments = ["resume", str(out), "progress_bar=false"]
    else:
        settings = [f"agent={agent}", f"env={env}", f"seed={seed}", f"total_timesteps={steps}", f"out={out}"]
        arguments = ["train", *settings, "progress_bar=false", *own, *extra]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{out.name}.log").open("a") as log:
        code = subprocess.call(
            [*COMMAND, *arguments], stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    print(f"{out}: exit code {code}", flush=True)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", nargs="+", required=True)
    parser.add_argument("--envs", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/table"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("extra", nargs="*", help="further key=value settings of rlkit train")
    args = parser.parse_args()
    jobs = itertools.product(args.seeds, args.envs, args.agents)
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(run, a, e, s, args.steps, args.folder, args.extra) for s, e, a in jobs]
        codes = [future.result() for future in futures]
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
