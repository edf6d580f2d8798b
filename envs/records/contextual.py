"""Tasks with a context, the worlds that MBTL chooses among: ``env.kwargs.context`` sets it."""

from __future__ import annotations

from rlkit.arguments import MUJOCO, Argument
from rlkit.envs.records import register_ids
from rlkit.registry import EnvRecord


def _arguments(*features: str) -> dict[str, Argument]:
    return {
        "context": Argument(dict, 1e-9, 1e6, choices=features, optional=True),
        "physics": Argument(str, choices=("correct", "legacy")),
        "context_obs": Argument(str, choices=("hidden", "append")),
    }


WALKER = _arguments("friction", "gravity", "scale")
del WALKER["physics"]
RECORDS = {
    record.name: record
    for record in (
        EnvRecord(
            "contextual-cartpole",
            "balance a pole; context: length, masscart, masspole",
            "rlkit/ContextualCartPole-v0",
            "contextual",
            "cartpole",
            arguments=_arguments("length", "masscart", "masspole"),
            env_kwargs={"context": None, "physics": "correct", "context_obs": "hidden"},
            episodes=50,
        ),
        EnvRecord(
            "contextual-pendulum",
            "swing a pendulum up; context: dt, m, l",
            "rlkit/ContextualPendulum-v0",
            "contextual",
            "pendulum",
            arguments=_arguments("dt", "m", "l"),
            env_kwargs={"context": None, "physics": "correct", "context_obs": "hidden"},
            episodes=50,
        ),
        EnvRecord(
            "contextual-walker",
            "Box2D's walker; context: friction, gravity, scale",
            "rlkit-box2d/ContextualWalker-v0",
            "contextual",
            "walker",
            arguments=WALKER,
            env_kwargs={"context": None, "context_obs": "hidden"},
            episodes=25,
            extra="box2d",
        ),
        EnvRecord(
            "contextual-halfcheetah",
            "MuJoCo's half-cheetah; context: friction, gravity, stiffness",
            "rlkit/ContextualHalfCheetah-v0",
            "contextual",
            "halfcheetah",
            arguments={**MUJOCO, **_arguments("friction", "gravity", "stiffness")},
            env_kwargs={"context": None, "physics": "correct", "context_obs": "hidden"},
            episodes=25,
        ),
    )
}
# id: steps of an episode, single environment, batch
TASKS: dict[str, tuple[int, str, str | None]] = {
    "rlkit/ContextualCartPole-v0": (500, "cartpole:ContextualCartPoleEnv", "cartpole:ContextualCartPoleVectorEnv"),
    "rlkit/ContextualPendulum-v0": (200, "pendulum:ContextualPendulumEnv", "pendulum:ContextualPendulumVectorEnv"),
    "rlkit/ContextualHalfCheetah-v0": (1000, "models:ContextualHalfCheetahEnv", None),
    "rlkit-box2d/ContextualWalker-v0": (1000, "models:walker", None),
}
register_ids(
    {
        env_id: {
            "entry_point": f"rlkit.envs.contextual.{single}",
            "vector_entry_point": batch and f"rlkit.envs.contextual.{batch}",
            "max_episode_steps": steps,
        }
        for env_id, (steps, single, batch) in TASKS.items()
    }
)
