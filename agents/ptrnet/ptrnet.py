"""Pointer Networks: answers that are sequences of positions in the input (Vinyals et al. 2015; Bello et al. 2016).

``agents/ptrnet/network.py`` holds the networks with their equations, ``agents/ptrnet/decode.py`` greedy, sampled, beam
and active search and what judges them, ``agents/ptrnet/data.py`` known answers and the evaluation.  Here is what is
learnt from, and how:

    training=supervised   minimise -Σ_i log p(C_i | C_1 .. C_{i-1}, P) over known answers        negative_log_likelihood
    training=reinforce    tours only: minimise (L(π) - b) log p(π), π ~ p                         reinforce_loss
      baseline=critic     b(P) of a network, least squares in L                                   Critic
      baseline=ema        b a moving average of L
      baseline=rollout    b(P) the greedy tour of an earlier policy, which a better one replaces  PtrNet.challenge
      baseline=samples    b(P, π) the mean of other tours drawn for P (Kool et al. 2019)          others_mean

Targets: the hull from its corner of lowest index, counter-clockwise, that corner again, ⇐; triangles of increasing
indices, ordered by incentre, ⇐; the tour from city 0, counter-clockwise.

``network=attention`` puts the attention model (Kool et al. 2019) in the LSTMs' place, for tours.

Deviations: REINFORCE begins with weights on ±0.25 and not on ±0.08, and without a glimpse; a tour's direction is
counter-clockwise; the loss is a mean over pointers; a moving average does not contain the batch it is taken from.
docs/agents/ptrnet.md has all of them, with reasons.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor, nn

from rlkit import arguments
from rlkit.agents.common.blocks import BlockShape
from rlkit.agents.ptrnet import decode
from rlkit.agents.ptrnet import network as networks
from rlkit.agents.ptrnet.data import Answers, PtrNetEvaluator, as_tokens, problem_of
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.algorithms.hyperparameters import AgentConfig, RunDefaults
from rlkit.algorithms.nets import Adam, Schedule, freeze
from rlkit.algorithms.solver import Solver
from rlkit.envs.combinatorial.base import PROBLEMS, Problem, make_problem
from rlkit.envs.combinatorial.device import PointerRules
from rlkit.envs.combinatorial.improvement import improved_answers, require_moves
from rlkit.envs.combinatorial.instances import Solutions, gathered, read_instances
from rlkit.errors import ArtefactError, UserError, refusing
from rlkit.registry import EnvRecord, described, record, records, register, resolve_object
from rlkit.vector import make_env, named

Self = TypeVar("Self", bound="PtrNet")

WARM_UP, SIGNIFICANT = 0.8, 0.05  # Kool et al. 2019: the average of the first epoch, and the level of the t-test
RIVALRY = 2  # stream of the seed


@dataclass(frozen=True)
class PtrNetConfig(AgentConfig):
    """Hyperparameters of pointer networks."""

    training: str = "supervised"  # supervised, or reinforce (tsp only)
    network: str = "lstm"  # lstm, or attention (tsp only): the attention model of Kool et al.
    order: str = "given"  # in which LSTMs read points: as given, by angle around their mean, or lexicographic
    sizes: Sequence[int] = (0, 0)  # fewest and most nodes of a batch, uniformly; 0, 0: the environment's number
    curriculum: int = 0  # updates over which the fewest nodes rise to the most; 0: they stay
    batch_size: int = 128  # instances per update (tours with baseline=samples); higher: steadier and slower
    hidden_size: int = 0  # units of the LSTMs, or width of attention; 0: 256, or 128 for reinforce and for attention
    init_range: float = 0.0  # LSTMs' first weights are uniform on ± this; 0: 0.08, or 0.25 for reinforce (see below)
    layers: int = 3  # of network=attention; more: better, slower in proportion
    heads: int = 8  # of network=attention
    optimiser: str = "adam"  # adam, or sgd as Vinyals et al.
    learning_rate: float = 0.0  # 0: 1e-3, or 1.0 for sgd; Bello et al. have 1e-4 for 100 cities
    decay: float = 0.96  # the learning rate is multiplied by this ...
    decay_steps: int = 5_000  # ... every so many updates; lower for short runs
    max_grad_norm: float = 0.0  # gradients are cut to this norm; 0: 2.0, or 1.0 for reinforce
    labels: str = ""  # supervised tsp: files of rlkit.envs.combinatorial.labels with commas between, one for each size
    train_size: int = 100_000  # supervised tsp without labels, up to 12 cities: instances solved exactly beforehand
    augment: bool = True  # supervised tsp: solved instances are turned, reflected and reordered at random
    baseline: str = "critic"  # of reinforce: critic, ema, rollout or samples
    samples: int = 4  # of baseline=samples: tours of an instance, of which there are batch_size / samples
    ema_decay: float = 0.99  # of baseline=ema; higher: remembers longer
    glimpses: int = 0  # of reinforce with network=lstm: looks before each pointer; Bello et al. have 1 (see below)
    logit_clip: float = 10.0  # of reinforce: C tanh(u); lower explores more, 0 does not clip
    epoch: int = 2_500  # of baseline=rollout: updates between two challenges
    challenge_size: int = 10_000  # of baseline=rollout: instances that decide one
    beam: int = 1  # walks that evaluations keep; more: more probable answers, more slowly

    POSITIVE = ("batch_size", "samples", "layers", "heads", "decay", "decay_steps", "train_size", "epoch", "beam")
    NON_NEGATIVE = (
        "curriculum",
        "hidden_size",
        "init_range",
        "learning_rate",
        "max_grad_norm",
        "glimpses",
        "logit_clip",
    )
    UNIT = ("decay", "ema_decay")
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {
        "training": ("supervised", "reinforce"),
        "network": ("lstm", "attention"),
        "order": ("given", "angle", "lexicographic"),
        "baseline": ("critic", "ema", "rollout", "samples"),
        "optimiser": ("adam", "sgd"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sizes", tuple(int(n) for n in self.sizes))
        if self.network == "attention" and self.order != "given":
            raise UserError(f"agent.order={self.order} is for LSTMs, expected given: attention reads in no order")
        ordered = len(self.sizes) == 2 and (self.sizes == (0, 0) or 3 <= self.sizes[0] <= self.sizes[1])
        self._require("sizes", ordered, "fewest and most nodes, at least 3 and in that order, or 0, 0")
        self._require("challenge_size", self.challenge_size > 1, "at least 2")
        shared = self.baseline != "samples" or (self.samples > 1 and self.batch_size % self.samples == 0)
        self._require("samples", shared, f"at least 2 and a divisor of batch_size={self.batch_size}")
        divides = self.network == "lstm" or self.width % self.heads == 0
        self._require("heads", divides, f"a divisor of hidden_size={self.width}")

    @property
    def width(self) -> int:
        """What ``hidden_size`` stands for."""
        return self.hidden_size or (256 if (self.training, self.network) == ("supervised", "lstm") else 128)

    def usual(self) -> PtrNetConfig:
        """With what 0 stands for filled in."""
        reinforce = self.training == "reinforce"
        return replace(
            self,
            hidden_size=self.width,
            init_range=self.init_range or (0.25 if reinforce else networks.INIT),
            learning_rate=self.learning_rate or (1.0 if self.optimiser == "sgd" else 1e-3),
            max_grad_norm=self.max_grad_norm or (1.0 if reinforce else 2.0),
        )


# ---- the agent -------------------------------------------------------------------------------------------------------


def _hides_sequence(env: Any) -> bool:
    """Whether ``env`` names a problem of points whose environment shows the solution so far on demand alone."""
    if not isinstance(env, EnvRecord):
        return False
    task = env.task or next((known.task for known in records().values() if known.env_id == env.env_id), "")
    kind = resolve_object(PROBLEMS[task]) if task in PROBLEMS else None
    return kind is not None and kind.points and not kind.shows_sequence


class Drawn(NamedTuple):
    """points float64 [b, n, 2]; tokens int64 [b, t] of answers, padded with -1, or None."""

    points: Tensor
    tokens: Tensor | None


@register("ptrnet")
class PtrNet(Solver):
    """A pointer network, taught by labels or by its own returns.

    Args:
        policy: ``"MultiInputPolicy"``, the only one.
        env: a record's name (``tsp``, ``convex-hull``, ``delaunay``), a Gymnasium id, or an environment; one of tsp
            must have been made with ``observe_sequence=True``.
        seed: decides weights, instances and samples.

    Raises:
        UserError: another environment, labels that do not fit, or values out of range.
    """

    Config: ClassVar[type[AgentConfig]] = PtrNetConfig
    defaults: ClassVar[RunDefaults] = RunDefaults(
        unit="updates", total_timesteps=30_000, log_every=500, eval_every=1_000, checkpoint_every=5_000
    )
    objective: ClassVar[str] = "nll"
    policy_name: ClassVar[str] = "MultiInputPolicy"
    policy: networks.PointerPolicy
    problem: Problem
    place: dict[str, Any] | None = None  # the environment, as an artefact names it
    answers: Answers | None = None

    @classmethod
    def make_world(cls, env: Any) -> tuple[gym.Env, EnvRecord | None]:
        found = named(env)
        world, record = make_env(found, **({"observe_sequence": True} if _hides_sequence(found) else {}))
        problem_of(world)
        return world, record

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        if not isinstance(observation_space, spaces.Dict) or not {"coords", "sequence"} <= set(observation_space):
            raise UserError(
                f"{self.name} needs observations with 'coords' and 'sequence' (tsp: observe_sequence=True), got "
                f"{observation_space}"
            )

    def setup(self, generator: torch.Generator) -> None:
        usual = self.usual = self.config.usual()
        assert isinstance(self.observation_space, spaces.Dict)
        reinforce, hidden, reach = usual.training == "reinforce", usual.hidden_size, usual.init_range
        ends = "remaining" not in self.observation_space.spaces  # tours are of one length, other answers are not
        clip = usual.logit_clip if reinforce else 0.0
        network: networks.Pointer
        if usual.network == "attention":
            if ends:
                raise UserError("agent.network=attention is for tsp, expected lstm for answers of several lengths")
            shape = BlockShape(hidden, usual.layers, usual.heads, 4 * hidden)
            network = networks.AttentionModel(shape, generator, clip=clip, masks=True)
        else:
            sizes = {"embedding": hidden, "glimpses": usual.glimpses} if reinforce else {"embedding": 0, "glimpses": 0}
            style: dict[str, Any] = {"ends": ends, "clip": clip, "masks": reinforce, "order": usual.order}
            network = networks.build(lambda: networks.PointerNetwork(hidden, **style, **sizes), generator, reach)
        self.sampling = torch.Generator(self.device).manual_seed(int(self.seed or 0) + 2)  # of predict alone
        self.policy = networks.PointerPolicy(self.observation_space, self.action_space, network, self.sampling)
        self.policy.to(self.device)
        self.optimiser = self._optimiser(network)
        if reinforce and usual.baseline == "critic":
            self.critic = networks.build(lambda: networks.Critic(hidden, embedding=hidden), generator, reach)
            self.critic.to(self.device)
            self.critic_optimiser = self._optimiser(self.critic)
        if reinforce and usual.baseline == "rollout":
            self.rival = freeze(copy.deepcopy(network))
        self.rivals = 0  # that were replaced
        self.defended: NDArray[np.float64] | None = None  # the rival's lengths, remembered for speed alone
        self.average = torch.full((), torch.nan, dtype=torch.float64)  # of tour lengths; NaN before the first batch
        self.random = np.random.Generator(np.random.PCG64(int(self.seed or 0)))

    def attach(self, source: Any) -> None:
        super().attach(source)
        assert self.world is not None
        self.problem = problem_of(self.world)
        reinforce, spec = self.config.training == "reinforce", self.world.unwrapped.spec
        if reinforce and not self.problem.permutes:
            raise UserError(f"agent.training=reinforce is for tours, got {self.problem.name}: expected supervised")
        if spec is not None:
            self.place = described(spec.id, spec.kwargs)
        n = self.problem.num_nodes
        self.sizes = self.config.sizes if self.config.sizes[0] else (n, n)
        self.answers = None
        if not reinforce:
            known = self.config.labels, self.config.train_size, self.config.augment, self.config.order
            self.answers = Answers(self.problem, self.sizes, int(self.seed or 0), *known)

    # ---- learning --------------------------------------------------------------------------------------------------

    def _optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        if self.usual.optimiser == "sgd":
            return torch.optim.SGD(network.parameters(), lr=self.usual.learning_rate, fused=True)
        found = Adam(network.parameters(), self.usual.learning_rate)
        found.schedule = Schedule(self._rate, self.device)
        return found

    def _rate(self, done: int) -> float:
        """The learning rate after ``done`` updates."""
        return float(self.usual.learning_rate * self.usual.decay ** (done // self.usual.decay_steps))

    def draw(self) -> Drawn:
        """A batch of instances of one size, and answers if it is them that are learnt."""
        fewest, most = self.sizes
        if self.config.curriculum:
            fewest += (most - fewest) * min(self._n_updates, self.config.curriculum) // self.config.curriculum
        n = int(self.random.integers(fewest, most + 1))
        if self.answers is None:
            share = self.config.samples if self.config.baseline == "samples" else 1
            coords = self.random.random((self.config.batch_size // share, n, 2))
            return Drawn(torch.from_numpy(coords).to(self.device), None)
        coords, answers = self.answers.draw(n, self.config.batch_size, self.random)
        tokens = as_tokens(answers, self.policy.network.ends)
        return Drawn(torch.from_numpy(coords).to(self.device), tokens.to(self.device))

    def update(self, batch: Drawn) -> dict[str, Tensor]:
        points, tokens = batch
        network = self.policy.network
        if tokens is None:
            return self._reinforce(network, points)
        allowed = networks.tour_masks(tokens, len(self.problem.opening())) if network.masks else None
        loss, accuracy = networks.negative_log_likelihood(network, points.float(), tokens, allowed)
        norm = self._descend(self.optimiser, network, loss)
        return {"nll": loss.detach(), "pointer_accuracy": accuracy, "grad_norm": norm}

    def _reinforce(self, network: networks.Pointer, points: Tensor) -> dict[str, Tensor]:
        coords, opening = points.float(), len(self.problem.opening())
        memory = network.encode(coords)  # once: for the sample, and for the gradient of its probability
        if self.config.baseline == "samples":
            walks = torch.arange(len(points), device=points.device).repeat_interleave(self.config.samples)
            memory, points = memory.rows(walks), points[walks]
        tours, _, lengths = decode.sample_tours(network, memory, self._rules(points), decode.sampler(self.noise))
        metrics = {"tour_length": lengths.mean()}
        if self.config.baseline == "critic":
            values = self.critic(coords)  # [b]
            critic_loss = nn.functional.mse_loss(values, lengths.float())
            metrics["critic_loss"] = critic_loss.detach()
            self._descend(self.critic_optimiser, self.critic, critic_loss)
            baseline = values.detach()
        else:
            baseline = self._baseline(points, lengths)
        loss = networks.reinforce_loss(network, memory, tours, (lengths - baseline).float(), opening)
        metrics |= {"grad_norm": self._descend(self.optimiser, network, loss), "baseline": baseline.mean()}
        if self.config.baseline == "rollout" and (self._n_updates + 1) % self.config.epoch == 0:
            self.challenge()
        return metrics

    def _baseline(self, points: Tensor, lengths: Tensor) -> Tensor:
        if self.config.baseline == "samples":
            return networks.others_mean(lengths, self.config.samples)
        rollout = self.config.baseline == "rollout"
        if rollout and self._n_updates >= self.config.epoch:
            memory = self.rival.encode(points.float())
            return decode.sample_tours(self.rival, memory, self._rules(points), decode.greedy)[2]
        mean, before = lengths.mean().cpu(), self.average
        weight = WARM_UP if rollout else self.config.ema_decay
        self.average = mean if before.isnan() else weight * before + (1 - weight) * mean
        return (mean if before.isnan() else before).to(points.device)

    def challenge(self) -> None:
        """Replace the rival if the policy's greedy tours are shorter in a one-sided paired t-test."""
        from scipy.stats import ttest_rel

        random = np.random.Generator(np.random.PCG64([int(self.seed or 0), RIVALRY, self.rivals]))
        coords = random.random((self.config.challenge_size, self.sizes[1], 2))
        problem = self.problem.resized(self.sizes[1])
        if self.defended is None:
            self.defended = decode.solve(self.rival, problem, coords).objectives
        found = decode.solve(self.policy.network, problem, coords).objectives
        if ttest_rel(found, self.defended, alternative="less").pvalue < SIGNIFICANT:
            self.rival.load_state_dict(self.policy.network.state_dict())
            self.rivals, self.defended = self.rivals + 1, None  # and new instances, lest one fits the old ones

    def _rules(self, points: Tensor) -> PointerRules:
        return self.problem.pointers()(self.problem.resized(points.shape[1]), points, True)

    def _descend(self, optimiser: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> Tensor:
        """One step; returns the norm of the gradient before it was cut."""
        optimiser.zero_grad()
        loss.backward()
        parameters = list(network.parameters())
        norm = nn.utils.clip_grad_norm_(parameters, self.usual.max_grad_norm)
        if isinstance(optimiser, Adam):
            optimiser.descend([p.grad for p in parameters if p.grad is not None])
        else:
            optimiser.param_groups[0]["lr"] = self._rate(self._n_updates)
            optimiser.step()
        return norm

    # ---- solving ---------------------------------------------------------------------------------------------------

    def solve(
        self,
        instances: Any,
        beam: int = 1,
        valid: bool = True,
        samples: int | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        improve: bool = False,
    ) -> Solutions:
        """Solutions of ``instances``: coordinates ``[n, 2]`` or ``[B, n, 2]``, a mapping with them, what a reader of
        files returns, or a list of any of these, of any sizes.

        The most probable of ``beam`` walks, one being greedy; or, of ``samples`` walks drawn at ``temperature`` from
        ``seed``, the best by its objective. ``valid``: under the environment's rules, else free (see
        ``agents/ptrnet/decode.py``). ``improve``: move tours to local optima. Raises UserError for numbers out of range
        or instances that are unsound.
        """
        numbers = {"beam": beam, "samples": 1 if samples is None else samples, "temperature": temperature}
        for what, number in numbers.items():
            if not number > 0:
                raise UserError(f"{what}={number} is out of range, expected a number above 0")
        if improve:
            require_moves(type(self.problem))
        begin = time.perf_counter()
        groups = read_instances(self.problem, instances)
        settings: dict[str, Any] = {"beam": beam, "samples": samples or 0, "temperature": temperature, "seed": seed}
        network, parts = self.policy.network, []
        for group in groups:
            parts.append(decode.solve(network, group.problem, group.arrays["coords"], valid=valid, **settings))
        found = gathered(groups, parts, time.perf_counter() - begin)
        return improved_answers(self.problem, instances, found) if improve else found

    def active_search(self, instance: Any, steps: int = 10_000, batch_size: int = 128, seed: int = 0) -> Solutions:
        """The best tour met in training a copy on ``instance [n, 2]`` alone, at a hundredth of the learning rate.

        Raises UserError where solutions are no tours, or for an instance that is unsound or several.
        """
        if not self.problem.permutes:
            raise UserError(f"active search is for tours, got {self.problem.name}")
        group, *others = read_instances(self.problem, instance)
        coords = group.arrays["coords"]
        if others or len(coords) > 1:
            raise UserError("active search is for one instance, got several")
        settings: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "seed": seed}
        settings |= {"learning_rate": self.usual.learning_rate / 100, "max_grad_norm": self.usual.max_grad_norm}
        return decode.active_search(self.policy.network, group.problem, coords[0], **settings)

    def evaluator(self, episodes: int, seed: int, record: EnvRecord | None = None) -> PtrNetEvaluator:
        """Raises UserError for a ``record`` of another problem; another size will do."""
        problem = self.problem if record is None else problem_of(self.make_world(record)[0])
        if problem.name != self.problem.name:
            raise UserError(f"this {self.name} points at answers of {self.problem.name}, got env={problem.name}")
        return PtrNetEvaluator(problem, self.config.beam, episodes=episodes, seed=seed)

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        return {**super().state_tensors(), "average": self.average}

    def state_values(self) -> dict[str, Any]:
        return {**super().state_values(), "random": self.random.bit_generator.state, "rivals": self.rivals}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().load_state(tensors, values)
        self.average, self.rivals, self.defended = tensors["average"].clone(), int(values["rivals"]), None
        self.random.bit_generator.state = values["random"]

    def source(self) -> dict[str, Any]:
        digests = self.answers.digests if self.answers is not None else {}
        problem = {"name": self.problem.name, "settings": self.problem.settings(), "labels": digests}
        return {"dataset": None, "env": self.place, "problem": problem}

    def check_source(self, path: Path, manifest: Mapping[str, Any]) -> None:
        if manifest["problem"] != self.source()["problem"]:
            raise ArtefactError(f"{path}: was made for {manifest['problem']}, expected {self.source()['problem']}")

    @classmethod
    def load(  # type: ignore[override]  # SB3's custom_objects= has no meaning without a pickle
        cls: type[Self],
        path: Any,
        env: GymEnv | str | EnvRecord | None = None,
        *,
        device: torch.device | str = "cpu",
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> Self:
        """Rebuild an agent, to learn on in ``env`` if it is given.

        Raises :class:`ArtefactError` for a damaged file, one of another agent, or one of another problem than ``env``.
        """
        source = None if env is None else cls.make_world(env)
        self = cls.read(path, source, device=device, tensorboard_log=tensorboard_log, verbose=verbose)
        with refusing(path, "its manifest names no problem"):
            named = read_artefact(path)[0]["problem"]
            kwargs = arguments.checked(named["settings"], record(named["name"]).arguments, "its problem")
            problem = make_problem(named["name"], **kwargs)
        if env is None:
            self.problem, self.place = problem, self.origin["env"]
        elif self.problem.name != problem.name:
            raise ArtefactError(f"{path}: was made for {problem.name}, got an environment of {self.problem.name}")
        return self
