"""CAM with a CNN (Zhou et al. 2016): class weights over the last feature map. The paper's first family.

With `recam`, ReCAM's re-activation (Chen et al. 2022): a second classifier sees the features under one class's map at a time and
must recognise that class by softmax. Its weights then correct those of the map.
"""

from __future__ import annotations

from torch import Tensor, nn

from mupvss.model.cnn import EfficientNetLite0, ResNet38
from mupvss.model.features import Features
from mupvss.model.patch_head import PatchHead


class CNNCAMNetwork(nn.Module):
    def __init__(self, backbone: ResNet38 | EfficientNetLite0, head: PatchHead, recam: bool) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.reactivation = nn.Linear(backbone.width, head.conv.out_channels, bias=False) if recam else None

    def forward(self, images: Tensor, need_attention: bool = False) -> Features:
        """images (B, 3, H, W), normalised -> Features without prototypes and without attention, which a CNN does not have."""
        square = self.backbone(images)  # (B, D, h, w)
        grid = (square.shape[2], square.shape[3])
        patches = square.flatten(2).transpose(1, 2)
        logits = self.head(patches, grid)
        reactivated = None
        if self.reactivation is not None:
            weight = self.head.conv.weight.flatten(1) * self.reactivation.weight  # (C, D)
            reactivated = (patches @ weight.t().to(patches.dtype)).transpose(1, 2)
        return Features(grid, patches, logits, self.head.pool(logits), reactivated_logits=reactivated)
