"""Prototype Embedding Module (PEM): prototypes and patches enrich each other inside a block (paper, Sec. 3.1).

A = Z Z^T with Z = cat(F, P); entries <= threshold are left out; W = softmax(A) over all N + C columns; then, from the old F and
P, F <- F + gate W[F,P] P and P <- P + gate W[P,F] F. The printed form is `dot`, temperature 1, gate open. At full strength it
destroys pretrained features, so our form compares directions, sharpens the similarities, and starts from a closed gate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.ops import full_precision
from mupvss.options import PEMConfig


def prototype_weights(patches: Tensor, prototypes: Tensor, config: PEMConfig) -> tuple[Tensor, Tensor]:
    """Softmax weights over all N + C tokens, the two blocks PEM uses: W[F,P] (B, N, C) and W[P,F] (B, C, N).

    A row in which every entry is at or under the threshold gets weights of zero, never NaN.
    """
    tokens = torch.cat((patches, prototypes), 1)  # (B, N+C, D)
    if config.logits == "cosine":
        tokens = F.normalize(full_precision(tokens), dim=-1).to(tokens.dtype)
    similarity = full_precision(tokens @ tokens.transpose(1, 2))  # (B, N+C, N+C)
    lowest = torch.finfo(similarity.dtype).min * min(1.0, config.temperature)
    kept = F.threshold(similarity, config.threshold, lowest)
    weights = (kept / config.temperature).softmax(-1)
    if config.logits == "dot" or config.threshold >= 1:  # a cosine row always keeps its diagonal
        weights = weights * (kept.amax(-1, keepdim=True) > config.threshold)
    n = patches.shape[1]
    return weights[:, :n, n:], weights[:, n:, :n]


class PrototypeEmbedding(nn.Module):
    def __init__(self, config: PEMConfig) -> None:
        super().__init__()
        self.config = config
        self.gate = nn.Parameter(torch.zeros(())) if config.gate == "learned" else None

    def forward(self, patches: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
        """patches F (B, N, D), prototypes P (B, C, D) -> the enriched F and P, same shapes."""
        to_patches, to_prototypes = prototype_weights(patches, prototypes, self.config)
        gate = 1.0 if self.gate is None else self.gate
        enriched_patches, enriched_prototypes = patches, prototypes
        if self.config.enriched != "prototypes":
            enriched_patches = patches + gate * (to_patches.to(prototypes.dtype) @ prototypes)
        if self.config.enriched != "patches":
            enriched_prototypes = prototypes + gate * (to_prototypes.to(patches.dtype) @ patches)
        return enriched_patches, enriched_prototypes
