"""What the pictures most like a picture are tagged with: a word on its tags in which these have no say."""

from __future__ import annotations

import numpy as np

COUNT = 30
"""Neighbours that are asked."""
SHARP = 20.0
"""A neighbour counts exp(SHARP x (its cosine - the nearest one's))."""
PRIOR = 2.0
"""The class's share of all pictures counts as this many neighbours."""
ROWS = 1024


def neighbours_say(features: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """features (n, D), tags (n, C) of 0 and 1 -> log-odds (n, C) that a class is there, from the weighed share of the neighbours
    that are tagged with it; zeros for a single picture."""
    n, count = len(features), min(COUNT, len(features) - 1)
    if count < 1:
        return np.zeros(tags.shape)
    centred = features - features.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-8)
    shares = np.empty(tags.shape)
    for start in range(0, n, ROWS):
        rows = np.arange(start, min(n, start + ROWS))
        cosines = unit[rows] @ unit.T
        cosines[rows - start, rows] = -np.inf
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        close = np.take_along_axis(cosines, nearest, 1)
        weights = np.exp(SHARP * (close - close.max(1, keepdims=True)))
        shares[rows] = (weights[:, :, None] * tags[nearest]).sum(1) / weights.sum(1)[:, None]
    usual = tags.mean(0).clip(0.5 / n, 1 - 0.5 / n)
    likely = (shares * count + usual * PRIOR) / (count + PRIOR)
    return np.log(likely / (1 - likely))
