"""The policies that stand-in datasets are rolled out from, in NumPy.

Each offers ``draw(generator, count)``, the noise of ``count`` environments for one step, and ``act(observations,
noise)``.  Whoever acts for some environments of a batch draws for all of them and takes theirs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from rlkit.errors import DataError

LOG_STD_RANGE = (-20.0, 2.0)  # SB3's clipping of the actor's second head


@runtime_checkable
class Actor(Protocol):
    """See the module; ``observations [B, ds]`` to ``actions [B, da]``, both float32."""

    def draw(self, generator: np.random.Generator, count: int) -> np.ndarray: ...
    def act(self, observations: np.ndarray, noise: np.ndarray) -> np.ndarray: ...
    def __call__(self, observations: np.ndarray, generator: np.random.Generator) -> np.ndarray: ...


class Uniform:
    """Uniformly random actions."""

    def __init__(self, action_space: gym.spaces.Box):
        self.low, self.high = action_space.low, action_space.high

    def draw(self, generator: np.random.Generator, count: int) -> np.ndarray:
        return generator.uniform(self.low, self.high, (count, *self.low.shape)).astype(np.float32)

    def act(self, observations: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return noise

    def __call__(self, observations: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return self.draw(generator, len(observations))


class Behaviour:
    """An SAC actor in NumPy: ``action = tanh(mu + exp(clip(log_std)) noise)``, scaled to the action space.

    Calling it with observations, float32 ``[B, ds]``, and a generator gives float32 ``[B, da]``; without a generator
    it acts deterministically.  Raises :class:`DataError` for tensors that are missing or do not fit the spaces.
    """

    def __init__(self, tensors: dict[str, np.ndarray], observation_size: int, action_space: gym.spaces.Box, where: str):
        try:
            layers = ["latent_pi.0", "latent_pi.2", "mu", "log_std"]
            weights = [np.ascontiguousarray(tensors[f"{n}.weight"].astype(np.float32).T) for n in layers]
            biases = [tensors[f"{n}.bias"].astype(np.float32) for n in layers]
        except KeyError as error:
            raise DataError(f"{where}: tensor {error} is missing, expected an SAC actor of Stable-Baselines3") from None
        actions = int(np.prod(action_space.shape))
        if weights[0].shape[0] != observation_size or weights[2].shape[1] != actions:
            raise DataError(
                f"{where}: the actor maps {weights[0].shape[0]} numbers to {weights[2].shape[1]}, "
                f"expected {observation_size} to {actions}"
            )
        self.hidden = list(zip(weights[:2], biases[:2], strict=True))
        # Both heads share their input: one product instead of two.
        self.heads = (np.concatenate(weights[2:], axis=1), np.concatenate(biases[2:]))
        self.low, self.high = action_space.low.astype(np.float32), action_space.high.astype(np.float32)

    def draw(self, generator: np.random.Generator, count: int) -> np.ndarray:
        return generator.standard_normal((count, len(self.low)), dtype=np.float32)

    def act(self, observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        x = observations  # [B, ds]
        for weight, bias in self.hidden:
            x = np.maximum(x @ weight + bias, 0.0)  # [B, H]
        mean, log_std = np.split(x @ self.heads[0] + self.heads[1], 2, axis=1)  # [B, da] each
        if noise is not None:
            mean = mean + np.exp(np.clip(log_std, *LOG_STD_RANGE)) * noise
        scaled = self.low + 0.5 * (np.tanh(mean) + 1.0) * (self.high - self.low)
        return np.clip(scaled, self.low, self.high)  # scaling may overstep a bound by rounding

    def __call__(self, observations: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        return self.act(observations, None if generator is None else self.draw(generator, len(observations)))


def load_behaviour(
    file: Path, observation_size: int, action_space: gym.spaces.Box, sha256: str | None = None
) -> Behaviour:
    """The policy in ``file``; raises :class:`DataError` where it is missing, altered, or does not fit."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not file.is_file():
        raise DataError(f"behaviour {file} is missing; {remedy(file.name.split('_')[0])}")
    data = file.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"behaviour {file} is not the file its manifest describes, expected SHA-256 {sha256[:12]}…")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise DataError(f"behaviour {file} is no safetensors file ({error})") from None
    return Behaviour(tensors, observation_size, action_space, str(file))


def remedy(task: str) -> str:
    """How to come by the behaviours of ``task``."""
    return (
        f"make it with `python scripts/train_behaviours.py {task}` and `python scripts/select_behaviours.py {task}`, "
        "or name a dataset of your own by its path"
    )
