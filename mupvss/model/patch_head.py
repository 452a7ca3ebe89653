"""The patch classifier: a convolution over the patch grid, pooled by GWRP (the paper's CLS branch on patches).

On a ViT it is 3x3 with a bias, as in the paper; on a CNN that of CAM, 1x1 without a bias.
"""

from __future__ import annotations

from torch import Tensor, nn

from mupvss.ops import Pooling, full_precision, pooled


class PatchHead(nn.Module):
    def __init__(
        self, width: int, classes: int, decay: float, reference_patches: int, kernel: int = 3, pooling: Pooling = "gwrp"
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, classes, kernel, padding=kernel // 2, bias=kernel > 1)
        self.decay, self.reference_patches, self.pooling = decay, reference_patches, pooling

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """patches (B, N, D) on a grid (h, w), N = h*w -> logits (B, C, N): the class activation maps."""
        square = patches.transpose(1, 2).unflatten(2, grid)  # (B, D, h, w)
        return self.conv(square).flatten(2)

    @property
    def needs_attention(self) -> bool:
        """Whether `pool` needs what the classes' tokens attend to."""
        return self.pooling == "attention"

    def pool(self, logits: Tensor, attention: Tensor | None = None) -> Tensor:
        """logits (B, C, N) -> one logit per class (B, C), float32. attention: what the classes' tokens attend to (B, C, N)."""
        return pooled(full_precision(logits), self.pooling, self.decay, self.reference_patches, attention)
