"""Model cards: what a policy takes and gives, what it learnt from, what it was measured at; of a file and of a folder.

Every number stands under the name that a run gives it, beside its source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from gymnasium import spaces

from rlkit.algorithms.evaluate import measures, named
from rlkit.algorithms.export import metadata
from rlkit.errors import DISTRIBUTION, one_line
from rlkit.run.report import sentence

GENERATED = "MIT, that of rlkit, whose behaviours made it"  # licence of generated data
LONGEST = 4000  # characters of a line


def file_card(agent: Any, result: Mapping[str, Any] | None, file: Path, progress: str | None = None) -> str:
    """The card of an exported policy, Markdown; what it is told is what :func:`folder_card` is told."""
    told = metadata(agent)
    count = len(told["observations"]) or agent.observation_space.shape[0]
    out = "in the units of the actuators, within their bounds"
    if told["n_actions"] is not None:
        first = int(agent.action_space.start)
        out = f"int64 `[batch]`, the most probable of {first} to {first + told['n_actions'] - 1}"
    lines = [
        f"# {file.name}",
        "",
        f"A policy of `{agent.name}`, written by rlkit. In: `observations`, float32 `[batch, {count}]`, as "
        f"they were recorded. Out: `actions`, {out}.",
        *_progress(progress),
        *_columns(agent),
        *_learnt(agent, result or {}),
        *_measured(result or {}),
        *_settings(agent, result or {}),
    ]
    return _text(lines)


def folder_card(
    agent: Any, result: Mapping[str, Any] | None, name: str, files: Mapping[str, str], progress: str | None
) -> str:
    """The card of a folder for a model hub: a front matter of YAML, with the scores as an index of models, and text.

    Args:
        agent: the policy in the folder's ``model.rlk``.
        result: the run's ``result.json``; None where there is none.
        name: what the folder is called.
        files: SHA-256 of the folder's other files by their names.
        progress: how far a run has come that has not ended; None of others.
    """
    result = result or {}
    source = _source(agent, result)
    env = agent.source().get("env") or {}
    where = env.get("id") or result.get("env")
    front: dict[str, Any] = {
        "library_name": "rlkit",
        "tags": ["reinforcement-learning", *dict.fromkeys(filter(None, (agent.name, where)))],
        "datasets": [_plain(f"{source['name']}-generated" if source["generated"] else source["name"])],
    }
    if not source["sentence"]:
        del front["datasets"]
    final = result.get("final")
    if isinstance(final, Mapping):
        front["metrics"] = [_metric(key, final) for key in measures(final)]
        learnt = f"{where}, learnt from {source['sentence']}" if source["sentence"] else str(where)
        front["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "reinforcement-learning", "name": "reinforcement learning"},
                        "dataset": {"type": _plain(str(where)), "name": one_line(learnt, LONGEST)},
                        "metrics": front["metrics"],
                    }
                ],
            }
        ]
        front["metrics"] = [metric["type"] for metric in front["metrics"]]
    shows = next((file for file in files if Path(file).suffix in (".gif", ".png")), None)
    lines = [
        f"# {name}",
        "",
        f"A policy of `{agent.name}`{f' for `{where}`' if where else ''}, trained with rlkit.",
        *_progress(progress),
        *(["", f"![what it does]({shows})"] if shows else []),
        "",
        "## Use",
        "",
        "```python",
        "import rlkit",
        "",
        f'agent = rlkit.load("{name}")  # the path of this folder',
        "action, _ = agent.predict(observation, deterministic=True)",
        "```",
        "",
        f"`rlkit eval {name}` plays it, `pip install {DISTRIBUTION}` installs both. Loading runs no code of the "
        "folder's and downloads nothing: it holds tensors, JSON and names of what rlkit itself registers.",
        *_columns(agent),
        *_learnt(agent, result),
        *_measured(result),
        *_settings(agent, result),
    ]
    if "config.yaml" in files:
        lines += ["", f"Made by `{_command(result)}`." if result else "Made with the settings of `config.yaml`."]
    lines += ["", "## Files", "", "| file | SHA-256 |", "|---|---|", *(f"| {f} | `{h}` |" for f, h in files.items())]
    above = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=LONGEST)
    return f"---\n{above}# license: yours to choose; that of the data is below\n---\n\n{_text(lines)}"


def _text(lines: list[str]) -> str:
    return "\n".join(one_line(line, LONGEST) if line else line for line in lines) + "\n"


def _progress(told: str | None) -> list[str]:
    return ["", f"**{told}**: this is what it had learnt by then."] if told else []


def _plain(name: str) -> str:
    """``name`` in the characters that hubs take."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def _metric(key: str, final: Mapping[str, Any]) -> dict[str, Any]:
    name, _ = named(key, final[key])
    over = f"mean of {final['episodes']} episodes, {final.get('judged', 'greedy')}"
    return {"type": name.replace(" ", "_"), "value": round(float(final[key]), 6), "name": f"{name}, {over}"}


def _source(agent: Any, result: Mapping[str, Any]) -> dict[str, Any]:
    """What was learnt from: ``data`` as a run describes it, its ``name``, a ``sentence``, whether it was generated.

    Where a file lay nobody else needs to know: its name alone is told.
    """
    data = result.get("dataset") or agent.source().get("dataset") or {}
    places, told = str(data.get("locator") or ""), result.get("source_sentence") or data.get("locator") or ""
    name = str(data.get("name") or "")
    for place in places.split(" <- "):
        if Path(place).is_absolute():
            told = str(told).replace(place, Path(place).name)
    if name in ("", "unnamed"):
        name = Path(places.split(" <- ")[0]).stem
    return {"data": data, "name": name, "sentence": str(told), "generated": data.get("source") == "generated"}


def _columns(agent: Any) -> list[str]:
    """Tables of what goes in and comes out, where that is one vector."""
    space, told = agent.observation_space, metadata(agent)
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        return []
    normaliser = getattr(agent.policy, "obs_mean", None)
    observations = told["observations"] or [f"column {i}" for i in range(space.shape[0])]
    lines = [
        "",
        "| observation |" + (" mean | spread |" if normaliser is not None else ""),
        "|---|" + ("---|---|" if normaliser is not None else ""),
    ]
    for i, name in enumerate(observations):
        spread = "" if normaliser is None else f" {float(normaliser[i]):.6g} | {float(agent.policy.obs_std[i]):.6g} |"
        lines.append(f"| {_cell(name)} |{spread}")
    if told["low"] is not None and len(agent.action_space.shape) == 1:
        actions = told["actions"] or [f"column {i}" for i in range(len(told["low"]))]
        lines += ["", "| action | lowest | highest |", "|---|---|---|"]
        lines += [
            f"| {_cell(name)} | {low:.6g} | {high:.6g} |"
            for name, low, high in zip(actions, told["low"], told["high"], strict=True)
        ]
    return lines


def _cell(name: Any) -> str:
    return str(name).replace("|", r"\|")


def _learnt(agent: Any, result: Mapping[str, Any]) -> list[str]:
    source = _source(agent, result)
    data, lines = source["data"], ["", "## Learnt from", ""]
    if source["sentence"]:
        lines.append(f"- data: {source['sentence']}")
    if "transitions" in data:
        lines.append(f"- {data['transitions']:,} transitions in {data['episodes']:,} episodes")
        lines.append(f"- return of its episodes: {data['return_mean']:.4g} ± {data['return_sd']:.4g}")
    if "sha256" in data:
        lines.append(f"- sha256 `{data['sha256']}`")
    if data:
        lines.append(f"- its licence: {GENERATED if source['generated'] else 'not known to rlkit'}")
    lines.append(f"- {agent.num_timesteps:,} {agent.defaults.unit}, seed {agent.seed}")
    return lines + ([f"- `env={result['env']}`"] if result.get("env") else [])


def _measured(result: Mapping[str, Any]) -> list[str]:
    """The last lines of the run, but for its data and its place, which stand elsewhere."""
    if not result:
        return ["", "## Measured", "", "- not evaluated here"]
    told = {key: value for key, value in result.items() if key != "source_sentence"}
    if isinstance(told.get("verdict"), Mapping):  # JSON has lists for its pairs
        told["verdict"] = {key: tuple(v) if isinstance(v, list) else v for key, v in told["verdict"].items()}
    lines = sentence(told, Path()).split("\n")
    return ["", "## Measured", "", *(f"- {line}" for line in lines[:-1])]


def _settings(agent: Any, result: Mapping[str, Any]) -> list[str]:
    settings = ", ".join(f"{key}={value}" for key, value in vars(agent.config).items())
    lines = ["", "## Settings", "", f"`{settings}`"]
    if isinstance(result.get("versions"), Mapping):
        lines += ["", ", ".join(f"{name} {version}" for name, version in result["versions"].items())]
    return lines


def _command(result: Mapping[str, Any]) -> str:
    """The command that trains the same again, from the folder."""
    return f"rlkit train --config config.yaml out=runs/{_plain(str(result.get('agent')))}"
