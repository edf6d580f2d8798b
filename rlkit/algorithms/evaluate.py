"""Vectorised evaluation: every episode is seeded, none is counted twice, per-episode returns are kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from rlkit.algorithms.samples import SeededSamples
from rlkit.errors import UserError, refusing, shown
from rlkit.stats import decimals
from rlkit.vector import make_vector_env, play_episodes

MAX_ENVS = 64  # more episodes run in rounds
REWARDS = ("true", "proxy")  # told apart by environments whose info has true_reward and proxy_reward


@runtime_checkable
class Predictor(Protocol):
    """Anything with SB3's ``predict``."""

    def predict(self, observation: Any, *, deterministic: bool = ...) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class Evaluation:
    """returns: float64 ``[E]``, undiscounted; lengths: int64 ``[E]``; scores: float64 ``[E]`` or None, normalised.

    by_reward: returns ``[E]`` in the true and in the proxy reward, where the environment tells them apart.
    """

    returns: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray | None
    by_reward: Mapping[str, np.ndarray] = field(default_factory=dict, kw_only=True)

    def samples(self) -> dict[str, np.ndarray]:
        """What was measured of each episode, ``[E]`` each, by the names of :meth:`summary`."""
        found = {"return": self.returns, **{f"{name}_return": values for name, values in self.by_reward.items()}}
        return found if self.scores is None else {**found, "score": self.scores}

    def summary(self) -> dict[str, float]:
        found = {"return": float(self.returns.mean()), "return_sd": float(self.returns.std())}
        found["length"] = float(self.lengths.mean())
        return found | {name: float(values.mean()) for name, values in self.samples().items() if name != "return"}


def measures(names: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of an evaluation's ``names`` are its verdict: the score, or true and proxy return, or the return."""
    for found in (("score",), tuple(f"{name}_return" for name in REWARDS)):
        if all(name in names for name in found):
            return found
    return ("return",)


def named(key: str, value: float) -> tuple[str, int]:
    """How a measure is called to a reader, and the digits of a ``value`` of it after the point."""
    return ("normalised score", 1) if key == "score" else (key.replace("_", " "), decimals(value))


class Evaluator:
    """Runs ``episodes`` episodes of an environment at once, the i-th of call k seeded by (seed, k, i).

    A call's outcome depends on the policy and on ``index`` alone, never on the calls before: that is what lets a
    resumed run repeat the evaluations of an uninterrupted one.  ``judged`` says how the policy acts, "greedy" or
    "sampled"; samples are seeded as the episodes are.  ``on_progress`` is told how many episodes are over.

    Raises :class:`UserError` when a return, or another measure, is not finite.
    """

    judged: str = "greedy"
    on_progress: Callable[[int], None] | None = None

    def __init__(
        self,
        env_id: str,
        *,
        episodes: int = 10,
        seed: int = 0,
        env_kwargs: Mapping[str, Any] | None = None,
        reference: tuple[float, float] | None = None,
    ):
        self.env_id, self.episodes, self.seed, self.reference = env_id, episodes, seed, reference
        self.env_kwargs = dict(env_kwargs or {})
        self.env: Any = None

    def __call__(self, agent: Predictor, index: int = 0) -> Evaluation:
        with self.samples(agent, index):
            return self.finite(self.measure(agent, index))

    def measure(self, agent: Predictor, index: int) -> Evaluation:
        """The episodes of call ``index``; what a subclass changes."""
        return _play([_Player(self, agent, nullcontext())], index)[0]

    def samples(self, agent: Predictor, index: int) -> AbstractContextManager[Any]:
        """Around what ``agent`` draws in call ``index``; may be entered again and again."""
        if self.judged != "sampled":
            return nullcontext()
        sequence = np.random.SeedSequence([self.seed, index], spawn_key=(1,))
        return SeededSamples(agent, int(sequence.generate_state(1, np.uint64)[0] >> 1))

    def finite(self, found: Evaluation) -> Evaluation:
        """``found``; UserError where a number in it is not finite."""
        told: dict[str, Any] = {**found.samples(), **found.summary()}
        for name, values in told.items():
            wrong = np.flatnonzero(~np.isfinite(values))
            if len(wrong):
                value = np.ravel(values)[wrong[0]]
                raise UserError(f"{name} of the evaluation in {self.env_id} is {value}, expected a finite number")
        return found

    def environments(self, count: int) -> Any:
        """``count`` environments in a batch, kept for the next call."""
        if self.env is None or self.env.num_envs != count:
            self.close()
            with refusing(f"environment '{self.env_id}'", "cannot be made", UserError):
                self.env = make_vector_env(self.env_id, count, **self.env_kwargs)
        return self.env

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None


def acting(agent: Any) -> Any:
    """A copy of ``agent``'s policy on the processor: it acts as the agent does now, whatever that learns meanwhile."""
    policy = agent.policy
    own = {id(value): torch.Generator() for value in vars(policy).values() if isinstance(value, torch.Generator)}
    return copy.deepcopy(policy, own).to("cpu")


def evaluate_together(evaluators: Sequence[Evaluator], agents: Sequence[Predictor], index: int = 0) -> list[Evaluation]:
    """What each of ``evaluators``, called with its agent and ``index``, returns: from one batch of environments.

    Each agent acts in a slice of the batch, for as many rows as it would alone, so the results are the same in every
    bit.  Where evaluators differ in environment or number of episodes, or measure in a way of their own, they are
    called one after another.  Raises :class:`UserError` as the first of them that fails would.
    """
    pairs = list(zip(evaluators, agents, strict=True))
    worlds = [(one.env_id, one.env_kwargs, one.episodes) for one in evaluators]
    special = any(type(one).measure is not Evaluator.measure for one in evaluators)
    if len(pairs) < 2 or special or any(world != worlds[0] for world in worlds):
        return [evaluator(agent, index) for evaluator, agent in pairs]
    players = [_Player(evaluator, agent, evaluator.samples(agent, index)) for evaluator, agent in pairs]
    return [player.evaluator.finite(found) for player, found in zip(players, _play(players, index), strict=True)]


@dataclass
class _Player:
    """An agent in its ``rows`` of a batch, and what it has been given so far."""

    evaluator: Evaluator
    agent: Predictor
    samples: AbstractContextManager[Any]  # around what it draws
    rows: slice = field(default_factory=lambda: slice(0, 0))
    sums: dict[str, np.ndarray] = field(default_factory=dict)  # of rewards by name, this round's, ``[n]`` each
    before: int = 0  # episodes of earlier rounds
    step: int = 0

    def begin(self, first: int, count: int) -> None:
        self.before += self.rows.stop - self.rows.start
        self.rows, self.sums, self.step = slice(first, first + count), {}, 0

    def act(self, seen: Any) -> Any:
        with self.samples:
            return self.agent.predict(seen, deterministic=self.evaluator.judged == "greedy")[0]

    def watch(
        self, running: np.ndarray, left: np.ndarray, observations: Any, rewards: np.ndarray, infos: dict[str, Any]
    ) -> None:
        """What a step of the whole batch gave; see :data:`rlkit.vector.Watch`."""
        self.step += 1
        running, left = running[self.rows], left[self.rows]
        self._check("reward", rewards, running)
        self._check("observation", observations, left)
        for name in REWARDS:
            if f"{name}_reward" in infos:
                told = infos[f"{name}_reward"][self.rows]
                self.sums.setdefault(name, np.zeros(len(running)))[running] += told[running]
        if self.evaluator.on_progress is not None:
            self.evaluator.on_progress(self.before + len(left) - int(left.sum()))

    def _check(self, name: str, values: Any, running: np.ndarray) -> None:
        """Raise UserError for what is not finite in a running episode."""
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            return
        rows = values[self.rows].reshape(len(running), -1)
        if np.isfinite(rows[running]).all():
            return
        episode = self.before + int(np.flatnonzero(running & ~np.isfinite(rows).all(axis=1))[0])
        where = f"{self.evaluator.env_id} is not finite in episode {episode} of the evaluation, step {self.step}"
        raise UserError(f"'{name}' of {where}")


def _play(players: Sequence[_Player], index: int) -> list[Evaluation]:
    """The episodes of call ``index`` in one world, which ``players`` share."""
    episodes = players[0].evaluator.episodes
    seeds = [np.random.SeedSequence([player.evaluator.seed, index]).generate_state(episodes) for player in players]
    # as equal as can be: rounds of one size share their environments
    split = np.array_split(np.stack(seeds), -(-episodes // MAX_ENVS), axis=1)  # [R, n] uint32 each
    rounds = [_round(players, part) for part in split]
    evaluations = []
    for player, parts in zip(players, zip(*rounds, strict=True), strict=True):
        total = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        returns, lengths, scores = total.pop("step"), total.pop("length"), None
        if player.evaluator.reference is not None:
            low, high = player.evaluator.reference
            scores = 100.0 * (returns - low) / (high - low)
        evaluations.append(Evaluation(returns, lengths, scores, by_reward=total))
    return evaluations


def _round(players: Sequence[_Player], seeds: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Sums of rewards by name, the step's own as "step", and "length", ``[n]`` each; ``seeds [R, n]`` of episodes."""
    count = seeds.shape[1]
    env = players[0].evaluator.environments(seeds.size)
    for number, player in enumerate(players):
        player.begin(number * count, count)
        require_fitting(player.agent, env, player.evaluator.env_id)
    acted: list[Any] = [None] * len(players)
    busy = np.ones(len(players), np.bool_)

    def act(seen: Any) -> Any:
        if len(players) == 1:
            return players[0].act(seen)
        for number in np.flatnonzero(busy).tolist():  # the others' episodes are over, and what they do is of no account
            acted[number] = players[number].act(_rows(seen, players[number].rows))
        return np.concatenate(acted)

    def watch(running: np.ndarray, left: np.ndarray, *step: Any) -> None:
        for number in np.flatnonzero(busy).tolist():
            players[number].watch(running, left, *step)
        busy[:] = left.reshape(seeds.shape).any(axis=1)

    returns, lengths = play_episodes(act, env, seeds.ravel().tolist(), watch)
    return [{"step": returns[one.rows], "length": lengths[one.rows], **one.sums} for one in players]


def _rows(seen: Any, rows: slice) -> Any:
    """A part of a batch of observations, in memory of its own as a batch of that size would be."""
    if isinstance(seen, Mapping):
        return {key: _rows(value, rows) for key, value in seen.items()}
    return seen[rows].copy()


def require_fitting(agent: Any, env: Any, env_id: str) -> None:
    """Raise :class:`UserError` where ``agent`` has spaces and they are not of the kinds and shapes of ``env``'s."""
    for what in ("observation", "action"):
        own, other = getattr(agent, f"{what}_space", None), getattr(env, f"single_{what}_space")
        alike = isinstance(own, type(other)) or isinstance(other, type(own))
        if own is None or (alike and own.shape == other.shape and _n(own) == _n(other)):
            continue
        raise UserError(f"the agent has the {what} space {shown(own)}, {env_id} has {shown(other)}: expected the same")


def _n(space: Any) -> Any:
    return getattr(space, "n", None)
