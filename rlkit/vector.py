"""One way to name an environment, and to get a batch of them, native where there is one."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import gymnasium as gym

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
