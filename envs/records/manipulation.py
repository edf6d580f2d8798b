"""Franka kitchen and the Adroit hand, through gymnasium-robotics (extra ``robotics``).

Kitchen: Minari's ``D4RL/kitchen/*-v2``.  An episode's return is the number of the four subtasks completed, so D4RL's
reference returns are 0 and 4.  In Minari's data a subtask pays 1 on every step on which it is complete, so returns of
recorded episodes exceed 4 and their scores are of the most that were complete at once.  D4RL's own kitchen files hold
other observations (positions and goals, no velocities) than FrankaKitchen-v1: they carry no record's name and are
learnt from without evaluation.

Adroit: Minari's ``D4RL/{pen,door,hammer,relocate}/*-v2`` and D4RL's ``*-v1`` files, of the same observations.  The
reference returns are D4RL's (``d4rl/infos.py``), the time limits D4RL's too.  gymnasium-robotics changed the dense
rewards of door, hammer and relocate in 1.2.1 without a new version of the environment (its pull request 220), so
scores there are not D4RL's to the digit.

Both families keep their rewards (f-DVL's table of conventions) and are evaluated over 10 episodes.
"""

from __future__ import annotations

from rlkit.arguments import Argument
from rlkit.envs.records import register_ids
from rlkit.envs.robotics import robotics_ids
from rlkit.registry import DataSpec, EnvRecord

FETCHED = "rlkit.data.resolve:not_generated"
KITCHEN = {
    "complete": ("light switch", "slide cabinet"),
    "partial": ("light switch", "slide cabinet"),
    "mixed": ("bottom burner", "light switch"),
}
SUBTASKS = (*("bottom burner", "top burner", "light switch", "slide cabinet", "hinge cabinet", "microwave", "kettle"),)
KITCHEN_ARGUMENTS = {
    "tasks_to_complete": Argument(str, choices=SUBTASKS, length=(1, len(SUBTASKS))),
    "terminate_on_tasks_completed": Argument(bool),
    "remove_task_when_completed": Argument(bool),
    "object_noise_ratio": Argument(float, 0, 1),
    "robot_noise_ratio": Argument(float, 0, 1),
}
ADROIT_ARGUMENTS = {"reward_type": Argument(str, choices=("dense", "sparse"))}
KITCHEN_DATA = {
    "complete": "all four subtasks done in order",
    "partial": "other tasks too, some episodes do all four",
    "mixed": "no episode does all four in sequence",
}
# task: (D4RL's random return, D4RL's expert return)
HANDS = {
    "pen": (96.262799, 3076.8331017826877),
    "door": (-56.512833, 2880.5693087298737),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
}
HAND_DATA = {
    "human": "25 human demonstrations",
    "cloned": "half demonstrations, half a policy cloned from them",
    "expert": "a trained policy",
}


def _kitchen(level: str) -> EnvRecord:
    tasks = ["microwave", "kettle", *KITCHEN[level]]
    spec = DataSpec(
        level=level,
        generator=FETCHED,
        reference=(0.0, 4.0),
        reward_stands=True,
        minari_id=f"D4RL/kitchen/{level}-v2",
        minari_keys=("observation",),
    )
    return EnvRecord(
        f"kitchen-{level}",
        f"FrankaKitchen-v1, {KITCHEN_DATA[level]}",
        "rlkit-robotics/FrankaKitchen-v1",
        "kitchen",
        "kitchen",
        spec,
        {"tasks_to_complete": tasks},
        extra="robotics",
        arguments=KITCHEN_ARGUMENTS,
    )


def _adroit(task: str, level: str) -> EnvRecord:
    spec = DataSpec(
        level=level,
        generator=FETCHED,
        reference=HANDS[task],
        minari_id=f"D4RL/{task}/{level}-v2",
        d4rl_id=f"{task}-{level}-v1",
    )
    env_id = f"AdroitHand{task.capitalize()}-v1"
    return EnvRecord(
        f"{task}-{level}",
        f"{env_id}, {HAND_DATA[level]}",
        f"rlkit-robotics/{env_id}",
        "adroit",
        task,
        spec,
        extra="robotics",
        arguments=ADROIT_ARGUMENTS,
    )


RECORDS = {
    record.name: record
    for record in (*map(_kitchen, KITCHEN), *(_adroit(task, level) for task in HANDS for level in HAND_DATA))
}
register_ids(robotics_ids("FrankaKitchen", "AdroitHand"))
