"""VaGraM: a world model fitted where the value function is steep, in MBPO's loop over SAC (Voelcker et al. 2022).

Per environment step: act, remember, and every ``refit_every`` steps
    g̃_h = ∂Q_h(s', sg tanh μ(s')) / ∂s' of both critics and both targets, clipped     world_model.value_gradients
    fit the ensemble by mean [(1/D) Σ_d W_d δ_d² + ρ²],  W = mean_h g̃_h²              world_model.vagram_rows
    roll out ``rollout_batch`` real states for k steps with the elites                VaGraM.roll_out
then, once there is a model, ``updates_per_step`` SAC updates (Haarnoja et al. 2018), each on a whole batch of the
model's rows with probability p, else of real ones:
    y = r + γ (1 - terminal) (min Q̄(s', a') - α log π(a'|s'))
    L_Q = mean (Q₁ - y)² + mean (Q₂ - y)²,  L_π = mean (α log π - min Q),  L_α = -mean α (log π + H̄)

The critics do not change while the model is fitted, so W is computed once per refit, over all real rows.  The other
model losses (``mle`` is MBPO, Janner et al. 2019; ``calibrated`` is for worlds that are random, Voelcker et al. 2025)
share every other line.  ``model_loss=none`` is SAC alone.

Not repeated from the authors' code: value gradients at the state difference, summed over heads, and cached by a batch's
place; time limits stored as ends; actions without noise while exploring (``behaviour="mean"`` brings that back);
termination tests that read distractors.  The first, random steps count as steps.  SAC's L2-normalised features are an
option (``feature_l2norm``), as is Janner's mixture within a batch (``real_ratio``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import Tensor, nn

from rlkit.agents.vagram.world_model import (
    NEVER_ENDING,
    TERMINATIONS,
    Ends,
    Ensemble,
    calibrated_rows,
    fit,
    imagine,
    itervaml_rows,
    mle_rows,
    mse_rows,
    taylor_rows,
    truncated_linear,
    vagram_rows,
    value_gradients,
)
from rlkit.algorithms.hyperparameters import AgentConfig, RunDefaults
from rlkit.algorithms.nets import Adam
from rlkit.algorithms.online import OnlineAlgorithm
from rlkit.algorithms.replay import Batch, Replay
from rlkit.errors import UserError
from rlkit.registry import register

LOSSES = ("vagram", "mle", "mse", "taylor", "itervaml", "calibrated", "none")
GAUSSIAN = ("mle", "calibrated")  # losses of models that spread


@dataclass(frozen=True)
class VaGraMConfig(AgentConfig):
    """Hyperparameters of VaGraM: the model's, then SAC's."""

    model_loss: str = "vagram"  # vagram, mle (MBPO), mse, taylor, itervaml, calibrated, or none: SAC alone
    members: int = 7  # networks of the ensemble
    elites: int = 5  # of which this many roll out
    model_hidden_sizes: Sequence[int] = (200, 200, 200, 200)  # smaller: a model that must choose what to be right about
    model_learning_rate: float = 1e-3  # larger: faster and less stable fits
    model_l2: float = 5e-5  # weight decay of the model, as an L2 term
    model_batch_size: int = 1024  # rows of one step of a fit, per member
    patience: int = 10  # epochs without an improvement of 1 % before a fit ends
    max_epochs: int | None = None  # of one fit; None: as long as it improves
    gradient_quantile: float = 0.95  # norms of value gradients are clipped at this quantile; larger: less clipping
    refit_every: int = 250  # steps between fits
    rollout_batch: int = 100_000  # real states rolled out after a fit
    rollout_schedule: Sequence[float] = (
        20.0,
        150.0,
        1.0,
        5.0,
    )  # model steps k: epochs x0, x1 and lengths y0, y1 between them
    model_share_schedule: Sequence[float] = (0.0, 20.0, 0.0, 0.95)  # probability p of a model batch, likewise
    epochs_retained: int = 1  # epochs of model rows remembered
    real_ratio: float | None = None  # share of real rows within every batch (Janner's MBPO), instead of p
    termination: str = "auto"  # auto: the task's; hopper, walker2d, ant, inverted-pendulum or never
    behaviour: str = "sample"  # sample, or mean: actions while exploring
    updates_per_step: int = 20  # SAC updates per environment step
    learning_starts: int = 10_000  # first steps, acted by the untrained policy
    batch_size: int = 256  # larger: smoother gradients, slower updates
    buffer_size: int = 1_000_000  # real transitions remembered
    hidden_sizes: Sequence[int] = (256, 256)  # widths of actor and critics; the authors' are 1024
    discount: float = 0.99  # larger: longer horizon, noisier targets
    polyak: float = 0.005  # how far the targets move
    actor_learning_rate: float = 3e-5  # larger: faster and less stable
    critic_learning_rate: float = 3e-4  # likewise
    entropy_learning_rate: float = 3e-4  # likewise, of α
    initial_entropy: float = 0.1  # α at the start
    target_entropy: float = -1.0  # entropy that α steers to; larger: noisier actions
    actor_every: int = 1  # updates per actor update
    target_every: int = 4  # updates per movement of the targets
    feature_l2norm: bool = False  # scale the last hidden layers to length 1, as the authors' newest code does

    POSITIVE: ClassVar[tuple[str, ...]] = (
        *("members", "elites", "model_learning_rate", "model_batch_size", "patience", "refit_every", "rollout_batch"),
        *("epochs_retained", "updates_per_step", "batch_size", "buffer_size", "actor_learning_rate"),
        *("critic_learning_rate", "entropy_learning_rate", "initial_entropy", "actor_every", "target_every"),
    )
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ("model_l2", "learning_starts")
    UNIT: ClassVar[tuple[str, ...]] = ("gradient_quantile", "discount", "polyak")
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {
        "model_loss": LOSSES,
        "behaviour": ("sample", "mean"),
        "termination": ("auto", *TERMINATIONS),
    }

    def __post_init__(self) -> None:
        for name in ("hidden_sizes", "model_hidden_sizes"):
            self._widths(name)
        super().__post_init__()
        for name in ("rollout_schedule", "model_share_schedule"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))
            self._require(name, len(getattr(self, name)) == 4, "four numbers: first epoch, last epoch, value, value")
        self._require("elites", self.elites <= self.members, f"at most agent.members={self.members}")
        if self.real_ratio is not None:
            self._require("real_ratio", 0 <= self.real_ratio <= 1, "a number from 0 to 1")


class Normalise(nn.Module):
    """Rows to length one."""

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch m"]:
        return nn.functional.normalize(x, dim=1)


class BoundedActor(Actor):
    """SB3's actor with the log standard deviation squashed smoothly into [-5, 2] instead of clamped to [-20, 2]."""

    def get_action_dist_params(self, obs: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        latent = self.latent_pi(self.extract_features(obs, self.features_extractor))  # [batch, m]
        return self.mu(latent), -5 + 3.5 * (torch.tanh(self.log_std(latent)) + 1), {}  # type: ignore[operator]


class BoundedSACPolicy(SACPolicy):
    """SB3's policy of SAC with :class:`BoundedActor`."""

    def make_actor(self, features_extractor: Any = None) -> BoundedActor:
        arguments = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return BoundedActor(**arguments).to(self.device)


@register("vagram")
class VaGraM(OnlineAlgorithm, SAC):
    """SAC on short roll-outs of a model that is fitted where the value function is steep."""

    Config: ClassVar[type[AgentConfig]] = VaGraMConfig
    defaults: ClassVar[RunDefaults] = RunDefaults("steps", 125_000, eval_every=2_500, checkpoint_every=5_000)
    objective: ClassVar[str] = "critic_loss"
    UNDER_NORMALISER: ClassVar[Mapping[str, Any] | None] = {"model_loss": "none"}  # a model's inputs keep their scale
    policy_aliases: ClassVar[dict[str, Any]] = {"MlpPolicy": BoundedSACPolicy}

    def arguments(self, config: Any) -> dict[str, Any]:
        return {
            "buffer_size": config.buffer_size,
            "learning_starts": config.learning_starts,
            "batch_size": config.batch_size,
            "tau": config.polyak,
            "gamma": config.discount,
            "gradient_steps": config.updates_per_step,
            "ent_coef": f"auto_{config.initial_entropy}",
            "target_entropy": config.target_entropy,
            "replay_buffer_class": Replay,
            "policy_kwargs": {"net_arch": list(config.hidden_sizes), "optimizer_class": Adam},
        }

    def _setup_model(self) -> None:
        super()._setup_model()
        cfg, seed = self.config, int(self.seed or 0)
        self.replay_buffer.generator.manual_seed(seed + 2)
        self._shape_networks(cfg)
        self.model_random = torch.Generator(self.device).manual_seed(seed + 3)
        ds, da = self.observation_space.shape[0], self.action_space.shape[0]  # type: ignore[index]
        self.width = ds
        self.ends = self._termination(cfg) if isinstance(self.env, VecEnv) else TERMINATIONS["never"]
        if cfg.model_loss != "none":
            gaussian, start = cfg.model_loss in GAUSSIAN, torch.Generator().manual_seed(seed + 4)
            self.ensemble = Ensemble(ds + da, ds + 1, cfg.model_hidden_sizes, cfg.members, gaussian, start)
            self.ensemble.to(self.device)
            rate, decay = cfg.model_learning_rate, cfg.model_l2
            self.model_optimiser = torch.optim.Adam(self.ensemble.parameters(), rate, weight_decay=decay, fused=True)
        self.chosen = torch.arange(cfg.elites, device=self.device)
        self.model_buffer: Replay | None = None

    def _shape_networks(self, cfg: Any) -> None:
        """Orthogonal weights, zero biases; targets equal to the critics; optimisers with a rate each."""
        assert self.log_ent_coef is not None
        for critic in (self.critic, self.critic_target):
            nets: Any = critic.q_networks
            for net in nets if cfg.feature_l2norm else []:
                net.insert(len(net) - 1, Normalise())
        if cfg.feature_l2norm:
            self.actor.latent_pi.append(Normalise())
        for layer in [*self.actor.modules(), *self.critic.modules()]:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.actor.optimizer = Adam(self.actor.parameters(), cfg.actor_learning_rate)
        self.critic.optimizer = Adam(self.critic.parameters(), cfg.critic_learning_rate)
        self.ent_coef_optimizer = torch.optim.Adam([self.log_ent_coef], cfg.entropy_learning_rate)
        self.nets: Any = [*self.critic.q_networks, *self.critic_target.q_networks]
        self.online = [p.detach() for p in self.critic.parameters()]
        self.targets = [p.detach() for p in self.critic_target.parameters()]

    def _termination(self, cfg: Any) -> Ends:
        task = self.record.task if self.record is not None else ""
        endless = cfg.model_loss == "none" or task in NEVER_ENDING or task.startswith("dmc-")
        name = cfg.termination if cfg.termination != "auto" else "never" if endless else task
        if name not in TERMINATIONS:
            known = "|".join(TERMINATIONS)
            raise UserError(f"no analytic termination is known for '{name}'; expected agent.termination={known}")
        return TERMINATIONS[name]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        parts, variables = super()._get_torch_save_params()
        return [*parts, *(["ensemble", "model_optimiser"] if hasattr(self, "ensemble") else [])], variables

    # ---- acting ----------------------------------------------------------------------------------------------------

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """The policy's own samples from the first step on; the mean where ``behaviour`` says so."""
        mean = self.config.behaviour == "mean" and self.num_timesteps >= learning_starts
        assert self._last_obs is not None
        actions, _ = self.predict(self._last_obs, deterministic=mean)
        scaled = self.policy.scale_action(actions)
        return self.policy.unscale_action(scaled), scaled

    # ---- the model -------------------------------------------------------------------------------------------------

    def _real(self) -> Batch:
        """Every real transition."""
        return self.replay_buffer.take(torch.arange(self.replay_buffer.size(), device=self.device))

    def _mean_action(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n a"]:
        return self.actor(states, deterministic=True)

    def _q(self, net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda states, actions: net(torch.cat([states, actions], dim=1))

    def refit(self, epoch: int) -> dict[str, Tensor]:
        """Fit the ensemble to all real transitions; ``epoch`` is the thousand of steps since the first update."""
        cfg, real = self.config, self._real()
        inputs = torch.cat([real.observations, real.actions], dim=1)  # [n, D + A]
        targets = torch.cat([real.next_observations - real.observations, real.rewards], dim=1)  # [n, D + 1]
        weight = gradients = None
        if cfg.model_loss in ("vagram", "taylor"):
            critics = [self._q(net) for net in self.nets]
            gradients = value_gradients(critics, self._mean_action, real.next_observations, cfg.gradient_quantile)
            weight = gradients.square().mean(1)  # W [n, D]

        def values(states: Tensor) -> Tensor:
            actions = self._mean_action(states).detach()
            return torch.cat([self._q(net)(states, actions) for net in self.nets], dim=1)  # [n, h]

        def row_loss(rows: Tensor, outputs: Tensor) -> Tensor:
            target = targets[rows]  # [members, batch, D + 1]
            if cfg.model_loss == "mle":
                return mle_rows(*self.ensemble.split(outputs), target)
            if cfg.model_loss == "mse":
                return mse_rows(outputs, target)
            if cfg.model_loss == "calibrated":
                two = torch.stack([self.ensemble.draw(outputs, self.model_random) for _ in range(2)])
                loss = calibrated_rows(two, target, real.observations[rows], values)
                return loss + mle_rows(*self.ensemble.split(outputs), target) if epoch == 0 else loss
            if cfg.model_loss == "itervaml":
                loss = itervaml_rows(
                    outputs, target, real.observations[rows], lambda s: values(s).mean(1, keepdim=True)
                )
            elif cfg.model_loss == "taylor":
                assert gradients is not None
                loss = taylor_rows(outputs, target, gradients[rows])
            else:
                assert weight is not None
                loss = vagram_rows(outputs, target, weight[rows])
            # Before the critics mean anything, every entry counts the same as well.
            return loss + (outputs - target).square().sum(-1) / target.shape[-1] if epoch == 0 else loss

        self.critic.requires_grad_(False)
        self.actor.requires_grad_(False)
        try:
            report = fit(
                self.ensemble,
                self.model_optimiser,
                inputs,
                row_loss,
                self.model_random,
                batch_size=cfg.model_batch_size,
                patience=cfg.patience,
                elites=cfg.elites,
                max_epochs=cfg.max_epochs,
                sum_members=cfg.model_loss == "mle",
            )
        finally:
            self.critic.requires_grad_(True)
            self.actor.requires_grad_(True)
        self.chosen = report.elites
        return {"model/score": report.scores.mean(), "model/epochs": torch.tensor(float(report.epochs))}

    @torch.no_grad()
    def roll_out(self, epoch: int) -> dict[str, Tensor]:
        """Model rows from real states: k steps, every step's rows dealt anew to the elites, ended ones dropped."""
        cfg = self.config
        steps = int(truncated_linear(cfg.rollout_schedule, epoch + 1))
        capacity = steps * cfg.rollout_batch * (1000 // cfg.refit_every or 1) * cfg.epochs_retained
        if self.model_buffer is None or self.model_buffer.buffer_size != capacity:
            before = self.model_buffer
            spaces = self.observation_space, self.action_space
            self.model_buffer = Replay(capacity, *spaces, device=self.device, seed=int(self.seed or 0) + 5)
            if before is not None:
                self.model_buffer.generator.set_state(before.generator.get_state())
                held = before.rows[: before.size()]
                self.model_buffer.extend(held if not before.full else held.roll(-before.pos, 0))
        size = self.replay_buffer.size()
        start = torch.randint(size, (cfg.rollout_batch,), generator=self.model_random, device=self.device)
        states, made = self.replay_buffer.rows[start, : self.width], 0
        for _ in range(steps):
            if not len(states):
                break
            actions = self.actor(states, deterministic=False)  # [n, A] in [-1, 1]
            found = imagine(
                self.ensemble, self.chosen, torch.cat([states, actions], 1), self.model_random
            )  # [n, D + 1]
            change, rewards = found.split([self.width, 1], dim=1)  # [n, D], [n, 1]
            following = states + change
            ended = self.ends(following)  # [n]
            not_terminal = 1 - ended.float().unsqueeze(1)  # [n, 1]
            self.model_buffer.extend(torch.cat([states, actions, rewards, not_terminal, following], dim=1))
            made += len(states)
            states = following[~ended]
        return {"model/rows": torch.tensor(float(made)), "model/steps": torch.tensor(float(steps))}

    # ---- learning --------------------------------------------------------------------------------------------------

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        cfg = self.config
        since = self.num_timesteps - cfg.learning_starts  # 1 after the first step that was not at random
        epoch = (since - 1) // 1000
        if cfg.model_loss != "none":
            if since % cfg.refit_every == 0:
                self.tally.add(self.refit(epoch) | self.roll_out(epoch))
            if self.model_buffer is None:
                return
        share = truncated_linear(cfg.model_share_schedule, epoch + 1)
        for _ in range(gradient_steps):
            self._n_updates += 1
            self.tally.add(self.update(self._draw(batch_size, share)))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _draw(self, size: int, share: float) -> Batch:
        cfg, model = self.config, self.model_buffer
        if model is None or not model.size():
            return self.seen(self.replay_buffer.batch(size))
        if cfg.real_ratio is not None:
            real = round(cfg.real_ratio * size)
            parts = [b.batch(n) for b, n in ((self.replay_buffer, real), (model, size - real)) if n]
            return Batch(*(torch.cat(column) for column in zip(*parts, strict=True)))
        coin = torch.rand((), generator=self.model_random, device=self.device)
        return (model if coin < share else self.replay_buffer).batch(size)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One SAC update: critics, then actor, then α."""
        cfg, count = self.config, self._n_updates
        assert self.log_ent_coef is not None and self.ent_coef_optimizer is not None
        assert isinstance(self.target_entropy, float)
        alpha = self.log_ent_coef.detach().exp()  # [1]
        with torch.no_grad():
            next_actions, next_log = self.actor.action_log_prob(batch.next_observations)  # [batch, A], [batch]
            later = torch.cat([batch.next_observations, next_actions], dim=1)
            q = torch.minimum(*(net(later) for net in self.critic_target.q_networks))  # [batch, 1]
            target = batch.rewards + cfg.discount * batch.not_terminal * (q - alpha * next_log.unsqueeze(1))
        pairs = torch.cat([batch.observations, batch.actions], dim=1)
        loss: Any = sum((net(pairs) - target).square().mean() for net in self.critic.q_networks)
        self.critic.optimizer.minimise(loss)  # type: ignore[attr-defined]
        metrics = {"train/critic_loss": loss, "train/target_q": target.mean()}
        if count % cfg.actor_every == 0:
            actions, log_prob = self.actor.action_log_prob(batch.observations)  # [batch, A], [batch]
            pairs = torch.cat([batch.observations, actions], dim=1)
            q = torch.minimum(*(net(pairs) for net in self.critic.q_networks))  # [batch, 1]
            loss = (alpha * log_prob.unsqueeze(1) - q).mean()
            self.actor.optimizer.minimise(loss)  # type: ignore[attr-defined]
            entropy_loss = -(self.log_ent_coef * (log_prob + self.target_entropy).detach()).mean()
            self.ent_coef_optimizer.zero_grad()
            entropy_loss.backward()
            self.ent_coef_optimizer.step()
            metrics |= {"train/actor_loss": loss, "train/log_prob": log_prob.mean(), "train/alpha": alpha.squeeze(0)}
        if count % cfg.target_every == 0:
            torch._foreach_lerp_(self.targets, self.online, cfg.polyak)
        return metrics

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        found = {**super().state_tensors(), "chosen": self.chosen}
        if self.model_buffer is not None:
            found |= {f"model_buffer.{k}": v for k, v in self.model_buffer.state().items()}
            found["model_capacity"] = torch.tensor(self.model_buffer.buffer_size)
        return found

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().load_state(tensors, values)
        self.chosen = tensors["chosen"].to(self.device)
        if "model_capacity" in tensors:
            spaces = self.observation_space, self.action_space
            self.model_buffer = Replay(int(tensors["model_capacity"]), *spaces, device=self.device)
            self.model_buffer.load_state({k[13:]: v for k, v in tensors.items() if k.startswith("model_buffer.")})
