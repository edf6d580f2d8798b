"""Problems with a true reward and a proxy that pays for something else: ``info`` has both, a step pays the proxy.

``reward="true"`` makes the true reward the step's.
"""

from __future__ import annotations

from rlkit.arguments import REWARD, Argument
from rlkit.envs.records import register_ids
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
HOMES = {"Tomato": "tomato:Tomato", "Glucose": "glucose:Glucose", "Pandemic": "pandemic:Pandemic"}
register_ids(
    {
        f"rlkit/{name}-v0": {
            "entry_point": f"rlkit.envs.hacking.{home}Env",
            "vector_entry_point": f"rlkit.envs.hacking.{home}VectorEnv",
        }
        for name, home in HOMES.items()
    }
)
register_ids({"rlkit-sumo/Traffic-v0": {"entry_point": "rlkit.envs.hacking.traffic:TrafficEnv"}})  # the extra traffic
