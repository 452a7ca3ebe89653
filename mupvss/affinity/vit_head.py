"""An affinity head on the trained ViT: its blocks already know what belongs together, a little convolution says how much.

The classifier stays as it is, so that training takes minutes on a CPU. Colours at twice the grid's fineness give edges.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.model.mctformer import MCTformerNetwork
from mupvss.model.mupvss import MuPVSSNetwork
from mupvss.model.vit_cam import ViTCAMNetwork

WIDTH = 64
DEPTHS = (0.34, 0.67)
"""Shares of the blocks after which features are taken, beside the last ones."""


class ViTAffinity(nn.Module):
    def __init__(self, classifier: ViTCAMNetwork | MCTformerNetwork | MuPVSSNetwork) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(False).eval()
        vit = classifier.backbone
        self.stride = vit.patch_size // 2
        taken = sorted({max(1, round(share * len(vit.blocks))) for share in DEPTHS})
        self._seen: list[Tensor] = []
        for number in taken:  # what enters a block is what the one before it made
            vit.layers()[number].norm1.register_forward_pre_hook(self._keep)
        self.project = nn.ModuleList(nn.Conv2d(vit.width, WIDTH, 1) for _ in range(len(taken) + 1))
        self.edges = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, WIDTH, 1),
        )
        self.join = nn.Conv2d(WIDTH * (len(taken) + 2), 2 * WIDTH, 1)

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._seen.append(inputs[0])

    def train(self, mode: bool = True) -> ViTAffinity:
        super().train(mode)
        self.classifier.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), normalised, whole patches -> features (B, 128, 2H/patch, 2W/patch): two cells per patch side."""
        deep = self._deep(images)
        fine = (2 * deep[0].shape[2], 2 * deep[0].shape[3])
        parts = [
            F.interpolate(layer(x), size=fine, mode="bilinear", align_corners=False)
            for layer, x in zip(self.project, deep, strict=True)
        ]
        small = F.interpolate(images, size=(2 * fine[0], 2 * fine[1]), mode="area")
        return F.elu(self.join(F.relu(torch.cat((*parts, self.edges(small)), 1))))

    @torch.no_grad()
    def _deep(self, images: Tensor) -> list[Tensor]:
        """Patch tokens of several depths, each of unit variance: (B, D, h, w)."""
        self._seen.clear()
        out = self.classifier(images)
        n = out.patches.shape[1]
        tokens = [*(x[:, :n] for x in self._seen), out.patches]
        self._seen.clear()
        return [F.layer_norm(x.float(), x.shape[-1:]).transpose(1, 2).unflatten(2, out.grid) for x in tokens]
