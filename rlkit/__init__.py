"""rlkit: the methods of recent reinforcement-learning papers over one replay and rollout core."""

from pathlib import Path as _Path

from rlkit.system.caches import prepare_caches as _prepare_caches

__version__ = "0.1.0"

# In a checkout `agents/` and `envs/` stand beside this folder, and links within it lead there.  Modules get the path
# of their file whatever link they were found through; where links did not survive, the checkout is searched too.
_home = _Path(__file__).resolve().parent
__path__[:] = [str(_home)]
if not (_home / "agents").is_dir() and (_home.parent / "agents").is_dir():
    __path__.append(str(_home.parent))
_prepare_caches(_home)
