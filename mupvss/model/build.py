"""Builds the encoders and their patch classifier; tells which parameters are new, and which get weight decay."""

from __future__ import annotations

from torch import nn

from mupvss.errors import UserError
from mupvss.model.cnn import EfficientNetLite0, ResNet38
from mupvss.model.patch_head import PatchHead
from mupvss.model.pretrained import load_backbone
from mupvss.model.vit import SIZES, VisionTransformer
from mupvss.ops import Pooling
from mupvss.options import CNNConfig, ModelConfig, ViTConfig


def build_vit(config: ViTConfig, pretrained: bool) -> VisionTransformer:
    """pretrained False: without the weights (a checkpoint will fill them)."""
    if config.backbone not in SIZES:
        raise UserError(f"model.backbone is '{config.backbone}'; choose one of {', '.join(SIZES)}")
    if config.family == "eva02" and (config.registers or config.layer_scale or config.position != "table"):
        raise UserError(
            'model.family = "eva02" goes with model.registers = 0, model.layer_scale = false and model.position = "table"; '
            f'got {config.registers}, {str(config.layer_scale).lower()} and "{config.position}"'
        )
    size, patch, side = SIZES[config.backbone], config.patch_size, config.image_size
    rotary, eva02 = config.position == "rotary", config.family == "eva02"
    backbone = VisionTransformer(size, patch, side, config.drop_path, config.registers, config.layer_scale, rotary, eva02)
    if pretrained and config.weights:
        load_backbone(backbone, config.weights, config.weights_pixels)
    return backbone


def build_cnn(config: CNNConfig, pretrained: bool) -> ResNet38 | EfficientNetLite0:
    """As `build_vit`, for a CNN."""
    frozen = config.frozen_stages
    backbone = ResNet38(config.channels, frozen) if config.backbone == "resnet38" else EfficientNetLite0(frozen)
    if pretrained and config.weights:
        load_backbone(backbone, config.weights)
    return backbone


def head_for(
    backbone: VisionTransformer | ResNet38 | EfficientNetLite0, config: ModelConfig, classes: int, pooling: Pooling = "gwrp"
) -> PatchHead:
    """On a ViT a 3x3 convolution with a bias, as in the paper; on a CNN that of CAM, 1x1 without a bias."""
    kernel = 3 if isinstance(backbone, VisionTransformer) else 1
    return PatchHead(backbone.width, classes, config.gwrp_decay, config.gwrp_patches, kernel, pooling)


def is_new(name: str, pretrained: bool) -> bool:
    """Whether a parameter has no pretrained value, and so gets the larger learning rate."""
    return pretrained and not name.startswith("backbone.")


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Weight decay is for matrices: none on biases, norms, tokens, positions and scalars."""
    return parameter.dim() > 1 and not name.endswith(("cls_token", "reg_token", "pos_embed", "class_position"))
