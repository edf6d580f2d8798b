"""What a run says of itself: its first lines, ``result.json``, its last lines.  Every number under the name it has."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from rlkit.algorithms.base import Persistent
from rlkit.algorithms.checkpoint import versions
from rlkit.algorithms.evaluate import Evaluation, Evaluator, measures
from rlkit.algorithms.verdict import Verdict
from rlkit.stats import bootstrap_interval, decimals
from rlkit.system.machine import processor


def as_json(value: Mapping[str, Any]) -> bytes:
    """JSON of ``value``, indented, with null for what is not finite: JSON has no word for it."""
    return (json.dumps(_finite(value), indent=1, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def opening(agent: Persistent, config: DictConfig, evaluator: Evaluator | None) -> list[str]:
    """Lines to print before a run: what is learnt from that was chosen, and what will not happen."""
    lines = []
    reward = OmegaConf.select(config, "env.kwargs.reward")
    if reward is not None:
        lines.append(f"{config.env.name}: trains on the {reward} reward")
    shortfall = agent.shortfall(config.total_timesteps)
    if shortfall is not None:
        lines.append(f"warning: {shortfall}")
    if evaluator is None:
        lines.append(f"warning: {unevaluated(agent)}")
    return lines


def unevaluated(agent: Persistent) -> str:
    """Why ``agent`` has no evaluator."""
    data = agent.result().get("dataset") or {}
    where = f"{data['locator']} names" if "locator" in data else f"{agent.name} knows of"
    return f"not evaluated: {where} no environment to evaluate in"


def summarise(
    agent: Persistent, config: DictConfig, history: list[dict[str, Any]], evaluator: Evaluator | None
) -> dict[str, Any]:
    """``result.json`` of a run but for its final evaluation and its seconds."""
    return {
        "agent": agent.name,
        "env": config.env.name,
        "seed": config.seed,
        "unit": agent.defaults.unit,
        **agent.counts(),
        **agent.result(),
        **({} if evaluator is not None else {"not_evaluated": unevaluated(agent)}),
        "config": OmegaConf.to_container(config),
        "machine": {"processor": processor(), "system": platform.system(), "threads": config.threads},
        "versions": versions(),
        "evaluations": history,
    }


def add_final(result: dict[str, Any], final: Evaluation, evaluator: Evaluator) -> None:
    """Add the final evaluation: means, intervals, and every episode's return."""
    samples = final.samples()
    found: dict[str, Any] = {**final.summary(), "episodes": len(final.returns), "judged": evaluator.judged}
    found |= {f"{name}s": values.tolist() for name, values in samples.items() if name != "score"}
    for name in measures(samples):
        low, high = bootstrap_interval(samples[name])
        found[f"{name}_interval95"] = None if math.isnan(low) else [low, high]
    result["final"] = found


def add_best(result: dict[str, Any]) -> None:
    """Add what the evaluations came to: the mean of the last ten, and the best, the final one among them."""
    history = result["evaluations"]
    if not history:
        return
    names = measures(history[-1])
    last10, best = {}, {}
    for name in names:
        values = [entry[name] for entry in history if name in entry]
        last10[name] = float(np.mean(values[-10:]))
        best[name] = max([*values, *([result["final"][name]] if "final" in result else [])])
    result |= {"measure": names[0], "last10": last10[names[0]], "best": best[names[0]]}
    if len(names) > 1:
        result |= {"last10_by_measure": last10, "best_by_measure": best}


def sentence(result: dict[str, Any], out: Path) -> str:
    """The closing lines of a run: what was measured, on what data."""
    lines = []
    if "final" in result:
        final = result["final"]
        for key in measures(final):
            name, digits = named(key, final[key])
            spread = interval(final[f"{key}_interval95"] or (math.nan, math.nan), digits)
            episodes = f"{final['episodes']} episode{'s' * (final['episodes'] > 1)}, {final['judged']}"
            lines.append(f"{name} {final[key]:.{digits}f} ({spread} over {episodes}; one seed)")
        if "gap" in final:
            lines.append(f"gap to the solver's solutions {final['gap']:.2f} %")
    for key in measures(result["evaluations"][-1]) if result["evaluations"] else ():
        count = len([entry for entry in result["evaluations"] if key in entry])
        last10 = result.get("last10_by_measure", {}).get(key, result["last10"])
        best = result.get("best_by_measure", {}).get(key, result["best"])
        name, digits = named(key, last10)
        of = "" if key in ("score", "return") else f"{name}: "
        last = f"{of}mean of the last {min(10, count)} of {count} evaluations {last10:.{digits}f}"
        lines.append(f"{last}, best {best:.{digits}f}")
    if "verdict" in result:
        lines.append(f"by its data alone: {Verdict(**result['verdict']).sentence}")
    if "not_evaluated" in result:
        lines.append(result["not_evaluated"])
    if "score_mean" in result.get("dataset", {}):
        lines.append(f"mean of the dataset's episodes {result['dataset']['score_mean']:.1f}")
    if "source_sentence" in result:
        lines.append(f"data: {result['source_sentence']}")
    lines.append(f"written to {out}")
    return "\n".join(lines)


def interval(ends: Sequence[float], digits: int) -> str:
    """A 95 % interval in words; of one value there is none."""
    if math.isnan(ends[0]):
        return "one value, no interval"
    return f"95 % interval {ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def named(key: str, value: float) -> tuple[str, int]:
    """How a measure is called to a reader, and the digits of a ``value`` of it after the point."""
    return ("normalised score", 1) if key == "score" else (key.replace("_", " "), decimals(value))
