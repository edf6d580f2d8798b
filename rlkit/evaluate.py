"""Vectorised evaluation: every episode is seeded, none is counted twice, per-episode returns are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rlkit.vector import make_vector_env

MAX_ENVS = 64  # more episodes run in rounds


@runtime_checkable
class Predictor(Protocol):
    """Anything with SB3's ``predict``."""

    def predict(self, observation: Any, *, deterministic: bool = ...) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class Evaluation:
    """returns: float64 ``[E]``, undiscounted; lengths: int64 ``[E]``; scores: float64 ``[E]`` or None, normalised."""

    returns: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray | None

    def summary(self) -> dict[str, float]:
        found = {"return": float(self.returns.mean()), "return_sd": float(self.returns.std())}
        found["length"] = float(self.lengths.mean())
        if self.scores is not None:
            found["score"] = float(self.scores.mean())
        return found


class Evaluator:
    """Runs ``episodes`` episodes of an environment at once, the i-th of call k seeded by (seed, k, i).

    A call's outcome depends on the policy and on ``index`` alone, never on the calls before: that is what lets a
    resumed run repeat the evaluations of an uninterrupted one.
    """

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

    def __call__(self, agent: Predictor, index: int = 0, deterministic: bool = True) -> Evaluation:
        sequence = np.random.SeedSequence([self.seed, index])
        seeds = [int(s) for s in sequence.generate_state(self.episodes)]  # uint32 each
        # as equal as can be: rounds of one size share their environments
        rounds = [part.tolist() for part in np.array_split(seeds, -(-len(seeds) // MAX_ENVS))]
        parts = [self._round(agent, part, deterministic) for part in rounds]
        returns, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
        scores = None
        if self.reference is not None:
            low, high = self.reference
            scores = 100.0 * (returns - low) / (high - low)
        return Evaluation(returns, lengths, scores)

    def _round(self, agent: Predictor, seeds: list[int], deterministic: bool) -> tuple[np.ndarray, np.ndarray]:
        n = len(seeds)
        if self.env is None or self.env.num_envs != n:
            self.close()
            self.env = make_vector_env(self.env_id, n, **self.env_kwargs)
        observations, _ = self.env.reset(seed=seeds)
        returns, lengths, running = np.zeros(n), np.zeros(n, np.int64), np.ones(n, bool)
        while running.any():
            actions, _ = agent.predict(observations, deterministic=deterministic)
            observations, rewards, terminations, truncations, _ = self.env.step(actions)
            returns[running] += rewards[running]
            lengths[running] += 1
            running &= ~(terminations | truncations)
        return returns, lengths

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None
