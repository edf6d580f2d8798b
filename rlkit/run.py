"""One training run, from its configuration to ``result.json``; and the same run continued after a kill.

The folder holds ``config.yaml``, ``metrics.jsonl``, TensorBoard events, ``checkpoints/``, the artefact ``model.rlk``
and ``result.json``.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import KVWriter, Logger

from rlkit import folder, registry
from rlkit.callbacks import (
    Checkpoint,
    Evaluate,
    JsonlWriter,
    Log,
    Progress,
    StopOnSignal,
    TensorBoardWriter,
)
from rlkit.checkpoint import read_artefact, versions
from rlkit.config import read_config
from rlkit.errors import ArtefactError, UserError
from rlkit.evaluate import Evaluation
from rlkit.folder import checkpoints
from rlkit.hyperparameters import check_seed_and_device, make_config
from rlkit.interrupt import AGAIN, handling, stop, tell
from rlkit.machine import processor
from rlkit.online import OnlineAlgorithm
from rlkit.persistent import Persistent
from rlkit.stats import bootstrap_interval, decimals

# Settings on which no number of a run depends: they may differ from the checkpoint's.  Data is known by its hash.
FREE = ("out", "overwrite", "progress_bar", "tensorboard", "checkpoint_every", "env.path", "env.source")
NOTED = ("device", "threads")  # these may too, but sums may round differently: the run says so


def train(config: DictConfig) -> int:
    """Run ``config`` (from :func:`rlkit.config.compose_config`); returns the exit code."""
    out = _own_folder(folder.folder_of(config.out))
    folder.check_folder(out, config.overwrite)
    torch.set_num_threads(config.threads)
    agent = build(config)
    with _writing(out):
        folder.begin(out, config.overwrite)
        return _Session(config, agent, out).run()


def resume(out: Path, **changes: Any) -> int:
    """Continue the run in ``out`` from its newest readable checkpoint, or from the start where there is none.

    ``changes``: settings that may differ from the run's: ``total_timesteps`` (more), ``progress_bar``, ``device``,
    ``threads``.  Raises :class:`UserError` for a folder that is no run, is being written by another process, or whose
    configuration is not that of its checkpoint.
    """
    if not folder.marked(out):
        _config_of(out)  # before anything is written beside it
    out = _own_folder(out)
    with _writing(out):
        folder.reopen(out)
        before, config = _config_of(out), _config_of(out, changes)
        if config.total_timesteps < before.total_timesteps:
            raise UserError(
                f"total_timesteps={config.total_timesteps} is less than the {before.total_timesteps} of {out}, "
                "expected more; a run cannot be shortened"
            )
        if (out / "model.rlk").exists() and not checkpoints(out / "checkpoints"):
            raise UserError(
                f"{out} has a model.rlk and no checkpoint to go on from, expected one in {out / 'checkpoints'}; "
                "begin again with rlkit train, into another folder or with overwrite=true"
            )
        torch.set_num_threads(config.threads)
        return _Session(config, build(config), out).run(resuming=True)


def _config_of(out: Path, changes: Mapping[str, Any] | None = None) -> DictConfig:
    if not (out / "config.yaml").is_file():
        former = f"; the run before it is kept in {out / folder.FORMER}" if (out / folder.FORMER).exists() else ""
        raise UserError(f"{out} is not a run: expected a folder with config.yaml, written by rlkit train{former}")
    return read_config(out / "config.yaml", changes)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Hold ``out``'s lock, and say where a former run is if the new one ended before its first checkpoint."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out} cannot be written: {error.strerror}") from error
    with folder.locked(out):
        try:
            yield
        except UserError as error:
            if (out / folder.FORMER).exists():
                raise type(error)(f"{error}; the run before this one is in {out / folder.FORMER}") from error
            raise


def _own_folder(out: Path) -> Path:
    """``out`` for the first process of a ``torchrun``; the others, which report nothing, get a copy to throw away."""
    if int(os.environ.get("RANK", "0")) == 0:
        return out
    own = Path(tempfile.mkdtemp()) / "run"
    if (out / "config.yaml").is_file():
        shutil.copytree(out, own, ignore=shutil.ignore_patterns("*.tmp"))
    return own


def build(config: DictConfig) -> Persistent:
    """The agent of a configuration, with what it learns from resolved and announced."""
    cls = registry.agent_class(config.agent.name)
    settings: Any = OmegaConf.to_container(config.env.kwargs)
    record = registry.configured(registry.record(config.env.name), settings)
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
        extra = self._restore() if resuming else {}
        self.changes = list(extra.get("changes", [])) + self._changed(extra)
        folder.write(out, "config.yaml", OmegaConf.to_yaml(config).encode())
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
        saver = Checkpoint(
            out / "checkpoints", config.checkpoint_every, self._extra, stopper, saved=partial(folder.forget_former, out)
        )
        saver.init_callback(agent)  # it also writes where nothing is left to learn
        hooks: list[BaseCallback] = [c for c in (self.evaluate, saver, stopper) if c is not None]
        log_interval: int | None = config.log_every
        if isinstance(agent, OnlineAlgorithm):  # SB3 counts episodes or roll-outs there
            hooks.insert(0, Log(config.log_every))
            log_interval = None
        if config.progress_bar:
            hooks.append(Progress(self.evaluate))
        handlers = ExitStack()
        handlers.enter_context(handling(partial(self._interrupt, stopper)))
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
            final = None
            if evaluator is not None:
                evaluator.episodes = config.final_episodes
                final = evaluator(agent, index=0)
            result = self._result(final, seconds, saver.seconds)
            if self.changes:
                result["changes"] = self.changes
            folder.write(out, "result.json", (json.dumps(result, indent=1) + "\n").encode())
            print(sentence(result, out))
        finally:
            handlers.close()
            logger.close()
            if evaluator is not None:
                evaluator.close()
        return 0

    def _interrupt(self, stopper: StopOnSignal, number: int, frame: FrameType | None) -> None:
        if stopper.signal:  # a second Ctrl-C does not wait for the step to end
            stop(number, frame)
        tell(f"interrupted, ending with a checkpoint after the step, roll-out or evaluation that runs now ({AGAIN})")
        stopper.stop(number)

    def _restore(self) -> dict[str, Any]:
        problems, saved, log = [], self.out / "checkpoints", self.out / "metrics.jsonl"
        written = log.stat().st_size if log.is_file() else 0
        for path in reversed(checkpoints(saved)):
            try:
                extra = self.agent.restore(path)
                self._require_same(path, extra)
                if written < extra.get("metrics_bytes", 0):
                    raise ArtefactError(
                        f"{path}: counts on {extra['metrics_bytes']} bytes of {log}, which has {written}"
                    )
            except ArtefactError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                print(f"{problem}; going on from an older checkpoint")
            print(f"resuming at step {self.agent.num_timesteps} from {path}")
            return extra
        if problems:
            raise ArtefactError(f"no readable checkpoint in {saved}: {problems[0]}")
        print(f"no checkpoint in {saved} yet; starting from step 0")
        return {}

    def _require_same(self, path: Path, extra: Mapping[str, Any]) -> None:
        """Raise :class:`UserError` where the checkpoint is of other settings than those that would be claimed."""
        now, before = _settings(self.config), extra.get("config")
        if before is None:  # written before checkpoints held the run's settings
            manifest = read_artefact(path)[0]
            kwargs = {} if manifest["env"] is None else _flat(manifest["env"]["kwargs"], "env.kwargs.")
            before = {"seed": manifest["seed"], **kwargs}
        for key in sorted({*before} & {*now}):
            more = key == "total_timesteps" and now[key] > before[key]
            if before[key] != now[key] and not more and key not in NOTED:
                raise UserError(
                    f"{path}: was made with {key}={before[key]}, expected that in config.yaml, not {now[key]}; "
                    "a run goes on with the settings it began with"
                )

    def _changed(self, extra: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What :data:`NOTED` settings are others than the checkpoint's, said on the console."""
        before = extra.get("config", {})
        changed = [key for key in NOTED if key in before and before[key] != self.config[key]]
        for key in changed:
            print(f"{key} was {before[key]} and is {self.config[key]}: sums may round differently from here on")
        step = self.agent.num_timesteps
        return [{"step": step, "setting": key, "from": before[key], "to": self.config[key]} for key in changed]

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def _extra(self) -> dict[str, Any]:
        history = self.evaluate.history if self.evaluate is not None else []
        return {
            "evaluations": history,
            "metrics_bytes": self.jsonl.sync(),
            "seconds": self._seconds(),
            "config": _settings(self.config),
            "changes": self.changes,
        }

    def _result(self, final: Evaluation | None, seconds: float, saving: float) -> dict[str, Any]:
        agent, config = self.agent, self.config
        history = self.evaluate.history if self.evaluate is not None else []
        result: dict[str, Any] = {
            "agent": agent.name,
            "env": config.env.name,
            "seed": config.seed,
            "updates": agent.num_timesteps,
            **agent.result(),
            "config": OmegaConf.to_container(config),
            "seconds": round(seconds, 2),
            "seconds_evaluating": round(self.evaluate.seconds, 2) if self.evaluate is not None else 0.0,
            "seconds_saving": round(saving, 3),
            "updates_per_second": round(agent.num_timesteps / seconds, 2),
            "machine": {"processor": processor(), "system": platform.system(), "threads": config.threads},
            "versions": versions(),
            "evaluations": history,
        }
        if final is not None:
            result["final"] = {**final.summary(), "episodes": len(final.returns), "returns": final.returns.tolist()}
            key, sample = ("score", final.scores) if final.scores is not None else ("return", final.returns)
            result["final"][f"{key}_interval95"] = list(bootstrap_interval(sample))
        if history:
            key = "score" if "score" in history[-1] else "return"
            values = [entry[key] for entry in history]
            result["last10"] = float(np.mean(values[-10:]))
            result["best"] = float(np.max(values))
            result["measure"] = key
        return result


def _settings(config: DictConfig) -> dict[str, Any]:
    """What a checkpoint remembers of ``config``, as JSON gives it back: ``{"agent.batch_size": 256, ...}``."""
    flat = _flat(json.loads(json.dumps(OmegaConf.to_container(config))))
    return {key: value for key, value in flat.items() if key not in FREE}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def sentence(result: dict[str, Any], out: Path) -> str:
    """The closing lines of a run: what was measured, on what data."""
    lines = []
    if "final" in result:
        final = result["final"]
        key = "score" if "score" in final else "return"
        low, high = final[f"{key}_interval95"]
        name = "normalised score" if key == "score" else "return"
        digits = 1 if key == "score" else decimals(final[key])
        interval = f"95 % interval {low:.{digits}f} to {high:.{digits}f} over {final['episodes']} episodes; one seed"
        lines.append(f"{name} {final[key]:.{digits}f} ({interval})")
        if "gap" in final:
            lines.append(f"gap to the solver's solutions {final['gap']:.2f} %")
    if "last10" in result:
        count = len(result["evaluations"])
        digits = 1 if result["measure"] == "score" else decimals(result["last10"])
        last = f"mean of the last {min(10, count)} of {count} evaluations {result['last10']:.{digits}f}"
        lines.append(f"{last}, best {result['best']:.{digits}f}")
    if "score_mean" in result.get("dataset", {}):
        lines.append(f"mean of the dataset's episodes {result['dataset']['score_mean']:.1f}")
    if "source_sentence" in result:
        lines.append(f"data: {result['source_sentence']}")
    lines.append(f"written to {out}")
    return "\n".join(lines)
