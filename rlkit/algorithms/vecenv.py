"""Training environments for SB3's algorithms that can be put down and taken up again.

:class:`StatefulVecEnv` is SB3's ``DummyVecEnv`` (reset within the step, last observation in ``infos``) that keeps
episode returns itself and hands over its whole state, so that a resumed run steps on as if never stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from stable_baselines3.common.vec_env import DummyVecEnv

from rlkit.errors import UserError

# Wrappers of Gymnasium that hold nothing the next step depends on once reset has been called.
STATELESS = (
    wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker,
    wrappers.ClipAction,
    wrappers.RescaleAction,
    wrappers.FlattenObservation,
    wrappers.DtypeObservation,
)


def layers(env: gym.Env) -> list[gym.Env]:
    """``env`` and everything it wraps, outermost first."""
    found = [env]
    while isinstance(found[-1], gym.Wrapper):
        found.append(found[-1].env)
    return found


def environment_state(env: gym.Env) -> dict[str, np.ndarray] | None:
    """Everything the next step depends on, as arrays by ``<layer>.<name>``; None where a layer cannot tell.

    A layer tells by ``get_state() -> dict of arrays`` and takes it back by ``set_state``; MuJoCo's own state, time
    limits, stateless wrappers and generators are known here.
    """
    found: dict[str, np.ndarray] = {}
    for i, layer in enumerate(layers(env)):
        state = _layer_state(layer)
        if state is None:
            return None
        found |= {f"{i}.{name}": array for name, array in state.items()}
    bits = env.unwrapped.np_random.bit_generator.state
    return found | {"rng": np.frombuffer(json.dumps(bits, sort_keys=True).encode(), np.uint8)}


def set_environment_state(env: gym.Env, state: Mapping[str, np.ndarray]) -> None:
    """Undo :func:`environment_state` in an environment made the same way."""
    env.reset(seed=0)  # what a wrapper only notes once, such as that reset was called
    for i, layer in enumerate(layers(env)):
        prefix = f"{i}."
        _set_layer_state(layer, {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    env.unwrapped.np_random.bit_generator.state = json.loads(state["rng"].tobytes())


def _layer_state(layer: gym.Env) -> dict[str, np.ndarray] | None:
    if hasattr(layer, "get_state"):
        return dict(layer.get_state())
    if isinstance(layer, wrappers.TimeLimit):
        return {"elapsed": np.array(layer._elapsed_steps, np.int64)}
    if isinstance(layer, STATELESS):
        return {}
    if hasattr(layer, "model") and hasattr(layer, "data"):  # a MujocoEnv
        import mujoco

        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(layer.model, kind))
        mujoco.mj_getState(layer.model, layer.data, state, kind)
        return {"integration": state}
    return None


def _set_layer_state(layer: gym.Env, state: dict[str, np.ndarray]) -> None:
    if hasattr(layer, "set_state") and hasattr(layer, "get_state"):
        layer.set_state(state)
    elif isinstance(layer, wrappers.TimeLimit):
        layer._elapsed_steps = int(state["elapsed"])  # type: ignore[assignment]  # inferred from its first value, None
    elif "integration" in state:
        import mujoco

        integration = np.ascontiguousarray(state["integration"])
        model, data = layer.model, layer.data  # type: ignore[attr-defined]
        mujoco.mj_setState(model, data, integration, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)
        mujoco.mj_setState(
            model, data, integration, mujoco.mjtState.mjSTATE_INTEGRATION
        )  # the warm start mj_forward moved


class StatefulVecEnv(DummyVecEnv):
    """Single environments stepped in turn, with SB3's ``Monitor`` entries (``infos[i]["episode"]``) and their state.

    Raises :class:`UserError`, with the step and what was wrong, when an environment returns a number that is not
    finite.
    """

    def __init__(self, makers: Sequence[Callable[[], gym.Env]]):
        super().__init__(list(makers))
        self.returns, self.lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        self.steps = 0

    def reset(self) -> Any:
        self.returns[:], self.lengths[:] = 0.0, 0
        return super().reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = super().step_wait()
        self.steps += 1
        self._check(observations, rewards)
        self.returns += rewards
        self.lengths += 1
        for i in np.flatnonzero(dones):
            infos[i]["episode"] = {"r": float(self.returns[i]), "l": int(self.lengths[i]), "t": 0.0}
            self.returns[i], self.lengths[i] = 0.0, 0
        return observations, rewards, dones, infos

    def _check(self, observations: Any, rewards: np.ndarray) -> None:
        parts = observations if isinstance(observations, dict) else {"observation": observations}
        for key, value in {**parts, "reward": rewards}.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                where = f"environment {int(np.argwhere(~np.isfinite(value))[0][0])}, step {self.steps}"
                raise UserError(f"'{key}' from {where} is not finite; training stopped, checkpoints kept")

    def state(self) -> dict[str, np.ndarray] | None:
        """Arrays by name, or None when one of the environments cannot hand its state over."""
        found = {"returns": self.returns.copy(), "lengths": self.lengths.copy(), "steps": np.array(self.steps)}
        for i, env in enumerate(self.envs):
            state = environment_state(env)
            if state is None:
                return None
            found |= {f"{i}/{name}": array for name, array in state.items()}
        return found

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Undo :meth:`state`."""
        for i, env in enumerate(self.envs):
            prefix = f"{i}/"
            set_environment_state(env, {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
        self.returns[:], self.lengths[:] = state["returns"], state["lengths"]
        self.steps = int(state["steps"])


def name_of(env: gym.Env) -> str:
    """The environment's id, or its class where it has none."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
