"""``rlkit train``: one run in this process, or with ``-m`` one single-thread process per combination."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rlkit.cli.pages import page
from rlkit.cli.parser import Parser
from rlkit.cli.words import key_of, missing, names_of, spelt, understood
from rlkit.errors import UserError, one_line

EPILOG = """  agent=prdc agent.beta=2   the method and its hyperparameters: rlkit train agent=prdc --help
  env=hopper-medium         the environment and its data: rlkit train env=hopper-medium --help
  env=log.csv               data of your own: CSV, Parquet, NPZ, HDF5, or a Minari id; rlkit data info log.csv shows
                            which column is what, env.columns.actions=[valve,heater] says it
  env=Pendulum-v1           for agents that act: a Gymnasium id, also env=package:Id-v0
  env.path=FILE             use this file; env.source=generated|minari-local|minari-remote forces a source
  init=RUN                  begin with the networks of a run: on other data or, with env=hopper and the like, by acting,
                            the data mixed in (finetune.offline_ratio=0.5 and its other keys; td3bc and iql)
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

    from rlkit.config import agent_of, compose_config, is_sweep
    from rlkit.run.session import train

    swept = args.multirun or is_sweep(words)
    if args.config is None and (args.spoken or words != args.settings or swept != args.multirun):
        line = shlex.join(["rlkit", "train", *words, *(["-m"] if swept else [])])
        print(f"rlkit: understood as {one_line(line, 2000)}", file=sys.stderr)
    if swept and args.cfg:
        raise UserError("--cfg shows the configuration of one run, expected no -m and no lists of values")
    if swept:
        from rlkit.cli.sweep import sweep

        return sweep(words)
    config = compose_config(words)
    if args.cfg:
        print(f"# the agent counts {agent_of(config).defaults.unit}")
        print(OmegaConf.to_yaml(config), end="")
        return 0
    return train(config)
