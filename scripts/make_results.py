"""Make docs/results.md and its figures from the ``result.json`` files of finished runs.

    python scripts/make_results.py offline --planned 18 --updates 100000

The runs are a family of ``evidence.py`` or a folder.  A run's folder is LABEL_ENV_sSEED, as ``run_offline_table.py``
names it.  Runs of one label and dataset are grouped; a group's figures are over its seeds.  A group whose runs differ
in updates, data (by content hash) or threads is refused: such numbers do not belong in one row.  Scores of two
machines do, seconds do not: those are given for each.  What was found out about them is Markdown written by hand,
``evidence/FAMILY-notes.md``, and comes before the curves.  With ``--updates`` longer runs are cut: what they did later
is not looked at, and, as nobody played the 100 final episodes then, that column stays empty for them.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import evidence
import numpy as np

from rlkit import registry
from rlkit.algorithms.hyperparameters import make_config, presets
from rlkit.cli.plot import draw
from rlkit.errors import UserError
from rlkit.stats import bootstrap_interval, iqm

PRDC_KEYS = {"own_nn": "train/own_nn", "nn_distance": "train/nn_distance"}


def cut(result: dict[str, Any], updates: int) -> dict[str, Any]:
    """``result`` as it was after ``updates`` updates."""
    if result["updates"] <= updates:
        return result
    evaluations = [e for e in result["evaluations"] if e["step"] <= updates]
    share = updates / result["updates"]
    scores = [e["score"] for e in evaluations]
    return {
        **{k: v for k, v in result.items() if k != "final"},
        "updates": updates,
        "evaluations": evaluations,
        "last10": float(np.mean(scores[-10:])),
        "best": max(scores),
        "seconds": share * result["seconds"],
        "seconds_evaluating": share * result["seconds_evaluating"],
    }


def load(source: Path | str, updates: int | None = None) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """``(env, label) -> results`` in order of seeds, each with its run's name and ``metrics.jsonl``."""
    files = evidence.runs(source)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for run in evidence.names(files):
        result = json.loads(files[f"{run}/result.json"])
        ending = f"_{result['env']}_s{result['seed']}"
        if not run.endswith(ending):
            raise UserError(f"{source}: run {run}: expected a folder LABEL{ending}, as run_offline_table.py names it")
        result |= {"run": run, "label": run.removesuffix(ending), "metrics": files[f"{run}/metrics.jsonl"].decode()}
        groups[result["env"], result["label"]].append(cut(result, updates) if updates else result)
    for key, results in groups.items():
        if len({(r["updates"], r["machine"]["threads"]) for r in results}) > 1:
            raise UserError(f"{source}: runs of {key} differ in updates or threads; they do not belong in one row")
        if len({r.get("dataset", {}).get("sha256") for r in results}) > 1:
            raise UserError(f"{source}: runs of {key} learned from different data; they do not belong in one row")
        results.sort(key=lambda r: r["seed"])
    return groups


def interval(values: list[float]) -> str:
    if len(values) == 1:  # one seed says nothing of how seeds differ
        return f"{values[0]:.1f}"
    low, high = bootstrap_interval(np.array(values))
    return f"{np.mean(values):.1f} [{low:.1f}, {high:.1f}]"


def machine(result: dict[str, Any]) -> str:
    """What the run was made on, in words."""
    found = result["machine"]
    return f"{found['processor']}, {found['system']}, {found['threads']} thread a run"


def row(results: list[dict[str, Any]], machines: list[str]) -> list[str]:
    last10 = [r["last10"] for r in results]
    final = interval([r["final"]["score"] for r in results]) if all("final" in r for r in results) else "-"
    pooled = np.concatenate([r["evaluations"][-1]["returns"] for r in results])
    low, high = (float(x) for x in np.percentile(pooled, [25, 75]))
    per_1k: dict[str, list[float]] = defaultdict(list)
    for r in results:
        per_1k[machine(r)].append(1000 * (r["seconds"] - r["seconds_evaluating"]) / r["updates"])
    return [
        results[0]["label"],
        ", ".join(str(r["seed"]) for r in results),
        interval(last10),
        f"{iqm(np.concatenate([[e['score'] for e in r['evaluations'][-10:]] for r in results])):.1f}",
        final,
        interval([r["best"] for r in results]),
        str(len(results[0]["evaluations"])),
        " / ".join(f"{np.median(per_1k[name]):.1f}" if name in per_1k else "-" for name in machines),
        f"{low:.0f} to {high:.0f}",
    ]


def command(result: dict[str, Any]) -> str:
    """What to give ``rlkit train`` for the run's agent: its name, and settings that are not the preset's."""
    cls, record = registry.agent_class(result["agent"]), registry.record(result["env"])
    usual = asdict(make_config(cls, presets(cls, record.name, record.task, record.family)))
    usual = json.loads(json.dumps(usual))  # tuples become lists, as in the file
    changed = [
        f"agent.{key}={json.dumps(value, separators=(',', ':'))}".replace('"', "")
        for key, value in result["config"]["agent"].items()
        if key in usual and value not in (usual[key], None)  # null: left to the agent
    ]
    return " ".join([f"agent={result['agent']}", *changed])


def prdc_notes(groups: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    """The share of own neighbours and their distance over the last tenth of training, from the runs' metrics."""
    lines = []
    for (env, agent), results in sorted(groups.items()):
        found: dict[str, list[float]] = defaultdict(list)
        for result in results:
            entries = [json.loads(line) for line in result["metrics"].splitlines()]
            for name, key in PRDC_KEYS.items():
                found[name] += [e[key] for e in entries if key in e and e["step"] > 0.9 * result["updates"]]
        if found["own_nn"]:
            share, distance = np.mean(found["own_nn"]), np.mean(found["nn_distance"])
            lines.append(f"- {agent} on {env}: own neighbour in {share:.0%} of queries, mean distance {distance:.3f}")
    return lines


def curves(groups: dict[tuple[str, str], list[dict[str, Any]]], out: Path) -> list[str]:
    """One figure a dataset beside ``out``; returns Markdown lines."""
    lines = []
    for env in sorted({env for env, _ in groups}):
        table = {
            agent: [([e["step"] for e in r["evaluations"]], [e["score"] for e in r["evaluations"]]) for r in results]
            for (name, agent), results in groups.items()
            if name == env
        }
        path = out.parent / "assets" / f"results_{env}.png"
        draw(table, f"normalised score, {env}", path)
        lines += [f"![{env}: score against updates](assets/{path.name})", ""]
    return lines


def described(data: dict[str, Any]) -> str:
    """How much data there is, and of what."""
    size = f"{data['transitions']:,} transitions, {data['episodes']:,} episodes"
    if "score_mean" in data:
        return f"{size}, mean score of the data {data['score_mean']:.1f}"
    parts = ", ".join(f"{rows:,} {part}" for part, rows in data["parts"].items())
    return f"{size}, without rewards ({parts})"  # of imitation


HEADER = [
    "agent",
    "seeds",
    "last 10 evaluations, mean [95 %]",
    "IQM of them",
    "final, 100 episodes [95 %]",
    "best evaluation [95 %]",
    "evaluations",
    "s per 1k updates",
    "last returns, quartiles",
]


def page(groups: dict[tuple[str, str], list[dict[str, Any]]], planned: int, out: Path, notes: str = "") -> str:
    results = [r for group in groups.values() for r in group]
    machines = sorted({machine(r) for r in results})
    versions = ", ".join(f"{k} {v}" for k, v in results[0]["versions"].items())
    done = len(results)
    lines = [
        "# Results",
        "",
        "Made by `scripts/make_results.py` from the `result.json` files of the runs; no figure in a table is typed in.",
        "",
        "**The data is generated** by the behaviour policies that ship with rlkit, not D4RL's own: these scores "
        "compare with each other, not with published ones. Scores are normalised with D4RL's reference returns.",
        "",
    ]
    if done < planned:
        lines += [f"**Unfinished**: {done} of {planned} runs are through; the rest is not in the tables.", ""]
    lines += [
        f"Machines: {' / '.join(machines)}, two runs at a time (so the seconds, in this order, are those of busy "
        f"machines, their pauses included). Versions: {versions}.",
        "",
        "*Final* plays its episodes after the last update. "
        "Intervals are percentile bootstraps over seeds: with three seeds they are rough.",
        "",
    ]
    for env in sorted({env for env, _ in groups}):
        rows = [row(groups[key], machines) for key in sorted(groups) if key[0] == env]
        runs = [r for (name, _), group in groups.items() if name == env for r in group]
        data = runs[0]["dataset"]
        every, episodes, count = (
            " / ".join(f"{number:,}" for number in sorted(set(numbers)))
            for numbers in (
                [r["evaluations"][0]["step"] for r in runs],
                [len(e["returns"]) for r in runs for e in r["evaluations"]],
                [r["updates"] for r in runs],
            )
        )
        lines += [
            f"## {env}",
            "",
            f"{described(data)}, SHA-256 `{data['sha256'][:16]}…`; {count} updates, "
            f"every {every} of which {episodes} episodes are played.",
            "",
            "| " + " | ".join(HEADER) + " |",
            "|" + "---|" * len(HEADER),
            *("| " + " | ".join(r) + " |" for r in rows),
            "",
        ]
        own, lengths = [], {r["label"]: r["updates"] for r in runs}
        differ = len(set(lengths.values())) > 1
        for label in sorted(lengths):
            commands = list(dict.fromkeys(command(r) for r in runs if r["label"] == label))
            length = f", {lengths[label]:,} updates" if differ else ""
            if commands != [f"agent={label}"] or differ:  # seeds of one row may differ in settings: say so
                own.append(f"- `{label}` is " + " or ".join(f"`{text}`" for text in commands) + length)
        lines += [*own, ""] if own else []
    if notes:
        lines += ["## What differed, and why", "", notes.strip(), ""]
    neighbours = prdc_notes(groups)
    if neighbours:
        lines += ["## PRDC's neighbours", "", "Over the last tenth of training:", "", *neighbours, ""]
    lines += ["## Curves", "", *curves(groups, out)]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a family of evidence.py, or a folder of runs")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--updates", type=int, help="look at this many updates of every run")
    parser.add_argument("--planned", type=int, default=0, help="runs the table should have; fewer is called unfinished")
    args = parser.parse_args()
    groups = load(args.source, args.updates)
    notes = evidence.FOLDER / f"{Path(args.source).name}-notes.md"
    args.out.write_text(page(groups, args.planned, args.out, notes.read_text() if notes.exists() else ""))
    print(f"wrote {args.out} from {sum(map(len, groups.values()))} runs")


if __name__ == "__main__":
    main()
