"""MBTL: train in a few contexts, serve all of them by zero-shot transfer (Cho et al. 2024)."""

from rlkit.agents.mbtl.mbtl import MBTL as MBTL
from rlkit.agents.mbtl.mbtl import MBTLConfig as MBTLConfig
