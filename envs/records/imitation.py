"""Imitation on the MuJoCo tasks: one labelled expert episode, more of them hidden among suboptimal data, no rewards.

The settings are ReCOIL's and SMODICE's: the pool is the random or the medium data, and either many expert episodes are
hidden in it (``random-expert``, ``medium-expert-imitation``; D4RL's medium-expert is another thing) or few
(``random-few``, ``medium-few``).  "One demonstration" is what is labelled, not all that the learner is given of the
expert.  Scores are normalised as those of the tasks' other levels.
"""

from __future__ import annotations

from rlkit.arguments import MUJOCO
from rlkit.data.imitation import MixtureSpec
from rlkit.envs.records.locomotion import TASKS
from rlkit.registry import EnvRecord

MANY, FEW = 200, 30  # hidden expert episodes
MANY_OF = {"walker2d": 100}
# level: (the pool's level, whether many expert episodes are hidden in it)
LEVELS = {
    "random-expert": ("random", True),
    "random-few": ("random", False),
    "medium-expert-imitation": ("medium", True),
    "medium-few": ("medium", False),
}


def _record(task: str, level: str) -> EnvRecord:
    env_id, low, high = TASKS[task]
    pool, many = LEVELS[level]
    hidden = MANY_OF.get(task, MANY) if many else FEW
    spec = MixtureSpec(
        level=level,
        generator="rlkit.data.imitation:mixture",
        reference=(low, high),
        expert=f"{task}-expert",
        suboptimal=f"{task}-{pool}",
        hidden_episodes=hidden,
    )
    summary = f"{env_id}, imitation: 1 labelled expert episode, {hidden} hidden in {pool} data"
    return EnvRecord(f"{task}-{level}", summary, env_id, "locomotion", task, spec, arguments=MUJOCO)


RECORDS = {record.name: record for record in (_record(task, level) for task in TASKS for level in LEVELS)}
