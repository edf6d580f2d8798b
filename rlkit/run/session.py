"""One training run, from its configuration to ``result.json``; and the same run continued after a kill.

The folder holds ``config.yaml``, ``metrics.jsonl``, TensorBoard events, ``checkpoints/``, the artefact ``model.rlk``
and ``result.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import KVWriter, Logger

from rlkit.algorithms.base import Persistent
from rlkit.algorithms.callbacks import (
    Checkpoint,
    EndWhere,
    Evaluate,
    JsonlWriter,
    Log,
    OrderedLines,
    Progress,
    StopOnSignal,
    TensorBoardWriter,
    episodes_bar,
)
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.algorithms.evaluate import Evaluation, Evaluator, acting, measures
from rlkit.algorithms.finetune import Acting, FineTuned, FineTuneSettings, begin
from rlkit.algorithms.hyperparameters import check_seed_and_device, make_config
from rlkit.algorithms.learner import Learner, Trainer
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.algorithms.online import OnlineAlgorithm
from rlkit.algorithms.verdict import can_judge, judge
from rlkit.config import agent_of, data_of, env_record, first_weights, read_config
from rlkit.errors import ArtefactError, UserError, refusing, shown
from rlkit.run import folder
from rlkit.run.folder import checkpoints
from rlkit.run.interrupt import AGAIN, handling, stop, tell
from rlkit.run.reading import HANDLING
from rlkit.run.report import add_best, add_final, as_json, opening, sentence, summarise
from rlkit.run.trackers import TrackerWriter

# Settings on which no number of a run depends: they may differ from the checkpoint's.  Data is known by its hash.
FREE = (*HANDLING, "env.path")
NOTED = ("device", "threads", "engine", "precision")  # these may too, but sums may round differently: the run says so


FIRST = "init.rlk"  # the networks that a run begins with, where they are another's
PRUNED = 4  # what a run returns that ``watch`` ended
Watch = Callable[[list[dict[str, Any]]], bool]


def train(config: DictConfig, watch: Watch | None = None) -> int:
    """Run ``config`` (from :func:`rlkit.config.compose_config`); returns the exit code.

    With ``resume=true`` a run of these settings that was begun in its folder goes on, and one that has ended is left.

    ``watch``: told of the evaluations so far, ends the run where it returns True, with :data:`PRUNED`.
    """
    out = folder.folder_of(config.out)
    if config.resume and begun(out):
        changes = going_on(out, config)
        if changes is None:
            print(f"{out} has ended already")
            return 0
        return resume(out, watch, **changes)
    out = _own_folder(out)
    folder.check_folder(out, config.overwrite)
    torch.set_num_threads(config.threads)
    agent = build(config)
    with writing(out):
        folder.begin(out, config.overwrite)
        if has_first(config, agent):
            agent.save(out / FIRST)
        return Session(config, agent, out, watch=watch).run()


def resume(out: Path, watch: Watch | None = None, **changes: Any) -> int:
    """Continue the run in ``out`` from its newest readable checkpoint, or from the start where there is none.

    ``changes``: settings that may differ from the run's: ``total_timesteps`` (more), ``progress_bar``, ``device``,
    ``threads``.  Raises :class:`UserError` for a folder that is no run, is being written by another process, or whose
    configuration is not that of its checkpoint.
    """
    if not folder.marked(out):
        _config_of(out)  # before anything is written beside it
    out = _own_folder(out)
    with writing(out):
        config = reopened(out, changes, alone=True)
        torch.set_num_threads(config.threads)
        first = out / FIRST if (out / FIRST).is_file() else None
        return Session(config, build(config, first=first), out, watch=watch).run(resuming=True)


def prepare(configs: Sequence[DictConfig]) -> list[bool]:
    """Check the folders of runs that other processes will make, and move former runs aside; which have ended already.

    Such a process may begin more than once, and what it finds then is its own.  Raises :class:`UserError` as
    :func:`train` does, before anything is moved.
    """
    ended = []
    for config in configs:
        out = folder.folder_of(config.out)
        going = config.resume and begun(out)
        ended.append(going and going_on(out, config) is None)
        if not going:
            folder.check_folder(out, config.overwrite)
    for config in configs:
        out = folder.folder_of(config.out)
        if config.overwrite and not config.resume and begun(out):
            with writing(out):
                folder.begin(out, config.overwrite)
    return ended


def begun(out: Path) -> bool:
    """Whether a run was begun in ``out``: it has its configuration."""
    return (out / "config.yaml").is_file()


def going_on(out: Path, config: DictConfig) -> dict[str, Any] | None:
    """Changes with which the run in ``out`` goes on as ``config`` asks; None where it has got there.

    Raises :class:`UserError` where it has other settings: it would not become the run that was asked for.
    """
    was, now = _settings(_config_of(out)), _settings(config)
    for key in sorted(was.keys() | now.keys()):
        above = [key[:end] for end, letter in enumerate(f"{key}.") if letter == "."]
        settled = any(now.get(name, 0) in (None, "auto") for name in above)  # by the run itself, once it has begun
        if was.get(key) != now.get(key) and not settled and key not in (*NOTED, "total_timesteps"):
            raise UserError(
                f"out={out} holds a run with {key}={shown(was.get(key))}, expected {shown(now.get(key))} to go on with "
                "resume=true; pass another out= or overwrite=true alone"
            )
    if (out / "result.json").is_file():
        with refusing(out / "result.json", "it is damaged"):
            reached = folder.read_result(out)["config"]["total_timesteps"]
            if reached >= config.total_timesteps:
                return None
    return {key: config[key] for key in ("total_timesteps", "progress_bar", *NOTED)}


def reopened(out: Path, changes: Mapping[str, Any], alone: bool = False) -> DictConfig:
    """The configuration of the run in ``out``, which the caller has locked, with ``changes``.

    ``alone``: a run that was one of a stack goes on by itself.  Raises :class:`UserError` as :func:`resume` does.
    """
    folder.reopen(out)
    before = _config_of(out)
    if alone and before.engine == "stacked":
        changes = {"engine": "auto", **changes}
    config = _config_of(out, changes)
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
    _require_same(out / "checkpoints", config)
    return config


def _require_same(saved: Path, config: DictConfig) -> None:
    """Raise :class:`UserError` where the newest readable checkpoint is of other settings than would be claimed.

    Asked before anything is built: a config that was altered may ask for any amount of memory.
    """
    now = _settings(config)
    for path in reversed(checkpoints(saved)):
        try:
            manifest = read_artefact(path)[0]
            with refusing(path, "its settings are damaged"):
                before = manifest["training"]["extra"].get("config")
                if before is None:  # written before checkpoints held the run's settings
                    kwargs = {} if manifest["env"] is None else _flat(manifest["env"]["kwargs"], "env.kwargs.")
                    before = {"seed": manifest["seed"], **_flat(manifest["config"], "agent."), **kwargs}
                before = {key: value for key, value in before.items() if key in now}
        except ArtefactError:
            continue  # said when it is restored
        for key, value in sorted(before.items()):
            more = key == "total_timesteps" and type(value) is int and now[key] > value
            unsettled = key == "eval_episodes" and now[key] is None
            if value != now[key] and not more and not unsettled and key not in NOTED:
                raise UserError(
                    f"{path}: was made with {key}={shown(value)}, expected that in config.yaml, not {shown(now[key])}; "
                    "a run goes on with the settings it began with"
                )
        return


def _config_of(out: Path, changes: Mapping[str, Any] | None = None) -> DictConfig:
    if not (out / "config.yaml").is_file():
        former = f"; the run before it is kept in {out / folder.FORMER}" if (out / folder.FORMER).exists() else ""
        raise UserError(f"{out} is not a run: expected a folder with config.yaml, written by rlkit train{former}")
    return read_config(out / "config.yaml", changes)


@contextmanager
def writing(out: Path) -> Iterator[None]:
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


def has_first(config: DictConfig, agent: Any) -> bool:
    """Whether a run begins with networks of another, which its folder keeps: the other may change or go."""
    return config.init is not None and isinstance(agent, OfflineAlgorithm)


def build(config: DictConfig, sources: dict[str, Any] | None = None, first: Path | None = None) -> Persistent:
    """The agent of a configuration, with what it learns from resolved and announced.

    ``sources``: what was resolved for other runs before, by the settings that decide it; filled here.  ``first``: the
    artefact to begin with; None: what ``init`` names.
    """
    cls = agent_of(config)
    record = env_record(config.env, cls.learns_from)
    if config.eval_episodes is None:
        config.eval_episodes = record.episodes
    chosen: Any = OmegaConf.to_container(config.agent)
    hyperparameters = {key: value for key, value in chosen.items() if key != "name"}
    make_config(cls, hyperparameters)  # refuse what is out of range before minutes are spent on data
    check_seed_and_device(config.seed, config.device)
    bar = config.progress_bar and sys.stderr.isatty()
    if issubclass(cls, FineTuned):
        source = _acting(cls, config, record, bar)
    else:
        source = _resolved(cls, config, record, bar, sources)
    options = {"seed": config.seed, "device": config.device, **hyperparameters}
    if config.init is not None and issubclass(cls, OfflineAlgorithm):
        agent = begin(cls, first or first_weights(config.init), source, **options)
    else:
        agent = cls.over(source, **options)
    agent.prepare(bar)
    if isinstance(agent, Learner):
        agent.engine = "auto" if config.engine == "stacked" else config.engine
        agent.tf32 = config.precision == "tf32"
    elif config.engine != "auto":
        raise UserError(f"engine={config.engine} is for agents that learn by updates alone, not for {agent.name}")
    return agent


def _resolved(cls: Any, config: DictConfig, record: Any, bar: bool, sources: dict[str, Any] | None) -> Any:
    """What an agent of class ``cls`` learns from; where it comes from is settled in ``config``."""
    sources = {} if sources is None else sources
    asked = f"{cls.resolve.__qualname__} {json.dumps(OmegaConf.to_container(config.env), sort_keys=True)}"
    if asked not in sources:
        sources[asked] = (cls.resolve(record, config.env, bar), config.env)
    source, config.env = sources[asked]
    return source


def _acting(cls: Any, config: DictConfig, record: Any, bar: bool) -> Acting:
    """What a run learns from that goes on by acting; where its data comes from is settled in ``config``."""
    env, data = data_of(config)
    settings = FineTuneSettings(**{f.name: config.finetune[f.name] for f in fields(FineTuneSettings)})
    dataset = super(FineTuned, cls).resolve(data, env, bar)
    config.finetune.data = env
    return Acting(dataset, record, settings)


def beside(agent: Any, evaluator: Evaluator) -> bool:
    """Whether evaluations are made beside learning, which a GPU does and a processor would have to share."""
    usual = isinstance(agent, Learner) and type(evaluator).measure is Evaluator.measure
    return usual and agent.device.type != "cpu"


FINAL = 0  # what a session yields when the final evaluation is next


@dataclass
class Session:
    """One process's part of a run."""

    config: DictConfig
    agent: Any  # a Persistent that learns
    out: Path
    pool: Executor = field(default_factory=lambda: ThreadPoolExecutor(1))  # of evaluations beside learning
    watch: Watch | None = None

    def __post_init__(self) -> None:
        self.evaluate: Evaluate | None = None
        self.finishing = False  # all that is left can be done again, and need not be waited for
        self.closing = False  # the final evaluation is next
        self.answer: Evaluation | None = None  # of the final evaluation, where somebody has made it already

    def run(self, resuming: bool = False) -> int:
        stopper = StopOnSignal()
        lessons = self.lessons(stopper, resuming)
        with handling(partial(self.interrupt, stopper)):
            while True:
                try:
                    most = next(lessons)
                except StopIteration as end:
                    return int(end.value)
                if most != FINAL:
                    self.agent.advance(most)

    def lessons(self, stopper: StopOnSignal, resuming: bool = False) -> Generator[int, None, int]:
        """The run but for its updates, which the caller does: yields how many until the next turn, :data:`FINAL`
        before the final evaluation; returns the exit code."""
        config, agent, out = self.config, self.agent, self.out
        evaluator = agent.evaluator(config.eval_episodes, config.seed)
        lines = OrderedLines([])
        pool = self.pool if evaluator is not None and beside(agent, evaluator) else None
        if evaluator is not None:
            self.evaluate = Evaluate(evaluator, config.eval_every, None if pool is None else lines, pool)
        print("".join(f"{line}\n" for line in opening(agent, config, evaluator)), end="", flush=True)
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
        if config.track is not None:
            writers.append(TrackerWriter(config.track, out, _settings(config), resuming))
        lines.writers = writers
        logger = Logger(str(out), output_formats=[lines])
        agent.set_logger(logger)
        self.started = time.perf_counter()
        saver = Checkpoint(
            out / "checkpoints", config.checkpoint_every, self._extra, stopper, saved=partial(folder.forget_former, out)
        )
        saver.init_callback(agent)  # it also writes where nothing is left to learn
        watcher = None if self.watch is None or self.evaluate is None else EndWhere(self.evaluate, self.watch)
        hooks: list[BaseCallback] = [c for c in (self.evaluate, watcher, saver, stopper) if c is not None]
        log_interval: int | None = config.log_every
        if isinstance(agent, OnlineAlgorithm):  # SB3 counts episodes or roll-outs there
            hooks.insert(0, Log(config.log_every))
            log_interval = None
        if config.progress_bar:
            hooks.append(Progress(self.evaluate))
        try:
            remaining = config.total_timesteps - agent.num_timesteps
            if watcher is not None and watcher.met():  # it ended there before
                remaining = 0
            if remaining > 0 and isinstance(agent, Trainer):
                yield from agent.lessons(remaining, CallbackList(hooks), log_interval, reset_num_timesteps=False)
            elif remaining > 0:
                agent.learn(remaining, CallbackList(hooks), log_interval=log_interval, reset_num_timesteps=False)
            self.settle()
            if stopper.signal:
                path = saver.latest() or saver.save()
                print(f"interrupted at step {agent.num_timesteps}, saved {path}\ncontinue with: rlkit resume {out}")
                return 128 + stopper.signal
            if watcher is not None and watcher.ended and agent.num_timesteps < config.total_timesteps:
                path = saver.latest() or saver.save()
                print(f"ended at step {agent.num_timesteps}, saved {path}\ncontinue with: rlkit resume {out}")
                return PRUNED
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
                evaluator.episodes, self.closing = config.final_episodes, True
                yield FINAL
                try:
                    add_final(result, self._final(evaluator, stopper), evaluator)
                except KeyboardInterrupt:
                    print("interrupted in the final evaluation, the training is saved")
                    print(f"continue with: rlkit resume {out}")
                    return 128 + (stopper.signal or signal.SIGINT)
            if self._judges(evaluator):
                try:
                    result["verdict"] = self._verdict(stopper)
                except KeyboardInterrupt:
                    print(f"interrupted in the verdict, the training is saved\ncontinue with: rlkit resume {out}")
                    return 128 + (stopper.signal or signal.SIGINT)
            add_best(result)
            if self.changes:
                result["changes"] = self.changes
            self._conclude(writers, result)
            folder.write(out, "result.json", as_json(result))
            print(sentence(result, out))
        finally:
            logger.close()
            if evaluator is not None:
                evaluator.close()
        return 0

    def _conclude(self, writers: Sequence[KVWriter], result: Mapping[str, Any]) -> None:
        """Settings and what the run came to, for TensorBoard's page of hyperparameters."""
        final = result.get("final", {})
        found = {f"final/{name}": final[name] for name in measures(final) if name in final}
        if "verdict" in result:
            found["verdict/value"] = result["verdict"]["value"]
        for writer in writers:
            if isinstance(writer, TensorBoardWriter):
                writer.conclude(_settings(self.config), found, self.agent.num_timesteps)

    def _final(self, evaluator: Evaluator, stopper: StopOnSignal) -> Evaluation:
        """The evaluation after the last step, on the log too.  A signal ends it at once: it is repeated on resuming."""
        config, agent = self.config, self.agent
        bar = episodes_bar("final evaluation", config.final_episodes) if config.progress_bar else nullcontext()
        self.finishing = True
        if stopper.signal:  # it came while the training was being saved
            raise KeyboardInterrupt
        with bar as evaluator.on_progress:
            policy = acting(agent) if beside(agent, evaluator) else agent
            found = self.answer or evaluator(policy, index=0)
        evaluator.on_progress, self.finishing = None, False
        for key, value in found.summary().items():
            agent.logger.record(f"final/{key}", value)
        agent.logger.dump(agent.num_timesteps)
        return found

    def _judges(self, evaluator: Evaluator | None) -> bool:
        """Whether the policy is judged by its data: as ``verdict`` says, else where there is no other judge."""
        asked = self.config.verdict if self.config.verdict is not None else evaluator is None
        return asked and isinstance(self.agent, OfflineAlgorithm) and can_judge(self.agent.dataset)

    def _verdict(self, stopper: StopOnSignal) -> dict[str, Any]:
        """A verdict without acting, on the log too.  A signal ends it at once: it is repeated on resuming."""
        self.finishing = True
        if stopper.signal:
            raise KeyboardInterrupt
        found = judge(self.agent, seed=self.config.seed).as_json()
        self.finishing = False
        for key, value in found.items():
            if isinstance(value, float):
                self.agent.logger.record(f"verdict/{key}", value)
        self.agent.logger.dump(self.agent.num_timesteps)
        return found

    def due(self) -> tuple[Evaluator, int] | None:
        """The evaluation that the next turn will make, with its index; None where it makes none."""
        if self.evaluate is None or self.evaluate.answer is not None:
            return None
        if self.closing:
            return (self.evaluate.evaluator, 0) if self.answer is None else None
        every, steps = self.config.eval_every, self.agent.num_timesteps
        due = every and steps % every == 0 and self.agent.has_learnt
        return (self.evaluate.evaluator, steps) if due else None

    def answered(self, found: Callable[[], Evaluation]) -> None:
        """Take what ``found`` will return for the evaluation that is due."""
        if self.closing:
            self.answer = found()
        elif self.evaluate is not None:
            self.evaluate.answer = found

    def interrupt(self, stopper: StopOnSignal, number: int, frame: FrameType | None) -> None:
        again = stopper.signal or self.finishing
        stopper.stop(number)
        if again:  # a second Ctrl-C does not wait for the step to end, and the final evaluation can be done again
            stop(number, frame)
        tell(f"interrupted, ending with a checkpoint after the step, roll-out or evaluation that runs now ({AGAIN})")

    def _restore(self) -> dict[str, Any]:
        problems, saved, log = [], self.out / "checkpoints", self.out / "metrics.jsonl"
        written = log.stat().st_size if log.is_file() else 0
        for path in reversed(checkpoints(saved)):
            try:
                extra = self.agent.restore(path)
                with refusing(path, "what it says of its run is damaged"):
                    _require_sound(extra)
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

    def _changed(self, extra: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What :data:`NOTED` settings are others than the checkpoint's, said on the console."""
        before = extra.get("config", {})
        changed = [key for key in NOTED if key in before and before[key] != self.config[key]]
        if "engine" in changed and "stacked" not in (before["engine"], self.config.engine):
            changed.remove("engine")  # a graph has the bytes of what it recorded
        for key in changed:
            print(f"{key} was {before[key]} and is {self.config[key]}: sums may round differently from here on")
        step = self.agent.num_timesteps
        return [{"step": step, "setting": key, "from": before[key], "to": self.config[key]} for key in changed]

    def _history(self) -> list[dict[str, Any]]:
        return self.evaluate.history if self.evaluate is not None else []

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def settle(self) -> None:
        """Wait for an evaluation that is made beside learning."""
        if self.evaluate is not None:
            self.evaluate.settle()

    def _extra(self) -> dict[str, Any]:
        self.settle()
        return {
            "evaluations": self._history(),
            "metrics_bytes": self.jsonl.sync(),
            "seconds": self._seconds(),
            "config": _settings(self.config),
            "changes": self.changes,
        }


def _require_sound(extra: Mapping[str, Any]) -> None:
    """Raise ValueError where a checkpoint's ``extra`` is not what :meth:`Session._extra` makes."""
    seconds, written = extra.get("seconds", 0.0), extra.get("metrics_bytes", 0)
    lists = [extra.get(name, []) for name in ("evaluations", "changes")]
    if type(seconds) not in (int, float) or not 0 <= seconds < 1e12 or type(written) is not int or written < 0:
        raise ValueError(f"seconds={shown(seconds)}, metrics_bytes={shown(written)}")
    if not isinstance(extra.get("config", {}), dict):
        raise ValueError(f"config={shown(extra['config'])}")
    if not all(isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries) for entries in lists):
        raise ValueError("its evaluations or changes are no lists of entries")


def _settings(config: DictConfig) -> dict[str, Any]:
    """What a checkpoint remembers of ``config``, as JSON gives it back: ``{"agent.batch_size": 256, ...}``."""
    flat = _flat(json.loads(json.dumps(OmegaConf.to_container(config))))
    return {key: value for key, value in flat.items() if key not in FREE}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
