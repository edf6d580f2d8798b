"""Transitions as one packed tensor on the training device; a batch is a single gather.

A row holds ``[observation | action | reward | not_terminal | next_observation]``, float32, the action in units of
its box, or as a column for each of those there are to choose from.  ``not_terminal`` is 0 only where the episode really
ended: a time limit still bootstraps (Pardo et al. 2018).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float, Int
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from rlkit.algorithms.action_units import action_width, in_units
from rlkit.algorithms.normaliser import normalised
from rlkit.data.dataset import OfflineDataset
from rlkit.errors import ArtefactError, UserError
from rlkit.system.machine import memory


class Batch(NamedTuple):
    """Views into one gathered block; ``indices`` are the rows' places in the buffer."""

    observations: Float[Tensor, "batch ds"]
    actions: Float[Tensor, "batch da"]
    rewards: Float[Tensor, "batch 1"]
    not_terminal: Float[Tensor, "batch 1"]
    next_observations: Float[Tensor, "batch ds"]
    indices: Int[Tensor, " batch"]


class Replay:
    """SB3's ``ReplayBuffer`` signatures over the packed tensor, with a generator of its own.

    ``optimize_memory_usage`` is there because SB3 passes it; a row is already packed.

    Raises :class:`UserError` for spaces that are not one-dimensional boxes, but for discrete actions.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "cpu",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        seed: int = 0,
    ):
        choice = isinstance(action_space, spaces.Discrete)
        for space in (observation_space, observation_space if choice else action_space):
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise UserError(f"replay needs one-dimensional Box spaces, got {space}")
        assert isinstance(observation_space, spaces.Box)
        self.buffer_size, self.n_envs, self.device = buffer_size, n_envs, torch.device(device)
        ds, da = observation_space.shape[0], action_width(action_space)
        self.widths = (ds, da, 1, 1, ds)
        size, room = 4 * buffer_size * sum(self.widths), memory()
        if self.device.type == "cpu" and size > room:
            raise UserError(
                f"a replay of {buffer_size} transitions takes {size / 2**30:.0f} GiB, this machine has "
                f"{room / 2**30:.0f}; expected a smaller agent.buffer_size"
            )
        self._rows: Tensor | None = None
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.pos, self.full = 0, False
        self.parts: dict[str, tuple[int, int]] = {}  # first row and one past the last, by name

    @property
    def rows(self) -> Float[Tensor, "size width"]:
        """The packed tensor, there from the first time it is asked for: an agent that only predicts needs none."""
        if self._rows is None:
            self._rows = torch.zeros(self.buffer_size, sum(self.widths), device=self.device)
        return self._rows

    @rows.setter
    def rows(self, rows: Float[Tensor, "size width"]) -> None:
        self._rows = rows

    @classmethod
    def from_dataset(cls, dataset: OfflineDataset, device: torch.device | str = "cpu", seed: int = 0) -> Replay:
        """A full buffer holding the dataset in its own order, its actions in units of the box."""
        replay = cls(len(dataset), dataset.observation_space, dataset.action_space, device, seed=seed)
        columns = replay.rows.split(replay.widths, dim=1)
        not_terminal = ~dataset.terminations
        arrays = (dataset.observations, dataset.actions, dataset.rewards, not_terminal, dataset.next_observations)
        for column, array in zip(columns, arrays, strict=True):
            values = torch.from_numpy(np.ascontiguousarray(array))
            if array is dataset.actions:
                values = in_units(values, dataset.action_space)
            column.copy_(values.reshape(len(dataset), -1))
        replay.full = True
        return replay

    def size(self) -> int:
        return self.buffer_size if self.full else self.pos

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Append ``n_envs`` transitions over the oldest; ``done`` with ``TimeLimit.truncated`` bootstraps."""
        timeout = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        not_terminal = 1.0 - np.asarray(done, np.float32) * (1.0 - timeout.astype(np.float32))
        parts = (obs, action, reward, not_terminal, next_obs)
        block = np.concatenate([np.asarray(p, np.float32).reshape(self.n_envs, -1) for p in parts], axis=1)
        if not np.isfinite(block).all():
            raise UserError("the environment returns what is not finite; training stopped, checkpoints kept")
        places = (self.pos + torch.arange(self.n_envs, device=self.device)) % self.buffer_size
        self.rows[places] = torch.from_numpy(block).to(self.device)
        self.full = self.full or self.pos + self.n_envs >= self.buffer_size
        self.pos = (self.pos + self.n_envs) % self.buffer_size

    def extend(self, block: Float[Tensor, "n width"]) -> None:
        """Append whole rows over the oldest, in one write; of more than fit, the last ones stay."""
        block = block[-self.buffer_size :]
        places = (self.pos + torch.arange(len(block), device=self.device)) % self.buffer_size
        self.rows[places] = block
        self.full = self.full or self.pos + len(block) >= self.buffer_size
        self.pos = (self.pos + len(block)) % self.buffer_size

    def batch(self, batch_size: int, part: str | None = None) -> Batch:
        """Rows drawn uniformly with replacement, of all or of the named one of :attr:`parts`."""
        return self.take(self.draw(batch_size, part))

    def draw(self, batch_size: int, part: str | None = None) -> Int[Tensor, " batch"]:
        """The places of rows, as :meth:`batch` draws them."""
        low, high = (0, self.size()) if part is None else self.parts[part]
        return torch.randint(low, high, (batch_size,), generator=self.generator, device=self.device)

    def take(self, indices: Int[Tensor, " batch"]) -> Batch:
        """The rows at ``indices``."""
        obs, act, rew, nt, nxt = self.rows.index_select(0, indices).split(self.widths, dim=1)
        return Batch(obs, act, rew, nt, nxt, indices)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """SB3's sample: with ``env``, observations and rewards pass through its normaliser."""
        b = normalised(self.batch(batch_size), env)
        return ReplayBufferSamples(b.observations, b.actions, b.next_observations, 1.0 - b.not_terminal, b.rewards)

    def normalise_observations(self, mean: Float[Tensor, " ds"], std: Float[Tensor, " ds"]) -> None:
        """Replace every stored observation and next observation by ``(x - mean) / std``, in place."""
        columns = self.rows.split(self.widths, dim=1)
        for column in (columns[0], columns[4]):
            column.sub_(mean).div_(std)

    def state(self) -> dict[str, Tensor]:
        """Everything a restored buffer needs to go on as if never stopped."""
        position = torch.tensor([self.pos, int(self.full)])
        return {"rows": self.rows[: self.size()], "position": position, "generator": self.generator.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Undo :meth:`state`; raises :class:`ArtefactError` for rows or a position that do not fit this buffer."""
        rows, (position, full) = state["rows"], state["position"].tolist()
        held = self.buffer_size if full else position
        fits = rows.dtype == self.rows.dtype and rows.shape == (held, self.rows.shape[1])
        if not fits or not 0 <= position < self.buffer_size or full not in (0, 1):
            raise ArtefactError(f"its replay of {list(rows.shape)} rows does not fit a buffer of {self.buffer_size}")
        self.rows[: len(state["rows"])] = state["rows"].to(self.device)
        self.pos, self.full = int(state["position"][0]), bool(state["position"][1])
        self.generator.set_state(state["generator"])
