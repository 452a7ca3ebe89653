"""Checkpoints of vision transformers in the layouts people have, brought to timm's key names.

timm's own; DINOv2's (`register_tokens`); and those of the Hugging Face library transformers (ViT, DeiT, DINOv2, with or
without registers), which keeps query, key and value apart.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

PREFIXES = ("module.", "backbone.", "vit.", "deit.", "dinov2.", "dinov2_with_registers.")
RENAMED = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^(embeddings\.)?register_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.attention\.", r"blocks.\1.attn."),
    (r"^encoder\.layer\.(\d+)\.(?:layernorm_before|norm1)\.", r"blocks.\1.norm1."),
    (r"^encoder\.layer\.(\d+)\.(?:layernorm_after|norm2)\.", r"blocks.\1.norm2."),
    (r"^encoder\.layer\.(\d+)\.(?:intermediate\.dense|mlp\.fc1)\.", r"blocks.\1.mlp.fc1."),
    (r"^encoder\.layer\.(\d+)\.(?:output\.dense|mlp\.fc2)\.", r"blocks.\1.mlp.fc2."),
    (r"^encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^layernorm\.", "norm."),
)
QKV = ("query", "key", "value")


def to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Any known layout -> timm's names; position embeddings always with the class token's first. Unknown keys are kept."""
    renamed = _join_qkv({_rename(key): value for key, value in state.items()})
    table = renamed.get("pos_embed")
    if table is not None and round(table.shape[1] ** 0.5) ** 2 == table.shape[1]:
        # Patches only (timm's models with registers): their class token has no position.
        renamed["pos_embed"] = torch.cat((torch.zeros_like(table[:, :1]), table), 1)
    return renamed


def _rename(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    for pattern, replacement in RENAMED:
        key, found = re.subn(pattern, replacement, key)
        if found:
            break
    return key


def _join_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """attn.query, attn.key and attn.value -> attn.qkv."""
    joined = {}
    for key, value in state.items():
        found = re.match(r"(blocks\.\d+\.attn\.)(query|key|value)\.(weight|bias)$", key)
        if found is None:
            joined[key] = value
        elif found[2] == "query":
            joined[f"{found[1]}qkv.{found[3]}"] = torch.cat([state[f"{found[1]}{part}.{found[3]}"] for part in QKV])
    return joined
