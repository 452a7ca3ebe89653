"""Class-token contrast (MCTformer+, Xu et al. 2024): in every block, each class's token resembles itself and no other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mupvss.ops import full_precision, pairwise_cosine


def token_contrast(tokens: Tensor) -> Tensor:
    """tokens (L, B, C, D): the C class tokens after each of L blocks -> scalar.

    Cross-entropy between the cosines of a picture's tokens, as C logits per token, and the identity; mean over blocks,
    pictures and tokens. Its minimum is log(1 + (C-1) exp(-C/(C-1))), reached by evenly spread tokens.
    """
    blocks, pictures, classes, width = tokens.shape
    cosines = pairwise_cosine(full_precision(tokens).reshape(blocks * pictures, classes, width))
    targets = torch.arange(classes, device=tokens.device).repeat(blocks * pictures)
    return F.cross_entropy(cosines.reshape(-1, classes), targets)
