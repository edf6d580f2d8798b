"""What recorded episodes are worth on the scale of an evaluation.

Most are worth the sum of their rewards.  Where the reward says what is reached by now, on this row and on every one
after it, the environment would have ended the episode there or paid once: then the most that was reached counts.
"""

from __future__ import annotations

import numpy as np

from rlkit.data.dataset import OfflineDataset
from rlkit.registry import records


def episode_scores(dataset: OfflineDataset) -> np.ndarray | None:
    """float64 ``[E]``: normalised scores of the recorded episodes; None without reference returns."""
    found = records().get(dataset.provenance.name)
    if found is None or found.data is None or not found.data.reward_stands:
        return dataset.normalised_score(dataset.episode_returns)
    return dataset.normalised_score(_most_reached(dataset))


def _most_reached(dataset: OfflineDataset) -> np.ndarray:
    """float64 ``[T]``: largest reward of each trajectory.

    D4RL's files flag every row at the goal as terminal and go on, so that one trajectory is many episodes there.
    """
    rewards, ends = dataset.rewards.astype(np.float64), dataset.episode_ends
    cuts = np.append(np.flatnonzero(dataset.truncations[:-1]) + 1, len(dataset))
    lengths = np.diff(cuts, prepend=0)
    if len(lengths) > 1 and np.ptp(lengths[:-1]) <= 1 and lengths[-1] <= lengths.max():
        ends = cuts  # all of one length, but for a row that reading may have dropped: only time limits ended them
    starts = np.concatenate(([0], ends[:-1]))
    most = np.maximum.reduceat(rewards, starts)
    # None begins at its goal: what does after a terminal row belongs to the trajectory before.
    goes_on = (rewards[starts] > 0) & np.append(False, dataset.terminations[ends[:-1] - 1])
    return np.maximum.reduceat(most, np.flatnonzero(~goes_on))
