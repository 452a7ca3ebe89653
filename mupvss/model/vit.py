"""A plain vision transformer with timm's key names, so that DeiT checkpoints load as they are.

It is not timm's: timm needs torchvision, and the prototypes need the two halves of every block and its attention separately.

Source: Dosovitskiy et al. 2021; sizes from Touvron et al. 2021 (DeiT).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.errors import UserError


@dataclass(frozen=True)
class ViTSize:
    """Width D, number of blocks L and number of attention heads."""

    width: int
    depth: int
    heads: int
    conv_stem: bool = False


SIZES: dict[str, ViTSize] = {
    "micro": ViTSize(width=128, depth=4, heads=2, conv_stem=True),
    "tiny": ViTSize(width=192, depth=12, heads=3),
    "small": ViTSize(width=384, depth=12, heads=6),
    "base": ViTSize(width=768, depth=12, heads=12),
    "large": ViTSize(width=1024, depth=24, heads=16),
}
Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of the angles (N, D / heads) by which rotary positions turn the patches' queries and keys."""
ROTARY_BASE = 100.0
"""Ratio of the longest to the shortest period of DINOv3's rotary positions."""
EVA02_BASE, EVA02_GRID = 10000.0, 16
"""The same of EVA-02's; and the side of the grid, in patches, to which its places are scaled."""


EXPLICIT_TOKENS = 400
"""On a CPU, up to this number of tokens, plain matrix products train 2.5 times faster than the fused attention."""


class Attention(nn.Module):
    """Multi-head self-attention; the weights are returned only if they are asked for."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Tensor, need_weights: bool = False, rotation: Rotation | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, T, D) -> output (B, T, D), and the head-averaged weights (B, T, T) or None. rotation: of the first tokens, which
        are patches; the others have no place. seen: (T, T) bool, which token (row) sees which (column); None: each sees all."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = rotated(q, rotation), rotated(k, rotation)
        if need_weights or (x.device.type == "cpu" and t <= EXPLICIT_TOKENS):
            logits = (q * (d // self.heads) ** -0.5) @ k.transpose(-2, -1)
            if seen is not None:
                logits = logits.masked_fill(~seen, -torch.inf)
            weights = logits.softmax(-1)  # (B, heads, T, T)
            out = weights @ v
        else:
            out, weights = F.scaled_dot_product_attention(q, k, v, seen), None
        mean = weights.float().mean(1) if need_weights and weights is not None else None
        return self.proj(out.transpose(1, 2).reshape(b, t, d)), mean


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Turns the pairs of channels (k, k + d/2) of the first N tokens of x (B, heads, T, d); the others stay (RoPE, Su et al.
    2021)."""
    cosine, sine = (angle.to(x.dtype) for angle in rotation)
    count = cosine.shape[0]  # not len(), which would fix the number of patches in an exported network
    patches, others = x[..., :count, :], x[..., count:, :]
    first, second = patches.chunk(2, -1)
    return torch.cat((patches * cosine + torch.cat((-second, first), -1) * sine, others), -2)


class MLP(nn.Module):
    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class GatedMLP(nn.Module):
    """fc1 makes a gate and what it lets through (SwiGLU, Shazeer 2020). normed: with a LayerNorm between, as the larger networks
    of EVA-02 have it."""

    def __init__(self, width: int, normed: bool, eps: float) -> None:
        super().__init__()
        hidden = width * 8 // 3
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.norm: nn.Module = nn.LayerNorm(hidden, eps=eps) if normed else nn.Identity()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, passed = self.fc1(x).chunk(2, -1)
        return self.fc2(self.norm(F.silu(gate) * passed))


class DropPath(nn.Module):
    """Drops a residual branch for whole samples with probability `rate` during training.

    With several processes, each draws for the whole batch and uses its own rows, so that the result is that of one process.
    """

    share = (0, 1)
    """Number of this process's part of the batch, and number of parts."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        part, parts = self.share
        draws = torch.rand(x.shape[0] * parts, 1, 1, device=x.device)[part * x.shape[0] : (part + 1) * x.shape[0]]
        keep = draws >= self.rate
        return x * keep.to(x.dtype) / (1 - self.rate)


class LayerScale(nn.Module):
    """One learned factor per channel on a residual branch (Touvron et al. 2021, CaiT)."""

    def __init__(self, width: int, start: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block, in two units so that a module can act between them."""

    def __init__(
        self, width: int, heads: int, drop_path: float, layer_scale: bool = False, eps: float = 1e-6, mlp: nn.Module | None = None
    ) -> None:
        """mlp: in place of the usual one."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width) if mlp is None else mlp
        self.drop_path = DropPath(drop_path)
        self.ls1: nn.Module = LayerScale(width) if layer_scale else nn.Identity()
        self.ls2: nn.Module = LayerScale(width) if layer_scale else nn.Identity()

    def attention_unit(
        self, x: Tensor, need_weights: bool = False, rotation: Rotation | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """rotation: see `VisionTransformer.rotation`; seen: see `Attention`."""
        out, weights = self.attn(self.norm1(x), need_weights, rotation, seen)
        return x + self.drop_path(self.ls1(out)), weights

    def mlp_unit(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens: one convolution, or a small stack of them for training from scratch."""

    def __init__(self, patch_size: int, width: int, conv_stem: bool = False) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj: nn.Module = _conv_stem(patch_size, width) if conv_stem else nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), H and W multiples of the patch size -> tokens (B, N, D), row by row."""
        h, w = images.shape[-2:]
        if h % self.patch_size or w % self.patch_size:
            raise ValueError(
                f"images of {h}x{w} pixels do not divide into patches of {self.patch_size}; resize them to a multiple of it"
            )
        return self.proj(images).flatten(2).transpose(1, 2)


def _conv_stem(patch_size: int, width: int) -> nn.Sequential:
    """Two convolutions per halving, down to one position per patch.

    With this stem, a small ViT learns small patterns from scratch far sooner. Batch normalisation matters: 400 steps on the drawn
    scenes bring the tags' loss from 0.56 (chance) to 0.33, and with group normalisation to 0.50.
    """
    halvings = patch_size.bit_length() - 1
    if 2**halvings != patch_size:
        raise UserError(f"a convolutional stem needs a patch size that is a power of two, not {patch_size}")
    layers: list[nn.Module] = []
    channels = 3
    for step in range(halvings):
        out = max(width // 2 ** (halvings - 1 - step), 32)
        for stride, entering in ((2, channels), (1, out)):
            layers += [nn.Conv2d(entering, out, 3, stride=stride, padding=1), nn.BatchNorm2d(out), nn.GELU()]
        channels = out
    return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))


class VisionTransformer(nn.Module):
    """The parts of a ViT; `vit_cam.py`, `mctformer.py` and `mupvss.py` decide what runs through them.

    registers: number of extra tokens that carry what belongs to no patch (Darcet et al. 2024). rotary: patches know their place
    by rotation (DINOv3) instead of by a table; the norms are then DINOv3's too. eva02: they know it by both, and the MLPs are
    gated, those of wide networks with a norm (Fang et al. 2023).
    """

    def __init__(
        self,
        size: ViTSize,
        patch_size: int,
        image_size: int,
        drop_path: float,
        registers: int = 0,
        layer_scale: bool = False,
        rotary: bool = False,
        eva02: bool = False,
    ) -> None:
        super().__init__()
        self.eva02 = eva02
        eps = 1e-5 if rotary else 1e-6
        self.head_width = size.width // size.heads
        self.width, self.patch_size = size.width, patch_size
        self.grid = image_size // patch_size
        self.register_count = registers
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = None if rotary else nn.Parameter(torch.zeros(1, 1 + self.grid**2, size.width))
        self.reg_token = nn.Parameter(torch.zeros(1, registers, size.width)) if registers else None
        self.patch_embed = PatchEmbed(patch_size, size.width, size.conv_stem)
        rates = torch.linspace(0, drop_path, size.depth).tolist()
        normed = size.width >= SIZES["base"].width
        self.blocks = nn.ModuleList(
            Block(size.width, size.heads, rate, layer_scale, eps, GatedMLP(size.width, normed, eps) if eva02 else None)
            for rate in rates
        )
        self.norm = nn.LayerNorm(size.width, eps=eps)
        self._reset()

    def _reset(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.reg_token is not None:
            nn.init.trunc_normal_(self.reg_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def layers(self) -> list[Block]:
        """The blocks, typed."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def class_token(self) -> Tensor:
        """The class token with its position, if there is a table of them (1, 1, D)."""
        return self.cls_token if self.pos_embed is None else self.cls_token + self.pos_embed[:, :1]

    def registers(self, batch: int) -> Tensor:
        """The register tokens, which have no position: (batch, R, D), R may be 0."""
        if self.reg_token is None:
            return self.cls_token.new_zeros(batch, 0, self.width)
        return self.reg_token.expand(batch, -1, -1)

    def position(self, grid: tuple[int, int]) -> Tensor:
        """Position embeddings of the patches for a grid of (h, w), resized where it is not the trained one: (1, N, D); zeros
        without a table."""
        if self.pos_embed is None:
            return self.cls_token.new_zeros(1, 1, self.width)
        table = self.pos_embed[:, 1:]
        if grid == (self.grid, self.grid):
            return table
        square = table.reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(square.float(), size=grid, mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2).to(table.dtype)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """images (B, 3, H, W) -> patch tokens with positions (B, N, D), and the grid (h, w)."""
        grid = (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size)
        return self.patch_embed(images) + self.position(grid), grid

    def rotation(self, grid: tuple[int, int]) -> Rotation | None:
        """What every block needs to know of the places of the patches in a grid of (h, w); None with nothing but a table of
        positions.

        Places along each side, over periods of BASE ** (2k / (head width / 2)); the rows' angles come first, then the columns',
        and both once more for the second half of the channels. DINOv3: centres of patches in [-1, 1], times 2 pi; EVA-02: corners
        of patches in [0, EVA02_GRID].
        """
        if self.pos_embed is not None and not self.eva02:
            return None
        device, quarter = self.cls_token.device, self.head_width // 4
        if self.eva02:
            base, sides = EVA02_BASE, [EVA02_GRID * torch.arange(side, device=device) / side for side in grid]
        else:
            base = ROTARY_BASE
            sides = [2 * math.pi * (2 * (torch.arange(side, device=device) + 0.5) / side - 1) for side in grid]
        places = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).flatten(0, 1)  # (N, 2)
        periods = base ** (torch.arange(quarter, device=device) / quarter)
        angles = (places.unsqueeze(-1) / periods).flatten(1).tile(2)
        return angles.cos(), angles.sin()
