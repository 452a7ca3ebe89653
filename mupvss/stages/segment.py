"""Stage `segment`: the segmentation network learns from the pseudo masks, then, if asked for, again from its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mupvss.config.schema import RunConfig
from mupvss.data.masks import IGNORE, write_grey_png, write_palette_png
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.runtime.device import pick_device
from mupvss.runtime.log import each
from mupvss.runtime.processes import processes
from mupvss.stages.run_folder import Metrics, Run, dataset_identity, fingerprint, run_stage, stage_fingerprint
from mupvss.training.segmenter import train_segmenter

NAME = "segment"
REVISION = 3
"""Raised when the same options come to mean another network or other crops."""


def run_segment(run: Run) -> Metrics:
    """-> DIR/segment/model.safetensors and log.jsonl."""
    config = run.config
    dataset = load_dataset(config.data, "seeds", config.limit)
    upstream = [stage_fingerprint(run.folder(stage)) for stage in ("train", "masks")]
    depends_on = fingerprint(NAME, REVISION, upstream, config.segment, config.seed, dataset_identity(dataset))

    def work(folder: Path) -> Metrics:
        masks = run.folder("masks")
        figures: Metrics = {}
        for number in range(1, config.segment.rounds + 1):
            target = folder if number == config.segment.rounds else folder / f"round-{number}"
            if not processes().from_main((target / "model.safetensors").is_file() and number < config.segment.rounds):
                figures = fit_segmenter(run, dataset, masks, target, number)
            if number < config.segment.rounds:
                masks = _own_masks(run, dataset, target)
        return figures

    return run_stage(run, NAME, depends_on, work)


def fit_segmenter(run: Run, dataset: Dataset, masks: Path, folder: Path, number: int = 1) -> Metrics:
    """Trains on masks/labels and masks/confidence into folder/model.safetensors."""
    config, identity = run.config, segmenter_identity(run.config, dataset, masks, number)
    classifier, title = run.folder("train") / "model.safetensors", NAME if number == 1 else f"{NAME}, round {number}"
    settings = (config.segment, dataset, masks, classifier, folder, config.seed, pick_device(config.device))
    return train_segmenter(*settings, identity=identity, title=title)


def _own_masks(run: Run, dataset: Dataset, folder: Path) -> Path:
    """The network's masks of the training pictures, tagged classes only, in the layout of the stage `masks`."""
    predictor = SegmentationPredictor.open(folder / "model.safetensors", device=run.config.device)
    for sample in each("own masks", dataset.samples):
        path = folder / "labels" / f"{sample.name}.png"
        if not path.is_file():
            found = predictor(sample.open_image(), sorted(sample.tags))
            confidence = (255 * found.confidence.clip(0, 1) + 0.5).astype(np.uint8)
            write_grey_png(folder / "confidence" / path.name, confidence)
            unsure = confidence < 255 * run.config.segment.unsure
            write_palette_png(path, np.where(unsure, IGNORE, found.labels).astype(np.uint8))
    processes().wait()
    return folder


def segmenter_identity(config: RunConfig, dataset: Dataset, masks: Path, number: int = 1) -> str:
    """Of one round's training from the folder `masks`. A later round's own masks have no fingerprint; what they come from is in
    the stage's, and its folder is emptied when that changes."""
    names = [sample.name for sample in dataset.samples]
    return fingerprint(REVISION, config.segment, config.seed, stage_fingerprint(masks), names, number)
