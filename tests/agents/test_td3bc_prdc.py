"""TD3+BC and PRDC against their specification: identities, order of updates, a plain reference."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toy
from torch import Tensor, nn

from rlkit.agents import PRDC, TD3BC
from rlkit.agents.td3bc import actor_loss, critic_loss, target_action, td_target
from rlkit.algorithms.replay import Batch

SMALL: dict[str, Any] = {"batch_size": 32, "hidden_sizes": (32, 32), "device": "cpu"}


@pytest.fixture(scope="module")
def dataset() -> Any:
    return toy.generate(size=600)


def test_prdc_with_a_huge_beta_is_td3bc_bit_for_bit(dataset: Any) -> None:
    assert len(np.unique(dataset.observations, axis=0)) == len(dataset)  # own rows are then the only nearest ones
    plain = TD3BC("MlpPolicy", dataset, **SMALL).learn(60)
    regularised = PRDC("MlpPolicy", dataset, beta=1e4, **SMALL).learn(60)
    for key, value in plain.model_tensors().items():
        assert torch.equal(value, regularised.model_tensors()[key]), key


def test_prdc_with_zero_beta_takes_the_nearest_action_anywhere(dataset: Any) -> None:
    agent = PRDC("MlpPolicy", dataset, beta=0.0, **SMALL)
    batch = agent.replay.batch(32)
    proposed = torch.empty(32, 2).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    found, metrics = agent.anchor(batch, proposed)
    distances = torch.cdist(proposed.double(), torch.from_numpy(dataset.actions).double())
    chosen = (proposed.double() - found.double()).norm(dim=1)
    torch.testing.assert_close(chosen, distances.min(dim=1).values, atol=1e-9, rtol=0)
    assert 0 <= metrics["own_nn"] <= 1
    torch.testing.assert_close(metrics["nn_distance"].double(), chosen.mean(), atol=1e-6, rtol=0)


def test_prdc_answers_the_brute_force_neighbour(dataset: Any) -> None:
    agent = PRDC("MlpPolicy", dataset, beta=2.0, **SMALL)
    states, actions = (t.double() for t in agent.replay.rows.split(agent.replay.widths, dim=1)[:2])
    points = torch.cat([2.0 * states, actions], dim=1)
    for _ in range(5):
        batch = agent.replay.batch(64)
        proposed = agent.policy.actor(batch.observations).detach()
        found, _ = agent.anchor(batch, proposed)
        query = torch.cat([2.0 * batch.observations.double(), proposed.double()], dim=1)
        nearest = torch.cdist(query, points, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
        assert torch.equal(found, actions[nearest].float())


def test_the_constraints_gradient_and_the_scale_of_q() -> None:
    generator = torch.Generator().manual_seed(0)
    proposed = torch.randn(16, 3, generator=generator, requires_grad=True)
    anchor, weight = torch.randn(2, 16, 3, generator=generator)
    constraint = (proposed - anchor).square().mean()
    (gradient,) = torch.autograd.grad(constraint, proposed)
    torch.testing.assert_close(gradient, 2 * (proposed - anchor).detach() / (16 * 3))

    def gradient_of(scale: float) -> Tensor:
        q = scale * (proposed * weight).sum(dim=1, keepdim=True)
        return torch.autograd.grad(actor_loss(q, proposed, anchor, 2.5), proposed)[0]

    torch.testing.assert_close(gradient_of(1.0), gradient_of(37.0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("cls", [TD3BC, PRDC])
def test_targets_move_on_even_steps_only(cls: Any, dataset: Any) -> None:
    agent = cls("MlpPolicy", dataset, **SMALL)
    for step in range(1, 7):
        before = copy.deepcopy((agent.target_actor.state_dict(), agent.target_critic.state_dict()))
        agent.learn(1, reset_num_timesteps=False)
        after = agent.target_actor.state_dict(), agent.target_critic.state_dict()
        for old, new in zip(before, after, strict=True):
            moved = any(not torch.equal(old[k], new[k]) for k in old)
            assert moved == (step % 2 == 0), step


def test_terminations_cut_the_target_and_time_limits_do_not(dataset: Any) -> None:
    agent = TD3BC("MlpPolicy", dataset, **SMALL)
    rows = agent.replay.rows.split(agent.replay.widths, dim=1)
    assert torch.equal(rows[3][:, 0].bool(), ~torch.from_numpy(dataset.terminations))
    assert dataset.terminations.any() and dataset.truncations.any()
    batch = agent.replay.batch(64)
    y = td_target(agent.target_critic, batch, batch.actions, 0.99)
    ended = batch.not_terminal[:, 0] == 0
    assert torch.equal(y[ended], batch.rewards[ended])


def test_target_actions_stay_inside_the_space_and_noise_is_clipped(dataset: Any) -> None:
    agent = TD3BC("MlpPolicy", dataset, **SMALL)
    batch = agent.replay.batch(64)
    quiet = agent.target_actor(batch.next_observations)
    noisy = target_action(agent.target_actor, batch.next_observations, torch.full((64, 2), 9.0), 0.5)
    torch.testing.assert_close(noisy, (quiet + 0.5).clamp(-1, 1))


def reference(
    networks: tuple[nn.Module, ...], batches: list[Batch], noises: list[Tensor], alpha: float, anchors: Any
) -> None:
    """Twenty updates written from the paper's equations, with plain Adam and a loop for the targets."""
    actor, critic = networks
    target_actor, target_critic = copy.deepcopy(actor), copy.deepcopy(critic)
    adam_actor = torch.optim.Adam(actor.parameters(), 3e-4)
    adam_critic = torch.optim.Adam(critic.parameters(), 3e-4)
    for t, (b, noise) in enumerate(zip(batches, noises, strict=True), start=1):
        with torch.no_grad():
            a2 = (target_actor(b.next_observations) + noise.clamp(-0.5, 0.5)).clamp(-1, 1)
            y = b.rewards + 0.99 * b.not_terminal * torch.min(*target_critic(b.next_observations, a2))
        q1, q2 = critic(b.observations, b.actions)
        adam_critic.zero_grad()
        (F.mse_loss(q1, y) + F.mse_loss(q2, y)).backward()
        adam_critic.step()
        if t % 2 == 0:
            p = actor(b.observations)
            q = critic(b.observations, p)[0]
            loss = -(alpha / q.abs().mean().detach()) * q.mean() + F.mse_loss(p, anchors(b, p.detach()))
            adam_actor.zero_grad()
            loss.backward()
            adam_actor.step()
            for net, target in ((actor, target_actor), (critic, target_critic)):
                for w, v in zip(net.parameters(), target.parameters(), strict=True):
                    v.data.copy_(0.005 * w.data + 0.995 * v.data)


@pytest.mark.parametrize("cls", [TD3BC, PRDC])
def test_twenty_updates_equal_a_plain_reference(cls: Any, dataset: Any) -> None:
    agent, twin = cls("MlpPolicy", dataset, **SMALL), cls("MlpPolicy", dataset, **SMALL)
    batches = [twin.replay.batch(32) for _ in range(20)]
    noises = [torch.empty(32, 2).normal_(0, 0.2, generator=twin.noise) for _ in range(20)]
    networks = (copy.deepcopy(agent.policy.actor), copy.deepcopy(agent.critic))
    reference(networks, batches, noises, 2.5, lambda b, p: twin.anchor(b, p)[0])
    agent.learn(20)
    for mine, plain in zip((agent.policy.actor, agent.critic), networks, strict=True):
        for left, right in zip(mine.parameters(), plain.parameters(), strict=True):
            assert (left - right).abs().max() < 1e-5


def test_values_stay_within_the_datas_returns(dataset: Any) -> None:
    agent = TD3BC("MlpPolicy", dataset, learning_rate=1e-3, **SMALL).learn(1500)
    batch = agent.replay.batch(256)
    q = agent.critic.first(batch.observations, batch.actions).mean().item()
    lowest = dataset.rewards.min() / (1 - 0.99)
    assert 1.2 * lowest <= q <= 0.0


def test_losses_are_pure(dataset: Any) -> None:
    agent = TD3BC("MlpPolicy", dataset, **SMALL)
    batch = agent.replay.batch(16)
    y = td_target(agent.target_critic, batch, batch.actions, 0.99).detach()
    assert torch.equal(critic_loss(agent.critic, batch, y), critic_loss(agent.critic, batch, y))


def test_halfcheetah_takes_its_preset_and_an_explicit_value_wins(dataset: Any) -> None:
    cheetah = dataset.with_(task="halfcheetah", family="locomotion")
    assert PRDC("MlpPolicy", cheetah, **SMALL).config.alpha == 40.0
    assert PRDC("MlpPolicy", cheetah, alpha=1.0, **SMALL).config.alpha == 1.0
    assert TD3BC("MlpPolicy", cheetah, **SMALL).config.alpha == 2.5
