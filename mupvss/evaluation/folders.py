"""Scoring one folder of masks against another: any two folders of palette PNGs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mupvss.data.images import read_label_image
from mupvss.errors import DataError
from mupvss.evaluation.confusion import confusion_matrix


def score_folders(predictions: Path, truth: Path, num_classes: int, names: list[str] | None = None) -> np.ndarray:
    """Confusion matrix (K, K), truth in rows, over the named pictures (all of `truth` if None), by file stem.

    num_classes K counts the background. DataError names the file that is missing, of another size or holds a wrong id.
    """
    for folder in (predictions, truth):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of masks")
    names = sorted(path.stem for path in truth.glob("*.png")) if names is None else names
    if not names:
        raise DataError(f"{truth}: holds no .png mask to score against")
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for name in names:
        pair = [read_label_image(folder / f"{name}.png") for folder in (predictions, truth)]
        try:
            matrix += confusion_matrix(pair[0], pair[1], num_classes)
        except ValueError as error:
            raise DataError(f"{predictions / name}.png against {truth / name}.png: {error}") from None
    return matrix
