"""The ``rlkit`` command.  A verb's module is imported when the verb is called: ``rlkit --help`` loads no torch."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rlkit import __version__
from rlkit.errors import Caution, UserError, nearest, one_line
from rlkit.run.interrupt import Interrupted, handling, stop

VERBS = {
    "train": "train an agent:  rlkit train agent=prdc env=hopper-medium [key=value ...] [-m]",
    "resume": "continue a run exactly where its last checkpoint is:  rlkit resume RUN",
    "tune": "search for hyperparameters:  rlkit tune agent=td3bc env=hopper-medium [agent.alpha=1..40:log ...]",
    "eval": "evaluate a run or an artefact:  rlkit eval RUN [episodes=100]",
    "solve": "solve a file of cities or routes:  rlkit solve FILE.tsp [--seconds 10]",
    "export": "write a policy for other programs:  rlkit export RUN policy.onnx|policy.pt2",
    "data": "list, inspect, make, check, import and export datasets",
    "compare": "rank runs on the same data:  rlkit compare RUN RUN...",
    "plot": "draw learning curves of runs:  rlkit plot RUN... --out curves.png",
    "list": "show what exists:  rlkit list agents | rlkit list envs",
    "bench": "measure speed against other libraries, side by side",
}
USAGE = "usage: rlkit VERB ...\n\n" + "\n".join(f"  {verb:<8}{text}" for verb, text in VERBS.items())


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if args[0] == "--version":
        print(f"rlkit {__version__}")
        return 0
    verb, rest = args[0], args[1:]
    make_printable()
    try:
        if verb not in VERBS:
            raise UserError(f"unknown verb '{verb}'{nearest(verb, VERBS)}")
        with handling(stop), warnings.catch_warnings():
            warnings.showwarning = _showing(warnings.showwarning)
            return int(import_module(f"rlkit.cli.{verb}").main(rest) or 0)
    except UserError as error:
        print(f"rlkit: {one_line(error, 2000)}", file=sys.stderr)  # names of files may hold anything
        return 2
    except BrokenPipeError:
        return 0
    except OSError as error:  # a disk that fills up where nobody expected it
        print(f"rlkit: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        return 128 + (error.number if isinstance(error, Interrupted) else 2)


def _showing(show: Callable[..., Any]) -> Callable[..., Any]:
    """``warnings.showwarning`` that prints our own as one line; others as ``show`` does."""

    def shown(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, Caution):
            print(f"warning: {one_line(message)}", file=sys.stderr)
        else:
            show(message, category, *place, **more)

    return shown


def make_printable() -> None:
    """What a terminal of few characters (``LC_ALL=C``) cannot show is printed by its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
