"""The face of rlkit: make, load, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from rlkit import registry
from rlkit.algorithms.base import Persistent
from rlkit.algorithms.checkpoint import read_artefact
from rlkit.algorithms.evaluate import Evaluation, Evaluator
from rlkit.errors import UserError, require_choice, shown
from rlkit.registry import EnvRecord
from rlkit.vector import named

A = TypeVar("A", bound=Persistent)


@overload
def make(agent: type[A], env_or_data: Any, **options: Any) -> A: ...
@overload
def make(agent: str, env_or_data: Any, **options: Any) -> Persistent: ...
def make(agent: str | type[Persistent], env_or_data: Any, **options: Any) -> Persistent:
    """An agent over what it learns from: ``rlkit.make("prdc", "hopper-medium", beta=2.0, seed=0)``.

    Args:
        agent: a name (``rlkit.agents()`` has them all, upper and lower case are one) or a class.
        env_or_data: for agents that learn from data, a record's name, a Minari id, a file's path or an
            ``OfflineDataset``; for those that act, a record's name, a Gymnasium id or an environment.
        options: ``seed``, ``device``, ``tensorboard_log``, ``verbose``, ``policy_kwargs`` and the agent's
            hyperparameters, see ``help`` of its class.

    Raises:
        UserError: an unknown agent, data or option, or a value out of range; what was expected instead is said.
    """
    cls = registry.agent_class(agent.lower().replace("_", "-")) if isinstance(agent, str) else agent
    return cls.over(env_or_data, **options)


def load(path: str | Path, env_or_data: Any = None, **options: Any) -> Persistent:
    """The agent in an artefact, a checkpoint, or the folder of a run; with ``env_or_data`` it can also learn on.

    Loading runs no code of the file's: it holds tensors, JSON and names of what is registered here.

    Args:
        path: a file written by ``save`` or ``save_checkpoint``, or a run's folder, whose ``model.rlk`` is taken.
        env_or_data: as :func:`make` takes it, or None: the agent predicts.
        options: what the agent's own ``load`` takes, such as ``device`` (the processor unless it says otherwise).

    Raises:
        ArtefactError: a damaged file, or one of an unknown agent.
    """
    found = artefact_of(path)
    arguments = () if env_or_data is None else (env_or_data,)
    return Persistent.load(found, *arguments, **{"device": "cpu", **options})


def artefact_of(path: str | Path) -> Path:
    """The artefact at ``path``: the file itself, or what a run's folder ends in."""
    found = Path(path)
    return found / "model.rlk" if found.is_dir() else found


def evaluate(
    agent: Any,
    env: Any = None,
    *,
    episodes: int = 100,
    seed: int = 0,
    judged: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    **search: int,
) -> Evaluation:
    """Episodes of ``agent``, all at once in a batch of environments, each with a seed of its own.

    Args:
        agent: an agent of rlkit, any algorithm with SB3's ``predict``, or the path of an artefact or run.
        env: a record's name, a Gymnasium id or a record; None: where the agent learns, or its file says that it did.
        episodes: how many, at least 1.
        seed: decides first states and samples; the same seed gives the same episodes.
        judged: "greedy" or "sampled"; None: as the agent is judged.
        env_kwargs: arguments of the environment that its record declares, such as ``num_nodes``.
        search: ``beam`` and ``augment`` of agents that search.

    Returns:
        ``returns`` float64 ``[episodes]``, ``lengths``, normalised ``scores`` where there are reference returns, and
        ``by_reward`` where an environment tells a true reward from a proxy.

    Raises:
        UserError: no environment is known, or it does not fit the agent.
    """
    found, evaluator = measured(agent, env, episodes, seed, judged, env_kwargs, search)
    try:
        return evaluator(found)
    finally:
        evaluator.close()


def measured(
    agent: Any,
    env: Any,
    episodes: int,
    seed: int,
    judged: str | None,
    env_kwargs: Mapping[str, Any] | None = None,
    search: Mapping[str, int] | None = None,
) -> tuple[Any, Evaluator]:
    """The agent itself and what :func:`evaluate` measures it by; arguments and errors are its."""
    if not isinstance(episodes, int) or isinstance(episodes, bool) or episodes < 1:
        raise UserError(f"episodes={shown(episodes)} is out of range, expected a whole number above 0")
    if judged is not None:
        require_choice("judged", judged, ("greedy", "sampled"))
    record = named(env)
    if record is not None and not isinstance(record, EnvRecord):
        raise UserError(f"env={shown(env)} cannot be made many times, expected a name or a Gymnasium id")
    if env_kwargs:
        if record is None:
            raise UserError("env_kwargs are those of an environment that is named, expected env= beside them")
        record = registry.configured(record, env_kwargs, f"env={record.name}")
    where = f"this {getattr(agent, 'name', type(agent).__name__)}"
    if isinstance(agent, (str, Path)):
        path = artefact_of(agent)
        where, agent = str(path), load(path)
        if record is None:
            record = registry.environment(read_artefact(path)[0].get("env"), where)
        if record is not None and not registry.is_known(record):
            raise UserError(f"{where} was made in '{record.env_id}', which is not registered here; pass env=NAME")
    evaluator = _evaluator(agent, episodes, seed, record)
    if evaluator is None:
        raise UserError(f"{where} names no environment; pass env=NAME")
    evaluator.judged = judged or evaluator.judged
    if search:
        if not hasattr(evaluator, "search"):
            raise UserError(f"{agent.name} does not search, expected no {' or '.join(f'{key}=' for key in search)}")
        evaluator.search = dict(search)
    return agent, evaluator


def _evaluator(agent: Any, episodes: int, seed: int, record: EnvRecord | None) -> Evaluator | None:
    if hasattr(agent, "evaluator"):
        return agent.evaluator(episodes, seed, record)
    if record is None:
        return None
    reference = record.data.reference if record.data else None
    return Evaluator(record.env_id, episodes=episodes, seed=seed, env_kwargs=record.env_kwargs, reference=reference)
