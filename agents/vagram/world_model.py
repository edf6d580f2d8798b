"""An ensemble of one-step models and the losses it can be fitted by; the part of MBPO that VaGraM changes.

The ensemble predicts ŷ = (ŝ' - s, r̂) from standardised (s, a).  With δ = (ŝ' - s) - (s' - s), ρ = r̂ - r and a row's
value gradients g_h = ∂Q_h(s', sg tanh μ(s')) / ∂s', clipped at the 95th percentile of their norms:

    mse        mean over the D + 1 entries of (δ, ρ)²
    mle        Σ (ŷ - y)² e^{-lv} + lv, a Gaussian with learnt log variance lv
    vagram     (1/D) Σ_d W_d δ_d² + ρ²,  W_d = mean_h g̃²_{h,d}                   (Voelcker et al. 2022, diagonal form)
    taylor     mean_h (Σ_d g̃_{h,d} δ_d)² + ρ²                                    (unbounded first-order VAML)
    itervaml   (V(ŝ') - V(s'))² + ρ²,  V = mean_h Q_h(·, sg tanh μ(·))           (Farahmand 2018)
    calibrated mean_h (V_h(ŝ'₁) - V_h(s')) (V_h(ŝ'₂) - V_h(s')) + ρ₁ ρ₂, two samples of a Gaussian model: the square of
               an expected error, without the model's own variance           (Voelcker et al. 2025, their correction)
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Critic = Callable[[Tensor, Tensor], Tensor]  # (states [n, D], actions [n, A]) -> values [n, 1]
Actor = Callable[[Tensor], Tensor]  # states [n, D] -> mean actions [n, A]
Ends = Callable[[Tensor], Tensor]  # next states [n, D] -> whether each ends the episode, bool [n]
CHUNK = 16_384  # rows of one pass over a whole dataset


class Ensemble(nn.Module):
    """``members`` perceptrons with SiLU, as one batch of matrix products; inputs are standardised by the buffers."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, inputs: int, targets: int, hidden: Sequence[int], members: int, gaussian: bool, generator: torch.Generator
    ):
        super().__init__()
        self.gaussian, self.members, self.targets = gaussian, members, targets
        sizes = [inputs, *hidden, targets * (2 if gaussian else 1)]
        self.weights = nn.ParameterList(
            _truncated_normal((members, i, o), 1 / (2 * math.sqrt(i)), generator) for i, o in itertools.pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, o) for o in sizes[1:])
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("std", torch.ones(inputs))

    def standardise(self, inputs: Float[Tensor, "n i"]) -> None:
        """Take mean and standard deviation over ``inputs``."""
        self.mean.copy_(inputs.mean(0))
        self.std.copy_(inputs.std(0).clamp_min(1e-6))

    def forward(
        self, x: Float[Tensor, "members batch i"], which: Int[Tensor, " chosen"] | None = None
    ) -> Float[Tensor, "members batch o"]:
        """Outputs of each member on its own rows; ``which`` picks members, one for each slice of ``x``."""
        x = (x - self.mean) / self.std
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            weight, bias = (weight, bias) if which is None else (weight[which], bias[which])
            x = torch.baddbmm(bias, x, weight)  # [members, batch, width]
            x = x if layer == last else nn.functional.silu(x)
        return x

    def split(self, outputs: Float[Tensor, "members batch o"]) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each ``[members, batch, targets]``; the latter bounded softly to [-10, 0.5]."""
        mean, raw = outputs[..., : self.targets], outputs[..., self.targets :]
        log_variance = 0.5 - nn.functional.softplus(0.5 - raw)
        return mean, -10 + nn.functional.softplus(log_variance + 10)

    def draw(
        self, outputs: Float[Tensor, "members batch o"], generator: torch.Generator
    ) -> Float[Tensor, "members batch k"]:
        """One prediction of each row: a Gaussian's sample, else what the networks gave."""
        if not self.gaussian:
            return outputs
        mean, log_variance = self.split(outputs)
        return mean + torch.empty_like(mean).normal_(generator=generator) * (0.5 * log_variance).exp()


def _truncated_normal(shape: tuple[int, ...], std: float, generator: torch.Generator) -> Tensor:
    return nn.init.trunc_normal_(torch.empty(shape), std=std, a=-2 * std, b=2 * std, generator=generator)


# ---- value gradients -----------------------------------------------------------------------------------------------


def value_gradients(
    critics: Sequence[Critic], actor: Actor, next_states: Float[Tensor, "n d"], quantile: float = 0.95
) -> Float[Tensor, "n h d"]:
    """g̃: gradient of every critic at the real next states, its norm clipped at the ``quantile`` over all rows."""
    heads = []
    for critic in critics:
        parts = []
        for states in next_states.split(CHUNK):
            states = states.detach().requires_grad_()
            actions = actor(states).detach()
            parts.append(torch.autograd.grad(critic(states, actions).sum(), states)[0])
        gradient = torch.cat(parts)  # [n, d]
        norm = gradient.norm(dim=1, keepdim=True)  # [n, 1]
        limit = torch.quantile(norm, quantile)
        heads.append(gradient * (limit / norm.clamp_min(1e-12)).clamp_max(1.0))
    return torch.stack(heads, dim=1).detach()


# ---- losses of rows: predictions and targets are [members, batch, D + 1], results [members, batch] -------------------


def mse_rows(prediction: Float[Tensor, "e b k"], target: Float[Tensor, "e b k"]) -> Float[Tensor, "e b"]:
    return (prediction - target).square().mean(-1)


def mle_rows(
    mean: Float[Tensor, "e b k"], log_variance: Float[Tensor, "e b k"], target: Float[Tensor, "e b k"]
) -> Float[Tensor, "e b"]:
    return ((mean - target).square() * (-log_variance).exp() + log_variance).mean(-1)


def vagram_rows(
    prediction: Float[Tensor, "e b k"], target: Float[Tensor, "e b k"], weight: Float[Tensor, "e b d"]
) -> Float[Tensor, "e b"]:
    """``weight`` is W: the mean over critics of g̃²."""
    delta, rho = (prediction - target).split([weight.shape[-1], 1], dim=-1)
    return (weight * delta.square()).mean(-1) + rho.squeeze(-1).square()


def taylor_rows(
    prediction: Float[Tensor, "e b k"], target: Float[Tensor, "e b k"], gradients: Float[Tensor, "e b h d"]
) -> Float[Tensor, "e b"]:
    delta, rho = (prediction - target).split([gradients.shape[-1], 1], dim=-1)
    return (gradients * delta.unsqueeze(2)).sum(-1).square().mean(-1) + rho.squeeze(-1).square()


def itervaml_rows(
    prediction: Float[Tensor, "e b k"],
    target: Float[Tensor, "e b k"],
    states: Float[Tensor, "e b d"],
    value: Callable[[Tensor], Tensor],
) -> Float[Tensor, "e b"]:
    """``value`` maps states ``[n, D]`` to ``[n, 1]`` and must have its parameters frozen."""
    d = states.shape[-1]
    reached, real = ((states + y[..., :d]).flatten(0, 1) for y in (prediction, target))  # [e b, d]
    with torch.no_grad():
        wanted = value(real)
    gap = (value(reached) - wanted).view(states.shape[:2])  # [e, b]
    return gap.square() + (prediction - target)[..., -1].square()


def calibrated_rows(
    samples: Float[Tensor, "s e b k"],
    target: Float[Tensor, "e b k"],
    states: Float[Tensor, "e b d"],
    values: Callable[[Tensor], Tensor],
) -> Float[Tensor, "e b"]:
    """mean_h (E V_h(ŝ') - V_h(s'))² + (E r̂ - r)² of two or more predictions of each row, without bias.

    Products of different predictions' errors have that for their mean.  The square of their mean error, or the mean of
    their squares, has the variance of the predictions besides, so that a model is rewarded for not spreading where the
    world does.  ``values`` maps states ``[n, D]`` to ``[n, H]`` and must have its parameters frozen.
    """
    s, d = len(samples), states.shape[-1]
    with torch.no_grad():
        wanted = values((states + target[..., :d]).flatten(0, 1))  # [e b, H]
    reached = values((states + samples[..., :d]).flatten(0, 2))  # [s e b, H]
    errors = torch.cat([reached.view(s, *wanted.shape) - wanted, (samples - target)[..., -1:].flatten(1, 2)], dim=-1)
    products = (errors.sum(0).square() - errors.square().sum(0)) / (s * (s - 1))  # [e b, H + 1]
    return (products[:, :-1].mean(-1) + products[:, -1]).view(states.shape[:2])


# ---- fitting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FitReport:
    """epochs made; best validation score of each member ``[E]``; elites by score, best first ``[n]``."""

    epochs: int
    scores: Tensor
    elites: Tensor


RowLoss = Callable[[Tensor, Tensor], Tensor]
"""(rows [members, batch] of the dataset, raw outputs [members, batch, o]) -> loss of each row [members, batch]"""


def fit(
    model: Ensemble,
    optimiser: torch.optim.Optimizer,
    inputs: Float[Tensor, "n i"],
    row_loss: RowLoss,
    generator: torch.Generator,
    *,
    batch_size: int,
    patience: int,
    elites: int,
    max_epochs: int | None = None,
    holdout: float = 0.2,
    improvement: float = 0.01,
    sum_members: bool = False,
) -> FitReport:
    """Fit until no member's validation score has fallen by over 1 % for ``patience`` epochs; keep the best snapshot.

    A fresh split of the rows; every member has a bootstrap of the training part of its own.  The score is ``row_loss``
    averaged over the validation part.  ``sum_members`` adds the members' losses up instead of averaging them.
    """
    n, members, device = len(inputs), model.members, inputs.device
    order = torch.randperm(n, generator=generator, device=device)
    held = max(1, int(n * holdout))
    validation, training = order[:held], order[held:]
    draws = torch.randint(len(training), (members, len(training)), generator=generator, device=device)
    bags = training[draws]  # [members, n_train]
    model.standardise(inputs)
    best = _scores(model, inputs, row_loss, validation)  # [members]
    snapshot, stale, epochs = _snapshot(model), 0, 0
    while stale < patience and (max_epochs is None or epochs < max_epochs):
        shuffle = torch.rand(bags.shape, generator=generator, device=device).argsort(1)
        for rows in bags.gather(1, shuffle).split(batch_size, dim=1):  # [members, batch]
            loss = row_loss(rows, model(inputs[rows])).mean(1)  # [members]
            optimiser.zero_grad()
            (loss.sum() if sum_members else loss.mean()).backward()
            optimiser.step()
        epochs += 1
        scores = _scores(model, inputs, row_loss, validation)
        better = (best - scores) / best.abs().clamp_min(1e-12) > improvement  # [members]
        stale += 1
        if better.any():
            best, snapshot, stale = torch.where(better, scores, best), _snapshot(model), 0
    model.load_state_dict(snapshot)
    return FitReport(epochs, best, best.argsort()[:elites])


def _snapshot(model: Ensemble) -> dict[str, Any]:
    return copy.deepcopy(model.state_dict())


@torch.no_grad()
def _scores(model: Ensemble, inputs: Tensor, row_loss: RowLoss, validation: Tensor) -> Tensor:
    total = torch.zeros(model.members, device=inputs.device)
    for rows in validation.split(CHUNK):
        every = rows.expand(model.members, -1)  # [members, chunk]
        total += row_loss(every, model(inputs[every])).sum(1)
    return total / len(validation)


@torch.no_grad()
def imagine(
    model: Ensemble, elites: Int[Tensor, " e"], inputs: Float[Tensor, "n i"], generator: torch.Generator
) -> Float[Tensor, "n k"]:
    """Predicted (change of state, reward) of each row, rows dealt anew and uniformly to the ``elites``."""
    n, m = len(inputs), len(elites)
    order = torch.randperm(n, generator=generator, device=inputs.device)
    padded = torch.cat([order, order[: -n % m]]) if n >= m else order.repeat(m)  # a multiple of m
    rows = padded.view(m, -1)  # [elites, n / elites]
    outputs = model.draw(model(inputs[rows], elites), generator)  # [elites, n / elites, k]
    found = torch.empty(n, outputs.shape[-1], device=inputs.device)
    found[rows.flatten()] = outputs.flatten(0, 1)
    return found


# ---- the loop around it ----------------------------------------------------------------------------------------------


def truncated_linear(schedule: Sequence[float], epoch: int) -> float:
    """y0 until epoch x0, y1 from epoch x1, linear between; ``schedule`` is (x0, x1, y0, y1)."""
    x0, x1, y0, y1 = schedule
    share = min(max((epoch - x0) / max(x1 - x0, 1e-12), 0.0), 1.0)
    return y0 + share * (y1 - y0)


def _box(state: Tensor, index: int, low: float, high: float) -> Tensor:
    return (state[:, index] > low) & (state[:, index] < high)


# Analytic terminations of next states [n, D]; only a task's own coordinates are read, never appended distractors.
TERMINATIONS: dict[str, Ends] = {
    "hopper": lambda s: (
        ~(s[:, :11].isfinite().all(1) & (s[:, 1:11].abs() < 100).all(1) & (s[:, 0] > 0.7) & _box(s, 1, -0.2, 0.2))
    ),
    "walker2d": lambda s: ~(_box(s, 0, 0.8, 2.0) & _box(s, 1, -1.0, 1.0)),
    "ant": lambda s: ~(s[:, :27].isfinite().all(1) & (s[:, 0] >= 0.2) & (s[:, 0] <= 1.0)),
    "inverted-pendulum": lambda s: ~(s[:, :4].isfinite().all(1) & (s[:, 1].abs() <= 0.2)),
    "never": lambda s: torch.zeros(len(s), dtype=torch.bool, device=s.device),
}
NEVER_ENDING = ("halfcheetah", "pendulum")
