"""Delaunay triangulation: three actions name a triangle, in any order.

After as many triangles as the triangulation has, the episode ends.  The reward of a triangle's last corner is 1/T if it
is one of the T true triangles and was not named before: they add up to the triangle coverage.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rlkit.envs.combinatorial.bisimulation import Instance
from rlkit.envs.combinatorial.environment import CombinatorialEnv
from rlkit.envs.combinatorial.geometry import PointSet, incentres, require_unique_triangles, triangulation
from rlkit.envs.combinatorial.vector import RESET, SKIP, CombinatorialVectorEnv
from rlkit.errors import UserError


def delaunay_target(coords: NDArray[np.float64]) -> NDArray[np.int64]:
    """Triangles ``[T, 3]``, increasing indices each, ordered lexicographically by their incentres."""
    triangles = triangulation(coords)
    x, y = incentres(coords, triangles).T
    return triangles[np.lexsort((y, x))]


class Delaunay(PointSet):
    """Args: num_nodes: n points, at least 3 and at most 5,000."""

    name = "delaunay"

    def __init__(self, num_nodes: int = 10) -> None:
        super().__init__(num_nodes)

    @property
    def solution_length(self) -> int:
        return 3 * max(2 * self.num_nodes - 5, 1)

    def check_sound(self, instance: dict[str, NDArray[Any]], where: str) -> None:
        super().check_sound(instance, where)
        require_unique_triangles(instance["coords"], where)

    def derive(self, instance: Instance) -> dict[str, NDArray[Any]]:
        triangles = triangulation(instance["coords"])
        padded = np.full((self.solution_length // 3, 3), -1, np.int64)
        padded[: len(triangles)] = triangles
        return {"triangles": padded, "count": np.array(len(triangles), np.int64)}

    def feasible(self, instance: Instance, state: tuple[int, ...]) -> NDArray[np.int8]:
        mask = np.ones(self.num_nodes, np.int8)
        if len(state) == 3 * int(instance["count"]):
            mask[:] = 0
        mask[list(state[len(state) - len(state) % 3 :])] = 0
        return mask

    def step(
        self, instance: Instance, state: tuple[int, ...], action: int
    ) -> tuple[tuple[int, ...], float, tuple[int, ...]]:
        following, reward = (*state, action), 0.0
        if len(following) % 3 == 0:
            named = [tuple(sorted(following[k : k + 3])) for k in range(0, len(following), 3)]
            true = {tuple(triangle) for triangle in instance["triangles"].tolist()}
            if named[-1] in true and named[-1] not in named[:-1]:
                reward = 1.0 / int(instance["count"])
        return following, reward, (action,)

    def objectives(self, instances: Instance, solutions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Triangle coverage ``[B]``."""
        found = np.zeros(len(solutions))
        for b, (coords, solution) in enumerate(zip(instances["coords"], solutions, strict=True)):
            pointers = solution[solution >= 0]
            true = {tuple(triangle) for triangle in triangulation(coords).tolist()}
            if len(pointers) != 3 * len(true) or pointers.max(initial=0) >= self.num_nodes:
                raise UserError(
                    f"solution {b} of delaunay is infeasible: expected 3 pointers for each of {len(true)} triangles"
                )
            named = np.sort(pointers.reshape(-1, 3), axis=1)
            if (np.diff(named, axis=1) == 0).any():
                raise UserError(f"solution {b} of delaunay is infeasible: a triangle names a point twice")
            found[b] = len(true & {tuple(triangle) for triangle in named.tolist()}) / len(true)
        return found

    def target(self, instance: Instance) -> NDArray[np.int64]:
        return self.padded(delaunay_target(instance["coords"]))


# ---- kernel ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _advance(actions, job, triangles, count, named, mask, sequence, length, total, rewards, ended):
    for b in prange(len(job)):
        if job[b] == SKIP:
            continue
        if job[b] == RESET:
            mask[b, :] = 1
            named[b, :] = 0
            sequence[b, :] = -1
            length[b], total[b], rewards[b], ended[b] = 0, 0.0, 0.0, False
            continue
        j, t = actions[b], length[b]
        sequence[b, t], mask[b, j], rewards[b] = j, 0, 0.0
        length[b] = t + 1
        if t % 3 != 2:
            continue
        mask[b, :] = 1
        low, middle, high = sequence[b, t - 2], sequence[b, t - 1], j
        if low > middle:
            low, middle = middle, low
        if middle > high:
            middle, high = high, middle
        if low > middle:
            low, middle = middle, low
        for k in range(count[b]):
            if triangles[b, k, 0] == low and triangles[b, k, 1] == middle and triangles[b, k, 2] == high:
                if named[b, k] == 0:
                    named[b, k] = 1
                    rewards[b] = 1.0 / count[b]
                    total[b] += rewards[b]
                break
        ended[b] = length[b] == 3 * count[b]
        if ended[b]:
            mask[b, :] = 0


# ---- Gymnasium -------------------------------------------------------------------------------------------------------


class DelaunayEnv(CombinatorialEnv):
    """One instance at a time.  Observation: ``coords`` float32 ``[n, 2]``, ``sequence`` int64 ``[3 (2 n - 5)]`` of
    pointers so far, ``action_mask``; action: the next corner; reward: 1/T for each true triangle."""

    kind = Delaunay


class DelaunayVectorEnv(CombinatorialVectorEnv):
    """A batch of :class:`DelaunayEnv`; rows end at different times."""

    single = DelaunayEnv

    def __init__(self, num_envs: int = 1, **settings: Any) -> None:
        super().__init__(num_envs, **settings)
        self._named = np.zeros((num_envs, self.problem.solution_length // 3), np.int8)

    def _advance(self, actions: NDArray[np.int64], job: NDArray[np.int8]) -> None:
        where = self.derived["triangles"], self.derived["count"], self._named
        state = self.mask, self.sequence, self.length
        _advance(actions, job, *where, *state, self.total, self._rewards, self._ended)
