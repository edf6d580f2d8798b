"""Pointer Networks: answers that are sequences of positions in the input (Vinyals et al. 2015; Bello et al. 2016)."""

from rlkit.agents.ptrnet.ptrnet import PtrNet as PtrNet
from rlkit.agents.ptrnet.ptrnet import PtrNetConfig as PtrNetConfig
