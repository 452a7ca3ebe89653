"""Training a classifier from tags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mupvss.config.schema import LossConfig, ModelConfig, TrainConfig
from mupvss.config.used import effective, used_options
from mupvss.data.sample import Dataset
from mupvss.engine.batches import Batch, batches
from mupvss.engine.checkpoint import save_model
from mupvss.engine.loop import Loop, optimise
from mupvss.engine.objective import loss_terms, total_loss
from mupvss.engine.optimizer import build_optimizer
from mupvss.engine.precision import autocast
from mupvss.engine.processes import processes
from mupvss.errors import DataError
from mupvss.model.build import Network, build_model
from mupvss.model.vit import DropPath
from mupvss.ops.cosine import full_precision


@dataclass(frozen=True)
class Training:
    """One training's ingredients."""

    dataset: Dataset
    model: ModelConfig
    losses: LossConfig
    train: TrainConfig
    seed: int
    device: torch.device

    @property
    def steps(self) -> int:
        return max(1, self.train.image_steps // self.train.batch_size)

    @property
    def identity(self) -> str:
        """Changes with anything that changes the result, so that only the same training is resumed."""
        parts = [
            *(part.model_dump(mode="json", exclude_defaults=True) for part in used_options(self.model, self.losses)),
            effective(self.train).model_dump(mode="json", exclude_defaults=True),
            self.seed,
            self.dataset.classes,
            [(sample.name, sorted(sample.tags)) for sample in self.dataset.samples],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def train(training: Training, folder: Path, title: str = "train") -> dict[str, Any]:
    """Trains into folder/model.safetensors and returns the figures of the last steps, and what it was computed in and on."""
    _check(training)
    config, classes = training.train, training.dataset.classes
    torch.manual_seed(training.seed)
    network = build_model(training.model, len(classes)).to(training.device).train()
    called = prepared(network)

    def step_loss(batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        return batch_loss(network, called, *batch.on(training.device), training, progress)

    loop = Loop(
        network=network,
        optimizer=build_optimizer(network, training.model, config),
        batches=lambda first: batches(
            training.dataset, config, training.model.image_size, training.seed, first, training.steps, training.device
        ),
        loss=step_loss,
        origins=lambda batch: batch.origins,
        steps=training.steps,
        config=config,
        identity=training.identity,
        save=lambda path: save_model(path, network, classes, training.model),
    )
    return optimise(loop, folder, title)


def prepared(network: nn.Module) -> Callable[..., Any]:
    """The network as training calls it: alone, or as one of several processes."""
    team = processes()
    for module in network.modules():
        if isinstance(module, DropPath):
            module.share = (team.rank, team.count)
    return team.wrapped(network)


def batch_loss(
    network: Network, called: Callable[..., Any], images: Tensor, tags: Tensor, training: Training, progress: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total loss of this process's part of a batch, and its parts for the log. called: the network as `prepared`."""
    with autocast(training.device, training.train.precision):
        features = called(images)
    terms = loss_terms(network, features, tags, training.losses, training.model)
    figures = {name: value.detach() for name, value in terms.items()}
    if features.prototypes is not None:
        figures["prototype_variance"] = prototype_variance(processes().gathered(features.prototypes.detach()))
    return total_loss(terms, training.losses, progress), figures


@torch.no_grad()
def prototype_variance(prototypes: Tensor) -> Tensor:
    """Mean squared distance of a class's unit prototypes (B, C, D) from their mean over the pictures: a scalar in [0, 1].

    Zero means collapse: prototypes that ignore the picture.
    """
    unit = torch.nn.functional.normalize(full_precision(prototypes), dim=-1)
    return (1 - unit.mean(0).square().sum(-1)).mean()


def _check(training: Training) -> None:
    if not training.dataset.classes:
        raise DataError("the data set has no class; set data.classes or tag at least one picture")
    if not training.dataset.samples:
        raise DataError("the training split has no picture; check data.root and data.train_split")
    if not any(sample.tags for sample in training.dataset.samples):
        raise DataError(
            f"no training picture has any of the classes {', '.join(training.dataset.classes)}; check data.classes and the tags"
        )
