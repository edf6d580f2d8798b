"""Measure and ship pointer networks: agents/pretrained/ and docs/pointer-results.md, beside the papers' figures.

    python scripts/pointer_results.py measure hull10-angle --run runs/hull  # held-out instances, greedy and beam 8
    python scripts/pointer_results.py ship hull10-angle --run runs/hull     # float16 weights into agents/pretrained/
    python scripts/pointer_results.py page                                  # the table, from the measurements alone

A run is one of ``rlkit train agent=ptrnet``; :data:`MODELS` names those that are reported.  ``measure`` keeps a line
per size and width in docs/assets/combinatorial/pointers.jsonl.  What is measured are the weights as they ship, rounded
to float16.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from train_combinatorial import ROOT, WEIGHTS, rounded, trained

from rlkit.agents.common.gaps import HELD_OUT_SEED
from rlkit.agents.ptrnet.data import PtrNetEvaluator
from rlkit.agents.ptrnet.ptrnet import PtrNet
from rlkit.algorithms.checkpoint import versions
from rlkit.system.files import write_atomically
from rlkit.system.machine import processor

LINES = ROOT / "docs" / "assets" / "combinatorial" / "pointers.jsonl"
PAGE = ROOT / "docs" / "pointer-results.md"
INSTANCES, LARGE, FEWER = 1_000, 50, 100  # per size; beyond 50 points fewer
BEAMS = (1, 8)
# metric: its heading, what to multiply with, decimals
SHOWN = {
    "accuracy": ("accuracy", 100.0, 1, " %"),
    "area_coverage": ("area", 100.0, 1, " %"),
    "crossed": ("polygons that cross themselves", 100.0, 1, " %"),
    "triangle_coverage": ("triangles found", 100.0, 1, " %"),
    "tour_length": ("length", 1.0, 3, ""),
    "reference_length": ("reference", 1.0, 3, ""),
    "gap": ("gap", 1.0, 2, " %"),
    "invalid": ("answers that are none, unconstrained", 100.0, 1, " %"),
}


@dataclass(frozen=True)
class Model:
    """A model that is reported.  ships: as whose weights, if any; published: ``{nodes: figures}`` of the papers."""

    title: str
    sizes: tuple[int, ...]
    ships: str | None
    published: dict[int, str]


VINYALS, BELLO = "Vinyals et al.", "Bello et al."
HULLS = {n: f"{share} % ({VINYALS}, 5 to 50 points)" for n, share in ((5, 92.0), (10, 87.0), (50, 69.6), (100, 50.3))}
TRIANGLES = {
    n: f"{share} %, triangles {coverage} % ({VINYALS}, trained on {n})"
    for n, share, coverage in ((5, 80.7, 93.0), (10, 22.6, 81.3), (50, 0, 52.8))
}
MODELS = {
    "hull10-given": Model(
        "Convex hull, 5 to 10 points, read as given",
        (5, 10, 20, 50, 100),
        None,
        HULLS,
    ),
    "hull10-angle": Model(
        "Convex hull, 5 to 10 points, read by angle",
        (5, 10, 20, 50, 100),
        "convex-hull",
        HULLS,
    ),
    "delaunay5-given": Model(
        "Delaunay, 5 points, read as given",
        (5, 10),
        None,
        TRIANGLES,
    ),
    "delaunay5-angle": Model(
        "Delaunay, 5 points, read by angle",
        (5, 10, 25, 50),
        "delaunay",
        TRIANGLES,
    ),
    "tsp10": Model(
        "Tours, 5 to 10 cities, supervised",
        (5, 10, 20),
        None,
        {5: f"2.12 of 2.12 ({VINYALS})", 10: f"2.88 of 2.87 ({VINYALS})", 20: f"3.88 ({VINYALS}, trained on 5 to 20)"},
    ),
    "rl20-critic": Model(
        "Tours, 20 cities, REINFORCE with a critic",
        (10, 20, 40),
        None,
        {20: f"3.89 ({BELLO}, greedy)"},
    ),
    "rl20-samples": Model(
        "Tours, 20 cities, REINFORCE, four tours of an instance against each other",
        (10, 20, 40, 100),
        "tsp",
        {20: f"3.89 ({BELLO}, greedy)"},
    ),
    "rl20-attention": Model(
        "Tours, 20 cities, the attention model, REINFORCE with a rollout baseline",
        (10, 20, 40, 100),
        None,
        {20: f"3.89 ({BELLO}, greedy)"},
    ),
}


def measure(name: str, run: Path) -> None:
    """Put the lines of model ``name`` into :data:`LINES`, in place of those of other weights."""
    torch.set_num_threads(1)
    model, path = MODELS[name], run / "shipped.rlk"
    sha = rounded(run, path)
    agent = PtrNet.load(path)
    known = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
    known = [line for line in known if line["model"] != name]
    config = json.loads((run / "result.json").read_text())["config"]["agent"]
    for nodes in model.sizes:
        problem = agent.problem.resized(nodes)
        instances = INSTANCES if nodes <= LARGE else FEWER
        for beam in BEAMS:
            found = PtrNetEvaluator(problem, beam, episodes=instances, seed=HELD_OUT_SEED)(agent)
            line = {"model": name, "nodes": nodes, "beam": beam, "instances": instances, "weights": sha}
            line |= {"metrics": {k: v for k, v in found.summary().items() if k in SHOWN}}
            known.append(line | {"trained": trained(run), "config": config, "versions": versions()})
            known[-1]["machine"] = {"processor": processor(), "system": platform.system(), "threads": 1}
            print(json.dumps(line), flush=True)
    order = list(MODELS)
    known.sort(key=lambda line: (order.index(line["model"]), line["nodes"], line["beam"]))
    write_atomically(LINES, "".join(json.dumps(line) + "\n" for line in known).encode())


def ship(name: str, run: Path) -> None:
    """Put the weights of ``run`` and what was measured of them into :data:`WEIGHTS`."""
    model = MODELS[name]
    if model.ships is None:
        raise SystemExit(f"{name} is reported and does not ship, expected another model")
    file = f"ptrnet_{model.ships}.rlk"
    sha = rounded(run, WEIGHTS / file)
    measured = [line for line in map(json.loads, LINES.read_text().splitlines()) if line["weights"] == sha]
    if not measured:
        raise SystemExit(f"{run}: these weights have not been measured; run measure first")
    path = WEIGHTS / "manifest.json"
    manifest = json.loads(path.read_text())
    kept = [{k: line[k] for k in ("nodes", "beam", "instances", "metrics")} for line in measured]
    manifest[file] = {"sha256": sha, "trained": trained(run), "measured": kept}
    write_atomically(path, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


def page() -> str:
    """Markdown of all measurements."""
    lines = [json.loads(line) for line in LINES.read_text().splitlines()]
    text = [
        "# Pointer networks: results",
        "",
        "Made by `scripts/pointer_results.py page` from `docs/assets/combinatorial/pointers.jsonl`; of what is below",
        "only the papers' figures are typed in. They are of other instances and of 10⁶ training pairs or more.",
        "",
        f"{INSTANCES:,} held-out instances a row ({FEWER} beyond {LARGE} points), one seed. Hulls and triangulations",
        "are decoded as in the paper, without constraints; tours obey them. References of tours are exact up to 12",
        "cities, beyond that the best of 20 local searches. The area of hulls is left out where more than 1 % of the",
        "polygons cross themselves, as in the paper. *Read by angle*: `agent.order=angle`; the papers' networks read",
        "points as given. What learns under masks, as by REINFORCE, never meets a city that is barred: let loose from",
        "them, none of its answers is a tour. Minutes are those of a busy machine, pauses included.",
        "",
    ]
    for name in dict.fromkeys(line["model"] for line in lines):
        own, model = [line for line in lines if line["model"] == name], MODELS[name]
        config, run = own[0]["config"], own[0]["trained"]
        text += [f"## {model.title}", ""]
        text += [
            f"{run['updates']:,} updates of {_batch(config)}, learning rate {_rate(config)}, "
            f"{run['seconds'] / 60:.0f} minutes on one thread ({run['machine']['processor']}).",
            "",
        ]
        metrics = [key for key in SHOWN if any(key in line["metrics"] for line in own)]
        heads = ["points", "beam", *(SHOWN[key][0] for key in metrics), "published"]
        text += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for line in own:
            cells = [str(line["nodes"]), str(line["beam"]), *(_cell(key, line["metrics"]) for key in metrics)]
            text.append("| " + " | ".join([*cells, model.published.get(line["nodes"], "-")]) + " |")
        text.append("")
    return "\n".join(text).rstrip() + "\n"


def _batch(config: dict[str, Any]) -> str:
    tours = config["batch_size"]
    if config["training"] == "reinforce" and config["baseline"] == "samples":
        return f"{tours} tours of {tours // config['samples']} instances"
    return f"{tours} instances"


def _rate(config: dict[str, Any]) -> str:
    first = config["learning_rate"] or 1e-3
    return f"{first:g} times {config['decay']} every {config['decay_steps']} updates"


def _cell(key: str, metrics: dict[str, Any]) -> str:
    _, times, digits, unit = SHOWN[key]
    return f"{times * metrics[key]:.{digits}f}{unit}" if key in metrics else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "ship", "page"))
    parser.add_argument("model", nargs="?", choices=list(MODELS))
    parser.add_argument("--run", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "page":
        PAGE.write_text(page())
    else:
        {"measure": measure, "ship": ship}[arguments.what](arguments.model, arguments.run)


if __name__ == "__main__":
    main()
