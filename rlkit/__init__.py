"""rlkit: the methods of recent reinforcement-learning papers over one replay and rollout core.

    agent = rlkit.make("prdc", "hopper-medium", seed=0)     # rlkit.agents() and rlkit.envs() list the names
    agent.learn(200_000, progress_bar=True)
    print(rlkit.evaluate(agent).scores.mean())
    agent.save("hopper.rlk")
    agent = rlkit.load("hopper.rlk")

    print(rlkit.solve("berlin52.tsp").objective)            # a file of cities, coordinates, or a problem's name

Names are loaded when they are first used: ``import rlkit`` alone brings in neither torch nor Gymnasium.
"""

from pathlib import Path as _Path
from typing import TYPE_CHECKING

from rlkit.lazy import lazy_names as _lazy_names
from rlkit.system.caches import prepare_caches as _prepare_caches

__version__ = "0.1.0"

# In a checkout `agents/` and `envs/` stand beside this folder, and links within it lead there.  Modules get the path
# of their file whatever link they were found through; where links did not survive, the checkout is searched too.
_home = _Path(__file__).resolve().parent
__path__[:] = [str(_home)]
if not (_home / "agents").is_dir() and (_home.parent / "agents").is_dir():
    __path__.append(str(_home.parent))
_prepare_caches(_home)

if TYPE_CHECKING:
    from rlkit.algorithms.verdict import judge as judge
    from rlkit.api import evaluate as evaluate
    from rlkit.api import load as load
    from rlkit.api import make as make
    from rlkit.data import load_dataset as load_dataset
    from rlkit.rooms import agents as agents
    from rlkit.rooms import envs as envs
    from rlkit.run.together import train_together as train_together
    from rlkit.solving import solve as solve
else:
    __getattr__, __dir__, __all__ = _lazy_names(__name__, __file__)
