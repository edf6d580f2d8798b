"""ORPO: PPO on a proxy reward that keeps near a base policy's occupancy, so as not to hack it (Laidlaw et al. 2024).

A proxy R̃ that correlates with the truth under π_ref promises nothing where π_ref never goes.  The gain in true reward
is bounded below by the proxy's minus a multiple of √χ²(μ_π ‖ μ_ref) (``tests/toys/occupancy.py``); so PPO maximises

    J(R̃) - λ D(μ_π ‖ μ_ref),   D one of √χ², χ², KL, TV,   λ = coef · σ_R̃

Each iteration, with as many steps of π_ref as of π:

    d ← argmin E_π softplus(-d) + E_ref softplus(d), so that d → ln(μ_π/μ_ref)             discriminator_loss
    p = e^d - 1 over √χ² (or d, e^d - 1, sign d), which is ∂D/∂μ                            penalty
    R' = R̃ + clip(-λ p, ±B), advantages anew, then PPO's update                             shaping

``measure``: the occupancy of state_action, of the state, or ``action`` for the usual regulariser, the mean divergence
of π(·|s) from π_ref(·|s), added to PPO's loss as λ/(1-γ) E_s D or, with ``action_side="reward"``, taken from rewards.

Where paper and authors' code differ the code is followed: the 1 is subtracted, χ² is trimmed, "chi2" means half its
gradient, no γ^t weights (``center``, ``trim``, ``gamma_weighting``).  Deviations: √χ² divides by at least √1e-3;
actions are clipped to their box before d sees them; d is also measured on each batch before it is trained on it; base
policies are PPO's, no Beta or recurrent ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from torch.nn import functional

from rlkit.agents.orpo.core import (
    BasePolicy,
    Calibration,
    Discriminator,
    Ledger,
    ORPOConfig,
    Rollout,
    action_divergence,
    both_rewards,
    built_in,
    check_spaces,
    discriminator_inputs,
    discriminator_loss,
    episode_steps,
    estimates,
    input_size,
    moments,
    pearson,
    penalty,
    put_under,
    roll,
    shaping,
)
from rlkit.algorithms.base import Persistent
from rlkit.algorithms.hyperparameters import AgentConfig, RunDefaults, make_config, presets
from rlkit.algorithms.online import OnlineAlgorithm, training_env
from rlkit.algorithms.vecenv import StatefulVecEnv
from rlkit.errors import ArtefactError, UserError
from rlkit.registry import EnvRecord, register


@register("orpo")
class ORPO(OnlineAlgorithm, PPO):
    """PPO with a penalty for leaving the occupancy of a base policy.

    Args:
        ref_policy: π_ref: what ``agent.ref_policy`` takes, an agent of PPO's kind, or a :class:`BasePolicy`.
        ref_env: a ``VecEnv`` for π_ref, as many environments as ``env`` has; made where ``env`` is a name.

    Other parameters and errors as :class:`~rlkit.algorithms.online.OnlineAlgorithm`; also :class:`UserError` for a base
    policy of other spaces.
    """

    Config: ClassVar[type[AgentConfig]] = ORPOConfig
    defaults: ClassVar[RunDefaults] = RunDefaults("steps", 240_000, 6_000, eval_every=12_000, judged="sampled")
    objective: ClassVar[str] = "value_loss"
    UNDER_NORMALISER: ClassVar[Mapping[str, Any] | None] = None  # it would scale two policies' observations apart
    ACTIONS: ClassVar[type[spaces.Space]] = spaces.Space
    ref_env: VecEnv | None = None
    _ref_observations: Any = None

    def __init__(
        self,
        policy: str = "MlpPolicy",
        env: Any = None,
        ref_policy: Any = None,
        *,
        ref_env: Any = None,
        **settings: Any,
    ):
        if ref_policy is not None:
            settings["ref_policy"] = str(ref_policy) if isinstance(ref_policy, (str, Path)) else "given"
        super().__init__(policy, env, **settings)
        source = ref_policy if self.config.ref_policy == "given" else self.config.ref_policy
        assert self.env is not None
        self.base = base_policy(source, self.env, self.record, self.config, self.seed or 0).to(self.device)
        if ref_env is not None:  # attach() made one where the environment has a name
            self._connect(ref_env)
        if self.config.divergence != "none":
            rolled = self._roll_base(-(-self.config.calibration_steps // self.n_envs))
            found, self._ref_observations = moments(rolled), None  # learning begins with new episodes
            self.calibrated.copy_(torch.tensor([found.sigma, found.mean, found.correlation]))
        if self.config.start == "base":
            self.base.into(self.policy)

    def arguments(self, config: Any) -> dict[str, Any]:
        names = ("learning_rate", "n_steps", "batch_size", "n_epochs", "gae_lambda", "clip_range", "max_grad_norm")
        found = {name: getattr(config, name) for name in names}
        found |= {"gamma": config.discount, "ent_coef": config.entropy_coef, "vf_coef": config.value_coef}
        return {**found, "policy_kwargs": {"net_arch": list(config.hidden_sizes), "log_std_init": config.log_std_init}}

    def _setup_model(self) -> None:
        seen, done = self.observation_space, self.action_space
        if not isinstance(seen, spaces.Box) or not isinstance(done, spaces.Box | spaces.Discrete):
            raise UserError(f"{self.name} needs Box observations and Box or Discrete actions, got {seen} and {done}")
        super()._setup_model()
        cfg, seed = self.config, int(self.seed or 0)
        generator = torch.Generator().manual_seed(seed + 17)
        self.discriminator = Discriminator(input_size(seen, done, cfg), cfg.disc_hidden_sizes, generator).to(
            self.device
        )
        self.disc_optimiser = torch.optim.Adam(self.discriminator.parameters(), cfg.learning_rate, fused=True)
        self.order, self.ref_noise = (torch.Generator().manual_seed(seed + k) for k in (18, 19))
        self.base = BasePolicy(seen, done)
        self.calibrated = torch.zeros(3, dtype=torch.float64)  # σ, mean and correlation of the proxy under π_ref
        self.kl_coef = cfg.target_kl_coef
        self.ledger = Ledger(self.n_envs)
        self.steps_before = np.zeros((2, self.n_envs), np.int64)  # of π's and π_ref's running episodes
        self._old: Any = None

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        parts, variables = super()._get_torch_save_params()
        if not hasattr(self, "discriminator"):
            return parts, variables
        return [*parts, "base", "discriminator", "disc_optimiser"], [*variables, "calibrated"]

    def load_model(self, tensors: Mapping[str, Tensor]) -> None:
        own = {key[5:]: value for key, value in tensors.items() if key.startswith("base.")}
        self.base = self.base.like(own).to(self.device)
        put_under(self.policy, self.base if "policy.mlp_extractor.policy_net.base.epsilon" in tensors else None)
        super().load_model(tensors)

    def attach(self, source: Any) -> None:
        super().attach(source)
        self._connect(None)

    def _connect(self, ref_env: VecEnv | None) -> None:
        """Take ``ref_env`` for π_ref, or make one like the agent's own."""
        if ref_env is None and self.record is not None:
            ref_env, _ = training_env(self.record, self.n_envs)
        if ref_env is not None and ref_env.num_envs != self.n_envs:
            raise UserError(f"ref_env has {ref_env.num_envs} environments, expected {self.n_envs} as env has")
        self.ref_env, self._ref_observations = ref_env, None
        self.base = self.base.to(self.device)

    @property
    def coefficient(self) -> float:
        """λ."""
        sigma, mean, _ = self.calibrated.tolist()
        return self.config.coef * {"sigma": sigma, "mean": mean, "none": 1.0}[self.config.scale]

    # ---- an iteration ----------------------------------------------------------------------------------------------

    def collect_rollouts(self, env: Any, callback: Any, rollout_buffer: Any, n_rollout_steps: int) -> bool:
        self._told: list[tuple[list[float], list[float], NDArray[np.bool_]]] = []
        self.ledger.sums[:, np.asarray(self._last_episode_starts, np.bool_)] = 0.0  # learn() may have begun anew
        if not super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps):
            return False
        true, proxy, dones = (np.array(column) for column in zip(*self._told, strict=True))  # [T, n]
        added = whole = np.zeros_like(true)
        if self.config.divergence != "none":
            added, whole = self._shape(rollout_buffer)
        if np.isfinite(true).all() and np.isfinite(proxy).all():
            for episode in self.ledger.add(true, proxy, added, whole, dones):
                self._note(episode)
        return True

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: Any = None) -> None:
        super()._update_info_buffer(infos, dones)
        self._told.append((*both_rewards(infos), np.array(dones)))

    def _note(self, metrics: Mapping[str, float]) -> None:
        self.tally.add({key: torch.tensor(value, dtype=torch.float64) for key, value in metrics.items()})

    def _roll_base(self, steps: int) -> Rollout:
        if self.ref_env is None:
            raise UserError(f"{self.name} needs environments for its base policy, expected ref_env= or env's name")
        if self._ref_observations is None:
            self.ref_env.seed(int(self.seed or 0) + 1_000_003)
            self._ref_observations = self.ref_env.reset()
            self._ref_starts, self.steps_before[1] = np.ones(self.n_envs, np.bool_), 0
        last = self._ref_observations, self._ref_starts
        found, self._ref_observations, self._ref_starts = roll(self.base, self.ref_env, steps, self.ref_noise, *last)
        return found

    def _shape(self, buffer: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Add to the buffer's rewards; returns what was added [T, n], clipped and not."""
        cfg, (steps, n) = self.config, buffer.rewards.shape
        other = self._roll_base(steps)
        flat = torch.as_tensor(buffer.observations.reshape(steps * n, *buffer.observations.shape[2:])).to(self.device)
        with torch.no_grad():
            now, before = self._distribution(flat), self.base.distribution(flat)
            if before is not None:
                for kind in ("kl", "chi2"):
                    self.tally.add({f"orpo/action_{kind}": action_divergence(now, before, kind).mean()})
        if np.isfinite(other.proxy).all():
            self._note({"ref/proxy_reward": other.proxy.mean(), "ref/true_reward": other.true.mean()})
            self._note({"ref/correlation": pearson(other.proxy, other.true)})
        if cfg.discriminates:
            values = self._discriminate(flat, buffer, other)
        else:  # in the loss, or here
            values = action_divergence(now, before, cfg.divergence).double() * (cfg.action_side == "reward")  # [T n]
        added = shaping(values, self.coefficient, cfg.clip)
        self.tally.add({"orpo/penalty": -added.mean(), "orpo/clipped": (added.abs() >= cfg.clip).double().mean()})
        self._note({"orpo/lambda": self.coefficient, "orpo/kl_coef": self.kl_coef})
        result = [x.cpu().numpy().reshape(steps, n) for x in (added, shaping(values, self.coefficient, float("inf")))]
        buffer.rewards += result[0]
        with torch.no_grad():
            last = self.policy.predict_values(torch.as_tensor(self._last_obs, device=self.device))
        buffer.compute_returns_and_advantage(last_values=last, dones=self._last_episode_starts)
        return result[0], result[1]

    def _discriminate(self, flat: Tensor, buffer: Any, other: Rollout) -> Tensor:
        """Train d on both batches; p [T n] of the policy's."""
        cfg, (steps, n) = self.config, buffer.rewards.shape
        seen = torch.as_tensor(other.observations.reshape(flat.shape)).to(self.device)
        policy, base = (
            discriminator_inputs(x, actions.reshape(steps * n, -1), self.action_space, cfg)
            for x, actions in ((flat, buffer.actions), (seen, other.actions))
        )
        weights: list[Tensor | None] = [None, None]
        for k, begun in enumerate((buffer.episode_starts > 0.5, other.starts)):
            t = episode_steps(begun, self.steps_before[k])  # [T, n]
            self.steps_before[k] = t[-1] + 1
            if cfg.gamma_weighting:
                weights[k] = torch.as_tensor(cfg.discount ** t.ravel(), dtype=torch.float32, device=self.device)
        with torch.no_grad():
            scores = self.discriminator(policy), self.discriminator(base)
            held_out = discriminator_loss(*scores, cfg.divergence, *weights)
        for first, second in self._pairs(steps * n):
            rows = [None if w is None else w[i] for w, i in zip(weights, (first, second), strict=True)]
            scores = self.discriminator(policy[first]), self.discriminator(base[second])
            loss = discriminator_loss(*scores, cfg.divergence, *rows)
            self.disc_optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.discriminator.parameters(), cfg.max_grad_norm)
            self.disc_optimiser.step()
            self.tally.add({"orpo/disc_loss": loss})
        with torch.no_grad():
            d, d_base = self.discriminator(policy), self.discriminator(base)
        found = penalty(d, cfg.divergence, cfg.trim, cfg.center)
        self.tally.add({"orpo/disc_heldout": held_out, **estimates(d, d_base)})
        self.tally.add({"orpo/chi2_trimmed": found.chi2, "orpo/floored": found.floored})
        return found.values

    def _pairs(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of π and of π_ref, half a minibatch of each."""
        half = max(self.config.batch_size // 2, 1)
        for _ in range(self.config.disc_epochs or self.config.n_epochs):
            orders = (torch.randperm(size, generator=self.order).to(self.device) for _ in range(2))
            yield from zip(*(order.split(half) for order in orders), strict=True)

    def train(self) -> None:
        """PPO's update, with the divergence from π_ref and the adaptive one from the policy before it."""
        cfg = self.config
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip_range = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        if cfg.target_kl_coef:
            if self._old is None:
                self._old = copy.deepcopy(self.policy).requires_grad_(False)
            self._old.load_state_dict(self.policy.state_dict())
        entropy_coef = self.ent_coef * (1 - (1 - cfg.entropy_end) * (1 - self._current_progress_remaining))
        weight = self.coefficient / (1 - cfg.discount)
        regularised = weight and cfg.divergence != "none" and cfg.measure == "action" and cfg.action_side == "loss"
        moved: list[Tensor] = []
        for _ in range(cfg.n_epochs):
            moved = []
            for batch in self.rollout_buffer.get(cfg.batch_size):
                actions = batch.actions
                if isinstance(self.action_space, spaces.Discrete):
                    actions = actions.long().flatten()  # [m]
                values, log_prob, entropy = self.policy.evaluate_actions(batch.observations, actions)
                advantages = batch.advantages  # [m]
                if len(advantages) > 1:
                    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
                ratio = torch.exp(log_prob - batch.old_log_prob)
                clipped = advantages * torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
                policy_loss = -torch.min(advantages * ratio, clipped).mean()
                value_loss = functional.mse_loss(batch.returns, values.flatten())
                entropy_loss = -torch.mean(-log_prob if entropy is None else entropy)
                loss = policy_loss + entropy_coef * entropy_loss + self.vf_coef * value_loss
                metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": -entropy_loss}
                if regularised:
                    now, base = self._distribution(batch.observations), self.base.distribution(batch.observations)
                    apart = action_divergence(now, base, cfg.divergence).mean()
                    loss = loss + weight * apart
                    metrics["base_divergence"] = apart
                if cfg.target_kl_coef:
                    old = self._old.get_distribution(batch.observations).distribution
                    kl = action_divergence(old, self._distribution(batch.observations), "kl").mean()
                    loss = loss + self.kl_coef * kl
                    moved.append(kl.detach())
                    metrics["kl_to_old"] = kl
                self.policy.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()
                self.tally.add({f"train/{key}": value for key, value in metrics.items()})
            self._n_updates += 1
        if moved:
            kl_mean = float(torch.stack(moved).mean())
            self.kl_coef *= 1.5 if kl_mean > 2 * cfg.target_kl else 0.5 if kl_mean < 0.5 * cfg.target_kl else 1.0
        fitted = explained_variance(self.rollout_buffer.values.flatten(), self.rollout_buffer.returns.flatten())
        self.logger.record("train/explained_variance", fitted)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _distribution(self, observations: Any) -> Any:
        return self.policy.get_distribution(observations).distribution

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        found = super().state_tensors()
        own: dict[str, Any] = {"ledger": self.ledger.sums, "steps_before": self.steps_before}
        if self._ref_observations is not None:
            state = self.ref_env.state() if isinstance(self.ref_env, StatefulVecEnv) else None
            if state is not None:
                own |= {f"ref_env.{key}": value for key, value in state.items()}
                own |= {"ref_observations": self._ref_observations, "ref_starts": self._ref_starts}
        return found | {f"orpo.{key}": torch.from_numpy(np.array(value)) for key, value in own.items()}

    def state_values(self) -> dict[str, Any]:
        return {**super().state_values(), "kl_coef": self.kl_coef}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().load_state(tensors, values)
        own = {key[5:]: value.numpy() for key, value in tensors.items() if key.startswith("orpo.")}
        self.kl_coef, self._ref_observations = values["kl_coef"], None
        held: dict[str, Any] = {"ledger": self.ledger.sums, "steps_before": self.steps_before}
        if "ref_observations" in own:
            assert self.ref_env is not None
            held |= {"ref_observations": self.ref_env.reset(), "ref_starts": np.ones(self.n_envs, np.bool_)}
        for name, like in held.items():
            if own[name].shape != like.shape or own[name].dtype != like.dtype:
                raise ArtefactError(
                    f"its '{name}' is {own[name].dtype} {list(own[name].shape)}, expected {list(like.shape)}"
                )
        self.ledger.sums, self.steps_before = own["ledger"].copy(), own["steps_before"].copy()
        if "ref_observations" in own:
            assert isinstance(self.ref_env, StatefulVecEnv)
            self.ref_env.load_state({key[8:]: value for key, value in own.items() if key.startswith("ref_env.")})
            self._ref_observations, self._ref_starts = own["ref_observations"].copy(), own["ref_starts"].copy()


# ---- base policies ---------------------------------------------------------------------------------------------------


def base_policy(source: Any, env: VecEnv, record: EnvRecord | None, config: ORPOConfig, seed: int = 0) -> BasePolicy:
    """π_ref for ``env``: "uniform", "scripted", "true-reward", an artefact's path, an agent, or a :class:`BasePolicy`.

    Raises UserError for "true-reward" without a ``record`` of the family hacking, an agent not of PPO's kind, or one
    for other spaces.
    """
    if source in ("uniform", "scripted"):
        source = built_in(source, env, config.ref_epsilon)
    elif source == "true-reward":
        if record is None or record.family != "hacking":
            raise UserError("agent.ref_policy=true-reward needs an environment of the family hacking, got another")
        record = replace(record, env_kwargs={**record.env_kwargs, "reward": "true"})
        settings = {**vars(config), "divergence": "none", "ref_policy": "uniform", "start": "random"}
        source = ORPO("MlpPolicy", record, seed=seed, device="cpu", **settings).learn(config.ref_steps)
    elif isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise UserError(
                f"agent.ref_policy={source} is unknown, expected uniform, scripted, true-reward or an artefact's path"
            )
        source = Persistent.load(source, device="cpu")
    if not isinstance(source, BasePolicy):
        source = BasePolicy.of(getattr(source, "policy", source), config.ref_epsilon)
    check_spaces(source, env.observation_space, env.action_space)
    if config.measure == "action" and not source.has_density:
        raise UserError("agent.measure=action needs a base policy with a density, got uniform over a box")
    return source


def calibrate(
    ref_policy: Any,
    env: Any,
    n: int,
    *,
    seed: int = 0,
    discount: float | None = None,
    n_envs: int = 10,
    **settings: Any,
) -> Calibration:
    """σ_R̃, mean size, and correlation of the proxy with the truth over ``n`` steps of π_ref.

    ``discount`` weights step t of an episode by γ^t, as the occupancy does.  ``settings`` are fields of
    :class:`ORPOConfig` that ``ref_policy`` needs, ``ref_epsilon`` for one.  Raises as :func:`base_policy`.
    """
    vector, record = training_env(env, n_envs)
    if record is not None:
        settings = {**presets(ORPO, record.name, record.task, record.family), **settings}
    base = base_policy(ref_policy, vector, record, make_config(ORPO, settings), seed)
    vector.seed(seed)
    starts = np.ones(vector.num_envs, np.bool_)
    generator = torch.Generator().manual_seed(seed)
    return moments(roll(base, vector, -(-n // vector.num_envs), generator, vector.reset(), starts)[0], discount)
