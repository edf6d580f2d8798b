"""The verdict's estimator beside another library's: d3rlpy's fitted Q evaluation of the same policies on the same data.

    python scripts/judge_against_d3rlpy.py hopper-medium runs/bc/model.rlk runs/td3bc/model.rlk

Needs the ``bench`` extra.  The same network (two layers of 256 with layer normalisation), learning rate, batch size,
number of updates and units of observations and rewards; d3rlpy copies its target network every so many updates, where
rlkit's follows slowly.  Both are of the first states of all episodes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import rlkit
from rlkit.algorithms.nets import mlp
from rlkit.algorithms.verdict import judge, layer_normalised
from rlkit.bench.peers import import_d3rlpy
from rlkit.data.dataset import OfflineDataset

d3rlpy = import_d3rlpy()


class Encoder(nn.Module):
    """The hidden layers of the verdict's Q function."""

    def __init__(self, width: int):
        super().__init__()
        net = layer_normalised(mlp([width, 256, 256, 1], torch.Generator().manual_seed(0)).children())
        self.net = net[:-1]  # d3rlpy adds the last layer

    def forward(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([observations, actions], dim=1))


@dataclass
class Factory(d3rlpy.models.encoders.EncoderFactory):  # type: ignore[misc,name-defined]
    def create_with_action(self, observation_shape: Any, action_size: int, discrete_action: bool = False) -> Encoder:
        return Encoder(observation_shape[0] + action_size)

    @staticmethod
    def get_type() -> str:
        return "layer_normalised"


def estimate(agent: Any, data: OfflineDataset, updates: int, interval: int) -> float:
    """The value of ``agent``'s policy at first states by d3rlpy, whose target network is copied every ``interval``."""
    mean = data.observations.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = data.observations.std(axis=0, dtype=np.float64).astype(np.float32) + 1e-3
    scale = float(data.rewards.std(dtype=np.float64))
    seen = (data.observations - mean) / std
    ends = np.zeros((2, len(data)), np.float32)  # by themselves, cut off
    last = data.episode_ends - 1
    ends[:, last] = data.terminations[last], ~data.terminations[last]
    rewards = (data.rewards / scale).astype(np.float32)[:, None]
    continuous = d3rlpy.ActionSpace.CONTINUOUS
    dataset = d3rlpy.dataset.MDPDataset(seen, data.actions, rewards, *ends, action_space=continuous)

    def act(observations: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(agent.predict(observations.numpy() * std + mean, deterministic=True)[0])

    stand_in = d3rlpy.algos.BCConfig().create(device="cpu:0")  # of whom FQE asks for actions alone
    stand_in.build_with_dataset(dataset)
    stand_in.impl.predict_best_action = act
    config = d3rlpy.ope.FQEConfig(
        batch_size=256,
        gamma=0.99,
        learning_rate=3e-4,
        n_critics=1,
        encoder_factory=Factory(),
        target_update_interval=interval,
    )
    fqe = d3rlpy.ope.FQE(algo=stand_in, config=config, device="cpu:0")
    quiet = d3rlpy.logging.NoopAdapterFactory()
    fqe.fit(dataset, n_steps=updates, n_steps_per_epoch=updates, show_progress=False, logger_adapter=quiet)
    first = np.concatenate(([0], data.episode_ends[:-1]))
    acted = agent.predict(data.observations[first], deterministic=True)[0]
    return scale * float(fqe.predict_value(seen[first], acted).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("artefacts", nargs="+", type=Path)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--interval", type=int, default=20, help="updates between copies of d3rlpy's target network")
    args = parser.parse_args()
    torch.set_num_threads(1)
    d3rlpy.seed(0)
    data = rlkit.load_dataset(args.data)
    for path in args.artefacts:
        agent = rlkit.load(path, data)
        theirs = estimate(agent, data, args.updates, args.interval)
        ours = judge(agent, data, updates=args.updates, discount=0.99).value
        print(f"{path}: d3rlpy {theirs:.1f}, rlkit {ours:.1f}, {100 * (ours / theirs - 1):+.1f} %", flush=True)


if __name__ == "__main__":
    main()
