"""One way to get a batch of environments, native where there is one."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rlkit.registry import records


def make_vector_env(env_id: str, num_envs: int, **kwargs: Any) -> gym.vector.VectorEnv:
    """``num_envs`` copies of ``env_id`` behind one ``step``; resets happen on the step after an episode's end.

    A batched stepper registered for the environment (under its own id, or as ``rlkit/<env_id>``) is taken where there
    is one; it has the semantics of ``gym.make_vec(env_id, vectorization_mode="sync")``, which is what is used
    otherwise.  ``kwargs`` go to the environment.  Raises Gymnasium's own error for an unknown id.
    """
    records()  # loads the modules that register batched steppers, whoever asks first
    for name in (f"rlkit/{env_id}", env_id):
        spec = gym.registry.get(name)
        if spec is not None and spec.vector_entry_point is not None:
            return gym.make_vec(name, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs)
    return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="sync", **kwargs)
