"""All sizes and choices in one place: from a config to a network."""

from __future__ import annotations

from torch import nn

from mupvss.config.schema import ModelConfig
from mupvss.model.cnn import EfficientNetLite0, ResNet38
from mupvss.model.cnn_cam import CNNCAMNetwork
from mupvss.model.mctformer import MCTformerNetwork
from mupvss.model.mupvss import MuPVSSNetwork, first_attention_block
from mupvss.model.patch_head import PatchHead
from mupvss.model.pretrained import load_backbone
from mupvss.model.vit import SIZES, VisionTransformer
from mupvss.model.vit_cam import ViTCAMNetwork

Network = CNNCAMNetwork | ViTCAMNetwork | MCTformerNetwork | MuPVSSNetwork
CNNS = ("resnet38", "efficientnet-lite0")


def build_model(config: ModelConfig, classes: int, pretrained: bool = True) -> Network:
    """The network for `classes` classes; `pretrained=False` leaves out the weights (a checkpoint will fill them)."""
    if config.backbone in CNNS:
        return _build_cnn(config, classes, pretrained)
    if config.backbone not in SIZES:
        raise ValueError(f"model.backbone is '{config.backbone}'; choose one of {', '.join((*SIZES, *CNNS))}")
    size = SIZES[config.backbone]
    backbone = VisionTransformer(
        size, config.patch_size, config.image_size, config.drop_path, config.registers, config.layer_scale
    )
    if pretrained and config.weights:
        load_backbone(backbone, config.weights, config.weights_pixels)
    head = PatchHead(size.width, classes, config.gwrp_decay, config.gwrp_patches)
    if config.method == "cam":
        return ViTCAMNetwork(backbone, head)
    if config.method == "mctformer":
        return MCTformerNetwork(backbone, head, classes, first_attention_block(config.attention_skip, size.depth))
    return MuPVSSNetwork(backbone, head, classes, config)


def _build_cnn(config: ModelConfig, classes: int, pretrained: bool) -> CNNCAMNetwork:
    if config.method != "cam":
        raise ValueError(f'model.method = "{config.method}" needs a ViT, and {config.backbone} is a CNN; set method = "cam"')
    frozen = config.frozen_stages
    backbone = ResNet38(config.channels, frozen) if config.backbone == "resnet38" else EfficientNetLite0(frozen)
    if config.patch_size != backbone.stride:
        raise ValueError(f"{config.backbone} has one cell per {backbone.stride} pixels; set model.patch_size = {backbone.stride}")
    if pretrained and config.weights:
        load_backbone(backbone, config.weights, config.weights_pixels)
    head = PatchHead(backbone.width, classes, config.gwrp_decay, config.gwrp_patches, kernel=1)
    return CNNCAMNetwork(backbone, head, config.recam)


def is_new(name: str, config: ModelConfig) -> bool:
    """Whether a parameter has no pretrained value, and so deserves the larger learning rate."""
    return bool(config.weights) and not name.startswith("backbone.")


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Weight decay is for matrices: none on biases, norms, tokens, positions and scalars."""
    return parameter.dim() > 1 and not name.endswith(("cls_token", "reg_token", "pos_embed", "class_position"))
