"""``rlkit resume RUN [total_timesteps=N]``: the run's own config, dataset and last good checkpoint."""

from __future__ import annotations

from typing import Any

from rlkit.errors import UserError

KEYS = ("total_timesteps", "progress_bar", "device", "threads", "engine", "precision")
USAGE = """usage: rlkit resume RUN [RUN ...] [total_timesteps=N] [progress_bar=false] [device=NAME] [threads=N]
                          [engine=NAME] [precision=NAME] [env=PACKAGE:ID]

  several runs go on together, those of one shape as one program; env= imports the package that registers what they are
  made in, which their configuration does not name"""


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(USAGE)
        return 0
    typed = [a[4:] for a in argv if a.startswith("env=")]
    argv = [a for a in argv if not a.startswith("env=")]
    settings: dict[str, Any] = dict(a.split("=", 1) for a in argv if a.split("=")[0] in KEYS and "=" in a)
    folders = [a for a in argv if a.split("=")[0] not in KEYS]  # a run's name may hold an equals sign
    from rlkit.run.folder import folder_of

    if typed:
        from rlkit.config import typed_id

        typed_id(typed[-1])  # registers it; which environment a run has, its configuration says
    several = len(folders) > 1
    if not folders or (several and not all(folder_of(one).is_dir() for one in folders)):
        raise UserError(" ".join(USAGE.partition("\n\n")[0].split()))
    if several:
        from rlkit.run.together import exit_code, resume_runs

        return exit_code(resume_runs([folder_of(one) for one in folders], **settings))
    from rlkit.run.session import resume

    return resume(folder_of(folders[0]), **settings)
