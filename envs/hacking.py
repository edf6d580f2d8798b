"""Problems with a true reward and a proxy that pays for something else: ``info`` has both, a step pays the proxy.

``reward="true"`` makes the true reward the step's.
"""

from __future__ import annotations

from rlkit.registry import EnvRecord

RECORDS = {
    record.name: record
    for record in (
        EnvRecord(
            "tomato",
            "water tomatoes; the proxy is fooled by a sprinkler",
            "rlkit/Tomato-v0",
            "hacking",
            "tomato",
            episodes=20,
        ),
        EnvRecord(
            "glucose",
            "give insulin for twenty days; the proxy counts its cost and not the patient's risk",
            "rlkit/Glucose-v0",
            "hacking",
            "glucose",
            episodes=4,
        ),
    )
}
