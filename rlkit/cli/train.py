"""``rlkit train``: one run in this process, or with ``-m`` one single-thread process per combination."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rlkit.errors import UserError

HELP = """usage: rlkit train agent=NAME env=NAME [key=value ...] [-m]

  agent=prdc agent.beta=2   the method and its hyperparameters (rlkit list agents)
  env=hopper-medium         the environment and its data (rlkit list envs)
  env=log.csv               data of your own: CSV, Parquet, NPZ, HDF5, or a Minari id; rlkit data info log.csv shows
                            which column is what, env.columns.actions=[valve,heater] says it
  env=Pendulum-v1           for agents that act: a Gymnasium id, also env=package:Id-v0
  env.path=FILE             use this file; env.source=generated|minari-local|minari-remote forces a source
  init=RUN                  begin with the networks of a run: on other data or, with env=hopper and the like, by acting,
                            the data mixed in (finetune.offline_ratio=0.5 and its other keys; td3bc and iql)
  total_timesteps=N         updates, steps or episodes, as the agent counts; so are the next three
  log_every=N eval_every=N checkpoint_every=N
  seed=0 device=cpu out=FOLDER overwrite=false eval_episodes=N final_episodes=N
  -m seed=0,1,2             every combination, in parallel processes (hydra/launcher=basic: one after another)
  -m seed=0,1,2 engine=stacked    every combination in one process, runs of one shape as one program
  --cfg                     print the configuration and stop
  --help agent=NAME         what the agent counts, and its own defaults"""


def _help(overrides: list[str]) -> str:
    """The help, with what the agent named in ``overrides`` counts and has for defaults."""
    name = next((o.removeprefix("agent=") for o in overrides if o.startswith("agent=")), None)
    if name is None:
        return HELP
    from rlkit.registry import agent_class

    defaults = agent_class(name).defaults
    settings = " ".join(f"{key}={value}" for key, value in defaults.settings().items())
    return f"{HELP}\n\nagent={name} counts {defaults.unit} and is judged {defaults.judged}; by default\n  {settings}"


def main(argv: list[str]) -> int:
    if not argv or {"-h", "--help"} & set(argv):
        print(_help(argv))
        return 0
    overrides = [a for a in argv if not a.startswith("-")]
    unknown = [a for a in argv if a.startswith("-") and a not in ("-m", "--multirun", "--cfg")]
    if unknown:
        raise UserError(f"unknown option '{unknown[0]}', expected -m or --cfg")
    if {"-m", "--multirun"} & set(argv):
        return _sweep(overrides)
    from omegaconf import OmegaConf

    from rlkit.config import agent_of, compose_config
    from rlkit.run.session import train

    config = compose_config(overrides)
    if "--cfg" in argv:
        print(f"# the agent counts {agent_of(config).defaults.unit}")
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
        return train(compose_config([*overrides, "progress_bar=false"]))
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
    choices = [
        [f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()] if o.is_sweep_override() else [o.input_line]
        for o in ours
    ]
    agents = set()
    outs, configs = [], []
    for combination in itertools.product(*choices):  # every job is checked before the first one starts
        config = compose_config([c for c in combination if c is not None])
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
