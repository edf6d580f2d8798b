"""ReCOIL: imitation from few labelled and many unlabelled transitions (Sikchi, Zheng, Zhang & Niekum 2024, "Dual RL").

No rewards are read and no discriminator is trained:

    match  d_mix = β d^π + (1 - β) d_S   with   d_mix^ES = β d_E + (1 - β) d_S                  β `mixture`

Per update, on a batch S of the pool and one E of the labelled expert:

    L_V, w, L_π on S as in :mod:`rlkit.agents.common.implicit`, with XQL's Gumbel loss; V_max = 2 / (1 - γ)
    lsiq (the authors' code, the published scores):                                            lsiq_loss
        L_Q = ½ mean_E (Q(s, a) - V_max)² + ½ mean_S (Q(s, a) - y)²
        y = -2 + γ [(1 - terminal) V(s') - terminal V_max]                                     ReCOIL.critic_target
    contrastive (the paper's idea, with expectations under which it is exact):                 contrastive_loss
        L_Q = β [mean_E Q(s, π) - mean_E Q(s, a)] + ¼ [β mean_E (Q - y)² + (1 - β) mean_S (Q - y)²]
        y = γ (1 - terminal) V(s')
    both summed over the two critics

`lsiq` is least-squares inverse Q-learning with rewards of ±2: k steps before a labelled pair Q is 2 V_max γᵏ - V_max.
`contrastive` has, at its minimum over Q, minus the χ² divergence of the two mixtures (`tests/agents/test_recoil.py`).

Deviations: the rescaling of L_V uses the pool's largest e^(δ/α) and not also the expert's, whose large Q would shrink
V's gradient by up to e⁻⁷; `contrastive` lowers Q at the *expert's* states, the paper at the pool's, which is not equal
to the dual it starts from; the authors' `alpha`, `beta` and `expectile` have no effect in their code and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from rlkit.agents.common.gaussian import GaussianActor, GaussianPolicy
from rlkit.agents.common.implicit import ImplicitConfig, ImplicitValue, advantage, policy_weight
from rlkit.algorithms.noise import Generator, Scalar, normal, within
from rlkit.algorithms.offline import OfflineConfig
from rlkit.algorithms.replay import Batch
from rlkit.data.imitation import LABELLED, monitor_rows, pool_rows
from rlkit.errors import UserError, nearest
from rlkit.registry import register

Q_LOSSES = ("lsiq", "contrastive")
REWARD = 2.0  # of lsiq: 2 for a labelled pair, -2 for any other
MONITOR_EVERY = 10  # updates between two looks at the parts, which cost a pass of the target critics and one of V


@dataclass(frozen=True)
class DemonstrationConfig(ImplicitConfig):
    """What learners from demonstrations on the implicit core share: no rewards, XQL's value loss."""

    divergence: str = "kl"
    lam: float | None = 0.5
    value_clip: float = 7.0
    rescale: bool = True
    huber: float = 0.0
    value_layer_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("reward_scaling", self.reward_scaling == "none", "none: this method reads no rewards")
        self._require("huber", self.huber == 0, "0: the loss of Q is its own")
        self._require("reward_scale", self.reward_scale in (None, 1), "1: this method reads no rewards")
        self._require("reward_shift", not self.reward_shift, "0: this method reads no rewards")


@dataclass(frozen=True)
class ReCOILConfig(DemonstrationConfig):
    """Hyperparameters of ReCOIL."""

    batch_size: int = 1024  # of the pool, and as many of the expert
    q_loss: str = "lsiq"  # lsiq: the code's, Q within ± 2/(1-γ); contrastive: the paper's, Q on no fixed scale
    temperature: float = 1.0  # α of V's loss; raise through 2.5, 5, 10, 20 until Q stops diverging; larger: V lower
    bound_values: bool = False  # lsiq: δ and y take V within ± V_max, where it belongs; false as the authors' code
    mixture: float = 0.5  # β, contrastive alone: weight of the expert in both mixtures; larger: trusts the few more

    VARYING: ClassVar[tuple[str, ...]] = (*DemonstrationConfig.VARYING, "mixture")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.q_loss not in Q_LOSSES:
            raise UserError(f"agent.q_loss={self.q_loss} is unknown{nearest(str(self.q_loss), Q_LOSSES)}")
        bounds = not self.bound_values or self.q_loss == "lsiq"
        self._require("bound_values", bounds, "false: contrastive has no bounds")
        self._require("mixture", 0 < self.mixture < 1, "a number between 0 and 1")
        self._require("discount", self.discount < 1, "a number below 1: the bounds of Q are ± 2 / (1 - discount)")


def lsiq_loss(
    q_expert: tuple[Float[Tensor, "expert 1"], ...],
    q_pool: tuple[Float[Tensor, "batch 1"], ...],
    target: Float[Tensor, "batch 1"],
    bound: Scalar,
) -> Float[Tensor, ""]:
    """L_Q of `lsiq`, summed over critics: the expert's pairs to ``bound`` = V_max, the pool's to ``target`` = y."""
    losses = [(q - bound).square().mean() for q in q_expert] + [mse_loss(q, target) for q in q_pool]
    return 0.5 * torch.stack(losses).sum()


def contrastive_loss(
    q_policy: Float[Tensor, "expert 1"],
    q_expert: Float[Tensor, "expert 1"],
    residual_expert: Float[Tensor, "expert 1"],
    residual_pool: Float[Tensor, "batch 1"],
    mixture: Scalar,
) -> Float[Tensor, ""]:
    """L_Q of `contrastive` for one critic: Q(s, π) and Q(s, a) at the expert's states, residuals y - Q(s, a)."""
    gap = q_policy.mean() - q_expert.mean()  # []
    squares = mixture * residual_expert.square().mean() + (1 - mixture) * residual_pool.square().mean()  # []
    return mixture * gap + squares / 4


def sampled_actions(
    actor: GaussianActor, observations: Float[Tensor, "batch ds"], noise: Generator
) -> Float[Tensor, "batch da"]:
    """Actions of the policy, within [-1, 1]; no gradient."""
    with torch.no_grad():
        mean = actor(observations)  # [batch, da]
        return (mean + actor.std() * normal(noise, mean.shape)).clamp(-1, 1)


class Demonstrations(ImplicitValue):
    """Base: batches of the labelled expert, rewards blanked, Q and w watched on the parts of the data."""

    uses_rewards: ClassVar[bool] = False
    takes_discrete: ClassVar[bool] = False
    policy: GaussianPolicy

    def on_data(self) -> None:
        """Raises :class:`DataError` for data without a labelled part."""
        assert self.dataset is not None and self.replay is not None
        self.replay.parts = {LABELLED: self.dataset.rows_of(LABELLED)}
        super().on_data()
        self.replay.rows.split(self.replay.widths, dim=1)[2].zero_()
        rows = monitor_rows(self.dataset)
        self.watched = {part: torch.from_numpy(index).to(self.device) for part, index in rows.items()}

    @property
    def period(self) -> int:
        return MONITOR_EVERY

    def expert_batch(self) -> Batch:
        assert self.replay is not None
        return self.replay.batch(self.config.batch_size, LABELLED)

    def watch(self) -> dict[str, Tensor]:
        """Mean target value of each part's recorded actions, and mean w, every ``MONITOR_EVERY`` updates.

        A method that finds the hidden expert lifts ``q_hidden`` off ``q_suboptimal`` towards ``q_expert``; its actor
        follows if ``weight_hidden`` rises with it.
        """
        if self._n_updates % MONITOR_EVERY:
            return {}
        assert self.replay is not None
        with torch.no_grad():
            observations, actions, *_ = self.replay.take(torch.cat(list(self.watched.values())))  # [3 x 256, ds], ...
            q = torch.minimum(*self.target_critic(observations, actions))  # [3 x 256, 1]
            delta = advantage(q, self.bounded(self.value(observations)))  # [3 x 256, 1]
            weight = policy_weight(delta, self.config, self.divergence)  # [3 x 256, 1]
        sizes = [len(index) for index in self.watched.values()]
        return {
            f"{name}_{part}": values.mean()
            for name, of_all in (("q", q), ("weight", weight))
            for part, values in zip(self.watched, of_all.split(sizes), strict=True)
        }


@register("recoil")
class ReCOIL(Demonstrations):
    """Imitation of a few demonstrations among much other data, without a discriminator."""

    Config: ClassVar[type[OfflineConfig]] = ReCOILConfig

    def on_data(self) -> None:
        """Raises :class:`DataError` for data without a labelled part, or without others behind it."""
        super().on_data()
        assert self.dataset is not None and self.replay is not None
        self.replay.parts["pool"] = pool_rows(self.dataset)

    def draw(self) -> Batch:
        """Transitions of the pool."""
        assert self.replay is not None
        return self.replay.batch(self.config.batch_size, "pool")

    @property
    def bound(self) -> Scalar:
        """V_max of `lsiq`."""
        return REWARD / (1 - self.config.discount)

    def bounded(self, values: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        return within(values, self.bound) if self.config.bound_values else values

    def critic_target(self, batch: Batch, next_values: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch 1"]:
        """y; under `lsiq` a termination is worth -V_max for ever after."""
        ahead = batch.not_terminal * next_values  # [batch, 1]
        if self.config.q_loss == "lsiq":
            return -REWARD + self.config.discount * (ahead - (1 - batch.not_terminal) * self.bound)
        return self.config.discount * ahead

    def critic_objective(
        self, batch: Batch, target: Float[Tensor, "batch 1"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        expert = self.expert_batch()
        q_pool = self.critic(batch.observations, batch.actions)  # 2 x [batch, 1]
        q_expert = self.critic(expert.observations, expert.actions)  # 2 x [batch, 1]
        if self.config.q_loss == "lsiq":
            return lsiq_loss(q_expert, q_pool, target, self.bound), self.watch()
        with torch.no_grad():
            expert_target = self.critic_target(expert, self.value(expert.next_observations))  # [batch, 1]
            actions = sampled_actions(self.policy.actor, expert.observations, self.noise)  # [batch, da]
        q_policy = self.critic(expert.observations, actions)  # 2 x [batch, 1]
        losses = [
            contrastive_loss(pi, e, expert_target - e, target - s, self.config.mixture)
            for pi, e, s in zip(q_policy, q_expert, q_pool, strict=True)
        ]
        return torch.stack(losses).sum(), self.watch()
