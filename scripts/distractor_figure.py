"""Distractors against the model's loss: docs/assets/distractors.png and the numbers behind it.

    python scripts/distractor_figure.py --seeds 5

Three coordinates that matter to the value, fifteen chaotic ones that do not, and a model of one hidden layer: how wrong
is it on the three (mean squared error over their variance) when it is fitted by squared error, by likelihood, or by
squared error weighted with the value's gradient, which here is 1 on the three and 0 on the rest?
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlkit.agents.vagram.world_model import Ensemble, fit, mle_rows, mse_rows, vagram_rows
from rlkit.algorithms.checkpoint import versions

ROOT = Path(__file__).resolve().parent.parent
RELEVANT, CHAOTIC, ROWS, MEMBERS = 3, 15, 3000, 2
LOSSES = {"mse": "squared error", "mle": "likelihood", "vagram": "value-gradient weights"}
UNITS = (3, 6, 12, 24, 48, 96)


def dynamics(seed: int) -> tuple[Tensor, Tensor]:
    """States ``[n, 18]`` and targets ``[n, 19]``: the change of every coordinate, then the reward."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(ROWS, RELEVANT + CHAOTIC, generator=generator)
    own, other = state.split([RELEVANT, CHAOTIC], dim=1)
    change = 0.5 * torch.tanh(own @ torch.randn(RELEVANT, RELEVANT, generator=generator))
    chaos = torch.sin(10 * other @ torch.randn(CHAOTIC, CHAOTIC, generator=generator))
    chaos = chaos + torch.tanh(other @ torch.randn(CHAOTIC, CHAOTIC, generator=generator))
    return state, torch.cat([change, 3 * chaos, change[:, :1]], dim=1)


def relevant_error(loss: str, units: int, seed: int) -> float:
    """Mean squared error on the relevant coordinates over their variance, after a fit by ``loss``."""
    state, targets = dynamics(seed)
    weight = torch.zeros(ROWS, RELEVANT + CHAOTIC)
    weight[:, :RELEVANT] = 1.0
    width, start = RELEVANT + CHAOTIC, torch.Generator().manual_seed(seed + 10)
    model = Ensemble(width, width + 1, (units,), MEMBERS, loss == "mle", start)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)

    def rows(index: Tensor, outputs: Tensor) -> Tensor:
        if loss == "mle":
            return mle_rows(*model.split(outputs), targets[index])
        if loss == "mse":
            return mse_rows(outputs, targets[index])
        return vagram_rows(outputs, targets[index], weight[index])

    shuffles = torch.Generator().manual_seed(seed + 20)
    options: dict[str, Any] = {"batch_size": 256, "patience": 10, "elites": 1, "max_epochs": 200}
    fit(model, optimiser, state, rows, shuffles, sum_members=loss == "mle", **options)
    with torch.no_grad():
        predicted = model(state.expand(MEMBERS, -1, -1))[..., :RELEVANT]
    wanted = targets[:, :RELEVANT]
    return float((predicted - wanted).square().mean() / wanted.var())


# ---- errors by width, also of calibration_figure.py ------------------------------------------------------------------


def draw(found: dict[str, dict[int, list[float]]], losses: dict[str, str], ylabel: str, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for colour, (loss, label) in enumerate(losses.items()):
        units = list(found[loss])
        values = np.array(list(found[loss].values()))  # [units, seeds]
        axes.plot(units, np.median(values, axis=1), "o-", color=f"C{colour}", label=label)
        axes.fill_between(units, values.min(axis=1), values.max(axis=1), color=f"C{colour}", alpha=0.15, lw=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(units, [str(width) for width in units])
    axes.set_xlabel("hidden units of the model")
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(out, dpi=130)
    plt.close(figure)


def measure(
    error: Callable[[str, int, int], float], losses: dict[str, str], units: Sequence[int], name: str, ylabel: str
) -> None:
    """``error`` of each loss, width and seed: printed, drawn, and written to docs/assets/NAME.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "assets" / name)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[int, list[float]]] = {loss: {} for loss in losses}
    for loss, by_units in found.items():
        by_units |= {width: [error(loss, width, seed) for seed in range(arguments.seeds)] for width in units}
        print(loss, {width: f"{np.median(values):.3f}" for width, values in by_units.items()}, flush=True)
    draw(found, losses, ylabel, arguments.out.with_suffix(".png"))
    record = {"seeds": arguments.seeds, "rows": ROWS, "versions": versions(), "errors": found}
    path = arguments.out.with_suffix(".json")
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {path} and {path.with_suffix('.png')}")


if __name__ == "__main__":
    measure(relevant_error, LOSSES, UNITS, "distractors", "error on the relevant coordinates / variance")
