"""Scores one folder of palette PNGs against another, and gives scores as a table for the terminal and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mupvss.data.masks import read_label_image
from mupvss.errors import DataError
from mupvss.evaluation.confusion import Scores, confusion_matrix


def score_folders(predictions: Path, truth: Path, num_classes: int, names: list[str] | None = None) -> np.ndarray:
    """Confusion matrix (K, K), truth in rows, over the named pictures (all of `truth` if None), by file stem.

    num_classes K includes the background. DataError names a file that is missing, has another size or holds a wrong id.
    """
    for folder in (predictions, truth):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of masks")
    names = sorted(path.stem for path in truth.glob("*.png")) if names is None else names
    if not names:
        raise DataError(f"{truth}: holds no .png mask to score against")
    matrix, pixels = np.zeros((num_classes, num_classes), np.int64), 0
    for name in names:
        pair = [read_label_image(folder / f"{name}.png") for folder in (predictions, truth)]
        try:
            matrix += confusion_matrix(pair[0], pair[1], num_classes)
        except ValueError as error:
            raise DataError(f"{predictions / name}.png against {truth / name}.png: {error}") from None
        pixels += pair[1].size
    ignored = pixels - int(matrix.sum())
    if ignored and not matrix[1:].any():
        raise DataError(
            f"{truth}: no pixel is of any class, and {100 * ignored / pixels:.0f} % are 255, which is ignored. Are these masks "
            "of 0 and 255? Class ids are expected: 0 for the background, 1 for the first class"
        )
    return matrix


def as_table(found: Scores, names: list[str], title: str) -> Table:
    table = Table(title=title)
    for column, justify in (("class", "left"), ("IoU", "right"), ("precision", "right"), ("recall", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in zip(names, found.iou, found.precision, found.recall, strict=True):
        table.add_row(row[0], *("-" if value is None else f"{value:.1f}" for value in row[1:]))
    table.add_section()
    table.add_row("mean IoU", f"{found.miou:.1f}", f"FP {found.false_positive:.1f}", f"FN {found.false_negative:.1f}")
    return table


def as_json(found: Scores) -> dict[str, Any]:
    """Lists by class id, background first; null where a class is absent from truth and prediction."""
    return {
        "miou": found.miou,
        "iou": found.iou,
        "precision": found.precision,
        "recall": found.recall,
        "false_positive": found.false_positive,
        "false_negative": found.false_negative,
    }
