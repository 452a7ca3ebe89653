"""PSA's AffinityNet: features of three depths of ResNet38, brought together so that distance means affinity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.model.resnet38 import ResNet38

CHANNELS = (64, 128, 256)
"""Of the three depths, at full width."""


class AffinityNet(nn.Module):
    def __init__(self, backbone: ResNet38) -> None:
        super().__init__()
        self.backbone, self.stride = backbone, backbone.stride
        share = backbone.width / 4096
        widths = [max(8, int(c * share)) for c in CHANNELS]
        entering = backbone.stage_widths
        self.f8_3 = nn.Conv2d(entering[0], widths[0], 1, bias=False)
        self.f8_4 = nn.Conv2d(entering[1], widths[1], 1, bias=False)
        self.f8_5 = nn.Conv2d(entering[2], widths[2], 1, bias=False)
        self.f9 = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), normalised -> features (B, D, H/8, W/8), not negative."""
        conv4, conv5, conv6 = self.backbone.stages(images)
        parts = [F.elu(layer(x)) for layer, x in ((self.f8_3, conv4), (self.f8_4, conv5), (self.f8_5, conv6))]
        return F.elu(self.f9(torch.cat(parts, 1)))
