"""``rlkit eval RUN|ARTEFACT [env=NAME] [episodes=100] [seed=0]``: play, and print scores with their interval.

``rlkit eval agent=NAME env=NAME`` takes the weights that ship with the agent.  Further ``key=value`` are arguments of
the environment, such as ``num_nodes=100``; ``beam=`` and ``augment=`` are passed on to agents that search.
``judged=greedy|sampled`` says how the policy acts, instead of as its agent is judged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rlkit.cli.parser import Parser, told
from rlkit.errors import UserError, nearest, one_line

RANGES = {"episodes": (1, 10**6), "seed": (0, 2**32 - 1), "beam": (1, 10**6), "augment": (1, 10**6)}  # whole numbers
KEYS = ("agent", "env", "judged", *RANGES)


EPILOG = """settings:
  env=NAME                    play there, not where the artefact says
  episodes=100 seed=0         how many episodes, and the first one's seed
  judged=greedy|sampled       how the policy acts; by default as its agent is judged
  agent=NAME                  instead of RUN: weights that ship with the agent, for env=NAME
  beam=N augment=N            of agents that search
  num_nodes=100 ...           arguments of env=NAME"""


def parser() -> Parser:
    usage = "rlkit eval RUN|ARTEFACT|agent=NAME [env=NAME] [episodes=100] [seed=0] [KEY=VALUE ...]"
    text = "Play, and print scores with their interval."
    found = Parser(prog="rlkit eval", usage=usage, description=text, epilog=EPILOG)
    found.add_argument("settings", nargs="*", metavar="RUN|ARTEFACT", help="a run's folder, or a .rlk file")
    return found


def main(argv: list[str]) -> int:
    """Play and print; returns 0.  Raises :class:`UserError` for bad input."""
    targets, settings = told(parser().read(argv).settings)
    if len(targets) + ("agent" in settings) != 1:
        parser().error(f"expected one run or artefact, not {len(targets) + ('agent' in settings)}")
    numbers = {"episodes": 100, "seed": 0}
    for key, (least, most) in RANGES.items():
        text = settings.get(key, str(numbers.get(key, least)))
        if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise UserError(
                f"{key}={one_line(text, 60)} is out of range, expected a whole number from {least} to {most}"
            )
        numbers[key] = int(text)
    rest = {key: value for key, value in settings.items() if key not in KEYS}
    if "env" not in settings:
        for key in rest:
            raise UserError(f"unknown key '{key}'{nearest(key, KEYS)}; an environment's arguments need env=NAME")
        if "agent" in settings:
            raise UserError("agent= takes weights for one environment, expected env=NAME beside it")

    from rlkit import registry
    from rlkit.algorithms.checkpoint import read_artefact
    from rlkit.algorithms.evaluate import measures, named
    from rlkit.api import measured
    from rlkit.config import typed_record
    from rlkit.run.reading import newest_artefact, under_way
    from rlkit.run.report import interval
    from rlkit.stats import bootstrap_interval

    record = typed_record(settings["env"]) if "env" in settings else None
    if record is not None:
        record = registry.configured(record, {key: _value(text) for key, text in rest.items()}, f"env={record.name}")
    if "agent" in settings:
        assert record is not None
        path = registry.shipped_weights(settings["agent"], record.name)
    else:
        path = newest_artefact(Path(targets[0]))
    search: dict[str, int] = {key: numbers[key] for key in ("beam", "augment") if key in settings}
    agent, evaluator = measured(
        path, record, numbers["episodes"], numbers["seed"], settings.get("judged"), search=search
    )
    found = evaluator(agent)
    evaluator.close()
    print(
        f"{agent.name} on {evaluator.env_id}, {len(found.returns)} episodes, {evaluator.judged}, seed {evaluator.seed}"
    )
    if targets and (progress := under_way(Path(targets[0]), agent)):
        print(progress)
    samples, summary = found.samples(), found.summary()
    shown = dict.fromkeys((*measures(samples), "return"))
    if found.by_reward:
        del shown["return"]  # it is one of the two
    for key in sorted(shown, key="score".__eq__):
        name, digits = named(key, summary[key])
        spread = interval(bootstrap_interval(samples[key]), digits)
        print(f"{name} {summary[key]:.{digits}f} ± {samples[key].std():.{digits}f} ({spread} of the mean)")
    for name, value in summary.items():
        if name not in (*samples, "return_sd", "length"):
            print(f"{name.replace('_', ' ')} {value:.4g}{' %' if name.endswith('gap') else ''}")
    data = read_artefact(path)[0].get("dataset")
    if isinstance(data, dict):
        print(one_line(f"trained on {data.get('name')}: {data.get('source')} {data.get('locator')}"))
    return 0


def _value(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # such as a date without such a day
        return text
