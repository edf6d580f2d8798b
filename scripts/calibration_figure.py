"""Losses of world models in a stochastic world: docs/assets/calibration.json, and calibration.png beside it.

    python scripts/calibration_figure.py --seeds 5

Coordinates that move at random, more so in some states than in others, chaotic ones that do not matter, and a model of
one hidden layer.  Values are quadratic, so that what is expected of them depends on the spread of the next state and
not on its mean alone.  How wrong is E V(s') by the model (mean squared error over the variance of the true one), fitted
by likelihood, by value-gradient weights, by values of one predicted state, and by values of samples of a Gaussian
model, their variance left in ("samples") or corrected for ("calibrated", Voelcker et al. 2025)?
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from distractor_figure import ROWS, measure
from torch import Tensor

from rlkit.agents.vagram.world_model import (
    Ensemble,
    calibrated_rows,
    fit,
    itervaml_rows,
    mle_rows,
    vagram_rows,
    value_gradients,
)

RELEVANT, CHAOTIC, HEADS, MEMBERS = 3, 12, 4, 2
LOSSES = {
    "mle": "likelihood",
    "vagram": "value-gradient weights",
    "itervaml": "values, deterministic model",
    "samples": "values, Gaussian model",
    "calibrated": "values, Gaussian model, corrected",
}
GAUSSIAN = ("mle", "samples", "calibrated")
UNITS = (6, 12, 24, 48, 96)


class World(NamedTuple):
    """states ``[n, D]``; targets ``[n, D + 1]``, sampled; mean and deviation ``[n, D]`` of the next states; linear and
    curved ``[H, D]``, by which V_h(s) = linear_h · s + (curved_h · s)²."""

    states: Tensor
    targets: Tensor
    mean: Tensor
    deviation: Tensor
    linear: Tensor
    curved: Tensor

    def values(self, states: Tensor) -> Tensor:
        """``[n, H]`` of ``[n, D]``."""
        return states @ self.linear.T + (states @ self.curved.T).square()

    def expected(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """What is expected ``[..., H]`` of Gaussian states, coordinates independent."""
        spread = deviation.square() @ self.curved.square().T
        return mean @ self.linear.T + (mean @ self.curved.T).square() + spread


def make_world(seed: int) -> World:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    states = normal(ROWS, RELEVANT + CHAOTIC)
    own, other = states.split([RELEVANT, CHAOTIC], dim=1)
    change = 0.5 * torch.tanh(own @ normal(RELEVANT, RELEVANT))
    deviation = 0.2 + torch.sigmoid(2.0 * own @ normal(RELEVANT, RELEVANT))
    chaos = torch.sin(10 * other @ normal(CHAOTIC, CHAOTIC)) + torch.tanh(other @ normal(CHAOTIC, CHAOTIC))
    still = torch.zeros(ROWS, CHAOTIC)
    mean, deviation = torch.cat([own + change, other + 3 * chaos], dim=1), torch.cat([deviation, still], dim=1)
    following = mean + deviation * normal(ROWS, RELEVANT + CHAOTIC)
    matters = torch.cat([torch.ones(RELEVANT), torch.zeros(CHAOTIC)])
    linear, curved = normal(HEADS, RELEVANT + CHAOTIC) * matters, 0.5 * normal(HEADS, RELEVANT + CHAOTIC) * matters
    return World(states, torch.cat([following - states, change[:, :1]], dim=1), mean, deviation, linear, curved)


def value_error(loss: str, units: int, seed: int) -> float:
    """Mean squared error of what the model expects of the values over the variance of the truth, after a fit."""
    world = make_world(seed)
    states, targets, width = world.states, world.targets, RELEVANT + CHAOTIC
    model = Ensemble(width, width + 1, (units,), MEMBERS, loss in GAUSSIAN, torch.Generator().manual_seed(seed + 10))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    noise = torch.Generator().manual_seed(seed + 30)
    heads = [lambda s, _, h=h: world.values(s)[:, h : h + 1] for h in range(HEADS)]
    gradients = value_gradients(heads, lambda s: s[:, :0], states + targets[:, :-1])
    weight = gradients.square().mean(1)  # W [n, D]

    def one(rows: Tensor, prediction: Tensor) -> Tensor:
        """Errors of single predictions' values, squared, the heads' mean; ``itervaml_rows`` has one value."""
        found = [
            itervaml_rows(prediction, targets[rows], states[rows], lambda s, h=h: world.values(s)[:, h : h + 1])
            for h in range(HEADS)
        ]
        return torch.stack(found).mean(0)

    def row_loss(rows: Tensor, outputs: Tensor) -> Tensor:
        if loss == "mle":
            return mle_rows(*model.split(outputs), targets[rows])
        if loss == "vagram":
            return vagram_rows(outputs, targets[rows], weight[rows])
        if loss == "itervaml":
            return one(rows, outputs)
        two = torch.stack([model.draw(outputs, noise) for _ in range(2)])
        if loss == "samples":
            return torch.stack([one(rows, sample) for sample in two]).mean(0)
        return calibrated_rows(two, targets[rows], states[rows], world.values)

    shuffles = torch.Generator().manual_seed(seed + 20)
    options: dict[str, Any] = {"batch_size": 256, "patience": 10, "elites": 1, "max_epochs": 100}
    fit(model, optimiser, states, row_loss, shuffles, sum_members=loss == "mle", **options)
    with torch.no_grad():
        outputs = model(states.expand(MEMBERS, -1, -1))
        mean, log_variance = model.split(outputs) if model.gaussian else (outputs, torch.full_like(outputs, -torch.inf))
        reached, spread = states + mean[..., :width], (0.5 * log_variance[..., :width]).exp()
        found, truth = world.expected(reached, spread), world.expected(world.mean, world.deviation)
    return float((found - truth).square().mean() / truth.var(dim=0).mean())


if __name__ == "__main__":
    measure(value_error, LOSSES, UNITS, "calibration", "error of E V(s') / variance")
