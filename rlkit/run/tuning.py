"""A search for hyperparameters: trials that are runs, by any number of workers that may be taken away.

A study is a folder: ``study.json`` says what is searched, ``journal.log`` is Optuna's journal, which its dashboard
reads, ``trials/0007`` is the run of a trial.  Workers are processes that share the folder, and nothing else.

Whatever workers do when, the study is the same.  Trials come in rounds of ``batch``: what is tried in one follows from
the study's seed, the trial's number and the trials of the rounds before it, and so does whether it is pruned.  The
trial of a worker that died is taken over by the next one that looks, which resumes its run exactly.

Trial 0 has the defaults, so that a study also answers whether tuning was worth its cost.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from rlkit import registry
from rlkit.algorithms.hyperparameters import preset_table
from rlkit.config import compose_config
from rlkit.errors import UserError, one_line, require_choice, shown
from rlkit.run import folder
from rlkit.run.session import PRUNED, resume, train
from rlkit.system.files import write_atomically

OBJECTIVES = ("auto", "score", "return", "true_return", "gap", "verdict")
PRUNERS = ("median", "none")
FORMAT = 1
PATIENCE = 120  # seconds for the study's lock, which is held for moments
RANGE = re.compile(r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)\.\.([-+]?[\d.]+(?:[eE][-+]?\d+)?)(:log)?")


@dataclass(frozen=True)
class Study:
    """What is searched: all that its trials depend on.

    ``overrides``: settings as on the command line, of every trial; ``ranges``: by key, ``"1..40"``, ``"1..40:log"`` or
    ``"a,b,c"``; ``batch``: trials of a round, so many may run at once.
    """

    overrides: tuple[str, ...]
    ranges: Mapping[str, str]
    objective: str = "auto"
    trials: int = 20
    batch: int = 4
    seed: int = 0
    pruner: str = "median"
    format: int = FORMAT
    config: DictConfig = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_choice("--objective", self.objective, OBJECTIVES)
        require_choice("--pruner", self.pruner, PRUNERS)
        for name, least in (("trials", 1), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < 2**31:
                raise UserError(f"--{name} {shown(value)} is out of range, expected a whole number from {least}")
        object.__setattr__(self, "config", compose_config([*self.overrides, "progress_bar=false"]))
        ranges = dict(self.ranges)
        if not ranges:
            shipped = tuning_ranges(registry.agent_class(self.config.agent.name))
            ranges = {f"agent.{name}": text for name, text in shipped.items()}
        if not ranges:
            raise UserError(f"agent={self.config.agent.name} ships no ranges, expected some, as agent.discount=0.9..1")
        object.__setattr__(self, "overrides", tuple(self.overrides))
        object.__setattr__(self, "ranges", ranges)
        for key, text in ranges.items():
            if not key.startswith(("agent.", "env.kwargs.")):
                raise UserError(f"{one_line(key, 60)}={one_line(text, 60)} is not tuned, expected one value of it")
            distribution(key, text, self.default(key))

    def default(self, key: str) -> Any:
        """What ``key`` is without tuning: the agent's default, its preset for this task, or what was typed."""
        try:
            found = OmegaConf.select(self.config, key)
        except Exception as error:
            raise UserError(f"{key}= has no range: {one_line(error)}") from None
        if found is None and not _has(self.config, key):
            compose_config([*self.overrides, f"{key}=0"])  # which names the nearest key
        return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found

    @property
    def judged(self) -> str:
        """The objective, "auto" decided: the gap of problems, else "final": what a run is judged by at its end."""
        if self.objective != "auto":
            return self.objective
        record = registry.records().get(self.config.env.name)
        if record is not None and record.family == "combinatorial":
            return "gap"
        return "final"

    @property
    def minimises(self) -> bool:
        return self.judged == "gap"

    def as_json(self) -> dict[str, Any]:
        found = asdict(replace(self))
        return {key: value for key, value in found.items() if key != "config"}


def _has(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and name in node


def tuning_ranges(cls: type[Any]) -> dict[str, str]:
    """The ranges that ``rlkit tune`` searches of ``cls`` where none are typed, by hyperparameter, as one types them.

    They are the key ``tune`` of ``presets/<agent>.yaml``, and contain every preset of the agent.
    """
    return {name: str(text) for name, text in preset_table(cls).get("tune", {}).items()}


def distribution(key: str, text: str, default: Any) -> Any:
    """Optuna's distribution of ``text`` for a setting whose ``default`` must be one of its values.

    Raises :class:`UserError` for what is no range, one that is empty, and one without the default.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match = RANGE.fullmatch(text)
    if match is None:
        choices = _choices(text)
        if len(choices) < 2 or "" in choices or len(set(choices)) != len(choices):
            raise UserError(f"{key}={one_line(text, 60)} is no range, expected LOW..HIGH, LOW..HIGH:log or A,B,C")
        if not any(_same(yaml.safe_load(choice), default) for choice in choices):
            raise UserError(
                f"{key}={one_line(text, 60)} leaves out its default {shown(default)}, expected it among them"
            )
        return CategoricalDistribution(choices)
    low, high, log = (*(yaml_number(part) for part in match.groups()[:2]), bool(match.group(3)))
    if not low < high or (log and low <= 0):
        raise UserError(f"{key}={text} is empty, expected LOW < HIGH{', both above 0' if log else ''}")
    if type(default) not in (int, float):
        raise UserError(
            f"{key}={text} is a range of numbers and its default is {shown(default)}, expected choices A,B,C"
        )
    if not low <= default <= high:
        raise UserError(f"{key}={text} leaves out its default {shown(default)}, expected a range around it")
    if type(default) is int:
        if int(low) != low or int(high) != high:
            raise UserError(f"{key}={text} is a range of fractions, expected whole numbers as its default {default}")
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def yaml_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{one_line(text, 40)} is no number, expected one at each end of a range") from None


def _choices(text: str) -> list[str]:
    """``text`` cut at the commas that are in no brackets."""
    found, depth = [""], 0
    for letter in text:
        depth += {"[": 1, "{": 1, "(": 1, "]": -1, "}": -1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found]


def _same(chosen: Any, default: Any) -> bool:
    if isinstance(chosen, str) and isinstance(default, float):
        with contextlib.suppress(ValueError):  # YAML's floats have a point
            chosen = float(chosen)
    alike = isinstance(chosen, bool) == isinstance(default, bool)
    return alike and (list(chosen) == list(default) if isinstance(default, list) else chosen == default)


@dataclass(frozen=True)
class Found:
    """What a study came to."""

    best: int
    value: float
    default: float  # the value of trial 0
    params: dict[str, Any]
    episodes: int  # of evaluation, and of learning where agents act, spent on all trials
    counts: dict[str, int]  # trials by state


class Worker:
    """One process's part of the study in ``out``."""

    def __init__(self, out: Path, tell: Callable[[str], None] = print):
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.out, self.tell = out, tell
        self.study = read_study(out)
        self.space = {key: distribution(key, text, self.study.default(key)) for key, text in self.study.ranges.items()}
        with self._alone():
            self.optuna = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(out / "journal.log"))),
                study_name="rlkit",
                load_if_exists=True,
                direction="minimize" if self.study.minimises else "maximize",
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Read and write the journal while no other worker does."""
        with _locked(self.out), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    def run(self) -> int:
        """Do trials until there is none left to do; returns an exit code.  A signal ends it as it ends a run."""
        while True:
            taken = self._take()
            if taken is None:
                with self._alone():
                    left = self.study.trials - len([t for t in self._trials() if t.state.is_finished()])
                if left <= 0:
                    return 0
                time.sleep(0.5)  # others do what the next round waits for
                continue
            number, trial, lock = taken
            try:
                code = self._do(number, trial)
            finally:
                lock.release()
            if code:
                return code

    def _trials(self) -> list[Any]:
        return self.optuna.get_trials(deepcopy=False)

    def _take(self) -> tuple[int, Any, FileLock] | None:
        """A trial of nobody: one whose worker died, or the next one, once the rounds before it are done."""
        import optuna

        (self.out / "trials").mkdir(exist_ok=True)
        with self._alone():
            there = self._trials()
            for found in there:
                if found.state == optuna.trial.TrialState.RUNNING and (lock := self._lock(found.number)) is not None:
                    # An abandoned trial is reported to by its id, for which Optuna has no public name.
                    return found.number, self._suggested(optuna.trial.Trial(self.optuna, found._trial_id)), lock
            number = len(there)
            before = there[: number // self.study.batch * self.study.batch]
            if number >= self.study.trials or not all(trial.state.is_finished() for trial in before):
                return None
            lock = self._lock(number)
            if lock is None:
                return None
            return number, self._suggested(self.optuna.ask()), lock

    def _lock(self, number: int) -> FileLock | None:
        lock = FileLock(self.out / "trials" / f"{number:04d}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock

    def _memory(self, number: int) -> Any:
        """Trial ``number`` in a study of its own, which knows of the rounds before it alone."""
        import optuna

        seed = int(np.random.SeedSequence([self.study.seed, number]).generate_state(1)[0])
        median = optuna.pruners.MedianPruner(n_startup_trials=min(4, self.study.batch))
        known = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=median if self.study.pruner == "median" else optuna.pruners.NopPruner(),
            direction="minimize" if self.study.minimises else "maximize",
        )
        first = number // self.study.batch * self.study.batch
        known.add_trials([trial for trial in self._trials() if trial.number < first])
        if number == 0:
            known.enqueue_trial(self._defaults())
        trial = known.ask()
        self._suggest(trial)
        return trial

    def _defaults(self) -> dict[str, Any]:
        found = {}
        for key, space in self.space.items():
            default = self.study.default(key)
            choices = getattr(space, "choices", None)
            found[key] = default if choices is None else next(c for c in choices if _same(yaml.safe_load(c), default))
        return found

    def _suggest(self, trial: Any) -> None:
        for key, space in self.space.items():
            if hasattr(space, "choices"):
                trial.suggest_categorical(key, space.choices)
            elif isinstance(space.low, int):
                trial.suggest_int(key, space.low, space.high, log=space.log)
            else:
                trial.suggest_float(key, space.low, space.high, log=space.log)

    def _suggested(self, trial: Any) -> Any:
        """``trial`` of the journal, with the settings that follow from the rounds before it."""
        import optuna

        class Known(optuna.samplers.RandomSampler):
            def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
                return params[name]

        params = self._memory(trial.number).params
        self.optuna.sampler = Known(seed=0)
        self._suggest(trial)
        return trial

    def _do(self, number: int, trial: Any) -> int:
        """Run trial ``number`` to its end, or on to it; returns the exit code of a run that was interrupted, else 0."""
        import optuna

        out = self.out / "trials" / f"{number:04d}"
        with self._alone():
            reported = dict(self._trials()[number].intermediate_values)
            memory = self._memory(number)
        state, failure, final = optuna.trial.TrialState.COMPLETE, "", None
        history: list[Mapping[str, Any]] = []

        def hopeless(evaluations: Sequence[Mapping[str, Any]]) -> bool:
            for entry in evaluations[len(history) :]:
                history.append(entry)
                value = measured(entry, self.study.judged)
                memory.report(value, entry["step"])
                if entry["step"] not in reported:
                    with self._alone():
                        trial.report(value, entry["step"])
            return bool(history) and bool(memory.should_prune())

        with out.with_suffix(".log").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            try:
                watch = None if self.study.judged == "verdict" else hopeless
                code = self._run(out, trial.params, watch)
                if code == PRUNED:
                    state = optuna.trial.TrialState.PRUNED
                elif code:
                    return code
                else:
                    final = objective(folder.read_result(out), self.study.judged)
            except UserError as error:
                state, failure = optuna.trial.TrialState.FAIL, str(error)
        if failure and number == 0:
            raise UserError(f"trial 0, which has the defaults, failed: {failure}")
        episodes = self._episodes(out, history)
        with self._alone():
            trial.set_user_attr("episodes", episodes)
            if failure:
                trial.set_user_attr("failure", failure)
            self.optuna.tell(number, final, state)
            self.tell(self._line(number, trial.params, state.name, final, failure))
        return 0

    def _run(self, out: Path, params: Mapping[str, Any], watch: Any) -> int:
        if (out / "config.yaml").is_file():
            return resume(out, watch=watch)
        verdict = ["verdict=true"] if self.study.judged == "verdict" else []
        settings = [f"{key}={value}" for key, value in params.items()]
        config = compose_config([*self.study.overrides, *verdict, *settings, "progress_bar=false"])
        config.out = str(out)
        return train(config, watch=watch)

    def _episodes(self, out: Path, history: Sequence[Mapping[str, Any]]) -> int:
        """Episodes in the environment that a trial cost."""
        spent = sum(len(entry.get("returns", ())) for entry in history)
        if (out / "result.json").is_file():
            result = folder.read_result(out)
            spent = sum(len(entry.get("returns", ())) for entry in result["evaluations"])
            spent += int(result.get("final", {}).get("episodes", 0)) + int(result.get("episodes", 0))
        return spent

    def _line(self, number: int, params: Mapping[str, Any], state: str, value: float | None, failure: str) -> str:
        settings = "  ".join(f"{key.removeprefix('agent.')}={_short(param)}" for key, param in params.items())
        told = {"COMPLETE": f"{value:.4g}" if value is not None else "", "PRUNED": "pruned"}.get(state, failure)
        found = self.found()
        best = (
            f"best {found.value:.4g}, trial {found.best}; {found.episodes:,} episodes so far" if found else "none yet"
        )
        return f"trial {number}: {settings}  ->  {told}  ({best})"

    def found(self) -> Found | None:
        """What the study has come to so far; None before its first trial has ended."""
        trials = self._trials()
        done = [trial for trial in trials if trial.state.name == "COMPLETE"]
        if not done:
            return None
        sign = -1 if self.study.minimises else 1
        best = max(done, key=lambda trial: (sign * trial.value, -trial.number))
        counts: dict[str, int] = {}
        for trial in trials:
            counts[trial.state.name.lower()] = counts.get(trial.state.name.lower(), 0) + 1
        episodes = sum(trial.user_attrs.get("episodes", 0) for trial in trials)
        default = next((trial.value for trial in done if trial.number == 0), float("nan"))
        return Found(best.number, best.value, default, dict(best.params), episodes, counts)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def measured(entry: Mapping[str, Any], objective: str) -> float:
    """The objective in the line of an evaluation, under its own name or the first of those a run is judged by."""
    names = ("score", "true_return", "return") if objective == "final" else (objective,)
    for name in names:
        if type(entry.get(name)) in (int, float):
            return float(entry[name])
    raise UserError(f"the evaluations have no '{names[0]}', expected an objective that they have: --objective")


def objective(result: Mapping[str, Any], name: str) -> float:
    """The objective ``name`` of a finished run.  Raises :class:`UserError` where its result has none."""
    if name == "verdict" or "final" not in result:
        verdict = result.get("verdict")
        if not verdict or verdict.get("value") is None:
            raise UserError("the run has no verdict, expected rewards and episodes to judge by: another --objective")
        return float(verdict["value"])
    return measured(result["final"], name)


def read_study(out: Path) -> Study:
    """The study in ``out``.  Raises :class:`UserError` for a folder without one."""
    try:
        with (out / "study.json").open("rb") as file:
            found = json.loads(file.read(1 << 16))
        if found.pop("format") != FORMAT:
            raise UserError(f"{out / 'study.json'} is of another version, this rlkit knows format {FORMAT}")
        texts = [*found["overrides"], *found["ranges"], *found["ranges"].values()]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("its settings are no texts")
        return Study(**{**found, "overrides": tuple(found["overrides"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{out} is not a study: expected a folder with study.json, written by rlkit tune") from None


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the study's lock.  Raises :class:`UserError` where another process does not let it go."""
    try:
        with FileLock(out / ".journal-lock", timeout=PATIENCE):
            yield
    except Timeout:
        raise UserError(
            f"{out} is locked by another process for {PATIENCE} seconds, expected moments: is one stopped?"
        ) from None


def begin(out: Path, study: Study) -> None:
    """Make ``out`` the folder of ``study``, or join the one that is there.

    Raises :class:`UserError` where that is another one, or the folder holds something else.  More trials are not
    another study.
    """
    try:
        (out / "trials").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror or error}") from None
    with _locked(out):
        if (out / "study.json").exists():
            before, now = read_study(out).as_json(), study.as_json()
            for key in before:
                if before[key] != now[key] and key != "trials":
                    was, is_ = one_line(before[key], 200), one_line(now[key], 200)
                    raise UserError(f"{out} is a study of other {key}: {was}, not {is_}; expected another --out")
            if now["trials"] <= before["trials"]:
                return
        elif any(path.name not in ("trials", ".journal-lock") for path in out.iterdir()):
            raise UserError(f"--out {out} is not empty and no study, expected a folder of the study's own")
        write_atomically(out / "study.json", (json.dumps(study.as_json(), indent=1) + "\n").encode())


def default_out(study: Study) -> Path:
    return Path("studies") / f"{study.config.agent.name}_{study.config.env.name}".replace(os.sep, "-")
