"""CAM with a CNN (Zhou et al. 2016), the paper's first family, and ReCAM (Chen et al. 2022) on the same networks.

ReCAM's second classifier sees the features under one class's map at a time and must recognise that class by softmax. Its weights
then correct those of the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mupvss.methods.method import Losses, Method, NoOptions
from mupvss.options import CNNConfig, Section

if TYPE_CHECKING:
    from torch import Tensor

    from mupvss.model.cnn_cam import CNNCAMNetwork
    from mupvss.model.features import Features
    from mupvss.search.maps import Map


class RecamOptions(Section):
    reactivation: float = Field(default=1.0, ge=0)
    """Weight of ReCAM's softmax loss on class-wise features."""


def build(model: CNNConfig, options: NoOptions, classes: int, pretrained: bool) -> CNNCAMNetwork:
    from mupvss.model.build import build_cnn, head_for
    from mupvss.model.cnn_cam import CNNCAMNetwork

    backbone = build_cnn(model, pretrained)
    return CNNCAMNetwork(backbone, head_for(backbone, model, classes), recam=False)


def build_recam(model: CNNConfig, options: RecamOptions, classes: int, pretrained: bool) -> CNNCAMNetwork:
    from mupvss.model.build import build_cnn, head_for
    from mupvss.model.cnn_cam import CNNCAMNetwork

    backbone = build_cnn(model, pretrained)
    return CNNCAMNetwork(backbone, head_for(backbone, model, classes), recam=True)


def losses(network: CNNCAMNetwork, features: Features, tags: Tensor, options: NoOptions, progress: float) -> Losses:
    from mupvss.losses import classification

    return {"classification": (1.0, classification(features.patch_score, tags))}


def recam_losses(network: CNNCAMNetwork, features: Features, tags: Tensor, options: RecamOptions, progress: float) -> Losses:
    from mupvss.losses import classification
    from mupvss.losses.reactivation_loss import reactivation
    from mupvss.runtime.processes import processes

    found: Losses = {"classification": (1.0, classification(features.patch_score, tags))}
    if options.reactivation > 0 and network.reactivation is not None:
        weight = network.reactivation.weight
        told_apart = reactivation(features.patches, features.patch_logits, tags, weight, processes().mean_count)
        found["reactivation"] = (options.reactivation, told_apart)
    return found


def maps() -> dict[str, Map]:
    from mupvss.search import maps as m

    return {"cam": m.Map("CAM", m.cam), "cam_refined": m.Map("CAM, refined", m.cam, refined=True)}


def recam_maps() -> dict[str, Map]:
    from mupvss.search import maps as m

    own = {"recam": m.Map("ReCAM", m.recam), "recam_refined": m.Map("ReCAM, refined", m.recam, refined=True)}
    return own | maps()


CNN_CAM = Method("cnn-cam", "CNN", build, losses, maps, model=CNNConfig)
RECAM = Method("recam", "CNN", build_recam, recam_losses, recam_maps, RecamOptions, model=CNNConfig)
