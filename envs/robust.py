"""Problems whose world of deployment differs from the world of training by a constructor argument."""

from __future__ import annotations

from rlkit.registry import EnvRecord

RECORDS = {
    record.name: record
    for record in (
        EnvRecord(
            "linear-mdp",
            "five states, three steps, exact robust values; shift=q moves mass to the fail state",
            "rlkit/LinearMDP-v0",
            "robust",
            "linear-mdp",
        ),
        EnvRecord(
            "american-put",
            "continue or exercise on a binomial price; p_up is the drift",
            "rlkit/AmericanPut-v0",
            "robust",
            "american-put",
        ),
    )
}
