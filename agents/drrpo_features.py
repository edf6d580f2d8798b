"""DR-RPO with features of continuous observations: an EXTENSION that is in no paper and claims only what is measured.

The episodic linear algorithm of ``agents/drrpo/core.py``, carried over to discounted problems with observations in a
box and discrete actions.  Features are a partition of unity ψ over observations, by default normalised radial bumps
around observations that were seen, crossed with the action: φ(s, a) = ψ(s) ⊗ e_a.  Random cosine features would not do:
the dual needs φ ≥ 0 and Σφ = 1.  Every few episodes, over all transitions that are stored, ``backups`` times

    V(s') = (1/η) log Σ_a π_ref exp(ηQ(s', a)), 0 at terminations, not at time limits    FeaturePlanner.values
    ν_{i,a} = max over α of Σ_τ C_{a,iτ} min(V(s'_τ), α) - ρ α,  C_a = Λ_a⁻¹Ψ_aᵀ         drrpo.dual.nu_tv
    w_a = Λ_a⁻¹Ψ_aᵀr + γ min(ν_a, C_a V)                                                 FeaturePlanner.refit
    Q = clip(ψᵀw_a + β Σ_i ψ_i √(Λ_a⁻¹)_ii, 0, M)                                        FeaturePlanner.q_values

The minimum is a deviation: with coefficients of both signs the dual can exceed the regression it should lie below, and
at small ρ that optimism is larger than the caution.  A termination is worth 0 and nothing may be worth less, so rewards
must not be negative.  M = r_max/(1 - γ) with the largest reward seen.

Critics that are networks are not built: this is the variant in which every step is the exact linear one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from rlkit.agents.drrpo.core import check_features, check_reference, greedy, soft_value, softmax
from rlkit.agents.drrpo.drrpo import DRRPO
from rlkit.agents.drrpo.dual import nu_tv
from rlkit.algorithms.hyperparameters import AgentConfig, RunDefaults
from rlkit.errors import ArtefactError, UserError
from rlkit.registry import register

Self = TypeVar("Self", bound="FeatureDRRPO")
Array = NDArray[np.float64]
Map = Callable[[Array], Array]
REFERENCES = ("uniform", "average")


@dataclass(frozen=True)
class FeatureConfig(AgentConfig):
    """Raises :class:`UserError` for values out of range."""

    rho: float = 0.002  # ρ, radius of total variation of every factor, at every step; larger: more cautious, 0: not
    eta: float = 100.0  # η; larger: greedier, further from the reference; counts in units of 1/reward
    beta: float = 0.1  # β; larger: explores longer
    discount: float = 0.99  # γ; larger: longer horizon, slower to settle
    ridge: float = 0.1  # λ; larger: estimates nearer 0, smaller bonus
    reference: str = "average"  # π_ref: average: softmax of an average of the weights so far; or uniform
    polyak: float = 0.1  # how far the average moves at each refit
    centres: int = 100  # bumps; more: finer, slower, fewer samples of each
    width: float = 1.0  # of a bump, in units of the distance to its nearest centres; larger: smoother
    warmup: int = 10  # first episodes, played by the reference
    refit_every: int = 5  # episodes between refits; larger: faster, older policies
    backups: int = 30  # per refit; more: nearer the fixed point
    capacity: int = 20_000  # transitions kept, the oldest leave first

    POSITIVE: ClassVar[tuple[str, ...]] = (
        *("eta", "ridge", "centres", "width", "warmup", "refit_every", "backups", "capacity"),
    )
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ("beta",)
    UNIT: ClassVar[tuple[str, ...]] = ("rho", "polyak")
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {"reference": REFERENCES}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("discount", 0 <= self.discount < 1, "a number from 0 to below 1")


class FeaturePolicy(NamedTuple):
    """A policy and all it needs: ψ's centres and scales (unless ψ was given), w, bonus and the reference's w."""

    centres: Array  # [m, k]
    scale: Array  # [k] units of the observation
    widths: Array  # [m] of the bumps, in those units
    weights: Array  # [A, m] w
    spreads: Array  # [A, m] β√diag Λ⁻¹
    average: Array  # [A, m]
    cap: Array  # [1] M

    def require_sound(self, size: int, num_actions: int) -> None:
        """Raise :class:`ArtefactError` unless the arrays fit ``size`` numbers per observation, and each other."""
        m = self.weights.shape[-1] if self.weights.ndim == 2 else -1
        bumps = m if len(self.centres) else 0  # none where ψ was given
        rows = (num_actions, m)
        for name, shape in zip(self._fields, ((bumps, size), (size,), (bumps,), rows, rows, rows, (1,)), strict=True):
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float64:
                raise ArtefactError(
                    f"its policy's '{name}' is {array.dtype} {list(array.shape)}, expected {list(shape)}"
                )


@dataclass
class FeatureState:
    """Everything the next episode depends on.  N transitions of room, k numbers per observation."""

    counters: NDArray[np.int64]  # [4] seed, episodes, transitions so far, transitions when centres were chosen
    observations: Array  # [N, k]
    actions: NDArray[np.int64]  # [N]
    rewards: Array  # [N]
    following: Array  # [N, k]
    terminal: NDArray[np.bool_]  # [N]
    centres: Array
    scale: Array
    widths: Array
    weights: Array
    spreads: Array
    average: Array
    cap: Array

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays by name; :meth:`from_arrays` gives back an equal state."""
        return {f.name: getattr(self, f.name).copy() for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FeatureState:
        return cls(**{f.name: np.array(arrays[f.name]) for f in fields(cls)})

    @property
    def policy(self) -> FeaturePolicy:
        return FeaturePolicy(*(getattr(self, name) for name in FeaturePolicy._fields))


def radial_features(
    observations: Float[np.ndarray, "n k"],
    centres: Float[np.ndarray, "m k"],
    scale: Float[np.ndarray, " k"],
    widths: Float[np.ndarray, " m"],
) -> Float[np.ndarray, "n m"]:
    """ψ: Gaussian bumps divided by their sum; far from all centres the nearest ones share."""
    points, middles = observations / scale, centres / scale
    squares = (points**2).sum(axis=1)[:, None] - 2 * points @ middles.T + (middles**2).sum(axis=1)  # [n, m]
    return softmax(-0.5 * np.maximum(squares, 0.0) / widths**2)


def choose_centres(points: Array, count: int, rng: np.random.Generator) -> Array:
    """[m, k] of ``points`` [n, k], each farthest from those before it, m at most ``count``."""
    chosen = [int(rng.integers(len(points)))]
    distance = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[chosen]


class FeaturePlanner:
    """The algorithm; it keeps nothing itself.

    Args:
        size: numbers per observation.
        num_actions: A.
        config: see :class:`FeatureConfig`.
        ref_policy: π_ref from observations [n, k] to probabilities [n, A], instead of ``config.reference``.
        feature_map: ψ from observations [n, k] to [n, m], instead of bumps.
    """

    def __init__(
        self,
        size: int,
        num_actions: int,
        config: FeatureConfig,
        ref_policy: Map | None = None,
        feature_map: Map | None = None,
    ):
        self.size, self.num_actions, self.config = size, num_actions, config
        self.ref_policy, self.feature_map = ref_policy, feature_map

    def initial(self, seed: int) -> FeatureState:
        """No data; the policy is the reference."""
        n, k, m = self.config.capacity, self.size, 1
        if self.feature_map is not None:
            m = np.asarray(self.feature_map(np.zeros((1, k)))).shape[1]
        centres = 1 if self.feature_map is None else 0
        nothing = np.zeros((self.num_actions, m))
        return FeatureState(
            counters=np.array([seed, 0, 0, 0]),
            observations=np.zeros((n, k)),
            actions=np.zeros(n, np.int64),
            rewards=np.zeros(n),
            following=np.zeros((n, k)),
            terminal=np.zeros(n, np.bool_),
            centres=np.zeros((centres, k)),
            scale=np.ones(k),
            widths=np.ones(centres),
            weights=nothing.copy(),
            spreads=nothing.copy(),
            average=nothing.copy(),
            cap=np.ones(1),
        )

    # ---- the policy --------------------------------------------------------------------------------------------------

    def features(self, policy: FeaturePolicy, observations: Array) -> Array:
        """ψ [n, m]; raises :class:`UserError` unless a given map is a partition of unity."""
        if self.feature_map is None:
            if not len(policy.centres):
                raise UserError("this policy was trained with a feature map of its own, expected feature_map=")
            return radial_features(observations, policy.centres, policy.scale, policy.widths)
        psi = np.asarray(self.feature_map(observations), np.float64)
        check_features(psi[:, None], np.ones((len(psi), 1), np.bool_))
        return psi

    def q_values(self, policy: FeaturePolicy, psi: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n a"]:
        """Q at ψ, bonus and all."""
        return np.minimum(np.maximum(psi @ (policy.weights + policy.spreads).T, 0.0), policy.cap)

    def log_reference(self, policy: FeaturePolicy, observations: Array, psi: Array) -> Array:
        """log π_ref [n, A]; raises :class:`UserError` where its support is not full."""
        if self.ref_policy is not None:
            probabilities = np.asarray(self.ref_policy(observations), np.float64)
            check_reference(probabilities, "reference policy")
            return np.log(probabilities)
        logits = self.config.eta * psi @ policy.average.T  # [n, A], zeros for a uniform reference
        top = logits.max(axis=1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))

    def deployed(self, state: FeatureState) -> FeaturePolicy:
        """The policy to hand over: as it stands, acting without its bonus."""
        arrays = {name: value.copy() for name, value in state.policy._asdict().items()}
        return FeaturePolicy(**{**arrays, "spreads": np.zeros_like(state.spreads)})

    def probabilities(self, policy: FeaturePolicy, observations: Array, deterministic: bool = False) -> Array:
        """π ∝ π_ref exp(ηQ) [n, A] at observations [n, k]; ``deterministic``: only its best action."""
        observations = np.asarray(observations, np.float64)
        psi = self.features(policy, observations)
        logits = self.config.eta * self.q_values(policy, psi) + self.log_reference(policy, observations, psi)
        return greedy(logits) if deterministic else softmax(logits)

    # ---- learning ----------------------------------------------------------------------------------------------------

    def run_episode(self, state: FeatureState, env: Any) -> dict[str, float]:
        """Play one episode of ``env`` (Gymnasium, single) and, when it is time, fit anew; changes ``state``.

        Returns the episode's return and length, the mean bonus of what was done, and the mean of w.
        """
        seed, episode = int(state.counters[0]), int(state.counters[1])
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, episode])))
        seen, _ = env.reset(seed=int(rng.integers(2**31)))
        policy, total, length, bonuses, ended = state.policy, 0.0, 0, 0.0, False
        while not ended:
            observation = np.asarray(seen, np.float64)
            probabilities = self.probabilities(policy, observation[None])[0]  # [A]
            action = min(int(np.searchsorted(np.cumsum(probabilities), rng.random(), "right")), self.num_actions - 1)
            bonuses += float(self.features(policy, observation[None])[0] @ policy.spreads[action])
            seen, reward, terminated, truncated, _ = env.step(action)
            self.record(state, observation, action, float(reward), np.asarray(seen, np.float64), bool(terminated))
            total, length, ended = total + float(reward), length + 1, terminated or truncated
        state.counters[1] += 1
        done = episode + 1
        if done >= self.config.warmup and (done - self.config.warmup) % self.config.refit_every == 0:
            self.refit(state, rng)
        mean = float(state.weights.mean())
        return {"return": total, "length": float(length), "bonus": bonuses / length, "weights": mean}

    def record(
        self, state: FeatureState, observation: Array, action: int, reward: float, following: Array, terminal: bool
    ) -> None:
        """Store one transition; raises :class:`UserError` for a negative reward."""
        if reward < 0:
            raise UserError(f"reward {reward:.4g} is below 0, expected none: a termination must be the worst there is")
        row = int(state.counters[2]) % self.config.capacity
        state.observations[row], state.actions[row], state.rewards[row] = observation, action, reward
        state.following[row], state.terminal[row] = following, terminal
        state.counters[2] += 1

    def refit(self, state: FeatureState, rng: np.random.Generator) -> None:
        """New w from all stored transitions; new centres whenever their number has doubled."""
        config = self.config
        count = min(int(state.counters[2]), config.capacity)
        now, later, terminal = state.observations[:count], state.following[:count], state.terminal[:count]
        actions, rewards = state.actions[:count], state.rewards[:count]
        values = self.values(state.policy, later, terminal, self.features(state.policy, later))  # of the policy before
        if self.feature_map is None and state.counters[2] >= 2 * state.counters[3]:
            self._place(state, now, rng)
            state.counters[3] = state.counters[2]
        psi, psi_later = self.features(state.policy, now), self.features(state.policy, later)  # [N, m]
        m = psi.shape[1]
        state.cap = np.array([max(float(rewards.max()), 1e-8) / (1 - config.discount)])
        state.spreads = np.full((self.num_actions, m), config.beta / np.sqrt(config.ridge))  # of an untried action
        direct, regressions = np.zeros((self.num_actions, m)), []
        for a in range(self.num_actions):
            mine = actions == a  # [N]
            inverse = np.linalg.inv(config.ridge * np.eye(m) + psi[mine].T @ psi[mine])
            coefficients = inverse @ psi[mine].T  # C_a [m, n_a]
            regressions.append((mine, coefficients))
            direct[a] = coefficients @ rewards[mine]
            state.spreads[a] = config.beta * np.sqrt(np.diag(inverse))
        radii = np.full(m, config.rho)
        for _ in range(config.backups):
            plain = np.stack([c @ values[mine] for mine, c in regressions])  # [A, m]
            robust = np.stack([nu_tv(c, values[mine], radii)[0] for mine, c in regressions]) if config.rho else plain
            state.weights = direct + config.discount * np.minimum(robust, plain)
            values = self.values(state.policy, later, terminal, psi_later)
        if config.reference == "average":
            state.average = state.average + config.polyak * (state.weights - state.average)

    def values(
        self,
        policy: FeaturePolicy,
        observations: Float[np.ndarray, "n k"],
        terminal: Bool[np.ndarray, " n"],
        psi: Float[np.ndarray, "n m"],
    ) -> Float[np.ndarray, " n"]:
        """Soft V at observations with features ψ, 0 where terminal."""
        reference = self.log_reference(policy, observations, psi)
        return np.where(
            terminal, 0.0, np.maximum(soft_value(self.q_values(policy, psi), reference, self.config.eta), 0)
        )

    def _place(self, state: FeatureState, observations: Array, rng: np.random.Generator) -> None:
        """Spread the centres over what was seen and carry w over to them, by its value there."""
        scale = np.maximum(observations.std(axis=0), 1e-6)
        centres = choose_centres(observations / scale, self.config.centres, rng)
        distances = np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(axis=-1))  # [m, m]
        near = np.sort(distances, axis=1)[:, 1 : self.size + 1]  # as many neighbours as dimensions
        widths = self.config.width * near.mean(axis=1) if near.size else np.ones(len(centres))
        carried = self.features(state.policy, centres * scale).T  # [m before, m]
        state.average, state.weights = state.average @ carried, state.weights @ carried
        state.centres, state.scale, state.widths = centres * scale, scale, np.maximum(widths, 1e-6)


@register("drrpo-features")
class FeatureDRRPO(DRRPO):
    """DR-RPO over features of its own, or a map that is given.

    Args:
        policy: ``"MlpPolicy"``, the only one.
        env: a record's name, a Gymnasium id, or an environment with flat observations and discrete actions.
        seed: decides every episode.
        ref_policy: π_ref as a function of observations [n, k] to probabilities [n, A], instead of ``reference``.
        feature_map: ψ as a function of observations [n, k] to [n, m], instead of bumps.

    Artefacts hold arrays only; an agent made with functions has to be loaded with the same ones.
    """

    Config: ClassVar[type[AgentConfig]] = FeatureConfig
    defaults: ClassVar[RunDefaults] = RunDefaults(
        unit="episodes", total_timesteps=150, log_every=10, eval_every=10, checkpoint_every=30, judged="sampled"
    )
    ref_policy: Map | None = None
    feature_map: Map | None = None

    def __init__(
        self,
        policy: str | None = None,
        env: Any = None,
        *,
        ref_policy: Map | None = None,
        feature_map: Map | None = None,
        **options: Any,
    ):
        self.ref_policy, self.feature_map = ref_policy, feature_map
        super().__init__(policy, env, **options)

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        super().check_spaces(observation_space, action_space)
        if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 1:
            raise UserError(f"{self.name} needs a one-dimensional Box observation space, got {observation_space}")

    @property
    def has_learnt(self) -> bool:
        return self.num_timesteps >= self.config.warmup

    def shortfall(self, total_timesteps: int) -> str | None:
        if total_timesteps >= self.config.warmup:
            return None
        few = f"total_timesteps={total_timesteps} ends before learning begins (agent.warmup={self.config.warmup})"
        return f"{few}: what is evaluated is the untrained policy"

    def counts(self) -> dict[str, int]:
        state: Any = self.state
        return {**super().counts(), "steps": int(state.counters[2])}

    def make_planner(self) -> Any:
        return FeaturePlanner(*self._sizes(), self.config, self.ref_policy, self.feature_map)

    def _sizes(self) -> tuple[int, int]:
        return self.observation_space.shape[0], int(self.action_space.n)  # type: ignore[index,attr-defined]

    def _deploy(self) -> Any:
        if self.policy.plans is None:
            planner: Any = self.planner
            self.policy.plans = planner.deployed(self.state)
        return self.policy.plans

    def load_model(self, tensors: Mapping[str, Tensor]) -> None:
        plans: Any = FeaturePolicy(*(tensors[f"deployed.{name}"].numpy() for name in FeaturePolicy._fields))
        plans.require_sound(*self._sizes())
        self.policy.plans = plans

    def read_state(self, arrays: dict[str, np.ndarray]) -> Any:
        state: Any = FeatureState.from_arrays(arrays)
        state.policy.require_sound(*self._sizes())
        for name in ("counters", "observations", "actions", "rewards", "following", "terminal"):
            own, given = getattr(self.state, name), getattr(state, name)
            if own.shape != given.shape or own.dtype != given.dtype:
                raise ArtefactError(f"its '{name}' is {given.dtype} {list(given.shape)}, expected {list(own.shape)}")
        return state

    @classmethod
    def load(  # type: ignore[override]
        cls: type[Self],
        path: Any,
        env: Any = None,
        *,
        ref_policy: Map | None = None,
        feature_map: Map | None = None,
        **options: Any,
    ) -> Self:
        """Rebuild an agent; functions it was made with are given again.  Raises as :meth:`DRRPO.load`."""
        agent = super().load(path, env, **options)
        agent.ref_policy, agent.feature_map = ref_policy, feature_map
        planner: Any = agent.planner
        planner.ref_policy, planner.feature_map = ref_policy, feature_map
        return agent
