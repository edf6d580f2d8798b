"""``rlkit resume RUN [total_timesteps=N]``: the run's own config, dataset and last good checkpoint."""

from __future__ import annotations

from pathlib import Path

from rlkit.errors import UserError


def main(argv: list[str]) -> int:
    folders = [a for a in argv if "=" not in a]
    settings = dict(a.split("=", 1) for a in argv if "=" in a)
    if len(folders) != 1 or set(settings) - {"total_timesteps", "progress_bar"}:
        raise UserError("usage: rlkit resume RUN [total_timesteps=N] [progress_bar=false]")
    from rlkit.run import resume

    total = settings.get("total_timesteps")
    if total is not None and not total.isdigit():
        raise UserError(f"total_timesteps={total} is not a whole number")
    return resume(
        Path(folders[0]),
        total_timesteps=int(total) if total else None,
        progress_bar=settings.get("progress_bar", "true").lower() != "false",
    )
