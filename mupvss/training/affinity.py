"""Trains the affinity network on labels that the seeds are sure of."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mupvss.data.masks import read_label_image
from mupvss.data.sample import Dataset
from mupvss.masks.affinity_networks import build_affinity, save_affinity, trained_parameters
from mupvss.masks.random_walk import RADIUS, affinity_loss, pair_affinity
from mupvss.options import HeadAffinity
from mupvss.runtime.device import autocast
from mupvss.runtime.processes import processes
from mupvss.training.batches import DenseSample, DenseViews, Manner, dense_batches
from mupvss.training.classifier import prepared
from mupvss.training.loop import WEIGHT_DECAY, Loop

RESIZE = (0.7, 1.3)
"""Random scale of the pictures before the crop."""


def train_affinity(
    config: HeadAffinity,
    seed: int,
    flip: bool,
    dataset: Dataset,
    labels: Path,
    classifier: Path,
    manner: Manner,
    folder: Path,
    identity: str,
) -> dict[str, Any]:
    """Trains into folder/model.safetensors; returns the figures of the last steps, the precision and the device.

    labels: folder of NAME.png, class ids with 255 for unsure; classifier: the checkpoint that a head is built on; identity: see
    `Loop`.
    """
    train, device = config.train, manner.device
    torch.manual_seed(seed)
    network = build_affinity(config, classifier).to(device).train()
    samples = [
        DenseSample(s.origin, s.open_image, functools.partial(read_label_image, labels / f"{s.name}.png"))
        for s in dataset.samples
        if s.tags
    ]
    views = DenseViews(samples, config.crop, RESIZE, flip, seed)
    parameters = [{"params": trained_parameters(network), "peak": train.lr}]
    called = prepared(network)
    optimizer = torch.optim.AdamW(parameters, lr=train.lr, weight_decay=WEIGHT_DECAY)
    save = functools.partial(save_affinity, network=network, config=config)
    with Loop(network, optimizer, train, manner, folder, "affinity", identity, save) as loop:
        for batch in loop.over(dense_batches(views, train.batch_size, loop.first, loop.steps, manner)):
            tensors = batch.on(device)
            with autocast(device, train.precision):
                features = called(tensors.images)
            affinity = pair_affinity(features, RADIUS)
            cells = _at_centres(tensors.labels, features.shape[2:])
            loss = affinity_loss(affinity, cells, RADIUS, processes().mean_count)
            loop.learn(loss, {}, batch.origins)
    return loop.figures


def _at_centres(labels: Tensor, grid: torch.Size) -> Tensor:
    """Labels (B, H, W) -> those of the pixel in the middle of each cell (B, h, w)."""
    rows, columns = (
        ((torch.arange(cells) + 0.5) * size / cells).long() for size, cells in zip(labels.shape[1:], grid, strict=True)
    )
    return labels[:, rows][:, :, columns]
