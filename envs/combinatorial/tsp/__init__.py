"""The travelling salesman among points in the plane."""

from rlkit.envs.combinatorial.tsp.rules import TSP as TSP
from rlkit.envs.combinatorial.tsp.rules import TSPEnv as TSPEnv
from rlkit.envs.combinatorial.tsp.rules import TSPVectorEnv as TSPVectorEnv
