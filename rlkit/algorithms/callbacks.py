"""Callbacks and log writers.  All are SB3's kinds: they run on any SB3 algorithm, and SB3's run on ours."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback, ProgressBarCallback
from stable_baselines3.common.logger import HumanOutputFormat, KVWriter, Logger
from stable_baselines3.common.utils import configure_logger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams

from rlkit.algorithms.evaluate import Evaluation, Evaluator, acting, measures, named
from rlkit.errors import UserError
from rlkit.run.folder import checkpoints

NUMBER = (int, float, np.number)
_numbers = itertools.count()  # two writers of one second and process have files of their own


class JsonlWriter(KVWriter):
    """One JSON object a log line, in ``metrics.jsonl``.

    Wall times (``time/...``) stay out: the file of a resumed run equals that of one never interrupted, byte for byte.
    What is not finite is null: JSON has no word for it.
    """

    def __init__(self, path: Path, position: int | None = None):
        """``position``: bytes to keep of an existing file; what a killed run wrote after its checkpoint is cut off.

        Raises :class:`UserError` where the file cannot be written, or is shorter than ``position``.
        """
        self.path = path
        try:
            self.file = path.open("ab", buffering=0)  # what a write could not place is known at once
            self.position = self.file.seek(0, os.SEEK_END)
            if position is not None:
                if self.position < position:
                    raise UserError(f"{path} has {self.position} bytes, expected the {position} written before")
                self.position = self.file.truncate(position)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append a line.  Raises :class:`UserError` where the disk refuses, or somebody removed the file."""
        values = {k: float(v) for k, v in key_values.items() if not k.startswith("time/") and isinstance(v, NUMBER)}
        line = {"step": step, **{k: values[k] if math.isfinite(values[k]) else None for k in sorted(values)}}
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        self._require_there()
        try:
            if self.file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror or error}; rlkit resume goes on from the last checkpoint"
            ) from error
        self.position += len(data)

    def sync(self) -> int:
        """Flush to disk what was written; returns its bytes.  A checkpoint that counts on them comes after."""
        self._require_there()
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        return self.position

    def _require_there(self) -> None:
        """A file that was removed can still be written to; nobody would find it."""
        try:
            there = os.path.samestat(self.path.stat(), os.fstat(self.file.fileno()))
        except OSError:
            there = False
        if not there:
            raise UserError(f"{self.path} was deleted or replaced while the run was writing it, expected it to stay")

    def close(self) -> None:
        self.file.close()


class TensorBoardWriter(KVWriter):
    """Scalars to TensorBoard; events at or after ``purge_step`` of an interrupted run are hidden.

    Written in this thread, a log line at a time.  They are for looking at: where they cannot be written, one sentence
    says so and the run goes on without them.
    """

    def __init__(self, folder: Path, purge_step: int | None = None):
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / f"{name}.{next(_numbers):06d}"  # they are read in the order of their names
        self.failed = False
        events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            events.append(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self._append(events)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        numbers = [(key, float(value)) for key, value in sorted(key_values.items()) if isinstance(value, NUMBER)]
        values = [Summary.Value(tag=key, simple_value=number) for key, number in numbers]
        self._append([Event(wall_time=time.time(), step=step, summary=Summary(value=values))])

    def conclude(self, settings: Mapping[str, Any], results: Mapping[str, float], step: int) -> None:
        """Settings, and logged results to sort by, for TensorBoard's page of hyperparameters."""
        plain = {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in settings.items()}
        summaries = hparams(plain, dict(results))  # of the experiment, the run's begin and its end
        self._append([Event(wall_time=time.time(), step=step, summary=summary) for summary in summaries])

    def _append(self, events: list[Any]) -> None:
        if self.failed:
            return
        buffer = io.BytesIO()
        for event in events:
            RecordWriter(buffer).write(event.SerializeToString())
        try:
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("ab") as file:
                file.write(buffer.getvalue())
        except OSError as error:
            self.failed = True
            reason = error.strerror or error
            print(f"rlkit: cannot write {self.path}: {reason}; going on without TensorBoard", file=sys.stderr)

    def close(self) -> None:
        """Nothing is held open."""


def make_logger(verbose: int, tensorboard_log: str | None, tag: str, reset: bool) -> Logger:
    """SB3's ``configure_logger``, but that without a folder for logs none is left among the temporary ones."""
    if tensorboard_log is not None:
        return configure_logger(verbose, tensorboard_log, tag, reset)
    return Logger(None, [HumanOutputFormat(sys.stdout)] if verbose else [])


def passed(model: Any, every: int) -> bool:
    """Whether the latest step of ``model``, or of its environments, reached a multiple of ``every`` (never, for 0)."""
    steps, at_once = model.num_timesteps, getattr(model, "steps_at_once", model.n_envs)
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


class Spaced(BaseCallback):
    """A callback with nothing to do but at multiples of ``every`` steps; 0: it is content with any.

    Beside callbacks of this kind alone, many steps may be done between two calls.
    """

    every = 0


def turns_of(hooks: BaseCallback, log_interval: int | None) -> list[int]:
    """Multiples of which steps a callback or the log must have its turn at."""
    inside = [hook for hook in leaves(hooks) if not isinstance(hook, CallbackList)]
    spaced = [hook.every for hook in inside if isinstance(hook, Spaced)]
    return [1] if len(spaced) < len(inside) else [every for every in (log_interval, *spaced) if every]


class OrderedLines(KVWriter):
    """Writers behind a line that is still being made: what comes after it waits for it."""

    def __init__(self, writers: Sequence[KVWriter]):
        self.writers = writers
        self.waiting: list[tuple[dict[str, Any], int]] | None = None

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        if self.waiting is not None:
            self.waiting.append((dict(key_values), step))
            return
        for writer in self.writers:
            writer.write(key_values, key_excluded, step)

    def hold(self) -> None:
        """Keep what is written from now on until :meth:`release`."""
        self.waiting = []

    def release(self, first: dict[str, Any], step: int) -> None:
        """Write the line that was waited for, then those behind it."""
        behind, self.waiting = self.waiting or [], None
        for values, at in [(first, step), *behind]:
            self.write(values, {}, at)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


class Evaluate(Spaced):
    """Every ``every`` steps: ``eval/...`` to the log, and the per-episode returns to :attr:`history`.

    Until an rlkit agent has learnt anything it is not evaluated: that would measure one untrained policy many times.
    With the run's ``lines`` and a ``pool``, learning goes on while a copy of the policy is evaluated: the same log.
    """

    def __init__(
        self, evaluator: Evaluator, every: int, lines: OrderedLines | None = None, pool: Executor | None = None
    ):
        super().__init__()
        self.evaluator, self.every, self.lines, self.pool = evaluator, every, lines, pool
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0  # that learning waited
        self.answer: Callable[[], Evaluation] | None = None  # of the next time, where somebody makes it
        self.pending: tuple[int, Callable[[], Evaluation]] | None = None

    def _on_step(self) -> bool:
        if passed(self.model, self.every) and getattr(self.model, "has_learnt", True):
            self.settle()
            self.pending = self.num_timesteps, self.answer or self._begun()
            self.answer = None
            if self.lines is not None:
                self.lines.hold()
            if self.pool is None:
                self.settle()
        return True

    def _begun(self) -> Callable[[], Evaluation]:
        index = self.num_timesteps
        if self.pool is None:
            return lambda: self.evaluator(self.model, index=index)
        return self.pool.submit(self.evaluator, acting(self.model), index=index).result

    def settle(self) -> None:
        """Wait for an evaluation that has begun, and write what it found."""
        if self.pending is None:
            return
        started, (step, answer) = time.perf_counter(), self.pending
        self.pending = None
        found = answer()
        returns = {f"{name}s": v.tolist() for name, v in found.samples().items() if name != "score"}
        self.history.append({"step": step, **returns, **found.summary()})
        told = {f"eval/{key}": value for key, value in found.summary().items()}
        if self.lines is not None:
            self.lines.release(told, step)
        else:
            for key, value in told.items():
                self.logger.record(key, value)
            self.logger.dump(step)
        self.seconds += time.perf_counter() - started


class EndWhere(Spaced):
    """Ends training after an evaluation of ``evaluate`` with which ``wanted(history)`` is True."""

    def __init__(self, evaluate: Evaluate, wanted: Callable[[list[dict[str, Any]]], bool]):
        super().__init__()
        self.evaluate, self.wanted, self.every = evaluate, wanted, evaluate.every
        self.ended, self.seen = False, 0

    def met(self) -> bool:
        if len(self.evaluate.history) > self.seen:
            self.seen = len(self.evaluate.history)
            self.ended = self.wanted(self.evaluate.history)
        return self.ended

    def _on_step(self) -> bool:
        return not self.met()


class StopOnSignal(Spaced):
    """Ends training between two steps once ``stop(number)`` was called, as from a signal handler."""

    def __init__(self) -> None:
        super().__init__()
        self.signal = 0
        self.waiting = False  # for a roll-out to end, so that a checkpoint can be exact

    def stop(self, number: int) -> None:
        self.signal = number

    def _on_step(self) -> bool:
        return self.waiting or not self.signal


class Checkpoint(Spaced):
    """Every ``every`` steps: write a checkpoint, then drop all but the newest ``keep``.

    An algorithm that collects roll-outs is written between two of them, where nothing is half done; a signal waits for
    that moment.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        extra: Any,
        stopper: StopOnSignal | None = None,
        keep: int = 2,
        saved: Callable[[], Any] | None = None,
    ):
        """``extra()`` is what a checkpoint holds beside the agent; ``saved()`` is called once one is written."""
        super().__init__()
        self.folder, self.every, self.extra, self.stopper, self.keep = folder, every, extra, stopper, keep
        self.saved = saved
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
        # later ones, which could not be read, are written anew when the run comes there
        for old in [found for found in checkpoints(self.folder) if found <= path][: -self.keep]:
            with contextlib.suppress(OSError):  # one too many does no harm
                old.unlink()
        if self.saved is not None:
            self.saved()
        self.seconds += time.perf_counter() - started
        return path


FIRST_LINE, LINES = 2.0, 60.0  # seconds until the first line of progress where no bar is shown, and between two


class Progress(Spaced):
    """Steps per second, time left and, where there is an evaluation, its latest verdict: a bar on a terminal and in a
    notebook, else a line after two seconds and one a minute, which begins with ``name``."""

    def __init__(self, evaluation: Evaluate | None = None, name: str | None = None):
        super().__init__()
        self.evaluation = evaluation
        self.name = name
        self.bar: Any = None

    def _on_training_start(self) -> None:
        self.stop()  # a training that broke off may have left one
        name = getattr(self.model, "name", type(self.model).__name__)
        defaults = getattr(self.model, "defaults", None)
        self.unit = defaults.unit if defaults is not None else "steps"
        self.total, done = self.model._total_timesteps, self.model.num_timesteps
        self.first, self.begun = done, math.inf  # set at the first step, which may prepare much that the others find
        self.label = self.name or name
        if shows_bars():
            self.bar = _bar(self.unit)
            self.task = self.bar.add_task(name, total=self.total, completed=done, rate=0.0, latest="")
            self.bar.start()

    def _on_step(self) -> bool:
        now = time.perf_counter()
        if self.begun == math.inf:
            self.begun, self.first = now, self.model.num_timesteps
            self.due = now + (FIRST_LINE if self.bar is None else 0.0)
        if now >= self.due:
            self.due = now + (LINES if self.bar is None else 0.25)
            self._show(now)
        return True

    def _show(self, now: float) -> None:
        latest = ""
        if self.evaluation is not None and self.evaluation.history:
            entry = self.evaluation.history[-1]
            found = ((key, entry[key]) for key in measures(entry))
            latest = ", ".join(f"{key.replace('_', ' ')} {value:.{named(key, value)[1]}f}" for key, value in found)
        done = self.model.num_timesteps
        rate = (done - self.first) / max(now - self.begun, 1e-9)
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=rate, latest=latest)
            return
        left = f", {timedelta(seconds=round((self.total - done) / rate))} left" if rate > 0 else ""
        said = f"{done:,} of {self.total:,} {self.unit}, {rate:.0f} {self.unit}/s{left}"
        # in one piece, for runs of a sweep share a terminal
        print(f"{self.label}: {said}{latest and ', '}{latest}\n", end="", flush=True)

    def _on_training_end(self) -> None:
        if self.bar is not None:
            self._show(time.perf_counter())
        self.stop()

    def stop(self) -> None:
        """Close the bar and give the cursor back; once is enough."""
        bar, self.bar = self.bar, None
        if bar is not None:
            bar.stop()


def shows_bars() -> bool:
    """Whether what is printed is seen on a terminal or in a notebook, where a line can be drawn anew."""
    from rich import get_console

    console = get_console()
    return console.is_terminal or console.is_jupyter


def _bar(unit: str) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} " + f"{unit}/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[latest]}"),
    )
    return Bar(*columns, refresh_per_second=4)


@contextmanager
def counting(name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar of ``total`` units, open inside; yields what moves it to a number of them.  Elsewhere, one line."""
    if not shows_bars():
        print(f"{name}: {total:,} {unit}", flush=True)
        yield lambda done: None
        return
    bar, begun = _bar(unit), time.perf_counter()
    task = bar.add_task(name, total=total, rate=0.0, latest="")

    def move(done: int) -> None:
        bar.update(task, completed=done, rate=done / max(time.perf_counter() - begun, 1e-9))

    with bar:
        yield move


def leaves(hook: BaseCallback) -> list[BaseCallback]:
    """``hook`` and all that it calls."""
    inside = list(hook.callbacks) if isinstance(hook, CallbackList) else []
    if isinstance(hook, EventCallback) and hook.callback is not None:
        inside.append(hook.callback)
    return [hook, *(leaf for one in inside for leaf in leaves(one))]


@contextmanager
def closing_bars(hooks: Callable[[], BaseCallback | None]) -> Iterator[None]:
    """Close the bars among ``hooks()``, SB3's own too, when what is inside raises; SB3 closes them at the end alone."""
    try:
        yield
    except BaseException:
        found = hooks()
        for hook in leaves(found) if found is not None else []:
            if isinstance(hook, Progress):
                hook.stop()
            elif isinstance(hook, ProgressBarCallback) and hasattr(hook, "pbar"):
                hook.pbar.close()
        raise
