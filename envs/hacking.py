"""Problems with a true reward and a proxy that pays for something else: ``info`` has both, a step pays the proxy.

``reward="true"`` makes the true reward the step's.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

from rlkit.arguments import REWARD, Argument
from rlkit.registry import EnvRecord

HORIZON = Argument(int, 1, 100_000)

RECORDS = {
    record.name: record
    for record in (
        EnvRecord(
            "tomato",
            "water tomatoes; the proxy is fooled by a sprinkler",
            "rlkit/Tomato-v0",
            "hacking",
            "tomato",
            env_kwargs={"reward": "proxy"},
            episodes=20,
            arguments={
                "level": Argument(str, choices=("level4", "toy")),
                "reward": REWARD,
                "random_actions": Argument(float, 0, 1),
                "horizon": HORIZON,
                "legacy": Argument(bool),
            },
        ),
        EnvRecord(
            "glucose",
            "give insulin for twenty days; the proxy counts its cost and not the patient's risk",
            "rlkit/Glucose-v0",
            "hacking",
            "glucose",
            env_kwargs={"reward": "proxy"},
            episodes=4,
            arguments={"reward": REWARD, "horizon": HORIZON},
        ),
        EnvRecord(
            "pandemic",
            "rules against an epidemic, a surrogate; the proxy forgets what the public resents",
            "rlkit/Pandemic-v0",
            "hacking",
            "pandemic",
            env_kwargs={"reward": "proxy"},
            episodes=20,
            arguments={"reward": REWARD, "horizon": HORIZON},
        ),
        EnvRecord(
            "traffic",
            "merge onto a highway by SUMO; the proxy forgets those who wait",
            "rlkit-sumo/Traffic-v0",
            "hacking",
            "traffic",
            env_kwargs={"reward": "proxy"},
            episodes=10,
            extra="traffic",
            arguments={"reward": REWARD},
        ),
    )
}


def register_traffic() -> None:
    """Make the id that needs the extra ``traffic`` known to Gymnasium; imports no environment.  Once is enough."""
    if "rlkit-sumo/Traffic-v0" not in registry:
        register(id="rlkit-sumo/Traffic-v0", entry_point="rlkit.envs.traffic:TrafficEnv")


register_traffic()
