"""PRDC: policy regularisation with dataset constraint (Ran, Li, Zhang, Zhang & Yu, ICML 2023)."""

from rlkit.agents.prdc.prdc import PRDC as PRDC
from rlkit.agents.prdc.prdc import PRDCConfig as PRDCConfig
