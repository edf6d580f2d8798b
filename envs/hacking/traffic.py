"""Merging onto a crowded highway, and a proxy reward that forgets those who wait to merge.

A highway of 100 and 75 m is joined by a ramp of 50 m; 7500 and 450 vehicles an hour arrive at random.  A quarter of the
ramp's, at most ten at a time, are accelerated by the agent, the others drive by the intelligent driver model (IDM).
SUMO moves them, in a process beside this one (:mod:`rlkit.envs.hacking.traffic_worker`), and keeps everybody from
colliding.  A step is a second; with v the speeds of all vehicles, h seconds to the controlled vehicles' leaders, a the
action,

    proxy = mean v - mean |a| + 0.1 Σ min(h - 1, 0)
    true  = -mean 1/(v + 0.001) - mean |a| + 0.1 Σ min(h - 1, 0)

so that one vehicle standing still among n costs 1000/n a second in truth, and next to nothing by proxy.  The published
experiments multiply rewards by 1e-4 and run on Flow, which is no longer kept up; lanes (four), the junction's rules and
SUMO's version differ here, so returns are not comparable.
"""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.hacking.cloning import clone
from rlkit.envs.hacking.two_rewards import REWARDS
from rlkit.errors import UserError, install_extra, require_choice

Array = NDArray[np.float64]

VEHICLES, FEATURES, HORIZON = 10, 5, 300
HIGHEST, FASTEST, SIGHT = 1.5, 30.0, 100.0  # m/s², m/s, m
LATENESS, NEARNESS = 1e-3, 0.1  # added to speeds before they are inverted, weight of too short headways
WORKER = Path(__file__).with_name("traffic_worker.py")
DESIRED, HEADWAY, ACCELERATION, BRAKING, EXPONENT, JAM = 30.0, 1.0, 1.0, 1.5, 4, 2.0  # of the IDM
EPISODES, EPOCHS, WIDTHS, NOISE = 40, 20, (128, 128), 0.1  # of its imitator; deviation of its actions, m/s²


# ---- what is made of the simulation ----------------------------------------------------------------------------------


def observation(controlled: list[list[Any]]) -> NDArray[np.float32]:
    """[50]: five numbers for each of the first ten controlled vehicles, see :class:`TrafficEnv`."""
    seen = np.zeros((VEHICLES, FEATURES), np.float32)
    for row, (_, speed, gap, leader, space, follower) in zip(seen, controlled, strict=False):
        ahead, behind = (SIGHT, FASTEST) if gap < 0 else (gap, leader), (SIGHT, 0.0) if space < 0 else (space, follower)
        row[:] = (
            speed / FASTEST,
            (ahead[1] - speed) / FASTEST,
            ahead[0] / SIGHT,
            (speed - behind[1]) / FASTEST,
            behind[0] / SIGHT,
        )
    return np.clip(seen, -1, 1).ravel()


def rewards(speeds: list[float], controlled: list[list[Any]], action: Array) -> tuple[float, float]:
    """True and proxy reward of a second after which the simulation is as told; action [10], m/s²."""
    headways = [gap / speed for _, speed, gap, *_ in controlled[:VEHICLES] if gap >= 0 and speed > 0]
    common = NEARNESS * sum(min(h - 1, 0.0) for h in headways) - float(np.abs(action).mean())
    v = np.array(speeds)
    if not len(v):
        return common, common
    return common - float((1 / (v + LATENESS)).mean()), common + float(v.mean())


def idm(seen: NDArray[Any]) -> Array:
    """The intelligent driver model's accelerations [n, 10], m/s², at observations [n, 50]; 0 where no vehicle is."""
    parts = seen.reshape(-1, VEHICLES, FEATURES).astype(np.float64)
    speed, closing, gap = FASTEST * parts[:, :, 0], -FASTEST * parts[:, :, 1], SIGHT * parts[:, :, 2]
    dynamic = speed * HEADWAY + speed * closing / (2 * np.sqrt(ACCELERATION * BRAKING))
    wanted = JAM + np.maximum(dynamic, 0)
    pull = ACCELERATION * (1 - (speed / DESIRED) ** EXPONENT - (wanted / np.maximum(gap, 0.1)) ** 2)
    return np.where(parts.any(axis=2), np.clip(pull, -HIGHEST, HIGHEST), 0.0)


# ---- the simulation --------------------------------------------------------------------------------------------------


class Simulation:
    """The process in which SUMO runs.  It ends with this object, or with this process however that ends."""

    def __init__(self) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, str(WORKER)], **pipes)
        self.close = weakref.finalize(self, _end, self.process)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the worker answers.  Raises UserError where it is no more."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):  # there is no answer either
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise UserError(f"traffic: SUMO ended with code {self.process.wait()}, expected it to go on; see above why")
        return json.loads(answer)


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):  # it had ended
            pipe.close()
    process.wait()


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


class TrafficEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """The merge.

    Observation float32 (50,) in [-1, 1]: five for each of ten vehicles, in the order in which they entered, 0 for those
    that are not there: speed/30, (leader's - own speed)/30, gap to the leader/100, (own - follower's speed)/30, gap to
    the follower/100.  Nobody ahead is one 100 m away at 30 m/s, nobody behind one at 0.  Action float32 (10,) in
    [-1.5, 1.5] m/s², those of vehicles that are not there being ignored but paid for.  ``info``: ``true_reward``,
    ``proxy_reward``.

    Args:
        reward: "proxy" or "true", the step's reward.

    Raises UserError for another reward, or without the extra ``traffic``.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # Gymnasium's own form
        "render_modes": [],
        "surrogate": "stands for Flow's merge; returns are not comparable with published ones",
    }

    def __init__(self, reward: str = "proxy") -> None:
        require_choice("traffic: reward", reward, REWARDS)
        missing = [name for name in ("libsumo", "sumo") if find_spec(name) is None]
        if missing:
            raise UserError(f"traffic needs {' and '.join(missing)}; install it with: {install_extra('traffic')}")
        self.reward = reward
        self.observation_space = spaces.Box(-1.0, 1.0, (VEHICLES * FEATURES,), np.float32)
        self.action_space = spaces.Box(-HIGHEST, HIGHEST, (VEHICLES,), np.float32)
        self._simulation: Simulation | None = None
        self._sumo_seed, self._actions, self._steps = 0, np.zeros((HORIZON, VEHICLES), np.float32), 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        return self._begin(int(self.np_random.integers(2**31 - 1))), {"true_reward": 0.0, "proxy_reward": 0.0}

    def _begin(self, sumo_seed: int) -> NDArray[np.float32]:
        self._simulation = self._simulation or Simulation()
        self._sumo_seed, self._steps, self._actions[:] = sumo_seed, 0, 0.0
        self._told = self._simulation.ask({"seed": sumo_seed})
        return observation(self._told["controlled"])

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        bounded = np.clip(np.asarray(action, np.float32), -HIGHEST, HIGHEST)
        if bounded.shape != (VEHICLES,) or not np.isfinite(bounded).all():
            raise UserError(f"traffic: expected a finite action of shape ({VEHICLES},), got {action!r}")
        self._advance(bounded)
        true, proxy = rewards(self._told["speeds"], self._told["controlled"], bounded.astype(np.float64))
        info = {"true_reward": true, "proxy_reward": proxy}
        return observation(self._told["controlled"]), info[f"{self.reward}_reward"], False, self._steps == HORIZON, info

    def _advance(self, action: NDArray[np.float32]) -> None:
        assert self._simulation is not None, "call reset() first"
        if self._steps < HORIZON:
            self._actions[self._steps] = action
        self._steps += 1
        there = [row[0] for row in self._told["controlled"]]
        self._told = self._simulation.ask({"act": dict(zip(there, action.tolist(), strict=False))})

    def close(self) -> None:
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None

    @staticmethod
    def scripted_policy() -> tuple[Array, ...]:
        """The IDM's imitator: weights and biases of its layers (tanh between them), and deviations, as `clone`'s."""
        env, generator = TrafficEnv(), np.random.default_rng(0)
        seen, done = [], []
        for episode in range(EPISODES):
            now, _ = env.reset(seed=episode)
            for _ in range(HORIZON):
                seen.append(now)
                noisy = idm(now)[0] + NOISE * generator.standard_normal(VEHICLES)
                done.append(np.clip(noisy, -HIGHEST, HIGHEST).astype(np.float32))
                now = env.step(done[-1])[0]
        env.close()
        return clone(np.array(seen), np.array(done), WIDTHS, VEHICLES, EPOCHS, deviation=NOISE)

    # ---- state: SUMO's own save files do not restore it exactly, the same actions from the same seed do --------------

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The episode's seed of SUMO, its steps and its actions."""
        return {"sumo_seed": np.array(self._sumo_seed), "steps": np.array(self._steps), "actions": self._actions.copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Undo :meth:`get_state`, by running the episode again."""
        self._begin(int(state["sumo_seed"]))
        for action in np.array(state["actions"])[: int(state["steps"])]:
            self._advance(action)
