"""Combinatorial optimisation: the records of ``env=``; ``env.num_nodes=`` and the like change the instances."""

from __future__ import annotations

from rlkit.registry import EnvRecord


def _record(name: str, env_id: str, num_nodes: int, summary: str) -> EnvRecord:
    # an evaluation is a mean over instances, so it takes many of them
    return EnvRecord(name, summary, f"rlkit/{env_id}-v0", "combinatorial", name, None, {"num_nodes": num_nodes}, 256)


RECORDS = {
    record.name: record
    for record in (
        _record("tsp", "TSP", 50, "travelling salesman in the unit square"),
        _record("atsp", "ATSP", 50, "asymmetric travelling salesman, costs under the triangle inequality"),
        _record("cvrp", "CVRP", 50, "vehicle routing with capacities"),
        _record("op", "OP", 50, "orienteering: most prizes within a length"),
        _record("knapsack", "Knapsack", 50, "0-1 knapsack"),
        _record("convex-hull", "ConvexHull", 10, "point at the corners of the convex hull"),
        _record("delaunay", "Delaunay", 5, "point at the triangles of the Delaunay triangulation"),
    )
}
