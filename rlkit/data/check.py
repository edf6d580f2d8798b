"""A linter for offline datasets: the faults that cost people weeks, each named with its rows.

The checks look at one thing each and are silent where they cannot know: a dataset without findings has passed them,
which is not a proof that it is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from rlkit.data.dataset import OfflineDataset
from rlkit.data.expect import REGRESSION_ROWS, features, unexplained
from rlkit.data.minari_store import MINARI_ID, has_local
from rlkit.data.recorded import Named, differences, recorded_in
from rlkit.data.records import env_facts, require_learnable
from rlkit.data.resolve import from_file, is_file, load_dataset, stored
from rlkit.data.validate import ACTION_TOLERANCE, first_broken_join, uneven
from rlkit.errors import DataError
from rlkit.registry import EnvRecord, record, records


@dataclass(frozen=True)
class Finding:
    """``code`` names the check, ``sentence`` what is wrong, where (rows from 0) and what was expected."""

    code: str
    severity: Literal["error", "warning"]
    sentence: str


def _rows(mask: np.ndarray) -> str:
    rows = np.flatnonzero(mask)
    return f"{len(rows)} rows, first {', '.join(map(str, rows[:3]))}"


def _values(data: OfflineDataset) -> Iterator[Finding]:
    for name in ("observations", "actions", "rewards", "next_observations"):
        bad = ~np.isfinite(getattr(data, name)).reshape(len(data), -1).all(axis=1)
        if bad.any():
            code = "non-finite-actions" if name == "actions" else "non-finite"
            yield Finding(code, "error", f"'{name}' holds NaN or infinity ({_rows(bad)}), expected finite numbers")


def _bounds(data: OfflineDataset) -> Iterator[Finding]:
    if isinstance(data.action_space, gym.spaces.Discrete):
        first, last = data.action_space.start, data.action_space.start + data.action_space.n - 1
        bad = (data.actions < first) | (data.actions > last)
        if bad.any():
            text = f"actions are none of the {data.action_space.n} ({_rows(bad)}), expected {first} to {last}"
            yield Finding("actions-out-of-bounds", "error", text)
        return
    low, high = data.action_space.low, data.action_space.high
    slack = ACTION_TOLERANCE * np.where(np.isfinite(high - low), (high - low) / 2, 1.0)
    outside = (data.actions < low - slack) | (data.actions > high + slack)
    bad = np.asarray(outside.reshape(len(data), -1).any(axis=1))
    if bad.any():
        worst = float(np.nanmax(np.abs(data.actions[bad])))
        yield Finding(
            "actions-out-of-bounds",
            "error",
            f"actions leave the action space ({_rows(bad)}; largest magnitude {worst:g}), "
            f"expected [{low.min():g}, {high.max():g}]",
        )


def _space(data: OfflineDataset) -> Iterator[Finding]:
    """Observations that their environment cannot give: of other units, say, or standardised."""
    low, high = data.observation_space.low, data.observation_space.high
    slack = ACTION_TOLERANCE * np.where(np.isfinite(high - low), (high - low) / 2, 1.0)
    outside = ((data.observations < low - slack) | (data.observations > high + slack)).reshape(len(data), -1)
    if outside.any():
        column = int(outside.any(axis=0).argmax())
        held = data.observations.reshape(len(data), -1)[:, column]
        yield Finding(
            "observations-out-of-space",
            "warning",
            f"observations leave the environment's space ({_rows(np.asarray(outside.any(axis=1)))}; column {column} "
            f"goes from {held.min():g} to {held.max():g}), expected {low.ravel()[column]:g} to "
            f"{high.ravel()[column]:g}: of other units, or another environment's",
        )


def _joins(data: OfflineDataset) -> Iterator[Finding]:
    count, row = first_broken_join(data)
    if count:
        yield Finding(
            "broken-joins",
            "error",
            f"next_observations is not the following row's observation inside an episode ({count} rows, first {row}), "
            "expected them equal: rows were shuffled or dropped, or an episode's end is not flagged",
        )


def _columns(data: OfflineDataset) -> Iterator[Finding]:
    """Columns that say nothing, and those that say what time it is."""
    told = data.provenance.details.get("columns", {})
    told = told if isinstance(told, dict) else {}
    inside = ~(data.terminations | data.truncations)[:-1]
    for what in ("observations", "actions"):
        values, names = getattr(data, what), told.get(what, ())
        if what == "actions" and data.discrete:
            values = values[:, None]
        if values.ndim != 2:
            continue
        named = [repr(str(names[i])) if i < len(names) else f"column {i}" for i in range(values.shape[1])]
        low, high = values.min(axis=0), values.max(axis=0)  # [d], [d]
        if constant := [named[i] for i in np.flatnonzero(low == high)]:
            text = f"{', '.join(constant)} of the {what} never varies, expected columns that say something"
            yield Finding(f"constant-{what}", "warning", text)
        if what == "actions" or not inside.any():
            continue
        clocks = []
        for i in np.flatnonzero(low != high):
            steps = np.diff(values[:, i].astype(np.float64))[inside]
            # by float32's own spacing at this height a clock of seconds since 1970 stands still for a minute or two
            rises = (steps >= 0).all() and steps.sum() > 0 and high[i] > low[i]
            even = np.abs(steps - steps.mean()).max() <= 1e-3 * steps.mean() + 2 * np.spacing(np.float32(high[i]))
            if rises and (even or low[i] > 1e8):
                clocks.append(named[i])
        if clocks:
            text = (
                f"{', '.join(clocks)} of the observations rises as a clock does, expected none: what was done at a "
                "time of the past says nothing of another"
            )
            yield Finding("timestamps", "warning", text)


def _scales(data: OfflineDataset) -> Iterator[Finding]:
    text = uneven(data)
    if text is not None:
        yield Finding("scales", "warning", f"{text}, expected them standardised (agent.normalise_observations=true)")


def _episodes(data: OfflineDataset, limit: int | None) -> Iterator[Finding]:
    """``limit`` is the environment's; where no environment is known it is guessed, and guesses only warn."""
    ends = data.episode_ends
    lengths = np.diff(ends, prepend=0)
    terminated, truncated = data.terminations[ends - 1], data.truncations[ends - 1]
    guessed = limit is None and data.env_id is None
    if guessed:  # the longest length, if several episodes share it
        longest = int(lengths.max())
        limit = longest if np.count_nonzero(lengths == longest) >= 3 and longest > 1 else None
    elif limit is not None and (long := np.flatnonzero(lengths > limit)).size:
        first = int(ends[long[0]] - lengths[long[0]])
        yield Finding(
            "episode-too-long",
            "error",
            f"{len(long)} episodes exceed the environment's limit of {limit} steps, the first starts at row {first} "
            f"and has {lengths[long[0]]}: ends of episodes are not flagged",
        )
    if limit is not None:
        # A fall at exactly the last step is as rare as at any other; whole crowds of them are timeouts.
        full = lengths == limit
        confused = full & terminated & ~truncated
        if confused.sum() >= max(3, 0.5 * full.sum()):
            yield Finding(
                "timeouts-as-terminals",
                "warning" if guessed else "error",
                f"{confused.sum()} of {full.sum()} episodes of the full {limit} steps end in a termination (first at "
                f"row {ends[confused][0] - 1}), expected truncations: the time limit was recorded as a terminal state",
            )
        early = (truncated & ~terminated & (lengths < limit - 1))[:-1]  # the last one may be cut by the data's end
        some = lengths[:-1][early]
        if not data.terminations.any() and len(some) >= 5 and len(np.unique(some)) > 1 and early.mean() > 0.8:
            yield Finding(
                "terminals-as-timeouts",
                "warning",
                f"{len(some)} episodes are truncated before the limit of {limit} steps (first at row "
                f"{ends[:-1][early][0] - 1}) and none terminates: terminal states may be recorded as timeouts",
            )


def _duplicates(data: OfflineDataset) -> Iterator[Finding]:
    seen: dict[bytes, int] = {}
    repeated: list[tuple[int, int]] = []
    start = 0
    for end in data.episode_ends.tolist():
        digest = hashlib.blake2b(data.observations[start:end].tobytes(), digest_size=16)
        digest.update(data.actions[start:end].tobytes())
        first = seen.setdefault(digest.digest(), start)
        if first != start:
            repeated.append((start, first))
        start = end
    if repeated:
        yield Finding(
            "duplicate-episodes",
            "warning",
            f"{len(repeated)} episodes repeat earlier ones exactly (the one at row {repeated[0][0]} repeats row "
            f"{repeated[0][1]}), expected each episode once",
        )


def _unexplained(data: OfflineDataset, rows: np.ndarray, shift: int) -> float:
    """Share of the variance of ``rewards[rows + shift]`` that a fit on the states and actions of ``rows`` leaves."""
    count = len(data)
    s, following = (a.reshape(count, -1)[rows].astype(np.float64) for a in (data.observations, data.next_observations))
    a = data.action_columns(rows).astype(np.float64)
    x = features(np.concatenate((s, following, a), axis=1))
    return float(unexplained(x, data.rewards[rows + shift, None].astype(np.float64))[0])


def _rewards(data: OfflineDataset) -> Iterator[Finding]:
    """Rewards one row off: a row explains another row's reward clearly better than its own."""
    if float(data.rewards.std()) == 0.0:
        if len(data) > 1:
            text = f"every reward is {data.rewards[0]:g}, expected some difference to learn from"
            yield Finding("constant-rewards", "warning", text)
        return
    ended = data.terminations | data.truncations
    # Rows with a neighbour of their own episode on both sides, so that all three fits see the same ones.
    inner = np.flatnonzero(~ended[:-2] & ~ended[1:-1]) + 1
    width = 4 * int(np.prod(data.observation_space.shape)) + 2 * data.action_columns(rows=slice(1)).shape[1]
    if len(inner) < 10 * width:
        return
    rows = inner[:: max(1, len(inner) // REGRESSION_ROWS)]
    own = _unexplained(data, rows, 0)
    for shift, where in ((-1, "preceding"), (1, "following")):
        other = _unexplained(data, rows, shift)
        # A reward of a state alone is explained about as well by the two rows that hold that state, which says nothing
        # of its place.  One that hangs on an action or a change of state is explained ten times better by its own row.
        if other < 0.5 and other < 0.25 * own and own - other > 5e-4:
            yield Finding(
                "shifted-rewards",
                "error",
                f"a row's states and action leave {100 * own:.1f} % of its own reward unexplained but only "
                f"{100 * other:.1f} % of the {where} row's, expected the reverse: rewards are off by one row",
            )


def _load(what: Any, path: str | Path | None, log: Mapping[str, Any]) -> OfflineDataset:
    """The dataset with as few checks of values as its format allows, for the checks here to make."""
    if path is not None:
        return from_file(path, what if isinstance(what, EnvRecord) else record(what), strict=False, **log)
    if is_file(what):
        return from_file(what, strict=False, **log)
    if isinstance(what, str) and what not in records() and MINARI_ID.fullmatch(what) and has_local(what):
        return stored(what, strict=False)
    if hasattr(what, "iterate_episodes"):
        return stored(what, strict=False)
    return load_dataset(what, **log)


def _evaluated(data: OfflineDataset, env: str | EnvRecord | gym.Env | None) -> Named | None:
    """The environment in which policies of ``data`` are evaluated."""
    if isinstance(env, gym.Env):
        return (env.spec.id, dict(env.spec.kwargs)) if env.spec is not None else None
    if isinstance(env, EnvRecord):
        return env.env_id, env.env_kwargs
    if env is not None:
        return env, {}
    return (data.env_id, data.env_kwargs) if data.env_id is not None else None


def _environments(recorded: Named | None, evaluated: Named | None) -> Iterator[Finding]:
    if recorded is None or evaluated is None or recorded == evaluated:
        return
    if found := differences(recorded, evaluated):
        text = f"the data was recorded in another environment than it is evaluated in ({'; '.join(found[:5])})"
        yield Finding("other-environment", "warning", f"{text}, expected the same: scores may be another task's")


def _file_code(sentence: str) -> str:
    for code, words in (
        ("truncated-file", "truncated"),
        ("truncated-file", "damaged"),
        ("missing-file", "does not exist"),
        ("empty-file", "is empty"),
        ("not-hdf5", "not an HDF5"),
        ("missing-array", "has no '"),
        ("wrong-shapes", "shape"),
        ("wrong-shapes", "numbers of observation and action"),
        ("not-flags", "expected flags"),
    ):
        if words in sentence:
            return code
    return "unreadable"


def look_at(
    what: Any,
    env: str | EnvRecord | gym.Env | None = None,
    *,
    path: str | Path | None = None,
    columns: Mapping[str, Any] | None = None,
    bounds: Any = None,
    n_actions: int | None = None,
) -> tuple[list[Finding], OfflineDataset | None]:
    """The findings of :func:`check_dataset`, and the dataset they are of, with the environment's spaces.

    None instead where it cannot be read.
    """
    try:
        data = _load(what, path, {"columns": columns, "bounds": bounds, "n_actions": n_actions})
        recorded, evaluated = recorded_in(data), _evaluated(data, env)
        spaces: Any = data.observation_space, data.action_space
        limit = None
        if isinstance(env, gym.Env):
            spaces = require_learnable(env.observation_space, env.action_space, "env")
            limit = env.spec.max_episode_steps if env.spec is not None else None
        elif evaluated is not None:
            observation_space, action_space, limit = env_facts(*evaluated)
            spaces = require_learnable(observation_space, action_space, evaluated[0])
        for name, space in (("observations", spaces[0]), ("actions", spaces[1])):
            shape = getattr(data, name).shape[1:]
            if shape != space.shape:
                raise DataError(f"'{name}' has shape {list(shape)} per row, expected {list(space.shape)} as the env")
        data = data.with_(observation_space=spaces[0], action_space=spaces[1])
        if evaluated is not None:
            data = data.with_(env_id=evaluated[0], env_kwargs=dict(evaluated[1]))
    except DataError as error:
        return [Finding(_file_code(str(error)), "error", str(error))], None
    found_values = list(_values(data))
    findings = [
        *found_values,
        *_bounds(data),
        *_space(data),
        *_joins(data),
        *_episodes(data, limit),
        *_duplicates(data),
    ]
    findings += _environments(recorded, evaluated)
    if not found_values:  # a fit on NaN says nothing
        findings += [*_columns(data), *_scales(data), *_rewards(data)]
    return sorted(findings, key=lambda finding: finding.severity), data


def check_dataset(what: Any, env: str | EnvRecord | gym.Env | None = None, **choices: Any) -> list[Finding]:
    """Every fault found in ``what`` (anything :func:`~rlkit.data.resolve.load_dataset` takes), errors first.

    ``choices``: ``path``, a file to take for the record ``what``; ``columns``, ``bounds`` and ``n_actions`` of a log.
    ``env``, an environment, its Gymnasium id or a record, overrides the one the dataset names; with it the action
    bounds, the shapes and the longest episode are known, and it is compared with the environment that was recorded as
    far as the data names one.  A file that cannot be read is a finding, not an exception.
    """
    return look_at(what, env, **choices)[0]
