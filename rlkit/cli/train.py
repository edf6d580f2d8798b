"""``rlkit train``: one run in this process, or with ``-m`` one single-thread process per combination."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from rlkit.cli.facts import agent_facts
from rlkit.cli.pages import page
from rlkit.cli.parser import Parser
from rlkit.cli.words import key_of, missing, names_of, require_shared, spelt, understood
from rlkit.errors import UserError, one_line

EPILOG = """  agent=prdc agent.beta=2   the method and its hyperparameters: rlkit train agent=prdc --help
  env=hopper-medium         the environment and its data: rlkit train env=hopper-medium --help
  env=log.csv               data of your own: CSV, Parquet, NPZ, HDF5, or a Minari id; rlkit data info log.csv shows
                            which column is what, env.columns.actions=[valve,heater] says it
  env=Pendulum-v1           for agents that act: a Gymnasium id, also env=package:Id-v0
  env.path=FILE             use this file; env.source=generated|minari-local|minari-remote forces a source
  total_timesteps=N         updates, steps or episodes, as the agent counts; so are the next three
  log_every=N eval_every=N checkpoint_every=N
  seed=0 device=cpu out=FOLDER overwrite=false eval_episodes=N final_episodes=N
  seed=0,1,2                every combination, in parallel processes (hydra/launcher=basic: one after another)
  seed=0,1,2 engine=stacked every combination in one process, runs of one shape as one program"""


def parser() -> Parser:
    usage = "rlkit train agent=NAME env=NAME [KEY=VALUE ...] [--config FILE] [-m] [--cfg]"
    found = Parser(prog="rlkit train", usage=usage, description="Train an agent.", epilog=EPILOG, add_help=False)
    found.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings, as below")
    found.add_argument("--config", type=Path, metavar="FILE", help="settings from a YAML file, or a run's config.yaml")
    found.add_argument("-m", "--multirun", action="store_true", help="a sweep; lists of values make it one without")
    found.add_argument("--cfg", action="store_true", help="print the configuration and stop")
    found.add_argument("-h", "--help", action="store_true", help="this; of agent=NAME or env=NAME, what is its own")
    found.add_argument("--resume", metavar="RUN", help=argparse.SUPPRESS)
    return found


def main(argv: list[str]) -> int:
    """Train; returns the exit code.  Raises :class:`UserError` for bad input, before anything is written."""
    args = parser().read(argv)
    if args.help or not argv:
        print(page(args.settings) or parser().format_help(), end="")
        return 0
    if args.resume is not None:
        raise UserError(f"a run goes on by its own verb, expected rlkit resume {shlex.quote(args.resume)}")
    own = spelt(args.settings)
    if args.config is None:
        return _run(args, understood(own))
    from rlkit.cli.settings_file import as_words, placed, read_settings, values

    given = {key_of(word) for word in own}
    entries = [entry for entry in read_settings(args.config) if entry.key not in given]
    agents = names_of(own, "agent") or values(entries, "agent")
    places = {entry.key: entry.place for entry in entries}
    try:
        words = understood([*as_words(entries, agents), *own])
        theirs, own = words[: len(entries)], words[len(entries) :]
        places |= {key_of(word): entry.place for word, entry in zip(theirs, entries, strict=True)}
        given = {key_of(word) for word in own}  # by their own names
        return _run(args, [*(word for word in theirs if key_of(word) not in given), *own])
    except UserError as error:
        raise placed(error, places) from None


def _run(args: argparse.Namespace, words: list[str]) -> int:
    """Train as ``words`` say, each one a setting of the configuration."""
    missing(words)
    from omegaconf import OmegaConf

    from rlkit.config import compose_config, is_sweep
    from rlkit.run.session import train

    swept = args.multirun or is_sweep(words)
    if args.config is None and (args.spoken or words != args.settings or swept != args.multirun):
        line = shlex.join(["rlkit", "train", *words, *(["-m"] if swept else [])])
        print(f"rlkit: understood as {one_line(line, 2000)}", file=sys.stderr)
    if swept and args.cfg:
        raise UserError("--cfg shows the configuration of one run, expected no -m and no lists of values")
    if swept:
        return _sweep(words)
    config = compose_config(words)
    if args.cfg:
        print(f"# the agent counts {agent_facts(config.agent.name).defaults['unit']}")
        print(OmegaConf.to_yaml(config), end="")
        return 0
    return train(config)


def _job(config: object) -> int:
    """One combination of a sweep, in its own process; Hydra has already set the overrides of this job."""
    from hydra.core.hydra_config import HydraConfig

    from rlkit.cli import make_printable
    from rlkit.config import compose_config
    from rlkit.run.session import train

    make_printable()
    overrides = list(HydraConfig.get().overrides.task)
    try:
        return train(compose_config([*overrides, "progress_bar=false"], stored=True))
    except UserError as error:
        print(f"rlkit: {error}", file=sys.stderr)
        return 2


def _result(out: Path) -> tuple[int, int] | None:
    """What changes once a run has written its result; None where there is none."""
    try:
        found = (out / "result.json").stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _sweep(overrides: list[str]) -> int:
    import itertools

    import hydra

    from rlkit.config import compose_config, fill_store, parse, storable
    from rlkit.run.folder import folder_of

    overrides = storable(overrides)
    ours = [o for o in parse(overrides) if not o.key_or_group.startswith("hydra")]
    require_shared(
        [o.key_or_group for o in ours],
        [a for o in ours if o.key_or_group == "agent" and o.is_sweep_override() for a in o.sweep_string_iterator()],
    )
    choices = [
        [f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()] if o.is_sweep_override() else [o.input_line]
        for o in ours
    ]
    agents = set()
    outs, configs = [], []
    for combination in itertools.product(*choices):  # every job is checked before the first one starts
        config = compose_config([c for c in combination if c is not None], stored=True)
        agents.add(config.agent.name)
        outs.append(folder_of(config.out))
        configs.append(config)
    if len({out.resolve() for out in outs}) != len(outs):
        raise UserError(
            "two runs of this sweep would share a folder; put what differs into out=, as out='runs/b${agent.beta}'"
        )
    if any(config.engine == "stacked" for config in configs):
        from rlkit.run.together import exit_code, train_runs

        if any(config.engine != "stacked" for config in configs) or any(o.startswith("hydra") for o in overrides):
            raise UserError(
                "engine=stacked runs the whole sweep in one process, expected it for all and no hydra/ keys"
            )
        return exit_code(train_runs(configs))
    fill_store(sorted(agents))
    launcher = [] if any(o.startswith("hydra/launcher=") for o in overrides) else ["hydra/launcher=joblib"]
    jobs = [] if any("n_jobs" in o for o in overrides) or not launcher else [f"hydra.launcher.n_jobs={os.cpu_count()}"]
    quiet = ["hydra.output_subdir=null", "hydra.sweep.dir=.", "hydra.sweep.subdir=.", "hydra/job_logging=disabled"]
    before, results = sys.argv, [_result(out) for out in outs]
    sys.argv = ["rlkit train", "-m", *launcher, *jobs, *quiet, *overrides]
    try:
        hydra.main(version_base="1.3", config_path=None, config_name="train")(_job)()
    except SystemExit as error:
        return int(error.code or 0) and 2
    finally:
        sys.argv = before
    missing = [out for out, old in zip(outs, results, strict=True) if _result(out) in (None, old)]
    if missing:  # Hydra hands no return values back from a sweep
        raise UserError(
            f"{len(missing)} of {len(outs)} runs did not finish, first {missing[0]}; see the messages above"
        )
    return 0
