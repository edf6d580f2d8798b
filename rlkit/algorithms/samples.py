"""What a policy draws, made to follow from a seed for a while, whichever generators it draws from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class SeededSamples:
    """Inside, what ``agent.predict(deterministic=False)`` draws follows from ``seed``; then all is as it was.

    Entered again, it goes on where it was left.  SB3's distributions draw from PyTorch's global generator; other
    policies from generators that are attributes of the agent or its policy, found as a checkpoint finds them.
    """

    def __init__(self, agent: Any, seed: int):
        owners = [vars(owner) for owner in (agent, getattr(agent, "policy", None)) if hasattr(owner, "__dict__")]
        found = {id(value): value for owner in owners for value in owner.values()}.values()
        self.torchs = [torch.default_generator, *(value for value in found if isinstance(value, torch.Generator))]
        device = torch.device(getattr(agent, "device", "cpu"))
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            self.torchs.append(torch.cuda.default_generators[index])
        self.numpys = [value for value in found if isinstance(value, np.random.Generator)]
        self.others = self._states()
        for generator in self.torchs:
            generator.manual_seed(seed)
        for random in self.numpys:
            random.bit_generator.state = type(random.bit_generator)(seed).state
        self._exchange()

    def _states(self) -> tuple[list[torch.Tensor], list[Any]]:
        return [one.get_state() for one in self.torchs], [one.bit_generator.state for one in self.numpys]

    def _exchange(self) -> None:
        states, self.others = self.others, self._states()
        for generator, tensor in zip(self.torchs, states[0], strict=True):
            generator.set_state(tensor)
        for random, state in zip(self.numpys, states[1], strict=True):
            random.bit_generator.state = state

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *error: object) -> None:
        self._exchange()
