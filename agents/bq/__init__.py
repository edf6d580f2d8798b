"""BQ-NCO: imitate good solutions of combinatorial problems, one sub-problem at a time (Drakulic et al. 2023)."""

from rlkit.agents.bq.bq import BQ as BQ
from rlkit.agents.bq.bq import BQConfig as BQConfig
