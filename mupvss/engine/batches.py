"""Endless training batches in a fixed order: the n-th picture of a run is the same however often the run was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from mupvss.config.schema import TrainConfig
from mupvss.data.augment import View, Views, random_view
from mupvss.data.sample import Dataset
from mupvss.engine.device import own_cores
from mupvss.engine.processes import processes
from mupvss.engine.stopping import leave_stopping_to_the_main_process

CPU = torch.device("cpu")
MOST_READERS = 8
"""They feed a GPU 2,000 views a second. Each holds an interpreter, and its batches lie in shared memory until fetched."""


@dataclass(frozen=True)
class Batch:
    """As the workers hand it over, in the computer's memory."""

    views: Views
    tags: Tensor
    """(B, C) float32 of 0 and 1."""
    origins: list[str]

    def pin_memory(self) -> Batch:
        return Batch(self.views.pin_memory(), self.tags.pin_memory(), self.origins)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """-> images (B, 3, S, S) float32, normalised, and tags (B, C), both there."""
        return self.views.to(device).images(), self.tags.to(device, non_blocking=True)


class EpochOrder:
    """Every sample once per epoch, in an order that follows from the seed, the stream and the epoch alone."""

    def __init__(self, count: int, seed: int, stream: int) -> None:
        self.count, self.seed, self.stream = count, seed, stream
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __call__(self, n: int) -> int:
        """Which sample is the n-th of the run."""
        epoch, place = divmod(n, self.count)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, self.stream, epoch]).permutation(self.count))
        return int(self._order[1][place])


class TrainingViews(TorchDataset):
    """Item n is the n-th picture of the run: its epoch's permutation and its augmentation follow from (seed, n)."""

    def __init__(self, dataset: Dataset, config: TrainConfig, image_size: int, seed: int) -> None:
        self.dataset, self.config, self.image_size, self.seed = dataset, config, image_size, seed
        self.order = EpochOrder(len(dataset.samples), seed, stream=0)

    def __getitem__(self, n: int) -> tuple[View, Tensor, str]:
        sample = self.dataset.samples[self.order(n)]
        rng = np.random.default_rng([self.seed, 1, n])
        config = self.config
        view = random_view(sample.open_image(), self.image_size, config.crop_area, config.flip, config.brightness, rng)
        return view, torch.from_numpy(self.dataset.tag_vector(sample)), sample.origin


class StepBatches(Sampler[list[int]]):
    """Of each step's batch the rows that are this process's."""

    def __init__(self, first_step: int, steps: int, batch_size: int) -> None:
        self.first_step, self.steps, self.batch_size = first_step, steps, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        own = processes().rows(self.batch_size)
        for step in range(self.first_step, self.steps):
            yield list(range(step * self.batch_size, (step + 1) * self.batch_size))[own]

    def __len__(self) -> int:
        return self.steps - self.first_step


def batches(
    dataset: Dataset, config: TrainConfig, image_size: int, seed: int, first_step: int, steps: int, device: torch.device = CPU
) -> DataLoader:
    """Loader of `Batch`es for the steps first_step, ..., steps - 1. device: where they will go."""
    return DataLoader(
        TrainingViews(dataset, config, image_size, seed),
        batch_sampler=StepBatches(first_step, steps, config.batch_size),
        collate_fn=_collate,
        **loader_options(config.workers, device),
    )


def loader_options(workers: int | None, device: torch.device) -> dict[str, Any]:
    """How every training's batches are read: by `workers` processes, four batches ahead or, if they are many, two each."""
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
    """`workers`, or where it is None what the device needs: one core reads some 250 pictures of 500x375 pixels a second, of which
    a processor trains on a few dozen and a GPU on thousands."""
    if workers is not None:
        return workers
    return min(own_cores(), MOST_READERS) if device.type == "cuda" else 1


def _collate(items: list[tuple[View, Tensor, str]]) -> Batch:
    views, tags, origins = zip(*items, strict=True)
    return Batch(Views.of(views), torch.stack(tags), list(origins))
