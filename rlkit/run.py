"""One training run, from its configuration to ``result.json``; and the same run continued after a kill.

The folder holds ``config.yaml``, ``metrics.jsonl``, TensorBoard events, ``checkpoints/``, the artefact ``model.rlk``
and ``result.json``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import KVWriter, Logger

from rlkit import registry
from rlkit.callbacks import (
    Checkpoint,
    Evaluate,
    JsonlWriter,
    Log,
    Progress,
    StopOnSignal,
    TensorBoardWriter,
    checkpoints,
    episodes_bar,
)
from rlkit.checkpoint import write_atomically
from rlkit.errors import ArtefactError, UserError
from rlkit.evaluate import Evaluation, Evaluator
from rlkit.hyperparameters import check_seed_and_device, make_config
from rlkit.online import OnlineAlgorithm
from rlkit.persistent import Persistent
from rlkit.report import add_best, add_final, as_json, opening, sentence, summarise

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a scheduler sends before it kills


def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse an ``out`` that a run must not be written into, before minutes are spent on its data.

    Raises :class:`UserError` for a file, a folder that is not empty without ``overwrite``, or one that is no run.
    """
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"out={out} cannot be written: {path} is a file, expected a folder")
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise UserError(
                f"out={out} exists and is not empty; pass another out=, overwrite=true, or rlkit resume {out}"
            )
        if not (out / "config.yaml").exists():
            raise UserError(f"out={out} is not empty and not a run; overwrite=true would delete foreign files")


def prepare_folder(out: Path, overwrite: bool) -> None:
    """Make ``out`` an empty folder.  Only a former run is ever emptied, and only with ``overwrite``."""
    check_folder(out, overwrite)
    try:
        if out.exists():
            shutil.rmtree(out)
        (out / "checkpoints").mkdir(parents=True)
    except OSError as error:
        raise UserError(f"out={out} cannot be written: {error.strerror}") from error


def train(config: DictConfig) -> int:
    """Run ``config`` (from :func:`rlkit.config.compose_config`); returns the exit code."""
    out = _own_folder(Path(config.out))
    torch.set_num_threads(config.threads)
    check_folder(out, config.overwrite)
    agent = build(config)
    prepare_folder(out, config.overwrite)
    write_atomically(out / "config.yaml", OmegaConf.to_yaml(config).encode())
    return _Session(config, agent, out).run()


def _own_folder(out: Path) -> Path:
    """``out`` for the first process of a ``torchrun``; the others, which report nothing, get a copy to throw away."""
    if int(os.environ.get("RANK", "0")) == 0:
        return out
    own = Path(tempfile.mkdtemp()) / "run"
    if (out / "config.yaml").is_file():
        shutil.copytree(out, own)
    return own


def resume(out: Path, *, total_timesteps: int | None = None, progress_bar: bool = True) -> int:
    """Continue the run in ``out`` from its newest readable checkpoint, or from the start where there is none."""
    if not (out / "config.yaml").is_file():
        raise UserError(f"{out} is not a run: expected a folder with config.yaml, written by rlkit train")
    config = OmegaConf.create((out / "config.yaml").read_text())
    assert isinstance(config, DictConfig)
    config.progress_bar = progress_bar
    if total_timesteps is not None:
        config.total_timesteps = total_timesteps
    torch.set_num_threads(config.threads)
    agent = build(config)
    return _Session(config, agent, _own_folder(out)).run(resuming=True)


def build(config: DictConfig) -> Persistent:
    """The agent of a configuration, with what it learns from resolved and announced."""
    cls = registry.agent_class(config.agent.name)
    settings: Any = OmegaConf.to_container(config.env.kwargs)
    record = replace(registry.record(config.env.name), env_kwargs=settings)
    if config.eval_episodes is None:
        config.eval_episodes = record.episodes
    chosen: Any = OmegaConf.to_container(config.agent)
    hyperparameters = {key: value for key, value in chosen.items() if key != "name"}
    make_config(cls, hyperparameters)  # refuse what is out of range before minutes are spent on data
    check_seed_and_device(config.seed, config.device)
    bar = config.progress_bar and sys.stderr.isatty()
    return cls.from_run(
        record, config.env, seed=config.seed, device=config.device, progress=bar, hyperparameters=hyperparameters
    )


@dataclass
class _Session:
    """One process's part of a run."""

    config: DictConfig
    agent: Any  # a Persistent that learns
    out: Path

    def run(self, resuming: bool = False) -> int:
        config, agent, out = self.config, self.agent, self.out
        evaluator = agent.evaluator(config.eval_episodes, config.seed)
        self.evaluate = Evaluate(evaluator, config.eval_every) if evaluator is not None else None
        self.finishing = False  # all that is left can be done again, and need not be waited for
        print("".join(f"{line}\n" for line in opening(agent, config, evaluator)), end="", flush=True)
        extra = self._restore() if resuming else {}
        if self.evaluate is not None:
            self.evaluate.history = list(extra.get("evaluations", []))
        self.seconds_before = float(extra.get("seconds", 0.0))
        self.jsonl = JsonlWriter(out / "metrics.jsonl", extra.get("metrics_bytes", 0))
        writers: list[KVWriter] = [self.jsonl]
        if config.tensorboard:
            writers.append(TensorBoardWriter(out / "tensorboard", agent.num_timesteps + 1 if resuming else None))
        logger = Logger(str(out), output_formats=writers)
        agent.set_logger(logger)
        self.started = time.perf_counter()
        stopper = StopOnSignal()
        saver = Checkpoint(out / "checkpoints", config.checkpoint_every, self._extra, stopper)
        saver.init_callback(agent)  # it also writes where nothing is left to learn
        hooks: list[BaseCallback] = [c for c in (self.evaluate, saver, stopper) if c is not None]
        log_interval: int | None = config.log_every
        if isinstance(agent, OnlineAlgorithm):  # SB3 counts episodes or roll-outs there
            hooks.insert(0, Log(config.log_every))
            log_interval = None
        if config.progress_bar:
            hooks.append(Progress(self.evaluate))
        previous = {number: signal.signal(number, partial(self._interrupt, stopper)) for number in SIGNALS}
        try:
            remaining = config.total_timesteps - agent.num_timesteps
            if remaining > 0:
                agent.learn(remaining, CallbackList(hooks), log_interval=log_interval, reset_num_timesteps=False)
            if stopper.signal:
                path = saver.latest() or saver.save()
                print(f"interrupted at step {agent.num_timesteps}, saved {path}\ncontinue with: rlkit resume {out}")
                return 128 + stopper.signal
            agent.write_log()  # what came after the last full interval
            saver.latest() or saver.save()
            agent.save(out / "model.rlk")
            seconds = self._seconds()
            result = summarise(agent, config, self._history(), evaluator)
            result |= {"seconds": round(seconds, 2), "seconds_saving": round(saver.seconds, 3)}
            result["seconds_evaluating"] = round(self.evaluate.seconds, 2) if self.evaluate is not None else 0.0
            for name in {agent.defaults.unit, *({"updates"} & result.keys())}:
                result[f"{name}_per_second"] = round(result[name] / seconds, 2)
            if evaluator is not None:
                try:
                    add_final(result, self._final(evaluator, stopper), evaluator)
                except KeyboardInterrupt:
                    print("interrupted in the final evaluation, the training is saved")
                    print(f"continue with: rlkit resume {out}")
                    return 128 + (stopper.signal or signal.SIGINT)
            add_best(result)
            write_atomically(out / "result.json", as_json(result))
            print(sentence(result, out))
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            logger.close()
            if evaluator is not None:
                evaluator.close()
        return 0

    def _final(self, evaluator: Evaluator, stopper: StopOnSignal) -> Evaluation:
        """The evaluation after the last step, on the log too.  A signal ends it at once: it is repeated on resuming."""
        config, agent = self.config, self.agent
        evaluator.episodes = config.final_episodes
        bar = episodes_bar("final evaluation", config.final_episodes) if config.progress_bar else nullcontext()
        self.finishing = True
        if stopper.signal:  # it came while the training was being saved
            raise KeyboardInterrupt
        with bar as evaluator.on_progress:
            found = evaluator(agent, index=0)
        evaluator.on_progress, self.finishing = None, False
        for key, value in found.summary().items():
            agent.logger.record(f"final/{key}", value)
        agent.logger.dump(agent.num_timesteps)
        return found

    def _interrupt(self, stopper: StopOnSignal, number: int, frame: FrameType | None) -> None:
        again = stopper.signal or self.finishing
        stopper.stop(number)
        if again:  # a second Ctrl-C does not wait for the step to end
            raise KeyboardInterrupt
        os.write(2, b"\nstopping after this step; once more to stop at once\n")  # print() might be what is interrupted

    def _restore(self) -> dict[str, Any]:
        problems, saved = [], self.out / "checkpoints"
        for path in reversed(checkpoints(saved)):
            try:
                extra = self.agent.restore(path)
            except ArtefactError as error:
                problems.append(str(error))
                continue
            print(f"resuming at step {self.agent.num_timesteps} from {path}")
            return extra
        if problems:
            raise ArtefactError(f"no readable checkpoint in {saved}: {problems[0]}")
        print(f"no checkpoint in {saved} yet; starting from step 0")
        return {}

    def _history(self) -> list[dict[str, Any]]:
        return self.evaluate.history if self.evaluate is not None else []

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def _extra(self) -> dict[str, Any]:
        return {"evaluations": self._history(), "metrics_bytes": self.jsonl.position, "seconds": self._seconds()}
