"""The implicit-value learner against its mathematics, a plain reference, and its promises about bad input."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toy
import yaml
from scipy.optimize import minimize_scalar
from torch import Tensor

from rlkit import registry
from rlkit.agents import fdvl, iql, sql, xql
from rlkit.agents.common.divergence import DIVERGENCES, value_loss
from rlkit.agents.common.gaussian import GaussianActor, actor_loss, network
from rlkit.agents.common.implicit import (
    ImplicitConfig,
    ImplicitValue,
    advantage,
    policy_weight,
)
from rlkit.algorithms.hyperparameters import make_config, presets
from rlkit.config import compose_config
from rlkit.errors import UserError

FDVL, IQL, SQL, XQL = fdvl.FDVL, iql.IQL, sql.SQL, xql.XQL
SMALL: dict[str, Any] = {"batch_size": 32, "hidden_sizes": (32, 32), "device": "cpu"}
CONJUGATE = [name for name, kind in DIVERGENCES.items() if kind.f is not None]


@pytest.fixture(scope="module")
def dataset() -> Any:
    return toy.generate(size=600)


# ---- divergences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONJUGATE)
def test_conjugates_are_grid_suprema_and_ratios_their_slopes(name: str) -> None:
    kind = DIVERGENCES[name]
    assert kind.f is not None and kind.conj_pos is not None and kind.ratio is not None
    y = torch.linspace(-6, min(2.0, kind.domain_max), 161, dtype=torch.float64)
    x = torch.cat([torch.linspace(0, 3.5, 12_001, dtype=torch.float64).square(), torch.ones(1, dtype=torch.float64)])
    supremum = (
        (y[:, None] * x - kind.f(x)).max(dim=1).values
    )  # finer near 0, where KL bends; 1 is total variation's kink
    torch.testing.assert_close(kind.conj_pos(y), supremum, atol=1e-6, rtol=0)

    y = (y[1:-1] + 0.001).requires_grad_()  # off the kinks
    (slope,) = torch.autograd.grad(kind.conj_pos(y).sum(), y)
    torch.testing.assert_close(slope, kind.ratio(y.detach()))
    assert torch.equal(kind.f(torch.ones(1)), torch.zeros(1)), "f(1) = 0"
    if kind.domain_max < math.inf:
        assert kind.conj_pos(torch.tensor([kind.domain_max + 1e-3])).isinf().all()


def test_the_three_surrogates_of_chi2_agree_where_the_ratio_exceeds_one_and_differ_below() -> None:
    exact, monotone, paper = (DIVERGENCES[f"chi2_{n}"].surrogate for n in ("exact", "monotone", "paper"))
    above, below = torch.linspace(0, 9, 50), torch.linspace(-9, -1e-3, 50)
    torch.testing.assert_close(exact(above), monotone(above))
    torch.testing.assert_close(exact(above), paper(above))
    assert torch.equal(monotone(below), torch.zeros(50))
    torch.testing.assert_close(exact(below), torch.where(below >= -2, below + below**2 / 4, -1.0))
    torch.testing.assert_close(paper(below), (below + below**2 / 4).clamp(min=0))
    assert (paper(below)[below < -4.1] > 0).all(), "it grows again"


def minimiser(loss: Callable[[float], float], low: float, high: float) -> float:
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    return float(found.x)


def best_v(values: Tensor, name: str, lam: float, temperature: float = 1.0, **options: Any) -> float:
    rows = values.double()[:, None]  # [n, 1]
    span = 5 * temperature + 1
    return minimiser(
        lambda v: float(value_loss(rows - v, DIVERGENCES[name], lam, temperature, **options)),
        float(values.min()) - span,
        float(values.max()) + span,
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 5.0])
def test_gumbel_regression_finds_the_soft_maximum_rescaled_or_not(temperature: float) -> None:
    q = 3 * torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    soft = temperature * (torch.logsumexp(q / temperature, 0) - math.log(len(q))).item()
    assert best_v(q, "kl", 0.5, temperature) == pytest.approx(soft, abs=1e-5)
    # M moves with V, and is a constant only to the gradient: the stationary point is what is the same.
    v = torch.tensor(soft, dtype=torch.float64, requires_grad=True)
    loss = value_loss((q - v)[:, None], DIVERGENCES["kl"], 0.5, temperature, rescale=True)
    assert abs(torch.autograd.grad(loss, v)[0].item()) < 1e-12
    for off, sign in ((-0.1, -1), (0.1, 1)):
        v = torch.tensor(soft + off, dtype=torch.float64, requires_grad=True)
        loss = value_loss((q - v)[:, None], DIVERGENCES["kl"], 0.5, temperature, rescale=True)
        assert sign * torch.autograd.grad(loss, v)[0].item() > 0
    assert best_v(q, "kl", 0.5, temperature, clip=1.0) < soft, "clipping biases V low"


@pytest.mark.parametrize("clip", [0.0, 7.0])
def test_the_value_loss_of_xql_is_half_alpha_times_its_papers(clip: float) -> None:
    delta = (20 * torch.randn(64, 1, generator=torch.Generator().manual_seed(1))).double()
    beta = 2.0
    z = torch.clamp(delta / beta, max=clip) if clip else delta / beta
    m = torch.max(torch.tensor(-1.0), z.max())
    written_out = (torch.exp(z - m) - z * torch.exp(-m) - torch.exp(-m)).mean()
    ours = value_loss(delta, DIVERGENCES["kl"], 0.5, beta, clip=clip, rescale=True)
    torch.testing.assert_close(ours, 0.5 * beta * written_out)
    huge = torch.tensor([[1.0], [500.0]])  # e^500 is infinite in float32
    assert value_loss(huge, DIVERGENCES["kl"], 0.5, 1.0, rescale=True).isfinite()
    assert value_loss(huge, DIVERGENCES["kl"], 0.5, 1.0, clip=7.0).isfinite()
    assert not value_loss(huge, DIVERGENCES["kl"], 0.5, 1.0).isfinite()


def test_sql_is_exact_chi2_at_one_half_with_its_codes_alpha() -> None:
    q = 2 * torch.randn(300, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for alpha in (0.5, 2.0):
        v = best_v(q, "chi2_exact", 0.5, alpha)
        paper = minimiser(lambda u, a=alpha: (((q - u) / (2 * a) + 1).relu() ** 2 + u / a).mean().item(), -20, 20)  # type: ignore[misc]
        assert v == pytest.approx(paper, abs=1e-5)
        assert (1 + (q - v) / (2 * alpha)).relu().mean().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("lam", [0.6, 2 / 3, 0.8, 0.9])
def test_total_variation_regresses_the_quantile_of_level_two_minus_one_over_lambda(lam: float) -> None:
    q = torch.randn(2001, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    level = 2 - 1 / lam
    expected = torch.quantile(q, level).item()
    assert best_v(q, "tv", lam) == pytest.approx(expected, abs=0.01)  # the spacing of the sample
    assert best_v(q, "tv", lam, temperature=7.0) == pytest.approx(expected, abs=0.01), "the temperature cancels"


@pytest.mark.parametrize(
    ("name", "limit"), [("chi2_paper", 7.0), ("chi2_monotone", 10.0), ("tv", 10.0), ("chi2_exact", 12.0)]
)
def test_what_each_form_tends_to_as_lambda_tends_to_one(name: str, limit: float) -> None:
    q = torch.tensor([0.0, 10.0])
    assert best_v(q, name, 0.9999) == pytest.approx(limit, abs=0.01)
    if name == "chi2_paper":
        for lam in (0.6, 0.8, 0.95):
            assert best_v(q, name, lam) == pytest.approx(5 + 2 * (2 * lam - 1) / lam, abs=1e-4)


def test_expectile_is_iqls_loss() -> None:
    delta = torch.randn(100, 1, generator=torch.Generator().manual_seed(4))
    written_out = ((0.7 - (delta < 0).float()).abs() * delta**2).mean()
    torch.testing.assert_close(value_loss(delta, DIVERGENCES["expectile"], 0.7, 1.0), written_out)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_stationarity_fixes_the_mean_slope_of_the_surrogate(name: str) -> None:
    q = torch.randn(4000, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    kind, lam = DIVERGENCES[name], 0.7
    y = (q - best_v(q, name, lam)).requires_grad_()
    up, down = (
        torch.autograd.grad(g(y).mean(), y, retain_graph=True)[0].sum() for g in (kind.surrogate, kind.complement)
    )
    assert (lam * up + (1 - lam) * down).item() == pytest.approx(0.0, abs=2e-3)  # tv: one sample of 4000 on a side


# ---- networks and policy ---------------------------------------------------------------------------------------------


def test_networks_are_orthogonal_from_the_given_generator_and_normalised_only_where_asked() -> None:
    state = torch.get_rng_state()
    net = network([8, 64, 64, 1], torch.Generator().manual_seed(0), layer_norm=True)
    assert [type(m).__name__ for m in net] == ["Linear", "LayerNorm", "ReLU"] * 2 + ["Linear"]
    assert net[1].eps == 1e-6
    square = net[3].weight
    torch.testing.assert_close(square @ square.T, 2 * torch.eye(64), atol=1e-4, rtol=0)
    assert not net[0].bias.any()
    assert torch.equal(state, torch.get_rng_state())
    agent = FDVL("MlpPolicy", toy.generate(size=60), **SMALL)
    norms = {
        "value": sum(isinstance(m, torch.nn.LayerNorm) for m in agent.value.modules()),
        "critic": sum(isinstance(m, torch.nn.LayerNorm) for m in agent.critic.modules()),
        "actor": sum(isinstance(m, torch.nn.LayerNorm) for m in agent.policy.modules()),
    }
    assert norms == {"value": 2, "critic": 0, "actor": 0}


def test_likelihood_is_a_diagonal_normals() -> None:
    box = gym.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    actor = GaussianActor(3, box, (16,), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(5, 3, generator=generator)
    actions = torch.empty(5, 2).uniform_(-1, 1, generator=generator)
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-9.0, 0.3]))
        spread = torch.tensor([math.exp(-5.0), math.exp(0.3)])  # the first is held at its floor
        mean = actor(observations)
        expected = torch.distributions.Normal(mean, spread).log_prob(actions).sum(dim=1, keepdim=True)
        torch.testing.assert_close(actor.log_prob(observations, actions), expected, rtol=1e-4, atol=1e-4)


def test_dropout_draws_from_its_generator_and_only_in_training() -> None:
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    actor = GaussianActor(3, box, (4000,), torch.Generator().manual_seed(0), dropout=0.25)
    observations = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    first, second = (actor(observations, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())
    plain = actor(observations)
    assert not torch.equal(first, plain)
    assert torch.equal(plain, actor(observations))
    raw = [actor.net[1](actor.net[0](observations))]
    kept = raw[0] * torch.empty_like(raw[0]).bernoulli_(0.75, generator=torch.Generator().manual_seed(2)) / 0.75
    torch.testing.assert_close(first, torch.tanh(actor.net[2](kept)))


def test_samples_spread_around_the_mean_inside_the_box_and_leave_the_global_generator_alone(dataset: Any) -> None:
    agent = FDVL("MlpPolicy", dataset, **SMALL)
    with torch.no_grad():
        agent.policy.actor.log_std.fill_(-3.0)
    many = np.zeros((4000, 3), np.float32)  # with biases of zero the mean is there at the centre
    state = torch.get_rng_state()
    samples, _ = agent.predict(many, deterministic=False)
    assert torch.equal(state, torch.get_rng_state())
    assert not agent.predict(many[0])[0].any()
    np.testing.assert_allclose(samples.mean(axis=0), 0, atol=0.005)
    np.testing.assert_allclose(samples.std(axis=0), math.exp(-3), rtol=0.05)
    assert np.abs(samples).max() <= 1
    with torch.no_grad():
        agent.policy.actor.log_std.fill_(2.0)
    samples, _ = agent.predict(many, deterministic=False)
    assert np.abs(samples).max() == 1


def test_another_scale_of_actions_changes_nothing_but_the_scale(dataset: Any) -> None:
    low, high = np.array([-3.0, 1.0], np.float32), np.array([1.0, 5.0], np.float32)
    stretched = dataset.with_(
        actions=(dataset.actions * (high - low) / 2 + (high + low) / 2).astype(np.float32),
        action_space=gym.spaces.Box(low, high),
    )
    agent = IQL("MlpPolicy", stretched, **SMALL).learn(50)
    actions, _ = agent.predict(dataset.observations, deterministic=False)
    assert (actions >= low).all() and (actions <= high).all()
    stored = agent.replay.rows.split(agent.replay.widths, dim=1)[1]
    assert stored.abs().max() <= 1 - 1e-5 + 1e-7 and stored.abs().max() > 0.9


# ---- data ------------------------------------------------------------------------------------------------------------


def test_rewards_are_scaled_and_shifted_in_the_replay_alone(dataset: Any) -> None:
    before = dataset.rewards.copy()
    agent = FDVL("MlpPolicy", dataset, reward_scaling="return_range", reward_shift=-1.0, **SMALL)
    spread = dataset.episode_returns.max() - dataset.episode_returns.min()
    expected = (torch.from_numpy(dataset.rewards) - 1) * (1000 / spread)
    torch.testing.assert_close(agent.replay.rows.split(agent.replay.widths, dim=1)[2][:, 0], expected.float())
    assert np.array_equal(before, dataset.rewards)
    same = dataset.with_(rewards=np.zeros_like(dataset.rewards), parts=())
    with pytest.raises(UserError, match="needs episodes of different returns"):
        FDVL("MlpPolicy", same, reward_scaling="return_range", **SMALL)


def test_stored_actions_stay_off_the_bounds(dataset: Any) -> None:
    assert np.abs(dataset.actions).max() == 1
    agent = FDVL("MlpPolicy", dataset, **SMALL)
    stored = agent.replay.rows.split(agent.replay.widths, dim=1)[1]
    assert stored.abs().max().item() == pytest.approx(1 - 1e-5, abs=1e-7)


# ---- the update ------------------------------------------------------------------------------------------------------


def test_shapes_are_columns_and_a_broadcast_to_a_square_is_refused() -> None:
    q, v = torch.zeros(6, 1), torch.zeros(6, 1)
    assert advantage(q, v).shape == (6, 1)
    for left, right in ((q, v[:, 0]), (q[:, 0], v), (q, v[:1])):
        with pytest.raises((ValueError, TypeError)):
            advantage(left, right)
    config = make_config(FDVL, {})
    assert policy_weight(q, config, DIVERGENCES["tv"]).shape == (6, 1)
    actor = GaussianActor(3, gym.spaces.Box(-1, 1, (2,), np.float32), (8,), torch.Generator().manual_seed(0))
    assert actor.log_prob(torch.zeros(6, 3), torch.zeros(6, 2)).shape == (6, 1)


@pytest.mark.parametrize("cls", [FDVL, XQL, SQL])
def test_policy_weights_are_bounded_and_of_the_asked_kind(cls: Any) -> None:
    delta = torch.tensor([[-1.0], [0.5], [60.0], [1000.0]])
    config = make_config(cls, {"temperature": 2.0})
    kind = DIVERGENCES[config.divergence]
    expected = {"exp": (3 * delta).exp(), "relu": delta.relu()}[config.actor_weight].clamp(max=100)
    torch.testing.assert_close(policy_weight(delta, config, kind), expected)
    ratio = policy_weight(delta, make_config(SQL, {"actor_weight": "ratio"}), DIVERGENCES["chi2_exact"])
    torch.testing.assert_close(ratio, (1 + delta / 2).relu().clamp(max=100))  # α = 1


def test_gradients_reach_the_intended_network_and_no_other(dataset: Any) -> None:
    agent = FDVL("MlpPolicy", dataset, **SMALL)
    batch = agent.replay.batch(32)
    networks = {"value": agent.value, "actor": agent.policy.actor, "critic": agent.critic}
    with torch.no_grad():
        q = torch.minimum(*agent.target_critic(batch.observations, batch.actions))
        v = agent.value(batch.observations)
    losses = {
        "value": value_loss(advantage(q, agent.value(batch.observations)), agent.divergence, 0.7, 1.0),
        "actor": actor_loss(
            agent.policy.actor.log_prob(batch.observations, batch.actions),
            policy_weight(advantage(q, v), agent.config, agent.divergence),
        ),
        "critic": agent.critic_objective(batch, agent.critic_target(batch, v))[0],
    }
    for which, loss in losses.items():
        for owner, net in networks.items():
            found = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, retain_graph=True)
            assert all((g is not None) == (which == owner) for g in found), (which, owner)
    assert not any(p.requires_grad for p in agent.target_critic.parameters())
    agent.learn(3)
    assert all(p.grad is None for net in networks.values() for p in net.parameters())


def test_terminations_cut_the_target_and_time_limits_do_not(dataset: Any) -> None:
    agent = IQL("MlpPolicy", dataset, **SMALL)
    batch = agent.replay.batch(64)
    ended = batch.not_terminal[:, 0] == 0
    assert ended.any() and not ended.all()
    target = agent.critic_target(batch, torch.ones(64, 1))
    assert torch.equal(target[ended], batch.rewards[ended])
    torch.testing.assert_close(target[~ended], batch.rewards[~ended] + 0.99)


def plain_reference(
    agent: ImplicitValue, batches: list[Any], phi: Callable[[Tensor], Tensor], squared: bool, relu: bool = False
) -> None:
    """Updates as the equations say, with PyTorch's Adam, ``Normal`` and a loop for the targets."""
    cfg, actor, value, critic, target = agent.config, agent.policy.actor, agent.value, agent.critic, agent.target_critic
    adam_v, adam_a, adam_q = (torch.optim.Adam(m.parameters(), 3e-4) for m in (value, actor, critic))
    h = F.mse_loss if squared else lambda x, y: F.huber_loss(x, y, delta=20.0)
    for t, b in enumerate(batches):
        with torch.no_grad():
            q = torch.min(*target(b.observations, b.actions))
        loss = phi(q - value(b.observations))
        adam_v.zero_grad()
        loss.backward()
        adam_v.step()
        with torch.no_grad():
            delta = q - value(b.observations)
            w = (delta.clamp(min=0) if relu else torch.exp(cfg.inverse_temperature * delta)).clamp(max=100)
            y = b.rewards + 0.99 * b.not_terminal * value(b.next_observations)
        normal = torch.distributions.Normal(torch.tanh(actor.net(b.observations)), actor.log_std.clamp(-5, 2).exp())
        loss = -(w * normal.log_prob(b.actions).sum(1, keepdim=True)).mean()
        adam_a.param_groups[0]["lr"] = 3e-4 * 0.5 * (1 + math.cos(math.pi * t / 40))
        adam_a.zero_grad()
        loss.backward()
        adam_a.step()
        q1, q2 = critic(b.observations, b.actions)
        adam_q.zero_grad()
        (h(q1, y) + h(q2, y)).backward()
        adam_q.step()
        for p, p_bar in zip(critic.parameters(), target.parameters(), strict=True):
            p_bar.data.copy_(0.005 * p.data + 0.995 * p_bar.data)


def _gumbel(d: Tensor) -> Tensor:
    z = torch.clamp(d / 2.0, max=7.0)
    m = torch.clamp(z.max(), min=-1).detach()
    return (torch.exp(z - m) - z * torch.exp(-m) - torch.exp(-m)).mean()


@pytest.mark.parametrize(
    ("cls", "options", "phi", "squared"),
    [
        (FDVL, {"divergence": "tv", "lam": 0.7}, lambda d: (0.7 * d.clamp(min=0) - 0.3 * d).mean(), False),
        (
            FDVL,
            {"divergence": "chi2_paper", "lam": 0.6},
            lambda d: (0.6 * (d + d**2 / 4).clamp(min=0) - 0.4 * d).mean(),
            False,
        ),
        (IQL, {"lam": 0.9}, lambda d: ((0.9 - (d < 0).float()).abs() * d**2).mean(), True),
        (XQL, {}, _gumbel, False),
    ],
    ids=["tv", "chi2", "iql", "xql"],
)
def test_twenty_updates_equal_a_plain_reference(
    cls: Any, options: dict[str, Any], phi: Any, squared: bool, dataset: Any
) -> None:
    agent, twin = (cls("MlpPolicy", dataset, decay_steps=40, **SMALL, **options) for _ in range(2))
    plain_reference(twin, [copy.deepcopy(twin.replay.batch(32)) for _ in range(20)], phi, squared)
    agent.learn(20)
    mine, plain = agent.model_tensors(), twin.model_tensors()
    assert mine.keys() == plain.keys()
    for key in mine:
        torch.testing.assert_close(mine[key], plain[key], atol=2e-5, rtol=0, msg=key)


@pytest.mark.parametrize("alpha", [1.0, 0.1, 3.0])
def test_twenty_updates_of_sql_are_its_codes(alpha: float, dataset: Any) -> None:
    """In float64: the loss of V is ½ α times mean[(δ/(2α) + 1)₊² + V/α], with q a constant to it."""
    torch.set_default_dtype(torch.float64)
    try:
        agent, twin = (SQL("MlpPolicy", dataset, decay_steps=40, temperature=alpha, **SMALL) for _ in range(2))
        for each in (agent, twin):
            each.replay.rows = each.replay.rows.double()
        assert not any(isinstance(m, torch.nn.LayerNorm) for m in agent.critic.modules())

        def published(delta: Tensor) -> Tensor:
            sparse = delta / (2 * alpha) + 1
            return 0.5 * alpha * (torch.where(sparse > 0, 1.0, 0.0) * sparse**2 - delta / alpha).mean()

        plain_reference(twin, [copy.deepcopy(twin.replay.batch(32)) for _ in range(20)], published, True, relu=True)
        agent.learn(20)
    finally:
        torch.set_default_dtype(torch.float32)
    mine, plain = agent.model_tensors(), twin.model_tensors()
    assert mine.keys() == plain.keys()
    for key in mine:
        torch.testing.assert_close(mine[key], plain[key], atol=1e-12, rtol=0, msg=key)


def test_resume_is_exact_with_every_random_option_on(dataset: Any, tmp_path: Path) -> None:
    options = {**SMALL, "actor_dropout": 0.2, "uniform_actions": True, "decay_steps": 25, "value_updates": 2}
    whole = FDVL("MlpPolicy", dataset, **options).learn(30)
    part = FDVL("MlpPolicy", dataset, **options).learn(11)
    part.save_checkpoint(tmp_path / "c.rlk")
    fresh = FDVL("MlpPolicy", dataset, **options)
    fresh.restore(tmp_path / "c.rlk")
    fresh.learn(19, reset_num_timesteps=False)
    left = {**whole.model_tensors(), **whole.training_tensors()}
    right = {**fresh.model_tensors(), **fresh.training_tensors()}
    assert left.keys() == right.keys()
    assert all(torch.equal(left[k], right[k]) for k in left)


def test_the_actors_rate_falls_as_a_cosine_to_zero_and_the_others_stay(dataset: Any) -> None:
    agent = FDVL("MlpPolicy", dataset, decay_steps=10, **SMALL)
    rates = []
    for _ in range(12):
        agent.learn(1, reset_num_timesteps=False)
        rates.append(agent.actor_optimiser.param_groups[0]["lr"])
    expected = [3e-4 * 0.5 * (1 + math.cos(math.pi * min(t / 10, 1))) for t in range(12)]
    np.testing.assert_allclose(rates, expected, atol=1e-12)
    assert agent.value_optimiser.param_groups[0]["lr"] == agent.critic_optimiser.param_groups[0]["lr"] == 3e-4
    constant = FDVL("MlpPolicy", dataset, decay_steps=0, **SMALL).learn(12)
    assert constant.actor_optimiser.param_groups[0]["lr"] == 3e-4


def test_uniform_actions_join_the_value_loss_only(dataset: Any) -> None:
    agent = XQL("MlpPolicy", dataset, uniform_actions=True, **SMALL)
    batch = agent.replay.batch(32)
    states, q = agent.data_values(batch)
    assert states.shape == (64, 3) and q.shape == (64, 1)
    assert torch.equal(states[:32], batch.observations) and torch.equal(states[32:], batch.observations)
    expected = torch.minimum(*agent.target_critic(batch.observations, batch.actions))
    torch.testing.assert_close(q[:32], expected)
    metrics = agent.update(batch)
    assert all(m.ndim == 0 for m in metrics.values())


def test_every_promised_metric_is_logged(dataset: Any) -> None:
    agent = IQL("MlpPolicy", dataset, **SMALL)
    metrics = agent.update(agent.replay.batch(32))
    wanted = {"value_loss", "critic_loss", "actor_loss", "v", "q", "advantage_mean", "advantage_std", "weight"}
    assert wanted | {"weight_clipped"} <= metrics.keys()
    assert not any(m.requires_grad for m in metrics.values())


def test_values_stay_within_the_datas_returns_and_the_policy_beats_the_data(dataset: Any) -> None:
    for cls in (FDVL, IQL):
        agent = cls("MlpPolicy", dataset, learning_rate=1e-3, polyak=0.02, **SMALL).learn(1200)
        batch = agent.replay.batch(256)
        q = torch.minimum(*agent.critic(batch.observations, batch.actions)).mean().item()
        assert dataset.rewards.min() / (1 - 0.99) <= q <= 0.5
        at, ideal = dataset.observations[:, :2], np.ones(2)
        heading = agent.predict(dataset.observations)[0]
        progress = (heading * (ideal - at)).sum(axis=1).mean()
        assert progress > 0.9 * (dataset.actions * (ideal - at)).sum(axis=1).mean()


@pytest.mark.slow
def test_naive_xql_overflows_under_reward_outliers_where_tv_and_chi2_stay_finite(dataset: Any) -> None:
    rewards = dataset.rewards.copy()
    rewards[np.random.default_rng(0).choice(600, 12, replace=False)] += 1e4
    data = dataset.with_(rewards=rewards)
    options = {"learning_rate": 1e-3, "huber": 0.0, **SMALL}
    with pytest.raises(UserError, match=r"became (inf|nan)"):
        XQL("MlpPolicy", data, temperature=1.0, value_clip=0.0, rescale=False, **options).learn(2000, log_interval=50)
    for divergence in ("tv", "chi2_monotone"):
        agent = FDVL("MlpPolicy", data, divergence=divergence, **options).learn(2000, log_interval=50)
        assert all(torch.isfinite(t).all() for t in agent.model_tensors().values()), divergence


# ---- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("fdvl", {"divergence": "tv", "lam": 0.5}, "agent.lam=0.5 is out of range, expected a number above 0.5"),
        ("fdvl", {"divergence": "tv", "lam_tv": 0.4}, "agent.lam=0.4 is out of range"),
        ("fdvl", {"lam": 1.0}, "below 1 for divergence 'chi2_monotone'"),
        ("fdvl", {"lam": 0.0}, "agent.lam=0.0 is out of range"),
        ("fdvl", {"lam": math.nan}, "agent.lam=nan is not a number"),
        ("fdvl", {"divergence": "chi2_paper", "lam": 1.01}, "at most 1 for divergence 'chi2_paper'"),
        ("iql", {"lam": "high"}, "agent.lam='high' is not a number"),
        ("fdvl", {"divergence": "kl"}, "agent.lam is missing and no preset gives it"),
        ("fdvl", {"divergence": "chi2_monoton"}, "did you mean 'chi2_monotone'"),
        ("iql", {"lam": 1.0}, "agent.lam=1.0 is out of range"),
        ("xql", {"temperature": 0.0}, "agent.temperature=0.0 is out of range, expected a number above 0"),
        ("xql", {"temperature": -1.0}, "agent.temperature=-1.0 is out of range"),
        ("xql", {"divergence": "tv", "lam": 0.7}, "only divergence 'kl' is rescaled"),
        ("sql", {"actor_weight": "soft"}, "agent.actor_weight=soft is unknown"),
        ("iql", {"actor_weight": "ratio"}, "divergence 'expectile' has no ratio"),
        ("iql", {"reward_scaling": "return"}, "did you mean 'return_range'"),
        ("iql", {"actor_dropout": 1.0}, "expected a number below 1"),
        ("iql", {"inverse_temperature": 0.0}, "agent.inverse_temperature=0.0 is out of range"),
        ("iql", {"decay_steps": -1}, "agent.decay_steps=-1 is out of range"),
    ],
)
def test_bad_values_get_a_sentence(name: str, values: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        make_config(registry.agent_class(name), values)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_lambda_has_no_default_in_the_learner_itself() -> None:
    with pytest.raises(UserError, match=r"agent\.lam is missing"):
        ImplicitConfig()
    assert make_config(FDVL, {"divergence": "chi2_paper", "lam": 1.0}).lam == 1.0
    with pytest.raises((UserError, TypeError), match="lam"):  # TypeError where annotations are checked first
        make_config(FDVL, {"lam": "high"})


@pytest.mark.parametrize("cls", [FDVL, IQL, SQL, XQL])
def test_every_family_of_data_names_its_lambda(cls: Any) -> None:
    families = {r.family for r in registry.records().values() if r.data is not None and r.family != "toy"}
    table = yaml.safe_load((Path(fdvl.__file__).parent / "presets" / f"{cls.name}.yaml").read_text())
    for family in families | {"locomotion", "antmaze", "kitchen", "adroit"}:
        assert {"lam_tv", "lam_chi2"} <= table[family].keys() if cls is FDVL else "lam" in table[family], family
    table.pop("tune")  # ranges, tested with tuning
    for key, values in table.items():
        make_config(cls, {**table.get(key.split("-")[0], {}), **values})  # each is a valid configuration


def test_presets_reach_the_command_line_and_lambda_follows_the_divergence() -> None:
    def configure(*overrides: str) -> Any:
        agent = dict(compose_config(["env=hopper-medium", *overrides])["agent"])
        return make_config(registry.agent_class(agent.pop("name")), agent)

    assert configure("agent=fdvl").lam == 0.6
    assert configure("agent=fdvl", "agent.divergence=tv").lam == 0.7
    assert configure("agent=fdvl", "agent.divergence=tv", "agent.lam=0.9").lam == 0.9
    found = configure("agent=xql")
    assert (found.temperature, found.value_clip, found.lam, found.reward_scaling) == (5.0, 7.0, 0.5, "return_range")
    assert presets(IQL, "antmaze-large-play", "antmaze", "antmaze")["lam"] == 0.9
    assert presets(XQL, "antmaze-large-play", "antmaze", "antmaze")["value_clip"] == 5.0
    for cls in (FDVL, IQL, SQL, XQL):  # the authors scale rewards for three tasks
        scaled = {
            t
            for t in ("ant", "halfcheetah", "hopper", "walker2d")
            if "reward_scaling" in presets(cls, "", t, "locomotion")
        }
        assert scaled == {"halfcheetah", "hopper", "walker2d"}, cls
    assert presets(SQL, "walker2d-medium-expert", "walker2d", "locomotion")["temperature"] == 1.0
    assert presets(SQL, "antmaze-umaze-diverse", "antmaze", "antmaze")["temperature"] == 3.0
    assert presets(XQL, "antmaze-medium-diverse", "antmaze", "antmaze")["value_updates"] == 4
    assert presets(XQL, "hopper-medium-expert", "hopper", "locomotion")["uniform_actions"]
    assert presets(FDVL, "halfcheetah-medium", "halfcheetah", "locomotion")["uniform_actions"]
