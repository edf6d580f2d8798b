"""Several runs of one shape as one program: parameters with a run's axis in front, one text for all of them.

    stack = Stack([agent, agent, ...])         their tensors become views of the stacked ones
    stack.once()                               an update of each
    stack.release()                            each has its own again

The text of the update is run once under ``torch.vmap``, over a copy of the first learner whose parameters, moments and
targets are those of all runs together.  What runs may differ in: their seeds, their data (of equal widths), and the
hyperparameters that their config names in ``VARYING``.  Each draws from its own generators what it would draw alone; a
run in a stack and a run alone differ by the rounding of batched matrix products.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from gymnasium.spaces import Discrete
from torch import Tensor, nn
from torch.func import functional_call

from rlkit.algorithms.action_units import action_width
from rlkit.algorithms.each import Each, enter, leave, together
from rlkit.algorithms.engine.program import Counts, Doubtful, Program
from rlkit.algorithms.nets import Adam, Polyak, Schedule, fused_adam
from rlkit.algorithms.replay import Batch, Replay
from rlkit.errors import UserError, shown

if TYPE_CHECKING:
    from rlkit.algorithms.learner import Learner

PLAIN = (int, float, str, bytes, type(None))
SETTINGS = ("betas", "eps", "weight_decay")  # of an optimiser, beside its learning rate


class Stack:
    """A program whose update is one of each of ``learners``; what those save, predict and log, they read through views.

    Raises :class:`UserError` for learners that cannot be one program, with what they differ in.
    """

    def __init__(self, learners: Sequence[Learner]):
        reason = differing(learners)
        if reason is not None:
            raise UserError(f"{reason}: expected runs of one shape")
        self.learners, first = list(learners), learners[0]
        self.name, self.device, self.period = first.name, first.device, first.period
        for learner in learners[1:]:
            learner.share(first)
        self._run = torch.arange(len(learners), device=self.device)  # [R]
        self._text, self._whole = _text(first)
        own = [_tensors(_container(learner._named(nn.Module))) for learner in learners]
        self._state = {name: _stacked([tensors[name] for tensors in own]) for name in own[0]}  # [R, ...] each
        places = {id(tensor): self._state[name] for name, tensor in own[0].items()}
        self._varied: dict[str, Any] = {}  # attributes and hyperparameters in which runs differ, [R, ...] each
        self._optimisers: list[StackedAdam] = []
        self._sums: dict[str, Tensor] = {}  # of the tallies, [R] each
        for name, value in vars(first).items():
            values = [getattr(learner, name) for learner in learners]
            if isinstance(value, Adam):
                self._optimisers.append(StackedAdam(values, places))
                setattr(self._text, name, self._optimisers[-1])
            elif isinstance(value, Polyak):
                setattr(self._text, name, StackedPolyak(values, places))
            elif isinstance(value, Replay):
                setattr(self._text, name, StackedReplay(values))
            elif isinstance(value, torch.Generator):
                setattr(self._text, name, Each(values))
            elif name == "config":
                self._varied |= {f"config.{key}": values for key, values in _numbers(values, self.device).items()}
            elif not isinstance(value, nn.Module) and not _alike(values):
                stacked = _stackable(values)
                if stacked is None:
                    setattr(self._text, name, Each(values))
                else:
                    self._varied[name] = stacked

    # ---- a program -------------------------------------------------------------------------------------------------

    def once(self) -> None:
        self._text._n_updates = self.updates()
        metrics = torch.vmap(self._update)(self._run, self._state, self._varied)  # [R] each
        for name, values in metrics.items():
            self._sum(name).add_(values.detach())
        for learner in self.learners:
            for name in metrics:
                learner.tally.counts[name] = learner.tally.counts.get(name, 0) + 1
            learner._n_updates += 1
            learner.num_timesteps += 1

    def _update(self, run: Tensor, state: dict[str, Tensor], varied: dict[str, Any]) -> dict[str, Tensor]:
        """One run's update, for all of them."""
        text = self._text
        for name, value in varied.items():
            if name.startswith("config."):
                object.__setattr__(text.config, name[7:], value)
            else:
                setattr(text, name, value)
        with together(run):
            found: dict[str, Tensor] = functional_call(self._whole, state, ())
        return found

    def _sum(self, name: str) -> Tensor:
        if name not in self._sums:
            zero = torch.zeros((), dtype=torch.float64, device=self.device)
            self._sums[name] = torch.stack([learner.tally.sums.get(name, zero) for learner in self.learners])
            for learner, own in zip(self.learners, self._sums[name], strict=True):
                learner.tally.sums[name] = own
        return self._sums[name]

    @property
    def graphs(self) -> bool:
        """Whether it may be a graph, where there is a GPU."""
        return self.learners[0].engine != "eager"

    def updates(self) -> int:
        return self.learners[0]._n_updates

    def tensors(self) -> list[Tensor]:
        found = list(self._state.values())
        for optimiser in self._optimisers:
            found += [*optimiser.moments[0], *optimiser.moments[1], *optimiser.steps]
        return [*found, *self._sums.values()]

    def generators(self) -> list[torch.Generator]:
        return [one for learner in self.learners for one in Program(learner).generators()]

    def schedules(self) -> Sequence[Schedule]:
        return [one.schedule for optimiser in self._optimisers for one in optimiser.members]

    def doubtful(self) -> Sequence[Doubtful]:
        found = [one for learner in self.learners for one in learner.doubtful()]
        return list({id(one): one for one in found}.values())

    def counts(self) -> Counts:
        own = {f"steps {r}": learner.num_timesteps for r, learner in enumerate(self.learners)}
        tallies = [learner.tally.counts for learner in self.learners]
        tally = {f"{r} {name}": count for r, counts in enumerate(tallies) for name, count in counts.items()}
        return [{"updates": self.updates(), **own}, tally, *({"done": one.done} for one in self.schedules())]

    def set_counts(self, counts: Counts) -> None:
        own, tally, *schedules = counts
        for r, learner in enumerate(self.learners):
            learner._n_updates, learner.num_timesteps = own["updates"], own[f"steps {r}"]
            learner.tally.counts = {}
        for key, count in tally.items():
            place, _, name = key.partition(" ")
            self.learners[int(place)].tally.counts[name] = count
        for schedule, one in zip(self.schedules(), schedules, strict=True):
            schedule.done = one["done"]

    def release(self) -> None:
        """Give every learner tensors of its own again, with the values of now."""
        for learner in self.learners:
            held = list(_tensors(_container(learner._named(nn.Module))).values())
            for optimiser in Program(learner).optimisers():
                held += [*optimiser.moments[0], *optimiser.moments[1], *optimiser.steps]
            for tensor in (*held, *learner.tally.sums.values()):
                tensor.data = tensor.data.clone()


class StackedAdam:
    """The steps of several optimisers over stacked tensors; theirs become views."""

    def __init__(self, members: Sequence[Adam], places: Mapping[int, Tensor]):
        self.members, first = list(members), members[0]
        self.parameters = [places[id(p)] for p in first.parameters]  # [R, ...] each
        above, below = (
            [_stacked([one.moments[k][i] for one in members]) for i in range(len(self.parameters))] for k in (0, 1)
        )
        self.moments, self.steps = (above, below), first.steps
        for one in members[1:]:
            for step, shared in zip(one.steps, self.steps, strict=True):
                step.data = shared.data  # one count for all
        settings = [(one.learning_rate, one.decay_steps, *map(one.param_groups[0].get, SETTINGS)) for one in members]
        self.alike = settings.count(settings[0]) == len(settings)

    def minimise(self, loss: Tensor) -> None:
        """A step of each run on its own ``loss``."""
        (losses,) = leave(loss)  # [R]
        gradients = torch.autograd.grad(losses, self.parameters, torch.ones_like(losses))  # [R, ...] each
        self._step([gradient.contiguous() for gradient in gradients])

    @torch.no_grad()
    def _step(self, gradients: Sequence[Tensor]) -> None:
        groups = [one.param_groups[0] for one in self.members]
        for one, group in zip(self.members, groups, strict=True):
            group["lr"] = one.next_rate()
        torch._foreach_add_(self.steps, 1)
        if self.alike:
            fused_adam(self.parameters, gradients, self.moments, self.steps, groups[0])
            return
        for r, group in enumerate(groups):
            parameters, slopes, *moments = ([t[r] for t in of] for of in (self.parameters, gradients, *self.moments))
            fused_adam(parameters, slopes, (moments[0], moments[1]), self.steps, group)


class StackedPolyak:
    """The moves of several runs' targets."""

    def __init__(self, members: Sequence[Polyak], places: Mapping[int, Tensor]):
        self.taus = [one.tau for one in members]
        self.online, self.target = ([places[id(p)] for p in side] for side in (members[0].online, members[0].target))

    @torch.no_grad()
    def step(self) -> None:
        if self.taus.count(self.taus[0]) == len(self.taus):
            torch._foreach_lerp_(self.target, self.online, self.taus[0])
            return
        for r, tau in enumerate(self.taus):
            torch._foreach_lerp_([t[r] for t in self.target], [t[r] for t in self.online], tau)


class StackedReplay(Each):
    """Each run's draws; of rows that all runs share one gather."""

    def __init__(self, replays: Sequence[Replay]):
        super().__init__(replays)
        self.shared = all(one.rows is replays[0].rows for one in replays)

    def batch(self, batch_size: int, part: str | None = None) -> Batch:
        def draws() -> tuple[Tensor, ...]:
            return (torch.stack([replay.draw(batch_size, part) for replay in self.items]),)

        return self.take(enter(draws)[0])

    def take(self, indices: Tensor) -> Batch:
        found: Batch = self.items[0].take(indices) if self.shared else self.__getattr__("take")(indices)
        return found


# ---- what can be one program ----------------------------------------------------------------------------------------


def differing(learners: Sequence[Learner]) -> str | None:
    """In what ``learners`` are too different to be one program; None where they are not."""
    first = learners[0]
    for learner in learners:
        if type(learner) is not type(first):
            return f"one run is of agent={first.name}, another of agent={learner.name}"
        if not isinstance(getattr(learner, "replay", None), Replay):
            return f"agent={learner.name} does not learn from a dataset alone"
        foreign = [one for one in learner._named(torch.optim.Optimizer).values() if not isinstance(one, Adam)]
        if foreign:
            return f"agent={learner.name} has an optimiser of type {type(foreign[0]).__name__}"
        for key, value in vars(first.config).items():
            other = getattr(learner.config, key)
            if value != other and key not in first.config.VARYING:
                return f"agent.{key} is {shown(value)} in one run and {shown(other)} in another"
        for what in ("observation", "action"):
            widths = [action_width(getattr(one, f"{what}_space")) for one in (first, learner)]
            if widths[0] != widths[1]:
                return f"{what}s have {widths[0]} columns in one run and {widths[1]} in another"
        if isinstance(first.action_space, Discrete) != isinstance(learner.action_space, Discrete):
            return "actions are a choice in one run and numbers in another"
        for name, value in vars(first).items():
            other = getattr(learner, name)
            held = isinstance(value, dict) and any(isinstance(one, Tensor) for one in value.values())
            if held and not _alike([value, other]) and _stackable([value, other]) is None:
                return f"'{name}' has other shapes in one run than in another"
        if (learner._n_updates, learner.device) != (first._n_updates, first.device):
            where = [f"update {one._n_updates} on {one.device}" for one in (first, learner)]
            return f"one run stands at {where[0]}, another at {where[1]}"
    return None


def groups(learners: Sequence[Learner]) -> list[list[int]]:
    """Which of ``learners`` can be one program each, as their places; in order of their first."""
    found: list[list[int]] = []
    for place, learner in enumerate(learners):
        fitting = next((group for group in found if differing([learners[group[0]], learner]) is None), None)
        if fitting is None:
            found.append([place])
        else:
            fitting.append(place)
    return found


# ---- parts of a stack -----------------------------------------------------------------------------------------------


class _Whole(nn.Module):
    """All modules of a learner as one, whose call is the learner's update."""

    def forward(self) -> dict[str, Tensor]:
        text: Any = self.text
        found: dict[str, Tensor] = text.update(text.draw())
        return found


def _text(learner: Learner) -> tuple[Any, nn.Module]:
    """A copy of ``learner`` with modules of its own, and those as one module."""
    text: Any = copy.copy(learner)
    text.config = copy.copy(learner.config)
    generators = {id(one): one for one in Program(learner).generators()}
    modules = copy.deepcopy(learner._named(nn.Module), dict(generators))
    for name, module in modules.items():
        setattr(text, name, module)
    whole = _container(modules, _Whole())
    whole.__dict__["text"] = text
    return text, whole


def _container(modules: Mapping[str, nn.Module], container: nn.Module | None = None) -> nn.Module:
    found = container or nn.Module()
    for name, module in modules.items():
        found.add_module(name, module)
    return found


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers by name, each once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _stacked(own: Sequence[Tensor]) -> Tensor:
    """``[R, ...]`` of each run's ``own``, which become views of it."""
    stacked = torch.stack([tensor.detach() for tensor in own])
    for tensor, view in zip(own, stacked, strict=True):
        tensor.data = view
    return nn.Parameter(stacked) if own[0].requires_grad else stacked


def _alike(values: Sequence[Any]) -> bool:
    first = values[0]
    if isinstance(first, Tensor):
        return all(isinstance(v, Tensor) and v.shape == first.shape and torch.equal(v, first) for v in values)
    if isinstance(first, Mapping) and all(isinstance(v, Mapping) and v.keys() == first.keys() for v in values):
        return all(_alike([v[key] for v in values]) for key in first)
    if isinstance(first, (*PLAIN, tuple)):
        return all(type(v) is type(first) and v == first for v in values)
    return all(v is first for v in values)


def _stackable(values: Sequence[Any]) -> Any:
    """Tensors of one shape, or mappings of such, as ``[R, ...]``; None for anything else."""
    first = values[0]
    if isinstance(first, Tensor):
        same = all(isinstance(v, Tensor) and (v.shape, v.dtype) == (first.shape, first.dtype) for v in values)
        return torch.stack(list(values)) if same else None
    if isinstance(first, dict) and first and all(isinstance(v, dict) and v.keys() == first.keys() for v in values):
        found = {key: _stackable([v[key] for v in values]) for key in first}
        return None if any(value is None for value in found.values()) else found
    return None


def _numbers(configs: Sequence[Any], device: torch.device) -> dict[str, Tensor]:
    """Hyperparameters in which runs differ and that an update computes with, float32 ``[R]`` each."""
    found = {}
    for key in configs[0].VARYING:
        values = [getattr(config, key) for config in configs]
        if values.count(values[0]) != len(values) and all(isinstance(v, (int, float)) for v in values):
            found[key] = torch.tensor(values, dtype=torch.float32, device=device)
    return found
