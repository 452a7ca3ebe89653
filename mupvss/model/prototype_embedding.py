"""Prototype Embedding Module (PEM): prototypes and patches enrich each other inside a block (paper, Sec. 3.1).

A = Z Z^T with Z = cat(F, P); entries <= threshold are left out; W = softmax(A) over all N + C columns; then, from the old F and
P, F <- F + gate W[F,P] P and P <- P + gate W[P,F] F. The printed form is `dot`, temperature 1, gate open. At full strength it
destroys pretrained features, so our form compares directions, sharpens the similarities, and starts from a closed gate.
Further options (ours) give each side a softmax of its own, let a token take only from the most similar ones, or match lengths.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.ops import full_precision
from mupvss.options import PEMConfig


def prototype_weights(patches: Tensor, prototypes: Tensor, config: PEMConfig) -> tuple[Tensor, Tensor]:
    """The two blocks of softmax weights that PEM uses: W[F,P] (B, N, C) and W[P,F] (B, C, N).

    A row in which every entry is at or under the threshold gets weights of zero, never NaN.
    """
    n = patches.shape[1]
    if config.logits == "cosine":
        patches, prototypes = (F.normalize(full_precision(x), dim=-1).to(x.dtype) for x in (patches, prototypes))
    if config.softmax == "other":
        between = full_precision(patches @ prototypes.transpose(1, 2))  # (B, N, C)
        to_patches, to_prototypes = _softmax(between, config), _softmax(between.transpose(1, 2), config)
    else:
        tokens = torch.cat((patches, prototypes), 1)  # (B, N+C, D)
        weights = _softmax(full_precision(tokens @ tokens.transpose(1, 2)), config)  # (B, N+C, N+C)
        to_patches, to_prototypes = weights[:, :n, n:], weights[:, n:, :n]
    return _largest(to_patches, config.nearest), _largest(to_prototypes, config.nearest)


def _softmax(similarity: Tensor, config: PEMConfig) -> Tensor:
    lowest = torch.finfo(similarity.dtype).min * min(1.0, config.temperature)
    kept = F.threshold(similarity, config.threshold, lowest)
    weights = (kept / config.temperature).softmax(-1)
    if config.logits == "dot" or config.threshold >= 1 or config.softmax == "other":
        return weights * (kept.amax(-1, keepdim=True) > config.threshold)
    return weights  # a row of cosines over all tokens keeps its diagonal


def _largest(weights: Tensor, count: int) -> Tensor:
    """Weights that are not among the `count` largest of their row become 0, and the row keeps its sum."""
    if count == 0 or count >= weights.shape[-1]:
        return weights
    chosen = weights * (weights >= weights.topk(count, dim=-1).values[..., -1:])
    return chosen * weights.sum(-1, keepdim=True) / chosen.sum(-1, keepdim=True).clamp_min(1e-12)


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
            enriched_patches = patches + gate * self._taken(to_patches, prototypes, patches)
        if self.config.enriched != "patches":
            enriched_prototypes = prototypes + gate * self._taken(to_prototypes, patches, prototypes)
        return enriched_patches, enriched_prototypes

    def _taken(self, weights: Tensor, values: Tensor, tokens: Tensor) -> Tensor:
        """What the tokens (B, T, D) take from the values (B, V, D) by weights (B, T, V)."""
        if self.config.lengths == "own":
            return weights.to(values.dtype) @ values
        unit = F.normalize(full_precision(values), dim=-1).to(values.dtype)
        return (weights.to(values.dtype) @ unit) * full_precision(tokens).norm(dim=-1, keepdim=True).to(values.dtype)
