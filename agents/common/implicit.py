"""The implicit-value learner: IQL, XQL, SQL and f-DVL are this one with another divergence.

No action outside the data is ever valued: V(s) stands for the best recorded action, and how optimistically is what the
divergence, λ and α say.  Per update, on one batch of transitions (s, a, r, s'):

    q = min(Q̄₁, Q̄₂)(s, a),  δ = q - V(s)                                        advantage
    L_V = mean α [λ φ(δ/α) - (1 - λ) δ/α]                                        divergence.value_loss
    w = min(exp(κ δ), 100) with the new V                                        policy_weight
    L_π = -mean w log π(a|s)                                                     actor_loss
    y = r + γ (1 - terminal) V(s') with the new V                                ImplicitValue.critic_target
    L_Q = mean h(Q₁(s, a) - y) + mean h(Q₂(s, a) - y),  h Huber or square        critic_loss
    then Q̄ moves towards Q by τ                                                  Polyak

Three scales, three names: λ `lam` (larger: V nearer the best action), α `temperature` (larger: nearer the mean; XQL's
β), κ `inverse_temperature` (larger: the policy greedier).  α cancels for `tv`.  All three mean something only at one
scale of rewards, hence `reward_scaling`.

The policy is a diagonal Normal around a tanh mean, with one standard deviation for all states; it is evaluated at its
mean.  Where actions are discrete it is categorical, evaluated at its most probable action, and Q takes an action as one
column for each, 1 in the chosen.

Deviations from the authors' code: V's dropout on antmaze is left out (there it is never active), V's optional smoothing
covers uniform actions and not Gaussian noise, and L_V keeps the factor ½ α that XQL's and SQL's code divide by.  Adam
divides a gradient by its own size, so that such a factor shows only beside its ε of 1e-8.  Presets say where their
values are from.  Observations are not normalised, as in all four codes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import huber_loss, mse_loss

from rlkit.agents.common.categorical import CategoricalActor, CategoricalPolicy
from rlkit.agents.common.divergence import DIVERGENCES, Divergence, value_loss
from rlkit.agents.common.gaussian import GaussianActor, GaussianPolicy, actor_loss, network
from rlkit.algorithms.action_units import action_width
from rlkit.algorithms.nets import Adam, Critics, Polyak, freeze
from rlkit.algorithms.noise import uniform
from rlkit.algorithms.offline import OfflineAlgorithm, OfflineConfig
from rlkit.algorithms.replay import Batch
from rlkit.errors import UserError

WEIGHTS = ("exp", "ratio", "relu")
SCALINGS = ("none", "return_range")


@dataclass(frozen=True)
class ImplicitConfig(OfflineConfig):
    """λ, ``lam``, says which statistic of Q over the data's actions V becomes, and is a preset per family of data:

    - ``tv``: the quantile of level 2 - 1/λ, so 0.6 is a third, 2/3 the median, 0.8 three quarters; λ ≤ ½ is refused
    - ``expectile``: the λ-expectile, IQL's τ
    - ``kl``, ``chi2_exact``: ½ is the regularised optimum (weights w of mean 1); more is more optimistic
    - ``chi2_monotone``, ``chi2_paper``: E φ'(δ/α) = (1 - λ)/λ, which depends on how far values spread beside α: a λ
      found at one scale of rewards is worth nothing at another
    """

    normalise_observations: bool = False
    divergence: str = "chi2_monotone"  # kl, chi2_exact, chi2_monotone, chi2_paper, tv or expectile
    lam: float | None = None  # λ, see above; larger: V nearer the best recorded action, less certain
    temperature: float = 1.0  # α in units of value; kl and chi2_exact at λ = ½: larger, V nearer the mean (docs)
    inverse_temperature: float = 3.0  # κ; larger: the policy keeps to the best actions, of fewer samples
    actor_weight: str = "exp"  # exp: e^(κδ); ratio: the divergence's w(δ/α); relu: max(δ, 0)
    weight_clip: float = 100.0  # largest weight of one sample
    value_clip: float = 0.0  # bound on δ/α in the value loss; smaller: steadier, V biased low; 0: none
    rescale: bool = False  # kl: divide the value loss by the batch's largest e^(δ/α), which else overflows
    value_updates: int = 1  # value steps per update, on the same batch
    uniform_actions: bool = False  # V over the data's actions and as many uniform ones: lower, smoother
    huber: float = 20.0  # errors of Q beyond count linearly; 0: squared error throughout
    discount: float = 0.99  # larger: longer horizon, noisier targets
    polyak: float = 0.005  # how far the target critics move at each update
    value_layer_norm: bool = True  # layer normalisation in V: slower, smoother
    critic_layer_norm: bool = False  # the same in Q
    actor_dropout: float = 0.0  # share of the actor's hidden units dropped in training
    decay_steps: int = 1_000_000  # updates in which the actor's learning rate falls to 0 as a cosine; 0: constant
    reward_scaling: str = "none"  # return_range: rewards x 1000 / (largest - smallest return of an episode)

    POSITIVE: ClassVar[tuple[str, ...]] = (
        *OfflineConfig.POSITIVE,
        *("temperature", "inverse_temperature", "weight_clip", "value_updates"),
    )
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ("value_clip", "huber", "decay_steps")
    UNIT: ClassVar[tuple[str, ...]] = ("discount", "polyak", "actor_dropout")
    VARYING: ClassVar[tuple[str, ...]] = (
        *OfflineConfig.VARYING,
        *("lam", "temperature", "inverse_temperature", "weight_clip"),
        *("discount", "polyak", "decay_steps", "reward_scaling"),
    )
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {
        "divergence": DIVERGENCES,
        "actor_weight": WEIGHTS,
        "reward_scaling": SCALINGS,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = DIVERGENCES[self.divergence]
        if isinstance(self.lam, bool) or not isinstance(self.lam, (int, float)):
            what = " is missing and no preset gives it" if self.lam is None else f"={self.lam!r} is not a number"
            raise UserError(f"agent.lam{what}, expected {kind.lam_error(math.nan)}")
        error = kind.lam_error(self.lam)
        self._require("lam", error is None, error or "")
        self._require("rescale", not self.rescale or kind.name == "kl", "false: only divergence 'kl' is rescaled")
        self._require("actor_dropout", self.actor_dropout < 1, "a number below 1")
        ratio = self.actor_weight != "ratio" or kind.ratio is not None
        self._require("actor_weight", ratio, f"exp or relu: divergence '{kind.name}' has no ratio")


def advantage(q: Float[Tensor, "batch 1"], v: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch 1"]:
    """δ; shapes that would broadcast to [batch, batch] are refused even where nothing else checks them."""
    if q.shape != v.shape:
        raise ValueError(f"advantage of Q {tuple(q.shape)} over V {tuple(v.shape)}: expected equal shapes")
    return q - v


def policy_weight(
    delta: Float[Tensor, "batch 1"], cfg: ImplicitConfig, divergence: Divergence
) -> Float[Tensor, "batch 1"]:
    """w, at most ``weight_clip``."""
    if cfg.actor_weight == "relu":
        weight = delta.relu()
    elif cfg.actor_weight == "ratio" and divergence.ratio is not None:
        weight = divergence.ratio(delta / cfg.temperature)
    else:
        weight = (cfg.inverse_temperature * delta).exp()
    return weight.clamp(max=cfg.weight_clip)


def critic_loss(critic: Critics, batch: Batch, target: Float[Tensor, "batch 1"], huber: float) -> Float[Tensor, ""]:
    """L_Q, summed over the two critics; Huber's square has a factor ½, the plain one has none, as in the codes."""
    q1, q2 = critic(batch.observations, batch.actions)  # 2 x [batch, 1]
    if huber > 0:
        return huber_loss(q1, target, delta=huber) + huber_loss(q2, target, delta=huber)
    return mse_loss(q1, target) + mse_loss(q2, target)


class ImplicitValue(OfflineAlgorithm):
    """Base of the presets.  A descendant may replace :meth:`value_step`, :meth:`critic_target` and more."""

    Config: ClassVar[type[OfflineConfig]] = ImplicitConfig
    objective: ClassVar[str] = "critic_loss"
    takes_discrete: ClassVar[bool] = True
    fine_tunes: ClassVar[bool] = True
    reward_factor = 1.0
    policy: GaussianPolicy | CategoricalPolicy

    def build(self, obs_dim: int, action_space: spaces.Box | spaces.Discrete, generator: torch.Generator) -> None:
        cfg, da = self.config, action_width(action_space)
        self.divergence = DIVERGENCES[cfg.divergence]
        self.sampling = torch.Generator(self.device).manual_seed(int(self.seed or 0) + 3)
        actor: GaussianActor | CategoricalActor
        if isinstance(action_space, spaces.Discrete):
            actor = CategoricalActor(obs_dim, action_space, cfg.hidden_sizes, generator, cfg.actor_dropout)
            self.policy = CategoricalPolicy(self.observation_space, action_space, actor, self.sampling).to(self.device)
        else:
            actor = GaussianActor(obs_dim, action_space, cfg.hidden_sizes, generator, cfg.actor_dropout)
            self.policy = GaussianPolicy(self.observation_space, action_space, actor, self.sampling).to(self.device)
        self.value = network([obs_dim, *cfg.hidden_sizes, 1], generator, cfg.value_layer_norm).to(self.device)
        self.critic = Critics(obs_dim, da, cfg.hidden_sizes, generator)
        sizes = [obs_dim + da, *cfg.hidden_sizes, 1]
        self.critic.nets = nn.ModuleList(network(sizes, generator, cfg.critic_layer_norm) for _ in range(2))
        self.critic.to(self.device)
        self.target_critic = freeze(copy.deepcopy(self.critic))
        self.value_optimiser = Adam(self.value.parameters(), cfg.learning_rate)
        self.actor_optimiser = Adam(actor.parameters(), cfg.learning_rate, cfg.decay_steps)
        self.critic_optimiser = Adam(self.critic.parameters(), cfg.learning_rate)
        self.polyak = Polyak([(self.critic, self.target_critic)], cfg.polyak)

    def on_data(self) -> None:
        """Rewards scaled, actions of a box drawn 1e-5 off its bounds: once, in the replay's rows, not the data's."""
        assert self.replay is not None and self.dataset is not None
        if self.config.reward_scaling == "return_range":
            returns = self.dataset.episode_returns
            if returns.max() == returns.min():
                raise UserError(
                    f"agent.reward_scaling=return_range needs episodes of different returns, all "
                    f"{len(returns)} of {self.dataset.provenance.locator} have {returns[0]:g}; expected 'none'"
                )
            self.reward_factor = 1000.0 / float(returns.max() - returns.min())
        actions, rewards = self.replay.rows.split(self.replay.widths, dim=1)[1:3]  # [N, da], [N, 1]
        for column, learnt in zip((actions, rewards), self.as_learnt(actions, rewards), strict=True):
            column.copy_(learnt)

    def as_learnt(
        self, actions: Float[Tensor, "n da"], rewards: Float[Tensor, "n 1"]
    ) -> tuple[Float[Tensor, "n da"], Float[Tensor, "n 1"]]:
        if not isinstance(self.action_space, spaces.Discrete):
            actions = actions.clamp(-1 + 1e-5, 1 - 1e-5)
        return actions, rewards * self.reward_factor

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Any, Any]:
        """SB3's ``predict``; the mean unless asked for a sample, as these methods are judged by their mean."""
        return super().predict(observation, state, episode_start, deterministic)

    def bounded(self, values: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        """V as δ and y take it."""
        return values

    def critic_target(self, batch: Batch, next_values: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch 1"]:
        """y: what Q regresses on; a termination (not a time limit) cuts it off."""
        return batch.rewards + self.config.discount * batch.not_terminal * next_values

    def critic_objective(
        self, batch: Batch, target: Float[Tensor, "batch 1"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """L_Q and metrics about it."""
        return critic_loss(self.critic, batch, target, self.config.huber), {}

    def data_values(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """States ``[n, ds]`` and target values of actions there ``[n, 1]``, the batch's first: what V is fitted to."""
        states, actions = batch.observations, batch.actions
        if self.config.uniform_actions:
            others = uniform(self.noise, actions.shape, -1.0, 1.0)  # [batch, da]
            if isinstance(self.action_space, spaces.Discrete):
                others = functional.one_hot(others.argmax(dim=1), others.shape[1]).float()
            actions = torch.cat([actions, others])
            states = torch.cat([states, states])  # [2 batch, ds]
        return states, torch.minimum(*self.target_critic(states, actions))

    def value_step(self, batch: Batch) -> tuple[Float[Tensor, "batch 1"], Tensor]:
        """Fit V; returns target values of the batch's own actions, and L_V."""
        cfg = self.config
        with torch.no_grad():
            states, q = self.data_values(batch)  # [n, ds], [n, 1]
        for _ in range(cfg.value_updates):
            delta = advantage(q, self.value(states))  # [n, 1]
            loss = value_loss(delta, self.divergence, cfg.lam, cfg.temperature, cfg.value_clip, cfg.rescale)
            self.value_optimiser.minimise(loss)
        return q[: len(batch.actions)], loss

    def update(self, batch: Batch) -> dict[str, Tensor]:
        cfg = self.config
        q, loss = self.value_step(batch)  # [batch, 1], []
        metrics = {"value_loss": loss}
        with torch.no_grad():
            both = self.bounded(self.value(torch.cat([batch.observations, batch.next_observations])))  # [2 batch, 1]
            values, next_values = both.chunk(2)  # 2 x [batch, 1]
            delta = advantage(q, values)  # [batch, 1]
            weight = policy_weight(delta, cfg, self.divergence)  # [batch, 1]
            target = self.critic_target(batch, next_values)  # [batch, 1]
        log_prob = self.policy.actor.log_prob(batch.observations, batch.actions, self.noise)  # [batch, 1]
        loss = actor_loss(log_prob, weight)
        self.actor_optimiser.minimise(loss)
        metrics |= {"actor_loss": loss, "log_prob": log_prob.mean()}

        loss, more = self.critic_objective(batch, target)
        self.critic_optimiser.minimise(loss)
        self.polyak.step()
        metrics |= {
            "critic_loss": loss,
            "v": values.mean(),
            "q": q.mean(),
            "advantage_mean": delta.mean(),
            "advantage_std": delta.std(correction=0),  # of one sample too
            "weight": weight.mean(),
            "weight_clipped": (weight >= cfg.weight_clip).float().mean(),
            **more,
        }
        return {key: value.detach() for key, value in metrics.items()}
