"""Endless training batches in a fixed order: the n-th picture of a run is the same however often the run was stopped.

The classifier gets pictures with tags; networks that learn from pseudo-masks get pictures with a label per pixel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from mupvss.data.augment import View, Views, mirror, random_look, random_view
from mupvss.data.masks import IGNORE
from mupvss.data.preprocess import working_scale
from mupvss.data.sample import Dataset
from mupvss.errors import DataError, UserError
from mupvss.options import TrainConfig
from mupvss.runtime.device import own_cores
from mupvss.runtime.processes import processes
from mupvss.runtime.stopping import leave_stopping_to_the_main_process

CPU = torch.device("cpu")
BRIGHTNESS = 0.3
"""Pictures are made brighter or darker by up to this share."""
MOST_READERS = 8
"""By default at most this number of processes read pictures; they feed a GPU 2,000 views a second. Each holds an interpreter, and
its batches lie in shared memory until fetched."""


@dataclass(frozen=True)
class Manner:
    """How a training is carried out, on which no result depends."""

    device: torch.device = CPU
    workers: int | None = None
    """Number of processes that read pictures; None: as many as the device needs."""
    checkpoint_every: int = 100
    """Number of steps between resumable checkpoints."""
    snapshots: int = 0
    """Number of networks to keep during the classifier's training."""
    tensorboard: bool = False
    preview_at: int = 0
    """Number of image steps of the classifier's training after which `preview` is called; 0: never."""
    preview: Callable[[Path], None] | None = None
    """Called with the file that the network was saved to."""


@dataclass(frozen=True)
class Batch:
    """A batch as the workers deliver it, in the computer's memory."""

    views: Views
    tags: Tensor
    """(B, C) float32 of 0 and 1."""
    origins: list[str]

    def pin_memory(self) -> Batch:
        return Batch(self.views.pin_memory(), self.tags.pin_memory(), self.origins)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """-> images (B, 3, S, S) float32, normalised, and tags (B, C), both on the device."""
        return self.views.to(device).images(), self.tags.to(device, non_blocking=True)


class EpochOrder:
    """Every sample once per epoch, in an order that depends only on the seed, the stream and the epoch."""

    def __init__(self, count: int, seed: int, stream: int) -> None:
        self.count, self.seed, self.stream = count, seed, stream
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __call__(self, n: int) -> int:
        """Index of the n-th sample of the run."""
        epoch, place = divmod(n, self.count)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, self.stream, epoch]).permutation(self.count))
        return int(self._order[1][place])


class TrainingViews(TorchDataset):
    """Item n is the n-th picture of the run: its epoch's permutation and its augmentation depend only on (seed, n)."""

    def __init__(self, dataset: Dataset, config: TrainConfig, image_size: int, seed: int) -> None:
        self.dataset, self.config, self.image_size, self.seed = dataset, config, image_size, seed
        self.order = EpochOrder(len(dataset.samples), seed, stream=0)

    def __getitem__(self, n: int) -> tuple[View, Tensor, str]:
        sample = self.dataset.samples[self.order(n)]
        rng = np.random.default_rng([self.seed, 1, n])
        config = self.config
        view = random_view(sample.open_image(), self.image_size, config.crop_area, config.flip, BRIGHTNESS, rng)
        return view, torch.from_numpy(self.dataset.tag_vector(sample)), sample.origin


class StepBatches(Sampler[list[int]]):
    """This process's rows of each step's batch."""

    def __init__(self, first_step: int, steps: int, batch_size: int) -> None:
        self.first_step, self.steps, self.batch_size = first_step, steps, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        own = processes().rows(self.batch_size)
        for step in range(self.first_step, self.steps):
            yield list(range(step * self.batch_size, (step + 1) * self.batch_size))[own]

    def __len__(self) -> int:
        return self.steps - self.first_step


def batches(
    dataset: Dataset, config: TrainConfig, image_size: int, seed: int, first_step: int, steps: int, manner: Manner
) -> DataLoader:
    """Loader of `Batch`es for the steps first_step, ..., steps - 1."""
    views = TrainingViews(dataset, config, image_size, seed)
    return _loader(views, StepBatches(first_step, steps, config.batch_size), _collate, manner)


def loader_options(workers: int | None, device: torch.device) -> dict[str, Any]:
    """How every training's batches are read: up to two processes read four batches ahead each, more than two read two."""
    count = reading_processes(workers, device)
    ahead = 4 if count <= 2 else 2
    return {
        "num_workers": count,
        "prefetch_factor": ahead if count else None,
        "pin_memory": device.type == "cuda",
        # Otherwise the loader draws its seed from the global generator, which a resumed training must not touch.
        "generator": torch.Generator(),
        "worker_init_fn": leave_stopping_to_the_main_process,
    }


def reading_processes(workers: int | None, device: torch.device) -> int:
    """`workers`, or if it is None what the device needs: one core reads about 250 pictures of 500x375 pixels a second; a
    processor trains on a few dozen a second and a GPU on thousands."""
    if workers is not None:
        return workers
    return min(own_cores(), MOST_READERS) if device.type == "cuda" else 1


class _OrError(TorchDataset):
    """Views, or in the place of one that cannot be read the user's error. A reader process hands that over as the batch, and the
    training raises it: raised in the reader, it would arrive as the text of a traceback, and with Python's own exit waiting for
    a process that ignores SIGTERM."""

    def __init__(self, views: TorchDataset) -> None:
        self.views = views

    def __getitem__(self, n: int) -> Any:
        try:
            return self.views[n]
        except UserError as error:
            return error


def _batch_or_error(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, UserError)), None) or collate(items)


def _loader(views: TorchDataset, rows: StepBatches, collate: Callable[[list[Any]], Any], manner: Manner) -> DataLoader:
    return DataLoader(
        _OrError(views),
        batch_sampler=rows,
        collate_fn=functools.partial(_batch_or_error, collate),
        **loader_options(manner.workers, manner.device),
    )


def _collate(items: list[tuple[View, Tensor, str]]) -> Batch:
    views, tags, origins = zip(*items, strict=True)
    return Batch(Views.of(views), torch.stack(tags), list(origins))


@dataclass(frozen=True)
class DenseSample:
    """A picture with its labels, opened only on demand."""

    origin: str
    open_image: Callable[[], Image.Image]
    open_labels: Callable[[], np.ndarray]
    """-> (H, W) uint8 class ids, 255 to be ignored."""
    open_confidence: Callable[[], np.ndarray] | None = None
    """-> (H, W) uint8, 255 for certain; None: all certain."""
    tags: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """(C,) bool, the classes of the whole picture; empty where they are not needed."""


@dataclass(frozen=True)
class DenseBatch:
    """A batch as the workers deliver it, in the computer's memory. Labels, confidence and `inside` are not mirrored yet."""

    views: Views
    labels: Tensor
    """(B, S, S) uint8; 255 is ignored, and is also the label outside the picture."""
    confidence: Tensor
    """(B, S, S) uint8, 255 for certain; 0 outside."""
    inside: Tensor
    """(B, S, S) bool: where the crop does not reach past the picture."""
    tags: Tensor
    """(B, C) bool."""
    origins: list[str]

    def pin_memory(self) -> DenseBatch:
        labels, confidence, inside, tags = (x.pin_memory() for x in (self.labels, self.confidence, self.inside, self.tags))
        return DenseBatch(self.views.pin_memory(), labels, confidence, inside, tags, self.origins)

    def on(self, device: torch.device) -> DenseTensors:
        views = self.views.to(device)
        parts = (x.to(device, non_blocking=True) for x in (self.labels, self.confidence, self.inside))
        labels, confidence, inside = (mirror(part, views.mirrored) for part in parts)
        tags = self.tags.to(device, non_blocking=True)
        return DenseTensors(views.images() * inside.unsqueeze(1), labels.long(), confidence.float() / 255, tags)


@dataclass(frozen=True)
class DenseTensors:
    """What a network learns from, on its device."""

    images: Tensor
    """(B, 3, S, S) float32, normalised; zero where the crop reaches past the picture."""
    labels: Tensor
    """(B, S, S) int64; 255 is ignored, and is also the label outside the picture."""
    weights: Tensor
    """(B, S, S) float32 in [0, 1]; 0 outside the picture."""
    tags: Tensor
    """(B, C) bool, of the whole picture and not of the crop."""


@dataclass(frozen=True)
class DenseView:
    view: View
    labels: np.ndarray
    confidence: np.ndarray
    inside: np.ndarray
    tags: np.ndarray
    origin: str


class DenseViews(TorchDataset):
    """Item n is the n-th view of the run: its picture and its augmentation depend only on (seed, n)."""

    def __init__(
        self,
        samples: list[DenseSample],
        crop: int,
        resize: tuple[float, float],
        flip: bool,
        seed: int,
        size: int = 0,
    ) -> None:
        """resize: random scale relative to an area of size x size pixels (0: that of the picture, or of its reduced copy)."""
        self.samples, self.crop, self.resize, self.seed, self.size = samples, crop, resize, seed, size
        self.flip = flip
        self.order = EpochOrder(len(samples), seed, stream=2)

    def __getitem__(self, n: int) -> DenseView:
        sample = self.samples[self.order(n)]
        rng = np.random.default_rng([self.seed, 3, n])
        labels = sample.open_labels()
        confidence = np.full(labels.shape, 255, np.uint8) if sample.open_confidence is None else sample.open_confidence()
        picture = sample.open_image()
        if labels.shape != (picture.height, picture.width) or confidence.shape != labels.shape:
            raise DataError(
                f"{sample.origin}: the picture is {picture.height}x{picture.width} pixels, its labels {labels.shape[0]}x"
                f"{labels.shape[1]}, their confidence {confidence.shape[0]}x{confidence.shape[1]}; run 'masks' again"
            )
        parts = (picture, Image.fromarray(labels), Image.fromarray(confidence))
        return self._view(parts, sample, rng)

    def _view(
        self, parts: tuple[Image.Image, Image.Image, Image.Image], sample: DenseSample, rng: np.random.Generator
    ) -> DenseView:
        """Random scale, crop, mirror and brightness; pixels outside the picture are ignored, never background."""
        side, scale = self.crop, rng.uniform(*self.resize) * working_scale(parts[0].size, self.size)
        width, height = (max(1, round(s * scale)) for s in parts[0].size)
        left = int(rng.integers(min(0, width - side), max(0, width - side) + 1))
        top = int(rng.integers(min(0, height - side), max(0, height - side) + 1))
        look = random_look(self.flip, BRIGHTNESS, rng)
        ways = (Image.Resampling.BICUBIC, Image.Resampling.NEAREST, Image.Resampling.NEAREST)
        within = (max(0, left), max(0, top), min(width, left + side), min(height, top + side))
        sx, sy = width / parts[0].width, height / parts[0].height
        box = (within[0] / sx, within[1] / sy, within[2] / sx, within[3] / sy)
        size = (within[2] - within[0], within[3] - within[1])
        crops = [np.array(part.resize(size, way, box=box)) for part, way in zip(parts, ways, strict=True)]
        x, y = max(0, -left), max(0, -top)
        place = (slice(y, y + size[1]), slice(x, x + size[0]))
        pixels, inside = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), bool)
        label, sure = np.full((side, side), IGNORE, np.uint8), np.zeros((side, side), np.uint8)
        pixels[place], label[place], sure[place], inside[place] = *crops, True
        return DenseView(View(pixels, *look), label, sure, inside, sample.tags, sample.origin)


def dense_batches(views: DenseViews, batch_size: int, first_step: int, steps: int, manner: Manner) -> DataLoader:
    """Loader of `DenseBatch`es for the steps first_step, ..., steps - 1."""
    return _loader(views, StepBatches(first_step, steps, batch_size), _collate_dense, manner)


def _collate_dense(items: list[DenseView]) -> DenseBatch:
    return DenseBatch(
        Views.of([item.view for item in items]),
        torch.from_numpy(np.stack([item.labels for item in items])),
        torch.from_numpy(np.stack([item.confidence for item in items])),
        torch.from_numpy(np.stack([item.inside for item in items])),
        torch.from_numpy(np.stack([item.tags for item in items])),
        [item.origin for item in items],
    )
