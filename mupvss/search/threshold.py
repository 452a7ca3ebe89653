"""The background threshold without any mask: Otsu's criterion over all seeds of a data set.

A seed's best value per pixel is high on objects and low elsewhere. The threshold that separates the two groups with the least
variance within them needs no ground truth and no constant of the data set.
"""

from __future__ import annotations

import numpy as np

from mupvss.evaluation.sweep import BINS

NO_BACKGROUND = 0.0
"""The threshold of data whose pictures have no background: every pixel reaches it."""


def otsu(counts: np.ndarray) -> float:
    """The threshold with the greatest variance between the two groups (Otsu 1979).

    Args:
        counts: (BINS + 1,), number of values at each level k / BINS.

    Returns:
        A threshold in [0, 1]; 0.5 if there is no value, or only one level.
    """
    counts = counts.astype(np.float64)
    value = np.arange(BINS + 1) / BINS
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    low = np.cumsum(counts * value)[:-1]
    high = (counts * value).sum() - low
    usable = (below > 0) & (above > 0)
    if not usable.any():
        return 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.where(usable, below * above * (high / above - low / below) ** 2, -1.0)
    return float((np.argmax(between) + 1) / BINS)
