"""VaGraM: a world model fitted where the value function is steep, in MBPO's loop over SAC (Voelcker et al. 2022)."""

from rlkit.agents.vagram.vagram import VaGraM as VaGraM
from rlkit.agents.vagram.vagram import VaGraMConfig as VaGraMConfig
