"""MCTformer and MCTformer+ (Xu et al. 2022, 2024), the paper's second family: one class token per class, whose attention shows
where the class is.

The plus variant adds a contrast between the class tokens of every block (`token_contrast = 1.0`) and GWRP (`model.gwrp_decay =
0.996`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mupvss.methods.method import Losses, Method
from mupvss.options import Fraction, Section, ViTConfig, added

if TYPE_CHECKING:
    from torch import Tensor

    from mupvss.model.features import Features
    from mupvss.model.mctformer import MCTformerNetwork
    from mupvss.search.maps import Map


class MctformerOptions(Section):
    attention_skip: Fraction = 0.25
    """Fraction of the blocks, from the first, that the class attention leaves out."""
    token_contrast: float = Field(default=0.0, ge=0)
    """Weight of MCTformer+'s contrast between class tokens."""
    pooling: Literal["gwrp", "attention"] = added("gwrp", neutral="gwrp")
    """How the patch classifier's values become one per class: by rank, or weighted by what the class token attends to."""


def build(model: ViTConfig, options: MctformerOptions, classes: int, pretrained: bool) -> MCTformerNetwork:
    from mupvss.model.build import build_vit, head_for
    from mupvss.model.mctformer import MCTformerNetwork

    backbone = build_vit(model, pretrained)
    return MCTformerNetwork(backbone, head_for(backbone, model, classes, options.pooling), classes, options.attention_skip)


def losses(network: MCTformerNetwork, features: Features, tags: Tensor, options: MctformerOptions, progress: float) -> Losses:
    from mupvss.losses import classification
    from mupvss.losses.token_contrast_loss import token_contrast

    assert features.token_score is not None
    found: Losses = {
        "classification": (1.0, classification(features.patch_score, tags) + classification(features.token_score, tags))
    }
    if options.token_contrast > 0 and features.block_tokens is not None:
        found["token_contrast"] = (options.token_contrast, token_contrast(features.block_tokens))
    return found


def maps() -> dict[str, Map]:
    from mupvss.search import maps as m

    return {
        "attended_cam_spread": m.Map("CAM × attention, spread by attention (MCTformer's own)", m.attended_cam_spread),
        "attended_cam_refined": m.Map("CAM × attention, refined", m.attended_cam, refined=True),
        "cam": m.Map("CAM", m.cam),
        "cam_spread": m.Map("CAM, spread by attention", m.cam_spread),
        "attention": m.Map("class attention", m.attention),
    }


MCTFORMER = Method("mctformer", "class tokens", build, losses, maps, MctformerOptions)
