"""The whole suite runs with array shapes and types checked at every call, isolated from the user's data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent / "toys"))  # the toy problem is a module that subprocesses import too
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RLKIT_OFFLINE"] = "1"

# Kernels compiled by numba stay as they are: a Python wrapper around them could not be compiled.
CHECKED = [
    "rlkit.agents.a2pr",
    "rlkit.agents.bc",
    "rlkit.agents.beer",
    "rlkit.agents.bq",
    "rlkit.agents.bq_data",
    "rlkit.agents.bq_decode",
    "rlkit.agents.bq_network",
    "rlkit.agents.divergence",
    "rlkit.agents.fdvl",
    "rlkit.agents.gaussian",
    "rlkit.agents.implicit",
    "rlkit.agents.iql",
    "rlkit.agents.iqlearn",
    "rlkit.agents.drrpo",
    "rlkit.agents.drrpo_core",
    "rlkit.agents.drrpo_features",
    "rlkit.agents.mbtl",
    "rlkit.agents.mbtl_select",
    "rlkit.agents.mbtl_train",
    "rlkit.agents.mbtl_worlds",
    "rlkit.envs.contextual_models",
    "rlkit.agents.occupancy",
    "rlkit.agents.orpo",
    "rlkit.agents.orpo_core",
    "rlkit.agents.prdc",
    "rlkit.agents.ptrnet",
    "rlkit.agents.ptrnet_data",
    "rlkit.agents.ptrnet_decode",
    "rlkit.agents.ptrnet_network",
    "rlkit.agents.recoil",
    "rlkit.agents.smodice",
    "rlkit.agents.sql",
    "rlkit.agents.td3bc",
    "rlkit.agents.vagram",
    "rlkit.agents.world_model",
    "rlkit.agents.xql",
    "rlkit.callbacks",
    "rlkit.checkpoint",
    "rlkit.cli.data",
    "rlkit.config",
    "rlkit.data._common",
    "rlkit.data.cache",
    "rlkit.data.check",
    "rlkit.data.dataset",
    "rlkit.data.flat",
    "rlkit.data.generate",
    "rlkit.data.hdf5",
    "rlkit.data.imitation",
    "rlkit.data.minari_store",
    "rlkit.data.navigation",
    "rlkit.data.resolve",
    "rlkit.envs.bisimulation",
    "rlkit.envs.cloning",
    "rlkit.envs.combinatorial",
    "rlkit.envs.combinatorial_records",
    "rlkit.envs.combinatorial_vector",
    "rlkit.envs.cvrp",
    "rlkit.envs.drawing",
    "rlkit.envs.geometry",
    "rlkit.envs.knapsack",
    "rlkit.envs.label_solvers",
    "rlkit.envs.labels",
    "rlkit.envs.metrics",
    "rlkit.envs.orienteering",
    "rlkit.envs.solvers",
    "rlkit.envs.tsp",
    "rlkit.envs.tsplib",
    "rlkit.envs.manipulation",
    "rlkit.envs.navigation",
    "rlkit.envs.point_maze",
    "rlkit.envs.robotics",
    "rlkit.evaluate",
    "rlkit.files",
    "rlkit.folder",
    "rlkit.hyperparameters",
    "rlkit.interrupt",
    "rlkit.env_learner",
    "rlkit.learner",
    "rlkit.machine",
    "rlkit.nets",
    "rlkit.offline",
    "rlkit.online",
    "rlkit.persistent",
    "rlkit.replay",
    "rlkit.run",
    "rlkit.stats",
    "rlkit.tally",
    "rlkit.vecenv",
    "rlkit.vector",
]
install_import_hook(CHECKED, "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _isolated_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["MINARI_DATASETS_PATH"] = str(tmp_path_factory.mktemp("minari"))
