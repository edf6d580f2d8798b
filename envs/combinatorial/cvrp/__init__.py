"""Vehicle routing with capacities."""

from rlkit.envs.combinatorial.cvrp.rules import CVRP as CVRP
from rlkit.envs.combinatorial.cvrp.rules import CVRPEnv as CVRPEnv
from rlkit.envs.combinatorial.cvrp.rules import CVRPVectorEnv as CVRPVectorEnv
