"""Plain CAM on a ViT: the patch classifier alone, with the pretrained class token alongside the patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mupvss.model.features import Features, RunningMean
from mupvss.model.patch_head import PatchHead
from mupvss.model.vit import VisionTransformer


class ViTCAMNetwork(nn.Module):
    def __init__(self, backbone: VisionTransformer, head: PatchHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor, need_attention: bool = False) -> Features:
        """images (B, 3, H, W), normalised -> Features without prototypes."""
        vit = self.backbone
        patches, grid = vit.embed(images)
        rotation = vit.rotation(grid)
        n = patches.shape[1]
        token = vit.class_token().expand(images.shape[0], -1, -1)
        x = torch.cat((patches, token, vit.registers(images.shape[0])), 1)  # (B, N+1+R, D)
        attention = RunningMean()
        for block in vit.layers():
            x, weights = block.attention_unit(x, need_attention, rotation)
            x = block.mlp_unit(x)
            if weights is not None:
                attention.add(weights[:, :n, :n])
        patches = vit.norm(x[:, :n])
        logits = self.head(patches, grid)
        return Features(grid, patches, logits, self.head.pool(logits), patch_attention=attention.value)
