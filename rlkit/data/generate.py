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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.data.dataset import OfflineDataset, Provenance
from rlkit.data.records import env_facts, record_fields, require_boxes
from rlkit.errors import DataError
from rlkit.registry import EnvRecord
from rlkit.vector import make_vector_env

BEHAVIOURS = Path(__file__).parent / "behaviours"
ALGORITHM = 1  # raised whenever the same policies, size and seed would give other rows
MAX_ENVS = 100
LOG_STD_RANGE = (-20.0, 2.0)  # SB3's clipping of the actor's second head

Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # observations [B, ds] -> actions [B, da]


class Behaviour:
    """An SAC actor in NumPy: ``action = tanh(mu + exp(clip(log_std)) noise)``, scaled to the action space.

    Calling it with observations, float32 ``[B, ds]``, and a generator gives float32 ``[B, da]``; without a generator
    it acts deterministically.  Raises :class:`DataError` for tensors that are missing or do not fit the spaces.
    """

    def __init__(self, tensors: dict[str, np.ndarray], observation_size: int, action_space: gym.spaces.Box, where: str):
        try:
            layers = ["latent_pi.0", "latent_pi.2", "mu", "log_std"]
            weights = [np.ascontiguousarray(tensors[f"{n}.weight"].astype(np.float32).T) for n in layers]
            biases = [tensors[f"{n}.bias"].astype(np.float32) for n in layers]
        except KeyError as error:
            raise DataError(f"{where}: tensor {error} is missing, expected an SAC actor of Stable-Baselines3") from None
        actions = int(np.prod(action_space.shape))
        if weights[0].shape[0] != observation_size or weights[2].shape[1] != actions:
            raise DataError(
                f"{where}: the actor maps {weights[0].shape[0]} numbers to {weights[2].shape[1]}, "
                f"expected {observation_size} to {actions}"
            )
        self.hidden = list(zip(weights[:2], biases[:2], strict=True))
        # Both heads share their input: one product instead of two.
        self.heads = (np.concatenate(weights[2:], axis=1), np.concatenate(biases[2:]))
        self.low, self.high = action_space.low.astype(np.float32), action_space.high.astype(np.float32)

    def __call__(self, observations: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        x = observations  # [B, ds]
        for weight, bias in self.hidden:
            x = np.maximum(x @ weight + bias, 0.0)  # [B, H]
        mean, log_std = np.split(x @ self.heads[0] + self.heads[1], 2, axis=1)  # [B, da] each
        if generator is not None:
            noise = generator.standard_normal(mean.shape, dtype=np.float32)
            mean = mean + np.exp(np.clip(log_std, *LOG_STD_RANGE)) * noise
        scaled = self.low + 0.5 * (np.tanh(mean) + 1.0) * (self.high - self.low)
        return np.clip(scaled, self.low, self.high)  # scaling may overstep a bound by rounding


def load_behaviour(
    file: Path, observation_size: int, action_space: gym.spaces.Box, sha256: str | None = None
) -> Behaviour:
    """The policy in ``file``; raises :class:`DataError` where it is missing, altered, or does not fit."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not file.is_file():
        raise DataError(f"behaviour {file} is missing; {_remedy(file.name.split('_')[0])}")
    data = file.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"behaviour {file} is not the file its manifest describes, expected SHA-256 {sha256[:12]}…")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise DataError(f"behaviour {file} is no safetensors file ({error})") from None
    return Behaviour(tensors, observation_size, action_space, str(file))


def _remedy(task: str) -> str:
    return (
        f"make it with `python scripts/train_behaviours.py {task}` and `python scripts/select_behaviours.py {task}`, "
        "or name a dataset of your own by its path"
    )


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
            f"'{level}' of '{record.task}'; {_remedy(record.task)}"
        )
    for name in names:
        if name not in task.get("policies", {}) or not (BEHAVIOURS / task["policies"][name]["file"]).is_file():
            raise DataError(
                f"'{record.name}' cannot be generated, policy '{name}' of '{record.task}' is missing from "
                f"{BEHAVIOURS}; {_remedy(record.task)}"
            )
    return [(name, task["policies"][name]) for name in names]


def fingerprint(record: EnvRecord) -> str:
    """What the rows depend on beside size and seed: the policies' files, their order, and this module's algorithm."""
    parts = [f"algorithm {ALGORITHM}", record.env_id, json.dumps(dict(record.env_kwargs), sort_keys=True)]
    parts += [f"{name} {entry['sha256']}" for name, entry in shares(record)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def collect(
    env: gym.vector.VectorEnv,
    policy: Policy,
    size: int,
    generator: np.random.Generator,
    env_seed: int,
    tick: Callable[[int], Any] = lambda rows: None,
) -> dict[str, np.ndarray]:
    """Exactly ``size`` transitions of ``policy`` in ``env``, episodes one after another, as one environment would give.

    Episodes are numbered in the order in which they start and laid out in that order; the last one is cut (and
    flagged as truncated) where ``size`` is reached.  An episode gets its number before anything of it is known, so
    numbering is blind to length, and the rows are distributed as those of a single environment run for ``size`` steps.
    Keeping whichever episodes finish first would favour short ones; keeping a fixed share per environment would
    leave one cut episode for each of them.  The price is the work on episodes still running at the end.

    The result has the arrays of :class:`OfflineDataset`.
    """
    count = env.num_envs
    observations, _ = env.reset(seed=env_seed)
    states = [np.asarray(observations, dtype=np.float32)]  # [E, ds] per step, one more than the rest
    steps: list[tuple[np.ndarray, ...]] = []
    episode = np.arange(count)  # the number of the episode each environment is in
    lengths = np.zeros(max(4 * count, 1024), dtype=np.int64)
    finished = np.zeros_like(lengths, dtype=np.bool_)
    started, head, settled = count, 0, 0  # all episodes below `head` are over and hold `settled` rows together
    over = np.zeros(count, dtype=np.bool_)
    while True:
        actions = policy(states[-1], generator)
        observations, rewards, terminations, truncations, _ = env.step(actions)
        fresh = np.flatnonzero(over)  # these were reset by this step: no transition, a new episode
        if started + len(fresh) > len(lengths):
            lengths = np.concatenate((lengths, np.zeros_like(lengths)))
            finished = np.concatenate((finished, np.zeros_like(finished)))
        episode[fresh] = np.arange(started, started + len(fresh))
        started += len(fresh)
        live = ~over
        steps.append(
            (actions, rewards.astype(np.float32), terminations & live, truncations & live, np.where(live, episode, -1))
        )
        states.append(np.array(observations, dtype=np.float32))
        lengths[episode[live]] += 1
        over = (terminations | truncations) & live
        finished[episode[over]] = True
        tick(int(live.sum()))
        while finished[head]:
            settled += int(lengths[head])
            head += 1
        if settled + lengths[head] >= size:
            break

    numbers = np.stack([step[4] for step in steps]).ravel()  # [T * E], -1 where nothing happened
    order = np.argsort(numbers, kind="stable")[(numbers < 0).sum() :][:size]  # by episode, then by time
    flat = np.concatenate(states)  # [(T + 1) * E, ds]
    states.clear()
    rows = {"observations": flat[order], "next_observations": flat[order + count]}
    for index, name in enumerate(("actions", "rewards", "terminations", "truncations")):
        rows[name] = np.concatenate([step[index] for step in steps])[order]
    rows["truncations"][-1] |= not rows["terminations"][-1]
    return rows


def behaviour_rollouts(
    record: EnvRecord, *, size: int | None = None, seed: int = 0, progress: bool = False
) -> OfflineDataset:
    """Generate ``size`` transitions (default: the record's) of ``record``'s level; ``progress`` shows a bar.

    The same record, size and seed give the same bytes, whatever the number of threads; another version of MuJoCo, or
    a processor whose matrix products round differently, may not.

    Raises :class:`DataError` where policies are missing, or size or seed are out of range.
    """
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    parts = shares(record)
    assert record.data is not None
    size = record.data.size if size is None else size
    if size < 1 or seed < 0:
        raise DataError(
            f"cannot generate '{record.name}' with size {size} and seed {seed}, expected size > 0, seed >= 0"
        )
    observation_space, action_space, limit = env_facts(record.env_id, record.env_kwargs)
    observation_space, action_space = require_boxes(observation_space, action_space, record.env_id)

    def uniform(observations: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        shape = (len(observations), *action_space.shape)
        return generator.uniform(action_space.low, action_space.high, shape).astype(np.float32)

    policies: list[Policy] = [uniform]
    if parts:
        width = int(np.prod(observation_space.shape))
        policies = [load_behaviour(BEHAVIOURS / e["file"], width, action_space, e["sha256"]) for _, e in parts]
    sizes = np.diff(np.linspace(0, size, len(policies) + 1).astype(np.int64)).tolist()
    count = int(np.clip(max(sizes) // (limit or 1000), 1, MAX_ENVS))
    env = make_vector_env(record.env_id, count, **record.env_kwargs)
    bar = tqdm(total=size, desc=f"generating {record.name}", unit="row", unit_scale=True, disable=not progress)
    blocks = []
    goal = 0

    def tick(rows: int) -> None:
        bar.update(min(rows, goal - bar.n))

    # One BLAS thread: products this small gain nothing from more, and how they are split must not touch the rounding.
    with bar, threadpool_limits(limits=1, user_api="blas"):
        for index, (policy, share) in enumerate(zip(policies, sizes, strict=True)):
            if share == 0:
                continue
            goal += share
            stream = np.random.SeedSequence([seed, index])
            env_seed = int(stream.generate_state(1)[0]) % 2**31
            blocks.append(collect(env, policy, share, np.random.default_rng(stream), env_seed, tick))
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
