"""Stand-in datasets: rolled out from behaviour policies that come with rlkit.

The policies lie in ``behaviours/`` as safetensors beside a ``manifest.json``, both made by
``scripts/select_behaviours.py``::

    {"format": 1,
     "versions": {"gymnasium": "1.4.0", "mujoco": ..., "numpy": ..., "stable-baselines3": ..., "torch": ...},
     "tasks": {"hopper": {
       "env_id": "Hopper-v5",
       "policies": {"medium": {
         "file": "hopper_medium.safetensors", "sha256": ...,   # of the file
         "step": 340000,                                       # environment steps of training
         "return_mean": ..., "return_sd": ..., "normalised": ...,   # stochastic policy, as it acts here
         "episodes": 100, "seeds": [20000, 20099]}, ...},      # first and last seed of that measurement's environments
       "levels": {"random": [], "medium": ["medium"], "medium-expert": ["medium", "expert"], ...}}}}

A level is a list of policies that contribute equal shares, one after another; an empty list is uniformly random
actions.  A policy is SB3's SAC actor, a ReLU network with a mean and a log standard deviation head (tensors
``latent_pi.0.weight`` … ``log_std.bias``, any float dtype), and acts with its noise, as D4RL's behaviours did.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.data.actors import Actor, Uniform, load_behaviour, remedy
from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.data.records import env_facts, record_fields, require_boxes
from rlkit.data.rollouts import Crew, collect, in_order
from rlkit.errors import DataError
from rlkit.registry import EnvRecord
from rlkit.vector import make_vector_env

BEHAVIOURS = Path(__file__).parent / "behaviours"
ALGORITHM = 1  # raised whenever the same policies, size and seed would give other rows
MAX_ENVS = 100
WORTH = 100_000  # rows from which processes are worth their start


def manifest() -> dict[str, Any]:
    """The behaviours' manifest (see the module's docstring); without one, a manifest of no tasks."""
    path = BEHAVIOURS / "manifest.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"format": 1, "versions": {}, "tasks": {}}
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != 1:
        raise DataError(f"{path} is damaged or of another version, expected a manifest of format 1")
    return found


def shares(record: EnvRecord) -> list[tuple[str, dict[str, Any]]]:
    """Names and manifest entries of the policies that make up ``record``'s level; empty for random actions.

    Raises :class:`DataError` where the record has no data, or the level's policies are not all there.
    """
    if record.data is None:
        raise DataError(f"'{record.name}' is for learning online and has no dataset; pick one of its levels")
    level = record.data.level
    if level == "random":
        return []
    task = manifest()["tasks"].get(record.task, {})
    names = task.get("levels", {}).get(level)
    if not names:
        raise DataError(
            f"'{record.name}' cannot be generated, {BEHAVIOURS / 'manifest.json'} lists no policies for level "
            f"'{level}' of '{record.task}'; {remedy(record.task)}"
        )
    for name in names:
        if name not in task.get("policies", {}) or not (BEHAVIOURS / task["policies"][name]["file"]).is_file():
            raise DataError(
                f"'{record.name}' cannot be generated, policy '{name}' of '{record.task}' is missing from "
                f"{BEHAVIOURS}; {remedy(record.task)}"
            )
    return [(name, task["policies"][name]) for name in names]


def fingerprint(record: EnvRecord) -> str:
    """What the rows depend on beside size and seed: the policies' files, their order, and this module's algorithm."""
    parts = [f"algorithm {ALGORITHM}", record.env_id, json.dumps(dict(record.env_kwargs), sort_keys=True)]
    parts += [f"{name} {entry['sha256']}" for name, entry in shares(record)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def behaviour_rollouts(
    record: EnvRecord, *, size: int | None = None, seed: int = 0, progress: bool = False, jobs: int | None = None
) -> OfflineDataset:
    """Generate ``size`` transitions (default: the record's) of ``record``'s level; ``progress`` shows a bar.

    ``jobs``: cores to use, by default all that this process may; a long batched rollout takes a process on each,
    where its stepper is MuJoCo's.  The
    same record, size and seed give the same bytes, whatever the number; another version of MuJoCo, or a processor
    whose matrix products round differently, may not.

    Raises :class:`DataError` where policies are missing, or size, seed or jobs are out of range.
    """
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    parts = shares(record)
    assert record.data is not None
    size = record.data.size if size is None else size
    if size < 1 or seed < 0 or (jobs is not None and jobs < 1):
        asked = f"size {size} and seed {seed}" if jobs is None else f"size {size}, seed {seed} and jobs {jobs}"
        raise DataError(f"cannot generate '{record.name}' with {asked}, expected size > 0, seed >= 0, jobs > 0")
    observation_space, action_space, limit = env_facts(record.env_id, record.env_kwargs)
    observation_space, action_space = require_boxes(observation_space, action_space, record.env_id)

    files: list[Path | None] = [BEHAVIOURS / entry["file"] for _, entry in parts] or [None]
    actors: list[Actor] = [Uniform(action_space)]
    if parts:
        width = int(np.prod(observation_space.shape))
        actors = [load_behaviour(BEHAVIOURS / e["file"], width, action_space, e["sha256"]) for _, e in parts]
    sizes = np.diff(np.linspace(0, size, len(actors) + 1).astype(np.int64)).tolist()
    count = int(np.clip(max(sizes) // (limit or 1000), 1, MAX_ENVS))
    env = make_vector_env(record.env_id, count, **record.env_kwargs)
    threads = getattr(env.unwrapped, "num_threads", None)  # of steppers to whom processes are worth having
    if jobs == 1 and threads is not None:
        env.close()
        env = make_vector_env(record.env_id, count, num_threads=1, **record.env_kwargs)
    processes = min(jobs or (threads or 1 if size >= WORTH else 1), count)
    bar = tqdm(
        total=size, desc=f"generating {record.name}", unit="row", unit_scale=True, disable=None if progress else True
    )
    blocks = []
    goal = 0

    def tick(rows: int) -> None:
        bar.update(min(rows, goal - bar.n))

    with ExitStack() as stack:
        stack.enter_context(bar)
        # One BLAS thread: products so small gain nothing from more, and how they are split must not touch the rounding.
        stack.enter_context(threadpool_limits(limits=1, user_api="blas"))
        crew = None
        if threads is not None and processes > 1:
            with suppress(OSError):  # where no process can be started, this one does it all
                crew = stack.enter_context(closing(Crew(env, record.env_id, record.env_kwargs, processes)))
        for index, (file, actor, share) in enumerate(zip(files, actors, sizes, strict=True)):
            if share == 0:
                continue
            goal += share
            stream = np.random.SeedSequence([seed, index])
            env_seed = int(stream.generate_state(1)[0]) % 2**31
            if crew is None:
                blocks.append(collect(env, actor, share, np.random.default_rng(stream), env_seed, tick))
            else:
                first, steps = crew.play(file, [seed, index], env_seed)
                with closing(steps):
                    blocks.append(in_order(first, steps, share, tick))
            bar.update(goal - bar.n)
    stepper = type(env.unwrapped).__name__
    env.close()
    arrays: dict[str, Any] = {name: np.concatenate([block[name] for block in blocks]) for name in OfflineDataset.ARRAYS}
    what = ", ".join(name for name, _ in parts) if len(parts) <= 3 else f"{len(parts)} training snapshots"
    details = {
        "size": size,
        "seed": seed,
        "fingerprint": fingerprint(record),
        "policies": {n: {k: e.get(k) for k in ("sha256", "step", "return_mean", "return_sd")} for n, e in parts},
        "stepper": stepper,
        "versions": _versions(),
    }
    locator = f"{size:,} transitions of {what or 'uniformly random actions'}, seed {seed}"
    return OfflineDataset(
        **arrays,
        **record_fields(record),
        observation_space=observation_space,
        action_space=action_space,
        provenance=Provenance("generated", locator, record.name, details),
    )


def _versions() -> dict[str, str]:
    import mujoco

    return {"gymnasium": gym.__version__, "mujoco": mujoco.__version__, "numpy": np.__version__}
