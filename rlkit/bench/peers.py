"""The other libraries: kept quiet, and d3rlpy behind the two calls that the bench needs, run as its users run it."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import torch

from rlkit.bench.measure import PeerMissing, Settings
from rlkit.data.dataset import OfflineDataset
from rlkit.errors import install_extra


def hush_gym() -> None:
    """Import the old ``gym``, where it is installed, without the notice about itself that it writes to stderr.

    d3rlpy needs it and Stable-Baselines3 looks for it; neither uses what the notice warns of.
    """
    with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("gym")


def import_d3rlpy() -> ModuleType:
    """d3rlpy, silent unless something is wrong; raises :class:`PeerMissing` where it is not installed."""
    hush_gym()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its own use of other libraries
            d3rlpy = importlib.import_module("d3rlpy")
    except ModuleNotFoundError as error:
        if error.name != "d3rlpy":
            raise
        raise PeerMissing(f"peer not installed: {install_extra('bench')}") from None
    import structlog

    # Its information about shapes and file names would stand between the table's lines; warnings and errors stay.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    return d3rlpy


class D3rlpyLearner:
    """One d3rlpy algorithm over a dataset; :meth:`updates` is the body of its own ``fit`` without the logger.

    Observations are handed over normalised, so its scaler has nothing to do.  The networks have the same layout as
    the library's; those of TD3's kind start from the given weights, as a neighbour search is slower for an untrained
    policy.
    """

    def __init__(
        self, algorithm: str, data: OfflineDataset, agent: Any, settings: Settings, compile_graph: bool = False
    ):
        """``compile_graph`` is d3rlpy's own option, which does something on CUDA alone."""
        d3rlpy = import_d3rlpy()
        mean, std = agent.policy.obs_mean.cpu().numpy(), agent.policy.obs_std.cpu().numpy()
        observations = (data.observations - mean) / std
        self.batch_size = settings.batch_size
        self.dataset = d3rlpy.dataset.MDPDataset(
            observations,
            data.actions,
            data.rewards,
            data.terminations.astype(np.float32),
            (data.truncations & ~data.terminations).astype(np.float32),
            action_space=d3rlpy.ActionSpace.CONTINUOUS,
        )
        config = getattr(d3rlpy.algos, f"{algorithm}Config")
        shared = {name: getattr(agent.config, name) for name in ("alpha", "beta") if hasattr(agent.config, name)}
        shared |= {"compile_graph": True} if compile_graph else {}
        self.algorithm = config(batch_size=settings.batch_size, **shared).create(device=agent.device.type == "cuda")
        self.algorithm.create_impl(data.observation_space.shape, data.actions.shape[1])
        if algorithm != "IQL":  # what an update of IQL takes does not depend on the weights
            self._copy_weights(agent)
        if algorithm == "PRDC":
            # What its fit() does before the first update; its default of all cores is held to the same cores as ours.
            self.algorithm._nbsr.set_params(n_jobs=settings.threads)
            self.algorithm._nbsr.fit(np.concatenate([agent.config.beta * observations, data.actions], axis=1))

    @torch.no_grad()
    def _copy_weights(self, agent: Any) -> None:
        modules = self.algorithm.impl.modules
        for theirs, own in (
            (modules.policy, agent.policy.actor),
            (modules.targ_policy, agent.target_actor),
            (modules.q_funcs, agent.critic),
            (modules.targ_q_funcs, agent.target_critic),
        ):
            for to, of in zip(theirs.parameters(), own.parameters(), strict=True):
                to.copy_(of)

    def updates(self, n: int) -> None:
        for _ in range(n):
            self.algorithm.update(self.dataset.sample_transition_batch(self.batch_size))
