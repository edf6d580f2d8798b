"""The tomato problem as a table: every state that can be reached, for exact values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.hacking.tomato import TomatoEnv

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Every state that can be reached; S states, of which 0 is the first, and A actions.

    following [S, A] int64; true, proxy [S, A] float64; ended [S, A] bool; observations [S, k] float32.
    """

    following: NDArray[np.int64]
    true: Array
    proxy: Array
    ended: NDArray[np.bool_]
    observations: NDArray[np.float32]

    def transitions(self) -> Array:
        """[S, A, S] probabilities; where an episode ended a new one begins."""
        return np.eye(len(self.following))[np.where(self.ended, 0, self.following)]

    def best_return(self, rewards: Array, horizon: int) -> float:
        """Largest undiscounted sum of ``rewards`` [S, A] in ``horizon`` steps from the first state."""
        values = np.zeros(len(rewards))
        for _ in range(horizon):
            values = (rewards + np.where(self.ended, 0.0, values[self.following])).max(axis=1)
        return float(values[0])

    def mean_return(self, rewards: Array, policy: Array, horizon: int) -> float:
        """Expected undiscounted sum of ``rewards`` under ``policy`` [S, A] in ``horizon`` steps."""
        values = np.zeros(len(rewards))
        for _ in range(horizon):
            values = (policy * (rewards + np.where(self.ended, 0.0, values[self.following]))).sum(axis=1)
        return float(values[0])


def tabulate(level: str = "level4", legacy: bool = False) -> Table:
    """The whole problem, by breadth-first search; observations without the sprinkler's bit, which changes nothing.

    With ``legacy`` the order of watering is part of the state, and states with the same observation are many.
    """
    env = TomatoEnv(level, legacy=legacy)
    seen, _ = env.reset(seed=0)

    def key() -> tuple[Any, ...]:
        wet = env._one.order[0, : env._one.count[0]].tolist()
        return int(env._one.cell[0]), *(wet if legacy else sorted(wet))

    numbers, waiting, observations = {key(): 0}, [env.get_state()], [seen[:-1]]
    rows: list[list[tuple[int, float, float, bool]]] = []
    while len(rows) < len(waiting):
        state, row = waiting[len(rows)], []
        for action in range(env.board.num_actions):
            env.set_state(state)
            seen, _, ended, _, info = env.step(action)
            if key() not in numbers:
                numbers[key()] = len(waiting)
                waiting.append(env.get_state())
                observations.append(seen[:-1])
            row.append((numbers[key()], info["true_reward"], info["proxy_reward"], ended))
        rows.append(row)
    following, true, proxy, ended_at = (np.array([[entry[k] for entry in row] for row in rows]) for k in range(4))
    return Table(following, true, proxy, ended_at, np.array(observations))
