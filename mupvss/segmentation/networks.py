"""The segmentation networks: DeepLab-V1 (large field of view) on ResNet38, as the paper has it, and a light one on the
classifier's ViT.

The light decoder reads tokens of several depths. Tokens live on a grid of patches; a few convolutions over the picture at a
quarter of its size bring back where objects end.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.model.cnn import ResNet38
from mupvss.model.vit import VisionTransformer
from mupvss.segmentation.losses import weighed_by_presence

MIDDLE = 512
DILATION = 12


class DeepLab(nn.Module):
    def __init__(self, backbone: ResNet38, labels: int) -> None:
        super().__init__()
        self.backbone, self.stride = backbone, backbone.stride
        middle = max(8, round(MIDDLE * backbone.width / 4096))
        self.fc1 = nn.Conv2d(backbone.width, middle, 3, padding=DILATION, dilation=DILATION)
        self.fc2 = nn.Conv2d(middle, labels, 1)

    def train(self, mode: bool = True) -> DeepLab:
        """Batch normalisation keeps the statistics of a pretrained backbone; from scratch there are none to keep."""
        super().train(mode)
        if self.backbone.frozen_stages:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, images: Tensor, need_presence: bool = False) -> Tensor | tuple[Tensor, None]:
        """images (B, 3, H, W), normalised -> logits (B, labels, H/8, W/8), the background first; it has no image-level head."""
        logits = self.fc2(F.relu(self.fc1(self.backbone(images))))
        return (logits, None) if need_presence else logits


WIDTH, EDGES, FUSED = 128, 48, 64
DEPTHS = (0.5, 0.75, 1.0)
"""Depths, as shares of the blocks, whose tokens the decoder reads."""
CLASSLESS = ("tokens.", "edges.", "join.", "fuse.0.", "fuse.1.")
"""Prefixes of the decoder's layers that do not depend on the classes."""


class ViTSegmenter(nn.Module):
    def __init__(self, backbone: VisionTransformer, labels: int, presence: bool = True) -> None:
        """presence: whether there is an image-level head, which weighs every class's scores."""
        super().__init__()
        self.backbone, self.stride = backbone, backbone.patch_size
        depth = len(backbone.blocks)
        self.taken = sorted({max(1, round(share * depth)) for share in DEPTHS})
        self.tokens = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(backbone.width), nn.Linear(backbone.width, WIDTH)) for _ in self.taken
        )
        self.edges = nn.Sequential(_conv(3, 32, stride=2), _conv(32, EDGES, stride=2), _conv(EDGES, EDGES))
        self.join = nn.Sequential(_conv(WIDTH, WIDTH), _conv(WIDTH, WIDTH))
        self.fuse = nn.Sequential(_conv(WIDTH + EDGES, FUSED, kernel=1), _conv(FUSED, FUSED), nn.Conv2d(FUSED, labels, 1))
        self.presence = nn.Linear(backbone.width, labels - 1) if presence else None

    def decoder_without_classes(self) -> list[str]:
        """Names of the decoder's tensors whose shape does not depend on the number of classes."""
        return [name for name in self.state_dict() if name.startswith(CLASSLESS)]

    def forward(self, images: Tensor, need_presence: bool = False) -> Tensor | tuple[Tensor, Tensor | None]:
        """images (B, 3, H, W), normalised, whole patches -> logits (B, labels, H/4, W/4), the background first; if asked for,
        also the logits of each class's presence in the picture (B, labels - 1), None without a head for it."""
        vit = self.backbone
        patches, grid = vit.embed(images)
        rotation = vit.rotation(grid)
        n = patches.shape[1]
        x = torch.cat((patches, vit.class_token().expand(images.shape[0], -1, -1), vit.registers(images.shape[0])), 1)
        total = torch.zeros((), device=images.device)
        for number, block in enumerate(vit.layers(), 1):
            x = block.mlp_unit(block.attention_unit(x, rotation=rotation)[0])
            if number in self.taken:
                total = total + self.tokens[self.taken.index(number)](x[:, :n])
        square = self.join(total.transpose(1, 2).unflatten(2, grid))
        edges = self.edges(images)
        large = F.interpolate(square.float(), size=edges.shape[2:], mode="bilinear", align_corners=False)
        logits = self.fuse(torch.cat((large.to(edges.dtype), edges), 1))
        presence = None
        if self.presence is not None:
            presence = self.presence(vit.norm(x[:, n]))  # of the class token, which has looked at every patch
            logits = weighed_by_presence(logits, presence)
        return (logits, presence) if need_presence else logits


def _conv(entering: int, leaving: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(entering, leaving, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(leaving), nn.ReLU()
    )
