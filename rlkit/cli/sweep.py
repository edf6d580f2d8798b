"""``rlkit train -m``: every combination of lists of values as runs, by a launcher of Hydra or as one program."""

from __future__ import annotations

import io
import itertools
import os
import re
import sys
import tempfile
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlkit.errors import UserError, install_extra, one_line

PLUGINS = {"submitit": "hydra_plugins.hydra_submitit_launcher", "ray": "hydra_plugins.hydra_ray_launcher"}


def job(config: object) -> int:
    """One combination of a sweep, in its own process; Hydra has already set the overrides of this job.

    A cluster may start it again: the run that the first time began goes on.
    """
    import rich
    from hydra.core.hydra_config import HydraConfig

    from rlkit.cli import make_printable
    from rlkit.config import compose_config
    from rlkit.run.session import train

    make_printable()
    rich.reconfigure(force_terminal=False)  # bars of several processes would overwrite each other; lines do not
    overrides = [o.removeprefix("++") for o in HydraConfig.get().overrides.task]
    try:
        return train(compose_config([*overrides, "resume=true"], stored=True))
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


def sweep(overrides: list[str]) -> int:
    """Run every combination of ``overrides``; returns the exit code.

    Raises :class:`UserError` before any run starts where one of them cannot, and where some have not ended.
    """
    from rlkit.cli.words import require_shared
    from rlkit.config import compose_config, fill_store, parse, storable
    from rlkit.run.folder import folder_of

    overrides = storable(overrides)
    settings = [o for o in parse(overrides) if not o.key_or_group.startswith("hydra")]
    agents = [
        a for o in settings if o.key_or_group == "agent" and o.is_sweep_override() for a in o.sweep_string_iterator()
    ]
    require_shared([o.key_or_group for o in settings], agents)
    choices = [
        [f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()] if o.is_sweep_override() else [o.input_line]
        for o in settings
    ]
    configs = [
        compose_config([c for c in chosen if c is not None], stored=True) for chosen in itertools.product(*choices)
    ]
    outs = [folder_of(config.out) for config in configs]
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
    launcher = next((o.partition("=")[2] for o in overrides if o.startswith("hydra/launcher=")), None)
    _require_launcher(launcher)
    from rlkit.run.session import prepare

    ended = prepare(configs)
    fill_store(sorted({config.agent.name for config in configs}))
    chosen = [] if launcher is not None else ["hydra/launcher=joblib"]
    if launcher is None and not any("n_jobs" in o for o in overrides):
        chosen.append(f"hydra.launcher.n_jobs={os.cpu_count()}")
    results = [_result(out) for out in outs]
    print(f"{len(outs)} runs; the same line with resume=true goes on with those that have not ended", flush=True)
    # Where agents or environments are swept over, Hydra composes once without any; ++ says that a key may be new there.
    failure = _launch([*chosen, *(f"++{o}" if o.startswith(("agent.", "env.")) else o for o in overrides)], launcher)
    missing = [
        out for out, old, done in zip(outs, results, ended, strict=True) if not done and _result(out) in (None, old)
    ]
    if missing:  # Hydra hands no return values back from a sweep
        raise UserError(
            f"{len(missing)} of {len(outs)} runs did not finish, first {missing[0]}; "
            f"{failure or 'see the messages above'}; the same line with resume=true goes on with them"
        )
    if failure:
        raise UserError(failure)
    return 0


def _require_launcher(launcher: str | None) -> None:
    plugin = next((module for name, module in PLUGINS.items() if launcher and launcher.startswith(name)), None)
    if plugin is not None and find_spec(plugin) is None:
        raise UserError(
            f"hydra/launcher={launcher} needs a package that is not here, expected {install_extra('cluster')}"
        )


def _launch(overrides: list[str], launcher: str | None) -> str | None:
    """Hand the jobs to Hydra; in a sentence, what went wrong there, which it tells in a traceback of its own."""
    import hydra

    quiet = ["hydra.output_subdir=null", "hydra.sweep.subdir=.", "hydra/job_logging=disabled"]
    quiet.append("hydra/hydra_logging=disabled")  # runs speak for themselves
    before: Any = sys.argv
    told = io.StringIO()
    apart = launcher != "basic"  # whose runs are in this process, and speak through the same stream
    try:
        with tempfile.TemporaryDirectory() as aside, redirect_stderr(told if apart else sys.stderr):
            # Hydra writes a multirun.yaml there; jobs of a scheduler must find submitit's files in a folder all see
            quiet.append(f"hydra.sweep.dir='{aside}'")
            if launcher is not None and launcher.startswith("submitit"):
                quiet.append("hydra.launcher.submitit_folder=.submitit/%j")
            sys.argv = ["rlkit train", "-m", *quiet, *overrides]
            hydra.main(version_base="1.3", config_path=None, config_name="train")(job)()
    except SystemExit as error:
        if not error.code:
            return None
        text, _, trace = told.getvalue().partition("Traceback (most recent call last)")
        if not trace:
            return one_line(text) or f"Hydra ended with exit code {error.code}"
        errors = re.findall(r"^[\w.]+(?:Error|Exception|Interrupt): .*", trace, re.MULTILINE)
        return one_line(errors[-1] if errors else trace.strip().splitlines()[-1])
    finally:
        sys.argv = before
    print(told.getvalue(), end="", file=sys.stderr)
    return None
