"""Imitation data: a few labelled expert episodes, and a pool of suboptimal ones with expert episodes hidden among them.

What a method of imitation may see is whether a row is labelled (part ``expert``) or not (``hidden``, ``suboptimal``).
That a row is hidden serves to watch the learner and to nothing else.  Episodes are counted as episodes: in a count of
transitions that takes every episode for a thousand steps, a short one shifts all that follow.  Rewards are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.data.records import env_facts
from rlkit.errors import DataError
from rlkit.registry import DataSpec, EnvRecord, record

LABELLED, HIDDEN, SUBOPTIMAL = "expert", "hidden", "suboptimal"
ALGORITHM = 1  # raised whenever the same sources and counts would give other rows
DEFAULT_LIMIT = 1000  # longest episode, where the environment names none


@dataclass(frozen=True)
class MixtureSpec(DataSpec):
    """A record whose data is mixed from that of two others.  ``size`` counts transitions of the suboptimal part."""

    expert: str = ""  # record whose first episodes are labelled and whose next ones are hidden
    suboptimal: str = ""  # record whose data is taken whole
    labelled_episodes: int = 1
    hidden_episodes: int = 0


def _episodes(data: OfflineDataset, first: int, last: int) -> slice:
    """Rows of the episodes ``first`` up to but without ``last``."""
    bounds = np.concatenate(([0], data.episode_ends))
    return slice(int(bounds[first]), int(bounds[last]))


def _check(expert: OfflineDataset, suboptimal: OfflineDataset, labelled: int, hidden: int) -> None:
    named = [f"{d.env_id} {dict(d.env_kwargs) or ''}".strip() for d in (expert, suboptimal)]
    both = expert.env_id is not None and suboptimal.env_id is not None  # a file may name no environment
    if both and named[0] != named[1]:
        raise DataError(
            f"the expert part ({expert.provenance.locator}) is of {named[0]}, the suboptimal part "
            f"({suboptimal.provenance.locator}) of {named[1]}; expected both of one environment"
        )
    for what in ("observation_space", "action_space"):
        mine, other = getattr(expert, what), getattr(suboptimal, what)
        if (expert.discrete or suboptimal.discrete) and what == "action_space":
            if mine != other:
                raise DataError(
                    f"the expert part has the actions {mine}, the suboptimal part {other}, expected the same"
                )
        elif mine.shape != other.shape or (mine.low != other.low).any() or (mine.high != other.high).any():
            text = [f"shape {list(s.shape)} within [{s.low.min():g}, {s.high.max():g}]" for s in (mine, other)]
            raise DataError(
                f"the expert part ({expert.provenance.locator}) has {what} of {text[0]}, the suboptimal part "
                f"({suboptimal.provenance.locator}) of {text[1]}; expected both of one environment"
            )
    for name, count, least in (("labelled_episodes", labelled, 1), ("hidden_expert_episodes", hidden, 0)):
        if count < least:
            raise DataError(f"{name}={count} is out of range, expected a whole number of at least {least}")
    found = len(expert.episode_ends)
    if found < labelled + hidden:
        raise DataError(
            f"{expert.provenance.locator} holds {found} episodes, expected at least {labelled + hidden}: "
            f"{labelled} labelled and {hidden} hidden"
        )


def imitation_dataset(
    *,
    expert: Any,
    suboptimal: Any,
    labelled_episodes: int = 1,
    hidden_expert_episodes: int = 0,
    name: str = "unnamed",
) -> OfflineDataset:
    """Label the first episodes of ``expert``, hide its next ones among all of ``suboptimal``, leave the rewards out.

    ``expert`` and ``suboptimal``: whatever :func:`~rlkit.data.resolve.load_dataset` takes, of one environment.  The
    result's ``parts`` are ``expert``, ``hidden`` (unless there is none) and ``suboptimal``; its rewards are 0, float32
    ``[N]``; its environment and reference scores are the suboptimal data's, or else the expert's.

    Raises :class:`DataError` for data of different environments, counts out of range, or too few expert episodes.
    """
    from rlkit.data.resolve import load_dataset

    demonstrations, pool = load_dataset(expert), load_dataset(suboptimal)
    _check(demonstrations, pool, labelled_episodes, hidden_expert_episodes)
    last = labelled_episodes + hidden_expert_episodes
    blocks = [
        (LABELLED, demonstrations, _episodes(demonstrations, 0, labelled_episodes)),
        (HIDDEN, demonstrations, _episodes(demonstrations, labelled_episodes, last)),
        (SUBOPTIMAL, pool, slice(0, len(pool))),
    ]
    blocks = [block for block in blocks if block[2].stop > block[2].start]
    keys = [key for key in OfflineDataset.ARRAYS if key != "rewards"]
    arrays: dict[str, Any] = {key: np.concatenate([getattr(d, key)[rows] for _, d, rows in blocks]) for key in keys}
    parts = tuple((part, rows.stop - rows.start) for part, _, rows in blocks)
    ends = np.cumsum([rows for _, rows in parts]) - 1
    arrays["truncations"][ends] |= ~arrays["terminations"][ends]  # no episode may run on into another part
    arrays["rewards"] = np.zeros(len(arrays["actions"]), np.float32)

    known = pool if pool.env_id is not None else demonstrations
    fields = ("observation_space", "action_space", "env_id", "env_kwargs", "reference", "family", "task")
    sources = [d.provenance for d in (demonstrations, pool)]
    locator = (
        f"{labelled_episodes} labelled and {hidden_expert_episodes} hidden episodes of [{sources[0].locator}] with "
        f"[{sources[1].locator}], rewards left out"
    )
    details = {
        "labelled_episodes": labelled_episodes,
        "hidden_episodes": hidden_expert_episodes,
        "expert": f"{sources[0].source} {sources[0].locator}",
        "suboptimal": f"{sources[1].source} {sources[1].locator}",
    }
    made = any(source.source == "generated" for source in sources)
    return OfflineDataset(
        **arrays,
        **{key: getattr(known, key) for key in fields},
        parts=parts,
        provenance=Provenance("generated" if made else "memory", locator, name, details),
    )


def pool_rows(data: OfflineDataset) -> tuple[int, int]:
    """First row of the unlabelled parts and one past the last; :class:`DataError` where nothing follows the expert."""
    first = data.rows_of(LABELLED)[1]
    if first == len(data):
        raise DataError(f"{data.provenance.locator} ends with its expert part, expected unlabelled rows behind it")
    return first, len(data)


def monitor_rows(data: OfflineDataset, count: int = 256) -> dict[str, np.ndarray]:
    """Up to ``count`` rows of each part, int64, evenly spaced: the same at every call, at the cost of no generator."""
    found, start = {}, 0
    for name, rows in data.parts:
        found[name] = start + np.unique(np.linspace(0, rows - 1, min(count, rows)).astype(np.int64))
        start += rows
    return found


# ---- records ---------------------------------------------------------------------------------------------------------


def _spec(mixed: EnvRecord) -> MixtureSpec:
    if not isinstance(mixed.data, MixtureSpec):
        raise DataError(f"'{mixed.name}' names no sources to mix, expected a record with a MixtureSpec")
    return mixed.data


def fingerprint(mixed: EnvRecord) -> str:
    """What the rows depend on beside size and seed: what both sources depend on, and the counts."""
    from rlkit.data.cache import generation_key

    spec = _spec(mixed)
    parts: list[Any] = [f"algorithm {ALGORITHM}", spec.labelled_episodes, spec.hidden_episodes, spec.size]
    parts += [generation_key(record(name), 0, 0)["fingerprint"] for name in (spec.expert, spec.suboptimal)]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def mixture(
    mixed: EnvRecord, *, size: int | None = None, seed: int = 0, progress: bool = False, jobs: int | None = None
) -> OfflineDataset:
    """The data of a record with a :class:`MixtureSpec`, both of its sources generated.

    ``size`` transitions are suboptimal; where that is not the record's own number, hidden episodes are as many fewer or
    more, at least one.  Sources are kept in the local Minari store like any generated dataset; ``jobs`` is for their
    generators.

    Raises :class:`DataError` where a source cannot be generated, or size or seed are out of range.
    """
    from rlkit.data.cache import generated

    spec = _spec(mixed)
    size = spec.size if size is None else size
    hidden = spec.hidden_episodes
    if hidden and size != spec.size:
        hidden = max(1, round(hidden * size / spec.size))
    expert = record(spec.expert)
    limit = env_facts(expert.env_id, expert.env_kwargs)[2] or DEFAULT_LIMIT
    # One episode more than asked for: the last one is cut where the rows end.
    rows = (spec.labelled_episodes + hidden + 1) * limit
    demonstrations = generated(expert, size=rows, seed=seed, progress=progress, jobs=jobs)
    pool = generated(record(spec.suboptimal), size=size, seed=seed, progress=progress, jobs=jobs)
    return imitation_dataset(
        expert=demonstrations,
        suboptimal=pool,
        labelled_episodes=spec.labelled_episodes,
        hidden_expert_episodes=hidden,
        name=mixed.name,
    )
