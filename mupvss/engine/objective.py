"""The total loss: which parts a method has, their weights, and how they are warmed up."""

from __future__ import annotations

import torch
from torch import Tensor

from mupvss.config.schema import LossConfig, ModelConfig
from mupvss.losses import ccp, cip, classification, p2p
from mupvss.model.cam import CAMNetwork
from mupvss.model.mupvss import MuPVSSNetwork
from mupvss.model.outputs import Features


def loss_terms(
    network: CAMNetwork | MuPVSSNetwork, features: Features, tags: Tensor, config: LossConfig, model: ModelConfig
) -> dict[str, Tensor]:
    """Unweighted losses by name, each a scalar in float32. tags (B, C) of 0 and 1."""
    terms = {"classification": classification(features.patch_score, tags)}
    if not isinstance(network, MuPVSSNetwork) or features.prototypes is None or features.prototype_score is None:
        return terms
    terms["classification"] = terms["classification"] + classification(features.prototype_score, tags)
    if config.ccp > 0:
        terms["ccp"] = ccp(features.prototypes, config.reduction)
    if config.cip > 0:
        shared = tags if config.tagged_only else None
        terms["cip"] = cip(features.prototypes, shared, config.cip_form, config.reduction)
    if config.p2p > 0:
        terms["p2p"] = _p2p(network, features, tags, config, model)
    return terms


def _p2p(network: MuPVSSNetwork, features: Features, tags: Tensor, config: LossConfig, model: ModelConfig) -> Tensor:
    assert features.prototypes is not None
    options = {
        "threshold": config.p2p_threshold,
        "how": config.p2p_pool,
        "scale": network.p2p_scale.exp() if config.p2p_affine else 1.0,
        "bias": network.p2p_bias if config.p2p_affine else 0.0,
        "decay": model.gwrp_decay,
        "reference_patches": model.gwrp_patches,
    }
    own = p2p(features.patches, features.prototypes, tags, **options)
    if config.p2p_cross == 0 or len(tags) < 2:
        return own
    # A prototype sees its own picture, so it could say "present" by itself and leave the patches untaught.
    # Searched with the prototypes of another picture, only the patches can tell.
    other = p2p(features.patches, features.prototypes.roll(1, 0), tags, **options)
    return (1 - config.p2p_cross) * own + config.p2p_cross * other


def total_loss(terms: dict[str, Tensor], config: LossConfig, progress: float) -> Tensor:
    """Weighted sum at `progress` in [0, 1] of the training."""
    ramp = min(1.0, progress / config.ramp) if config.ramp > 0 else 1.0
    weights = {"classification": config.classification, "ccp": config.ccp * ramp, "cip": config.cip * ramp, "p2p": config.p2p}
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()
