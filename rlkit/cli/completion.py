"""``rlkit completion bash|zsh|fish``: a script by which the shell completes verbs, agents, environments and keys.

Completing imports neither torch nor an agent: what is said comes from ``rlkit.cli.facts``.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

from rlkit import registry
from rlkit.cli.facts import agent_facts, plain, settings
from rlkit.cli.parser import Parser
from rlkit.cli.words import names_of

SHELLS = ("bash", "zsh", "fish")
WHERE = {
    "bash": 'eval "$(rlkit completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(rlkit completion zsh)" in ~/.zshrc',
    "fish": "rlkit completion fish > ~/.config/fish/completions/rlkit.fish",
}
WITH_SETTINGS = ("train", "tune")


def parser() -> Parser:
    lines = "\n".join(f"  {line}" for line in WHERE.values())
    found = Parser(
        prog="rlkit completion", description="Print a shell's completion script.", epilog=f"to use it:\n{lines}"
    )
    found.add_argument("shell", choices=SHELLS, help="the shell")
    return found


def main(argv: list[str]) -> int:
    """Print the script; returns 0."""
    import argcomplete

    shell = parser().parse_args(argv).shell
    print(argcomplete.shellcode(["rlkit"], shell=shell))
    return 0


def complete() -> None:
    """Answer the shell that asks, and end the process."""
    import argcomplete

    argcomplete.autocomplete(whole(), always_complete_options="long")


def whole() -> argparse.ArgumentParser:
    """One parser of all verbs, its words with what completes them."""
    from rlkit.cli import VERBS

    found = argparse.ArgumentParser(prog="rlkit")
    found.add_argument("--version", action="store_true")
    verbs = found.add_subparsers(dest="verb")
    for verb in VERBS:
        own = import_module(f"rlkit.cli.{verb}").parser()
        # a parser is made anew by add_parser; this one has its words already
        verbs.add_parser(verb, help=VERBS[verb], parents=[own], add_help=False, conflict_handler="resolve")
    for verb in WITH_SETTINGS:
        _completes(verbs.choices[verb], "settings", _settings)
    _completes(verbs.choices["list"], "kind", lambda **_: ["agents", "envs"])
    return found


def _completes(parser: argparse.ArgumentParser, name: str, completer: Any) -> None:
    for action in parser._actions:
        if action.dest == name:
            action.completer = completer  # type: ignore[attr-defined]  # argcomplete looks for it


def _settings(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Words that may stand where ``prefix`` is begun: keys, and behind the equals sign of some the values."""
    typed = [word for word in (parsed_args.settings or []) if isinstance(word, str)]
    agents = [plain(name) for name in names_of(typed, "agent")]
    agents = [name for name in agents if name in registry.agent_names()]
    key, equals, _value = prefix.partition("=")
    if equals:
        return [f"{key}={value}" for value in _values(key, agents)]
    keys = [option.name for option in settings() if option.name not in ("env.name", "env.columns", "env.kwargs")]
    keys += [f"agent.{option.name}" for name in agents for option in agent_facts(name).options]
    given = {word.partition("=")[0] for word in typed}
    return [f"{key}=" for key in keys if key not in given]


def _values(key: str, agents: list[str]) -> list[str]:
    if key == "agent":
        return registry.agent_names()
    if key == "env":
        kinds = {agent_facts(name).learns_from for name in agents} or {"data", "environment"}
        return sorted(
            name
            for name, record in registry.records().items()
            if ("data" if record.data is not None else "environment") in kinds
        )
    options = list(settings())
    for name in agents:
        options += [o.__class__(f"agent.{o.name}", o.kind, o.default, o.comment) for o in agent_facts(name).options]
    kinds_of = {option.name: option.kind for option in options}
    if "bool" in kinds_of.get(key, ""):
        return ["true", "false"]
    return {"device": ["cpu", "cuda", "auto"], "engine": ["auto", "eager", "graph", "stacked"]}.get(key, [])
