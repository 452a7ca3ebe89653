"""Stage `crossfit`: every tagged picture gets its mask from a segmentation network that did not learn that picture's pseudo-mask.

A network that has learned a mask repeats its errors. So the pictures are divided into parts, a network for each part learns the
pseudo-masks of all the others, and draws the masks of its own part with their tags known. Where a class's new masks no longer
agree with what the search found, its pictures keep their pseudo-masks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mupvss.config.run import RunConfig
from mupvss.data.masks import IGNORE, label_names, read_label_image, write_grey_png, write_palette_png
from mupvss.data.sample import Dataset, Sample
from mupvss.data.summary import print_doubts
from mupvss.errors import DataError
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.evaluation.folders import as_table
from mupvss.files import read_json, write_json
from mupvss.options import Section
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.runtime.log import console, each
from mupvss.runtime.processes import processes
from mupvss.stages.masks import write_mask
from mupvss.stages.run_folder import Metrics, Stage, Work, fingerprint, given_identity, reuse, stage_fingerprint
from mupvss.stages.scoring import read_mask
from mupvss.stages.segment import SegmentInputs, fit, has_background, segment_inputs
from mupvss.training.loop import remove_states

UNSURE = 0.6
"""Pixels of the new masks that are less certain than this become 255."""
DISAGREES = (
    "networks that had not learned them draw the masks of {} elsewhere than the pseudo-masks have them, so these pictures keep "
    "their pseudo-masks"
)


class CrossfitInputs(Section):
    """What the new masks depend on besides pseudo-masks and classifier."""

    folds: int
    agreement: float
    networks: SegmentInputs
    scales: tuple[float, ...]
    """The masks are drawn as in the test."""
    crf: str


def crossfit_inputs(config: RunConfig) -> CrossfitInputs:
    networks = segment_inputs(config)
    length = config.crossfit.image_steps or config.segment.train.image_steps
    train = networks.segment.train.model_copy(update={"image_steps": length})
    return CrossfitInputs.model_construct(
        folds=config.crossfit.folds,
        agreement=config.crossfit.agreement,
        networks=networks.model_copy(update={"segment": networks.segment.model_copy(update={"train": train}), "masks": "masks"}),
        scales=config.segment.scales,
        crf=config.segment.crf,
    )


def crossfit(work: Work) -> Metrics:
    """-> networks/PART/model.safetensors, drawn/NAME.png, and in the layout of the stage `masks` full, labels and confidence."""
    inputs, dataset = work.inputs, work.dataset
    parts = parts_of(dataset, inputs.folds)
    after = [stage_fingerprint(work.run.folder(name)) for name in CROSSFIT.after]
    decided = given_identity(dataset)
    identity = fingerprint(CROSSFIT.revision, inputs.networks, inputs.folds, after, work.pictures, decided)
    if processes().main:
        reuse(work.folder, "networks", identity)
    processes().wait()
    figures: Metrics = {}
    for number in range(1, inputs.folds + 1):
        figures = learn(work, parts, number, identity)
        draw(work, parts, number)
    return {**keep_agreeing(work), **figures}


def parts_of(dataset: Dataset, count: int) -> list[int]:
    """The part, from 1, of every picture; pictures of each class, the rarest first, are dealt out in turn. DataError if there are
    too few pictures."""
    samples = list(dataset.samples)
    if len(samples) < 2 * count:
        raise DataError(f"crossfit.folds = {count} needs at least {2 * count} pictures, and there are {len(samples)}")
    common = Counter(tag for sample in samples for tag in sample.tags)

    def order(place: int) -> tuple[int, str, str]:
        count, rarest = min(((common[tag], tag) for tag in samples[place].tags), default=(len(samples), ""))
        return count, rarest, samples[place].name

    found = [0] * len(samples)
    for turn, place in enumerate(sorted(range(len(samples)), key=order)):
        found[place] = turn % count + 1
    return found


def learn(work: Work, parts: Sequence[int], number: int, identity: str) -> Metrics:
    """-> networks/NUMBER: learned from all parts but this one; the figures of its training."""
    folder = work.folder / "networks" / str(number)
    if not processes().from_main((folder / "learned.json").is_file()):
        others = [sample for sample, part in zip(work.dataset.samples, parts, strict=True) if part != number]
        dataset, title = Dataset(work.dataset.classes, others), f"crossfit, network {number} of {max(parts)}"
        masks, background = work.run.folder(work.inputs.networks.masks), has_background(work.run)
        figures = fit(work, work.inputs.networks, dataset, masks, folder, fingerprint(identity, number), title, background)
        if processes().main:
            remove_states(folder)
            write_json(folder / "learned.json", figures)
        processes().wait()
    return dict(read_json(folder / "learned.json"))


def draw(work: Work, parts: Sequence[int], number: int) -> None:
    """-> drawn/NAME.png and confidence of this part's pictures; those that exist are kept."""
    own = [sample for sample, part in zip(work.dataset.samples, parts, strict=True) if part == number]
    missing = [sample for sample in own if not (work.folder / "drawn" / f"{sample.name}.png").is_file()]
    if processes().from_main(not missing):
        return
    checkpoint = work.folder / "networks" / str(number) / "model.safetensors"
    predictor = SegmentationPredictor.open(checkpoint, scales=work.inputs.scales, crf=work.inputs.crf, device=str(work.device))
    for sample in each(f"crossfit, masks of part {number}", own):
        path = work.folder / "drawn" / f"{sample.name}.png"
        if not path.is_file():
            found = predictor(sample.open_image(), sorted(sample.tags))
            confidence = (255 * found.confidence.clip(0, 1) + 0.5).astype(np.uint8)
            write_grey_png(work.folder / "drawn-confidence" / path.name, confidence)
            write_palette_png(path, found.labels)
    processes().wait()


def keep_agreeing(work: Work) -> Metrics:
    """-> full, labels and confidence: the new masks, but the pseudo-masks for pictures of classes that disagree with them."""
    dataset, before, classes = work.dataset, work.run.folder("masks"), work.dataset.classes
    size = len(classes) + 1
    changes, team = np.zeros((size, size), np.int64), processes()
    for sample in team.share([sample for sample in dataset.samples if not sample.rejected]):
        changes += confusion_matrix(_read(work.folder / "drawn", sample), _read(before / "full", sample), size)
    changes = team.total(changes)
    overlap = scores(changes).iou
    least = 100 * work.inputs.agreement
    kept = {name: value for name, value in zip(classes, overlap[1:], strict=True) if value is not None and value < least}
    background = has_background(work.run)
    matrices, counts = np.zeros((2, size, size), np.int64), np.zeros(4, np.int64)  # scored, kept, pixels, changed pixels
    for sample in team.share(dataset.samples):
        disputed = bool(sample.tags & kept.keys())
        old, new = _read(before / "full", sample), _finish(work, sample, disputed, background)
        counts += [sample.open_mask is not None, disputed, new.size, (new != old).sum()]
        if sample.open_mask is not None:
            truth = read_mask(sample, new.shape)
            matrices += [confusion_matrix(mask, truth, size) for mask in (old, new)]
    matrices, (scored, kept_pictures, pixels, changed) = team.total(matrices), team.total(counts).tolist()
    named = ", ".join(f"{name} ({value:.0f} %)" for name, value in kept.items())
    warnings = [DISAGREES.format(named)] if kept else []
    print_doubts(warnings, console)
    metrics: Metrics = {
        "changed_percent": 100 * changed / max(1, pixels),
        "agreement": {name: value for name, value in zip(classes, overlap[1:], strict=True) if value is not None},
        "kept": kept_pictures,
        "warnings": warnings,
    }
    console.print(f"crossfit: {metrics['changed_percent']:.1f} % of the pixels have another label than before", highlight=False)
    if not scored:
        return metrics
    was, now = (scores(matrix) for matrix in matrices)
    names = label_names(classes)
    console.print(as_table(now, names, f"masks by networks that had not learned them (before: {was.miou:.1f})"))
    return {
        **metrics,
        "miou": now.miou,
        "miou_before": was.miou,
        "iou": dict(zip(names, now.iou, strict=True)),
    }


def _read(folder: Path, sample: Sample) -> np.ndarray:
    return read_label_image(folder / f"{sample.name}.png")


def _finish(work: Work, sample: Sample, disputed: bool, background: bool) -> np.ndarray:
    """Writes a picture's three files, of its pseudo-mask if it is disputed, else of the new mask; -> the mask (H, W)."""
    if disputed:
        before = work.run.folder("masks")
        full, labels, sure = (_read(before / part, sample) for part in ("full", "labels", "confidence"))
    else:
        full, sure = _read(work.folder / "drawn", sample), _read(work.folder / "drawn-confidence", sample)
        unsure = (sure < 255 * UNSURE) | ((full == 0) & (not background))
        labels = np.where(unsure, IGNORE, full).astype(np.uint8)
    write_mask(work.folder, sample.name, full, labels, sure)
    return full


CROSSFIT = Stage(
    "crossfit",
    crossfit_inputs,
    crossfit,
    after=("train", "masks"),
    learns_masks=True,
    scores=True,
    does="draws the mask of each of {pictures} by a network that has not learned it",
)
