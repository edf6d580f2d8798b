"""``rlkit tune agent=NAME env=NAME [agent.alpha=1..40:log ...]``: a search for hyperparameters, by Optuna."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from rlkit.cli.parser import Parser
from rlkit.errors import UserError, one_line
from rlkit.system.python import child

EPILOG = """ranges: agent.alpha=1..40 (even), agent.alpha=1..40:log, agent.batch_size=128,256,512 (choices);
without any, those that ship with the agent.  The first trial has the defaults.  Run the same line again, on this
machine or another that shares the folder, to join or go on: `rlkit tune STUDY`.  Trials of dead workers are resumed."""


def parser() -> Parser:
    found = Parser(prog="rlkit tune", description="Search for hyperparameters.", epilog=EPILOG)
    found.add_argument("settings", nargs="+", metavar="KEY=VALUE|STUDY", help="as of rlkit train; or a study's folder")
    found.add_argument("--trials", type=int, metavar="N", help="runs in all (20)")
    found.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (1)")
    found.add_argument("--batch", type=int, metavar="N", help="trials that may run at once, of all workers (4)")
    found.add_argument("--objective", metavar="NAME", help="score, return, true_return, gap, verdict, or auto")
    found.add_argument("--pruner", metavar="NAME", help="median: stop trials below the others' median; none (median)")
    found.add_argument("--seed", type=int, metavar="N", help="of the search, not of the runs (0)")
    found.add_argument("--out", type=Path, metavar="FOLDER", help="the study (studies/AGENT_ENV)")
    return found


def main(argv: list[str]) -> int:
    """Search and print; returns the exit code.  Raises :class:`UserError` for bad input, before anything is written."""
    args = parser().read(argv)
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("rlkit tune needs Optuna, expected pip install 'rlkit-papers[tune]'") from None
    from rlkit.run.tuning import RANGE, Study, Worker, begin, default_out, read_study

    if args.workers < 1:
        raise UserError(f"--workers {args.workers} is out of range, expected at least 1")
    options = {name: getattr(args, name) for name in ("trials", "batch", "objective", "pruner", "seed")}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if len(args.settings) == 1 and "=" not in args.settings[0]:
        out = Path(args.settings[0])
        there = read_study(out)
        if set(given) - {"trials"} or args.out is not None:
            raise UserError(f"{out} has its settings, expected none but --trials and --workers")
        study = Study(**{**there.as_json(), "trials": max(there.trials, args.trials or 0)})
    else:
        ranges, fixed = {}, []
        for word in args.settings:
            key, _, value = word.partition("=")
            if key in ranges:
                raise UserError(f"{one_line(key, 60)}= is given twice, expected one range of it")
            if RANGE.fullmatch(value) or ("," in value and value[0] not in "[{('\""):
                ranges[key] = value
            else:
                fixed.append(word)
        study = Study(tuple(fixed), ranges, **given)
        out = args.out if args.out is not None else default_out(study)
    begin(out, study)
    worker = Worker(out)
    judged = "the final evaluation" if study.judged == "final" else f"their {study.judged}"
    space = "  ".join(f"{key}={text}" for key, text in study.ranges.items())
    print(f"study {out}: {study.trials} trials in rounds of {study.batch}, judged by {judged}; {space}", flush=True)
    another = child("-c", "import sys; from rlkit.cli import main; sys.exit(main())", "tune", str(out))
    others = [subprocess.Popen(**another, stdout=subprocess.DEVNULL) for _ in range(args.workers - 1)]
    try:
        code = worker.run()
    finally:
        codes = [other.wait() for other in others]
    if code:
        print(f"interrupted, the trials are saved\ncontinue with: rlkit tune {out}")
        return code
    if any(codes):
        print(f"{sum(map(bool, codes))} of {args.workers} workers failed; what they left was done by the others")
    print(summary(worker, study, out))
    return 0


def summary(worker: Any, study: Any, out: Path) -> str:
    """The closing lines of a study."""
    found = worker.found()
    if found is None:
        raise UserError(f"no trial of {out} ended, expected one at least; see the logs in {out / 'trials'}")
    counted = ", ".join(f"{count} {state}" for state, count in sorted(found.counts.items()))
    settings = " ".join(f"{key}={value}" for key, value in found.params.items())
    return "\n".join(
        (
            f"best of {sum(found.counts.values())} trials ({counted}): {found.value:.4g}, trial {found.best}; "
            f"the defaults, trial 0: {found.default:.4g}",
            f"episodes spent in the environment: {found.episodes:,}",
            "the best of many is the luckiest too; measure it on seeds that were not tuned on:",
            f"  rlkit train {' '.join(study.overrides)} {settings} -m seed=100,101,102",
        )
    )
