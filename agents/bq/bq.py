"""BQ-NCO: imitate good solutions of combinatorial problems, one sub-problem at a time (Drakulic et al. 2023).

A partial solution is nothing but the smaller problem it leaves (``rlkit.envs.combinatorial.bisimulation``); so every
part of a good solution is a solution of a smaller instance, and one labelled instance gives labels of all sizes.  An
update:

    a size m for the whole batch; sub-problems of m nodes out of labelled solutions, each seen in one of the
    square's eight symmetries, each scaled to the unit square                          Imitation.draw, to_unit_box
    L = logsumexp_a s(a) - Σ_a t(a) s(a) over the feasible actions a, t the label's     imitation_loss
    tsp: the mean of L and of the same for the node before the destination              end_loss
    AdamW along a cosine on the clipped gradient; an average of the weights is kept     BQ.update

The average is what predicts, solves and is saved.  ``agents/bq/network.py`` is the network, ``agents/bq/decode.py``
greedy and beam decoding, ``agents/bq/reconstruct.py`` what betters solutions part by part.

Deviations, undone by ``paper=True``: RMSNorm before each layer for ReZero, the unit box for raw coordinates, the second
label of tsp, and attention that falls with the squared distance.  Others: attention is scaled by 1/√d; atsp's tokens
show their costs to the two ends for random identifiers, so that renumbering nodes changes nothing; what is not feasible
has no part in the loss.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, distributed

from rlkit.agents.bq.data import (
    SubProblemBatch,
    describe,
    draws_of,
    join_processes,
    labelled_set,
    problem_of,
    problem_shown,
    processes,
    read_sets,
    sentence,
)
from rlkit.agents.bq.decode import BQPolicy, masked_log_softmax, solve
from rlkit.agents.bq.network import BQNetwork, Shape
from rlkit.agents.bq.reconstruct import solve_again
from rlkit.agents.bq.self_labels import SELF, SelfLabels, first_solver
from rlkit.agents.common.gaps import GapEvaluator
from rlkit.algorithms.base import Specification
from rlkit.algorithms.floats import fast_float32
from rlkit.algorithms.hyperparameters import AgentConfig, RunDefaults, make_config
from rlkit.algorithms.nets import Adam, Average, Schedule, cosine, freeze
from rlkit.algorithms.solver import Solver
from rlkit.envs.combinatorial.improvement import improved_answers, require_moves
from rlkit.envs.combinatorial.instances import Solutions
from rlkit.envs.combinatorial.labels import Labels
from rlkit.errors import ArtefactError, UserError
from rlkit.registry import EnvRecord, environment, is_known, register

Self = TypeVar("Self", bound="BQ")


@dataclass(frozen=True)
class BQConfig(AgentConfig):
    """Hyperparameters of BQ-NCO."""

    learning_rate: float = 7e-4  # at the beginning
    decay_steps: int | None = None  # updates until a cosine has taken it to 0; None: all of learn()'s; 0: it stays
    batch_size: int = 256  # sub-problems, over all processes
    weight_decay: float = 0.01  # AdamW's; larger: smaller weights
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # of the averaged weights; larger: a longer average; 0: none
    width: int = 128  # numbers per token, a multiple of heads
    layers: int = 6  # blocks; more: better, slower in proportion
    heads: int = 8  # of attention
    feedforward: int = 512  # units of the layer behind attention
    paper: bool = False  # ReZero, raw coordinates, one label and plain attention, as published
    rescale: bool = True  # every sub-problem to the unit square
    two_ended: bool = True  # tsp: also learn the node before the destination
    distances: bool = False  # attention falls with the squared distance; the presets of tsp, cvrp and op have it
    symmetries: bool = True  # see each sub-problem in one of the square's eight symmetries
    min_size: int = 4  # nodes of the smallest sub-problem of tsp, atsp and cvrp, its two ends counted
    amp: bool = False  # bfloat16 products; on a CPU attention stays in float32
    init: str | None = None  # artefact whose weights are the first ones; None: drawn by the seed
    labels: str | None = None  # a labelled set, or a folder of some; None: made as the next five say; self: no solver
    train_size: int = 10_000  # instances of it; more: less to learn by heart
    label_seed: int = 0  # of its instances
    solver: str = "auto"  # of its labels: the problem's best, or rlkit's own where that does; or a solver's name
    effort: float = 1.0  # of that solver; more: better labels, slower in proportion
    label_jobs: int = 1  # processes that solve
    improve_every: int = 10  # labels=self: updates between two rounds that better labels; less: better ones, slower
    improve_count: int = 128  # labels=self: instances of a round

    POSITIVE: ClassVar[tuple[str, ...]] = (
        *("learning_rate", "batch_size", "clip", "width", "layers", "heads", "feedforward"),
        *("train_size", "effort", "label_jobs", "improve_every", "improve_count"),
    )
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ("weight_decay", "label_seed")
    UNIT: ClassVar[tuple[str, ...]] = ("ema",)
    OWN: ClassVar[tuple[str, ...]] = ("label_jobs",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("heads", self.width % self.heads == 0, f"a divisor of agent.width={self.width}")
        self._require("min_size", self.min_size >= 3, "at least 3, two ends and a node between them")
        self._require(
            "decay_steps", self.decay_steps is None or self.decay_steps >= 0, "a number of at least 0, or null"
        )

    @property
    def shape(self) -> Shape:
        sizes = self.width, self.layers, self.heads, self.feedforward
        return Shape(*sizes, self.paper, self.rescale, self.two_ended, self.distances)


# ---- losses ----------------------------------------------------------------------------------------------------------


def imitation_loss(
    scores: Float[Tensor, "batch r kinds"], target: Float[Tensor, "batch r kinds"], mask: Bool[Tensor, "batch r kinds"]
) -> Float[Tensor, ""]:
    """Mean of logsumexp s - Σ t s over what ``mask`` allows: cross-entropy, ``target`` being a distribution."""
    found = masked_log_softmax(scores, mask).masked_fill(~mask, 0.0)  # [batch, r, kinds]
    return -(target * found).sum(dim=(1, 2)).mean()


def end_loss(scores: Float[Tensor, "batch r"], before: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Cross-entropy of the node visited just before the destination, over all that remain."""
    return torch.nn.functional.cross_entropy(scores, before)


# ---- the agent -------------------------------------------------------------------------------------------------------


@register("bq")
class BQ(Solver):
    """A transformer that learns the next step of good solutions.

    Args:
        policy: ``"MultiInputPolicy"``, the only one.
        env: a record's name (``tsp``, ``atsp``, ``cvrp``, ``op``, ``knapsack``), a Gymnasium id, or an environment.
        seed: decides the first weights and every batch.
        labels: file of a labelled set, or a folder of such files, whose instances may have several sizes; by default
            one is made when learning begins.
        hyperparameters: fields of :class:`BQConfig`.

    Raises:
        UserError: another environment, or hyperparameters out of range.
    """

    Config: ClassVar[type[AgentConfig]] = BQConfig
    defaults: ClassVar[RunDefaults] = RunDefaults(
        unit="updates", total_timesteps=10_000, log_every=100, eval_every=500, checkpoint_every=500
    )
    objective: ClassVar[str] = "loss"
    policy_name: ClassVar[str] = "MultiInputPolicy"
    policy: BQPolicy
    imitation: Any = None  # an Imitation, or a Mixture of several
    own_labels: SelfLabels | None = None  # where agent.labels=self
    described: dict[str, Any] | None = None

    def __init__(self, policy: str | None = None, env: Any = None, *, labels: str | Path | None = None, **options: Any):
        if labels is not None:
            options["labels"] = str(labels)
        super().__init__(policy, env, **options)

    @classmethod
    def make_world(cls, env: Any) -> tuple[gym.Env, EnvRecord | None]:
        world, record = super().make_world(env)
        problem_of(world)
        return world, record

    def assemble(self, specification: Specification) -> None:
        super().assemble(replace(specification, device=join_processes(specification.device)))
        self.sampler = np.random.Generator(np.random.PCG64([specification.seed, 2]))

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        problem_shown(observation_space)

    def setup(self, generator: torch.Generator) -> None:
        cfg: Any = self.config
        self.problem = problem_shown(self.observation_space)
        self.network = BQNetwork(self.problem.device(), cfg.shape, generator).to(self.device)
        averaged = freeze(copy.deepcopy(self.network))
        self.policy = BQPolicy(self.observation_space, self.action_space, self.problem, averaged).to(self.device)
        self.policy.noise = self.noise
        self.parameters = list(self.network.parameters())
        self.optimiser = Adam(self.parameters, cfg.learning_rate, decoupled_decay=cfg.weight_decay)
        self.optimiser.schedule = Schedule(self._rate, self.device)
        # a short average at first
        self.average = Average([(self.network, averaged)], lambda done: 1.0 - min(cfg.ema, (1 + done) / (10 + done)))

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "optimiser"], []  # the online weights are training state

    def get_env(self) -> VecEnv | None:
        self._environment()
        return super().get_env()

    def _environment(self) -> gym.Env | None:
        """The environment; one that an artefact names is made when it is needed."""
        if self.world is None and self.record is not None:
            self.world = self.make_world(self.record)[0]
        return self.world

    # ---- labels ----------------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Reads the labelled set, or makes it, and the first weights.  Raises :class:`UserError` where that cannot
        be."""
        self.read_labels()
        self.begin()

    def begin(self) -> None:
        """Before the first update, take the weights of ``agent.init``.  Raises :class:`UserError` for another shape."""
        path = self.config.init
        if path is None or self._n_updates:
            return
        other = type(self).load(path)
        theirs, ours = other.config.shape, self.config.shape
        alike = theirs == ours or replace(theirs, distances=True) == ours
        if other.problem.name != self.problem.name or not alike:
            held, wanted = f"{other.problem.name}, {theirs}", f"{self.problem.name}, {ours}"
            raise UserError(f"agent.init={path}: holds weights for {held}, expected {wanted}")
        weights = other.policy.network.state_dict()
        if theirs != ours:  # distances are new to it: they begin with a twenty-fifth of their usual say
            slopes = {k: 0.2 * v for k, v in self.network.state_dict().items() if k.endswith("slope")}
            weights = {**slopes, **weights}
        for network in (self.network, self.policy.network):
            network.load_state_dict(weights)

    def read_labels(self, progress: bool = False) -> Labels:
        """The labelled set, of several that of the largest instances; made first if need be, by the first process."""
        if self.imitation is not None:
            return self.imitation.labels
        cfg, path = self.config, self.config.labels
        if path in (None, SELF):
            world = self._environment()
            if world is None:
                raise UserError(
                    f"this {self.name} was loaded without labels; pass labels= or env= to load() to train on"
                )
            problem = problem_of(world)
            solver = first_solver(problem) if path == SELF else cfg.solver
            made = {"seed": cfg.label_seed, "solver": solver, "effort": cfg.effort, "jobs": cfg.label_jobs}
            path = labelled_set(problem, size=cfg.train_size, progress=progress, **made)
        drawn = {"batch_size": cfg.batch_size, "min_size": cfg.min_size, "symmetries": cfg.symmetries}
        self.imitation = draws_of(read_sets(path, self.problem.name), self.sampler, self.device, **drawn)
        self.described = describe(self.imitation.sets, Path(path))
        if cfg.labels == SELF:
            self.own_labels = SelfLabels(self.imitation, cfg.improve_count, int(self.seed or 0))
        return self.imitation.labels

    # ---- learning --------------------------------------------------------------------------------------------------

    def draw(self) -> SubProblemBatch:
        rounds, over = divmod(self._n_updates, self.config.improve_every)
        if self.own_labels is not None and rounds and not over:
            self.own_labels.improve(self.policy.network, rounds)
        rank, count = processes()
        size, over = divmod(self.config.batch_size, count)
        if over:
            raise UserError(f"agent.batch_size={self.config.batch_size} does not divide among {count} processes")
        return self.imitation.draw(slice(rank * size, (rank + 1) * size))

    def update(self, batch: SubProblemBatch) -> dict[str, Tensor]:
        """One step on the joint batch; of several processes each takes its rows, and gradients are averaged."""
        cfg, kinds = self.config, self.network.kinds
        with torch.autocast(self.device.type, torch.bfloat16, enabled=cfg.amp, cache_enabled=False):
            scores = self.network(batch.tokens, batch.cost)  # [batch, r, kinds (+ 1)]
        loss = following = imitation_loss(scores[..., :kinds], batch.target, batch.mask)
        if scores.shape[2] > kinds and batch.before is not None:
            loss = 0.5 * (following + end_loss(scores[..., kinds], batch.before))
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            best = scores[..., :kinds].masked_fill(~batch.mask, float("-inf")).flatten(1).argmax(dim=1)
            right = (batch.target.flatten(1).gather(1, best[:, None]) > 0).float().mean()
            told = torch.stack((loss, following, right))
            flat = torch.cat([*(g.reshape(-1) for g in gradients), told])  # one message between processes
            count = processes()[1]
            if count > 1:
                distributed.all_reduce(flat)
                flat /= count
            flat, told = flat[:-3], flat[-3:]
            norm = flat.norm()
            flat = flat * (cfg.clip / norm.clamp_min(cfg.clip))
            parts = flat.split([p.numel() for p in self.parameters])
            self.optimiser.descend([part.view_as(p) for p, part in zip(self.parameters, parts, strict=True)])
        self.average.step()
        names = ("loss", "next_loss", "accuracy")
        rate, size = norm.new_zeros(()) + self.optimiser.param_groups[0]["lr"], norm.new_full((), batch.tokens.shape[1])
        further = {} if self.own_labels is None else {"label_objective": self.own_labels.mean.clone()}
        found = {**dict(zip(names, told, strict=True)), "gradient_norm": norm, "learning_rate": rate, "size": size}
        return found | further

    def _rate(self, done: int) -> float:
        """The learning rate after ``done`` updates."""
        cfg = self.config
        steps = self._total_timesteps if cfg.decay_steps is None else cfg.decay_steps
        return float(cfg.learning_rate * cosine(done, steps))

    # ---- solving ---------------------------------------------------------------------------------------------------

    def solve(
        self,
        instances: Any,
        beam: int = 1,
        augment: int = 1,
        knn: int | None = None,
        reuse: bool = True,
        seed: int = 0,
        reconstruct: int | float | None = None,
        start: Any = None,
        improve: bool = False,
    ) -> Solutions:
        """Solutions of ``instances``: arrays, of one instance or of several, a mapping of arrays by name, what a reader
        of files returns, or a list of any of these, of any sizes.

        beam: states kept per instance, 1: greedy.  augment: searches per instance in different symmetries of the
        square (cvrp, op: up to 8) and from different nodes (tsp, atsp), the best of which is returned; knapsack has
        none.  knn: show the network only so many nodes, the nearest; by default, where that is no worse (tsp, cvrp), 50
        of instances larger than those it learnt from, else all.  reuse: see ``agents/bq/decode.py``.  seed: of
        the nodes where searches begin.  reconstruct: solve parts of the solutions again, and again, and keep what is
        better (``agents/bq/reconstruct.py``; tsp, atsp, cvrp): a whole number of rounds, or a float, seconds of all.
        start: the solutions to begin with, one for each instance, in place of the network's.  improve: move solutions
        to local optima by the problem's own moves (tsp, atsp, cvrp, op); re-construction does so by itself.

        Raises :class:`UserError` for instances that are not sound or a number out of range.
        """
        options: dict[str, Any] = {"beam": beam, "augment": augment, "knn": knn, "reuse": reuse, "seed": seed}
        options["learnt"] = self._learnt_nodes()
        given = self.policy.network, self.problem, instances, self.device
        if start is not None and reconstruct is None:
            raise UserError("start= is for re-construction, expected reconstruct= with it")
        if improve:
            require_moves(type(self.problem))
        with fast_float32(self.device):
            if reconstruct is not None:
                return solve_again(*given, reconstruct, start, **options)
            found = solve(*given, **options)
        return improved_answers(self.problem, instances, found) if improve else found

    def _learnt_nodes(self) -> int:
        """Nodes of the instances it learnt from; of its environment's, before it has."""
        found = (self.described or {}).get("details", {}).get("settings", {}).get("num_nodes")
        return found if isinstance(found, int) else self.problem.num_nodes

    def evaluator(self, episodes: int, seed: int, record: EnvRecord | None = None) -> GapEvaluator | None:
        """Gaps on held-out instances of the environment's size, of ``record``'s if given; the same for any ``seed``."""
        record = record or self.record
        world = self._environment() if record is self.record else self.make_world(record)[0]
        if world is None:
            return None
        problem = problem_of(world)
        if problem.name != self.problem.name:
            raise UserError(
                f"this {self.name} solves {self.problem.name}, expected an environment of it, got {problem.name}"
            )
        env_id = str(world) if record is None else record.env_id
        return GapEvaluator(env_id, problem, episodes, self.config.solver, self.config.effort)

    # ---- state -----------------------------------------------------------------------------------------------------

    def load_model(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_model(tensors)
        self.network.load_state_dict(self.policy.network.state_dict())

    def state_tensors(self) -> dict[str, Tensor]:
        online = {f"online.{k}": v for k, v in self.network.state_dict().items()}
        return {**super().state_tensors(), **online, **({} if self.own_labels is None else self.own_labels.tensors())}

    def state_values(self) -> dict[str, Any]:
        return {**super().state_values(), "sampler": self.sampler.bit_generator.state}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().load_state(tensors, values)
        self.network.load_state_dict({k[7:]: v for k, v in tensors.items() if k.startswith("online.")})
        self.sampler.bit_generator.state = values["sampler"]
        self.average.schedule.done = self._n_updates
        if self.own_labels is not None:
            self.own_labels.load(tensors)

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        if not processes()[0]:
            super().save(path, exclude, include)

    def save_checkpoint(self, path: str | Path, extra: dict[str, Any] | None = None) -> None:
        if not processes()[0]:
            super().save_checkpoint(path, extra)

    def source(self) -> dict[str, Any]:
        return {**super().source(), "dataset": self.described}

    def check_source(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.read_labels()
        assert self.described is not None
        if (manifest["dataset"] or {}).get("sha256") != self.described["sha256"]:
            where = self.described["locator"]
            raise ArtefactError(f"{path}: was made from other labels than {where}; resuming would not be exact")

    def result(self) -> dict[str, Any]:
        self.read_labels()
        return {"dataset": self.described, "source_sentence": sentence(self.imitation.sets)}

    @classmethod
    def load(  # type: ignore[override]  # SB3's custom_objects= has no meaning without a pickle
        cls: type[Self],
        path: Any,
        env: Any = None,
        *,
        labels: str | Path | None = None,
        device: torch.device | str = "cpu",
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> Self:
        """Rebuild an agent; it solves and predicts without an environment, and learns on with ``labels`` or one.

        Raises :class:`ArtefactError` for a damaged file or one of another agent.
        """
        self = cls.read(path, device=device, tensorboard_log=tensorboard_log, verbose=verbose)
        if labels is not None:
            self.config = make_config(cls, {**vars(self.config), "labels": str(labels)})
        if env is not None:
            self.world, self.record = self.make_world(env)
            if problem_of(self.world).name != self.problem.name:
                raise UserError(f"{path}: solves {self.problem.name}, expected an environment of it, got {self.world}")
        else:
            found = environment(self.origin["env"], str(path))
            self.record = found if found is not None and is_known(found) else None
        self.described = self.origin["dataset"]
        return self

    def prepare(self, progress: bool) -> None:
        """Make or read the labels, and say which."""
        self.read_labels(progress)
        print(sentence(self.imitation.sets), flush=True)
        self.begin()  # refused before the run's folder is made
