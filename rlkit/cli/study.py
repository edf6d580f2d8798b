"""What ``rlkit report`` says of studies of ``rlkit tune``: their trials, and what picking one of them online costs.

The protocol is that of Jackson et al. (2025): a bandit over the trained policies, a pull an episode of evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.cli.document import Block, Figure, Heading, Line, Table, Text
from rlkit.errors import UserError, one_line
from rlkit.run.reading import Run, read_run
from rlkit.run.tuning import Study, read_study
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
            arm = int(order[t] if t < len(arms) else np.argmax(means + np.sqrt(2.0 * np.log(t) / counts)))
            sums[arm] += (arms[arm][rng.integers(len(arms[arm]))] - low) / width
            counts[arm] += 1
            means[arm] = sums[arm] / counts[arm]
            own[t] = worth[np.argmax(means)]
    return found


@dataclass(frozen=True)
class Tried:
    """A study with its trials' runs, and ``arms``: the returns of each trained policy's final episodes, by trial."""

    folder: Path
    study: Study
    runs: list[Run]
    key: str
    arms: dict[str, np.ndarray]

    @property
    def label(self) -> str:
        return one_line(self.folder.name, 60)

    @property
    def spent(self) -> int:
        """Episodes that evaluations took, during training and at its end."""
        during = sum(len(entry.get("returns", ())) for run in self.runs for entry in _evaluations(run))
        return during + sum(map(len, self.arms.values()))


def _tried(folder: Path) -> Tried:
    study = read_study(folder)
    runs = [read_run(path.parent) for path in sorted((folder / "trials").glob("*/config.yaml"))]
    key = "true_returns" if study.judged == "true_return" else "returns"
    arms = {run.folder.name: returns for run in runs if (returns := _episodes(run, key)) is not None}
    if not arms:
        raise UserError(f"{folder} has no trial that ended with episodes, expected one that was evaluated at its end")
    return Tried(folder.resolve(), study, runs, key, arms)


def contents(folders: Sequence[Path]) -> tuple[str, list[Block]]:
    """The title and all of the page on the studies in ``folders``: a curve each.

    Raises :class:`UserError` where one is none, where none of its trials has ended with episodes, and where they are of
    several environments or judged differently.
    """
    studies = [_tried(folder) for folder in folders]
    first = studies[0]
    env, name = first.study.config.env.name, first.key.removesuffix("s").replace("_", " ")
    for other in studies[1:]:
        if (other.study.config.env.name, other.key) != (env, first.key):
            raise UserError(
                f"{other.folder.name} is judged by {other.key} on {other.study.config.env.name} and "
                f"{first.folder.name} by {first.key} on {env}, expected studies of one environment, judged by the same"
            )
    drawn = [_curve(tried, colour) for colour, tried in enumerate(studies)]
    best = max(float(arm.mean()) for tried in studies for arm in tried.arms.values())
    digits = decimals(best)
    rows = [
        [
            tried.label,
            tried.study.config.agent.name,
            str(len(tried.arms)),
            f"{max(float(arm.mean()) for arm in tried.arms.values()):,.{digits}f}",
            f"{line.y[-1]:,.{digits}f} after {line.x[-1]:,.0f} episodes",
            f"{tried.spent:,}",
        ]
        for tried, line in zip(studies, drawn, strict=True)
    ]
    columns = ["study", "agent", "policies", f"best {name}", f"{name} of the one picked", "episodes of evaluation"]
    blocks: list[Block] = [
        Heading("What picking a policy online costs"),
        Text(
            f"A UCB1 bandit over a study's trained policies, each pull one episode, resampled from those of the "
            f"trial's final evaluation: the mean {name} of the policy it would pick, over {REPETITIONS} repetitions, "
            f"and its 95 % bootstrap interval. The trials' own evaluations took the episodes of the last column."
        ),
        Figure(env, "episodes spent", f"{name} of the policy picked", drawn),
        Table(columns, rows, range(len(studies)) if len(studies) > 1 else ()),
    ]
    for tried in studies:
        blocks += [Heading(f"Trials of {tried.label}" if len(studies) > 1 else "Trials"), _trials(tried, name, digits)]
    blocks.append(
        Text("A trial that was pruned or is not finished has no final episodes, and is none of the bandit's policies.")
    )
    trials = sum(len(tried.runs) for tried in studies)
    return f"{', '.join(tried.label for tried in studies)}: {trials} trials", blocks


def _curve(tried: Tried, colour: int) -> Line:
    pulls = PULLS * len(tried.arms)
    values = picked(list(tried.arms.values()), pulls)
    at = np.unique(np.geomspace(1, pulls, POINTS).round().astype(int))
    means = [float(values[:, n - 1].mean()) for n in at]
    return Line(
        tried.label, colour, at.astype(float).tolist(), means, [bootstrap_interval(values[:, n - 1]) for n in at]
    )


def _trials(tried: Tried, name: str, digits: int) -> Table:
    ranges = tried.study.ranges
    cells = []
    for run in tried.runs:
        arm = tried.arms.get(run.folder.name)
        said = f"{arm.mean():,.{digits}f}" if arm is not None else "no episodes" if run.finished else run.progress
        settings = [_short(run.settings.get(key, "-")) for key in ranges]
        cells.append([run.folder.name, *settings, said, str(0 if arm is None else len(arm))])
    return Table(["trial", *ranges, name, "episodes"], cells)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else one_line(value, 60)


def _evaluations(run: Run) -> list[dict[str, Any]]:
    found = run.found("evaluations")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _episodes(run: Run, key: str) -> np.ndarray | None:
    """The returns of a run's final evaluation; None without any."""
    found = run.found("final", key)
    if not isinstance(found, list) or not found or not all(type(v) in (int, float) and abs(v) < 1e300 for v in found):
        return None
    return np.array(found, dtype=np.float64)
