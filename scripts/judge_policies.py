"""How well verdicts order policies: fitted Q evaluation against true returns, over policies of different quality.

    python scripts/judge_policies.py --work runs/judge                  train, judge, act; what is done is not redone
    python scripts/judge_policies.py --table                            the tables, of what there is so far

Policies are agents at several numbers of updates on the same data.  A line of ``docs/assets/verdict/<data>.jsonl`` is
one policy: its verdict, and what episodes in the environment came to, undiscounted and discounted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import rlkit
from rlkit.data.dataset import OfflineDataset
from rlkit.stats import bootstrap_interval
from rlkit.vector import make_vector_env, play_episodes

DATA = ("hopper-medium", "halfcheetah-medium")
POLICIES = {
    "bc": (500, 2_000, 20_000),
    "td3bc": (500, 2_000, 6_000, 20_000),
    "iql": (1_000, 4_000, 20_000),
    "prdc": (500, 2_000),
}
COMPILED = ("td3bc", "iql", "bc")
TRUTHS = {"discounted return": "discounted", "return": "returns"}
EPISODES = 20
ASSETS = Path(__file__).resolve().parents[1] / "docs/assets/verdict"


def lines_of(name: str) -> list[dict[str, Any]]:
    """What is known of the policies over the data called ``name``."""
    path = ASSETS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def trained(data: OfflineDataset, name: str, agent: str, work: Path) -> Iterator[tuple[int, Any]]:
    """``agent`` at each number of updates, from artefacts where all are there."""
    files = {updates: work / f"{name}_{agent}_{updates}.rlk" for updates in POLICIES[agent]}
    if not all(file.is_file() for file in files.values()):
        learner: Any = rlkit.make(agent, data, seed=0, device="cpu", compile=agent in COMPILED)
        for updates, file in files.items():
            learner.learn(updates - learner.num_timesteps, log_interval=None, reset_num_timesteps=False)
            learner.save(file)
    for updates, file in files.items():
        yield updates, rlkit.load(file, data)


def acted(agent: Any, data: OfflineDataset, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns and discounted returns ``[EPISODES]`` in the environment of ``data``."""
    assert data.env_id is not None
    envs = make_vector_env(data.env_id, EPISODES, **data.env_kwargs)
    discounted, weight = np.zeros(EPISODES), [1.0]

    def watch(before: np.ndarray, running: np.ndarray, observations: Any, rewards: np.ndarray, infos: Any) -> None:
        discounted[before] += weight[0] * rewards[before]
        weight[0] *= discount

    seeds = list(range(10_000, 10_000 + EPISODES))
    returns, _ = play_episodes(lambda seen: agent.predict(seen, deterministic=True)[0], envs, seeds, watch)
    envs.close()
    return returns, discounted


def measure(name: str, work: Path) -> None:
    """Add to the file of ``name`` what is missing there."""
    data = rlkit.load_dataset(name)
    known = {(line["agent"], line["updates"]) for line in lines_of(name)}
    for kind, wanted in POLICIES.items():
        if all((kind, updates) in known for updates in wanted):
            continue
        for updates, agent in trained(data, name, kind, work):
            if (kind, updates) in known:
                continue
            start = time.process_time()
            verdict = rlkit.judge(agent, data)
            seconds = time.process_time() - start
            returns, discounted = acted(agent, data, verdict.discount)
            line = {"agent": kind, "updates": updates, "data_sha256": data.content_hash, "verdict": verdict.as_json()}
            line |= {"returns": returns.tolist(), "discounted": discounted.tolist(), "seconds": round(seconds, 1)}
            with (ASSETS / f"{name}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            truth = f"true {discounted.mean():.4g}, undiscounted {returns.mean():.5g}"
            print(f"{name} {kind} {updates}: {verdict.value:.4g}, {truth}", flush=True)


def correlation(values: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Spearman's ρ and its 95 % bootstrap interval over policies."""
    generator = np.random.default_rng(0)
    drawn = (generator.integers(len(values), size=len(values)) for _ in range(2_000))
    again = [spearmanr(values[rows], truth[rows]).statistic for rows in drawn if len(set(rows.tolist())) > 2]
    low, high = np.nanquantile(again, (0.025, 0.975))
    return float(spearmanr(values, truth).statistic), float(low), float(high)


def table() -> str:
    """Both tables in Markdown: correlations, then policies by what they are worth."""
    summary = [
        "| data | policies | ordered by | against | Spearman | 95 % interval |",
        "|---|---:|---|---|---:|---|",
    ]
    head = "| data | policy, updates | estimated | true | 95 % | outside | action distance | return |"
    every = [head, "|---|---|---:|---:|---|---:|---:|---:|"]
    for name in DATA:
        lines = lines_of(name)
        orders = {"value": 1, "action_distance": -1}  # further from the data is worse
        for (order, sign), (what, key) in itertools.product(orders.items(), TRUTHS.items()):
            values = np.array([sign * line["verdict"][order] for line in lines])
            truth = np.array([np.mean(line[key]) for line in lines])
            rho, low, high = correlation(values, truth)
            summary.append(f"| {name} | {len(lines)} | `{order}` | {what} | {rho:.2f} | {low:.2f} to {high:.2f} |")
        for line in sorted(lines, key=lambda line: -np.mean(line["discounted"])):
            low, high = bootstrap_interval(np.array(line["discounted"]))
            verdict, policy = line["verdict"], f"{line['agent']}, {line['updates']:,}"
            true = f"{np.mean(line['discounted']):.1f} | {low:.1f} to {high:.1f}"
            away = f"{100 * verdict['outside']:.0f} % | {verdict['action_distance']:.2f}"
            every.append(
                f"| {name} | {policy} | {verdict['value']:.1f} | {true} | {away} | {np.mean(line['returns']):.0f} |"
            )
    return "\n".join([*summary, "", *every])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/judge"), help="folder of artefacts")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(table())
        return
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    ASSETS.mkdir(parents=True, exist_ok=True)
    for name in DATA:
        measure(name, args.work)


if __name__ == "__main__":
    main()
