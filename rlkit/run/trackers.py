"""Lines of a run's log sent to an experiment tracker as well: W&B, MLflow or Trackio, imported where one is asked for.

Each is set up by its own environment variables (``WANDB_MODE=offline``, ``MLFLOW_TRACKING_URI``, ``TRACKIO_DIR``).
A run that is resumed goes on in the tracker's run: ``track.json`` in its folder has the name.  What the tracker cannot
take is said once, and the run goes on without it: the log is ``metrics.jsonl``.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter

from rlkit.errors import one_line
from rlkit.run import folder

PROJECT = "rlkit"
FILE = "track.json"
Log = Callable[[dict[str, float], int], Any]
Opened = tuple[str, Log, Callable[[], Any]]  # name of the tracker's run, a log line, the end


class TrackerWriter(KVWriter):
    """Sends numbers of log lines to the tracker called ``name``."""

    def __init__(self, name: str, out: Path, settings: Mapping[str, Any], resuming: bool):
        """``settings``: the run's, by flat name."""
        self.name, self.log, self.end = name, None, None
        before = _identity(out, name) if resuming else None
        opened = self._try(lambda: OPEN[name](out, before, dict(settings)))
        if opened is not None:
            identity, self.log, self.end = opened
            folder.write(out, FILE, json.dumps({"tracker": name, "run": identity}).encode() + b"\n")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        numbers = {key: float(value) for key, value in sorted(key_values.items()) if _is_number(value)}
        log = self.log
        if log is not None and numbers:
            self._try(lambda: log(numbers, step))

    def close(self) -> None:
        if self.log is not None and self.end is not None:
            self._try(self.end)
        self.log = None

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # a tracker's trouble, of any kind, is not the run's
            self.log = None
            print(f"rlkit: {self.name}: {one_line(error, 200)}; going on without it", file=sys.stderr)
            return None


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, (str, bool)) and getattr(value, "size", 1) == 1


def _identity(out: Path, name: str) -> str | None:
    try:
        with (out / FILE).open("rb") as file:
            found = json.loads(file.read(1000))
        return str(found["run"]) if found["tracker"] == name else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _wandb(out: Path, before: str | None, settings: dict[str, Any]) -> Opened:
    import wandb

    identity = before or uuid.uuid4().hex
    run = wandb.init(
        project=PROJECT,
        name=out.name,
        id=identity,
        resume="allow",
        dir=str(out),
        config=settings,
        settings=wandb.Settings(silent=True, disable_git=True, save_code=False),
    )
    return identity, lambda numbers, step: run.log(numbers, step=step), run.finish


def _mlflow(out: Path, before: str | None, settings: dict[str, Any]) -> Opened:
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    known = client.get_experiment_by_name(PROJECT)
    experiment = known.experiment_id if known is not None else client.create_experiment(PROJECT)
    identity = before or client.create_run(experiment, run_name=out.name).info.run_id
    if before is None:
        client.log_batch(identity, params=[Param(key, str(value)[:500]) for key, value in settings.items()])

    def log(numbers: dict[str, float], step: int) -> None:
        client.log_batch(identity, metrics=[Metric(key, value, 0, step) for key, value in numbers.items()])

    return identity, log, lambda: client.set_terminated(identity)


def _trackio(out: Path, before: str | None, settings: dict[str, Any]) -> Opened:
    import trackio

    identity = before or f"{out.name}-{uuid.uuid4().hex[:8]}"
    run = trackio.init(project=PROJECT, name=identity, config=settings, resume="allow", embed=False)
    return identity, lambda numbers, step: run.log(numbers, step=step), run.finish


OPEN: dict[str, Callable[[Path, str | None, dict[str, Any]], Opened]] = {
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
