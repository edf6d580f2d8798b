"""The environment that data was recorded in, beside the one in which policies learnt from it are evaluated."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.data.dataset import OfflineDataset
from rlkit.data.minari_store import open_local
from rlkit.errors import DataError, UserError, refusing, shown
from rlkit.registry import environment, is_known
from rlkit.vector import hush_mujoco

Named = tuple[str, Mapping[str, Any]]  # an environment's id and keywords
NEUTRAL = ("render_mode", "max_episode_steps", "disable_env_checker")  # keywords that change no transition
PHYSICS = (  # of a MuJoCo model: what two of one shape may differ in
    "body_mass",
    "geom_size",
    "geom_friction",
    "jnt_range",
    "dof_damping",
    "dof_armature",
    "actuator_gear",
    "actuator_ctrlrange",
)


def recorded_in(data: OfflineDataset) -> Named | None:
    """What the data says it was recorded in: a Minari dataset's own environment, or that of data in memory."""
    if data.provenance.source.startswith("minari"):
        with suppress(DataError), refusing(data.provenance.locator, "names no environment", DataError):
            spec = open_local(data.provenance.locator).env_spec
            return None if spec is None else (str(spec.id), dict(spec.kwargs))
        return None  # it lies elsewhere, or what it says is unsound
    if data.provenance.source in ("generated", "memory") and data.env_id is not None:
        return data.env_id, data.env_kwargs
    return None


def differences(recorded: Named, evaluated: Named) -> list[str]:
    """In what two environments are known to differ, a clause each; empty where nothing is known to.

    Compared are names and versions, every keyword that both state (given, registered, or by default), the walls of
    mazes, and the parameters of MuJoCo models where both can be made here.  Files name neither code nor models: an
    environment is made only if it is registered and its keywords are declared.
    """
    names = [re.sub(r"^.*/", "", one[0]) for one in (recorded, evaluated)]
    found = [] if names[0] == names[1] else [f"{shown(recorded[0])}, not {shown(evaluated[0])}"]
    mine, other = (_make(one) for one in (recorded, evaluated))
    try:
        stated = {**(_keywords(mine) if mine is not None else {}), **recorded[1]}
        known = {**(_keywords(other) if other is not None else {}), **evaluated[1]}
        for name in sorted(stated.keys() & known.keys() - set(NEUTRAL)):
            pair = [_plain(name, one[name]) for one in (stated, known)]
            if pair[0] != pair[1] and "maze" in name:
                found.append(f"{name} has other walls")
            elif pair[0] != pair[1]:
                found.append(f"{name}={shown(pair[0])}, not {shown(pair[1])}")
        if mine is not None and other is not None:
            found += _physics(mine, other)
    finally:
        for env in (mine, other):
            if env is not None:
                env.close()
    return found


def _make(named: Named) -> gym.Env[Any, Any] | None:
    """The environment, where it may be made here."""
    try:
        record = environment({"id": named[0], "kwargs": dict(named[1])}, "the data")
        if record is None or not is_known(record):
            return None
        with refusing(named[0], "cannot be made", DataError):
            hush_mujoco()
            return gym.make(named[0], **record.env_kwargs)
    except UserError:
        return None


def _keywords(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """The keywords of an environment's class by their values: by default, as registered, or as it holds them."""
    parameters = inspect.signature(type(env.unwrapped).__init__).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = {p.name: p.default for p in parameters if p.kind in named and p.default is not p.empty}
    maze: Any = getattr(env.unwrapped, "maze", None)
    if hasattr(maze, "maze_map"):
        found["maze_map"] = maze.maze_map
    return found | (dict(env.spec.kwargs) if env.spec is not None else {})


def _plain(name: str, value: Any) -> Any:
    """A value such that equal ones compare equal, however they are held; of mazes, where their walls are."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if "maze" in name and isinstance(value, (list, tuple)):  # letters mark starts and goals in free cells
        return [[str(cell) in ("1", "#", "True") for cell in row] for row in value]
    if isinstance(value, (list, tuple)):
        return [_plain("", one) for one in value]
    return value


def _physics(mine: gym.Env[Any, Any], other: gym.Env[Any, Any]) -> list[str]:
    """In what the MuJoCo models of two environments differ."""
    models: list[Any] = [getattr(env.unwrapped, "model", None) for env in (mine, other)]
    if any(not hasattr(model, "opt") or not hasattr(model, "nq") for model in models):
        return []
    if (sizes := [(model.nq, model.nv, model.nu) for model in models])[0] != sizes[1]:
        return [f"a model of {sizes[0]} positions, velocities and actuators, not {sizes[1]}"]
    steps = [m.opt.timestep * getattr(e.unwrapped, "frame_skip", 1) for m, e in zip(models, (mine, other), strict=True)]
    found = [] if np.isclose(*steps) else [f"steps of {steps[0]:g} s, not {steps[1]:g}"]
    if not np.allclose(models[0].opt.gravity, models[1].opt.gravity):
        found.append(f"gravity {models[0].opt.gravity[2]:g}, not {models[1].opt.gravity[2]:g}")
    for name in PHYSICS:
        a, b = (np.asarray(getattr(model, name)) for model in models)
        if a.shape != b.shape or not np.allclose(a, b):
            found.append(f"another {name}")
    return found
