"""The one confusion matrix, and the figures computed from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mupvss.data.masks import IGNORE
from mupvss.errors import UserError


def joint_counts(truth: np.ndarray, prediction: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Two uint8 arrays of equal shape -> (size, size) int64, truth in rows, without the pixels whose truth is 255; and the index
    of the first pixel with another id of `size` or more, -1 if there is none."""
    truth, prediction = truth.ravel(), prediction.ravel()
    counted = truth != IGNORE
    wrong = np.flatnonzero(counted & ((truth >= size) | (prediction >= size)))
    if len(wrong):
        return np.zeros((size, size), np.int64), int(wrong[0])
    codes = truth[counted].astype(np.int64) * size + prediction[counted]
    return np.bincount(codes, minlength=size**2).reshape(size, size), -1


def confusion_matrix(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Class ids of equal shape -> (K, K) int64, truth in rows; pixels whose truth is 255 are ignored.

    num_classes K includes the background. UserError for other ids or unequal shapes.
    """
    if prediction.shape != truth.shape:
        raise UserError(f"the prediction is {prediction.shape}, the truth {truth.shape}; they must be of one size")
    t, p = _as_bytes(truth, "truth"), _as_bytes(prediction, "prediction")
    counts, wrong = joint_counts(t, p, num_classes)
    if wrong >= 0:
        name, found = ("truth", t.flat[wrong]) if t.flat[wrong] >= num_classes else ("prediction", p.flat[wrong])
        raise UserError(f"the {name} has class id {found}, expected ids under {num_classes} (and 255 in the truth)")
    return counts


def _as_bytes(ids: np.ndarray, name: str) -> np.ndarray:
    if ids.dtype == np.uint8:
        return ids
    if ids.size and not 0 <= ids.min() <= ids.max() <= IGNORE:
        raise UserError(f"the {name} has class ids from {ids.min()} to {ids.max()}, expected 0 to {IGNORE}")
    return ids.astype(np.uint8)


@dataclass(frozen=True)
class Scores:
    """Figures of one confusion matrix; shares in percent, None for a class absent from truth and prediction."""

    miou: float
    """Mean IoU over the classes present in either, background included."""
    iou: list[float | None]
    precision: list[float | None]
    recall: list[float | None]
    false_positive: float
    """Background pixels labelled as a class, as a share of all counted pixels."""
    false_negative: float
    """Object pixels labelled as background, as a share of all counted pixels."""


def scores(matrix: np.ndarray) -> Scores:
    """(K, K) counts, truth in rows -> Scores."""
    matrix = matrix.astype(np.float64)
    overlap, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    iou = _shares(overlap, truth + predicted - overlap)
    present = [value for value in iou if value is not None]
    total = max(matrix.sum(), 1.0)
    return Scores(
        miou=sum(present) / len(present) if present else 0.0,
        iou=iou,
        precision=_shares(overlap, predicted),
        recall=_shares(overlap, truth),
        false_positive=100 * matrix[0, 1:].sum() / total,
        false_negative=100 * matrix[1:, 0].sum() / total,
    )


def _shares(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    return [float(100 * p / w) if w > 0 else None for p, w in zip(part, whole, strict=True)]
