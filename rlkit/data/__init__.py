"""Offline datasets: resolve, read, write, generate, check.

Names are loaded on first use, so that importing this package brings in neither torch nor Minari.
"""

from typing import TYPE_CHECKING

from rlkit.lazy import lazy_names

if TYPE_CHECKING:
    from rlkit.data.check import Finding as Finding
    from rlkit.data.check import check_dataset as check_dataset
    from rlkit.data.dataset import OfflineDataset as OfflineDataset
    from rlkit.data.dataset import Provenance as Provenance
    from rlkit.data.generate import behaviour_rollouts as behaviour_rollouts
    from rlkit.data.hdf5 import read_d4rl as read_d4rl
    from rlkit.data.hdf5 import write_d4rl as write_d4rl
    from rlkit.data.imitation import imitation_dataset as imitation_dataset
    from rlkit.data.minari_store import from_minari as from_minari
    from rlkit.data.minari_store import local_ids as local_ids
    from rlkit.data.minari_store import to_minari as to_minari
    from rlkit.data.resolve import load_dataset as load_dataset
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
