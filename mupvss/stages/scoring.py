"""Scores one kind of map, as saved on disk, on a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mupvss.data.masks import IGNORE
from mupvss.data.sample import Dataset, Sample
from mupvss.errors import DataError
from mupvss.evaluation.completeness import Coverage, Region, regions
from mupvss.evaluation.confusion import Scores, scores
from mupvss.evaluation.sweep import BINS, best_threshold, level_counts, matrix_at, threshold_histogram
from mupvss.runtime.processes import processes
from mupvss.search.seeds import read_seeds, seed_path
from mupvss.search.threshold import NO_BACKGROUND, Choice, Rule, best_kappa, choose, described


@dataclass(frozen=True)
class MapScores:
    choice: Choice
    """The threshold chosen without masks."""
    threshold_oracle: float | None
    """Chosen with the masks; None if there are none, like the scores below."""
    plain: Scores | None
    """At the mask-free threshold."""
    oracle: Scores | None
    regions: list[Coverage]
    """Every class of every picture that has a mask, at the oracle threshold."""
    pictures: int = 0
    """Number of pictures that have a mask."""
    trivial: dict[str, float] = field(default_factory=dict)
    """mIoU of the masks that need no network, by what they are; see TRIVIAL."""

    @property
    def threshold(self) -> float:
        return self.choice.threshold


KEPT = 0.5
"""Share of a class's area that refinement may leave without a warning."""
LEAST = 1e-3
"""Share of all pixels under which a class is too little to say anything about it."""
TRIVIAL = ("nothing but background", "each picture its largest tag")
"""Masks to compare with. The largest tag of a picture is that of most pixels in its true mask, and fills the picture."""


def score_maps(
    dataset: Dataset,
    folder: Path,
    kind: str,
    background: bool = True,
    rule: Rule = "otsu",
    known: float | None = None,
) -> MapScores:
    """Reads the seeds of one kind, chooses their threshold, and scores them at the picture's own size against the masks.

    Args:
        dataset: Its pictures are those that have seeds.
        folder: Has maps/KIND/NAME.npz.
        kind: Kind of map.
        background: Whether there is one; without it there is no threshold to choose.
        rule: How the threshold is chosen.
        known: The threshold, where there is nothing to choose.

    Returns:
        The threshold, and the scores as far as there are masks.
    """
    size, masked = len(dataset.classes) + 1, 0
    histogram = np.zeros((BINS + 1, size, size), np.int64)
    counts: list[np.ndarray] = []
    trivial = np.zeros((len(TRIVIAL), size, size), np.int64)
    found: list[list[Region]] = []
    team = processes()
    for sample in team.share(dataset.samples):
        found.append([])
        seeds = read_seeds(seed_path(folder, kind, sample.name))
        value, label = seeds.best()
        own = level_counts(value).astype(np.uint32)
        counts.append(own if len(seeds.ids) else np.zeros_like(own))
        if sample.open_mask is not None:
            truth = read_mask(sample, seeds.size)
            histogram += threshold_histogram(value, label, truth, size)
            part = None if sample.open_part is None else sample.open_part()
            found[-1] = regions(sample.name, value, label, truth, part)
            trivial += _trivial(truth, sample, dataset.classes)
            masked += 1
    histogram, trivial, everyone = team.total(histogram), team.total(trivial), np.array(team.in_order(counts))
    tagged = everyone[everyone.any(1)] if len(everyone) else np.zeros((0, BINS + 1), np.uint32)
    if not background:
        choice = described(tagged.sum(0), [NO_BACKGROUND], NO_BACKGROUND, "none")
    elif known is not None:
        choice = described(tagged.sum(0), [known], known, "given")
    else:
        choice = choose(tagged, rule)
    if not histogram.any():
        return MapScores(choice, None, None, None, [])
    best, oracle = best_threshold(histogram)
    covered = [[Coverage.of(region, best) for region in entry] for entry in found]  # a hundredth of the memory
    merged = [region for entry in team.in_order(covered) for region in entry]
    plain, pictures = scores(matrix_at(histogram, round(choice.threshold * BINS))), int(team.total(np.array(masked)))
    compared = {name: scores(matrix).miou for name, matrix in zip(TRIVIAL, trivial, strict=True)}
    return MapScores(choice, best, plain, oracle, merged, pictures, compared)


def kappas(dataset: Dataset, folder: Path, pair: tuple[str, str], background: bool) -> dict[str, float]:
    """How far two kinds of maps, one of the search and one of the classifier, find the same, by class: `best_kappa` over the
    pictures that have the tag; without a background, kappa of where the class is the highest, over those that have another tag
    too."""
    counts = np.zeros((len(dataset.classes), 3, BINS + 1), np.int64)
    team = processes()
    for sample in team.share(dataset.samples):
        if len(sample.tags) > (0 if background else 1):
            one, other = (read_seeds(seed_path(folder, kind, sample.name)) for kind in pair)
            for place, class_id in enumerate(one.ids):
                found = [m.maps[place] if background else (m.maps.argmax(0) == place).astype(np.float32) for m in (one, other)]
                counts[class_id - 1] += levels_of_three(*found)
    counts = team.total(counts)
    return {name: best_kappa(own) for name, own in zip(dataset.classes, counts, strict=True) if own.any()}


def levels_of_three(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(3, BINS + 1): cells per level of the one map, of the other, and of the smaller value."""
    return np.stack([level_counts(m) for m in (one, other, np.minimum(one, other))])


def taken_away(areas: np.ndarray, classes: Sequence[str], text: str) -> Iterator[str]:
    """A warning that names the classes of which a step takes away most of what there was.

    Args:
        areas: (2, C + 1) area per label, the background first, before and after the step, in any unit.
        classes: Their names, without the background.
        text: The warning, with a place for their list.

    Returns:
        At most one sentence.
    """
    before, after = areas
    least = LEAST * before.sum()
    lost = [
        (1 - after[i] / before[i], name) for i, name in enumerate(classes, 1) if before[i] > least and after[i] < KEPT * before[i]
    ]
    if lost:
        yield text.format(", ".join(f"{100 * share:.0f} % of {name}" for share, name in sorted(lost, reverse=True)))


def _trivial(truth: np.ndarray, sample: Sample, classes: Sequence[str]) -> np.ndarray:
    """Confusion matrices (len(TRIVIAL), K, K) of one picture, truth in rows."""
    size = len(classes) + 1
    pixels = np.bincount(truth[truth != IGNORE], minlength=size)
    tagged = [i for i, name in enumerate(classes, 1) if name in sample.tags]
    found = np.zeros((len(TRIVIAL), size, size), np.int64)
    found[0, :, 0] = pixels
    found[1, :, max(tagged, key=lambda i: pixels[i], default=0)] = pixels
    return found


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
                "completeness": round(region.completeness, 4),
                "body": None if region.body is None else round(region.body, 4),
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
