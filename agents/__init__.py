"""One file or folder per method.  ``from rlkit.agents import PRDC`` loads that file and no other."""

from pathlib import Path
from typing import TYPE_CHECKING

from rlkit.lazy import lazy_names

__path__[:] = [str(Path(__file__).resolve().parent)]  # modules get the path of their file, not of a link to it

if TYPE_CHECKING:
    from rlkit.agents.a2pr import A2PR as A2PR
    from rlkit.agents.bc import BC as BC
    from rlkit.agents.beer import BEER as BEER
    from rlkit.agents.bq import BQ as BQ
    from rlkit.agents.drrpo import DRRPO as DRRPO
    from rlkit.agents.drrpo_features import FeatureDRRPO as FeatureDRRPO
    from rlkit.agents.fdvl import FDVL as FDVL
    from rlkit.agents.iql import IQL as IQL
    from rlkit.agents.iqlearn import IQLearn as IQLearn
    from rlkit.agents.mbtl import MBTL as MBTL
    from rlkit.agents.orpo import ORPO as ORPO
    from rlkit.agents.prdc import PRDC as PRDC
    from rlkit.agents.ptrnet import PtrNet as PtrNet
    from rlkit.agents.recoil import ReCOIL as ReCOIL
    from rlkit.agents.smodice import SMODICE as SMODICE
    from rlkit.agents.sql import SQL as SQL
    from rlkit.agents.td3bc import TD3BC as TD3BC
    from rlkit.agents.vagram import VaGraM as VaGraM
    from rlkit.agents.xql import XQL as XQL
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
