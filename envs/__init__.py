"""Gymnasium environments and the records that name them.

Importing this registers every ``rlkit/...`` id with Gymnasium (which has loaded no plug-ins by itself since 1.0) and
loads none of the environments: ``gym.make("rlkit.envs:rlkit/Hopper-v5")``, or ``import rlkit.envs`` first.
"""

from gymnasium.envs.registration import register, registry

MUJOCO_TASKS = {"Hopper-v5": "hopper", "HalfCheetah-v5": "half_cheetah", "Walker2d-v5": "walker2d", "Ant-v5": "ant"}


def register_envs() -> None:
    """Make every id ``rlkit/...`` known to ``gymnasium.make`` and ``gymnasium.make_vec``; once is enough.

    The MuJoCo ids keep Gymnasium's own single environments and time limits and add the batched stepper as their
    ``vector_entry_point``.
    """
    for env_id, name in MUJOCO_TASKS.items():
        if f"rlkit/{env_id}" not in registry:
            spec = registry[env_id]
            register(
                id=f"rlkit/{env_id}",
                entry_point=spec.entry_point,
                vector_entry_point=f"rlkit.envs.mujoco_vector:{name}",
                max_episode_steps=spec.max_episode_steps,
                reward_threshold=spec.reward_threshold,
            )


register_envs()
