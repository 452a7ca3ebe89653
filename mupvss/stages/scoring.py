"""Scores one kind of map, as saved on disk, on a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mupvss.data.sample import Dataset, Sample
from mupvss.errors import DataError
from mupvss.evaluation.completeness import Region, regions
from mupvss.evaluation.confusion import Scores, scores
from mupvss.evaluation.sweep import BINS, best_threshold, levels, matrix_at, threshold_histogram
from mupvss.runtime.processes import processes
from mupvss.search.seeds import read_seeds, seed_path
from mupvss.search.threshold import otsu


@dataclass(frozen=True)
class MapScores:
    threshold: float
    """Chosen without masks (Otsu)."""
    threshold_oracle: float | None
    """Chosen with the masks; None if there are none, like the scores below."""
    plain: Scores | None
    """At the mask-free threshold."""
    oracle: Scores | None
    regions: list[Region]
    """Every class of every picture that has a mask."""
    pictures: int = 0
    """Number of pictures that have a mask."""


def score_maps(dataset: Dataset, folder: Path, kind: str) -> MapScores:
    """Reads the seeds of one kind, and scores them at the picture's own size against the masks that exist."""
    size, masked = len(dataset.classes) + 1, 0
    histogram = np.zeros((BINS + 1, size, size), np.int64)
    counts = np.zeros(BINS + 1, np.int64)
    found: list[list[Region]] = []
    team = processes()
    for sample in team.share(dataset.samples):
        found.append([])
        seeds = read_seeds(seed_path(folder, kind, sample.name))
        value, label = seeds.best()
        if len(seeds.ids):
            counts += np.bincount(levels(value).ravel(), minlength=BINS + 1)
        if sample.open_mask is not None:
            truth = read_mask(sample, seeds.size)
            histogram += threshold_histogram(value, label, truth, size)
            part = None if sample.open_part is None else sample.open_part()
            found[-1] = regions(sample.name, value, label, truth, part)
            masked += 1
    counts, histogram = team.total(counts), team.total(histogram)
    threshold = otsu(counts)
    if not histogram.any():
        return MapScores(threshold, None, None, None, [])
    best, oracle = best_threshold(histogram)
    merged = [region for entry in team.in_order(found) for region in entry]
    plain, pictures = scores(matrix_at(histogram, round(threshold * BINS))), int(team.total(np.array(masked)))
    return MapScores(threshold, best, plain, oracle, merged, pictures)


def as_record(found: MapScores) -> dict[str, Any]:
    """Everything about one kind as plain JSON, for tables and figures over several runs."""
    if found.plain is None or found.oracle is None or found.threshold_oracle is None:
        return {"threshold": found.threshold}
    best = found.threshold_oracle
    return {
        "threshold": found.threshold,
        "threshold_oracle": best,
        "miou": found.plain.miou,
        "miou_oracle": found.oracle.miou,
        "iou": found.plain.iou,
        "iou_oracle": found.oracle.iou,
        "precision_oracle": found.oracle.precision,
        "recall_oracle": found.oracle.recall,
        "regions": [
            {
                "picture": region.picture,
                "class": region.class_id,
                "size": round(region.size, 5),
                "completeness": round(region.completeness(best), 4),
                "body": None if (body := region.body_completeness(best)) is None else round(body, 4),
            }
            for region in found.regions
        ],
    }


def read_mask(sample: Sample, size: tuple[int, int]) -> np.ndarray:
    """The mask of a sample (H, W), checked against its picture's size."""
    assert sample.open_mask is not None
    mask = sample.open_mask()
    if mask.shape != size:
        raise DataError(f"{sample.origin}: the picture is {size[0]}x{size[1]} pixels, its mask {mask.shape[0]}x{mask.shape[1]}")
    return mask
