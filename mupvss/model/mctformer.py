"""MCTformer (Xu et al. 2022): one class token per class alongside the patches, whose attention shows where the class is.

The paper's second family. Class tokens are copies of the pretrained one, distinguished by a learned class position. The plus
variant (Xu et al. 2024) adds a contrast between the class tokens of every block (losses/token_contrast_loss.py) and GWRP.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mupvss.model.features import Features, TokenAttention, first_attention_block
from mupvss.model.patch_head import PatchHead
from mupvss.model.vit import VisionTransformer
from mupvss.ops import full_precision


class MCTformerNetwork(nn.Module):
    def __init__(self, backbone: VisionTransformer, head: PatchHead, classes: int, attention_skip: float = 0.25) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.attention_from = first_attention_block(attention_skip, len(backbone.blocks))
        self.class_position = nn.Parameter(torch.zeros(1, classes, backbone.width))
        nn.init.trunc_normal_(self.class_position, std=0.02)

    def forward(self, images: Tensor, need_attention: bool = False) -> Features:
        """images (B, 3, H, W), normalised -> Features with class attention, without prototypes."""
        vit = self.backbone
        patches, grid = vit.embed(images)
        rotation = vit.rotation(grid)
        n, c = patches.shape[1], self.class_position.shape[1]
        tokens = (vit.class_token() + self.class_position).expand(images.shape[0], -1, -1)
        x = torch.cat((patches, tokens, vit.registers(images.shape[0])), 1)  # (B, N+C+R, D)
        attention = TokenAttention(n, c, self.attention_from)
        need_attention = need_attention or self.head.needs_attention
        per_block = []
        for i, block in enumerate(vit.layers()):
            x, weights = block.attention_unit(x, need_attention, rotation)
            x = block.mlp_unit(x)
            per_block.append(x[:, n : n + c])
            attention.add(i, weights)
        patches = vit.norm(x[:, :n])
        logits, class_attention = self.head(patches, grid), attention.token.value
        return Features(
            grid=grid,
            patches=patches,
            patch_logits=logits,
            patch_score=self.head.pool(logits, class_attention),
            token_score=full_precision(x[:, n : n + c]).mean(-1),
            block_tokens=torch.stack(per_block),
            patch_attention=attention.patch.value,
            class_attention=class_attention,
        )
