"""Stages `segment` and `val`: the segmentation network learns from the pseudo-masks, and is tested on pictures that it has not
seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mupvss.config.run import RunConfig
from mupvss.data.masks import label_names, write_palette_png
from mupvss.data.sample import Dataset
from mupvss.data.summary import print_doubts
from mupvss.errors import DataError
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.evaluation.folders import as_json, as_table
from mupvss.files import read_json, write_json
from mupvss.options import FolderData, Section, SegmentConfig, VocData, added
from mupvss.predict.calibration import measured
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import CALIBRATION
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.runtime.log import console
from mupvss.runtime.processes import processes
from mupvss.search.threshold import NO_BACKGROUND
from mupvss.stages.run_folder import Metrics, Run, Stage, Work, fingerprint
from mupvss.stages.scoring import read_mask, taken_away
from mupvss.stages.sums import Sums
from mupvss.training.segmenter import train_segmenter

TEST = ("scales", "crf")
"""Options of `segment` that only the test reads."""
TEST_LOSES = (
    "several scales and the dense CRF take away {} of what the network finds at one scale without them. Try segment.crf = 'none' "
    "and segment.scales = [1.0]; nothing is trained again"
)


TESTED = ("single", "full")
"""One scale without mirror and CRF, and all that is asked for."""
LEARNED = (
    "the segmentation network was tested on training pictures, since data.val_tags gives no others; the score is too good, "
    "and the scores of tags are not calibrated"
)


class SegmentInputs(Section):
    """What the segmentation network depends on besides pseudo-masks and classifier."""

    segment: SegmentConfig
    """Options that only the test reads are at their defaults here."""
    seed: int
    flip: bool
    masks: str = added("masks", neutral="masks")
    """The stage whose masks it learns."""


class ValInputs(Section):
    """What its test depends on besides the network and the pictures."""

    scales: tuple[float, ...]
    crf: str
    folder: str
    """Where the masks go; for VOC in the layout that its server accepts."""
    learned: bool = added(False, neutral=False)
    """Whether these are training pictures, since no others were given."""


def segment_inputs(config: RunConfig) -> SegmentInputs:
    usual = {name: type(config.segment).model_fields[name].default for name in TEST}
    return SegmentInputs.model_construct(
        segment=config.segment.model_copy(update=usual),
        seed=config.seed,
        flip=config.train.flip,
        masks=(*also_after(config), "masks")[0],
    )


def val_inputs(config: RunConfig) -> ValInputs:
    data, segment = config.data, config.segment
    folder = f"results/VOC2012/Segmentation/comp6_{data.val_split}_cls" if isinstance(data, VocData) else "masks"
    learned = isinstance(data, FolderData) and data.val_tags is None
    return ValInputs(scales=segment.scales, crf=segment.crf, folder=folder, learned=learned)


def segment(work: Work) -> Metrics:
    """-> model.safetensors and log.jsonl, learned from the pseudo-masks or, if there are any, from those of `crossfit`."""
    if given := sum(sample.given_mask is not None for sample in work.dataset.samples):
        console.print(f"segment: {given} of the masks are those that people accepted or painted", highlight=False)
    masks, identity = work.run.folder(work.inputs.masks), fingerprint(work.identity, 1)
    if not (masks / "metrics.json").is_file():
        raise DataError(f"{masks}: there are no finished masks; run the stage '{work.inputs.masks}' first")
    return fit(work, work.inputs, work.dataset, masks, work.folder, identity, background=has_background(work.run))


def has_background(run: Run) -> bool:
    """Whether a pixel of the run's pictures may belong to no class."""
    return read_json(run.folder("masks") / "metrics.json").get("threshold") != NO_BACKGROUND


def fit(
    work: Work,
    inputs: SegmentInputs,
    dataset: Dataset,
    masks: Path,
    folder: Path,
    identity: str,
    title: str = "segment",
    background: bool = True,
) -> Metrics:
    """Trains on masks/labels and masks/confidence into folder/model.safetensors, and returns the figures of `train_segmenter`.

    identity: an interrupted training is only resumed under the same one. background: whether the pictures have one.
    """
    settings = (inputs.segment, inputs.seed, inputs.flip, dataset, masks, work.run.checkpoint("train"))
    return train_segmenter(*settings, work.run.manner, folder, identity, title, background)


def also_after(config: RunConfig) -> tuple[str, ...]:
    """The stage `crossfit`, if its masks are asked for."""
    return ("crossfit",) if config.crossfit.folds else ()


def val(work: Work) -> Metrics:
    """-> masks of the pictures, and the figures. single: one scale, no mirror, no CRF; the masks are made with all that is asked
    for."""
    checkpoint, inputs, device = work.run.checkpoint("segment"), work.inputs, str(work.device)
    single = SegmentationPredictor.open(checkpoint, scales=(1.0,), crf="none", device=device, flip=False)
    full = SegmentationPredictor.open(checkpoint, scales=inputs.scales, crf=inputs.crf, device=device)
    names = label_names(work.dataset.classes)
    size = len(names)
    sums = Sums(
        work.folder,
        matrices=np.zeros((len(TESTED), size, size), np.int64),
        drawn=np.zeros((len(TESTED), size)),
        scored=np.zeros(1, np.int64),
    )
    classifier = Predictor.open(work.run.checkpoint("train"), device=device)
    for sample in sums.over("val", work.dataset):
        image = sample.open_image()
        prediction = full(image)
        labels = (single(image).labels, prediction.labels)
        scored_tags = (prediction.scores, classifier.scores(image), {name: name in sample.tags for name in work.dataset.classes})
        sums.rows.append(np.array([[own[name] for name in work.dataset.classes] for own in scored_tags], np.float32))
        write_palette_png(work.folder / inputs.folder / f"{sample.name}.png", prediction.labels)
        sums["drawn"][:] += [np.bincount(found.ravel(), minlength=size) / found.size for found in labels]
        if sample.open_mask is not None:
            truth = read_mask(sample, (image.height, image.width))
            sums["matrices"][:] += [confusion_matrix(found, truth, size) for found in labels]
            sums["scored"][:] += 1
    team = processes()
    pictures = int(team.total(sums["scored"])[0])
    tested = team.in_order(sums.rows)
    calibration = {} if inputs.learned else _calibration(tested)
    if team.main:
        write_json(work.folder / CALIBRATION, calibration)
    metrics = {f"{name}_calibration_error": [one["before"]["error"], one["after"]["error"]] for name, one in calibration.items()}
    warnings = list(taken_away(team.total(sums["drawn"]), work.dataset.classes, TEST_LOSES))
    print_doubts(warnings, console)
    if not pictures:
        return {"pictures": 0, "warnings": warnings, **metrics}
    one, full_scores = (scores(matrix) for matrix in team.total(sums["matrices"]))
    console.print(as_table(full_scores, names, f"segmentation network, {pictures} pictures, no tags"))
    if inputs.learned:
        print_doubts([LEARNED], console)
    learned = {"learned": True} if inputs.learned else {}
    return {"pictures": pictures, "miou_single": one.miou, **as_json(full_scores), "warnings": warnings, **learned, **metrics}


def _calibration(tested: list[np.ndarray]) -> dict[str, dict[str, Any]]:
    """By network, how to calibrate its scores of tags; without those of which too little is known.

    tested: per picture (3, C): the scores of the segmentation network and of the classifier, and 1 for a true tag.
    """
    if not tested:
        return {}
    own, classifier, present = np.stack(tested, 1)
    measures = {"segment": measured(own, present > 0), "train": measured(classifier, present > 0)}
    return {name: one for name, one in measures.items() if one}


SEGMENT = Stage(
    "segment",
    segment_inputs,
    segment,
    after=("train", "masks"),
    also_after=also_after,
    revision=4,
    learns_masks=True,
    does="trains a segmentation network on the masks of {pictures}",
)
VAL = Stage(
    "val",
    val_inputs,
    val,
    pictures="val",
    after=("segment",),
    scores=True,
    does="tries that network on {pictures}, without their tags",
)
