"""One file or folder per method.  ``from rlkit.agents import PRDC`` loads that one and no other.

What type checkers and editors see, every name and constructor, is in ``__init__.pyi``, which
``scripts/make_signatures.py`` writes; the names that can be imported are those it lists.
"""

import sys
from pathlib import Path

from rlkit.lazy import lazy_names
from rlkit.rooms import Agents

__path__[:] = [str(Path(__file__).resolve().parent)]  # modules get the path of their file, not of a link to it
__getattr__, __dir__, __all__ = lazy_names(__name__, Path(__file__).with_suffix(".pyi"))
sys.modules[__name__].__class__ = Agents  # rlkit.agents() lists them
