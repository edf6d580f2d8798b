"""Vectorised evaluation: every episode is seeded, none is counted twice, per-episode returns are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from rlkit.errors import UserError, refusing, shown
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
        sampled = np.random.SeedSequence([self.seed, index], spawn_key=(1,))
        seed = int(sampled.generate_state(1, np.uint64)[0] >> 1)
        with seeded_samples(agent, seed) if self.judged == "sampled" else nullcontext():
            found = self.measure(agent, index)
        told: dict[str, Any] = {**found.samples(), **found.summary()}
        for name, values in told.items():
            wrong = np.flatnonzero(~np.isfinite(values))
            if len(wrong):
                value = np.ravel(values)[wrong[0]]
                raise UserError(f"{name} of the evaluation in {self.env_id} is {value}, expected a finite number")
        return found

    def measure(self, agent: Predictor, index: int) -> Evaluation:
        """The episodes of call ``index``; what a subclass changes."""
        sequence = np.random.SeedSequence([self.seed, index])
        seeds = [int(s) for s in sequence.generate_state(self.episodes)]  # uint32 each
        # as equal as can be: rounds of one size share their environments
        rounds = [part.tolist() for part in np.array_split(seeds, -(-len(seeds) // MAX_ENVS))]
        lengths: list[np.ndarray] = []
        sums: list[dict[str, np.ndarray]] = []
        for part in rounds:
            found, steps = self._round(agent, part, before=sum(map(len, lengths)))
            sums.append(found)
            lengths.append(steps)
        totals = {name: np.concatenate([one[name] for one in sums]) for name in sums[0]}
        returns, scores = totals.pop("step"), None
        if self.reference is not None:
            low, high = self.reference
            scores = 100.0 * (returns - low) / (high - low)
        return Evaluation(returns, np.concatenate(lengths), scores, by_reward=totals)

    def _round(self, agent: Predictor, seeds: list[int], before: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Sums of rewards by name, the step's own as "step", and lengths, ``[n]`` each."""
        n = len(seeds)
        if self.env is None or self.env.num_envs != n:
            self.close()
            with refusing(f"environment '{self.env_id}'", "cannot be made", UserError):
                self.env = make_vector_env(self.env_id, n, **self.env_kwargs)
            require_fitting(agent, self.env, self.env_id)
        sums: dict[str, np.ndarray] = {}
        step = 0

        def watch(running: np.ndarray, left: np.ndarray, observations: Any, rewards: Any, infos: Any) -> None:
            nonlocal step
            step += 1
            self._check("reward", rewards, running, step, before)
            self._check("observation", observations, left, step, before)
            told = {name: infos[f"{name}_reward"] for name in REWARDS if f"{name}_reward" in infos}
            for name, values in told.items():
                sums.setdefault(name, np.zeros(n))[running] += values[running]
            if self.on_progress is not None:
                self.on_progress(before + n - int(left.sum()))

        greedy = self.judged == "greedy"
        returns, lengths = play_episodes(
            lambda seen: agent.predict(seen, deterministic=greedy)[0], self.env, seeds, watch
        )
        return {"step": returns, **sums}, lengths

    def _check(self, name: str, values: Any, running: np.ndarray, step: Any, before: int) -> None:
        """Raise UserError for what is not finite in a running episode."""
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or np.isfinite(values[running]).all():
            return
        rows = values.reshape(len(values), -1)
        episode = before + int(np.flatnonzero(running & ~np.isfinite(rows).all(axis=1))[0])
        raise UserError(f"'{name}' of {self.env_id} is not finite in episode {episode} of the evaluation, step {step}")

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None


def require_fitting(agent: Any, env: Any, env_id: str) -> None:
    """Raise :class:`UserError` where ``agent`` has spaces and they are not of the kinds and shapes of ``env``'s."""
    for what in ("observation", "action"):
        own, other = getattr(agent, f"{what}_space", None), getattr(env, f"single_{what}_space")
        alike = isinstance(own, type(other)) or isinstance(other, type(own))
        if own is None or (alike and own.shape == other.shape and _count(own) == _count(other)):
            continue
        raise UserError(f"the agent has the {what} space {shown(own)}, {env_id} has {shown(other)}: expected the same")


def _count(space: Any) -> Any:
    return getattr(space, "n", None)


@contextmanager
def seeded_samples(agent: Any, seed: int) -> Iterator[None]:
    """Inside, what ``agent.predict(deterministic=False)`` draws follows from ``seed``; then all is as it was.

    SB3's distributions draw from PyTorch's global generator; other policies from generators that are attributes of the
    agent or its policy, found as a checkpoint finds them.
    """
    owners = [vars(owner) for owner in (agent, getattr(agent, "policy", None)) if hasattr(owner, "__dict__")]
    found = {id(value): value for owner in owners for value in owner.values()}.values()
    torchs = [value for value in found if isinstance(value, torch.Generator)]
    numpys = [value for value in found if isinstance(value, np.random.Generator)]
    before = [value.get_state() for value in torchs], [value.bit_generator.state for value in numpys]
    device = torch.device(getattr(agent, "device", "cpu"))
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                torch.cuda.manual_seed(seed)
            for generator in torchs:
                generator.manual_seed(seed)
            for random in numpys:
                random.bit_generator.state = type(random.bit_generator)(seed).state
            yield
    finally:
        for generator, tensor in zip(torchs, before[0], strict=True):
            generator.set_state(tensor)
        for random, state in zip(numpys, before[1], strict=True):
            random.bit_generator.state = state
