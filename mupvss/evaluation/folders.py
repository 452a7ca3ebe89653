"""Scores one folder of palette PNGs against another, and gives scores as a table for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mupvss.data.masks import named_ids, read_label_image
from mupvss.data.names import stem
from mupvss.data.walk import pictures_below
from mupvss.errors import DataError
from mupvss.evaluation.confusion import Scores, confusion_matrix, scores
from mupvss.evaluation.details import (
    BAND,
    LEVEL,
    SIZES,
    difference,
    interval,
    ious_by_size,
    near_boundary,
    size_names,
    tally,
)


@dataclass(frozen=True)
class Scored:
    """The result of scoring two folders."""

    matrix: np.ndarray
    """(K, K) int64, truth in rows."""
    pictures: int
    ignored: float
    """Share of the true pixels that are 255."""
    notes: tuple[str, ...]
    """What was left out, as sentences."""
    names: tuple[str, ...]
    """The pictures, in the order of `tallies`."""
    tallies: np.ndarray
    """(N, 3, K) int64, see `details.tally`."""
    band: np.ndarray
    """(K, K) int64, of the pixels near a true boundary."""
    sizes: tuple[tuple[float | None, int], ...]
    """Mean IoU of the classes in a picture and their number, by the share of the picture that they fill (`details.SIZES`)."""


def score_folders(
    predictions: Path,
    truth: Path,
    num_classes: int,
    names: Sequence[str] | None = None,
    classes: Sequence[str] = (),
    width: int = BAND,
) -> Scored:
    """Scores one folder of masks against another, over the named pictures (all of `truth` if None), by file stem.

    num_classes K includes the background. classes: names of the others, for masks in the colours of a labelmap.txt. width: of the
    band at true boundaries, in pixels. DataError names a file that is missing, has another size or holds a wrong id.
    """
    predicted, true = mask_files(predictions), mask_files(truth)
    chosen = sorted(true) if names is None else list(dict.fromkeys(names))
    if len(classes) >= num_classes:
        raise DataError(f"{len(classes)} names of classes, but {num_classes} classes with the background")
    if not chosen:
        raise DataError(f"{truth}: holds no .png mask to score against")
    (matrix, band), pixels = np.zeros((2, num_classes, num_classes), np.int64), 0
    tallies, sums, counts = [], np.zeros(len(SIZES) + 1), np.zeros(len(SIZES) + 1, np.int64)
    colours = [named_ids(folder, classes) for folder in (predictions, truth)]
    for name in chosen:
        paths = [found.get(name, folder / f"{name}.png") for folder, found in ((predictions, predicted), (truth, true))]
        pair = [read_label_image(path, known) for path, known in zip(paths, colours, strict=True)]
        try:
            own = confusion_matrix(pair[0], pair[1], num_classes)
        except ValueError as error:
            raise DataError(f"{paths[0]} against {paths[1]}: {error}") from None
        matrix += own
        tallies.append(tally(own))
        ious_by_size(own, sums, counts)
        near = near_boundary(pair[1], width)
        band += confusion_matrix(pair[0][near], pair[1][near], num_classes)
        pixels += pair[1].size
    ignored = 1 - int(matrix.sum()) / pixels
    if ignored and not matrix[1:].any():
        raise DataError(
            f"{truth}: no pixel is of any class, and {100 * ignored:.0f} % are 255, which is ignored. Are these masks "
            "of 0 and 255? Class ids are expected: 0 for the background, 1 for the first class"
        )
    sizes = tuple((float(total / count) if count else None, int(count)) for total, count in zip(sums, counts, strict=True))
    notes = tuple(_notes(matrix, set(chosen), predicted, true, truth))
    return Scored(matrix, len(chosen), ignored, notes, tuple(chosen), np.stack(tallies), band, sizes)


def mask_files(folder: Path) -> dict[str, Path]:
    """The masks in a folder and its subfolders, by relative path without suffix. DataError if there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of masks")
    return {stem(name): folder / name for name in pictures_below(folder).pictures if name.lower().endswith(".png")}


def _notes(matrix: np.ndarray, chosen: set[str], predicted: Iterable[str], true: Iterable[str], truth: Path) -> Iterator[str]:
    if not matrix[1:].any():
        yield f"no pixel of {truth} is of any class: only the background was scored"
    for what, left in (("predictions", set(predicted) - chosen), ("true masks", set(true) - chosen)):
        if left:
            yield f"{what} that were not scored: {len(left)} ({', '.join(sorted(left)[:3])}{', ...' if len(left) > 3 else ''})"


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


def further_figures(scored: Scored, other: Scored | None = None) -> dict[str, Any]:
    """How sure the mIoU is, and where the errors are, as plain JSON. other: of a second prediction of the same pictures."""
    own = interval(scored.tallies)
    found: dict[str, Any] = {
        "miou_interval": [own.low, own.high],
        "miou_band": scores(scored.band).miou if scored.band.any() else None,
        "iou_by_size": [
            {"size": name, "iou": iou, "regions": count} for name, (iou, count) in zip(size_names(), scored.sizes, strict=True)
        ],
    }
    if other is not None:
        less = difference(scored.tallies, other.tallies)
        found["difference"] = {
            "points": less.points,
            "interval": [less.interval.low, less.interval.high],
            "p": less.p,
            "miou": scores(other.matrix).miou,
        }
    return found


def in_words(further: dict[str, Any], band: int, against: Path | None) -> Iterator[str]:
    """The lines below the table. further: of `further_figures`."""
    low, high = further["miou_interval"]
    yield f"mean IoU lies between {low:.1f} and {high:.1f} in {LEVEL:.0f} % of the resamples of these pictures"
    if further["miou_band"] is not None:
        yield f"mean IoU within {band} pixels of a true boundary: {further['miou_band']:.1f}"
    groups = [f"{one['size']}: {one['iou']:.1f} ({one['regions']:,})" for one in further["iou_by_size"] if one["regions"]]
    if groups:
        yield f"mean IoU of a class in a picture, by the share of the picture that it fills: {', '.join(groups)}"
    if against is not None:
        less = further["difference"]
        low, high = less["interval"]
        yield (
            f"against {against}, {less['miou']:.1f}: {less['points']:+.1f} points ({low:+.1f} to {high:+.1f}); random exchanges "
            f"of the two differ as much with p = {less['p']:.4f}"
        )
