"""The ``rlkit`` command.  A verb's module is imported when the verb is called: ``rlkit --help`` loads no torch."""

from __future__ import annotations

import io
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rlkit import __version__
from rlkit.cli.verbs import routed
from rlkit.errors import Caution, UserError, one_line
from rlkit.run.interrupt import Interrupted, handling, stop

VERBS = {
    "train": "train an agent:  rlkit train agent=prdc env=hopper-medium [key=value ...] [-m]",
    "resume": "continue a run exactly where its last checkpoint is:  rlkit resume RUN",
    "tune": "search for hyperparameters:  rlkit tune agent=td3bc env=hopper-medium [agent.alpha=1..40:log ...]",
    "eval": "evaluate a run or an artefact:  rlkit eval RUN [episodes=100]",
    "solve": "solve a file of cities or routes:  rlkit solve FILE.tsp [--seconds 10]",
    "video": "draw episodes of a policy:  rlkit video RUN [--out FILE.gif|FILE.mp4]",
    "export": "write a policy for other programs, or for a hub:  rlkit export RUN policy.onnx|policy.pt2|FOLDER/",
    "data": "list, inspect, make, check, import and export datasets",
    "compare": "rank runs on the same data:  rlkit compare RUN RUN...",
    "report": "one page on runs, with intervals and costs:  rlkit report RUN... --out report.html",
    "plot": "draw learning curves of runs:  rlkit plot RUN... --out curves.png",
    "list": "show what exists:  rlkit list agents | rlkit list envs",
    "bench": "measure speed against other libraries, side by side",
    "completion": "let the shell complete names and keys:  rlkit completion bash|zsh|fish",
}
USAGE = "usage: rlkit VERB ...\n\n" + "\n".join(f"  {verb:<12}{text}" for verb, text in VERBS.items())
USAGE += "\n\nrlkit VERB --help says more; rlkit train agent=prdc --help shows an agent's hyperparameters"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    if "_ARGCOMPLETE" in os.environ and argv is None:  # set by what `rlkit completion` prints
        import_module("rlkit.cli.completion").complete()
    args = sys.argv[1:] if argv is None else argv
    make_printable()
    try:
        verb, *rest = routed(args, VERBS) if args else ["--help"]
        if verb in ("-h", "--help"):
            print(USAGE)
            return 0
        if verb == "--version":
            print(f"rlkit {__version__}")
            return 0
        if verb.startswith("-"):
            raise UserError(f"unknown option '{one_line(verb, 60)}', expected a verb first (see rlkit --help)")
        if verb != args[0] and "--help" not in rest and "-h" not in rest:
            line = shlex.join(["rlkit", verb, *rest])
            print(f"rlkit: understood as {one_line(line, 2000)}", file=sys.stderr)
        with handling(stop), warnings.catch_warnings():
            warnings.showwarning = _showing(warnings.showwarning)
            return int(import_module(f"rlkit.cli.{verb}").main(rest) or 0)
    except UserError as error:
        print(f"rlkit: {one_line(error, 2000)}", file=sys.stderr)  # names of files may hold anything
        return 2
    except SystemExit as end:  # argparse, after --help
        return int(end.code or 0)
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
