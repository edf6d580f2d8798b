"""Pointing at the triangles of the Delaunay triangulation."""

from rlkit.envs.combinatorial.delaunay.rules import Delaunay as Delaunay
from rlkit.envs.combinatorial.delaunay.rules import DelaunayEnv as DelaunayEnv
from rlkit.envs.combinatorial.delaunay.rules import DelaunayVectorEnv as DelaunayVectorEnv
