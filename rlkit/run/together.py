"""Several runs in one process, those of one shape as one program; each has its own folder, as if it were alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from omegaconf import DictConfig

from rlkit.algorithms.callbacks import StopOnSignal
from rlkit.algorithms.engine.stacked import differing, groups
from rlkit.algorithms.engine.together import learn_together
from rlkit.algorithms.evaluate import Evaluation, acting, evaluate_together
from rlkit.algorithms.learner import Learner
from rlkit.algorithms.offline import OfflineAlgorithm
from rlkit.config import compose_config
from rlkit.errors import UserError
from rlkit.registry import agent_class
from rlkit.run import folder
from rlkit.run.interrupt import AGAIN, handling, stop, tell
from rlkit.run.session import Session, begun, beside, build, going_on, reopened, writing

ALIKE = ("device", "threads", "precision")  # settings of the process


def train_together(
    runs: Sequence[Any], total_timesteps: int | None = None, *, callbacks: Sequence[Any] | None = None, **options: Any
) -> list[Any]:
    """``learn`` of several agents at once, those of one shape as one program; or several runs with folders.

    Args:
        runs: agents that learn from data, such as five seeds of one; or, for runs with folders, the settings of each
            as the command line takes them: ``["agent=td3bc", "env=hopper-medium", "seed=0"]``, or a mapping of such.
        total_timesteps: updates of each agent; of runs, as for any key that is the same in all, that may be given here.
        callbacks: a callback, or a list of them, for each agent.
        options: ``log_interval``, ``tb_log_name`` and ``reset_num_timesteps`` of ``learn``; of runs, settings of all.

    Returns:
        the agents, or the results of the runs as in ``result.json``.

    Raises:
        UserError: what is not fit to be trained together, or the first run that failed, when the others have ended.
    """
    if not runs:
        raise UserError("train_together() needs agents or runs, got none")
    if all(isinstance(run, Learner) for run in runs):
        return _agents(runs, total_timesteps, callbacks, options)
    if callbacks is not None:
        raise UserError("callbacks= are for agents; runs evaluate and log by their settings")
    given = {**options, **({} if total_timesteps is None else {"total_timesteps": total_timesteps})}
    configs = [compose_config([*_settings(run), *_settings(given), "engine=stacked"]) for run in runs]
    for end in train_runs(configs):
        if isinstance(end, UserError):
            raise end
    return [folder.read_result(folder.folder_of(config.out)) for config in configs]


def _agents(agents: Sequence[Any], total: int | None, callbacks: Sequence[Any] | None, options: Any) -> list[Any]:
    if total is None:
        raise UserError("train_together() of agents needs total_timesteps, the updates of each")
    if len({id(agent) for agent in agents}) != len(agents):
        raise UserError("the same agent is given twice, expected agents of their own")
    own = callbacks if callbacks is not None else [None] * len(agents)
    if len(own) != len(agents):
        raise UserError(f"callbacks= has {len(own)} entries for {len(agents)} agents, expected one of each")
    for agent in agents:
        _require_stackable(type(agent))
    lessons = [agent.lessons(total, callback, **options) for agent, callback in zip(agents, own, strict=True)]
    ends = learn_together(agents, lessons)
    for end in ends:
        if isinstance(end, UserError):
            raise end
    return list(agents)


def _settings(run: Any) -> list[str]:
    if isinstance(run, Mapping):
        return [f"{key}={value}" for key, value in run.items()]
    if isinstance(run, str) or not isinstance(run, Sequence) or not all(isinstance(one, str) for one in run):
        raise UserError(f"a run is {run!r}, expected its settings, such as ['agent=td3bc', 'env=hopper-medium']")
    return list(run)


def _require_stackable(cls: type[Any]) -> None:
    if not issubclass(cls, OfflineAlgorithm):
        raise UserError(
            f"engine=stacked is for agents that learn from a dataset alone, agent={cls.name} does not; expected one of "
            "them, or another engine"
        )


def exit_code(ends: Sequence[int | UserError]) -> int:
    """That of a process whose runs had these ends, errors said."""
    for end in ends:
        if isinstance(end, UserError):
            print(f"rlkit: {end}", file=sys.stderr)
    return max(2 if isinstance(end, UserError) else end for end in ends)


def train_runs(configs: Sequence[DictConfig]) -> list[int | UserError]:
    """Run ``configs`` together, each in its own folder; returns the exit code of each, or what it failed of.

    With ``resume=true``, runs that were begun go on and those that have ended are left.  Raises :class:`UserError`
    before anything is written where one of them cannot be.
    """
    left: dict[Path, DictConfig] = {}
    going: dict[Path, dict[str, Any]] = {}  # those that were begun, and the changes they go on with
    for config in configs:
        out = folder.folder_of(config.out)
        _require_stackable(agent_class(config.agent.name))
        if config.resume and begun(out):
            changes = going_on(out, config)
            if changes is None:
                print(f"{out} has ended already")
                continue
            going[out] = changes
        else:
            folder.check_folder(out, config.overwrite)
        left[out] = config
    if not left:
        return [0 for _ in configs]
    with ExitStack() as held:
        for out, changes in going.items():
            held.enter_context(writing(out))
            left[out] = reopened(out, {**changes, "engine": "stacked"})
        agents = _built(list(left.values()))
        for out, config in left.items():
            if out not in going:
                held.enter_context(writing(out))
                folder.begin(out, config.overwrite)
        sessions = [Session(config, agent, out) for (out, config), agent in zip(left.items(), agents, strict=True)]
        return _run(sessions, [out in going for out in left]) + [0 for _ in configs[len(left) :]]


def resume_runs(outs: Sequence[Path], **changes: Any) -> list[int | UserError]:
    """Continue the runs in ``outs`` together, each from its newest checkpoint; see :func:`rlkit.run.session.resume`."""
    for out in outs:
        if not (folder.marked(out) or (out / "config.yaml").is_file()):
            raise UserError(f"{out} is not a run: expected a folder with config.yaml, written by rlkit train")
    with ExitStack() as held:
        for out in outs:
            held.enter_context(writing(out))
        configs = [reopened(out, {**changes, "engine": "stacked", "progress_bar": False}) for out in outs]
        for config in configs:
            _require_stackable(agent_class(config.agent.name))
        agents = _built(configs)
        return _run([Session(*parts) for parts in zip(configs, agents, outs, strict=True)], [True] * len(outs))


def _built(configs: Sequence[DictConfig]) -> list[Any]:
    """The agents, what they have in common held once."""
    for key in ALIKE:
        if any(config[key] != configs[0][key] for config in configs):
            raise UserError(f"{key} differs between runs of one process, expected {key}={configs[0][key]} for all")
    torch.set_num_threads(configs[0].threads)
    sources: dict[str, Any] = {}
    agents: list[Any] = []
    for config in configs:
        config.progress_bar = False
        agent: Any = build(config, sources)
        alike = next((other for other in agents if differing([other, agent]) is None), None)
        if alike is not None:
            agent.share(alike)
        agents.append(agent)
    _tell_groups(agents)
    return agents


def _run(sessions: Sequence[Session], resuming: Sequence[bool]) -> list[int | UserError]:
    agents = [session.agent for session in sessions]
    stoppers = [StopOnSignal() for _ in sessions]
    for session in sessions[1:]:
        session.pool = sessions[0].pool  # one evaluation at a time
    lessons = [session.lessons(own, going) for session, own, going in zip(sessions, stoppers, resuming, strict=True)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        again = any(own.signal for own in stoppers) or any(session.finishing for session in sessions)
        for own in stoppers:
            own.stop(number)
        if again:
            stop(number, frame)
        tell(f"interrupted, ending with checkpoints after the update or evaluation that runs now ({AGAIN})")

    with handling(interrupt):
        ends = learn_together(agents, lessons, partial(_judge, sessions))
    return [
        type(end)(f"{session.out}: {end}") if isinstance(end, UserError) else int(end)
        for session, end in zip(sessions, ends, strict=True)
    ]


def _tell_groups(agents: Sequence[Any]) -> None:
    found = groups(agents)
    if len(found) == len(agents) > 1:
        raise UserError(f"no two of these runs can be one program: {differing(agents[:2])}")
    sizes = ", ".join(str(len(group)) for group in found)
    reasons = [differing([agents[found[0][0]], agents[group[0]]]) for group in found[1:]]
    told = "".join(f"; {reason}" for reason in dict.fromkeys(reasons))
    print(f"{len(agents)} runs in {len(found)} program{'s' * (len(found) > 1)} of {sizes}{told}", flush=True)


def _judge(sessions: Sequence[Session], places: Sequence[int]) -> None:
    """Evaluate together what the next turns of ``places`` will ask for."""
    asked: dict[int, list[tuple[Session, Any]]] = {}
    for place in places:
        due = sessions[place].due()
        if due is not None:
            asked.setdefault(due[1], []).append((sessions[place], due[0]))
    for index, pairs in asked.items():
        learning = not any(one.closing for one, _ in pairs)
        apart = learning and all(beside(one.agent, evaluator) for one, evaluator in pairs)
        agents = [acting(one.agent) if one.agent.device.type != "cpu" or apart else one.agent for one, _ in pairs]
        evaluators = [evaluator for _, evaluator in pairs]
        if apart:  # what fails is told by the run whose turn it is to wait
            future = pairs[0][0].pool.submit(evaluate_together, evaluators, agents, index)
            for place, (session, _) in enumerate(pairs):
                session.answered(partial(_of, future, place))
            continue
        try:
            found = evaluate_together(evaluators, agents, index)
        except UserError:
            continue  # each finds out by itself whose it is
        for (session, _), one in zip(pairs, found, strict=True):
            session.answered(partial(_same, one))


def _of(future: Future[list[Evaluation]], place: int) -> Evaluation:
    return future.result()[place]


def _same(found: Evaluation) -> Evaluation:
    return found
