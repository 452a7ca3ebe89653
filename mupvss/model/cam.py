"""Plain CAM on a ViT: the patch classifier alone, with the pretrained class token beside the patches. The baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mupvss.model.outputs import Features
from mupvss.model.patch_head import PatchHead
from mupvss.model.vit import VisionTransformer


class CAMNetwork(nn.Module):
    def __init__(self, backbone: VisionTransformer, head: PatchHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor, need_attention: bool = False) -> Features:
        """images (B, 3, H, W), normalised -> Features without prototypes."""
        vit = self.backbone
        patches, grid = vit.embed(images)
        token = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(images), -1, -1)
        x = torch.cat((token, patches), 1)  # (B, 1+N, D)
        seen = []
        for block in vit.layers():
            x, weights = block.attention_unit(x, need_attention)
            x = block.mlp_unit(x)
            if weights is not None:
                seen.append(weights[:, 1:, 1:])
        patches = vit.norm(x[:, 1:])
        logits = self.head(patches, grid)
        attention = torch.stack(seen).mean(0) if seen else None
        return Features(grid, patches, logits, self.head.pool(logits), patch_attention=attention)
