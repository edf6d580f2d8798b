"""The names of DeepMind Control's tasks, so that they can be listed and registered without loading dm_control."""

from __future__ import annotations

from rlkit.envs.records import register_ids
from rlkit.registry import EnvRecord

TASKS: dict[str, tuple[str, ...]] = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"),
    "cheetah": ("run",),
    "dog": ("stand", "walk", "trot", "run", "fetch"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
    "humanoid_CMU": ("stand", "walk", "run"),
    "lqr": ("lqr_2_1", "lqr_6_2"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("walk", "run", "escape", "fetch"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run"),
}

RECORDS = {
    f"dmc-{domain}-{task}": EnvRecord(
        f"dmc-{domain}-{task}",
        f"DeepMind Control, {domain} {task}",
        f"rlkit/dmc-{domain}-{task}-v0",
        "dmc",
        f"dmc-{domain}-{task}",
        extra="dmc",
    )
    for domain, tasks in TASKS.items()
    for task in tasks
}

register_ids(
    {
        f"rlkit/dmc-{domain}-{task}-v0": {
            "entry_point": "rlkit.envs.dmc:DMControl",
            "kwargs": {"domain": domain, "task": task},
        }
        for domain, tasks in TASKS.items()
        for task in tasks
    }
)
