"""``rlkit plot RUN... [--out curves.png] [--key eval/score]``: learning curves, one line per agent and env."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from rlkit.errors import UserError, nearest


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="rlkit plot", description="Draw learning curves of runs.")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("curves.png"))
    parser.add_argument("--key", default="eval/score")
    args = parser.parse_args(argv)
    curves: dict[str, list[tuple[list[int], list[float]]]] = defaultdict(list)
    for run in args.runs:
        label, steps, values = read_curve(run, args.key)
        curves[label].append((steps, values))
    draw(curves, args.key, args.out)
    print(f"wrote {args.out}")
    return 0


def read_curve(run: Path, key: str) -> tuple[str, list[int], list[float]]:
    """``("agent on env", steps, values)`` of one run; :class:`UserError` when it is no run or lacks the key."""
    import yaml

    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(f"{run} is not a run: expected a folder with config.yaml and metrics.jsonl") from error
    found = [(line["step"], line[key]) for line in lines if key in line]
    if not found:
        known = {k for line in lines for k in line if k != "step"}
        raise UserError(f"{run} has no '{key}' in its metrics{nearest(key, known)}")
    steps, values = zip(*found, strict=True)
    return f"{config['agent']['name']} on {config['env']['name']}", list(steps), list(values)


def draw(curves: dict[str, list[tuple[list[int], list[float]]]], key: str, out: Path, steps: str = "updates") -> None:
    """Mean over runs as a line, their range as a band; ``key`` and ``steps`` name the axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for label, runs in sorted(curves.items()):
        shared = sorted(set.intersection(*(set(at) for at, _ in runs)))
        table = np.array([[dict(zip(at, values, strict=True))[s] for s in shared] for at, values in runs])
        (line,) = axes.plot(shared, table.mean(axis=0), label=f"{label} (n={len(runs)})")
        if len(runs) > 1:
            axes.fill_between(shared, table.min(axis=0), table.max(axis=0), alpha=0.2, color=line.get_color())
    axes.set_xlabel(steps)
    axes.set_ylabel(key)
    axes.legend()
    axes.grid(alpha=0.3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    plt.close(figure)
