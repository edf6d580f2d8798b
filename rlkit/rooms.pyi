# written by scripts/make_signatures.py
class Agents:
    """The package of agents."""

    def __call__(self) -> dict[str, str]:
        """Every agent's name and what it is in one line."""
    from rlkit.agents import A2PR as A2PR
    from rlkit.agents import BC as BC
    from rlkit.agents import BEER as BEER
    from rlkit.agents import BQ as BQ
    from rlkit.agents import DRRPO as DRRPO
    from rlkit.agents import FDVL as FDVL
    from rlkit.agents import FeatureDRRPO as FeatureDRRPO
    from rlkit.agents import IQL as IQL
    from rlkit.agents import IQLearn as IQLearn
    from rlkit.agents import MBTL as MBTL
    from rlkit.agents import ORPO as ORPO
    from rlkit.agents import PRDC as PRDC
    from rlkit.agents import PtrNet as PtrNet
    from rlkit.agents import ReCOIL as ReCOIL
    from rlkit.agents import SMODICE as SMODICE
    from rlkit.agents import SQL as SQL
    from rlkit.agents import TD3BC as TD3BC
    from rlkit.agents import VaGraM as VaGraM
    from rlkit.agents import XQL as XQL
    from rlkit.agents import a2pr as a2pr
    from rlkit.agents import bc as bc
    from rlkit.agents import beer as beer
    from rlkit.agents import bq as bq
    from rlkit.agents import common as common
    from rlkit.agents import drrpo as drrpo
    from rlkit.agents import drrpo_features as drrpo_features
    from rlkit.agents import fdvl as fdvl
    from rlkit.agents import iql as iql
    from rlkit.agents import iqlearn as iqlearn
    from rlkit.agents import mbtl as mbtl
    from rlkit.agents import orpo as orpo
    from rlkit.agents import prdc as prdc
    from rlkit.agents import ptrnet as ptrnet
    from rlkit.agents import recoil as recoil
    from rlkit.agents import smodice as smodice
    from rlkit.agents import sql as sql
    from rlkit.agents import td3bc as td3bc
    from rlkit.agents import vagram as vagram
    from rlkit.agents import xql as xql

class Envs:
    """The package of environments."""

    def __call__(self) -> dict[str, str]:
        """Every environment's name and what it is in one line."""
    from rlkit.envs import combinatorial as combinatorial
    from rlkit.envs import contextual as contextual
    from rlkit.envs import dmc as dmc
    from rlkit.envs import hacking as hacking
    from rlkit.envs import mazes as mazes
    from rlkit.envs import mujoco as mujoco
    from rlkit.envs import records as records
    from rlkit.envs import robotics as robotics
    from rlkit.envs import robust as robust
    from rlkit.envs import rows as rows

agents: Agents
envs: Envs
