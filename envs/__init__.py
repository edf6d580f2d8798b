"""Gymnasium environments and the records that name them.

Importing this registers every ``rlkit/...`` id with Gymnasium (which has loaded no plug-ins by itself since 1.0) and
loads none of the environments: ``gym.make("rlkit.envs:rlkit/Hopper-v5")``, or ``import rlkit.envs`` first.
"""

# ruff: noqa: E402
from pathlib import Path

__path__[:] = [str(Path(__file__).resolve().parent)]  # modules get the path of their file, not of a link to it

from gymnasium.envs.registration import register, registry

from rlkit.envs.contextual_records import register_contextual
from rlkit.envs.dmc_tasks import TASKS as DMC_TASKS
from rlkit.envs.hacking import register_traffic
from rlkit.envs.robotics import register_robotics

MUJOCO_TASKS = {"Hopper-v5": "hopper", "HalfCheetah-v5": "half_cheetah", "Walker2d-v5": "walker2d", "Ant-v5": "ant"}
ROBUST_TASKS = {"LinearMDP-v0": "linear_mdp:LinearMDP", "AmericanPut-v0": "american_put:AmericanPut"}
HACKING_TASKS = {"Tomato-v0": "tomato:Tomato", "Glucose-v0": "glucose:Glucose", "Pandemic-v0": "pandemic:Pandemic"}
DISTRACTED_TASKS = {
    "Hopper": "Hopper-v5",
    "InvertedPendulum": "InvertedPendulum-v5",
    "Pendulum": "rlkit/ContextualPendulum-v0",
}
COMBINATORIAL_TASKS = {
    "TSP-v0": "tsp:TSP",
    "ATSP-v0": "tsp:ATSP",
    "CVRP-v0": "cvrp:CVRP",
    "OP-v0": "orienteering:OP",
    "Knapsack-v0": "knapsack:Knapsack",
    "ConvexHull-v0": "geometry:ConvexHull",
    "Delaunay-v0": "geometry:Delaunay",
}
MAZES = {"UMaze": 300, "Medium": 600, "Large": 800}  # steps, as D4RL's and gymnasium-robotics'
MAZE2D = {  # D4RL's form of the same mazes: one goal, not observed, at which an episode goes on
    "goal": "fixed",
    "observe_goal": False,
    "continuing": True,
    "frame": "d4rl",
    "goal_radius": 0.5,
    "position_noise": 0.1,
}


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
    for env_id, home in (ROBUST_TASKS | COMBINATORIAL_TASKS | HACKING_TASKS).items():
        if f"rlkit/{env_id}" not in registry:
            register(
                id=f"rlkit/{env_id}",
                entry_point=f"rlkit.envs.{home}Env",
                vector_entry_point=f"rlkit.envs.{home}VectorEnv",
            )
    for name, steps in MAZES.items():
        for kind, settings in (("PointMaze", {}), ("Maze2D", MAZE2D)):
            if f"rlkit/{kind}_{name}-v0" not in registry:
                register(
                    id=f"rlkit/{kind}_{name}-v0",
                    entry_point="rlkit.envs.point_maze:PointMazeEnv",
                    vector_entry_point="rlkit.envs.point_maze:PointMazeVectorEnv",
                    max_episode_steps=steps,
                    kwargs={"layout": name.lower(), **settings},
                )
    for name, base in DISTRACTED_TASKS.items():
        if f"rlkit/{name}Distractors-v0" not in registry:
            kwargs = {"base": base}
            register(id=f"rlkit/{name}Distractors-v0", entry_point="rlkit.envs.distractors:distracted", kwargs=kwargs)
    for domain, tasks in DMC_TASKS.items():
        for task in tasks:
            if f"rlkit/dmc-{domain}-{task}-v0" not in registry:
                register(
                    id=f"rlkit/dmc-{domain}-{task}-v0",
                    entry_point="rlkit.envs.dmc:DMControl",
                    kwargs={"domain": domain, "task": task},
                )
    register_contextual()
    register_robotics()
    register_traffic()


register_envs()
