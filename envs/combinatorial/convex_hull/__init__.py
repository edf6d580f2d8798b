"""Pointing at the corners of the convex hull."""

from rlkit.envs.combinatorial.convex_hull.rules import ConvexHull as ConvexHull
from rlkit.envs.combinatorial.convex_hull.rules import ConvexHullEnv as ConvexHullEnv
from rlkit.envs.combinatorial.convex_hull.rules import ConvexHullVectorEnv as ConvexHullVectorEnv
