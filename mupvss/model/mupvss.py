"""MuP-VSS: prototypes pass through all blocks alongside the patches (the paper's Figure 3, top to bottom)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mupvss.model.features import Features, TokenAttention, first_attention_block
from mupvss.model.global_embedding import GlobalEmbedding
from mupvss.model.patch_head import PatchHead
from mupvss.model.prototype_embedding import PrototypeEmbedding
from mupvss.model.vit import VisionTransformer
from mupvss.ops import full_precision
from mupvss.options import PEMConfig


class MuPVSSNetwork(nn.Module):
    def __init__(
        self,
        backbone: VisionTransformer,
        head: PatchHead,
        classes: int,
        *,
        global_embedding: Literal["flatten", "pool", "copy"] = "flatten",
        token_start: Literal["class_token", "zero"] = "class_token",
        global_scale: float = 0.1,
        attention_skip: float = 0.25,
        pem: PEMConfig | None = None,
        prototypes_seen: bool = True,
        attended_loss: bool = False,
    ) -> None:
        """The options are explained in `methods/mupvss.py`."""
        super().__init__()
        pem = pem or PEMConfig()
        self.backbone, self.head, self.prototypes_seen = backbone, head, prototypes_seen
        self.attended_loss = attended_loss
        self.token_start, self.global_scale, self.attention_skip = token_start, global_scale, attention_skip
        self.class_position = nn.Parameter(torch.zeros(1, classes, backbone.width))
        # Base-R copies one token C times; equal tokens have a cosine gradient of zero, so they start a little apart.
        nn.init.trunc_normal_(self.class_position, std=0.02)
        self.global_embedding = (
            None
            if global_embedding == "copy"
            else GlobalEmbedding(classes, backbone.width, backbone.patch_size, global_embedding)
        )
        self.pem = nn.ModuleDict({str(i): PrototypeEmbedding(pem) for i in _pem_blocks(pem.blocks, len(backbone.blocks))})
        self.p2p_scale = nn.Parameter(torch.tensor(3.0))
        """Natural logarithm of the factor on the pooled similarity."""
        self.p2p_bias = nn.Parameter(torch.full((classes,), -1.0))
        self.found_centres: Tensor | None
        self.other_centres: Tensor | None
        self.register_buffer("found_centres", None)
        self.register_buffer("other_centres", None)

    def remember(self, found: Tensor, other: Tensor) -> None:
        """Keeps the centres (C, K, D) and (C, L, D) that were gathered from all pictures (`search/centres.py`) with the network,
        so that they go wherever it goes."""
        place = self.class_position.device
        self.found_centres, self.other_centres = found.to(place), other.to(place)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        if "found_centres" in state_dict:
            self.remember(*(torch.zeros_like(state_dict[name]) for name in ("found_centres", "other_centres")))
        return super().load_state_dict(state_dict, strict, assign)

    def p2p_decision(self, affine: bool) -> tuple[Tensor | float, Tensor | float]:
        """Factor and bias per class (C,) that turn a similarity into P2P's logit: learned, or 1 and 0."""
        return (self.p2p_scale.exp(), self.p2p_bias) if affine else (1.0, 0.0)

    def embed_prototypes(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) -> the prototypes that enter the first block (B, C, D)."""
        vit = self.backbone
        start = self.class_position.expand(images.shape[0], -1, -1)
        if self.token_start == "class_token" or self.global_embedding is None:
            start = start + vit.class_token()
        if self.global_embedding is not None:
            start = start + self.global_scale * self.global_embedding(images)
        return start

    def forward(self, images: Tensor, need_attention: bool = False) -> Features:
        """images (B, 3, H, W), normalised -> Features with prototypes; attention maps only if asked for, or if something is
        pooled by them."""
        need_attention = need_attention or self.head.needs_attention or (self.training and self.attended_loss)
        vit = self.backbone
        patches, grid = vit.embed(images)
        rotation = vit.rotation(grid)
        n = patches.shape[1]
        prototypes = self.embed_prototypes(images)
        m = n + prototypes.shape[1]
        x = torch.cat((patches, prototypes, vit.registers(images.shape[0])), 1)  # (B, N+C+R, D)
        attention = TokenAttention(n, m - n, first_attention_block(self.attention_skip, len(vit.blocks)))
        seen = None if self.prototypes_seen else only_themselves(x, n, m)
        for i, block in enumerate(vit.layers()):
            x, weights = block.attention_unit(x, need_attention, rotation, seen)
            if str(i) in self.pem:
                x = torch.cat((*self.pem[str(i)](x[:, :n], x[:, n:m]), x[:, m:]), 1)
            x = block.mlp_unit(x)
            attention.add(i, weights)
        normed = vit.norm(x[:, :m])
        patches, prototypes = normed[:, :n], normed[:, n:]
        logits, class_attention = self.head(patches, grid), attention.token.value
        return Features(
            grid=grid,
            patches=patches,
            patch_logits=logits,
            patch_score=self.head.pool(logits, class_attention),
            prototypes=prototypes,
            # Detached, since only the search uses them; the loss uses the parameters themselves.
            decision_scale=self.p2p_scale.detach().exp(),
            decision_bias=self.p2p_bias.detach(),
            found_centres=self.found_centres,
            other_centres=self.other_centres,
            # Right after a fresh LayerNorm the mean over D is zero: the token before the norm carries the signal.
            token_score=full_precision(x[:, n:m]).mean(-1),
            patch_attention=attention.patch.value,
            class_attention=class_attention,
        )


def only_themselves(x: Tensor, first: int, end: int) -> Tensor:
    """x (B, T, D) -> (T, T) bool, see `Attention`: the tokens from `first` to `end` see all, and only they see themselves."""
    asks = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
    asks[first:end] = True
    return asks.unsqueeze(1) | ~asks


def _pem_blocks(which: str, depth: int) -> range:
    first = {"all": 0, "late": depth - depth // 3, "last": depth - 1, "none": depth}[which]
    return range(first, depth)
