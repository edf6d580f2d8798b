"""Better tours among points: 2-opt, Or-opt, iterated local search; see ``rlkit.envs.combinatorial.tour_search``."""

from rlkit.envs.combinatorial.solvers import MOST_EXACT as MOST_EXACT
from rlkit.envs.combinatorial.tour_search import Search as Search
from rlkit.envs.combinatorial.tour_search import improve as improve
from rlkit.envs.combinatorial.tour_search import insert as insert
from rlkit.envs.combinatorial.tour_search import objective as objective

AS_GOOD_UP_TO = 200  # cities up to which the search does as well as any solver, and ends sooner
BETTER_FROM = None  # nodes from which it does better than the solver of choice
