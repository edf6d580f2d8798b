"""Mazes: a ball or an ant has to find its way, the reward is sparse and what was recorded went elsewhere.

========================  =====================================  ====================================================
records                   data                                   environment
========================  =====================================  ====================================================
``rlkit-pointmaze-*``     generated here by a waypoint           rlkit's own point maze; needs nothing
                          controller
``maze2d-*``              D4RL's ``maze2d-*-v1`` files, or       rlkit's own point maze in D4RL's frame
                          generated as those were
``pointmaze-*``           Minari's ``D4RL/pointmaze/*-v2``       gymnasium-robotics' PointMaze, extra ``robotics``
``antmaze-*``             Minari's ``D4RL/antmaze/*-v1``; D4RL's  gymnasium-robotics' AntMaze, extra ``robotics``;
                          ``antmaze-*-v2`` files                 none for D4RL's files
========================  =====================================  ====================================================

Conventions.  Where an episode ends at the goal (all but ``maze2d-*`` and the dense ones) learners see r - 1, as in IQL
and f-DVL on antmaze: every step costs 1 until the goal is reached.  Continuing tasks keep their rewards.  A sparse
evaluation has 100 episodes, because its return is a success rate.

Reference returns.  Antmaze: D4RL's 0 and 1 (``d4rl/infos.py``), so a score is a success rate in percent; pointmaze,
whose episodes end at the goal as antmaze's do: the same.  rlkit's own environments: measured here, uniformly random
actions and the waypoint controller without noise, 2000 episodes each, by ``python -m rlkit.data.navigation``; they are
not D4RL's, whose controller stops at every waypoint and earns about half as much.
"""

from __future__ import annotations

from typing import Any

from rlkit.arguments import Argument
from rlkit.envs.records import register_ids
from rlkit.envs.robotics import robotics_ids
from rlkit.registry import DataSpec, EnvRecord

FETCHED = "rlkit.data.resolve:not_generated"
WAYPOINTS = "rlkit.data.navigation:waypoint_rollouts"
OWN = {
    "reward": Argument(str, choices=("sparse", "dense")),
    "continuing": Argument(bool, optional=True),
    "goal": Argument(str, choices=("random", "fixed")),
    "observe_goal": Argument(bool),
    "frame": Argument(str, choices=("centred", "d4rl")),
    "goal_radius": Argument(float, 1e-3, 10),
    "position_noise": Argument(float, 0, 0.5),
}
ROBOTICS = {
    "reward_type": Argument(str, choices=("sparse", "dense")),
    "continuing_task": Argument(bool),
    "reset_target": Argument(bool),
    "position_noise_range": Argument(float, 0, 0.5),
}
LAYOUTS = {"umaze": "UMaze", "medium": "Medium", "large": "Large"}
SPARSE_EPISODES = 100

# (record of rlkit's own environments: random return, controller's return), see the module's docstring
REFERENCES = {
    "rlkit-pointmaze-umaze": (0.2425, 1.0),
    "rlkit-pointmaze-umaze-dense": (68.88, 256.4),
    "rlkit-pointmaze-medium": (0.124, 1.0),
    "rlkit-pointmaze-medium-dense": (59.35, 510.9),
    "rlkit-pointmaze-large": (0.089, 1.0),
    "rlkit-pointmaze-large-dense": (42.96, 656.7),
    "maze2d-umaze": (37.73, 239.3),
    "maze2d-umaze-dense": (68.57, 248.0),
    "maze2d-medium": (22.49, 477.8),
    "maze2d-medium-dense": (51.07, 488.4),
    "maze2d-large": (12.74, 623.3),
    "maze2d-large-dense": (40.88, 638.2),
}


def _own(task: str, kind: str, layout: str, dense: bool) -> EnvRecord:
    """A record of rlkit's own point maze; ``kind`` is PointMaze or Maze2D."""
    level = f"{layout}-dense" if dense else layout
    name = f"{task}-{level}"
    ends = kind == "PointMaze" and not dense  # at the goal
    spec = DataSpec(
        level=level,
        generator=WAYPOINTS,
        reference=REFERENCES[name],
        d4rl_id=f"{name}-v1" if kind == "Maze2D" else None,
        reward_shift=-1.0 if ends else 0.0,
        reward_stands=ends,
    )
    goal = "a goal anew each episode" if kind == "PointMaze" else "D4RL's Maze2D: one goal, not observed"
    return EnvRecord(
        name,
        f"rlkit's point maze, {goal}, {'dense' if dense else 'sparse'} reward",
        f"rlkit/{kind}_{LAYOUTS[layout]}-v0",
        "pointmaze",
        task,
        spec,
        {"reward": "dense"} if dense else {},
        10 if dense else SPARSE_EPISODES,
        arguments=OWN,
    )


def _pointmaze(layout: str, dense: bool) -> EnvRecord:
    level = f"{layout}-dense" if dense else layout
    spec = DataSpec(
        level=level,
        generator=FETCHED,
        reference=None if dense else (0.0, 1.0),
        minari_id=f"D4RL/pointmaze/{level}-v2",
        reward_shift=0.0 if dense else -1.0,
        reward_stands=not dense,
        minari_keys=("observation", "desired_goal"),
    )
    return EnvRecord(
        f"pointmaze-{level}",
        f"PointMaze_{LAYOUTS[layout]}-v3, waypoint controller's data, {'dense' if dense else 'sparse'} reward",
        f"rlkit-robotics/PointMaze_{LAYOUTS[layout]}-v3",
        "pointmaze",
        "pointmaze",
        spec,
        {"reward_type": "dense", "continuing_task": True} if dense else {},
        10 if dense else SPARSE_EPISODES,
        "robotics",
        ROBOTICS,
    )


def _antmaze(level: str) -> EnvRecord:
    layout = LAYOUTS[level.partition("-")[0]]
    spec = DataSpec(
        level=level,
        generator=FETCHED,
        reference=(0.0, 1.0),
        minari_id=f"D4RL/antmaze/{level}-v1",
        d4rl_id=f"antmaze-{level}-v2",
        reward_shift=-1.0,
        reward_stands=True,
        minari_keys=("achieved_goal", "observation", "desired_goal"),
        d4rl_widths=(29, 8),
        d4rl_simulated=False,  # its ant is weaker and steps longer, its frame has another origin and axis
    )
    return EnvRecord(
        f"antmaze-{level}",
        f"AntMaze_{layout}-v4, {level.partition('-')[2] or 'fixed-goal'} data",
        f"rlkit-robotics/AntMaze_{layout}-v4",
        "antmaze",
        "antmaze",
        spec,
        episodes=SPARSE_EPISODES,
        extra="robotics",
        arguments=ROBOTICS,
    )


ANT_LEVELS = ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")

RECORDS = {
    record.name: record
    for record in (
        *(_own("rlkit-pointmaze", "PointMaze", layout, dense) for layout in LAYOUTS for dense in (False, True)),
        *(_own("maze2d", "Maze2D", layout, dense) for layout in LAYOUTS for dense in (False, True)),
        *(_pointmaze(layout, dense) for layout in LAYOUTS for dense in (False, True)),
        *(_antmaze(level) for level in ANT_LEVELS),
    )
}

STEPS = {"UMaze": 300, "Medium": 600, "Large": 800}  # of an episode, as D4RL's and gymnasium-robotics'
KINDS: dict[str, dict[str, Any]] = {
    "PointMaze": {},
    "Maze2D": {  # D4RL's form of the same mazes: one goal, not observed, at which an episode goes on
        "goal": "fixed",
        "observe_goal": False,
        "continuing": True,
        "frame": "d4rl",
        "goal_radius": 0.5,
        "position_noise": 0.1,
    },
}
register_ids(
    {
        f"rlkit/{kind}_{layout}-v0": {
            "entry_point": "rlkit.envs.mazes.point_maze:PointMazeEnv",
            "vector_entry_point": "rlkit.envs.mazes.point_maze:PointMazeVectorEnv",
            "max_episode_steps": steps,
            "kwargs": {"layout": layout.lower(), **settings},
        }
        for layout, steps in STEPS.items()
        for kind, settings in KINDS.items()
    }
)
register_ids(robotics_ids("PointMaze", "AntMaze"))
