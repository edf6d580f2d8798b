"""Which verb a command line means: other libraries' names for it, and ``help`` wherever it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rlkit.errors import UserError, nearest, one_line

ALSO: Mapping[str, tuple[str, ...]] = {
    "evaluate": ("eval",),
    "enjoy": ("eval",),
    "test": ("eval",),
    "run": ("train",),
    "fit": ("train",),
    "learn": ("train",),
    "continue": ("resume",),
    "optimize": ("tune",),
    "agents": ("list", "agents"),
    "algorithms": ("list", "agents"),
    "envs": ("list", "envs"),
    "environments": ("list", "envs"),
    "datasets": ("data", "list"),
    "ls": ("list",),
    "version": ("--version",),
    "-v": ("--version",),
    "-V": ("--version",),
}


def routed(argv: Sequence[str], verbs: Iterable[str]) -> list[str]:
    """``argv`` with the verb that it means in front; ``help`` anywhere it can only mean that as ``--help``."""
    words = [*ALSO.get(argv[0], argv[:1]), *argv[1:]]
    if words[0] == "help":
        words = [*ALSO.get(words[1], words[1:2]), *words[2:], "--help"] if words[1:] else ["--help"]
    if words[:2] in (["list", "datasets"], ["list", "data"]):
        words = ["data", "list", *words[2:]]
    if len(words) > 1 and words[-1] == "help" and not Path("help").exists():
        words[-1] = "--help"
    if words[0] not in verbs and not words[0].startswith("-"):
        if Path(words[0]).suffix in (".yaml", ".yml"):
            raise UserError(f"'{one_line(words[0], 60)}' is no verb, expected rlkit train --config {words[0]}")
        if words[0] == "tensorboard":
            raise UserError("TensorBoard is a command of its own, expected tensorboard --logdir runs")
        near = nearest(words[0], [*verbs, *ALSO]) or " (see rlkit --help)"
        raise UserError(f"unknown verb '{one_line(words[0], 60)}'{near}")
    return words
