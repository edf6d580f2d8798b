"""ORPO: PPO on a proxy reward that keeps near a base policy's occupancy, so as not to hack it (Laidlaw et al. 2024)."""

from rlkit.agents.orpo.orpo import ORPO as ORPO
