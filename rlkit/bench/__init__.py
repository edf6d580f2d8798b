"""Speed, measured side by side: what ``rlkit bench`` runs.

A row sets up two ways of doing the same work, runs them alternately in one process and compares the times.  This
module knows the rows by name only; each is imported when it is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlkit.errors import UserError, nearest

if TYPE_CHECKING:
    from rlkit.bench.measure import Line, Settings


@dataclass(frozen=True)
class Row:
    """``run``, ``"module:function"``, takes the settings, ``arguments`` and ``options`` and returns its lines."""

    summary: str
    run: str
    arguments: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, settings: Settings) -> list[Line]:
        module, _, function = self.run.partition(":")
        found: Callable[..., list[Line]] = getattr(import_module(module), function)
        return found(settings, *self.arguments, **self.options)


_SEARCH, _UPDATES, _SYSTEMS = "rlkit.bench.search", "rlkit.bench.updates", "rlkit.bench.systems"
_DEVICE = "rlkit.bench.device"
_ONLINE, _WORLDS, _MODELS = "rlkit.bench.online", "rlkit.bench.worlds", "rlkit.bench.models"

ROWS: dict[str, Row] = {
    "prdc-hopper": Row("PRDC update against a SciPy KD-tree query, 11 dimensions", f"{_SEARCH}:scipy", ("hopper",)),
    "prdc-halfcheetah": Row("the same with 17 dimensions", f"{_SEARCH}:scipy", ("halfcheetah",)),
    "prdc-d3rlpy-hopper": Row("PRDC update against d3rlpy's PRDC, 11 dimensions", f"{_SEARCH}:d3rlpy", ("hopper",)),
    "prdc-d3rlpy-halfcheetah": Row("the same with 17 dimensions", f"{_SEARCH}:d3rlpy", ("halfcheetah",)),
    "td3bc-d3rlpy": Row(
        "TD3+BC update against d3rlpy's TD3+BC", f"{_UPDATES}:d3rlpy", ("td3bc", "TD3PlusBC"), {"goal": 2.5}
    ),
    "iql-d3rlpy": Row("IQL update against d3rlpy's IQL", f"{_UPDATES}:d3rlpy", ("iql", "IQL")),
    "td3bc-plain": Row("TD3+BC update against a plain eager loop", f"{_UPDATES}:plain"),
    "td3bc-jax": Row("TD3+BC update, compiled and as written, against JAX's lax.scan of it", f"{_UPDATES}:jax"),
    "compiled": Row("updates with compile=true against the same as written", f"{_UPDATES}:compiled"),
    "ddpg-sb3": Row("DDPG, an update and a whole run, against SB3's", f"{_ONLINE}:sb3", ("ddpg",)),
    "sac-sb3": Row("SAC, an update and a whole run, against SB3's", f"{_ONLINE}:sb3", ("sac",)),
    "model-fitting": Row("VaGraM's ensemble, a fit and a roll-out, against separate networks", f"{_MODELS}:ensemble"),
    "bq": Row("BQ's training and solving in bfloat16, against float32", f"{_MODELS}:bq"),
    "overhead": Row("share of a TD3+BC update outside matrix products", f"{_UPDATES}:overhead"),
    "adam-silent": Row("Adam over units that have fallen silent, against PyTorch's", f"{_UPDATES}:silent"),
    "optimiser": Row("Adam's and Polyak's steps against PyTorch's", f"{_UPDATES}:optimiser"),
    "sampling": Row("replay sampling against SB3's ReplayBuffer", f"{_SYSTEMS}:sampling"),
    "stepping": Row("MuJoCo stepping against Gymnasium's SyncVectorEnv", f"{_SYSTEMS}:stepping"),
    "stepping-envpool": Row("MuJoCo stepping against EnvPool", f"{_SYSTEMS}:envpool"),
    "contextual-stepping": Row("CartPole and Pendulum with a context, against Gymnasium's", f"{_WORLDS}:contextual"),
    "glucose-stepping": Row("glucose against simglucose's integration of the same patient", f"{_WORLDS}:glucose"),
    "routing-stepping": Row("TSP episodes against rl4co's, or a torch re-statement", f"{_WORLDS}:routing"),
    "dual-linprog": Row("DR-RPO's exact dual against SciPy's linprog", f"{_WORLDS}:dual"),
    "gpu-graph": Row("updates by CUDA graphs against eager ones", f"{_DEVICE}:graphs"),
    "gpu-peers": Row("TD3+BC by graphs against d3rlpy's and JAX's, on one GPU", f"{_DEVICE}:peers"),
    "gpu-stacked": Row("many runs of TD3+BC together against one after another, on one GPU", f"{_DEVICE}:stacked"),
    "gpu-bq": Row("BQ's update by a graph for each size against eager ones, on one GPU", f"{_DEVICE}:bq"),
    "gpu-prdc": Row("PRDC's update on a GPU against its own on a processor", f"{_DEVICE}:neighbours"),
    "help": Row("rlkit --help against importing torch", f"{_SYSTEMS}:help_start"),
}


def pick(names: Iterable[str]) -> list[str]:
    """``names`` without repetition, all rows for none; raises :class:`UserError` naming the nearest known row."""
    wanted = list(dict.fromkeys(names)) or list(ROWS)
    for name in wanted:
        if name not in ROWS:
            raise UserError(f"unknown bench row '{name}'{nearest(name, ROWS)}")
    return wanted
