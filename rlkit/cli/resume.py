"""``rlkit resume RUN [total_timesteps=N]``: the run's own config, dataset and last good checkpoint."""

from __future__ import annotations

from typing import Any

from rlkit.cli.parser import Parser, told

KEYS = ("total_timesteps", "progress_bar", "device", "threads", "engine", "precision")
EPILOG = """settings:
  total_timesteps=N           train further than the run was meant to
  device=NAME threads=N engine=NAME precision=NAME
                              go on elsewhere, which may round differently
  progress_bar=false          show none
  env=PACKAGE:ID              import the package that registers what the run is made in

Several runs go on together, those of one shape as one program."""


def parser() -> Parser:
    usage = "rlkit resume RUN [RUN ...] [total_timesteps=N] [KEY=VALUE ...]"
    found = Parser(
        prog="rlkit resume", usage=usage, description="Continue runs from their last checkpoints.", epilog=EPILOG
    )
    found.add_argument("settings", nargs="+", metavar="RUN", help="a run's folder")
    return found


def main(argv: list[str]) -> int:
    """Continue; returns the exit code.  Raises :class:`UserError` for what is no run, or not as its checkpoint is."""
    folders, found = told(parser().read(argv).settings, (*KEYS, "env"))
    settings: dict[str, Any] = {key: value for key, value in found.items() if key != "env"}
    from rlkit.run.folder import folder_of

    if "env" in found:
        from rlkit.config import typed_id

        typed_id(found["env"])  # registers it; which environment a run has, its configuration says
    several = len(folders) > 1
    if not folders or (several and not all(folder_of(one).is_dir() for one in folders)):
        wrong = next((one for one in folders if not folder_of(one).is_dir()), None)
        parser().error("expected the folder of a run" if wrong is None else f"'{wrong}' is no folder of a run")
    if several:
        from rlkit.run.together import exit_code, resume_runs

        return exit_code(resume_runs([folder_of(one) for one in folders], **settings))
    from rlkit.run.session import resume

    return resume(folder_of(folders[0]), **settings)
