"""Training a classifier from tags: the total loss, and the network that learns from it."""

from __future__ import annotations

import functools
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
from mupvss.errors import DataError
from mupvss.losses import ccp, cip, classification, p2p
from mupvss.losses.p2p_dense_loss import p2p_dense
from mupvss.losses.reactivation_loss import reactivation
from mupvss.losses.token_contrast_loss import token_contrast
from mupvss.model.build import Network, build_model
from mupvss.model.checkpoint import save_model
from mupvss.model.cnn_cam import CNNCAMNetwork
from mupvss.model.features import Features
from mupvss.model.mctformer import MCTformerNetwork
from mupvss.model.mupvss import MuPVSSNetwork
from mupvss.model.vit import DropPath
from mupvss.ops import full_precision
from mupvss.runtime.device import autocast
from mupvss.runtime.processes import processes
from mupvss.search.affinity import patch_affinity, refine
from mupvss.training.batches import batches
from mupvss.training.loop import Loop, build_optimizer

TEACHER_POWER = 4.0
"""Power of the patch affinity that refines the classifier's maps before they teach."""


def loss_terms(network: Network, features: Features, tags: Tensor, config: LossConfig, model: ModelConfig) -> dict[str, Tensor]:
    """Unweighted losses by name, each a scalar in float32. tags (B, C) of 0 and 1."""
    terms = {"classification": classification(features.patch_score, tags)}
    if features.token_score is not None:
        terms["classification"] = terms["classification"] + classification(features.token_score, tags)
    if isinstance(network, MuPVSSNetwork):
        terms |= _prototype_terms(network, features, tags, config, model)
    if isinstance(network, MCTformerNetwork) and config.token_contrast > 0 and features.block_tokens is not None:
        terms["token_contrast"] = token_contrast(features.block_tokens)
    if isinstance(network, CNNCAMNetwork) and network.reactivation is not None and config.reactivation > 0:
        weight = network.reactivation.weight
        terms["reactivation"] = reactivation(features.patches, features.patch_logits, tags, weight, processes().mean_count)
    return terms


def _prototype_terms(
    network: MuPVSSNetwork, features: Features, tags: Tensor, config: LossConfig, model: ModelConfig
) -> dict[str, Tensor]:
    assert features.prototypes is not None
    terms = {}
    if config.ccp > 0:
        terms["ccp"] = ccp(features.prototypes, config.reduction)
    if config.cip > 0:
        shared = processes().gathered(tags) if config.tagged_only else None
        terms["cip"] = cip(processes().gathered(features.prototypes), shared, config.cip_form, config.reduction)
    if config.p2p > 0:
        terms["p2p"] = _p2p(network, features, tags, config, model)
    if config.p2p_dense > 0:
        terms["p2p_dense"] = _p2p_dense(network, features, tags, config)
    return terms


def _p2p(network: MuPVSSNetwork, features: Features, tags: Tensor, config: LossConfig, model: ModelConfig) -> Tensor:
    scale, bias = _affine(network, config)
    return _own_and_other(
        features,
        config.p2p_cross,
        lambda prototypes: p2p(
            features.patches,
            prototypes,
            tags,
            threshold=config.p2p_threshold,
            how=config.p2p_pool,
            scale=scale,
            bias=bias,
            decay=model.gwrp_decay,
            reference_patches=model.gwrp_patches,
        ),
    )


def _p2p_dense(network: MuPVSSNetwork, features: Features, tags: Tensor, config: LossConfig) -> Tensor:
    scale, bias = _affine(network, config)
    with torch.no_grad():
        maps = refine(full_precision(features.patch_logits).relu(), [patch_affinity(features.patches, TEACHER_POWER)])
    return _own_and_other(
        features,
        config.p2p_cross,
        lambda prototypes: p2p_dense(features.patches, prototypes, tags, maps, scale, bias, processes().mean_count),
    )


def _affine(network: MuPVSSNetwork, config: LossConfig) -> tuple[Tensor | float, Tensor | float]:
    return (network.p2p_scale.exp(), network.p2p_bias) if config.p2p_affine else (1.0, 0.0)


def _own_and_other(features: Features, cross: float, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The loss with each picture's own prototypes, and with those of its neighbour in the batch, in shares 1-cross, cross.

    A prototype sees its own picture, so it could say "present" by itself and leave the patches untaught. Searched with
    the prototypes of another picture, only the patches can tell.
    """
    assert features.prototypes is not None
    everyone = processes().gathered(features.prototypes) if cross > 0 else features.prototypes
    if cross == 0 or len(everyone) < 2:
        return loss(features.prototypes)
    other = loss(everyone.roll(1, 0)[processes().rows(len(everyone))])
    return other if cross == 1 else (1 - cross) * loss(features.prototypes) + cross * other


def total_loss(terms: dict[str, Tensor], config: LossConfig, progress: float) -> Tensor:
    """Weighted sum at `progress` in [0, 1] of the training."""
    ramp = min(1.0, progress / config.ramp) if config.ramp > 0 else 1.0
    start = config.p2p_dense_start
    dense = min(1.0, max(0.0, progress - start) / start) if start > 0 else 1.0
    weights = {
        "classification": config.classification,
        "ccp": config.ccp * ramp,
        "cip": config.cip * ramp,
        "p2p": config.p2p,
        "p2p_dense": config.p2p_dense * dense,
        "token_contrast": config.token_contrast,
        "reactivation": config.reactivation,
    }
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


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
    config, classes, device = training.train, training.dataset.classes, training.device
    torch.manual_seed(training.seed)
    network = build_model(training.model, len(classes)).to(device).train()
    called = prepared(network)
    optimizer = build_optimizer(network, training.model, config)
    save = functools.partial(save_model, network=network, classes=classes, model=training.model)
    with Loop(network, optimizer, config, folder, title, training.identity, save) as loop:
        views = batches(training.dataset, config, training.model.image_size, training.seed, loop.first, loop.steps, device)
        for batch in loop.over(views):
            images, tags = batch.on(device)
            loss, figures = batch_loss(network, called, images, tags, training, loop.progress)
            loop.learn(loss, figures, batch.origins)
    return loop.figures


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
