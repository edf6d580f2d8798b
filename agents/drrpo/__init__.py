"""DR-RPO: robust regularised policy optimisation, for worlds other than that of training (Gu et al. 2025)."""

from rlkit.agents.drrpo.drrpo import DRRPO as DRRPO
