"""DeepLab-V1 (large field of view) on ResNet38: the paper's segmentation network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.model.resnet38 import ResNet38

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
