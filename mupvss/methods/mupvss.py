"""MuP-VSS, the paper's method: prototypes pass through a ViT alongside the patches, three losses shape them, and they search the
picture.

The network is `model/mupvss.py`, the losses are `losses/`, the search is `search/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mupvss.methods.method import Losses, Method
from mupvss.options import Fraction, PEMConfig, Section, ViTConfig, added

if TYPE_CHECKING:
    from torch import Tensor

    from mupvss.model.features import Features
    from mupvss.model.mupvss import MuPVSSNetwork
    from mupvss.search.maps import Map

DENSE_START = 0.25
"""Share of the training after which the patch-wise P2P begins; its weight then rises linearly over another such share."""
TEACHER_POWER = 4.0
"""Power of the patch affinity that refines the classifier's maps before they serve as targets."""


class MupvssOptions(Section):
    """The prototypes, and the losses that shape them."""

    global_embedding: Literal["flatten", "pool", "copy"] = "flatten"
    """How the per-class convolution becomes a vector. copy: no global embedding, copied class tokens (Base-R)."""
    token_start: Literal["class_token", "zero"] = "class_token"
    """Token that the global embedding is added to."""
    global_scale: float = 0.1
    """Factor on the global embedding."""
    prototypes_seen: bool = added(True, neutral=True)
    """Whether patches attend to the prototypes in the blocks. Without it, prototypes only ask, and patches stay free of what the
    classes have found elsewhere in the picture (ours)."""
    pooling: Literal["gwrp", "attention"] = added("gwrp", neutral="gwrp")
    """How the patch classifier's values become one per class: by rank, or weighted by what the prototype attends to (ours)."""
    attention_skip: Fraction = 0.25
    """Fraction of the blocks, from the first, that the class attention leaves out."""
    pem: PEMConfig = PEMConfig()
    ccp: float = Field(default=0.1, ge=0)
    """Weight of CCP: the prototypes of one picture exclude each other."""
    cip: float = Field(default=0.1, ge=0)
    """Weight of CIP: one class's prototype agrees across pictures."""
    p2p: float = Field(default=1.0, ge=0)
    """Weight of P2P: the pooled search must predict the tags."""
    reduction: Literal["mean", "sum"] = "mean"
    """Reduction over the pairs of CCP and CIP; sum is the paper's."""
    cip_form: Literal["shifted", "literal"] = "shifted"
    """shifted: log((1+cos)/2), defined everywhere; literal: log cos, the paper's."""
    p2p_pool: Literal["gwrp", "mean", "sum", "attention"] = "gwrp"
    """Pooling of the patch similarities; sum is the paper's. attention: weighted by what the picture's prototype attends to."""
    p2p_threshold: float | None = None
    """Similarities at or below it count as zero (tau_P2P). Default: no threshold."""
    p2p_affine: bool = True
    """Learned scale and bias on the pooled similarity."""
    p2p_cross: Fraction = 0.5
    """Fraction of P2P that searches a picture with the prototypes of another picture."""
    p2p_dense: float = Field(default=0.0, ge=0)
    """Weight of the patch-wise P2P, in which the classifier's confident patches teach the search (ours)."""
    competition: float = added(0.0, neutral=0.0, ge=0)
    """Weight of the competition (ours): at every patch, the prototypes of the picture's tags win over those of all other classes.
    For pictures without background."""
    ramp: Fraction = 0.5
    """Share of the training over which CCP and CIP rise linearly to their weight."""


class MupvssSearch(Section):
    """How a picture is searched with the prototypes."""

    global_prototypes: bool = True
    """Take the prototypes from one pass at the training size, and search every scale with them. Otherwise each scale uses its
    own, which fail on pictures much larger than the training pictures."""
    decision: Literal["learned", "zero"] = "learned"
    """How to decide that a patch does not match: P2P's learned scale and bias, or a cosine of zero."""
    competition: Literal["none", "times", "alone"] = added("none", neutral="none")
    """How the prototypes of all classes, also of those that the picture is not tagged with, compete for a patch: not at all; as a
    factor on the decision (times); or without a decision (alone), for pictures without background."""
    centres: int = added(4, neutral=4, ge=1)
    """For the maps named after centres: number of vectors per class that stand for what is found in all pictures, and twice as
    many for what is not (ours)."""


def build(model: ViTConfig, options: MupvssOptions, classes: int, pretrained: bool) -> MuPVSSNetwork:
    from mupvss.model.build import build_vit, head_for
    from mupvss.model.mupvss import MuPVSSNetwork

    backbone = build_vit(model, pretrained)
    return MuPVSSNetwork(
        backbone,
        head_for(backbone, model, classes, options.pooling),
        classes,
        global_embedding=options.global_embedding,
        token_start=options.token_start,
        global_scale=options.global_scale,
        attention_skip=options.attention_skip,
        pem=options.pem,
        prototypes_seen=options.prototypes_seen,
        attended_loss=options.p2p > 0 and options.p2p_pool == "attention",
    )


def losses(network: MuPVSSNetwork, features: Features, tags: Tensor, options: MupvssOptions, progress: float) -> Losses:
    """CLS on patches and prototypes; CCP, CIP, P2P and others on the prototypes, if their weight is not 0 (paper, Sec. 3.2)."""
    from mupvss.losses import ccp, cip, classification
    from mupvss.runtime.processes import processes

    assert features.token_score is not None
    assert features.prototypes is not None
    ramp = min(1.0, progress / options.ramp) if options.ramp > 0 else 1.0
    found: Losses = {
        "classification": (1.0, classification(features.patch_score, tags) + classification(features.token_score, tags))
    }
    if options.ccp > 0:
        found["ccp"] = (options.ccp * ramp, ccp(features.prototypes, options.reduction))
    if options.cip > 0:
        everyone = processes().gathered(features.prototypes)
        found["cip"] = (options.cip * ramp, cip(everyone, options.cip_form, options.reduction))
    if options.p2p > 0:
        found["p2p"] = (options.p2p, _own_and_other(_p2p, network, features, tags, options))
    if options.competition > 0:
        found["competition"] = (options.competition * ramp, _own_and_other(_competition, network, features, tags, options))
    if options.p2p_dense > 0:
        dense = min(1.0, max(0.0, progress - DENSE_START) / DENSE_START)
        found["p2p_dense"] = (options.p2p_dense * dense, _own_and_other(_p2p_dense, network, features, tags, options))
    return found


def _own_and_other(loss, network: MuPVSSNetwork, features: Features, tags: Tensor, options: MupvssOptions) -> Tensor:  # type: ignore[no-untyped-def]
    """The loss with each picture's own prototypes, and with those of its neighbour in the batch, weighted by 1 - p2p_cross and
    p2p_cross.

    A prototype sees its own picture, so it could say "present" by itself and leave the patches untrained. With the prototypes of
    another picture, only the patches can tell.
    """
    from mupvss.runtime.processes import processes

    own, cross = features.prototypes, options.p2p_cross
    assert own is not None
    everyone = processes().gathered(own) if cross > 0 else own
    if cross == 0 or len(everyone) < 2:
        return loss(own, network, features, tags, options)
    other = loss(everyone.roll(1, 0)[processes().rows(len(everyone))], network, features, tags, options)
    return other if cross == 1 else (1 - cross) * loss(own, network, features, tags, options) + cross * other


def _p2p(prototypes: Tensor, network: MuPVSSNetwork, features: Features, tags: Tensor, options: MupvssOptions) -> Tensor:
    from mupvss.losses import p2p

    scale, bias = network.p2p_decision(options.p2p_affine)
    decay, reference = network.head.decay, network.head.reference_patches
    how, attention = options.p2p_pool, features.class_attention
    return p2p(features.patches, prototypes, tags, options.p2p_threshold, how, scale, bias, decay, reference, attention)


def _competition(prototypes: Tensor, network: MuPVSSNetwork, features: Features, tags: Tensor, options: MupvssOptions) -> Tensor:
    from mupvss.losses import competition

    return competition(features.patches, prototypes, tags)


def _p2p_dense(prototypes: Tensor, network: MuPVSSNetwork, features: Features, tags: Tensor, options: MupvssOptions) -> Tensor:
    import torch

    from mupvss.losses.p2p_dense_loss import p2p_dense
    from mupvss.ops import full_precision
    from mupvss.runtime.processes import processes
    from mupvss.search.affinity import patch_affinity, refine

    with torch.no_grad():
        maps = refine(full_precision(features.patch_logits).relu(), [patch_affinity(features.patches, TEACHER_POWER)])
    scale, bias = network.p2p_decision(options.p2p_affine)
    return p2p_dense(features.patches, prototypes, tags, maps, scale, bias, processes().mean_count)


def shared(features: Features, options: MupvssSearch) -> Mapping[str, Tensor]:
    """Prototypes (1, C, D) of unit length, the mean over picture and mirror."""
    import torch.nn.functional as F

    if not options.global_prototypes or features.prototypes is None:
        return {}
    return {"prototypes": F.normalize(F.normalize(features.prototypes.float(), dim=-1).mean(0, keepdim=True), dim=-1)}


def maps() -> dict[str, Map]:
    from mupvss.search import maps as m

    finder = "attended_search_refined"
    return {
        "attended_search_refined": m.Map("search × attention, refined", m.attended_search, refined=True),
        "search_refined": m.Map("search, refined", m.search, refined=True),
        "search": m.Map("search", m.search),
        "search_and_cam_refined": m.Map(
            "search and classifier together", joins=("attended_search_refined", "attended_cam_refined")
        ),
        "attended_centres_refined": m.Map("centres × attention, refined", m.attended_centres, refined=True, found_by=finder),
        "centres_refined": m.Map("centres, refined", m.centres, refined=True, found_by=finder),
        "centres_and_cam_refined": m.Map(
            "centres and classifier together", joins=("attended_centres_refined", "attended_cam_refined")
        ),
        "attention_refined": m.Map("class attention, refined", m.root_attention, refined=True),
        "attended_cam_refined": m.Map("CAM × attention, refined", m.attended_cam, refined=True),
        "attention": m.Map("class attention", m.attention),
        "cam": m.Map("CAM", m.cam),
    }


MUPVSS = Method("mupvss", "prototypes", build, losses, maps, MupvssOptions, MupvssSearch, ViTConfig, shared)
