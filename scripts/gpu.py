"""What a GPU that is at hand for ten minutes should do: checks, the bench's rows, then as many updates as fit.

    python scripts/gpu.py --needs                   what has to be installed there; nothing else is, and no network
    python scripts/gpu.py --out gpu --seconds 540   checks, bench and a table, each kept as soon as it is known
    python scripts/gpu.py --out gpu --seconds 540   again: the table goes on where it stopped

Each stage is a process of its own within its share of the seconds, so that one which fails or hangs leaves the others.
What was found lies in ``OUT/checks.json``, ``OUT/bench.json`` and ``OUT/table``, whose runs ``rlkit resume`` continues
on any machine.  ``--device cpu`` does the same without a GPU, to try it: checks about graphs say that they were not
made.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("RLKIT_OFFLINE", "1")

SHARES = {"checks": 0.25, "bench": 0.4, "table": 1.0}  # of the seconds left when a stage begins
BENCH = ("gpu-graph", "gpu-stacked", "gpu-prdc", "gpu-bq", "gpu-peers")
LEARNERS = ("bc", "td3bc", "prdc", "a2pr", "iql", "sql", "xql", "fdvl", "recoil", "smodice", "iqlearn")
LAST = 30.0  # seconds kept for the checkpoints of a table whose time is over
UPDATES = 60  # of a check
NEAR = 2e-3  # beside the largest number of a tensor: float32 sums in another order, after a few updates


def needs() -> list[str]:
    """The distributions that rlkit's own requirements come to, with the versions that are here."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    waiting = ["rlkit-papers"]
    while waiting:
        name = waiting.pop()
        if name.lower() in found:
            continue
        try:
            here = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            found[name.lower()] = "missing"
            continue
        found[name.lower()] = here.version
        requirements = map(Requirement, here.requires or [])
        waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [f"{name}=={version}" for name, version in sorted(found.items())]


# ---- checks ----------------------------------------------------------------------------------------------------------


def linear_world(rows: int = 4000, seed: int = 0) -> Any:
    """Transitions of a linear world in whole episodes, with the parts that imitation needs."""
    import numpy as np
    from gymnasium import spaces

    from rlkit.data.dataset import OfflineDataset, Provenance

    random = np.random.default_rng(seed)
    state = random.standard_normal((rows, 5)).astype(np.float32)
    action = np.clip(0.5 * state[:, :2] + 0.4 * random.standard_normal((rows, 2)), -1, 1).astype(np.float32)
    following = (0.9 * state + 0.1 * action @ np.ones((2, 5))).astype(np.float32)
    ends = np.arange(1, rows + 1) % 50 == 0
    terminal = ends & (random.random(rows) < 0.5)
    box = spaces.Box(-np.inf, np.inf, (5,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
    parts = (("expert", rows // 4), ("hidden", rows // 4), ("suboptimal", rows - rows // 2))
    return OfflineDataset(
        *(state, action, -np.square(following).sum(axis=1), following, terminal, ends & ~terminal),
        *box,
        Provenance("memory", "a linear world"),
        parts=parts,
    )


def learner(name: str, device: str, seed: int = 0, engine: str = "auto", **settings: Any) -> Any:
    from rlkit import registry

    settings = {"batch_size": 64, "hidden_sizes": (64, 64), **settings}
    agent: Any = registry.agent_class(name)("MlpPolicy", linear_world(), seed=seed, device=device, **settings)
    agent.engine = engine
    return agent


def state(agent: Any) -> dict[str, Any]:
    return {**agent.model_tensors(), **agent.training_tensors()}


def require_same(one: Any, other: Any, near: float | None = None) -> None:
    """Raise AssertionError unless two agents are in one state: to the bit, or within ``near``, generators left out."""
    import torch

    ours, theirs = state(one), state(other)
    assert ours.keys() == theirs.keys(), sorted(ours.keys() ^ theirs.keys())
    for name, tensor in ours.items():
        wanted = theirs[name].to(tensor.device)
        if near is None or (not tensor.is_floating_point() and not name.startswith("generator")):
            assert torch.equal(tensor, wanted), f"{name} differs"
        elif tensor.is_floating_point():
            room = near * float(wanted.abs().max()) + 4 * one.config.learning_rate  # Adam makes a step of rounding
            worst = float((tensor - wanted).abs().max())
            assert worst <= room, f"{name} differs by {worst:.2g}, expected at most {room:.2g}"


def graph_is_eager(name: str, device: str, scratch: Path) -> str:
    graph, eager = learner(name, device), learner(name, device, engine="eager")
    for agent in (graph, eager):
        agent.learn(UPDATES + 3, log_interval=20)
    require_same(graph, eager)
    recorded = bool(getattr(graph._running, "recorded", []))
    assert recorded or device == "cpu", "it was not recorded"
    return "the same bytes" if recorded else "the same bytes, without a graph"


def resumed_is_whole(name: str, device: str, scratch: Path) -> str:
    whole, first, second = (learner(name, device) for _ in range(3))
    whole.learn(UPDATES, log_interval=None)
    first.learn(UPDATES // 2 - 1, log_interval=None)
    first.save_checkpoint(scratch / f"{name}.rlk")
    second.restore(scratch / f"{name}.rlk")
    second.learn(UPDATES // 2 + 1, log_interval=None, reset_num_timesteps=False)
    require_same(whole, second)
    return "the same bytes"


def stack_is_alone(name: str, device: str, scratch: Path) -> str:
    import rlkit

    together, alone = ([learner(name, device, seed=seed) for seed in range(3)] for _ in range(2))
    rlkit.train_together(together, 20, log_interval=None)
    for one, other in zip(together, alone, strict=True):
        other.learn(20, log_interval=None)
        require_same(one, other, NEAR)
    return "within rounding"


def stack_resumes(name: str, device: str, scratch: Path) -> str:
    import rlkit

    whole, first, second = ([learner(name, device, seed=seed) for seed in range(3)] for _ in range(3))
    rlkit.train_together(whole, UPDATES, log_interval=None)
    rlkit.train_together(first, UPDATES // 2, log_interval=None)
    for number, (begun, other) in enumerate(zip(first, second, strict=True)):
        begun.save_checkpoint(scratch / f"{name}{number}.rlk")
        other.restore(scratch / f"{name}{number}.rlk")
    rlkit.train_together(second, UPDATES // 2, log_interval=None, reset_num_timesteps=False)
    for one, other in zip(whole, second, strict=True):
        require_same(one, other)
    return "the same bytes"


def neighbours_are_exact(kind: str, device: str, scratch: Path) -> str:
    import numpy as np
    import torch

    from rlkit.agents.prdc.neighbours import RowCertificateSearch
    from rlkit.agents.prdc.products import ProductSearch

    random = np.random.default_rng(len(kind))
    states = random.standard_normal((20_000, 11))
    if kind == "ties":
        states = np.round(states[:, :1]) * np.ones((1, 11))
    if kind == "far":
        states = states + 1e4 * random.choice([-1, 1], (20_000, 1))
    states, actions = states.astype(np.float32), random.uniform(-1, 1, (20_000, 3)).round(1).astype(np.float32)
    products = ProductSearch(*(torch.from_numpy(part).to(device) for part in (states, actions)), beta=2.0)
    lists = RowCertificateSearch(states, actions, beta=2.0)
    for _ in range(4):
        rows, proposed = random.integers(20_000, size=256), random.uniform(-1, 1, (256, 3)).astype(np.float32)
        found, squares = products.query(torch.from_numpy(rows).to(device), torch.from_numpy(proposed).to(device))
        nearest, distances = lists.query(rows, proposed)
        assert np.array_equal(found.cpu().numpy(), nearest), "other rows"
        assert np.allclose(squares.sqrt().cpu().numpy(), distances, rtol=1e-14, atol=0), "other distances"
    return f"the same rows, {products.stats['unsettled']} of {products.stats['queries']} measured again"


def device_is_processor(name: str, device: str, scratch: Path) -> str:
    """The same batches by a GPU and by a processor, from one state; learners whose updates draw nothing."""
    quiet = {"td3bc": {"target_noise": 0.0}, "iql": {}, "bc": {}, "fdvl": {}}[name]
    there, here = learner(name, device, engine="eager", **quiet), learner(name, "cpu", engine="eager", **quiet)
    batches = [here.draw() for _ in range(10)]
    for batch in batches:
        for agent in (there, here):
            agent.tally.add(agent.update(type(batch)(*(part.to(agent.device) for part in batch))))
            agent._n_updates += 1
    ours, theirs = there.model_tensors(), here.model_tensors()
    worst = max(
        float((ours[key].cpu() - theirs[key]).abs().max() / (theirs[key].abs().max() + 1e-3))
        for key in ours
        if ours[key].is_floating_point()
    )
    assert worst < 2e-2, f"weights differ by {worst:.2g} of the largest"
    return f"weights differ by {worst:.1g} of the largest after {len(batches)} updates"


Check = Callable[[str, str, Path], str]
CHECKS: list[tuple[str, Check, str]] = [
    *(("graph = eager", graph_is_eager, name) for name in LEARNERS),
    *(("resumed = whole", resumed_is_whole, name) for name in ("td3bc", "prdc", "iql")),
    *(("stack = alone", stack_is_alone, name) for name in LEARNERS),
    *(("stack resumed = whole", stack_resumes, name) for name in ("td3bc", "prdc", "iql")),
    *(("neighbours", neighbours_are_exact, kind) for kind in ("usual", "ties", "far")),
    *(("GPU = processor", device_is_processor, name) for name in ("bc", "td3bc", "iql", "fdvl")),
]


def checks(out: Path, device: str, deadline: float) -> None:
    """Every check's verdict to ``checks.json``, written after each."""
    import torch

    on = torch.cuda.get_device_name(device) if device.startswith("cuda") else "processor"
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for what, check, of in CHECKS:
            begun = time.monotonic()
            if begun > deadline:
                verdict = {"ok": None, "said": "not made: the time was over"}
            else:
                said = io.StringIO()
                try:
                    with contextlib.redirect_stderr(said):
                        verdict = {"ok": True, "said": check(of, device, Path(scratch))}
                except Exception as error:
                    verdict = {"ok": False, "said": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
                verdict["stderr"] = said.getvalue()
            found.append({"check": what, "of": of, **verdict, "seconds": round(time.monotonic() - begun, 2)})
            write(out / "checks.json", {"device": on, "torch": torch.__version__, "checks": found})
            print(f"{what:<22} {of:<9} {'ok  ' if verdict['ok'] else 'FAIL'} {verdict['said']}", flush=True)


# ---- bench -----------------------------------------------------------------------------------------------------------


def bench(out: Path, rows: list[str], size: int) -> None:
    from rlkit.cli import main

    for row in rows:  # one at a time: what is measured is kept
        main(["bench", row, "--rows", str(size), "--rounds", "3", "--out", str(out / f"bench-{row}.json")])


# ---- table -----------------------------------------------------------------------------------------------------------


def table(out: Path, device: str, deadline: float, args: argparse.Namespace) -> None:
    """Train the table's runs, those of one agent as one program, until they end or the time does."""
    from rlkit.config import compose_config
    from rlkit.run.together import exit_code, resume_runs, train_runs

    def over() -> None:
        with contextlib.suppress(ValueError):
            signal.raise_signal(signal.SIGTERM)  # the runs end with their checkpoints

    for agent, env in itertools.product(args.agents, args.envs):
        left = deadline - time.monotonic()
        if left <= 0:
            print(f"{agent} {env}: not begun, the time was over", flush=True)
            continue
        timer = threading.Timer(left, over)
        timer.start()
        try:
            outs = [out / "table" / f"{agent}_{env}_s{seed}" for seed in args.seeds]
            if all((one / "result.json").exists() for one in outs):
                continue
            begun = [one for one in outs if (one / "config.yaml").exists() and not (one / "result.json").exists()]
            if begun:
                exit_code(resume_runs(begun, device=device))
                continue
            settings = [f"agent={agent}", f"env={env}", f"total_timesteps={args.steps}", f"device={device}"]
            settings += ["checkpoint_every=0", "tensorboard=false", "engine=stacked", "threads=1", *args.extra]
            runs = [[*settings, f"seed={seed}", f"out={one}"] for seed, one in zip(args.seeds, outs, strict=True)]
            exit_code(train_runs([compose_config(run) for run in runs]))
        except Exception as error:
            print(f"{agent} {env}: {type(error).__name__}: {error}", flush=True)
        finally:
            timer.cancel()


# ---- stages ----------------------------------------------------------------------------------------------------------


def write(path: Path, value: Any) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1))
    part.replace(path)


def staged(args: argparse.Namespace) -> Iterator[tuple[str, int | None, float]]:
    """Run the stages; yields each one's name, exit code (None: stopped) and seconds."""
    end = time.monotonic() + args.seconds
    for stage in args.stages:
        begun = time.monotonic()
        share = (end - begun) * SHARES[stage]
        if share < 5:
            yield stage, None, 0.0
            continue
        own = [sys.executable, __file__, *sys.argv[1:], "--stage", stage, "--stage-seconds", f"{share:.0f}"]
        try:
            code: int | None = subprocess.run(own, timeout=share + (LAST if stage != "table" else 0)).returncode
        except subprocess.TimeoutExpired:
            code = None
        yield stage, code, time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--needs", action="store_true", help="print what has to be installed and stop")
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--seconds", type=float, default=540.0, help="for everything together (540)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--stages", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--bench", nargs="+", default=list(BENCH), help="rows of rlkit bench")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the bench's data")
    parser.add_argument("--agents", nargs="+", default=["td3bc", "iql", "prdc"], help="of the table")
    parser.add_argument("--envs", nargs="+", default=["hopper-medium"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--extra", nargs="*", default=[], help="further key=value settings of rlkit train")
    parser.add_argument("--stage", choices=SHARES, help=argparse.SUPPRESS)
    parser.add_argument("--stage-seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.needs:
        print("\n".join(needs()))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    if args.stage is None:
        told = [{"stage": name, "code": code, "seconds": round(took, 1)} for name, code, took in staged(args)]
        write(args.out / "stages.json", {"arguments": sys.argv[1:], "stages": told})
        size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
        print(f"{args.out}: {size / 2**20:.1f} MiB;", ", ".join(f"{one['stage']} {one['code']}" for one in told))
        return 0 if all(one["code"] == 0 for one in told) else 1
    deadline = time.monotonic() + args.stage_seconds
    if args.stage == "checks":
        checks(args.out, args.device, deadline)
    elif args.stage == "bench":
        bench(args.out, args.bench, args.rows)
    else:
        table(args.out, args.device, deadline - LAST, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
