"""Errors a user can mend, each one sentence: what is wrong, what was expected, where."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

DISTRIBUTION = "rlkit-papers"  # what pip knows this package by; PyPI's rlkit is another project


class UserError(ValueError):
    """Bad input.  The command line prints the sentence without a traceback and exits with code 2."""


class Caution(UserWarning):
    """What a user should know and need not mend.  The command line prints the sentence alone."""


class DataError(UserError):
    """A dataset that is missing, unreadable, or not what the agent or environment needs."""


class ArtefactError(UserError):
    """An artefact or checkpoint that is truncated, altered, unsafe or of another format."""


@contextmanager
def refusing(where: object, what: str, kind: type[UserError] = ArtefactError) -> Iterator[None]:
    """Whatever goes wrong inside with the content of a file is one sentence of ``kind`` that begins with ``where``.

    A file may hold anything, so what reading it can raise is not known; nothing but such reading belongs inside.
    """
    try:
        yield
    except Exception as error:
        text = one_line(error)
        if not isinstance(error, UserError):
            text = f"{what} ({text or type(error).__name__})"
        elif isinstance(error, kind) and text.startswith(str(where)) and text == str(error):
            raise
        raise kind(text if text.startswith(str(where)) else one_line(f"{where}: {text}")) from error


def install_extra(extra: str, before: tuple[int, int] = (4, 0)) -> str:
    """The command that installs ``extra``, and a hint where this Python is one that its packages have no wheels for.

    ``before`` is the first such Python.
    """
    hint = "" if sys.version_info < before else f" with Python {before[0]}.{before[1] - 1} or older"
    return f"pip install '{DISTRIBUTION}[{extra}]'{hint}"


def one_line(text: object, most: int = 600) -> str:
    """``text`` as one printable line: what other libraries say may have several, and files may hold anything."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def shown(value: object) -> str:
    """A value from a file or command line, for a sentence: short, on one line, told apart from the text around it."""
    try:
        return one_line(repr(value), 60)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, lists that are too deep
        return f"a very long {type(value).__name__}"


def nearest(word: str, options: Iterable[str]) -> str:
    """``"; did you mean 'hopper-medium'?"``, or the options where nothing is near and they are few."""
    names = sorted(options)
    return _close(word, names) or (f" (known: {', '.join(names)})" if 0 < len(names) <= 12 else "")


def require_choice(what: str, value: object, known: Iterable[str]) -> None:
    """Raise :class:`UserError` unless ``value``, which a sentence calls ``what``, is one of the words ``known``."""
    names = list(known)
    if not isinstance(value, str) or value not in names:
        said = one_line(value, 60)
        raise UserError(f"{what}={said} is unknown, expected one of {', '.join(names)}{_close(said, names)}")


def _close(word: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
