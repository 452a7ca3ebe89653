"""All the evidence there is, weighed for one class: Fisher's linear discriminant between its pictures and the others.

A cow that the cow's own score misses may be given away by the sheep's, which is high for cows. Each picture is judged by a
discriminant that its own tags had no part in.
"""

from __future__ import annotations

import numpy as np

FOLDS = 5


def discriminant(evidence: np.ndarray, given: np.ndarray) -> np.ndarray:
    """evidence (n, K), given (n,) bool: whether a picture has the tag -> (n,) log-odds before any prior; NaN, unknown, where the
    other folds lack pictures with or without the tag."""
    spread = evidence.std(0)
    x = (evidence - evidence.mean(0)) / np.where(spread > 1e-9, spread, 1.0)
    fold = np.arange(len(x)) % FOLDS
    found = np.full(len(x), np.nan)
    for held_out in range(FOLDS):
        learn, judged = fold != held_out, fold == held_out
        yes, no = x[learn & given], x[learn & ~given]
        if len(yes) and len(no):
            direction, middle = _fisher(yes, no)
            found[judged] = (x[judged] - middle) @ direction
    return found


def _fisher(yes: np.ndarray, no: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Direction and middle point; the covariance is drawn towards its diagonal the more, the fewer pictures there are."""
    high, low = yes.mean(0), no.mean(0)
    within = np.concatenate((yes - high, no - low))
    covariance = within.T @ within / len(within)
    share = covariance.shape[0] / (covariance.shape[0] + len(within))
    shrunk = (1 - share) * covariance + np.diag(share * covariance.diagonal() + 1e-6)
    return np.linalg.solve(shrunk, high - low), (high + low) / 2
