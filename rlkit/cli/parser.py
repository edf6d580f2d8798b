"""argparse as every verb uses it: complaints are one sentence, names are whole, settings may be typed as options."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rlkit.errors import UserError, nearest, one_line

SETTING = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]*=")
OPTION = re.compile(r"--?(?P<no>no-)?(?P<name>[A-Za-z][\w./-]*)(?:=(?P<value>.*))?", re.DOTALL)
WORDS = {"--cuda": "device=cuda", "--gpu": "device=cuda", "--cpu": "device=cpu", "-n": "total_timesteps"}
SWITCHES = ("overwrite", "progress_bar", "tensorboard", "verdict")


class Help(argparse.RawDescriptionHelpFormatter):
    """Lines are wrapped between words alone: a name with hyphens is never broken."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """A parser that raises :class:`UserError`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": Help, "allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{one_line(message, 200)} ({one_line(self.format_usage())})")

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """``argv`` with options and words in any order, settings typed as ``--key value`` among its ``settings``.

        ``spoken`` says whether there were any.
        """
        words = self._spoken(argv)
        found = self.parse_intermixed_args(words)
        found.spoken = words != list(argv)
        return found

    def _spoken(self, argv: Sequence[str]) -> list[str]:
        found: list[str] = []
        words = list(argv)
        while words:
            word = words.pop(0)
            if word == "--":
                return [*found, word, *words]
            known = self._option_string_actions.get(word.partition("=")[0])
            if known is not None:
                found.append(word)
                if known.nargs is None and "=" not in word:
                    found += words[:1]
                    del words[:1]
                continue
            match = OPTION.fullmatch(word)
            if match is None:
                found.append(word)
            elif word in WORDS and "=" in WORDS[word]:
                found.append(WORDS[word])
            else:
                found.append(self._setting(word, match, words))
        return found

    def _setting(self, word: str, match: re.Match[str], rest: list[str]) -> str:
        """``--key=value``, ``--key value`` or a switch as ``key=value``; the value is taken from ``rest``."""
        key = WORDS.get(f"-{match['name']}", match["name"].replace("-", "_"))
        if match["value"] is not None and not match["no"]:
            return f"{key}={match['value']}"
        switch = rest[:1] == [] or rest[0].startswith("-") or SETTING.match(rest[0]) is not None
        if key in SWITCHES and (match["no"] or switch or rest[0].lower() not in ("true", "false")):
            return f"{key}={'false' if match['no'] else 'true'}"
        if match["no"] or (switch and not re.match(r"-[\d.]", rest[0] if rest else "")):
            names = [name for name in self._option_string_actions if name.startswith("--")]
            raise UserError(
                f"unknown option '{one_line(word, 60)}'{nearest(word, names) if len(word) > 2 else ''}, "
                f"expected settings as key=value (see {self.prog} --help)"
            )
        return f"{key}={rest.pop(0)}"


def told(words: Sequence[str], keys: Sequence[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Names and paths among ``words``, and ``key=value``: a path may hold an equals sign.

    ``keys``: those that are settings; None: any word that looks like one and is no file.
    """
    names, settings = [], {}
    for word in words:
        key, equals, value = word.partition("=")
        known = SETTING.match(word) and not _there(word) if keys is None else key in keys
        if equals and known:
            settings[key] = value
        else:
            names.append(word)
    return names, settings


def of_problem(args: argparse.Namespace, *taken: str) -> dict[str, Any]:
    """The words ``key=value`` among ``args.settings``, as settings of a problem; numbers are numbers.

    ``taken``: keys that whoever is called with them uses otherwise.  Raises :class:`UserError` for a word of another
    form, and for what is an option.
    """
    found: dict[str, Any] = {}
    for word in args.settings:
        name, equals, value = word.partition("=")
        said = f"'{one_line(word, 60)}' is no setting"
        if not equals or name in taken:
            raise UserError(f"{said}, expected one like num_nodes=50")
        if name in vars(args).keys() - {"what", "settings", "verb", "run"}:
            raise UserError(f"{said} of a problem, expected the option --{name.replace('_', '-')}")
        found[name] = _number(value)
    return found


def _number(text: str) -> int | float | str:
    for kind in (int, float) if re.fullmatch(r"[-+0-9.eE]+", text) else ():
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _there(word: str) -> bool:
    try:
        return Path(word).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
