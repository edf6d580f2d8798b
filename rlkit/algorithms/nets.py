"""Networks shared by the agents.  Weights come from an explicit generator, with PyTorch's default distribution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from gymnasium import spaces
from jaxtyping import Float
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from rlkit.algorithms.action_units import action_units
from rlkit.algorithms.floats import flush_subnormals

M = TypeVar("M", bound=nn.Module)


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """``nn.Linear`` with PyTorch's default initialisation drawn from ``generator`` instead of the global RNG."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = 1.0 / math.sqrt(inputs)  # kaiming_uniform with a = sqrt(5) is this same interval
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def mlp(sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """ReLU network through ``sizes`` (inputs, hidden..., outputs), linear at the end."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [linear(inputs, outputs, generator), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


class Actor(nn.Module):
    """Deterministic actor ``tanh(mlp(s))``: actions in [-1, 1], which the policy takes to the action space's box."""

    def __init__(self, obs_dim: int, action_space: spaces.Box, hidden: Sequence[int], generator: torch.Generator):
        super().__init__()
        self.net = mlp([obs_dim, *hidden, action_space.shape[0]], generator)

    def forward(self, observations: Float[Tensor, "batch ds"]) -> Float[Tensor, "batch da"]:
        return torch.tanh(self.net(observations))


class Critics(nn.Module):
    """``n`` independent state-action values; ``forward`` returns them as a tuple of ``[batch, 1]``."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int], generator: torch.Generator, n: int = 2):
        super().__init__()
        self.nets = nn.ModuleList(mlp([obs_dim + action_dim, *hidden, 1], generator) for _ in range(n))

    def forward(
        self, observations: Float[Tensor, "batch ds"], actions: Float[Tensor, "batch da"]
    ) -> tuple[Float[Tensor, "batch 1"], ...]:
        x = torch.cat([observations, actions], dim=1)  # [batch, ds + da]
        return tuple(net(x) for net in self.nets)

    def first(
        self, observations: Float[Tensor, "batch ds"], actions: Float[Tensor, "batch da"]
    ) -> Float[Tensor, "batch 1"]:
        """The first critic alone: what TD3's actor climbs."""
        return self.nets[0](torch.cat([observations, actions], dim=1))


class DeterministicPolicy(BasePolicy):
    """An actor behind the observation normaliser it was trained with; raw observations in, actions of the box out."""

    actor: Actor
    obs_mean: Tensor
    obs_std: Tensor
    reach: Tensor
    centre: Tensor

    def __init__(self, observation_space: spaces.Box, action_space: spaces.Space, actor: nn.Module):
        super().__init__(observation_space, action_space)
        self.actor = actor  # type: ignore[assignment]  # a subclass may say another kind
        size = observation_space.shape[0]
        self.register_buffer("obs_mean", torch.zeros(size))
        self.register_buffer("obs_std", torch.ones(size))
        units = action_units(action_space) if isinstance(action_space, spaces.Box) else ()
        for name, values in zip(("reach", "centre"), units, strict=False):
            self.register_buffer(name, values, persistent=False)

    def normalise(self, observations: Tensor) -> Float[Tensor, "batch ds"]:
        return (observations.float() - self.obs_mean) / self.obs_std

    def outside(self, actions: Float[Tensor, "batch da"]) -> Float[Tensor, "batch da"]:
        """Actions in [-1, 1] in the units of the environment."""
        return self.reach * actions + self.centre

    def forward(self, observations: Tensor) -> Float[Tensor, "batch da"]:
        return self.outside(self.actor(self.normalise(observations)))

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self(observation)


def freeze(module: M) -> M:
    """Mark a target network as never trained by gradient."""
    return module.requires_grad_(False)


def cosine(updates: int, steps: int) -> float:
    """What is left of a learning rate that falls from 1 to 0 in ``steps`` along a cosine; 0 steps: it stays.

    A function of the count alone, so that resuming is exact.
    """
    done = min(updates / steps, 1.0) if steps else 0.0
    return 0.5 * (1 + math.cos(math.pi * done))


class Schedule:
    """A number for each step, by the count of steps before it.

    On a processor it is Python's own.  On a GPU, where steps may be recorded, it is a scalar there, which whoever
    replays them writes before (:meth:`plan`).
    """

    def __init__(self, value: Callable[[int], float], device: torch.device, fixed: bool = False):
        """``fixed``: the number is always the same."""
        self.value, self.fixed, self.on_device = value, fixed, device.type != "cpu"
        self.values = torch.full((1,), value(0), device=device)  # of the next steps
        self.done = self.place = self.planned = 0

    def plan(self, steps: int) -> None:
        """Write the numbers of the next ``steps`` where recorded ones read theirs."""
        self.place = self.planned = steps
        if len(self.values) < steps:
            self.values = torch.full((steps,), self.value(0), device=self.values.device)
        if not self.fixed:
            self.values[:steps].copy_(torch.tensor([self.value(self.done + k) for k in range(steps)]))

    def next(self) -> float | Tensor:
        """The number of the next step, which the caller then counts in ``done``."""
        if not self.on_device:
            return self.value(self.done)
        if self.place == self.planned:
            self.plan(1)
            self.place = 0
        self.place += 1
        return self.values[self.place - 1]


class Polyak:
    """``target <- target + tau (online - target)`` over pairs of modules, in one foreach call."""

    def __init__(self, pairs: Iterable[tuple[nn.Module, nn.Module]], tau: float):
        pairs = list(pairs)
        self.tau = tau
        self.online: list[Tensor] = [p for online, _ in pairs for p in online.parameters()]
        self.target: list[Tensor] = [p for _, target in pairs for p in target.parameters()]

    @torch.no_grad()
    def step(self) -> None:
        torch._foreach_lerp_(self.target, self.online, self.tau)


class Average(Polyak):
    """A running average of weights, the newest counting ``share(done)`` after ``done`` others."""

    def __init__(self, pairs: Iterable[tuple[nn.Module, nn.Module]], share: Callable[[int], float]):
        super().__init__(pairs, 0.0)
        self.schedule = Schedule(share, self.target[0].device)

    @torch.no_grad()
    def step(self) -> None:
        share = self.schedule.next()
        self.schedule.done += 1
        weights: Any = [share] * len(self.target) if isinstance(share, Tensor) else share
        torch._foreach_lerp_(self.target, self.online, weights)


class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` whose step is one fused kernel call over lists gathered once.

    PyTorch's own ``step`` gathers parameters, gradients and moments anew each time, which takes longer than the kernel.
    The state is kept where PyTorch keeps it, so ``state_dict`` and ``load_state_dict`` are PyTorch's.

    The moments of units that have fallen silent are set to 0 once they are below 1.2e-38 (:func:`flush_subnormals`).
    PyTorch's decay until rounding holds them there, among numbers that processors compute many times slower.  The
    weights are the same either way: such a moment moves one by less than 2e-30 learning rates.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, decay_steps: int = 0, decoupled_decay: float | None = None
    ):
        """``decay_steps``: steps in which the learning rate falls to 0 along a :func:`cosine`; 0: it stays.

        ``decoupled_decay``: weights shrink by this times the learning rate, as in AdamW (Loshchilov & Hutter 2019).
        """
        super().__init__(parameters, lr=lr, weight_decay=decoupled_decay or 0.0, fused=True)
        self.learning_rate, self.decay_steps, self.decoupled = lr, decay_steps, decoupled_decay is not None
        self.parameters = [p for group in self.param_groups for p in group["params"]]
        for p in self.parameters:
            zeros = (torch.zeros_like(p, memory_format=torch.preserve_format) for _ in range(2))
            self.state[p] = dict(zip(("exp_avg", "exp_avg_sq"), zeros, strict=True))
            self.state[p]["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
        self.schedule = Schedule(self.rate, self.parameters[0].device, fixed=not decay_steps)
        self._gather()

    def _gather(self) -> None:
        states = [self.state[p] for p in self.parameters]
        self.moments = ([s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states])
        self.steps = [s["step"] for s in states]
        self.schedule.done = int(self.steps[0])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._gather()

    def rate(self, done: int) -> float:
        """The learning rate of the step after ``done`` others."""
        return self.learning_rate * cosine(done, self.decay_steps)

    def next_rate(self) -> float | Tensor:
        """The learning rate of the next step, which is counted."""
        rate = self.schedule.next()
        self.schedule.done += 1
        if self.schedule.fixed and not self.schedule.on_device:
            return self.param_groups[0]["lr"]
        return rate

    @torch.no_grad()
    def minimise(self, loss: Tensor) -> None:
        """One step on ``loss``, touching the gradients of this optimiser's own parameters only.

        ``autograd.grad`` skips the weight gradients of every other network on the path: TD3's actor step would
        otherwise compute the critic's too and throw them away.
        """
        self.descend(torch.autograd.grad(loss, self.parameters))

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor]) -> None:
        """One step along ``gradients``, those of the parameters in order."""
        group, group["lr"] = self.param_groups[0], self.next_rate()
        torch._foreach_add_(self.steps, 1)
        fused_adam(self.parameters, gradients, self.moments, self.steps, group, self.decoupled)


def fused_adam(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: tuple[Sequence[Tensor], Sequence[Tensor]],
    steps: Sequence[Tensor],
    group: Mapping[str, Any],
    decoupled: bool = False,
) -> None:
    """Adam's step in place, in one kernel, with the settings of ``group``; ``steps`` count it already."""
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
    with flush_subnormals():
        kernel(
            list(parameters),
            list(gradients),
            list(moments[0]),
            list(moments[1]),
            [],
            list(steps),
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
