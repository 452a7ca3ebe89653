"""Endless batches of pictures with a label per pixel, in a fixed order however often the run is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mupvss.config.schema import TrainConfig
from mupvss.data.preprocess import normalise
from mupvss.engine.batches import EpochOrder, StepBatches
from mupvss.engine.stopping import leave_stopping_to_the_main_process
from mupvss.errors import DataError
from mupvss.evaluation.counts import IGNORE


@dataclass(frozen=True)
class DenseSample:
    """A picture with its labels, opened only when asked for."""

    origin: str
    open_image: Callable[[], Image.Image]
    open_labels: Callable[[], np.ndarray]
    """-> (H, W) uint8 class ids, 255 to be ignored."""
    open_confidence: Callable[[], np.ndarray] | None = None
    """-> (H, W) uint8, 255 for certain; None: all certain."""


@dataclass(frozen=True)
class DenseBatch:
    images: Tensor
    """(B, 3, S, S), normalised; zero where the crop reaches past the picture."""
    labels: Tensor
    """(B, S, S) int64, 255 there."""
    weights: Tensor
    """(B, S, S) float32 in [0, 1]."""
    origins: list[str]


class DenseViews(TorchDataset):
    """Item n is the n-th view of the run: its picture and its augmentation follow from (seed, n)."""

    def __init__(
        self, samples: list[DenseSample], crop: int, resize: tuple[float, float], flip: bool, brightness: float, seed: int
    ) -> None:
        self.samples, self.crop, self.resize, self.seed = samples, crop, resize, seed
        self.flip, self.brightness = flip, brightness
        self.order = EpochOrder(len(samples), seed, stream=2)

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor, Tensor, str]:
        sample = self.samples[self.order(n)]
        rng = np.random.default_rng([self.seed, 3, n])
        labels = sample.open_labels()
        confidence = np.full(labels.shape, 255, np.uint8) if sample.open_confidence is None else sample.open_confidence()
        picture = sample.open_image()
        if labels.shape != (picture.height, picture.width) or confidence.shape != labels.shape:
            raise DataError(
                f"{sample.origin}: the picture is {picture.height}x{picture.width} pixels, its labels {labels.shape[0]}x"
                f"{labels.shape[1]}, their confidence {confidence.shape[0]}x{confidence.shape[1]}; make the masks again"
            )
        parts = (picture, Image.fromarray(labels), Image.fromarray(confidence))
        image, label, weight = self._view(parts, rng)
        return image, label, weight, sample.origin

    def _view(
        self, parts: tuple[Image.Image, Image.Image, Image.Image], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Random scale, crop, mirror and brightness; what lies past the picture is ignored, never background."""
        side, scale = self.crop, rng.uniform(*self.resize)
        width, height = (max(1, round(s * scale)) for s in parts[0].size)
        left = int(rng.integers(min(0, width - side), max(0, width - side) + 1))
        top = int(rng.integers(min(0, height - side), max(0, height - side) + 1))
        mirrored = self.flip and rng.random() < 0.5
        ways = (Image.Resampling.BICUBIC, Image.Resampling.NEAREST, Image.Resampling.NEAREST)
        inside = (max(0, left), max(0, top), min(width, left + side), min(height, top + side))
        sx, sy = width / parts[0].width, height / parts[0].height
        box = (inside[0] / sx, inside[1] / sy, inside[2] / sx, inside[3] / sy)
        size = (inside[2] - inside[0], inside[3] - inside[1])
        views = [part.resize(size, way, box=box) for part, way in zip(parts, ways, strict=True)]
        if mirrored:
            views = [view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for view in views]
        if self.brightness > 0:
            views[0] = ImageEnhance.Brightness(views[0]).enhance(rng.uniform(1 - self.brightness, 1 + self.brightness))
        x, y = max(0, -left), max(0, -top)
        if mirrored:
            x = side - x - size[0]
        image, label, weight = torch.zeros(3, side, side), torch.full((side, side), IGNORE), torch.zeros(side, side)
        image[:, y : y + size[1], x : x + size[0]] = normalise(views[0])
        label[y : y + size[1], x : x + size[0]] = torch.from_numpy(np.array(views[1], np.int64))
        weight[y : y + size[1], x : x + size[0]] = torch.from_numpy(np.array(views[2], np.float32) / 255)
        return image, label, weight


def dense_batches(views: DenseViews, config: TrainConfig, first_step: int, steps: int) -> DataLoader:
    """Loader of `DenseBatch`es for the steps first_step, ..., steps - 1."""
    return DataLoader(
        views,
        batch_sampler=StepBatches(first_step, steps, config.batch_size),
        num_workers=config.workers,
        collate_fn=_collate,
        generator=torch.Generator(),  # never the global one, which a resumed training must find untouched
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=leave_stopping_to_the_main_process,
    )


def _collate(items: list[tuple[Tensor, Tensor, Tensor, str]]) -> DenseBatch:
    images, labels, weights, origins = zip(*items, strict=True)
    return DenseBatch(torch.stack(images), torch.stack(labels), torch.stack(weights), list(origins))
