"""Whole transfer matrices of contextual CartPole and Pendulum, and what each way of choosing sources makes of them.

    python scripts/mbtl_figures.py --out runs/mbtl --contexts 15 --timesteps 60000        # about 40 minutes of one core
    python scripts/mbtl_figures.py --out runs/mbtl --contexts 15 --timesteps 60000 --draw # figures again, from the runs

For each environment one policy is trained per context and measured in all of them (the matrix V), and one
context-conditioned policy is trained over all contexts for as many steps as all of those together ("multi-task").  The
strategies are then replayed on V: what they choose does not depend on when the training is done.  A run is a line of
``runs.jsonl``; what is there is not run again, so that an interrupted call is simply repeated.  ``--seed 1`` into the
same folder adds to the summary, under names that end in -s1.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rlkit.envs.records.contextual  # noqa: F401  # registers the ids
from rlkit.agents.mbtl.mbtl import MBTL
from rlkit.agents.mbtl.select import (
    equidistant,
    generalised,
    independent,
    oracle,
    replay,
    sequential_oracle,
)
from rlkit.agents.mbtl.train import Watch, learner_class, measure, train_sources
from rlkit.agents.mbtl.worlds import BatchVecEnv
from rlkit.algorithms.checkpoint import versions
from rlkit.system.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
PERMUTATIONS = 100  # of random choices
ENVS = {"cartpole": "half the pole's length, m", "pendulum": "time step, s"}
STYLES = {
    "MBTL": "C0-",
    "MBTL, official": "C5-",
    "greedy": "C2-.",
    "equidistant": "C1--",
    "equidistant, first of N": "C1:",
    "random": "C7:",
    "sequential oracle": "k-",
}


def trainer(env: str, arguments: argparse.Namespace, **settings: Any) -> MBTL:
    sizes = {"n_contexts": arguments.contexts, "budget": arguments.contexts, "task_timesteps": arguments.timesteps}
    return MBTL(f"contextual-{env}", seed=arguments.seed, episodes=arguments.episodes, **sizes, **settings)


# ---- runs ------------------------------------------------------------------------------------------------------------


def multi_task(agent: MBTL) -> dict[str, Any]:
    """One policy that sees the context, trained in all at once, the best by evaluations as sources are."""
    cfg = agent.config
    plain = agent.task(0)
    task = replace(plain, env_kwargs={**plain.env_kwargs, "context_obs": "append"})
    env = BatchVecEnv(task.batch(agent.contexts))
    settings = {"n_steps": 128, **cfg.learner_kwargs}  # times the contexts, a multiple of the minibatch
    learner = learner_class(cfg.learner, settings)("MlpPolicy", env, seed=task.seed, device="cpu")
    watch = Watch(task, task.seed, lambda steps: True)
    watch.envs = task.batch(agent.contexts)  # all contexts instead of one
    watch.seeds = list(range(len(agent.contexts)))
    watch.every = cfg.select_every * len(agent.contexts) // 5  # as many evaluations as five sources have
    learner.learn(cfg.task_timesteps * len(agent.contexts), watch, log_interval=None)
    watch.consider()
    learner.load_model(watch.kept)
    returns = measure(learner, task)
    return {"returns": returns.mean(axis=1).tolist(), "sd": returns.std(axis=1).tolist()}


def stored(path: Path) -> dict[str, Any]:
    """The runs that are there; a line cut short by an interruption is dropped."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[entry.pop("key")] = entry
    return found


def key_of(env: str, arguments: argparse.Namespace, what: str) -> str:
    sizes = (arguments.contexts, arguments.timesteps, arguments.episodes, arguments.seed)
    return "|".join([env, *map(str, sizes), what])


def run_all(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    found = stored(path)
    write_atomically(path, "".join(json.dumps({"key": k, **v}) + "\n" for k, v in found.items()).encode())

    def keep(key: str, entry: dict[str, Any]) -> None:
        found[key] = entry
        with path.open("a") as file:
            file.write(json.dumps({"key": key, **entry}) + "\n")
        print(key, flush=True)

    for env in arguments.env:
        agent = trainer(env, arguments)
        keys = [key_of(env, arguments, str(source)) for source in range(arguments.contexts)]
        left = [source for source, key in enumerate(keys) if key not in found]
        for begin in range(0, len(left), arguments.jobs):
            part = left[begin : begin + arguments.jobs]
            trained = train_sources([agent.task(source) for source in part], arguments.jobs)
            assert trained is not None
            for source, one in zip(part, trained, strict=True):
                sd = one.returns.std(axis=1).tolist()
                keep(keys[source], {"returns": one.returns.mean(axis=1).tolist(), "sd": sd, "steps": one.steps})
        key = key_of(env, arguments, "multi-task")
        if key not in found:
            keep(key, multi_task(agent))
    return found


# ---- what they show --------------------------------------------------------------------------------------------------


def first(curve: np.ndarray, level: float) -> int | None:
    """Sources after which ``curve`` reaches ``level``."""
    above = np.flatnonzero(curve >= level)
    return int(above[0]) + 1 if len(above) else None


def summarise(env: str, runs: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    n = arguments.contexts
    agent = trainer(env, arguments)
    low, high = agent.selector.bounds
    raw = np.array([runs[key_of(env, arguments, str(source))]["returns"] for source in range(n)])  # [N, N]
    scaled = (raw - low) / (high - low)
    multi = (np.array(runs[key_of(env, arguments, "multi-task")]["returns"]) - low) / (high - low)
    orders = [np.random.default_rng(s).permutation(n) for s in range(PERMUTATIONS)]
    by_chance = np.array([[generalised(scaled, order[: k + 1]) for k in range(n)] for order in orders])
    best = sequential_oracle(scaled, n)
    settings: dict[str, dict[str, Any]] = {
        "MBTL": {},
        "MBTL, official": {"compat": "official"},
        "greedy": {"strategy": "greedy"},
    }
    chosen = {label: trainer(env, arguments, **own).selector for label, own in settings.items()}
    curves = {label: np.array(replay(raw, selector, n)) for label, selector in chosen.items()}
    places = agent.selector.unit[:, 0]  # [N]
    curves["equidistant"] = np.array([generalised(scaled, equidistant(places, k + 1)) for k in range(n)])
    curves["equidistant, first of N"] = np.array(
        [generalised(scaled, equidistant(places, n)[: k + 1]) for k in range(n)]
    )
    curves["random"] = by_chance.mean(axis=0)
    curves["sequential oracle"] = np.array([generalised(scaled, best[: k + 1]) for k in range(n)])
    levels = {
        "independent": independent(scaled),
        "multi-task": float(multi.mean()),
        "oracle": oracle(scaled),
        "99 % of the oracle": 0.99 * oracle(scaled),
    }
    return {
        "env": env,
        "feature": agent.config.features[0],
        "contexts": agent.contexts[:, 0].tolist(),
        "bounds": [low, high],
        "timesteps": arguments.timesteps,
        "episodes": arguments.episodes,
        "seed": arguments.seed,
        "returns": raw.tolist(),
        "multi_task": (multi * (high - low) + low).tolist(),
        "levels": levels,
        "curves": {label: curve.tolist() for label, curve in curves.items()},
        "random_sd": by_chance.std(axis=0).tolist(),
        "sources": {label: selector.sources for label, selector in chosen.items()},
        "needed": {
            label: {name: first(curve, level - 1e-12) for name, level in levels.items()}
            for label, curve in curves.items()
        },
    }


def draw(summary: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    contexts, curves = np.array(summary["contexts"]), summary["curves"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    shades = left.pcolormesh(contexts, contexts, np.array(summary["returns"]), shading="nearest")
    figure.colorbar(shades, ax=left, label="mean return")
    label = ENVS[summary["env"]]
    left.set(xlabel=f"used at: {label}", ylabel=f"trained at: {label}", title="transfer matrix")
    count = np.arange(1, len(contexts) + 1)
    for name, style in STYLES.items():
        right.plot(count, curves[name], style, label=name)
    mean, sd = np.array(curves["random"]), np.array(summary["random_sd"])
    right.fill_between(count, mean - sd, mean + sd, color="C7", alpha=0.15, linewidth=0)
    for name, colour in (("independent", "C3"), ("multi-task", "C4"), ("oracle", "k")):
        right.axhline(summary["levels"][name], color=colour, linewidth=0.8, alpha=0.7)
        right.text(count[0], summary["levels"][name], name, color=colour, va="bottom", fontsize=8)
    right.set(xlabel="sources trained", ylabel="mean normalised return over all contexts", title="best source each")
    right.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", choices=list(ENVS), default=list(ENVS))
    parser.add_argument("--contexts", type=int, default=25)
    parser.add_argument("--timesteps", type=int, default=300_000, help="environment steps a source is trained for")
    parser.add_argument("--episodes", type=int, default=30, help="by which an entry of the matrix is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="sources trained side by side")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "assets" / "mbtl")
    parser.add_argument("--draw", action="store_true", help="only draw and summarise")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    begin = time.time()
    path = arguments.out / "runs.jsonl"
    runs = stored(path) if arguments.draw else run_all(path, arguments)
    further = f"-s{arguments.seed}" if arguments.seed else ""
    summary = {f"{env}{further}": summarise(env, runs, arguments) for env in arguments.env}
    for name, part in summary.items():
        draw(part, arguments.out / f"{name}.png")
    path = arguments.out / "summary.json"
    others = json.loads(path.read_text()) if path.exists() else {}  # seeds and environments of other calls stay
    text = json.dumps({**others, "versions": versions(), **summary}, indent=1, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())
    print(f"{time.time() - begin:.0f} s now; written to {arguments.out}")


if __name__ == "__main__":
    main()
