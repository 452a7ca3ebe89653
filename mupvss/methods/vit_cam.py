"""CAM on a ViT: the patch classifier alone, and the usual transformer baseline, whose maps are spread by self-attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mupvss.methods.method import Losses, Method, NoOptions
from mupvss.options import ViTConfig

if TYPE_CHECKING:
    from torch import Tensor

    from mupvss.model.features import Features
    from mupvss.model.vit_cam import ViTCAMNetwork
    from mupvss.search.maps import Map


def build(model: ViTConfig, options: NoOptions, classes: int, pretrained: bool) -> ViTCAMNetwork:
    from mupvss.model.build import build_vit, head_for
    from mupvss.model.vit_cam import ViTCAMNetwork

    backbone = build_vit(model, pretrained)
    return ViTCAMNetwork(backbone, head_for(backbone, model, classes))


def losses(network: ViTCAMNetwork, features: Features, tags: Tensor, options: NoOptions, progress: float) -> Losses:
    from mupvss.losses import classification

    return {"classification": (1.0, classification(features.patch_score, tags))}


def maps() -> dict[str, Map]:
    from mupvss.search import maps as m

    return {
        "cam_spread": m.Map("CAM, spread by attention", m.cam_spread),
        "cam": m.Map("CAM", m.cam),
        "cam_refined": m.Map("CAM, refined", m.cam, refined=True),
    }


VIT_CAM = Method("vit-cam", "ViT", build, losses, maps)
