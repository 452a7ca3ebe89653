"""Trains the segmentation network on pseudo-masks."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mupvss.data.masks import IGNORE, highest_id, read_label_image
from mupvss.data.sample import Dataset
from mupvss.errors import DataError
from mupvss.methods.checkpoint import read_info
from mupvss.options import SegmentConfig, ViTSegment
from mupvss.runtime.device import autocast
from mupvss.runtime.processes import processes
from mupvss.segmentation.build import SegmenterInfo, build_segmenter, save_segmenter, segmenter_origins
from mupvss.segmentation.losses import collision_loss, presence_loss, segmentation_loss
from mupvss.training.batches import DenseSample, DenseViews, Manner, dense_batches
from mupvss.training.classifier import prepared
from mupvss.training.loop import WEIGHT_DECAY, Loop, grouped_optimizer

SOFT_START = 0.25
"""Share of the training over which the collision loss takes the place of the cross-entropy. Alone from the first step, it may end
with nothing but background."""


def train_segmenter(
    config: SegmentConfig,
    seed: int,
    flip: bool,
    dataset: Dataset,
    masks: Path,
    classifier: Path,
    manner: Manner,
    folder: Path,
    identity: str,
    title: str = "segment",
    background: bool = True,
) -> dict[str, Any]:
    """Trains on masks/labels and masks/confidence into folder/model.safetensors; returns the figures of the last steps, the
    precision and the device.

    classifier: the checkpoint whose backbone and sizes it starts from; identity: see `Loop`; background: whether a pixel may
    belong to no class.
    """
    known = read_info(classifier)
    train, device, model = config.train, manner.device, known.model
    torch.manual_seed(seed)
    network = build_segmenter(config, model, len(dataset.classes), classifier).to(device).train()
    soft = config.loss == "collision"
    views = DenseViews(
        _samples(dataset, masks, "full" if soft else "labels"), config.crop, config.resize, flip, seed, config.size
    )
    called = prepared(network)
    started = isinstance(config, ViTSegment) or bool(config.weights)
    new = (lambda name: not name.startswith("backbone.")) if started else (lambda name: False)
    optimizer = grouped_optimizer(network, train.lr, train.new_lr_scale, WEIGHT_DECAY, new)
    info = SegmenterInfo(dataset.classes, model, config, background, segmenter_origins(config, known.origins))
    save = functools.partial(save_segmenter, network=network, info=info)
    with Loop(network, optimizer, train, manner, folder, title, identity, save) as loop:
        for batch in loop.over(dense_batches(views, train.batch_size, loop.first, loop.steps, manner)):
            tensors = batch.on(device)
            with autocast(device, train.precision):
                logits, presence = called(tensors.images, True)
            labels = tensors.labels if background else tensors.labels.masked_fill(tensors.labels == 0, IGNORE)
            share, loss, figures = min(1.0, loop.progress / SOFT_START) if soft else 0.0, torch.zeros((), device=device), {}
            if share < 1:
                loss = (1 - share) * segmentation_loss(logits, labels, tensors.weights, processes().mean_count)
            if share > 0:
                given = (tensors.weights, tensors.tags, background, processes().mean_count)
                loss = loss + share * collision_loss(logits, labels, *given)
            if presence is not None and isinstance(config, ViTSegment):
                there = presence_loss(presence, tensors.labels, tensors.weights, tensors.tags)
                figures = {"pixels": loss.detach(), "presence": there.detach()}
                loss = loss + config.presence * there
            loop.learn(loss, figures, batch.origins)
    return loop.figures


def _samples(dataset: Dataset, masks: Path, part: str = "labels") -> list[DenseSample]:
    """The pictures to train on, with the masks that people accepted or painted in place of pseudo-masks. part: the folder of
    those, "labels", or "full" with a label at every pixel. Pictures whose mask is unsure throughout or was rejected are left out;
    DataError if none is left."""
    found = []
    for sample in dataset.samples:
        if sample.rejected:
            continue
        if sample.given_mask is not None:
            tags = dataset.tag_vector(sample) > 0
            found.append(DenseSample(sample.origin, sample.open_image, sample.given_mask, None, tags))
            continue
        labels = masks / part / f"{sample.name}.png"
        confidence = masks / "confidence" / f"{sample.name}.png"
        ids = np.unique(read_label_image(labels))
        if (highest := highest_id(ids)) > len(dataset.classes):
            raise DataError(f"{labels}: class id {highest}, but there are {len(dataset.classes)} classes; run 'masks' again")
        if (ids != IGNORE).any():
            open_confidence = functools.partial(read_label_image, confidence)
            open_labels, tags = functools.partial(read_label_image, labels), dataset.tag_vector(sample) > 0
            found.append(DenseSample(sample.origin, sample.open_image, open_labels, open_confidence, tags))
    if not found:
        raise DataError(
            f"{masks / part}: every mask is unsure (255) throughout or was rejected; lower masks.margin and run 'masks' again"
        )
    return found
