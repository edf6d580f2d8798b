"""``rlkit list agents`` and ``rlkit list envs``: one line each, without importing any of them."""

from __future__ import annotations

from rlkit import registry
from rlkit.cli.parser import Parser
from rlkit.errors import UserError, nearest

KINDS = ("agents", "envs")
ALSO = {"agent": "agents", "algorithms": "agents", "algos": "agents", "methods": "agents", "models": "agents"}
ALSO |= {"env": "envs", "environments": "envs", "tasks": "envs", "problems": "envs"}


def parser() -> Parser:
    found = Parser(prog="rlkit list", description="Show what exists, one line each.")
    found.add_argument("kind", metavar="agents|envs", help="rlkit data list shows datasets")
    return found


def main(argv: list[str]) -> int:
    """Print; returns 0.  Raises :class:`UserError` for anything but the two kinds, and names that mean them."""
    given = parser().parse_args(argv).kind
    kind = ALSO.get(given.lower(), given.lower())
    if kind not in KINDS:
        raise UserError(f"rlkit list '{given}': expected 'agents' or 'envs'{nearest(given, KINDS)}")
    if kind == "agents":
        rows = {name: registry.agent_summary(name) for name in registry.agent_names()}
    else:
        rows = {name: record.summary for name, record in sorted(registry.records().items())}
    width = max(map(len, rows))
    for name, summary in rows.items():
        print(f"{name:<{width}}  {summary}")
    return 0
