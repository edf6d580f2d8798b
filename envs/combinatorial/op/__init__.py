"""Orienteering: most prizes within a length."""

from rlkit.envs.combinatorial.op.rules import OPEnv as OPEnv
from rlkit.envs.combinatorial.op.rules import OPVectorEnv as OPVectorEnv
from rlkit.envs.combinatorial.op.rules import Orienteering as Orienteering
