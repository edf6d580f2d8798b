"""TD3+BC as a single file is usually written: the eager loop that the library's update is measured against.

Plain on purpose, and slow nowhere on purpose: five gathers by NumPy indices, twin critics as two modules, PyTorch's
default Adam, one Polyak statement per parameter, metrics read with ``.item()`` after every update.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from rlkit.data.dataset import OfflineDataset


class ReplayBuffer:
    """One tensor per column, rows drawn by NumPy's global generator."""

    def __init__(self, dataset: OfflineDataset):
        mean, std = dataset.observations.mean(0), dataset.observations.std(0) + 1e-3
        self.states = torch.tensor((dataset.observations - mean) / std)  # [N, ds]
        self.actions = torch.tensor(dataset.actions)  # [N, da]
        self.rewards = torch.tensor(dataset.rewards[:, None])  # [N, 1]
        self.next_states = torch.tensor((dataset.next_observations - mean) / std)  # [N, ds]
        self.dones = torch.tensor(dataset.terminations[:, None].astype(np.float32))  # [N, 1]

    def sample(self, batch_size: int) -> list[torch.Tensor]:
        indices = np.random.randint(0, len(self.states), size=batch_size)  # noqa: NPY002  # what such files do
        columns = (self.states, self.actions, self.rewards, self.next_states, self.dones)
        return [column[indices] for column in columns]


class Actor(nn.Module):
    """A deterministic policy as one would write it by hand."""

    def __init__(self, state_dim: int, action_dim: int, max_action: float, hidden: int = 256):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(state_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, action_dim),
            nn.Tanh(),
        )
        self.max_action = max_action

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return self.max_action * self.net(state)


class Critic(nn.Module):
    """Two action values as one would write them by hand."""

    def __init__(self, state_dim: int, action_dim: int, hidden: int = 256):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(state_dim + action_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([state, action], 1))


def soft_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    for target_param, source_param in zip(target.parameters(), source.parameters(), strict=True):
        target_param.data.copy_((1 - tau) * target_param.data + tau * source_param.data)


class PlainTD3BC:
    """TD3+BC with the published hyperparameters; :meth:`train` is one update."""

    def __init__(self, state_dim: int, action_dim: int, max_action: float, alpha: float = 2.5, lr: float = 3e-4):
        self.actor = Actor(state_dim, action_dim, max_action)
        self.critic_1, self.critic_2 = Critic(state_dim, action_dim), Critic(state_dim, action_dim)
        self.actor_target = copy.deepcopy(self.actor)
        self.critic_1_target, self.critic_2_target = copy.deepcopy(self.critic_1), copy.deepcopy(self.critic_2)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=lr)
        self.critic_1_optimizer = torch.optim.Adam(self.critic_1.parameters(), lr=lr)
        self.critic_2_optimizer = torch.optim.Adam(self.critic_2.parameters(), lr=lr)
        self.max_action, self.alpha = max_action, alpha
        self.discount, self.tau, self.policy_freq = 0.99, 0.005, 2
        self.policy_noise, self.noise_clip = 0.2 * max_action, 0.5 * max_action
        self.total_it = 0

    def train(self, batch: list[torch.Tensor]) -> dict[str, float]:
        log: dict[str, float] = {}
        self.total_it += 1
        state, action, reward, next_state, done = batch

        with torch.no_grad():
            noise = (torch.randn_like(action) * self.policy_noise).clamp(-self.noise_clip, self.noise_clip)
            next_action = (self.actor_target(next_state) + noise).clamp(-self.max_action, self.max_action)
            target_q1 = self.critic_1_target(next_state, next_action)
            target_q2 = self.critic_2_target(next_state, next_action)
            target_q = reward + (1 - done) * self.discount * torch.min(target_q1, target_q2)

        current_q1, current_q2 = self.critic_1(state, action), self.critic_2(state, action)
        critic_loss = F.mse_loss(current_q1, target_q) + F.mse_loss(current_q2, target_q)
        log["critic_loss"] = critic_loss.item()
        self.critic_1_optimizer.zero_grad()
        self.critic_2_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_1_optimizer.step()
        self.critic_2_optimizer.step()

        if self.total_it % self.policy_freq == 0:
            pi = self.actor(state)
            q = self.critic_1(state, pi)
            lmbda = self.alpha / q.abs().mean().detach()
            actor_loss = -lmbda * q.mean() + F.mse_loss(pi, action)
            log["actor_loss"] = actor_loss.item()
            self.actor_optimizer.zero_grad()
            actor_loss.backward()
            self.actor_optimizer.step()
            soft_update(self.critic_1_target, self.critic_1, self.tau)
            soft_update(self.critic_2_target, self.critic_2, self.tau)
            soft_update(self.actor_target, self.actor, self.tau)
        return log
