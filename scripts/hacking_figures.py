"""True against proxy return over λ: docs/assets/hacking.png and the numbers behind it, hacking.json.

    python scripts/hacking_figures.py --out runs/hacking --seeds 5 --iterations 60
    python scripts/hacking_figures.py --out runs/hacking --env glucose --seeds 1 --iterations 20

Every arm and seed is a run of its own in ``--out``, checkpointed after every five iterations; started again, it goes on
where it stopped and leaves finished runs alone.  Rows of arms and coefficients that a call does not run stay as they
are, where they were made with as many iterations and the same options.  Returns are those of sampled actions in
episodes that training does not see.  Besides the last policy a run reports, as early stopping would, the one before the
estimated divergence first passed a threshold, and the one with the best true return.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from rlkit.agents.orpo.core import BasePolicy
from rlkit.agents.orpo.orpo import ORPO
from rlkit.algorithms.checkpoint import versions
from rlkit.envs.records.hacking import RECORDS
from rlkit.system.files import write_atomically
from rlkit.vector import make_vector_env

ROOT = Path(__file__).resolve().parent.parent
BLOCK = 5  # iterations between two evaluations
EPISODES = {"tomato": 200, "glucose": 4, "pandemic": 200, "traffic": 10}
THRESHOLD = 1.0  # estimated KL of occupancies above which early stopping stops
# label: settings, coefficients
ARMS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "√χ², state-action": ({"divergence": "sqrt_chi2"}, (2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0)),
    "KL, actions": (
        {"divergence": "kl", "measure": "action", "scale": "mean"},
        (20.0, 5.0, 2.0, 0.5, 0.2, 0.05, 0.02, 0.005),
    ),
    "√χ², state": ({"divergence": "sqrt_chi2", "measure": "state"}, (1.0, 0.5, 0.2)),
    "KL, state-action": ({"divergence": "kl", "scale": "mean"}, (2.0, 0.5, 0.2, 0.05)),
    "true reward": ({"divergence": "none"}, (0.0,)),
}


def returns(base: BasePolicy, env: str, seed: int) -> dict[str, float]:
    """Mean true and proxy return of sampled episodes, and the standard error of the former."""
    record, n = RECORDS[env], EPISODES[env]
    envs = make_vector_env(record.env_id, n, **record.env_kwargs)
    observations, _ = envs.reset(seed=10_000 + seed)
    generator = torch.Generator().manual_seed(seed)
    found, running = np.zeros((2, n)), np.ones(n, bool)
    while running.any():
        observations, _, ends, cuts, infos = envs.step(base.sample(torch.from_numpy(observations), generator))
        found += np.stack([infos["true_reward"], infos["proxy_reward"]]) * running
        running &= ~(ends | cuts)
    envs.close()
    error = float(found[0].std() / n**0.5)
    return {"true": float(found[0].mean()), "proxy": float(found[1].mean()), "true_error": error}


def run_name(env: str, label: str, coef: float, seed: int) -> str:
    return f"{env}_{list(ARMS).index(label)}_{coef}_{seed}"


def run(
    out: Path, env: str, label: str, coef: float, seed: int, iterations: int, options: dict[str, Any]
) -> dict[str, Any]:
    """One arm with one seed: its history, evaluated every :data:`BLOCK` iterations; ``options`` go to ORPO."""
    name = run_name(env, label, coef, seed)
    done = out / f"{name}.json"
    found: dict[str, Any] = json.loads(done.read_text()) if done.exists() else {"history": []}
    if len(found["history"]) * BLOCK >= iterations:
        return found
    settings: dict[str, Any] = {**options, **ARMS[label][0], "coef": coef}
    record = RECORDS[env]
    if label == "true reward":
        settings["ref_policy"] = "uniform"
        record = type(record)(**{**vars(record), "env_kwargs": {"reward": "true"}})
    agent = ORPO("MlpPolicy", record, seed=seed, device="cpu", **settings)
    if "base" not in found:
        sigma, mean, correlation = agent.calibrated.tolist()
        found |= {"env": env, "label": label, "coef": coef, "seed": seed, "lambda": agent.coefficient}
        found |= {"sigma": sigma, "mean": mean, "correlation": correlation, "base": returns(agent.base, env, seed)}
    checkpoint = out / f"{name}.rlk"
    if checkpoint.exists():
        found = agent.restore(checkpoint)
    while len(found["history"]) * BLOCK < iterations:
        steps = BLOCK * agent.n_envs * agent.config.n_steps
        agent.learn(steps, log_interval=None, reset_num_timesteps=not found["history"])
        metrics = agent.tally.take(agent.num_timesteps)
        entry = {"step": agent.num_timesteps, **returns(BasePolicy.of(agent.policy), env, seed)}
        kept = {k: v for k, v in metrics.items() if k.split("/")[0] in ("orpo", "ref", "rollout")}
        found["history"].append({**entry, **kept})
        agent.save_checkpoint(checkpoint, extra=found)
        print(f"{label} coef={coef} seed={seed}: {entry}", flush=True)
    write_atomically(done, json.dumps(found, indent=1).encode())
    return found


def choices(found: dict[str, Any]) -> dict[str, float]:
    """True returns of the last policy, of early stopping's, and of the best in hindsight."""
    history = found["history"]
    passed = [i for i, entry in enumerate(history) if entry.get("orpo/kl", 0.0) > THRESHOLD]
    stop = max(passed[0] - 1, 0) if passed else len(history) - 1
    best = max(entry["true"] for entry in history)
    return {"last": history[-1]["true"], "stopped": history[stop]["true"], "best": best}


def jobs(arms: list[str], seeds: int) -> Iterator[tuple[int, str, float]]:
    for seed in range(seeds):
        for label in arms:
            for coef in ARMS[label][1]:
                yield seed, label, coef


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each arm and coefficient: means and standard deviations over seeds."""
    rows: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for entry in found:
        rows.setdefault((entry["label"], entry["coef"]), []).append(entry)
    table = []
    for (label, coef), group in rows.items():
        last = [entry["history"][-1] for entry in group]
        row: dict[str, Any] = {"label": label, "coef": coef, "seeds": len(group), "steps": last[0]["step"]}
        for key in ("true", "proxy"):
            values = [entry[key] for entry in last]
            row |= {key: float(np.mean(values)), f"{key}_sd": float(np.std(values))}
        row["base_true"] = float(np.mean([entry["base"]["true"] for entry in group]))
        row |= {f"true_{k}": float(np.mean([choices(e)[k] for e in group])) for k in ("stopped", "best")}
        table.append(row)
    return table


def with_others(rows: list[dict[str, Any]], path: Path, made: dict[str, Any]) -> list[dict[str, Any]]:
    """``rows``, and those in ``path`` of other arms and coefficients, if they were ``made`` alike; in one order."""
    old: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    keys = ("env", "iterations", "options")
    alike = {key: old.get(key, {}) for key in keys} == {key: made[key] for key in keys}
    new = {(row["label"], row["coef"]) for row in rows}
    rows = rows + [row for row in old["rows"] if alike and (row["label"], row["coef"]) not in new] if old else rows
    arms = list(ARMS)
    return sorted(rows, key=lambda row: (arms.index(row["label"]), -row["coef"]))


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharex=True)
    for axis, key in zip(axes, ("true", "proxy"), strict=True):
        for label in ARMS:
            group = sorted((row for row in rows if row["label"] == label and row["coef"] > 0), key=lambda r: r["coef"])
            if group:
                x, y, sd = ([row[k] for row in group] for k in ("coef", key, f"{key}_sd"))
                axis.errorbar(x, y, sd, marker="o", capsize=3, label=label)
        for row in rows:
            if row["label"] == "√χ², state-action" and row["coef"] == 0:
                axis.axhline(row[key], color="grey", linestyle=":", label="no regularisation")
        if key == "true":
            axis.axhline(rows[0]["base_true"], color="black", linestyle="--", label="base policy")
        axis.set(xscale="log", xlabel="coef (λ in units of the proxy's deviation or mean)", ylabel=f"{key} return")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/hacking"))
    parser.add_argument("--env", choices=list(RECORDS), default="tomato")
    parser.add_argument("--arms", nargs="*", default=list(ARMS)[:2], choices=list(ARMS))
    parser.add_argument("--coefs", nargs="*", type=float, help="only these coefficients")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--options", nargs="*", default=[], help="key=value for ORPO beside its presets")
    parser.add_argument("--draw", action="store_true", help="train nothing: only what is finished")
    parser.add_argument("--assets", type=Path, default=ROOT / "docs" / "assets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    options = {key: yaml.safe_load(value) for key, _, value in (o.partition("=") for o in arguments.options)}
    found = []
    for seed, label, coef in jobs(arguments.arms, arguments.seeds):
        if arguments.coefs and coef not in arguments.coefs:
            continue
        if arguments.draw and not (arguments.out / f"{run_name(arguments.env, label, coef, seed)}.json").exists():
            continue
        found.append(run(arguments.out, arguments.env, label, coef, seed, arguments.iterations, options))
    suffix = "" if arguments.env == "tomato" else f"_{arguments.env}"
    path = arguments.assets / f"hacking{suffix}.json"
    made = {"env": arguments.env, "iterations": arguments.iterations, "options": options, "versions": versions()}
    rows = with_others(summary(found), path, made)
    for row in rows:
        print(json.dumps(row, ensure_ascii=False))
    arguments.assets.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps({**made, "rows": rows}, indent=1, ensure_ascii=False) + "\n").encode())
    plot(rows, arguments.assets / f"hacking{suffix}.png")


if __name__ == "__main__":
    main()
