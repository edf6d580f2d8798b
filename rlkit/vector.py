"""One way to name an environment, to get a batch of them, native where there is one, and to play an episode in each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlkit.registry import EnvRecord, record, records


def named(env: Any) -> Any:
    """The :class:`EnvRecord` that ``env`` names, by its own name or a Gymnasium id; anything but a name as it is.

    Raises :class:`UserError` naming the nearest known record.
    """
    if not isinstance(env, str):
        return env
    known = records()  # also registers the ids of installed packages
    if env in known or env not in gym.registry:
        return record(env)
    return EnvRecord(env, env, env, "", "")


def make_env(env: Any, **forced: Any) -> tuple[gym.Env, EnvRecord | None]:
    """The environment that ``env`` is or names, and its record if it was named or is one.

    ``forced`` are arguments of an environment that is made here.  Raises :class:`UserError` as :func:`named`.
    """
    env = named(env)
    if not isinstance(env, EnvRecord):
        return env, None
    return gym.make(env.env_id, **{**env.env_kwargs, **forced}), env


@cache
def hush_mujoco() -> None:
    """Leave out MuJoCo's remark on a deprecated attribute in Gymnasium's own half-cheetah, once per environment made.

    MuJoCo also appends it to ``MUJOCO_LOG.TXT`` in the working folder.  Its other warnings go to stderr as before; a
    handler that is set already stays.
    """
    import mujoco

    def warn(message: str) -> None:
        if "settotalmass" not in message:
            sys.stderr.write(f"WARNING: {message}\n")

    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(warn)


def make_vector_env(env_id: str, num_envs: int, **kwargs: Any) -> gym.vector.VectorEnv:
    """``num_envs`` copies of ``env_id`` behind one ``step``; resets happen on the step after an episode's end.

    A batched stepper registered for the environment (under its own id, or as ``rlkit/<env_id>``) is taken where there
    is one; it has the semantics of ``gym.make_vec(env_id, vectorization_mode="sync")``, which is what is used
    otherwise.  ``kwargs`` go to the environment.  Raises Gymnasium's own error for an unknown id.
    """
    records()  # loads the modules that register batched steppers, whoever asks first
    hush_mujoco()
    for name in (f"rlkit/{env_id}", env_id):
        spec = gym.registry.get(name)
        # Gymnasium's own steppers, of ids without a namespace, take no seed for each environment
        if spec is not None and spec.vector_entry_point is not None and spec.namespace is not None:
            return gym.make_vec(name, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs)
    return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="sync", **kwargs)


Watch = Callable[[NDArray[np.bool_], NDArray[np.bool_], Any, NDArray[Any], dict[str, Any]], None]


def play_episodes(
    act: Callable[[Any], Any], envs: gym.vector.VectorEnv, seed: int | Sequence[int], watch: Watch | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Undiscounted returns and lengths ``[n]`` of one episode in each of ``envs``, however long it is.

    ``act`` turns the batch's observations into its actions.  ``watch`` is told after each step which rows were running
    before it and which are now, bool ``[n]``, and what the step gave: observations, rewards, infos.
    """
    observations, _ = envs.reset(seed=seed)  # type: ignore[arg-type]  # batches take a seed for each row
    returns, lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, np.int64)
    running = np.ones(envs.num_envs, np.bool_)
    rest = getattr(envs, "rest", None)  # of steppers that can leave out what is over
    while running.any():
        observations, rewards, terminations, truncations, infos = envs.step(act(observations))
        returns[running] += rewards[running]
        lengths[running] += 1
        before, running = running, running & ~(terminations | truncations)
        if rest is not None:
            rest(~running)
        if watch is not None:
            watch(before, running, observations, rewards, infos)
    return returns, lengths
