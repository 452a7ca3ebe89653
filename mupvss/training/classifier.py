"""Trains a classifier from tags, on the weighted sum of its method's losses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mupvss.data.sample import Dataset
from mupvss.errors import DataError
from mupvss.methods import Method
from mupvss.methods.checkpoint import ModelInfo, save_model
from mupvss.model.build import is_new
from mupvss.model.licences import Origin
from mupvss.model.vit import DropPath
from mupvss.ops import full_precision
from mupvss.options import ModelConfig, Section, TrainConfig
from mupvss.runtime.device import autocast
from mupvss.runtime.processes import processes
from mupvss.training.batches import Manner, batches
from mupvss.training.loop import Loop, grouped_optimizer


def train_classifier(
    method: Method,
    model: ModelConfig,
    options: Section,
    train: TrainConfig,
    seed: int,
    dataset: Dataset,
    manner: Manner,
    folder: Path,
    identity: str,
    named: str = "",
    title: str = "train",
    origins: tuple[Origin, ...] = (),
) -> dict[str, Any]:
    """Trains into folder/model.safetensors; returns the figures of the last steps, the precision and the device.

    options: the method's own; identity: see `Loop`; named: the method as the config names it, if that is not its name; origins:
    where its weights and pictures come from.
    """
    _check(dataset)
    torch.manual_seed(seed)
    info = ModelInfo(dataset.classes, method, model, options, named or method.name, origins)
    network = method.build(model, options, len(dataset.classes), True).to(manner.device).train()
    called = prepared(network)
    pretrained = bool(getattr(model, "weights", None))
    optimizer = grouped_optimizer(
        network, train.lr, train.new_lr_scale, train.weight_decay, lambda name: is_new(name, pretrained)
    )
    save = functools.partial(save_model, network=network, info=info)
    with Loop(network, optimizer, train, manner, folder, title, identity, save, train.clip_norm) as loop:
        for batch in loop.over(batches(dataset, train, model.image_size, seed, loop.first, loop.steps, manner)):
            images, tags = batch.on(manner.device)
            with autocast(manner.device, train.precision):
                features = called(images)
            losses = method.losses(network, features, tags, options, loop.progress)
            figures = {name: value.detach() for name, (_, value) in losses.items()}
            if features.prototypes is not None:
                figures["prototype_variance"] = prototype_variance(processes().gathered(features.prototypes.detach()))
            loop.learn(weighted_sum(losses), figures, batch.origins)
    return loop.figures


def weighted_sum(losses: dict[str, tuple[float, Tensor]]) -> Tensor:
    """The weighted sum of what `Method.losses` returned: a scalar."""
    return torch.stack([weight * value for weight, value in losses.values()]).sum()


def prepared(network: nn.Module) -> Callable[..., Any]:
    """The network as training calls it: alone, or as one of several processes."""
    team = processes()
    for module in network.modules():
        if isinstance(module, DropPath):
            module.share = (team.rank, team.count)
    return team.wrapped(network)


@torch.no_grad()
def prototype_variance(prototypes: Tensor) -> Tensor:
    """Mean squared distance of a class's unit prototypes (B, C, D) from their mean over the pictures: a scalar in [0, 1].

    Zero means collapse: prototypes that ignore the picture.
    """
    unit = torch.nn.functional.normalize(full_precision(prototypes), dim=-1)
    return (1 - unit.mean(0).square().sum(-1)).mean()


def _check(dataset: Dataset) -> None:
    if not dataset.classes:
        raise DataError("the data set has no class; set data.classes or tag at least one picture")
    if not dataset.samples:
        raise DataError("the training split has no picture; check data.root and data.train_split")
    if not any(sample.tags for sample in dataset.samples):
        raise DataError(
            f"no training picture has any of the classes {', '.join(dataset.classes)}; check data.classes and the tags"
        )
