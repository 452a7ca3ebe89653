"""Global embedding G: one token per class, made from the whole picture by a convolution of its own (paper, Sec. 3.1).

The paper resizes the picture to K x K pixels (K: patch size) and gives each class its own 3x3 convolution and LayerNorm, but does
not say how a K x K map becomes D numbers. There are two readings: stride 2 with D / (K/2)^2 channels, flattened; or D channels,
averaged. The C convolutions are computed as one wide convolution.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.errors import UserError
from mupvss.ops import full_precision


class GlobalEmbedding(nn.Module):
    def __init__(self, classes: int, width: int, patch_size: int, reading: Literal["flatten", "pool"]) -> None:
        super().__init__()
        self.classes, self.width, self.patch_size, self.reading = classes, width, patch_size, reading
        if reading == "flatten":
            cells = (patch_size // 2) ** 2
            if patch_size % 2 or width % cells:
                raise UserError(
                    f"the flattened global embedding needs a width that is a multiple of {cells} for patch size "
                    f'{patch_size}, not {width}; use global_embedding = "pool"'
                )
            self.conv = nn.Conv2d(3, classes * (width // cells), 3, stride=2, padding=1)
        else:
            self.conv = nn.Conv2d(3, classes * width, 3, padding=1)
        self.weight = nn.Parameter(torch.ones(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes, width))

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), normalised -> G (B, C, D), each row of unit variance before its own weight and bias."""
        # Sides are whole patches, so the resize to K x K is a mean over equal cells, which exports with dynamic sizes.
        cells = images.unflatten(-1, (self.patch_size, -1)).unflatten(-3, (self.patch_size, -1))
        small = cells.mean((-1, -3))  # (B, 3, K, K)
        maps = self.conv(small).unflatten(1, (self.classes, -1))  # (B, C, channels, h, w)
        flat = maps.flatten(2) if self.reading == "flatten" else maps.mean((-2, -1))  # (B, C, D)
        return F.layer_norm(full_precision(flat), (self.width,)) * self.weight + self.bias
