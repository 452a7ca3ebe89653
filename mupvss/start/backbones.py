"""The pretrained backbones that `mupvss init` knows by one word, with the settings that their weights ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Word = Literal[
    "tiny",
    "small",
    "deit3-small",
    "dino-small",
    "augreg-tiny",
    "augreg-small",
    "dinov2-small",
    "dinov2-small-registers",
    "dinov3-small",
    "eva02-tiny",
    "eva02-small",
]
"""What `--backbone` accepts."""


@dataclass(frozen=True)
class Backbone:
    size: str
    """As `model.backbone`."""
    weights: str
    """Name on the Hugging Face hub."""
    settings: Mapping[str, str | int | bool] = field(default_factory=dict)
    """Other options of `model`."""

    @property
    def flattens(self) -> bool:
        """Whether the patches' side suits the flattened global embedding, which wants a width of a quarter of its square."""
        return self.settings.get("patch_size", 16) == 16


DINOV2 = {"patch_size": 14, "layer_scale": True}
EVA02: Mapping[str, str | int | bool] = {"patch_size": 14, "family": "eva02", "weights_pixels": "clip"}
BACKBONES: Mapping[Word, Backbone] = {
    "tiny": Backbone("tiny", "timm/deit_tiny_patch16_224.fb_in1k"),
    "small": Backbone("small", "timm/deit_small_patch16_224.fb_in1k"),
    "deit3-small": Backbone("small", "timm/deit3_small_patch16_224.fb_in22k_ft_in1k", {"layer_scale": True}),
    "dino-small": Backbone("small", "timm/vit_small_patch16_224.dino"),
    "augreg-tiny": Backbone("tiny", "timm/vit_tiny_patch16_224.augreg_in21k", {"weights_pixels": "half"}),
    "augreg-small": Backbone("small", "timm/vit_small_patch16_224.augreg_in21k", {"weights_pixels": "half"}),
    "dinov2-small": Backbone("small", "timm/vit_small_patch14_dinov2.lvd142m", DINOV2),
    "dinov2-small-registers": Backbone("small", "timm/vit_small_patch14_reg4_dinov2.lvd142m", {**DINOV2, "registers": 4}),
    "dinov3-small": Backbone(
        "small", "timm/vit_small_patch16_dinov3.lvd1689m", {"layer_scale": True, "registers": 4, "position": "rotary"}
    ),
    "eva02-tiny": Backbone("tiny", "timm/eva02_tiny_patch14_224.mim_in22k", EVA02),
    "eva02-small": Backbone("small", "timm/eva02_small_patch14_224.mim_in22k", EVA02),
}
