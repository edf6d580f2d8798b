"""What can be said of a policy from data alone: fitted Q evaluation on all episodes, the rest on those held out.

    Q(s, a) ≈ r + γ (1 - terminal) Q̄(s', π(s'))        regression on the rows of the learning episodes      fitted
    value   = mean Q(s₀, π(s₀)) over first states of episodes, with a bootstrap interval over these          judge

Fitted Q evaluation (Le, Voloshin & Yue 2019, "Batch policy learning under constraints") is the estimator that did best
among those compared by Fu et al. 2021 ("Benchmarks for deep off-policy evaluation"), which is not to say well: it is
right where the policy stays near the data, and makes up what the data does not hold.  Hence what is said beside it: the
error on transitions it has not seen, how far actions are from those recorded, and how many lie outside the data; and
what the agent's own Q function, where it has one, says on the same rows:

    δ = r + γ (1 - terminal) Q(s', π(s')) - Q(s, a),   V = Q(s, π(s)),   A = Q(s, a) - V              of_critic
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.signal import lfilter
from scipy.spatial import cKDTree
from torch import Tensor, nn

from rlkit.algorithms.action_units import action_width, in_units
from rlkit.algorithms.floats import fast_float32
from rlkit.algorithms.nets import Adam, Critics, Polyak, freeze
from rlkit.data.dataset import OfflineDataset
from rlkit.errors import UserError, shown
from rlkit.stats import bootstrap_interval

UPDATES = 20_000  # of the Q function, unless others are asked for
HELD_OUT = 10  # one episode in so many
NEIGHBOURS = 20_000  # rows of data that actions are looked for among
PROBES = 2_000  # held-out rows that are looked at
USUAL = 0.95  # share of the data's own rows that lie within what counts as inside
SLICE = 1 << 16  # rows at once
HORIZONS = 10  # values reach back 1/(1-γ) backups; the slow copy makes so many times as many
POLYAK = 0.005, 0.2  # the slowest and fastest that it follows
FAR = 0.2  # share of actions outside the data above which an estimate is called a guess; the data's own is 0.05


@dataclass(frozen=True)
class Verdict:
    """What :func:`judge` found.  Of discrete actions, action_distance is the share that differ.

    value: discounted return from first states, in the rewards' own units; value_interval95: over episodes' first
    states, not over what the estimator may have wrong; data_value: the recorded episodes' own, discounted alike;
    recorded_range: the least and most discounted return that followed any recorded state, where an episode cut off by a
    time limit may also have gone on as it was; None where ``discount`` is 1 and episodes were cut off;
    td_error: root mean square of r + γ Q̄ - Q on held-out rows, beside the spread of Q there; action_distance: root mean
    square difference from held-out recorded actions, 1 being half an action's range; outside: share of held-out states
    where (s, π(s)) is further from the data than 95 % of the held-out (s, a) are; distance_ratio: the median distance
    of (s, π(s)) from the data over that of (s, a); episodes: whose first states were valued; held_out: episodes the
    fitted Q function did not learn from.

    critic: whose Q function the rest is of, ``"agent"`` for its own, in units of the rewards it learns from, which saw
    the held-out rows too; ``"fitted"`` where it has none or learnt from other data.  Then, on held-out rows,
    critic_td_error: root mean square of δ; critic_value_mean and _std: of V; critic_advantage_mean and _std: of A, the
    advantage of the recorded action over the policy's: A(s, a) = Q(s, a) - V(s) is above 0 where the recorded action is
    the better one, below 0 where the policy's is; critic_advantage_positive: share of rows where it is above 0.
    """

    value: float
    value_interval95: tuple[float, float] | None
    data_value: float
    td_error: float
    q_spread: float
    action_distance: float
    outside: float
    discount: float
    updates: int
    episodes: int
    held_out: int
    distance_ratio: float | None = None
    critic: str = "fitted"
    critic_td_error: float | None = None
    critic_value_mean: float | None = None
    critic_value_std: float | None = None
    critic_advantage_mean: float | None = None
    critic_advantage_std: float | None = None
    critic_advantage_positive: float | None = None
    recorded_range: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        interval = self.value_interval95
        spread = "" if interval is None else f" ({interval[0]:.4g} to {interval[1]:.4g}, 95 %, over first states)"
        reasons = doubts(self.value, self.outside, self.recorded_range)
        return (
            f"estimated discounted return {self.value:.4g}{spread}, the data's own {self.data_value:.4g}; "
            f"{100 * self.outside:.0f} % of its actions lie outside the data"
            f"{f'; this is a guess: {reasons[-1]}' if reasons else ''}"
        )


def doubts(value: float, outside: float, recorded_range: tuple[float, float] | None) -> list[str]:
    """Why a verdict is a guess, the gravest reason last; none where nothing speaks against it."""
    reasons = []
    if outside > FAR:
        reasons.append(f"more than {100 * FAR:.0f} % of the actions are ones the data does not hold")
    if recorded_range is not None and not recorded_range[0] <= value <= recorded_range[1]:
        low, high = recorded_range
        reasons.append(f"what followed recorded states was worth {low:.4g} to {high:.4g}, and nothing beyond")
    return reasons


def can_judge(data: OfflineDataset | None) -> bool:
    """Whether :func:`judge` can say anything from ``data``."""
    return data is not None and not data.reward_free and bool(data.rewards.any()) and len(data.episode_ends) > 1


def q_values(
    agent: Any, observations: Float[Tensor, "batch ds"], actions: Float[Tensor, "batch da"]
) -> Float[Tensor, "batch 1"] | None:
    """The agent's own Q function, the mean of its critics, as its replay has observations, actions and rewards; None
    where it has none, or one that is not of the data's rewards."""
    critic = getattr(agent, "critic", None)
    if critic is None or not getattr(agent, "uses_rewards", False):
        return None
    return torch.stack(critic(observations, actions)).mean(0)


def judge(
    agent: Any,
    dataset: OfflineDataset | None = None,
    *,
    updates: int = UPDATES,
    discount: float | None = None,
    batch_size: int = 256,
    hidden_sizes: tuple[int, ...] = (256, 256),
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Verdict:
    """A verdict on ``agent``'s policy, at its mean or most probable action, without acting.

    Args:
        agent: with SB3's ``predict``, for observations and actions of ``dataset``.
        dataset: with rewards; None: what the agent learnt from.
        updates: of the Q function; fewer leave values too near 0.
        discount: None: the agent's own, else 0.99.
        seed: of the held-out episodes, the Q function and its batches; the same seed gives the same verdict.
        on_progress: told after every hundredth update how many are done.

    Raises:
        UserError: no data, none with rewards, fewer than two episodes, spaces that differ, or a number out of range.
    """
    data = dataset if dataset is not None else getattr(agent, "dataset", None)
    if not isinstance(data, OfflineDataset):
        raise UserError("a verdict needs the data it is judged by, expected dataset=")
    if data.reward_free or not data.rewards.any():
        raise UserError(f"{data.provenance.locator} has no rewards to judge by, expected data with rewards")
    if len(data.episode_ends) < 2:
        raise UserError(f"{data.provenance.locator} has one episode, expected at least two: one is held out")
    for what in ("observation", "action"):
        spaces = getattr(agent, f"{what}_space"), getattr(data, f"{what}_space")
        own, other = (list(space.shape) or [action_width(space)] for space in spaces)
        if own != other:
            raise UserError(f"the agent has {what}s of shape {own}, the data of {other}: expected the same")
    discount = getattr(getattr(agent, "config", None), "discount", 0.99) if discount is None else discount
    if not 0 <= discount <= 1:
        raise UserError(f"discount={shown(discount)} is out of range, expected a number from 0 to 1")
    if updates < 1 or batch_size < 1:
        raise UserError(f"updates={updates} and batch_size={batch_size}: expected whole numbers above 0")
    with fast_float32():
        return _Judge(agent, data, float(discount), seed).verdict(updates, batch_size, hidden_sizes, on_progress)


def layer_normalised(net: Iterable[nn.Module]) -> nn.Sequential:
    """``net`` with a layer normalisation after each hidden layer: actions far from the data have values of a size that
    the data has, where without it an estimate may feed on itself and grow without end."""
    layers: list[nn.Module] = []
    for layer in net:
        if isinstance(layer, nn.ReLU) and isinstance(layers[-1], nn.Linear):
            layers.append(nn.LayerNorm(layers[-1].out_features))
        layers.append(layer)
    return nn.Sequential(*layers)


class _Judge:
    """The data in units of the network's, split by episodes."""

    def __init__(self, agent: Any, data: OfflineDataset, discount: float, seed: int):
        self.data, self.discount, self.seed = data, discount, seed
        ends = data.episode_ends
        self.starts = np.concatenate(([0], ends[:-1]))  # [E]
        random = np.random.default_rng([seed, 1])
        self.held = np.sort(random.permutation(len(ends))[: max(1, len(ends) // HELD_OUT)])
        out = np.zeros(len(data), bool)
        for episode in self.held:
            out[self.starts[episode] : ends[episode]] = True
        self.learnt, self.probes = np.flatnonzero(~out), np.flatnonzero(out)
        self.mean = data.observations.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.std = data.observations.std(axis=0, dtype=np.float64).astype(np.float32) + 1e-3
        self.scale = float(data.rewards.std(dtype=np.float64)) or 1.0  # of rewards, so that no unit matters
        self.observations = self._tensor((data.observations - self.mean) / self.std)
        self.following = self._tensor((data.next_observations - self.mean) / self.std)
        self.actions = in_units(torch.from_numpy(data.actions), data.action_space)
        self.rewards = self._tensor(data.rewards[:, None] / self.scale)
        self.going_on = self._tensor(~data.terminations[:, None])
        self.agent = agent
        self.chosen_next = self._chosen(agent, data.next_observations)

    @staticmethod
    def _tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    def _chosen(self, agent: Any, observations: np.ndarray) -> Tensor:
        parts = []
        for first in range(0, len(observations), SLICE):
            acted, _ = agent.predict(observations[first : first + SLICE], deterministic=True)
            parts.append(in_units(torch.from_numpy(np.asarray(acted)), self.data.action_space))
        return torch.cat(parts)

    def target(self, critic: Critics, rows: Tensor) -> Tensor:
        """r + γ Q̄(s', π(s')), in units of ``scale``; ``[n, 1]``."""
        ahead = critic(self.following[rows], self.chosen_next[rows])[0]
        return self.rewards[rows] + self.discount * self.going_on[rows] * ahead

    def fitted(
        self, updates: int, batch_size: int, hidden_sizes: tuple[int, ...], on_progress: Callable[[int], None] | None
    ) -> tuple[Critics, Critics]:
        """The Q function of the policy and its slow copy."""
        generator = torch.Generator().manual_seed(self.seed + 2)
        widths = self.observations.shape[1], self.actions.shape[1]
        critic = Critics(*widths, hidden_sizes, generator, n=1)
        critic.nets = nn.ModuleList(layer_normalised(net.children()) for net in critic.nets)
        slow = freeze(copy.deepcopy(critic))
        backups = HORIZONS / max(1 - self.discount, 1e-9)
        pace = min(max(backups / updates, POLYAK[0]), POLYAK[1])
        optimiser, follow = Adam(critic.parameters(), 3e-4, decay_steps=updates), Polyak([(critic, slow)], pace)
        learnt = torch.from_numpy(self.learnt)
        for done in range(1, updates + 1):
            rows = learnt[torch.randint(len(learnt), (batch_size,), generator=generator)]
            with torch.no_grad():
                target = self.target(slow, rows)
            optimiser.minimise((critic(self.observations[rows], self.actions[rows])[0] - target).square().mean())
            follow.step()
            if on_progress is not None and done % 100 == 0:
                on_progress(done)
        return critic, slow

    @torch.no_grad()
    def verdict(
        self, updates: int, batch_size: int, hidden_sizes: tuple[int, ...], on_progress: Callable[[int], None] | None
    ) -> Verdict:
        with torch.enable_grad():
            critic, slow = self.fitted(updates, batch_size, hidden_sizes, on_progress)
        first = torch.from_numpy(self.starts)
        acted = self._chosen(self.agent, self.data.observations[self.starts])  # π(s₀), [E, da]
        values = self.scale * critic(self.observations[first], acted)[0][:, 0].double().numpy()  # [E]
        low, high = bootstrap_interval(values, seed=self.seed)
        random = np.random.default_rng([self.seed, 3])
        probes = random.permutation(self.probes)[:PROBES]
        rows = torch.from_numpy(probes)
        seen = critic(self.observations[rows], self.actions[rows])[0]  # [n, 1]
        errors = self.scale * (self.target(slow, rows) - seen)
        proposed = self._chosen(self.agent, self.data.observations[probes])  # π(s), [n, da]
        apart = proposed - self.actions[rows]  # [n, da]
        apart = apart.abs().amax(1).mean() if self.data.discrete else apart.square().mean().sqrt()
        outside, ratio = self._outside(rows, proposed, random)
        data_value, reached = self._recorded()
        return Verdict(
            value=float(values.mean()),
            value_interval95=None if np.isnan(low) else (float(low), float(high)),
            data_value=data_value,
            recorded_range=reached,
            td_error=float(errors.square().mean().sqrt()),
            q_spread=float(self.scale * seen.std(correction=0)),
            action_distance=float(apart),
            outside=outside,
            discount=self.discount,
            updates=updates,
            episodes=len(self.starts),
            held_out=len(self.held),
            distance_ratio=ratio,
            **self._of_critic(critic, rows, proposed),
        )

    def _of_critic(self, fitted: Critics, rows: Tensor, proposed: Tensor) -> dict[str, Any]:
        """δ, V and A on ``rows`` by the agent's own Q function, else by the fitted one."""
        agent, chosen = self.agent, (self.actions[rows], proposed, self.chosen_next[rows])
        data, replay = (getattr(agent, name, None) for name in ("dataset", "replay"))
        if replay is not None and data is not None and data.content_hash == self.data.content_hash:
            batch = replay.take(rows.to(replay.device))
            states, rewards = (batch.observations, batch.observations, batch.next_observations), batch.rewards.cpu()
            found: list[Any] = [
                q_values(agent, at, actions.to(at.device)) for at, actions in zip(states, chosen, strict=True)
            ]
        else:
            found = [None]
        whose = "fitted" if found[0] is None else "agent"
        if whose == "fitted":
            here, rewards = self.observations[rows], self.scale * self.rewards[rows]
            states = here, here, self.following[rows]
            found = [self.scale * fitted(at, actions)[0] for at, actions in zip(states, chosen, strict=True)]
        recorded, value, later = (part.cpu() for part in found)  # 3 x [n, 1]
        errors = rewards + self.discount * self.going_on[rows] * later - recorded
        advantage = recorded - value
        return {
            "critic": whose,
            "critic_td_error": float(errors.square().mean().sqrt()),
            "critic_value_mean": float(value.mean()),
            "critic_value_std": float(value.std(correction=0)),
            "critic_advantage_mean": float(advantage.mean()),
            "critic_advantage_std": float(advantage.std(correction=0)),
            "critic_advantage_positive": float((advantage > 0).float().mean()),
        }

    def _recorded(self) -> tuple[float, tuple[float, float] | None]:
        """Mean discounted return of the episodes as they were recorded, and the range of what followed any row."""
        total, extremes = np.zeros(len(self.starts)), []
        for place, (start, end) in enumerate(zip(self.starts, self.data.episode_ends, strict=True)):
            rewards = self.data.rewards[start:end].astype(np.float64)
            followed = lfilter([1.0], [1.0, -self.discount], rewards[::-1])[::-1]  # discounted return from each row
            total[place] = followed[0]
            extremes += [followed.min(), followed.max()]
            if not self.data.terminations[end - 1]:  # begun again and again
                lasting = 1 - self.discount ** len(rewards)
                extremes.append(followed[0] / lasting if lasting > 0 else np.inf)
        low, high = float(min(extremes)), float(max(extremes))
        return float(total.mean()), (low, high) if np.isfinite([low, high]).all() else None

    def _outside(self, rows: Tensor, chosen: Tensor, random: np.random.Generator) -> tuple[float, float | None]:
        """Share of (s, π(s)) further from the data than usual, and how much further they are in the median."""
        known = torch.from_numpy(np.sort(random.permutation(self.learnt)[:NEIGHBOURS]))
        tree = cKDTree(torch.cat([self.observations[known], self.actions[known]], dim=1).numpy())
        recorded, proposed = (
            tree.query(torch.cat([self.observations[rows], acted], dim=1).numpy())[0]
            for acted in (self.actions[rows], chosen)
        )
        usual = float(np.median(recorded))  # 0 where most rows are there twice
        ratio = float(np.median(proposed)) / usual if usual > 0 else None
        return float((proposed > np.quantile(recorded, USUAL)).mean()), ratio
