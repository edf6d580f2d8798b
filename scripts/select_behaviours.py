"""Pick the behaviour policies that ship with rlkit from the snapshots of ``scripts/train_behaviours.py``.

For each task: *expert* is the snapshot of highest return, *medium* the earliest steady one near D4RL's normalised
score (the nearest one where no episode ends early), and *medium-replay* ten snapshots evenly spaced from the first to
the medium one.  Scores are those of the stochastic policy with its weights rounded to float16, that is, of exactly what
is shipped and of how it will act, over 100 episodes.  Only snapshots whose training-time evaluation (ten deterministic
episodes) is promising are measured.

    OMP_NUM_THREADS=1 python scripts/select_behaviours.py hopper walker2d

writes ``rlkit/data/behaviours/<task>_<policy>.safetensors`` and the tasks' entries of ``manifest.json`` (schema:
``rlkit/data/generate.py``), leaving other tasks' entries as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from safetensors.numpy import load_file, save
from tqdm import tqdm

from rlkit.data.actors import Behaviour
from rlkit.data.generate import BEHAVIOURS
from rlkit.errors import DataError, UserError
from rlkit.registry import EnvRecord, record
from rlkit.vector import make_vector_env, play_episodes

TARGETS = {"hopper": 45.0, "halfcheetah": 42.0, "walker2d": 65.0, "ant": 45.0}  # D4RL's medium policies, normalised
STEADINESS = 1.1  # how much better the mean action must do than the sampled ones, in medium policies
EXPERT = 90.0  # below it a policy is not called expert
NEVER_FALLING = ("halfcheetah",)  # tasks without termination
NEAR = 7.0  # normalised points from the target within which the earliest steady snapshot is taken
PACKAGES = ("gymnasium", "mujoco", "numpy", "stable-baselines3", "torch")


def measure(env_id: str, policy: Behaviour, episodes: int, seed: int) -> np.ndarray:
    """Returns ``[episodes]`` of the stochastic policy, one episode in each of ``episodes`` environments.

    Environment ``i`` is seeded with ``seed + i``.  Each contributes its first episode whatever its length, so short
    episodes are not favoured.
    """
    env = make_vector_env(env_id, episodes)
    noise = np.random.default_rng(seed)
    returns, _ = play_episodes(lambda seen: policy(np.asarray(seen, dtype=np.float32), noise), env, seed)
    env.close()
    return returns


def snapshots(folder: Path) -> dict[int, tuple[Path, float]]:
    """step -> (actor file, return in training) in order of steps."""
    files = {int(path.stem.split("_")[1]): path for path in sorted(folder.glob("actor_*.safetensors"))}
    progress = folder / "progress.jsonl"
    if not files or not progress.is_file():
        raise DataError(
            f"{folder} holds no actor_*.safetensors and progress.jsonl; run scripts/train_behaviours.py first"
        )
    found: dict[int, tuple[Path, float]] = {}
    for line in progress.read_text().splitlines():
        entry = json.loads(line)
        # A snapshot is named by the round number its step has just passed; a resumed run's later lines count.
        step = max((step for step in files if step <= entry["step"]), default=None)
        if step is not None:
            found[step] = (files[step], float(entry["return"]))
    return dict(sorted(found.items()))


class Shelf:
    """Measures snapshots, each once, in the form in which they would be shipped."""

    def __init__(self, task: EnvRecord, found: dict[int, tuple[Path, float]], episodes: int, seed: int, bar: tqdm):
        assert task.data is not None and task.data.reference is not None
        self.task, self.found, self.episodes, self.seed, self.bar = task, found, episodes, seed, bar
        self.low, self.high = task.data.reference
        env = gym.make(task.env_id)
        assert isinstance(env.observation_space, gym.spaces.Box) and isinstance(env.action_space, gym.spaces.Box)
        self.width, self.actions = env.observation_space.shape[0], env.action_space
        env.close()
        self.done: dict[int, tuple[bytes, dict[str, Any]]] = {}

    def score(self, value: float) -> float:
        return 100.0 * (value - self.low) / (self.high - self.low)

    def __getitem__(self, step: int) -> tuple[bytes, dict[str, Any]]:
        """The file's bytes and its manifest entry (less the file's name)."""
        if step not in self.done:
            tensors = {key: value.astype(np.float16) for key, value in load_file(self.found[step][0]).items()}
            policy = Behaviour(tensors, self.width, self.actions, str(self.found[step][0]))
            returns = measure(self.task.env_id, policy, self.episodes, self.seed)
            data = save(tensors)
            entry = {
                "sha256": hashlib.sha256(data).hexdigest(),
                "step": step,
                "return_mean": round(float(returns.mean()), 2),
                "return_sd": round(float(returns.std()), 2),
                "normalised": round(self.score(float(returns.mean())), 2),
                "episodes": self.episodes,
                "seeds": [self.seed, self.seed + self.episodes - 1],
            }
            self.done[step] = (data, entry)
            self.bar.write(
                f"{self.task.task} step {step}: {entry['return_mean']} ± {entry['return_sd']}, "
                f"normalised {entry['normalised']}"
            )
            self.bar.update()
        return self.done[step]


def choose(shelf: Shelf, target: float, replay: int, expert_tries: int, medium_tries: int) -> dict[str, int]:
    """Policy name -> step."""
    steps = list(shelf.found)
    in_training = {step: shelf.score(value) for step, (_, value) in shelf.found.items()}
    if len(steps) < replay:
        raise DataError(f"'{shelf.task.task}' has {len(steps)} snapshots, expected at least {replay}; train longer")
    expert_from = sorted(steps, key=lambda step: in_training[step], reverse=True)[:expert_tries]
    expert = max(expert_from, key=lambda step: shelf[step][1]["return_mean"])
    # Only snapshots with enough others before them: the replay mixture is what came before the medium policy.
    medium_from = sorted(steps[replay - 1 :], key=lambda step: abs(in_training[step] - target))[:medium_tries]
    for step in medium_from:
        shelf[step]
    eligible = sorted(set(shelf.done) & set(steps[replay - 1 :]))
    # D4RL's medium policies do better by their mean action than by sampling: cloning them beats their data (53 on data
    # of 44 for hopper).  A policy that only its noise keeps from falling would make a dataset of another kind.
    steady = [s for s in eligible if shelf.found[s][1] > STEADINESS * shelf[s][1]["return_mean"]]
    if shelf.task.task in NEVER_FALLING:  # nothing there to keep from falling: the nearest to the target is the best
        steady = []
    near = [s for s in steady if abs(shelf[s][1]["normalised"] - target) <= NEAR]
    medium = min(near) if near else min(eligible, key=lambda s: abs(shelf[s][1]["normalised"] - target))
    before = steps[: steps.index(medium) + 1]
    chosen = [before[i] for i in np.linspace(0, len(before) - 1, replay).round().astype(int)]
    names = {"medium": medium, "expert": expert} | {f"replay_{i:02d}": step for i, step in enumerate(chosen)}
    for step in chosen:
        shelf[step]
    for name, wanted in (("medium", target), ("expert", EXPERT)):
        score = shelf[names[name]][1]["normalised"]
        if (abs(score - wanted) > 10.0) if name == "medium" else score < wanted:
            shelf.bar.write(f"note: {shelf.task.task}'s {name} scores {score}, aimed at {wanted}")
    if shelf[expert][1]["normalised"] < EXPERT:
        del names["expert"]  # a level that is not what it is called is left out, not shipped
    return names


def write(folder: Path, shelf: Shelf, names: dict[str, int]) -> None:
    """Write the task's files, then the manifest, then remove files that the manifest no longer names."""
    folder.mkdir(parents=True, exist_ok=True)
    task, path = shelf.task.task, folder / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {"format": 1, "tasks": {}}
    policies = {}
    for name, step in names.items():
        data, entry = shelf[step]
        policies[name] = {"file": f"{task}_{name}.safetensors"} | entry
        (folder / policies[name]["file"]).write_bytes(data)
    replay = [name for name in names if name.startswith("replay_")]
    levels = {
        "random": [],
        "medium": ["medium"],
        "medium-replay": replay,
        "medium-expert": ["medium", "expert"],
        "expert": ["expert"],
    }
    versions = {package: version(package) for package in PACKAGES}
    manifest["versions"] = versions
    manifest["tasks"][task] = {
        "env_id": shelf.task.env_id,
        "versions": versions,
        "policies": policies,
        "levels": {level: of for level, of in levels.items() if set(of) <= set(names)},
    }
    manifest["tasks"] = dict(sorted(manifest["tasks"].items()))
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    temporary.replace(path)
    named = {entry["file"] for entry in policies.values()}
    for stale in folder.glob(f"{task}_*.safetensors"):
        if stale.name not in named:
            stale.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", choices=TARGETS)
    parser.add_argument("--runs", type=Path, default=Path("runs/behaviours"), help="train_behaviours.py's --out")
    parser.add_argument("--out", type=Path, default=BEHAVIOURS)
    parser.add_argument("--episodes", type=int, default=100, help="episodes per measurement")
    parser.add_argument("--seed", type=int, default=20_000, help="seed of the first environment")
    parser.add_argument("--replay", type=int, default=10, help="snapshots in the replay mixture")
    parser.add_argument("--expert-tries", type=int, default=6, help="best snapshots to measure")
    parser.add_argument("--medium-tries", type=int, default=8, help="snapshots nearest to medium to measure")
    args = parser.parse_args()
    try:
        for task in args.tasks:
            with tqdm(desc=task, unit="snapshot") as bar:
                shelf = Shelf(record(f"{task}-medium"), snapshots(args.runs / task), args.episodes, args.seed, bar)
                names = choose(shelf, TARGETS[task], args.replay, args.expert_tries, args.medium_tries)
                write(args.out, shelf, names)
    except UserError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
