"""MuJoCo locomotion: hopper, halfcheetah, walker2d and ant at D4RL's five levels.

Reference returns are D4RL's (Fu et al. 2020, ``d4rl/infos.py``), so a score means what it means there whenever the
data is D4RL's too.  Minari holds expert, medium and simple datasets of the v5 tasks; the other levels have no
counterpart there.
"""

from __future__ import annotations

from gymnasium.envs.registration import registry

from rlkit.arguments import MUJOCO, Argument
from rlkit.envs.records import register_ids
from rlkit.registry import DataSpec, EnvRecord

LEVELS = {
    "random": "uniformly random actions",
    "medium": "a policy of about a third to a half of the expert's score",
    "medium-replay": "what was seen on the way to the medium policy",
    "medium-expert": "half medium, half expert",
    "expert": "a fully trained policy",
}
# task: (Gymnasium id, D4RL's random return, D4RL's expert return)
TASKS = {
    "hopper": ("Hopper-v5", -20.272305, 3234.3),
    "halfcheetah": ("HalfCheetah-v5", -280.178953, 12135.0),
    "walker2d": ("Walker2d-v5", 1.629008, 4592.3),
    "ant": ("Ant-v5", -325.6, 3879.7),
}
MINARI_LEVELS = ("medium", "expert")


def _record(task: str, level: str) -> EnvRecord:
    env_id, low, high = TASKS[task]
    spec = DataSpec(
        level=level,
        generator="rlkit.data.generate:behaviour_rollouts",
        reference=(low, high),
        minari_id=f"mujoco/{task}/{level}-v0" if level in MINARI_LEVELS else None,
        d4rl_id=f"{task}-{level}-v2",
        size=2_000_000 if level == "medium-expert" else 1_000_000,
    )
    return EnvRecord(
        f"{task}-{level}", f"{env_id}, {LEVELS[level]}", env_id, "locomotion", task, spec, arguments=MUJOCO
    )


def _distracted(task: str, title: str) -> EnvRecord:
    return EnvRecord(
        f"{task}-distractors",
        f"{title} with chaotic coordinates appended, online",
        f"rlkit/{title}Distractors-v0",
        "locomotion",
        task,
        env_kwargs={"distractors": 15, "dynamics_seed": 0},
        arguments={
            **(MUJOCO if task != "pendulum" else {}),
            "distractors": Argument(int, 0, 1_000),
            "dynamics_seed": Argument(int, 0, 2**32 - 1),
        },
    )


DISTRACTED = (("hopper", "Hopper"), ("inverted-pendulum", "InvertedPendulum"), ("pendulum", "Pendulum"))
RECORDS = {
    **{
        task: EnvRecord(task, f"{env_id}, online", env_id, "locomotion", task, arguments=MUJOCO)
        for task, (env_id, _, _) in TASKS.items()
    },
    "inverted-pendulum": EnvRecord(
        "inverted-pendulum",
        "InvertedPendulum-v5, online",
        "InvertedPendulum-v5",
        "locomotion",
        "inverted-pendulum",
        arguments=MUJOCO,
    ),
    **{record.name: record for record in (_distracted(*names) for names in DISTRACTED)},
    **{record.name: record for record in (_record(task, level) for task in TASKS for level in LEVELS)},
}

# Gymnasium's own single environments and time limits, with a batched stepper as their vector_entry_point
MUJOCO_TASKS = {"Hopper-v5": "hopper", "HalfCheetah-v5": "half_cheetah", "Walker2d-v5": "walker2d", "Ant-v5": "ant"}
DISTRACTED_TASKS = {
    "Hopper": "Hopper-v5",
    "InvertedPendulum": "InvertedPendulum-v5",
    "Pendulum": "rlkit/ContextualPendulum-v0",
}
register_ids(
    {
        f"rlkit/{env_id}": {
            "entry_point": registry[env_id].entry_point,
            "vector_entry_point": f"rlkit.envs.mujoco.vector:{stepper}",
            "max_episode_steps": registry[env_id].max_episode_steps,
            "reward_threshold": registry[env_id].reward_threshold,
        }
        for env_id, stepper in MUJOCO_TASKS.items()
    }
)
register_ids(
    {
        f"rlkit/{name}Distractors-v0": {
            "entry_point": "rlkit.envs.mujoco.distractors:distracted",
            "kwargs": {"base": base},
        }
        for name, base in DISTRACTED_TASKS.items()
    }
)
