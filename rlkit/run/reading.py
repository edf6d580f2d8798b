"""The folders of runs, finished or not, read for tables and figures: settings, log, result, and how they differ."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlkit.errors import ArtefactError, UserError
from rlkit.system.files import require_whole

Curve = tuple[list[int], list[float]]  # steps, values
# What no number of a run's log depends on; data are told apart by their hash.
HANDLING = (
    "out",
    "overwrite",
    "resume",
    "progress_bar",
    "tensorboard",
    "track",
    "checkpoint_every",
    "env.source",
)
NOT_SETTINGS = (*HANDLING, "final_episodes", "seed")  # the seed is beside them


@dataclass
class Run:
    """One run: settings by flat name, "data" among them, what its agent counts, its log lines, its result if any."""

    folder: Path
    settings: dict[str, Any]
    seed: Any
    unit: str
    lines: list[dict[str, Any]]
    finished: bool
    result: dict[str, Any]

    def curve(self, key: str) -> Curve:
        found = [(line["step"], line[key]) for line in self.lines if _is_number(line.get(key))]
        return [step for step, _ in found], [value for _, value in found]

    def found(self, *keys: str) -> Any:
        """What its result says under ``keys``, one within the other; None where it says nothing."""
        value: Any = self.result
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def number(self, *keys: str) -> float | None:
        """:meth:`found`, if it is a number."""
        return float(value) if _is_number(value := self.found(*keys)) else None

    def interval(self, *keys: str) -> tuple[float, float] | None:
        """:meth:`found`, if it is two numbers in order."""
        value = self.found(*keys)
        pair = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]
        return (float(value[0]), float(value[1])) if pair else None

    @property
    def environment(self) -> str | None:
        """The environment it acts or is evaluated in, with what is set of it; None where that is not known."""
        from rlkit.registry import records

        record = records().get(self.settings["env.name"])
        found = record.env_id if record is not None else self.settings.get("env.id")
        kwargs = {key: value for key, value in self.settings.items() if key.startswith("env.kwargs.")}
        return " ".join([str(found), *(f"{key}={value}" for key, value in kwargs.items())]) if found else None

    @property
    def progress(self) -> str:
        """How far a run is that is not finished."""
        steps = self.lines[-1]["step"] if self.lines else 0
        return f"not finished: {steps} of {self.settings['total_timesteps']} {self.unit}"


def newest_artefact(path: Path) -> Path:
    """The artefact at ``path``: the file itself, what a run ends in or, of one under way, its newest checkpoint.

    Raises :class:`UserError` for a folder without any.
    """
    from rlkit.algorithms.checkpoint import read_artefact
    from rlkit.api import artefact_of
    from rlkit.run.folder import checkpoints

    found = artefact_of(path)
    if found == path or found.is_file():
        return found
    for checkpoint in reversed(checkpoints(path / "checkpoints")):
        try:
            read_artefact(checkpoint)
        except ArtefactError:
            continue
        return checkpoint
    raise UserError(f"{path} holds no policy, expected model.rlk or a checkpoint of a run that is under way")


def under_way(path: Path, agent: Any) -> str | None:
    """How far ``agent``, of the run at ``path``, has come; None of a run that has ended, and of what is none."""
    from rlkit.run.folder import marked

    if not (path.is_dir() and marked(path)) or (run := read_run(path)).finished:
        return None
    return f"not finished: {agent.num_timesteps} of {run.settings['total_timesteps']} {run.unit}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # NaN is not


def read_run(folder: Path) -> Run:
    """The run in ``folder``, finished or not; :class:`UserError` when it is none."""
    from rlkit.registry import agent_class
    from rlkit.run.folder import marked
    from rlkit.system.plain import read_plain

    marked(folder)  # refuses one of a later version
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is not a run: expected a folder with config.yaml and metrics.jsonl")
    try:
        config = read_plain(folder / "config.yaml")
        text = _text(folder / "metrics.jsonl")
        lines = [json.loads(line) for line in text.split("\n")[:-1]]  # behind the last one is what is half written
        settings = {key: value for key, value in _flat(config).items() if key not in NOT_SETTINGS}
        if config.get("init") is None:  # nothing of it counts, and older runs have none of its keys
            settings = {key: value for key, value in settings.items() if key.split(".")[0] not in ("init", "finetune")}
        acts = isinstance(config.get("finetune"), dict) and config["finetune"].get("data") is not None
        unit = "steps" if acts else agent_class(config["agent"]["name"]).defaults.unit
        if not isinstance(settings["env.name"], str) or type(settings["total_timesteps"]) is not int:
            raise KeyError("env.name")
        if any(type(line["step"]) is not int or not 0 <= line["step"] < 2**63 for line in lines):
            raise KeyError("step")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise UserError(
                str(error) if str(error).startswith(str(folder / "config.yaml")) else f"{folder}: {error}"
            ) from error
        raise UserError(f"{folder} is not a run: expected a folder with config.yaml and metrics.jsonl") from error
    result = _result(folder)
    settings["data"] = _data(folder, result)
    return Run(folder, settings, config.get("seed"), unit, lines, (folder / "result.json").is_file(), result or {})


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix[:-1]: node}
    return {key: value for name, part in node.items() for key, value in _flat(part, f"{prefix}{name}.").items()}


def _result(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(_text(folder / "result.json"))
    except (OSError, ValueError, RecursionError, UserError):
        return None
    return found if isinstance(found, dict) else None


def _data(folder: Path, result: dict[str, Any] | None) -> str | None:
    """The hash of what the run learns from, from its result or a checkpoint; "" where it has none, None if unknown."""
    from rlkit.algorithms.checkpoint import read_artefact
    from rlkit.run.folder import checkpoints

    try:
        if result is None and (folder / "result.json").is_file():
            return None
        newest = result or read_artefact(checkpoints(folder / "checkpoints")[-1])[0]
        dataset = newest.get("dataset")
        return str(dataset["sha256"])[:8] if dataset else ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(path)
    require_whole(path, UserError)
    return path.read_text(encoding="utf-8")


def fill_in_data(runs: list[Run]) -> None:
    """A run that has not said yet what it learns from learns from what all the others of its settings do."""
    for run in runs:
        if run.settings["data"] is None:
            alike = {r.settings["data"] for r in runs if {**r.settings, "data": None} == run.settings}
            run.settings["data"] = (alike - {None}).pop() if len(alike - {None}) == 1 else "unknown"


def by(runs: list[Run], key: Any) -> dict[Any, list[Run]]:
    """Runs by what ``key`` says of them."""
    found: dict[Any, list[Run]] = defaultdict(list)
    for run in runs:
        found[key(run)].append(run)
    return found


def same_settings(runs: list[Run]) -> list[list[Run]]:
    """``runs`` by their settings; one that a run from before there was such a setting has not is null."""

    def key(run: Run) -> str:
        given = {name: value for name, value in run.settings.items() if value is not None}
        return json.dumps(given, sort_keys=True, default=str)

    return list(by(runs, key).values())


def groups(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs that differ in their seed alone, by a label: the agent, and whatever else differs among ``runs``.

    Hyperparameters are told where they differ among the runs of that agent.
    """
    agents = by(runs, lambda run: run.settings["agent.name"])
    found: dict[str, list[Run]] = {}
    for group in same_settings(runs):
        settings = group[0].settings
        words = [str(settings["agent.name"])]
        for name, value in settings.items():
            others = agents[settings["agent.name"]] if name.startswith("agent.") else runs
            if name not in ("agent.name", "env.name") and any(run.settings.get(name) != value for run in others):
                words.append(f"data {value}" if name == "data" else f"{name.removeprefix('agent.')}={value}")
        found.setdefault(" ".join(words), []).extend(group)
    return found


@dataclass
class Band:
    """The curves of several runs as one: at each step the mean, a 95 % interval, and whether every run has a value."""

    steps: list[int]
    means: list[float]
    intervals: list[tuple[float, float]]
    whole: list[bool]


def band(curves: list[Curve]) -> Band:
    """``curves`` as one; of one run there are no intervals."""
    import numpy as np

    from rlkit.stats import bootstrap_interval

    at: dict[int, list[float]] = defaultdict(list)
    for steps, values in curves:
        for step, value in dict(zip(steps, values, strict=True)).items():
            at[step].append(value)
    order = sorted(at)
    several = len(curves) > 1
    return Band(
        order,
        [float(np.mean(at[step])) for step in order],
        [bootstrap_interval(np.array(at[step])) for step in order] if several else [],
        [len(at[step]) == len(curves) for step in order],
    )
