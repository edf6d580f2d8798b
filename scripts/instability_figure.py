"""Reward outliers against the implicit-value learners: docs/assets/instability.png and the numbers behind it.

    python scripts/instability_figure.py --updates 10000 --seeds 3

Generated hopper-medium, one reward in a hundred raised by 10⁴, raw rewards, the same networks and batches for all.  Q
regresses with squared error, so that outliers reach it in full; a control has the Huber loss that XQL's and f-DVL's
codes use.  A run ends at its first non-finite metric.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlkit import registry
from rlkit.algorithms.checkpoint import versions
from rlkit.algorithms.floats import fast_float32
from rlkit.data import load_dataset

ROOT = Path(__file__).resolve().parent.parent
NAIVE = {"value_clip": 0.0, "rescale": False}
# label: agent, hyperparameters, size of an outlier
ARMS: dict[str, tuple[str, dict[str, Any], float]] = {
    "XQL, neither": ("xql", NAIVE, 1e4),
    "XQL, rescaled": ("xql", {"value_clip": 0.0}, 1e4),
    "XQL, clipped": ("xql", {"rescale": False}, 1e4),
    "XQL, both": ("xql", {}, 1e4),
    "f-DVL, TV": ("fdvl", {"divergence": "tv", "lam": 0.7}, 1e4),
    "f-DVL, χ² monotone": ("fdvl", {"divergence": "chi2_monotone", "lam": 0.6}, 1e4),
    "f-DVL, χ² of the code": ("fdvl", {"divergence": "chi2_paper", "lam": 0.6}, 1e4),
    "XQL, neither; outliers of 10³": ("xql", NAIVE, 1e3),
    "XQL, neither; no outliers": ("xql", NAIVE, 0.0),
    "XQL, neither; Huber loss of Q": ("xql", {**NAIVE, "huber": 20.0}, 1e4),
}
CONTROLS = 3  # the last ones are in the file, not in the figure
EVERY = 20


def run(label: str, data: Any, seed: int, updates: int) -> dict[str, Any]:
    """Curves of one arm, the step at which it stopped being finite (or None), and its last finite metrics."""
    name, options, size = ARMS[label]
    hit = np.random.default_rng(seed).random(len(data)) < 0.01
    settings = {"huber": 0.0, "temperature": 1.0, "reward_scaling": "none", "hidden_sizes": (64, 64), **options}
    spoilt = data.with_(rewards=(data.rewards + size * hit).astype(np.float32))
    agent = registry.agent_class(name)("MlpPolicy", spoilt, seed=seed, device="cpu", **settings)
    curve: dict[str, list[float]] = {"step": [], "value_loss": [], "v": []}
    failed, last, worst = None, {}, 0.0
    with fast_float32():
        for step in range(1, updates + 1):
            metrics = {key: float(value) for key, value in agent.update(agent.replay.batch(256)).items()}
            agent._n_updates += 1
            if not all(map(math.isfinite, metrics.values())):
                failed = step
                break
            last, worst = metrics, max(worst, metrics["value_loss"])
            if step % EVERY == 0:
                for key, values in curve.items():
                    values.append(step if key == "step" else metrics[key])
    print(f"{label}, seed {seed}: {f'not finite at {failed}' if failed else 'finite'}", flush=True)
    return {"seed": seed, "not_finite_at": failed, "largest_value_loss": worst, "last": last, "curve": curve}


def draw(runs: dict[str, list[dict[str, Any]]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for index, label in enumerate(list(ARMS)[:-CONTROLS]):
        for which, key, axes in ((0, "value_loss", panels[0]), (1, "v", panels[1])):
            for one in runs[label]:
                steps, values = one["curve"]["step"], one["curve"][key]
                shown = label if one is runs[label][0] else None
                axes.plot(steps, values, color=f"C{index}", lw=0.8, alpha=0.8, label=shown)
                if one["not_finite_at"]:
                    axes.plot(steps[-1:], values[-1:], "x", color=f"C{index}", ms=9, mew=2)
            axes.set_xlabel("updates")
            axes.set_ylabel(("value loss", "mean V(s)")[which])
            axes.grid(alpha=0.3)
    panels[0].set_yscale("symlog", linthresh=1e-2)
    panels[0].set_title("a cross: the next metric was not finite", fontsize=9)
    panels[1].legend(fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "assets" / "instability")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("hopper-medium", source="generated", size=arguments.rows)
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for label in ARMS:
        for seed in range(arguments.seeds):
            runs[label].append(run(label, data, seed, arguments.updates))
    draw(runs, arguments.out.with_suffix(".png"))
    arms = {
        label: {
            "agent": ARMS[label][0],
            "hyperparameters": ARMS[label][1],
            "outlier": ARMS[label][2],
            "runs": [{k: v for k, v in one.items() if k != "curve"} for one in runs[label]],
        }
        for label in ARMS
    }
    result = {
        "updates": arguments.updates,
        "share_of_outliers": 0.01,
        "dataset": data.describe(),
        "versions": versions(),
        "arms": arms,
    }
    path = arguments.out.with_suffix(".json")
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {path} and {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
