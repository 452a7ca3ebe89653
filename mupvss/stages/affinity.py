"""Stage `affinity`: labels that the seeds are sure of, and a network that learns from them what belongs together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mupvss.affinity.build import build_affinity, save_affinity, trained_parameters
from mupvss.affinity.loss import affinity_loss, pair_affinity
from mupvss.config.schema import RunConfig
from mupvss.data.images import read_label_image
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.engine.dense_batches import DenseBatch, DenseSample, DenseViews, dense_batches
from mupvss.engine.device import pick_device
from mupvss.engine.each import each
from mupvss.engine.loop import Loop, optimise
from mupvss.engine.precision import autocast
from mupvss.engine.processes import processes
from mupvss.engine.trainer import prepared
from mupvss.evaluation.palette import write_palette_png
from mupvss.files import read_json
from mupvss.masks.pseudo import pseudo_mask
from mupvss.stages.search_all import read_seeds_for, seed_path
from mupvss.stages.stage import Metrics, Run, dataset_identity, fingerprint, run_stage, stage_fingerprint

NAME = "affinity"
REVISION = 2
"""Raised when the same options come to mean another network or other crops."""


def run_affinity(run: Run) -> Metrics:
    """-> DIR/affinity/labels/NAME.png and model.safetensors; nothing but a note for the kinds that need no training."""
    config = run.config
    dataset = load_dataset(config.data, "seeds", config.limit)
    upstream = [stage_fingerprint(run.folder(stage)) for stage in ("train", "seeds")]
    settings = (config.affinity, config.masks.sharpness, config.seed)
    depends_on = fingerprint(NAME, REVISION, upstream, *settings, dataset_identity(dataset))

    def work(folder: Path) -> Metrics:
        if config.affinity.kind in ("none", "patch"):
            return {"kind": config.affinity.kind}
        write_labels(run, dataset, folder)
        processes().wait()
        return {"kind": config.affinity.kind, **_fit(run, dataset, folder)}

    return run_stage(run, NAME, depends_on, work)


def write_labels(run: Run, dataset: Dataset, folder: Path) -> None:
    """Those that are there already stay."""
    seeds = run.folder("seeds")
    config = run.config.masks.model_copy(update={"crf": run.config.affinity.crf, "margin": run.config.affinity.margin})
    found = read_json(seeds / "metrics.json")
    for sample in each("affinity labels", dataset.samples):
        path = folder / "labels" / f"{sample.name}.png"
        if not path.is_file():
            image = sample.open_image()
            maps = read_seeds_for(image, sample, seed_path(seeds, found["maps"], sample.name))
            _, labels = pseudo_mask(maps, np.array(image), found["threshold"], config)
            write_palette_png(path, labels)


def _fit(run: Run, dataset: Dataset, folder: Path) -> Metrics:
    config, device = run.config.affinity, pick_device(run.config.device)
    torch.manual_seed(run.config.seed)
    network = build_affinity(config, run.folder("train") / "model.safetensors").to(device).train()
    samples = [
        DenseSample(s.origin, s.open_image, functools.partial(read_label_image, folder / "labels" / f"{s.name}.png"))
        for s in dataset.samples
        if s.tags
    ]
    train = config.train
    views = DenseViews(samples, config.crop, (0.7, 1.3), train.flip, train.brightness, run.config.seed)
    steps = max(1, train.image_steps // train.batch_size)
    parameters = trained_parameters(network)
    called = prepared(network)
    loop = Loop(
        network=network,
        optimizer=torch.optim.AdamW([{"params": parameters, "peak": train.lr}], lr=train.lr, weight_decay=train.weight_decay),
        batches=lambda first: dense_batches(views, train, first, steps, device),
        loss=lambda batch, progress: _loss(called, batch, run.config, device),
        origins=lambda batch: batch.origins,
        steps=steps,
        config=train,
        identity=_identity(run, dataset),
        save=lambda path: save_affinity(path, network, config),
    )
    return optimise(loop, folder, NAME)


def _loss(
    network: Callable[..., Any], batch: DenseBatch, config: RunConfig, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    tensors = batch.on(device)
    with autocast(device, config.affinity.train.precision):
        features = network(tensors.images)
    affinity = pair_affinity(features, config.affinity.radius)
    h, w = features.shape[2:]
    rows, columns = (_centres(size, cells) for size, cells in zip(tensors.labels.shape[1:], (h, w), strict=True))
    labels = tensors.labels[:, rows][:, :, columns]
    return affinity_loss(affinity, labels, config.affinity.radius, processes().mean_count), {}


def _centres(size: int, cells: int) -> Tensor:
    """The pixel in the middle of each cell."""
    return ((torch.arange(cells) + 0.5) * size / cells).long()


def _identity(run: Run, dataset: Dataset) -> str:
    seeds, names = stage_fingerprint(run.folder("seeds")), [s.name for s in dataset.samples]
    return fingerprint(run.config.affinity, run.config.seed, seeds, names)
