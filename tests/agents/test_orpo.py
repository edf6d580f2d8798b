"""ORPO: its discriminator against exact divergences, shaping by hand, PPO as its limit, hacking on a small board."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import occupancy as exact
import pytest
import torch
from garden import UP, toy
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from tomato_table import tabulate
from torch import Tensor
from torch.distributions import Categorical, Normal

from rlkit.agents.orpo.core import (
    BasePolicy,
    Discriminator,
    Ledger,
    ORPOConfig,
    Rollout,
    action_divergence,
    discriminator_loss,
    episode_steps,
    moments,
    penalty,
    put_under,
    roll,
    shaping,
)
from rlkit.agents.orpo.orpo import ORPO, base_policy, calibrate
from rlkit.algorithms.hyperparameters import AgentConfig
from rlkit.algorithms.online import OnlineAlgorithm, training_env
from rlkit.envs.hacking.tomato import TomatoEnv
from rlkit.errors import UserError
from rlkit.registry import EnvRecord, add_records

TOY = EnvRecord(
    "toy-garden", "a small garden", "rlkit/Tomato-v0", "hacking", "toy", env_kwargs={"level": "toy", "horizon": 20}
)
add_records([TOY])
SMALL: dict[str, Any] = {
    "device": "cpu",
    "n_envs": 4,
    "n_steps": 30,
    "batch_size": 60,
    "n_epochs": 2,
    "hidden_sizes": (16,),
    "disc_hidden_sizes": (16,),
    "calibration_steps": 200,
    "learning_rate": 3e-3,
}


# ---- the discriminator -----------------------------------------------------------------------------------------------


def samples(seed: int, n: int) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """One-hot draws of the toy's two occupancies, [n, S A] each, and the occupancies [S A]."""
    mu, nu, _, _ = toy()
    rng = np.random.default_rng(seed)
    drawn = [torch.from_numpy(rng.choice(mu.size, n, p=p.ravel())) for p in (mu, nu)]
    first, second = (torch.nn.functional.one_hot(x, mu.size).float() for x in drawn)
    return first, second, mu.ravel(), nu.ravel()


def fit(d: Discriminator, policy: Tensor, base: Tensor, divergence: str, steps: int, lr: float = 0.05) -> None:
    optimiser = torch.optim.Adam(d.parameters(), lr)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimiser.zero_grad()
        discriminator_loss(d(policy), d(base), divergence).backward()
        optimiser.step()


def test_a_logistic_discriminator_finds_the_toys_divergences() -> None:
    first, second, mu, nu = samples(0, 30_000)
    kinds, counts = torch.unique(torch.cat([first, second]), dim=0, return_inverse=True)
    weights = [torch.bincount(part, minlength=len(kinds)).float() for part in counts.split(30_000)]
    d = Discriminator(mu.size, (), torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(d.parameters(), 0.1)
    for _ in range(400):  # the full batch, each distinct pair once with its counts as weights
        optimiser.zero_grad()
        scores = d(kinds)
        discriminator_loss(scores, scores, "kl", *weights).backward()
        optimiser.step()
    with torch.no_grad():
        scores = d(first).double()
    assert scores.mean().item() == pytest.approx(exact.divergence(mu, nu, "kl"), rel=0.05)
    assert (scores.exp().mean().item() - 1) == pytest.approx(exact.divergence(mu, nu, "chi2"), rel=0.10)


def test_a_deep_discriminator_finds_the_log_ratio() -> None:
    mu, nu, _, _ = toy()
    held = torch.from_numpy((mu > 0.01).ravel())
    d = Discriminator(mu.size, (64, 64), torch.Generator().manual_seed(0))
    everything = torch.eye(mu.size)
    optimiser = torch.optim.Adam(d.parameters(), 3e-3)
    weights = [torch.from_numpy(x.ravel()).float() for x in (mu, nu)]
    for _ in range(500):
        optimiser.zero_grad()
        scores = d(everything)
        discriminator_loss(scores, scores, "kl", *weights).backward()
        optimiser.step()
    ratio = torch.from_numpy(np.log(mu / nu).ravel())
    assert (d(everything) - ratio)[held].abs().max() < 0.3


def test_equal_policies_are_not_told_apart() -> None:
    mu, _, _, _ = toy()
    rng = np.random.default_rng(0)
    first, second = (
        torch.nn.functional.one_hot(torch.from_numpy(rng.choice(mu.size, 30_000, p=mu.ravel())), mu.size).float()
        for _ in range(2)
    )
    d = Discriminator(mu.size, (), torch.Generator().manual_seed(0))
    fit(d, first, second, "kl", 60)
    assert abs(d(first).mean().item()) < 0.02


def test_tv_tells_signs() -> None:
    first, second, mu, nu = samples(1, 3_000)
    d = Discriminator(mu.size, (), torch.Generator().manual_seed(0))
    fit(d, first, second, "tv", 150)
    with torch.no_grad():
        found = 0.5 * (d(first).sign().mean() - d(second).sign().mean())
    assert found.item() == pytest.approx(exact.divergence(mu, nu, "tv"), abs=0.03)


# ---- shaping ---------------------------------------------------------------------------------------------------------


def test_penalties_by_hand() -> None:
    d = torch.log(torch.tensor([0.5, 1.0, 2.0, 4.5]))
    ratios = torch.tensor([0.5, 1.0, 2.0, 4.5], dtype=torch.float64)
    torch.testing.assert_close(penalty(d, "kl", 0.0).values, ratios.log())
    torch.testing.assert_close(penalty(d, "chi2", 0.0).values, ratios - 1)
    found = penalty(d, "sqrt_chi2", 0.0)
    assert found.chi2.item() == pytest.approx(1.0)
    torch.testing.assert_close(found.values, ratios - 1)
    torch.testing.assert_close(penalty(d, "sqrt_chi2", 0.25).values, (ratios - 1) / 0.5**0.5)  # of the middle two
    torch.testing.assert_close(penalty(d, "sqrt_chi2", 0.0, center=False).values, ratios)
    assert penalty(d, "tv").values.tolist() == [-1, 0, 1, 1]
    torch.testing.assert_close(shaping(ratios, 0.5, 1.2), torch.tensor([-0.25, -0.5, -1, -1.2], dtype=torch.float64))
    broken = torch.tensor([math.nan, math.inf, 1.0], dtype=torch.float64)
    assert shaping(broken, 2.0, 10.0).tolist() == [0, 0, -2]


def test_where_chi2_is_tiny_or_negative() -> None:
    low = penalty(torch.full((200,), -0.1), "sqrt_chi2")
    assert low.chi2 < 0 and low.values[0].item() == pytest.approx(math.expm1(-0.1)) and low.floored == 0
    tiny = penalty(torch.full((200,), 1e-5), "sqrt_chi2")
    assert tiny.floored == 1 and tiny.values[0].item() == pytest.approx(1e-5 / 1e-3**0.5, rel=1e-2)


@pytest.mark.parametrize("divergence", exact.DIVERGENCES)
def test_disjoint_supports_give_a_finite_clipped_penalty(divergence: str) -> None:
    for scale in (10.0, 1e3, 1e30):
        added = shaping(penalty(torch.full((150,), scale), divergence).values, 0.5, 1.0)
        assert added.isfinite().all() and (added < 0).all() and (added >= -1).all()


def test_small_batches_are_not_silently_unpunished() -> None:
    for n in (2, 50, 99):
        found = penalty(torch.linspace(-1, 3, n), "sqrt_chi2")
        assert found.chi2.isfinite() and found.values.isfinite().all() and found.values.max() > 0


def test_episode_steps_go_on_across_batches() -> None:
    starts = np.array([[True, False], [False, False], [True, False], [False, True]])
    assert episode_steps(starts, np.array([0, 7])).tolist() == [[0, 7], [1, 8], [0, 9], [1, 0]]


# ---- divergences of actions ------------------------------------------------------------------------------------------


def test_action_divergences_are_the_exact_ones() -> None:
    mu, _, policy, base = toy()
    p, q = (Categorical(probs=torch.from_numpy(x)) for x in (policy, base))
    for kind in ("kl", "chi2", "tv"):
        found = action_divergence(p, q, kind)  # [S]
        assert float((found.numpy() * mu.sum(1)).sum()) == pytest.approx(
            exact.action_divergence(mu, policy, base, kind)
        )
    assert action_divergence(q, q, "sqrt_chi2").max().item() == pytest.approx(0.01)  # its floor


def test_gaussian_divergences_by_quadrature() -> None:
    p, q = Normal(torch.tensor([[0.3]]), torch.tensor([[0.5]])), Normal(torch.tensor([[0.0]]), torch.tensor([[0.7]]))
    x = torch.linspace(-9, 9, 40_001).double()[:, None]
    densities = [torch.exp(n.log_prob(x)) for n in (p, q)]
    step = 18 / 40_000
    chi2 = ((densities[0] - densities[1]).square() / densities[1]).sum() * step
    kl = (densities[0] * (p.log_prob(x) - q.log_prob(x))).sum() * step
    assert action_divergence(p, q, "chi2").item() == pytest.approx(chi2.item(), rel=1e-4)
    assert action_divergence(p, q, "kl").item() == pytest.approx(kl.item(), rel=1e-4)
    wide = Normal(torch.tensor([[0.0]]), torch.tensor([[1.0]]))  # χ² is infinite: σ_p² > 2σ_q²
    assert action_divergence(wide, q, "chi2").item() == pytest.approx(action_divergence(wide, q, "kl").item())
    with pytest.raises(UserError, match="needs discrete actions"):
        action_divergence(p, q, "tv")


# ---- base policies and their moments ---------------------------------------------------------------------------------


def test_a_base_policy_is_the_actor_it_is_made_of() -> None:
    agent = ORPO("MlpPolicy", TOY, seed=2, divergence="none", **SMALL)
    base = BasePolicy.of(agent.policy, epsilon=0.25)
    observations = torch.from_numpy(tabulate("toy").observations)
    observations = torch.cat([observations, torch.zeros(len(observations), 1)], dim=1)  # [S, k]
    own = agent.policy.get_distribution(observations).distribution.probs
    torch.testing.assert_close(base.distribution(observations).probs, 0.75 * own + 0.05)
    again = base.like(base.state_dict())
    again.load_state_dict(base.state_dict())
    assert torch.equal(again.distribution(observations).probs, base.distribution(observations).probs)
    drawn = np.concatenate([base.sample(observations, torch.Generator().manual_seed(s)) for s in range(300)])
    share = (drawn.reshape(300, -1) == UP).mean(axis=0)
    assert np.abs(share - base.distribution(observations).probs[:, UP].numpy()).max() < 0.12


def test_continuous_base_policies_stay_in_their_box() -> None:
    box = spaces.Box(-1, 1, (2,), np.float32)
    seen = spaces.Box(-1, 1, (3,), np.float32)
    drawn = BasePolicy(seen, box).sample(torch.zeros(4000, 3), torch.Generator().manual_seed(0))
    assert drawn.dtype == np.float32 and np.abs(drawn).max() <= 1 and drawn.std() == pytest.approx(3**-0.5, abs=0.02)
    env = DummyVecEnv([lambda: gym.make("InvertedPendulum-v5")])
    agent = PPO("MlpPolicy", env, policy_kwargs={"net_arch": [8], "log_std_init": 2.0}, device="cpu")
    base = base_policy(agent, env, None, ORPOConfig())
    actions = base.sample(torch.zeros(500, 4), torch.Generator().manual_seed(0))
    assert np.abs(actions).max() == env.action_space.high[0] and len(np.unique(actions)) > 100
    again = base.like(base.state_dict())
    again.load_state_dict(base.state_dict())
    assert torch.equal(again.distribution(torch.ones(1, 4)).mean, base.distribution(torch.ones(1, 4)).mean)
    assert again.log_std.item() == 2.0


def test_the_scripted_policy_of_glucose_keeps_the_patient_alive() -> None:
    env, record = training_env("glucose", 2)
    base = base_policy("scripted", env, record, ORPOConfig())
    env.seed(0)
    rolled, _, _ = roll(base, env, 400, torch.Generator().manual_seed(0), env.reset(), np.ones(2, bool))
    assert rolled.starts.sum() == 2  # no episode ended
    assert rolled.true.mean() > -40 and rolled.proxy.mean() < 0
    flat = rolled.observations.reshape(400, 2, 2, 48)
    one = 1e-4 * (flat[9, 0, 0, -1] * 100 - 20) + 2e-3 * 100 * (flat[9, 0, 0, -1] - flat[9, 0, 0, -2])
    one += 5e-7 * 5 * (100 * flat[9, 0, 0] - 20).sum() + 1 / 43.2
    assert rolled.actions[9, 0, 0] == pytest.approx(np.clip(one, 0, 0.1), abs=0.012)  # four deviations
    with pytest.raises(UserError, match="scripted needs an environment with a scripted policy"):
        ORPO("MlpPolicy", TOY, ref_policy="scripted", **SMALL)


def apart(agent: ORPO, seen: Tensor) -> Tensor:
    """KL of the learner from its base policy at observations, [n]."""
    return action_divergence(agent.policy.get_distribution(seen).distribution, agent.base.distribution(seen), "kl")


@pytest.mark.parametrize("hidden", [(), (16,), (64, 64)])
def test_a_learner_of_glucose_begins_as_the_controller_itself(hidden: tuple[int, ...], tmp_path: Path) -> None:
    agent = ORPO("MlpPolicy", "glucose", seed=0, device="cpu", calibration_steps=300, hidden_sizes=hidden, n_steps=100)
    seen = torch.from_numpy(agent._roll_base(100).observations.reshape(-1, 2, 48))
    with torch.no_grad():
        assert torch.equal(apart(agent, seen), torch.zeros(len(seen)))
    agent.save(tmp_path / "first.rlk")
    controller = {key: value.clone() for key, value in agent.base.state_dict().items()}
    agent.learn(1000, log_interval=None)
    assert apart(agent, seen).min() > 0
    assert all(torch.equal(value, controller[key]) for key, value in agent.base.state_dict().items())
    loaded = ORPO.load(tmp_path / "first.rlk", device="cpu")
    assert torch.equal(apart(loaded, seen), torch.zeros(len(seen)))
    learnt = BasePolicy.of(agent.policy)  # and what was learnt can be a base policy in its turn
    again = learnt.like(learnt.state_dict())
    again.load_state_dict(learnt.state_dict())
    for found in (learnt, again):
        torch.testing.assert_close(found.distribution(seen).mean, agent.policy.get_distribution(seen).distribution.mean)


@pytest.mark.parametrize("kind", ["uniform", "epsilon", "relu", "wider"])
def test_a_learner_begins_as_a_discrete_base_policy_of_any_kind(kind: str) -> None:
    width, activation = (40 if kind == "wider" else 16), torch.nn.ReLU if kind == "relu" else torch.nn.Tanh
    layers = {"net_arch": [width], "activation_fn": activation}
    source = PPO("MlpPolicy", TomatoEnv("toy"), policy_kwargs=layers, seed=0, device="cpu")
    with torch.no_grad():
        source.policy.action_net.weight.mul_(100)  # far from uniform
    settings = {**SMALL, "ref_epsilon": 0.3 if kind == "epsilon" else 0.0}
    base = "uniform" if kind == "uniform" else source
    agent = ORPO("MlpPolicy", TOY, base, start="base", seed=0, **settings)
    seen = torch.from_numpy(agent._roll_base(30).observations).flatten(0, 1)
    assert apart(agent, seen).abs().max() < 1e-6
    assert (agent.base.distribution(seen).probs.std() > 0.02) == (kind != "uniform")
    agent.learn(240, log_interval=None)
    assert apart(agent, seen).abs().max() > 1e-6


def test_a_checkpoint_of_a_learner_that_began_as_an_imitator_goes_on(tmp_path: Path) -> None:
    """Before, a learner of another shape had layers of its own alone."""
    settings = {**SMALL, "start": "base", "seed": 1}
    old = ORPO("MlpPolicy", TOY, **settings)
    put_under(old.policy, None)
    old.learn(120, log_interval=None)
    old.save_checkpoint(tmp_path / "c.rlk")
    old.learn(120, log_interval=None, reset_num_timesteps=False)
    fresh = ORPO("MlpPolicy", TOY, **settings)
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(120, log_interval=None, reset_num_timesteps=False)
    assert all(torch.equal(value, fresh.model_tensors()[key]) for key, value in old.model_tensors().items())


def test_moments_and_correlation_by_hand() -> None:
    true = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    proxy = np.array([[2.0, 1.0], [4.0, 1.0], [6.0, 3.0], [1.0, 0.0]])
    starts = np.array([[True, True], [False, False], [False, True], [True, False]])
    none = np.zeros((4, 2))
    found = moments(Rollout(none, none, starts, proxy, true, proxy))
    assert found.sigma == pytest.approx(proxy.std()) and found.mean == pytest.approx(abs(proxy).mean())
    assert found.correlation == pytest.approx(np.corrcoef(true.ravel(), proxy.ravel())[0, 1])
    assert found.within == pytest.approx((1 + 0 + 0 + 1) / 4)  # (1,2,3), (0), (0,0) and (4,1)
    assert found.coefficient == pytest.approx(found.sigma * (1 - found.correlation**2) ** 0.5)
    weights = 0.5 ** np.array([[0, 0], [1, 1], [2, 0], [0, 1]])
    weighted = moments(Rollout(none, none, starts, proxy, true, proxy), discount=0.5)
    assert weighted.mean == pytest.approx((weights * proxy).sum() / weights.sum())


def test_calibration_measures_the_uniform_policy() -> None:
    found = calibrate("uniform", "tomato", 20_000)
    table = tabulate()
    uniform = np.full((463, 4), 0.25)
    assert found.mean == pytest.approx(table.mean_return(table.proxy, uniform, 100) / 100, rel=0.1)
    assert 0.2 < found.correlation < 1 and 0.02 < found.sigma < 0.09


def test_the_ledger_tells_of_whole_episodes() -> None:
    rng = np.random.default_rng(0)
    true, noise, added, whole = rng.normal(size=(4, 7, 2))
    dones = np.zeros((7, 2), bool)
    dones[[2, 6, 4], [0, 0, 1]] = True
    proxy = true + noise
    ledger = Ledger(2)
    parts = [ledger.add(*(x[part] for x in (true, proxy, added, whole, dones))) for part in (slice(0, 3), slice(3, 7))]
    first, later = parts[0][0], parts[1][1]
    assert first["rollout/true_return"] == pytest.approx(true[:3, 0].sum())
    assert later["rollout/shaped_return"] == pytest.approx((proxy + added)[3:, 0].sum())
    assert later["rollout/unclipped_return"] == pytest.approx((proxy + whole)[3:, 0].sum())
    second = parts[1][0]  # an episode across both parts
    assert second["rollout/correlation"] == pytest.approx(np.corrcoef(true[:5, 1], proxy[:5, 1])[0, 1])
    assert ledger.sums[0].tolist() == [0, 2]


# ---- the algorithm ---------------------------------------------------------------------------------------------------


class PlainPPO(OnlineAlgorithm, PPO):
    name = "plain-ppo-of-orpo"
    Config: ClassVar[type[AgentConfig]] = ORPOConfig
    ACTIONS: ClassVar[type[spaces.Space]] = spaces.Space
    arguments = ORPO.arguments


@pytest.mark.parametrize("env", [TOY, "InvertedPendulum-v5"])
@pytest.mark.parametrize("settings", [{"divergence": "none"}, {"coef": 0.0}, {"coef": 0.0, "measure": "action"}])
def test_without_a_weight_it_is_ppo_bit_for_bit(env: Any, settings: dict[str, Any]) -> None:
    if isinstance(env, str) and settings.get("measure") == "action":
        return  # a uniform base policy has no density over a box
    arguments = {**SMALL, "seed": 1, "target_kl_coef": 0.0, **settings}
    ours = ORPO("MlpPolicy", env, **arguments).learn(360)
    theirs = PlainPPO("MlpPolicy", env, **arguments).learn(360)
    for left, right in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert left.detach().numpy().tobytes() == right.detach().numpy().tobytes()


VARIANTS: list[dict[str, Any]] = [
    {},
    {"divergence": "chi2", "measure": "state"},
    {"divergence": "kl", "scale": "mean", "gamma_weighting": True},
    {"divergence": "tv", "center": False, "disc_epochs": 1},
    {"measure": "action", "ref_epsilon": 0.1},
    {"measure": "action", "divergence": "kl", "action_side": "reward", "scale": "none"},
    {"divergence": "none"},
    {"disc_features": (0, 3), "target_kl_coef": 0.0},
    {"start": "base", "ref_epsilon": 0.1},
]


@pytest.mark.parametrize("settings", VARIANTS)
def test_every_variant_resumes_exactly(settings: dict[str, Any], tmp_path: Path) -> None:
    arguments = {**SMALL, "seed": 2, **settings}
    whole = ORPO("MlpPolicy", TOY, **arguments).learn(480, log_interval=None)
    part = ORPO("MlpPolicy", TOY, **arguments).learn(240, log_interval=None)
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh = ORPO("MlpPolicy", TOY, **arguments)
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(240, log_interval=None, reset_num_timesteps=False)
    left, right = ({**a.model_tensors(), **a.training_tensors()} for a in (whole, fresh))
    assert left.keys() == right.keys()
    assert [k for k in left if left[k].numpy().tobytes() != right[k].numpy().tobytes()] == []
    assert whole.state_values() == fresh.state_values()
    assert {"rollout/true_return", "rollout/proxy_return", "rollout/shaped_return"} <= set(whole.tally.counts)
    whole.save(tmp_path / "a.rlk")
    loaded = ORPO.load(tmp_path / "a.rlk", "toy-garden", device="cpu")
    assert torch.equal(loaded.calibrated, whole.calibrated)
    loaded.learn(120, log_interval=None)


def test_an_agent_or_an_artefact_is_a_base_policy(tmp_path: Path) -> None:
    agent = ORPO("MlpPolicy", TOY, seed=3, divergence="none", **SMALL).learn(120)
    agent.save(tmp_path / "base.rlk")
    given = ORPO("MlpPolicy", TOY, agent, seed=4, **SMALL).learn(120)
    named = ORPO("MlpPolicy", TOY, tmp_path / "base.rlk", seed=4, **SMALL).learn(120)
    for key, value in given.model_tensors().items():
        assert torch.equal(value, named.model_tensors()[key]), key
    (tmp_path / "base.rlk").unlink()  # the artefact of the learner holds it
    given.save(tmp_path / "a.rlk")
    loaded = ORPO.load(tmp_path / "a.rlk", device="cpu")
    assert torch.equal(loaded.base.net[0].weight, agent.policy.mlp_extractor.policy_net[0].weight)


def mean_returns(agent: Any, episodes: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """True and proxy returns of sampled episodes on the toy board."""
    env = gym.make_vec("rlkit/Tomato-v0", num_envs=episodes, vectorization_mode="vector_entry_point", **TOY.env_kwargs)
    seen, _ = env.reset(seed=5)
    generator = torch.Generator().manual_seed(0)
    found = np.zeros((2, episodes))
    for _ in range(20):
        actions = BasePolicy.of(agent.policy).sample(torch.from_numpy(seen), generator)
        seen, _, _, _, infos = env.step(actions)
        found += np.stack([infos["true_reward"], infos["proxy_reward"]])
    return found[0], found[1]


LEARNING: dict[str, Any] = {
    **SMALL,
    "n_envs": 40,
    "n_steps": 40,
    "batch_size": 800,
    "n_epochs": 4,
    "hidden_sizes": (32,),
    "disc_hidden_sizes": (64,),
    "learning_rate": 3e-3,
    "clip_range": 0.1,
    "target_kl_coef": 0.0,
    "calibration_steps": 2000,
}


@pytest.mark.slow
def test_ppo_hacks_and_a_large_weight_keeps_to_the_base_policy() -> None:
    uniform = ORPO("MlpPolicy", TOY, divergence="none", **{**LEARNING, "learning_rate": 1e-12})
    base_true, base_proxy = mean_returns(uniform, 400)
    hacked = ORPO("MlpPolicy", TOY, coef=0.0, **LEARNING).learn(24_000)
    true, proxy = mean_returns(hacked)
    assert proxy.mean() > 2 * base_proxy.mean() and proxy.mean() > 2.8  # 0.18 a step on the sprinkler
    assert true.mean() < 0.5 * base_true.mean()
    kept = ORPO("MlpPolicy", TOY, coef=20.0, **LEARNING).learn(24_000)
    true, _ = mean_returns(kept, 400)
    interval = 3 * (true.std() ** 2 / 400 + base_true.std() ** 2 / 400) ** 0.5
    assert abs(true.mean() - base_true.mean()) < interval
    assert kept_divergence(kept) < 0.05 < kept_divergence(hacked)


def kept_divergence(agent: Any) -> float:
    """KL of the agent's exact state-action occupancy from the uniform policy's, on the toy board."""
    table = tabulate("toy")
    seen = torch.from_numpy(table.observations)
    seen = torch.cat([seen, torch.ones(len(seen), 1)], dim=1)  # once the sprinkler has been visited
    with torch.no_grad():
        policy = agent.policy.get_distribution(seen).distribution.probs.double().numpy()
    start, base = np.eye(len(policy))[0], np.full(policy.shape, 0.2)
    mu, nu = (exact.occupancy(table.transitions(), start, p, 0.95) for p in (policy, base))
    return exact.divergence(mu, nu, "kl")


@pytest.mark.slow
def test_a_negative_weight_departs_from_a_hacking_base_policy() -> None:
    hacker = ORPO("MlpPolicy", TOY, coef=0.0, **LEARNING).learn(24_000)
    arguments = {**LEARNING, "seed": 1, "ref_epsilon": 0.1, "divergence": "kl", "scale": "none", "clip": 1.0}
    away = ORPO("MlpPolicy", TOY, hacker, coef=-0.2, **arguments).learn(20_000)
    _, proxy = mean_returns(away)
    assert proxy.mean() < 0.5 * mean_returns(hacker)[1].mean()


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"divergence": "js"}, "divergence=js is unknown, expected one of sqrt_chi2"),
        ({"measure": "reward"}, "measure=reward is unknown, expected one of state_action"),
        ({"scale": "max"}, "scale=max is unknown, expected one of sigma"),
        ({"trim": 0.6}, "trim=0.6 is out of range, expected a share below one half"),
        ({"discount": 1.0}, "discount=1.0 is out of range, expected a number below 1"),
        ({"n_steps": 20}, r"= 80 samples are too few for the discriminator .* expected at least 100"),
        ({"disc_features": (0, 99)}, r"disc_features=\[0, 99\] exceed the observation's"),
        (
            {"ref_policy": "nobody"},
            "ref_policy=nobody is unknown, expected uniform, scripted, true-reward or an artefact's path",
        ),
        ({"ref_epsilon": 1.2}, "ref_epsilon=1.2 is out of range"),
    ],
)
def test_bad_settings_get_a_sentence(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        ORPO("MlpPolicy", TOY, **{**SMALL, **settings})


def test_a_base_policy_for_other_spaces_is_refused() -> None:
    other = ORPO("MlpPolicy", "tomato", divergence="none", ref_policy="uniform", device="cpu", n_envs=1, batch_size=50)
    with pytest.raises(
        UserError, match=r"the base policy's observation space is Box.*, expected the environment's Box"
    ):
        ORPO("MlpPolicy", TOY, other, **SMALL)
    box = BasePolicy(TomatoEnv("toy").observation_space, spaces.Discrete(4))
    with pytest.raises(UserError, match=r"the base policy's action space is Discrete\(4\)"):
        ORPO("MlpPolicy", TOY, box, **SMALL)


def test_what_it_cannot_handle_gets_a_sentence() -> None:
    with pytest.raises(UserError, match="true-reward needs an environment of the family hacking"):
        ORPO("MlpPolicy", "InvertedPendulum-v5", ref_policy="true-reward", **SMALL)
    with pytest.raises(UserError, match="needs a base policy with a density, got uniform over a box"):
        ORPO("MlpPolicy", "InvertedPendulum-v5", measure="action", **SMALL)
    with pytest.raises(
        UserError, match=r"agent\.start=base needs a base policy with a density, got uniform over a box"
    ):
        ORPO("MlpPolicy", "InvertedPendulum-v5", start="base", **SMALL)
    with pytest.raises(UserError, match="needs discrete actions"):
        ORPO("MlpPolicy", "InvertedPendulum-v5", ref_epsilon=0.1, **SMALL)
    with pytest.raises(UserError, match="expected ref_env= or env's name"):
        ORPO("MlpPolicy", TomatoEnv("toy"), **{**SMALL, "n_envs": 1, "n_steps": 120})
    one = DummyVecEnv([lambda: TomatoEnv("toy")])
    with pytest.raises(UserError, match="ref_env has 1 environments, expected 4 as env has"):
        ORPO("MlpPolicy", TOY, ref_env=one, **SMALL)
    dqn_like = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="the base policy is a Linear, expected PPO's or A2C's MlpPolicy"):
        ORPO("MlpPolicy", TOY, dqn_like, **SMALL)
