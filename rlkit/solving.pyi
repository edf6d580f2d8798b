from rlkit.envs.combinatorial.solving import Answer as Answer
from rlkit.envs.combinatorial.solving import solve as solve
