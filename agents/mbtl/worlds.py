"""Worlds for MBTL: the grid of contexts, batches with a context per row, episodes in them, training in one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from rlkit import registry
from rlkit.algorithms.evaluate import Evaluation, Evaluator
from rlkit.algorithms.vecenv import StatefulVecEnv
from rlkit.errors import UserError, nearest
from rlkit.registry import EnvRecord
from rlkit.vector import hush_mujoco, named, play_episodes

Array = NDArray[np.float64]


def is_native(env_id: str) -> bool:
    """Whether the environment has a batch of its own, in which each row has its own context."""
    registry.records()  # registers the ids of installed packages, also in a process that was just started
    return gym.spec(env_id).vector_entry_point is not None


def settings_of(kwargs: Mapping[str, Any], names: Sequence[str], values: Any) -> dict[str, Any]:
    """``kwargs`` with ``values`` in place of the context's features ``names``."""
    fixed = dict(kwargs.get("context") or {})
    return {**kwargs, "context": {**fixed, **dict(zip(names, values, strict=True))}}


def context_rows(env_id: str, kwargs: Mapping[str, Any], names: Sequence[str], contexts: Array) -> VectorEnv:
    """A batch whose row i has the context ``contexts[i]`` of ``[M, d]``."""
    if is_native(env_id):
        settings = settings_of(kwargs, names, contexts.T.tolist())
        return gym.make_vec(env_id, len(contexts), vectorization_mode="vector_entry_point", **settings)
    hush_mujoco()
    return SyncVectorEnv([partial(gym.make, env_id, **settings_of(kwargs, names, row.tolist())) for row in contexts])


def probe(env: Any) -> tuple[EnvRecord, Mapping[str, Any], tuple[spaces.Space, spaces.Space]]:
    """Record, features of the context, and spaces (observation, action) of the environment that ``env`` names.

    Raises :class:`UserError` for one that has no context.
    """
    record = named(env)
    if not isinstance(record, EnvRecord):
        raise UserError(f"mbtl makes its environments itself: expected an environment's name, got {env!r}")
    hush_mujoco()
    single = gym.make(record.env_id, **record.env_kwargs)
    features = getattr(single.unwrapped, "features", None)
    single.close()
    if not isinstance(features, Mapping):
        raise UserError(f"mbtl needs an environment with a context, such as contextual-cartpole, got {record.name}")
    return record, features, (single.observation_space, single.action_space)


def grid(features: Mapping[str, Any], names: Sequence[str], count: int, low: float, high: float) -> Array:
    """Contexts float64 ``[N, d]``: ``count`` scales from ``low`` to ``high``, for several features their product.

    Raises :class:`UserError` for a feature that the environment does not have.
    """
    scales = np.linspace(low, high, count)
    axes = []
    for name in names:
        if name not in features:
            raise UserError(f"agent.features: unknown context feature '{name}'{nearest(name, features)}")
        axes.append(scales * features[name].base)
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def nearest_points(context: Any, names: Sequence[str], contexts: Array, n: int) -> NDArray[np.int64]:
    """Numbers ``[n]`` of the ``contexts`` ``[N, d]`` nearest to ``context``, each feature scaled to its range.

    ``context`` holds values by name, or is an array ``[d]`` or ``[n, d]`` (``[n]`` for one feature).
    Raises :class:`UserError` where it lacks a feature, has another, or has another shape.
    """
    if isinstance(context, Mapping):
        if set(context) != set(names):
            raise UserError(f"context={context}: expected a value for each of {', '.join(names)}, and no other")
        columns = [np.atleast_1d(np.asarray(context[name], np.float64)) for name in names]
        if any(column.shape not in ((1,), (n,)) for column in columns):
            raise UserError(f"context={context}: expected numbers, or {n} of each")
        context = np.stack([np.broadcast_to(column, (n,)) for column in columns], axis=1)
    values = np.atleast_1d(np.asarray(context, np.float64))
    values = values[:, None] if values.shape == (n,) and len(names) == 1 else values
    if values.shape not in ((len(names),), (n, len(names))) or not np.isfinite(values).all():
        raise UserError(f"context of shape {values.shape}: expected finite {(len(names),)} or {(n, len(names))}")
    rows = np.broadcast_to(values, (n, len(names)))[:, None]
    away = (rows - contexts) / np.ptp(contexts, axis=0)  # [n, N, d]
    return np.square(away).sum(axis=2).argmin(axis=1)


class BatchVecEnv(VecEnv):
    """A native batch as SB3 steps it: episodes are reset within the step, their last observation is in ``infos``.

    The batch's ``reset`` must take ``options["reset_mask"]``.
    """

    def __init__(self, envs: VectorEnv):
        self.batch = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.returns, self.lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)

    def reset(self) -> VecEnvObs:
        self.returns[:], self.lengths[:] = 0.0, 0
        observations, _ = self.batch.reset(seed=self._seeds)  # type: ignore[arg-type]  # Gymnasium's batches take one each
        self._reset_seeds()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        self.actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminations, truncations, _ = self.batch.step(self.actions)
        self.returns += rewards
        self.lengths += 1
        dones = terminations | truncations
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if dones.any():
            last = observations
            observations, _ = self.batch.reset(options={"reset_mask": dones})
            for i in np.flatnonzero(dones):
                infos[i] = {
                    "terminal_observation": last[i],
                    "TimeLimit.truncated": bool(truncations[i] and not terminations[i]),
                    "episode": {"r": float(self.returns[i]), "l": int(self.lengths[i]), "t": 0.0},
                }
            self.returns[dones], self.lengths[dones] = 0.0, 0
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        self.batch.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(self.batch, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        setattr(self.batch, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        found = getattr(self.batch, method_name)(*args, **kwargs)
        return [found] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))


def training_env(env_id: str, kwargs: Mapping[str, Any], names: Sequence[str], context: Array, count: int) -> VecEnv:
    """``count`` environments of one ``context`` ``[d]`` as SB3 steps them."""
    if is_native(env_id):
        return BatchVecEnv(context_rows(env_id, kwargs, names, np.tile(context, (count, 1))))
    hush_mujoco()
    return StatefulVecEnv([partial(gym.make, env_id, **settings_of(kwargs, names, context.tolist()))] * count)


class Spread(Evaluator):
    """Episodes spread evenly over ``contexts`` ``[N, d]``, of an agent whose ``predict`` takes ``context``."""

    def __init__(
        self,
        env_id: str,
        env_kwargs: Mapping[str, Any],
        features: Sequence[str],
        contexts: Array,
        bounds: tuple[float, float],
        episodes: int,
        seed: int,
    ):
        super().__init__(env_id, episodes=episodes, seed=seed, env_kwargs=env_kwargs, reference=bounds)
        self.features, self.contexts, self.bounds = features, contexts, bounds

    def measure(self, agent: Any, index: int) -> Evaluation:
        seeds = np.random.SeedSequence([self.seed, index]).generate_state(self.episodes).tolist()
        rows = self.contexts[np.arange(self.episodes) * len(self.contexts) // self.episodes]  # [E, d]
        greedy = self.judged == "greedy"
        envs = context_rows(self.env_id, self.env_kwargs, self.features, rows)
        act = lambda seen: agent.predict(seen, deterministic=greedy, context=rows)[0]  # noqa: E731
        returns, lengths = play_episodes(act, envs, seeds)
        envs.close()
        low, high = self.bounds
        return Evaluation(returns, lengths, 100.0 * (returns - low) / (high - low))
