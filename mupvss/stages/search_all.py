"""Searches every picture of a data set: seeds of several kinds on disk, and what they score where there are masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mupvss.data.sample import Dataset, Sample
from mupvss.engine.log import progress_bar
from mupvss.errors import DataError
from mupvss.evaluation.confusion import Scores, scores
from mupvss.evaluation.sweep import BINS, best_threshold, levels, matrix_at, threshold_histogram
from mupvss.predictor import Predictor
from mupvss.search.seeds import Seeds, read_seeds, write_seeds
from mupvss.search.threshold import otsu


def search_all(predictor: Predictor, dataset: Dataset, kinds: Sequence[str], folder: Path) -> None:
    """Writes folder/maps/KIND/NAME.npz for every picture, tagged classes only; pictures that have them are skipped."""
    with progress_bar(folder.name, len(dataset.samples), "pictures") as advance:
        for sample in dataset.samples:
            paths = {kind: seed_path(folder, kind, sample.name) for kind in kinds}
            if not all(path.is_file() for path in paths.values()):
                image = sample.open_image()
                classes = [i for i, name in enumerate(dataset.classes) if name in sample.tags]
                found = predictor.search(image, classes, kinds)
                for kind, path in paths.items():
                    ids = np.array(classes, np.int16) + 1
                    write_seeds(
                        path, Seeds(ids, found[kind].numpy(), (image.height, image.width), predictor.config.canvas_stride)
                    )
            advance(1)


def seed_path(folder: Path, kind: str, name: str) -> Path:
    return folder / "maps" / kind / f"{name}.npz"


@dataclass(frozen=True)
class MapScores:
    """What one kind of map is worth on a data set."""

    threshold: float
    """Chosen without masks (Otsu)."""
    threshold_oracle: float | None
    """Chosen with the masks; None where there are none, as for the figures below."""
    plain: Scores | None
    """At the mask-free threshold."""
    oracle: Scores | None


def score_maps(dataset: Dataset, folder: Path, kind: str) -> MapScores:
    """Reads the seeds of one kind back and scores them at the picture's own size against the masks there are."""
    size = len(dataset.classes) + 1
    histogram = np.zeros((BINS + 1, size, size), np.int64)
    counts = np.zeros(BINS + 1, np.int64)
    for sample in dataset.samples:
        seeds = read_seeds(seed_path(folder, kind, sample.name))
        value, label = seeds.best()
        if len(seeds.ids):
            counts += np.bincount(levels(value).ravel(), minlength=BINS + 1)
        if sample.open_mask is not None:
            histogram += threshold_histogram(value, label, read_mask(sample, seeds.size), size)
    threshold = otsu(counts)
    if not histogram.any():
        return MapScores(threshold, None, None, None)
    best, oracle = best_threshold(histogram)
    return MapScores(threshold, best, scores(matrix_at(histogram, round(threshold * BINS))), oracle)


def read_mask(sample: Sample, size: tuple[int, int]) -> np.ndarray:
    """The mask of a sample (H, W), checked against its picture's size."""
    assert sample.open_mask is not None
    mask = sample.open_mask()
    if mask.shape != size:
        raise DataError(f"{sample.origin}: the picture is {size[0]}x{size[1]} pixels, its mask {mask.shape[0]}x{mask.shape[1]}")
    return mask
