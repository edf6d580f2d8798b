"""TSPLIB's files of asymmetric tours; files of symmetric ones whose lengths are no plane's are such a problem too."""

from rlkit.envs.combinatorial.tsp.files import READERS as READERS
from rlkit.envs.combinatorial.tsp.files import WRITERS as WRITERS
