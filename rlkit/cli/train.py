"""``rlkit train``: one run in this process, or with ``-m`` one single-thread process per combination."""

from __future__ import annotations

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
        from rlkit.cli.sweep import sweep

        return sweep(overrides)
    from omegaconf import OmegaConf

    from rlkit.config import agent_of, compose_config
    from rlkit.run.session import train

    config = compose_config(overrides)
    if "--cfg" in argv:
        print(f"# the agent counts {agent_of(config).defaults.unit}")
        print(OmegaConf.to_yaml(config), end="")
        return 0
    return train(config)
