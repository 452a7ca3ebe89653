"""How often each pair of class ids meets: compiled where numba is installed, with numpy otherwise."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

IGNORE = 255

Counter = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, int]]


def joint_counts(truth: np.ndarray, prediction: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Two uint8 arrays of equal shape -> (size, size) int64, truth in rows, without the pixels whose truth is 255; and the place
    of a pixel with another id of `size` or more, -1 if there is none."""
    return counter()(np.ascontiguousarray(truth).ravel(), np.ascontiguousarray(prediction).ravel(), size)


def count_with_numpy(truth: np.ndarray, prediction: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    counted = truth != IGNORE
    wrong = np.flatnonzero(counted & ((truth >= size) | (prediction >= size)))
    if len(wrong):
        return np.zeros((size, size), np.int64), int(wrong[0])
    codes = truth[counted].astype(np.int64) * size + prediction[counted]
    return np.bincount(codes, minlength=size**2).reshape(size, size), -1


@functools.cache
def counter() -> Counter:
    """The faster of the two that this computer has."""
    try:
        import numba
    except ImportError:
        return count_with_numpy

    def count(truth: np.ndarray, prediction: np.ndarray, size: int) -> tuple[np.ndarray, int]:
        # Neighbouring pixels are mostly alike, and adding to one place twice in a row has to wait: four tables in turn.
        tables = np.zeros((4, size * size), np.int64)
        for i in range(len(truth)):
            t = np.int64(truth[i])
            p = np.int64(prediction[i])
            if t != IGNORE:
                if t >= size or p >= size:
                    return tables[0].copy().reshape((size, size)), i
                tables[i & 3, t * size + p] += 1
        return tables.sum(0).reshape((size, size)), -1

    compiled: Counter = numba.njit("Tuple((int64[:,::1], int64))(uint8[::1], uint8[::1], int64)", nogil=True)(count)
    return compiled
