"""A policy as a file that other programs run: ONNX, or PyTorch's exported program (``.pt2``).

What was learnt from is inside: observations go in as they were recorded and are standardised there, actions come out in
the units of the actuators and within their bounds.  The batch may be of any size.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Distribution

from rlkit.data.files import atomic_path
from rlkit.errors import UserError, install_extra, one_line

SUFFIXES = (".onnx", ".pt2")
PROBES = 1000  # observations on which the file and the agent must agree
TOLERANCE = 1e-4  # of half an action's range
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class Acting(nn.Module):
    """The agent's greedy action: float32 ``[batch, ds]`` to actions as the environment takes them, ``[batch, ...]``."""

    low: Tensor
    high: Tensor

    def __init__(self, agent: Any):
        super().__init__()
        self.policy = agent.policy
        space = agent.action_space
        self.bounded = isinstance(space, spaces.Box)
        if isinstance(space, spaces.Box):
            self.squashed = bool(getattr(agent.policy, "squash_output", False))  # SB3's policies, in [-1, 1]
            self.register_buffer("low", torch.as_tensor(space.low).float(), persistent=False)
            self.register_buffer("high", torch.as_tensor(space.high).float(), persistent=False)

    def forward(self, observations: Tensor) -> Tensor:
        actions = self.policy._predict(observations, deterministic=True)
        if not self.bounded:
            return actions
        if self.squashed:
            actions = self.low + 0.5 * (actions + 1.0) * (self.high - self.low)
        return torch.maximum(torch.minimum(actions, self.high), self.low)


def probes(agent: Any) -> np.ndarray:
    """float32 ``[PROBES, ds]``: observations around those that were learnt from, or within the space's bounds."""
    space, generator = agent.observation_space, np.random.default_rng(0)
    values = generator.normal(size=(PROBES, *space.shape))
    if hasattr(agent.policy, "obs_mean"):
        values = agent.policy.obs_mean.cpu().numpy() + 2 * agent.policy.obs_std.cpu().numpy() * values
    return np.clip(values, space.low, space.high).astype(np.float32)


def metadata(agent: Any) -> dict[str, Any]:
    """What a file says beside the policy: plain JSON values."""
    data = agent.source().get("dataset") or {}
    details = data.get("details")
    columns = (details if isinstance(details, Mapping) else {}).get("columns")
    columns = columns if isinstance(columns, Mapping) else {}
    space = agent.action_space
    bounded = isinstance(space, spaces.Box)
    return {
        "agent": agent.name,
        "observations": list(columns.get("observations", ())),
        "actions": list(columns.get("actions", ())),
        "low": space.low.tolist() if bounded else None,
        "high": space.high.tolist() if bounded else None,
        "n_actions": int(space.n) if isinstance(space, spaces.Discrete) else None,
        "dataset_sha256": data.get("sha256"),
    }


def export(agent: Any, path: str | Path, overwrite: bool = False) -> float:
    """Write the greedy policy of ``agent`` to ``path``, ``.onnx`` or ``.pt2``, once it acts as the agent does.

    The input is ``observations``, float32 ``[batch, ds]``; the output ``actions``.  What is written is run on
    :data:`PROBES` observations first.

    Returns:
        the largest difference from the agent's own actions, in halves of an action's range.

    Raises:
        UserError: another suffix, a file that is there already, an extra that is missing, an agent whose policy is no
            function of one vector, or a file that would act otherwise.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is of no kind that is written, expected {' or '.join(SUFFIXES)}")
    if path.suffix == ".onnx" and any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise UserError(f"writing ONNX needs {', '.join(NEEDED)}, expected them installed: {install_extra('export')}")
    space = agent.observation_space
    kinds = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not isinstance(agent.action_space, kinds):
        raise UserError(f"{agent.name} cannot be exported: expected one vector of observations, got {one_line(space)}")
    if agent.source().get("normalised"):
        raise UserError(f"{agent.name} acts on what a VecNormalize has normalised, which is not in its artefact")
    model, given = Acting(agent).eval(), torch.from_numpy(probes(agent)).to(agent.device)
    batch = {"observations": {0: torch.export.Dim("batch", min=1)}}
    checks = Distribution._validate_args
    with atomic_path(path, overwrite) as temporary, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of PyTorch's own exporter
        Distribution.set_default_validate_args(False)  # a check of values is no part of a program
        logger = logging.getLogger("torch.onnx")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            program = torch.export.export(model, (given[:2],), dynamic_shapes=batch)
            write = _write_onnx if path.suffix == ".onnx" else _write_pt2
            run = write(program, temporary, metadata(agent))
            found = run(given)
        except UserError:
            raise
        except Exception as error:  # whatever a policy does that cannot be written as a program
            raise UserError(
                f"{agent.name} cannot be exported: its policy is no fixed program ({one_line(error)})"
            ) from error
        finally:
            Distribution.set_default_validate_args(checks)
            logger.setLevel(level)
        wanted = agent.predict(given.cpu().numpy(), deterministic=True)[0]
        half = (model.high - model.low).cpu().numpy() / 2 if model.bounded else 1.0
        difference = float(np.max(np.abs(found.astype(np.float64) - wanted) / half))
        if not difference <= TOLERANCE:
            raise UserError(
                f"{path}: what was written acts otherwise than {agent.name}, by {difference:.2g} of half an action's "
                f"range on {PROBES} observations, expected at most {TOLERANCE:g}; nothing was kept"
            )
    return difference


Run = Callable[[Tensor], np.ndarray]


def _write_pt2(program: Any, path: Path, told: Mapping[str, Any]) -> Run:
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"rlkit.json": json.dumps(told)})
    with path.open("rb") as file:
        loaded = torch.export.load(file).module()
    return lambda observations: loaded(observations).cpu().numpy()


def _write_onnx(program: Any, path: Path, told: Mapping[str, Any]) -> Run:
    import onnxruntime

    names = ["observations"], ["actions"]
    made = torch.onnx.export(program, input_names=names[0], output_names=names[1], dynamo=True, verbose=False)
    assert made is not None
    made.model.metadata_props.update({f"rlkit.{key}": json.dumps(value) for key, value in told.items()})
    made.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda observations: session.run(None, {"observations": observations.cpu().numpy()})[0]
