"""All sizes and choices in one place: from a config to a network."""

from __future__ import annotations

from torch import nn

from mupvss.config.schema import ModelConfig
from mupvss.model.cam import CAMNetwork
from mupvss.model.mupvss import MuPVSSNetwork
from mupvss.model.patch_head import PatchHead
from mupvss.model.pretrained import load_backbone
from mupvss.model.vit import SIZES, VisionTransformer


def build_model(config: ModelConfig, classes: int, pretrained: bool = True) -> CAMNetwork | MuPVSSNetwork:
    """The network for `classes` classes; `pretrained=False` leaves out the weights (a checkpoint will fill them)."""
    if config.backbone not in SIZES:
        raise ValueError(f"model.backbone is '{config.backbone}'; choose one of {', '.join(SIZES)}")
    size = SIZES[config.backbone]
    backbone = VisionTransformer(size, config.patch_size, config.image_size, config.drop_path)
    if pretrained and config.weights:
        load_backbone(backbone, config.weights)
    head = PatchHead(size.width, classes, config.gwrp_decay, config.gwrp_patches)
    if config.method == "cam":
        return CAMNetwork(backbone, head)
    return MuPVSSNetwork(backbone, head, classes, config)


def is_new(name: str, config: ModelConfig) -> bool:
    """Whether a parameter has no pretrained value, and so deserves the larger learning rate."""
    return config.weights is not None and not name.startswith("backbone.")


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Weight decay is for matrices: none on biases, norms, tokens, positions and scalars."""
    return parameter.dim() > 1 and not name.endswith(("cls_token", "pos_embed", "class_position"))
