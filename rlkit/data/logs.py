"""Logs: tables whose columns are observations, actions, rewards and where episodes end, as an :class:`OfflineDataset`.

Which column is which is said by the caller (``columns=``) or guessed from its name, and told in
``provenance.details["columns"]``.  An episode is the rows of one value of the episode column, cut after rows whose
``end`` or ``time_limit`` is 1; without any of the three, a step that begins again begins one.  A row's successor is the
next row of its episode.  Where the log does not hold it (the last row of an episode that did not end by itself) the row
is dropped and the one before it ends the episode, as with D4RL's files; a row whose ``end`` is 1 needs none.

Bounds of actions are per column: given, or the smallest and largest value recorded, without a margin, so that nothing
is ever asked of an actuator that was not recorded of it.

Actions are a choice among ``n`` where ``n_actions`` says so, or where there is one column of them, without bounds, that
holds each of 0 to n - 1 and nothing else, n being at most :data:`CHOICES`.  The values tell, not their type, so that a
log is the same data in every form.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.data.hdf5 import column_ranges, transitions
from rlkit.data.records import env_facts, record_fields, require_learnable
from rlkit.data.tables import WIDE, Table, base_of, from_episodes, from_mapping, open_table, require_room
from rlkit.data.validate import require_flags, validate, whole_numbers
from rlkit.errors import DataError, nearest, shown
from rlkit.registry import LOG, EnvRecord

MOST_CHOICES = 1000
CHOICES = 32  # more distinct whole numbers than these are taken for a measure, not for a choice
SINGLE = ("reward", "episode", "end", "time_limit", "step")
ROLES = (*WIDE, *SINGLE)
_PART = r"(_?\d+|_.+)?"
NAMES = {  # what a column of a role is usually called, in lower case with underscores
    "next_observations": rf"(next_(obs|observations?|states?)|new_(obs|observations?|states?)|next_s|s_next){_PART}",
    "observations": rf"(obs|observations?|states?){_PART}|s_?\d*",
    "actions": rf"(actions?|act|control|ctrl|command|cmd|setpoint){_PART}|[au]_?\d*",
    "reward": r"rewards?|rew|r",
    "episode": r"(episodes?|traj|trajectory|run|trial|rollout|ep)(_?(id|index|number|no|nr))?",
    "end": r"dones?|terminals?|terminated|terminations?|ends?|is_terminal|is_last",
    "time_limit": r"time_?outs?|truncated|truncations?|time_limit",
    "step": r"steps?|t|time_?steps?|time|time_?stamps?|date|datetime|index",
}


def read_log(
    what: Any,
    *,
    columns: Mapping[str, Any] | None = None,
    bounds: Any = None,
    n_actions: int | None = None,
    record: EnvRecord | None = None,
    progress: bool = False,
    strict: bool = True,
) -> OfflineDataset:
    """The dataset in a table.

    Args:
        what: the path of a CSV, Parquet, NPZ or HDF5 file; a data frame of pandas or polars; a mapping of arrays
            ``[N]`` or ``[N, k]``; a list of episodes, see :func:`~rlkit.data.tables.from_episodes`.
        columns: names by role, any of :data:`ROLES`; the others are guessed.  An array's name stands for all its parts.
        bounds: lowest and highest action, as ``{column: (low, high)}`` or one pair for each action column in order;
            those not given are the smallest and largest value recorded.
        n_actions: how many there are to choose from, numbered from 0, in one column; 0: they are numbers, not choices;
            None: told by the values, see above.
        record: the environment that was recorded, where one here simulates it: its spaces hold.
        progress: whether a long file shows a bar.
        strict: whether values are checked; else that is left to a linter.

    Raises:
        DataError: a file that cannot be read, columns that are not there or cannot be told apart, cells that are no
            finite numbers, steps out of order, rows of an episode apart, actions that never vary or leave their bounds,
            or no transition at all.
    """
    table = _table(what)
    roles, guessed = _roles(table, columns or {})
    where, names = table.where, {role: roles[role] for role in WIDE if role in roles}
    width = 2 * len(roles["observations"]) + len(roles["actions"]) + 2
    if table.rows is not None:
        require_room(where, table.rows, width)
    raw = table.read(roles, progress)
    rows = len(raw["observations"])
    if rows == 0:
        raise DataError(f"{where} holds no rows, expected at least two")
    terminals, timeouts = _ends(raw, roles, where, strict)
    rewards = raw.get("reward", np.zeros(rows))
    with np.errstate(over="ignore"):
        arrays = {**{role: raw[role] for role in names}, "rewards": rewards.astype(np.float32)}
    del raw, rewards
    fields = _fields(record, names, arrays, where)
    given = bounds is not None or record is not None
    if record is None:
        count = _choices(arrays["actions"], roles["actions"], bounds, n_actions, where)
        if count:
            fields["action_space"] = gym.spaces.Discrete(count)
        else:
            fields["action_space"] = _box(arrays["actions"], roles["actions"], bounds, where, strict)
    elif n_actions is not None:
        raise DataError(f"{where}: the number of actions is that of '{record.name}', expected no other beside it")
    elif bounds is not None:
        raise DataError(f"{where}: the bounds of actions are those of '{record.name}', expected no others beside it")
    told: dict[str, Any] = {
        "columns": {role: roles[role] if role in WIDE else roles[role][0] for role in ROLES if role in roles},
        "guessed": ", ".join(guessed) or "nothing",
        "bounds": "given" if given else "of the data, no margin",
    }
    if isinstance(fields["action_space"], gym.spaces.Discrete):
        said = "given" if n_actions or record is not None else "by the values; n_actions=0 takes them as numbers"
        told["choices"] = f"{fields['action_space'].n} actions, {said}"
        del told["bounds"]
        arrays["actions"] = whole_numbers(arrays["actions"][:, 0], f"{where}: '{roles['actions'][0]}'")
    if ignored := [name for name in table.names if not any(name in found for found in roles.values())]:
        told["ignored"] = ignored
    if "reward" not in roles:
        told["rewards"] = "none"
    if strict:
        labels = {**names, "rewards": roles.get("reward", ())}
        clipped = validate(arrays, fields["action_space"], where, labels)
        if clipped:
            told["clipped"] = f"{clipped} action entries beyond their bounds by rounding"
    single = _single_rows(terminals | timeouts, terminals)
    if single == rows:
        raise DataError(
            f"{where}: all {rows} episodes have one row and no end, so that nothing is known to follow, expected "
            "longer ones; columns.episode says which column tells them apart"
        )
    final, dropped = transitions({**arrays, "terminals": terminals}, timeouts, where)
    if dropped:
        told["dropped"] = f"{dropped} rows at the ends of episodes, whose next observation the log does not hold"
    if single:
        told["short"] = f"{single} of the episodes had one row and no end, and are left out"
    file = isinstance(what, (str, Path))
    named = record.name if record is not None else Path(where).name if file else "own data"
    provenance = Provenance("path" if file else "memory", where, named, told)
    return OfflineDataset(**{**final, **fields}, provenance=provenance)


def _table(what: Any) -> Table:
    if isinstance(what, (str, Path)):
        return open_table(what)
    if isinstance(what, Mapping):
        return from_mapping(what)
    if is_frame(what):
        repeated = [name for name in what.columns if list(what.columns).count(name) > 1]
        if repeated:
            raise DataError(f"the data frame has several columns {shown(repeated[0])}, expected each once")
        return from_mapping({name: what[name] for name in what.columns}, "the data frame")
    return from_episodes(what)


def is_frame(what: Any) -> bool:
    """Whether ``what`` is a data frame, of pandas, polars or anybody with columns by name."""
    return hasattr(what, "columns") and hasattr(what, "to_numpy") and hasattr(what, "__getitem__")


# ---- which column is which -------------------------------------------------------------------------------------------


def _roles(table: Table, given: Mapping[str, Any]) -> tuple[dict[str, list[str]], list[str]]:
    """Columns by role, in the order of :data:`ROLES`, and the roles that were guessed."""
    where = table.where
    found: dict[str, list[str]] = {}
    for role, chosen in given.items():
        if role not in ROLES:
            raise DataError(f"{where}: {shown(role)} is no role of a column{nearest(str(role), ROLES)}")
        if chosen is None:
            continue
        words: list[Any] = [chosen] if isinstance(chosen, str) else list(chosen) if isinstance(chosen, Sequence) else []
        if not words or not all(isinstance(word, str) for word in words):
            raise DataError(f"{where}: columns.{role}={shown(chosen)}, expected names of columns")
        found[role] = [name for word in words for name in table.expanded(word)]
        if role in SINGLE and len(found[role]) != 1:
            raise DataError(f"{where}: columns.{role} are {len(found[role])} columns, expected one")
    taken = [name for names in found.values() for name in names]
    for name in taken:
        if taken.count(name) > 1:
            raise DataError(f"{where}: the column '{name}' is given two roles, expected one")
    guessed = []
    free = [name for name in table.names if name not in taken]
    for role, pattern in NAMES.items():
        names = [name for name in free if re.fullmatch(pattern, _plain(name))]
        if role not in found and role not in ("episode", "step"):  # whose cells may be any, and which are not needed
            for name in (name for name in names if name in table.text):
                table.refuse_text(name, role)
        if role != "episode":
            names = [name for name in names if name not in table.text]
        names = names if role in WIDE else names[:1]
        if names and role not in found and not (role == "next_observations" and "observations" in found):
            found[role] = names
            guessed.append(role)
        free = [name for name in free if not re.fullmatch(pattern, _plain(name))]
    if "actions" not in found:
        raise DataError(
            f"{where}: no column is an action by its name (it has {_some(table.names)}), expected columns.actions to "
            "say which are"
        )
    for name in (name for name in free if name in table.mixed and "observations" not in found):
        table.refuse_text(name, "observations")
    free = [name for name in free if name not in table.text]
    if "observations" not in found and free:  # what is nothing else
        found["observations"] = free
        guessed.append("observations")
    if "observations" not in found:
        raise DataError(
            f"{where}: no column is left to be an observation, expected columns.observations to say which are"
        )
    if len(found.get("next_observations", found["observations"])) != len(found["observations"]):
        del found["next_observations"]
    for role in (*WIDE, "reward", "end", "time_limit"):
        if words := [name for name in found.get(role, ()) if name in table.text]:
            table.refuse_text(words[0], role)
    return {role: found[role] for role in ROLES if role in found}, [role for role in ROLES if role in guessed]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", base_of(name).strip().lower()).strip("_")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


# ---- episodes --------------------------------------------------------------------------------------------------------


def _ends(
    raw: dict[str, np.ndarray], roles: Mapping[str, list[str]], where: str, strict: bool
) -> tuple[np.ndarray, np.ndarray]:
    """bool ``[N]`` twice: rows at which an episode ended by itself, and rows at which it was cut off."""
    rows = len(raw["observations"])
    flags = {role: np.zeros(rows, bool) for role in ("end", "time_limit")}
    for role in flags:
        if role in raw:
            require_flags(raw[role], f"{where}: '{roles[role][0]}'")
            flags[role] = raw.pop(role) != 0
    terminals, timeouts = flags["end"], flags["time_limit"]
    steps = raw.pop("step", None)
    if "episode" in raw:
        ids = raw.pop("episode")
        odd = np.isnan(ids) if ids.dtype.kind == "f" else np.zeros(0, bool)
        if ids.dtype.kind == "O":
            odd = np.array([not isinstance(one, Hashable) or one is None or one != one for one in ids], bool)
        if odd.any():
            row = int(np.flatnonzero(odd)[0])
            held = "nothing" if isinstance(ids[row], Hashable) else shown(ids[row])
            raise DataError(f"{where}: '{roles['episode'][0]}' holds {held} at row {row}, expected an episode's name")
        last = np.append(ids[1:] != ids[:-1], True)
        _require_together(ids, last, roles["episode"][0], where)
        timeouts |= last & ~terminals
    elif steps is not None:  # a step that begins again begins an episode
        timeouts[:-1] |= (steps[1:] <= steps[0]) & (steps[1:] < steps[:-1]) & ~terminals[:-1]
    if steps is not None and strict:
        _require_order(steps, terminals | timeouts, roles["step"][0], where)
    return terminals, timeouts


def _require_together(ids: np.ndarray, last: np.ndarray, name: str, where: str) -> None:
    seen: dict[Any, int] = {}
    ends = np.flatnonzero(last).tolist()
    for start, end in zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True):
        if ids[end] in seen:
            raise DataError(
                f"{where}: the rows of {name} {shown(str(ids[end]))} lie apart, some end at row {seen[ids[end]]} and "
                f"more begin at row {start}, expected each episode's together"
            )
        seen[ids[end]] = end


def _require_order(steps: np.ndarray, ended: np.ndarray, name: str, where: str) -> None:
    wrong = np.flatnonzero(~(steps[1:] > steps[:-1]) & ~ended[:-1])
    if len(wrong):
        row = int(wrong[0]) + 1
        before, now = steps[row - 1], steps[row]
        what = f"is {now:g} at rows {row - 1} and {row}" if now == before else f"goes from {before:g} to {now:g}"
        at = "" if now == before else f" at row {row}"
        raise DataError(
            f"{where}: '{name}' {what}{at}, within an episode ({len(wrong)} such rows), expected steps that rise"
        )


def _single_rows(ended: np.ndarray, terminals: np.ndarray) -> int:
    """How many episodes are one row that did not end by itself."""
    begins = np.concatenate(([True], ended[:-1]))
    last = ended.copy()
    last[-1] = True
    return int((begins & last & ~terminals).sum())


# ---- spaces ----------------------------------------------------------------------------------------------------------


def _fields(
    record: EnvRecord | None, names: Mapping[str, list[str]], arrays: Mapping[str, np.ndarray], where: str
) -> dict[str, Any]:
    """Fields of :class:`OfflineDataset` but its arrays and the bounds of its actions."""
    if record is None:
        shape = arrays["observations"].shape[1:]
        return {"observation_space": gym.spaces.Box(-np.inf, np.inf, shape, np.float32), "family": LOG}
    spaces = require_learnable(*env_facts(record.env_id, record.env_kwargs)[:2], record.env_id)
    for role, space in zip(("observations", "actions"), spaces, strict=True):
        shape = space.shape or (1,)
        if arrays[role].shape[1:] != shape:
            raise DataError(
                f"{where}: {len(names[role])} columns are {role} ({_some(names[role])}), expected {list(shape)} "
                f"as in {record.env_id}"
            )
    return {**record_fields(record), "observation_space": spaces[0], "action_space": spaces[1]}


def _choices(actions: np.ndarray, names: list[str], bounds: Any, n_actions: int | None, where: str) -> int:
    """How many actions there are to choose from; 0 where they are numbers."""
    if n_actions is not None:
        if type(n_actions) is not int or n_actions < 0 or n_actions == 1 or n_actions > MOST_CHOICES:
            raise DataError(
                f"{where}: n_actions={shown(n_actions)}, expected a whole number from 2 to {MOST_CHOICES}, or 0 for "
                "actions that are numbers"
            )
        if n_actions and (bounds is not None or len(names) != 1):
            more = "bounds" if len(names) == 1 else f"{len(names)} columns of actions ({_some(names)})"
            raise DataError(f"{where}: n_actions={n_actions} and {more}, expected one column without bounds")
        return n_actions
    column = actions[:, 0]
    most = column.max()
    if bounds is not None or len(names) != 1 or not (column.min() == 0 and 1 <= most < CHOICES):  # NaN is none of these
        return 0
    if (column != np.floor(column)).any() or (np.bincount(column.astype(np.int64)) == 0).any():
        return 0
    return int(most) + 1


def _box(actions: np.ndarray, names: list[str], bounds: Any, where: str, strict: bool) -> gym.spaces.Box:
    """The box of the actions, each column's bounds as given, else those of its values."""
    low, high = column_ranges(actions)
    given = dict(_pairs(bounds, names, where))
    for column, name in enumerate(names):
        if name in given:
            low[column], high[column] = given[name]
        elif strict and actions[:, column].min() == actions[:, column].max():
            raise DataError(
                f"{where}: the action '{name}' is {actions[0, column]:g} in every row, so that nothing can be learnt "
                "of it; expected columns.actions without it, or bounds for it"
            )
    return gym.spaces.Box(low, high, dtype=np.float32)


def _pairs(bounds: Any, names: list[str], where: str) -> Iterator[tuple[str, tuple[float, float]]]:
    """Lowest and highest action of each column that ``bounds`` speaks of."""
    if bounds is None:
        return
    if not isinstance(bounds, Mapping):
        if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != len(names):
            raise DataError(f"{where}: bounds={shown(bounds)}, expected {len(names)} pairs, of {_some(names)}")
        bounds = dict(zip(names, bounds, strict=True))
    for word, pair in bounds.items():
        found = [name for name in names if word in (name, base_of(name))]
        if not found:
            raise DataError(f"{where}: bounds of {shown(word)}, which is no action{nearest(str(word), names)}")
        try:
            ends = np.asarray(pair, np.float64)
            low, high = (np.broadcast_to(end, len(found)) for end in (ends[0], ends[1]))
            sound = len(ends) == 2 and np.isfinite(ends).all() and (low < high).all()
        except (ValueError, TypeError, IndexError):
            sound = False
        if not sound:
            raise DataError(
                f"{where}: bounds of {shown(word)} are {shown(pair)}, expected two finite numbers, the lower first"
            )
        yield from ((name, (float(low[i]), float(high[i]))) for i, name in enumerate(found))
