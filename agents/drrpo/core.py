"""DR-RPO and its peers on episodic problems with linear features: robust regularised policy optimisation (Gu, He, Liu
& Xu, arXiv 2510.14246, of which only the abstract was at hand: the steps are derived), DR-LSVI-UCB (2402.15399),
We-DRIVE-U (2409.20521), LSVI-UCB (Jin et al. 2020) and OPPO (Cai et al. 2020).

Features φ(s, a) are non-negative and sum to one; P_h = Σ_i φ_i μ_{h,i}, and each factor μ_{h,i} may move by the total
variation ρ_{h,i}.  From the data of episodes 1..k-1, for h = H..1 with V_{H+1} = 0:

    C = Λ_h⁻¹Φ_hᵀ, one coefficient per distinct next state                       dual.add_sample
    ν_i = max over α of Σ_τ C_{iτ} min(V(s'_τ), α) - ρ_{h,i} α                   dual.nu_tv
    w = θ_h + ν, or θ̂ = Λ⁻¹Φᵀr in the place of an unknown θ                     Planner.plan
    Γ = β Σ_i φ_i √(Λ⁻¹)_ii, or another bonus                                    bonus
    Q = clip(φᵀw + Γ, 0, M_h)                                                    Planner.single_q
    π ∝ π_ref exp(ηQ),  V = (1/η) log Σ_a π_ref exp(ηQ)                          soft_value
    roll out π in the nominal world, then Λ_h += φφᵀ                             Planner.play, Planner.record

The peers differ in what :data:`METHODS` says.  ``mirror`` has the policy before as its reference and V = Σ_a π Q;
``greedy`` has V = max_a Q and breaks ties evenly.  The non-robust methods take ν = C·V(s'), which is not the dual at
ρ = 0.  We-DRIVE-U weights each sample with 1/σ̄², σ̄² = max(1, clip(φᵀz₂, 0, M²) - clip(φᵀz₁, 0, M)²) with z_j the
regression of V^j, plans only when a determinant has doubled, and never lets Q grow.

All that a later episode depends on is in :class:`State`; an episode's random numbers come from (seed, episode).  Next
states that are equal are pooled, so that cost does not grow with episodes where next states are few; the regression
stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from rlkit.agents.drrpo.dual import add_sample, nu_tv, refactor
from rlkit.algorithms.hyperparameters import AgentConfig
from rlkit.errors import ArtefactError, UserError

Array = NDArray[np.float64]
REFACTOR_EVERY = 1000  # updates after which Λ⁻¹ is computed anew
TIE = 1e-12  # actions this near the best are equally good to a greedy policy


@runtime_checkable
class Problem(Protocol):
    """What is known of an environment beforehand.  Its observations end with the step, from 0."""

    @property
    def horizon(self) -> int: ...  # H
    @property
    def num_actions(self) -> int: ...  # A
    @property
    def dim(self) -> int: ...  # d
    @property
    def reward_weights(self) -> Array: ...  # θ [H, d]
    @property
    def caps(self) -> Array: ...  # [H + 1] bounds of the value to go, the last 0
    @property
    def uncertain(self) -> NDArray[np.bool_]: ...  # [H, d] which factors may move

    def describe(self, observations: Array) -> tuple[Array, Array]:
        """φ [n, A, d] of observations [n, k], and Q [n, A] where it is known, NaN where it has to be learnt."""


class Method(NamedTuple):
    """What tells one of the methods from the others."""

    improvement: str  # fixed: a reference that stays; mirror: the policy before; greedy: no regularisation
    robust: bool  # the dual, or plain regression
    bonus: str = "sum"
    refresh: str = "episode"
    anneal: float = 0.0  # η grows as k to this power
    weighted: bool = False  # variance weights, and Q never above an earlier Q


METHODS = {
    "drrpo": Method("fixed", True),
    "drrpo-mirror": Method("mirror", True),
    "drrpo-annealed": Method("fixed", True, anneal=1.0),
    "dr-lsvi-ucb": Method("greedy", True),
    "we-drive-u": Method("greedy", True, refresh="doubling", weighted=True),
    "lsvi-ucb": Method("greedy", False, bonus="elliptic"),
    "oppo": Method("mirror", False, bonus="elliptic"),
}
BONUSES, REFRESHES, CAPS = ("sum", "diag2", "elliptic"), ("episode", "doubling"), ("remaining", "horizon", "tight")


@dataclass(frozen=True)
class DRRPOConfig(AgentConfig):
    """Raises :class:`UserError` for values out of range."""

    method: str = "drrpo"  # a key of METHODS
    rho: float = 0.5  # ρ, radius of total variation of the uncertain factors; larger: more cautious
    eta: float = 100.0  # η; larger: greedier, further from the reference; counts in units of 1/reward
    beta: float = 1.0  # β; larger: explores longer; too small: may stay with a first, wrong choice
    ridge: float | None = None  # λ; larger: bonus smaller and estimates nearer 0; None: 0.1, We-DRIVE-U 1/H²
    bonus: str | None = None  # sum, diag2 (smaller) or elliptic (smallest); None: the method's
    refresh: str | None = None  # episode, or doubling of a determinant: far fewer plans; None: the method's
    cap: str = "remaining"  # bound of Q: remaining steps; horizon: looser; tight: uses that ρ loses value
    known_rewards: bool = True  # False: rewards are estimated by ridge regression
    deploy_bonus: bool = False  # True: keep the optimism in the policy that is handed over
    pool: bool = True  # False: one row per sample instead of per distinct next state; slower, the same
    reference: Sequence[float] | None = None  # π_ref in every state, one probability per action; None: uniform

    POSITIVE: ClassVar[tuple[str, ...]] = ("eta",)
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ("beta",)
    UNIT: ClassVar[tuple[str, ...]] = ("rho",)
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {
        "method": METHODS,
        "bonus": BONUSES,
        "refresh": REFRESHES,
        "cap": CAPS,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("ridge", self.ridge is None or self.ridge > 0, "a number above 0")
        if self.reference is not None:
            object.__setattr__(self, "reference", tuple(float(p) for p in self.reference))
            check_reference(np.array(self.reference), "agent.reference")


def check_reference(probabilities: Array, what: str) -> None:
    """Raises :class:`UserError` unless the last axis of ``probabilities`` [..., A] is a policy with full support."""
    if not (probabilities > 0).all() or np.abs(probabilities.sum(axis=-1) - 1.0).max() > 1e-6:
        shown = np.round(np.atleast_2d(probabilities)[0], 6).tolist()
        raise UserError(f"{what}={shown} lacks full support, expected positive probabilities that sum to 1")


def check_features(phi: Float[np.ndarray, "n a d"], learnt: Bool[np.ndarray, "n a"]) -> None:
    """Raises :class:`UserError` unless φ [n, A, d] is a partition of unity wherever a value is learnt [n, A]."""
    rows = phi[learnt]  # [., d]
    if rows.size and rows.min() < 0:
        raise UserError(f"features: the smallest is {rows.min():.3g}, expected none below 0")
    sums = rows.sum(axis=-1)
    if rows.size and np.abs(sums - 1).max() > 1e-6:
        worst = sums[np.abs(sums - 1).argmax()]
        raise UserError(f"features: those of one action sum to {worst:.6g}, expected 1")


# ---- values ----------------------------------------------------------------------------------------------------------


def bonus(
    phi: Float[np.ndarray, "n a d"], spreads: Float[np.ndarray, "j d"] | Float[np.ndarray, "j d d"], kind: str
) -> Float[np.ndarray, "j n a"]:
    """Γ under J ``spreads``: β√diag Λ⁻¹, or for ``elliptic`` β²Λ⁻¹."""
    if kind == "sum":
        return (phi @ spreads.T).transpose(2, 0, 1)
    if kind == "diag2":
        return np.sqrt((phi**2 @ (spreads**2).T).transpose(2, 0, 1))
    square = (phi @ spreads[:, None] * phi).sum(axis=-1)  # [J, n, A]
    return np.sqrt(np.maximum(square, 0.0))


def softmax(logits: Float[np.ndarray, "*n a"]) -> Float[np.ndarray, "*n a"]:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def soft_value(
    q: Float[np.ndarray, "*n a"], log_reference: Float[np.ndarray, "*n a"], eta: float
) -> Float[np.ndarray, "*n"]:
    """V = (1/η) log Σ_a π_ref exp(ηQ); the reference enters before the shift that keeps the exponentials finite."""
    logits = eta * q + log_reference
    top = logits.max(axis=-1)
    return (top + np.log(np.exp(logits - top[..., None]).sum(axis=-1))) / eta


def greedy(q: Float[np.ndarray, "*n a"]) -> Float[np.ndarray, "*n a"]:
    """Equal probabilities for all best actions."""
    best = (q >= q.max(axis=-1, keepdims=True) - TIE).astype(np.float64)
    return best / best.sum(axis=-1, keepdims=True)


# ---- state -----------------------------------------------------------------------------------------------------------


ROWS = ("observations", "terminal", "phi", "known", "log_reference", "sums", "coefficients")  # arrays with m rows


@dataclass
class State:
    """Everything the next episode depends on.  H steps, d features, A actions, m rows of room, J plans.

    ``size[h]`` rows of step h are in use: the distinct next states seen there.
    """

    counters: NDArray[np.int64]  # [3] seed, episodes, plans
    gram: Array  # [H, d, d] Λ
    inverse: Array  # [H, d, d] Λ⁻¹
    log_det: Array  # [H] log det Λ
    planned_log_det: Array  # [H] the same at the last plan
    updates: NDArray[np.int64]  # [H] samples
    reward_sums: Array  # [H, d] Φᵀr
    size: NDArray[np.int64]  # [H]
    observations: Array  # [H, m, k] next states
    terminal: NDArray[np.bool_]  # [H, m] worth 0
    phi: Array  # [H, m, A, d]
    known: Array  # [H, m, A]
    log_reference: Array  # [H, m, A]
    sums: Array  # [H, m, d] G
    coefficients: Array  # [H, m, d] C
    weights: Array  # [J, H, d] w of the plans that make up the policy
    spreads: Array  # [J, H, d] or [J, H, d, d], see bonus
    gains: Array  # [J] η with which each plan enters the policy
    moments: Array  # [H, 2, d] regressions of V and V²

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays by name; :meth:`from_arrays` gives back an equal state."""
        return {f.name: getattr(self, f.name).copy() for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> State:
        return cls(**{f.name: np.array(arrays[f.name]) for f in fields(cls)})

    def require_sound(self, like: State) -> None:
        """Raise :class:`ArtefactError` unless the arrays are of one form, that of ``like``, with any m and J."""
        m, plans = self.terminal.shape[1:2], self.gains.shape[:1]
        for f in fields(self):
            given, own = getattr(self, f.name), getattr(like, f.name)
            shape = plans + own.shape[1:] if f.name in Policy._fields else own.shape
            if f.name in ROWS:
                shape = own.shape[:1] + m + (given.shape[2:] if f.name == "observations" else own.shape[2:])
            if given.shape != shape or given.dtype != own.dtype:
                raise ArtefactError(f"its '{f.name}' is {given.dtype} {list(given.shape)}, expected {list(shape)}")
        if not ((self.size >= 0) & (self.size <= m)).all():
            raise ArtefactError(f"its sizes {self.size.tolist()} are not within the {m[0]} rows of room")

    @property
    def episodes(self) -> int:
        return int(self.counters[1])

    @property
    def plans(self) -> int:
        return int(self.counters[2])

    @property
    def policy(self) -> Policy:
        """The policy of the last plan, optimism and all."""
        return Policy(self.weights, self.spreads, self.gains)


class Policy(NamedTuple):
    """The plans a policy is made of; see :meth:`Planner.probabilities`."""

    weights: Array  # [J, H, d]
    spreads: Array  # [J, H, d] or [J, H, d, d]
    gains: Array  # [J]


class Plan(NamedTuple):
    """What backward induction gives for one step of the horizon."""

    weights: Array  # [H, d]
    spreads: Array  # [H, d] or [H, d, d]
    moments: Array  # [H, 2, d]


class Step(NamedTuple):
    """One transition: step h, observation [k], action, reward, next observation [k], whether that one is worth 0."""

    h: int
    observation: Array
    action: int
    reward: float
    following: Array
    terminal: bool


# ---- the algorithm ---------------------------------------------------------------------------------------------------


class Planner:
    """The algorithm on one problem; it keeps nothing itself.

    Args:
        problem: what is known of the environment.
        config: see :class:`DRRPOConfig`.
        reference: π_ref, from observations [n, k] to probabilities [n, A], instead of ``config.reference``.

    Raises:
        UserError: when the configuration does not fit the problem.
    """

    def __init__(self, problem: Problem, config: DRRPOConfig, reference: Callable[[Array], Array] | None = None):
        self.problem, self.config, self.method = problem, config, METHODS[config.method]
        self.horizon, self.num_actions, self.dim = problem.horizon, problem.num_actions, problem.dim
        self.bonus = config.bonus or self.method.bonus
        self.refresh = config.refresh or self.method.refresh
        default = 1.0 / self.horizon**2 if self.method.weighted else 0.1
        self.ridge = default if config.ridge is None else config.ridge
        self.radii = config.rho * problem.uncertain.astype(np.float64)  # [H, d]
        if config.reference is not None and len(config.reference) != self.num_actions:
            raise UserError(f"agent.reference has {len(config.reference)} entries, expected {self.num_actions}")
        fixed = np.full(self.num_actions, 1.0 / self.num_actions)
        if config.reference is not None:
            fixed = np.array(config.reference)
        self._reference = reference or (lambda observations: np.tile(fixed, (len(observations), 1)))
        self.caps = self._caps()

    def _caps(self) -> Array:
        caps = np.array(self.problem.caps, np.float64)  # [H + 1]
        if self.config.cap == "horizon":
            caps[:-1] = caps[0]
        elif self.config.cap == "tight":
            steps = caps[:-1] - caps[1:]  # largest reward of each step
            if (steps[:-1] <= 0).any():
                raise UserError("agent.cap=tight needs rewards bounded step by step, expected remaining or horizon")
            for h in reversed(range(self.horizon)):
                caps[h] = steps[h] + (1 - self.radii[h].min()) * caps[h + 1]
        return caps

    def initial(self, seed: int) -> State:
        """No data, no plan."""
        steps, d, a = self.horizon, self.dim, self.num_actions
        shape = (0, steps, d, d) if self.bonus == "elliptic" else (0, steps, d)
        log_det = np.full(steps, d * np.log(self.ridge))
        return State(
            counters=np.array([seed, 0, 0]),
            gram=np.tile(self.ridge * np.eye(d), (steps, 1, 1)),
            inverse=np.tile(np.eye(d) / self.ridge, (steps, 1, 1)),
            log_det=log_det,
            planned_log_det=log_det.copy(),
            updates=np.zeros(steps, np.int64),
            reward_sums=np.zeros((steps, d)),
            size=np.zeros(steps, np.int64),
            observations=np.zeros((steps, 8, 0)),
            terminal=np.zeros((steps, 8), np.bool_),
            phi=np.zeros((steps, 8, a, d)),
            known=np.zeros((steps, 8, a)),
            log_reference=np.zeros((steps, 8, a)),
            sums=np.zeros((steps, 8, d)),
            coefficients=np.zeros((steps, 8, d)),
            weights=np.zeros((0, steps, d)),
            spreads=np.zeros(shape),
            gains=np.zeros(0),
            moments=np.zeros((steps, 2, d)),
        )

    # ---- one episode -------------------------------------------------------------------------------------------------

    def run_episode(self, state: State, env: Any) -> dict[str, float]:
        """Plan from what is known, play one episode of ``env`` (Gymnasium, single), learn from it.

        Changes ``state``; returns the episode's return and length, the mean bonus of what was done (it falls as the
        world becomes known), the planned value of the first state, and the number of plans.
        """
        self.improve(state)
        steps, metrics = self.play(state, env)
        self.record(state, steps)
        state.counters[1] += 1
        return metrics | {"plans": float(state.plans)}

    def improve(self, state: State) -> None:
        """Make the policy of the coming episode, if a new plan is due."""
        eta = self.eta(state.episodes + 1)
        doubled = (state.log_det >= state.planned_log_det + np.log(2.0)).any()
        if state.plans == 0 or self.refresh == "episode" or doubled:
            plan = self.plan(state)
            kept = slice(None) if self.method.improvement == "mirror" or self.method.weighted else slice(0)
            state.weights = np.concatenate([state.weights[kept], plan.weights[None]])
            state.spreads = np.concatenate([state.spreads[kept], plan.spreads[None]])
            state.gains = np.append(state.gains[kept], 0.0 if self.method.improvement == "mirror" else eta)
            state.moments = plan.moments
            state.planned_log_det = state.log_det.copy()
            state.counters[2] += 1
        if self.method.improvement == "mirror":
            state.gains[-1] += eta  # every episode is a step of mirror descent, with or without a new plan

    def eta(self, episode: int) -> float:
        """η of an episode, counted from 1."""
        return self.config.eta * float(episode) ** self.method.anneal

    def plan(self, state: State) -> Plan:
        """w, bonus and the regressions of V and V² from the data so far, last step first."""
        beta, shape = self.config.beta, (self.horizon, self.dim)
        if self.bonus == "elliptic":
            spreads = beta**2 * state.inverse  # [H, d, d]
        else:
            spreads = beta * np.sqrt(np.diagonal(state.inverse, axis1=1, axis2=2))  # [H, d]
        weights, moments = np.zeros(shape), np.zeros((self.horizon, 2, self.dim))
        for h in reversed(range(self.horizon)):
            estimated = state.inverse[h] @ state.reward_sums[h]  # [d]
            weights[h] = self.problem.reward_weights[h] if self.config.known_rewards else estimated
            if h == self.horizon - 1:
                continue  # nothing follows
            values = self._next_values(state, h, weights[h + 1], spreads[h + 1])  # [n]
            coefficients = state.coefficients[h, : state.size[h]].T  # [d, n]
            moments[h] = coefficients @ values, coefficients @ values**2
            weights[h] += nu_tv(coefficients, values, self.radii[h])[0] if self.method.robust else moments[h, 0]
        return Plan(weights, spreads, moments)

    def _next_values(self, state: State, h: int, weights: Array, spread: Array) -> Array:
        """V_{h+1} [n] at the next states seen from step h, with w ``weights`` and bonus ``spread`` of step h + 1."""
        rows = slice(state.size[h])
        phi, known, log_reference = (x[h, rows] for x in (state.phi, state.known, state.log_reference))
        q = self.q_values(h + 1, phi, known, weights[None], spread[None])[0]  # [n, A]
        match self.method.improvement:
            case "fixed":
                found = soft_value(q, log_reference, self.eta(state.episodes + 1))
            case "mirror":
                found = (self._probabilities(state.policy, h + 1, phi, known, log_reference) * q).sum(axis=-1)
            case _:
                if self.method.weighted and len(state.gains):
                    before = self.q_values(h + 1, phi, known, state.weights[:, h + 1], state.spreads[:, h + 1])
                    q = np.minimum(q, before.min(axis=0))
                found = q.max(axis=-1)
        return np.where(state.terminal[h, rows], 0.0, found)

    def play(self, state: State, env: Any) -> tuple[list[Step], dict[str, float]]:
        """Roll out the current policy for one episode of ``env``; changes nothing in ``state``."""
        sequence = np.random.SeedSequence([int(state.counters[0]), state.episodes])
        rng = np.random.Generator(np.random.PCG64(sequence))
        seen, _ = env.reset(seed=int(rng.integers(2**31)))
        steps: list[Step] = []
        bonuses, value, ended = [], 0.0, False
        while not ended:
            observation = np.asarray(seen, np.float64)  # [k]
            h = int(observation[-1])
            phi, known = self.describe(observation[None])
            log_reference = self.log_reference(observation[None])
            probabilities = self._probabilities(state.policy, h, phi, known, log_reference)[0]  # [A]
            action = min(int(np.searchsorted(np.cumsum(probabilities), rng.random(), "right")), self.num_actions - 1)
            if not steps:
                q = self.q_values(h, phi, known, state.weights[-1:, h], state.spreads[-1:, h])[0, 0]  # [A]
                value = float(probabilities @ q)
            bonuses.append(float(bonus(phi[:, action, None], state.spreads[-1:, h], self.bonus).sum()))
            seen, reward, terminated, truncated, _ = env.step(action)
            steps.append(Step(h, observation, action, float(reward), np.asarray(seen, np.float64), bool(terminated)))
            ended = terminated or truncated
        total = sum(step.reward for step in steps)
        return steps, {"return": total, "length": float(len(steps)), "bonus": float(np.mean(bonuses)), "value": value}

    def record(self, state: State, steps: Sequence[Step]) -> None:
        """Learn from transitions.  An action whose value is known teaches nothing about the others and is left out."""
        for step in steps:
            phi, known = self.describe(step.observation[None])
            if np.isnan(known[0, step.action]):
                feature = phi[0, step.action]  # [d]
                weight = self.sample_weight(state, step.h, feature)
                self.observe(state, step.h, feature, step.reward, step.following, step.terminal, weight)

    def sample_weight(self, state: State, h: int, feature: Array) -> float:
        """1/σ̄² of a sample with φ ``feature`` [d]; 1 for the methods that do not weight."""
        if not self.method.weighted:
            return 1.0
        most, (first, second) = self.caps[h + 1], state.moments[h] @ feature
        variance = np.clip(second, 0.0, most**2) - np.clip(first, 0.0, most) ** 2
        return 1.0 / max(1.0, float(variance))

    def observe(
        self,
        state: State,
        h: int,
        feature: Array,
        reward: float,
        following: Array,
        terminal: bool,
        weight: float = 1.0,
    ) -> None:
        """Add one sample of step ``h``; a whole ``weight`` w stands for w equal samples."""
        row = self._row(state, h, following, terminal or h == self.horizon - 1)
        used = slice(state.size[h])
        state.reward_sums[h] += weight * reward * feature
        state.log_det[h] += add_sample(
            *(state.gram[h], state.inverse[h], state.sums[h, used], state.coefficients[h, used]),
            *(feature, float(weight), row),
        )
        state.updates[h] += 1
        if state.updates[h] % REFACTOR_EVERY == 0:
            fresh = refactor(state.gram[h], state.sums[h, used])
            state.inverse[h], state.coefficients[h, used], state.log_det[h] = fresh

    def _row(self, state: State, h: int, following: Array, terminal: bool) -> int:
        """Number of the row that stands for this next state, made if there is none."""
        n = int(state.size[h])
        if state.observations.shape[2] != len(following):
            state.observations = np.zeros((*state.terminal.shape, len(following)))
        if self.config.pool:
            same = (state.observations[h, :n] == following).all(axis=1) & ~state.terminal[h, :n]
            found = np.flatnonzero(state.terminal[h, :n] if terminal else same)
            if len(found):
                return int(found[0])
        if n == state.terminal.shape[1]:
            for name in ("observations", "terminal", "phi", "known", "log_reference", "sums", "coefficients"):
                rows = getattr(state, name)
                setattr(state, name, np.concatenate([rows, np.zeros_like(rows)], axis=1))
        state.size[h] = n + 1
        state.terminal[h, n] = terminal
        if not terminal:
            phi, known = self.describe(following[None])
            state.observations[h, n], state.phi[h, n], state.known[h, n] = following, phi[0], known[0]
            state.log_reference[h, n] = self.log_reference(following[None])[0]
        return n

    # ---- the policy --------------------------------------------------------------------------------------------------

    def describe(self, observations: Array) -> tuple[Array, Array]:
        """The problem's φ [n, A, d] and known values [n, A], checked; raises :class:`UserError`."""
        phi, known = self.problem.describe(observations)
        check_features(phi, np.isnan(known))
        return phi, known

    def log_reference(self, observations: Array) -> Array:
        """log π_ref [n, A]; raises :class:`UserError` where its support is not full."""
        probabilities = np.asarray(self._reference(observations), np.float64)
        check_reference(probabilities, "reference policy")
        return np.log(probabilities)

    def q_values(
        self,
        h: int,
        phi: Float[np.ndarray, "n a d"],
        known: Float[np.ndarray, "n a"],
        weights: Float[np.ndarray, "j d"],
        spreads: Float[np.ndarray, "j d"] | Float[np.ndarray, "j d d"],
    ) -> Float[np.ndarray, "j n a"]:
        """Q_h of J plans: clip(φᵀw + Γ, 0, M_h), or the value that is known."""
        linear = (phi @ weights.T).transpose(2, 0, 1)  # [J, n, A]
        learnt = np.minimum(np.maximum(linear + bonus(phi, spreads, self.bonus), 0.0), self.caps[h])
        return np.where(np.isnan(known), learnt, known)

    def _probabilities(self, policy: Policy, h: int, phi: Array, known: Array, log_reference: Array) -> Array:
        """π_h [n, A]; before the first plan it is the reference."""
        if not len(policy.gains):
            return np.exp(log_reference)
        q = self.q_values(h, phi, known, policy.weights[:, h], policy.spreads[:, h])  # [J, n, A]
        if self.method.improvement == "greedy":
            return greedy(q.min(axis=0))
        return softmax(np.einsum("j,jna->na", policy.gains, q) + log_reference)

    def deployed(self, state: State) -> Policy:
        """The policy to hand over: planned from all data, acting without its bonus unless ``deploy_bonus``.

        Mirror descent hands over its last policy, bonuses and all: early plans without them would only be wrong.
        """
        if self.config.deploy_bonus or self.method.improvement == "mirror" or state.plans == 0:
            return state.policy
        plan = self.plan(state)
        return Policy(plan.weights[None], np.zeros_like(plan.spreads[None]), np.array([self.eta(state.episodes + 1)]))

    def probabilities(self, policy: Policy, observations: Array, deterministic: bool = False) -> Array:
        """π [n, A] at observations [n, k], each at the step that it ends with; ``deterministic``: only its best."""
        observations = np.asarray(observations, np.float64)
        found = np.empty((len(observations), self.num_actions))
        steps = observations[:, -1].astype(np.int64)
        for h in np.unique(steps):
            rows = observations[steps == h]
            phi, known = self.describe(rows)
            found[steps == h] = self._probabilities(policy, int(h), phi, known, self.log_reference(rows))
        return greedy(found) if deterministic else found
