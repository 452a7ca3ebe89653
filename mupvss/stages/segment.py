"""Stage `segment`: the segmentation network learns from the pseudo masks, then, if asked for, again from its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mupvss.config.schema import RunConfig
from mupvss.data.images import read_label_image
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.engine.checkpoint import read_model
from mupvss.engine.dense_batches import DenseBatch, DenseSample, DenseViews, dense_batches
from mupvss.engine.device import pick_device
from mupvss.engine.each import each
from mupvss.engine.loop import Loop, optimise
from mupvss.engine.optimizer import grouped_optimizer
from mupvss.engine.precision import autocast
from mupvss.engine.processes import processes
from mupvss.engine.trainer import prepared
from mupvss.errors import DataError
from mupvss.evaluation.palette import write_grey_png, write_palette_png
from mupvss.masks.pseudo import UNSURE
from mupvss.segmentation.build import SegmenterInfo, build_segmenter, save_segmenter
from mupvss.segmentation.loss import segmentation_loss
from mupvss.segmentation.predictor import SegmentationPredictor
from mupvss.segmentation.presence import presence_loss
from mupvss.stages.stage import Metrics, Run, dataset_identity, fingerprint, run_stage, stage_fingerprint

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
    config, device = run.config, pick_device(run.config.device)
    classifier = run.folder("train") / "model.safetensors"
    _, info = read_model(classifier)
    torch.manual_seed(config.seed)
    network = build_segmenter(config.segment, info.model, len(dataset.classes), classifier).to(device).train()
    train = config.segment.train
    samples = _samples(dataset, masks, config.segment.weigh)
    segment = config.segment
    look = (train.flip, train.brightness)
    views = DenseViews(samples, segment.crop, segment.resize, *look, config.seed, segment.size)
    steps = max(1, train.image_steps // train.batch_size)
    called = prepared(network)
    started = config.segment.network == "vit" or bool(config.segment.weights)
    loop = Loop(
        network=network,
        optimizer=grouped_optimizer(network, train, lambda name: started and not name.startswith("backbone.")),
        batches=lambda first: dense_batches(views, train, first, steps, device),
        loss=lambda batch, progress: _loss(called, batch, config, device),
        origins=lambda batch: batch.origins,
        steps=steps,
        config=train,
        identity=segmenter_identity(config, dataset, masks, number),
        save=lambda path: save_segmenter(path, network, SegmenterInfo(dataset.classes, info.model, config.segment)),
    )
    return optimise(loop, folder, NAME if number == 1 else f"{NAME}, round {number}")


def _samples(dataset: Dataset, masks: Path, weigh: bool) -> list[DenseSample]:
    """Pictures whose mask is unsure throughout teach nothing and are left out; an error if that leaves none."""
    found = []
    for sample in dataset.samples:
        labels = masks / "labels" / f"{sample.name}.png"
        confidence = masks / "confidence" / f"{sample.name}.png"
        ids = np.unique(read_label_image(labels))
        if ids[ids != UNSURE].max(initial=0) > len(dataset.classes):
            wrong = ids[ids != UNSURE].max()
            raise DataError(f"{labels}: class id {wrong}, but there are {len(dataset.classes)} classes; run 'masks' again")
        if (ids != UNSURE).any():
            open_confidence = functools.partial(read_label_image, confidence) if weigh else None
            open_labels, tags = functools.partial(read_label_image, labels), dataset.tag_vector(sample) > 0
            found.append(DenseSample(sample.origin, sample.open_image, open_labels, open_confidence, tags))
    if not found:
        raise DataError(f"{masks / 'labels'}: every mask is unsure throughout; lower masks.margin and run 'masks' again")
    return found


def _loss(
    network: Callable[..., Any], batch: DenseBatch, config: RunConfig, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    tensors, segment = batch.on(device), config.segment
    with autocast(device, segment.train.precision):
        logits, presence = network(tensors.images, True)
    loss = segmentation_loss(logits, tensors.labels, tensors.weights, processes().mean_count)
    if presence is None:
        return loss, {}
    image_level = presence_loss(presence, tensors.labels, tensors.weights, tensors.tags)
    figures = {"pixels": loss.detach(), "presence": image_level}
    return loss + segment.presence * image_level, {name: value.detach() for name, value in figures.items()}


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
            write_palette_png(path, np.where(unsure, UNSURE, found.labels).astype(np.uint8))
    processes().wait()
    return folder


def segmenter_identity(config: RunConfig, dataset: Dataset, masks: Path, number: int = 1) -> str:
    """Of one round's training from the folder `masks`. A later round's own masks have no fingerprint; what they come from is in
    the stage's, and its folder is emptied when that changes."""
    names = [sample.name for sample in dataset.samples]
    return fingerprint(REVISION, config.segment, config.seed, stage_fingerprint(masks), names, number)
