"""Gymnasium environments and the records that name them.

Importing this registers every ``rlkit/...`` id with Gymnasium (which has loaded no plug-ins by itself since 1.0) and
loads none of the environments: ``gym.make("rlkit.envs:rlkit/Hopper-v5")``, or ``import rlkit.envs`` first.
"""

# ruff: noqa: E402
import sys
from pathlib import Path

__path__[:] = [str(Path(__file__).resolve().parent)]  # modules get the path of their file, not of a link to it

from rlkit.envs.records import register_all
from rlkit.rooms import Envs

register_all()
sys.modules[__name__].__class__ = Envs  # type: ignore[assignment]  # rlkit.envs() lists them
