"""Combinatorial optimisation: the records of ``env=``; ``env.num_nodes=`` and the like change the instances."""

from __future__ import annotations

from rlkit.arguments import Argument
from rlkit.envs.records import register_ids
from rlkit.registry import EnvRecord

FORMULATION = Argument(str, choices=("bq", "direct"))
AMOUNT = Argument(float, 1e-6, 1e6, optional=True)  # a capacity or budget; None: as the number of nodes has it


def _record(name: str, env_id: str, num_nodes: int, most: int, summary: str, **arguments: Argument) -> EnvRecord:
    return EnvRecord(
        name,
        summary,
        f"rlkit/{env_id}-v0",
        "combinatorial",
        name,
        env_kwargs={"num_nodes": num_nodes},
        episodes=256,  # an evaluation is a mean over instances, so it takes many of them
        arguments={"num_nodes": Argument(int, 1, most), "observe_sequence": Argument(bool), **arguments},
    )


RECORDS = {
    record.name: record
    for record in (
        _record("tsp", "TSP", 50, 10_000, "travelling salesman in the unit square", formulation=FORMULATION),
        _record(
            "atsp",
            "ATSP",
            50,
            1_000,
            "asymmetric travelling salesman, costs under the triangle inequality",
            formulation=FORMULATION,
        ),
        _record(
            "cvrp",
            "CVRP",
            50,
            10_000,
            "vehicle routing with capacities",
            formulation=FORMULATION,
            capacity=Argument(int, 9, 1_000_000, optional=True),
            capacities=Argument(str, choices=("bq", "rl4co")),
        ),
        _record(
            "op",
            "OP",
            50,
            10_000,
            "orienteering: most prizes within a length",
            formulation=FORMULATION,
            budget=AMOUNT,
            prizes=Argument(str, choices=("distance", "uniform", "const")),
        ),
        _record(
            "knapsack",
            "Knapsack",
            50,
            10_000,
            "0-1 knapsack",
            items=Argument(str, choices=("bq", "uniform")),
            capacity=AMOUNT,
        ),
        _record("convex-hull", "ConvexHull", 10, 10_000, "point at the corners of the convex hull"),
        _record("delaunay", "Delaunay", 5, 1_000, "point at the triangles of the Delaunay triangulation"),
    )
}

HOMES = {
    "TSP": "tsp:TSP",
    "ATSP": "atsp:ATSP",
    "CVRP": "cvrp:CVRP",
    "OP": "op:OP",
    "Knapsack": "knapsack:Knapsack",
    "ConvexHull": "convex_hull:ConvexHull",
    "Delaunay": "delaunay:Delaunay",
}
register_ids(
    {
        f"rlkit/{name}-v0": {
            "entry_point": f"rlkit.envs.combinatorial.{home}Env",
            "vector_entry_point": f"rlkit.envs.combinatorial.{home}VectorEnv",
        }
        for name, home in HOMES.items()
    }
)
