"""The asymmetric travelling salesman."""

from rlkit.envs.combinatorial.atsp.rules import ATSP as ATSP
from rlkit.envs.combinatorial.atsp.rules import ATSPEnv as ATSPEnv
from rlkit.envs.combinatorial.atsp.rules import ATSPVectorEnv as ATSPVectorEnv
