"""rlkit: the methods of recent reinforcement-learning papers over one replay and rollout core."""

from pathlib import Path as _Path

from rlkit.system.caches import prepare_caches as _prepare_caches

__version__ = "0.1.0"

# `agents/` and `envs/` stand beside this folder in a checkout and inside it in an installed copy.  Standing in a
# checkout, Python finds this folder first even when a wheel is installed, so the checkout's root joins the search path.
_root = _Path(__file__).resolve().parent.parent
if not (_root / "rlkit" / "agents").exists() and (_root / "agents" / "__init__.py").exists():
    __path__.append(str(_root))
_prepare_caches(_root / "rlkit")
