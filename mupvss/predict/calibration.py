"""Scores of tags that mean what they say: of the pictures with a score of 0.8, four in five have the tag (Platt 1999).

Networks are surer than they are right. On pictures that no training saw, a factor and an offset on the log-odds of the scores are
fitted, the same for all classes, since few pictures say little about each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 10
"""Number of ranges of the score in a reliability diagram."""
ROUNDS, SETTLED = 100, 1e-9
"""Newton's steps, and the change of the parameters at which they end."""
CLOSEST = 1e-6
"""Scores are kept this far from 0 and 1, where log-odds are infinite."""
STIFFNESS = 1e-3
"""Weight of the penalty on leaving factor 1 and offset 0, in pictures: scores without a single error would have none."""
LEAST = 20
"""Fewest pictures from which a calibration is taken."""
UNSURE = (0.2, 0.8)
"""A class with a score between these is unsure: calibrated, either answer is wrong for more than one picture in five."""


@dataclass(frozen=True)
class Calibration:
    """Log-odds of the score -> factor x log-odds + offset."""

    factor: float
    offset: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Scores in [0, 1] -> calibrated ones."""
        return 1 / (1 + np.exp(-(self.factor * log_odds(scores) + self.offset)))

    def of(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The scores of one picture by class name, calibrated."""
        return dict(zip(scores, self(np.array(list(scores.values()))).tolist(), strict=True))


def log_odds(scores: np.ndarray) -> np.ndarray:
    kept = np.clip(np.asarray(scores, np.float64), CLOSEST, 1 - CLOSEST)
    return np.log(kept / (1 - kept))


def fit(scores: np.ndarray, present: np.ndarray) -> Calibration:
    """The calibration with the least cross-entropy.

    Args:
        scores: (N, C) in [0, 1].
        present: (N, C) bool: whether picture n has class c.
    """
    x = np.stack((log_odds(scores).ravel(), np.ones(scores.size)), 1)
    y, start = np.asarray(present, np.float64).ravel(), np.array([1.0, 0.0])
    found = start.copy()
    for _ in range(ROUNDS):
        p = 1 / (1 + np.exp(-x @ found))
        gradient = x.T @ (p - y) + STIFFNESS * (found - start)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + STIFFNESS * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        # Far from the minimum a full step can overshoot; one unit of either parameter is much.
        found -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < SETTLED:
            break
    return Calibration(*found.tolist())


@dataclass(frozen=True)
class Reliability:
    """How well scores and shares agree."""

    bins: tuple[tuple[float, float, int], ...]
    """Mean score, share that has the class, and number, of each range with any."""
    error: float
    """Mean distance of the two in percentage points, weighted by the numbers (expected calibration error)."""
    loss: float
    """Mean cross-entropy."""


def reliability(scores: np.ndarray, present: np.ndarray) -> Reliability:
    """scores, present: as in `fit`."""
    flat, truth = np.asarray(scores, np.float64).ravel(), np.asarray(present, bool).ravel()
    place = np.minimum((flat * BINS).astype(int), BINS - 1)
    bins = [(float(flat[place == k].mean()), float(truth[place == k].mean()), int((place == k).sum())) for k in np.unique(place)]
    error = sum(count * abs(score - share) for score, share, count in bins) / max(1, len(flat))
    kept = np.clip(flat, CLOSEST, 1 - CLOSEST)
    loss = -np.where(truth, np.log(kept), np.log(1 - kept)).mean() if len(flat) else 0.0
    return Reliability(tuple(bins), 100 * error, float(loss))


def crossed(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Scores calibrated with the other half of the pictures, so that what is measured on them was not fitted to them."""
    found = np.array(scores, np.float64)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        other = slice(1 if half.start == 0 else 0, None, 2)
        found[half] = fit(scores[other], present[other])(scores[half])
    return found


def measured(values: np.ndarray, present: np.ndarray) -> dict[str, Any]:
    """The calibration of a network and how reliable its scores are before and after, as plain JSON; empty if the pictures are too
    few, or all have the same tags. values, present: scores and truth, as in `fit`."""
    if len(values) < LEAST or not present.any() or present.all():
        return {}
    found = fit(values, present)
    before, after = reliability(values, present), reliability(crossed(values, present), present)
    return {
        "pictures": len(values),
        "factor": found.factor,
        "offset": found.offset,
        "before": {"error": before.error, "loss": before.loss, "bins": [list(one) for one in before.bins]},
        "after": {"error": after.error, "loss": after.loss, "bins": [list(one) for one in after.bins]},
    }


def calibration_settings(calibration: Calibration | None) -> dict[str, Any]:
    """As plain JSON, for settings and headers; empty without one."""
    return {} if calibration is None else {"calibration": {"factor": calibration.factor, "offset": calibration.offset}}


def calibration_of(settings: Mapping[str, Any]) -> Calibration | None:
    """What `calibration_settings` or `measured` wrote; None if there is nothing, or nothing usable."""
    known = settings.get("calibration")
    try:
        found = None if not known else Calibration(float(known["factor"]), float(known["offset"]))
    except (TypeError, KeyError, ValueError):
        return None
    return found if found is not None and np.isfinite((found.factor, found.offset)).all() and found.factor > 0 else None


def unsure(scores: Mapping[str, float]) -> tuple[str, ...]:
    """The classes of which a score says neither yes nor no."""
    low, high = UNSURE
    return tuple(name for name, score in scores.items() if low <= score <= high)
