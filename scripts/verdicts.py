"""From figures to verdicts: what a claim of ``claims.yaml`` is tested by, and the one rule that decides it.

A test compares two samples.  Of runs these are ``family`` (of ``evidence.py``), ``sets``, ``left`` and ``right``
(labels of runs, a number, or ``data``, the mean score of what was learnt from), ``metric`` and ``least``, the updates
or steps below which a run says nothing; it counts once a set.  Of other result files they are ``left`` and ``right``
with ``file``, ``value`` (a path of keys, positions and conditions) and what its spread is: ``sd`` and ``n``, ``error``,
``binomial``, ``exact``, or none, which is one seed; where the path leads to several values, they are seeds, with
``paired`` the same ones on both sides, in order.  ``want`` is ``above``, ``below`` or ``near``, by ``margin``.

A test holds where the whole 95 % interval of the difference is beyond the margin, fails where none of it is, and is
undecided otherwise, with fewer than three seeds on a side, or with runs that are too short.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import evidence
import numpy as np
from make_results import load
from online_results import late, progress
from scipy.stats import t as student

from rlkit.errors import UserError
from rlkit.stats import bootstrap_interval, iqm

ROOT = Path(__file__).resolve().parent.parent
SEEDS, POOLED_SEEDS = 3, 2  # on either side: for a verdict on one set, and for one over several
NINE = [f"{body}-{kind}" for kind in ("medium", "medium-replay", "medium-expert") for body in ("hopper", "halfcheetah")]
NINE += [f"walker2d-{kind}" for kind in ("medium", "medium-replay", "medium-expert")]
WORDS = ("holds", "holds in part", "does not hold", "undecided")
Interval = tuple[float, float, float]  # of a difference: itself, and the ends of its 95 %


@dataclass(frozen=True)
class Sample:
    """``values`` of seeds; or a mean with its standard error, of ``n`` seeds or instances; ``n`` 0: exact."""

    mean: float
    n: int
    values: np.ndarray | None = None
    error: float = 0.0

    def shown(self) -> str:
        if self.values is not None and self.n > 1:
            low, high = bootstrap_interval(self.values)
            return f"{number(self.mean)} [{number(low)}, {number(high)}] ({self.n} seeds)"
        if self.n == 1:
            return f"{number(self.mean)} (one seed)"
        return number(self.mean) + (f" ± {number(self.error)}" if self.error else "")


@dataclass
class Found:
    """What a test came to: ``outcome`` None is undecided; ``text`` has the figures, empty where there are none."""

    what: str
    outcome: bool | None = None
    text: str = ""
    reason: str = "not run"
    group: str = ""  # what the tests of several sets have in common
    pooled: bool = False
    every: bool = False  # pooled over all sets of the claim


@dataclass
class Ruling:
    """A claim's verdict, one of WORDS, with every test behind it."""

    word: str
    tests: list[Found] = field(default_factory=list)

    @property
    def run(self) -> bool:
        return any(test.text for test in self.tests)


def number(value: float) -> str:
    size = abs(value)
    if 0 < size < 0.095:
        return f"{value:.2g}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def sample(values: list[float]) -> Sample:
    return Sample(float(np.mean(values)), len(values), np.array(values, np.float64))


def difference(left: Sample, right: Sample) -> Interval:
    """``left`` minus ``right`` with its 95 %: a bootstrap of either side's seeds, or Student's t of standard errors."""
    apart = left.mean - right.mean
    sides = [(s, sign) for s, sign in ((left, 1.0), (right, -1.0)) if s.n]
    if not sides or any(s.n == 1 for s, _ in sides):
        return apart, apart, apart
    if all(s.values is not None for s, _ in sides):
        total = sum(s.n for s, _ in sides)
        drawn = np.concatenate([sign * total / s.n * s.values for s, sign in sides if s.values is not None])
        low, high = bootstrap_interval(drawn, strata=[side for side, (s, _) in enumerate(sides) for _ in range(s.n)])
        offset = sum(sign * s.mean for s, sign in ((left, 1.0), (right, -1.0)) if not s.n)
        return apart, low + offset, high + offset
    errors = [float(np.std(s.values, ddof=1) / s.n**0.5) if s.values is not None else s.error for s, _ in sides]
    reach = float(student.ppf(0.975, min(s.n for s, _ in sides) - 1)) * float(np.hypot.reduce(errors))
    return apart, apart - reach, apart + reach


def outcome(apart: Interval, want: str, margin: float) -> bool | None:
    """Whether a difference is as wanted: True, False, or None where its interval does not tell."""
    _, low, high = apart
    if want == "near":
        return True if -margin < low and high < margin else False if low >= margin or high <= -margin else None
    if want not in ("above", "below"):
        raise UserError(f"want: {want!r}, expected above, below or near")
    if want == "below":
        low, high = -high, -low
    return True if low > margin else False if high <= margin else None


@cache
def groups(family: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    return load(family) if evidence.archive_of(family).exists() else {}


def measure(result: dict[str, Any], metric: str) -> float:
    """A run's ``last10``, ``best``, ``final``, ``last3`` (returns), ``data``, or ``late:KEY`` of its metrics."""
    if metric.startswith("late:"):
        value = late([result], metric.removeprefix("late:"))
        if value is None:
            raise UserError(f"{result['run']}: nothing logged as {metric.removeprefix('late:')}")
        return value
    if metric == "last3":
        return float(np.mean([e["return"] for e in result["evaluations"][-3:]]))
    if metric == "data":
        return float(result["dataset"]["score_mean"])
    if metric == "final":
        return float(result["final"][result.get("measure", "score")])
    return float(result[metric])


def sets_of(test: dict[str, Any]) -> list[str]:
    return NINE if test["sets"] == "nine" else list(test["sets"])


def over_sets(test: dict[str, Any]) -> list[Found]:
    """A test of runs: one outcome a set, and over all of them where half or more have two seeds on either side."""
    metric, other = test.get("metric", "last10"), test.get("right_metric", test.get("metric", "last10"))
    want, margin, least = test.get("want", "above"), float(test.get("margin", 0)), int(test.get("least", 0))
    names, held = f"{test['left']} against {test['right']}", groups(test.get("family", "offline"))
    found, pairs = [], {}
    for env in sets_of(test):
        here = Found(env, group=names)
        found.append(here)
        runs = held.get((env, test["left"]), [])
        others = held.get((env, test["right"]), []) if isinstance(test["right"], str) else None
        if test["right"] == "data":
            others, other = runs[:1], "data"
        if not runs or others == []:
            continue
        left = sample([measure(r, metric) for r in runs])
        right = Sample(float(test["right"]), 0) if others is None else sample([measure(r, other) for r in others])
        if test["right"] == "data":
            right = Sample(right.mean, 0)
        lengths = sorted({progress(r) for r in runs + (others or [])})
        steps = " and ".join(f"{n:,}" for n in lengths) + (" steps" if test.get("family") == "online" else " updates")
        apart = difference(left, right)
        here.text = f"{left.shown()} against {right.shown()}, {steps}"
        if len(lengths) > 1 or len({r.get("dataset", {}).get("sha256") for r in runs + (others or [])}) > 1:
            here.reason = "other lengths or data: not comparable"
        elif lengths[0] < least:
            here.reason = f"{lengths[0]:,} steps, and fewer than {least:,} say nothing"
        else:
            if min(left.n, right.n or left.n) >= POOLED_SEEDS:
                pairs[env] = (left, right)
            if min(left.n, right.n or left.n) < SEEDS:
                here.reason = "fewer than three seeds"
            else:
                here.outcome, here.reason = outcome(apart, want, margin), "the interval does not tell"
                here.text += f", difference {number(apart[0])} [{number(apart[1])}, {number(apart[2])}]"
    if len(found) > 1 and len(pairs) >= 2:
        found.append(over_all(names, pairs, len(found), want, margin))
    return found


def over_all(names: str, pairs: dict[str, tuple[Sample, Sample]], sets: int, want: str, margin: float) -> Found:
    """The two sides over the sets that both have: interquartile mean, and the mean difference, sets as strata."""
    texts, parts, strata = [], [], []
    for side in (0, 1):
        values = [pair[side].values if pair[side].values is not None else [pair[side].mean] for pair in pairs.values()]
        names_of = [env for env, v in zip(pairs, values, strict=True) for _ in v]
        every = np.concatenate(values)
        low, high = bootstrap_interval(every, iqm, strata=names_of)
        texts.append(
            f"IQM {number(float(iqm(every)))}" + ("" if np.isnan(low) else f" [{number(low)}, {number(high)}]")
        )
        for env, v in zip(pairs, values, strict=True):
            parts.append((1 - 2 * side) * np.asarray(v) / (len(v) * len(pairs)))
            strata += [f"{side} {env}"] * len(v)
    drawn = np.concatenate(parts) * sum(map(len, parts))
    low, high = bootstrap_interval(drawn, strata=strata)
    apart = (float(np.mean(drawn)), low, high)
    text = f"{texts[0]} against {texts[1]}, mean difference {number(apart[0])} [{number(low)}, {number(high)}]"
    enough = 2 * len(pairs) >= sets
    found = Found(f"over the {len(pairs)} sets that both have with two seeds", None, text, "", names, True)
    found.every = len(pairs) == sets
    found.outcome = outcome(apart, want, margin) if enough else None
    found.reason = "the interval does not tell" if enough else "fewer than half of the sets"
    return found


def read(file: str) -> Any:
    path = ROOT / "docs" / "assets" / file
    if not path.is_file():
        return None
    return (
        [json.loads(x) for x in path.read_text().splitlines()]
        if path.suffix == ".jsonl"
        else json.loads(path.read_text())
    )


def like(value: Any, wanted: Any) -> bool:
    """Equality, but that ``*`` in a wanted string stands for any characters."""
    patterned = isinstance(value, str) and isinstance(wanted, str) and "*" in wanted
    return fnmatchcase(value, wanted) if patterned else bool(value == wanted)


def picked(held: Any, path: list[Any]) -> list[Any]:
    """Everything in ``held`` at ``path``: keys (``*`` stands for any), positions, conditions on a list's entries."""
    if not path:
        return [held]
    key, rest = path[0], path[1:]
    if isinstance(key, dict):
        chosen = [entry for entry in held if all(like(entry.get(k), v) for k, v in key.items())]
    elif isinstance(key, int):
        chosen = [held[key]] if -len(held) <= key < len(held) else []
    else:
        chosen = [held[name] for name in held if like(name, key)]
    return [value for entry in chosen for value in picked(entry, rest)]


def from_file(spec: Any) -> Sample | None:
    """The sample that ``spec`` names, None where the file or the place in it is not there."""
    if isinstance(spec, int | float):
        return Sample(float(spec), 0)
    held = read(spec["file"])
    values = picked(held, spec["value"]) if held is not None else []
    if spec.get("finite"):  # the update at which a run ceased to be finite, if it did
        values = [1.0 if value is None else 0.0 for value in values]
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not values:
        return None
    scale = float(spec.get("scale", 1))
    if len(values) > 1:
        return sample([scale * v for v in values])
    value = scale * float(values[0])
    if spec.get("exact"):
        return Sample(value, 0)
    n = spec["n"] if isinstance(spec.get("n"), int) else picked(held, spec["n"])[0] if "n" in spec else 1
    if "sd" in spec:
        return Sample(value, n, error=scale * float(picked(held, spec["sd"])[0]) / n**0.5)
    if "error" in spec:
        return Sample(value, n, error=scale * float(picked(held, spec["error"])[0]))
    if spec.get("binomial"):
        return Sample(value, n, error=scale * float((values[0] * (1 - values[0]) / n) ** 0.5))
    return Sample(value, 1)


def of_files(test: dict[str, Any]) -> Found:
    """A test of two figures of result files."""
    here, left, right = Found(test["what"]), from_file(test["left"]), from_file(test["right"])
    if left is None or right is None:
        return here
    here.text = f"{left.shown()} against {right.shown()}"
    made = picked(read(test["left"]["file"]), test["updates"])[0] if "updates" in test else None
    if made is not None and made < test["least"]:
        here.text += f", {made:,} updates"
        here.reason = f"{made:,} updates, and fewer than {test['least']:,} say nothing"
    elif 0 < min(left.n or SEEDS, right.n or SEEDS) < SEEDS:
        here.reason = "fewer than three seeds"
    else:
        apart = difference(left, right)
        if test.get("paired") and left.values is not None and right.values is not None:  # value by value, in order
            each = left.values - right.values
            apart = (apart[0], *bootstrap_interval(each))
        here.outcome = outcome(apart, test.get("want", "above"), float(test.get("margin", 0)))
        here.reason = "the interval does not tell"
        if left.n or right.n:
            here.text += f", difference {number(apart[0])} [{number(apart[1])}, {number(apart[2])}]"
    return here


def combined(outcomes: list[bool | None]) -> str:
    """The word for several outcomes; undecided where more of them are than are not."""
    yes, no, open_ = (outcomes.count(x) for x in (True, False, None))
    if open_ > yes + no or not outcomes:
        return "undecided"
    if not no:
        return "holds in part" if open_ else "holds"
    return "holds in part" if yes else "does not hold"


def ruling(claim: dict[str, Any]) -> Ruling:
    """The verdict on a claim.  Over several sets the difference over all of them goes first, where there is one."""
    found = [one for test in claim["tests"] for one in (over_sets(test) if "sets" in test else [of_files(test)])]
    single = [one.outcome for one in found if not one.pooled]
    pooled = [one for one in found if one.pooled and one.outcome is not None]
    if not pooled or len(claim["tests"]) > 1:
        return Ruling(combined(single), found)
    if pooled[0].outcome:
        whole = False not in single and pooled[0].every
        return Ruling("holds" if whole else "holds in part", found)
    return Ruling("holds in part" if True in single else "does not hold", found)


def overall(words: list[str]) -> str:
    """The verdict on a method, from those on its claims."""
    if "holds in part" in words and 2 * words.count("undecided") <= len(words):
        return "holds in part"
    return combined([{"holds": True, "does not hold": False}.get(w) for w in words if w != "holds in part"])
