"""Networks that imitate a scripted controller: what an environment hands over as its ``scripted_policy``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.distributions import Categorical, Normal

Array = NDArray[np.float64]
ENTROPY = 0.01  # weight of the entropy: larger, a wider support of the imitator


def clone(
    observations: NDArray[np.float32],
    actions: NDArray[Any],
    widths: Sequence[int],
    outputs: int,
    epochs: int,
    *,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    deviation: float = 1.0,
    seed: int = 0,
) -> tuple[Array, ...]:
    """Behavioural cloning, the minimum of -log π(a|s) - 0.01 entropy by Adam, whose step falls to 0.

    observations [m, ds]; actions int64 [m] below ``outputs``, or float32 [m, outputs], then of Gaussians whose
    deviations begin at ``deviation``.  Returns weights [out, in] and bias [out] of each layer in turn, tanh between
    layers, and at last the deviations, [outputs] or, of discrete actions, [0].  Nothing but the seed is random.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise([observations.shape[1], *widths, outputs]):
        layer = nn.utils.skip_init(nn.Linear, width_in, width_out)
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
    net, discrete = nn.Sequential(*layers[:-1]), actions.ndim == 1
    log_std = nn.Parameter(torch.full((0 if discrete else outputs,), float(np.log(deviation))))
    optimiser = torch.optim.Adam([*net.parameters(), log_std], learning_rate, fused=True)
    x, y = torch.from_numpy(observations), torch.from_numpy(actions)
    steps = epochs * -(-len(x) // batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 1 / steps, steps)
    with torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(batch_size):
                found: Any = Categorical(logits=net(x[rows])) if discrete else Normal(net(x[rows]), log_std.exp())
                loss = -found.log_prob(y[rows]).mean() - ENTROPY * found.entropy().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    parts = [part for layer in net if isinstance(layer, nn.Linear) for part in (layer.weight, layer.bias)]
    return tuple(part.detach().double().numpy() for part in (*parts, log_std.exp()))
