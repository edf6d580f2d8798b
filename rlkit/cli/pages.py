"""``rlkit train agent=NAME --help`` and ``rlkit train env=NAME --help``: what is declared of them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rlkit import registry
from rlkit.cli.facts import agent_facts, agent_name
from rlkit.cli.words import names_of, record_named, spelt, suggestions

WIDTH = 110


def page(words: Sequence[str]) -> str:
    """Help of the agents and environments that ``words`` name; "" where they name none."""
    typed = spelt(words)
    parts = [_agent(agent_name(name)) for name in names_of(typed, "agent")]
    parts += [_env(name) for name in names_of(typed, "env")]
    return "\n".join(parts)


def _agent(name: str) -> str:
    facts = agent_facts(name)
    run = {key: value for key, value in facts.defaults.items() if key not in ("unit", "judged")}
    lines = [
        f"agent={name}  {facts.summary}",
        "",
        f"Learns from {'data' if facts.learns_from == 'data' else 'an environment'}, counts {facts.defaults['unit']}, "
        f"is judged {facts.defaults['judged']}; by default",
        *_wrapped(f"{key}={value}" for key, value in run.items()),
        "",
        "Hyperparameters, as agent.NAME=VALUE:",
    ]
    rows = [(o.name if not o.default else f"{o.name}={_typed(o.default)}", o.comment) for o in facts.options]
    width = min(max((len(left) for left, _ in rows), default=0), 36)
    for left, comment in rows:
        told = _lines(comment, WIDTH - width - 4) or [""]
        lines.append(f"  {left:<{width}}  {told[0]}".rstrip())
        lines += [f"  {'':<{width}}  {line}" for line in told[1:]]
    lines += ["", "Some differ per dataset; with env=NAME --cfg the values of a run are shown.", ""]
    return "\n".join(lines)


def _wrapped(words: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in _lines(" ".join(words), WIDTH - 2)]


def _lines(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _typed(default: str) -> str:
    """A default of Python's as one types it."""
    words = {"None": "null", "True": "true", "False": "false"}
    text = words.get(default, default.strip("'"))
    return f"[{text[1:-1].rstrip(',')}]".replace(" ", "") if text.startswith("(") else text


def _env(text: str) -> str:
    name = record_named(text)
    if name is None:
        near = suggestions(text, "data") + suggestions(text, "environment")
        hint = f"; records near that: {', '.join(near[:3])}" if near else ""
        return (
            f"env={text}  no record of rlkit's: the path of a file of data, an id of Minari, or an id of Gymnasium"
            f"{hint}\n"
        )
    record = registry.records()[name]
    lines = [f"env={name}  {record.summary}", "", f"  environment  {record.env_id}"]
    if record.data is not None:
        data = record.data
        lines.append(f"  data         {data.level}, {data.size:,} transitions where it is generated")
        lines += [
            f"  {what:<13}{value}" for what, value in (("Minari", data.minari_id), ("D4RL", data.d4rl_id)) if value
        ]
        lines.append(f"  see          rlkit data info {name}")
    else:
        lines.append("  data         none: for agents that act")
    lines.append(f"  evaluation   {record.episodes} episodes")
    if record.extra is not None:
        lines.append(f"  needs        pip install 'rlkit-papers[{record.extra}]'")
    if record.arguments:
        lines += ["", "Arguments, as env.kwargs.NAME=VALUE:", *_wrapped(sorted(record.arguments))]
    return "\n".join([*lines, ""])
