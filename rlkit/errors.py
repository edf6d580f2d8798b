"""Errors a user can mend, each one sentence: what is wrong, what was expected, where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input.  The command line prints the sentence without a traceback and exits with code 2."""


class DataError(UserError):
    """A dataset that is missing, unreadable, or not what the agent or environment needs."""


class ArtefactError(UserError):
    """An artefact or checkpoint that is truncated, altered, unsafe or of another format."""


def nearest(word: str, options: Iterable[str]) -> str:
    """``"; did you mean 'hopper-medium'?"``, or the options where nothing is near and they are few."""
    names = sorted(options)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f" (known: {', '.join(names)})" if 0 < len(names) <= 12 else ""
