"""What ``rlkit report`` says of a study of ``rlkit tune``: its trials, and what picking one of them online costs.

The protocol is that of Jackson et al. (2025): a bandit over the trained policies, a pull an episode of evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.cli.document import Block, Figure, Heading, Line, Table, Text
from rlkit.errors import UserError, one_line
from rlkit.run.reading import Run, read_run
from rlkit.run.tuning import read_study
from rlkit.stats import bootstrap_interval, decimals

REPETITIONS = 200
PULLS = 20  # on average of a policy
POINTS = 24  # of the curve


def picked(arms: Sequence[np.ndarray], pulls: int, repetitions: int = REPETITIONS, seed: int = 0) -> np.ndarray:
    """What the policy is worth that a bandit picks after each of ``pulls`` episodes: float64 ``[repetitions, pulls]``.

    ``arms``: the returns ``[n]`` of each policy's episodes, resampled with replacement, whose mean is its worth.  UCB1
    plays each policy once, in an order drawn anew, then the one of the highest bound, with returns scaled to 0..1 over
    all episodes; it picks the one of the highest mean so far.
    """
    rng = np.random.default_rng(seed)
    every = np.concatenate(arms)
    low, width = every.min(), float(np.ptp(every)) or 1.0
    worth = np.array([arm.mean() for arm in arms])
    found = np.empty((repetitions, pulls))
    for own in found:
        order = rng.permutation(len(arms))
        counts, sums = np.zeros(len(arms)), np.zeros(len(arms))
        means = np.full(len(arms), -np.inf)
        for t in range(pulls):
            arm = order[t] if t < len(arms) else np.argmax(means + np.sqrt(2.0 * np.log(t) / counts))
            sums[arm] += (arms[arm][rng.integers(len(arms[arm]))] - low) / width
            counts[arm] += 1
            means[arm] = sums[arm] / counts[arm]
            own[t] = worth[np.argmax(means)]
    return found


def contents(out: Path) -> tuple[str, list[Block]]:
    """The title and all of the page on the study in ``out``.

    Raises :class:`UserError` where it is none, and where no trial has ended with episodes.
    """
    study = read_study(out)
    folders = sorted(path.parent for path in (out / "trials").glob("*/config.yaml"))
    runs = [read_run(folder) for folder in folders]
    key = "true_returns" if study.judged == "true_return" else "returns"
    arms = {run.folder.name: returns for run in runs if (returns := _episodes(run, key)) is not None}
    if not arms:
        raise UserError(f"{out} has no trial that ended with episodes, expected one that was evaluated at its end")
    pulls = PULLS * len(arms)
    values = picked(list(arms.values()), pulls)
    at = np.unique(np.geomspace(1, pulls, POINTS).round().astype(int))
    means = [float(values[:, n - 1].mean()) for n in at]
    intervals = [bootstrap_interval(values[:, n - 1]) for n in at]
    name = key.removesuffix("s").replace("_", " ")
    best = max(float(arm.mean()) for arm in arms.values())
    digits = decimals(best)
    spent = sum(len(e.get("returns", ())) for run in runs for e in _evaluations(run)) + sum(map(len, arms.values()))
    about = (
        f"A UCB1 bandit over the {len(arms)} trained policies, each pull one episode, resampled from those of the "
        f"trial's final evaluation: the mean {name} of the policy it would pick, over {REPETITIONS} repetitions, and "
        f"its 95 % bootstrap interval. After {pulls:,} episodes it is {means[-1]:,.{digits}f}; the best policy's is "
        f"{best:,.{digits}f}. The finished trials were themselves evaluated on {spent:,} episodes."
    )
    line = Line("picked by the bandit", 0, at.astype(float).tolist(), means, intervals)
    cells = []
    for run in runs:
        arm = arms.get(run.folder.name)
        said = f"{arm.mean():,.{digits}f}" if arm is not None else "no episodes" if run.finished else run.progress
        settings = [one_line(run.settings.get(key, "-"), 60) for key in study.ranges]
        cells.append([run.folder.name, *settings, said, str(0 if arm is None else len(arm))])
    return f"{one_line(out.name, 80)}: {len(runs)} trials", [
        Heading("What picking a policy online costs"),
        Text(about),
        Figure(study.config.env.name, "episodes spent", f"{name} of the policy picked", [line]),
        Heading("Trials"),
        Text("A trial that was pruned or is not finished has no final episodes, and is none of the bandit's policies."),
        Table(["trial", *study.ranges, name, "episodes"], cells),
    ]


def _evaluations(run: Run) -> list[dict[str, Any]]:
    found = run.found("evaluations")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _episodes(run: Run, key: str) -> np.ndarray | None:
    """The returns of a run's final evaluation; None without any."""
    found = run.found("final", key)
    if not isinstance(found, list) or not found or not all(type(v) in (int, float) and abs(v) < 1e300 for v in found):
        return None
    return np.array(found, dtype=np.float64)
