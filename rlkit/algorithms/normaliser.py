"""SB3's ``VecNormalize`` around an agent's environment: batches as it shows them, its state in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from rlkit.errors import ArtefactError, shown

SETTINGS = ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "training")


def underneath(env: VecEnv | None) -> VecEnv | None:
    """What a normaliser that is outermost wraps; any other environment itself."""
    return env.venv if isinstance(env, VecNormalize) else env


def normalised(batch: Any, env: VecNormalize | None) -> Any:
    """A replay's ``Batch`` with observations and rewards as ``env`` gives them to the policy by now, or as it is."""
    if env is None:
        return batch

    def through(normalise: Any, values: Tensor) -> Tensor:
        return torch.as_tensor(normalise(values.cpu().numpy()), device=values.device).float()

    return batch._replace(
        observations=through(env.normalize_obs, batch.observations),
        rewards=through(env.normalize_reward, batch.rewards),
        next_observations=through(env.normalize_obs, batch.next_observations),
    )


def settings(env: VecNormalize | None) -> dict[str, Any] | None:
    """What else the next observation depends on, as JSON."""
    return None if env is None else {name: getattr(env, name) for name in SETTINGS}


def statistics(env: VecNormalize | None, original: Any) -> dict[str, Tensor]:
    """Running means and variances, the returns of the running episodes, and the last observation as it was."""
    if env is None:
        return {}
    found = {"returns": env.returns, **_moments(env)}
    if original is not None:
        found["original"] = original
    return {f"normaliser.{name}": torch.from_numpy(np.array(values)) for name, values in found.items()}


def load_statistics(env: VecNormalize | None, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Any:
    """Undo :func:`statistics`; returns the last observation as it was, or None.

    Raises :class:`ArtefactError` where only one of checkpoint and agent is normalised, or they are so differently.
    """
    there, here = values.get("normaliser"), settings(env)
    if isinstance(there, dict) and here is not None and there != here:
        name = next(k for k in SETTINGS if there.get(k) != here[k])
        was, now = shown(there.get(name)), here[name]
        raise ArtefactError(f"VecNormalize had {name}={was}, here it has {now}; resuming would not be exact")
    if there != here:
        sides = ("a VecNormalize", "none") if here is None else ("no VecNormalize", "one")
        raise ArtefactError(f"{sides[0]} was around the environment, here is {sides[1]}; resuming would not be exact")
    if env is None:
        return None
    found = {k.removeprefix("normaliser."): v.numpy().copy() for k, v in tensors.items() if k.startswith("normaliser.")}
    for name, own in {"returns": env.returns, **_moments(env)}.items():
        if found[name].shape != np.shape(own) or not np.isfinite(found[name]).all():
            raise ArtefactError(f"the normaliser's {name} does not fit, expected shape {list(np.shape(own))}")
    env.returns = found["returns"]
    for which, running in _running(env).items():
        running.mean, running.var = found[f"{which}.mean"], found[f"{which}.var"]
        running.count = float(found[f"{which}.count"])
    return found.get("original")


def _running(env: VecNormalize) -> dict[str, Any]:
    return {"return": env.ret_rms, **({"observation": env.obs_rms} if env.norm_obs else {})}


def _moments(env: VecNormalize) -> dict[str, Any]:
    names = ("mean", "var", "count")
    return {f"{which}.{name}": getattr(rms, name) for which, rms in _running(env).items() for name in names}
