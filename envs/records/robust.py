"""Problems whose world of deployment differs from the world of training by a constructor argument."""

from __future__ import annotations

from rlkit.arguments import Argument
from rlkit.envs.records import register_ids
from rlkit.registry import EnvRecord

SHARE = Argument(float, 0, 1)

RECORDS = {
    record.name: record
    for record in (
        EnvRecord(
            "linear-mdp",
            "five states, three steps, exact robust values; shift=q moves mass to the fail state",
            "rlkit/LinearMDP-v0",
            "robust",
            "linear-mdp",
            env_kwargs={"xi_norm": 0.1, "delta": 0.3, "shift": None},
            arguments={"xi_norm": SHARE, "delta": SHARE, "shift": Argument(float, 0, 1, optional=True)},
        ),
        EnvRecord(
            "american-put",
            "continue or exercise on a binomial price; p_up is the drift",
            "rlkit/AmericanPut-v0",
            "robust",
            "american-put",
            env_kwargs={"p_up": 0.5, "horizon": 10, "s0": 100.0, "resample_s0": False, "dim": 20, "cap": 25.0},
            arguments={
                "p_up": SHARE,
                "horizon": Argument(int, 1, 1_000),
                "s0": Argument(float, 1e-3, 1e6),
                "resample_s0": Argument(bool),
                "dim": Argument(int, 1, 1_000),
                "cap": Argument(float, 0, 1e6),
            },
        ),
    )
}

HOMES = {"LinearMDP": "linear_mdp:LinearMDP", "AmericanPut": "american_put:AmericanPut"}
register_ids(
    {
        f"rlkit/{name}-v0": {
            "entry_point": f"rlkit.envs.robust.{home}Env",
            "vector_entry_point": f"rlkit.envs.robust.{home}VectorEnv",
        }
        for name, home in HOMES.items()
    }
)
