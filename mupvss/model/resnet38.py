"""ResNet38, the wide residual network of weakly supervised segmentation (Wu et al. 2019), at stride 8.

The tensors' names are those of the checkpoint `res38_cls.pth` that users of PSA and MCTformer have.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.model.frozen import freeze

STRIDE = 8
FULL_WIDTH = 4096


class Basic(nn.Module):
    """Pre-activation block of two 3x3 convolutions."""

    def __init__(self, entering: int, middle: int, leaving: int, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        first, second = dilations
        self.bn_branch2a = nn.BatchNorm2d(entering)
        self.conv_branch2a = nn.Conv2d(entering, middle, 3, stride, padding=first, dilation=first, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = nn.Conv2d(middle, leaving, 3, padding=second, dilation=second, bias=False)
        same = entering == leaving and stride == 1
        self.conv_branch1 = None if same else nn.Conv2d(entering, leaving, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn_branch2a(x))
        branch = self.conv_branch2b1(F.relu(self.bn_branch2b1(self.conv_branch2a(active))))
        return (x if self.conv_branch1 is None else self.conv_branch1(active)) + branch


class Bottleneck(nn.Module):
    """Pre-activation block 1x1, 3x3 (dilated), 1x1, with dropout between."""

    def __init__(self, entering: int, leaving: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(entering)
        self.conv_branch2a = nn.Conv2d(entering, leaving // 4, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(leaving // 4)
        self.conv_branch2b1 = nn.Conv2d(leaving // 4, leaving // 2, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn_branch2b2 = nn.BatchNorm2d(leaving // 2)
        self.conv_branch2b2 = nn.Conv2d(leaving // 2, leaving, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(entering, leaving, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn_branch2a(x))
        branch = self.conv_branch2b1(self.dropout(F.relu(self.bn_branch2b1(self.conv_branch2a(active)))))
        branch = self.conv_branch2b2(self.dropout(F.relu(self.bn_branch2b2(branch))))
        return self.conv_branch1(active) + branch


class ResNet38(nn.Module):
    """width: factor on every number of channels; 1 is the original with 4096 features, 1/8 runs on a CPU.

    frozen_stages: 1 keeps the pretrained weights of conv1a, 2 those of b2 as well (PSA's choice), and so on.
    """

    def __init__(self, width: float = 1.0, frozen_stages: int = 0) -> None:
        super().__init__()
        self.frozen_stages = frozen_stages
        c = [max(8, int(n * width)) // 8 * 8 for n in (64, 128, 256, 512, 1024, 2048, FULL_WIDTH)]
        self.width, self.stride = c[6], STRIDE
        self.stage_widths = (c[3], c[4], c[6])
        self.conv1a = nn.Conv2d(3, c[0], 3, padding=1, bias=False)
        for stage, entering, leaving, blocks in ((2, c[0], c[1], 3), (3, c[1], c[2], 3), (4, c[2], c[3], 6)):
            for k in range(blocks):
                block = Basic(leaving if k else entering, leaving, leaving, stride=1 if k else 2)
                self.add_module(_name(stage, k), block)
        for k in range(3):
            self.add_module(_name(5, k), Basic(c[4] if k else c[3], c[3], c[4], dilations=(2 if k else 1, 2)))
        self.b6 = Bottleneck(c[4], c[5], dilation=4, dropout=0.3)
        self.b7 = Bottleneck(c[5], c[6], dilation=4, dropout=0.5)
        self.bn7 = nn.BatchNorm2d(c[6])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # Not channels-last: the CPU's gradient of narrow dilated convolutions then writes outside its memory (PyTorch 2.13).

        self.train()

    def train(self, mode: bool = True) -> ResNet38:
        super().train(mode)
        stages = ["conv1a", *(f"b{k}" for k in range(2, 8))][: self.frozen_stages]
        freeze(module for name, module in self.named_children() if name.split("_")[0] in stages)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), normalised -> features (B, width, ceil(H/8), ceil(W/8)), not negative."""
        return self.stages(images)[2]

    def stages(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images (B, 3, H, W) -> what AffinityNet reads, all at stride 8: (B, 512, ...) and (B, 1024, ...) as they enter the
        fifth and sixth stage, (B, 4096, ...) at the end; at full width."""
        kept = []
        x = images
        for name, layer in self.named_children():
            if name in ("b5", "b6") and isinstance(layer, (Basic, Bottleneck)):
                kept.append(F.relu(layer.bn_branch2a(x)))
            x = layer(x)
        return kept[0], kept[1], F.relu(x)


def _name(stage: int, k: int) -> str:
    return f"b{stage}_{k}" if k else f"b{stage}"
