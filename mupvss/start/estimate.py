"""Estimates how long a config will take on this computer, from a few steps of each kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from mupvss.config.run import RunConfig
from mupvss.data.sample import Dataset
from mupvss.masks.affinity_networks import ViTAffinity
from mupvss.masks.pseudo import pseudo_mask
from mupvss.masks.random_walk import RADIUS, affinity_loss, pair_affinity, walked
from mupvss.methods import find_method
from mupvss.options import HeadAffinity
from mupvss.runtime.device import autocast, pick_device, prepare
from mupvss.runtime.log import progress_bar
from mupvss.search.multiscale import search_maps
from mupvss.search.seeds import Seeds
from mupvss.segmentation.build import build_segmenter
from mupvss.segmentation.losses import segmentation_loss
from mupvss.training.classifier import weighted_sum

TRIALS = 3


@dataclass(frozen=True)
class Estimate:
    stages: tuple[tuple[str, float], ...]
    """Name and seconds."""

    @property
    def total(self) -> float:
        return sum(seconds for _, seconds in self.stages)


def measure(config: RunConfig, dataset: Dataset) -> Estimate:
    """Times a few steps of each kind, on noise and on a picture of middle size; the fastest counts."""
    prepare(config.seed, config.threads)
    samples = dataset.samples
    picture = sorted((samples[i].open_image() for i in _evenly(len(samples))), key=lambda p: p.width * p.height)[1]
    device = pick_device(config.device)
    method, model, options = find_method(config.method), config.model, config.options
    network = method.build(model, options, len(dataset.classes), False).to(device)
    images = torch.randn(config.train.batch_size, 3, model.image_size, model.image_size, device=device)
    tags = torch.ones(len(images), len(dataset.classes), device=device)
    seeds: list[Seeds] = []

    def train() -> None:
        with autocast(device, config.train.precision):
            features = network.train()(images)
        weighted_sum(method.losses(network, features, tags, options, 0.5)).backward()

    def search() -> None:
        offered = method.offered()
        kind, sizes = next(iter(offered)), (config.model.patch_size, model.image_size)
        settings = (offered, config.search, config.search_options, *sizes, method.shared)
        maps = search_maps(network.eval(), picture, [0], [kind], *settings)[kind].numpy()
        seeds.append(Seeds(np.array([1]), maps, (picture.height, picture.width), config.search.canvas_stride))

    def mask() -> None:
        pseudo_mask(seeds[-1], np.asarray(picture), 0.4, config.masks)

    with progress_bar("measure", 6 if config.affinity.kind == "head" else 4, "steps") as advance:
        step = _best(train, lambda: advance(1)) / config.train.batch_size
        found, drawn = (_best(work, lambda: advance(1)) for work in (search, mask))
        segment = _segmentation(config, len(dataset.classes), device, lambda: advance(1))
        affine = _affinity(network, config, seeds[-1], picture, device, lambda: advance(1))
    stages = [("training", step * config.train.image_steps), ("seeds", found * len(samples))]
    if affine is not None:  # its labels are made like masks
        stages.append(("affinity", drawn * len(samples) + affine.learn * affine.image_steps))
    walk = 0.0 if affine is None else affine.walk
    stages.append(("pseudo-masks", (drawn + walk) * len(samples)))
    stages.append(("segmentation network", segment * config.segment.train.image_steps))
    return Estimate(tuple(stages))


def _segmentation(config: RunConfig, classes: int, device: torch.device, done: Callable[[], None]) -> float:
    """Seconds per picture seen."""
    train, side = config.segment.train, config.segment.crop
    network = build_segmenter(config.segment, config.model, classes, None).to(device).train()
    images = torch.randn(train.batch_size, 3, side, side, device=device)
    labels = torch.zeros(train.batch_size, side, side, dtype=torch.long, device=device)
    weights = torch.ones(train.batch_size, side, side, device=device)

    def step() -> None:
        with autocast(device, train.precision):
            logits = network(images)
        segmentation_loss(logits, labels, weights).backward()

    return _best(step, done) / train.batch_size


@dataclass(frozen=True)
class _Affinity:
    learn: float
    """Seconds per picture seen."""
    walk: float
    """Seconds per picture."""
    image_steps: int


def _affinity(
    network: nn.Module, config: RunConfig, seeds: Seeds, picture: Image.Image, device: torch.device, done: Callable[[], None]
) -> _Affinity | None:
    """None if there is no head to train. Freezes the network."""
    own = config.affinity
    if not isinstance(own, HeadAffinity) or own.kind != "head":
        return None
    head, train = ViTAffinity(network).to(device), own.train
    images = torch.randn(train.batch_size, 3, own.crop, own.crop, device=device)

    def learn() -> None:
        with autocast(device, train.precision):
            features = head.train()(images)
        labels = torch.zeros(len(images), *features.shape[2:], dtype=torch.long, device=device)
        affinity_loss(pair_affinity(features, RADIUS), labels, RADIUS).backward()

    def walk() -> None:
        walked(seeds, picture, head.eval(), config.model.patch_size, device)

    return _Affinity(_best(learn, done) / len(images), _best(walk, done), train.image_steps)


def _evenly(count: int) -> list[int]:
    return [0, count // 2, count - 1]


def _best(work: Callable[[], None], done: Callable[[], None]) -> float:
    """Seconds of the fastest run, without the first one, which may compile."""
    seconds = []
    for _ in range(TRIALS + 1):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    done()
    return min(seconds[1:])
