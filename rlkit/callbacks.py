"""Callbacks and log writers.  All are SB3's kinds: they run on any SB3 algorithm, and SB3's run on ours."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from torch.utils.tensorboard import SummaryWriter

from rlkit.evaluate import Evaluator

NUMBER = (int, float, np.number)


class JsonlWriter(KVWriter):
    """One JSON object a log line, in ``metrics.jsonl``.

    Wall times (``time/...``) stay out: the file of a resumed run equals that of one never interrupted, byte for byte.
    """

    def __init__(self, path: Path, position: int | None = None):
        """``position``: bytes to keep of an existing file; what a killed run wrote after its checkpoint is cut off."""
        self.file = path.open("ab")
        if position is not None:
            self.file.truncate(position)
            self.file.seek(position)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        values = {k: float(v) for k, v in key_values.items() if not k.startswith("time/") and isinstance(v, NUMBER)}
        line = {"step": step, **{k: values[k] for k in sorted(values)}}
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()

    @property
    def position(self) -> int:
        return self.file.tell()

    def close(self) -> None:
        self.file.close()


class TensorBoardWriter(KVWriter):
    """Scalars to TensorBoard; events at or after ``purge_step`` of an interrupted run are hidden."""

    def __init__(self, folder: Path, purge_step: int | None = None):
        self.writer = SummaryWriter(str(folder), purge_step=purge_step)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        for key, value in sorted(key_values.items()):
            if isinstance(value, NUMBER):
                self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        self.writer.close()


def passed(model: Any, every: int) -> bool:
    """Whether the latest step of ``model``'s environments reached a multiple of ``every`` (never, for 0)."""
    steps, at_once = model.num_timesteps, model.n_envs
    return bool(every) and steps // every > (steps - at_once) // every


class Log(BaseCallback):
    """Every ``every`` steps of an algorithm that collects roll-outs: write its log."""

    def __init__(self, every: int):
        super().__init__()
        self.every = every

    def _on_training_start(self) -> None:
        self.last = self.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.num_timesteps // self.every > self.last // self.every:
            self.last = self.num_timesteps
            self.model.dump_logs()

    def _on_step(self) -> bool:
        return True


class Evaluate(BaseCallback):
    """Every ``every`` steps: ``eval/...`` to the log, and the per-episode returns to :attr:`history`."""

    def __init__(self, evaluator: Evaluator, every: int):
        super().__init__()
        self.evaluator, self.every = evaluator, every
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0

    def _on_step(self) -> bool:
        if passed(self.model, self.every):
            started = time.perf_counter()
            found = self.evaluator(self.model, index=self.num_timesteps)
            self.history.append({"step": self.num_timesteps, "returns": found.returns.tolist(), **found.summary()})
            for key, value in found.summary().items():
                self.logger.record(f"eval/{key}", value)
            self.logger.dump(self.num_timesteps)
            self.seconds += time.perf_counter() - started
        return True


class StopOnSignal(BaseCallback):
    """Ends training between two steps once ``stop(number)`` was called, as from a signal handler."""

    def __init__(self) -> None:
        super().__init__()
        self.signal = 0
        self.waiting = False  # for a roll-out to end, so that a checkpoint can be exact

    def stop(self, number: int) -> None:
        self.signal = number

    def _on_step(self) -> bool:
        return self.waiting or not self.signal


class Checkpoint(BaseCallback):
    """Every ``every`` steps: write a checkpoint, then drop all but the newest ``keep``.

    An algorithm that collects roll-outs is written between two of them, where nothing is half done; a signal waits for
    that moment.
    """

    def __init__(self, folder: Path, every: int, extra: Any, stopper: StopOnSignal | None = None, keep: int = 2):
        super().__init__()
        self.folder, self.every, self.extra, self.stopper, self.keep = folder, every, extra, stopper, keep
        self.rolls_out = False
        self.seconds = 0.0

    def _on_training_start(self) -> None:
        self.last = self.num_timesteps
        self.rolls_out = hasattr(self.model, "collect_rollouts")
        if self.stopper is not None:
            self.stopper.waiting = self.rolls_out

    def _on_rollout_start(self) -> None:
        if self.every and self.num_timesteps // self.every > self.last // self.every:
            self.last = self.num_timesteps
            self.save()
        if self.stopper is not None and self.stopper.signal:
            self.latest() or self.save()
            self.stopper.waiting = False

    def _on_step(self) -> bool:
        if not self.rolls_out and passed(self.model, self.every):
            self.save()
        return True

    def latest(self) -> Path | None:
        """The checkpoint of the current step, or of the moment a signal stopped a roll-out; None without one."""
        found = checkpoints(self.folder)
        stopped = self.rolls_out and self.stopper is not None and self.stopper.signal
        if found and (stopped or found[-1] == self._path()):
            return found[-1]
        return None

    def _path(self) -> Path:
        return self.folder / f"step_{self.model.num_timesteps:010d}.rlk"

    def save(self) -> Path:
        started = time.perf_counter()
        path = self._path()
        self.model.save_checkpoint(path, self.extra())  # type: ignore[attr-defined]  # every rlkit agent has it
        for old in checkpoints(self.folder)[: -self.keep]:
            old.unlink()
        self.seconds += time.perf_counter() - started
        return path


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return sorted(folder.glob("step_*.rlk"))


class Progress(BaseCallback):
    """A bar with steps per second, time left and, where there is an evaluation, its latest score."""

    def __init__(self, evaluation: Evaluate | None = None):
        super().__init__()
        self.evaluation = evaluation

    def _on_training_start(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f} steps/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[score]}"),
        )
        self.bar = Bar(*columns, refresh_per_second=4)
        total = self.model._total_timesteps
        name = getattr(self.model, "name", type(self.model).__name__)
        self.task = self.bar.add_task(name, total=total, completed=self.model.num_timesteps, rate=0.0, score="")
        self.begun, self.first = time.perf_counter(), self.model.num_timesteps
        self.shown = 0.0
        self.bar.start()

    def _on_step(self) -> bool:
        now = time.perf_counter()
        if now - self.shown > 0.25:
            self.shown = now
            self._show(now)
        return True

    def _show(self, now: float) -> None:
        score = ""
        if self.evaluation is not None and self.evaluation.history:
            latest = self.evaluation.history[-1]
            key = "score" if "score" in latest else "return"
            score = f"{key} {latest[key]:.1f}"
        rate = (self.model.num_timesteps - self.first) / max(now - self.begun, 1e-9)
        self.bar.update(self.task, completed=self.model.num_timesteps, rate=rate, score=score)

    def _on_training_end(self) -> None:
        self._show(time.perf_counter())
        self.bar.stop()
