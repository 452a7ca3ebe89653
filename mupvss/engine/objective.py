"""The total loss: which parts a method has, their weights, and how they are warmed up."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mupvss.config.schema import LossConfig, ModelConfig
from mupvss.engine.processes import processes
from mupvss.losses import ccp, cip, classification, p2p
from mupvss.losses.p2p_dense import p2p_dense
from mupvss.losses.reactivation import reactivation
from mupvss.losses.token_contrast import token_contrast
from mupvss.model.build import Network
from mupvss.model.cnn_cam import CNNCAMNetwork
from mupvss.model.mctformer import MCTformerNetwork
from mupvss.model.mupvss import MuPVSSNetwork
from mupvss.model.outputs import Features
from mupvss.ops.cosine import full_precision
from mupvss.search.affinity import patch_affinity, refine

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
