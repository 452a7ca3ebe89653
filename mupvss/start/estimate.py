"""Estimates how long a config will take on this computer, from a few steps of each kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from mupvss.config.run import RunConfig
from mupvss.data.augment import random_view
from mupvss.data.preprocess import reduction
from mupvss.data.sample import Dataset
from mupvss.masks.affinity_networks import ViTAffinity
from mupvss.masks.random_walk import RADIUS, affinity_loss, pair_affinity, walked
from mupvss.methods import find_method
from mupvss.options import HeadAffinity
from mupvss.runtime.device import autocast, own_cores, pick_device, prepare
from mupvss.runtime.log import console, progress_bar
from mupvss.search.centres import pictures_of_classes
from mupvss.search.maps import asked_kinds, chosen_kind, finder_of
from mupvss.search.multiscale import cell_size, search_maps
from mupvss.search.seeds import Seeds
from mupvss.segmentation.build import build_segmenter
from mupvss.segmentation.losses import segmentation_loss
from mupvss.stages.preview import MOST, SCALE
from mupvss.training.classifier import weighted_sum

BATCH = 4
"""Pictures in a measured step. Its time is nearly proportional to them, and a whole batch would take too long to measure."""
TRIALS, PATIENCE = 3, 2.0
"""A step is timed up to TRIALS times, but not again once PATIENCE seconds have passed; the fastest time is used."""
CRF_WORK, CRF_LABEL, CRF_FILES = 500.0, 85.0, 120.0
"""Time to make a mask with the dense CRF (10 steps), per megapixel, as multiples of `_yardstick`: what the CRF takes whatever the
labels, what each label takes at each background level, and, per megapixel of the whole picture, reading and writing. It is not
measured itself, since compiling it takes up to a minute. Calibrated on two cores with AVX2."""


@dataclass(frozen=True)
class Estimate:
    stages: tuple[tuple[str, float], ...]
    """Stage and seconds."""

    @property
    def total(self) -> float:
        return sum(seconds for _, seconds in self.stages)


def measure(config: RunConfig, dataset: Dataset) -> Estimate:
    """Times a few steps of each kind, on noise and on a picture of medium size, within half a minute."""
    prepare(config.seed, config.threads)
    samples = dataset.samples
    picture = sorted((samples[i].open_image() for i in _evenly(len(samples))), key=lambda p: p.width * p.height)[1]
    device = pick_device(config.device)
    method, model, options = find_method(config.method), config.model, config.options
    network: Any = method.build(model, options, len(dataset.classes), False).to(device)
    images = torch.randn(BATCH, 3, model.image_size, model.image_size, device=device)
    tags = torch.ones(len(images), len(dataset.classes), device=device)
    seeds: list[Seeds] = []
    per_picture = sum(len(sample.tags) for sample in samples) / max(1, len(samples))
    tagged = list(range(min(len(dataset.classes), max(1, round(per_picture)))))

    def train() -> None:
        with autocast(device, config.train.precision):
            features = network.train()(images)
        weighted_sum(method.losses(network, features, tags, options, 0.5)).backward()

    offered = method.offered()
    kinds = tuple(dict.fromkeys((chosen_kind(offered, config.search.maps), *asked_kinds(offered, config.search.kinds))))
    gathers = finder_of(offered, kinds) is not None
    if gathers:  # the values do not matter to the time
        own: Any = config.search_options
        network.remember(*(torch.randn(len(dataset.classes), n * own.centres, network.backbone.width) for n in (1, 2)))

    def search() -> None:
        sizes = (config.model.patch_size, model.image_size)
        settings = (offered, config.search, config.search_options, *sizes, method.shared)
        maps = search_maps(network.eval(), picture, tagged, kinds, *settings)[kinds[0]].numpy()
        ids = np.array(tagged, np.int16) + 1
        seeds.append(Seeds(ids, maps, (picture.height, picture.width), cell_size(picture.size, config.search)))

    def read() -> None:
        sample = samples[len(samples) // 2]
        random_view(sample.open_image(), model.image_size, config.train.crop_area, False, 0.0, np.random.default_rng(0))

    with progress_bar("measure", 7 if config.affinity.kind == "head" else 5, "steps") as advance:
        # A process of its own reads the next pictures meanwhile, and takes its share of the cores.
        reading = _best(read, lambda: advance(1)) / own_cores()
        step = _best(train, lambda: advance(1)) / BATCH + reading
        found = _best(search, lambda: advance(1))
        segment = _segmentation(config, len(dataset.classes), device, lambda: advance(1)) + reading
        affine = _affinity(network, config, seeds[-1], picture, device, lambda: advance(1))
        drawn = _crf_seconds(config, picture, 1 + per_picture)
        advance(1)
    walk = 0.0 if affine is None else affine.walk
    gathered = step / 3 * len(pictures_of_classes(dataset)) if gathers else 0.0  # a forward pass is about a third of a step
    stages = [("train", step * config.train.image_steps), ("seeds", found * len(samples) + gathered)]
    if config.preview:
        pixels = SCALE**2 / sum(scale**2 for scale in config.search.scales)
        stages[0] = ("train", stages[0][1] + found * pixels * min(MOST, len(samples)))
    if affine is not None:  # its labels are made like masks
        stages.append(("affinity", drawn * len(samples) + (affine.learn + reading) * affine.image_steps))
    stages.append(("masks", (drawn + walk) * len(samples)))
    if folds := config.crossfit.folds:
        learned = config.crossfit.image_steps or config.segment.train.image_steps
        stages.append(("crossfit", folds * segment * learned + _drawing(config, segment, drawn) * len(samples)))
    stages.append(("segment", segment * config.segment.train.image_steps))
    return Estimate(tuple(stages))


def print_estimate(estimate: Estimate, console: Console = console) -> None:
    console.print("\nestimated time on this computer, as busy as it is now:", highlight=False)
    for name, seconds in (*estimate.stages, ("in all", estimate.total)):
        console.print(f"  {TITLES.get(name, name):24s} {spoken(seconds):>12s}", highlight=False)


def _drawing(config: RunConfig, step: float, crf: float) -> float:
    """Seconds per picture in which a segmentation network draws its mask. step: those per picture of its training, of which the
    forward pass is about a third; crf: those of a dense CRF."""
    network = config.segment
    views = 2 * sum(scale**2 for scale in network.scales) * ((network.size or network.crop) / network.crop) ** 2
    return views * step / 3 + (crf if network.crf != "none" else 0.0)


TITLES = {"train": "training", "masks": "pseudo-masks", "crossfit": "masks by other networks", "segment": "segmentation network"}


def spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _crf_seconds(config: RunConfig, picture: Image.Image, labels: float) -> float:
    """Seconds per picture."""
    if config.masks.crf == "none":
        return 0.0
    questions = 3 if config.masks.margin else 1
    factor = reduction(picture.size, config.masks.crf_pixels)
    megapixels = picture.width * picture.height / 1e6
    work = (CRF_WORK + CRF_LABEL * labels * questions) / factor**2 * config.masks.crf_steps / 10
    return (work + CRF_FILES) * megapixels * _yardstick()


def _yardstick() -> float:
    """Seconds that this computer takes for a million random reads and sums, as the dense CRF's lattice needs them."""
    rng = np.random.default_rng(0)
    values, places = rng.random(1_000_000, np.float32), rng.integers(0, 1_000_000, 1_000_000)
    return _best(lambda: np.bincount(places, values[places]), lambda: None)


def _segmentation(config: RunConfig, classes: int, device: torch.device, done: Callable[[], None]) -> float:
    """Seconds per picture seen."""
    train, side = config.segment.train, config.segment.crop
    network = build_segmenter(config.segment, config.model, classes, None).to(device).train()
    images = torch.randn(BATCH, 3, side, side, device=device)
    labels = torch.zeros(BATCH, side, side, dtype=torch.long, device=device)
    weights = torch.ones(BATCH, side, side, device=device)

    def step() -> None:
        with autocast(device, train.precision):
            logits = network(images)
        segmentation_loss(logits, labels, weights).backward()

    return _best(step, done) / BATCH


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
    images = torch.randn(BATCH, 3, own.crop, own.crop, device=device)

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


def _best(work: Callable[[], Any], done: Callable[[], None]) -> float:
    """Seconds of the fastest run, without the first one, which fills caches."""
    work()
    seconds: list[float] = []
    while len(seconds) < TRIALS and sum(seconds) < PATIENCE:
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    done()
    return min(seconds)
