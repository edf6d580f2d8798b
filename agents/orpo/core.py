"""What ORPO is made of: its options, base policies, the discriminator, and what becomes of its scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence
from torch.nn import functional

from rlkit.algorithms.hyperparameters import AgentConfig
from rlkit.algorithms.nets import linear
from rlkit.errors import UserError

LARGEST = 100.0  # d is cut here before exp: classes that do not overlap must give a large penalty and not an infinity
FLOOR = 1e-3  # least χ² by which √χ² divides
ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU)


@dataclass(frozen=True)
class ORPOConfig(AgentConfig):
    """Hyperparameters of ORPO: the regulariser's, then PPO's."""

    ref_policy: str = "uniform"  # π_ref: uniform, scripted, true-reward (PPO for ref_steps), or an artefact
    ref_steps: int = 9_000  # steps of true-reward; more: a better base policy
    start: str = "random"  # the policy's first actor: random, or base: π_ref itself
    ref_epsilon: float = 0.0  # probability that π_ref acts at random; larger: wider support, worse base policy
    divergence: str = "sqrt_chi2"  # sqrt_chi2, chi2, kl, tv, or none for PPO on the proxy
    measure: str = "state_action"  # state_action, state, or action for divergences of action distributions
    coef: float = 1.0  # λ in units of scale; larger: nearer to π_ref, negative: away from it
    scale: str = "sigma"  # λ is coef times the proxy's deviation under π_ref (sigma), its mean size (mean), or 1 (none)
    clip: float = 1000.0  # B, bound of what is added to a reward
    trim: float = 0.01  # share of each tail left out of χ²
    center: bool = True  # subtract 1 from e^d; False: the paper's form, a bonus for dying where episodes end early
    gamma_weighting: bool = False  # weight the discriminator's samples by γ^t, as occupancies are defined
    action_side: str = "loss"  # where measure=action acts: loss or reward
    disc_features: Sequence[int] | None = None  # entries of the flat observation that d sees; all where None
    disc_hidden_sizes: Sequence[int] = (256, 256)  # widths of d
    disc_epochs: int = 0  # passes of d over a batch, 0: as many as PPO's; more: d fits sooner and overfits
    calibration_steps: int = 10_000  # steps of π_ref from which σ is measured
    target_kl_coef: float = 0.2  # first weight of KL(π_old ‖ π), adapted to target_kl; 0: none
    target_kl: float = 0.01  # KL of an update above twice (below half) of which that weight grows (shrinks)
    learning_rate: float = 3e-4  # of policy and discriminator; larger: faster and less stable
    n_envs: int = 8  # environments, and as many of π_ref
    n_steps: int = 256  # steps of each per iteration; more: better estimates, rarer updates
    batch_size: int = 128  # of a minibatch
    n_epochs: int = 8  # passes over a batch; more: further from the policy that made it
    hidden_sizes: Sequence[int] = (64, 64)  # widths of the policy and, apart, of its value
    log_std_init: float = 0.0  # logarithm of the first deviation of continuous actions
    discount: float = 0.99  # larger: longer horizon
    gae_lambda: float = 0.95  # larger: less biased, noisier advantages
    clip_range: float = 0.2  # PPO's; larger: longer steps
    entropy_coef: float = 0.0  # larger: more random policy
    entropy_end: float = 1.0  # entropy_coef goes linearly to this share of itself; smaller: less random at the end
    value_coef: float = 0.5  # weight of the value loss
    max_grad_norm: float = 0.5  # of policy and discriminator

    POSITIVE: ClassVar[tuple[str, ...]] = (
        *("ref_steps", "clip", "calibration_steps", "target_kl", "learning_rate", "n_envs", "n_steps"),
        *("batch_size", "n_epochs", "clip_range", "max_grad_norm"),
    )
    NON_NEGATIVE: ClassVar[tuple[str, ...]] = ("disc_epochs", "target_kl_coef", "entropy_coef", "value_coef")
    UNIT: ClassVar[tuple[str, ...]] = ("ref_epsilon", "trim", "discount", "gae_lambda", "entropy_end")

    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {
        "divergence": ("sqrt_chi2", "chi2", "kl", "tv", "none"),
        "measure": ("state_action", "state", "action"),
        "scale": ("sigma", "mean", "none"),
        "action_side": ("loss", "reward"),
        "start": ("random", "base"),
    }

    def __post_init__(self) -> None:
        self._widths("hidden_sizes")
        self._widths("disc_hidden_sizes")
        if self.disc_features is not None:
            object.__setattr__(self, "disc_features", tuple(int(i) for i in self.disc_features))
        super().__post_init__()
        self._require("trim", self.trim < 0.5, "a share below one half")
        self._require("discount", self.discount < 1, "a number below 1")
        self._require("batch_size", self.batch_size > 1, "at least 2, for advantages are standardised")
        size, least = self.n_envs * self.n_steps, 1 / self.trim if self.trim else 2
        if self.discriminates and size < least - 1e-9:
            raise UserError(
                f"agent.n_envs * agent.n_steps = {size} samples are too few for the discriminator to trim "
                f"agent.trim={self.trim} of each tail, expected at least {np.ceil(least):.0f}"
            )

    @property
    def discriminates(self) -> bool:
        return self.divergence != "none" and self.measure != "action"


# ---- the discriminator -----------------------------------------------------------------------------------------------


class Discriminator(nn.Module):
    """d(s, a), whose optimum is ln(μ_π/μ_ref): LeakyReLU layers, linear at the end.  No hidden width: logistic."""

    def __init__(self, inputs: int, hidden: Sequence[int], generator: torch.Generator):
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([inputs, *hidden, 1]):
            layers += [linear(width_in, width_out, generator), nn.LeakyReLU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, x: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        return self.net(x).squeeze(1)


def discriminator_loss(
    d_policy: Float[Tensor, " n"],
    d_base: Float[Tensor, " m"],
    divergence: str,
    weights_policy: Float[Tensor, " n"] | None = None,
    weights_base: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, ""]:
    """E_π softplus(-d) + E_ref softplus(d); for TV E_ref tanh d - E_π tanh d + 0.01 E d².  Class means, so that the
    classes count alike; with weights (γ^t) means of weight one."""
    if divergence == "tv":
        policy = -torch.tanh(d_policy) + 0.01 * d_policy.square()  # [n]
        base = torch.tanh(d_base) + 0.01 * d_base.square()  # [m]
    else:
        policy, base = functional.softplus(-d_policy), functional.softplus(d_base)
    if weights_policy is None or weights_base is None:
        return policy.mean() + base.mean()
    return (weights_policy * policy).sum() / weights_policy.sum() + (weights_base * base).sum() / weights_base.sum()


def trimmed_mean(x: Float[Tensor, " n"], trim: float) -> Float[Tensor, ""]:
    """Mean without the share ``trim`` of each tail."""
    k = int(trim * len(x))
    return x.sort().values[k : len(x) - k].mean()


def discriminator_inputs(
    observations: Tensor, actions: NDArray[Any], space: spaces.Space, config: ORPOConfig
) -> Tensor:
    """What d sees of observations [m, ...] and actions [m, da] (or [m, 1], discrete): float32 [m, inputs]."""
    x = observations.flatten(1).float()  # [m, ds]
    if config.disc_features is not None:
        x = x[:, list(config.disc_features)]
    if config.measure == "state":
        return x
    if isinstance(space, spaces.Discrete):
        taken = functional.one_hot(torch.as_tensor(actions).long()[:, 0], int(space.n))  # [m, A]
    else:
        assert isinstance(space, spaces.Box)
        taken = torch.as_tensor(np.clip(actions, space.low.ravel(), space.high.ravel()))  # [m, da]
    return torch.cat([x, taken.to(x)], dim=1)


def input_size(observation_space: spaces.Space, space: spaces.Space, config: ORPOConfig) -> int:
    """How many numbers :func:`discriminator_inputs` gives.  Raises UserError for features that are not there."""
    size = int(np.prod(observation_space.shape or ()))
    if config.disc_features is not None:
        if not all(0 <= i < size for i in config.disc_features):
            raise UserError(f"agent.disc_features={list(config.disc_features)} exceed the observation's {size} entries")
        size = len(config.disc_features)
    if config.measure == "state":
        return size
    return size + (int(space.n) if isinstance(space, spaces.Discrete) else int(np.prod(space.shape or ())))


def estimates(d: Float[Tensor, " n"], d_base: Float[Tensor, " m"]) -> dict[str, Tensor]:
    """KL, χ² and TV of μ_π from μ_ref, as the discriminator has them."""
    chi2 = d.double().clamp(max=30.0).exp().mean() - 1
    return {"orpo/kl": d.mean(), "orpo/chi2": chi2, "orpo/tv": 0.5 * (d.sign().mean() - d_base.sign().mean())}


class Penalty(NamedTuple):
    """values [n]: ∂D/∂μ of each sample, up to a constant; chi2: E_π[e^d - 1] without its tails; floored: 1 or 0."""

    values: Float[Tensor, " n"]
    chi2: Float[Tensor, ""]
    floored: Float[Tensor, ""]


def penalty(d: Float[Tensor, " n"], divergence: str, trim: float = 0.01, center: bool = True) -> Penalty:
    """p of each sample of π, float64: d for KL, e^d - 1 for χ² (half its gradient), (e^d - 1)/√c for √χ², sign d (TV).

    c is the trimmed χ²; where it is not positive √χ² is left unscaled, below 1e-3 it counts as 1e-3.  ``center`` False
    leaves the 1 out, as in the paper; where episodes end early that is a bonus for dying.
    """
    d = d.double().clamp(max=LARGEST)
    ratio = d.exp()
    chi2 = trimmed_mean(ratio - 1, trim)
    floored = ((chi2 > 0) & (chi2 < FLOOR)).double()
    excess = ratio - 1 if center else ratio
    if divergence == "kl":
        values = d
    elif divergence == "tv":
        values = d.sign()
    elif divergence == "chi2":
        values = excess
    else:
        values = excess / torch.where(chi2 > 0, chi2.clamp_min(FLOOR), torch.ones_like(chi2)).sqrt()
    return Penalty(values, chi2, floored)


def shaping(values: Float[Tensor, " n"], coefficient: float, clip: float) -> Float[Tensor, " n"]:
    """clip(-λp, ±B), 0 where p is not finite: what is added to the proxy reward."""
    finite = torch.where(values.isfinite(), values, torch.zeros_like(values))
    return (-coefficient * finite).clamp(-clip, clip)


# ---- divergences of action distributions -----------------------------------------------------------------------------


def action_divergence(policy: Any, base: Any, kind: str) -> Float[Tensor, " n"]:
    """D(π(·|s) ‖ π_ref(·|s)) of each state; both Categorical [n, A] or both Normal [n, da].

    √χ² is √max(χ², 1e-4).  χ² of Gaussians: Π σ_q²/(σ_p √v) exp(Δ²/v) - 1 with v = 2σ_q² - σ_p²; where it is infinite,
    KL.  Raises UserError for TV of Gaussians.
    """
    if isinstance(policy, Categorical):
        p, q = policy.probs, base.probs.clamp_min(1e-8)  # [n, A]
        if kind == "kl":
            return (p * (p.clamp_min(1e-8).log() - q.log())).sum(1)
        if kind == "tv":
            return 0.5 * (p - q).abs().sum(1)
        chi2 = ((p - q).square() / q).sum(1)
    else:
        if kind == "tv":
            raise UserError("divergence=tv with measure=action needs discrete actions, expected another divergence")
        kl = kl_divergence(policy, base).sum(1)
        if kind == "kl":
            return kl
        v = 2 * base.variance - policy.variance  # [n, da]
        finite = (v > 0).all(1)
        v = v.where(v > 0, torch.ones_like(v))
        scale = 2 * base.stddev.log() - policy.stddev.log() - 0.5 * v.log()  # [n, da]
        exponent = (scale + (policy.mean - base.mean).square() / v).sum(1)
        chi2 = torch.where(finite & (exponent < LARGEST / 2), exponent.clamp(max=LARGEST / 2).exp() - 1, kl)
    return chi2.clamp_min(1e-4).sqrt() if kind == "sqrt_chi2" else chi2


# ---- base policies ---------------------------------------------------------------------------------------------------


class BasePolicy(nn.Module):
    """π_ref, frozen: a multilayer actor, or uniformly random where ``sizes`` is empty.

    sizes: widths from observation to output.  epsilon: probability of a uniform action instead (discrete ones only).
    under: a policy to whose means or logarithms of probabilities the layers' output is added.
    """

    activation: Tensor
    epsilon: Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        sizes: Sequence[int] = (),
        activation: int = 0,
        epsilon: float = 0.0,
        under: BasePolicy | None = None,
    ):
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.discrete = isinstance(action_space, spaces.Discrete)
        if not self.discrete and epsilon:
            raise UserError(f"agent.ref_epsilon={epsilon} needs discrete actions, got {action_space}")
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(sizes):
            layers += [nn.utils.skip_init(nn.Linear, width_in, width_out), ACTIVATIONS[activation]()]
        self.net = nn.Sequential(*layers[:-1])
        self.under = under
        self.log_std = nn.Parameter(torch.zeros(sizes[-1] if sizes and not self.discrete else 0))
        self.register_buffer("activation", torch.tensor(activation))
        self.register_buffer("epsilon", torch.tensor(epsilon, dtype=torch.float64))
        self.requires_grad_(False)

    @staticmethod
    def of(policy: Any, epsilon: float = 0.0) -> BasePolicy:
        """The actor inside ``policy``, an SB3 actor-critic over a flat observation.  Raises UserError for others."""
        known = isinstance(policy, ActorCriticPolicy) and isinstance(policy.features_extractor, FlattenExtractor)
        hidden: Any = policy.mlp_extractor.policy_net if known else []
        last: Any = policy.action_net if known else None
        under = hidden.base if isinstance(hidden, Above) else None
        if under is not None:
            hidden, last = hidden.net, last.linear
        layers = list(hidden)
        kinds = {type(layer) for layer in layers[1::2]}
        plain = known and not policy.use_sde and len(kinds) <= 1 and kinds <= set(ACTIVATIONS)
        if not plain or not isinstance(policy.action_space, (spaces.Box, spaces.Discrete)):
            raise UserError(f"the base policy is a {type(policy).__name__}, expected PPO's or A2C's MlpPolicy")
        linears = [*layers[::2], last]
        sizes = [linears[0].in_features, *(layer.out_features for layer in linears)]
        activation = ACTIVATIONS.index(kinds.pop()) if kinds else 0
        found = BasePolicy(policy.observation_space, policy.action_space, sizes, activation, epsilon, under)
        for target, source in zip(list(found.net)[::2], linears, strict=True):
            target.load_state_dict(source.state_dict())
        if not found.discrete:
            found.log_std.copy_(policy.log_std)
        return found

    def into(self, policy: Any) -> None:
        """Make ``policy``'s actor this one: its weights where the layers are alike, else by :func:`put_under`.

        Raises UserError where there is no density to begin from.
        """
        if not self.has_density:
            raise UserError("agent.start=base needs a base policy with a density, got uniform over a box")
        own, linears = list(self.net)[::2], [*list(policy.mlp_extractor.policy_net)[::2], policy.action_net]
        tanh = ACTIVATIONS[int(self.activation)] is nn.Tanh or len(own) == 1  # SB3's default, which the policy has
        plain = self.under is None and not self.epsilon and tanh
        if plain and [x.weight.shape for x in own] == [x.weight.shape for x in linears]:
            for target, source in zip(linears, own, strict=True):
                target.load_state_dict(source.state_dict())
        else:
            put_under(policy, self)
            for parameter in policy.action_net.linear.parameters():
                parameter.data.zero_()
        if not self.discrete:
            policy.log_std.data.copy_(self.log_std)

    def like(self, tensors: Mapping[str, Tensor]) -> BasePolicy:
        """One for the same spaces, as large as ``tensors`` (of a ``state_dict``) say, its weights not yet loaded."""
        below = {key[6:]: value for key, value in tensors.items() if key.startswith("under.")}
        own = sorted((key for key in tensors if key.startswith("net.")), key=lambda name: (len(name), name))
        shapes = [tensors[key].shape for key in own if key.endswith(".weight")]
        sizes = [shapes[0][1], *(shape[0] for shape in shapes)] if shapes else []
        kind, epsilon = int(tensors["activation"]), float(tensors["epsilon"])
        under = self.like(below) if below else None
        return BasePolicy(self.observation_space, self.action_space, sizes, kind, epsilon, under)

    @property
    def has_density(self) -> bool:
        return self.discrete or len(self.net) > 0

    def distribution(self, observations: Tensor) -> Any:
        """Categorical [n, A] or Normal [n, da] at observations [n, ...]; None for uniformly random boxes."""
        x = observations.flatten(1).float()  # [n, ds]
        if self.discrete:
            n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
            uniform = torch.full((len(x), n_actions), 1 / n_actions, device=x.device)  # [n, A]
            if not len(self.net):
                return Categorical(probs=uniform)
            logits = self.net(x) if self.under is None else self.net(x) + self.under.distribution(x).logits
            probabilities = logits.softmax(1)
            epsilon = self.epsilon.to(probabilities)
            return Categorical(probs=(1 - epsilon) * probabilities + epsilon * uniform)
        if not len(self.net):
            return None
        mean = self.net(x) if self.under is None else self.net(x) + self.under.distribution(x).mean
        return Normal(mean, self.log_std.exp().expand(len(x), -1))

    @torch.no_grad()
    def sample(self, observations: Tensor, generator: torch.Generator) -> NDArray[Any]:
        """Actions to step with, int64 [n] or float32 [n, da] within the box."""
        found = self.distribution(observations)
        n = len(observations)
        if self.discrete:
            return torch.multinomial(found.probs.cpu(), 1, generator=generator)[:, 0].numpy()
        low, high = (torch.as_tensor(side) for side in (self.action_space.low, self.action_space.high))  # type: ignore[attr-defined]
        shape = (n, *low.shape)
        if found is None:
            return (low + (high - low) * torch.rand(shape, generator=generator)).numpy()
        draws = found.mean.cpu() + found.stddev.cpu() * torch.randn(found.mean.shape, generator=generator)
        return draws.reshape(shape).clamp(low, high).numpy()


class Above(nn.Module):
    """An actor's hidden layers ``net`` with what ``base`` has as means or logits behind their output."""

    def __init__(self, net: nn.Module, base: BasePolicy):
        super().__init__()
        self.net, self.base = net, base

    def forward(self, x: Float[Tensor, "n ds"]) -> Float[Tensor, "n width"]:
        found = self.base.distribution(x)
        return torch.cat([self.net(x), found.logits if self.base.discrete else found.mean], dim=1)


class Sum(nn.Module):
    """The last layer of an actor over :class:`Above`: ``linear`` of the hidden layers' output plus the base's."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear = linear

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n outputs"]:
        own, base = x.split([self.linear.in_features, self.linear.out_features], dim=1)
        return self.linear(own) + base


def put_under(policy: Any, base: BasePolicy | None) -> None:
    """Have ``policy``'s actor, SB3's, add its output to frozen ``base``'s; with None take away what is there."""
    hidden, last = policy.mlp_extractor.policy_net, policy.action_net
    if isinstance(hidden, Above):
        hidden, last = hidden.net, last.linear
    if base is not None:
        hidden, last = Above(hidden, base), Sum(last)
    policy.mlp_extractor.policy_net, policy.action_net = hidden, last


def built_in(name: str, env: VecEnv, epsilon: float) -> BasePolicy:
    """π_ref "uniform", or "scripted", the environment's: weights and bias of each layer (tanh between), deviations.

    Raises UserError for uniform actions without bounds, or an environment that brings none.
    """
    seen, done = env.observation_space, env.action_space
    if name == "uniform":
        if isinstance(done, spaces.Box) and not done.is_bounded():
            raise UserError(f"agent.ref_policy=uniform needs bounded actions, got {done}")
        return BasePolicy(seen, done, epsilon=epsilon)
    try:
        *layers, deviation = (torch.as_tensor(x) for x in env.env_method("scripted_policy", indices=0)[0])
    except AttributeError as error:
        raise UserError("agent.ref_policy=scripted needs an environment with a scripted policy, got another") from error
    found = BasePolicy(seen, done, [layers[0].shape[1], *map(len, layers[1::2])], epsilon=epsilon)
    for target, source in zip(found.net.parameters(), layers, strict=True):
        target.copy_(source)
    found.log_std.copy_(deviation.log())
    return found


def check_spaces(base: BasePolicy, observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Raise :class:`UserError` where the base policy is one for other spaces."""
    for role, own, other in (
        ("observation", base.observation_space, observation_space),
        ("action", base.action_space, action_space),
    ):
        if own != other:
            raise UserError(f"the base policy's {role} space is {own}, expected the environment's {other}")


# ---- roll-outs of the base policy ------------------------------------------------------------------------------------


class Rollout(NamedTuple):
    """T steps of n environments.  observations [T, n, ...], actions [T, n, ...]; starts: whether an episode begins with
    the observation; rewards, true, proxy [T, n], the latter two NaN where ``info`` has none."""

    observations: NDArray[Any]
    actions: NDArray[Any]
    starts: NDArray[np.bool_]
    rewards: NDArray[np.float64]
    true: NDArray[np.float64]
    proxy: NDArray[np.float64]


def both_rewards(infos: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """True and proxy reward of each environment, NaN where it tells none."""
    nan = float("nan")
    return [float(i.get("true_reward", nan)) for i in infos], [float(i.get("proxy_reward", nan)) for i in infos]


def roll(
    base: BasePolicy, env: VecEnv, steps: int, generator: torch.Generator, observations: Any, starts: Any
) -> tuple[Rollout, Any, Any]:
    """``steps`` steps of each environment; also the observations and starts to go on from."""
    device = base.activation.device
    rows: list[tuple[Any, ...]] = []
    for _ in range(steps):
        actions = base.sample(torch.as_tensor(observations, device=device), generator)
        following, rewards, dones, infos = env.step(actions)
        rows.append(
            (np.array(observations), actions, np.array(starts), rewards.astype(np.float64), *both_rewards(infos))
        )
        observations, starts = following, dones
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Rollout(*columns), observations, starts


def episode_steps(starts: NDArray[np.bool_], before: NDArray[np.int64]) -> NDArray[np.int64]:
    """t of every step [T, n] within its episode; ``before`` [n] are the steps that came earlier."""
    found = np.empty(starts.shape, np.int64)
    at = before - 1
    for row, start in zip(found, starts, strict=True):
        at = np.where(start, 0, at + 1)
        row[:] = at
    return found


@dataclass(frozen=True)
class Calibration:
    """Moments of the rewards per step under π_ref."""

    sigma: float  # standard deviation of the proxy
    mean: float  # mean of its absolute value
    correlation: float  # Pearson's of proxy and true reward over all steps, as defined; 0 where one is constant
    within: float  # mean over episodes of Pearson's inside an episode, what the authors' code takes

    @property
    def coefficient(self) -> float:
        """σ √(1 - r²), the λ of the bound."""
        return self.sigma * max(1 - self.correlation**2, 0.0) ** 0.5


def pearson(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> float:
    """Correlation of two samples; 0 where one is constant or not a number."""
    w = np.ones(x.shape) if weights is None else weights
    w = w / w.sum()
    x, y = x - (w * x).sum(), y - (w * y).sum()
    scale = np.sqrt((w * x * x).sum() * (w * y * y).sum())
    return float((w * x * y).sum() / scale) if scale > 1e-12 else 0.0


def moments(rollout: Rollout, discount: float | None = None) -> Calibration:
    """Of a roll-out whose first step begins episodes; ``discount`` weights step t of an episode by γ^t."""
    told = bool(np.isfinite(rollout.proxy).all() and np.isfinite(rollout.true).all())
    proxy = rollout.proxy if told else rollout.rewards
    true = rollout.true if told else np.zeros_like(rollout.rewards)
    steps = episode_steps(rollout.starts, np.zeros(proxy.shape[1], np.int64))
    weights = np.ones(proxy.shape) if discount is None else discount**steps
    weights = weights / weights.sum()
    mean = (weights * proxy).sum()
    inside = []
    for i in range(proxy.shape[1]):
        for part in np.split(np.arange(len(proxy)), np.flatnonzero(rollout.starts[1:, i]) + 1):
            inside.append(pearson(proxy[part, i], true[part, i]))
    sigma = float(np.sqrt((weights * (proxy - mean) ** 2).sum()))
    return Calibration(
        sigma, float((weights * abs(proxy)).sum()), pearson(proxy, true, weights), float(np.mean(inside))
    )


class Ledger:
    """Sums of rewards, their squares and product, and of what was added to them, over the episodes that are running."""

    def __init__(self, n: int):
        self.sums = np.zeros((8, n))

    def add(
        self,
        true: NDArray[np.float64],
        proxy: NDArray[np.float64],
        added: NDArray[np.float64],
        unclipped: NDArray[np.float64],
        dones: NDArray[np.bool_],
    ) -> list[dict[str, float]]:
        """Add steps [T, n]; returns the figures of each episode that ended: undiscounted sums, and Pearson's
        correlation of its true and proxy rewards where neither was constant."""
        found = []
        for x, y, clipped, whole, done in zip(true, proxy, added, unclipped, dones, strict=True):
            self.sums += np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y, clipped, whole])
            for i in np.flatnonzero(done):
                n, sx, sy, sxx, syy, sxy, shaped, unshaped = self.sums[:, i].tolist()
                entry = {"rollout/true_return": sx, "rollout/proxy_return": sy}
                entry |= {"rollout/shaped_return": sy + shaped, "rollout/unclipped_return": sy + unshaped}
                spread, variance = n * sxx - sx * sx, n * syy - sy * sy
                if spread > 1e-9 * n * sxx and variance > 1e-9 * n * syy:
                    entry["rollout/correlation"] = (n * sxy - sx * sy) / (spread * variance) ** 0.5
                found.append(entry)
                self.sums[:, i] = 0.0
        return found
