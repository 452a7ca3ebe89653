"""What one mIoU does not say: how sure it is, whether two differ, and where the errors are.

Pictures are the units: an interval or a test treats the pictures as a sample of those that could have been taken, not the pixels,
of which a picture has thousands that are all alike. How much another training would change is not in it; that takes seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from mupvss.data.masks import IGNORE

ROUNDS = 5000
"""Number of resamples, and of exchanges of the test."""
LEVEL = 95.0
"""Percent of the resamples that lie in an interval."""
BAND = 5
"""Width of the band at true boundaries, in pixels to either side."""
SIZES = (0.05, 0.2)
"""Shares of the picture at which classes in a picture count as small, medium or large."""
WIDEST = 16
"""Widest rim of 255, in pixels to either side, that is taken for a boundary."""
CHUNK = 500


def tally(matrix: np.ndarray) -> np.ndarray:
    """(K, K) counts of one picture, truth in rows -> (3, K): pixels in both, in the truth, and predicted."""
    return np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)])


def miou_of(tallies: np.ndarray) -> np.ndarray:
    """(..., 3, K) -> mean IoU in percent over the classes in truth or prediction (...); 0 without any."""
    overlap, truth, predicted = np.moveaxis(np.asarray(tallies, np.float64), -2, 0)
    union = truth + predicted - overlap
    present = union > 0.5
    iou = np.where(present, overlap / np.where(present, union, 1), 0)
    return 100 * iou.sum(-1) / np.maximum(present.sum(-1), 1)


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def interval(tallies: np.ndarray, seed: int = 0) -> Interval:
    """Within which mIoU lies in LEVEL percent of the resamples of the pictures (bootstrap, percentiles). A class that few
    pictures have is missing in some resamples, and is then left out of their mean.

    tallies: (N, 3, K), see `tally`.
    """
    return _middle(_resampled(tallies, np.random.default_rng(seed)))


def _middle(found: np.ndarray) -> Interval:
    """Within which LEVEL percent of the values lie."""
    return Interval(*np.percentile(found, [50 - LEVEL / 2, 50 + LEVEL / 2]).tolist())


@dataclass(frozen=True)
class Difference:
    """mIoU of one prediction less that of another, on the same pictures."""

    points: float
    interval: Interval
    """Of the difference, over resamples of the pictures."""
    p: float
    """Share of random exchanges of the two predictions, picture by picture, with a difference as large as that (two-sided)."""


def difference(one: np.ndarray, other: np.ndarray, seed: int = 0) -> Difference:
    """Compares two predictions of the same pictures. one, other: (N, 3, K), see `tally`."""
    rng = np.random.default_rng(seed)
    points = float(miou_of(one.sum(0)) - miou_of(other.sum(0)))
    both = _resampled(np.stack((one, other), 1), rng)
    change, shape = (other - one).reshape(len(one), -1).astype(np.float64), one.shape[1:]
    extreme = 0
    for count in _chunks(ROUNDS):
        exchanged = rng.integers(0, 2, (count, len(one))).astype(np.float64) @ change
        exchanged = exchanged.reshape(count, *shape)
        moved = miou_of(one.sum(0) + exchanged) - miou_of(other.sum(0) - exchanged)
        extreme += int((np.abs(moved) >= abs(points) - 1e-9).sum())
    return Difference(points, _middle(both[:, 0] - both[:, 1]), (1 + extreme) / (1 + ROUNDS))


def _resampled(tallies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, ..., 3, K) -> mIoU of ROUNDS samples of N pictures with replacement (ROUNDS, ...)."""
    flat = tallies.reshape(len(tallies), -1).astype(np.float64)
    found = []
    for count in _chunks(ROUNDS):
        often = rng.multinomial(len(tallies), np.full(len(tallies), 1 / len(tallies)), count).astype(np.float64)
        found.append(miou_of((often @ flat).reshape(count, *tallies.shape[1:])))
    return np.concatenate(found)


def _chunks(total: int) -> Sequence[int]:
    return [min(CHUNK, total - begin) for begin in range(0, total, CHUNK)]


def near_boundary(truth: np.ndarray, width: int = BAND) -> np.ndarray:
    """Where a true boundary is at most `width` pixels away, in either direction or diagonally.

    Args:
        truth: (H, W) class ids. 255 is no class; where it is the rim of an object, as in VOC, the boundary lies in its middle.
        width: In pixels, at least 1.

    Returns:
        (H, W) bool.
    """
    labels, edge = _without_rims(truth), np.zeros(truth.shape, bool)
    for axis in (0, 1):
        left, right = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        differs = (left != right) & (left != IGNORE) & (right != IGNORE)
        for part in (np.moveaxis(edge, axis, 0)[:-1], np.moveaxis(edge, axis, 0)[1:]):
            part |= differs
    reach = width - 1  # the two pixels at the boundary are its first
    grown = F.max_pool2d(torch.from_numpy(edge.astype(np.float32))[None, None], 2 * reach + 1, 1, reach)[0, 0]
    return grown.numpy() > 0


def _without_rims(labels: np.ndarray) -> np.ndarray:
    """(H, W) with 255 replaced by the class that is nearest in steps along the sides, up to WIDEST steps away."""
    found = labels.copy()
    for _ in range(WIDEST):
        if not (found == IGNORE).any():
            break
        before = found.copy()
        for axis in (0, 1):
            for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
                target, source = np.moveaxis(found, axis, 0)[here], np.moveaxis(before, axis, 0)[there]
                np.copyto(target, source, where=(target == IGNORE) & (source != IGNORE))
        if np.array_equal(found, before):
            break
    return found


def ious_by_size(matrix: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> None:
    """Adds the IoU of every true class of one picture to its group.

    Args:
        matrix: (K, K) counts of the picture, truth in rows.
        sums: (len(SIZES) + 1,), of IoU in percent.
        counts: Number of them in each group.
    """
    overlap, truth, predicted = tally(matrix)
    pixels = max(1, int(truth.sum()))
    for class_id in np.flatnonzero(truth[1:]) + 1:
        group = int(np.searchsorted(SIZES, truth[class_id] / pixels, side="right"))
        sums[group] += 100 * overlap[class_id] / (truth[class_id] + predicted[class_id] - overlap[class_id])
        counts[group] += 1


def size_names() -> tuple[str, ...]:
    small, large = (f"{100 * share:.0f} %" for share in SIZES)
    return (f"under {small}", f"{small} to {large}", f"over {large}")
