"""``rlkit list agents`` and ``rlkit list envs``: one line each, without importing any of them."""

from __future__ import annotations

from rlkit import registry
from rlkit.errors import UserError, nearest


def main(argv: list[str]) -> int:
    kinds = ("agents", "envs")
    if len(argv) != 1 or argv[0] not in kinds:
        given = " ".join(argv)
        raise UserError(f"rlkit list '{given}': expected 'agents' or 'envs'{nearest(given, kinds) if given else ''}")
    if argv[0] == "agents":
        rows = {name: registry.agent_summary(name) for name in registry.agent_names()}
    else:
        rows = {name: record.summary for name, record in sorted(registry.records().items())}
    width = max(map(len, rows))
    for name, summary in rows.items():
        print(f"{name:<{width}}  {summary}")
    return 0
