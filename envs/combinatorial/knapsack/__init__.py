"""The 0-1 knapsack."""

from rlkit.envs.combinatorial.knapsack.rules import Knapsack as Knapsack
from rlkit.envs.combinatorial.knapsack.rules import KnapsackEnv as KnapsackEnv
from rlkit.envs.combinatorial.knapsack.rules import KnapsackVectorEnv as KnapsackVectorEnv
