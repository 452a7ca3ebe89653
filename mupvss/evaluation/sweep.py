"""All background thresholds at once: one histogram per picture instead of one prediction per threshold."""

from __future__ import annotations

import numpy as np

from mupvss.data.masks import IGNORE
from mupvss.evaluation.confusion import Scores, scores

BINS = 100
"""Thresholds are k / BINS; step 0.01, the field's usual sweep."""


def levels(values: np.ndarray) -> np.ndarray:
    """Map values in [0, 1] -> int bins 0 ... BINS: bin >= k means that the value is at least k / BINS."""
    return np.clip(np.floor(values.astype(np.float64) * BINS + 1e-6), 0, BINS).astype(np.int64)


def level_counts(values: np.ndarray) -> np.ndarray:
    """Map values in [0, 1] of any shape -> number of them in each bin, (BINS + 1,)."""
    return np.bincount(levels(values).ravel(), minlength=BINS + 1)


def threshold_histogram(value: np.ndarray, label: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Best map value, its class id (1...) and the truth, all (H, W) -> counts (BINS+1, K truth, K class)."""
    counted = truth != IGNORE
    if (highest := int(truth[counted].max(initial=0))) >= num_classes:  # would be counted as another level and class
        raise ValueError(f"the true mask has class id {highest}, and there are {num_classes} with the background")
    index = (levels(value[counted]) * num_classes + truth[counted]) * num_classes + label[counted]
    return np.bincount(index, minlength=(BINS + 1) * num_classes**2).reshape(BINS + 1, num_classes, num_classes)


def matrix_at(histogram: np.ndarray, k: int) -> np.ndarray:
    """Confusion matrix when values under k / BINS are background: (K, K), truth in rows."""
    matrix = histogram[k:].sum(0)
    matrix[:, 0] += histogram[:k].sum((0, 2))
    return matrix


def best_threshold(histogram: np.ndarray) -> tuple[float, Scores]:
    """The *oracle* threshold, which gives the highest mIoU and is chosen with the masks, and its scores."""
    found = [scores(matrix_at(histogram, k)) for k in range(BINS + 1)]
    k = max(range(BINS + 1), key=lambda i: found[i].miou)
    return k / BINS, found[k]
