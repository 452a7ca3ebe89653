"""Chooses the pictures that are most worth looking at next: doubtful ones that differ from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 8
"""Side of the tiny copies by which pictures are compared."""
POOL = 8
"""Number of the most doubtful pictures that are considered for each picture to choose."""


def tiny_copy(picture: Image.Image) -> np.ndarray:
    """(SIDE * SIDE * 3,) float32 of length 1: colours and layout, without brightness as a whole."""
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    centred = small - small.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-6)


def most_telling(doubts: Sequence[float], copies: np.ndarray, count: int) -> list[int]:
    """Places of up to `count` pictures. The first is the most doubtful one; each further one has the largest product of its doubt
    and its distance to those already chosen. copies: (N, D) of length 1."""
    left = list(range(len(doubts)))
    chosen: list[int] = []
    nearest = np.full(len(doubts), 2.0, np.float32)
    while left and len(chosen) < count:
        best = max(left, key=lambda i: (doubts[i] * nearest[i], -i))
        chosen.append(best)
        left.remove(best)
        nearest = np.minimum(nearest, np.linalg.norm(copies - copies[best], axis=1))
    return chosen
