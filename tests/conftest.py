"""The whole suite runs with array shapes and types checked at every call, isolated from the user's data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent / "toys"))  # the toy problem is a module that subprocesses import too
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RLKIT_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parent.parent
# Neighbour search hands kernels to kernels, as numba compiled them: a Python wrapper around one could not be called.
KERNELS = {"rlkit.agents.prdc.kdtree", "rlkit.agents.prdc.neighbours"}


def checked() -> list[str]:
    """Every module of the three packages but :data:`KERNELS`; a package's own name would stand for all below it."""
    found = set()
    for folder, package in (("rlkit", "rlkit"), ("agents", "rlkit.agents"), ("envs", "rlkit.envs")):
        for path in (ROOT / folder).rglob("*.py"):
            found.add(".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]))
    return sorted(name for name in found - KERNELS if not name.endswith("__init__"))


CHECKED = checked()
install_import_hook(CHECKED, "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _isolated_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["MINARI_DATASETS_PATH"] = str(tmp_path_factory.mktemp("minari"))
