"""What ``rlkit report`` says of runs, block by block; all that is read of them is the text of their folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlkit.algorithms.evaluate import named
from rlkit.cli.document import Block, Figure, Heading, Line, Table, Text
from rlkit.cli.plot import KEYS
from rlkit.errors import UserError, one_line
from rlkit.run.reading import Run, band, by, fill_in_data, groups
from rlkit.run.tables import NAMES, Row, better, common_measure, profile, require_alike, row, thresholds, value
from rlkit.stats import Interval

LABELS = 24  # methods of an environment; more are a table that nobody reads
FEW = 4  # runs; three are all better than three others by chance in one case of ten


def contents(runs: list[Run]) -> tuple[str, list[Block]]:
    """The title and all of the page."""
    fill_in_data(runs)
    measure = common_measure(runs)
    envs = by(runs, lambda run: str(run.settings["env.name"]))
    for alike in envs.values() if measure == "verdict" else ():
        require_alike(alike)
    labels = {env: groups(own) for env, own in envs.items()}
    for env, there in labels.items():
        if len(there) > LABELS:
            raise UserError(f"{len(there)} settings that differ on {env}, expected {LABELS} at most: give fewer runs")
    names = list(dict.fromkeys(label for there in labels.values() for label in there))
    title = f"{_count(len(runs), 'run')} on {', '.join(envs) if len(envs) < 4 else f'{len(envs)} environments'}"
    blocks: list[Block] = []
    if measure is not None:
        blocks += _results(labels, names, measure)
    blocks += _not_counted(runs, measure)
    blocks += _curves(labels, names)
    blocks += _differences(labels)
    blocks += [*_data(labels), *_cost(labels), *_versions(runs), *_every(labels, measure)]
    return title, blocks


# ---- which is better ----------------------------------------------------------------------------------------------


def _results(labels: dict[str, dict[str, list[Run]]], names: list[str], measure: str) -> list[Block]:
    blocks: list[Block] = []
    by_label: dict[str, dict[str, list[float]]] = {}
    for env, there in labels.items():
        for label, group in there.items():
            values = [found for run in group if run.finished and (found := value(run, measure)) is not None]
            if values:
                by_label.setdefault(label, {})[env] = values
    measured = [env for env in labels if any(env in tasks for tasks in by_label.values())]
    overall = [row(label, by_label[label]) for label in names if set(by_label.get(label, ())) == set(measured)]
    if len(measured) > 1 and measure == "score" and len(overall) > 1:
        about = f"Methods with runs in each of the {len(measured)} environments, which are resampled by themselves."
        blocks += [Heading("Over environments"), Text(about), _table(overall, names, measure), *_better(overall)]
        blocks += _profiles(overall, names, measure)
    for env in measured:
        rows = [row(label, {env: by_label[label][env]}) for label in labels[env] if env in by_label.get(label, ())]
        blocks += [Heading(env), _table(rows, names, measure), *_better(rows)]
        if len(measured) == 1:
            blocks += _profiles(rows, names, measure)
    about = (
        f"A run's value is its {NAMES[measure]}; larger is better. IQM is the interquartile mean of the runs. Brackets "
        "are 95 % percentile bootstrap intervals over runs; of one run there is none."
    )
    return [Text(about), *blocks]


def _table(rows: Sequence[Row], names: list[str], measure: str) -> Table:
    digits = named(measure, max(abs(found.mean) for found in rows))[1]
    ordered = sorted(rows, key=lambda found: -found.iqm)
    cells = [
        [
            found.label,
            str(len(found.values)),
            _spread(found.iqm, found.iqm_interval, digits),
            _spread(found.mean, found.mean_interval, digits),
            _number(float(found.values.min()), digits),
            _number(float(found.values.max()), digits),
        ]
        for found in ordered
    ]
    colours = [names.index(found.label) for found in ordered]
    return Table(["method", "runs", "IQM", "mean", "least", "greatest"], cells, colours)


def _better(rows: Sequence[Row]) -> list[Block]:
    """The best method against each of the others."""
    best, *others = sorted(rows, key=lambda found: -found.iqm)
    against = [(other, *better(best, other)) for other in others]
    if not against:
        return []
    second, chance, interval = against[0]
    none = math.isnan(interval[0])
    said = f"A run of {best.label} is better than one of {second.label} with probability {_number(chance, 2)}"
    spread = "no interval" if none else f"95 % {_number(interval[0], 2)} to {_number(interval[1], 2)}"
    few = ": which is better is not shown by so few runs" if min(map(_size, (best, second))) < FEW else ""
    unclear = "" if interval[0] > 0.5 or interval[1] < 0.5 else ": which is better is not shown by these runs"
    lead = Text(f"{said} ({spread}){few or unclear}.")
    cells = [[other.label, _spread(chance, interval, 2)] for other, chance, interval in against]
    return [lead] if len(others) == 1 else [lead, Table([f"a run of {best.label} beats one of", "probability"], cells)]


def _size(found: Row) -> int:
    return len(found.values)


def _profiles(rows: Sequence[Row], names: list[str], measure: str) -> list[Block]:
    if len(rows) < 2 or max(len(found.values) for found in rows) < 2:
        return []
    at = thresholds(rows)
    lines = []
    for found in rows:
        shares, intervals = profile(found, at)
        lines.append(Line(found.label, names.index(found.label), at.tolist(), shares.tolist(), intervals))
    return [Figure("Performance profiles", named(measure, 0.0)[0], "share of runs above a value", lines)]


def _not_counted(runs: Sequence[Run], measure: str | None) -> list[Block]:
    """Unfinished runs, and finished ones without a value: they are in no table above."""
    cells = [[str(run.folder), run.progress] for run in runs if not run.finished]
    for run in runs:
        if run.finished and (measure is None or value(run, measure) is None):
            cells.append([str(run.folder), "finished, neither judged nor evaluated; verdict=true asks for a verdict"])
    return [Heading("In no table"), Table(["run", "why"], cells)] if cells else []


# ---- curves, settings, data, cost ---------------------------------------------------------------------------------


def _curves(labels: dict[str, dict[str, list[Run]]], names: list[str]) -> list[Block]:
    figures = []
    for env, there in labels.items():
        units = by([run for group in there.values() for run in group], lambda run: run.unit)
        for unit, runs in units.items():
            known = {key for run in runs for line in run.lines for key in line}
            key = next((key for key in KEYS if key in known), None)
            lines = []
            for label, group in there.items():
                curves = [c for run in group if run.unit == unit and key is not None and (c := run.curve(key))[0]]
                if curves:
                    found = band(curves)
                    lines.append(
                        Line(
                            label,
                            names.index(label),
                            list(map(float, found.steps)),
                            found.means,
                            found.intervals,
                            found.whole,
                        )
                    )
            if lines and key is not None:
                figures.append(Figure(env, unit, key.removeprefix("eval/").replace("_", " "), lines))
    if not figures:
        return []
    about = "The mean over runs of evaluations in training, and its 95 % interval; dotted where some have no value yet."
    return [Heading("Learning curves"), Text(about), *figures]


def _differences(labels: dict[str, dict[str, list[Run]]]) -> list[Block]:
    blocks: list[Block] = []
    for env, there in labels.items():
        settings = {label: group[0].settings for label, group in there.items()}
        every = dict.fromkeys(name for found in settings.values() for name in found)
        agents = {found["agent.name"] for found in settings.values()}
        names = [
            name
            for name in every
            if name not in ("agent.name", "env.name")
            and not (name.startswith("agent.") and len(agents) > 1)
            and len({_text(found.get(name)) for found in settings.values()}) > 1
        ]
        if len(there) > 1 and names:
            cells = [[label, *(_text(found.get(name, "-")) for name in names)] for label, found in settings.items()]
            blocks += [Text(f"On {env}:"), Table(["method", *names], cells)]
        steps = {run.settings["total_timesteps"] for group in there.values() for run in group}
        own = "; agents have hyperparameters of their own" if len(agents) > 1 else ""
        length = f"{' or '.join(f'{n:,}' for n in sorted(steps))} {_unit(there)}"
        blocks.append(Text(f"On {env} runs are of {length}{own}."))
    return [Heading("What differs"), *blocks] if blocks else []


def _unit(there: dict[str, list[Run]]) -> str:
    return " or ".join(sorted({run.unit for group in there.values() for run in group}))


def _data(labels: dict[str, dict[str, list[Run]]]) -> list[Block]:
    cells = []
    for env, there in labels.items():
        for run in (run for group in there.values() for run in group):
            found = [env, _text(run.found("dataset", "source")), _text(run.found("source_sentence"))]
            cells.append([*found, _text(run.found("dataset", "sha256"))])
    cells = [list(cell) for cell in dict.fromkeys(map(tuple, cells)) if any(word != "-" for word in cell[1:])]
    return [Heading("Data"), Table(["environment", "source", "what it is", "SHA-256"], cells)] if cells else []


def _cost(labels: dict[str, dict[str, list[Run]]]) -> list[Block]:
    cells = []
    for env, there in labels.items():
        for label, group in there.items():
            done = [run for run in group if run.finished]
            seconds = [found for run in done if (found := run.number("seconds")) is not None]
            if not seconds:
                continue
            steps = [found for run in done if (found := run.number(run.unit)) is not None]
            machines = dict.fromkeys(_machine(run) for run in done)
            counted = f"{_number(float(np.median(steps)), 0)} {done[0].unit}" if steps else "-"
            cost = [f"{np.median(seconds):,.0f} s", f"{sum(seconds) / 3600:,.2f} h", counted]
            cells.append([env, label, *cost, "; ".join(machines)])
    columns = ["environment", "method", "a run (median)", "all runs", "trained for", "machine"]
    return [Heading("Cost"), Table(columns, cells)] if cells else []


def _machine(run: Run) -> str:
    where = [_text(run.found("machine", key)) for key in ("processor", "system")]
    threads = _text(run.found("machine", "threads"))
    return f"{', '.join(where)}, {threads} thread{'' if threads == '1' else 's'}, {run.settings.get('device', 'cpu')}"


def _versions(runs: Sequence[Run]) -> list[Block]:
    found = [run.found("versions") for run in runs]
    sets = [{one_line(k, 40): _text(v) for k, v in version.items()} for version in found if isinstance(version, dict)]
    names = dict.fromkeys(name for version in sets for name in version)
    cells = [[name, ", ".join(dict.fromkeys(v[name] for v in sets if name in v))] for name in names]
    return [Heading("Versions"), Table(["package", "version"], cells)] if cells else []


def _every(labels: dict[str, dict[str, list[Run]]], measure: str | None) -> list[Block]:
    cells = []
    for env, there in labels.items():
        for label, group in there.items():
            for run in group:
                found = value(run, measure) if measure is not None else None
                said = "-" if run.finished else "unfinished"
                if run.finished and measure is not None and found is not None:
                    said = _number(found, named(measure, found)[1])
                cells.append([str(run.folder), env, label, _text(run.seed), said])
    return [Heading("Every run"), Table(["folder", "environment", "method", "seed", "value"], cells)]


# ---- numbers and words --------------------------------------------------------------------------------------------


def _number(found: float, digits: int) -> str:
    return f"{found:,.{digits}f}"


def _spread(found: float, ends: Interval, digits: int) -> str:
    if math.isnan(ends[0]):
        return _number(found, digits)
    return f"{_number(found, digits)} [{_number(ends[0], digits)}, {_number(ends[1], digits)}]"


def _text(found: Any) -> str:
    return "-" if found is None else one_line(found, 200)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"
