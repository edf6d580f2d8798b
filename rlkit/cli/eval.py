"""``rlkit eval RUN|ARTEFACT [env=NAME] [episodes=100] [seed=0]``: play, and print scores with their interval.

``rlkit eval agent=NAME env=NAME`` takes the weights that ship with the agent.  Further ``key=value`` are arguments of
the environment, such as ``num_nodes=100``; ``beam=`` and ``augment=`` are passed on to agents that search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlkit.errors import UserError, nearest

USAGE = "usage: rlkit eval RUN|ARTEFACT|agent=NAME [env=NAME] [episodes=100] [seed=0] [key=value of the environment]"
LEAST = {"episodes": 1, "seed": 0, "beam": 1, "augment": 1}  # whole numbers
KEYS = ("agent", "env", *LEAST)


def main(argv: list[str]) -> int:
    targets = [a for a in argv if "=" not in a]
    settings = dict(a.split("=", 1) for a in argv if "=" in a)
    if len(targets) + ("agent" in settings) != 1:
        raise UserError(USAGE)
    numbers = {"episodes": 100, "seed": 0}
    for key, least in LEAST.items():
        text = settings.get(key, str(numbers.get(key, least)))
        if not text.isdigit() or int(text) < least:
            raise UserError(f"{key}={text} is out of range, expected a whole number of at least {least}")
        numbers[key] = int(text)
    rest = {key: value for key, value in settings.items() if key not in KEYS}
    if "env" not in settings:
        for key in rest:
            raise UserError(f"unknown key '{key}'{nearest(key, KEYS)}; an environment's arguments need env=NAME")
        if "agent" in settings:
            raise UserError("agent= takes weights for one environment, expected env=NAME beside it")

    from rlkit import registry
    from rlkit.checkpoint import read_artefact
    from rlkit.persistent import Persistent
    from rlkit.stats import bootstrap_interval, decimals

    record = registry.record(settings["env"]) if "env" in settings else None
    if record is not None:
        record = replace(record, env_kwargs={**record.env_kwargs, **{k: _value(v) for k, v in rest.items()}})
        if rest:
            _check(record, rest)
    if "agent" in settings:
        assert record is not None
        path = registry.shipped_weights(settings["agent"], record.name)
    else:
        path = Path(targets[0])
        path = path / "model.rlk" if path.is_dir() else path
    manifest, _, _ = read_artefact(path)
    agent = Persistent.load(path, device="cpu")
    record = record or _named_in(manifest)
    if record is None:
        raise UserError(f"{path} names no environment; pass env=NAME")
    evaluator = agent.evaluator(numbers["episodes"], numbers["seed"], record)
    assert evaluator is not None
    search = {key: numbers[key] for key in ("beam", "augment") if key in settings}
    if search:
        if not hasattr(evaluator, "search"):
            raise UserError(f"{agent.name} does not search, expected no {' or '.join(f'{key}=' for key in search)}")
        evaluator.search = search
    found = evaluator(agent)
    evaluator.close()
    low, high = bootstrap_interval(found.returns)
    print(f"{agent.name} on {record.env_id}, {len(found.returns)} episodes, seed {evaluator.seed}")
    digits = decimals(found.returns.mean())
    spread = f"{found.returns.mean():.{digits}f} ± {found.returns.std():.{digits}f}"
    print(f"return {spread} (95 % interval of the mean {low:.{digits}f} to {high:.{digits}f})")
    if found.scores is not None:
        low, high = bootstrap_interval(found.scores)
        print(f"normalised score {found.scores.mean():.1f} (95 % interval {low:.1f} to {high:.1f})")
    for name, value in found.summary().items():
        if name in ("return", "return_sd", "length", "score"):
            continue
        print(f"{name.replace('_', ' ')} {value:.4g}{' %' if name.endswith('gap') else ''}")
    if data := manifest.get("dataset"):
        print(f"trained on {data['name']}: {data['source']} {data['locator']}")
    return 0


def _named_in(manifest: Mapping[str, Any]) -> Any:
    """The record of the environment that an artefact names; None where it names none."""
    from rlkit.registry import DataSpec, EnvRecord

    env = manifest.get("env")
    if not env or not env["id"]:
        return None
    reference = env["reference"] and DataSpec("", "", (env["reference"][0], env["reference"][1]))
    return EnvRecord(env["id"], env["id"], env["id"], "", "", reference or None, env["kwargs"])


def _check(record: Any, arguments: Iterable[str]) -> None:
    """Raise :class:`UserError` where the environment does not take its ``arguments``."""
    import gymnasium as gym

    try:
        gym.make(record.env_id, **record.env_kwargs).close()
    except TypeError as error:
        raise UserError(f"env={record.name} does not take {', '.join(arguments)} ({error})") from error


def _value(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)
