"""Which task to train on next: MBTL (Cho et al. 2024) and the strategies it is compared with, free of any training.

Contexts x_i, i < N; V_ij is the normalised return in context j of the policy trained in i.  With sources S trained,
each target is served by its measured best: F(S) = mean_j max_{s in S} V_sj.  MBTL models V(x, x') = J(x) - g(x, x'):

    J   Gaussian process over the sources' own returns J_s = V_ss, posterior μ, σ
    g   θ|x - x'|, a slope per source, or w⁻·min(x - x', 0) + w⁺·max(x - x', 0) fitted to all returns seen (d > 1)
    a_i = mean_j max(0, μ_i + √ln(k + 1) σ_i - g(x_i, x_j) - b_j),  b_j = max_s V_sj          :meth:`acquisition`

after k sources; the first is the middle of the grid.  The process is centred on the returns it has seen, the first of
which is then 0.  Likelihood alone would take J's deviation for 0 too and stop looking: it is at least ``LEAST_SIGNAL``.
``compat="official"`` restores the released code's process: integer inputs, best-so-far instead of own returns, no
centring, noise 0.01; it does worse than equidistant points on plain landscapes.
``rlkit.agents.mbtl.select.TaskSelector`` asks and is told; nothing here trains.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from rlkit.errors import UserError, require_choice

Array = NDArray[np.float64]
STRATEGIES = ("mbtl", "random", "equidistant", "greedy")
GAPS = ("fixed", "estimated", "directional")
LEAST_SIGNAL = 0.1  # standard deviation of J under the process, of normalised returns; smaller: it stops exploring


def generalised(returns: Float[np.ndarray, "n n"], sources: Sequence[int] | NDArray[Any]) -> float:
    """F(S): mean over targets of the best source's return."""
    return float(returns[list(sources)].max(axis=0).mean())


def independent(returns: Float[np.ndarray, "n n"]) -> float:
    """One policy a context, used there alone."""
    return float(np.diag(returns).mean())


def oracle(returns: Float[np.ndarray, "n n"]) -> float:
    """Every context trained and each served by the best: no selection can exceed it."""
    return float(returns.max(axis=0).mean())


def sequential_oracle(returns: Float[np.ndarray, "n n"], budget: int) -> list[int]:
    """Sources that a myopic chooser takes who knows all of ``returns``; ties to the first."""
    chosen: list[int] = []
    best = np.full(returns.shape[1], -np.inf)
    for _ in range(budget):
        gains = np.maximum(returns, best).mean(axis=1)
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
        best = np.maximum(best, returns[chosen[-1]])
    return chosen


def equidistant(positions: Float[np.ndarray, " n"], budget: int) -> list[int]:
    """Nearest grid points to the middles of ``budget`` equal intervals, from the top down."""
    reach = positions.max() - positions.min()
    wanted = positions.max() - reach / (2 * budget) - np.arange(budget) * reach / budget
    return [int(np.abs(positions - x).argmin()) for x in wanted]


class TaskSelector:
    """``ask()`` for the next context, train there, ``tell`` the returns in all of them.

    Args:
        contexts: float ``[N]`` or ``[N, d]``.
        strategy: mbtl, random, equidistant or greedy.
        budget: how many will be asked for at most; equidistant points depend on it.
        bounds: returns that count as 0 and 1.
        gap: fixed (``theta`` a grid step), estimated (a slope per source) or directional; None: fixed for d = 1.
        compat: ``"official"`` for the released code's Gaussian process, d = 1.
        enough: :meth:`ask` returns None once no candidate promises more than this.

    Raises:
        UserError: an empty context set, a budget larger than it, or options that are unknown.
    """

    def __init__(
        self,
        contexts: Sequence[float] | NDArray[Any],
        *,
        strategy: str = "mbtl",
        budget: int | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        gap: str | None = None,
        theta: float = 0.005,
        compat: str | None = None,
        enough: float = 0.0,
        seed: int = 0,
    ):
        grid = np.asarray(contexts, np.float64)
        self.contexts = grid[:, None] if grid.ndim == 1 else grid  # [N, d]
        n, d = self.contexts.shape if self.contexts.ndim == 2 else (0, 0)
        self.budget = n if budget is None else budget
        gap = gap or ("fixed" if d == 1 else "directional")
        if n == 0 or d == 0 or not np.isfinite(self.contexts).all():
            raise UserError(f"contexts of shape {grid.shape}: expected at least one finite context, [N] or [N, d]")
        if not 1 <= self.budget <= n:
            raise UserError(f"budget={self.budget} is out of range, expected from 1 to the {n} contexts there are")
        for name, value, known in (("strategy", strategy, STRATEGIES), ("gap", gap, GAPS)):
            require_choice(name, value, known)
        if d > 1 and (strategy in ("equidistant", "greedy") or gap != "directional" or compat is not None):
            raise UserError(f"contexts have {d} dimensions; expected strategy mbtl or random, with gap=directional")
        if compat is not None:
            require_choice("compat", compat, ("official",))
        if not bounds[0] < bounds[1]:
            raise UserError(f"bounds={bounds}: expected the lower one below the upper one")
        self.strategy, self.bounds, self.gap, self.theta = strategy, bounds, gap, theta
        self.compat, self.enough, self.seed = compat, enough, seed
        self.sources: list[int] = []
        self.rows = np.zeros((0, n))  # normalised returns of each source in every context
        low, high = self.contexts.min(axis=0), self.contexts.max(axis=0)
        self.unit = (self.contexts - low) / np.where(high > low, high - low, 1.0)  # [N, d] in [0, 1]
        self.random = np.random.default_rng(seed).permutation(n)

    @property
    def best(self) -> Array:
        """b ``[N]``: the best normalised return so far in each context, 0 before any."""
        return np.maximum(self.rows.max(axis=0), 0.0) if len(self.rows) else np.zeros(len(self.contexts))

    def tell(self, source: int, row: Sequence[float] | NDArray[Any]) -> None:
        """Returns ``[N]`` in every context, as they were measured, of the policy trained in ``source``."""
        n, values = len(self.contexts), np.asarray(row, np.float64)
        if not 0 <= source < n or source in self.sources:
            raise UserError(f"source {source}: expected one of the {n} contexts that was not told before")
        if values.shape != (n,) or not np.isfinite(values).all():
            raise UserError(f"returns of shape {values.shape}: expected {n} finite numbers, one a context")
        low, high = self.bounds
        self.rows = np.concatenate([self.rows, (values[None] - low) / (high - low)])
        self.sources.append(source)

    def ask(self) -> int | None:
        """The next context to train in, by number; None when the budget is spent or nothing more is promised."""
        if len(self.sources) >= self.budget:
            return None
        if self.strategy == "random":
            return int(next(i for i in self.random if i not in self.sources))
        if self.strategy == "equidistant":
            points = equidistant(self.unit[:, 0], self.budget)
            return int(next((i for i in points if i not in self.sources), self._nearest_free(0.5)))
        if self.strategy == "greedy":
            return self._widest_gap()
        if not self.sources:
            return int(np.square(self.unit - 0.5).sum(axis=1).argmin())
        if self.contexts.shape[1] > 1 and len(self.sources) < 3:  # the worst served of those not trained
            served = self.best.copy()
            served[self.sources] = np.inf
            return int(served.argmin())
        promise = self.acquisition()
        promise[self.sources] = -np.inf
        return None if promise.max() < self.enough else int(promise.argmax())

    # ---- strategies ------------------------------------------------------------------------------------------------

    def _nearest_free(self, x: float) -> int:
        distance = np.abs(self.unit[:, 0] - x)
        distance[self.sources] = np.inf
        return int(distance.argmin())

    def _widest_gap(self) -> int:
        """The middle, then a point in the widest gap: halfway inside, a third from the border at a border."""
        if not self.sources:
            return self._nearest_free(0.5)
        points = np.sort(self.unit[self.sources, 0])
        gaps = np.diff(np.concatenate([[0.0], points, [1.0]]))
        k = int(gaps.argmax())
        if k == 0:
            return self._nearest_free(gaps[0] / 3)
        if k == len(gaps) - 1:
            return self._nearest_free(1 - gaps[-1] / 3)
        return self._nearest_free(points[k - 1] + gaps[k] / 2)

    def acquisition(self) -> Array:
        """a ``[N]``, the expected rise of F by each context, optimistically; needs a source."""
        mean, deviation = self.posterior()
        k = len(self.sources) if self.contexts.shape[1] == 1 else len(self.sources) - 1
        optimistic = mean + np.sqrt(np.log(k + 1)) * deviation  # [N]
        rise = optimistic[:, None] - self.gaps() - self.best  # [N, N]
        return np.maximum(rise, 0.0).mean(axis=1)

    def posterior(self) -> tuple[Array, Array]:
        """Mean and standard deviation ``[N]`` of J under the Gaussian process."""
        own = self.rows[np.arange(len(self.sources)), self.sources]  # [k]
        if self.compat == "official":
            inputs, noise = np.arange(len(self.contexts), dtype=np.float64)[:, None], 1e-2
            lengths, start, least = (1e-2, 1e2), 1.0, 1e-3
            seen = [max(0.0, self.rows[: i + 1, s].max()) for i, s in enumerate(self.sources)]
            values, centre = np.array(seen), 0.0
        else:
            inputs, noise = self.unit, 1e-4
            lengths, start, least = (0.05, 2.0), 0.5, LEAST_SIGNAL**2
            values, centre = own, float(own.mean())
        kernel = ConstantKernel(1.0, (least, 1e3)) * RBF(start, lengths)
        process = GaussianProcessRegressor(kernel, alpha=noise, n_restarts_optimizer=9, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound is an answer
            process.fit(inputs[self.sources], values - centre)
        mean, deviation = process.predict(inputs, return_std=True)
        return mean + centre, deviation

    def gaps(self) -> Array:
        """g ``[N, N]``: what is lost from each source (row) to each target (column)."""
        n = len(self.contexts)
        if self.gap == "directional":
            return self._directional()
        steps = np.abs(np.arange(n)[:, None] - np.arange(n))  # [N, N]
        if self.gap == "fixed":
            return self.theta * steps
        slopes = []
        for row, s in zip(self.rows, self.sources, strict=True):  # least squares through the source itself
            away = steps[s].astype(np.float64)
            slopes.append(float(away @ np.abs(row - row[s]) / max(float(away @ away), 1.0)))
        nearest_source = np.abs(np.arange(n)[:, None] - np.array(self.sources)).argmin(axis=1)
        return np.array(slopes)[nearest_source][:, None] * steps

    def _directional(self) -> Array:
        difference = self.unit[:, None, :] - self.unit  # [N, N, d] source minus target
        parts = np.concatenate([np.minimum(difference, 0), np.maximum(difference, 0)], axis=-1)  # [N, N, 2d]
        seen = parts[self.sources].reshape(-1, parts.shape[-1])  # [k N, 2d]
        design = np.concatenate([np.ones((len(seen), 1)), seen], axis=1)
        weights = np.linalg.lstsq(design, self.rows.ravel(), rcond=None)[0]  # c, w⁻, w⁺
        return -parts @ weights[1:]


def replay(returns: Float[np.ndarray, "n n"], selector: TaskSelector, budget: int) -> list[float]:
    """F after each of ``budget`` choices when the transfer matrix is known; ``selector`` must be new."""
    found = []
    for _ in range(budget):
        source = selector.ask()
        if source is None:
            break
        selector.tell(source, returns[source])
        found.append(generalised((returns - selector.bounds[0]) / np.ptp(selector.bounds), selector.sources))
    return found
