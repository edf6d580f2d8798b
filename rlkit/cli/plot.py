"""``rlkit plot RUN... [--out curves.png] [--key eval/score]``: learning curves, one line per setting that differs.

Runs that differ in nothing but their seed are one line: the mean over the seeds, with a 95 % bootstrap interval over
them as a band.  Each environment, and each unit of progress, has a panel of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlkit.cli.parser import Parser
from rlkit.errors import UserError, nearest
from rlkit.run.folder import runs_in
from rlkit.run.reading import Curve, band, by, fill_in_data, groups, read_run

Panel = tuple[str, str]  # environment, unit of progress
KEYS = ("eval/score", "eval/true_return", "eval/return")  # the first that an environment's runs have
FORMATS = (".png", ".pdf", ".svg")


def parser() -> Parser:
    found = Parser(prog="rlkit plot", description="Draw learning curves of runs.")
    text = "folders of runs, finished or not, or one of such folders"
    found.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=text)
    found.add_argument("--out", type=Path, default=Path("curves.png"), metavar="FILE", help=".png, .pdf or .svg")
    found.add_argument("--key", help=f"by default the first of {', '.join(KEYS)} in the log")
    return found


def main(argv: list[str]) -> int:
    """Draw; returns 0.  Raises :class:`UserError` where there is nothing to draw."""
    args = parser().parse_args(argv)
    if args.out.suffix not in FORMATS or args.out.is_dir() or "\0" in str(args.out):
        raise UserError(f"--out {args.out} is no picture, expected a file ending in {' or '.join(FORMATS)}")
    left_out: list[str] = []
    runs = []
    for folder in runs_in(args.runs):
        try:
            runs.append(read_run(folder))
        except UserError as error:
            left_out.append(str(error))
    panels: dict[Panel, dict[str, list[Curve]]] = {}
    keys: dict[Panel, str] = {}
    fill_in_data(runs)
    for (env, unit), there in by(runs, lambda run: (run.settings["env.name"], run.unit)).items():
        known = {key for run in there for line in run.lines for key in line if key != "step"}
        key = args.key or next((key for key in KEYS if key in known), KEYS[0])
        shown = [run for run in there if run.curve(key)[0]]
        hint = nearest(key, known - {key})
        if not hint and args.key is None and known:
            hint = f"; --key draws another, such as {min(known)}"
        left_out += [f"{run.folder} has no '{key}' in its metrics{hint}" for run in there if run not in shown]
        if shown:
            panels[env, unit] = {label: [run.curve(key) for run in group] for label, group in groups(shown).items()}
            keys[env, unit] = key
    if not panels:
        raise UserError(left_out[0] if len(left_out) == 1 else f"nothing to draw: {'; '.join(left_out)}")
    draw_panels(panels, keys, args.out)
    for run in runs:
        if not run.finished and run.lines:
            print(f"{run.folder} is {run.progress}")
    for reason in left_out:
        print(f"left out: {reason}")
    print(f"wrote {args.out}")
    return 0


def draw(curves: dict[str, list[Curve]], key: str, out: Path, steps: str = "updates") -> None:
    """One panel: each label's mean over its runs, with a 95 % bootstrap interval over them as a band.

    ``key`` and ``steps`` name the axes.  Where only some of a label's runs have a value, the line of those is dashed.
    """
    draw_panels({("", steps): curves}, {("", steps): key}, out)


def draw_panels(panels: dict[Panel, dict[str, list[Curve]]], keys: dict[Panel, str], out: Path) -> None:
    """:func:`draw` of several (environment, unit), beside each other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(7 * len(panels), 4.2), layout="constrained", squeeze=False)
    for one, (env, unit) in zip(axes[0], sorted(panels), strict=True):
        for label, runs in sorted(panels[env, unit].items()):
            _draw_line(one, label, runs)
        one.set(xlabel=unit, ylabel=keys[env, unit], title=env)
        one.legend()
        one.grid(alpha=0.3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    plt.close(figure)


def _draw_line(axes: Any, label: str, runs: list[Curve]) -> None:
    import numpy as np

    found = band(runs)
    steps, means, whole = found.steps, np.array(found.means), np.array(found.whole)
    marker = "o" if len(steps) == 1 else None
    everywhere = np.where(whole, means, np.nan)
    (line,) = axes.plot(steps, everywhere, label=f"{label} (n={len(runs)})", marker=marker)
    if not whole.all():
        axes.plot(
            steps, means, linestyle=":", color=line.get_color(), label=f"{label}, where some have none", marker=marker
        )
    if found.intervals:
        low, high = np.transpose(found.intervals)
        axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
